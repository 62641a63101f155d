# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take the deployment lock; a holder that died on this very controller loses it at once.

Only the controller can know that: the host sees who holds the lock, the controller sees whether that process lives.
"""

from __future__ import annotations

import os
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.roastify.ops.plugins.module_utils import controllers


class ActionModule(ActionBase):
    """Runs the module deploy_lock, a second time if the holder turns out to be dead."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        # Tasks run in children of ansible-playbook: the parent is the process that the deployment lives and dies with.
        arguments = {**self._task.args, "controller": controllers.describe(os.getppid())}
        outcome = self._execute_module(module_args=arguments, task_vars=task_vars)
        lock = outcome.get("lock")
        if outcome.get("failed") and lock and controllers.is_dead(lock.get("controller") or {}):
            arguments["take_over"] = lock["deploymentId"]
            outcome = self._execute_module(module_args=arguments, task_vars=task_vars)
        taken = outcome.get("taken_over")
        if taken:
            self._display.warning(
                f"{(task_vars or {}).get('inventory_hostname')}: took over the lock of deployment "
                f"{taken.get('deploymentId')} of {taken.get('holder')}, which did not end"
            )
        result.update(outcome)
        return result
