"""A private PostgreSQL cluster with TLS for integration tests, from the distribution's binaries.

conftest.py makes its fixtures known to all tests here. PostgreSQL refuses to run as root, so that a test
run by root starts it as the user `postgres`. POSTGRESQL_VERSION chooses one of several installed versions.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg2
import pytest
from ansible_collections.roastify.ops.plugins.module_utils.postgresql import ConnectionOptions

PASSWORD = "s3cret-'#/%@-word"  # every character that a URL or a quote would trip over
_INSTALLED = Path("/usr/lib/postgresql")


def binaries() -> Path:
    """The directory of the newest installed server, or of the one that POSTGRESQL_VERSION names."""
    wanted = os.environ.get("POSTGRESQL_VERSION", "*")
    found = sorted(_INSTALLED.glob(f"{wanted}/bin/postgres"), key=lambda path: float(path.parts[-3]))
    if not found:
        pytest.fail(
            f"No PostgreSQL server in {_INSTALLED}/{wanted}: apt-get install postgresql (or run tools/bootstrap)"
        )
    return found[-1].parent


@dataclass
class Server:
    """A running cluster."""

    directory: Path
    programs: Path
    port: int
    authority: Path
    owner: str | None

    @property
    def options(self) -> ConnectionOptions:
        """How its superuser connects, with the server's name verified."""
        return ConnectionOptions(
            host="localhost",
            port=self.port,
            database="postgres",
            user="admin",
            password=PASSWORD,
            ssl_mode="verify-full",
            ssl_root_cert=str(self.authority),
            connect_retries=0,
        )

    def connect(self, database: str = "postgres") -> psycopg2.extensions.connection:
        """A connection in autocommit mode."""
        connection = psycopg2.connect(**replace(self.options, database=database).parameters())
        connection.autocommit = True
        return connection

    def execute(self, sql: str, database: str = "postgres") -> list[tuple]:
        """Run SQL over a connection of its own; the rows, if there are any."""
        connection = self.connect(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def control(self, *arguments: str) -> None:
        """Run pg_ctl on the cluster."""
        subprocess.run(
            [*self._as_owner(), str(self.programs / "pg_ctl"), "-D", str(self.directory / "data"), "-w", *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self.directory,
        )

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.control("-l", str(self.directory / "log"), "start")

    def stop(self) -> None:
        """Stop the server at once."""
        self.control("-m", "immediate", "stop")

    def _as_owner(self) -> list[str]:
        if self.owner is None:
            return []
        return ["setpriv", f"--reuid={self.owner}", f"--regid={self.owner}", "--clear-groups"]

    def create(self) -> None:
        """Make certificates and the cluster."""
        self.directory.mkdir(exist_ok=True)
        self._create_certificates()
        password = self.directory / "password"
        password.write_text(PASSWORD)
        if self.owner is not None:
            for path in (self.directory, *self.directory.iterdir()):
                shutil.chown(path, self.owner, self.owner)
        data = self.directory / "data"
        subprocess.run(
            [
                *self._as_owner(),
                str(self.programs / "initdb"),
                *("-D", str(data), "-U", "admin", "-A", "scram-sha-256", "--pwfile", str(password)),
                *("-E", "UTF8", "--locale=C.UTF-8", "--no-sync"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self.directory,
        )
        with (data / "postgresql.conf").open("a") as configuration:
            configuration.write(
                f"""
                listen_addresses = '127.0.0.1'
                port = {self.port}
                unix_socket_directories = '{self.directory}'
                ssl = on
                ssl_cert_file = '{self.directory}/server.crt'
                ssl_key_file = '{self.directory}/server.key'
                fsync = off
                max_connections = 60
                shared_buffers = 32MB
                """
            )
        (data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")

    def _create_certificates(self) -> None:
        def openssl(*arguments: str) -> None:
            subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=self.directory)

        for name in ("authority", "stranger"):
            openssl(
                *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN=Test {name}"),
                *("-keyout", f"{name}.key", "-out", f"{name}.crt"),
            )
        openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"),
            *("-keyout", "server.key", "-out", "server.csr"),
        )
        (self.directory / "names").write_text("subjectAltName=DNS:localhost\n")
        openssl(
            *("x509", "-req", "-in", "server.csr", "-CA", "authority.crt", "-CAkey", "authority.key", "-days", "2"),
            *("-CAcreateserial", "-extfile", "names", "-out", "server.crt"),
        )
        for key in self.directory.glob("*.key"):
            key.chmod(0o600)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Server]:
    """A cluster for the whole test run."""
    owner = "postgres" if os.geteuid() == 0 else None
    if owner is not None:
        try:
            pwd.getpwnam(owner)
        except KeyError:
            pytest.fail("PostgreSQL cannot run as root and there is no user postgres: apt-get install postgresql")
    # Not below pytest's own directory: that one is closed to other users, and too long for a socket's name.
    directory = Path(tempfile.mkdtemp(prefix="postgresql-"))
    server = Server(directory, binaries(), _free_port(), directory / "authority.crt", owner)
    try:
        server.create()
        directory.chmod(0o755)
        server.start()
        yield server
    finally:
        if (directory / "data" / "postmaster.pid").exists():
            with contextlib.suppress(subprocess.CalledProcessError):
                server.stop()
        shutil.rmtree(directory, ignore_errors=True)


@dataclass
class TestDatabase:
    """A database of its own for one test."""

    __test__ = False

    server: Server
    options: ConnectionOptions

    def connect(self) -> psycopg2.extensions.connection:
        """A connection of the superuser in autocommit mode."""
        return self.server.connect(self.options.database or "")

    def query(self, sql: str) -> list[tuple]:
        """Run SQL as the superuser; the rows, if there are any."""
        return self.server.execute(sql, self.options.database or "")

    def tables(self) -> list[str]:
        """The names of all tables in the schema public."""
        rows = self.query("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
        return sorted(name for (name,) in rows)


_numbers = itertools.count(1)


@pytest.fixture
def database(postgresql_server: Server) -> Iterator[TestDatabase]:
    """A fresh database, dropped after the test."""
    name = f"test_{next(_numbers)}"
    postgresql_server.execute(f"CREATE DATABASE {name}")
    yield TestDatabase(postgresql_server, replace(postgresql_server.options, database=name))
    postgresql_server.execute(f"DROP DATABASE {name} WITH (FORCE)")
