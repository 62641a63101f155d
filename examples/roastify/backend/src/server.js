'use strict';

const path = require('node:path');
const { createApplication } = require('./application');
const { createDatabase } = require('./database');
const environment = require('./environment');
const { createHealth } = require('./health');
const { serve } = require('./lifecycle');
const { createLog, secretValues } = require('./log');
const { watchMemory } = require('./memory');
const { readRelease } = require('./release');

const NOT_CONFIGURED = 78;

async function main() {
  const release = readRelease();
  const base = { version: release.version, release: release.id, pid: process.pid };

  let settings;
  try {
    environment.readFile();
    settings = environment.parse(process.env);
  } catch (error) {
    createLog({ base }).error(`cannot start: ${error.message}`, { event: 'start.refused', missing: error.missing });
    process.exit(NOT_CONFIGURED);
  }

  const log = createLog({ level: settings.logLevel, secrets: secretValues(process.env), base });
  for (const event of ['uncaughtException', 'unhandledRejection']) {
    process.on(event, (error) => {
      log.error('ending after an unexpected error', { event, error });
      process.exit(1);
    });
  }

  const database = createDatabase(settings.database, log);
  const health = createHealth({ database, version: release.version });
  const assets = path.join(__dirname, '..', '..', 'frontend', 'dist');
  const application = createApplication({ settings, release, database, health, log, assets });

  await database.warmUp();
  watchMemory(log);
  await serve(application, { host: settings.host, port: settings.port, log, close: () => database.close() });
}

main();
