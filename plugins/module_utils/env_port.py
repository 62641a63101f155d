# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether an application listens where a deployment asks it for its health."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils.env_report import ERROR, Problem
from ansible_collections.roastify.ops.plugins.module_utils.env_types import text_of

#: The variable that names the port; a candidate gets another port in it (switching.py).
PORT = "PORT"


def port_problems(variables: Mapping[str, Any], rules: Mapping[str, Any], environment: str, port: int) -> list[Problem]:
    """One problem if the application would listen on another port, else none.

    Args:
        variables: names and values, as an inventory holds them.
        rules: what the schema says of the variable PORT; empty if it does not know it.
        environment: name of the environment whose stricter rules hold, or empty.
        port: TCP port on which the deployment asks the application for its health.
    """
    override = (rules.get("environments") or {}).get(environment) or {}
    default = override.get("default", rules.get("default"))
    value = variables.get(PORT)
    wanted = value if value is not None else default
    text = "" if wanted is None else text_of(wanted).strip()
    # What is no number is told by the type of the variable.
    if not (text.isascii() and text.isdigit()) or int(text) == port:
        return []
    is_set = f"{PORT} is {text}" if value is not None else f"{PORT} is not set, and {text} by default"
    return [
        Problem(
            ERROR,
            "other_port",
            PORT,
            f"{is_set}, but a deployment asks the application for its health at port {port}.",
            f"Set {PORT} to {port}, or the port of the deployment (app_port, which is app_release_port) to {text}.",
            found=text,
        )
    ]
