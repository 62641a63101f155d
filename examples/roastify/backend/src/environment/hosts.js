'use strict';

// Names and addresses of hosts, and the parts of URLs.

const HOST_LABEL = /^[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$/;

/** The four numbers of an IPv4 address, or null. A leading 0, which some libraries take for octal, is a mistake. */
function ipv4(text) {
  const parts = text.split('.');
  const good = parts.length === 4 && parts.every((part) => /^(?:0|[1-9][0-9]{0,2})$/.test(part) && Number(part) <= 255);
  return good ? parts.map(Number) : null;
}

/** The eight numbers of an IPv6 address, which may have a zone behind a percent sign, or null. */
function ipv6(text) {
  const [address, ...zone] = text.split('%');
  if (zone.length > 1 || zone[0] === '') return null;
  const parts = address.split(':');
  if (parts.length < 3) return null;
  if (parts[parts.length - 1].includes('.')) {
    const numbers = ipv4(parts.pop());
    if (numbers === null) return null;
    const [first, second, third, fourth] = numbers;
    parts.push((first * 256 + second).toString(16), (third * 256 + fourth).toString(16));
  }
  if (parts.length > 9) return null;
  const gaps = parts.flatMap((part, index) => (part === '' && index > 0 && index < parts.length - 1 ? [index] : []));
  if (gaps.length > 1) return null;
  let high = parts;
  let low = [];
  if (gaps.length === 1) {
    high = parts.slice(0, gaps[0]);
    low = parts.slice(gaps[0] + 1);
    // At either end, a single colon must belong to the gap.
    if (high[0] === '' && high.pop() !== undefined && high.length > 0) return null;
    if (low[low.length - 1] === '' && low.pop() !== undefined && low.length > 0) return null;
    if (high.length + low.length > 7) return null;
  } else if (parts.length !== 8) return null;
  const written = [...high, ...low];
  if (!written.every((part) => /^[0-9A-Fa-f]{1,4}$/.test(part))) return null;
  const numbers = (list) => list.map((part) => parseInt(part, 16));
  return [...numbers(high), ...Array(8 - written.length).fill(0), ...numbers(low)];
}

/** A host name without the dots at its end, which mean the root of all names. */
function withoutDots(text) {
  let end = text.length;
  while (end > 0 && text[end - 1] === '.') end -= 1;
  return text.slice(0, end);
}

/** Whether a text is a host name or an IP address. */
function isHostName(host) {
  if (ipv4(host) || ipv6(host)) return true;
  if (/^[0-9.]+$/.test(host)) return false; // an IPv4 address with a mistake in it
  return host.length <= 253 && withoutDots(host).split('.').every((label) => HOST_LABEL.test(label));
}

/** Whether a host name can only mean the machine or the local network it is used on. */
function isLocalHost(host) {
  const name = withoutDots(host.toLowerCase());
  if (['localhost', 'host.docker.internal'].includes(name)) return true;
  if (['.localhost', '.local', '.localdomain'].some((end) => name.endsWith(end))) return true;
  const address = name.replace(/^[[\]]+|[[\]]+$/g, '');
  const four = ipv4(address);
  if (four) return four[0] === 127 || four.every((number) => number === 0);
  const six = ipv6(address);
  if (six === null || six.slice(0, 5).some((number) => number !== 0)) return false;
  if (six[5] === 0xffff) return (six[6] >> 8) === 127 || (six[6] === 0 && six[7] === 0);
  return six[5] === 0 && six[6] === 0 && six[7] <= 1;
}

/** A text before and behind the first separator; all of it is before if there is none. */
function partition(text, separator) {
  const index = text.indexOf(separator);
  return index === -1 ? [text, ''] : [text.slice(0, index), text.slice(index + separator.length)];
}

/**
 * The parts of a URL: scheme, network location, host name, whether the port is none or one, and whether a user is
 * named. Null if the text cannot be a URL.
 */
function splitUrl(text) {
  let rest = text.replace(/^[\x00-\x20]+/, '').replace(/[\t\r\n]/g, '');
  let scheme = '';
  const found = /^([A-Za-z][A-Za-z0-9+.-]*):/.exec(rest);
  if (found) {
    scheme = found[1].toLowerCase();
    rest = rest.slice(found[0].length);
  }
  const location = rest.startsWith('//') ? /^[^/?#]*/.exec(rest.slice(2))[0] : '';
  const opens = location.includes('[');
  if (opens !== location.includes(']')) return null;
  if (opens) {
    const inside = partition(partition(location, '[')[1], ']')[0];
    if (inside.startsWith('v') ? !/^v[a-fA-F0-9]+\.[^\n]+$/.test(inside) : !ipv6(inside)) return null;
  }
  // Characters that become part of the syntax once they are normalised.
  const plain = location.replace(/[@:#?]/g, '');
  const normal = plain.normalize('NFKC');
  if (normal !== plain && /[/?#@:]/.test(normal)) return null;

  const at = location.lastIndexOf('@');
  const place = location.slice(at + 1);
  let host;
  let port;
  if (place.includes('[')) {
    const [inside, behind] = partition(partition(place, '[')[1], ']');
    host = inside;
    [, port] = partition(behind, ':');
  } else [host, port] = partition(place, ':');
  const zone = host.indexOf('%');
  host = zone === -1 ? host.toLowerCase() : host.slice(0, zone).toLowerCase() + host.slice(zone);
  const goodPort = !port || (/^[0-9]+$/.test(port) && Number(port) <= 65535);
  return { scheme, location, host, goodPort, credentials: at !== -1 };
}

module.exports = { isHostName, isLocalHost, splitUrl, withoutDots };
