# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One deployment at a time on a host, and none that outlives its lease.

``.deploy.lock`` says who deploys, from where, since when and until when. A lease that ran out, or whose holder is
known to be dead, is taken over, and said so. Whoever lost the lock can't switch any more: every switching step
checks that the lock is still its own.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils import reserve
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.files import (
    exclusively,
    read_object,
    write_atomically,
)
from ansible_collections.roastify.ops.plugins.module_utils.releases import LOCK_KINDS, TAKEN_OVER, Host

#: Seconds that a lease lasts without being renewed; every step of a deployment renews it.
LEASE = 900
#: What to do about a deployment that holds the lock. Only whoever deploys or rolls back looks whether it is alive.
TAKE_OVER = (
    "wait for it; if it is dead, deploy or roll back again: on the controller that it ran on that takes over at once, "
    "elsewhere when its lease ends"
)


class LockHeld(OperationError):
    """Another deployment is at work.

    Args:
        lock: content of its lock file.
        now: seconds since 1970, by the clock of the host.
    """

    def __init__(self, lock: Mapping[str, Any], now: float) -> None:
        remaining = max(int(lock.get("expires", 0) - now), 0)
        super().__init__(
            f"deployment {lock.get('deploymentId')} of {lock.get('holder')} from {lock.get('origin')} is at work "
            f"here since {lock.get('since')}",
            f"{TAKE_OVER}, in {remaining} s",
        )
        self.lock = dict(lock)


def read_lock(host: Host) -> dict[str, Any] | None:
    """The lock as it is, expired or not; None if nobody holds it, or the file does not say who."""
    return read_object(host.lock, LOCK_KINDS)


def is_leased(lock: Mapping[str, Any], now: float) -> bool:
    """Whether the lease of a lock lasts still.

    Where the clock of the host was set back since, it would last for longer by as much. By one more lease it may, so
    that nobody loses the lock whose clock was put right while he is at work. What lasts for longer still was taken
    before the clock was set back, by somebody who has done nothing since: each step renews it.

    Args:
        lock: its content.
        now: seconds since 1970, by the clock of the host, which has written the lock.
    """
    return bool(0 < lock.get("expires", 0) - now <= 2 * lock.get("lease", LEASE))


def require_free(host: Host, deployment: str, take_over: str | None = None) -> dict[str, Any] | None:
    """See that a deployment may take the lock.

    Args:
        host: where.
        deployment: id of the deployment that wants it.
        take_over: id of a deployment that is known to be dead.

    Returns:
        The lock of another deployment that would be taken over, if there is one.

    Raises:
        LockHeld: a living deployment holds it.
    """
    present = read_lock(host)
    if present is None or present.get("deploymentId") == deployment:
        return None
    now = time.time()
    if is_leased(present, now) and present.get("deploymentId") != take_over:
        raise LockHeld(present, now)
    return present


def require_unchanged(host: Host, expected: str | None) -> None:
    """See that nobody has switched this host since a deployment looked at it.

    Between its look and its lock there may be a build of minutes. What it decided by then (whether its release is live,
    what a failure returns to, what a rollback goes to) holds only for what was live. Nobody asks that where the lock of
    a dead one is taken over: what its last step has switched meanwhile is not confirmed, and what was before it is what
    to return to.

    Args:
        host: where.
        expected: id of the release that was live, empty for none; None if nobody has looked.

    Raises:
        OperationError: another release is live.
    """
    live = host.live()
    found = live.id if live else ""
    if expected is not None and found != expected:
        raise OperationError(
            f"{found or 'nothing'} is live on this host, and {expected or 'nothing'} was when this deployment looked: "
            "another one has switched it in between",
            "nothing was changed; see what it brought (playbooks/history.yml), then run the same command again",
        )


def acquire(
    host: Host,
    deployment: str,
    facts: Mapping[str, Any],
    take_over: str | None = None,
    lease: int = LEASE,
    expected_live: str | None = None,
    back: bool = False,
) -> dict[str, Any] | None:
    """Take or renew the lock; whoever takes it sets room aside for the way back.

    Args:
        host: where.
        deployment: id of the deployment that wants it.
        facts: holder, origin, since and whatever else tells people who it is.
        take_over: id of a deployment that is known to be dead.
        lease: seconds.
        expected_live: as in `require_unchanged`.
        back: whether it is for a way back, which is gone without room for it, too: what little it writes may fit.

    Returns:
        The lock that was taken over, if there was one.

    Raises:
        LockHeld: a living deployment holds it; nothing was changed.
        OperationError: another release is live than expected; nothing was changed.
        OSError: the disk is full; nothing was changed.
    """
    with exclusively(host.root):
        lost = require_free(host, deployment, take_over)
        if lost is None:
            require_unchanged(host, expected_live)
        present = read_lock(host) or {}
        if present.get("deploymentId") != deployment:
            (reserve.restore if back else reserve.hold)(host.root)
        content = {**facts, "deploymentId": deployment, "lease": lease, "expires": int(time.time()) + lease}
        # Should this one be killed, too, it is still to be seen that they came to no end.
        dead = [*present.get(TAKEN_OVER, []), *([lost["deploymentId"]] if lost and "deploymentId" in lost else [])]
        if dead:
            content[TAKEN_OVER] = dead
        _write(host, content)
        return lost


def hold(host: Host, deployment: str | None, back_to: str | None = None) -> None:
    """See that the lock is still ours, and renew it for as long as it was taken.

    Args:
        host: where.
        deployment: our id; None skips the check, for use of the modules without a lock.
        back_to: id of the release that this host is to return to. Its own timer may have brought it back a moment ago,
            which gives the lock up: then there is nothing that a lock would be needed for.

    Raises:
        OperationError: another deployment took the lock over; ours must not go on.
    """
    if deployment is None:
        return
    with exclusively(host.root):
        present = read_lock(host)
        if present is None and back_to is not None and (live := host.live()) is not None and live.id == back_to:
            return
        if present is None or present.get("deploymentId") != deployment:
            taker = f"deployment {present.get('deploymentId')} has it now" if present else "nobody has it now"
            raise OperationError(
                f"this deployment ({deployment}) lost the lock of this host: {taker}",
                "nothing was switched; see what the other deployment did (playbooks/status.yml) and deploy again",
            )
        present["expires"] = int(time.time()) + int(present.get("lease", LEASE))
        _write(host, present)


def release(host: Host, deployment: str) -> bool:
    """Give the lock back if it is ours.

    Returns:
        Whether it was.
    """
    with exclusively(host.root):
        present = read_lock(host)
        if present is None or present.get("deploymentId") != deployment:
            return False
        os.unlink(host.lock)
        reserve.restore(host.root)
        return True


def _write(host: Host, lock: Mapping[str, Any]) -> None:
    # A deployment on a disk that is full by now must be able to return.
    text = json.dumps(lock, indent=2) + "\n"
    reserve.spending(host.root, lambda: write_atomically(host.lock, text))
