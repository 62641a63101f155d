# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build an application, or verify what was built."""

from __future__ import annotations

from ansible_collections.roastify.ops.plugins.modules import app_artifact
from ansible_collections.roastify.ops.plugins.plugin_utils.on_controller import OnController


class ActionModule(OnController):
    """Runs the module app_artifact."""

    arguments = app_artifact.ARGUMENTS
    answer = app_artifact.examine

    def is_here(self) -> bool:
        # A build takes minutes and writes; it stays a program of its own.
        return super().is_here() and bool(self._task.args.get("artifact")) and "source" not in self._task.args
