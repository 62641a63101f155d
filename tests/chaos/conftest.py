from __future__ import annotations

import pytest
from demo import Fleet
from drill import NEW, OLD, build, run


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
