"""Fixtures for the tests that need real services."""

import importlib

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import postgresql_driver
from migration_host import host
from migration_project import project
from moto_server import moto
from postgresql_server import database, postgresql_server, postgresql_servers

__all__ = ["database", "each_driver", "host", "moto", "postgresql_server", "postgresql_servers", "project"]


@pytest.fixture(params=postgresql_driver.DRIVERS)
def each_driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test once with each driver of PostgreSQL, also in the processes that it starts."""
    importlib.import_module(request.param)
    monkeypatch.setenv(postgresql_driver.CHOICE, request.param)
    return str(request.param)
