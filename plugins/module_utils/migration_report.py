# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows plans and states of migrations to people and to machines."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils import sql_locks, sql_statements
from ansible_collections.roastify.ops.plugins.module_utils.migration_files import MigrationSet
from ansible_collections.roastify.ops.plugins.module_utils.migration_plan import (
    Correction,
    Plan,
    contradictions,
    interrupted_rollbacks,
    pending,
)
from ansible_collections.roastify.ops.plugins.module_utils.migration_records import AppliedMigration, State, Unfinished
from ansible_collections.roastify.ops.plugins.module_utils.tables import align

_CORRECTIONS = {
    "baseline": "record {} as applied, without running it",
    "accept": "record {} as its files are now",
    "forget": "forget that {} was applied",
    "restart": "let {} start from its first statement the next time",
}

_OUTSIDE = " (outside a transaction)"


def correction_text(correction: Correction) -> str:
    """What a correction does, for people."""
    return _CORRECTIONS[correction.action].format(f"{correction.version}_{correction.name}")


def correction_result(correction: Correction) -> dict[str, str]:
    """A correction for a module's result."""
    return {"action": correction.action, "version": correction.version, "name": correction.name}


def planned(plan: Plan, with_locks: bool) -> dict[str, Any]:
    """What is to be done, for a module's result: the steps as `plan`, and for people as `lines`.

    Args:
        plan: what is to be done.
        with_locks: whether to tell the locks that the statements take, and whom they may block.
    """
    steps: list[dict[str, Any]] = []
    lines = [correction_text(correction) for correction in plan.corrections]
    for step in plan.steps:
        result: dict[str, Any] = {
            "version": step.migration.version,
            "name": step.migration.name,
            "file": step.script.file,
            "direction": step.direction,
            "transaction": step.script.transactional,
        }
        lines.append(f"{step.direction} {step.script.file}{'' if step.script.transactional else _OUTSIDE}")
        if with_locks:
            locks = sql_locks.merged(sql_locks.locks_of(step.checked.statements))
            result["locks"] = [lock.as_dict() for lock in locks]
            lines += [
                f"   line {lock.line}: {lock}: {lock.statement}" for lock in locks if lock.blocks != sql_locks.NOTHING
            ]
        steps.append(result)
    return {"plan": steps, "lines": lines}


def diff_text(plan: Plan) -> str:
    """The plan as the text of a diff: corrections, then each file with its SQL, secrets hidden."""
    parts = [f"+ {correction_text(correction)}\n" for correction in plan.corrections]
    for step in plan.steps:
        sql = sql_statements.without_secrets(step.script.text).strip("\n")
        how = "" if step.script.transactional else _OUTSIDE
        back = " (back)" if step.direction == "down" and not step.script.file.endswith(".down.sql") else ""
        lines = "".join(f"+{line}\n" for line in sql.splitlines())
        parts.append(f"+++ {step.script.file}{back}{how}\n{lines}")
    return "".join(parts)


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


def info(files: MigrationSet | None, state: State) -> dict[str, Any]:
    """What there is to know about the migrations of a database, for a module's result.

    Args:
        files: the migrations, or None to tell of the tracking table alone.
        state: of the database.
    """
    known = files or MigrationSet(Path(), ())
    problems, remarks = contradictions(known, state.applied) if files else ([], [])
    problems += interrupted_rollbacks(state.unfinished)
    found = status(known, state.applied, state.unfinished)
    rows = [dataclasses.asdict(row) for row in state.applied]
    return {
        "migrations": found,
        "applied": [{name: value for name, value in row.items() if name != "row_id"} for row in rows],
        "pending": [migration.up.file for migration in pending(known, state.applied)],
        "schema_version": state.schema_version,
        "problems": problems,
        "remarks": [*known.warnings, *remarks],
        "lines": table(found),
    }
