"""Rollbacks: to the right release or a clear refusal, and nothing that serves or could serve is ever removed."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import drill
import pytest
from demo import Fleet
from drill import NEW, OLD, Visitors

pytestmark = pytest.mark.slow


def live(fleet: Fleet) -> str:
    found = {one.live for one in drill.survey_all(fleet)}
    assert len(found) == 1, found
    return found.pop()


def deployed(name: str, artifact: str, fleet: Fleet, **variables: object) -> str:
    status, output = drill.deploy(name, artifact, **variables)
    assert status == 0, output
    return live(fleet)


def test_twice_forth_and_to_named_releases(fleet: Fleet, artifacts: dict[str, str], visitors: Visitors) -> None:
    first = live(fleet)
    second = deployed("rollbacks, second", artifacts[NEW], fleet)
    status, output = drill.deploy_environment("rollbacks, third")
    assert status == 0, output
    third = live(fleet)
    assert len({first, second, third}) == 3

    def goes_to(wanted: str, name: str, **variables: object) -> None:
        status, output = drill.roll_back(name, **variables)
        assert status == 0, output
        assert live(fleet) == wanted, output

    goes_to(second, "rollbacks, once")
    goes_to(first, "rollbacks, twice")
    goes_to(third, "rollbacks, forth to a named one", release=third)
    goes_to(first, "rollbacks, to a version", release=OLD)
    goes_to(second, "rollbacks, to an id", release=second)
    for name, release in (("nonsense", "9.9.9"), ("a path", "../../etc")):
        before = live(fleet)
        status, output = drill.roll_back(f"rollbacks, {name}", release=release)
        assert status != 0
        assert "is not on this host" in output
        assert live(fleet) == before
    drill.require_all_is_well(fleet, visitors, "rollbacks")


@pytest.mark.parametrize(
    ("name", "batches", "moment", "occurrence"),
    [
        ("after its switch", ["100%"], ": Record the success", 1),
        ("on a part of the fleet", [1], ": Switch to the release", 2),
    ],
)
def test_a_killed_one_is_ended_by_the_same_command_and_goes_no_further(
    fleet: Fleet,
    artifacts: dict[str, str],
    visitors: Visitors,
    name: str,
    batches: list[object],
    moment: str,
    occurrence: int,
) -> None:
    target = deployed(f"killed {name}, new", artifacts[NEW], fleet)
    status, output = drill.deploy_environment(f"killed {name}, environment")
    assert status == 0, output
    command = drill.playbook("rollback.yml", rollback_batches=batches)
    status, output = drill.meanwhile(f"killed {name}", command, moment, "kill -9 $PPID", occurrence)
    assert status == -signal.SIGKILL, output
    status, output = drill.roll_back(f"killed {name}, again")
    assert status == 0, output
    assert live(fleet) == target, output
    drill.require_all_is_well(fleet, visitors, f"killed {name}")


def test_one_kept_release_is_two_and_a_pruned_one_is_refused(
    fleet: Fleet, artifacts: dict[str, str], visitors: Visitors
) -> None:
    pruned = live(fleet)
    middle = deployed("keep 1, new", artifacts[NEW], fleet, app_release_keep=1)
    status, output = drill.deploy_environment("keep 1, environment", app_release_keep=1)
    assert status == 0, output
    last = live(fleet)
    assert all(set(one.found["releases"]) == {middle, last} for one in drill.survey_all(fleet))
    status, output = drill.roll_back("keep 1, pruned", release=pruned)
    assert status != 0 and "is not on this host" in output
    assert live(fleet) == last
    status, output = drill.roll_back("keep 1, back")
    assert status == 0, output
    assert live(fleet) == middle
    drill.require_all_is_well(fleet, visitors, "keep 1")


def test_what_failed_is_no_target(fleet: Fleet, artifacts: dict[str, str], visitors: Visitors) -> None:
    first = live(fleet)
    deployed("failed target, new", artifacts[NEW], fleet)
    bad = drill.variant(artifacts[NEW], "failed-target", drill.begins_with("process.exit(3);"))
    status, output = drill.deploy("failed target, bad", bad)
    assert status != 0, output
    # The newest: drills before have left others, of which some could serve.
    failed = max(
        name.removesuffix(".json")
        for name, state in drill.survey(next(iter(fleet.hosts))).found["states"].items()
        if state["state"] == "failed"
    )
    status, output = drill.roll_back("failed target, back", app_release_keep=20)
    assert status == 0, output
    assert live(fleet) == first
    # By its name it may be tried; it is gated like any other, and does not get through.
    status, output = drill.roll_back("failed target, named", release=failed)
    assert status != 0
    assert "exit code 3" in output
    assert live(fleet) == first
    drill.require_all_is_well(fleet, visitors, "failed target")


def with_a_table(tree: Path) -> None:
    (tree / "migrations" / "092_tastings.up.sql").write_text("CREATE TABLE tastings (id integer PRIMARY KEY);\n")
    (tree / "migrations" / "092_tastings.down.sql").write_text("DROP TABLE tastings;\n")


def with_two_tables(tree: Path) -> None:
    with_a_table(tree)
    (tree / "migrations" / "093_tasters.up.sql").write_text("CREATE TABLE tasters (id integer PRIMARY KEY);\n")
    (tree / "migrations" / "093_tasters.down.sql").write_text("DROP TABLE tasters;\n")


def tables(database: str) -> str:
    return drill.on(database, "su postgres -c 'psql -d roastify -Atc \\\\dt'")


def test_with_the_schema_as_well(fleet: Fleet, artifacts: dict[str, str], visitors: Visitors, database: str) -> None:
    def has_table() -> bool:
        return "tastings" in tables(database)

    first = live(fleet)
    newer = drill.variant(artifacts[NEW], "with-a-table", with_a_table, schemaVersion="092")
    second = deployed("schema as well, new", newer, fleet)
    assert has_table()
    # What would be refused after the switch is refused before it.
    before = [one.found for one in drill.survey_all(fleet)]
    status, output = drill.roll_back("schema as well, unconfirmed", rollback_migrations=True)
    assert status != 0
    assert "092_tastings.down.sql" in output and "db_migrate_confirm_data_loss=true" in output
    assert [one.found for one in drill.survey_all(fleet)] == before
    assert has_table()
    status, output = drill.roll_back(
        "schema as well", rollback_migrations=True, db_migrate_confirm_data_loss=True, release=first
    )
    assert status == 0, output
    assert live(fleet) == first
    assert not has_table()
    # And forth again, with the migration.
    status, output = drill.deploy("schema as well, forth", newer)
    assert status == 0, output
    assert live(fleet) == second and has_table()
    status, output = drill.roll_back(
        "schema as well, again", rollback_migrations=True, db_migrate_confirm_data_loss=True
    )
    assert status == 0, output
    assert live(fleet) == first and not has_table()
    drill.require_all_is_well(fleet, visitors, "schema as well")


def test_with_half_of_the_schema_gone_the_older_release_stays(
    fleet: Fleet, artifacts: dict[str, str], visitors: Visitors, database: str
) -> None:
    first = live(fleet)
    newer = drill.variant(artifacts[NEW], "with-two-tables", with_two_tables, schemaVersion="093")
    second = deployed("half of the schema, new", newer, fleet)
    lock = "BEGIN; LOCK TABLE tastings IN ACCESS SHARE MODE; SELECT pg_sleep(300)"
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(300)'"
    with drill.fault(
        database,
        f"su postgres -c 'psql -d roastify -c \"{lock}\"' >/dev/null 2>&1 &",
        f'su postgres -c "psql -Atc \\"{end}\\""',
    ):
        status, output = drill.roll_back(
            "half of the schema",
            rollback_migrations=True,
            db_migrate_confirm_data_loss=True,
            db_migrate_lock_timeout=1,
            db_migrate_lock_retries=0,
            release=first,
        )
    said = " ".join(output.split())
    assert status != 0
    assert f"keeps the older release {first}, since migrations of {second} were rolled back" in said
    assert "tastings" in tables(database) and "tasters" not in tables(database)
    assert live(fleet) == first
    # What it says is what helps.
    remedy = re.search(r"-e migrate_rollback_to=(\S+) -e db_migrate_directory=(\S+)", said)
    assert remedy, said
    status, log = drill.run(
        "half of the schema, the rest",
        *drill.playbook(
            "playbooks/migrate.yml",
            migrate_rollback_to=remedy[1],
            db_migrate_directory=remedy[2],
            db_migrate_confirm_data_loss=True,
        ),
    )
    assert status == 0, log.read_text()
    assert "tastings" not in tables(database)
    drill.require_all_is_well(fleet, visitors, "half of the schema")


@pytest.mark.parametrize(
    ("name", "cause", "said"),
    [
        ("a directory", "mkdir current && touch current/precious", "is not a symbolic link"),
        ("dangling", "ln -s releases/20200101T000000Z-0.0.0-none current", "which is no complete release"),
        ("outside", "ln -s /etc current", "which is no complete release"),
    ],
)
@pytest.mark.parametrize("playbook", ["rollback.yml", "deploy.yml"])
def test_a_link_that_is_not_ours_is_refused_with_a_remedy(
    fleet: Fleet, artifacts: dict[str, str], visitors: Visitors, playbook: str, name: str, cause: str, said: str
) -> None:
    host = list(fleet.hosts)[1]
    before = drill.survey(host)
    aside = "cd /srv/roastify && mv -T current /run/current.aside"
    back = "cd /srv/roastify && rm -rf current && mv -T /run/current.aside current"
    variables = {"release_artifact": artifacts[NEW]} if playbook == "deploy.yml" else {"release": OLD}
    with drill.fault(host, f"{aside} && {cause}", back):
        status, log = drill.run(f"link {name}, {playbook}", *drill.playbook(playbook, **variables))
        if name == "a directory":
            drill.on(host, "test -e /srv/roastify/current/precious")
        assert drill.survey(host).found["releases"] == before.found["releases"]
    output = " ".join(log.read_text().split())
    assert status != 0
    assert said in output
    assert "What to do" in output or "move it aside" in output or "ln -sfn" in output
    assert drill.survey(host).found == before.found
    assert set(drill.served(fleet).values()) == {OLD}
    assert visitors.failures() == []
