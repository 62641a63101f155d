'use strict';

// What may be said about a value, and whether a value is a placeholder or a weak secret.

const { withoutDots } = require('./hosts');
const { ANY_SPACE, SPACE, count, general, quoted, strip } = require('./python');

// Nobody means these as a value, whatever the variable. Each takes linear time, and a random password hardly ever
// matches one: <…> counts only around words, and inside a longer value only as a part of its own.
const MARKERS = [
  /^<[A-Za-z0-9 ._,:/|()-]*>$/,
  /(?:^|[/:@.=,;_ -])<(?:[a-z][a-z_ -]{2,40}|[A-Z][A-Z_ -]{2,40})>(?=$|[/:@.=,;?&_ -])/,
  /\$\{[A-Za-z_][A-Za-z0-9_]{0,63}(?::?[-?=][^{}]{0,63})?\}/u,
  /^\[[A-Za-z _-]+\]$/,
  /^%[A-Za-z_]+%$/,
  /(?<![A-Za-z0-9])[xX]{4,}(?![A-Za-z0-9])/,
  /^(?:\*{3,}|\.{3,}|\?{3,}|…)$/,
  /AKIAIOSFODNN7EXAMPLE|EXAMPLEKEY$/,
];
const BRACES = [['{{', '}}'], ['{%', '%}']];
const LEFTOVERS = [
  new RegExp(`^[${SPACE}]*\\$ANSIBLE_VAULT;`, 'u'),
  /^None$/,
  /AnsibleUndefined|__omit_place_holder__|(?:!vault|^!unsafe)(?![\p{L}\p{N}_])|VALUE_SPECIFIED_IN_NO_LOG_PARAMETER/u,
];
// Compared with the value in lower case without - _ . and spaces; the whole value must be the word.
const WORDS = new Set([
  'changeme', 'changethis', 'changeit', 'replaceme', 'replacethis', 'insertme', 'insertvaluehere',
  'fillmein', 'fillin', 'todo', 'tbd', 'fixme', 'placeholder', 'dummy', 'undefined', 'nan',
  'objectobject',
]);
const SECRET_WORDS = new Set([
  'secret', 'secretkey', 'mysecret', 'mysecretkey', 'supersecret', 'topsecret', 'jwtsecret',
  'yoursecret', 'apikey', 'token', 'password', 'passwd', 'passw0rd', 'password1', 'password123',
  'mypassword', 'pass', 'admin', 'root', 'administrator', 'test', 'testing', 'example', 'sample',
  'default', 'demo', 'foo', 'foobar', 'bar', 'null', 'none', 'true', 'false', 'letmein', 'qwerty',
  'qwertyuiop', 'asdfgh', 'welcome',
]);
const WORDS_IN_FRONT = new RegExp(
  '^(?:your|change[-_ ]?(?:me|this|it)|replace[-_ ]?(?:me|this|with)|(?:insert|put)[-_ ]?your|my[-_ ]?own)[-_ ]',
  'iu',
);
// Compared with the value as the words are.
const YOURS_HERE = /^your[a-z0-9]*here$/;
const YOUR_SECRET = /^(?:your|my|the)[a-z]*(?:secret|password|passphrase|key|token)$/;
// RFC 2606 keeps these for documentation and tests: nothing real is ever there.
const EXAMPLE_DOMAIN = /(?:^|\.)(?:example\.(?:com|org|net)|example|invalid)$/;
const EXAMPLE_LABEL = /^(?:your-?(?:domain|company|host|app|site|server)|my-?domain)$/;
const USUAL_NAME = /^(?:[A-Z_][A-Z0-9_.-]*|[a-z_][a-z0-9_.-]*|npm_[A-Za-z0-9_]*)$/;
const SEQUENCES = ['0123456789'.repeat(3), 'abcdefghijklmnopqrstuvwxyz'.repeat(2), 'qwertyuiopasdfghjklzxcvbnm'];
const KINDS = [
  ['lower-case letters', /[a-z]/],
  ['upper-case letters', /[A-Z]/],
  ['digits', /[0-9]/],
  ['spaces', ANY_SPACE],
  ['other characters', new RegExp(`[^A-Za-z0-9${SPACE}]`, 'u')],
];

/** All that is ever said about a secret: how long it is and what kinds of characters it has. */
function describe(value) {
  const kinds = KINDS.filter(([, pattern]) => pattern.test(value)).map(([kind]) => kind);
  const length = count(value);
  return `${length} ${length === 1 ? 'character' : 'characters'}${kinds.length > 0 ? `: ${kinds.join(', ')}` : ''}`;
}

/**
 * What was found, for a message: a short number, or a near miss of a word that the schema knows. Everything
 * else is only described, since lines get swapped, and what stands behind a harmless name may be a password.
 */
function shown(value, secret, known) {
  if (!secret) {
    if (/^-?[0-9]{1,6}$/.test(value)) return value;
    const word = strip(value).toLowerCase();
    if (count(word) <= 20 && known.some((name) => distance(word, name.toLowerCase()) <= 2)) return quoted(value);
  }
  return describe(value);
}

/** Edits between two words (insert, delete, replace, swap of neighbours), or `limit` if that many. */
function distance(left, right, limit = 3) {
  const rows = [...left];
  const columns = [...right];
  if (Math.abs(rows.length - columns.length) >= limit) return limit;
  let before = [];
  let previous = [...columns.keys(), columns.length];
  for (let row = 1; row <= rows.length; row += 1) {
    const current = [row];
    for (let column = 1; column <= columns.length; column += 1) {
      const same = rows[row - 1] === columns[column - 1];
      let cost = Math.min(previous[column] + 1, current[column - 1] + 1, previous[column - 1] + (same ? 0 : 1));
      if (row > 1 && column > 1 && rows[row - 1] === columns[column - 2] && rows[row - 2] === columns[column - 1]) {
        cost = Math.min(cost, before[column - 2] + 1);
      }
      current.push(cost);
    }
    if (Math.min(...current) >= limit) return limit;
    before = previous;
    previous = current;
  }
  return Math.min(previous[previous.length - 1], limit);
}

/** The known name that was probably meant, or null. */
function nearest(name, known) {
  const fold = (word) => word.toUpperCase().replaceAll('-', '_');
  const folded = new Map(known.map((candidate) => [fold(candidate), candidate]));
  const wanted = fold(name);
  if (folded.has(wanted)) return folded.get(wanted);
  const length = count(wanted);
  const limit = [3, 6, Infinity].findIndex((longer) => length < longer) + 1;
  const keys = [...folded.keys()].sort();
  let best = limit;
  let found = null;
  for (const key of keys) {
    const edits = distance(wanted, key, limit);
    if (edits < best) {
      best = edits;
      found = key;
    }
  }
  if (found === null && length >= 4) {
    found = keys.find((key) => key.endsWith(`_${wanted}`) || wanted.endsWith(`_${key}`)) ?? null;
  }
  return found === null ? null : folded.get(found);
}

/** Whether a template or a vault value was written instead of what it stands for. */
function leftover(value) {
  return LEFTOVERS.some((pattern) => pattern.test(value));
}

/** Whether the value only stands where a real one should be. `more` are the schema's own placeholders. */
function placeholder(value, secret, more) {
  if (more.includes(value) || MARKERS.some((pattern) => pattern.test(value))) return true;
  for (const [opening, closing] of BRACES) {
    const start = value.indexOf(opening);
    if (start !== -1 && value.includes(closing, start + opening.length)) return true;
  }
  const folded = value.toLowerCase().replace(/[-_. ]/g, '');
  let end = folded.length;
  while (end > 0 && '0123456789!'.includes(folded[end - 1])) end -= 1;
  const stem = folded.slice(0, end);
  if (WORDS.has(folded) || WORDS.has(stem) || WORDS_IN_FRONT.test(value) || YOURS_HERE.test(folded)) return true;
  return secret && (SECRET_WORDS.has(folded) || SECRET_WORDS.has(stem) || YOUR_SECRET.test(folded));
}

/** Whether a host name is one that documentation uses, such as example.com or db.your-domain.net. */
function exampleHost(host) {
  const name = withoutDots(host.toLowerCase());
  return EXAMPLE_DOMAIN.test(name) || name.split('.').some((label) => EXAMPLE_LABEL.test(label));
}

/** Whether the name of an unknown variable may be shown: a line of a secret may look like one. */
function presentable(name) {
  return name.length <= 64 && USUAL_NAME.test(name);
}

/** Shannon's estimate in bits from the characters alone: an upper bound, low for what is plainly weak. */
function entropyBits(value) {
  const characters = [...value];
  const counts = new Map();
  for (const character of characters) counts.set(character, (counts.get(character) ?? 0) + 1);
  let sum = 0;
  for (const times of counts.values()) sum += (times / characters.length) * Math.log2(times / characters.length);
  return characters.length * -sum;
}

/** Why a secret is easy to guess, however long it is; null if nothing says so. `minEntropy` is in bits. */
function weakness(value, minEntropy) {
  const characters = [...value];
  if (characters.length >= 4) {
    if (new Set(characters).size <= 2) return 'consists of one or two different characters';
    for (let size = 1; size <= Math.min(Math.floor(characters.length / 2), 16); size += 1) {
      if (characters.every((character, index) => character === characters[index % size])) {
        return `repeats the same ${size} characters`;
      }
    }
    const lower = value.toLowerCase();
    const reversed = [...lower].reverse().join('');
    if (SEQUENCES.some((sequence) => sequence.includes(lower) || sequence.includes(reversed))) {
      return 'is a run of neighbouring letters or digits';
    }
  }
  if (minEntropy && value && entropyBits(value) < minEntropy) {
    return `is too regular: fewer than ${general(minEntropy)} bits by its characters`;
  }
  return null;
}

module.exports = { describe, exampleHost, leftover, nearest, placeholder, presentable, shown, weakness };
