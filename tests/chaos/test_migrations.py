"""Migrations of a release that must not run: refused before anything is changed, with traffic running."""

from __future__ import annotations

from pathlib import Path

import pytest
from demo import Fleet
from drill import OLD, build, deploy, run
from traffic import BackgroundTraffic

pytestmark = pytest.mark.slow


def releases() -> list[str]:
    """What lies on the hosts, one line for each host and entry."""
    command = 'ls -A /srv/roastify /srv/roastify/releases | sed "s/^/$(hostname) /"'
    status, log = run("releases", "ansible", "app", "-m", "ansible.builtin.shell", "-a", command)
    assert status == 0
    return sorted(log.read_text().partition("\n")[2].splitlines())


def edited(tree: Path) -> None:
    """The first migration says something else than what was applied."""
    path = tree / "migrations" / "001_initial_schema.up.sql"
    path.write_text(path.read_text() + "\nCREATE TABLE too_late (id int);\n")


def unsafe(tree: Path) -> None:
    """A new migration takes something away that the live release still reads."""
    (tree / "migrations" / "090_unsafe.up.sql").write_text("ALTER TABLE roasts DROP COLUMN id;\n")


def test_an_edited_migration_is_refused(fleet: Fleet, traffic: BackgroundTraffic) -> None:
    before = releases()
    status, output = deploy("edited", build(OLD, "edited", edited))
    assert status != 0
    assert "001_initial_schema.up.sql was changed after it was applied" in output
    assert "CREATE TABLE too_late (id int)" in output
    assert "nothing was changed" in output
    assert releases() == before
    assert set(fleet.versions().values()) == {OLD}


def test_an_unsafe_migration_is_refused_where_that_is_wanted(fleet: Fleet, traffic: BackgroundTraffic) -> None:
    before = releases()
    status, output = deploy("unsafe", build(OLD, "unsafe", unsafe), db_migrate_lint="fail")
    assert status != 0
    assert "ACCESS EXCLUSIVE on roasts" in output
    assert "ban-drop-column" in output
    assert releases() == before
    assert set(fleet.versions().values()) == {OLD}
