'use strict';

const path = require('node:path');
const { createApplication } = require('./application');
const { createDatabase } = require('./database');
const environment = require('./environment');
const { createHealth } = require('./health');
const { serve } = require('./lifecycle');
const { createLog, secretValues, vouched } = require('./log');
const { watchMemory } = require('./memory');
const { readRelease } = require('./release');
const { parse } = require('./settings');

const SCHEMA = path.join(__dirname, '..', '..', 'env.schema.yml');
const NOT_CONFIGURED = 78;
const LONGEST_FAREWELL_MS = 2000;

/** Says why there is no start: to machines in the log, to people on stderr, whose last lines a deployment shows. */
async function refuse(error, base) {
  let entry;
  createLog({ base, write: (line) => { entry = line; } }).error(
    vouched(`cannot start: ${error.message}`),
    { event: 'start.refused', problems: vouched(error.problems) },
  );
  // PM2 replaces the streams by files that are written later: whoever leaves at once leaves without a word.
  const written = (stream, text) => new Promise((resolve) => { stream.write(text, resolve); });
  setTimeout(() => process.exit(NOT_CONFIGURED), LONGEST_FAREWELL_MS);
  await Promise.all([written(process.stdout, entry), written(process.stderr, `cannot start: ${error.message}\n`)]);
  process.exit(NOT_CONFIGURED);
}

async function main() {
  const release = readRelease();
  const base = { version: release.version, release: release.id, pid: process.pid };

  let loaded;
  try {
    loaded = environment.load({ schema: SCHEMA });
  } catch (error) {
    if (!(error instanceof environment.EnvironmentError)) throw error;
    await refuse(error, base);
  }
  const settings = parse(loaded.values);

  const log = createLog({ level: settings.logLevel, secrets: secretValues(process.env), base });
  for (const event of ['uncaughtException', 'unhandledRejection']) {
    process.on(event, (error) => {
      log.error('ending after an unexpected error', { event, error });
      process.exit(1);
    });
  }

  const { warnings } = loaded.report;
  if (warnings.length > 0) {
    const message = ['the environment has warnings:', ...loaded.report.warningTexts(loaded.source)].join('\n  - ');
    log.warn(vouched(message), { event: 'environment.warnings', problems: vouched(warnings) });
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
