'use strict';

// Reads a schema. Whether the schema itself is right was checked when it was deployed; only what would break
// the reading is looked at here.

const fs = require('node:fs');
const yaml = require('js-yaml');
const { PatternError, compile } = require('./patterns');
const { Float, textOf } = require('./python');
const { CHECKS } = require('./types');

class SchemaError extends Error {}

// Which plain words are no texts. The deployment reads YAML 1.1 with PyYAML, whose rules these are: `yes` is
// true, 010 is eight, 1e3 is a text.
const BOOLEAN = /^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$/;
const NULL = /^(?:~|null|Null|NULL|)$/;
const INTEGER = new RegExp(
  '^[-+]?(?:0b[0-1_]+|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|[1-9][0-9_]*(?::[0-5]?[0-9])+)$',
);
const FLOAT = new RegExp(
  '^(?:(?:[-+]?[0-9][0-9_]*\\.[0-9_]*|\\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?'
  + '|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\\.[0-9_]*|[-+]?\\.(?:inf|Inf|INF)|\\.(?:nan|NaN|NAN))$',
);

function sixty(text) {
  return text.split(':').reduce((sum, part) => sum * 60 + Number(part), 0);
}

function split(text) {
  const plain = text.replaceAll('_', '').toLowerCase();
  return [plain.startsWith('-') ? -1 : 1, plain.replace(/^[-+]/, '')];
}

function integer(text) {
  const [sign, digits] = split(text);
  if (digits.includes(':')) return sign * sixty(digits);
  const exact = BigInt(/^0[0-7]+$/.test(digits) ? `0o${digits.slice(1)}` : digits) * BigInt(sign);
  return Number.isSafeInteger(Number(exact)) ? Number(exact) : exact;
}

function float(text) {
  const [sign, digits] = split(text);
  if (digits === '.inf') return new Float(sign * Infinity);
  if (digits === '.nan') return new Float(NaN);
  return new Float(sign * (digits.includes(':') ? sixty(digits) : Number(digits)));
}

const scalar = (tag, pattern, construct) => new yaml.Type(`tag:yaml.org,2002:${tag}`, {
  kind: 'scalar',
  resolve: (text) => pattern.test(text ?? ''),
  construct: (text) => construct(text ?? ''),
});

const FORMAT = yaml.FAILSAFE_SCHEMA.extend({
  implicit: [
    scalar('bool', BOOLEAN, (text) => ['yes', 'true', 'on'].includes(text.toLowerCase())),
    scalar('null', NULL, () => null),
    scalar('int', INTEGER, integer),
    scalar('float', FLOAT, float),
    yaml.types.merge,
  ],
});

/** The same data in objects without a prototype, so that no name is found that nobody wrote. */
function bare(data) {
  if (Array.isArray(data)) return data.map(bare);
  if (data === null || typeof data !== 'object' || data instanceof Float) return data;
  const result = Object.create(null);
  for (const [name, item] of Object.entries(data)) result[name] = bare(item);
  return result;
}

const isMapping = (data) => data !== null && typeof data === 'object' && !Array.isArray(data);

class Schema {
  /**
   * @param {object} data the schema as read from YAML
   * @throws {SchemaError} it cannot be worked with
   */
  constructor(data) {
    this.data = bare(data);
    if (!isMapping(this.data?.variables)) throw new SchemaError('it has no mapping `variables`');
    this.variables = this.data.variables;
    this.names = Object.keys(this.variables);
    this.environments = this.data.environments ?? Object.create(null);
    for (const name of this.names) {
      const own = this.variables[name];
      if (!isMapping(own)) throw new SchemaError(`variables.${name} is no mapping`);
      for (const rules of [own, ...Object.values(own.environments ?? {})]) this.check(name, rules);
    }
  }

  check(name, rules) {
    for (const own of [rules ?? {}, rules?.items ?? {}]) {
      if (own.type !== undefined && !Object.hasOwn(CHECKS, own.type)) {
        throw new SchemaError(`variables.${name} has a type that is not known here`);
      }
      try {
        if (own.pattern !== undefined) compile(own.pattern);
      } catch (error) {
        if (!(error instanceof PatternError)) throw error;
        throw new SchemaError(`variables.${name} has a pattern that JavaScript cannot follow: ${error.message}`);
      }
    }
  }

  /** The rules of a variable in one environment: its own, then those of what it is like, then its. */
  rulesFor(name, environment) {
    const { environments = {}, ...rules } = this.variables[name];
    for (const step of this.lineage(environment).reverse()) Object.assign(rules, environments?.[step]);
    return rules;
  }

  /** The values of a variable that an example file or the schema shows: everybody knows them. */
  examples(name) {
    const rules = this.variables[name];
    const holders = [rules, ...Object.values(rules.environments ?? {})].map((holder) => holder ?? {});
    const shown = holders.filter((holder) => Object.hasOwn(holder, 'example')).map(({ example }) => example);
    for (const { examples = {} } of Object.values(this.data.templates ?? {})) {
      if (Object.hasOwn(examples, name)) shown.push(examples[name]);
    }
    return shown.map(textOf);
  }

  /** An environment, what it is like, and so on; empty for the base rules. */
  lineage(environment) {
    const lineage = [];
    let current = environment;
    while (current && !lineage.includes(current)) {
      lineage.push(current);
      current = this.environments[current]?.like;
    }
    return lineage;
  }
}

/** @throws {SchemaError} the text is no schema */
function parse(text) {
  let data;
  try {
    data = yaml.load(text, { schema: FORMAT });
  } catch (error) {
    throw new SchemaError(`line ${(error.mark?.line ?? 0) + 1} is not valid YAML (${error.reason ?? error.name})`);
  }
  return new Schema(data);
}

/**
 * Reads a schema from its file.
 *
 * @throws {SchemaError} the file is missing or no schema; the message says what to do
 */
function load(file) {
  const what = `The schema of the environment, ${file},`;
  let text;
  try {
    text = fs.readFileSync(file, 'utf8');
  } catch (error) {
    throw new SchemaError(
      error.code === 'ENOENT'
        ? `${what} is missing. A release without it is broken: build and deploy it again.`
        : `${what} cannot be read (${error.code}). Check its owner and mode.`,
    );
  }
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof SchemaError)) throw error;
    throw new SchemaError(`${what} is wrong: ${error.message}. Correct it, build and deploy again.`);
  }
}

module.exports = { Schema, SchemaError, load, parse };
