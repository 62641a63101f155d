'use strict';

// One JSON object per line on stdout. Nothing leaves here unsanitised: names that promise a secret lose
// their value, and text that looks like one is cut out wherever it stands.

const LEVELS = { debug: 10, info: 20, warn: 30, error: 40 };
const REDACTED = '[redacted]';
const SECRET_NAME = /pass(word|wd|phrase)?$|pwd|secret|token|authori[sz]ation|cookie|credential|api.?key|private.?key|access.?key|card.?(number|no)|^(cc|pan|cvv|cvc|ssn)$|jwt/i;
const SECRET_TEXT = [
  [/\beyJ[\w-]+\.[\w-]+\.[\w-]*/g, REDACTED],
  [/\b(bearer|basic)\s+[\w.~+/=-]{6,}/gi, `$1 ${REDACTED}`],
  [/\b([a-z][a-z0-9+.-]*:\/\/[^\s:/@]*):[^\s@]+@/gi, `$1:${REDACTED}@`],
  [/\b((?:[\w-]*(?:password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key)[\w-]*)["']?\s*[=:]\s*)("[^"]*"|'[^']*'|[^\s,;&"'}]+)/gi, `$1${REDACTED}`],
  [/\bAKIA[0-9A-Z]{16}\b/g, REDACTED],
  [/-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(-----END [A-Z ]*PRIVATE KEY-----|$)/g, REDACTED],
];
const CARD_LIKE = /\b\d(?:[ -]?\d){12,18}\b/g;
const DEEPEST = 6;
const LONGEST_TEXT = 8000;

/** The checksum of payment cards, so that long order numbers and time stamps stay readable. */
function isCardNumber(text) {
  const digits = text.replace(/\D/g, '');
  let sum = 0;
  for (let index = 0; index < digits.length; index += 1) {
    let digit = Number(digits[digits.length - 1 - index]);
    if (index % 2 === 1) {
      digit *= 2;
      if (digit > 9) digit -= 9;
    }
    sum += digit;
  }
  return sum % 10 === 0;
}

class Vouched {
  constructor(content) {
    this.content = content;
  }
}

/** Marks text, or a list of plain objects, that whoever made it kept free of secrets: it is logged word for word. */
function vouched(content) {
  return new Vouched(content);
}

function createSanitiser(secrets = []) {
  // Short values would blot out innocent text ("true", "5432").
  const known = [...new Set(secrets.filter((value) => typeof value === 'string' && value.length >= 6))];

  function cleanText(text) {
    let clean = text.length > LONGEST_TEXT ? `${text.slice(0, LONGEST_TEXT)}…` : text;
    for (const secret of known) clean = clean.split(secret).join(REDACTED);
    for (const [pattern, replacement] of SECRET_TEXT) clean = clean.replace(pattern, replacement);
    return clean.replace(CARD_LIKE, (found) => (isCardNumber(found) ? REDACTED : found));
  }

  function clean(value, depth = 0, seen = new Set()) {
    if (typeof value === 'string') return cleanText(value);
    if (typeof value === 'bigint') return value.toString();
    if (value === null || typeof value !== 'object') return value;
    if (value instanceof Vouched) return value.content;
    if (value instanceof Date) return value.toISOString();
    if (seen.has(value) || depth >= DEEPEST) return '[omitted]';
    seen.add(value);
    let result;
    if (Array.isArray(value)) {
      result = value.map((item) => clean(item, depth + 1, seen));
    } else {
      const source = value instanceof Error
        ? { name: value.name, message: value.message, code: value.code, stack: value.stack }
        : value;
      result = {};
      for (const [name, item] of Object.entries(source)) {
        result[cleanText(name)] = SECRET_NAME.test(name) && item !== undefined && item !== null
          ? REDACTED
          : clean(item, depth + 1, seen);
      }
    }
    seen.delete(value);
    return result;
  }

  return clean;
}

function createLog({ level = 'info', secrets = [], base = {}, write = (line) => process.stdout.write(line) } = {}) {
  const clean = createSanitiser(secrets);
  const lowest = LEVELS[level] ?? LEVELS.info;

  function entry(name) {
    return (message, fields = {}) => {
      if (LEVELS[name] < lowest) return;
      write(`${JSON.stringify({
        ...clean(fields),
        timestamp: new Date().toISOString(),
        level: name,
        message: clean(message instanceof Vouched ? message : String(message)),
        ...base,
      })}\n`);
    };
  }

  return { debug: entry('debug'), info: entry('info'), warn: entry('warn'), error: entry('error') };
}

/** The values of variables whose names promise a secret, so that they are found in any text. */
function secretValues(variables) {
  return Object.keys(variables).filter((name) => SECRET_NAME.test(name)).map((name) => variables[name]);
}

module.exports = { createLog, createSanitiser, secretValues, vouched };
