"""What is to run, decided from files and tracking table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.roastify.ops.plugins.module_utils.migration_changes import statement_checksums_of
from ansible_collections.roastify.ops.plugins.module_utils.migration_files import MigrationSet, read_directory
from ansible_collections.roastify.ops.plugins.module_utils.migration_plan import (
    Plan,
    PlanError,
    after,
    contradictions,
    pending,
    plan_baseline,
    plan_down,
    plan_redo,
    plan_repair,
    plan_up,
)
from ansible_collections.roastify.ops.plugins.module_utils.migration_records import (
    AppliedMigration,
    State,
    Unfinished,
    schema_version,
)
from ansible_collections.roastify.ops.plugins.module_utils.migration_report import diff_text, info, status, table
from ansible_collections.roastify.ops.plugins.module_utils.migration_runner import TOOL_VERSION
from hypothesis import given
from hypothesis import strategies as st

NUMBERS = st.sets(st.integers(min_value=0, max_value=10**14), max_size=12)


def files(directory: Path, *numbers: str | int, down: str = "SELECT 1;\n") -> MigrationSet:
    directory.mkdir(exist_ok=True)
    for number in numbers:
        (directory / f"{number}_m{number}.up.sql").write_text(f"SELECT {number};\n")
        (directory / f"{number}_m{number}.down.sql").write_text(down)
    return read_directory(directory)


def applied(migrations: MigrationSet, *numbers: int) -> list[AppliedMigration]:
    by_number = migrations.by_number()
    return [
        AppliedMigration(row_id, by_number[number].version, by_number[number].name, None, by_number[number].up.checksum)
        for row_id, number in enumerate(numbers, 1)
    ]


def numbers(plan: Plan) -> list[int]:
    return [step.migration.number for step in plan.steps]


class TestUp:
    def test_what_is_not_applied_in_order(self, tmp_path: Path) -> None:
        migrations = files(tmp_path, 1, 2, 10, 9)
        assert numbers(plan_up(migrations, applied(migrations, 1, 2))) == [9, 10]

    def test_a_target_is_a_number(self, tmp_path: Path) -> None:
        migrations = files(tmp_path, "001", "002", "003")
        assert numbers(plan_up(migrations, [], "2")) == [1, 2]
        for target in ("4", "x", "-1", "1.0", "", "²"):
            with pytest.raises(PlanError):
                plan_up(migrations, [], target)

    def test_a_lower_target_goes_nowhere(self, tmp_path: Path) -> None:
        migrations = files(tmp_path, 1, 2)
        plan = plan_up(migrations, applied(migrations, 1, 2), "1")
        assert plan.steps == ()
        assert "newer than the target" in plan.warnings[0]

    def test_out_of_order_has_to_be_allowed(self, tmp_path: Path) -> None:
        migrations = files(tmp_path, 1, 2, 3)
        rows = applied(migrations, 1, 3)
        with pytest.raises(PlanError, match="contradict"):
            plan_up(migrations, rows)
        assert numbers(plan_up(migrations, rows, allow_out_of_order=True)) == [2]

    def test_an_interrupted_rollback_comes_first(self, tmp_path: Path) -> None:
        migrations = files(tmp_path, 1)
        unfinished = [Unfinished("1", "down", 1, "", "then")]
        with pytest.raises(PlanError) as error:
            plan_up(migrations, applied(migrations, 1), unfinished=unfinished)
        assert "rollback of 1 was interrupted" in str(error.value)
        # Its row is still there, so that nothing is pending: whoever asks has to be told, too.
        told = info(migrations, State(tuple(applied(migrations, 1)), tuple(unfinished)))
        assert (told["pending"], told["problems"]) == ([], error.value.evidence)

    def test_a_gap_is_told_only_when_something_runs(self, tmp_path: Path) -> None:
        migrations = files(tmp_path, 1, 2, 4)
        assert any("no migration between" in warning for warning in plan_up(migrations, []).warnings)
        assert plan_up(migrations, applied(migrations, 1, 2, 4)).warnings == ()


class TestContradictions:
    def test_rows_without_checksum_are_taken_as_they_are(self, tmp_path: Path) -> None:
        migrations = files(tmp_path, "001")
        assert contradictions(migrations, [AppliedMigration(1, "1", "m001")]) == ([], [])

    def test_another_name_is_a_warning(self, tmp_path: Path) -> None:
        migrations = files(tmp_path, "001")
        found, warnings = contradictions(migrations, [AppliedMigration(1, "001", "other")])
        assert (found, len(warnings)) == ([], 1)

    def test_another_migration_of_the_same_number_is_no_edit(self, tmp_path: Path) -> None:
        migrations = files(tmp_path, "001")
        (problem,), _warnings = contradictions(migrations, [AppliedMigration(1, "001", "likes", None, "sha256:other")])
        assert problem.startswith("version 001 was applied as 001_likes, and 001_m001.up.sql is another migration")

    def test_holes_and_being_ahead_are_two_things(self, tmp_path: Path) -> None:
        migrations = files(tmp_path, 2)
        rows = [AppliedMigration(1, "1", "a"), AppliedMigration(2, "2", "m2"), AppliedMigration(3, "3", "c")]
        found, warnings = contradictions(migrations, rows)
        assert len(found) == 1 and found[0].startswith("1_a is applied, but its file is gone")
        assert len(warnings) == 1 and "ahead of the files by 3_c" in warnings[0]

    def test_no_files_at_all_is_an_older_release(self, tmp_path: Path) -> None:
        assert contradictions(files(tmp_path), [AppliedMigration(1, "1", "a")])[0] == []


class TestDown:
    def test_goes_back_in_the_order_of_application(self, tmp_path: Path) -> None:
        migrations = files(tmp_path, 1, 2, 3)
        rows = applied(migrations, 1, 3, 2)
        assert numbers(plan_down(migrations, rows, steps=2)) == [2, 3]
        assert numbers(plan_down(migrations, rows, target="1")) == [2, 3]
        assert numbers(plan_down(migrations, rows, target="2")) == [3]

    def test_zero_steps_and_reached_targets_are_nothing(self, tmp_path: Path) -> None:
        migrations = files(tmp_path, 1)
        assert plan_down(migrations, applied(migrations, 1), steps=0).steps == ()
        assert plan_down(migrations, applied(migrations, 1), target="1").steps == ()
        assert plan_down(migrations, [], target="0").steps == ()

    def test_more_steps_than_there_are(self, tmp_path: Path) -> None:
        migrations = files(tmp_path, 1)
        with pytest.raises(PlanError, match="only 1 are applied"):
            plan_down(migrations, applied(migrations, 1), steps=2)

    def test_without_files_it_is_refused(self, tmp_path: Path) -> None:
        migrations = files(tmp_path, 1)
        rows = [*applied(migrations, 1), AppliedMigration(2, "2", "gone")]
        with pytest.raises(PlanError, match="cannot be rolled back") as error:
            plan_down(migrations, rows, steps=2)
        assert "2_gone" in str(error.value)

    def test_loss_of_data_is_listed_with_its_places(self, tmp_path: Path) -> None:
        migrations = files(tmp_path, 1, 2, down="-- why\nDROP  TABLE\n t;\n")
        rows = applied(migrations, 1, 2)
        with pytest.raises(PlanError) as error:
            plan_down(migrations, rows, steps=2)
        assert error.value.evidence == ["2_m2.down.sql:2: DROP TABLE t", "1_m1.down.sql:2: DROP TABLE t"]
        assert len(plan_down(migrations, rows, steps=2, confirm_data_loss=True).steps) == 2


class TestRedo:
    def test_takes_back_and_applies_the_same_ones_in_their_order(self, tmp_path: Path) -> None:
        migrations = files(tmp_path, 1, 2, 3)
        plan = plan_redo(migrations, applied(migrations, 1, 3, 2), steps=2)
        assert [(step.migration.number, step.direction) for step in plan.steps] == [
            (2, "down"),
            (3, "down"),
            (2, "up"),
            (3, "up"),
        ]

    def test_a_changed_file_is_what_it_is_for(self, tmp_path: Path) -> None:
        migrations = files(tmp_path, 1, 2)
        rows = applied(migrations, 1, 2)
        (tmp_path / "2_m2.up.sql").write_text("SELECT 'better';\n")
        assert len(plan_redo(read_directory(tmp_path), rows, steps=1).steps) == 2
        (tmp_path / "1_m1.up.sql").write_text("SELECT 'worse';\n")
        with pytest.raises(PlanError, match="contradict"):
            plan_redo(read_directory(tmp_path), rows, steps=1)

    def test_zero_steps_are_nothing(self, tmp_path: Path) -> None:
        migrations = files(tmp_path, 1)
        assert plan_redo(migrations, applied(migrations, 1), steps=0).is_empty


class TestBaseline:
    def test_records_up_to_a_version_and_then_nothing(self, tmp_path: Path) -> None:
        migrations = files(tmp_path, 1, 2, 3)
        plan = plan_baseline(migrations, [], "2")
        assert [(it.action, it.number) for it in plan.corrections] == [("baseline", 1), ("baseline", 2)]
        assert plan.steps == ()
        then = after(plan, [])
        assert plan_baseline(migrations, then, "2").is_empty
        assert numbers(plan_up(migrations, then)) == [3]

    def test_an_interrupted_migration_is_not_taken_for_done(self, tmp_path: Path) -> None:
        migrations = files(tmp_path, 1)
        with pytest.raises(PlanError) as error:
            plan_baseline(migrations, [], unfinished=[Unfinished("1", "up", 1, "", "then")])
        assert "1 was interrupted after statement 1" in str(error.value)

    def test_an_unknown_version(self, tmp_path: Path) -> None:
        with pytest.raises(PlanError, match="no version '9'"):
            plan_baseline(files(tmp_path, 1), [], "9")


class TestRepair:
    def actions(self, plan: Plan) -> list[tuple[str, str]]:
        return [(it.action, it.version) for it in plan.corrections]

    def test_every_kind_at_once(self, tmp_path: Path) -> None:
        migrations = files(tmp_path, 1, 2, 3, 5)
        rows = [
            *applied(migrations, 1),
            AppliedMigration(2, "002", "m2", None, "sha256:other"),
            AppliedMigration(4, "4", "gone"),
        ]
        unfinished = [Unfinished("3", "up", 1, "", "then")]
        plan = plan_repair(migrations, rows, ["2", "3", "04"], unfinished)
        assert self.actions(plan) == [("accept", "002"), ("restart", "3"), ("forget", "4")]
        assert [row.number for row in after(plan, rows)] == [1, 2]

    def test_what_agrees_is_left_alone(self, tmp_path: Path) -> None:
        migrations = files(tmp_path, 1)
        (migration,) = migrations.migrations
        assert migration.down
        row = AppliedMigration(1, "1", "m1", checksum=migration.up.checksum, down_checksum=migration.down.checksum)
        assert plan_repair(migrations, [row], ["1"]).is_empty

    def test_what_cannot_be_repaired_is_told_at_once(self, tmp_path: Path) -> None:
        migrations = files(tmp_path, 1)
        with pytest.raises(PlanError) as error:
            plan_repair(migrations, [AppliedMigration(9, "9", "newer")], ["1", "7", "9", "x"])
        told = error.value.evidence
        assert [line.split(":")[0].split(" among")[0] for line in told] == [
            "1 is not applied",
            "There is no version '7'",
            "9 is newer than all files",
            "There is no version 'x'",
        ]


class TestAccount:
    def changed(self, directory: Path, before: str, now: str) -> str:
        path = directory / "1_a.up.sql"
        path.write_text(before)
        (migration,) = read_directory(directory).migrations
        row = AppliedMigration(
            1,
            "1",
            "a",
            "2026-01-02T03:04:05Z",
            migration.up.checksum,
            applied_by="ann",
            deployment_id="d7",
            statement_checksums=statement_checksums_of(migration.up),
        )
        path.write_text(now)
        problems, _warnings = contradictions(read_directory(directory), [row])
        return "\n".join(problems)

    def test_names_the_statements_that_differ(self, tmp_path: Path) -> None:
        told = self.changed(
            tmp_path, "SELECT 1;\nSELECT 2;\nSELECT 3;\n", "SELECT 1;\n-- new\nSELECT 22;\nSELECT 3;\nSELECT 4;\n"
        )
        lines = [line.strip() for line in told.splitlines()]
        assert lines[0].startswith(
            "1_a.up.sql was changed after it was applied at 2026-01-02T03:04:05Z by ann (deployment d7)"
        )
        assert [line[:9] for line in lines[1:3]] == ["- sha256:", "+ sha256:"]
        assert lines[3:] == [
            "- statement 2 of 3 as it was applied (its text is not kept)",
            "+ 1_a.up.sql:3: SELECT 22",
            "+ 1_a.up.sql:5: SELECT 4",
        ]

    def test_a_comment_is_no_change_of_a_statement(self, tmp_path: Path) -> None:
        told = self.changed(tmp_path, "SELECT 1;\n", "-- a linter's line\nSELECT 1;\n")
        assert told.endswith("only comments or white space around them differ")

    def test_hides_passwords(self, tmp_path: Path) -> None:
        told = self.changed(tmp_path, "SELECT 1;\n", "ALTER ROLE r PASSWORD 'hunter2';\n")
        assert "ALTER ROLE r PASSWORD" in told and "hunter2" not in told

    def test_a_file_that_cannot_be_split_any_more(self, tmp_path: Path) -> None:
        assert "1_a.up.sql:1: the string that begins here" in self.changed(tmp_path, "SELECT 1;\n", "SELECT 'open\n")


def test_what_a_script_sets_for_the_session_is_told(tmp_path: Path) -> None:
    text = "SET LOCAL work_mem = '1MB';\nSET search_path = x;\nset session TimeZone TO 'UTC';\nSELECT 1;\n"
    (tmp_path / "1_a.up.sql").write_text(text)
    (warning,) = plan_up(read_directory(tmp_path), []).warnings
    assert warning == "1_a.up.sql:2: SET search_path, TimeZone ends with this migration"


def test_a_way_back_that_could_not_be_taken_is_told_in_time(tmp_path: Path) -> None:
    (tmp_path / "1_a.up.sql").write_text("-- migrate:no-transaction\nCREATE INDEX CONCURRENTLY i ON a (b);\n")
    (tmp_path / "1_a.down.sql").write_text("DROP INDEX CONCURRENTLY i;\n")
    (warning,) = plan_up(read_directory(tmp_path), []).warnings
    assert warning.startswith("the way back cannot run as it is: 1_a.down.sql:1: DROP INDEX CONCURRENTLY cannot run")


def test_a_changed_way_back_is_told(tmp_path: Path) -> None:
    migrations = files(tmp_path, 1)
    (row,) = applied(migrations, 1)
    plan = plan_down(migrations, [replace(row, down_checksum="sha256:other")], steps=1)
    assert plan.warnings == ("the way back of 1_m1.down.sql was changed after it was applied; it runs as it is",)


@given(available=NUMBERS, done=NUMBERS)
def test_up_is_ordered_complete_and_idempotent(
    available: set[int], done: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    migrations = files(tmp_path_factory.mktemp("migrations"), *available)
    rows = applied(migrations, *sorted(available & done))
    plan = plan_up(migrations, rows, allow_out_of_order=True)
    assert numbers(plan) == sorted(available - done)
    then = after(plan, rows)
    assert {row.number for row in then} == available
    assert plan_up(migrations, then, allow_out_of_order=True).steps == ()
    assert pending(migrations, then) == []


@given(available=NUMBERS)
def test_down_is_up_backwards(available: set[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    migrations = files(tmp_path_factory.mktemp("migrations"), *available)
    up = numbers(plan_up(migrations, []))
    rows = applied(migrations, *up)
    assert numbers(plan_down(migrations, rows, steps=len(up))) == up[::-1]


def test_diff_hides_passwords_and_says_how(tmp_path: Path) -> None:
    (tmp_path / "1_a.up.sql").write_text("-- migrate:no-transaction\nALTER ROLE r PASSWORD 'hunter2';\n")
    text = diff_text(plan_up(read_directory(tmp_path), []))
    assert text.startswith("+++ 1_a.up.sql (outside a transaction)\n+-- migrate:no-transaction\n+ALTER ROLE r PASSWORD")
    assert "hunter2" not in text


def test_status_knows_every_state(tmp_path: Path) -> None:
    migrations = files(tmp_path, 1, 2, 3, 4)
    rows = [
        *applied(migrations, 1),
        AppliedMigration(2, "2", "m2", "2026-01-01T00:00:00Z", "sha256:other", 7, "ops"),
        AppliedMigration(9, "9", "ahead"),
    ]
    found = status(migrations, rows, [Unfinished("3", "up", 1, "", "then")])
    assert [item["state"] for item in found] == ["applied", "changed", "interrupted", "pending", "missing"]
    assert table(found)[:3] == [
        "version  name   state        applied at (UTC)      ms  by",
        "1        m1     applied",
        "2        m2     changed      2026-01-01T00:00:00Z  7   ops",
    ]


def test_schema_version_is_the_highest_number() -> None:
    assert schema_version([AppliedMigration(1, "10", "a"), AppliedMigration(2, "9", "b")]) == "10"
    assert schema_version([]) is None


def test_the_recorded_version_is_the_collections() -> None:
    assert f"\nversion: {TOOL_VERSION}\n" in (Path(__file__).parents[2] / "galaxy.yml").read_text()
