'use strict';

// One validation of one environment: every rule that a schema has is asked here.

const { and } = require('./file');
const { count, textOf } = require('./python');
const { ERROR, Report, WARNING, problem } = require('./report');
const secrets = require('./secrets');
const { check, comparable, hasInvisible, hostOf } = require('./types');

// Set by the system or by Node.js itself: a .env file that sets one changes more than the application.
const RESERVED = /^(?:PATH|HOME|USER|SHELL|PWD|IFS|NODE_OPTIONS|NODE_PATH|PM2_HOME|LD_[^]*|npm_[^]*|PM2_[^]*)$/;

// A file of random bytes has a million names; nobody reads more than this many of them.
const MOST_NAMES = 100;

// Linux takes no more than this for one NAME=value (MAX_ARG_STRLEN), in bytes.
const LONGEST_VARIABLE = 131072;

const OPERATORS = {
  '==': ['equal to', (left, right) => left === right],
  '!=': ['different from', (left, right) => left !== right],
  '<': ['less than', (left, right) => left < right],
  '<=': ['at most', (left, right) => left <= right],
  '>': ['more than', (left, right) => left > right],
  '>=': ['at least', (left, right) => left >= right],
};

const has = (rules, rule) => Object.hasOwn(rules, rule);
const are = (names) => (names.length === 1 ? 'is' : 'are');

/** Whether a name fits a pattern of a shell: * is any text, ? any character, [a-z] one of a range. */
function fits(name, pattern) {
  let source = '';
  for (let index = 0; index < pattern.length; index += 1) {
    const character = pattern[index];
    const close = pattern.indexOf(']', index + (pattern[index + 1] === '!' ? 3 : 2));
    if (character === '*') source += '[^]*';
    else if (character === '?') source += '[^]';
    else if (character === '[' && close !== -1) {
      const inside = pattern.slice(index + 1, close).replace(/[\\[\]^&|~]/g, '\\$&');
      source += `[${inside.startsWith('!') ? `^${inside.slice(1)}` : inside}]`;
      index = close;
    } else source += character.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  }
  return new RegExp(`^${source}$`).test(name);
}

class Validation {
  /**
   * @param {import('./schema').Schema} schema
   * @param {Map<string, {value: string, line: number|null}>} entries what is to be judged
   * @param {string} environment one of the schema's environments, or empty for the base rules
   */
  constructor(schema, entries, environment) {
    this.schema = schema;
    this.entries = entries;
    this.environment = environment;
    this.unknown = schema.data.unknown ?? WARNING;
    this.rules = new Map(schema.names.map((name) => [name, schema.rulesFor(name, environment)]));
    this.problems = [];
  }

  run() {
    for (const [name, rules] of this.rules) this.variable(name, rules);
    this.sameSecrets();
    this.groups();
    this.comparisons();
    this.unknownNames();
    return new Report(this.environment, this.problems);
  }

  /** The value of a variable that is set, or null; an empty one counts as not set unless it may be empty. */
  value(name) {
    const entry = this.entries.get(name);
    if (!entry || (entry.value === '' && !this.rules.get(name)?.allow_empty)) return null;
    return entry.value;
  }

  /** The value of a variable, or the one that the schema states for it, or null. */
  valueOrDefault(name) {
    const rules = this.rules.get(name);
    return this.value(name) || (has(rules, 'default') ? textOf(rules.default) : null);
  }

  say(code, variable, message, remedy = '', { severity = ERROR, found = '' } = {}) {
    const line = this.entries.get(variable)?.line;
    this.problems.push(problem({ severity, code, variable, message, remedy, found, line }));
  }

  why() {
    return this.environment ? ` in ${this.environment}` : '';
  }

  variable(name, rules) {
    const value = this.value(name);
    if (value === null) {
      this.missing(name, rules);
      return;
    }
    const ownRemedy = rules.remedy ?? '';
    if (rules.forbidden) {
      this.say('forbidden', name, `${name} must not be set${this.why()}.`, ownRemedy || 'Remove it.');
      return;
    }
    const secret = Boolean(rules.secret);
    const described = { found: secrets.describe(value) };
    if (has(rules, 'deprecated')) this.deprecated(name, rules.deprecated);
    if (Buffer.byteLength(value) + count(name) + 2 > LONGEST_VARIABLE) {
      this.say(
        'too_long',
        name,
        `${name} is longer than the system allows (${LONGEST_VARIABLE} bytes).`,
        'Put it in a file, and the path of that in the environment.',
        { found: `${count(value)} characters` },
      );
      return;
    }
    const kind = rules.type ?? 'string';
    const allowed = (rules.values ?? []).map(textOf);
    if (!allowed.includes(value) && secrets.leftover(value)) {
      this.say(
        'template_leftover',
        name,
        `${name} holds a template or vault text instead of what it stands for.`,
        'Check how the inventory sets it.',
        described,
      );
      return;
    }
    if (!rules.allow_placeholder && !allowed.includes(value)) {
      const more = [...(rules.placeholders ?? []).map(textOf), ...(secret ? this.schema.examples(name) : [])];
      const host = hostOf(kind, value);
      if (secrets.placeholder(value, secret, more) || (host && secrets.exampleHost(host))) {
        const remedy = ownRemedy || 'Set the real value.';
        this.say('placeholder', name, `${name} still has a placeholder.`, remedy, described);
        return;
      }
    }
    if (/^(["'])[^]+\1$/.test(value) && kind !== 'json' && kind !== 'regex') {
      this.say(
        'quoted_twice',
        name,
        `${name} has quotes around its value that are part of it.`,
        'Take out one pair of quotes.',
        described,
      );
      return;
    }
    const finding = check(kind, value, rules);
    if (finding) {
      const base = this.schema.variables[name];
      const known = [...(base.values ?? []), ...(rules.values ?? [])].map(textOf);
      if (kind === 'boolean') known.push('true', 'false');
      const found = secrets.shown(value, secret, known);
      const where = check(kind, value, base) === null ? this.why() : '';
      const message = `${name} ${finding.message}${where} (found ${found}).`;
      this.say(finding.code, name, message, ownRemedy || finding.remedy, { found });
      return;
    }
    const weakness = secret ? secrets.weakness(value, Number(rules.min_entropy ?? 0)) : null;
    if (weakness) {
      const remedy = ownRemedy || 'Generate a random one, for example with `openssl rand -hex 32`.';
      this.say('weak_secret', name, `${name} ${weakness}.`, remedy, described);
    }
  }

  deprecated(name, replacement) {
    let remedy = replacement ? `Use ${replacement} instead.` : 'Remove it.';
    if (replacement && this.value(replacement) !== null) {
      remedy = `${replacement} is set too and counts: remove ${name}.`;
    }
    this.say('deprecated', name, `${name} is deprecated.`, remedy, { severity: WARNING });
  }

  missing(name, rules) {
    let reason = '';
    if (rules.required) {
      reason = this.schema.variables[name].required ? '' : this.why();
    } else {
      const condition = this.metCondition(rules.required_if ?? {});
      if (condition === null) return;
      reason = `, because ${condition}`;
    }
    const state = this.entries.has(name) ? 'empty' : 'not set';
    let remedy = rules.remedy ?? '';
    if (!remedy) {
      const description = String(rules.description ?? '').replace(/\.+$/, '');
      remedy = description ? `Set it: ${description}.` : 'Set it.';
    }
    const old = [...this.rules].find(([other, own]) => own.deprecated === name && this.value(other));
    const near = this.entries.has(name) ? undefined : this.misspelt(name);
    if (old) remedy = `${old[0]} is its old name and is set: rename it.`;
    else if (near) remedy = `${near} is set: if that is meant, rename it. ${remedy}`;
    this.say('missing', name, `${name} is ${state} but required${reason}.`, remedy, { found: state });
  }

  misspelt(name) {
    this.strangers ??= [...this.entries.keys()].filter((other) => !this.rules.has(other)).slice(0, MOST_NAMES);
    return this.strangers.find((other) => secrets.nearest(other, [name]) === name);
  }

  /** The first condition that holds, or null; `*` stands for "is set at all". */
  metCondition(conditions) {
    for (const [other, wanted] of Object.entries(conditions)) {
      const value = this.value(other);
      if (value === null) continue;
      const allowed = (Array.isArray(wanted) ? wanted : [wanted]).map(textOf);
      if (allowed.includes('*')) return `${other} is set`;
      if (!allowed.includes(value)) continue;
      return this.rules.get(other).secret ? `${other} has that value` : `${other} is ${value}`;
    }
    return null;
  }

  reported() {
    return new Set(this.problems.map(({ variable }) => variable));
  }

  /** A secret that another variable has too is no longer one. */
  sameSecrets() {
    const reported = this.reported();
    const holders = new Map();
    for (const [name, { secret }] of this.rules) {
      const value = this.value(name);
      if (value && !secret && !holders.has(value)) holders.set(value, name);
    }
    for (const [name, { secret }] of this.rules) {
      const value = this.value(name);
      if (!value || !secret) continue;
      if (!holders.has(value)) holders.set(value, name);
      const other = holders.get(value);
      if (other !== name && !reported.has(name)) {
        this.say(
          'shared_secret',
          name,
          `${name} has the same value as ${other}.`,
          'Give every secret a value of its own.',
          { found: secrets.describe(value) },
        );
      }
    }
  }

  groups() {
    const lineage = this.schema.lineage(this.environment);
    for (const group of this.schema.data.groups ?? []) {
      if (group.environments?.length > 0 && !group.environments.some((name) => lineage.includes(name))) continue;
      const names = group.variables;
      const present = names.filter((name) => this.value(name) !== null);
      const absent = names.filter((name) => !present.includes(name));
      const title = group.name ?? names.join(', ');
      const remedy = group.remedy ?? '';
      const { rule } = group;
      if (rule === 'all_or_none' && present.length > 0 && absent.length > 0) {
        this.say(
          'group',
          present[0],
          `${title}: ${and(present)} ${are(present)} set, but ${and(absent)} ${are(absent)} not.`,
          remedy || `Set ${and(absent)} too, or remove ${and(present)}.`,
        );
      } else if (['exactly_one', 'at_least_one'].includes(rule) && present.length === 0) {
        this.say('group', names[0], `${title}: none of ${and(names)} is set.`, remedy || 'Set one of them.');
      } else if (['exactly_one', 'at_most_one'].includes(rule) && present.length > 1) {
        const message = `${title}: ${and(present)} are set, but only one may be.`;
        this.say('group', present[1], message, remedy || 'Keep the one that is meant.');
      }
    }
  }

  comparisons() {
    const reported = this.reported();
    for (const { left, right, operator, remedy } of this.schema.data.comparisons ?? []) {
      const values = [left, right].map((name) => this.valueOrDefault(name));
      if (values.includes(null) || reported.has(left) || reported.has(right)) continue;
      const types = [left, right].map((name) => this.rules.get(name).type ?? 'string');
      const [first, second] = values.map((value, side) => comparable(types[side], value));
      const [words, holds] = OPERATORS[operator];
      // The schema check lets texts be compared for equality only.
      const ordered = typeof first === 'number' && typeof second === 'number';
      if (!(ordered || operator === '==' || operator === '!=') || holds(first, second)) continue;
      const place = this.entries.has(left) ? left : right;
      this.say('comparison', place, `${left} must be ${words} ${right}.`, remedy || 'Change one of them.');
    }
  }

  unknownNames() {
    const ignored = this.schema.data.ignore ?? [];
    const severity = this.unknown;
    let unknown = 0;
    let odd = 0;
    for (const [name, { value }] of this.entries) {
      if (this.rules.has(name) || ignored.some((pattern) => fits(name, pattern))) continue;
      if (RESERVED.test(name)) {
        const remedy = "Remove it from the application's environment.";
        this.say('reserved', name, `${name} belongs to the system or to Node.js.`, remedy, { severity: WARNING });
        continue;
      }
      if (hasInvisible(value) && odd < MOST_NAMES) {
        odd += 1;
        const found = secrets.describe(value);
        // Nobody knows its type, but no type has room for this.
        this.say(
          'invisible_character',
          name,
          `${name} holds an invisible character, or bytes that are not UTF-8 (found ${found}).`,
          'Type the value again instead of pasting it, and save the file as UTF-8.',
          { severity: WARNING, found },
        );
      }
      if (severity !== 'ignore') {
        unknown += 1;
        if (unknown > MOST_NAMES) continue;
        const near = secrets.nearest(name, this.schema.names);
        const remedy = near ? `Did you mean ${near}?` : 'Remove it, or add it to the schema.';
        this.say('unknown', name, `${name} is not in the schema.`, remedy, { severity });
      }
    }
    if (unknown > MOST_NAMES) {
      const message = `${unknown - MOST_NAMES} more names are not in the schema.`;
      this.say('unknown', '', message, 'Check that this is the right file.', { severity });
    }
  }
}

module.exports = { Validation };
