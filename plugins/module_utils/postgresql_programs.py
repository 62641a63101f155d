# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs pg_dump and pg_restore: the password in the environment only, failures with cause and remedy."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence

from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.postgresql import ConnectionOptions

_INSTALL = "Install the PostgreSQL client in the server's major version or newer."
_REMEDIES = (
    (r"version mismatch|unsupported version .* in file header", _INSTALL),
    (r"unrecognized configuration parameter", "Use the PostgreSQL client of the server's own major version."),
    (r"No space left on device|Disk quota exceeded", "Make room there, or choose a directory with more of it."),
    (
        r"canceling statement due to lock timeout|could not obtain lock",
        "Wait for the session that holds a table exclusively, or end it, then run again.",
    ),
    (
        r'role ".*" does not exist',
        "Create the missing role first: roles belong to the server and are in no backup of a database.",
    ),
    (
        r"must be able to SET ROLE|must be member of role",
        "Connect with a role that is a member of every owner, or as superuser (on Amazon RDS the master user).",
    ),
    (
        r"permission denied to create extension|must be owner of extension|extension .* is not available",
        "Install the extension's files, or connect with a role that may create it (on Amazon RDS the master user).",
    ),
    (
        r"input file does not appear to be a valid archive|input file is too short|unexpected end of file"
        r"|could not read from input file|corrupt",
        "Take another backup: this file is no complete archive of pg_dump.",
    ),
    (
        r"permission denied",
        "Use a role that may read every table (GRANT pg_read_all_data) for a backup, and one that owns the database "
        "for a restore.",
    ),
)

# The last lines of standard error: pg_restore puts the failing statement behind the message.
_EVIDENCE_LINES = 12


def run(
    options: ConnectionOptions,
    command: Sequence[str],
    what: str,
    error: type[OperationError],
    timeout: float | None = None,
    stdout: int = subprocess.PIPE,
) -> str:
    """Run one program of PostgreSQL.

    Args:
        options: the database, handed over through the environment.
        command: the program and its arguments, which hold no secret.
        what: begins the message of a failure: what did not work.
        error: the kind of that failure.
        timeout: seconds after which the program is killed; None for no limit.
        stdout: a file descriptor for its output; without one the output is returned.

    Returns:
        What it wrote to its standard output.

    Raises:
        OperationError: of the kind given; the program is missing, failed or took too long.
    """
    environment = {**os.environ, "LC_ALL": "C", **options.environment()}
    try:
        result = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise error(f"{what}: there is no program {command[0]} on this host.", _INSTALL) from None
    except subprocess.TimeoutExpired:
        raise error(
            f"{what}: {command[0]} was ended, because it took longer than {timeout:g} s.",
            "Find out whether the server is slow or out of reach, or allow more time (timeout).",
        ) from None
    if result.returncode == 0:
        return result.stdout or ""
    reason = options.scrub(result.stderr).strip()
    default = f"Correct what {command[0]} complains about, then run again."
    remedy = next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, reason)), default)
    raise error(f"{what} (exit status {result.returncode}).", remedy, reason.splitlines()[-_EVIDENCE_LINES:])
