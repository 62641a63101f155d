'use strict';

// The types of environment variables: what is wrong with a value, and how to write it right. A check returns
// null for a good value, or a finding {code, message, remedy} that never holds the value.

const { isHostName, isLocalHost, splitUrl } = require('./hosts');
const { compile, isPattern } = require('./patterns');
const { ANY_SPACE, SPACE, count, strip, textOf } = require('./python');

const DURATION = /^([0-9]+(?:\.[0-9]+)?) ?(ms|s|m|h|d|w|y)$/;
const MILLISECONDS = { ms: 1, s: 1000, m: 60000, h: 3600000, d: 86400000, w: 604800000, y: 31557600000 };
const INTEGER = /^-?(?:0|[1-9][0-9]{0,17})$/;
const NUMBER = /^-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,17})?$/;
const EMAIL_LOCAL = /^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*$/;
const REGION = new RegExp(
  '^(?:af|ap|ca|cn|eu|eusc|il|me|mx|sa|us|us-gov|us-iso[a-z]?|eu-isoe)'
  + '-(?:central|north|south|east|west|northeast|northwest|southeast|southwest|de-east)-[1-9]$',
);
const ARN = new RegExp(`^arn:aws[a-z-]*:[a-z0-9-]+:[a-z0-9-]*:(?:[0-9]{12}|aws)?:[^${SPACE}]+$`, 'u');
const BUCKET = /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/;
const LOG_GROUP = /^[A-Za-z0-9_/.#-]{1,512}$/;
const INVISIBLE = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u00a0\u00ad\u200b-\u200f\u2028-\u202e\u2060\ufeff\ufffd]/;
const SMART_QUOTES = /[\u2018\u2019\u201c\u201d]/;

// Longest value, in characters, that a pattern is tried on: nobody's value may make it run for minutes.
const LONGEST_FOR_PATTERN = 4096;

const has = (rules, rule) => Object.hasOwn(rules, rule);
const finding = (code, message, remedy) => ({ code, message, remedy });

/** A number with its noun: 1 item, 2 items. */
function counted(amount, noun) {
  return `${amount} ${noun}${amount === 1 ? '' : 's'}`;
}

/** A duration in milliseconds, or null if the text is none. */
function milliseconds(text) {
  const match = DURATION.exec(text);
  return match ? Number(match[1]) * MILLISECONDS[match[2]] : null;
}

/** A value in the form in which two of its type are compared. For values that passed their check. */
function comparable(kind, value) {
  if (kind === 'duration') return milliseconds(value) ?? value;
  if (['integer', 'number', 'port'].includes(kind) && NUMBER.test(value)) return Number(value);
  return value;
}

/** The host that a value of a type names; empty if that type or value has none. */
function hostOf(kind, value) {
  if (kind === 'host') return value;
  if (kind === 'email') return value.slice(value.lastIndexOf('@') + 1);
  return kind === 'url' ? splitUrl(value)?.host ?? '' : '';
}

function localHost(host, rules) {
  if (!rules.forbid_local || !isLocalHost(host)) return null;
  return finding('local_host', 'points to this machine itself', 'Name the host that the service runs on.');
}

/** `value` is a number, or a big integer where it must be exact. */
function bounds(value, { min, max }) {
  if (min !== undefined && value < Number(min)) {
    return finding('too_small', `is less than ${min}`, `Use ${min} or more.`);
  }
  if (max !== undefined && value > Number(max)) {
    return finding('too_large', `is more than ${max}`, `Use ${max} or less.`);
  }
  return null;
}

function integer(value, rules) {
  if (!INTEGER.test(value)) {
    return finding('integer', 'is not a whole number', 'Write digits only: no sign but -, no leading 0.');
  }
  return bounds(BigInt(value), rules);
}

function number(value, rules) {
  if (!NUMBER.test(value)) return finding('number', 'is not a number', 'Write digits with at most one point.');
  return bounds(Number(value), rules);
}

function port(value, rules) {
  if (!INTEGER.test(value) || Number(value) < 1 || Number(value) > 65535) {
    return finding('port', 'is not a port', 'Use a whole number from 1 to 65535.');
  }
  return bounds(Number(value), rules);
}

function boolean(value) {
  if (value === 'true' || value === 'false') return null;
  return finding('boolean', 'is not a boolean', 'Write true or false, in lower case.');
}

const ENCODE = 'Write user names and passwords in a URL percent-encoded (@ is %40, / is %2F, # is %23).';

function url(value, rules) {
  const schemes = (rules.schemes ?? ['http', 'https']).map(String);
  const wanted = schemes.map((scheme) => `${scheme}://`).join(' or ');
  if (ANY_SPACE.test(value)) return finding('url', 'is not a URL: it holds white space', 'Encode spaces as %20.');
  const parts = splitUrl(value);
  if (!parts?.goodPort) return finding('url', 'is not a URL', `Write it as ${wanted}host/path.`);
  if (!parts.scheme || !parts.location) {
    return finding('url', 'is not a URL: it has no scheme or no host', `Begin it with ${wanted}.`);
  }
  if (!schemes.includes(parts.scheme)) {
    return finding('url_scheme', `does not begin with ${wanted}`, `Begin it with ${wanted}.`);
  }
  if (!parts.host || !isHostName(parts.host)) return finding('url', 'has no valid host name', ENCODE);
  // The host of postgres://user:pass@word/x@db is word, since a password ends at the first of @, /, ? and #.
  if (rules.credentials && value.split('@').length - 1 > Number(parts.credentials)) {
    return finding('url', 'has an @ in its password or path that is not encoded', ENCODE);
  }
  if (parts.credentials && !rules.credentials) {
    return finding('url_credentials', 'holds a user name or password', 'Put those in variables of their own.');
  }
  return localHost(parts.host, rules);
}

function host(value, rules) {
  if (value.includes('://')) {
    return finding('host', 'is a URL where a host name is wanted', 'Leave out the scheme and the path.');
  }
  if (!isHostName(value)) {
    if (/:[0-9]+$/.test(value)) {
      return finding('host', 'has a port behind the host name', 'Put the port in its own variable.');
    }
    return finding('host', 'is not a host name or address', 'Write a DNS name or an IP address, alone.');
  }
  return localHost(value, rules);
}

function email(value) {
  const at = value.lastIndexOf('@');
  const local = value.slice(0, Math.max(at, 0));
  const domain = value.slice(at + 1);
  if (local.length <= 64 && EMAIL_LOCAL.test(local) && domain.includes('.') && isHostName(domain)) return null;
  return finding('email', 'is not an e-mail address', 'Write it as name@domain.');
}

function duration(value, rules) {
  const length = milliseconds(value);
  if (length === null) {
    if (NUMBER.test(value)) {
      return finding(
        'duration',
        'is a duration without a unit, which libraries read differently (seconds, milliseconds)',
        'Add the unit: ms, s, m, h, d, w or y.',
      );
    }
    return finding('duration', 'is not a duration', 'Write a number and a unit, such as 15m, 12h or 7d.');
  }
  const { min, max } = rules;
  if (min !== undefined && length < milliseconds(String(min))) {
    return finding('too_small', `is shorter than ${min}`, `Use ${min} or more.`);
  }
  if (max !== undefined && length > milliseconds(String(max))) {
    return finding('too_large', `is longer than ${max}`, `Use ${max} or less.`);
  }
  return null;
}

function tooLong(limit) {
  const most = counted(limit, 'character');
  return finding('too_long', `is longer than ${most}`, `Use ${most} or fewer.`);
}

function regex(value) {
  if (count(value) > LONGEST_FOR_PATTERN) return tooLong(LONGEST_FOR_PATTERN);
  if (isPattern(value)) return null;
  return finding('regex', 'is not a regular expression', 'Check its brackets and backslashes.');
}

function awsRegion(value) {
  if (REGION.test(value)) return null;
  if (REGION.test(value.slice(0, -1)) && /\p{L}$/u.test(value)) {
    return finding('aws_region', 'is an availability zone, not a region', 'Leave out the letter at its end.');
  }
  return finding('aws_region', 'is not an AWS region', 'Write it as in us-east-1 or eu-central-1.');
}

function arn(value) {
  if (ARN.test(value)) return null;
  return finding('arn', 'is not an ARN', 'Write it as arn:aws:service:region:account:resource.');
}

function s3Bucket(value) {
  if (value.startsWith('s3://') || value.includes('/')) {
    return finding('s3_bucket', 'is more than a bucket name', 'Leave out s3:// and any path.');
  }
  const reserved = ['xn--', 'sthree-', 'amzn-s3-demo-'].some((start) => value.startsWith(start))
    || ['-s3alias', '--ol-s3', '.mrap', '--x-s3'].some((end) => value.endsWith(end));
  if (!BUCKET.test(value) || value.includes('..') || reserved || /^[0-9]+(?:\.[0-9]+){3}$/.test(value)) {
    return finding(
      's3_bucket',
      'is not an S3 bucket name',
      'Use 3 to 63 lower-case letters, digits, dots and hyphens, with a letter or digit at both ends.',
    );
  }
  return null;
}

function logGroup(value) {
  if (!LOG_GROUP.test(value)) {
    return finding(
      'log_group',
      'is not a CloudWatch log group name',
      'Use up to 512 letters, digits and the characters _ - / . #',
    );
  }
  if (value.startsWith('aws/')) {
    return finding('log_group', 'begins with aws/, which AWS reserves', 'Begin it with a slash, as in /aws/ec2/…');
  }
  return null;
}

function path(value) {
  if (!value.startsWith('/')) return finding('path', 'is not an absolute path', 'Begin it with a slash.');
  if (value.split('/').includes('..')) {
    return finding('path', 'leads upwards with ..', 'Write the path without .. in it.');
  }
  return null;
}

function json(value) {
  try {
    JSON.parse(value);
    return null;
  } catch {
    return finding('json', 'is not valid JSON', 'Check quotes, commas and brackets.');
  }
}

function list(value, rules) {
  const separator = String(rules.separator ?? ',');
  const items = value ? value.split(separator).map(strip) : [];
  if (items.includes('')) return finding('list', 'has an empty item', `Leave out the ${separator} too many.`);
  if (items.length < Number(rules.min_items ?? 0)) {
    return finding('too_few', `has fewer than ${counted(rules.min_items, 'item')}`, 'Add the missing ones.');
  }
  if (has(rules, 'max_items') && items.length > Number(rules.max_items)) {
    return finding('too_many', `has more than ${counted(rules.max_items, 'item')}`, 'Take some out.');
  }
  const itemRules = rules.items ?? {};
  for (const [index, item] of items.entries()) {
    const found = check(String(itemRules.type ?? 'string'), item, itemRules);
    if (found) return finding(found.code, `has an item ${index + 1} that ${found.message}`, found.remedy);
  }
  return null;
}

const nothing = () => null;

const CHECKS = {
  string: nothing,
  integer,
  number,
  port,
  boolean,
  url,
  host,
  email,
  duration,
  enum: nothing, // `values` is a rule of every type
  regex,
  aws_region: awsRegion,
  arn,
  s3_bucket: s3Bucket,
  log_group: logGroup,
  path,
  json,
  list,
};

/** Whether a value of any type holds a character that nobody sees and nobody meant, or bytes that are no UTF-8. */
function hasInvisible(value) {
  return INVISIBLE.test(value);
}

/** The first broken rule of one value, or null. Whether it may be missing or empty is not asked here. */
function check(kind, value, rules) {
  if (hasInvisible(value) || (!rules.multiline && /[\n\t]/.test(value))) {
    return finding(
      'invisible_character',
      'holds an invisible character (line end, control character, no-break or zero-width space)',
      'Type the value again instead of pasting it; a value that needs several lines needs `multiline`.',
    );
  }
  if (value !== strip(value)) return finding('outer_space', 'begins or ends with a space', 'Remove it.');
  if (SMART_QUOTES.test(value)) {
    return finding('smart_quote', 'holds a typographic quote', 'Type the value again, with plain quotes.');
  }
  if (has(rules, 'values')) {
    const values = rules.values.map(textOf);
    const allowed = values.join(' or ');
    if (!values.includes(value)) return finding('enum', `must be ${allowed}`, `Set it to ${allowed}.`);
  }
  const found = CHECKS[kind](value, rules);
  if (found) return found;
  const length = count(value);
  if (length < Number(rules.min_length ?? 0)) {
    const fewest = counted(rules.min_length, 'character');
    return finding('too_short', `is shorter than ${fewest}`, `Use ${fewest} or more.`);
  }
  if (has(rules, 'max_length') && length > Number(rules.max_length)) return tooLong(rules.max_length);
  if (has(rules, 'pattern') && length > LONGEST_FOR_PATTERN) return tooLong(LONGEST_FOR_PATTERN);
  if (has(rules, 'pattern') && !compile(rules.pattern).test(value)) {
    const hint = String(rules.pattern_hint || `It must match ${rules.pattern}`);
    return finding('pattern', 'does not have the right form', `${hint.replace(/\.+$/, '')}.`);
  }
  return null;
}

module.exports = { CHECKS, check, comparable, hasInvisible, hostOf };
