"""The servers that the other tests run on are the ones they are said to be."""

from __future__ import annotations

from collections.abc import Mapping

from postgresql_server import DISTRIBUTION, NEWEST, Server


def test_the_newest_server_is_newer_than_the_distributions(postgresql_servers: Mapping[str, Server]) -> None:
    versions = {
        name: int(postgresql_servers[name].execute("SHOW server_version_num")[0][0]) for name in (DISTRIBUTION, NEWEST)
    }
    assert versions[NEWEST] >= 180004
    assert versions[DISTRIBUTION] != versions[NEWEST]
    for name in versions:
        assert postgresql_servers[name].execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == [(True,)]
