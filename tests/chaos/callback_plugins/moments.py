# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Knows the boundaries between the tasks of a run: the run can be killed there, or something be done there.

DRILL_TASKS        a file that gets the name of each task as it begins: the boundaries are their numbers, from 1
DRILL_KILL_AT      the number of the task whose beginning is the end of the run and of all that it has started
DRILL_KILL_DELAY   seconds from there, to end it in the middle of the task
DRILL_MOMENT       part of the name of a task before which the run waits until ...
DRILL_DO           ... this shell command has ended
DRILL_OCCURRENCE   which of several tasks of such a name, from 1
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from typing import Any

from ansible.plugins.callback import CallbackBase
from demo import descendants

DOCUMENTATION = """
name: moments
type: notification
short_description: Kills the run at a boundary between two tasks, or does something there
description: For drills.
"""


class CallbackModule(CallbackBase):
    """Counts tasks."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "moments"

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.number = 0
        self.last = int(os.environ.get("DRILL_KILL_AT", "0"))
        self.delay = float(os.environ.get("DRILL_KILL_DELAY", "0"))
        self.moment = os.environ.get("DRILL_MOMENT")
        self.missing = int(os.environ.get("DRILL_OCCURRENCE", "1"))

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self.number += 1
        if "DRILL_TASKS" in os.environ:
            with open(os.environ["DRILL_TASKS"], "a", encoding="utf-8") as stream:
                stream.write(f"{task.get_name().strip()}\n")
        if self.moment and self.moment in task.get_name():
            self.missing -= 1
            if self.missing == 0:
                subprocess.run(os.environ["DRILL_DO"], shell=True, stdin=subprocess.DEVNULL, check=False)
        if self.number == self.last:
            if self.delay:
                threading.Timer(self.delay, self.die).start()
            else:
                self.die()

    @staticmethod
    def die() -> None:
        """Like kill -9 of the session, or the end of the machine; nothing can clear up."""
        for process in (*descendants(os.getpid()), os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
