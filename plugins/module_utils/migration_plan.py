# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares the files with the tracking table and decides what is to run or to be recorded. Touches neither."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.roastify.ops.plugins.module_utils import migration_changes, sql_statements
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.migration_changes import repairing
from ansible_collections.roastify.ops.plugins.module_utils.migration_files import (
    CheckedScript,
    Migration,
    MigrationFilesError,
    MigrationSet,
    Script,
    check_scripts,
)
from ansible_collections.roastify.ops.plugins.module_utils.migration_records import (
    AppliedMigration,
    Unfinished,
    schema_version,
)

LATEST = "latest"


class PlanError(OperationError):
    """Files and tracking table contradict each other, or the request does not fit them; nothing was run."""


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

    def take(self, rows: dict[int, AppliedMigration]) -> None:
        """Change the rows of the tracking table, by their numbers, as this step does."""
        migration = self.migration
        if self.direction == "up":
            rows[migration.number] = AppliedMigration(0, migration.version, migration.name)
        else:
            rows.pop(migration.number, None)


@dataclass(frozen=True)
class Correction:
    """A change of the tracking table that runs no script.

    Attributes:
        action: "baseline" records a migration as applied; "accept" records its file as it is now; "forget"
            deletes the row of a migration whose file is gone; "restart" deletes the note of how far an
            interrupted migration had come.
        version: as the tracking table writes it, or is to write it.
        name: of the migration.
        migration: its files; None if they are gone.
    """

    action: str
    version: str
    name: str
    migration: Migration | None = None

    @property
    def number(self) -> int:
        """The version as a number."""
        return int(self.version)


@dataclass(frozen=True)
class Plan:
    """What is to be corrected and then run, in this order, and what is odd about it."""

    steps: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()
    corrections: tuple[Correction, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.steps and not self.corrections


def pending(files: MigrationSet, applied: Iterable[AppliedMigration]) -> list[Migration]:
    """The migrations that are not applied, in version order."""
    numbers = {row.number for row in applied}
    return [migration for migration in files.migrations if migration.number not in numbers]


def _newest(applied: Iterable[AppliedMigration]) -> int:
    """The highest number that is applied; -1 if none is."""
    return max((row.number for row in applied), default=-1)


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
                problems.append(
                    f"{row.version}_{row.name} is applied, but its file is gone: restore it, or forget that it was "
                    f"applied ({repairing(row.version)})"
                )
            continue
        changed = row.checksum is not None and row.checksum != migration.up.checksum
        if changed and row.name != migration.name:
            problems.append(
                f"version {row.version} was applied as {row.version}_{row.name}, and {migration.up.file} is another "
                "migration: give it a number of its own"
            )
        elif changed:
            problems.append(migration_changes.account(row, migration.up))
        elif row.name != migration.name:
            warnings.append(f"version {row.version} was applied as {row.name}, its file says {migration.name}")
    if ahead:
        warnings.append(
            f"the database is ahead of the files by {', '.join(ahead)}: they are left as they are "
            "(an older release runs on a newer schema)"
        )
    newest_applied = _newest(applied)
    for migration in pending(files, applied):
        if migration.number < newest_applied:
            text = (
                f"{migration.up.file} is not applied, but a newer version is ({schema_version(applied)}): give it "
                "a higher number, or allow migrations out of order (allow_out_of_order; for the playbooks: "
                "-e db_migrate_allow_out_of_order=true)"
            )
            (warnings if allow_out_of_order else problems).append(text)
    return problems, warnings


def interrupted_rollbacks(unfinished: Iterable[Unfinished]) -> list[str]:
    """Rollbacks that ended half-way, each with what to do: until then nothing is applied.

    Args:
        unfinished: interrupted migrations.
    """
    return [
        f"the rollback of {row.version} was interrupted after statement {row.statements_done}: finish that rollback"
        for row in unfinished
        if row.direction == "down"
    ]


def plan_up(
    files: MigrationSet,
    applied: Sequence[AppliedMigration],
    target: str = LATEST,
    allow_out_of_order: bool = False,
    unfinished: Sequence[Unfinished] = (),
    unwrap: bool = False,
) -> Plan:
    """What has to run to bring the schema up to a version.

    Args:
        files: the migrations.
        applied: the rows of the tracking table.
        target: a version, or "latest".
        allow_out_of_order: apply pending migrations that are older than the newest applied one.
        unfinished: interrupted migrations.
        unwrap: take off a BEGIN and COMMIT around a whole script.

    Raises:
        PlanError: files and table contradict each other, or the target is unknown.
        MigrationFilesError: a script that is to run cannot be used.
    """
    problems, warnings = contradictions(files, applied, allow_out_of_order)
    problems += interrupted_rollbacks(unfinished)
    todo = pending(files, applied)
    problems += _lost_track([migration.up for migration in todo], todo, unfinished)
    _refuse_contradictions(files, problems)
    if target != LATEST:
        limit = _known_version(target, files, applied)
        todo = [migration for migration in todo if migration.number <= limit]
        if limit < _newest(applied):
            warnings.append(
                f"the schema is at {schema_version(applied)}, newer than the target {target}: "
                "going back is a rollback, which has to be asked for"
            )
    checked = check_scripts([migration.up for migration in todo], unwrap)
    warnings += [*_session_settings(checked), *(_interrupted(row) for row in unfinished)]
    warnings += _no_way_back(todo, unwrap)
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
    unwrap: bool = False,
) -> Plan:
    """What has to run to take the schema back, newest application first.

    Args:
        files: the migrations.
        applied: the rows of the tracking table.
        steps: how many migrations to take back, or None if target is given.
        target: the version to stay at; "0" takes everything back.
        confirm_data_loss: run down scripts that drop tables or columns or delete rows.
        unfinished: interrupted migrations.
        unwrap: take off a BEGIN and COMMIT around a whole script.

    Raises:
        PlanError: a down script is missing, data would be lost, or the request cannot be met.
        MigrationFilesError: a script that is to run cannot be used.
    """
    latest_first = sorted(applied, key=lambda row: row.row_id, reverse=True)
    if target is not None:
        # Even where there is a version 000: that one stays with the target 000.
        limit = -1 if target == "0" else _known_version(target, files, applied)
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
    problems = [
        f"{row.version} was interrupted after statement {row.statements_done}: let it come to its end (state applied), "
        f"or undo what it did and forget how far it came ({repairing(row.version)})"
        for row in unfinished
        if rows and row.direction == "up"
    ]
    scripts = []
    todo = []
    for row in rows:
        migration = by_number.get(row.number)
        if migration is None:
            problems.append(f"{row.version}_{row.name}: neither of its files is in {files.directory}")
        elif migration.down is None:
            problems.append(f"{migration.up.file}: has no down script")
        else:
            scripts.append(migration.down)
            todo.append(migration)
            if row.checksum is not None and row.checksum != migration.up.checksum:
                warnings.append(f"{migration.up.file} was changed after it was applied; its down script runs as it is")
            elif row.down_checksum not in (None, migration.down.checksum):
                warnings.append(
                    f"the way back of {migration.down.file} was changed after it was applied; it runs as it is"
                )
    problems += _lost_track(scripts, todo, unfinished)
    if problems:
        raise PlanError(
            "These migrations cannot be rolled back; nothing was run.",
            "Add the missing scripts, name a directory that has them (the release that brought them; for the playbook: "
            "-e migrate_source=PATH), or roll back fewer migrations.",
            problems,
        )
    checked = check_scripts(scripts, unwrap)
    losses = [
        f"{script.script.file}:{statement.line}: {sql_statements.summary(statement)}"
        for script in checked
        for statement in script.statements
        if sql_statements.loses_data(statement)
    ]
    if losses and not confirm_data_loss:
        raise PlanError(
            "This rollback would destroy data; nothing was run.",
            "Make sure that there is a backup, then confirm the loss of data (confirm_data_loss; for the playbooks: "
            "-e db_migrate_confirm_data_loss=true).",
            losses,
        )
    warnings += [*_session_settings(checked), *(_interrupted(row) for row in unfinished)]
    return Plan(
        tuple(Step(migration, "down", script) for migration, script in zip(todo, checked)),
        tuple(warnings),
    )


def plan_redo(
    files: MigrationSet,
    applied: Sequence[AppliedMigration],
    steps: int | None = None,
    target: str | None = None,
    confirm_data_loss: bool = False,
    unfinished: Sequence[Unfinished] = (),
    unwrap: bool = False,
) -> Plan:
    """What has to run to take migrations back and to apply the same ones again, as their files are now.

    Args and errors are those of plan_down. Migrations that are not taken back have to be as their files say.
    """
    newest = _newest(applied)
    problems = [
        f"{migration.up.file} is pending: apply it first (state applied), as a redo leaves it that failed on its way up"
        for migration in pending(files, applied)
        if migration.number > newest
    ]
    _refuse_contradictions(files, problems)
    down = plan_down(files, applied, steps, target, confirm_data_loss, unfinished, unwrap)
    redone = {step.migration.number for step in down.steps}
    kept = [row for row in applied if row.number not in redone]
    _refuse_contradictions(files, contradictions(files, kept, allow_out_of_order=True)[0])
    migrations = sorted((step.migration for step in down.steps), key=lambda migration: migration.number)
    checked = check_scripts([migration.up for migration in migrations], unwrap)
    up = tuple(Step(migration, "up", script) for migration, script in zip(migrations, checked))
    return Plan((*down.steps, *up), down.warnings)


def plan_baseline(
    files: MigrationSet,
    applied: Sequence[AppliedMigration],
    target: str = LATEST,
    unfinished: Sequence[Unfinished] = (),
) -> Plan:
    """What has to be recorded as applied without being run, because the database holds it already.

    Args:
        files: the migrations.
        applied: the rows of the tracking table.
        target: the newest version that the database holds, or "latest".
        unfinished: interrupted migrations.

    Raises:
        PlanError: files and table contradict each other, or the target is unknown.
    """
    todo = pending(files, applied)
    if target != LATEST:
        limit = _known_version(target, files, applied)
        todo = [migration for migration in todo if migration.number <= limit]
    problems, warnings = contradictions(files, applied, allow_out_of_order=True)
    numbers = {migration.number for migration in todo}
    problems += [
        f"{row.version} was interrupted after statement {row.statements_done}: let it come to its end (state applied), "
        f"or forget how far it came ({repairing(row.version)})"
        for row in unfinished
        if row.number in numbers
    ]
    _refuse_contradictions(files, problems)
    return Plan(
        (),
        tuple(warnings),
        tuple(Correction("baseline", migration.version, migration.name, migration) for migration in todo),
    )


def plan_repair(
    files: MigrationSet,
    applied: Sequence[AppliedMigration],
    versions: Sequence[str],
    unfinished: Sequence[Unfinished] = (),
) -> Plan:
    """What has to be changed in the tracking table so that these versions contradict their files no more.

    Args:
        files: the migrations.
        applied: the rows of the tracking table.
        versions: the versions, one by one: there is no way to repair what nobody has looked at.
        unfinished: interrupted migrations.

    Raises:
        PlanError: with every version that cannot be repaired.
    """
    rows = {row.number: row for row in applied}
    interrupted = {row.number: row for row in unfinished}
    by_number = files.by_number()
    newest_file = files.migrations[-1].number if files.migrations else -1
    corrections = []
    problems = []
    for version in versions:
        try:
            number = _known_version(version, files, [*applied, *unfinished])
        except PlanError as error:
            problems.append(f"{error.cause} {error.remedy}")
            continue
        row, migration = rows.get(number), by_number.get(number)
        if number in interrupted:
            known = row or migration
            name = known.name if known else ""
            corrections.append(Correction("restart", interrupted[number].version, name, migration))
        elif row is None:
            problems.append(f"{version} is not applied: there is nothing to repair")
        elif migration is not None:
            if not _agrees(row, migration):
                corrections.append(Correction("accept", row.version, migration.name, migration))
        elif number > newest_file:
            problems.append(f"{version} is newer than all files: it belongs to a newer release, so leave its row alone")
        else:
            corrections.append(Correction("forget", row.version, row.name))
    if problems:
        raise PlanError("Not every version can be repaired; nothing was changed.", "Correct the list.", problems)
    return Plan((), (), tuple(corrections))


def _agrees(row: AppliedMigration, migration: Migration) -> bool:
    down = migration.down.checksum if migration.down else None
    return (row.checksum, row.down_checksum, row.name) == (migration.up.checksum, down, migration.name)


def _no_way_back(migrations: Iterable[Migration], unwrap: bool) -> list[str]:
    """Ways back that could not be taken; they can still be corrected when they are needed."""
    try:
        check_scripts([migration.down for migration in migrations if migration.down], unwrap)
    except MigrationFilesError as error:
        return [f"the way back cannot run as it is: {problem}" for problem in error.evidence]
    return []


def _lost_track(
    scripts: Iterable[Script], migrations: Iterable[Migration], unfinished: Iterable[Unfinished]
) -> list[str]:
    """Scripts that were interrupted outside a transaction, and would now start anew inside one."""
    interrupted = {row.number: row for row in unfinished}
    return [
        f"{script.file} was interrupted after statement {row.statements_done}, and is to run in a transaction now: "
        f"give it its directive back, or undo what it did and start anew ({repairing(row.version)})"
        for script, row in ((script, interrupted.get(it.number)) for script, it in zip(scripts, migrations))
        if row is not None and script.transactional
    ]


def _refuse_contradictions(files: MigrationSet, problems: list[str]) -> None:
    if problems:
        raise PlanError(
            f"The migrations in {files.directory} and the database contradict each other; nothing was run.",
            "Settle each of these, then run again.",
            problems,
        )


def _session_settings(checked: Iterable[CheckedScript]) -> list[str]:
    """What scripts set for a session that is not theirs."""
    warnings = []
    for script in checked:
        found = {sql_statements.session_setting(it): it.line for it in reversed(script.statements)}
        names = sorted((line, name) for name, line in found.items() if name)
        if names:
            warnings.append(
                f"{script.script.file}:{names[0][0]}: SET {', '.join(name for _line, name in names)} ends with this "
                "migration"
            )
    return warnings


def _interrupted(row: Unfinished) -> str:
    why = f" ({row.error})" if row.error else ""
    return (
        f"{row.version} ({row.direction}), started at {row.started_at}, is interrupted behind statement "
        f"{row.statements_done}{why}, if no other run is at it now: it resumes with the next one"
    )


def _known_version(target: str, files: MigrationSet, recorded: Iterable[AppliedMigration | Unfinished]) -> int:
    known: Mapping[int, str] = {
        **{row.number: row.version for row in recorded},
        **{migration.number: migration.version for migration in files.migrations},
    }
    if target.isascii() and target.isdigit():
        number = int(target)
        if number in known:
            return number
    listed = ", ".join(known[number] for number in sorted(known)) or "none"
    raise PlanError(
        f"There is no version {target!r} among the files and the applied migrations.",
        f"Give one of the known versions: {listed if len(listed) < 400 else '... ' + listed[-400:]}.",
    )


def after(plan: Plan, applied: Iterable[AppliedMigration]) -> list[AppliedMigration]:
    """What the tracking table holds once a plan has run."""
    rows = {row.number: row for row in applied}
    for correction in plan.corrections:
        if correction.action == "forget":
            rows.pop(correction.number, None)
        elif correction.action == "baseline":
            rows[correction.number] = AppliedMigration(0, correction.version, correction.name)
    for step in plan.steps:
        step.take(rows)
    return list(rows.values())
