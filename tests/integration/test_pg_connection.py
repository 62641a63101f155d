"""Connections to a real PostgreSQL: poolers, tokens, time limits, and every way in which there is none."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from ansible_collections.roastify.ops.plugins.module_utils import rds_token
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.migration_table import TableError
from ansible_collections.roastify.ops.plugins.module_utils.postgresql import (
    ConnectionFailed,
    ConnectionOptions,
    connect,
)
from ansible_collections.roastify.ops.plugins.module_utils.postgresql_pooler import PoolerError
from migration_project import Project, pair
from pgbouncer import pgbouncer
from postgresql_server import EVERY_VERSION, PASSWORD, TestDatabase, running_server

CANARY = "canary1#canary2@canary3/canary4%canary5"
MODULES = "ansible_collections.roastify.ops.plugins.modules"
TABLES_AND_LOCKS = """
SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace),
       (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')
"""


def behind(project: Project, options: ConnectionOptions) -> Project:
    """The same project, reached by other options."""
    return Project(project.directory, replace(project.database, options=options))


@pytest.mark.usefixtures("each_driver")
class TestPgBouncer:
    @pytest.mark.parametrize("size", [1, 20])
    def test_in_session_mode_migrates(self, project: Project, size: int) -> None:
        pair(project, "001", "a")
        project.write("002_b.up.sql", "-- migrate:no-transaction\nCREATE INDEX CONCURRENTLY i ON a (id);\n")
        name = str(project.database.options.database)
        with pgbouncer(project.database.server, name, pool_mode="session", default_pool_size=size) as options:
            assert behind(project, options).up() == ["001", "002"]
            assert behind(project, options).up() == []
            with contextlib.closing(psycopg2.connect(**options.parameters())) as other, other.cursor() as cursor:
                cursor.execute("SHOW lock_timeout")
                assert cursor.fetchall() == [("0",)]  # the next client finds a session, and nothing of the run in it
        assert project.recorded() == ["001", "002"]

    @pytest.mark.parametrize("size", [1, 20])
    @pytest.mark.parametrize(
        ("mode", "why"), [("transaction", "shares the sessions"), ("statement", "no transaction is possible there")]
    )
    def test_in_another_mode_is_refused_before_anything_is_written(
        self, project: Project, mode: str, why: str, size: int
    ) -> None:
        pair(project, "001", "a")
        name = str(project.database.options.database)
        with pgbouncer(project.database.server, name, pool_mode=mode, default_pool_size=size) as options:
            with pytest.raises(PoolerError, match=why) as error:
                behind(project, options).up()
            # Nor do the settings of a run stay for the next client.
            with contextlib.closing(psycopg2.connect(**options.parameters())) as other:
                other.autocommit = True
                with other.cursor() as cursor:
                    cursor.execute("SHOW lock_timeout")
                    assert cursor.fetchall() == [("0",)]
        assert f'database "{name}" at localhost:{options.port} as "admin"' in error.value.cause
        assert "pool_mode=session" in error.value.remedy
        assert PASSWORD not in str(error.value)
        assert project.database.query(TABLES_AND_LOCKS) == [(0, 0)]

    def test_a_busy_pool_hides_nothing(self, database: TestDatabase) -> None:
        with (
            pgbouncer(
                database.server, str(database.options.database), pool_mode="transaction", default_pool_size=2
            ) as options,
            traffic(options, clients=6),
        ):
            for _attempt in range(40):
                with pytest.raises(PoolerError):
                    connect(options)

    def test_a_busy_pool_of_sessions_is_no_obstacle(self, database: TestDatabase) -> None:
        with (
            pgbouncer(
                database.server, str(database.options.database), pool_mode="session", default_pool_size=6
            ) as options,
            traffic(options, clients=4),
        ):
            for _attempt in range(5):
                connect(options).close()

    def test_a_pool_whose_sessions_are_taken_is_tried_again(self, database: TestDatabase) -> None:
        name = str(database.options.database)
        with pgbouncer(database.server, name, pool_mode="session", default_pool_size=1) as options:
            options = replace(options, connect_timeout=2, connect_retries=1)
            with contextlib.closing(psycopg2.connect(**options.parameters())) as other:
                other.cursor().execute("SELECT 1")
                with pytest.raises(ConnectionFailed, match="after 2 attempts: the connection pooler has no session"):
                    connect(options, lambda _seconds: None)
                connect(options, lambda _seconds: other.close()).close()

    @pytest.mark.parametrize(
        ("change", "cause"),
        [
            ({"password": CANARY}, "the server refuses this user with this password."),
            ({"database": "nowhere"}, "the server has no such database."),
        ],
    )
    def test_says_why_it_refuses(self, database: TestDatabase, change: dict[str, str], cause: str) -> None:
        name = str(database.options.database)
        with pgbouncer(database.server, name) as options, pytest.raises(ConnectionFailed) as error:
            connect(replace(options, **change))
        assert error.value.cause.endswith(cause)
        assert_no_canary(error.value)

    def test_a_server_that_is_down_behind_it(self, database: TestDatabase) -> None:
        name = str(database.options.database)
        with pgbouncer(database.server, name, port=1, query_wait_timeout=3) as options:
            with pytest.raises(ConnectionFailed) as error:
                connect(options)
            assert error.value.cause.endswith("the connection pooler gets no connection to the server.")
            # Its own limit is 120 seconds, so that ours is mostly reached before.
            with pytest.raises(ConnectionFailed) as error:
                connect(replace(options, connect_timeout=2))
            assert "a pooler" in error.value.remedy


@contextlib.contextmanager
def traffic(options: ConnectionOptions, clients: int) -> Iterator[None]:
    """Other clients with short transactions."""
    stop = threading.Event()
    done: list[int] = []

    def work() -> None:
        with contextlib.closing(psycopg2.connect(**options.parameters())) as connection, connection.cursor() as cursor:
            while not stop.is_set():
                cursor.execute("SELECT pg_sleep(0.002)")
                connection.commit()
                done.append(1)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while len(done) < 10 * clients and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(done) >= 10 * clients
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)


def assert_no_canary(error: BaseException) -> None:
    """Neither the password nor a piece of it is in anything that could be printed of an error."""
    printed = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    printed += repr(error) + str(error) + repr(vars(error)) + repr(error.args)
    for form in (*CANARY.replace("#", "@").replace("/", "@").replace("%", "@").split("@"), urllib.parse.quote(CANARY)):
        # The source line of a test that names its own canary is no leak.
        assert form not in printed.replace("CANARY", "")


@EVERY_VERSION
@pytest.mark.usefixtures("each_driver", "postgresql_server")
class TestNoConnection:
    def fails(
        self, options: ConnectionOptions, attempts: int = 1, connecting: Callable[..., Any] = connect
    ) -> ConnectionFailed:
        waits: list[float] = []
        with pytest.raises(ConnectionFailed) as error:
            connecting(replace(options, connect_retries=3), waits.append)
        assert waits == [1.0, 2.0, 4.0][: attempts - 1]
        where = f'database "{options.database}" at {options.host}:{options.port} as "{options.user}"'
        tries = "" if attempts == 1 else f" after {attempts} attempts"
        assert error.value.cause.startswith(f"No connection to {where}{tries}: ")
        # One sentence each.
        assert error.value.cause.endswith(".")
        assert error.value.cause.count(". ") == 0
        assert error.value.remedy.endswith(".")
        assert error.value.remedy.count(". ") == 0
        assert error.value.evidence
        assert PASSWORD not in str(error.value)
        assert_no_canary(error.value)
        return error.value

    @pytest.mark.parametrize(
        ("change", "cause", "remedy"),
        [
            ({"database": "nowhere"}, "the server has no such database", "Create the database first"),
            ({"password": CANARY}, "refuses this user with this password", "PG_USER, PG_PASSWORD"),
            ({"user": "nobody", "password": CANARY}, "refuses this user with this password", "that the role exists"),
            ({"password": None}, "asks for a password, and none is given", "PG_PASSWORD"),
            ({"host": "127.0.0.1", "password": CANARY}, "certificate bears another name", "ssl_mode verify-ca"),
            ({"ssl_root_cert": "stranger.crt", "password": CANARY}, "not signed by an authority", "global bundle"),
            ({"ssl_mode": "disable", "password": CANARY}, "does not admit this user from this host without TLS", "TLS"),
        ],
    )
    def test_for_good(self, database: TestDatabase, change: dict[str, Any], cause: str, remedy: str) -> None:
        if "ssl_root_cert" in change:
            change = {**change, "ssl_root_cert": str(database.server.directory / change["ssl_root_cert"])}
        error = self.fails(replace(database.options, **change))
        assert cause in error.cause
        assert remedy in error.remedy

    @pytest.mark.parametrize("content", [None, "-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n"])
    def test_without_a_certificate_that_can_be_read(
        self, database: TestDatabase, tmp_path: Path, content: str | None
    ) -> None:
        path = tmp_path / "ca.crt"
        if content is not None:
            path.write_text(content)
        with pytest.raises(ConnectionFailed) as error:
            connect(replace(database.options, ssl_root_cert=str(path)))
        assert "ssl_root_cert, PG_SSL_CA" in error.value.remedy
        assert PASSWORD not in str(error.value)

    def test_while_the_name_is_unknown(self, database: TestDatabase) -> None:
        error = self.fails(replace(database.options, host="nowhere.invalid", password=CANARY), attempts=4)
        assert error.cause.endswith("the name of the host cannot be resolved.")
        assert "DNS" in error.remedy

    def test_while_the_server_is_down(self, database: TestDatabase) -> None:
        error = self.fails(replace(database.options, port=1, password=CANARY), attempts=4)
        assert error.cause.endswith("nothing accepts connections there.")
        assert "Check that the server runs there" in error.remedy

    def test_while_there_is_no_socket(self, database: TestDatabase, tmp_path: Path) -> None:
        with pytest.raises(ConnectionFailed, match="there is no socket of a server"):
            connect(replace(database.options, host=str(tmp_path)))

    def test_while_there_are_too_many(self, database: TestDatabase) -> None:
        database.query("CREATE ROLE few LOGIN PASSWORD 'few' CONNECTION LIMIT 1")
        options = replace(database.options, user="few", password="few")
        try:
            with contextlib.closing(connect(options)):
                error = self.fails(options, attempts=4)
        finally:
            database.query("DROP ROLE few")
        assert error.cause.endswith("the server has no connection left.")

    def test_from_a_host_that_does_not_answer_in_time(self, database: TestDatabase) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            started = time.monotonic()
            with pytest.raises(ConnectionFailed) as error:
                connect(replace(database.options, port=silent.getsockname()[1], connect_timeout=2))
        assert 1.5 < time.monotonic() - started < 5
        assert error.value.cause.endswith("the host does not answer.")

    def test_where_the_server_has_no_tls(self, plain_standby: ConnectionOptions) -> None:
        error = self.fails(replace(plain_standby, ssl_mode="verify-full", password=CANARY))
        assert error.cause.endswith("TLS is wanted, and the server does not offer it.")
        assert "ssl_mode disable" in error.remedy

    def test_a_standby_takes_no_migrations(self, project: Project, plain_standby: ConnectionOptions) -> None:
        pair(project, "001", "a")
        with pytest.raises(TableError) as error:
            behind(project, plain_standby).up()
        assert error.value.cause == 'Database "postgres" is a standby: migrations cannot be applied there.'
        assert error.value.remedy.startswith("Connect to the primary (the writer endpoint)")

    def test_a_server_that_falls_silent_is_noticed(self, database: TestDatabase) -> None:
        with (
            contextlib.closing(connect(database.options)) as connection,
            socket.socket(fileno=os.dup(connection.fileno())) as line,
        ):
            assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            limits = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            assert [line.getsockopt(socket.IPPROTO_TCP, limit) for limit in limits] == [30, 10, 3, 60_000]


@pytest.fixture(scope="module")
def plain_standby() -> Iterator[ConnectionOptions]:
    """A standby, with nothing to follow, whose server has no TLS."""
    with running_server(settings={"ssl": "off", "hot_standby": "on"}) as server:
        server.stop()
        data = server.directory / "data"
        (data / "standby.signal").touch()
        (data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        server.start()
        yield replace(server.options, ssl_mode="disable")


class TestModules:
    """What a module prints, read as its controller would."""

    def fails(self, name: str, arguments: dict[str, Any]) -> str:
        result = subprocess.run(
            [sys.executable, "-m", f"{MODULES}.{name}"],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": "collections"},
        )
        answer = json.loads(result.stdout)
        assert answer["failed"], result.stdout
        printed = result.stdout + result.stderr
        for form in ("canary", urllib.parse.quote(CANARY), PASSWORD):
            assert form not in printed
        return str(answer["msg"])

    @pytest.mark.parametrize("name", ["pg_migrate", "pg_migrate_info"])
    def test_no_password_is_printed(self, project: Project, name: str) -> None:
        options = project.database.options
        env_file = project.directory / ".env"
        env_file.write_text(
            f"PG_HOST=localhost\nPG_PORT={options.port}\nPG_DATABASE={options.database}\nPG_USER=admin\n"
            f"PG_PASSWORD='{CANARY}'\nPG_SSL_CA={options.ssl_root_cert}\n"
        )
        message = self.fails(name, {"directory": str(project.directory), "env_file": str(env_file)})
        assert "the server refuses this user with this password" in message
        given = {"host": "localhost", "port": options.port, "database": "x", "user": "admin", "password": CANARY}
        message = self.fails(name, {"directory": str(project.directory), **given, "ssl_mode": "require"})
        assert "the server refuses this user with this password" in message

    def test_a_file_that_names_no_database_costs_no_attempts(self, tmp_path: Path) -> None:
        env_file = tmp_path / ".env"
        env_file.write_text(f"NODE_ENV=production\nPG_PASSWORD='{CANARY}'\n")
        started = time.monotonic()
        message = self.fails("pg_migrate", {"directory": str(tmp_path), "env_file": str(env_file)})
        assert f"PG_HOST, PG_DATABASE and PG_USER are not set in {env_file}." in message
        assert time.monotonic() - started < 5  # a retry would have waited for 7 seconds
        message = self.fails("pg_migrate_info", {"directory": str(tmp_path)})
        assert message.startswith("Nothing says how to connect: database and user are not given.")


class TestTokens:
    """The server plays Amazon RDS: it takes, as a password, the one token that is valid now."""

    REGION = "eu-central-1"

    @pytest.fixture
    def role(self, database: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> Iterator[ConnectionOptions]:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            "AWS_SESSION_TOKEN": "a+session/token==",
        }.items():
            monkeypatch.setenv(name, value)
        database.query("CREATE ROLE deployer LOGIN")
        yield replace(
            database.options,
            user="deployer",
            password=None,
            ssl_mode=None,
            aws_iam_auth=True,
            aws_region=self.REGION,
        )
        database.query("DROP ROLE deployer")

    def at(self, monkeypatch: pytest.MonkeyPatch, minute: int) -> None:
        """Stop the signer's clock."""
        now = datetime.datetime(2026, 1, 31, 12, minute, tzinfo=datetime.timezone.utc)
        monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *_arguments, **_options: now)

    def admit(self, database: TestDatabase, options: ConnectionOptions) -> str:
        """Let the server take the token of this moment."""
        import boto3

        token = boto3.client("rds", self.REGION).generate_db_auth_token(options.host, options.port, options.user)
        database.query(f"ALTER ROLE deployer PASSWORD '{token}'")
        return str(token)

    def test_is_fresh_for_every_connection(
        self, database: TestDatabase, role: ConnectionOptions, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.at(monkeypatch, 0)
        first = self.admit(database, role)
        with contextlib.closing(connect(role)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT current_user::text, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            assert cursor.fetchall() == [("deployer", True)]
        self.at(monkeypatch, 16)
        with pytest.raises(ConnectionFailed, match="refuses this user with this password") as error:
            connect(role)
        assert "rds-db:connect" in error.value.remedy
        printed = "".join(traceback.format_exception(error.value)) + repr(role) + repr(vars(error.value))
        assert len(role.issued) == 2
        for token in role.issued:
            for secret in rds_token.secrets_of(token):
                assert secret not in printed
                assert urllib.parse.quote(secret, safe="") not in printed
        second = self.admit(database, role)
        assert second != first
        connect(role).close()

    def test_is_fresh_for_every_attempt(
        self, database: TestDatabase, role: ConnectionOptions, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.at(monkeypatch, 0)
        self.admit(database, role)
        database.query("ALTER ROLE deployer CONNECTION LIMIT 0")

        def wait(_seconds: float) -> None:
            self.at(monkeypatch, 16)
            self.admit(database, role)
            database.query("ALTER ROLE deployer CONNECTION LIMIT 1")

        connect(replace(role, connect_retries=1), wait).close()

    def test_admits_pg_dump(
        self, database: TestDatabase, role: ConnectionOptions, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.at(monkeypatch, 0)
        self.admit(database, role)
        command = [str(database.server.programs / "pg_dump"), "--no-password", "--schema-only"]
        environment = {**os.environ, **role.environment()}
        assert "dump complete" in subprocess.run(command, env=environment, capture_output=True, text=True).stdout
        without = {**environment, "PGPASSWORD": "nothing"}
        assert subprocess.run(command, env=without, capture_output=True).returncode != 0

    def test_without_it_there_is_no_connection(
        self, database: TestDatabase, role: ConnectionOptions, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.at(monkeypatch, 0)
        self.admit(database, role)
        with pytest.raises(ConnectionFailed, match="none is given"):
            connect(replace(role, aws_iam_auth=None))
        with pytest.raises(OperationError, match="over TLS only"):
            connect(replace(role, ssl_mode="prefer"))
