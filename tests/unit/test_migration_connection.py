"""Connection options: where they come from, what is wrong with them, and what they never show."""

from __future__ import annotations

import importlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import postgresql_driver, postgresql_failures
from ansible_collections.roastify.ops.plugins.module_utils.postgresql import ConnectionOptions, ConnectionOptionsError
from ansible_collections.roastify.ops.plugins.module_utils.postgresql_arguments import (
    connection_options,
    postgresql_arguments,
)
from ansible_collections.roastify.ops.plugins.module_utils.postgresql_environment import (
    EnvironmentFileError,
    from_environment,
)
from ansible_collections.roastify.ops.plugins.module_utils.rds_token import TokenError, region_of, secrets_of, token

SECRET = "p#/%@ ss"


def told(**changes: Any) -> ConnectionOptions:
    """The options that a module makes of its parameters."""
    parameters = {name: argument.get("default") for name, argument in postgresql_arguments().items()}
    return connection_options({**parameters, **changes}, "test")


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    path = tmp_path / ".env"
    path.write_text(
        f"NODE_ENV=production\nPG_HOST=db.internal\nPG_PORT=6432\nPG_DATABASE=shop\nPG_USER=owner\n"
        f"PG_PASSWORD='{SECRET}'\nPG_SSL=true\nPG_SSL_CA=/etc/ssl/ca.crt\n"
    )
    return path


class TestEnvironment:
    def test_reads_the_applications_file(self, env_file: Path) -> None:
        assert told(env_file=str(env_file)) == ConnectionOptions(
            "db.internal", 6432, "shop", "owner", SECRET, "verify-full", "/etc/ssl/ca.crt", application_name="test"
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
            ({"PG_IAM_AUTH": "true"}, "verify-full"),
        ],
    )
    def test_tls(self, values: dict[str, str], mode: str | None) -> None:
        options, problems = from_environment(values, "x")
        assert (options.tls, problems) == (mode, [])

    @pytest.mark.parametrize(
        ("values", "name"),
        [
            ({"PG_SSL": "maybe"}, "PG_SSL"),
            ({"PG_PORT": "x"}, "PG_PORT"),
            ({"PG_PORT": "0"}, "PG_PORT"),
            ({"PG_PORT": "65536"}, "PG_PORT"),
            ({"PG_IAM_AUTH": "si"}, "PG_IAM_AUTH"),
        ],
    )
    def test_what_cannot_be_understood(self, values: dict[str, str], name: str) -> None:
        _options, problems = from_environment(values, ".env")
        assert [problem.cause.split()[:3] for problem in problems] == [[name, "in", ".env"]]

    def test_explicit_options_win(self, env_file: Path) -> None:
        options = told(env_file=str(env_file), port=5433, user="other", ssl_mode="require", host="")
        assert (options.host, options.port, options.user, options.tls) == ("db.internal", 5433, "other", "require")

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(EnvironmentFileError, match="cannot be read: No such file"):
            told(env_file=str(tmp_path / "nothing"))


class TestProblems:
    @pytest.mark.parametrize(
        ("content", "cause", "remedy"),
        [
            (
                "PG_HOST=db\n",
                "PG_DATABASE and PG_USER are not set in {}.",
                "Set them there, or give the options database and user.",
            ),
            ("PG_HOST=db\nPG_USER=u\n", "PG_DATABASE is not set in {}.", "Set it there, or give the option database."),
            ("", "PG_HOST, PG_DATABASE and PG_USER are not set in {}.", "options host, database and user."),
            ("PG_DATABASE=d\nPG_USER=u\nPG_HOST=\n", "PG_HOST is not set in {}.", "the option host."),
        ],
    )
    def test_missing_names_are_named_with_their_file(
        self, tmp_path: Path, content: str, cause: str, remedy: str
    ) -> None:
        path = tmp_path / ".env"
        path.write_text(content)
        with pytest.raises(ConnectionOptionsError) as error:
            told(env_file=str(path))
        assert error.value.cause == cause.format(path)
        assert remedy in error.value.remedy

    def test_no_options_at_all(self) -> None:
        with pytest.raises(ConnectionOptionsError, match="Nothing says how to connect: database and user are not"):
            told()

    def test_the_local_socket_needs_no_host(self) -> None:
        assert str(told(database="shop", user="owner")) == 'database "shop" at the local socket as "owner"'

    def test_all_at_once_and_no_value_of_a_secret(self, tmp_path: Path) -> None:
        path = tmp_path / ".env"
        path.write_text("PG_HOST=postgres://owner:canary@db/shop\nPG_PORT=no\nPG_SSL=maybe\nPG_USER=u\n")
        with pytest.raises(ConnectionOptionsError) as error:
            told(env_file=str(path), connect_timeout=0)
        for part in ("PG_DATABASE is not set", "PG_PORT in", "PG_SSL in", "(host, PG_HOST) is not", "connect_timeout"):
            assert part in error.value.cause
        assert "canary" not in str(error.value)

    @pytest.mark.parametrize("host", ["db:5432", "u@db", "host=db", "postgresql://db", "db host", "db?x"])
    def test_more_than_a_host(self, host: str) -> None:
        with pytest.raises(ConnectionOptionsError, match="not a plain name"):
            told(database="d", user="u", host=host)

    @pytest.mark.parametrize("host", ["db", "10.0.0.1", "::1", "fe80::1%eth0", "/run/postgresql", "a,b", "@abstract"])
    def test_hosts(self, host: str) -> None:
        assert told(database="d", user="u", host=host).host == host

    @pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
    def test_a_token_goes_over_tls_only(self, mode: str) -> None:
        with pytest.raises(ConnectionOptionsError, match=f"over TLS only, and TLS mode {mode} allows"):
            told(database="d", user="u", host="db", aws_iam_auth=True, ssl_mode=mode)

    @pytest.mark.parametrize("host", [None, "/run"])
    def test_a_token_is_for_a_host(self, host: str | None) -> None:
        with pytest.raises(ConnectionOptionsError, match="no host is given"):
            told(database="d", user="u", host=host, aws_iam_auth=True)


class TestTokens:
    @pytest.mark.parametrize(
        ("host", "region"),
        [
            ("shop.c9akciq32.eu-central-1.rds.amazonaws.com", "eu-central-1"),
            ("shop.cluster-ro-c9akciq32.us-gov-west-1.rds.amazonaws.com", "us-gov-west-1"),
            ("p.proxy-abc.ap-southeast-2.rds.amazonaws.com.", "ap-southeast-2"),
            ("shop.c9akciq32.rds.cn-north-1.amazonaws.com.cn", "cn-north-1"),
            ("db.internal", None),
            ("x.eu-central-1.rds.amazonaws.com.example.org", None),
        ],
    )
    def test_the_region_is_in_the_endpoints_name(self, host: str, region: str | None) -> None:
        assert region_of(host) == region

    def test_the_env_asks_for_one_and_a_password_given_beside_it_does_not(self, env_file: Path) -> None:
        env_file.write_text(env_file.read_text() + "PG_IAM_AUTH=true\n")
        assert told(env_file=str(env_file)).aws_iam_auth
        assert not told(env_file=str(env_file), password="x").aws_iam_auth
        assert not told(env_file=str(env_file), aws_iam_auth=False).aws_iam_auth

    def test_without_credentials(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        no_aws(monkeypatch, tmp_path)
        with pytest.raises(TokenError, match="could be signed: Unable to locate credentials") as error:
            token("db", 5432, "u", "eu-central-1")
        assert "instance profile" in error.value.remedy

    def test_without_a_region(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        no_aws(monkeypatch, tmp_path)
        with pytest.raises(TokenError, match="The AWS region of db is not known"):
            token("db", 5432, "u")

    def test_are_fresh_and_hidden_everywhere(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        no_aws(monkeypatch, tmp_path)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDTEST")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_SESSION_TOKEN", "session+token/of==role")
        heard: list[str] = []
        options = ConnectionOptions("db", None, "d", "u", aws_iam_auth=True, aws_region="eu-west-1")
        options = replace(options, on_secret=heard.append)
        given = options.parameters()["password"]
        assert given.startswith("db:5432/?")
        environment = options.environment()
        assert environment["PGSSLMODE"] == options.parameters()["sslmode"] == "verify-full"
        assert heard[:2] == [given, environment["PGPASSWORD"]]
        assert given not in repr(options) + str(options)
        pieces = [given, *secrets_of(given)]
        assert "session+token/of==role" in pieces
        text = options.scrub(" ".join([*pieces, "session%2Btoken%2Fof%3D%3Drole"]))
        assert set(text.split()) == {"********"}


def no_aws(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """A host without any AWS credentials or region."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


class TestSecrets:
    options = ConnectionOptions("db", 5432, "shop", "owner", SECRET)

    def test_are_in_no_text(self) -> None:
        assert SECRET not in repr(self.options) + str(self.options)
        assert str(self.options) == 'database "shop" at db:5432 as "owner"'

    def test_are_removed_from_messages(self) -> None:
        text = self.options.scrub(f"a {SECRET} b p%23%2F%25%40%20ss c p%23/%25%40%20ss PASSWORD 'other'")
        assert text == "a ******** b ******** c ******** PASSWORD '********'"

    def test_pieces_are_removed_but_names_stay(self) -> None:
        options = replace(self.options, password="longpiece#production@otherpiece", database="production")
        assert options.scrub("longpiece production @otherpiece") == "******** production @********"

    def test_go_to_programs_by_their_environment(self) -> None:
        assert self.options.environment()["PGPASSWORD"] == SECRET
        assert self.options.parameters()["password"] == SECRET


class TestFailures:
    def test_what_lasts_is_told_before_what_passes(self) -> None:
        reason = postgresql_failures.explain(
            'connection to server at "db" (::1), port 5432 failed: Connection refused\n'
            'connection to server at "db" (10.0.0.1), port 5432 failed: FATAL:  password authentication failed for "u"'
        )
        assert not reason.passing
        assert reason.cause == "the server refuses this user with this password"

    def test_the_unknown_is_told_as_it_is(self) -> None:
        reason = postgresql_failures.explain("FATAL:  moon is full\nFATAL:  moon is full\n")
        assert reason.cause == "FATAL:  moon is full"
        assert not reason.passing


class TestDriver:
    def test_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(name: str) -> None:
            raise ImportError(name)

        monkeypatch.setattr(importlib, "import_module", missing)
        with pytest.raises(postgresql_driver.DriverMissing, match="neither psycopg2 nor psycopg") as error:
            postgresql_driver.connect({})
        assert "python3-psycopg2" in error.value.remedy
