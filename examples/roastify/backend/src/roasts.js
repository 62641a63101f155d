'use strict';

const express = require('express');
const { rateLimit } = require('express-rate-limit');

const LATEST = 20;
const LIMITS = { target: 80, body: 500, author: 80 };

/** The fields of a new roast, and what is wrong with them, all at once. */
function readRoast(input) {
  const source = input && typeof input === 'object' ? input : {};
  const problems = [];
  const roast = { author: 'anonymous' };
  for (const [field, longest] of Object.entries(LIMITS)) {
    const text = typeof source[field] === 'string' ? source[field].trim() : '';
    if (text === '' && field !== 'author') problems.push(`${field} is required`);
    else if ([...text].length > longest) problems.push(`${field} may have at most ${longest} characters`);
    else if (text.includes('\0')) problems.push(`${field} contains a character that cannot be stored`);
    else if (text !== '') roast[field] = text;
  }
  return { roast, problems };
}

function createRoasts({ database, rateLimit: limits }) {
  const router = express.Router();

  // Writing is limited for each client; reading is cheap and stays free.
  const writeLimit = rateLimit({
    windowMs: limits.windowSeconds * 1000,
    limit: limits.requests,
    standardHeaders: true,
    legacyHeaders: false,
    message: { error: 'Too many roasts in a short time. Take a breath and try again.' },
  });

  router.get('/', async (_request, response) => {
    const { rows } = await database.query(
      'SELECT id, target, body, author, created_at AS "createdAt" FROM roasts ORDER BY created_at DESC, id DESC LIMIT $1',
      [LATEST],
    );
    response.set('Cache-Control', 'no-cache').json({ roasts: rows });
  });

  router.post('/', writeLimit, async (request, response) => {
    const { roast, problems } = readRoast(request.body);
    if (problems.length > 0) {
      response.status(400).json({ error: problems.join('; ') });
      return;
    }
    const { rows } = await database.query(
      'INSERT INTO roasts (target, body, author) VALUES ($1, $2, $3) RETURNING id, target, body, author, created_at AS "createdAt"',
      [roast.target, roast.body, roast.author],
    );
    response.status(201).json({ roast: rows[0] });
  });

  return router;
}

module.exports = { createRoasts, readRoast };
