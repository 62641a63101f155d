"""Fixtures for the tests that need real services."""

import importlib

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import postgresql_driver
from migration_host import host
from migration_project import project
from moto_server import moto
from postgresql_server import database, postgresql_server, postgresql_servers

__all__ = ["database", "each_driver", "host", "moto", "postgresql_server", "postgresql_servers", "project"]


#: Files whose tests have nothing in common, and take so long that the other processes would wait for the last of them.
SPREAD = ("test_way_back.py",)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes test (``--dist loadgroup``), each file is one's, for the sake of the servers in it."""
    for item in items:
        if item.path.name not in SPREAD:
            item.add_marker(pytest.mark.xdist_group(item.path.name))


@pytest.fixture(params=postgresql_driver.DRIVERS)
def each_driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test once with each driver of PostgreSQL, also in the processes that it starts."""
    importlib.import_module(request.param)
    monkeypatch.setenv(postgresql_driver.CHOICE, request.param)
    return str(request.param)
