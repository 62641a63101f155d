"""Visitors that keep WebSockets open, and notice whatever goes wrong with them.

Each visitor sends a numbered message at a fixed pace, and must get it back within the time-out, in order, as the text

    {"echo": MESSAGE, "version": VERSION OF THE APPLICATION}

A server may close a WebSocket at any time, if it does so by the protocol (RFC 6455): a close frame with code 1001
(going away) or 1012 (service restart), and after the visitor's own close frame the end of the connection. The visitor
then comes back at once, and must be served again, which an echo shows, within the time-out.

- A WebSocket fails when its handshake is refused, it is cut or reset, closed with another code, or anything is wrong or
  late.
- A message fails (`lost`) if its WebSocket does, if a later one is answered before it, or if the server had it and
  closed without an answer. What a server receives behind its own close frame it must not answer: such messages have
  crossed with the frame, and are sent again on the next connection. If the close frame's reason is `received N`, the
  server had the first N messages of this connection; if not, it had those that were on their way for longer than
  `crossing` seconds.

Nothing is left out: messages that were sent = echoed + crossed + lost + under way. A visitor that has met a failure
counts it, pauses, and opens a new WebSocket.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import http.client
import io
import json
import random
import re
import secrets
import socket
import time
from collections import Counter
from typing import Any

from traffic import EVENTS_KEPT, Background, Client, TrafficError, excerpt, latency_summary, resolve

MAX_VISITORS = 100  # beside the connections of other traffic, below the usual limit of 1024 open files
MAX_MESSAGE = 64 * 1024
SHORTEST_INTERVAL = 0.01
#: Seconds until a visitor whose WebSocket was closed again before it had served opens another one.
PAUSE_AFTER_NOTHING = 0.1

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
GOING_AWAY, SERVICE_RESTART, NORMAL = 1001, 1012, 1000
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Failure(Exception):
    """A WebSocket that failed: a kind, which is counted, and details."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail


# -- the protocol -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame; none of ours is a part of a message."""

    opcode: int
    payload: bytes = b""
    masked: bool = False

    def encode(self) -> bytes:
        """What goes over the wire."""
        size = len(self.payload)
        mask = 0x80 if self.masked else 0
        head = bytes([0x80 | self.opcode])
        if size < 126:
            head += bytes([mask | size])
        elif size < 65536:
            head += bytes([mask | 126]) + size.to_bytes(2, "big")
        else:
            head += bytes([mask | 127]) + size.to_bytes(8, "big")
        if not self.masked:
            return head + self.payload
        key = secrets.token_bytes(4)
        return head + key + _masked(self.payload, key)


def _masked(payload: bytes, key: bytes) -> bytes:
    return bytes(byte ^ key[place % 4] for place, byte in enumerate(payload))


async def read_frame(reader: asyncio.StreamReader) -> Frame | None:
    """The next frame; None at the end of the connection.

    Raises:
        Failure: the connection ends within a frame, or it is none that is understood here.
        ConnectionError: reset.
    """
    first = await reader.read(1)
    if not first:
        return None
    try:
        second = (await reader.readexactly(1))[0]
        size = second & 0x7F
        if size >= 126:
            size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
        if size > MAX_MESSAGE:
            raise Failure("malformed", f"a frame of {size} bytes")
        key = await reader.readexactly(4) if second & 0x80 else b""
        payload = await reader.readexactly(size)
    except asyncio.IncompleteReadError:
        raise Failure("cut inside a frame", "end of connection") from None
    opcode = first[0] & 0x0F
    if not first[0] & 0x80 or first[0] & 0x70 or opcode == CONTINUATION:
        raise Failure("malformed", f"a frame that begins with {first.hex()}: a part of a message, or an extension")
    return Frame(opcode, _masked(payload, key) if key else payload, masked=bool(key))


def accept_of(key: str) -> str:
    """The server's answer to the client's Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()


@dataclasses.dataclass(frozen=True)
class Farewell:
    """The server's close frame."""

    code: int
    reason: str

    @classmethod
    def of(cls, payload: bytes) -> Farewell:
        # RFC 6455, 7.1.5: a frame without a code is reported as 1005.
        return cls(
            int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005, payload[2:].decode("utf-8", "replace")
        )

    @property
    def received(self) -> int | None:
        """How many messages the server had received on this connection, if it says so."""
        told = re.fullmatch(r"received (\d+)", self.reason)
        return int(told[1]) if told else None


# -- what is counted ----------------------------------------------------------------------------------


@dataclasses.dataclass
class Counters:
    """Everything counted up to one moment; the difference of two of them is a report."""

    at: float = 0.0
    opened: int = 0
    sent: int = 0
    echoed: int = 0
    crossed: int = 0
    closed: int = 0
    reconnected: int = 0
    failures: Counter[str] = dataclasses.field(default_factory=Counter)
    codes: Counter[str] = dataclasses.field(default_factory=Counter)
    versions: Counter[str] = dataclasses.field(default_factory=Counter)

    def copy(self) -> Counters:
        return dataclasses.replace(
            self, failures=self.failures.copy(), codes=self.codes.copy(), versions=self.versions.copy()
        )


@dataclasses.dataclass(frozen=True)
class Report:
    """What happened between two moments.

    Attributes:
        seconds: between them.
        visitors: how many there are.
        served: how many of them have a WebSocket that has answered, at the second moment.
        opened: handshakes that succeeded.
        sent: messages, each time that they were sent.
        echoed: messages that came back.
        crossed: messages that crossed with the server's close frame, and were sent again.
        under_way: messages without an answer yet, at the second moment.
        closed: WebSockets that the server closed by the protocol.
        reconnected: visitors that were served again after that.
        failed: sum of failures.
        failures: by kind.
        codes: of the server's close frames.
        versions: in the echoes.
        echo_ms: milliseconds from a message to its echo.
        away_ms: milliseconds from the server's close frame to the first echo on the next connection.
        events: the first failures, and when they were noticed.
    """

    seconds: float
    visitors: int
    served: int
    opened: int
    sent: int
    echoed: int
    crossed: int
    under_way: int
    closed: int
    reconnected: int
    failed: int
    failures: dict[str, int]
    codes: dict[str, int]
    versions: dict[str, int]
    echo_ms: dict[str, float]
    away_ms: dict[str, float]
    events: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


# -- visitors -----------------------------------------------------------------------------------------


@dataclasses.dataclass
class Connection:
    """A WebSocket behind its handshake."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    sent: int = 0
    echoed: int = 0
    #: Whether it is the visitor who ends it.
    leaving: bool = False

    def send(self, opcode: int, payload: bytes) -> None:
        if not self.writer.transport.is_closing():
            self.writer.write(Frame(opcode, payload, masked=True).encode())


@dataclasses.dataclass(frozen=True)
class Message:
    """A message that waits for its echo: when it was sent, and as which one of its connection."""

    at: float
    ordinal: int


class Visitor:
    """One visitor, with one WebSocket at a time."""

    def __init__(self, traffic: WebSocketTraffic, name: int, kind: str) -> None:
        self._traffic = traffic
        self._name = name
        self._client = Client(kind)
        self._number = 0
        self._unanswered: dict[str, Message] = {}  # in the order in which they were sent
        self._again: list[str] = []
        self._away_since: float | None = None
        self.served = False

    async def live(self) -> None:
        """Until the traffic stops; whoever was sent away by then comes back once more."""
        while not self._traffic.stopping.is_set() or self._away_since is not None:
            try:
                await self._visit()
            except Failure as failure:
                self._traffic.count_failure(self._client.kind, failure)
                self._lose(list(self._unanswered), f"its WebSocket failed: {failure.kind}")
                self._again.clear()
                self._away_since = None
                self.served = False
                await self._pause(self._traffic.pause)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._traffic.stopping.wait(), seconds)

    async def _visit(self) -> None:
        """One WebSocket from its handshake to its end."""
        left = self._left()
        try:
            connection = await asyncio.wait_for(self._open(), left)
        except asyncio.TimeoutError:
            raise Failure("time-out", f"no handshake within {left:.1f} s") from None
        try:
            farewell = await self._converse(connection)
            self.served = False
            if not connection.leaving:
                self._settle(farewell)
                connection.send(CLOSE, farewell.code.to_bytes(2, "big"))
            await self._see_end(connection)
            connection.writer.close()
        finally:
            # Nothing happens to a connection that was closed already.
            if not connection.writer.transport.is_closing():
                connection.writer.transport.abort()
        if not connection.leaving:
            self._traffic.counters.closed += 1
            if not connection.echoed:
                await self._pause(PAUSE_AFTER_NOTHING)

    def _left(self) -> float:
        """Seconds until the next echo has to be there at the latest."""
        if self._away_since is None:
            return self._traffic.timeout
        return max(self._traffic.timeout - (self._traffic.now() - self._away_since), 0.001)

    async def _open(self) -> Connection:
        sock = socket.socket(self._traffic.family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, self._traffic.address)
            reader, writer = await asyncio.open_connection(sock=sock, limit=2 * MAX_MESSAGE)
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError):
                raise
            kind = "refused" if isinstance(error, ConnectionRefusedError) else "connect"
            raise Failure(kind, error.strerror or str(error)) from error
        try:
            await self._shake_hands(reader, writer)
        except BaseException:
            writer.transport.abort()
            raise
        self._traffic.counters.opened += 1
        return Connection(reader, writer)

    async def _shake_hands(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        lines = [
            f"GET {self._traffic.path} HTTP/1.1",
            f"Host: {self._traffic.host}",
            "User-Agent: traffic",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
        ]
        if self._client.cookies:
            pairs = b"; ".join(name + b"=" + value for name, value in self._client.cookies.items())
            lines.append(f"Cookie: {pairs.decode('latin-1')}")
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise Failure("closed in the handshake", excerpt(error.partial) or "end of connection") from None
        except asyncio.LimitOverrunError:
            raise Failure("malformed", "no end of the header") from None
        except OSError as error:
            raise Failure("reset in the handshake", str(error)) from error
        first, _, rest = head.partition(b"\r\n")
        words = first.split(None, 2)
        if len(words) < 2 or words[1] != b"101":
            raise Failure("handshake refused", excerpt(first))
        headers = http.client.parse_headers(io.BytesIO(rest))
        if headers.get("Upgrade", "").lower() != "websocket" or headers.get("Sec-WebSocket-Accept") != accept_of(key):
            raise Failure("malformed", f"not the answer to a WebSocket's handshake: {excerpt(head)}")
        if self._client.kind == "sticky":
            self._client.learn([cookie.encode("latin-1") for cookie in headers.get_all("Set-Cookie") or []])

    # -- talking ------------------------------------------------------------------------------------

    async def _converse(self, connection: Connection) -> Farewell:
        """Send messages until either side ends it; the server's close frame."""
        traffic = self._traffic
        receiver = asyncio.create_task(self._receive(connection))
        due = traffic.now()
        try:
            while True:
                now = traffic.now()
                self._require_in_time(now)
                away = self._away_since is not None and not self._unanswered
                if self._again or away or (now >= due and not traffic.stopping.is_set()):
                    self._send(connection, now)
                    # Visitors that came at the same moment shall not go on in step.
                    due = now + traffic.interval * traffic.random.uniform(0.5, 1.5)
                elif traffic.stopping.is_set() and not self._unanswered:
                    break
                pause = 0.0 if self._again else min(max(due - now, 0.01), 0.1)
                if (await asyncio.wait({receiver}, timeout=pause))[0]:
                    return receiver.result()
            connection.leaving = True
            connection.send(CLOSE, NORMAL.to_bytes(2, "big"))
            return await asyncio.wait_for(receiver, traffic.timeout)
        except asyncio.TimeoutError:
            raise Failure("time-out", f"no close frame within {traffic.timeout:g} s of the visitor's own") from None
        finally:
            receiver.cancel()
            with contextlib.suppress(asyncio.CancelledError, Failure):
                await receiver

    def _send(self, connection: Connection, now: float) -> None:
        if self._again:
            text = self._again.pop(0)
        else:
            self._number += 1
            text = f"{self._name}/{self._number}"
        connection.sent += 1
        self._traffic.counters.sent += 1
        self._unanswered[text] = Message(now, connection.sent)
        connection.send(TEXT, text.encode())

    def _require_in_time(self, now: float) -> None:
        timeout = self._traffic.timeout
        if self._away_since is not None and now - self._away_since > timeout:
            raise Failure("time-out", f"not served again within {timeout:g} s of the server's close frame")
        for text, message in self._unanswered.items():
            if now - message.at > timeout:
                raise Failure("time-out", f"no echo of message {text} within {timeout:g} s")
            break

    async def _receive(self, connection: Connection) -> Farewell:
        try:
            while True:
                frame = await read_frame(connection.reader)
                if frame is None:
                    raise Failure("closed without a close frame", "end of connection")
                if frame.masked:
                    raise Failure("malformed", "a masked frame from a server")
                if frame.opcode == CLOSE:
                    farewell = Farewell.of(frame.payload)
                    self._traffic.counters.codes[str(farewell.code)] += 1
                    clean = (GOING_AWAY, SERVICE_RESTART, *((NORMAL,) if connection.leaving else ()))
                    if farewell.code not in clean:
                        raise Failure(f"closed with code {farewell.code}", excerpt(farewell.reason.encode()))
                    return farewell
                if frame.opcode == PING:
                    connection.send(PONG, frame.payload)
                elif frame.opcode == TEXT:
                    self._take_echo(frame.payload)
                    connection.echoed += 1
                elif frame.opcode != PONG:
                    raise Failure("malformed", f"a frame with opcode {frame.opcode}")
        except OSError as error:
            raise Failure("reset", str(error)) from error

    def _take_echo(self, payload: bytes) -> None:
        try:
            document = json.loads(payload)
            text, version = str(document["echo"]), str(document["version"])
        except (ValueError, TypeError, KeyError):
            raise Failure("wrong echo", excerpt(payload)) from None
        if text not in self._unanswered:
            raise Failure("wrong echo", f"message {excerpt(text.encode())} had its echo, or was never sent")
        names = list(self._unanswered)
        self._lose(names[: names.index(text)], f"message {text} was answered before it")
        now = self._traffic.now()
        self._traffic.count_echo(now - self._unanswered.pop(text).at, version)
        self.served = True
        if self._away_since is not None:
            self._traffic.count_return(now - self._away_since)
            self._away_since = None

    # -- ends ---------------------------------------------------------------------------------------

    def _settle(self, farewell: Farewell) -> None:
        """What becomes of messages that the server left without an answer, and from when on the visitor is away."""
        now = self._traffic.now()
        had, crossing = farewell.received, self._traffic.crossing

        def lost(message: Message) -> bool:
            return now - message.at > crossing if had is None else message.ordinal <= had

        self._lose(
            [text for text, message in self._unanswered.items() if lost(message)], "the server had it, and closed"
        )
        self._traffic.counters.crossed += len(self._unanswered)
        self._again = [*self._unanswered, *self._again]
        self._unanswered.clear()
        if self._away_since is None:
            self._away_since = now

    def _lose(self, texts: list[str], why: str) -> None:
        for text in texts:
            del self._unanswered[text]
            self._traffic.count_failure(self._client.kind, Failure("lost", f"message {text}: {why}"))

    async def _see_end(self, connection: Connection) -> None:
        """The server has to hang up; what it says behind its close frame is discarded (RFC 6455, 1.4)."""

        async def read() -> None:
            while await connection.reader.read(MAX_MESSAGE):
                pass

        timeout = self._traffic.timeout
        try:
            await asyncio.wait_for(read(), timeout)
        except asyncio.TimeoutError:
            raise Failure("time-out", f"no end of the connection within {timeout:g} s of the close frames") from None
        except OSError as error:
            raise Failure("reset behind the close frame", str(error)) from error


# -- traffic ------------------------------------------------------------------------------------------


class WebSocketTraffic:
    """Visitors with WebSockets while the `async with` block lasts; `report()` tells what happened so far.

    Args:
        url: http://HOST[:PORT], a loopback or private address only.
        visitors: how many; every second one keeps its cookies, and so its host.
        path: of the handshake.
        interval: seconds between the messages of a visitor, on average.
        timeout: seconds for a handshake, an echo, a close, and for being served again.
        crossing: seconds that a message may be on its way to a server that does not say what it has received.
        pause: seconds until a visitor whose WebSocket has failed opens another one.
        seed: the same random numbers again.

    Raises:
        TrafficError: this is no traffic that may be made.
    """

    def __init__(
        self,
        url: str,
        visitors: int = 20,
        *,
        path: str = "/",
        interval: float = 0.2,
        timeout: float = 5.0,
        crossing: float = 2.0,
        pause: float = 1.0,
        seed: int | None = None,
    ) -> None:
        if not 0 < visitors <= MAX_VISITORS:
            raise TrafficError(f"visitors is {visitors}; it must be above 0 and at most {MAX_VISITORS}.")
        if interval < SHORTEST_INTERVAL:
            raise TrafficError(f"interval is {interval:g}; it must be at least {SHORTEST_INTERVAL:g}.")
        self.family, self.address, self.host = resolve(url)
        self.path = path
        self.interval = interval
        self.timeout = timeout
        self.crossing = crossing
        self.pause = pause
        self.random = random.Random(seed)
        self.counters = Counters()
        self.stopping = asyncio.Event()
        self._lap = Counters()
        self._echoes: list[float] = []
        self._returns: list[float] = []
        self._events: list[dict[str, Any]] = []
        self._start = 0.0
        self._visitors = [Visitor(self, name, ("keep-alive", "sticky")[name % 2]) for name in range(visitors)]
        self._tasks: list[asyncio.Task[None]] = []

    # -- life ---------------------------------------------------------------------------------------

    async def __aenter__(self) -> WebSocketTraffic:
        self._start = self.now()
        self._tasks = [asyncio.create_task(visitor.live()) for visitor in self._visitors]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    @property
    def running(self) -> bool:
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    async def stop(self) -> None:
        """Send nothing new, wait for the echoes under way, and leave by the protocol."""
        self.stopping.set()
        await asyncio.gather(*self._tasks)

    def now(self) -> float:
        """Seconds of the clock that everything here is measured with."""
        return time.monotonic()

    # -- counting -----------------------------------------------------------------------------------

    def count_echo(self, seconds: float, version: str) -> None:
        self.counters.echoed += 1
        self.counters.versions[version] += 1
        self._echoes.append(seconds)

    def count_return(self, seconds: float) -> None:
        self.counters.reconnected += 1
        self._returns.append(seconds)

    def count_failure(self, client: str, failure: Failure) -> None:
        self.counters.failures[failure.kind] += 1
        if len(self._events) < EVENTS_KEPT:
            at = round(self.now() - self._start, 3)
            self._events.append({"at": at, "client": client, "kind": failure.kind, "detail": failure.detail})

    def report(self) -> Report:
        return self._report(Counters(), self._mark())

    def lap(self) -> Report:
        """What happened since the last lap: laps have no gaps and no overlaps."""
        first, self._lap = self._lap, self._mark()
        return self._report(first, self._lap)

    def _mark(self) -> Counters:
        self.counters.at = self.now() - self._start
        return self.counters.copy()

    def _report(self, first: Counters, last: Counters) -> Report:
        failures = last.failures - first.failures
        return Report(
            seconds=round(last.at - first.at, 3),
            visitors=len(self._visitors),
            served=sum(visitor.served for visitor in self._visitors),
            opened=last.opened - first.opened,
            sent=last.sent - first.sent,
            echoed=last.echoed - first.echoed,
            crossed=last.crossed - first.crossed,
            under_way=last.sent - last.echoed - last.crossed - last.failures["lost"],
            closed=last.closed - first.closed,
            reconnected=last.reconnected - first.reconnected,
            failed=sum(failures.values()),
            failures=dict(failures),
            codes=dict(last.codes - first.codes),
            versions=dict(last.versions - first.versions),
            echo_ms=latency_summary(self._echoes[first.echoed : last.echoed]),
            away_ms=latency_summary(self._returns[first.reconnected : last.reconnected]),
            # Each failure is an event, until there are too many to keep.
            events=self._events[sum(first.failures.values()) : sum(last.failures.values())],
        )


def in_background(url: str, visitors: int = 20, **options: Any) -> Background[Report]:
    """Visitors with WebSockets in a thread of their own; the arguments are those of `WebSocketTraffic`."""
    return Background(lambda: WebSocketTraffic(url, visitors, **options))


def wait_served(background: Background[Report], seconds: float = 10.0) -> bool:
    """Until every visitor has a WebSocket that answers.

    Returns:
        Whether that was so within these seconds.
    """
    deadline = time.monotonic() + seconds
    while True:
        report = background.report()
        if report.served == report.visitors:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
