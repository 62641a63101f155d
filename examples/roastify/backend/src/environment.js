'use strict';

const path = require('node:path');
const dotenv = require('dotenv');

// What the process cannot do without. Everything else has a default or is read where it is used.
const REQUIRED = [
  'NODE_ENV',
  'PORT',
  'APP_URL',
  'PG_HOST',
  'PG_DATABASE',
  'PG_USER',
  'PG_PASSWORD',
  'JWT_SECRET',
];

class EnvironmentError extends Error {
  constructor(missing, invalid) {
    const parts = [];
    if (missing.length > 0) parts.push(`missing required environment variables: ${missing.join(', ')}`);
    if (invalid.length > 0) parts.push(`invalid environment variables: ${invalid.join('; ')}`);
    super(`${parts.join('. ')}. Set them in .env or in the environment of the process.`);
    this.name = 'EnvironmentError';
    this.missing = missing;
    this.invalid = invalid;
  }
}

/** Adds what `.env` in the working directory says; a variable of the process itself wins. */
function readFile(directory = process.cwd()) {
  const result = dotenv.config({ path: path.join(directory, '.env') });
  if (result.error && result.error.code !== 'ENOENT') throw result.error;
}

/** Turns variables into settings, or throws one EnvironmentError that names every problem at once. */
function parse(variables) {
  const missing = REQUIRED.filter((name) => !variables[name] || variables[name].trim() === '');
  const invalid = [];

  function number(name, fallback, lowest, highest) {
    const text = variables[name];
    if (text === undefined || text === '') return fallback;
    const value = Number(text);
    if (Number.isInteger(value) && value >= lowest && value <= highest) return value;
    invalid.push(`${name} must be a whole number from ${lowest} to ${highest}`);
    return fallback;
  }

  function flag(name, fallback) {
    const text = variables[name];
    if (text === undefined || text === '') return fallback;
    if (text === 'true') return true;
    if (text === 'false') return false;
    invalid.push(`${name} must be true or false`);
    return fallback;
  }

  const settings = {
    production: variables.NODE_ENV === 'production',
    host: variables.HOST || '0.0.0.0',
    port: number('PORT', undefined, 1, 65535),
    logLevel: variables.LOG_LEVEL || 'info',
    trustedProxies: number('TRUSTED_PROXIES', 1, 0, 10),
    rateLimit: {
      windowSeconds: number('RATE_LIMIT_WINDOW_SECONDS', 60, 1, 86400),
      requests: number('RATE_LIMIT_REQUESTS', 60, 1, 1000000),
    },
    database: {
      host: variables.PG_HOST,
      port: number('PG_PORT', 5432, 1, 65535),
      database: variables.PG_DATABASE,
      user: variables.PG_USER,
      password: variables.PG_PASSWORD,
      ssl: flag('PG_SSL', false),
      certificateAuthority: variables.PG_SSL_CA || undefined,
      connections: number('PG_POOL_SIZE', 5, 1, 200),
    },
  };

  if (missing.length > 0 || invalid.length > 0) throw new EnvironmentError(missing, invalid);
  return settings;
}

module.exports = { EnvironmentError, REQUIRED, parse, readFile };
