'use strict';

const fs = require('node:fs');
const path = require('node:path');
const compression = require('compression');
const express = require('express');
const helmet = require('helmet');
const { createRoasts } = require('./roasts');

const YEAR_SECONDS = 365 * 24 * 60 * 60;

function securityHeaders(production) {
  return helmet({
    contentSecurityPolicy: {
      useDefaults: false,
      directives: {
        defaultSrc: ["'self'"],
        baseUri: ["'none'"],
        formAction: ["'self'"],
        frameAncestors: ["'none'"],
        imgSrc: ["'self'", 'data:'],
        objectSrc: ["'none'"],
      },
    },
    frameguard: { action: 'deny' },
    // Browsers remember this for a year, so a developer's http://localhost must never send it.
    strictTransportSecurity: production ? { maxAge: YEAR_SECONDS, includeSubDomains: true } : false,
  });
}

/** Every answer tells which release and which worker gave it: the deployment's gate counts on it. */
function identify(release) {
  return (_request, response, next) => {
    response.set('X-Release', release.id);
    response.set('X-Worker', String(process.pid));
    next();
  };
}

function logRequests(log) {
  return (request, response, next) => {
    const start = process.hrtime.bigint();
    response.once('close', () => {
      const fields = {
        event: 'request',
        method: request.method,
        // Without the query string: that is where people put what must not be logged.
        path: request.originalUrl.split('?', 1)[0],
        status: response.statusCode,
        durationMs: Math.round(Number(process.hrtime.bigint() - start) / 1e4) / 100,
        client: request.ip,
      };
      if (!response.writableFinished) log.warn('client went away before the answer was complete', fields);
      else if (response.statusCode >= 500) log.error('request failed', fields);
      else if (fields.path === '/health') log.debug('request', fields);
      else log.info('request', fields);
    });
    next();
  };
}

/** The built front end: hashed assets for a year, the page that names them revalidated every time. */
function frontend(directory) {
  const router = express.Router();
  const indexFile = path.join(directory, 'index.html');
  // Read once and tagged by content: files of two releases may share size and time.
  const index = fs.existsSync(indexFile) ? fs.readFileSync(indexFile) : null;

  router.use('/assets', express.static(path.join(directory, 'assets'), {
    immutable: true,
    maxAge: YEAR_SECONDS * 1000,
    index: false,
    redirect: false,
  }));
  router.get(['/', '/index.html'], (_request, response, next) => {
    if (index === null) {
      next();
      return;
    }
    response.set('Cache-Control', 'no-cache').type('html').send(index);
  });
  return router;
}

function createApplication({ settings, release, database, health, log, assets }) {
  const application = express();
  application.disable('x-powered-by');
  // Believe exactly as many X-Forwarded-For hops as there are proxies of ours: the client's own address counts.
  application.set('trust proxy', settings.trustedProxies);

  application.use(identify(release));
  application.use(securityHeaders(settings.production));
  application.use(logRequests(log));
  application.use(compression());

  application.get('/health', async (_request, response) => {
    const result = await health();
    response.set('Cache-Control', 'no-store').status(result.status === 'unhealthy' ? 503 : 200).json(result);
  });
  application.use('/api/roasts', express.json({ limit: '16kb' }), createRoasts({ database, rateLimit: settings.rateLimit }));
  application.use(frontend(assets));

  application.use((_request, response) => {
    response.status(404).json({ error: 'There is nothing at this address.' });
  });

  // Express tells error handlers by their four parameters.
  application.use((error, _request, response, next) => {
    if (response.headersSent) {
      next(error);
      return;
    }
    if (error.name === 'DatabaseUnavailable') {
      response.set('Retry-After', '5').status(503).json({ error: 'The database is not available. Please try again soon.' });
      return;
    }
    const status = error.statusCode >= 400 && error.statusCode < 500 ? error.statusCode : 500;
    if (status === 500) log.error('unexpected error', { event: 'error', error });
    response.status(status).json({ error: status === 500 ? 'Something went wrong on our side.' : error.message });
  });

  return application;
}

module.exports = { createApplication };
