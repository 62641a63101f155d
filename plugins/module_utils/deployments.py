# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of deployments on a host, and what follows from it.

``deployments.jsonl`` is append-only: one JSON object a line, each an event of one deployment. What a release
is (live before, failed, rolled back) is read from these records, never from times or names of directories.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

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


_FIELDS = set(Record.__dataclass_fields__)


def read_records(journal: Path) -> list[Record]:
    """All records of a host, oldest first.

    A line that is no record (cut off by a power failure) is passed over: what it was about to say did not happen.

    Args:
        journal: path of ``deployments.jsonl``; may be missing.
    """
    try:
        lines = journal.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    records = []
    for line in lines:
        try:
            content = json.loads(line)
            records.append(Record(**{name: content[name] for name in content if name in _FIELDS}))
        except (ValueError, TypeError):
            continue
    return records


def append_record(journal: Path, record: Record) -> None:
    """Add one record and have it on disk before going on.

    Args:
        journal: path of ``deployments.jsonl``; made if missing.
        record: the event.

    Raises:
        OSError: the disk is full or the file cannot be written.
    """
    line = json.dumps(record.as_dict(), ensure_ascii=False) + "\n"
    descriptor = os.open(journal, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = "\n" + line  # a run died in the middle of a line: keep it, but don't continue it
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def state_of(release: str, records: Iterable[Record]) -> str:
    """What the journal says of a release: the status of its newest event, or ``staged`` without any."""
    state = "staged"
    for record in records:
        if record.release == release:
            state = record.status
    return state


def ever_live(records: Iterable[Record]) -> set[str]:
    """Releases that once served: each was recorded as succeeded, or as the one before another."""
    live: set[str] = set()
    for record in records:
        if record.status == SUCCEEDED:
            live.add(record.release)
        if record.previousRelease:
            live.add(record.previousRelease)
    return live


def leads_back(left: str, target: str, records: Iterable[Record]) -> bool:
    """Whether a rollback from one release to another goes back to what was live before it, and not forth again.

    Args:
        left: the release that is left.
        target: the release that is returned to.
        records: the journal.
    """
    before = {
        record.release: record.previousRelease
        for record in records
        if record.action == DEPLOY and record.previousRelease
    }
    seen: set[str] = set()
    position: str | None = left
    while position is not None and position not in seen:
        seen.add(position)
        position = before.get(position)
        if position == target:
            return True
    return False


def _is_bad(release: str, records: Iterable[Record]) -> bool:
    """Whether a release failed, or was rolled back from, and has not served well since.

    A rollback *to* it that failed says nothing of it: the reason may have been the database.
    """
    bad = False
    for record in records:
        if record.release != release:
            continue
        if record.status == SUCCEEDED:
            bad = False
        elif record.status == ROLLED_BACK or (record.status == FAILED and record.action == DEPLOY):
            bad = True
    return bad


def previous_release(current: str | None, kept: Iterable[str], records: list[Record]) -> str | None:
    """The release that a rollback without an argument returns to.

    It is the one that served before the live one was deployed. A release that was itself rolled back or failed
    is passed over, so that a second rollback goes further back and not forth to what was bad.

    Args:
        current: live release id.
        kept: release ids that are complete on this host.
        records: the journal, oldest first.

    Returns:
        A release id, or None if there is none to return to.
    """
    present = set(kept)
    seen = {current}
    position = current
    while position is not None:
        before = None
        for record in records:
            if record.release == position and record.action == DEPLOY and record.previousRelease:
                before = record.previousRelease
        if before is None or before in seen:
            return None
        if before in present and not _is_bad(before, records):
            return before
        seen.add(before)
        position = before
    return None
