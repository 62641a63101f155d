# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells what was changed in the file of an applied migration.

The tracking table keeps no SQL, which may be large or secret. It keeps one short checksum per statement,
so that the statements that differ can be named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ansible_collections.roastify.ops.plugins.module_utils import sql_statements
from ansible_collections.roastify.ops.plugins.module_utils.migration_files import Script
from ansible_collections.roastify.ops.plugins.module_utils.migration_records import AppliedMigration
from ansible_collections.roastify.ops.plugins.module_utils.sql_statements import SqlError, Statement

_DIGITS = 12
"""Of each checksum: enough to tell a few hundred statements apart."""

_MOST_STATEMENTS = 200
"""More would be data, and fill the tracking table."""


def statement_checksums(statements: Sequence[Statement]) -> str | None:
    """One short checksum per statement, with commas between them; None for a script of very many statements.

    A BEGIN and COMMIT around them don't count, as they may have been taken off.
    """
    statements = sql_statements.unwrapped(statements)
    return None if len(statements) > _MOST_STATEMENTS else ",".join(map(_checksum, statements))


def _checksum(statement: Statement) -> str:
    return hashlib.sha256(statement.text.encode()).hexdigest()[:_DIGITS]


def statement_checksums_of(script: Script) -> str | None:
    """The same of a script that nobody has split; None also if it cannot be split."""
    try:
        return statement_checksums(sql_statements.split(script.text))
    except SqlError:
        return None


def repairing(version: str) -> str:
    """How a version is repaired, for the module and for the playbook."""
    return f"state repaired, version {version}; for the playbook: -e migrate_repair={version}"


def account(row: AppliedMigration, script: Script) -> str:
    """What differs between an applied migration and its file, in the manner of a diff.

    Args:
        row: what was recorded when it was applied.
        script: the file as it is now.

    Returns:
        Lines: what happened and what to do, then lines beginning with - for what was applied and with +
        for what the file says.
    """
    who = f" by {row.applied_by}" if row.applied_by else ""
    deployment = f" (deployment {row.deployment_id})" if row.deployment_id else ""
    lines = [
        f"{script.file} was changed after it was applied{f' at {row.applied_at}' if row.applied_at else ''}{who}"
        f"{deployment}: restore it and write a new migration, or accept the file as it is ({repairing(row.version)})",
        f"- {row.checksum}",
        f"+ {script.checksum}",
        *_statements_that_differ(row, script),
    ]
    return "\n    ".join(lines)


def _statements_that_differ(row: AppliedMigration, script: Script) -> list[str]:
    if row.statement_checksums is None:
        return []
    import difflib  # rarely needed, and every run would wait for it

    try:
        statements = sql_statements.unwrapped(sql_statements.split(script.text))
    except SqlError as error:
        return [f"+ {script.file}:{error.line}: {error.reason}"]
    if len(statements) > _MOST_STATEMENTS:
        return [f"  {len(statements)} statements, which are too many to tell which of them differ"]
    before = [it for it in row.statement_checksums.split(",") if it]
    now = list(map(_checksum, statements))
    if before == now:
        return ["  its statements are the same: only comments or white space around them differ"]
    lines = []
    for kind, first, last, first_now, last_now in difflib.SequenceMatcher(None, before, now, False).get_opcodes():
        if kind in ("delete", "replace"):
            lines += [
                f"- statement {number + 1} of {len(before)} as it was applied (its text is not kept)"
                for number in range(first, last)
            ]
        if kind in ("insert", "replace"):
            lines += [
                f"+ {script.file}:{it.line}: {sql_statements.summary(it)}" for it in statements[first_now:last_now]
            ]
    return lines
