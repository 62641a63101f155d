'use strict';

/**
 * What this application makes of its environment. The values have passed the schema, and have its defaults.
 *
 * @param {Object<string, string|undefined>} values by the names of the schema
 */
function parse(values) {
  return {
    production: values.NODE_ENV === 'production',
    host: values.HOST,
    port: Number(values.PORT),
    logLevel: values.LOG_LEVEL,
    trustedProxies: Number(values.TRUSTED_PROXIES),
    rateLimit: {
      windowSeconds: Number(values.RATE_LIMIT_WINDOW_SECONDS),
      requests: Number(values.RATE_LIMIT_REQUESTS),
    },
    database: {
      host: values.PG_HOST,
      port: Number(values.PG_PORT),
      database: values.PG_DATABASE,
      user: values.PG_USER,
      password: values.PG_PASSWORD,
      ssl: values.PG_SSL === 'true',
      certificateAuthority: values.PG_SSL_CA,
      connections: Number(values.PG_POOL_SIZE),
    },
  };
}

module.exports = { parse };
