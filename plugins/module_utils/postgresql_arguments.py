# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the PostgreSQL modules are told about their database, and what they make of it.

The options are documented once, in the documentation fragment ``postgresql``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils import postgresql
from ansible_collections.roastify.ops.plugins.module_utils.migration_plan import Step
from ansible_collections.roastify.ops.plugins.module_utils.postgresql import ConnectionOptions


def postgresql_arguments() -> dict[str, Any]:
    """Options that name the database."""
    return {
        "env_file": {"type": "path"},
        "host": {"type": "str"},
        "port": {"type": "int"},
        "database": {"type": "str"},
        "user": {"type": "str"},
        "password": {"type": "str", "no_log": True},
        "ssl_mode": {"type": "str", "choices": list(postgresql.SSL_MODES)},
        "ssl_root_cert": {"type": "path"},
        "connect_timeout": {"type": "int", "default": 10},
        "connect_retries": {"type": "int", "default": 3},
    }


def migration_arguments() -> dict[str, Any]:
    """Options that name the migrations and the table that tracks them."""
    return {
        "directory": {"type": "path", "required": True},
        "table": {"type": "str", "default": "migrations"},
    }


def connection_options(options: Mapping[str, Any], application_name: str) -> ConnectionOptions:
    """The database that the options name.

    Args:
        options: the parameters of a module.
        application_name: what the server shows in pg_stat_activity.

    Raises:
        EnvironmentFileError: env_file cannot be used.
    """
    explicit = ConnectionOptions(
        host=options["host"],
        port=options["port"],
        database=options["database"],
        user=options["user"],
        password=options["password"],
        ssl_mode=options["ssl_mode"],
        ssl_root_cert=options["ssl_root_cert"],
        connect_timeout=options["connect_timeout"],
        connect_retries=options["connect_retries"],
        application_name=application_name,
    )
    if options["env_file"] is None:
        return explicit
    return explicit.over(postgresql.from_environment_file(Path(options["env_file"])))


def step_result(step: Step) -> dict[str, Any]:
    """A step of a plan for a module's result."""
    return {
        "version": step.migration.version,
        "name": step.migration.name,
        "file": step.script.file,
        "direction": step.direction,
        "transaction": step.script.transactional,
    }
