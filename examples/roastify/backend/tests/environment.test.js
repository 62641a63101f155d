'use strict';

const assert = require('node:assert/strict');
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const test = require('node:test');
const dotenv = require('dotenv');
const environment = require('../src/environment');
const file = require('../src/environment/file');
const { createLog, vouched } = require('../src/log');
const { parse } = require('../src/settings');
const { VARIABLES } = require('./support');

const ROOT = path.join(__dirname, '..', '..');
const SCHEMA = path.join(ROOT, 'env.schema.yml');

function directory(t, content) {
  const made = fs.mkdtempSync(path.join(os.tmpdir(), 'environment-'));
  t.after(() => fs.rmSync(made, { recursive: true }));
  if (content !== undefined) fs.writeFileSync(path.join(made, '.env'), content);
  return made;
}

function load(t, content, variables = {}) {
  return environment.load({ schema: SCHEMA, directory: directory(t, content), variables });
}

test('complete variables become settings, and the schema has the defaults', (t) => {
  const { values, report } = load(t, undefined, { ...VARIABLES, PG_SSL: 'true' });
  assert.deepEqual(report.problems, []);
  assert.deepEqual(parse(values), {
    production: true,
    host: '0.0.0.0',
    port: 5000,
    logLevel: 'info',
    trustedProxies: 1,
    rateLimit: { windowSeconds: 60, requests: 60 },
    database: {
      host: 'database',
      port: 5432,
      database: 'roastify',
      user: 'roastify',
      password: VARIABLES.PG_PASSWORD,
      ssl: true,
      certificateAuthority: undefined,
      connections: 5,
    },
  });
});

test('the file is added to the process, which wins', (t) => {
  const variables = { ...VARIABLES, PORT: '6000' };
  const { values, source } = load(t, 'PORT=7000\nHOST=127.0.0.1\nOTHER=x\n', variables);
  assert.equal(values.PORT, '6000');
  assert.equal(values.HOST, '127.0.0.1');
  assert.equal(variables.PORT, '6000');
  assert.equal(variables.OTHER, 'x');
  assert.match(source, /\.env$/);
});

test('everything that is wrong is named at once, with its line and without its value', (t) => {
  const { PG_HOST, PORT, ...rest } = VARIABLES;
  assert.throws(() => load(t, 'PORT=hunter2\n\nPG_SSL=maybe\n', { ...rest, JWT_SECRET: 'hunter22' }), (error) => {
    assert.ok(error instanceof environment.EnvironmentError);
    assert.deepEqual(error.problems.map(({ variable, code, line }) => [variable, code, line]), [
      ['PG_HOST', 'missing', null],
      ['JWT_SECRET', 'too_short', null],
      ['PORT', 'port', 1],
      ['PG_SSL', 'boolean', 3],
    ]);
    assert.match(error.message, /\.env:3: PG_SSL is not a boolean \(found 5 characters: lower-case letters\)/);
    return !/hunter2|maybe/.test(error.message + JSON.stringify(error.problems));
  });
});

test('the rules of an environment hold where the environment is named', (t) => {
  const named = { ...VARIABLES, APP_ENVIRONMENT: 'production', APP_URL: 'http://roastify.online' };
  assert.throws(() => load(t, '', named), /APP_URL does not begin with https:\/\/ in production/);
  delete named.APP_ENVIRONMENT;
  assert.equal(load(t, '', named).report.environment, '');
});

test('warnings stop nothing', (t) => {
  const { report, source } = load(t, 'PORTS=1\nnonsense\n', { ...VARIABLES });
  assert.deepEqual(report.warningTexts(source).map((text) => text.replace(source, '')), [
    ':1: PORTS is not in the schema. Did you mean PORT?',
    ':2: This line is neither an assignment nor a comment, and the application skips it in silence. Write it as NAME=value, or put # in front.',
  ]);
});

test('what is found in a file is what dotenv reads', () => {
  const pieces = ['A', 'B=', 'export ', '=', ': ', ' ', '\n', '\r\n', "'", '"', '`', '#', '\\', '\\n', 'x', '\u2028', '\ufeff', '-', '.'];
  let state = 7;
  const next = (limit) => {
    state = (state * 1103515245 + 12345) % 2147483648;
    return Math.floor((state / 2147483648) * limit);
  };
  for (let round = 0; round < 5000; round += 1) {
    const text = Array.from({ length: 3 + next(25) }, () => pieces[next(pieces.length)]).join('');
    const found = Object.fromEntries(file.read(text).entries.map(({ key, value }) => [key, value]));
    assert.deepEqual(found, dotenv.parse(text), JSON.stringify(text));
  }
});

test('vouched text is logged word for word, and only that', () => {
  const lines = [];
  const text = 'set JWT_SECRET: the secret: of sessions';
  createLog({ write: (line) => lines.push(JSON.parse(line)) }).info(vouched(text), { one: vouched([{ text }]), two: text });
  assert.equal(lines[0].message, text);
  assert.deepEqual(lines[0].one, [{ text }]);
  assert.match(lines[0].two, /redacted/);
});

test('the process refuses to start without its variables: a line of JSON for machines, and text for people', (t) => {
  const server = path.join(ROOT, 'backend', 'src', 'server.js');
  const cwd = directory(t);
  const result = spawnSync(process.execPath, [server], { env: { PATH: process.env.PATH }, cwd, encoding: 'utf8' });
  assert.equal(result.status, 78);
  const [entry, ...more] = result.stdout.trim().split('\n').map((line) => JSON.parse(line));
  assert.deepEqual(more, []);
  assert.equal(entry.level, 'error');
  assert.equal(entry.event, 'start.refused');
  assert.equal(`${entry.message}\n`, result.stderr);
  assert.deepEqual(entry.problems.map(({ variable }) => variable), Object.keys(VARIABLES));
});
