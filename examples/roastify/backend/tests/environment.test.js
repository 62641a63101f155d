'use strict';

const assert = require('node:assert/strict');
const { spawnSync } = require('node:child_process');
const path = require('node:path');
const test = require('node:test');
const { REQUIRED, parse } = require('../src/environment');
const { VARIABLES } = require('./support');

test('complete variables become settings', () => {
  const settings = parse({ ...VARIABLES, PG_SSL: 'true', HOST: '127.0.0.1' });
  assert.equal(settings.port, 5000);
  assert.equal(settings.host, '127.0.0.1');
  assert.equal(settings.database.port, 5432);
  assert.equal(settings.database.ssl, true);
  assert.equal(settings.production, true);
});

test('every missing variable is named at once', () => {
  assert.throws(() => parse({}), (error) => REQUIRED.every((name) => error.message.includes(name)));
  assert.throws(() => parse({ ...VARIABLES, PG_PASSWORD: ' ' }), /PG_PASSWORD/);
});

test('every invalid variable is named without its value', () => {
  assert.throws(() => parse({ ...VARIABLES, PORT: 'hunter2', PG_SSL: 'maybe' }), (error) => (
    /PORT must be/.test(error.message) && /PG_SSL must be/.test(error.message) && !/hunter2/.test(error.message)
  ));
});

test('the process refuses to start without its variables, and says so in one line of JSON', () => {
  const server = path.join(__dirname, '..', 'src', 'server.js');
  const result = spawnSync(process.execPath, [server], { env: { PATH: process.env.PATH }, cwd: __dirname, encoding: 'utf8' });
  assert.equal(result.status, 78);
  const lines = result.stdout.trim().split('\n').map((line) => JSON.parse(line));
  assert.equal(lines.length, 1);
  assert.equal(lines[0].level, 'error');
  assert.deepEqual(lines[0].missing, REQUIRED);
});
