"""Migrations of a release that must not run: refused before anything is changed, with traffic running."""

from __future__ import annotations

from pathlib import Path

import pytest
from demo import Fleet
from drill import OLD, Visitors, build, deploy, on, served

pytestmark = pytest.mark.slow


def releases(fleet: Fleet) -> dict[str, str]:
    """What lies on the hosts."""
    return {host: on(host, "ls -A /srv/roastify /srv/roastify/releases") for host in fleet.hosts}


def edited(tree: Path) -> None:
    """The first migration says something else than what was applied."""
    path = tree / "migrations" / "001_initial_schema.up.sql"
    path.write_text(path.read_text() + "\nCREATE TABLE too_late (id int);\n")


def unsafe(tree: Path) -> None:
    """A new migration takes something away that the live release still reads."""
    (tree / "migrations" / "090_unsafe.up.sql").write_text("ALTER TABLE roasts DROP COLUMN id;\n")


def test_an_edited_migration_is_refused(fleet: Fleet, visitors: Visitors) -> None:
    before = releases(fleet)
    status, output = deploy("edited", build(OLD, "edited", edited))
    assert status != 0
    assert "001_initial_schema.up.sql was changed after it was applied" in output
    assert "CREATE TABLE too_late (id int)" in output
    assert "nothing was changed" in output
    assert releases(fleet) == before
    assert set(served(fleet).values()) == {OLD}
    assert visitors.failures() == []


def test_an_unsafe_migration_is_refused_where_that_is_wanted(fleet: Fleet, visitors: Visitors) -> None:
    before = releases(fleet)
    status, output = deploy("unsafe", build(OLD, "unsafe", unsafe), db_migrate_lint="fail")
    assert status != 0
    assert "ACCESS EXCLUSIVE on roasts" in output
    assert "ban-drop-column" in output
    assert releases(fleet) == before
    assert set(served(fleet).values()) == {OLD}
    assert visitors.failures() == []
