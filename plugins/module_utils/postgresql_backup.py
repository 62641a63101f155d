# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backs a database up with pg_dump: written beside, checked, renamed, and old ones pruned."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.files import sync_directory
from ansible_collections.roastify.ops.plugins.module_utils.postgresql import ConnectionOptions

_UNFINISHED = ".unfinished"


class BackupError(OperationError):
    """There is no backup; the earlier ones are untouched."""


@dataclass(frozen=True)
class Backup:
    """A backup that pg_restore can read.

    Attributes:
        path: the file, in pg_dump's custom format.
        size: its size in bytes.
        entries: how many tables, indexes, functions ... it holds.
        removed: older backups that made room for it.
    """

    path: Path
    size: int
    entries: int
    removed: tuple[Path, ...]


def back_up(options: ConnectionOptions, directory: Path, keep: int, label: str | None = None) -> Backup:
    """Write one backup and prune older ones of the same database.

    Args:
        options: the database; its password goes to pg_dump through the environment.
        directory: where backups are kept; made for its owner alone if it is missing.
        keep: how many backups of this database stay, the new one included.
        label: a word for the file's name, such as the id of a deployment.

    Raises:
        BackupError: pg_dump is missing or failed, or its file cannot be read back.
    """
    database = _plain(options.database or "postgres")
    time = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    name = "-".join([database, time, *([_plain(label)] if label else [])]) + ".dump"
    target = directory / name
    unfinished = directory / (name + _UNFINISHED)
    previous_mask = os.umask(0o077)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for stale in directory.glob(f"{database}-*{_UNFINISHED}"):
            stale.unlink()
        # A table that somebody holds exclusively must not stop a deployment for ever.
        _run(
            options,
            ["pg_dump", "--format=custom", "--no-password", "--lock-wait-timeout=60s", f"--file={unfinished}"],
            f"The backup of {options} failed",
        )
        listing = _run(
            options, ["pg_restore", "--list", str(unfinished)], f"The backup {unfinished} cannot be read back"
        )
        descriptor = os.open(unfinished, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(unfinished, target)
        sync_directory(directory)
    except OSError as error:
        raise BackupError(
            f"No backup can be written to {directory}: {error.strerror}.",
            "Make room or correct the permissions there, or choose another directory.",
        ) from error
    finally:
        os.umask(previous_mask)
        with contextlib.suppress(OSError):
            unfinished.unlink()
    entries = sum(1 for line in listing.splitlines() if line and not line.startswith(";"))
    return Backup(target, target.stat().st_size, entries, prune(directory, database, keep))


def prune(directory: Path, database: str, keep: int) -> tuple[Path, ...]:
    """Remove all but the newest backups of a database."""
    pattern = re.compile(re.escape(database) + r"-[0-9]{8}T[0-9]{6}Z(-[^/]*)?\.dump")
    # The time comes right behind the name, so that names sort as times do.
    backups = sorted(path for path in directory.iterdir() if pattern.fullmatch(path.name))
    old = backups[: max(len(backups) - max(keep, 1), 0)]
    for path in old:
        path.unlink()
    return tuple(old)


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "_", text)


def _run(options: ConnectionOptions, command: Sequence[str], what: str) -> str:
    environment = {**os.environ, "LC_ALL": "C", **options.environment()}
    try:
        result = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError:
        raise BackupError(
            f"{what}: there is no program {command[0]} on this host.",
            "Install the PostgreSQL client in the server's major version or newer.",
        ) from None
    if result.returncode == 0:
        return result.stdout
    reason = options.scrub(result.stderr).strip().splitlines()
    remedy = "Correct what pg_dump complains about, then run again; nothing was migrated."
    if any("version mismatch" in line for line in reason):
        remedy = "Install the PostgreSQL client in the server's major version or newer."
    elif any("permission denied" in line for line in reason):
        remedy = "Back up with a role that may read every table (GRANT pg_read_all_data), or let it own them."
    raise BackupError(f"{what} (exit status {result.returncode}).", remedy, reason[-10:])
