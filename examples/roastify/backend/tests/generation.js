'use strict';

// One worker for lifecycle.test.js: the real lifecycle around a tiny application.

const { createLog } = require('../src/log');
const { serve } = require('../src/lifecycle');

const { PORT, GENERATION, QUIET_MS, HARD_LIMIT_MS, SLOW_MS, HEALTH = '200', WARM_UP_MS = '0' } = process.env;
const started = Date.now();

serve((request, response) => {
  if (request.url === '/health') {
    response.statusCode = Date.now() - started < Number(WARM_UP_MS) ? 503 : Number(HEALTH);
    response.end();
    return;
  }
  response.setHeader('X-Release', GENERATION);
  setTimeout(() => response.end('roasted'), request.url === '/slow' ? Number(SLOW_MS) : Math.random() * 5);
}, {
  host: '127.0.0.1',
  port: Number(PORT),
  log: createLog({ level: 'error' }),
  quietMs: Number(QUIET_MS),
  lingerMs: 300,
  hardLimitMs: Number(HARD_LIMIT_MS),
});
