# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an application said last, as evidence of why it does not serve: without secrets, and short enough to read."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils import dotenv
from ansible_collections.roastify.ops.plugins.module_utils.files import open_regular
from ansible_collections.roastify.ops.plugins.module_utils.pm2 import Pm2, Worker
from ansible_collections.roastify.ops.plugins.module_utils.releases import Release

#: Lines of the application's log that are shown when it doesn't come up.
LINES = 20
#: A line of JSON with a stack trace in it can be longer than anybody wants to read at once.
_LINE_LENGTH = 600
#: Lines of a stack that are told of an entry: the first ones are the application's.
_FRAMES = 5
#: Bytes at the end of a log file that are looked at.
TAIL = 16_384
#: Names of variables whose values are secrets, whatever the schema says of them.
_SECRET_NAME = re.compile(
    r"PASS|SECRET|TOKEN|KEY|CREDENTIAL|PRIVATE|DSN|WEBHOOK|SALT|PEPPER|AUTH(?!OR)|SIGNING|(^|_)SK(_|$)"
    r"|(DATABASE|REDIS|MONGO\w*|AMQP|RABBITMQ|SMTP)_UR[IL]",
    re.IGNORECASE,
)
#: What looks like one, whatever its name: long, of letters and digits, and no host, path or sentence.
_SECRET_VALUE = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[A-Za-z0-9+=_]{20,}")
#: What stands before the host of a URL (RFC 3986, section 3.2.1), whatever the name of the variable.
_URL_PASSWORD = re.compile(r"(?<=://)([^\s/@:]*):([^\s/@]+)(?=@)")
#: Shorter values ("true", "5432") would mask half of a log without hiding anything.
_SECRET_LENGTH = 6
#: Lines that tell why a release ends again and again; every start says the same.
_TELLING_LINES = 8
#: What Node.js prints around the message of an error.
_NOISE = re.compile(r"\s+at\s|\s*\^+\s*$|\s*$|Node\.js v\d|\(Use `node --trace-")
#: Levels of log entries below a warning, as bunyan and pino number them and as others name them.
_ROUTINE = re.compile(r"trace|debug|verbose|http|info|notice|log", re.IGNORECASE)
_WARNING = 40
#: So many new starts of a worker that is down again are no accident any more.
_LOOP = 3
#: How often it is looked whether a worker is down, with a second between.
_LOOKS = 4


def secrets_of(*releases: Release | None) -> list[str]:
    """Values of the environments of releases that must not be shown, longest first."""
    found: set[str] = set()
    for release in filter(None, releases):
        with contextlib.suppress(OSError):
            values = dotenv.to_mapping(dotenv.parse(dotenv.decode(release.environment.read_bytes())))
            found.update(
                value
                for name, value in values.items()
                if (_SECRET_NAME.search(name) and len(value) >= _SECRET_LENGTH) or _SECRET_VALUE.fullmatch(value)
            )
            for value in values.values():
                found.update(match[2] for match in _URL_PASSWORD.finditer(value) if len(match[2]) >= _SECRET_LENGTH)
    # As they stand in an entry of JSON, too.
    found |= {json.dumps(value, ensure_ascii=ascii)[1:-1] for value in found for ascii in (True, False)}
    return sorted(found, key=len, reverse=True)


def whole_lines(text: bytes, is_cut: bool) -> list[str]:
    """Lines of a log of which the end was read.

    Args:
        text: the end.
        is_cut: whether it may begin in the middle of a line: half a secret is not known for one.
    """
    lines = text.decode("utf-8", "replace").splitlines()
    return lines[1:] if is_cut else lines


def masked(lines: Sequence[str], *releases: Release | None) -> list[str]:
    """Log lines with every secret replaced, and made short enough to read after that.

    Of an entry of JSON that is too long, the message and the beginning of the stack are told; anything else is cut.

    Args:
        lines: what was logged.
        releases: those whose environments the secrets may come from.
    """
    secrets = secrets_of(*releases)

    def mask(line: str) -> str:
        for secret in secrets:
            line = line.replace(secret, "********")
        return _URL_PASSWORD.sub(r"\1:********", line)

    # Once more where an entry of JSON was read: what its text says may look different from how it stands there.
    return [mask(part) for line in lines for part in _shortened(mask(line))]


def _shortened(line: str) -> list[str]:
    if len(line) <= _LINE_LENGTH:
        return [line]
    entry = _entry_of(line)
    error = entry.get("error") or entry.get("err") or {}
    stack = (error.get("stack") if isinstance(error, dict) else None) or entry.get("stack")
    frames = stack.splitlines()[1 : _FRAMES + 1] if isinstance(stack, str) else []
    told = ": ".join(_texts_of(entry)).splitlines() or [line]
    return [part if len(part) <= _LINE_LENGTH else f"{part[:_LINE_LENGTH]}..." for part in [*told, *frames]]


def telling(lines: Sequence[str]) -> list[str]:
    """Of a log, the few lines that say what is wrong.

    Stack frames, entries below a warning and what an earlier start said as well are left out; of a JSON entry the
    message is told.

    Args:
        lines: what was logged, oldest first.

    Returns:
        The last of them; the last lines as they are if none says more than others.
    """
    last: dict[str, str] = {}
    for line in lines:
        for told in _messages_of(line):
            if not _NOISE.match(told):
                # Process ids, ports and times differ from start to start.
                key = re.sub(r"\d+", "#", told)
                last.pop(key, None)
                last[key] = told
    return list(last.values())[-_TELLING_LINES:] or [line for line in lines if line.strip()][-3:]


def _messages_of(line: str) -> Iterator[str]:
    """The lines of what a line of a log says; nothing if it is an entry of everyday."""
    entry = _entry_of(line)
    if not entry:
        yield line
        return
    level = entry.get("level", entry.get("severity"))
    if _ROUTINE.fullmatch(level) if isinstance(level, str) else isinstance(level, int) and level < _WARNING:
        return
    yield from (": ".join(_texts_of(entry)) or line).splitlines()


def _entry_of(line: str) -> dict[str, Any]:
    """The entry that a line of JSON is; empty if it is none."""
    entry: Any = None
    if line.startswith("{"):
        with contextlib.suppress(ValueError, RecursionError):
            entry = json.loads(line)
    return entry if isinstance(entry, dict) else {}


def _texts_of(entry: Mapping[str, Any]) -> list[str]:
    """The message of an entry, and that of the error in it."""
    error = entry.get("error") or entry.get("err")
    cause = error.get("message") if isinstance(error, dict) else error
    return [text for text in (entry.get("message") or entry.get("msg"), cause) if isinstance(text, str) and text]


class ApplicationLog:
    """The log files that PM2 writes for a release, and where they ended when this was made.

    Args:
        pm2: how the application is run.
        release: whose log.
    """

    def __init__(self, pm2: Pm2, release: Release) -> None:
        definition = pm2.definition(release.directory)
        files = [Path(definition[key]) for key in ("error_file", "out_file") if definition.get(key)]
        self._ends = {path: path.stat().st_size if path.exists() else 0 for path in files}

    def news(self) -> list[str]:
        """What was written since, as far as it is at the end of the files."""
        return self._lines(self._ends)

    def tail(self) -> list[str]:
        """The ends of the files, whenever they were written."""
        return self._lines(dict.fromkeys(self._ends, 0))

    @staticmethod
    def _lines(starts: dict[Path, int]) -> list[str]:
        lines: list[str] = []
        for path, start in starts.items():
            with contextlib.suppress(OSError), open_regular(path) as stream:
                size = os.fstat(stream.fileno()).st_size
                start = start if start <= size else 0  # it was rotated, and begins anew
                begin = max(start, size - TAIL)
                stream.seek(begin)
                lines += whole_lines(stream.read(TAIL), begin > start)
        return lines


def restart_loop(pm2: Pm2, live: Release, workers: Sequence[Worker]) -> list[str]:
    """Evidence that PM2 starts the live release again and again, for instance because its environment is wrong.

    Args:
        pm2: how the application is run.
        live: the release that should serve.
        workers: PM2's list.

    Returns:
        A sentence and the lines of the log that tell why; nothing if there is no such loop.
    """
    looping: list[Worker] = []
    for look in range(_LOOKS):
        if look:
            time.sleep(1)
            workers = pm2.workers()
        suspects = [
            worker for worker in workers if worker.directory == str(live.directory) and worker.restarts >= _LOOP
        ]
        looping = [worker for worker in suspects if not worker.up]
        if looping or not suspects:
            break
        # Each lives for a moment: one look may find all of them at it.
    if not looping:
        return []
    restarts = sum(worker.restarts for worker in looping)
    codes = sorted({str(worker.exit_code) for worker in looping if worker.exit_code is not None})
    how = f", the last time with exit code {' and '.join(codes)}" if codes else ""
    return [
        f"release {live.id} ends as soon as it starts: PM2 has started {len(looping)} of {len(workers)} workers "
        f"{restarts} times again{how}. Its log says:",
        *masked(telling(ApplicationLog(pm2, live).tail()), live),
    ]
