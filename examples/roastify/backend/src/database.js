'use strict';

const fs = require('node:fs');
const { Pool } = require('pg');

// Below the 2 seconds within which a health check must answer.
const HEALTH_LIMIT = 1500;
// On a busy machine a TLS handshake takes its time; a slow connection is no lost database.
const CONNECT_LIMIT = 5000;
const QUERY_LIMIT = 10000;
const WARM_UP_LIMIT = 3000;
const IDLE_LIMIT = 300000;
const FIRST_RETRY = 250;
const LONGEST_RETRY = 5000;

/** The database cannot be reached; clients get 503 and may come back. */
class DatabaseUnavailable extends Error {
  constructor(cause) {
    super('The database is not reachable.', { cause });
    this.name = 'DatabaseUnavailable';
  }
}

const LOST_CODES = new Set([
  'ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'EHOSTUNREACH', 'ENETUNREACH', 'ENOTFOUND', 'EAI_AGAIN',
]);

function isConnectionLoss(error) {
  if (error instanceof DatabaseUnavailable || LOST_CODES.has(error.code)) return true;
  // SQLSTATE 08: connection exceptions; 57P01 to 57P03: shut down, crashed, starting up; 53300: no slot left.
  if (/^(08...|57P0[123]|53300)$/.test(error.code || '')) return true;
  return /connection terminated|timeout exceeded when trying to connect|query read timeout/i.test(error.message);
}

function tls(settings) {
  if (!settings.ssl) return false;
  // Chain and name are always checked. TLS runs over a socket that is connected already, so it has to be told
  // the host, or an address would be checked as "localhost".
  const checked = { rejectUnauthorized: true, host: settings.host };
  // A private authority (RDS, a sandbox) comes from PG_SSL_CA.
  return settings.certificateAuthority
    ? { ...checked, ca: fs.readFileSync(settings.certificateAuthority, 'utf8') }
    : checked;
}

function limit(promise, milliseconds) {
  let timer;
  const tooLate = new Promise((_resolve, reject) => {
    timer = setTimeout(() => {
      // An answer that has arrived while the event loop was busy is read before this runs.
      setImmediate(() => reject(new DatabaseUnavailable(new Error(`no answer within ${milliseconds} ms`))));
    }, milliseconds);
  });
  return Promise.race([promise, tooLate]).finally(() => clearTimeout(timer));
}

function createDatabase(settings, log) {
  const connection = {
    host: settings.host,
    port: settings.port,
    database: settings.database,
    user: settings.user,
    password: settings.password,
    ssl: tls(settings),
    keepAlive: true,
  };
  const pool = new Pool({
    ...connection,
    application_name: 'roastify',
    max: settings.connections,
    idleTimeoutMillis: IDLE_LIMIT,
    connectionTimeoutMillis: CONNECT_LIMIT,
    query_timeout: QUERY_LIMIT,
    statement_timeout: QUERY_LIMIT,
  });
  // Health has a connection of its own: a busy pool is not an unreachable database.
  const healthPool = new Pool({
    ...connection,
    application_name: 'roastify health',
    max: 1,
    idleTimeoutMillis: 0,
    connectionTimeoutMillis: HEALTH_LIMIT,
    query_timeout: HEALTH_LIMIT,
  });

  let lost = false;
  let closed = false;
  let retryTimer = null;
  let checking = null;
  let lastAnswer = 0;

  function answered() {
    lastAnswer = performance.now();
    if (!lost) return;
    lost = false;
    clearTimeout(retryTimer);
    log.info('database connection restored', { event: 'database.restored' });
  }

  function connectionLost(error) {
    if (lost || closed) return;
    lost = true;
    log.error('database connection lost', { event: 'database.lost', reason: error.cause?.message || error.message });
    retry(FIRST_RETRY);
  }

  /** Asks the database itself. It is lost if neither this question nor any query meanwhile had an answer. */
  async function ask() {
    const start = performance.now();
    try {
      await limit(healthPool.query('SELECT 1'), HEALTH_LIMIT);
      answered();
    } catch (error) {
      if (lastAnswer > start) return;
      connectionLost(error);
      throw error;
    }
  }

  /** At most one question at a time, however many health checks come in. */
  function check() {
    checking ??= ask().finally(() => {
      checking = null;
    });
    return checking;
  }

  function retry(delay) {
    retryTimer = setTimeout(async () => {
      if (closed || !lost) return;
      await check().catch(() => {});
      if (closed || !lost) return;
      const next = Math.min(delay * 2, LONGEST_RETRY);
      log.warn('database still unreachable', { event: 'database.retry', nextTryMs: next });
      retry(next);
    }, delay);
    retryTimer.unref();
  }

  // Idle connections break too; without a listener that would end the process. One broken connection says
  // little, so the database is asked.
  function suspect() {
    if (!lost && !closed) check().catch(() => {});
  }
  pool.on('error', suspect);
  healthPool.on('error', suspect);

  return {
    check,

    async query(text, values) {
      if (lost) throw new DatabaseUnavailable();
      try {
        const result = await pool.query(text, values);
        answered();
        return result;
      } catch (error) {
        if (!isConnectionLoss(error)) throw error;
        suspect();
        throw new DatabaseUnavailable(error);
      }
    },

    /** Opens the connections before the first request needs them. Without a database, health will tell. */
    async warmUp() {
      const connect = async () => (await pool.connect()).release();
      const all = Array.from({ length: settings.connections }, connect);
      await limit(Promise.allSettled([check(), ...all]), WARM_UP_LIMIT).catch(() => {});
    },

    async close() {
      closed = true;
      clearTimeout(retryTimer);
      await Promise.allSettled([pool.end(), healthPool.end()]);
    },
  };
}

module.exports = { DatabaseUnavailable, createDatabase, isConnectionLoss };
