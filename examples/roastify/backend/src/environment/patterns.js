'use strict';

// Reads regular expressions as Python's module `re` does, because the deployment judges with that one, and
// writes them in JavaScript's syntax. What only Python can do (conditions, possessive repeats, atomic groups,
// switching case for a part) is read, but cannot be compiled.

const { SPACE } = require('./python');

class PatternError extends Error {}

const WORD = '\\p{L}\\p{N}_';
const DIGIT = '\\p{Nd}';
const CLASSES = {
  unicode: { d: DIGIT, s: SPACE, w: WORD },
  ascii: { d: '0-9', s: '\\t-\\r ', w: 'A-Za-z0-9_' },
};
const CONTROLS = { a: 7, b: 8, f: 12, n: 10, r: 13, t: 9, v: 11, '\\': 92 };
const LARGEST_REPEAT = 4294967295;
const END = '(?![\\s\\S])';

/** One character as a part of a JavaScript expression with the flag u, inside or outside of brackets. */
function literal(code) {
  const character = String.fromCodePoint(code);
  if (/[A-Za-z0-9_ ]/.test(character)) return character;
  return `\\u{${code.toString(16)}}`;
}

class VerboseExpected extends Error {}

class Reader {
  constructor(pattern, verbose) {
    this.characters = [...pattern];
    this.position = 0;
    this.groups = [null]; // of each group its width, or null while it is open
    this.names = new Map();
    this.ignoreCase = false;
    this.unsupported = '';
    this.verboseAtStart = verbose;
  }

  get next() {
    return this.characters[this.position];
  }

  take(character) {
    if (this.next !== character) return false;
    this.position += 1;
    return true;
  }

  takeWhile(known, most = Infinity) {
    let text = '';
    while (this.next !== undefined && known.includes(this.next) && text.length < most) {
      text += this.next;
      this.position += 1;
    }
    return text;
  }

  until(end, what) {
    let text = '';
    while (this.next !== end) {
      if (this.next === undefined) throw new PatternError(`missing ${end}`);
      text += this.next;
      this.position += 1;
    }
    this.position += 1;
    if (text === '') throw new PatternError(`missing ${what}`);
    return text;
  }

  whole() {
    const flags = { multiline: false, dotAll: false, ascii: false, verbose: this.verboseAtStart };
    const result = this.alternatives(flags, true);
    if (this.next !== undefined) throw new PatternError('unbalanced parenthesis');
    return result;
  }

  alternatives(flags, outermost = false) {
    const branches = [];
    do branches.push(this.sequence(flags, outermost && branches.length === 0)); while (this.take('|'));
    return {
      source: branches.map(({ source }) => source).join('|'),
      low: Math.min(...branches.map(({ low }) => low)),
      high: Math.max(...branches.map(({ high }) => high)),
    };
  }

  sequence(flags, first) {
    const items = [];
    while (this.next !== undefined && this.next !== '|' && this.next !== ')') {
      if (flags.verbose && ' \t\n\r\v\f'.includes(this.next)) {
        this.position += 1;
      } else if (flags.verbose && this.next === '#') {
        while (this.next !== undefined && this.next !== '\n') this.position += 1;
      } else if (!this.repeat(items)) {
        const item = this.item(flags, first && items.length === 0);
        if (item) items.push(item);
      }
    }
    return {
      source: items.map(({ source }) => source).join(''),
      low: items.reduce((sum, { low }) => sum + low, 0),
      high: items.reduce((sum, { high }) => sum + high, 0),
    };
  }

  /** Reads a repeat, if one stands here, and puts it behind the last item. */
  repeat(items) {
    const start = this.position;
    let low;
    let high;
    if (this.take('*')) [low, high] = [0, Infinity];
    else if (this.take('+')) [low, high] = [1, Infinity];
    else if (this.take('?')) [low, high] = [0, 1];
    else if (this.take('{')) {
      if (this.next === '}') {
        this.position = start;
        return false;
      }
      const from = this.takeWhile('0123456789');
      const to = this.take(',') ? this.takeWhile('0123456789') : from;
      if (!this.take('}')) {
        this.position = start;
        return false;
      }
      low = from === '' ? 0 : Number(from);
      high = to === '' ? Infinity : Number(to);
      if (low >= LARGEST_REPEAT || (to !== '' && high >= LARGEST_REPEAT)) {
        throw new PatternError('the repeat is too large');
      }
      if (high < low) throw new PatternError('min repeat greater than max repeat');
    } else return false;

    const item = items.pop();
    if (!item || item.kind === 'place') throw new PatternError('nothing to repeat');
    if (item.kind === 'repeat') throw new PatternError('multiple repeat');
    let lazy = '';
    if (this.take('?')) lazy = '?';
    else if (this.take('+')) this.unsupported = 'a possessive repeat';
    const times = `{${low},${high === Infinity ? '' : high}}`;
    items.push({
      kind: 'repeat',
      source: `(?:${item.source})${times}${lazy}`,
      low: item.low * low,
      high: item.high === 0 ? 0 : item.high * high,
    });
    return true;
  }

  item(flags, first) {
    const character = this.next;
    this.position += 1;
    switch (character) {
      case '(': return this.group(flags, first);
      case '[': return this.set(flags);
      case '\\': return this.escape(flags);
      case '.': return { kind: 'one', source: flags.dotAll ? '[\\s\\S]' : '[^\\n]', low: 1, high: 1 };
      case '^': return { kind: 'place', source: flags.multiline ? '(?<![^\\n])' : '(?<![\\s\\S])', low: 0, high: 0 };
      case '$': return { kind: 'place', source: flags.multiline ? '(?![^\\n])' : `(?=\\n?${END})`, low: 0, high: 0 };
      default: return { kind: 'one', source: literal(character.codePointAt(0)), low: 1, high: 1 };
    }
  }

  group(flags, first) {
    let inner = flags;
    let opening = '(';
    let number = null;
    let name = null;
    if (this.take('?')) {
      const mark = this.next;
      if (mark === undefined) throw new PatternError('unexpected end of pattern');
      this.position += 1;
      if (mark === 'P') {
        if (this.take('=')) return this.reference(this.known(this.identifier(this.until(')', 'group name'))));
        if (!this.take('<')) throw new PatternError('unknown extension ?P');
        name = this.identifier(this.until('>', 'group name'));
        if (this.names.has(name)) throw new PatternError('redefinition of group name');
      } else if (mark === ':') {
        opening = '(?:';
      } else if (mark === '#') {
        while (!this.take(')')) {
          if (this.next === undefined) throw new PatternError('missing ), unterminated comment');
          this.position += 1;
        }
        return null;
      } else if (mark === '=' || mark === '!') {
        return this.look(flags, `(?${mark}`, false);
      } else if (mark === '<') {
        const kind = this.next;
        if (kind !== '=' && kind !== '!') throw new PatternError('unknown extension ?<');
        this.position += 1;
        return this.look(flags, `(?<${kind}`, true);
      } else if (mark === '(') {
        return this.condition(flags);
      } else if (mark === '>') {
        this.unsupported = 'an atomic group';
        opening = '(?:';
      } else {
        inner = this.flags(mark, flags, first);
        if (inner === null) return null;
        opening = '(?:';
      }
    }
    if (opening === '(') {
      number = this.groups.push(null) - 1;
      if (name !== null) this.names.set(name, number);
    }
    const content = this.alternatives(inner);
    if (!this.take(')')) throw new PatternError('missing ), unterminated subpattern');
    if (number !== null) this.groups[number] = { low: content.low, high: content.high };
    return { kind: 'group', source: `${opening}${content.source})`, low: content.low, high: content.high };
  }

  identifier(text) {
    if (!/^[\p{L}\p{Nl}_][\p{L}\p{Nl}\p{Mn}\p{Mc}\p{Nd}\p{Pc}]*$/u.test(text)) {
      throw new PatternError('bad character in group name');
    }
    return text;
  }

  known(name) {
    if (!this.names.has(name)) throw new PatternError('unknown group name');
    return this.names.get(name);
  }

  reference(number) {
    if (number >= this.groups.length || number === 0) throw new PatternError('invalid group reference');
    const width = this.groups[number];
    if (width === null) throw new PatternError('cannot refer to an open group');
    if (this.behind !== undefined && number >= this.behind) {
      throw new PatternError('cannot refer to group defined in the same lookbehind subpattern');
    }
    return { kind: 'group', source: `(?:\\${number})`, ...width };
  }

  look(flags, opening, behind) {
    const outer = this.behind;
    if (behind && outer === undefined) this.behind = this.groups.length;
    const content = this.alternatives(flags);
    this.behind = outer;
    if (!this.take(')')) throw new PatternError('missing ), unterminated subpattern');
    if (behind && content.low !== content.high) throw new PatternError('look-behind requires fixed-width pattern');
    return { kind: 'group', source: `(?:${opening}${content.source}))`, low: 0, high: 0 };
  }

  condition(flags) {
    const name = this.until(')', 'group name');
    const number = /^[0-9]+$/.test(name) ? Number(name) : this.known(this.identifier(name));
    if (number === 0) throw new PatternError('bad group number');
    this.unsupported = 'a condition';
    const yes = this.sequence(flags, false);
    const no = this.take('|') ? this.sequence(flags, false) : { low: 0, high: 0 };
    if (this.next === '|') throw new PatternError('conditional backref with more than two branches');
    if (!this.take(')')) throw new PatternError('missing ), unterminated subpattern');
    this.conditions = Math.max(this.conditions ?? 0, number);
    return { kind: 'group', source: '', low: Math.min(yes.low, no.low), high: Math.max(yes.high, no.high) };
  }

  /** The flags of a group, or null for flags of the whole expression. */
  flags(start, outer, first) {
    const inner = { ...outer };
    const on = new Set();
    const off = new Set();
    let mark = start;
    if (mark !== '-') {
      for (;;) {
        if (mark === undefined || !'aiLmsux'.includes(mark)) throw new PatternError('unknown flag');
        if (mark === 'L') throw new PatternError("cannot use 'L' with a text");
        on.add(mark);
        if (on.has('a') && on.has('u')) throw new PatternError('a and u are incompatible');
        mark = this.next;
        if (mark === undefined) throw new PatternError('missing -, : or )');
        this.position += 1;
        if (mark === ')' || mark === ':' || mark === '-') break;
      }
    }
    if (mark === ')') {
      if (!first) throw new PatternError('global flags not at the start of the expression');
      if (on.has('x') && !this.verboseAtStart) throw new VerboseExpected();
      if (on.has('i')) this.ignoreCase = true;
      this.apply(outer, on, true);
      return null;
    }
    if (mark === '-') {
      mark = this.next;
      for (;;) {
        if (mark === undefined || !'imsx'.includes(mark)) throw new PatternError('flags that cannot be turned off');
        this.position += 1;
        off.add(mark);
        mark = this.next;
        if (mark === ':') break;
      }
      this.position += 1;
    }
    if ([...on].some((flag) => off.has(flag))) throw new PatternError('flag turned on and off');
    if (on.has('i') || off.has('i')) this.unsupported = 'another case for a part';
    this.apply(inner, on, true);
    this.apply(inner, off, false);
    return inner;
  }

  apply(flags, letters, state) {
    const names = { m: 'multiline', s: 'dotAll', x: 'verbose', a: 'ascii' };
    for (const letter of letters) if (names[letter]) flags[names[letter]] = state;
    if (letters.has('u')) flags.ascii = false;
  }

  hexadecimal(length) {
    const text = this.takeWhile('0123456789abcdefABCDEF', length);
    if (text.length !== length) throw new PatternError('incomplete escape');
    const code = parseInt(text, 16);
    if (code > 0x10ffff) throw new PatternError('bad escape');
    return code;
  }

  /** The character that an escape stands for, wherever it may be written; null for something else. */
  character(letter) {
    if (letter === undefined) throw new PatternError('bad escape (end of pattern)');
    if (letter === 'x') return this.hexadecimal(2);
    if (letter === 'u') return this.hexadecimal(4);
    if (letter === 'U') return this.hexadecimal(8);
    if (letter === 'N') {
      if (!this.take('{')) throw new PatternError('missing {');
      this.until('}', 'character name');
      this.unsupported = 'a character by its name';
      return 0;
    }
    if (Object.hasOwn(CONTROLS, letter) && letter !== 'b') return CONTROLS[letter];
    return null;
  }

  category(letter, flags) {
    const text = CLASSES[flags.ascii ? 'ascii' : 'unicode'][letter.toLowerCase()];
    return { text, negative: letter !== letter.toLowerCase() };
  }

  escape(flags) {
    const letter = this.next;
    this.position += 1;
    const one = (code) => ({ kind: 'one', source: literal(code), low: 1, high: 1 });
    if (letter !== undefined && 'dDsSwW'.includes(letter)) {
      const { text, negative } = this.category(letter, flags);
      return { kind: 'one', source: `[${negative ? '^' : ''}${text}]`, low: 1, high: 1 };
    }
    if (letter === 'A') return { kind: 'place', source: '(?<![\\s\\S])', low: 0, high: 0 };
    if (letter === 'Z') return { kind: 'place', source: END, low: 0, high: 0 };
    if (letter === 'b' || letter === 'B') {
      const word = `[${this.category('w', flags).text}]`;
      const source = letter === 'b'
        ? `(?:(?<=${word})(?!${word})|(?<!${word})(?=${word}))`
        : `(?:(?<=${word})(?=${word})|(?<!${word})(?!${word}))`;
      return { kind: 'place', source, low: 0, high: 0 };
    }
    const code = this.character(letter);
    if (code !== null) return one(code);
    if (letter === '0') return one(parseInt(`0${this.takeWhile('01234567', 2)}`, 8));
    if (/^[1-9]$/.test(letter)) {
      let digits = letter;
      if (this.next !== undefined && /^[0-9]$/.test(this.next)) {
        digits += this.next;
        this.position += 1;
        if (/^[0-7]{2}$/.test(digits) && this.next !== undefined && /^[0-7]$/.test(this.next)) {
          const octal = parseInt(digits + this.next, 8);
          this.position += 1;
          if (octal > 0o377) throw new PatternError('octal escape value outside of range');
          return one(octal);
        }
      }
      return this.reference(Number(digits));
    }
    if (/^[A-Za-z]$/.test(letter)) throw new PatternError('bad escape');
    return one(letter.codePointAt(0));
  }

  /** One member of a set: a character code, or a category. */
  member(flags) {
    const character = this.next;
    if (character === undefined) throw new PatternError('unterminated character set');
    this.position += 1;
    if (character !== '\\') return { code: character.codePointAt(0) };
    const letter = this.next;
    this.position += 1;
    if (letter !== undefined && 'dDsSwW'.includes(letter)) return this.category(letter, flags);
    if (letter === 'b') return { code: 8 };
    const code = this.character(letter);
    if (code !== null) return { code };
    if (/^[0-7]$/.test(letter)) {
      const octal = parseInt(letter + this.takeWhile('01234567', 2), 8);
      if (octal > 0o377) throw new PatternError('octal escape value outside of range');
      return { code: octal };
    }
    if (/^[A-Za-z89]$/.test(letter)) throw new PatternError('bad escape');
    return { code: letter.codePointAt(0) };
  }

  set(flags) {
    const negative = this.take('^');
    const positives = [];
    const alternatives = [];
    for (let size = 0; size === 0 || this.next !== ']'; size += 1) {
      const from = this.member(flags);
      let part = from.code === undefined ? from.text : literal(from.code);
      if (this.next === '-' && this.characters[this.position + 1] !== ']') {
        this.position += 1;
        const to = this.member(flags);
        if (from.code === undefined || to.code === undefined || to.code < from.code) {
          throw new PatternError('bad character range');
        }
        part = `${literal(from.code)}-${literal(to.code)}`;
      }
      if (from.negative) alternatives.push(`[^${part}]`);
      else positives.push(part);
    }
    this.position += 1;
    if (positives.length > 0) alternatives.push(`[${positives.join('')}]`);
    const any = alternatives.join('|');
    let source = `(?:${any})`;
    if (negative) source = `(?:(?!${any})[\\s\\S])`;
    if (negative && alternatives.length === 1 && positives.length > 0) source = `[^${positives.join('')}]`;
    return { kind: 'one', source, low: 1, high: 1 };
  }
}

function read(pattern) {
  let reader = new Reader(pattern, false);
  let result;
  try {
    result = reader.whole();
  } catch (error) {
    if (!(error instanceof VerboseExpected)) throw error;
    reader = new Reader(pattern, true);
    result = reader.whole();
  }
  if ((reader.conditions ?? 0) >= reader.groups.length) throw new PatternError('invalid group reference');
  return { ...result, reader };
}

/** Whether Python accepts a text as a regular expression. */
function isPattern(text) {
  try {
    read(text);
    return true;
  } catch (error) {
    if (error instanceof PatternError || error instanceof RangeError) return false;
    throw error;
  }
}

const compiled = new Map();

/**
 * The same expression for JavaScript.
 *
 * @throws {PatternError} it is none, or has what only Python can do
 */
function compile(pattern) {
  if (!compiled.has(pattern)) compiled.set(pattern, translate(pattern));
  return compiled.get(pattern);
}

function translate(pattern) {
  const { source, reader } = read(pattern);
  if (reader.unsupported) throw new PatternError(`it has ${reader.unsupported}`);
  try {
    return new RegExp(source, reader.ignoreCase ? 'iu' : 'u');
  } catch (error) {
    throw new PatternError(error.message);
  }
}

module.exports = { PatternError, compile, isPattern };
