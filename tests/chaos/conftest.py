from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("drill")

from demo import Fleet  # noqa: E402
from drill import DIRECTORY, INVENTORY, NEW, OLD, Visitors, another_environment, build, deploy, leftovers, run, served  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes minutes and needs the fleet of the drills")


@pytest.fixture(scope="session")
def fleet() -> Fleet:
    found = Fleet.from_inventory(str(INVENTORY), DIRECTORY)
    machines = run("ping", "ansible", "machines", "-m", "ansible.builtin.ping", "-T", "5")[0]
    if machines != 0:
        # Whoever names a fleet wants it drilled.
        assert "CHAOS_INVENTORY" not in os.environ, f"{INVENTORY}: not every machine answers"
        pytest.skip("the fleet of the drills is not up: make chaos raises it")
    return found


@pytest.fixture(scope="session")
def artifacts() -> dict[str, str]:
    """Built artifacts of two versions, by version."""
    return {version: build(version) for version in (OLD, NEW)}


@pytest.fixture
def old_is_live(fleet: Fleet, artifacts: dict[str, str]) -> None:
    """The old version serves; a deployment alone must get there, whatever the drill before has left."""
    if set(served(fleet).values()) != {OLD}:
        status, output = deploy("old is live", artifacts[OLD])
        assert status == 0, output
    elif leftovers(fleet):
        # Releases of one version may differ: which of them is meant has to be said then.
        status, output = deploy("old is whole", artifacts[OLD], app_jwt_secret=another_environment())
        assert status == 0, output
    fleet.wait_for_balancer()
    assert set(served(fleet).values()) == {OLD}
    assert leftovers(fleet) == []


@pytest.fixture
def visitors(fleet: Fleet, old_is_live: None) -> Iterator[Visitors]:
    """Traffic from before the drill to its end, of which no request may fail."""
    with Visitors(fleet) as running:
        yield running
        failures = running.failures(stop=True)
        assert not failures, "\n".join(failures)
        assert all(report.served > 0 for report in running.total().values())


@pytest.fixture
def database() -> str:
    """Name of the database server."""
    return next(
        line.split()[0]
        for line in run("database", "ansible", "database", "--list-hosts")[1].read_text().splitlines()
        if line.startswith("    ")
    )
