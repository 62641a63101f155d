# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of deployments on a host.

``deployments.jsonl`` is append-only: one JSON object a line, each an event of one deployment. It is for people and
for what they build on it; what a release is follows from its state (release_states.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils.files import kinds, misfit

STARTED = "started"
SUCCEEDED = "succeeded"
FAILED = "failed"
ROLLED_BACK = "rolled_back"
STATUSES = (STARTED, SUCCEEDED, FAILED, ROLLED_BACK)

DEPLOY = "deploy"
ROLLBACK = "rollback"


def now() -> str:
    """The present moment as the journal writes it: UTC, ISO 8601, whole seconds."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Record:
    """One event of a deployment; the camel-case names are the seed document's contract.

    Attributes:
        deploymentId: the same in all events of one run, on all hosts.
        action: ``deploy`` or ``rollback``.
        status: ``started``, ``succeeded``, ``failed`` or ``rolled_back``.
        release: release id that the event is about.
        version: its version.
        commit: its commit.
        deployedAt: when the event happened (UTC).
        deployedBy: who ran the deployment.
        previousVersion: version that was live before.
        previousRelease: release id that was live before.
        reason: for ``failed`` and ``rolled_back``: why.
    """

    deploymentId: str
    action: str
    status: str
    release: str
    version: str
    commit: str | None = None
    deployedAt: str = ""
    deployedBy: str | None = None
    previousVersion: str | None = None
    previousRelease: str | None = None
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The record as it stands in the journal: without the fields that say nothing."""
        return {name: value for name, value in asdict(self).items() if value is not None}


_KINDS = kinds(Record)


def read_records(journal: Path) -> list[Record]:
    """All records of a host, oldest first.

    A line that is no record (cut off by a power failure, or edited by hand) is passed over: what it was about to say
    did not happen.

    Args:
        journal: path of ``deployments.jsonl``; may be missing.
    """
    try:
        # Not splitlines: JSON leaves other separators of lines (U+2028, U+0085) in a string as they are.
        lines = journal.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return []
    records = []
    for line in lines:
        try:
            content = json.loads(line)
            record = Record(**{name: content[name] for name in content if name in _KINDS})
        except (ValueError, TypeError):
            continue
        if record.status in STATUSES and misfit(content, _KINDS) is None:
            records.append(record)
    return records


def cut_off(records: Sequence[Record]) -> Record | None:
    """The run of which nobody wrote down how it ended, if it is the last one: it is at work, or was killed.

    What is told after its start of runs that began before it, by a slow controller or by the timer of the host, is no
    later run.

    Args:
        records: of a host, oldest first.
    """
    later: set[str] = set()
    for position in reversed(range(len(records))):
        record = records[position]
        if record.status == STARTED:
            earlier = {before.deploymentId for before in records[:position]} - {record.deploymentId}
            return record if later <= earlier else None
        later.add(record.deploymentId)
    return None


def append_record(journal: Path, *records: Record) -> None:
    """Add a record, or several that belong together, and have it on disk before going on.

    Args:
        journal: path of ``deployments.jsonl``; made if missing.
        records: the events.

    Raises:
        OSError: the disk is full or the file cannot be written; the journal is as it was.
    """
    text = "".join(json.dumps(record.as_dict(), ensure_ascii=False) + "\n" for record in records)
    descriptor = os.open(journal, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            text = "\n" + text  # a run died in the middle of a line: keep it, but don't continue it
        try:
            left = memoryview(text.encode())
            while left:  # on a disk that is about to be full, a part is written and no error is told
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)  # nobody else writes: the lock of the deployment is held
            raise
    finally:
        os.close(descriptor)
