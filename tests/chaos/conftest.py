from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from demo import Fleet
from drill import NEW, OLD, build, deploy, run
from traffic import BackgroundTraffic


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes minutes and needs the sandbox fleet")


@pytest.fixture(scope="session")
def fleet() -> Fleet:
    found = Fleet.from_inventory()
    machines = run("ping", "ansible", "app:balancer:database", "-m", "ansible.builtin.ping", "-T", "5")[0]
    if machines != 0:
        pytest.skip("the sandbox fleet is not up: ansible-playbook playbooks/sandbox.yml, then setup.yml")
    return found


@pytest.fixture(scope="session")
def artifacts() -> dict[str, str]:
    """Built artifacts of two versions, by version."""
    return {version: build(version) for version in (OLD, NEW)}


@pytest.fixture
def old_is_live(fleet: Fleet, artifacts: dict[str, str]) -> None:
    status, output = deploy("old is live", artifacts[OLD])
    assert status == 0, output
    fleet.wait_for_balancer()
    assert set(fleet.versions().values()) == {OLD}


@pytest.fixture
def traffic(fleet: Fleet, old_is_live: None) -> Iterator[BackgroundTraffic]:
    with BackgroundTraffic(fleet.url, 200) as running:
        time.sleep(1)
        yield running
        report = running.stop()
        assert report.served > 0
        assert report.failed == 0, [str(event) for event in report.events]
