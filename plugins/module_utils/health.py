# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask an application how it is, and decide whether that is good enough for traffic."""

from __future__ import annotations

import http.client
import io
import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError

#: Seconds within which a health request must be answered (seed document, property 4).
ANSWER_LIMIT = 2.0
#: Bytes of an answer that are read: a health answer is small, and a wrong port may send anything.
BODY_LIMIT = 65_536
#: Values of "status" that may have traffic, in whatever capitals: degraded means memory above 90 %, which still serves
#: (seed document). The others are how libraries say the same: Terminus of NestJS and under-pressure of Fastify (ok),
#: application/health+json (pass, warn, up), JSend (success), and those that repeat HTTP's code or say true.
ACCEPTED = ("healthy", "degraded", "ok", "up", "pass", "warn", "success", "200", "true")
#: Seconds that the end of a process may come after the end of its socket, so that the end is named as the cause.
_END_AFTER_SOCKET = 1.0
_NOTHING_LISTENS = "nothing listens"
#: The application tells its release and its worker in these headers, so that generations can be told apart.
RELEASE_HEADER = "X-Release"
WORKER_HEADER = "X-Worker"


@dataclass(frozen=True)
class Answer:
    """What came back from one health request."""

    code: int | None = None
    status: str | None = None
    version: str | None = None
    release: str | None = None
    worker: int | None = None
    milliseconds: int = 0
    body: str = ""
    error: str | None = None

    def problem(self, version: str | None = None) -> str | None:
        """Why this answer is not good enough, or None if it is.

        Args:
            version: the version that must be answering; None accepts any.
        """
        if self.error:
            return self.error
        if self.code != 200:
            return f"HTTP {self.code} instead of 200"
        if self.status is not None and self.status.lower() not in ACCEPTED:
            return f'status "{self.status}" instead of healthy'
        if version is not None and self.version is None:
            return (
                f"the answer names no version, so it is not known whether {version} answered; "
                "add a version to the health answer or set app_release_verify_version: false"
            )
        if version is not None and self.version != version:
            return f"version {self.version} answered instead of {version}"
        return None

    @property
    def nothing_listens(self) -> bool:
        """Whether the connection was refused."""
        return self.error is not None and self.error.startswith(_NOTHING_LISTENS)

    def alike(self, other: Answer) -> bool:
        """Whether two answers say the same, whatever time they took."""
        return (self.code, self.status, self.version, self.error) == (
            other.code,
            other.status,
            other.version,
            other.error,
        )

    def describe(self) -> str:
        """One line for people: what was answered and how fast."""
        if self.error:
            return f"{self.error} after {self.milliseconds} ms"
        said = f'status "{self.status}", version {self.version}' if self.status else self.body[:200]
        return f"HTTP {self.code} in {self.milliseconds} ms: {said}"


@dataclass(frozen=True)
class Place:
    """Where to ask.

    Attributes:
        host: name or address.
        port: of TCP.
        path: with its query.
        tls: whether by HTTPS.
    """

    host: str
    port: int
    path: str
    tls: bool


def place(url: str) -> Place:
    """Where a URL says to ask.

    Raises:
        OperationError: it is none of HTTP or HTTPS.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # a port that is no number, brackets that don't match
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise OperationError(f"{url} is no URL of HTTP or HTTPS", "name a scheme, an address and a path")
    tls = parts.scheme == "https"
    query = f"?{parts.query}" if parts.query else ""
    return Place(parts.hostname, port or (443 if tls else 80), (parts.path or "/") + query, tls)


class _Until(io.RawIOBase):
    """What http.client wants of a socket, with one deadline for everything: a time-out of a socket starts anew with
    every byte, and who sends one a second would never be late.

    Args:
        connected: the socket.
        deadline: by the monotonic clock.
    """

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        super().__init__()
        self._socket = connected
        self._deadline = deadline

    def _hurry(self) -> socket.socket:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        return self._socket

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._hurry().recv_into(buffer)

    def sendall(self, data: bytes) -> None:
        self._hurry().sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def close(self) -> None:
        """Nothing: http.client lets go of the socket while it still reads the answer. Who opened it closes it."""


def probe(
    host: str,
    port: int,
    path: str,
    limit: float = ANSWER_LIMIT,
    host_header: str | None = None,
    tls: bool = False,
) -> Answer:
    """Send one health request on a connection of its own.

    Args:
        host: address to connect to.
        port: TCP port.
        path: path of the health check, for instance ``/health``.
        limit: seconds for all of it, from connecting to the last byte.
        host_header: value of the Host header; the address by default.
        tls: whether to speak HTTPS, with the certificate checked against what the machine trusts.

    Returns:
        The answer; a refused, reset or late one is an answer with ``error``.
    """
    started = time.monotonic()

    def elapsed() -> int:
        return int((time.monotonic() - started) * 1000)

    kind = http.client.HTTPSConnection if tls else http.client.HTTPConnection
    connection = kind(host, port, timeout=limit)
    connected: socket.socket | None = None
    try:
        connection.connect()
        connected = connection.sock
        connection.sock = _Until(connected, started + limit)
        headers = {"Connection": "close", "Accept": "application/json", "User-Agent": "health-gate"}
        if host_header:
            headers["Host"] = host_header
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        body = response.read(BODY_LIMIT).decode("utf-8", "replace")
    except (TimeoutError, socket.timeout):  # two kinds of errors in Python 3.9
        return Answer(error=f"no answer within {limit:g} s", milliseconds=elapsed())
    except ConnectionRefusedError:
        return Answer(error=f"{_NOTHING_LISTENS} on {host}:{port}", milliseconds=elapsed())
    except (OSError, http.client.HTTPException) as problem:
        return Answer(error=f"{type(problem).__name__}: {problem}", milliseconds=elapsed())
    finally:
        if connected is not None:
            connected.close()
    milliseconds = elapsed()
    if milliseconds > limit * 1000:
        return Answer(error=f"answered after more than {limit:g} s", milliseconds=milliseconds)
    return _read(response, body, milliseconds)


def _read(response: http.client.HTTPResponse, body: str, milliseconds: int) -> Answer:
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    fields = content if isinstance(content, dict) else {}
    worker = response.headers.get(WORKER_HEADER, "")
    return Answer(
        code=response.status,
        status=_text(fields.get("status")),
        version=_text(fields.get("version")),
        release=response.headers.get(RELEASE_HEADER),
        worker=int(worker) if worker.isascii() and worker.isdigit() else None,
        milliseconds=milliseconds,
        body=body[:2000],
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


@dataclass
class Gate:
    """Healthy so many times in a row, or no traffic.

    Attributes:
        wanted: good answers in a row that open the gate (2: the load balancer's healthy threshold in the seed).
        interval: seconds between two requests.
        patience: seconds until the gate gives up.
        version: version that must answer, or None.
    """

    wanted: int = 2
    interval: float = 0.1
    patience: float = 60.0
    version: str | None = None
    in_a_row: int = 0
    asked: int = 0
    _seen: list[tuple[Answer, int]] = field(default_factory=list)

    def judge(self, answer: Answer) -> bool:
        """Count one answer.

        Args:
            answer: what came back.

        Returns:
            Whether the gate is open now.
        """
        self.asked += 1
        self.in_a_row = 0 if answer.problem(self.version) else self.in_a_row + 1
        last, times = self._seen[-1] if self._seen else (None, 0)
        if last is not None and answer.alike(last):
            self._seen[-1] = (answer, times + 1)
        else:
            self._seen.append((answer, 1))
        return self.in_a_row >= self.wanted

    @property
    def last(self) -> Answer | None:
        """The newest answer."""
        return self._seen[-1][0] if self._seen else None

    def evidence(self) -> list[str]:
        """The newest answers, one line for each run of equal ones."""
        return [answer.describe() + (f" ({times} times)" if times > 1 else "") for answer, times in self._seen[-10:]]

    def wait(self, ask: Callable[[], Answer], gone: Callable[[], str | None] = lambda: None) -> str | None:
        """Ask until the gate opens or patience ends.

        Args:
            ask: sends one health request.
            gone: tells why there is no point in asking on (the process died), or None.

        Returns:
            None when the gate opened, else the reason why it stayed shut.
        """
        deadline = time.monotonic() + self.patience
        while True:
            answer = ask()
            if self.judge(answer):
                return None
            reason = gone()
            if reason:
                return reason
            if time.monotonic() >= deadline:
                problem = answer.problem(self.version) or "answered well, but too late"
                return (
                    f"not healthy {self.wanted} times in a row within {self.patience:g} s "
                    f"({self.asked} requests): {problem}"
                )
            time.sleep(self.interval)

    def stay_open(self, ask: Callable[[], Answer], seconds: float, gone: Callable[[], str | None]) -> str | None:
        """Go on asking what the gate was opened for: a release that dies soon is not fit for traffic either.

        Args:
            ask: sends one health request.
            seconds: how long every answer has to be good from now on.
            gone: tells why there is no point in asking on (the process died), or None.

        Returns:
            None if all answers were good, else the reason why the gate is shut again.
        """
        deadline = time.monotonic() + seconds
        while True:
            reason = gone()
            left = deadline - time.monotonic()
            if reason is None and left <= 0:
                return None
            if reason is None:
                time.sleep(min(self.interval, left))
                answer = ask()
                self.judge(answer)
                problem = answer.problem(self.version)
                reason = problem and (_awaited(gone) or problem)
            if reason is not None:
                return f"healthy {self.wanted} times in a row, but then: {reason}"


def _awaited(gone: Callable[[], str | None]) -> str | None:
    """Whether the process ends right after it stopped answering, which is the better reason of the two."""
    deadline = time.monotonic() + _END_AFTER_SOCKET
    while (reason := gone()) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return reason
