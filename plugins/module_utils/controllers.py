# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who deploys from where: enough to tell later, on the same machine, whether that process is still alive; and when."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def describe(process: int) -> dict[str, Any]:
    """A process of this machine, described so that no other process can be taken for it.

    Args:
        process: its id.
    """
    return {"name": socket.gethostname(), "machine": _machine(), "pid": process, "started": _started(process)}


def is_dead(controller: Mapping[str, Any]) -> bool:
    """Whether a described process is known to have ended.

    Args:
        controller: what ``describe`` gave, maybe on another machine.

    Returns:
        True only for a process of this machine that is gone; of others nothing is known.
    """
    machine = _machine()
    process = controller.get("pid")
    if not machine or controller.get("machine") != machine or not isinstance(process, int):
        return False
    return _started(process) != controller.get("started")


def clock_skew(clock: float, asked: float, answered: float) -> float:
    """How far the clock of a host is away from this machine's, in seconds, as far as that is beyond doubt.

    Args:
        clock: what it said, in seconds since 1970.
        asked: when it was asked, by the clock of this machine.
        answered: when its answer was here.
    """
    return max(asked - clock, clock - answered, 0.0)


def _machine() -> str:
    """This boot of this machine; containers have a kernel in common, so that the name counts too."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
    return f"{socket.gethostname()} {os.stat('/').st_ino} {boot}"


def _started(process: int) -> str | None:
    """When a process started, in clock ticks since boot: process ids come back, pairs of both do not."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = status.rpartition(")")[2].split()
    # A zombie: it has ended, and nobody has waited for it.
    return None if fields[0] == "Z" else fields[19]
