'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const { createLog } = require('../src/log');

function logged(message, fields, secrets = []) {
  const lines = [];
  createLog({ secrets, write: (line) => lines.push(line) }).info(message, fields);
  return lines.join('');
}

test('an entry is one line of JSON with time and level', () => {
  const line = logged('two\nlines', { event: 'x' });
  assert.equal(line.split('\n').length, 2);
  const entry = JSON.parse(line);
  assert.equal(entry.level, 'info');
  assert.equal(entry.message, 'two\nlines');
  assert.ok(!Number.isNaN(Date.parse(entry.timestamp)));
});

const LEAKS = {
  'field password': { fields: { password: 'hunter2hunter2' }, secret: 'hunter2hunter2' },
  'nested field': { fields: { user: { apiKey: 'abc123secret' } }, secret: 'abc123secret' },
  'field in a list': { fields: { users: [{ access_token: 'tok-998877' }] }, secret: 'tok-998877' },
  'authorization header': { fields: { headers: { authorization: 'Bearer abcdef123456' } }, secret: 'abcdef123456' },
  'bearer in text': { message: 'sent Bearer abcdef123456', secret: 'abcdef123456' },
  'connection address': { message: 'postgres://roastify:s3cr3t-pw@db:5432/x failed', secret: 's3cr3t-pw' },
  'pair in text': { message: 'PG_PASSWORD=hunter2hunter2 rejected', secret: 'hunter2hunter2' },
  'JSON in text': { message: 'body {"password":"hunter2hunter2"}', secret: 'hunter2hunter2' },
  'web token': { message: 'eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl', secret: 'c2lnbmF0dXJl' },
  'card number': { message: 'paid with 4111 1111 1111 1111', secret: '4111 1111 1111 1111' },
  'card number in a field': { fields: { note: '5500-0000-0000-0004' }, secret: '5500-0000-0000-0004' },
  'known value': { message: 'odd place: zebra-quartz-17', secrets: ['zebra-quartz-17'], secret: 'zebra-quartz-17' },
  'error message and stack': { fields: { error: new Error('password=hunter2hunter2') }, secret: 'hunter2hunter2' },
};

for (const [name, leak] of Object.entries(LEAKS)) {
  test(`no secret leaves: ${name}`, () => {
    const line = logged(leak.message || 'something happened', leak.fields, leak.secrets);
    assert.ok(!line.includes(leak.secret), line);
    assert.ok(line.includes('[redacted]'), line);
  });
}

test('ordinary numbers and words stay readable', () => {
  const line = logged('took 1764000000001 ms', { path: '/api/passengers', status: 200 });
  assert.ok(line.includes('1764000000001') && line.includes('/api/passengers'));
});

test('cycles do not break the log', () => {
  const fields = { name: 'loop' };
  fields.self = fields;
  assert.equal(JSON.parse(logged('cycle', fields)).self.name ?? 'loop', 'loop');
});
