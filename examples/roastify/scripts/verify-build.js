'use strict';

// A build is complete when the page, its hashed and minified bundles and the dependencies are there.

const fs = require('node:fs');
const path = require('node:path');

const root = path.join(__dirname, '..');
const dist = path.join(root, 'frontend', 'dist');
const assets = path.join(dist, 'assets');
const problems = [];

function expect(condition, problem) {
  if (!condition) problems.push(problem);
}

expect(fs.existsSync(path.join(root, 'node_modules')), 'node_modules is missing: run npm ci');
expect(fs.existsSync(path.join(root, 'env.schema.yml')), 'env.schema.yml is missing: without it the application does not start');
expect(fs.existsSync(path.join(dist, 'index.html')), 'frontend/dist/index.html is missing: run npm run build:frontend');

const files = fs.existsSync(assets) ? fs.readdirSync(assets) : [];
const bundles = files.filter((name) => name.endsWith('.js'));
expect(bundles.length > 0, 'frontend/dist/assets holds no JavaScript bundle: run npm run build:frontend');
for (const name of files) {
  expect(/-[\w-]{8,}\.\w+$/.test(name), `frontend/dist/assets/${name} has no hash in its name`);
}
for (const name of bundles) {
  const text = fs.readFileSync(path.join(assets, name), 'utf8').trimEnd();
  // Minified code has long lines and no indentation.
  expect(text.length / text.split('\n').length > 200 || text.length < 400, `frontend/dist/assets/${name} is not minified`);
  expect(!/\n[ \t]+\S/.test(text), `frontend/dist/assets/${name} is not minified`);
}
const page = fs.existsSync(path.join(dist, 'index.html')) ? fs.readFileSync(path.join(dist, 'index.html'), 'utf8') : '';
for (const [, name] of page.matchAll(/(?:src|href)="\/assets\/([^"]+)"/g)) {
  expect(files.includes(name), `frontend/dist/index.html names assets/${name}, which is missing`);
}

if (problems.length > 0) {
  console.error(`The build is not complete:\n  ${problems.join('\n  ')}`);
  process.exit(1);
}
console.log(`build verified: ${bundles.length} minified bundle(s), ${files.length} hashed asset(s)`);
