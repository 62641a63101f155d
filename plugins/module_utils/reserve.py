# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Room on the disk for the way back: what a return has to write must fit, even if the disk is full by then.

Whoever takes the lock sets it aside, in ``.reserve``; a return and a failure that is recorded give it free. It is one
inode, too. It stays between deployments: what is deployed may fill the disk long after, and a rollback has to be
possible then.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

#: Bytes. A return writes the lock, the states of two releases and a record or two, each a block of 4 KiB at most; the
#: rest is for what the application logs beside it.
SIZE = 1024 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT)


def _file(root: Path) -> Path:
    return root / ".reserve"


def hold(root: Path) -> None:
    """Set the room aside, unless it is already.

    Args:
        root: of the application, for instance ``/srv/<app>``.

    Raises:
        OSError: there is no such room; nothing is left of the attempt.
    """
    path = _file(root)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        # Unlike a file with a hole it has its blocks.
        os.posix_fallocate(descriptor, 0, SIZE)
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(descriptor)


def restore(root: Path) -> None:
    """Set the room aside again once nobody needs it, if there is any.

    Args:
        root: of the application.
    """
    with contextlib.suppress(OSError):
        hold(root)


def give(root: Path) -> bool:
    """Give the room free.

    Args:
        root: of the application.

    Returns:
        Whether there was any.
    """
    with contextlib.suppress(FileNotFoundError):
        _file(root).unlink()
        return True
    return False


def spending(root: Path, write: Callable[[], Result]) -> Result:
    """Write something; if the disk is full, in the room that was set aside.

    Args:
        root: of the application.
        write: what to do; it is done again after it has failed for want of room.

    Raises:
        OSError: it failed, and not for want of room, or with this room as well.
    """
    try:
        return write()
    except OSError as error:
        if error.errno not in _FULL or not give(root):
            raise
        return write()
