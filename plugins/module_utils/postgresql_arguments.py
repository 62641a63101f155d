# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the PostgreSQL modules are told about their database, and what they make of it.

The options are documented once, in the documentation fragment ``postgresql``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils import postgresql, postgresql_environment
from ansible_collections.roastify.ops.plugins.module_utils.postgresql import (
    ConnectionOptions,
    ConnectionOptionsError,
    Problem,
)


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
        "aws_iam_auth": {"type": "bool"},
        "aws_region": {"type": "str"},
    }


def migration_arguments() -> dict[str, Any]:
    """Options that name the migrations and the table that tracks them."""
    return {
        "directory": {"type": "path", "required": True},
        "table": {"type": "str", "default": "migrations"},
    }


def connection_options(
    options: Mapping[str, Any], application_name: str, on_secret: Callable[[str], None] | None = None
) -> ConnectionOptions:
    """The database that the options name.

    Args:
        options: the parameters of a module.
        application_name: what the server shows in pg_stat_activity.
        on_secret: is told every password and token before it is used.

    Raises:
        EnvironmentFileError: env_file cannot be read.
        ConnectionOptionsError: something is missing or wrong, all of it named.
    """
    names = ("host", "port", "database", "user", "password", "ssl_mode", "ssl_root_cert", "aws_region")
    chosen: dict[str, Any] = {name: None if options[name] == "" else options[name] for name in names}
    described = ConnectionOptions(
        **chosen,
        aws_iam_auth=options["aws_iam_auth"],
        connect_timeout=options["connect_timeout"],
        connect_retries=options["connect_retries"],
        application_name=application_name,
        on_secret=on_secret,
    )
    problems: list[Problem] = []
    source = options["env_file"] or None
    if source is not None:
        values = postgresql_environment.read_environment_file(Path(source))
        defaults, problems = postgresql_environment.from_environment(values, source)
        described = described.over(defaults)
    problems = [*_missing(described, source), *problems, *described.problems()]
    if problems:
        raise ConnectionOptionsError(problems)
    if described.password and on_secret is not None:
        on_secret(described.password)
    return described


def _missing(described: ConnectionOptions, source: str | None) -> list[Problem]:
    """What libpq would guess: the database from the user, the user from the account of this process.

    Without a host it takes the local socket. That may be meant by who gives options, but not by a .env that
    an application on several hosts reads.
    """
    needed = ("database", "user") if source is None else ("host", "database", "user")
    missing = [name for name in needed if getattr(described, name) is None]
    if not missing:
        return []
    given = _listed(missing)
    if source is None:
        return [
            Problem(
                f"Nothing says how to connect: {given} {_are(missing)} not given.",
                f"Give {given} (and host and password, unless it is the local socket), or env_file with PG_* in it.",
            )
        ]
    variables = [f"PG_{name.upper()}" for name in missing]
    return [
        Problem(
            f"{_listed(variables)} {_are(missing)} not set in {source}.",
            f"Set {'it' if len(missing) == 1 else 'them'} there, or give the option{'s'[: len(missing) - 1]} {given}.",
        )
    ]


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _are(words: Sequence[str]) -> str:
    return "is" if len(words) == 1 else "are"
