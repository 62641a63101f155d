'use strict';

// The application of the bench: one file that answers, and 3,000 that lie about. Like most it does nothing on SIGINT.

const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');

function read(file) {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

const { version } = JSON.parse(read(path.join(__dirname, 'package.json')));
const release = JSON.parse(read('.release.json') || '{}').id || version;
const port = process.env.PORT || (/^PORT=(\d+)$/m.exec(read('.env')) || [])[1];

http
  .createServer((request, response) => {
    response.setHeader('X-Release', release);
    response.setHeader('X-Worker', process.pid);
    response.setHeader('Content-Type', 'application/json');
    response.end(JSON.stringify({ status: 'healthy', version }));
  })
  .listen(Number(port), process.env.HOST || '0.0.0.0');
