'use strict';

// Follows the grammar of the package dotenv through a .env file, because that package tells neither lines nor
// what it skipped. Its values count; what is found here is where they stand and what is wrong with the text.

const { ERROR, WARNING, problem } = require('./report');

// JavaScript's \s and the line ends of its regular expressions: the package is made of those.
const WHITE = /\s*/y;
const NAME = /[A-Za-z0-9_.-]+/y;
const EXPORT = /export\s+(?=[A-Za-z0-9_.-])/y;
const SEPARATOR = /\s*=|:\s/y;
const LINE_END = /[\n\u2028\u2029]/g;
const UNQUOTED_END = /[#\n]/g;
const ASSIGNMENT = /(?<![^\n])[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=/g;
const QUOTES = '\'"`';

/** The end of what a pattern finds from a position on, or null. */
function endOf(pattern, text, position) {
  pattern.lastIndex = position;
  const found = pattern.exec(text);
  return found ? found.index + found[0].length : null;
}

/** Name, where it stands and where its value starts, or null. */
function nameAndValue(text, position) {
  const exported = endOf(EXPORT, text, position);
  for (const start of exported === null ? [position] : [exported, position]) {
    const end = endOf(NAME, text, start);
    const value = end === null ? null : endOf(SEPARATOR, text, end);
    if (value !== null) return { key: text.slice(start, end), start, value };
  }
  return null;
}

/** Whether only white space or a comment follows on the line. */
function endsEntry(text, position) {
  const stop = endOf(WHITE, text, position);
  return stop === text.length || text[stop] === '#' || /[\n\u2028\u2029]/.test(text.slice(position, stop));
}

/** Where the value that opens here closes: a quote behind a backslash may close it or not; the longest wins. */
function closingQuote(text, opening) {
  const quote = text[opening];
  const candidates = [];
  for (let position = text.indexOf(quote, opening + 1); position !== -1; position = text.indexOf(quote, position + 1)) {
    candidates.push(position);
    if (text[position - 1] !== '\\') break;
  }
  return candidates.reverse().find((candidate) => endsEntry(text, candidate + 1)) ?? null;
}

/** Removes the quotes around a value, or around some of its lines where it holds Unicode line ends. */
function unwrap(value) {
  if (!/[\n\u2028\u2029]/.test(value)) {
    const wrapped = value.length > 1 && QUOTES.includes(value[0]) && value[0] === value[value.length - 1];
    return wrapped ? value.slice(1, -1) : value;
  }
  const ends = [...[...value.matchAll(LINE_END)].map(({ index }) => index), value.length];
  const closing = new Map([...QUOTES].map((quote) => (
    [quote, Math.max(0, ...ends.filter((end) => end > 0 && value[end - 1] === quote)) - 1]
  )));
  let result = '';
  let position = 0;
  while (position < value.length) {
    const close = closing.get(value[position]) ?? -1;
    if (close > position) {
      result += value.slice(position + 1, close);
      position = close + 1;
    }
    const end = endOf(LINE_END, value, position) ?? value.length;
    result += value.slice(position, end);
    position = end;
  }
  return result;
}

function expand(value, first) {
  return first === '"' ? value.replaceAll('\\n', '\n').replaceAll('\\r', '\r') : value;
}

/**
 * The assignments of a .env file in their order, duplicates included, and the lines that are skipped.
 *
 * @param {string} content the text of the file
 */
function read(content) {
  const text = content.replace(/\r\n?/g, '\n');
  const entries = [];
  const skipped = [];
  let counted = 0;
  let line = 1;
  const lineOf = (position) => {
    for (; counted < position; counted += 1) if (text[counted] === '\n') line += 1;
    return line;
  };
  let position = 0;
  for (;;) {
    position = endOf(WHITE, text, position);
    if (position >= text.length) return { entries, skipped };
    const found = nameAndValue(text, position);
    if (!found) {
      if (text[position] !== '#') skipped.push(lineOf(position));
      position = endOf(LINE_END, text, position) ?? text.length;
      continue;
    }
    const entry = { key: found.key, line: lineOf(found.start), unclosedQuote: '', cutByComment: false };
    const opening = endOf(WHITE, text, found.value);
    const closing = opening < text.length && QUOTES.includes(text[opening]) ? closingQuote(text, opening) : null;
    let end;
    if (closing !== null) {
      entry.value = expand(text.slice(opening + 1, closing), text[opening]);
      end = closing + 1;
    } else {
      UNQUOTED_END.lastIndex = found.value;
      end = UNQUOTED_END.exec(text)?.index ?? text.length;
      const raw = text.slice(found.value, end);
      const trimmed = raw.trim();
      entry.value = expand(unwrap(trimmed), trimmed[0]);
      entry.cutByComment = text[end] === '#' && !/\s$/.test(raw);
      if (trimmed && QUOTES.includes(trimmed[0])) [entry.unclosedQuote] = trimmed;
    }
    entries.push(entry);
    lineOf(end);
    position = endOf(LINE_END, text, end) ?? text.length;
  }
}

function and(names) {
  return names.length === 1 ? names[0] : `${names.slice(0, -1).join(', ')} and ${names[names.length - 1]}`;
}

/** What is wrong with the text of a file, whatever its variables mean. `known` has the names of the schema. */
function problemsOf({ entries, skipped }, known) {
  const problems = skipped.map((line) => problem({
    severity: WARNING,
    code: 'skipped_line',
    variable: '',
    message: 'This line is neither an assignment nor a comment, and the application skips it in silence.',
    remedy: 'Write it as NAME=value, or put # in front.',
    line,
  }));
  const first = new Map();
  for (const { key, value, line, unclosedQuote, cutByComment } of entries) {
    const say = (severity, code, message, remedy) => {
      problems.push(problem({ severity, code, variable: key, message: `${key} ${message}`, remedy, line }));
    };
    if (first.has(key)) {
      const message = `is set again (first in line ${first.get(key)}); the last one counts.`;
      say(WARNING, 'duplicate', message, 'Keep one of them.');
    } else first.set(key, line);
    if (unclosedQuote) {
      say(
        ERROR,
        'unclosed_quote',
        `has a value that opens with a quote (${unclosedQuote}) which does not enclose it.`,
        'Close the quote at the end of the value, or put another kind of quote around it.',
      );
    }
    if (cutByComment) {
      say(
        WARNING,
        'cut_by_comment',
        'has a # in its value; the application takes what follows for a comment.',
        'Put quotes around the value, or a space before the # of a comment.',
      );
    }
    const assigned = value.includes('\n') ? [...value.matchAll(ASSIGNMENT)].map(([, name]) => name) : [];
    const swallowed = assigned.filter((name) => known.includes(name));
    if (swallowed.length > 0) {
      say(
        ERROR,
        'swallowed',
        `has a value of several lines that contains an assignment of ${and(swallowed)}.`,
        'A missing quote swallows the lines behind it: close the value where it ends.',
      );
    }
  }
  return problems;
}

module.exports = { and, problemsOf, read };
