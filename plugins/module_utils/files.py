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
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

#: What a file that is about to replace another one has behind that one's name: see tempfile.mkstemp, link_atomically.
_TEMPORARY = re.compile(r"\.(?:[a-z0-9_]{8}|[0-9]+\.[0-9a-f]{8})$")

#: Of which types a field of an object may be, by its name.
Kinds = Mapping[str, tuple[type, ...]]
#: What annotations call the types that come out of JSON, and what people call them.
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "dict": (dict,),
    "list": (list,),
    "None": (type(None),),
}
_WORDS = {str: "text", int: "a number", float: "a number", bool: "true or false", dict: "an object", list: "a list"}


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


def kinds(record: type) -> Kinds:
    """The types of the fields of a dataclass, as its annotations name them.

    Args:
        record: in a module that postpones annotations: Python 3.9 could not evaluate ``str | None``.
    """
    named = {field.name: str(field.type).split(" | ") for field in fields(record)}
    return {name: sum((_TYPES[kind.split("[")[0]] for kind in words), ()) for name, words in named.items()}


def misfit(content: Mapping[str, Any], wanted: Kinds) -> str | None:
    """What in an object out of JSON is of another type than it should be; None if nothing is.

    Args:
        content: the object; what it lacks, or has beside, is no matter of types.
        wanted: the types.
    """
    for name, value in content.items():
        # Not isinstance: true is no number.
        if name in wanted and type(value) not in wanted[name]:
            expected = " or ".join(dict.fromkeys(_WORDS.get(kind, "null") for kind in wanted[name]))
            return f"{name} is {_WORDS.get(type(value), 'null')}, not {expected}"
    return None


def _parse(path: Path, wanted: Kinds) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"it is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"it is {_WORDS.get(type(content), 'null')}, not an object")
    problem = misfit(content, wanted)
    if problem:
        raise ValueError(problem)
    return content


def read_object(path: Path, wanted: Kinds) -> dict[str, Any] | None:
    """The object in a JSON file of this collection, which somebody may have edited since.

    Args:
        path: the file.
        wanted: the types of its fields.

    Returns:
        None if the file is missing, is not JSON, or is not such an object: `misfit_of` says why.
    """
    try:
        return _parse(path, wanted)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def misfit_of(path: Path, wanted: Kinds) -> str | None:
    """Why `read_object` does not take a file that is there, for people; None if it does.

    Args:
        path: the file; may be missing.
        wanted: the types of its fields.
    """
    try:
        _parse(path, wanted)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        return str(error)
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
