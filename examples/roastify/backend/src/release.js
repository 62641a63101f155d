'use strict';

const fs = require('node:fs');
const path = require('node:path');

/** Which code this process runs: the version of package.json, and the release it was deployed as, if any. */
function readRelease(directory = process.cwd(), root = path.join(__dirname, '..', '..')) {
  const { version } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'));
  let manifest = {};
  try {
    manifest = JSON.parse(fs.readFileSync(path.join(directory, '.release.json'), 'utf8'));
  } catch (error) {
    // A developer's working tree is no release.
    if (error.code !== 'ENOENT') throw error;
  }
  return { version, id: manifest.id || version };
}

module.exports = { readRelease };
