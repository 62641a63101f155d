# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backs a database up with pg_dump: written beside, checked, renamed, and old ones pruned.

A backup is called ``<database>-<UTC time>[-<label>].dump``. The name of the database is written so that no two
databases share one, and the time decides which backup is newer, never what the file system says.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import re
import shutil
import stat
import tempfile
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.roastify.ops.plugins.module_utils import postgresql_programs
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.files import exclusively, sync_directory
from ansible_collections.roastify.ops.plugins.module_utils.postgresql import ConnectionOptions

_UNFINISHED = ".unfinished"
_TIME = "%Y%m%dT%H%M%SZ"
_TIME_AND_LABEL = r"-([0-9]{8}T[0-9]{6}Z)(-[^/]*)?\.dump"

# With 63 bytes of a database's name, each of which may become three, the file's name stays below 255.
_LABEL_CHARACTERS = 40

# How much larger than the newest one the next backup may become.
_GROWTH = 1.2


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


def back_up(
    options: ConnectionOptions, directory: Path, keep: int, label: str | None = None, timeout: float | None = None
) -> Backup:
    """Write one backup and prune older ones of the same database.

    Args:
        options: the database; its password goes to pg_dump through the environment.
        directory: where backups are kept; made for its owner alone if it is missing.
        keep: how many backups of this database stay, the new one included.
        label: a word for the file's name, such as the id of a deployment.
        timeout: seconds that pg_dump may take; None for no limit.

    Raises:
        BackupError: pg_dump is missing, failed or took too long, its file cannot be read back, there is no room,
            or others may write to the directory.
    """
    if not options.database:
        raise BackupError("No database to back up is named.", "Name it (database, PG_DATABASE).")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_directory(directory)
        with _unfinished_file(directory, options.database) as (descriptor, unfinished):
            _check_room(directory, options.database)
            # A table that somebody holds exclusively must not stop a deployment for ever.
            postgresql_programs.run(
                options,
                ["pg_dump", "--format=custom", "--no-password", "--lock-wait-timeout=60s"],
                f"The backup of {options} failed",
                BackupError,
                timeout,
                descriptor,
            )
            entries = count_entries(read_contents(options, unfinished, BackupError))
            os.fsync(descriptor)
            size = os.fstat(descriptor).st_size
            with exclusively(directory):
                path = _free_name(directory, options.database, label)
                os.replace(unfinished, path)
                sync_directory(directory)
                removed = prune(directory, options.database, keep)
    except OSError as error:
        raise BackupError(
            f"No backup can be written to {directory}: {error.strerror}.",
            "Make room or correct the permissions there, or choose another directory.",
        ) from error
    return Backup(path, size, entries, removed)


def read_contents(options: ConnectionOptions, path: Path, error: type[OperationError]) -> str:
    """The table of contents of a backup, in the words of pg_restore --list.

    Args:
        options: whose secrets must not show in a failure.
        path: the backup.
        error: the kind of failure to raise.

    Raises:
        OperationError: pg_restore cannot read the file.
    """
    return postgresql_programs.run(
        options, ["pg_restore", "--list", str(path)], f"The backup {path} cannot be read", error
    )


def count_entries(contents: str) -> int:
    """How many tables, indexes, functions ... a table of contents holds."""
    return sum(1 for line in contents.splitlines() if line and not line.startswith(";"))


def check_directory(directory: Path) -> None:
    """Refuse a directory in which another user could exchange a backup, whose SQL a restore would run.

    Args:
        directory: an existing directory.

    Raises:
        BackupError: it belongs to another user, or everybody may write to it.
        OSError: it cannot be looked at.
    """
    status = directory.stat()
    if status.st_uid not in (0, os.geteuid()):
        raise BackupError(
            f"The directory {directory} belongs to another user (uid {status.st_uid}), who could exchange the backups.",
            f"Choose a directory of user {os.geteuid()} or of root.",
        )
    if status.st_mode & stat.S_IWOTH:
        raise BackupError(
            f"Everybody may write to the directory {directory}, and could exchange the backups.",
            f"Close it (chmod 0700 {directory}), or choose another one.",
        )


def of_database(directory: Path, database: str) -> list[Path]:
    """The backups of a database, oldest first by the time in their names.

    Args:
        directory: where they are kept.
        database: its name.

    Raises:
        OSError: the directory cannot be read.
    """
    pattern = re.compile(re.escape(_in_file_name(database)) + _TIME_AND_LABEL)
    return sorted(path for path in directory.iterdir() if pattern.fullmatch(path.name))


def time_of(backup: Path) -> datetime.datetime:
    """When a backup was made, from its name.

    Args:
        backup: one of of_database().
    """
    match = re.search(_TIME_AND_LABEL + "$", backup.name)
    if match is None:
        raise ValueError(f"{backup} is no name of a backup")
    return datetime.datetime.strptime(match.group(1), _TIME).replace(tzinfo=datetime.timezone.utc)


def prune(directory: Path, database: str, keep: int) -> tuple[Path, ...]:
    """Remove all but the newest backups of a database.

    Args:
        directory: where they are kept.
        database: its name.
        keep: how many stay; at least one does.

    Returns:
        What was removed, oldest first.
    """
    backups = of_database(directory, database)
    old = backups[: max(len(backups) - max(keep, 1), 0)]
    for path in old:
        path.unlink()
    return tuple(old)


@contextlib.contextmanager
def _unfinished_file(directory: Path, database: str) -> Iterator[tuple[int, Path]]:
    """A new file that is gone afterwards, unless it was renamed; what dead runs left goes away first."""
    prefix = f"{_in_file_name(database)}-"
    with exclusively(directory):
        for stale in directory.glob(f"{prefix}*{_UNFINISHED}"):
            _remove_unless_locked(stale)
        # O_EXCL and mode 0600: neither a link that somebody put there nor another reader.
        descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=_UNFINISHED, dir=directory)
        # pg_dump inherits the lock with its output, so that it lasts until the last writer is gone.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield descriptor, Path(name)
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(name)


def _remove_unless_locked(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except OSError:
        pass  # of a run that goes on
    finally:
        os.close(descriptor)


def _check_room(directory: Path, database: str) -> None:
    backups = of_database(directory, database)
    if not backups:
        return
    needed = int(backups[-1].stat().st_size * _GROWTH)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise BackupError(
            f"There is no room for a backup in {directory}: {free >> 20} MiB are free, and with the size of "
            f"{backups[-1].name} it may take {needed >> 20} MiB.",
            "Make room there, keep fewer backups, or choose another directory.",
        )


def _free_name(directory: Path, database: str, label: str | None) -> Path:
    """A name that sorts behind those of all other backups; the caller keeps others out of the directory."""
    time = datetime.datetime.now(datetime.timezone.utc)
    backups = of_database(directory, database)
    if backups:
        # Two in one second, or a clock that was set back.
        time = max(time, time_of(backups[-1]) + datetime.timedelta(seconds=1))
    words = [_in_file_name(database), time.strftime(_TIME)]
    if label:
        words.append(re.sub(r"[^A-Za-z0-9_.-]+", "_", label)[:_LABEL_CHARACTERS])
    return directory / ("-".join(words) + ".dump")


def _in_file_name(database: str) -> str:
    """The name of a database, other than that of every other one and without the dash that ends it."""
    quoted = urllib.parse.quote(database, safe="").replace("-", "%2D")
    return "%2E" + quoted[1:] if quoted.startswith(".") else quoted
