'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const { createDatabase } = require('../src/database');
const { createLog } = require('../src/log');
const { readMemory, watchMemory } = require('../src/memory');
const { fakeDatabase, fakePostgres, start } = require('./support');

test('a healthy process answers 200 with the agreed fields', async (t) => {
  const app = await start(t);
  const answer = await app.get('/health');
  assert.equal(answer.status, 200);
  assert.equal(answer.headers.get('cache-control'), 'no-store');
  const body = await answer.json();
  assert.deepEqual(Object.keys(body), ['status', 'timestamp', 'version', 'uptime', 'checks']);
  assert.equal(body.status, 'healthy');
  assert.equal(body.version, '1.0.0');
  assert.ok(Number.isInteger(body.uptime));
  assert.ok(Math.abs(Date.parse(body.timestamp) - Date.now()) < 5000);
  assert.deepEqual(Object.keys(body.checks), ['database', 'memory']);
  assert.equal(body.checks.database.status, 'healthy');
  assert.equal(typeof body.checks.database.responseTime, 'number');
  assert.deepEqual(Object.keys(body.checks.memory), ['used', 'total', 'percentage']);
});

test('an unreachable database means unhealthy and 503', async (t) => {
  const app = await start(t, { database: fakeDatabase({ check: async () => { throw new Error('gone'); } }) });
  const answer = await app.get('/health');
  assert.equal(answer.status, 503);
  const body = await answer.json();
  assert.equal(body.status, 'unhealthy');
  assert.equal(body.checks.database.status, 'unhealthy');
});

test('short memory means degraded and still 200', async (t) => {
  const app = await start(t, { memory: () => ({ used: 480, total: 512, percentage: 93.8 }) });
  const answer = await app.get('/health');
  assert.equal(answer.status, 200);
  assert.equal((await answer.json()).status, 'degraded');
});

test('a database that swallows connections is found out within 2 seconds', async (t) => {
  const silent = await fakePostgres(t, { answers: () => false });
  const lines = [];
  const log = createLog({ write: (line) => lines.push(JSON.parse(line)) });
  const database = createDatabase(
    { host: '127.0.0.1', port: silent.address().port, user: 'u', password: 'p', database: 'd', connections: 2 },
    log,
  );
  t.after(() => database.close());
  const app = await start(t, { database });
  const begin = Date.now();
  const answers = await Promise.all([app.get('/health'), app.get('/health'), app.get('/health')]);
  assert.ok(Date.now() - begin < 2000);
  assert.deepEqual(answers.map((answer) => answer.status), [503, 503, 503]);
  assert.equal(lines.filter((line) => line.event === 'database.lost').length, 1);
  assert.equal((await app.get('/api/roasts')).status, 503);
});

test('a fresh process is not short of memory', () => {
  const memory = readMemory();
  assert.ok(memory.percentage < 50, JSON.stringify(memory));
  assert.ok(memory.total >= memory.used);
});

test('short memory is logged once, and alerted once when it lasts', (t) => {
  const lines = [];
  const log = createLog({ write: (line) => lines.push(JSON.parse(line)) });
  let percentage = 95;
  let clock = 0;
  const watch = watchMemory(log, { read: () => ({ used: 1, total: 1, percentage }), now: () => clock });
  t.after(() => watch.stop());
  for (clock = 0; clock <= 400000; clock += 15000) watch.check();
  percentage = 40;
  watch.check();
  assert.deepEqual(lines.map((line) => line.event), ['memory.short', 'memory.alert', 'memory.normal']);
});

test('a question that goes unanswered is no loss while queries are answered', async (t) => {
  const lines = [];
  const log = createLog({ write: (line) => lines.push(JSON.parse(line)) });
  const server = await fakePostgres(t, { answers: (name) => !name.includes('health') });
  const database = createDatabase(
    { host: '127.0.0.1', port: server.address().port, user: 'u', password: 'p', database: 'd', connections: 2 },
    log,
  );
  t.after(() => database.close());
  const asking = database.check();
  const queries = setInterval(() => database.query('SELECT 1').catch(() => {}), 100);
  t.after(() => clearInterval(queries));
  await asking;
  clearInterval(queries);
  assert.deepEqual(lines, []);
});
