# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""See what is deployed on a host, how far its clock is away from the controller's, and whether its lock will be had.

Only here it is known when the host was asked and when it answered (a task behind this one waits for the slowest host),
and whether a holder of the lock that was at work on this machine still is.
"""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.roastify.ops.plugins.module_utils import controllers, deploy_locks


class ActionModule(ActionBase):
    """Runs the module release_info, and adds what the controller sees."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        asked = time.time()
        result.update(self._execute_module(module_args=self._task.args, task_vars=task_vars))
        if "clock" in result:
            result["clock_skew"] = controllers.clock_skew(result["clock"], asked, time.time())
            lock = result.get("lock") or {}
            alive = deploy_locks.is_leased(lock, result["clock"]) and not controllers.is_dead(
                lock.get("controller") or {}
            )
            result["lock_problem"] = str(deploy_locks.LockHeld(lock, result["clock"])) if alive else None
        return result
