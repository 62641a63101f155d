"""The entry points of the role db_migrate beside applying and rolling back, against a real PostgreSQL."""

from __future__ import annotations

import json
from typing import Any

from migration_host import Host, Result, role


def task(result: Result, name: str) -> dict[str, Any]:
    """What the task of this name came to."""
    return next(told for known, told in result.tasks.items() if known.endswith(name))


def pair(host: Host, version: str, table: str) -> None:
    host.write(f"{version}_{table}.up.sql", f"CREATE TABLE {table} (id int);\n")
    host.write(f"{version}_{table}.down.sql", f"DROP TABLE {table};\n")


def test_baseline_apply_repair_redo(host: Host) -> None:
    for version, table in (("001", "a"), ("002", "b"), ("003", "c")):
        pair(host, version, table)
    host.database.query("CREATE TABLE a (id int); CREATE TABLE b (id int)")

    refused = host.play(role("baseline"))
    assert "set db_migrate_baseline" in refused.text
    baseline = host.play(role("baseline"), variables={"db_migrate_baseline": "002"})
    assert baseline.status == 0, baseline.text
    assert [it["version"] for it in task(baseline, "Run")["corrected"]] == ["001", "002"]
    again = host.play(role("baseline"), variables={"db_migrate_baseline": "002"})
    assert (again.status, again.stats["changed"]) == (0, 0)
    # No backup for a change of records alone.
    assert not (host.directory / "backups").exists()

    applied = host.play(role("main"))
    assert [it["version"] for it in task(applied, "Run")["applied"]] == ["003"]

    host.write("001_a.up.sql", "-- a linter's header\nCREATE TABLE a (id int);\n")
    stopped = host.play(role("main"))
    assert stopped.status != 0
    assert "only comments or white space around them differ" in stopped.text
    assert "list the versions to repair in db_migrate_repair" in host.play(role("repair")).text
    repaired = host.play(role("repair"), variables={"db_migrate_repair": ["001"]})
    assert (repaired.status, repaired.stats["changed"]) == (0, 1), repaired.text
    again = host.play(role("repair"), variables={"db_migrate_repair": ["001"]})
    assert (again.status, again.stats["changed"]) == (0, 0)
    assert host.play(role("main")).stats["changed"] == 0

    host.write("003_c.up.sql", "CREATE TABLE c (id bigint);\n")
    redone = host.play(role("redo"), variables={"db_migrate_redo_steps": 1, "db_migrate_confirm_data_loss": True})
    assert redone.status == 0, redone.text
    assert host.database.query("SELECT data_type FROM information_schema.columns WHERE table_name = 'c'") == [
        ("bigint",)
    ]

    status = host.play(role("status"), variables={"db_migrate_status_format": "json"})
    told = task(status, "Show it")["msg"]
    told = told if isinstance(told, dict) else json.loads(told)
    assert (told["schema_version"], told["pending"], told["problems"]) == ("003", [], [])
    assert [it["state"] for it in told["migrations"]] == ["applied"] * 3


def test_what_is_applied_is_known_before_anything_is_there(host: Host) -> None:
    host.env_file.rename(host.directory / "later")
    unknown = task(host.play(role("known")), "Read what is applied")
    assert (unknown["ready"], unknown["applied"], unknown["server_version"]) == (False, [], None)

    (host.directory / "later").rename(host.env_file)
    pair(host, "001", "a")
    host.play(role("main"))
    known = task(host.play(role("known")), "Read what is applied")
    assert (known["ready"], known["schema_version"]) == (True, "001")
    assert [(it["version"], it["name"], it["checksum"][:7]) for it in known["applied"]] == [("001", "a", "sha256:")]
    assert known["server_version"].split(".")[0].isdigit()

    host.write_env(PG_PASSWORD="not this one")
    refused = host.play(role("known"))
    assert refused.status != 0 and "password authentication failed" in refused.text
