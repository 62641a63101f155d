"""Runners that are killed, cut off or race against each other: the database is always before or after a migration.

The moments of death are random. A failure names the seed; MIGRATION_FAULTS_SEED repeats the same moments, as far as
the machine takes the same time.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg2
import pytest
from ansible_collections.roastify.ops.plugins.module_utils.migration_files import read_directory
from ansible_collections.roastify.ops.plugins.module_utils.migration_plan import plan_up
from ansible_collections.roastify.ops.plugins.module_utils.migration_runner import Runner
from migrating_process import EXPLAINED, MigratingProcess
from postgresql_server import EVERY_VERSION, Server, TestDatabase
from schema_snapshot import difference, snapshot

pytestmark = EVERY_VERSION

SEED = int(os.environ.get("MIGRATION_FAULTS_SEED") or random.SystemRandom().randrange(2**32))
AT_ONCE = 4  # most of the time is waiting

LOCK_GONE_AFTER = 10
"""Seconds until a dead runner's lock must be free; the server looks for its client every second."""


@dataclass(frozen=True)
class Alone:
    """A statement of a migration outside a transaction.

    Attributes:
        sql: the statement.
        index: the index that is in between while it runs, or None.
    """

    sql: str
    index: str | None = None


@dataclass(frozen=True)
class Script:
    """A migration: statements in a transaction, or each Alone."""

    name: str
    statements: Sequence[str | Alone]

    @property
    def version(self) -> str:
        return self.name.partition("_")[0]

    @property
    def alone(self) -> Sequence[Alone]:
        return [statement for statement in self.statements if isinstance(statement, Alone)]

    @property
    def text(self) -> str:
        head = "-- migrate:no-transaction\n" if self.alone else ""
        texts = [statement.sql if isinstance(statement, Alone) else statement for statement in self.statements]
        return head + "".join(f"{text};\n" for text in texts)


# Each change shows in the catalogue or in the rows, and none can be made twice without showing. What takes time
# sleeps, also inside the build of an index, so that many runs can go on at once.
SCRIPTS = (
    Script(
        "001_base",
        [
            "CREATE TABLE account (id int PRIMARY KEY, email text NOT NULL, score int NOT NULL DEFAULT 0)",
            "CREATE TABLE audit (version text, what text)",
            "CREATE TYPE mood AS ENUM ('calm')",
            "INSERT INTO audit VALUES ('001', 'base')",
        ],
    ),
    Script(
        "002_accounts",
        [
            "INSERT INTO account SELECT n, 'a' || n || '@example.com' FROM generate_series(1, 400) AS n",
            "INSERT INTO audit VALUES ('002', 'accounts')",
        ],
    ),
    Script(
        "003_slow",
        [
            "ALTER TABLE account ADD COLUMN region text",
            "SELECT pg_sleep(0.1)",
            "UPDATE account SET region = 'r' || id % 7, score = score + 1",
            "SELECT pg_sleep(0.05)",
            "CREATE TABLE region AS SELECT DISTINCT region FROM account",
            "INSERT INTO audit VALUES ('003', 'slow')",
        ],
    ),
    Script(
        "004_indexes",
        [
            Alone("CREATE INDEX CONCURRENTLY account_email ON account (email)", "account_email"),
            Alone(
                "CREATE FUNCTION slow_key(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN"
                " IF n % 40 = 0 THEN PERFORM pg_sleep(0.01); END IF; RETURN n; END $$"
            ),
            Alone("CREATE UNIQUE INDEX CONCURRENTLY account_slow ON account (slow_key(id))", "account_slow"),
            Alone("ALTER TYPE mood ADD VALUE 'wild'"),
            Alone("VACUUM account"),
            Alone(
                "CREATE INDEX CONCURRENTLY IF NOT EXISTS account_key ON account (slow_key(id), email)", "account_key"
            ),
        ],
    ),
    Script(
        "005_scores",
        [f"UPDATE account SET score = score + {n} WHERE id = {n}" for n in range(1, 250)]
        + ["INSERT INTO audit VALUES ('005', 'scores')"],
    ),
    Script(
        "006_functions",
        [
            "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.score := 0; RETURN NEW; END; $$",
            "CREATE TRIGGER touched BEFORE INSERT ON account FOR EACH ROW EXECUTE FUNCTION touch()",
            "CREATE VIEW best AS SELECT id, score FROM account WHERE score > 100",
            "INSERT INTO audit VALUES ('006', 'functions')",
        ],
    ),
    Script(
        "007_swap",
        [
            "DROP TABLE region",
            "ALTER TABLE account RENAME COLUMN region TO area",
            "SELECT pg_sleep(0.05)",
            "DELETE FROM account WHERE id % 10 = 0",
            "INSERT INTO audit SELECT '007', count(*)::text FROM account",
        ],
    ),
    Script(
        "008_last_index",
        [Alone("CREATE INDEX CONCURRENTLY account_area ON account (area, slow_key(id))", "account_area")],
    ),
    Script("009_end", ["INSERT INTO audit VALUES ('009', 'end')"]),
)
VERSIONS = [script.version for script in SCRIPTS]


@dataclass(frozen=True)
class State:
    """How a run left the database.

    Attributes:
        recorded: how many migrations the tracking table holds.
        statements_done: of the migration outside a transaction that was interrupted, or None.
        invalid: the index that its next statement left INVALID, or None.
    """

    recorded: int
    statements_done: int | None = None
    invalid: str | None = None


class Reference:
    """The schema after each number of migrations, and after each statement outside a transaction.

    It comes from running the statements themselves, without the runner.
    """

    def __init__(self, database: TestDatabase) -> None:
        connection = database.connect()
        with connection.cursor() as cursor:
            self.after = [snapshot(cursor)]
            self.within: dict[int, list[frozenset[str]]] = {}
            for number, script in enumerate(SCRIPTS):
                if script.alone:
                    self.within[number] = [self.after[-1]]
                    for statement in script.alone:
                        cursor.execute("RESET ALL")
                        cursor.execute(statement.sql)
                        self.within[number].append(snapshot(cursor))
                else:
                    cursor.execute("RESET ALL")
                    cursor.execute(script.text)
                self.after.append(snapshot(cursor))
        connection.close()

    def check(self, database: TestDatabase) -> State:
        """Fail unless the database is as its tracking table says; how it is."""
        connection = database.connect()
        with connection.cursor() as cursor:
            recorded = _rows(cursor, "migrations", "SELECT version FROM migrations ORDER BY id")
            unfinished = _rows(
                cursor, "migrations_unfinished", "SELECT version, direction, statements_done FROM migrations_unfinished"
            )
            found = snapshot(cursor)
        connection.close()
        count = len(recorded)
        assert [version for (version,) in recorded] == VERSIONS[:count]
        if not unfinished:
            assert found == self.after[count], f"after {count} migrations:\n{difference(found, self.after[count])}"
            return State(count)
        ((version, direction, done),) = unfinished
        assert (version, direction) == (VERSIONS[count], "up")
        states, statements = self.within[count], SCRIPTS[count].alone
        assert 0 <= done <= len(statements)
        if found in states[done : done + 2]:  # the next one is not done, or done and not noted
            return State(count, done)
        index = statements[done].index if done < len(statements) else None
        before, now = _without(states[done], index), _without(found, index)
        assert now == before, f"after {done} statements of {version}:\n{difference(now, before)}"
        return State(count, done, invalid=index)


def _rows(cursor: psycopg2.extensions.cursor, table: str, query: str) -> list[tuple]:
    cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (f"public.{table}",))
    if cursor.fetchone() == (False,):
        return []
    cursor.execute(query)
    return cursor.fetchall()


def _without(lines: frozenset[str], index: str | None) -> frozenset[str]:
    if index is None:
        return lines
    return frozenset(line for line in lines if not line.startswith((f"index {index}:", f"relation {index}:")))


@dataclass
class Ground:
    """A server with what the runs on it share."""

    server: Server
    directory: Path
    reference: Reference
    duration: float

    def database(self, name: str) -> TestDatabase:
        self.server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self.server.execute(f"CREATE DATABASE {name}")
        return TestDatabase(self.server, replace(self.server.options, database=name))

    def drop(self, database: TestDatabase) -> None:
        self.server.execute(f"DROP DATABASE {database.options.database} WITH (FORCE)")

    def undisturbed(self, number: int) -> float:
        """One run to the end in a process of its own; how long it took in seconds."""
        database = self.database(f"undisturbed_{number}")
        process = MigratingProcess(self.directory, database.options, "undisturbed")
        process.go()
        started = time.monotonic()
        code, applied, errors = process.result()
        duration = time.monotonic() - started
        assert (code, applied) == (0, VERSIONS), errors
        assert self.reference.check(database) == State(len(VERSIONS))
        self.drop(database)
        return duration


@pytest.fixture(scope="module")
def ground(postgresql_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    directory = tmp_path_factory.mktemp("migrations")
    for script in SCRIPTS:
        (directory / f"{script.name}.up.sql").write_text(script.text)
    ground = Ground(postgresql_server, directory, None, 0)  # type: ignore[arg-type]
    plain = ground.database("reference")
    ground.reference = Reference(plain)
    ground.drop(plain)
    with ThreadPoolExecutor(AT_ONCE) as pool:  # as many at once as later, since that is what makes them slow
        ground.duration = statistics.median(pool.map(ground.undisturbed, range(AT_ONCE)))
    yield ground


def wait_until_gone(server: Server, name: str) -> None:
    """Wait until the server has noticed the death of its client; then it holds no lock of that database either."""
    connection = server.connect()
    deadline = time.monotonic() + LOCK_GONE_AFTER
    with connection.cursor() as cursor:
        while True:
            cursor.execute("SELECT pid, state, query FROM pg_stat_activity WHERE datname = %s", (name,))
            left = cursor.fetchall()
            if not left:
                break
            assert time.monotonic() < deadline, f"the server still works for a dead client: {left}"
            time.sleep(0.02)
        cursor.execute(
            "SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database"
            " WHERE locktype = 'advisory' AND datname = %s",
            (name,),
        )
        assert cursor.fetchall() == []
    connection.close()


def cut_off(server: Server, name: str) -> int:
    """End the server's side of all connections to a database; how many there were."""
    rows = server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    return len(rows)


def finish(ground: Ground, database: TestDatabase) -> None:
    """What the next run leaves equals what an undisturbed one leaves."""
    with Runner(replace(database.options, connect_retries=3)) as runner:
        runner.run(lambda state: plan_up(read_directory(ground.directory), state.applied, unfinished=state.unfinished))
    assert ground.reference.check(database) == State(len(VERSIONS))


def spread(ground: Ground, runs: int, label: str, strike: str) -> Counter[State]:
    """Strike each of so many runs at a random moment; the states they were in then."""
    states: Counter[State] = Counter()

    def one(number: int) -> None:
        moments = random.Random(f"{SEED} {label} {number}")
        moment = moments.uniform(0, ground.duration)
        also_cut_off = strike == "kill" and moments.random() < 1 / 3
        name = f"{label}_{number}"
        database = ground.database(name)
        try:
            while True:
                process = MigratingProcess(ground.directory, database.options, name)
                process.go()
                if not process.ends_within(moment):
                    break
                # Too late: this one was faster than others.
                assert process.result()[0] == 0
                finish(ground, database)
                moment *= 0.7
                database = ground.database(name)
            if strike == "kill":
                process.kill()
                if also_cut_off:
                    cut_off(ground.server, name)
                assert process.result()[0] in (-signal.SIGKILL, 0)  # 0: it ended in this very moment
                wait_until_gone(ground.server, name)
                states[ground.reference.check(database)] += 1
            else:
                cut_off(ground.server, name)
                code, _applied, errors = process.result()
                assert code in (0, EXPLAINED), errors
                wait_until_gone(ground.server, name)
                states[ground.reference.check(database)] += 1
            finish(ground, database)
        except Exception as error:
            raise AssertionError(
                f"MIGRATION_FAULTS_SEED={SEED}, run {number} of {label}, {strike} after {moment:.3f} s"
                f"{' and cut off' if also_cut_off else ''}: {error}"
            ) from error
        ground.drop(database)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(one, range(runs)):
            pass
    return states


def test_killed_at_100_random_moments_it_is_before_or_after_a_migration(ground: Ground) -> None:
    states = spread(ground, 100, "killed", "kill")
    assert sum(states.values()) == 100
    # On a busy machine few moments fall into the build of an index, which takes no time of its own.
    for more in range(4):
        if not any(state.invalid for state in states):
            states += spread(ground, 50, f"killed_too_{more}", "kill")
    # Otherwise these were not random moments, and this test would prove little.
    assert len({state.recorded for state in states}) >= 4, states
    assert any(state.statements_done is not None for state in states), states
    assert any(state.invalid for state in states), states


def test_cut_off_at_20_random_moments_it_goes_on_or_says_why(ground: Ground) -> None:
    states = spread(ground, 20, "cut_off", "cut off")
    assert sum(states.values()) == 20
    # Most connect again and go on; who was not yet at work says so.
    assert states[State(len(VERSIONS))] >= 10, states


class TestKilledBetweenAStatementAndItsNote:
    """The server finishes the statement of a dead client, and nobody is left to note that it is done."""

    @staticmethod
    def start(database: TestDatabase, directory: Path, condition: str) -> MigratingProcess:
        """Start a runner; it returns when the server shows what it waits for."""
        process = MigratingProcess(directory, database.options, "victim")
        process.go()
        query = f"SELECT 1 FROM pg_stat_activity WHERE application_name = 'victim' AND {condition}"
        while not database.server.execute(query):
            assert not process.ends_within(0.01), process.result()
        return process

    @staticmethod
    def up(database: TestDatabase, directory: Path) -> None:
        with Runner(database.options) as runner:
            runner.run(lambda state: plan_up(read_directory(directory), state.applied, unfinished=state.unfinished))

    def test_rows_are_not_written_twice(self, database: TestDatabase, tmp_path: Path) -> None:
        database.query("CREATE TABLE log (n int)")
        (tmp_path / "001_log.up.sql").write_text(
            "-- migrate:no-transaction\nINSERT INTO log SELECT 1 FROM pg_sleep(0.4);\nVACUUM log;\n"
        )
        process = self.start(database, tmp_path, "wait_event = 'PgSleep'")
        process.kill()
        process.result()
        wait_until_gone(database.server, str(database.options.database))
        self.up(database, tmp_path)
        assert database.query("SELECT n FROM log") == [(1,)]

    @pytest.mark.parametrize("statement", ["DROP INDEX CONCURRENTLY i", "REINDEX INDEX CONCURRENTLY i"])
    @pytest.mark.parametrize("completes", [True, False], ids=["completed", "broken off"])
    def test_an_index_that_was_being_dropped_or_built_anew(
        self, database: TestDatabase, tmp_path: Path, statement: str, completes: bool
    ) -> None:
        database.query("CREATE TABLE a (b int); CREATE INDEX i ON a (b)")
        (tmp_path / "001_index.up.sql").write_text(f"-- migrate:no-transaction\n{statement};\nVACUUM a;\n")
        blocker = database.connect()
        with blocker.cursor() as cursor:
            cursor.execute("BEGIN; INSERT INTO a VALUES (1)")
            if completes:
                unblock = threading.Timer(0.2, lambda: cursor.execute("COMMIT"))
            else:
                unblock = threading.Timer(0, lambda: None)
            process = self.start(database, tmp_path, f"wait_event_type = 'Lock' AND query LIKE '%{statement}%'")
            process.kill()
            process.result()
            unblock.start()
            unblock.join()
            if not completes:
                database.server.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'"
                )
        blocker.close()
        wait_until_gone(database.server, str(database.options.database))
        self.up(database, tmp_path)
        expected = [] if statement.startswith("DROP") else [("i", True)]
        assert expected == database.query(
            "SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indrelid = 'a'::regclass"
        )
        assert database.query("SELECT version FROM migrations") == [("001",)]


LOGGED = 24


@pytest.fixture
def logged(tmp_path: Path, database: TestDatabase) -> Path:
    """Migrations that each add a line to a table, which is there before them."""
    database.query("CREATE TABLE log (version text, pid int)")
    for number in range(1, LOGGED + 1):
        version = f"{number:03}"
        (tmp_path / f"{version}_t.up.sql").write_text(
            f"CREATE TABLE t{version} (id int);\nINSERT INTO log VALUES ('{version}', pg_backend_pid());\n"
        )
    return tmp_path


def race(database: TestDatabase, directory: Path, count: int = 8) -> list[list[str]]:
    """Start so many runners together; what each of them applied."""
    processes = [MigratingProcess(directory, database.options, f"racer {number}") for number in range(count)]
    for process in processes:
        process.go()
    results = [process.result() for process in processes]
    assert [code for code, _applied, _errors in results] == [0] * count, results
    return [applied for _code, applied, _errors in results]


class TestEightRunnersAtOnce:
    def test_each_migration_is_applied_once(self, database: TestDatabase, logged: Path) -> None:
        applied = race(database, logged)
        expected = [f"{number:03}" for number in range(1, LOGGED + 1)]
        assert sorted(version for versions in applied for version in versions) == expected
        assert [version for (version,) in database.query("SELECT version FROM log ORDER BY version")] == expected
        assert [version for (version,) in database.query("SELECT version FROM migrations ORDER BY id")] == expected

    def test_an_index_built_concurrently_is_no_deadlock(self, database: TestDatabase, logged: Path) -> None:
        for version, column in (("100", "version"), ("101", "pid")):
            (logged / f"{version}_index.up.sql").write_text(
                f"-- migrate:no-transaction\nCREATE INDEX CONCURRENTLY log_{column} ON log ({column});\n"
            )
        (logged / "102_end.up.sql").write_text("INSERT INTO log VALUES ('102', pg_backend_pid());\n")
        applied = race(database, logged)
        expected = [*(f"{number:03}" for number in range(1, LOGGED + 1)), "100", "101", "102"]
        assert sorted(version for versions in applied for version in versions) == expected
        assert [version for (version,) in database.query("SELECT version FROM migrations ORDER BY id")] == expected
        assert database.query("SELECT count(*), count(DISTINCT version) FROM log") == [(LOGGED + 1, LOGGED + 1)]
        assert database.query(
            "SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indrelid = 'log'::regclass ORDER BY 1"
        ) == [("log_pid", True), ("log_version", True)]
