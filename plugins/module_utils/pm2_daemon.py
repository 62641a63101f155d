# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask a PM2 daemon over its socket, as its own clients do, without a start of Node.js for every question.

What the daemon answers to is in PM2's lib/Daemon.js (getMonitorData, deleteProcessId); how it is asked in axon
(github.com/tj/axon, request and reply) and AMP (github.com/tj/node-amp). PM2 promises none of it: whoever asks has to
have another way for a daemon that answers otherwise.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: AMP's first byte: its version in the upper half, the number of parts in the lower one.
_VERSION = 1
#: Bytes of one part of an answer. PM2 lists a worker in some 10 kB; what claims to be so long is no answer.
_LONGEST = 2**26
#: State of a socket in the kernel's tables.
_LISTENS = "0A"


class NotUnderstood(Exception):
    """The daemon does not speak this way, or refuses."""


class NoAnswer(Exception):
    """The daemon listens, but has not answered in time. Nobody else who asks it would be better off."""


def listening(process: int) -> set[int]:
    """The TCP ports that a process listens on.

    Args:
        process: its id.

    Returns:
        None of them if it has ended, or is not ours to look at.
    """
    opened, ports = set(), set()
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                opened.add(os.readlink(descriptor))
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):  # no IPv6 in this kernel
            for line in Path(f"/proc/{process}/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
                _number, address, _peer, state, *rest = line.split()
                if state == _LISTENS and f"socket:[{rest[5]}]" in opened:
                    ports.add(int(address.rpartition(":")[2], 16))
    return ports


class Pm2Daemon:
    """A PM2 daemon that may be running.

    Args:
        path: of its socket, ``rpc.sock`` in its home.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def listens(self) -> bool:
        """Whether anybody listens on its socket."""
        try:
            self._connected(2).close()
        except OSError:
            return False
        return True

    def processes(self, limit: float) -> list[dict[str, Any]]:
        """All processes that it has, as PM2 describes them: with name, pid, pm_id and pm2_env.

        Args:
            limit: seconds for the answer.

        Raises:
            NotUnderstood: it gives no such list.
            NoAnswer: it gives nothing in time.
        """
        (entries,) = self._ask("getMonitorData", [{}], limit)
        if not isinstance(entries, list) or not all(_describes_a_process(entry) for entry in entries):
            raise NotUnderstood("getMonitorData gives no list of processes")
        return entries

    def delete(self, numbers: Sequence[int], limit: float) -> None:
        """End processes, all at once, and take them off its list; returns when they have ended.

        Args:
            numbers: their ``pm_id``.
            limit: seconds for all of them.

        Raises:
            NotUnderstood: it does not do so; some may be gone.
            NoAnswer: it has not done so in time; some may be gone.
        """
        self._ask("deleteProcessId", numbers, limit)

    def _connected(self, limit: float) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(limit)
        try:
            connection.connect(str(self.path))
        except OSError:
            connection.close()
            raise
        return connection

    def _ask(self, method: str, arguments: Sequence[Any], limit: float) -> list[Any]:
        """Call a method once with each of the arguments; the answers in their order."""
        deadline = time.monotonic() + limit
        calls = [{"type": "call", "method": method, "args": [argument]} for argument in arguments]
        answers: dict[str, Any] = {}
        try:
            with self._connected(limit) as connection:
                connection.sendall(
                    b"".join(
                        _message(b"j:" + json.dumps(call).encode(), b"s:%d" % number)
                        for number, call in enumerate(calls)
                    )
                )
                while len(answers) < len(arguments):
                    identifier, answer = _answer(connection, deadline)
                    answers[identifier] = answer
            return [_given(method, answers[str(number)]) for number in range(len(arguments))]
        except (TimeoutError, socket.timeout) as error:  # one and the same from Python 3.10 on
            raise NoAnswer(f"{method}: no answer within {limit:g} s") from error
        except (OSError, ValueError, KeyError) as error:
            raise NotUnderstood(f"{method}: {error or type(error).__name__}") from error


def _describes_a_process(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("name"), str)
        and isinstance(entry.get("pm_id"), int)
        and isinstance(entry.get("pm2_env"), dict)
    )


def _message(*parts: bytes) -> bytes:
    head = bytes([_VERSION << 4 | len(parts)])
    return head + b"".join(struct.pack(">I", len(part)) + part for part in parts)


def _answer(connection: socket.socket, deadline: float) -> tuple[str, Any]:
    """The next answer, with the identifier of the call that it belongs to."""
    (head,) = _received(connection, 1, deadline)
    if head != _VERSION << 4 | 2:
        raise ValueError(f"an answer begins with {head:#x}")
    parts = []
    for _ in range(2):
        (length,) = struct.unpack(">I", _received(connection, 4, deadline))
        if length > _LONGEST:
            raise ValueError(f"a part of {length} bytes")
        parts.append(_received(connection, length, deadline))
    answer, identifier = parts
    if not answer.startswith(b"j:") or not identifier.startswith(b"s:"):
        raise ValueError("an answer is not in JSON, or names no call")
    return identifier[2:].decode(), json.loads(answer[2:])


def _received(connection: socket.socket, length: int, deadline: float) -> bytes:
    data = bytearray()
    while len(data) < length:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("no answer in time")
        connection.settimeout(remaining)
        chunk = connection.recv(length - len(data))
        if not chunk:
            raise ValueError("it hung up")
        data += chunk
    return bytes(data)


def _given(method: str, answer: object) -> Any:
    """The first value that a method gave."""
    if not isinstance(answer, dict):
        raise NotUnderstood(f"{method}: {answer!r}")
    given = answer.get("args")
    if not isinstance(given, list) or not given:
        raise NotUnderstood(f"{method}: {answer.get('error')}")
    return given[0]
