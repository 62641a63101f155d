"""Fixtures for the tests that need real services."""

from postgresql_server import database, postgresql_server

__all__ = ["database", "postgresql_server"]
