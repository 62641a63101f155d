"""The modules and the role, called by Ansible against a real PostgreSQL."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from migration_host import Host, role
from postgresql_server import PASSWORD


def migrate(host: Host, name: str = "Migrate", **options: Any) -> dict[str, Any]:
    arguments = {"directory": str(host.migrations), "env_file": str(host.env_file), **options}
    return {"name": name, "roastify.ops.pg_migrate": arguments, "ignore_errors": True}


def test_plan_apply_again_status_and_rollback(host: Host) -> None:
    host.write("001_a.up.sql", "CREATE TABLE a (id int);\n")
    host.write("001_a.down.sql", "DROP TABLE a;\n")
    host.write("002_b.up.sql", "CREATE ROLE nobody_here PASSWORD 'hunter2'; DROP ROLE nobody_here;\n")

    plan = host.play(migrate(host), check=True).tasks["Migrate"]
    assert plan["changed"]
    assert plan["diff"]["prepared"].startswith("+++ 001_a.up.sql\n+CREATE TABLE a (id int);\n+++ 002_b.up.sql\n")
    assert "hunter2" not in plan["diff"]["prepared"]
    assert (plan["applied"], plan["schema_version"], plan["schema_version_before"]) == ([], "002", None)
    assert host.database.tables() == []

    info = {"directory": str(host.migrations), "env_file": str(host.env_file)}
    result = host.play(
        migrate(host, "First", applied_by="somebody", deployment_id="d7"),
        migrate(host, "Second"),
        {"name": "Look", "roastify.ops.pg_migrate_info": info},
        migrate(host, "Refused", state="rolled_back", target="0"),
    )
    first, second, status = (result.tasks[name] for name in ("First", "Second", "Look"))
    assert [it["version"] for it in first["applied"]] == ["001", "002"]
    assert (first["changed"], first["schema_version"], first["pending"]) == (True, "002", [])
    assert PASSWORD not in result.text
    assert host.database.query("SELECT DISTINCT applied_by, deployment_id FROM migrations") == [("somebody", "d7")]
    assert (second["changed"], second["applied"], second["plan"]) == (False, [], [])
    assert [(it["version"], it["state"], it["has_down"]) for it in status["migrations"]] == [
        ("001", "applied", True),
        ("002", "applied", False),
    ]
    assert status["lines"][1].startswith("001      a     applied")
    assert "002_b.up.sql: has no down script" in result.tasks["Refused"]["msg"]

    host.write("002_b.down.sql", "")
    back = host.play(migrate(host, state="rolled_back", target="0", confirm_data_loss=True)).tasks["Migrate"]
    assert [it["version"] for it in back["rolled_back"]] == ["002", "001"]
    assert (back["schema_version"], back["pending"]) == (None, ["001_a.up.sql", "002_b.up.sql"])


def test_a_failure_tells_what_was_done_and_where_it_stopped(host: Host) -> None:
    host.write("001_a.up.sql", "CREATE TABLE a (id int);\n")
    host.write("002_b.up.sql", "\nSELECT nothing;\n")
    result = host.play(migrate(host))
    task = result.tasks["Migrate"]
    assert task["failed"]
    assert task["changed"]
    assert [it["version"] for it in task["applied"]] == ["001"]
    assert task["failure"]["file"] == "002_b.up.sql"
    assert (task["failure"]["line"], task["failure"]["sqlstate"]) == (2, "42703")
    assert "002_b.up.sql, line 2: 42703" in task["msg"]


def test_bad_input_is_told_and_changes_nothing(host: Host) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"directory": "/nonexistent"}, "cannot be read from /nonexistent: No such file"),
        ({"env_file": "/nonexistent"}, "environment file /nonexistent cannot be read"),
        ({"state": "rolled_back"}, "any of the following are missing: target, steps"),
        ({"state": "rolled_back", "steps": -1}, "steps cannot be negative"),
        ({"steps": 1}, "steps is for state=rolled_back"),
        ({"target": "seven"}, "no version 'seven'"),
        ({"password": "wr0ng-word"}, "password authentication failed"),
    ]
    host.write("001_a.up.sql", "CREATE TABLE a (id int);\n")
    result = host.play(*(migrate(host, message, **options) for options, message in cases))
    for _options, message in cases:
        assert result.tasks[message]["failed"]
        assert message in result.tasks[message]["msg"]
    assert host.database.tables() == []
    assert PASSWORD not in result.text


class TestRole:
    def test_backs_up_applies_and_then_changes_nothing(self, host: Host) -> None:
        host.write("001_a.up.sql", "CREATE TABLE a (id int); INSERT INTO a VALUES (1);\n")
        host.write("001_a.down.sql", "DROP TABLE a;\n")

        planned = host.play(role("main"), check=True)
        assert planned.status == 0, planned.text
        assert host.database.tables() == []
        assert not (host.directory / "backups").exists()

        first = host.play(role("main"), variables={"db_migrate_deployment_id": "d1"})
        assert first.status == 0, first.text
        assert host.database.tables() == ["a", "migrations"]
        assert host.database.query("SELECT applied_by, deployment_id FROM migrations") == [("ops", "d1")]
        (backup,) = (host.directory / "backups").iterdir()
        assert backup.name.endswith("-d1.dump")
        assert (backup.stat().st_mode & 0o777, backup.parent.stat().st_mode & 0o777) == (0o600, 0o700)

        second = host.play(role("main"))
        assert (second.status, second.stats["changed"]) == (0, 0)
        assert len(list((host.directory / "backups").iterdir())) == 1
        assert "001      a     applied" in host.play(role("status")).text

        refused = host.play(role("rollback"))
        assert "set either db_migrate_rollback_steps" in refused.text
        refused = host.play(role("rollback"), variables={"db_migrate_rollback_steps": 1})
        assert "would destroy data" in refused.text
        everything = {"db_migrate_rollback_to": "0", "db_migrate_confirm_data_loss": True}
        back = host.play(role("rollback"), variables=everything)
        assert back.status == 0, back.text
        assert host.database.tables() == ["migrations"]
        assert PASSWORD not in first.text + second.text + back.text

        latest = sorted((host.directory / "backups").iterdir())[-1]
        options = host.database.options
        subprocess.run(
            ["pg_restore", "--clean", "--if-exists", f"--dbname={options.database}", str(latest)],
            check=True,
            env={**os.environ, **options.environment()},
        )
        assert host.database.query("SELECT id FROM a") == [(1,)]

    def test_a_failing_backup_stops_it(self, host: Host) -> None:
        host.write("001_a.up.sql", "CREATE TABLE a (id int);\n")
        (host.directory / "backups").write_text("in the way")
        result = host.play(role("main"))
        assert result.status != 0
        assert "No backup can be written" in result.text
        assert host.database.tables() == []

    def test_explicit_options_win_over_the_file(self, host: Host) -> None:
        host.write_env(PG_USER="nobody", PG_PASSWORD="nothing-of-worth")
        variables = {
            "db_migrate_user": "admin",
            "db_migrate_password": PASSWORD,
            "db_migrate_backup": False,
            "db_migrate_table": "history",
        }
        result = host.play(role("main"), variables=variables)
        assert result.status == 0, result.text
