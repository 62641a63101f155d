"""Connection options: where they come from and what they never show."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.roastify.ops.plugins.module_utils.postgresql import (
    ConnectionOptions,
    EnvironmentFileError,
    from_environment,
    from_environment_file,
)

SECRET = "p#/%@ ss"


class TestEnvironment:
    def test_reads_the_applications_file(self, tmp_path: Path) -> None:
        path = tmp_path / ".env"
        path.write_text(
            f"NODE_ENV=production\nPG_HOST=db.internal\nPG_PORT=6432\nPG_DATABASE=shop\nPG_USER=owner\n"
            f"PG_PASSWORD='{SECRET}'\nPG_SSL=true\nPG_SSL_CA=/etc/ssl/ca.crt\n"
        )
        assert from_environment_file(path) == ConnectionOptions(
            "db.internal", 6432, "shop", "owner", SECRET, "verify-full", "/etc/ssl/ca.crt"
        )

    @pytest.mark.parametrize(
        ("values", "mode"),
        [
            ({}, None),
            ({"PG_SSL": "false"}, "disable"),
            ({"PG_SSL": ""}, "disable"),
            ({"PG_SSL": "true"}, "verify-full"),
            ({"PG_SSL": "TRUE", "PG_SSL_CA": "/ca"}, "verify-full"),
            ({"PG_SSL": "require"}, "require"),
            ({"PG_SSL": "verify-ca", "PG_SSL_CA": "/ca"}, "verify-ca"),
            ({"PG_SSL_CA": "/ca"}, "verify-full"),
        ],
    )
    def test_tls(self, values: dict[str, str], mode: str | None) -> None:
        assert from_environment(values).ssl_mode == mode

    @pytest.mark.parametrize("values", [{"PG_SSL": "maybe"}, {"PG_PORT": "x"}, {"PG_PORT": "0"}, {"PG_PORT": "65536"}])
    def test_refuses(self, values: dict[str, str]) -> None:
        with pytest.raises(EnvironmentFileError):
            from_environment(values)

    def test_explicit_options_win(self) -> None:
        options = ConnectionOptions(user="owner", port=5433).over(ConnectionOptions(host="db", port=1, user="app"))
        assert (options.host, options.port, options.user) == ("db", 5433, "owner")


class TestSecrets:
    options = ConnectionOptions("db", 5432, "shop", "owner", SECRET)

    def test_are_in_no_text(self) -> None:
        assert SECRET not in repr(self.options) + str(self.options)
        assert str(self.options) == 'database "shop" at db:5432 as "owner"'

    def test_are_removed_from_messages(self) -> None:
        text = self.options.scrub(f"a {SECRET} b p%23%2F%25%40%20ss c p%23/%25%40%20ss PASSWORD 'other'")
        assert text == "a ******** b ******** c ******** PASSWORD '********'"

    def test_go_to_programs_by_their_environment(self) -> None:
        assert self.options.environment()["PGPASSWORD"] == SECRET
        assert self.options.parameters()["password"] == SECRET
