# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until an application is healthy, asked from a host or from the controller."""

from __future__ import annotations

from ansible_collections.roastify.ops.plugins.modules import health_gate
from ansible_collections.roastify.ops.plugins.plugin_utils.on_controller import OnController


class ActionModule(OnController):
    """Runs the module health_gate."""

    arguments = health_gate.ARGUMENTS
    answer = health_gate.wait
