'use strict';

// What a validation found. No field ever holds the value of a secret.

const ERROR = 'error';
const WARNING = 'warning';

// Of each rule; a file of random bytes breaks one a million times.
const MOST_PROBLEMS = 100;

/**
 * One thing that is wrong, for machines too.
 *
 * @param {object} given
 *   `code` is the rule that is broken, a stable name; `found` what was there instead, as far as it may be shown;
 *   `line` counts from 1, null stands for what is not in the file.
 */
function problem({ severity, code, variable, message, remedy = '', line = null, found = '' }) {
  return { severity, code, variable, line, found, message, remedy };
}

function text({ message, remedy, line }, source) {
  return `${line === null ? '' : `${source}:${line}: `}${message}${remedy ? ` ${remedy}` : ''}`;
}

class Report {
  /**
   * @param {string} environment name of the environment whose rules counted; empty for the base rules
   * @param {object[]} problems as `problem` makes them
   */
  constructor(environment, problems) {
    this.environment = environment;
    this.problems = problems;
  }

  /** In the order of the file; what has no line comes first. */
  sort() {
    const compare = (left, right) => (left < right ? -1 : Number(left > right));
    this.problems.sort((left, right) => (
      (left.line ?? 0) - (right.line ?? 0) || compare(left.severity, right.severity) || compare(left.code, right.code)
    ));
  }

  /** At most 100 problems of each rule, so that a file that is none can be reported, too. */
  shorten() {
    const counts = new Map();
    for (const { code } of this.problems) counts.set(code, (counts.get(code) ?? 0) + 1);
    const seen = new Map();
    this.problems = this.problems.flatMap((found) => {
      const { severity, code, line } = found;
      const number = (seen.get(code) ?? 0) + 1;
      const rest = counts.get(code) - MOST_PROBLEMS;
      seen.set(code, number);
      if (number <= MOST_PROBLEMS || rest === 1) return [found];
      if (number > MOST_PROBLEMS + 1) return [];
      const message = `${rest} more problems of this kind (${code}).`;
      return [problem({ severity, code, variable: '', message, remedy: 'Check that it is the right file.', line })];
    });
  }

  get errors() {
    return this.problems.filter(({ severity }) => severity === ERROR);
  }

  get warnings() {
    return this.problems.filter(({ severity }) => severity === WARNING);
  }

  /** All errors in one message, one line each. `source` names the file for people. */
  message(source) {
    const { errors } = this;
    const what = errors.length === 1 ? '1 problem' : `${errors.length} problems`;
    const where = this.environment ? ` for ${this.environment}` : '';
    const head = `The environment in ${source} is not fit${where}: ${what}.`;
    return [head, ...errors.map((found) => `  - ${text(found, source)}`)].join('\n');
  }

  /** One text for each warning. */
  warningTexts(source) {
    return this.warnings.map((found) => text(found, source));
  }
}

module.exports = { ERROR, Report, WARNING, problem };
