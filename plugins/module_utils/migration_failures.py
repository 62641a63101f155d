# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells what a person at three in the morning needs to know about a failed migration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.migration_plan import Step
from ansible_collections.roastify.ops.plugins.module_utils.migration_session import (
    DEADLOCK,
    LOCK_NOT_AVAILABLE,
    Session,
)
from ansible_collections.roastify.ops.plugins.module_utils.postgresql_driver import DatabaseError
from ansible_collections.roastify.ops.plugins.module_utils.sql_statements import Statement

_QUERY_CANCELED = "57014"
_INSUFFICIENT_PRIVILEGE = "42501"
_ACTIVE_TRANSACTION = "25001"
_READ_ONLY_TRANSACTION = "25006"

_LONGEST_STATEMENT = 600


class MigrationError(OperationError):
    """A migration failed.

    Attributes:
        details: file, line, statement, sqlstate, message, detail, hint, version: for machines.
    """

    def __init__(self, cause: str, remedy: str, evidence: list[str], details: dict[str, Any]) -> None:
        super().__init__(cause, remedy, evidence)
        self.details = details


@dataclass(frozen=True)
class Place:
    """Where a migration was when it failed.

    Attributes:
        step: the migration and its direction.
        statements: those that were sent last; none if the failure came behind the script.
        done: for a migration outside a transaction, how many of its statements are done.
        schema_version: the version that the schema has now.
    """

    step: Step
    statements: Sequence[Statement]
    done: int
    schema_version: str | None


def failed(session: Session, place: Place, error: DatabaseError) -> MigrationError:
    """A failure of a script, or of what comes behind it."""
    scrub = session.connection_options.scrub
    step, sqlstate = place.step, error.sqlstate
    message = scrub(error.message)
    statement, line = _locate(place, error.position)
    details = _details(step, line, sqlstate, message)
    evidence = []
    for name, text in (("detail", error.detail), ("hint", error.hint), ("context", error.context)):
        details[name] = scrub(text) if text else None
        if text:
            evidence.append(f"{name.upper()}: {details[name]}")
    details["statement"] = _shortened(scrub(statement.text)) if statement else None
    count = len(step.checked.statements)
    if statement:
        number = step.checked.statements.index(statement) + 1
        evidence.append(f"STATEMENT {number} of {count} (line {statement.line}): {details['statement']}")
    elif place.statements:
        first, last = place.statements[0], place.statements[-1]
        evidence.append(f"STATEMENT: one of those on lines {first.line} to {last.end_line}")
    elif not session.connection.closed:
        evidence.append("STATEMENT: none of the script; the failure came when it was recorded and committed")
    if sqlstate in (LOCK_NOT_AVAILABLE, DEADLOCK):
        evidence += session.long_transactions()
    if step.script.transactional:
        consequence = (
            f"It was rolled back and is not recorded; the schema stays at version {place.schema_version or 'none'}."
        )
    else:
        consequence = (
            f"It runs outside a transaction: {place.done} of its {count} statements are done and stay; the next run "
            "goes on behind them."
        )
    where = f"{step.script.file}, line {line}" if line else step.script.file
    direction = "" if step.direction == "up" else "rollback, "
    cause = f"{direction}{where}: {sqlstate or 'connection lost'}: {message}. {consequence}"
    return MigrationError(cause, _remedy(session, place, sqlstate, message), evidence, details)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_STATEMENT else text[:_LONGEST_STATEMENT] + " ..."


def broke_out(step: Step) -> MigrationError:
    """A script ended the transaction that it ran in, in a way that cannot be seen in its text."""
    message = "the script ended the transaction it ran in"
    return MigrationError(
        f"{step.script.file}: {message}. What it did before may stay; it is not recorded.",
        "Remove the command that commits or rolls back, check what is left in the database, and run again.",
        [],
        _details(step, None, None, message),
    )


def _details(step: Step, line: int | None, sqlstate: str | None, message: str) -> dict[str, Any]:
    return {
        "version": step.migration.version,
        "file": step.script.file,
        "path": str(step.script.path),
        "line": line,
        "sqlstate": sqlstate,
        "message": message,
    }


def _locate(place: Place, position: int | None) -> tuple[Statement | None, int | None]:
    """The failing statement and line; the server gives a position for errors of syntax and names only."""
    sent = place.statements
    if not sent:
        return None, None
    if position:
        offset = sent[0].offset + position - 1
        line = place.step.script.text.count("\n", 0, offset) + 1
        return next(it for it in reversed(sent) if it.offset <= offset), line
    return (sent[0], sent[0].line) if len(sent) == 1 else (None, sent[0].line)


def _remedy(session: Session, place: Place, sqlstate: str | None, message: str) -> str:
    options = session.options
    if sqlstate in (LOCK_NOT_AVAILABLE, DEADLOCK):
        return (
            f"Let the transactions that hold the table end (tried {options.lock_retries + 1} times, "
            f"{options.lock_timeout:g} s each), then run again."
        )
    if sqlstate == _QUERY_CANCELED and "statement timeout" in message:
        limit = f"{options.statement_timeout:g} s"
        return f"A statement took longer than {limit}: make it smaller, or raise statement_timeout."
    if sqlstate == _INSUFFICIENT_PRIVILEGE:
        return "Grant the missing privilege to the role that migrates, or let it own the object; then run again."
    if sqlstate == _ACTIVE_TRANSACTION and "before any query" in message:
        return "Every migration has a transaction with the server's defaults: remove the command, then run again."
    if sqlstate == _ACTIVE_TRANSACTION:
        return "Put the statement into a migration of its own whose first line is -- migrate:no-transaction."
    if sqlstate == _READ_ONLY_TRANSACTION and not place.statements:
        return "The script made its transaction read-only, so that it cannot be recorded: remove that, then run again."
    if sqlstate is None:
        return "Look at the server's log, then run again: the next run finds out what is applied."
    return "Correct the script and run again."
