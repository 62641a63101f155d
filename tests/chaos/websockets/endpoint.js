'use strict';

// What a drill adds to an application that has no WebSockets: every HTTP server that it makes accepts them, at any path,
// and answers each text with what it was and with the version that is served. Servers of RFC 6455 are larger; of the
// frames this one understands those that the drills send, and it closes on all others.

const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const TEXT = 0x1;
const CLOSE = 0x8;
const PING = 0x9;
const PONG = 0xa;
const GOING_AWAY = 1001;
const PROTOCOL_ERROR = 1002;
// Lengths beyond this are written in another way.
const LONGEST = 125;

function frame(opcode, payload) {
  if (payload.length <= LONGEST) return Buffer.concat([Buffer.from([0x80 | opcode, payload.length]), payload]);
  const head = Buffer.from([0x80 | opcode, 126, 0, 0]);
  head.writeUInt16BE(payload.length, 2);
  return Buffer.concat([head, payload]);
}

function closeFrame(code, reason) {
  const payload = Buffer.from(`  ${reason}`);
  payload.writeUInt16BE(code);
  return frame(CLOSE, payload);
}

/** The first frame of what has arrived, and the rest; null while it is not whole. */
function parse(buffer) {
  if (buffer.length < 6) return null;
  const length = buffer[1] & 0x7f;
  if (buffer[1] < 0x80 || length > LONGEST) return { opcode: -1, payload: Buffer.alloc(0), rest: Buffer.alloc(0) };
  if (buffer.length < 6 + length) return null;
  const key = buffer.subarray(2, 6);
  const payload = Buffer.from(buffer.subarray(6, 6 + length)).map((byte, place) => byte ^ key[place % 4]);
  // The first four bits have to say that this is a whole message without extensions.
  return { opcode: buffer[0] >> 4 === 0x8 ? buffer[0] & 0xf : -1, payload, rest: buffer.subarray(6 + length) };
}

/**
 * Call this before the application makes its server.
 *
 * closesItself: whether WebSockets are closed here upon SIGINT and SIGTERM. An application that handles those signals
 * itself has to; elsewhere the preload of role pm2 does.
 */
function install({ closesItself }) {
  const { version } = JSON.parse(fs.readFileSync('.release.json', 'utf8'));
  const peers = new Set();
  let leaving = false;

  function say(peer, bytes) {
    if (peer.socket.writable) peer.socket.write(bytes);
  }

  function close(peer, code) {
    // Nothing may follow it. What arrives later has not been received, and whoever sent it can tell that.
    peer.closing = true;
    say(peer, closeFrame(code, `received ${peer.received}`));
  }

  function handle(peer, { opcode, payload }) {
    if (opcode === CLOSE) {
      if (!peer.closing) say(peer, frame(CLOSE, payload.subarray(0, 2)));
      peer.closing = true;
      peer.socket.end();
    } else if (peer.closing) {
      // Too late.
    } else if (opcode === TEXT) {
      peer.received += 1;
      say(peer, frame(TEXT, Buffer.from(JSON.stringify({ echo: payload.toString(), version }))));
    } else if (opcode === PING) {
      say(peer, frame(PONG, payload));
    } else if (opcode !== PONG) {
      close(peer, PROTOCOL_ERROR);
      peer.socket.end();
    }
  }

  function take(peer, bytes) {
    peer.buffer = Buffer.concat([peer.buffer, bytes]);
    for (let next = parse(peer.buffer); next !== null; next = parse(peer.buffer)) {
      peer.buffer = next.rest;
      handle(peer, next);
    }
  }

  function accept(request, socket, head) {
    const key = request.headers['sec-websocket-key'];
    const answer = crypto.createHash('sha1').update(`${key}${GUID}`).digest('base64');
    const lines = ['HTTP/1.1 101 Switching Protocols', 'Upgrade: websocket', 'Connection: Upgrade'];
    socket.write([...lines, `Sec-WebSocket-Accept: ${answer}`, '', ''].join('\r\n'));
    const peer = { socket, buffer: Buffer.alloc(0), received: 0, closing: false };
    peers.add(peer);
    socket.on('data', (bytes) => take(peer, bytes));
    socket.on('error', () => {});
    socket.on('end', () => socket.end());
    socket.on('close', () => peers.delete(peer));
    take(peer, head);
    // It came over a connection that was here before the signal.
    if (leaving) close(peer, GOING_AWAY);
  }

  function leave() {
    if (leaving) return;
    leaving = true;
    for (const peer of peers) if (!peer.closing) close(peer, GOING_AWAY);
  }

  const { createServer } = http;
  let handled = false;
  http.createServer = function createServerWithWebSockets(...parameters) {
    if (closesItself && !handled) {
      handled = true;
      process.on('SIGINT', leave);
      process.on('SIGTERM', leave);
    }
    return createServer.apply(this, parameters).on('upgrade', accept);
  };
}

module.exports = { install };
