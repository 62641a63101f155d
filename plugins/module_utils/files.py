# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are either the old or the new one, whatever happens in between."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

#: What a file that is about to replace another one has behind that one's name: see tempfile.mkstemp, link_atomically.
_TEMPORARY = re.compile(r"\.(?:[a-z0-9_]{8}|[0-9]+\.[0-9a-f]{8})$")


def sync_directory(directory: Path) -> None:
    """Make renames and new names in a directory survive a power cut.

    Args:
        directory: the directory whose entries changed.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _replacing(path: Path, temporary: str) -> Iterator[None]:
    """Give a finished temporary file or link the name of another one; on any failure take it away again."""
    try:
        yield
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_directory(path.parent)


def write_atomically(path: Path, content: str | bytes, mode: int = 0o644, uid: int = -1, gid: int = -1) -> None:
    """Replace a file by rename(2), so that no reader ever sees half of it.

    Args:
        path: the file; its directory must exist.
        content: the whole new one; text becomes UTF-8.
        mode: permission bits of the new file; until it is complete, nobody but its maker may read it.
        uid: its owner; -1 for whoever runs this.
        gid: its group; -1 for that of whoever runs this.

    Raises:
        OSError: nothing was replaced; or the file system failed after that, so that a power cut may undo it.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with _replacing(path, temporary), os.fdopen(descriptor, "wb") as stream:
        stream.write(content.encode("utf-8") if isinstance(content, str) else content)
        os.fchown(stream.fileno(), uid, gid)
        os.fchmod(stream.fileno(), mode)
        stream.flush()
        os.fsync(stream.fileno())


def link_atomically(path: Path, target: str) -> None:
    """Point a symbolic link elsewhere by rename(2): there is no moment without it.

    Args:
        path: the link; must be a link or missing.
        target: what it points to from then on.

    Raises:
        OSError: the link points where it did; or it was renamed, and a power cut may undo that.
    """
    # A name of this process alone: a link left by a killed run can never be followed or renamed by us.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    with _replacing(path, str(temporary)):
        os.symlink(target, temporary)


def remove_temporary(path: Path) -> None:
    """Take away what a killed process left of a file or link that it was about to replace.

    Args:
        path: the file or link; its name may be a pattern, for instance ``*.json``. No other process may be replacing
            it now.
    """
    for temporary in path.parent.glob(f".{path.name}.*"):
        if _TEMPORARY.search(temporary.name):
            temporary.unlink(missing_ok=True)


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading that somebody else may have put there: what is none, a pipe for instance, would hang.

    Args:
        path: the file; links are followed.

    Raises:
        OSError: it is no regular file, or cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Args:
        path: the file.

    Returns:
        The parsed content, or None if the file is missing or isn't JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


@contextlib.contextmanager
def exclusively(directory: Path) -> Iterator[None]:
    """Keep other processes that ask the same way out of a directory.

    The kernel gives the lock back when this process ends, however it ends.

    Args:
        directory: an existing directory.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
