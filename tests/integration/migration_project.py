"""A directory of migrations and the database they are for, for the tests of the runner."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.roastify.ops.plugins.module_utils.migration_files import read_directory
from ansible_collections.roastify.ops.plugins.module_utils.migration_plan import (
    Plan,
    plan_baseline,
    plan_down,
    plan_redo,
    plan_repair,
    plan_up,
)
from ansible_collections.roastify.ops.plugins.module_utils.migration_runner import Runner
from ansible_collections.roastify.ops.plugins.module_utils.migration_session import RunOptions
from postgresql_server import TestDatabase


class Project:
    """A directory of migrations and the database they are for."""

    def __init__(self, directory: Path, database: TestDatabase) -> None:
        self.directory = directory
        self.database = database
        self.options = RunOptions(applied_by="ops", deployment_id="d1", lock_timeout=0.2, lock_retries=1)
        self.runner: Runner | None = None

    def write(self, name: str, sql: str | bytes = "") -> Path:
        path = self.directory / name
        path.write_bytes(sql if isinstance(sql, bytes) else sql.encode())
        return path

    def up(self, target: str = "latest", **changes: object) -> list[str]:
        """Apply; the versions that were applied."""
        return self._run(
            lambda state: plan_up(
                read_directory(self.directory), state.applied, target=target, unfinished=state.unfinished
            ),
            **changes,
        )

    def down(self, steps: int | None = None, target: str | None = None, confirm: bool = True) -> list[str]:
        """Roll back; the versions that were rolled back."""
        return self._run(
            lambda state: plan_down(
                read_directory(self.directory), state.applied, steps, target, confirm, state.unfinished
            )
        )

    def redo(self, steps: int | None = None, target: str | None = None, confirm: bool = True) -> list[str]:
        """Roll back and apply again; the versions in the order of what was done."""
        return self._run(
            lambda state: plan_redo(
                read_directory(self.directory), state.applied, steps, target, confirm, state.unfinished
            )
        )

    def baseline(self, target: str = "latest") -> list[str]:
        """Record without running; the versions that were recorded."""
        self._run(lambda state: plan_baseline(read_directory(self.directory), state.applied, target, state.unfinished))
        return self.corrected()

    def repair(self, *versions: str) -> list[str]:
        """Settle contradictions; the versions that were settled."""
        self._run(lambda state: plan_repair(read_directory(self.directory), state.applied, versions, state.unfinished))
        return self.corrected()

    def corrected(self) -> list[str]:
        """What the last run changed in the tracking table without running a script."""
        return [it.version for it in self.runner.corrected] if self.runner else []

    def _run(self, make_plan: Callable[..., Plan], **changes: object) -> list[str]:
        self.runner = Runner(self.database.options, replace(self.options, **changes), sleep=lambda _s: time.sleep(0.01))
        with self.runner as runner:
            runner.run(make_plan)
        return [done.step.migration.version for done in self.runner.done]

    def recorded(self) -> list[str]:
        if "migrations" not in self.database.tables():
            return []
        return [version for (version,) in self.database.query("SELECT version FROM migrations ORDER BY id")]


@pytest.fixture
def project(tmp_path: Path, database: TestDatabase) -> Iterator[Project]:
    directory = tmp_path / "migrations"
    directory.mkdir()
    yield Project(directory, database)


def pair(project: Project, version: str, table: str) -> None:
    project.write(f"{version}_{table}.up.sql", f"CREATE TABLE {table} (id int);\n")
    project.write(f"{version}_{table}.down.sql", f"DROP TABLE {table};\n")
