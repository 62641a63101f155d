'use strict';

const v8 = require('node:v8');

const LIMIT_PERCENT = 90;
const CHECK_SECONDS = 15;
const SUSTAINED_SECONDS = 300;
const MEBIBYTE = 1024 * 1024;

/**
 * Memory in MiB, against the limit at which this process would die. The heap that V8 has claimed so far
 * (heapTotal) is no such limit: a small, healthy heap is nearly always nearly full.
 */
function readMemory() {
  const heap = v8.getHeapStatistics();
  return {
    used: Math.round(heap.used_heap_size / MEBIBYTE),
    total: Math.round(heap.heap_size_limit / MEBIBYTE),
    percentage: Math.round((heap.used_heap_size / heap.heap_size_limit) * 1000) / 10,
  };
}

function isShort(memory) {
  return memory.percentage > LIMIT_PERCENT;
}

/** Warns when memory runs short, collects garbage if it may (`--expose-gc`), and alerts if that lasts. */
function watchMemory(log, { read = readMemory, now = () => Date.now() } = {}) {
  let shortSince = null;
  let alerted = false;

  function check() {
    const memory = read();
    if (!isShort(memory)) {
      if (shortSince !== null) log.info('memory usage is back to normal', { event: 'memory.normal', memory });
      shortSince = null;
      alerted = false;
      return;
    }
    if (shortSince === null) {
      shortSince = now();
      log.warn('memory usage exceeds 90 %', { event: 'memory.short', memory });
    }
    if (typeof global.gc === 'function') global.gc();
    if (!alerted && now() - shortSince > SUSTAINED_SECONDS * 1000) {
      alerted = true;
      // The log group's metric filter turns this line into an alarm.
      log.error('memory usage has exceeded 90 % for more than 5 minutes', { event: 'memory.alert', memory });
    }
  }

  const timer = setInterval(check, CHECK_SECONDS * 1000);
  timer.unref();
  return { check, stop: () => clearInterval(timer) };
}

module.exports = { isShort, readMemory, watchMemory };
