'use strict';

const fs = require('node:fs');
const { Pool } = require('pg');

// Below the 2 seconds within which a health check must answer.
const HEALTH_LIMIT = 1500;
const CONNECT_LIMIT = 1400;
const QUERY_LIMIT = 10000;
const FIRST_RETRY = 250;
const LONGEST_RETRY = 15000;

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
  // Name and chain are always checked; a private authority (RDS, a sandbox) comes from PG_SSL_CA.
  return settings.certificateAuthority
    ? { rejectUnauthorized: true, ca: fs.readFileSync(settings.certificateAuthority, 'utf8') }
    : { rejectUnauthorized: true };
}

function limit(promise, milliseconds) {
  let timer;
  const tooLate = new Promise((_resolve, reject) => {
    timer = setTimeout(() => reject(new DatabaseUnavailable(new Error(`no answer within ${milliseconds} ms`))), milliseconds);
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
    connectionTimeoutMillis: CONNECT_LIMIT,
    keepAlive: true,
  };
  const pool = new Pool({
    ...connection,
    application_name: 'roastify',
    max: settings.connections,
    query_timeout: QUERY_LIMIT,
    statement_timeout: QUERY_LIMIT,
  });
  // Health has a connection of its own: a busy pool is not an unreachable database.
  const healthPool = new Pool({
    ...connection,
    application_name: 'roastify health',
    max: 1,
    query_timeout: CONNECT_LIMIT,
  });

  let lost = false;
  let closed = false;
  let retryTimer = null;
  let checking = null;

  function connectionLost(error) {
    if (lost || closed) return;
    lost = true;
    log.error('database connection lost', { event: 'database.lost', reason: error.cause?.message || error.message });
    retry(FIRST_RETRY);
  }

  function connectionRestored() {
    if (!lost) return;
    lost = false;
    clearTimeout(retryTimer);
    log.info('database connection restored', { event: 'database.restored' });
  }

  function retry(delay) {
    retryTimer = setTimeout(async () => {
      if (closed || !lost) return;
      try {
        await limit(healthPool.query('SELECT 1'), HEALTH_LIMIT);
        connectionRestored();
      } catch (error) {
        if (closed || !lost) return;
        log.warn('database still unreachable', { event: 'database.retry', nextTryMs: Math.min(delay * 2, LONGEST_RETRY) });
        retry(Math.min(delay * 2, LONGEST_RETRY));
      }
    }, delay);
    retryTimer.unref();
  }

  // Idle connections break too; without a listener that would end the process.
  pool.on('error', connectionLost);
  healthPool.on('error', connectionLost);

  return {
    async query(text, values) {
      if (lost) throw new DatabaseUnavailable();
      try {
        return await pool.query(text, values);
      } catch (error) {
        if (!isConnectionLoss(error)) throw error;
        connectionLost(error);
        throw new DatabaseUnavailable(error);
      }
    },

    /** Asks the database itself, at most once at a time however many health checks come in. */
    async check() {
      checking ??= limit(healthPool.query('SELECT 1'), HEALTH_LIMIT).finally(() => {
        checking = null;
      });
      try {
        await checking;
        connectionRestored();
      } catch (error) {
        connectionLost(error);
        throw error;
      }
    },

    async close() {
      closed = true;
      clearTimeout(retryTimer);
      await Promise.allSettled([pool.end(), healthPool.end()]);
    },
  };
}

module.exports = { DatabaseUnavailable, createDatabase, isConnectionLoss };
