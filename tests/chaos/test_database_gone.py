"""The database is gone before, or goes during, the migration of a deployment.

A release without its database is not healthy, whichever it is: the load balancer is right to take hosts out, and
requests that need the database fail until it is back. What must not fail is what does not need it: every host serves
its pages without a break, and the release that was live stays live.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import drill
import pytest
from demo import Fleet
from drill import NEW, OLD, Visitors
from traffic import Target

pytestmark = pytest.mark.slow

STOP = "systemctl stop postgresql@15-main.service"
START = "systemctl start postgresql@15-main.service"


@pytest.fixture
def readers(fleet: Fleet, old_is_live: None) -> Iterator[Visitors]:
    """Visitors of each host who want its page only."""
    with Visitors(fleet, balanced=False, targets=(Target("GET", "/", expects="html"),)) as running:
        yield running
        assert running.failures(stop=True) == []


def slow(tree: Path) -> None:
    (tree / "migrations" / "090_slow.up.sql").write_text("SELECT pg_sleep(20);\n")
    (tree / "migrations" / "090_slow.down.sql").write_text("SELECT 1;\n")


def everything_is_as_before(fleet: Fleet, readers: Visitors, name: str) -> None:
    assert {one.version for one in drill.survey_all(fleet)} == {OLD}
    fleet.wait_for_balancer(60)
    deadline = time.monotonic() + 60
    while set(drill.served(fleet).values()) != {OLD}:
        assert time.monotonic() < deadline, drill.served(fleet)
        time.sleep(0.5)
    drill.require_all_is_well(fleet, readers, name)


def test_before_anything(fleet: Fleet, artifacts: dict[str, str], readers: Visitors, database: str) -> None:
    artifact = drill.variant(artifacts[NEW], "database-gone", slow, schemaVersion="090")
    with drill.fault(database, STOP, START):
        status, output = drill.deploy("database gone before", artifact)
    assert status != 0
    assert "Connection refused" in output or "could not connect" in output or "cannot be reached" in output, output
    everything_is_as_before(fleet, readers, "database gone before")


def test_right_before_the_migration(fleet: Fleet, artifacts: dict[str, str], readers: Visitors, database: str) -> None:
    artifact = drill.variant(artifacts[NEW], "database-gone", slow, schemaVersion="090")
    command = drill.playbook("deploy.yml", release_artifact=artifact, db_migrate_backup=False)
    try:
        status, _ = drill.meanwhile(
            "database gone late", command, "Put the release on the host", drill.on_host(database, STOP)
        )
    finally:
        drill.on(database, START)
    assert status != 0
    assert "090_slow" not in drill.on(database, "su postgres -c 'psql -d roastify -Atc \"TABLE migrations\"'")
    everything_is_as_before(fleet, readers, "database gone late")


def test_in_the_middle_of_the_migration(
    fleet: Fleet, artifacts: dict[str, str], readers: Visitors, database: str
) -> None:
    artifact = drill.variant(artifacts[NEW], "database-gone", slow, schemaVersion="090")
    run = drill.Run("database gone during", drill.playbook("deploy.yml", release_artifact=artifact))
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(20)%' AND pid <> pg_backend_pid()"
    deadline = time.monotonic() + 180
    while drill.on(database, f'su postgres -c "psql -Atc \\"{sleeping}\\""').strip() == "0":
        assert time.monotonic() < deadline and run.process.poll() is None, run.said
        time.sleep(0.2)
    with drill.fault(database, "pkill -QUIT -o -x postgres; sleep 1", f"systemctl reset-failed; {START}"):
        status = run.wait()
    assert status != 0
    assert "090_slow" not in drill.on(database, "su postgres -c 'psql -d roastify -Atc \"TABLE migrations\"'")
    everything_is_as_before(fleet, readers, "database gone during")
