'use strict';

const assert = require('node:assert/strict');
const http = require('node:http');
const test = require('node:test');
const { DatabaseUnavailable } = require('../src/database');
const { fakeDatabase, start } = require('./support');

const ROAST = { target: 'Sam', body: 'Your code has more comments than commits.', author: 'Kim' };

test('a roast is stored and listed', async (t) => {
  const app = await start(t);
  const created = await app.post('/api/roasts', ROAST);
  assert.equal(created.status, 201);
  assert.equal((await created.json()).roast.target, 'Sam');
  const listed = await app.get('/api/roasts');
  assert.equal(listed.status, 200);
  assert.deepEqual((await listed.json()).roasts.map((roast) => roast.body), [ROAST.body]);
});

test('a bad roast is refused with every problem named', async (t) => {
  const app = await start(t);
  const answer = await app.post('/api/roasts', { target: ' ', author: 'a'.repeat(81) });
  assert.equal(answer.status, 400);
  const { error } = await answer.json();
  for (const part of ['target is required', 'body is required', 'author may have at most 80']) assert.ok(error.includes(part), error);
  assert.equal((await app.post('/api/roasts', '{"target":')).status, 400);
});

test('every answer in production bears the security headers and tells release and worker', async (t) => {
  const app = await start(t, { database: fakeDatabase({ query: async () => { throw new Error('boom'); } }) });
  const answers = {
    200: await app.get('/'),
    400: await app.post('/api/roasts', '{'),
    404: await app.get('/nothing/here'),
    500: await app.get('/api/roasts'),
  };
  for (const [status, answer] of Object.entries(answers)) {
    assert.equal(answer.status, Number(status));
    assert.match(answer.headers.get('content-security-policy'), /default-src 'self'/);
    assert.match(answer.headers.get('strict-transport-security'), /max-age=31536000/);
    assert.equal(answer.headers.get('x-frame-options'), 'DENY');
    assert.equal(answer.headers.get('x-content-type-options'), 'nosniff');
    assert.equal(answer.headers.get('x-release'), '20260101T000000Z-1.0.0-abcdef0');
    assert.equal(answer.headers.get('x-worker'), String(process.pid));
    assert.equal(answer.headers.get('x-powered-by'), null);
  }
});

test('HSTS is not sent in development', async (t) => {
  const app = await start(t, { settings: { production: false } });
  assert.equal((await app.get('/')).headers.get('strict-transport-security'), null);
});

test('hashed assets are cached for a year and compressed, the page is revalidated', async (t) => {
  const app = await start(t);
  const asset = await app.get('/assets/index-DX5W_Ixp.js', { 'Accept-Encoding': 'gzip' });
  assert.equal(asset.headers.get('cache-control'), 'public, max-age=31536000, immutable');
  assert.equal(asset.headers.get('content-encoding'), 'gzip');
  const page = await app.get('/');
  assert.equal(page.headers.get('cache-control'), 'no-cache');
  assert.equal(page.headers.get('last-modified'), null);
  // fetch() would add `Cache-Control: no-cache`, which asks for the whole page.
  const again = await new Promise((resolve) => {
    http.get(`${app.address}/`, { headers: { 'If-None-Match': page.headers.get('etag') } }, (answer) => {
      resolve(answer.resume());
    });
  });
  assert.equal(again.statusCode, 304);
  const missing = await app.get('/assets/index-00000000.js');
  assert.equal(missing.status, 404);
  assert.equal(missing.headers.get('cache-control'), null);
});

test('writing is limited for each client behind the proxy, reading is not', async (t) => {
  const app = await start(t);
  const from = (client) => ({ 'X-Forwarded-For': client });
  for (let count = 0; count < 3; count += 1) {
    assert.equal((await app.post('/api/roasts', ROAST, from('203.0.113.7'))).status, 201);
  }
  assert.equal((await app.post('/api/roasts', ROAST, from('203.0.113.7'))).status, 429);
  // What the client itself put in front does not make it another client.
  assert.equal((await app.post('/api/roasts', ROAST, from('198.51.100.9, 203.0.113.7'))).status, 429);
  assert.equal((await app.post('/api/roasts', ROAST, from('203.0.113.8'))).status, 201);
  for (let count = 0; count < 20; count += 1) {
    assert.equal((await app.get('/api/roasts', from('203.0.113.7'))).status, 200);
  }
});

test('a lost database gives 503 and says when to come back', async (t) => {
  const app = await start(t, { database: fakeDatabase({ query: async () => { throw new DatabaseUnavailable(); } }) });
  const answer = await app.get('/api/roasts');
  assert.equal(answer.status, 503);
  assert.equal(answer.headers.get('retry-after'), '5');
});

test('the request log names the client, and neither query nor body', async (t) => {
  const app = await start(t);
  await app.get('/api/roasts?token=very-secret', { 'X-Forwarded-For': '203.0.113.7' });
  await new Promise((resolve) => { setTimeout(resolve, 20); });
  const [line] = app.lines;
  assert.equal(line.path, '/api/roasts');
  assert.equal(line.client, '203.0.113.7');
  assert.equal(line.status, 200);
  assert.ok(!JSON.stringify(app.lines).includes('very-secret'));
});
