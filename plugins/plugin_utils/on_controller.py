# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task asks of the controller itself is answered in the process that Ansible has for the task anyway.

As a module it would be packed, written down, and started as a program of its own, which takes a second of a small
controller's processor: more than looking at an artifact or asking three times for a health answer does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.plugins.action import ActionBase


class OnController(ActionBase):
    """An action that runs the module of its name, without a process of its own where that is on the controller.

    Attributes:
        arguments: the module's own, as AnsibleModule takes them.
        answer: does what the module does; takes its validated options, gives its result.
    """

    arguments: dict[str, Any]
    answer: Callable[[dict[str, Any]], dict[str, Any]]

    def is_here(self) -> bool:
        """Whether this process is where and as whom the task is to run."""
        return self._connection.transport == "local" and self._connection.become is None

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        if self.is_here():
            _validation, options = self.validate_argument_spec(**self.arguments)
            result.update(type(self).answer(options))
        else:
            result.update(self._execute_module(task_vars=task_vars))
        return result
