#!/usr/bin/env python3
"""Steady web traffic whose every failure is counted.

    python tools/traffic.py http://127.0.0.1:5000 --rate 200 --seconds 30 --json

Requests start on a fixed schedule, whether or not earlier ones were answered, from three kinds of
clients: keep-alive with think time, keep-alive that also keeps its cookies (sticky sessions), and one
connection per request. Nothing is left out, and nothing is retried unless it is asked for:

- A request fails when it is refused, reset, cut off, not answered in time, answered with another status
  than expected, or answered with a wrong body.
- A connection whose end has already arrived is replaced before the request is written, as browsers do.
  Once the request is written, an end or a reset is a failure, also on a reused connection. With
  `--repeat-after SECONDS` an idempotent request that meets the end of a connection that had been silent for so
  long, before any answer, is sent once more on a new one, as browsers and load balancers do (RFC 9112, section
  9.3.1), and counted as `repeated`: a server that hangs up cannot see the request that is on its way.
- A request that could not even be started (every connection busy, generator too late) is `missed`, and
  the rate that was reached is reported beside the rate that was asked for.

Only loopback and private addresses are accepted; rate, duration and number of requests have upper limits.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import heapq
import ipaddress
import itertools
import json
import random
import resource
import signal
import socket
import sys
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

MAX_RATE = 2_000
MAX_SECONDS = 7_200.0
MAX_REQUESTS = 2_000_000
CONNECTIONS = 800  # below the usual limit of 1024 open files
MAX_CONNECTIONS = 3_000
OTHER_FILES = 200  # what a process has open beside its connections
MAX_BODY = 4 * 1024 * 1024
MAX_HEAD = 64 * 1024
IDEMPOTENT = ("GET", "HEAD")
EVENTS_KEPT = 200
TICK = 0.005

# No link-local range here: a cloud's metadata service lives there.
ALLOWED_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)


class TrafficError(Exception):
    """The traffic cannot be started as asked."""


class MalformedResponse(Exception):
    """The server answered something that is not HTTP/1.1."""


@dataclasses.dataclass(frozen=True)
class Target:
    """One kind of request, and what its answer has to look like."""

    method: str
    path: str
    weight: float = 1.0
    body: bytes = b""
    status: int = 200
    expects: str = "any"  # any | json | html | health

    def problem(self, status: int, body: bytes) -> str | None:
        """What is wrong with an answer, as `kind: detail`; None when it is as expected."""
        if status != self.status:
            return f"status {status}: {excerpt(body)}"
        if self.expects == "html":
            start = body[:256].lstrip().lower()
            if not start.startswith((b"<!doctype html", b"<html")) or b"</html>" not in body[-64:].lower():
                return f"wrong body: not a whole HTML page: {excerpt(body)}"
        elif self.expects in ("json", "health"):
            try:
                document = json.loads(body)
            except ValueError:
                return f"wrong body: not JSON: {excerpt(body)}"
            if self.expects == "health" and not (
                isinstance(document, dict)
                and document.get("status") in ("healthy", "degraded")
                and isinstance(document.get("version"), str)
            ):
                return f"wrong body: not a health answer: {excerpt(body)}"
        return None


# What a visitor of the reference application does. It lets one client write once a second at most.
DEFAULT_TARGETS = (
    Target("GET", "/health", 40, expects="health"),
    Target("GET", "/", 30, expects="html"),
    Target("GET", "/api/roasts", 29.75, expects="json"),
    Target(
        "POST",
        "/api/roasts",
        0.25,
        body=b'{"target": "the load generator", "body": "Asks all day and never listens."}',
        status=201,
        expects="json",
    ),
)


@dataclasses.dataclass(frozen=True)
class Mix:
    """Shares of the three kinds of clients; they need not add up to one."""

    keep_alive: float = 0.5
    sticky: float = 0.35
    closing: float = 0.15


def excerpt(body: bytes, limit: int = 120) -> str:
    text = " ".join(body[: limit * 2].decode("utf-8", "replace").split())
    return text if len(text) <= limit else text[:limit] + "…"


class Response:
    """Parser of one response; `feed` and `end` say whether it is complete."""

    def __init__(self, method: str) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.cookies: list[bytes] = []
        self.body = b""
        self.closes = False
        self.begun = False
        self._head_only = method == "HEAD"
        self._buffer = bytearray()
        self._in_body = False
        self._length: int | None = None
        self._chunked = False
        self._chunks: list[bytes] = []

    def feed(self, data: bytes) -> bool:
        self.begun = True
        self._buffer += data
        while not self._in_body:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > MAX_HEAD:
                    raise MalformedResponse("no end of the response header")
                return False
            self._parse_head(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
            self._in_body = self.status >= 200
        if len(self._buffer) > MAX_BODY:
            raise MalformedResponse(f"a body of more than {MAX_BODY} bytes")
        return self._parse_body()

    def end(self) -> bool:
        """End of the connection: completes a body that has neither a length nor chunks."""
        if self._in_body and self._length is None and not self._chunked:
            self.body = bytes(self._buffer)
            return True
        return False

    def _parse_head(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        protocol, _, rest = first.partition(b" ")
        if protocol not in (b"HTTP/1.1", b"HTTP/1.0") or not rest[:3].isdigit():
            raise MalformedResponse(f"status line {excerpt(first)!r}")
        self.status = int(rest[:3])
        self.headers, self.cookies = {}, []
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon:
                raise MalformedResponse(f"header line {excerpt(line)!r}")
            name = name.lower()
            if name == b"set-cookie":
                self.cookies.append(value.strip())
            else:
                self.headers[name] = value.strip()
        connection = self.headers.get(b"connection", b"").lower()
        self.closes = b"close" in connection or (protocol == b"HTTP/1.0" and b"keep-alive" not in connection)
        length = self.headers.get(b"content-length")
        if self._head_only or self.status in (204, 304):
            self._length = 0
        elif b"chunked" in self.headers.get(b"transfer-encoding", b"").lower():
            self._chunked = True
        elif length is not None:
            if not length.isdigit():
                raise MalformedResponse(f"Content-Length {excerpt(length)!r}")
            self._length = int(length)
        else:
            self.closes = True

    def _parse_body(self) -> bool:
        if self._chunked:
            return self._parse_chunks()
        if self._length is None or len(self._buffer) < self._length:
            return False
        self.body = bytes(self._buffer[: self._length])
        self._finish(self._length)
        return True

    def _parse_chunks(self) -> bool:
        while True:
            line_end = self._buffer.find(b"\r\n")
            if line_end < 0:
                return False
            try:
                size = int(bytes(self._buffer[:line_end]).partition(b";")[0], 16)
            except ValueError:
                raise MalformedResponse(f"chunk size {excerpt(bytes(self._buffer[:line_end]))!r}") from None
            start = line_end + 2
            if size == 0:
                # Trailers would stand before the empty line; no server of ours sends any.
                if len(self._buffer) < start + 2:
                    return False
                self.body = b"".join(self._chunks)
                self._finish(start + 2)
                return True
            if len(self._buffer) < start + size + 2:
                return False
            self._chunks.append(bytes(self._buffer[start : start + size]))
            del self._buffer[: start + size + 2]

    def _finish(self, used: int) -> None:
        if len(self._buffer) > used:
            raise MalformedResponse(f"bytes behind the response: {excerpt(bytes(self._buffer[used:]))!r}")


@dataclasses.dataclass
class Counters:
    """Everything counted up to one moment; the difference of two of them is a report."""

    at: float = 0.0
    cpu: float = 0.0
    sent: int = 0
    served: int = 0
    failed: int = 0
    missed: int = 0
    connections: int = 0
    reconnects: int = 0
    repeated: int = 0
    failures: Counter[str] = dataclasses.field(default_factory=Counter)
    statuses: Counter[str] = dataclasses.field(default_factory=Counter)
    versions: Counter[str] = dataclasses.field(default_factory=Counter)
    releases: Counter[str] = dataclasses.field(default_factory=Counter)

    def copy(self) -> Counters:
        return dataclasses.replace(
            self,
            failures=self.failures.copy(),
            statuses=self.statuses.copy(),
            versions=self.versions.copy(),
            releases=self.releases.copy(),
        )


@dataclasses.dataclass(frozen=True)
class Report:
    """What happened between two moments. At the end of a run, sent = served + failed."""

    seconds: float
    asked_rate: float
    rate: float
    sent: int
    served: int
    failed: int
    missed: int
    in_flight: int
    connections: int
    reconnects: int
    repeated: int
    failures: dict[str, int]
    statuses: dict[str, int]
    versions: dict[str, int]
    releases: dict[str, int]
    latency_ms: dict[str, float]
    late_ms: float
    cpu_percent: float
    events: list[dict[str, Any]]

    @property
    def rate_reached(self) -> bool:
        return self.rate >= 0.95 * self.asked_rate

    def as_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "rate_reached": self.rate_reached}


def percentile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank: the smallest value that at least `share` of all values do not exceed."""
    if not ordered:
        return 0.0
    rank = -int(-len(ordered) * share // 1)  # rounded up
    return ordered[min(max(rank, 1), len(ordered)) - 1]


def latency_summary(latencies: Iterable[float]) -> dict[str, float]:
    ordered = sorted(latencies)
    shares = {"p50": 0.50, "p99": 0.99, "max": 1.0}
    return {name: round(percentile(ordered, share) * 1000, 1) for name, share in shares.items()}


class Client:
    """One visitor: at most one connection and one request under way."""

    __slots__ = ("closing", "connection", "cookies", "had_connection", "kind", "requests")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.closing = kind == "closing"
        self.connection: Connection | None = None
        self.had_connection = False
        self.cookies: dict[bytes, bytes] = {}
        self.requests = 0

    def learn(self, cookies: list[bytes]) -> None:
        for cookie in cookies:
            pair, _, attributes = cookie.partition(b";")
            name, _, value = pair.strip().partition(b"=")
            if value and b"max-age=0" not in attributes.lower().replace(b" ", b""):
                self.cookies[name] = value
            else:
                self.cookies.pop(name, None)


@dataclasses.dataclass(eq=False)
class Request:
    client: Client
    target: Target
    started: float
    written: bool = False
    # Seconds for which its connection had been silent; None on a new connection.
    silence: float | None = None
    repeated: bool = False
    opening: asyncio.Task[None] | None = None


class Connection(asyncio.Protocol):
    """A connection of one client; it tells the traffic how each request on it ended."""

    def __init__(self, traffic: Traffic, client: Client, sock: socket.socket) -> None:
        self._traffic = traffic
        self._client = client
        self._socket = sock
        self._request: Request | None = None
        self._response = Response("GET")
        self._transport: asyncio.Transport | None = None
        self._answered: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def usable(self) -> bool:
        """False once the server's end has arrived, even if the event loop has not read it yet."""
        if self._transport is None or self._transport.is_closing():
            return False
        try:
            data = self._socket.recv(256, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if data:
            self._traffic.count_unasked(self._client, data)
        return False

    def send(self, request: Request, message: bytes) -> None:
        assert self._transport is not None
        self._request = request
        self._response = Response(request.target.method)
        request.written = True
        request.silence = None if self._answered is None else time.monotonic() - self._answered
        self._transport.write(message)

    def drop(self) -> None:
        """Forget the request and cut the connection."""
        self._request = None
        self._client.connection = None
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._request is None:
            if self._client.connection is self:
                self._traffic.count_unasked(self._client, data)
            self.drop()
            return
        try:
            complete = self._response.feed(data)
        except MalformedResponse as error:
            self._end(f"malformed: {error}")
            return
        if complete:
            self._end(None)

    def eof_received(self) -> bool:
        if self._request is not None and self._response.end():
            self._end(None)
        return False  # the transport closes itself and calls connection_lost

    def connection_lost(self, exc: Exception | None) -> None:
        if self._client.connection is self:
            self._client.connection = None
        if self._request is None:
            return
        if not self._response.begun and self._traffic.repeat(self._request):
            return
        place = "inside the response" if self._response.begun else "before a response"
        self._end(f"{'reset' if exc else 'closed'} {place}: {exc or 'end of connection'}")

    def _end(self, problem: str | None) -> None:
        request, response = self._request, self._response
        assert request is not None
        self._request = None
        self._answered = time.monotonic()
        if problem or response.closes or self._client.closing:
            self._client.connection = None
            if self._transport is not None:
                self._transport.close()
        self._traffic.finish(request, response, problem)


class Traffic:
    """Sends requests while the `async with` block lasts; `report()` tells what happened so far."""

    def __init__(
        self,
        url: str,
        rate: float = 200.0,
        *,
        seconds: float = MAX_SECONDS,
        targets: Sequence[Target] = DEFAULT_TARGETS,
        mix: Mix | None = None,
        connections: int = CONNECTIONS,
        think: tuple[float, float] = (0.05, 6.0),
        timeout: float = 5.0,
        repeat_after: float | None = None,
        seed: int | None = None,
    ) -> None:
        for name, value, limit in (
            ("rate", rate, MAX_RATE),
            ("seconds", seconds, MAX_SECONDS),
            ("connections", connections, MAX_CONNECTIONS),
        ):
            if not 0 < value <= limit:
                raise TrafficError(f"{name} is {value:g}; it must be above 0 and at most {limit:g}.")
        self.url = url
        self.rate = rate
        self.seconds = min(seconds, MAX_REQUESTS / rate)
        self.running = False
        self._family, self._address, host = resolve(url)
        self._connections = connections
        allow_open_files(connections + OTHER_FILES)
        self._think = think
        self._timeout = timeout
        self._repeat_after = repeat_after
        self._random = random.Random(seed)
        self._targets = tuple(targets)
        self._target_weights = list(itertools.accumulate(target.weight for target in self._targets))
        mix = mix or Mix()
        self._kinds = ("keep-alive", "sticky", "closing")
        self._kind_weights = list(itertools.accumulate((mix.keep_alive, mix.sticky, mix.closing)))
        self._messages = {
            (target, closing): message_head(target, host, closing) for target in targets for closing in (False, True)
        }
        self._ready: dict[str, list[tuple[float, int, Client]]] = {"keep-alive": [], "sticky": []}
        self._order = itertools.count()
        self._clients = 0
        self._open: dict[Request, None] = {}  # in order of start, so the oldest is first
        self._counters = Counters()
        self._lap = Counters()
        self._latencies = array("f")
        self._late: dict[int, float] = {}  # second of the run: longest delay in it
        self._events: list[dict[str, Any]] = []
        self._start = 0.0
        self._sending_ended = self.seconds
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # -- life ---------------------------------------------------------------------------------------

    async def __aenter__(self) -> Traffic:
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self._cpu_start = time.thread_time()
        self.running = True
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def wait(self) -> None:
        """Until the traffic has ended by itself."""
        assert self._task is not None
        await asyncio.shield(self._task)

    def end(self) -> None:
        """Start no more requests."""
        self._stopping.set()

    async def stop(self) -> None:
        """Start no more requests, and wait for the answers to those under way."""
        self.end()
        await self.wait()

    async def _run(self) -> None:
        sweeper = asyncio.create_task(self._sweep())
        try:
            await self._dispatch()
            self._sending_ended = self._loop.time() - self._start
            while self._open:
                await asyncio.sleep(0.01)
        finally:
            self.mark()
            self.running = False
            sweeper.cancel()
            for heap in self._ready.values():
                for _ready_at, _order, client in heap:
                    if client.connection is not None:
                        client.connection.drop()

    # -- sending ------------------------------------------------------------------------------------

    async def _dispatch(self) -> None:
        scheduled = 0
        end = self._start + self.seconds
        while not self._stopping.is_set():
            now = self._loop.time()
            if now >= end:
                break
            due = int((now - self._start) * self.rate) + 1
            late = now - (self._start + scheduled / self.rate)
            if late > 2 * TICK:
                second = int(now - self._start)
                self._late[second] = max(late, self._late.get(second, 0.0))
            # Whoever slept for long must not come back with a flood.
            skipped = max(0, due - scheduled - max(int(self.rate), 1))
            self._counters.missed += skipped
            scheduled += skipped
            while scheduled < due:
                scheduled += 1
                self._begin(now)
            pause = max(self._start + scheduled / self.rate - self._loop.time(), TICK)
            if pause <= 0.1:
                await asyncio.sleep(pause)
            else:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), pause)

    def _begin(self, now: float) -> None:
        client = self._choose_client(now)
        if client is None:
            self._counters.missed += 1
            return
        target = self._random.choices(self._targets, cum_weights=self._target_weights)[0]
        request = Request(client, target, now)
        self._open[request] = None
        self._counters.sent += 1
        client.requests += 1
        connection = client.connection
        if connection is not None and connection.usable():
            connection.send(request, self._message(request))
            return
        if connection is not None:
            connection.drop()
        if client.had_connection:
            self._counters.reconnects += 1
        request.opening = self._loop.create_task(self._connect(request))

    def repeat(self, request: Request) -> bool:
        """Send a request again whose silent connection ended before an answer; False if it has to count as failed."""
        if self._repeat_after is None or request.silence is None or request.silence < self._repeat_after:
            return False
        if request.repeated or request.target.method not in IDEMPOTENT:
            return False
        request.repeated = True
        request.written = False
        self._counters.repeated += 1
        self._counters.reconnects += 1
        request.opening = self._loop.create_task(self._connect(request))
        return True

    def _choose_client(self, now: float) -> Client | None:
        kind = self._random.choices(self._kinds, cum_weights=self._kind_weights)[0]
        heap = self._ready.get(kind)
        if heap and heap[0][0] <= now:
            return heapq.heappop(heap)[2]
        if self._clients >= self._connections:
            return None
        self._clients += 1
        return Client(kind)

    async def _connect(self, request: Request) -> None:
        client = request.client
        sock = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await self._loop.sock_connect(sock, self._address)
            connection = Connection(self, client, sock)
            await self._loop.create_connection(lambda: connection, sock=sock)
        except OSError as error:
            sock.close()
            kind = "refused" if isinstance(error, ConnectionRefusedError) else "reset"
            if not isinstance(error, ConnectionError):
                kind = "connect"
            self.finish(request, None, f"{kind}: {error.strerror or error}")
            return
        except asyncio.CancelledError:
            sock.close()
            raise
        self._counters.connections += 1
        client.connection = connection
        client.had_connection = True
        connection.send(request, self._message(request))

    def _message(self, request: Request) -> bytes:
        client = request.client
        head = self._messages[request.target, client.closing]
        if client.cookies:
            pairs = b"; ".join(name + b"=" + value for name, value in client.cookies.items())
            head += b"Cookie: " + pairs + b"\r\n"
        return head + b"\r\n" + request.target.body

    async def _sweep(self) -> None:
        """One timer for all time-outs: the requests are in order of their start."""
        while True:
            await asyncio.sleep(0.1)
            limit = self._loop.time() - self._timeout
            overdue = []
            for request in self._open:
                if request.started > limit:
                    break
                overdue.append(request)
            for request in overdue:
                if request.opening is not None and not request.written:
                    request.opening.cancel()
                if request.client.connection is not None:
                    request.client.connection.drop()
                place = "while connecting" if not request.written else "no whole answer"
                self.finish(request, None, f"time-out: {place} after {self._timeout:g} s")

    # -- counting -----------------------------------------------------------------------------------

    def finish(self, request: Request, response: Response | None, problem: str | None) -> None:
        if self._open.pop(request, self) is self:  # already counted
            return
        now = self._loop.time()
        counters = self._counters
        if response is not None and problem is None:
            problem = request.target.problem(response.status, response.body)
            counters.statuses[str(response.status)] += 1
            self._note_release(request.target, response, problem)
            if request.client.kind == "sticky":
                request.client.learn(response.cookies)
        self._latencies.append(now - request.started)
        if problem is None:
            counters.served += 1
        else:
            counters.failed += 1
            kind, _, detail = problem.partition(": ")
            counters.failures[kind] += 1
            self._note_event(request.client, f"{request.target.method} {request.target.path}", kind, detail, now)
        self._release_client(request.client, now)

    def count_unasked(self, client: Client, data: bytes) -> None:
        """An answer without a question: it counts as a request of its own that failed."""
        self._counters.sent += 1
        self._counters.failed += 1
        self._counters.failures["unasked"] += 1
        self._latencies.append(0.0)
        self._note_event(client, "-", "unasked", excerpt(data), self._loop.time())

    def _note_release(self, target: Target, response: Response, problem: str | None) -> None:
        release = response.headers.get(b"x-release")
        if release:
            self._counters.releases[release.decode("utf-8", "replace")] += 1
        if target.expects == "health" and problem is None:
            self._counters.versions[json.loads(response.body)["version"]] += 1

    def _note_event(self, client: Client, request: str, kind: str, detail: str, now: float) -> None:
        if len(self._events) < EVENTS_KEPT:
            self._events.append(
                {
                    "at": round(now - self._start, 3),
                    "request": request,
                    "kind": kind,
                    "detail": detail,
                    "client": client.kind,
                    "request_of_client": client.requests,
                }
            )

    def _release_client(self, client: Client, now: float) -> None:
        if client.closing:
            self._clients -= 1
            return
        shortest, longest = self._think
        # Mostly short pauses, now and then one of several seconds: both have cut connections before.
        pause = shortest + (longest - shortest) * self._random.random() ** 3
        heapq.heappush(self._ready[client.kind], (now + pause, next(self._order), client))

    def mark(self) -> Counters:
        """The counters of this moment, to report from here on later."""
        if self.running:  # the end of the traffic is its last moment
            self._counters.at = self._loop.time() - self._start
            self._counters.cpu = time.thread_time() - self._cpu_start
        return self._counters.copy()

    def report(self, since: Counters | None = None) -> Report:
        return self._report(since or Counters(), self.mark())

    def lap(self) -> Report:
        """What happened since the last lap: laps have no gaps and no overlaps."""
        first, self._lap = self._lap, self.mark()
        return self._report(first, self._lap)

    def _report(self, first: Counters, last: Counters) -> Report:
        seconds = max(last.at - first.at, 1e-9)
        sent = last.sent - first.sent
        ended = slice(first.served + first.failed, last.served + last.failed)
        late = [late for second, late in self._late.items() if int(first.at) <= second <= last.at]
        sending = max(min(last.at, self._sending_ended) - first.at, 1e-9)
        return Report(
            seconds=round(seconds, 3),
            asked_rate=self.rate,
            rate=round(sent / sending, 1),
            sent=sent,
            served=last.served - first.served,
            failed=last.failed - first.failed,
            missed=last.missed - first.missed,
            in_flight=last.sent - last.served - last.failed,
            connections=last.connections - first.connections,
            reconnects=last.reconnects - first.reconnects,
            repeated=last.repeated - first.repeated,
            failures=dict(last.failures - first.failures),
            statuses=dict(last.statuses - first.statuses),
            versions=dict(last.versions - first.versions),
            releases=dict(last.releases - first.releases),
            latency_ms=latency_summary(self._latencies[ended]),
            late_ms=round(max(late, default=0.0) * 1000, 1),
            cpu_percent=round(100 * (last.cpu - first.cpu) / seconds, 1),
            events=[event for event in self._events if first.at <= event["at"] <= last.at],
        )


def message_head(target: Target, host: str, closing: bool) -> bytes:
    lines = [
        f"{target.method} {target.path} HTTP/1.1",
        f"Host: {host}",
        "User-Agent: traffic",
        f"Connection: {'close' if closing else 'keep-alive'}",
    ]
    if target.body or target.method in ("POST", "PUT", "PATCH"):
        lines += ["Content-Type: application/json", f"Content-Length: {len(target.body)}"]
    return ("\r\n".join(lines) + "\r\n").encode()


def resolve(url: str) -> tuple[socket.AddressFamily, Any, str]:
    """Family, address and Host header of a URL that this tool may send traffic to."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise TrafficError(f"{url!r} is not of the form http://HOST[:PORT].")
    port = parts.port or 80
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TrafficError(f"{parts.hostname} has no address: {error}.") from error
    family, _kind, _protocol, _name, address = found[0]
    # Only this one address is used from now on, so that a name cannot lead elsewhere later.
    if not is_allowed(str(address[0])):
        raise TrafficError(f"{parts.hostname} is {address[0]}. Traffic goes to loopback and private addresses only.")
    return family, address, parts.netloc.rpartition("@")[2]


def is_allowed(address: str) -> bool:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(ip.version == network.version and ip in network for network in ALLOWED_NETWORKS)


def allow_open_files(number: int) -> None:
    """Let this process have so many files open at a time, where it may not yet.

    Raises:
        TrafficError: the system does not let it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != soft < number:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
        except (ValueError, OSError) as error:
            raise TrafficError(
                f"{number} open files are needed, and at most {hard} are allowed: ask for fewer connections ({error})."
            ) from error


AnyReport = TypeVar("AnyReport")
AnyBackground = TypeVar("AnyBackground", bound="Background[Any]")


class Background(Generic[AnyReport]):
    """Traffic of any kind in a thread of its own, for a program that runs something else meanwhile.

    Args:
        make: makes the traffic, within the event loop of the thread.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._thread = threading.Thread(target=self._main, name="traffic", daemon=True)
        self._begun = threading.Event()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._traffic: Any = None
        self._leave = asyncio.Event()

    def start(self: AnyBackground) -> AnyBackground:
        self._thread.start()
        self._begun.wait()
        if self._error is not None:
            raise self._error
        return self

    def stop(self) -> AnyReport:
        """End the traffic, wait for the answers under way, and tell what happened in all."""
        if self._thread.is_alive() and self._traffic is not None and self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._traffic.stop(), self._loop).result(30)
            self._loop.call_soon_threadsafe(self._leave.set)
            self._thread.join(30)
        return self.report()

    def __enter__(self: AnyBackground) -> AnyBackground:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def started(self) -> bool:
        return self._begun.is_set()

    @property
    def running(self) -> bool:
        return self._thread.is_alive() and self._traffic is not None and bool(self._traffic.running)

    def report(self) -> AnyReport:
        """What happened so far."""
        report: AnyReport = self._in_loop("report")
        return report

    def lap(self) -> AnyReport:
        """What happened since the last lap."""
        report: AnyReport = self._in_loop("lap")
        return report

    def _in_loop(self, method: str, *arguments: Any) -> Any:
        if self._error is not None or self._traffic is None or self._loop is None:
            raise TrafficError(f"The traffic has died: {self._error}")

        async def call() -> Any:
            return getattr(self._traffic, method)(*arguments)

        if not self._thread.is_alive():  # ended: nobody else touches the counters any more
            return getattr(self._traffic, method)(*arguments)
        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(30)

    def _main(self) -> None:
        async def live() -> None:
            self._loop = asyncio.get_running_loop()
            async with self._make() as self._traffic:
                self._begun.set()
                await self._leave.wait()

        try:
            asyncio.run(live())
        except BaseException as error:
            self._error = error
        finally:
            self._begun.set()


class BackgroundTraffic(Background[Report]):
    """Requests in a thread of their own; the arguments are those of `Traffic`."""

    def __init__(self, url: str, rate: float = 200.0, **options: Any) -> None:
        super().__init__(lambda: Traffic(url, rate, **options))

    def mark(self) -> Counters:
        """The counters of this moment, to report from here on later."""
        counters: Counters = self._in_loop("mark")
        return counters

    def report(self, since: Counters | None = None) -> Report:
        """What happened so far, or since some moment."""
        report: Report = self._in_loop("report", since)
        return report


def parse_target(text: str) -> Target:
    """`[METHOD] PATH [STATUS [BODY]]`, for instance `GET /health` or `POST /api/roasts 201 {"a": 1}`."""
    words = text.split(None, 3)
    if words and words[0].startswith("/"):
        words.insert(0, "GET")
        words = " ".join(words).split(None, 3)
    if len(words) < 2 or not words[1].startswith("/") or (len(words) > 2 and not words[2].isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form '[METHOD] PATH [STATUS [BODY]]'")
    return Target(
        words[0].upper(),
        words[1],
        status=int(words[2]) if len(words) > 2 else 200,
        body=words[3].encode() if len(words) > 3 else b"",
    )


def describe(report: Report) -> str:
    """The report in a few lines for people."""

    def counts(numbers: dict[str, int]) -> str:
        return ", ".join(f"{name} {number}" for name, number in sorted(numbers.items())) or "none"

    latency = report.latency_ms
    lines = [
        f"{report.sent} requests in {report.seconds:.1f} s: {report.served} served, {report.failed} failed",
        f"rate      {report.rate:g}/s of {report.asked_rate:g}/s asked for; {report.missed} not started",
        f"failures  {counts(report.failures)}",
        f"statuses  {counts(report.statuses)}",
        f"versions  {counts(report.versions)}",
        f"releases  {counts(report.releases)}",
        f"latency   median {latency['p50']:g} ms, 99 % within {latency['p99']:g} ms, longest {latency['max']:g} ms",
        f"own cost  {report.cpu_percent:g} % of a core, late by up to {report.late_ms:g} ms; "
        f"{report.connections} connections, {report.reconnects} of them reconnects, {report.repeated} repeats",
    ]
    if not report.rate_reached:
        lines.append("The rate was NOT reached: more load than this machine, or the server, can take.")
    lines += [
        f"  {event['at']:8.3f} s  {event['kind']}: {event['detail']}  "
        f"({event['client']}, {event['request']}, its request {event['request_of_client']})"
        for event in report.events[:20]
    ]
    return "\n".join(lines)


async def run(arguments: argparse.Namespace) -> Report:
    loop = asyncio.get_running_loop()
    async with Traffic(
        arguments.url,
        arguments.rate,
        seconds=arguments.seconds,
        connections=arguments.connections,
        targets=arguments.target or DEFAULT_TARGETS,
        repeat_after=arguments.repeat_after,
    ) as traffic:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, traffic.end)
        last = traffic.mark()
        waiting = asyncio.create_task(traffic.wait())
        while not (await asyncio.wait([waiting], timeout=5))[0]:
            part = traffic.report(last)
            last = traffic.mark()
            if not arguments.json:
                print(f"{last.at:6.0f} s  {part.served:6} served  {part.failed:4} failed", file=sys.stderr)
        waiting.result()
        return traffic.report()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Steady web traffic whose every failure is counted.")
    parser.add_argument("url", help="http://HOST[:PORT], loopback or private address only")
    parser.add_argument("--rate", type=float, default=200.0, help=f"requests per second, at most {MAX_RATE}")
    parser.add_argument("--seconds", type=float, default=30.0, help=f"duration, at most {MAX_SECONDS:g}")
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help="most connections at a time")
    parser.add_argument(
        "--target",
        type=parse_target,
        action="append",
        help="'[METHOD] PATH [STATUS [BODY]]', may be repeated; default: the reference application's pages",
    )
    parser.add_argument(
        "--repeat-after",
        type=float,
        metavar="SECONDS",
        help="send again what meets the end of a connection that had been silent for so long",
    )
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    arguments = parser.parse_args(argv)
    try:
        report = asyncio.run(run(arguments))
    except TrafficError as error:
        parser.error(str(error))
    print(json.dumps(report.as_dict(), indent=2) if arguments.json else describe(report))
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
