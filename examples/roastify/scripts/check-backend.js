'use strict';

// Prepares the back end: it runs as it is written, so this checks that every file parses and that every
// dependency it names is installed.

const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const { createRequire } = require('node:module');
const path = require('node:path');

const backend = path.join(__dirname, '..', 'backend');
const sources = path.join(backend, 'src');

const entries = fs.readdirSync(sources, { withFileTypes: true });
const inside = entries.filter((entry) => entry.isDirectory()).map(({ name }) => path.join(sources, name));
const directories = [sources, ...inside];
for (const directory of directories) {
  for (const name of fs.readdirSync(directory).filter((file) => file.endsWith('.js'))) {
    execFileSync(process.execPath, ['--check', path.join(directory, name)], { stdio: 'inherit' });
  }
}

const resolve = createRequire(path.join(backend, 'package.json')).resolve;
const { dependencies } = JSON.parse(fs.readFileSync(path.join(backend, 'package.json'), 'utf8'));
const missing = Object.keys(dependencies).filter((name) => {
  try {
    resolve(name);
    return false;
  } catch {
    return true;
  }
});
if (missing.length > 0) {
  console.error(`Not installed: ${missing.join(', ')}. Run npm ci and check backend/package.json.`);
  process.exit(1);
}
console.log('back end: sources parse, dependencies are installed');
