'use strict';

const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { createApplication } = require('../src/application');
const { createHealth } = require('../src/health');
const { createLog } = require('../src/log');

const VARIABLES = {
  NODE_ENV: 'production',
  PORT: '5000',
  APP_URL: 'https://roastify.online',
  PG_HOST: 'database',
  PG_DATABASE: 'roastify',
  PG_USER: 'roastify',
  PG_PASSWORD: 'correct horse battery staple 7',
  JWT_SECRET: '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08',
};

/** A database that answers from memory, or as the test wants it to. */
function fakeDatabase(overrides = {}) {
  const rows = [];
  return {
    async query(text, values) {
      if (text.startsWith('INSERT')) {
        const [target, body, author] = values;
        rows.unshift({ id: String(rows.length + 1), target, body, author, createdAt: new Date() });
        return { rows: [rows[0]] };
      }
      return { rows };
    },
    async check() {},
    ...overrides,
  };
}

/** Speaks as much PostgreSQL as a simple query needs, to the connections whose application name it answers. */
async function fakePostgres(test, { answers }) {
  const message = (type, ...parts) => {
    const body = Buffer.concat(parts);
    const head = Buffer.alloc(5);
    head.write(type);
    head.writeInt32BE(body.length + 4, 1);
    return Buffer.concat([head, body]);
  };
  const ready = message('Z', Buffer.from('I'));
  const server = net.createServer((socket) => {
    let silent = null;
    socket.on('error', () => {});
    socket.on('data', (data) => {
      if (silent === null) {
        silent = !answers(data.toString('latin1'));
        // Signed in without a password.
        if (!silent) socket.write(Buffer.concat([message('R', Buffer.alloc(4)), ready]));
      } else if (!silent && data[0] === 'Q'.charCodeAt(0)) {
        socket.write(Buffer.concat([message('C', Buffer.from('SELECT 0\0')), ready]));
      }
    });
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  test.after(() => server.close());
  return server;
}

function frontend(test) {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'frontend-'));
  test.after(() => fs.rmSync(directory, { recursive: true }));
  fs.mkdirSync(path.join(directory, 'assets'));
  fs.writeFileSync(path.join(directory, 'index.html'), '<!doctype html><title>Roastify</title>');
  fs.writeFileSync(path.join(directory, 'assets', 'index-DX5W_Ixp.js'), `console.log(${JSON.stringify('x'.repeat(4000))});`);
  return directory;
}

/** Starts the application on a free port; `get` and `post` ask it. */
async function start(test, { settings = {}, database = fakeDatabase(), memory } = {}) {
  const lines = [];
  const application = createApplication({
    settings: { production: true, trustedProxies: 1, rateLimit: { windowSeconds: 60, requests: 3 }, ...settings },
    release: { version: '1.0.0', id: '20260101T000000Z-1.0.0-abcdef0' },
    database,
    health: createHealth({ database, version: '1.0.0', memory }),
    log: createLog({ level: 'debug', write: (line) => lines.push(JSON.parse(line)) }),
    assets: frontend(test),
  });
  const server = http.createServer(application);
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  test.after(() => {
    server.close();
    server.closeAllConnections();
  });
  const address = `http://127.0.0.1:${server.address().port}`;
  return {
    address,
    lines,
    get: (target, headers = {}) => fetch(address + target, { headers }),
    post: (target, body, headers = {}) => fetch(address + target, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...headers },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    }),
  };
}

module.exports = { VARIABLES, fakeDatabase, fakePostgres, start };
