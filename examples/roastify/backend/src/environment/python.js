'use strict';

// The few habits of Python that show in what a validation says, so that this half and the deployment's half
// use the same words for the same value.

// What Python calls white space. JavaScript's \s also has U+FEFF, and lacks U+001C to U+001F and U+0085.
const SPACE = '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000';
const ANY_SPACE = new RegExp(`[${SPACE}]`, 'u');
const OUTER_SPACE = new RegExp(`^[${SPACE}]+|[${SPACE}]+$`, 'gu');

const ESCAPES = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' };

function scientific(digits, power) {
  return `${digits}e${power < 0 ? '-' : '+'}${String(Math.abs(power)).padStart(2, '0')}`;
}

/** A number with a fraction. Written in text it keeps the form it has in Python: 1.0, 1e+16, inf. */
class Float {
  /** @param {number} value */
  constructor(value) {
    this.value = value;
  }

  valueOf() {
    return this.value;
  }

  toString() {
    const { value } = this;
    if (Number.isNaN(value)) return 'nan';
    if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
    if (value === 0) return Object.is(value, -0) ? '-0.0' : '0.0';
    const [digits, exponent] = value.toExponential().split('e');
    const power = Number(exponent);
    if (power < -4 || power >= 16) return scientific(digits, power);
    return Number.isInteger(value) ? `${value}.0` : String(value);
  }
}

/** A number with six digits at most, and no superfluous zeros: Python's format `g`. */
function general(number) {
  const [digits, exponent] = Number(number).toExponential(5).split('e');
  const power = Number(exponent);
  if (power >= -4 && power < 6) {
    const text = Number(number).toFixed(5 - power);
    return text.includes('.') ? text.replace(/\.?0+$/, '') : text;
  }
  const short = digits.replace(/\.?0+$/, '');
  return scientific(short, power);
}

/** A text in quotes, with every character escaped that nobody could see. */
function quoted(text) {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  let result = '';
  for (const character of text) {
    const code = character.codePointAt(0);
    if (ESCAPES[character]) result += ESCAPES[character];
    else if (character === quote) result += `\\${character}`;
    else if (character !== ' ' && /[\p{C}\p{Z}]/u.test(character)) {
      if (code < 0x100) result += `\\x${code.toString(16).padStart(2, '0')}`;
      else if (code < 0x10000) result += `\\u${code.toString(16).padStart(4, '0')}`;
      else result += `\\U${code.toString(16).padStart(8, '0')}`;
    } else result += character;
  }
  return quote + result + quote;
}

/** Without white space at both ends. */
function strip(text) {
  return text.replace(OUTER_SPACE, '');
}

/** The number of characters; JavaScript's own `length` counts some of them twice. */
function count(text) {
  let length = text.length;
  for (let index = 0; index < text.length - 1; index += 1) {
    const unit = text.charCodeAt(index);
    if (unit < 0xd800 || unit > 0xdbff) continue;
    const next = text.charCodeAt(index + 1);
    if (next >= 0xdc00 && next <= 0xdfff) {
      length -= 1;
      index += 1;
    }
  }
  return length;
}

/** JSON without spaces and in ASCII alone. */
function compactJson(value) {
  if (value instanceof Float) return String(value);
  if (typeof value === 'bigint') return String(value);
  if (typeof value === 'string') {
    return JSON.stringify(value).replace(/[\u007f-\uffff]/g, (unit) => (
      unit === '\u007f' ? unit : `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`
    ));
  }
  if (Array.isArray(value)) return `[${value.map(compactJson).join(',')}]`;
  if (value !== null && typeof value === 'object') {
    return `{${Object.entries(value).map(([name, item]) => `${compactJson(name)}:${compactJson(item)}`).join(',')}}`;
  }
  return JSON.stringify(value ?? null);
}

/** A value of the schema as it is written in a .env file. */
function textOf(value) {
  if (value === null || value === undefined) return 'None';
  if (typeof value === 'object' && !(value instanceof Float)) return compactJson(value);
  return String(value);
}

module.exports = { ANY_SPACE, Float, SPACE, compactJson, count, general, quoted, strip, textOf };
