# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules of the release engine are told about the application, and what they make of it.

The options are documented once, in the documentation fragments ``application`` and ``service``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils.pm2 import Pm2
from ansible_collections.roastify.ops.plugins.module_utils.releases import Host
from ansible_collections.roastify.ops.plugins.module_utils.switching import CANDIDATE_UPTIME, Service


def application_arguments() -> dict[str, Any]:
    """Options that name the application on a host."""
    return {
        "name": {"type": "str", "required": True},
        "root": {"type": "path", "required": True},
        "user": {"type": "str", "required": True},
        "configuration": {"type": "path", "required": True},
    }


def service_arguments() -> dict[str, Any]:
    """Options that say how the application serves and when it is healthy."""
    return {
        "port": {"type": "int", "required": True},
        "candidate_port": {"type": "int", "required": True},
        "health_path": {"type": "str", "default": "/health"},
        "healthy_threshold": {"type": "int", "default": 3},
        "interval": {"type": "float", "default": 0.1},
        "patience": {"type": "float", "default": 60.0},
        "verify_version": {"type": "bool", "default": True},
        "candidate_uptime": {"type": "float", "default": CANDIDATE_UPTIME},
    }


def host_of(options: Mapping[str, Any]) -> Host:
    """The directory tree that the options name."""
    return Host(options["root"])


def pm2_of(options: Mapping[str, Any]) -> Pm2:
    """The PM2 daemon that the options name.

    Raises:
        OperationError: PM2 was not set up for this application.
    """
    return Pm2(options["name"], options["user"], options["configuration"])


def service_of(options: Mapping[str, Any]) -> Service:
    """How the application serves, by the options."""
    return Service(
        port=options["port"],
        candidate_port=options["candidate_port"],
        health_path=options["health_path"],
        wanted=options["healthy_threshold"],
        interval=options["interval"],
        patience=options["patience"],
        verify_version=options["verify_version"],
        candidate_uptime=options["candidate_uptime"],
    )
