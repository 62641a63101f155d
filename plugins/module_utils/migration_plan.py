# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares the files with the tracking table and decides what is to run. Touches neither."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils import sql_statements
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.migration_files import (
    CheckedScript,
    Migration,
    MigrationSet,
    Script,
    check_scripts,
)
from ansible_collections.roastify.ops.plugins.module_utils.tables import align

LATEST = "latest"


class PlanError(OperationError):
    """Files and tracking table contradict each other, or the request does not fit them; nothing was run."""


@dataclass(frozen=True)
class AppliedMigration:
    """A row of the tracking table.

    Attributes:
        row_id: its id, which rises in the order of application.
        version: as it was written when it was applied.
        name: as it was written when it was applied.
        applied_at: time of application (UTC), as text.
        checksum: of the up script; None in a row that another tool wrote.
        duration_ms: how long it took; None in a row that another tool wrote.
        applied_by: who applied it; None in a row that another tool wrote.
        deployment_id: the deployment that applied it, or None.
    """

    row_id: int
    version: str
    name: str
    applied_at: str | None = None
    checksum: str | None = None
    duration_ms: int | None = None
    applied_by: str | None = None
    deployment_id: str | None = None

    @property
    def number(self) -> int:
        """The version as a number, which is what counts."""
        return int(self.version)


@dataclass(frozen=True)
class Unfinished:
    """A migration outside a transaction that was started and did not come to its end.

    Attributes:
        version: of the migration.
        direction: up or down.
        statements_done: how many of its statements are known to be done.
        done_checksum: checksum of those statements.
        started_at: when it was started (UTC), as text.
        error: what stopped it, or None if its runner was killed.
    """

    version: str
    direction: str
    statements_done: int
    done_checksum: str
    started_at: str
    error: str | None = None

    @property
    def number(self) -> int:
        """The version as a number."""
        return int(self.version)


@dataclass(frozen=True)
class Step:
    """One migration that is to run in one direction."""

    migration: Migration
    direction: str
    checked: CheckedScript

    @property
    def script(self) -> Script:
        """The file that is to run."""
        return self.checked.script


@dataclass(frozen=True)
class Plan:
    """What is to run, in this order, and what is odd about it."""

    steps: tuple[Step, ...]
    warnings: tuple[str, ...] = ()


def schema_version(applied: Sequence[AppliedMigration]) -> str | None:
    """The newest version that is applied, or None on an empty schema."""
    return max(applied, key=lambda row: row.number).version if applied else None


def pending(files: MigrationSet, applied: Iterable[AppliedMigration]) -> list[Migration]:
    """The migrations that are not applied, in version order."""
    numbers = {row.number for row in applied}
    return [migration for migration in files.migrations if migration.number not in numbers]


def contradictions(
    files: MigrationSet, applied: Sequence[AppliedMigration], allow_out_of_order: bool = False
) -> tuple[list[str], list[str]]:
    """Where files and tracking table disagree.

    Returns:
        The problems, which stop a run, and the warnings, which do not.
    """
    problems: list[str] = []
    warnings: list[str] = []
    by_number = files.by_number()
    newest_file = files.migrations[-1].number if files.migrations else -1
    ahead = []
    for row in sorted(applied, key=lambda row: row.number):
        migration = by_number.get(row.number)
        if migration is None:
            if row.number > newest_file:
                ahead.append(f"{row.version}_{row.name}")
            else:
                problems.append(f"{row.version}_{row.name} is applied, but its file is gone: restore it")
            continue
        if row.checksum is not None and row.checksum != migration.up.checksum:
            problems.append(
                f"{migration.up.file} was changed after it was applied"
                f"{f' at {row.applied_at}' if row.applied_at else ''}: "
                f"recorded {row.checksum}, file {migration.up.checksum}; restore it and write a new migration"
            )
        elif row.name != migration.name:
            warnings.append(f"version {row.version} was applied as {row.name}, its file says {migration.name}")
    if ahead:
        warnings.append(
            f"the database is ahead of the files by {', '.join(ahead)}: they are left as they are "
            "(an older release runs on a newer schema)"
        )
    newest_applied = max((row.number for row in applied), default=-1)
    for migration in pending(files, applied):
        if migration.number < newest_applied:
            text = (
                f"{migration.up.file} is not applied, but a newer version is ({schema_version(applied)}): give it "
                "a higher number, or allow migrations out of order"
            )
            (warnings if allow_out_of_order else problems).append(text)
    return problems, warnings


def plan_up(
    files: MigrationSet,
    applied: Sequence[AppliedMigration],
    target: str = LATEST,
    allow_out_of_order: bool = False,
    unfinished: Sequence[Unfinished] = (),
) -> Plan:
    """What has to run to bring the schema up to a version.

    Args:
        files: the migrations.
        applied: the rows of the tracking table.
        target: a version, or "latest".
        allow_out_of_order: apply pending migrations that are older than the newest applied one.
        unfinished: interrupted migrations.

    Raises:
        PlanError: files and table contradict each other, or the target is unknown.
        MigrationFilesError: a script that is to run cannot be used.
    """
    problems, warnings = contradictions(files, applied, allow_out_of_order)
    problems += [
        f"the rollback of {row.version} was interrupted after statement {row.statements_done}: finish that rollback"
        for row in unfinished
        if row.direction == "down"
    ]
    if problems:
        raise PlanError(
            f"The migrations in {files.directory} and the database contradict each other; nothing was run.",
            "Settle each of these, then run again.",
            problems,
        )
    todo = pending(files, applied)
    if target != LATEST:
        limit = _known_version(target, files, applied)
        todo = [migration for migration in todo if migration.number <= limit]
        newest = max((row.number for row in applied), default=-1)
        if limit < newest:
            warnings.append(
                f"the schema is at {schema_version(applied)}, newer than the target {target}: "
                "going back is a rollback, which has to be asked for"
            )
    checked = check_scripts([migration.up for migration in todo])
    for row in unfinished:
        warnings.append(_interrupted(row))
    steps = tuple(Step(migration, "up", script) for migration, script in zip(todo, checked))
    # A gap is news when something is about to run, and noise ever after.
    return Plan(steps, (*files.warnings, *warnings) if steps else tuple(warnings))


def plan_down(
    files: MigrationSet,
    applied: Sequence[AppliedMigration],
    steps: int | None = None,
    target: str | None = None,
    confirm_data_loss: bool = False,
    unfinished: Sequence[Unfinished] = (),
) -> Plan:
    """What has to run to take the schema back, newest application first.

    Args:
        files: the migrations.
        applied: the rows of the tracking table.
        steps: how many migrations to take back, or None if target is given.
        target: the version to stay at; "0" takes everything back.
        confirm_data_loss: run down scripts that drop tables or columns or delete rows.
        unfinished: interrupted migrations.

    Raises:
        PlanError: a down script is missing, data would be lost, or the request cannot be met.
        MigrationFilesError: a script that is to run cannot be used.
    """
    latest_first = sorted(applied, key=lambda row: row.row_id, reverse=True)
    if target is not None:
        limit = _known_version(target, files, applied, zero_is_known=True)
        rows = [row for row in latest_first if row.number > limit]
    else:
        count = steps or 0
        if count > len(latest_first):
            raise PlanError(
                f"{count} migrations cannot be rolled back: only {len(latest_first)} are applied.",
                "Ask for fewer steps, or for target 0 to roll back everything.",
            )
        rows = latest_first[:count]
    by_number = files.by_number()
    warnings = []
    problems = []
    scripts = []
    todo = []
    for row in rows:
        migration = by_number.get(row.number)
        if migration is None:
            problems.append(f"{row.version}_{row.name}: neither file is there; use the release that has them")
        elif migration.down is None:
            problems.append(f"{migration.up.file}: has no down script")
        else:
            scripts.append(migration.down)
            todo.append(migration)
            if row.checksum is not None and row.checksum != migration.up.checksum:
                warnings.append(f"{migration.up.file} was changed after it was applied; its down script runs as it is")
    if problems:
        raise PlanError(
            "These migrations cannot be rolled back; nothing was run.",
            "Add the missing scripts, or roll back fewer migrations.",
            problems,
        )
    checked = check_scripts(scripts)
    losses = [
        f"{script.script.file}:{statement.line}: {' '.join(statement.text.split())[:120]}"
        for script in checked
        for statement in script.statements
        if sql_statements.loses_data(statement)
    ]
    if losses and not confirm_data_loss:
        raise PlanError(
            "This rollback would destroy data; nothing was run.",
            "Make sure that there is a backup, then confirm the loss of data (confirm_data_loss).",
            losses,
        )
    warnings += [_interrupted(row) for row in unfinished]
    return Plan(
        tuple(Step(migration, "down", script) for migration, script in zip(todo, checked)),
        tuple(warnings),
    )


def _interrupted(row: Unfinished) -> str:
    why = f" ({row.error})" if row.error else ""
    return (
        f"{row.version} ({row.direction}) was interrupted after statement {row.statements_done}, started at "
        f"{row.started_at}{why}: it resumes with the next one"
    )


def _known_version(
    target: str, files: MigrationSet, applied: Iterable[AppliedMigration], zero_is_known: bool = False
) -> int:
    known: Mapping[int, str] = {
        **{row.number: row.version for row in applied},
        **{migration.number: migration.version for migration in files.migrations},
    }
    if target.isascii() and target.isdigit():
        number = int(target)
        if number in known or (zero_is_known and number == 0):
            return number
    listed = ", ".join(known[number] for number in sorted(known)) or "none"
    raise PlanError(
        f"There is no version {target!r} among the files and the applied migrations.",
        f"Give one of the known versions: {listed if len(listed) < 400 else '... ' + listed[-400:]}.",
    )


def diff_text(plan: Plan) -> str:
    """The plan as the text of a diff: each file with its SQL, secrets hidden."""
    parts = []
    for step in plan.steps:
        sql = sql_statements.without_secrets(step.script.text)
        how = "" if step.script.transactional else " (outside a transaction)"
        lines = "".join(f"+{line}\n" for line in sql.splitlines())
        parts.append(f"+++ {step.script.file}{how}\n{lines}")
    return "".join(parts)


def after(plan: Plan, applied: Iterable[AppliedMigration]) -> list[AppliedMigration]:
    """What the tracking table holds once a plan has run."""
    rows = {row.number: row for row in applied}
    for step in plan.steps:
        migration = step.migration
        if step.direction == "up":
            rows[migration.number] = AppliedMigration(0, migration.version, migration.name)
        else:
            rows.pop(migration.number, None)
    return list(rows.values())


def status(
    files: MigrationSet, applied: Iterable[AppliedMigration], unfinished: Iterable[Unfinished] = ()
) -> list[dict[str, Any]]:
    """Every migration that the files or the table know, in version order."""
    rows = {row.number: row for row in applied}
    interrupted = {row.number for row in unfinished}
    by_number = files.by_number()
    result = []
    for number in sorted({*rows, *by_number}):
        row, migration = rows.get(number), by_number.get(number)
        if number in interrupted:
            state = "interrupted"
        elif migration is None:
            state = "missing"
        elif row is None:
            state = "pending"
        else:
            state = "applied" if row.checksum in (None, migration.up.checksum) else "changed"
        known = migration or row
        result.append(
            {
                "version": known.version if known else str(number),
                "name": known.name if known else "",
                "state": state,
                "file": migration.up.file if migration else None,
                "has_down": migration is not None and migration.down is not None,
                "applied_at": row.applied_at if row else None,
                "duration_ms": row.duration_ms if row else None,
                "applied_by": row.applied_by if row else None,
                "deployment_id": row.deployment_id if row else None,
            }
        )
    return result


def table(status_list: Iterable[Mapping[str, Any]]) -> list[str]:
    """A status for people: one line per migration under a line of headings."""
    lines = [("version", "name", "state", "applied at (UTC)", "ms", "by")]
    for item in status_list:
        duration = "" if item["duration_ms"] is None else str(item["duration_ms"])
        lines.append(
            (
                item["version"],
                item["name"],
                item["state"],
                item["applied_at"] or "",
                duration,
                item["applied_by"] or "",
            )
        )
    return align(lines)
