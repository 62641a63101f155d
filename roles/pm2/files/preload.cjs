'use strict';

// Loaded by `node --require` before the application, in every worker and in every candidate. It does for an
// application that does nothing itself what a switch without a lost request needs:
//
// - On SIGINT and SIGTERM the worker leaves the port that it shares with other workers, answers what is under way,
//   tells every client to come back on another connection, and ends. Without it the signal ends it on the spot.
//   Processes that it has started are told to end only then.
// - It joins that port only once its own health path answers 200 (option selfGate). Which port that is says the
//   variable PORT; without it, every port is held back. What waits for the event `listening` to become healthy is given
//   it after a while (option listeningMs).
// - What it said right before it ended is in PM2's log.
// - A start that fails in a promise ends the worker, as Node.js does by itself, so that PM2 starts it again.
// - Its answers name the worker (X-Worker) and the release (X-Release), so that the gate can tell workers apart.
//
// It stands in for the default action of the signals, no more: where the application has a handler of its own for a
// signal, that handler alone decides; with one for SIGINT the worker joins at once. Headers that the application sets
// stay as they are.
// Left alone: HTTP/2, plain TCP servers (but where their port is taken), worker threads, and processes that listen to
// nothing.
//
// Its options are in preload.json beside it. Of the environment it reads PORT, RELEASE_CANDIDATE and one variable of PM2,
// which says where the logs are and when PM2 kills, and shows none.

const cluster = require('node:cluster');
const { EventEmitter } = require('node:events');
const fs = require('node:fs');
const http = require('node:http');
const https = require('node:https');
const Module = require('node:module');
const net = require('node:net');
const path = require('node:path');
const { performance } = require('node:perf_hooks');
const { isMainThread } = require('node:worker_threads');

const SIGNALS = ['SIGINT', 'SIGTERM'];

const DEFAULTS = {
  // Path whose 200 says that the worker may have traffic.
  healthPath: '/health',
  // Whether a cluster worker stays off the shared port until it is healthy.
  selfGate: false,
  // Milliseconds from the signal to the end, whatever is under way. Has to be below PM2's kill_timeout.
  hardLimitMs: 10000,
  // Milliseconds after the last request, over whichever connection, after which kept-alive ones are closed while
  // draining: longer than the pauses of a client that is at work, so that its next request does not meet the end of the
  // connection half-way. A load balancer that is at work may send its next one over each of them. Half the hard limit
  // at most: what is still open then is cut, together with a request that has just come.
  quietMs: 2000,
  // Milliseconds that a cluster worker stays after its last connection has come: the primary may have handed over
  // one more, which would be lost with the process.
  lingerMs: 500,
  // Milliseconds that a worker is held back before the application is told that it listens, although it does not yet:
  // its health may wait for that. Longer than most applications take to warm up, which need not be told ahead.
  listeningMs: 5000,
};
// How much of a log is searched for what may have been written to it already, and how long that may take.
const LOG_TAIL = 65536;
const LOG_WAIT_MS = 50;
// How often a draining worker looks at its connections, and how late such a look may be to count.
const SWEEP_MS = 100;
const LATE_MS = 50;
const FIRST_PROBE_PAUSE_MS = 200;
const LONGEST_PROBE_PAUSE_MS = 2000;
const PROBE_LIMIT_MS = 3000;
// A close frame of RFC 6455 (section 5.5.1), from the server, hence unmasked: code 1001, going away. Newer codes
// such as 1012 (service restart) are refused by older clients.
const WEBSOCKET_CLOSE = Buffer.from([0x88, 0x02, 0x03, 0xe9]);

const original = {
  listen: net.Server.prototype.listen,
  close: net.Server.prototype.close,
  writeHead: http.ServerResponse.prototype.writeHead,
};

let options = DEFAULTS;
let release = '';
let draining = false;
// HTTP servers of the application that may be listening, all that are watched, and the listens that wait for the gate.
const servers = new Set();
const adopted = new WeakSet();
// Server: listeners of its event `listening` that were called ahead.
const toldAhead = new WeakMap();
const waiting = new Map();
// Server: what it may be opened with instead, where its port is taken.
const instead = new WeakMap();
// Connection: what is known of it.
const connections = new Map();
let lastArrival = 0;
let lastRequest = 0;
// Whether the application has ever begun to listen to anything.
let begun = false;

function say(text) {
  process.stderr.write(`preload: ${text}\n`);
}

function readJson(file) {
  try {
    const content = JSON.parse(fs.readFileSync(file, 'utf8'));
    return content !== null && typeof content === 'object' ? content : {};
  } catch {
    return {};
  }
}

// ---- Signals ---------------------------------------------------------------------------------------------------

// Whether this process was told to end.
let told = false;

// A signal that the application handled once is its own from then on.
let handledByApplication = false;

function handlersOf(signal) {
  return EventEmitter.prototype.rawListeners.call(process, signal).filter((listener) => listener !== onSignal);
}

// Listeners of the package signal-exit only watch: if nobody else listens, they end the process themselves.
function watchers() {
  return [process.__signal_exit_emitter__, globalThis[Symbol.for('signal-exit emitter')]]
    .map((emitter) => (emitter && Number.isInteger(emitter.count) ? emitter.count : 0))
    .reduce((sum, count) => sum + count, 0);
}

function applicationHandles(signal) {
  return handledByApplication || handlersOf(signal).length > watchers();
}

// Libraries count the listeners of a signal to see whether somebody else will end the process. Where the application
// handles it, nobody else will: then the listener of this file must not be counted.
function hideOwnListener() {
  const replacements = {
    listenerCount(name, ...rest) {
      const count = EventEmitter.prototype.listenerCount.call(this, name, ...rest);
      const own = rest[0] === undefined && EventEmitter.prototype.listeners.call(this, name).includes(onSignal);
      return own && SIGNALS.includes(name) && applicationHandles(name) ? count - 1 : count;
    },
  };
  for (const method of ['listeners', 'rawListeners']) {
    replacements[method] = function listeners(name) {
      const all = EventEmitter.prototype[method].call(this, name);
      return SIGNALS.includes(name) && applicationHandles(name) ? all.filter((one) => one !== onSignal) : all;
    };
  }
  for (const [name, value] of Object.entries(replacements)) {
    Object.defineProperty(process, name, { value, configurable: true, writable: true, enumerable: false });
  }
}

function takeDefaultAction(signal) {
  endChildren();
  process.removeListener(signal, onSignal);
  process.kill(process.pid, signal);
}

function parentOf(pid) {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
  } catch {
    return null; // it has ended meanwhile
  }
}

/**
 * Ends the processes that this one has started and that it leaves behind, where it was told to end.
 *
 * PM2 would tell them at the same time as the worker, which may need them for the requests that it has to answer yet.
 */
function endChildren() {
  const children = new Map();
  try {
    for (const name of fs.readdirSync('/proc')) {
      const parent = /^\d+$/.test(name) ? parentOf(name) : null;
      if (parent !== null) children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
    }
  } catch {
    return; // no /proc
  }
  const end = (pid) => {
    for (const child of children.get(pid) ?? []) {
      end(child);
      try {
        process.kill(child, 'SIGTERM');
      } catch {
        // It has ended, or is another user's.
      }
    }
  };
  end(process.pid);
}

function onSignal(signal) {
  told = true;
  if (draining) return;
  if (handlersOf(signal).length > watchers()) {
    handledByApplication = true;
    return;
  }
  for (const [server, wait] of waiting) cancel(server, wait);
  // An application may have left its ports itself, and be answering still.
  const serves = connections.size > 0 || [...servers].some((server) => server.listening);
  if (handledByApplication || !serves) {
    takeDefaultAction(signal);
    return;
  }
  drain().then((cut) => {
    if (!cut) process.exit(0);
    say(`still at work ${options.hardLimitMs} ms after ${signal}: ${cut} requests are cut`);
    process.exit(0);
  });
}

// ---- Connections -----------------------------------------------------------------------------------------------

function track(socket) {
  lastArrival = performance.now();
  connections.set(socket, {
    requests: 0,
    bytes: 0,
    quietSince: lastArrival,
    endedAt: null,
    readAtEnd: 0,
    // Bytes that had been written when the connection became another protocol's; null before.
    upgradedAt: null,
    webSocket: false,
  });
  socket.once('close', () => connections.delete(socket));
}

function trackResponse(socket, response) {
  const connection = connections.get(socket);
  if (!connection) return;
  connection.requests += 1;
  lastRequest = performance.now();
  response.once('close', () => {
    connection.requests -= 1;
    connection.quietSince = performance.now();
  });
}

function trackUpgrade(socket, request) {
  const connection = connections.get(socket);
  if (!connection) return;
  connection.upgradedAt = socket.bytesWritten;
  connection.webSocket = String(request.headers.upgrade).toLowerCase() === 'websocket';
}

// Events are watched where they are emitted. A listener would change what the application's server does: one for
// `upgrade` makes Node.js accept upgrades, one for `checkContinue` makes it wait.
function adopt(server) {
  servers.add(server);
  if (adopted.has(server)) return;
  adopted.add(server);
  const arrival = server instanceof https.Server ? 'secureConnection' : 'connection';
  const { emit } = server;
  const watched = function emitWatched(event, ...parameters) {
    if (event === arrival) track(parameters[0]);
    else if (event === 'connection') lastArrival = performance.now();
    else if (event === 'request' || event === 'checkContinue' || event === 'checkExpectation') {
      trackResponse(parameters[0].socket, parameters[1]);
    } else if (event === 'upgrade' || event === 'connect') trackUpgrade(parameters[1], parameters[0]);
    else if (event === 'close') servers.delete(server);
    if (event === 'listening' && toldAhead.has(server)) return emitListening(server, emit);
    return emit.call(this, event, ...parameters);
  };
  Object.defineProperty(server, 'emit', { value: watched, configurable: true, writable: true, enumerable: false });
}

function has(given, name) {
  const names = Array.isArray(given) && !Array.isArray(given[0]) ? given.filter((_, index) => index % 2 === 0) : null;
  const wanted = name.toLowerCase();
  return (names || (Array.isArray(given) ? given.map(([one]) => one) : Object.keys(given || {}))).some(
    (one) => String(one).toLowerCase() === wanted,
  );
}

/** The headers that writeHead() was given, as object or list, with `Connection: close` for what they say of it. */
function closing(given) {
  const isConnection = (name) => String(name).toLowerCase() === 'connection';
  const closed = ([name, value]) => [name, isConnection(name) ? 'close' : value];
  if (!Array.isArray(given)) return Object.fromEntries(Object.entries(given).map(closed));
  if (Array.isArray(given[0])) return given.map(closed);
  return given.map((item, index) => (index % 2 === 1 && isConnection(given[index - 1]) ? 'close' : item));
}

// The last step of every HTTP/1.1 answer before its header is on the way.
function writeHead(...parameters) {
  if (!this.headersSent) {
    const place = typeof parameters[1] === 'string' || parameters[2] != null ? 2 : 1;
    const given = parameters[place];
    const own = [['X-Worker', String(process.pid)]];
    if (release) own.push(['X-Release', release]);
    const missing = own.filter(([name]) => !this.hasHeader(name) && !has(given, name));
    if (Array.isArray(given)) {
      // A list may name one header several times, which does not go together with setHeader in older Node.js.
      parameters[place] = [...given, ...(Array.isArray(given[0]) ? missing : missing.flat())];
    } else {
      for (const [name, value] of missing) this.setHeader(name, value);
    }
    // A handshake (101) is no answer after which the connection may be closed; nor is one behind which the client has
    // sent further requests already.
    if (draining && parameters[0] !== 101 && !(connections.get(this.req?.socket)?.requests > 1)) {
      this.shouldKeepAlive = false;
      if (this.hasHeader('Connection')) this.setHeader('Connection', 'close');
      if (has(given, 'Connection')) parameters[place] = closing(parameters[place]);
    }
  }
  return original.writeHead.apply(this, parameters);
}

// ---- Draining --------------------------------------------------------------------------------------------------

function closeWebSockets(now) {
  for (const [socket, connection] of connections) {
    // An upgrade that is not answered yet is work under way.
    const answered = connection.upgradedAt !== null && socket.bytesWritten > connection.upgradedAt;
    if (!connection.webSocket || !answered || connection.endedAt !== null || !socket.writable) continue;
    connection.endedAt = now;
    connection.readAtEnd = socket.bytesRead;
    socket.write(WEBSOCKET_CLOSE);
  }
}

function closeQuietConnections(drainStart) {
  const now = performance.now();
  closeWebSockets(now);
  for (const [socket, connection] of connections) {
    const bytes = socket.bytesRead + (connection.upgradedAt === null ? 0 : socket.bytesWritten);
    if (bytes !== connection.bytes) {
      connection.bytes = bytes;
      connection.quietSince = now;
    }
    if (connection.requests > 0) continue;
    if (connection.endedAt !== null) {
      // The peer of a WebSocket answers the close frame, and then waits for the server to hang up.
      if (connection.webSocket && socket.bytesRead > connection.readAtEnd && socket.writable) socket.end();
      // The client was told, and does not hang up.
      if (now - connection.endedAt > options.quietMs) socket.destroySoon();
      continue;
    }
    const silence = now - Math.max(connection.quietSince, drainStart);
    const unused = connection.upgradedAt === null ? Math.min(silence, now - lastRequest) : silence;
    if (unused >= options.quietMs || silence >= options.hardLimitMs / 2) {
      connection.endedAt = now;
      socket.end();
    }
  }
}

/** Leaves the port and sees all connections off. Resolves to the number of requests that had to be cut. */
function drain() {
  draining = true;
  const drainStart = performance.now();
  const lingerMs = cluster.isWorker ? options.lingerMs : 0;
  lastArrival = drainStart;
  let open = 0;
  for (const server of servers) {
    if (!server.listening) continue;
    open += 1;
    // http.Server's own close() cuts idle connections at once (Node.js 19 and newer), just when the next request may
    // be on its way.
    original.close.call(server, () => {
      open -= 1;
    });
  }
  closeWebSockets(drainStart);

  return new Promise((resolve) => {
    const finished = () => open === 0 && connections.size === 0 && performance.now() - lastArrival >= lingerMs;
    let expected = drainStart + SWEEP_MS;
    const timer = setInterval(() => {
      const now = performance.now();
      const late = now - expected > LATE_MS;
      expected = now + SWEEP_MS;
      if (now - drainStart >= options.hardLimitMs) {
        clearInterval(timer);
        resolve([...connections.values()].reduce((sum, connection) => sum + connection.requests, 0));
        return;
      }
      // In a late event loop there are requests waiting that only look like silence. After the poll phase, and in a
      // round that was on time, silence is silence.
      if (late) return;
      setImmediate(() => {
        closeQuietConnections(drainStart);
        if (finished()) {
          clearInterval(timer);
          resolve(0);
        }
      });
    }, SWEEP_MS);
  });
}

// ---- Joining ---------------------------------------------------------------------------------------------------

/** What the application's own health path answers, asked on a loopback port that nobody else knows. */
async function probe(server) {
  const own = http.createServer((request, response) => server.emit('request', request, response));
  try {
    await new Promise((resolve, reject) => {
      own.once('error', reject);
      original.listen.call(own, { host: '127.0.0.1', port: 0, exclusive: true }, resolve);
    });
    return await new Promise((resolve, reject) => {
      const where = { host: '127.0.0.1', port: own.address().port, path: options.healthPath };
      const request = http.get({ ...where, agent: false, timeout: PROBE_LIMIT_MS }, (response) => {
        response.resume();
        response.once('end', () => resolve(`HTTP ${response.statusCode}`));
        response.once('error', reject);
      });
      request.once('timeout', () => request.destroy(new Error(`no answer within ${PROBE_LIMIT_MS} ms`)));
      request.once('error', reject);
    });
  } catch (error) {
    return error.message;
  } finally {
    original.close.call(own);
    own.closeAllConnections?.();
  }
}

function someoneServes({ host, port }) {
  return new Promise((resolve) => {
    const reachable = !host || host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host;
    const socket = net.connect({ host: reachable, port });
    socket.setTimeout(1000, () => socket.destroy());
    socket.once('connect', () => {
      resolve(true);
      socket.end();
    });
    socket.once('error', () => resolve(false));
    socket.once('close', () => resolve(false));
  });
}

/** Address of a listen() that shares a TCP port, or null: ports of a worker's own and sockets are not gated. */
function sharedAddress(parameters) {
  const [first, second] = parameters;
  const described = first !== null && typeof first === 'object';
  if (described && (first.exclusive || first.fd !== undefined || first.path !== undefined || first.handle)) return null;
  const port = Number(described ? first.port : first);
  if (first === '' || !Number.isInteger(port) || port < 1 || port > 65535) return null;
  const host = described ? first.host : second;
  return { host: typeof host === 'string' ? host : undefined, port };
}

/** Port that the health path is asked on: the one that PORT names, or null where it names none. */
function livePort() {
  const port = Number(process.env.PORT);
  return Number.isInteger(port) && port >= 1 && port <= 65535 ? port : null;
}

function cancel(server, wait) {
  wait.cancelled = true;
  wait.endPretence();
  // The next listen() is another one.
  toldAhead.delete(server);
}

/**
 * Tells the application that its server listens, without opening the port.
 *
 * Some become healthy only then: `listen(port, () => { ready = true; })`. To join before they are would answer users
 * with errors for as long as the gate of the deployment waits, whenever the cause is another: a worker that joins is
 * given requests at once, however ill. So it is told what it waits for, and held back on until it is healthy.
 */
function pretendToListen(server, address, wait) {
  const host = address.host === undefined || net.isIP(address.host) !== 0 ? address.host : '127.0.0.1';
  const family = net.isIP(host ?? '::') === 6 ? 'IPv6' : 'IPv4';
  const where = { address: host ?? '::', family, port: address.port };
  const pretence = { address: { value: () => ({ ...where }) }, listening: { value: true } };
  for (const [name, property] of Object.entries(pretence)) {
    Object.defineProperty(server, name, { ...property, configurable: true, enumerable: false });
  }
  wait.endPretence = () => {
    for (const name of Object.keys(pretence)) delete server[name];
  };
  const callback = wait.parameters.find((parameter) => typeof parameter === 'function');
  if (callback) server.once('listening', callback);
  wait.parameters = wait.parameters.filter((parameter) => typeof parameter !== 'function');
  const listeners = server.rawListeners('listening');
  // In a turn of its own, so that what a listener throws ends the process as it would have otherwise.
  setImmediate(() => {
    if (wait.cancelled) return;
    server.emit('listening');
    // Of these, those that wanted to hear of it once are gone by then.
    if (!wait.cancelled) toldAhead.set(server, listeners);
  });
}

/** Tells those that have not been told ahead, such as node:cluster, that the server listens. */
function emitListening(server, emit) {
  const present = server.rawListeners('listening');
  const told = toldAhead.get(server).filter((listener) => present.includes(listener));
  toldAhead.delete(server);
  for (const listener of told) server.removeListener('listening', listener);
  try {
    return emit.call(server, 'listening');
  } finally {
    for (const listener of told) server.on('listening', listener);
  }
}

/**
 * Holds a worker back until it is healthy. Where nobody serves at all, an unhealthy answer is better than none: it
 * tells the load balancer, and whoever looks, what is wrong.
 */
async function joinWhenHealthy(server, address, wait) {
  // An application may register its handlers right behind listen().
  await new Promise((resolve) => setImmediate(resolve));
  const start = performance.now();
  let pause = FIRST_PROBE_PAUSE_MS;
  let pretends = false;
  // SIGINT is the one that PM2 sends. A handler for SIGTERM alone is one for other places, such as a container.
  while (!wait.cancelled && !applicationHandles('SIGINT')) {
    const answer = await probe(server);
    if (answer === 'HTTP 200' || wait.cancelled) break;
    if (!(await someoneServes(address))) {
      say(`joining port ${address.port} although ${options.healthPath} says "${answer}", since nobody else serves`);
      break;
    }
    if (wait.cancelled) break;
    const left = options.listeningMs - (performance.now() - start);
    let length = pause;
    if (pretends || left > 0) {
      say(`${options.healthPath} says "${answer}": staying off port ${address.port}, next look in ${length} ms`);
      if (!pretends) length = Math.min(length, left + 1);
      pause = Math.min(pause * 2, LONGEST_PROBE_PAUSE_MS);
    } else {
      pretends = true;
      pause = FIRST_PROBE_PAUSE_MS;
      length = pause;
      say(
        `${options.healthPath} still says "${answer}" after ${options.listeningMs} ms: telling the application ` +
          `that it listens on port ${address.port}, since it may become healthy only by that. It joins once it is ` +
          'healthy. If its health waits for anything else that only an open port brings, make it answer 200 ' +
          'without, or set pm2_preload_self_gate: false',
      );
      pretendToListen(server, address, wait);
    }
    await new Promise((resolve) => setTimeout(resolve, length));
  }
  if (waiting.get(server) === wait) waiting.delete(server);
  // In a turn of its own, so that what listen() throws ends the process as it would have without this.
  setImmediate(() => {
    if (wait.cancelled) return;
    wait.endPretence();
    original.listen.apply(server, wait.parameters);
  });
}

/**
 * What else a server may be opened with that finds its port taken.
 *
 * Where a worker wants all addresses: `0.0.0.0`, `::` and no address exclude each other. A release that says it in other
 * words than the one that serves could never join it; so it takes the port as it is open already. Where a candidate
 * wants a further port, for metrics perhaps: that of the release that serves, which workers share and a candidate
 * cannot. Nobody asks it there.
 */
function otherWays(parameters, { host, port }) {
  const described = typeof parameters[0] === 'object' ? parameters[0] : { port };
  const all = [undefined, '0.0.0.0', '::'];
  if (cluster.isWorker && all.includes(host)) {
    return all.filter((other) => other !== host).map((other) => ({ ...described, host: other }));
  }
  const further = process.env.RELEASE_CANDIDATE === '1' && livePort() !== null && port !== livePort();
  return further ? [{ ...described, host: '127.0.0.1', port: 0 }] : [];
}

function listenInstead(server) {
  const { port, ways } = instead.get(server) ?? {};
  const next = ways?.shift();
  if (next === undefined) return false;
  const how = next.port === 0 ? 'a candidate does without it' : `trying it on ${next.host ?? 'no address in particular'}`;
  say(`port ${port} is taken: ${how}`);
  // In a turn of its own: Node.js has not given up the first attempt yet.
  setImmediate(() => draining || original.listen.call(server, next));
  return true;
}

/** Has a server try those ways, be it one that is left alone otherwise. */
function watchErrors(server) {
  const { emit } = server;
  const watched = function emitWatched(event, ...parameters) {
    if (event === 'error' && parameters[0]?.code === 'EADDRINUSE' && listenInstead(server)) return true;
    return emit.call(this, event, ...parameters);
  };
  Object.defineProperty(server, 'emit', { value: watched, configurable: true, writable: true, enumerable: false });
}

function listen(...parameters) {
  begun = true;
  const address = sharedAddress(parameters);
  if (!instead.has(this)) watchErrors(this);
  instead.set(this, address === null ? {} : { port: address.port, ways: otherWays(parameters, address) });
  if (!(this instanceof http.Server || this instanceof https.Server)) return original.listen.apply(this, parameters);
  adopt(this);
  // The probe speaks plain HTTP, which an HTTPS application may answer with a redirection.
  if (!options.selfGate || !cluster.isWorker || address === null || this instanceof https.Server) {
    return original.listen.apply(this, parameters);
  }
  // Other servers of the process, for metrics or administration, need not know the health path. Held back, they would
  // never be opened, and with them whatever the application does only afterwards.
  const live = livePort();
  if (live !== null && address.port !== live) return original.listen.apply(this, parameters);
  const wait = { cancelled: false, parameters, endPretence: () => {} };
  if (waiting.has(this)) cancel(this, waiting.get(this));
  waiting.set(this, wait);
  joinWhenHealthy(this, address, wait);
  return this;
}

function close(callback) {
  const wait = waiting.get(this);
  if (wait === undefined) return original.close.call(this, callback);
  cancel(this, wait);
  waiting.delete(this);
  process.nextTick(() => {
    if (typeof callback === 'function') callback();
    this.emit('close');
  });
  return this;
}

// ---- Last words ------------------------------------------------------------------------------------------------

// PM2's workers write their log files asynchronously, so that a process that ends takes the lines with it that were not
// written yet: all of them if it ends while its script is loaded, which is when the reason matters most.
function keepLastWords({ pm_err_log_path: errors, pm_out_log_path: output, pm_log_path: both }) {
  let files;
  try {
    const names = [errors, output, both].filter((file) => typeof file === 'string' && file !== '');
    // Where the words of this process begin: the process before it may have said the same.
    files = new Map(names.map((file) => [file, fs.statSync(file, { throwIfNoEntry: false })?.size ?? 0]));
  } catch {
    return; // no log is no reason to fail
  }
  if (files.size === 0) return; // not under PM2
  const pending = new Set();
  const { createWriteStream } = fs;
  fs.createWriteStream = function createWatchedStream(file, ...rest) {
    const stream = createWriteStream.call(this, file, ...rest);
    if (!files.has(file)) return stream;
    const { write } = stream;
    stream.write = function writeWatched(chunk, ...parameters) {
      const words = { file, chunk };
      const encoding = typeof parameters[0] === 'string' ? parameters[0] : undefined;
      const callback = parameters.find((parameter) => typeof parameter === 'function');
      pending.add(words);
      return write.call(this, chunk, encoding, (error) => {
        pending.delete(words);
        if (callback) callback(error);
      });
    };
    return stream;
  };
  process.on('exit', () => {
    if (pending.size === 0) return;
    // A write that is under way gets its time.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LOG_WAIT_MS);
    for (const { file, chunk } of pending) {
      try {
        if (!tail(file, files.get(file)).includes(chunk)) fs.appendFileSync(file, chunk);
      } catch {
        // No log is no reason to fail.
      }
    }
  });
}

function tail(file, begin) {
  const descriptor = fs.openSync(file, 'r');
  try {
    const { size } = fs.fstatSync(descriptor);
    // A file that was rotated begins anew.
    const start = Math.max(size - LOG_TAIL, begin <= size ? begin : 0);
    const buffer = Buffer.alloc(LOG_TAIL);
    const read = fs.readSync(descriptor, buffer, 0, LOG_TAIL, start);
    return buffer.subarray(0, read);
  } finally {
    fs.closeSync(descriptor);
  }
}

// ---- Failed starts ---------------------------------------------------------------------------------------------

/**
 * Ends a worker that fails before it listens to anything.
 *
 * PM2's workers listen for unhandled rejections, so that Node.js takes them for handled: where `main()` rejects, or a
 * module at its top, since the database is away, the worker would be there for ever, "online", and serve nothing.
 * What happens later, in a single request perhaps, is left to PM2, which logs it: others are being answered.
 */
function endFailedStart(reason) {
  const others = process.listeners('unhandledRejection').filter((listener) => listener !== endFailedStart);
  if (begun || others.some((listener) => listener.name !== 'uncaughtListener')) return;
  throw reason;
}

// ---- The release -----------------------------------------------------------------------------------------------

/**
 * Enters the directory of the release, as PM2 does once Node.js has loaded everything that its arguments name.
 *
 * What they name behind this file, such as `--import @sentry/node/preload`, is a package of the release.
 */
function enterRelease({ pm_cwd: directory }) {
  try {
    if (typeof directory === 'string') process.chdir(directory);
    // That of all files named by --require: where packages are looked for was settled before the first of them.
    if (module.parent) module.parent.paths = Module._nodeModulePaths(process.cwd());
  } catch {
    // Gone, which PM2 will tell.
  }
  const { id } = readJson('.release.json');
  if (typeof id === 'string' && /^[\x21-\x7e]+$/.test(id)) release = id;
}

/** What PM2 was told of the application when the generation of this worker was started; empty without PM2. */
function pm2Environment() {
  try {
    return JSON.parse(process.env.pm2_env) ?? {};
  } catch {
    return {};
  }
}

function install() {
  options = { ...DEFAULTS, ...readJson(path.join(__dirname, 'preload.json')) };
  const pm2 = pm2Environment();
  // The options may be newer than the generation, as they are when a worker is started again after a change. Then PM2
  // still kills after the time that it was told at first; two thirds of it is what the options say as well.
  const killTimeout = Number(pm2.kill_timeout);
  if (killTimeout > 0) options.hardLimitMs = Math.min(options.hardLimitMs, Math.floor((killTimeout * 2) / 3));
  options.quietMs = Math.min(options.quietMs, options.hardLimitMs / 2);
  enterRelease(pm2);
  keepLastWords(pm2);
  hideOwnListener();
  for (const signal of SIGNALS) process.on(signal, onSignal);
  process.on('exit', () => told && endChildren());
  // Whoever says what such rejections are to do means it.
  const said = process.execArgv.some((argument) => /^--unhandled-rejections(?!=throw)/.test(argument));
  if (pm2.pm_exec_path !== undefined && !said) process.on('unhandledRejection', endFailedStart);
  net.Server.prototype.listen = listen;
  net.Server.prototype.close = close;
  http.ServerResponse.prototype.writeHead = writeHead;
}

// Worker threads get no signals, and load this file too.
if (isMainThread) install();
