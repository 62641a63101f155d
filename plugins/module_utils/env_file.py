# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Installs a .env file: atomically, owned and readable by the application alone, with a masked diff."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.roastify.ops.plugins.module_utils import dotenv
from ansible_collections.roastify.ops.plugins.module_utils.files import write_atomically

#: Permission bits of a directory that is made for a file.
_DIRECTORY = 0o750


class EnvFileError(Exception):
    """The file cannot be installed; the message says why and what to do."""


@dataclass
class Plan:
    """What installing would change. Names only: no value leaves this module."""

    exists: bool = False
    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    content: bool = False
    owner: bool = False
    mode: bool = False

    @property
    def any(self) -> bool:
        return self.content or self.owner or self.mode


def _current(path: Path) -> tuple[str | None, os.stat_result | None]:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None, None
    except OSError as error:
        raise EnvFileError(f"{path} cannot be examined: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a regular file"
        raise EnvFileError(f"{path} is {kind}: move it away, since replacing it could change a file elsewhere")
    try:
        return dotenv.decode(path.read_bytes()), status
    except OSError as error:
        raise EnvFileError(f"{path} cannot be read: {error.strerror}") from error


def plan(path: Path, content: str, uid: int | None, gid: int | None, mode: int, previous: Path | None = None) -> Plan:
    """Compares a file with what it should be.

    Args:
        path: the file.
        content: what is to be in it.
        uid: its owner; None leaves it as it is.
        gid: its group; None leaves it as it is.
        mode: its permission bits.
        previous: the file that is in use now, which the names are compared with while `path` is missing.

    Raises:
        EnvFileError: something else is in the place of the file, or it cannot be read.
    """
    text, status = _current(path)
    old = variables_in(path if text is not None or previous is None else previous)
    new = dotenv.to_mapping(dotenv.parse(content))
    result = Plan(
        exists=text is not None,
        added=[name for name in new if name not in old],
        changed=[name for name in new if name in old and old[name] != new[name]],
        removed=[name for name in old if name not in new],
        content=text != content,
    )
    if status is not None:
        result.mode = stat.S_IMODE(status.st_mode) != mode
        result.owner = (uid is not None and uid != status.st_uid) or (gid is not None and gid != status.st_gid)
    return result


def variables_in(path: Path) -> dict[str, str]:
    """What the application would read from a file; nothing from a missing one.

    Raises:
        EnvFileError: it cannot be read.
    """
    try:
        return dotenv.to_mapping(dotenv.parse(dotenv.decode(path.read_bytes())))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise EnvFileError(f"{path} cannot be read: {error.strerror}") from error


def fingerprint(path: Path) -> str | None:
    """SHA-256 of what the application would read from a file, whatever its quotes and comments; None if it is missing.

    Raises:
        EnvFileError: it cannot be read.
    """
    if not path.exists():
        return None
    return hashlib.sha256(json.dumps(sorted(variables_in(path).items())).encode()).hexdigest()


def alike(directory: Path, content: str) -> list[str]:
    """Names of the .env files of a directory from which the application would read the same.

    Args:
        directory: where environments are kept, one for each release; may be missing.
        content: the text to compare with.

    Raises:
        EnvFileError: one of them cannot be read.
    """
    wanted = dotenv.to_mapping(dotenv.parse(content))
    files = sorted(directory.glob("*.env")) if directory.is_dir() else []
    return [path.name for path in files if path.is_file() and variables_in(path) == wanted]


def install(path: Path, content: str, uid: int | None, gid: int | None, mode: int) -> None:
    """Puts the file in place in one step: readers see the old one or the new one, whole."""
    _make_directory(path.parent, uid, gid)
    status = _current(path)[1]
    uid = uid if uid is not None else (status.st_uid if status else -1)
    gid = gid if gid is not None else (status.st_gid if status else -1)
    try:
        write_atomically(path, content, mode, uid, gid)
    except OSError as error:
        raise EnvFileError(
            f"{path} cannot be written: {error.strerror}. The file that was there is unchanged."
        ) from error


def _make_directory(directory: Path, uid: int | None, gid: int | None) -> None:
    try:
        if directory.is_dir():
            if not _was_left_closed(directory, uid):
                return
        else:
            directory.parent.mkdir(parents=True, exist_ok=True)
            directory.mkdir(mode=_DIRECTORY)
        os.chmod(directory, _DIRECTORY)  # the umask may be a strict one
        os.chown(directory, -1 if uid is None else uid, -1 if gid is None else gid)
    except OSError as error:
        raise EnvFileError(f"the directory {directory} cannot be made: {error.strerror}") from error


def _was_left_closed(directory: Path, uid: int | None) -> bool:
    """Whether a run that was killed made a directory, and could not hand it to the owner of the file any more.

    It is told by what only such a one is: ours and our group's, empty, and closed to the owner of what it is to hold.
    """
    status = os.stat(directory)
    is_ours = (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())
    is_closed = uid not in (None, status.st_uid) and not status.st_mode & ~_DIRECTORY & 0o777
    return is_ours and is_closed and not os.listdir(directory)


def masked_diff(path: Path, planned: Plan, content: str) -> dict[str, str]:
    """Before and after for Ansible's diff: every name, and whether its value changes, never a value."""
    kept = "(unchanged)"
    new = list(dotenv.to_mapping(dotenv.parse(content)))
    old_lines, new_lines = [], []
    for name in [*new, *planned.removed]:
        if name in planned.added:
            new_lines.append(f"{name}=(new)")
        elif name in planned.removed:
            old_lines.append(f"{name}=(removed)")
        elif name in planned.changed:
            old_lines.append(f"{name}=(old value)")
            new_lines.append(f"{name}=(new value)")
        else:
            old_lines.append(f"{name}={kept}")
            new_lines.append(f"{name}={kept}")
    if planned.owner:
        old_lines.append("# owner: differs")
        new_lines.append("# owner: as wanted")
    if planned.mode:
        old_lines.append("# mode: differs")
        new_lines.append("# mode: as wanted")
    header = f"{path} (values are not shown)"
    return {
        "before_header": header,
        "after_header": header,
        "before": "".join(f"{line}\n" for line in old_lines),
        "after": "".join(f"{line}\n" for line in new_lines),
    }
