'use strict';

// Judges the environment of a process by the same schema, and in the same words, as the deployment did.
//
// To use it in another application, copy this directory, install `dotenv` and `js-yaml`, put your schema
// (env.schema.yml, described with the module roastify.ops.env_validate) into the release, and call `load`
// before anything else starts:
//
//   const { values } = environment.load({ schema: path.join(root, 'env.schema.yml') });
//
// Which environment's rules hold is said by the variable that the schema names in `environment_variable`; without
// it, the base rules hold. Left to the deployment are: lines that other readers than dotenv would read in another
// way (it only warns of them), a file that is that of another environment, and checking the schema itself.

const fs = require('node:fs');
const path = require('node:path');
const dotenv = require('dotenv');
const file = require('./file');
const { count } = require('./python');
const { ERROR, Report, problem } = require('./report');
const schemas = require('./schema');
const secrets = require('./secrets');
const { Validation } = require('./validation');

// Longest text of a .env file, in characters. Linux passes on at most a quarter of the stack's limit of 8 MiB as
// arguments and environment together (execve(2)).
const LONGEST_TEXT = 2 * 1024 * 1024;

/** The environment is not fit. `message` is for people, `problems` for machines; neither has a secret's value. */
class EnvironmentError extends Error {
  constructor(message, problems = []) {
    super(message);
    this.name = 'EnvironmentError';
    this.problems = problems;
  }
}

/** The text of the .env file of a directory, or null if there is none. */
function readText(target) {
  try {
    return fs.readFileSync(target, 'utf8');
  } catch (error) {
    if (error.code === 'ENOENT') return null;
    throw new EnvironmentError(`${target} cannot be read (${error.code}). Check its owner and mode.`);
  }
}

/**
 * What the process would use: a variable of the process wins over the file, and has no line. Names that only
 * the process has are those of the schema; the rest of them is not the application's.
 */
function merge(schema, document, fromFile, variables) {
  const entries = new Map();
  const lines = new Map(document.entries.map(({ key, line }) => [key, line]));
  for (const name of new Set([...lines.keys(), ...Object.keys(fromFile)])) {
    if (Object.hasOwn(variables, name)) entries.set(name, { value: variables[name], line: null });
    else if (Object.hasOwn(fromFile, name)) entries.set(name, { value: fromFile[name], line: lines.get(name) ?? null });
  }
  for (const name of schema.names) {
    if (!entries.has(name) && Object.hasOwn(variables, name)) entries.set(name, { value: variables[name], line: null });
  }
  return entries;
}

/** Takes out what was read as a name but may be a piece of a secret of several lines. */
function hideOddNames(report, schema) {
  const shown = new Map();
  for (const name of new Set(report.problems.map(({ variable }) => variable))) {
    if (Object.hasOwn(schema.variables, name) || !name || secrets.presentable(name)) continue;
    if (shown.size > 100 || secrets.nearest(name, schema.names) === null) {
      shown.set(name, `(a name of ${name.length} characters)`);
    }
  }
  report.problems = report.problems.map((found) => {
    const name = found.variable;
    if (!shown.has(name)) return found;
    const [message, remedy] = [found.message, found.remedy].map((text) => text.replaceAll(name, () => shown.get(name)));
    return { ...found, variable: shown.get(name), message, remedy };
  });
}

/**
 * Judges the text of a .env file together with the variables of a process.
 *
 * @param {schemas.Schema} schema
 * @param {string} text content of the .env file; empty if there is none
 * @param {Object<string, string>} variables those of the process
 * @returns {{report: Report, values: Object<string, string|undefined>}} `values` has every variable of the
 *   schema that is set or has a default
 */
function judge(schema, text, variables) {
  const length = count(text);
  if (length > LONGEST_TEXT) {
    const report = new Report('', [problem({
      severity: ERROR,
      code: 'file_too_large',
      variable: '',
      message: `The file is longer than ${LONGEST_TEXT / 1024} KiB, more than Linux takes for a whole environment.`,
      remedy: 'Check that it is the right file.',
      found: `${length} characters`,
    })]);
    return { report, values: {} };
  }
  const document = file.read(text);
  const entries = merge(schema, document, dotenv.parse(text), variables);
  const named = entries.get(schema.data.environment_variable)?.value ?? '';
  const environment = Object.hasOwn(schema.environments, named) ? named : '';
  const validation = new Validation(schema, entries, environment);
  const report = validation.run();
  report.problems.push(...file.problemsOf(document, schema.names));
  report.sort();
  report.shorten();
  hideOddNames(report, schema);
  const values = Object.create(null);
  for (const name of schema.names) {
    values[name] = validation.value(name) ?? validation.valueOrDefault(name) ?? undefined;
  }
  return { report, values };
}

/**
 * Adds what .env says to the variables of the process, and judges them.
 *
 * @param {object} options
 * @param {string} options.schema path of the schema
 * @param {string} [options.directory] where .env is looked for
 * @param {Object<string, string>} [options.variables] those of the process; they get what .env adds
 * @returns {{values: Object<string, string|undefined>, report: Report, source: string}} `source` says where
 *   the variables come from
 * @throws {EnvironmentError} with everything that is wrong
 */
function load({ schema: schemaFile, directory = process.cwd(), variables = process.env }) {
  const target = path.join(directory, '.env');
  const text = readText(target);
  let schema;
  try {
    schema = schemas.load(schemaFile);
  } catch (error) {
    if (error instanceof schemas.SchemaError) throw new EnvironmentError(error.message);
    throw error;
  }
  const source = text === null ? `the process (there is no ${target})` : target;
  const { report, values } = judge(schema, text ?? '', variables);
  if (report.errors.length > 0) throw new EnvironmentError(report.message(source), report.errors);
  dotenv.populate(variables, dotenv.parse(text ?? ''));
  return { values, report, source };
}

module.exports = { EnvironmentError, Report, judge, load, parseSchema: schemas.parse };
