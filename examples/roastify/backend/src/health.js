'use strict';

const { isShort, readMemory } = require('./memory');

/** Answers the load balancer and the deployment: is this process able to serve? */
function createHealth({ database, version, memory = readMemory }) {
  return async function health() {
    const start = process.hrtime.bigint();
    let databaseStatus = 'healthy';
    try {
      await database.check();
    } catch {
      databaseStatus = 'unhealthy';
    }
    const responseTime = Math.round(Number(process.hrtime.bigint() - start) / 1e6);
    const memoryNow = memory();

    let status = 'healthy';
    if (isShort(memoryNow)) status = 'degraded';
    if (databaseStatus === 'unhealthy') status = 'unhealthy';

    return {
      status,
      timestamp: new Date().toISOString(),
      version,
      uptime: Math.floor(process.uptime()),
      checks: {
        database: { status: databaseStatus, responseTime },
        memory: memoryNow,
      },
    };
  };
}

module.exports = { createHealth };
