'use strict';

// In place of the reference application's lifecycle: an application that, like most, does nothing about signals.

const http = require('node:http');

// Longer than the idle limit of the load balancer in front (60 s), which must be the one to hang up.
const KEEP_ALIVE_MS = 65000;

async function serve(listener, { host, port, log }) {
  const server = http.createServer(listener);
  server.keepAliveTimeout = KEEP_ALIVE_MS;
  server.headersTimeout = KEEP_ALIVE_MS + 1000;
  server.listen({ host, port }, () => log.info('serving', { event: 'ready', host, port }));
  return server;
}

module.exports = { serve };
