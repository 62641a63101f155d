'use strict';

// How a worker joins and leaves the port that it shares with the other workers, of its own release and of
// the one before or after it. The promise: a client never sees a refused, reset or cut connection.

const cluster = require('node:cluster');
const http = require('node:http');
const net = require('node:net');
const { setTimeout: delay } = require('node:timers/promises');

const DEFAULTS = {
  // Longer than the idle limit of the load balancer in front (60 s), which must be the one to hang up.
  keepAliveMs: 65000,
  // Keep-alive connections are closed while draining when no request has come over any of them for so long: a load
  // balancer that is at work may send its next one over each. Half the hard limit at most.
  quietMs: 2000,
  // The cluster's primary may have handed over a connection that has not arrived yet.
  lingerMs: 500,
  // Below PM2's kill_timeout.
  hardLimitMs: 10000,
};
const SWEEP_MS = 100;
const LATE_MS = 50;
const FIRST_PROBE_PAUSE_MS = 200;
const LONGEST_PROBE_PAUSE_MS = 2000;
const PROBE_LIMIT_MS = 3000;

/** Asks this process's own application for its health, on a loopback port that no other worker shares. */
async function probe(listener, healthPath) {
  const server = http.createServer(listener);
  try {
    await new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host: '127.0.0.1', port: 0, exclusive: true }, resolve);
    });
    return await new Promise((resolve, reject) => {
      const request = http.get(
        { host: '127.0.0.1', port: server.address().port, path: healthPath, agent: false, timeout: PROBE_LIMIT_MS },
        (response) => {
          response.resume();
          response.once('end', () => resolve(response.statusCode));
          response.once('error', reject);
        },
      );
      request.once('timeout', () => request.destroy(new Error(`no answer within ${PROBE_LIMIT_MS} ms`)));
      request.once('error', reject);
    });
  } catch (error) {
    return error.message;
  } finally {
    server.close();
    server.closeAllConnections();
  }
}

function someoneServes(host, port) {
  return new Promise((resolve) => {
    const socket = net.connect({ host: host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host, port });
    socket.setTimeout(1000, () => socket.destroy());
    socket.once('connect', () => {
      resolve(true);
      socket.end();
    });
    socket.once('error', () => resolve(false));
    socket.once('close', () => resolve(false));
  });
}

/**
 * Holds a worker back until it is healthy. Where nobody serves at all, an unhealthy answer is better than
 * none: it tells the load balancer, and whoever looks, what is wrong.
 */
async function waitUntilHealthy(listener, { host, port, healthPath, log }) {
  let pause = FIRST_PROBE_PAUSE_MS;
  for (;;) {
    const answer = await probe(listener, healthPath);
    if (answer === 200) return;
    if (!(await someoneServes(host, port))) {
      log.warn('joining although not healthy, since nobody else serves', { event: 'gate.open', answer });
      return;
    }
    log.warn('not healthy yet, staying off the shared port', { event: 'gate.wait', answer, nextTryMs: pause });
    await delay(pause);
    pause = Math.min(pause * 2, LONGEST_PROBE_PAUSE_MS);
  }
}

/** Stops a server without failing one request. Resolves to true if all went well before the hard limit. */
function createDrain(server, { quietMs, lingerMs, hardLimitMs }) {
  // A connection that is still open at the hard limit is cut together with a request that has just come.
  const longestMs = hardLimitMs / 2;
  const patienceMs = Math.min(quietMs, longestMs);
  const connections = new Map();
  const responses = new Set();
  let draining = false;
  let lastArrival = 0;
  let lastRequest = 0;

  server.on('connection', (socket) => {
    lastArrival = performance.now();
    connections.set(socket, { requests: 0, bytesRead: 0, quietSince: lastArrival, endedAt: null });
    socket.once('close', () => connections.delete(socket));
  });

  // Before the application's own listener, so that the header is there when it answers.
  server.prependListener('request', (request, response) => {
    const connection = connections.get(request.socket);
    lastRequest = performance.now();
    responses.add(response);
    if (connection) connection.requests += 1;
    if (draining) response.setHeader('Connection', 'close');
    response.once('close', () => {
      responses.delete(response);
      if (!connection) return;
      connection.requests -= 1;
      connection.quietSince = performance.now();
    });
  });

  function closeQuietConnections(drainStart) {
    const now = performance.now();
    for (const [socket, connection] of connections) {
      if (socket.bytesRead !== connection.bytesRead) {
        connection.bytesRead = socket.bytesRead;
        connection.quietSince = now;
      }
      if (connection.requests > 0) continue;
      if (connection.endedAt !== null) {
        // The client was told and does not hang up.
        if (now - connection.endedAt > patienceMs) socket.destroy();
        continue;
      }
      const silence = now - Math.max(connection.quietSince, drainStart);
      if (Math.min(silence, now - lastRequest) >= patienceMs || silence >= longestMs) {
        connection.endedAt = now;
        socket.end();
      }
    }
  }

  return function drain() {
    draining = true;
    const drainStart = performance.now();
    lastArrival = drainStart;
    // http.Server's own close() cuts idle keep-alive connections at once (Node.js 19 and newer), just as the
    // next request may be on its way.
    net.Server.prototype.close.call(server);
    for (const response of responses) {
      if (!response.headersSent) response.setHeader('Connection', 'close');
    }

    return new Promise((resolve) => {
      let expected = drainStart + SWEEP_MS;
      const timer = setInterval(() => {
        const now = performance.now();
        const late = now - expected > LATE_MS;
        expected = now + SWEEP_MS;
        if (now - drainStart >= hardLimitMs) {
          clearInterval(timer);
          resolve({ clean: connections.size === 0, cut: responses.size });
          return;
        }
        // A late event loop has requests waiting that only look like silence. After the poll phase, and in
        // a round that was on time, silence is silence.
        if (late) return;
        setImmediate(() => {
          closeQuietConnections(drainStart);
          if (connections.size === 0 && performance.now() - lastArrival >= lingerMs) {
            clearInterval(timer);
            resolve({ clean: true, cut: 0 });
          }
        });
      }, SWEEP_MS);
    });
  };
}

/**
 * Serves until a signal comes: joins the port when healthy, says `ready`, drains on SIGINT and SIGTERM and
 * ends the process.
 */
async function serve(listener, { host, port, healthPath = '/health', log, close = async () => {}, ...limits }) {
  const { keepAliveMs, ...drainLimits } = { ...DEFAULTS, ...limits };
  const server = http.createServer(listener);
  server.keepAliveTimeout = keepAliveMs;
  server.headersTimeout = keepAliveMs + 1000;
  const drain = createDrain(server, drainLimits);

  let stopping = false;
  async function stop(signal) {
    if (stopping) return;
    stopping = true;
    if (!server.listening) process.exit(0);
    log.info('draining', { event: 'drain.start', signal });
    const { clean, cut } = await drain();
    if (clean) log.info('drained', { event: 'drain.end' });
    else log.warn('drain limit reached, cutting what is left', { event: 'drain.cut', requests: cut });
    await Promise.race([close(), delay(1000)]);
    process.exit(0);
  }
  process.on('SIGINT', () => stop('SIGINT'));
  process.on('SIGTERM', () => stop('SIGTERM'));

  // A candidate on a port of its own answers at once, so that its gate sees what is wrong with it.
  if (cluster.isWorker) await waitUntilHealthy(listener, { host, port, healthPath, log });
  if (stopping) return server;

  await new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port }, resolve);
  });
  log.info('serving', { event: 'ready', host, port });
  if (process.send) process.send('ready');
  return server;
}

module.exports = { createDrain, probe, serve, waitUntilHealthy };
