"""What is to run, decided from files and tracking table."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.roastify.ops.plugins.module_utils.migration_files import MigrationSet, read_directory
from ansible_collections.roastify.ops.plugins.module_utils.migration_plan import (
    AppliedMigration,
    Plan,
    PlanError,
    Unfinished,
    after,
    contradictions,
    diff_text,
    pending,
    plan_down,
    plan_up,
    schema_version,
    status,
    table,
)
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
