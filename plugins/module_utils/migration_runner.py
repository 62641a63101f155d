# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs migrations over one session: each in a transaction of its own, its record in the same one.

A migration that could not get its locks is rolled back and tried again after a pause. One outside a
transaction runs statement by statement, and notes how far it has come; statements that the server can run
in a transaction are noted in the same one, so that none of them runs twice.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils import migration_failures, sql_statements
from ansible_collections.roastify.ops.plugins.module_utils.concurrent_indexes import ConcurrentBuild
from ansible_collections.roastify.ops.plugins.module_utils.migration_failures import MigrationError, Place
from ansible_collections.roastify.ops.plugins.module_utils.migration_plan import Correction, Plan, PlanError, Step
from ansible_collections.roastify.ops.plugins.module_utils.migration_records import State, Unfinished
from ansible_collections.roastify.ops.plugins.module_utils.migration_session import (
    DEADLOCK,
    LOCK_NOT_AVAILABLE,
    RESET,
    RunOptions,
    Session,
)
from ansible_collections.roastify.ops.plugins.module_utils.migration_table import SINCE_BEGIN, done_checksum
from ansible_collections.roastify.ops.plugins.module_utils.postgresql import ConnectionOptions
from ansible_collections.roastify.ops.plugins.module_utils.postgresql_driver import Cursor, DatabaseError
from ansible_collections.roastify.ops.plugins.module_utils.sql_statements import Statement

TOOL_VERSION = "0.1.0"
"""Of the collection; recorded with every migration."""

_WAITS = (LOCK_NOT_AVAILABLE, DEADLOCK)
# Codes of the server, https://www.postgresql.org/docs/current/errcodes-appendix.html
_NOT_IN_A_TRANSACTION = ("25001", "2D000")  # active_sql_transaction; a procedure that commits
_ALREADY_THERE = ("42P07", "42710", "42P04")  # duplicate table, object, database
_GONE = ("42704", "42P01", "3D000")  # undefined object, table, database
_UNDEFINED_TABLE = "42P01"
_WRONG_STATE = "55000"

# One statement per message names the failing one exactly. Scripts of many statements (data) are sent in
# batches: fewer round trips, and far less memory in the server than one message of megabytes.
_SINGLY_UP_TO = 200
_BATCH_STATEMENTS = 200
_BATCH_CHARACTERS = 256 * 1024
_BATCH = "pg_migrate_batch"
_AT_ONCE_UP_TO = 20
_DEFINES = frozenset(("TABLE", "INDEX", "SEQUENCE", "TYPE", "FUNCTION", "PROCEDURE", "TRIGGER", "SCHEMA"))
_QUERIES = frozenset(("SELECT", "VALUES", "EXECUTE"))


@dataclass(frozen=True)
class Done:
    """A migration that was run, with what the server had to say."""

    step: Step
    duration_ms: int
    notices: tuple[str, ...] = ()

    def as_result(self) -> dict[str, Any]:
        """The same for a module's result."""
        return {
            "version": self.step.migration.version,
            "name": self.step.migration.name,
            "file": self.step.script.file,
            "duration_ms": self.duration_ms,
            "notices": list(self.notices),
        }


class _ConnectionLost(Exception):
    """The connection broke while a migration ran."""

    def __init__(self, error: DatabaseError, statements: Sequence[Statement]) -> None:
        super().__init__(str(error))
        self.error = error
        self.statements = statements


class _Records:
    """What the tracking table holds, kept up to date while migrations run."""

    def __init__(self, state: State) -> None:
        self.applied = {row.number: row for row in state.applied}
        self.unfinished = {row.number: row for row in state.unfinished}

    def holds(self, step: Step) -> bool:
        """Whether a step has been taken."""
        return (step.migration.number in self.applied) == (step.direction == "up")

    def take(self, step: Step) -> None:
        """Note that a step was taken."""
        self.unfinished.pop(step.migration.number, None)
        step.take(self.applied)

    @property
    def state(self) -> State:
        """The same as a state."""
        return State(tuple(self.applied.values()), tuple(self.unfinished.values()))


@dataclass
class Runner:
    """One run; use it as a context manager, which closes the connection.

    Attributes:
        connection_options: the database.
        options: how to run.
        sleep: waits; replaced in tests.
        corrected: what was changed in the tracking table without running a script.
        done: what was run so far, also when a later migration failed.
        warnings: what happened beside the plan.
        state_after: what the database says after a run that succeeded.
    """

    connection_options: ConnectionOptions
    options: RunOptions = field(default_factory=RunOptions)
    sleep: Callable[[float], None] = time.sleep
    corrected: list[Correction] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._session = Session(self.connection_options, self.options, self.sleep)
        self._table = self._session.table
        self._clean = False  # nothing has changed the session since it was cleaned up
        self.state_after: State | None = None

    def __enter__(self) -> Runner:
        self._session.open()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._session.close()

    def state(self) -> State:
        """Read the tracking table."""
        return self._session.state()

    @property
    def server_version(self) -> str:
        """The server's version: 15.18."""
        major, minor = divmod(self._session.connection.server_version, 10000)
        return f"{major}.{minor}"

    def check(self, plan: Plan) -> None:
        """Refuse a plan that could not be carried out; writes nothing."""
        if plan.is_empty:
            return
        self._table.check_writable()
        if any(correction.action == "baseline" for correction in plan.corrections):
            self._check_baseline()

    def _check_baseline(self) -> None:
        with self._session.cursor() as cursor:
            if self._table.stands_alone(cursor):
                raise PlanError(
                    f"There is no table in {self.connection_options}, so that it cannot hold what the migrations make; "
                    "nothing was recorded.",
                    "Apply the migrations (state applied), or correct the connection.",
                )

    def run(self, make_plan: Callable[[State], Plan], state: State | None = None) -> Plan:
        """Make a plan and run it; without anything to do, nothing is locked or written.

        Args:
            make_plan: decides from the state of the database what is to run.
            state: what state() just answered, if the caller asked already.

        Returns:
            The plan that was run. What it did is in `corrected` and `done`, also after an exception.

        Raises:
            OperationError: with cause and remedy; the failing migration was rolled back.
        """
        state = state or self.state()
        plan = make_plan(state)
        self.check(plan)
        self.state_after = state
        if plan.is_empty:
            return plan
        try:
            return self._run(state, plan, make_plan)
        except DatabaseError as error:
            raise self._session.error(error, "The run was interrupted") from None

    def _run(self, state: State, plan: Plan, make_plan: Callable[[State], Plan]) -> Plan:
        self._session.lock()
        try:
            # Another runner may have been at work until now.
            with self._session.cursor() as cursor:
                self._table.look(cursor, "")
            current = self.state()
            if current != state:
                state, plan = current, make_plan(current)
            if not plan.is_empty:
                self._prepare()
            if plan.corrections:
                state = self._correct(plan.corrections)
            records = _Records(state)
            for step in plan.steps:
                records = self._apply(step, records)
            self.state_after = records.state
        finally:
            self._session.unlock()
        return plan

    def _prepare(self) -> None:
        with self._session.cursor() as cursor:
            try:
                self._table.prepare(cursor)
                # An event trigger may have changed the search_path meanwhile.
                self._table.look(cursor, RESET + self._session.settings())
            except DatabaseError as error:
                self._session.roll_back()
                raise self._session.error(error, f"The table {self._table.name} cannot be prepared") from None

    def _correct(self, corrections: Sequence[Correction]) -> State:
        with self._session.cursor() as cursor:
            try:
                cursor.execute("BEGIN")
                for correction in corrections:
                    self._table.correct(cursor, correction, self._context())
                cursor.execute("COMMIT")
            except DatabaseError as error:
                self._session.roll_back()
                raise self._session.error(error, f"The table {self._table.name} cannot be corrected") from None
        self.corrected.extend(corrections)
        return self.state()

    def _context(self) -> dict[str, str | None]:
        return {
            "applied_by": self.options.applied_by,
            "deployment_id": self.options.deployment_id,
            "tool_version": f"pg_migrate {TOOL_VERSION}",
        }

    # -- one migration ---------------------------------------------------------------------------

    def _apply(self, step: Step, records: _Records) -> _Records:
        """Run one migration, again where its failure may pass; what is recorded after it."""
        attempts = 0
        lost = False
        at_once = self._table.is_plain and _may_run_at_once(step)
        while True:
            try:
                if at_once:
                    done = self._at_once(step)
                elif step.script.transactional:
                    done = self._in_transaction(step, records)
                else:
                    done = self._by_statement(step, records)
                break
            except _NotAtOnce:
                at_once = False
            except _ConnectionLost as error:
                if lost:
                    place = Place(step, error.statements, 0, records.state.schema_version)
                    raise migration_failures.failed(self._session, place, error.error) from None
                lost = True
                self.warnings.append(f"the connection was lost during {step.script.file}; connected again")
                records = _Records(self._reconnect())
                self._see_that_nothing_is_lost(records)
                if records.holds(step):  # the server did commit, only its answer was lost
                    self.done.append(Done(step, 0))
                    return records
            except MigrationError as error:
                retry = step.script.transactional and error.details["sqlstate"] in _WAITS
                if not retry or attempts >= self.options.lock_retries:
                    raise
                attempts += 1
                self._pause(attempts)
        self.done.append(done)
        records.take(step)
        return records

    def _pause(self, attempt: int) -> None:
        self.sleep(min(2.0 ** (attempt - 1), 30.0) * random.uniform(0.5, 1.0))

    def _reconnect(self) -> State:
        self._session.close()
        self._session.open()
        self._session.lock()
        return self.state()

    def _see_that_nothing_is_lost(self, records: _Records) -> None:
        """A server that does not wait for its disk (synchronous_commit) forgets commits when it crashes."""
        last = {done.step.migration.number: done for done in self.done}
        lost = [done.step.script.file for done in last.values() if not records.holds(done.step)]
        if lost:
            raise PlanError(
                f"The server crashed and forgot what it had committed: {', '.join(lost)}.",
                "Run again: it finds out what is applied. Then see why commits do not wait for the disk "
                "(synchronous_commit, fsync).",
            )

    def _take_lock_again(self, previous: Step | None) -> None:
        who = f" by {previous.script.file}" if previous else ""
        self.warnings.append(f"the lock of the migrations was given up{who}; it was taken again")
        self._session.lock()

    def _clean_up(self, cursor: Cursor, step: Step, settings: str) -> None:
        """Take back what the previous script left in the session, and make sure of the lock.

        A message of its own: the server reads a message to its end, with the encoding and the rules of quoting that
        hold when it comes, before any of it runs; and a transaction has the properties that hold when it begins.
        """
        self._clean = False
        for _attempt in range(2):
            cursor.execute(f"{RESET}{settings}SELECT {self._session.holds_lock}")
            if cursor.fetchone()[0]:
                self._session.connection.take_notices()
                return
            self._take_lock_again(self.done[-1].step if self.done else None)
            if _Records(self.state()).holds(step):
                raise PlanError(
                    f"{step.script.file} was run by somebody else meanwhile.", "Run again to see what is left to do."
                )

    def _notices(self) -> tuple[str, ...]:
        scrub = self.connection_options.scrub
        return tuple(scrub(notice) for notice in self._session.connection.take_notices())

    def _record(self, cursor: Cursor, step: Step, duration_ms: int, records: _Records, settings: str = "") -> int:
        row = records.applied.get(step.migration.number)
        context = {**self._context(), "recorded_version": row.version if row else None}
        return self._table.record(cursor, step, duration_ms, context, settings)

    def _raise_if_lost(self, error: DatabaseError, statements: Sequence[Statement]) -> None:
        if self._session.connection.closed:
            raise _ConnectionLost(error, statements) from None

    def _at_once(self, step: Step) -> Done:
        """Run a script of definitions and its record as one message, which spares four waits for the server.

        Raises:
            _NotAtOnce: it failed and was rolled back; another way has to find out where.
        """
        script, statements = step.script, step.checked.statements
        record = self._table.insertion(
            step.migration, step.migration.version, self._context(), SINCE_BEGIN, step.checked
        )
        text = script.text[statements[0].offset : statements[-1].offset + len(statements[-1].text)]
        started = time.monotonic()
        try:
            with self._session.cursor() as cursor:
                if not self._clean:
                    self._clean_up(cursor, step, self._session.settings())
                # A comment may end the script, so that the next command needs a line of its own.
                cursor.execute(f"BEGIN; {text}\n; {record}; COMMIT")
        except DatabaseError as error:
            self._raise_if_lost(error, statements)
            self._session.roll_back()
            raise _NotAtOnce from None
        self._clean = True  # definitions like these change nothing in the session
        return Done(step, round((time.monotonic() - started) * 1000), self._notices())

    def _in_transaction(self, step: Step, records: _Records) -> Done:
        sent: Sequence[Statement] = ()
        try:
            with self._session.cursor() as cursor:
                started = time.monotonic()
                self._clean_up(cursor, step, self._session.settings())
                cursor.execute("BEGIN; SELECT pg_catalog.txid_current()")
                transaction = int(cursor.fetchone()[0])
                for sent in _parts(step.checked.statements):
                    try:
                        self._send(cursor, step, sent)
                    except _AtStatement as error:
                        sent = (error.statement,)
                        raise error.error from None
                sent = ()
                if not self._session.connection.in_transaction:
                    raise migration_failures.broke_out(step)
                duration = round((time.monotonic() - started) * 1000)
                timeouts = self._session.timeouts_of_transaction()
                if self._record(cursor, step, duration, records, timeouts) != transaction:
                    raise migration_failures.broke_out(step)
                cursor.execute("COMMIT")
                return Done(step, duration, self._notices())
        except DatabaseError as error:
            self._raise_if_lost(error, sent)
            self._session.roll_back()
            place = Place(step, sent, 0, records.state.schema_version)
            raise migration_failures.failed(self._session, place, error) from None
        except BaseException:
            self._session.roll_back()
            raise

    def _send(self, cursor: Cursor, step: Step, part: Sequence[Statement]) -> None:
        """Send statements as one message; where one of several fails, find out which."""
        text = step.script.text[part[0].offset : part[-1].offset + len(part[-1].text)]
        if len(part) == 1 or _has_savepoints(step.checked.statements):
            # Without a second argument: with one, the driver would take every % for a placeholder.
            cursor.execute(text)
            return
        cursor.execute(f"SAVEPOINT {_BATCH}")
        try:
            cursor.execute(text)
        except DatabaseError as error:
            if self._session.connection.closed or error.position:  # the position tells the statement as well
                raise
            cursor.execute(f"ROLLBACK TO SAVEPOINT {_BATCH}")
            for statement in part:
                try:
                    cursor.execute(statement.text)
                except DatabaseError as again:
                    raise _AtStatement(statement, again) from None
        cursor.execute(f"RELEASE SAVEPOINT {_BATCH}")

    # -- a migration outside a transaction ---------------------------------------------------------

    def _by_statement(self, step: Step, records: _Records) -> Done:
        statements = step.checked.statements
        # CREATE INDEX CONCURRENTLY waits without blocking anybody, and lock_timeout would leave it half done.
        polite = all(sql_statements.waits_politely(it) for it in statements if it.head[:1] != ("SET",))
        sent: Sequence[Statement] = ()
        reached, version = 0, step.migration.version
        try:
            with self._session.cursor() as cursor:
                started = time.monotonic()
                settings = self._session.settings(0 if polite else None)
                self._clean_up(cursor, step, settings)
                self._table.prepare_unfinished(cursor)
                self._table.look(cursor, RESET + settings)
                resumed = self._resume(cursor, step, records.unfinished.get(step.migration.number))
                if resumed:
                    reached, version = resumed.statements_done, resumed.version
                # One that failed said so; only one that was killed may have done more than it could note.
                killed_at = reached if resumed and resumed.error is None else None
                self._set_again(cursor, statements[:reached])
                for index in range(reached, len(statements)):
                    sent = (statements[index],)
                    self._run_and_note(cursor, step, version, index, resumed=index == killed_at)
                    reached = index + 1
                sent = ()
                duration = round((time.monotonic() - started) * 1000)
                notices = self._notices()
                cursor.execute("BEGIN")
                self._table.finish(cursor, version)
                self._record(cursor, step, duration, records)
                cursor.execute("COMMIT")
                return Done(step, duration, notices)
        except DatabaseError as error:
            self._raise_if_lost(error, sent)
            self._session.roll_back()
            place = Place(step, sent, reached, records.state.schema_version)
            failure = migration_failures.failed(self._session, place, error)
            self._note_failure(step, version, reached, failure)
            raise failure from None
        except BaseException:
            self._session.roll_back()
            raise

    def _resume(self, cursor: Cursor, step: Step, row: Unfinished | None) -> Unfinished | None:
        """Find out where to go on; None to begin with the first statement, which is noted."""
        if row is not None and row.direction != step.direction:
            self._table.finish(cursor, row.version)
            row = None
        if row is None:
            self._table.start(cursor, step, self.options.applied_by)
        elif row.done_checksum != done_checksum(step.checked.statements[: row.statements_done]):
            raise PlanError(
                f"{step.script.file} was interrupted after statement {row.statements_done}, and one of its statements "
                "up to there was changed since: what is done cannot be told from what is not.",
                f"Restore these statements, or undo what they did and start anew (state repaired, version "
                f"{row.version}).",
            )
        return row

    def _set_again(self, cursor: Cursor, done: Sequence[Statement]) -> None:
        """Repeat the settings of the session that statements made which are not run again."""
        for statement in done:
            if _is_of_session(statement):
                cursor.execute(statement.text)

    def _run_and_note(self, cursor: Cursor, step: Step, version: str, index: int, resumed: bool) -> None:
        """Run one statement and note it, again where it could not get its locks."""
        attempts = 0
        while True:
            try:
                if not self._run_and_note_in_transaction(cursor, step, version, index):
                    self._execute_alone(cursor, step.checked.statements[index], resumed)
                    if not self._session.connection.idle:
                        raise migration_failures.broke_out(step)
                    self._table.progress(cursor, step, version, index + 1)
                self._see_the_lock(cursor, step)
                return
            except DatabaseError as error:
                lost = self._session.connection.closed
                if lost or error.sqlstate not in _WAITS or attempts >= self.options.lock_retries:
                    raise
                self._session.roll_back()
                attempts += 1
                self._pause(attempts)

    def _see_the_lock(self, cursor: Cursor, step: Step) -> None:
        cursor.execute(f"SELECT {self._session.holds_lock}")
        if not cursor.fetchone()[0]:
            raise PlanError(
                f"{step.script.file} gave the lock of the migrations up, so that another run could do the same.",
                "Remove what does that (pg_advisory_unlock_all, DISCARD ALL), and run again: it goes on there.",
            )

    def _run_and_note_in_transaction(self, cursor: Cursor, step: Step, version: str, index: int) -> bool:
        """Run one statement and note it, both or neither; False if the server cannot run it in a transaction."""
        statement = step.checked.statements[index]
        if _is_of_session(statement) or sql_statements.needs_no_transaction(statement):
            return False
        try:
            cursor.execute("BEGIN")
            cursor.execute(statement.text)
            self._table.progress(cursor, step, version, index + 1)
            cursor.execute("COMMIT")
        except DatabaseError as error:
            if self._session.connection.closed or error.sqlstate not in _NOT_IN_A_TRANSACTION:
                raise
            self._session.roll_back()
            return False
        return True

    def _execute_alone(self, cursor: Cursor, statement: Statement, resumed: bool) -> None:
        """Run a statement outside a transaction, and clean up behind it if it fails."""
        scrub = self.connection_options.scrub
        build = ConcurrentBuild(cursor, statement, lambda text: self.warnings.append(scrub(text)))
        build.before()
        try:
            cursor.execute(statement.text)
        except DatabaseError as error:
            if self._session.connection.closed:
                raise
            if resumed and self._was_done_before(cursor, statement, error, build):
                self.warnings.append(f"line {statement.line} was already done: {error.message}")
                return
            build.failed()
            raise
        build.done()

    @staticmethod
    def _was_done_before(cursor: Cursor, statement: Statement, error: DatabaseError, build: ConcurrentBuild) -> bool:
        """Whether the interrupted run did this one, and was killed before it could note it."""
        command = sql_statements.needs_no_transaction(statement)
        if command == "CREATE INDEX CONCURRENTLY":
            return error.sqlstate in _ALREADY_THERE and build.is_there()
        if command == "DETACH PARTITION CONCURRENTLY":
            if error.sqlstate == _WRONG_STATE:  # begun, and broken off behind its first half
                cursor.execute(f"{statement.text[: -len('CONCURRENTLY')]} FINALIZE")
                return True
            return error.sqlstate == _UNDEFINED_TABLE
        return error.sqlstate in (_GONE if statement.head[:1] == ("DROP",) else _ALREADY_THERE)

    def _note_failure(self, step: Step, version: str, reached: int, failure: MigrationError) -> None:
        if self._session.connection.closed:
            return
        try:
            with self._session.cursor() as cursor:
                cursor.execute(RESET + self._session.settings())
                self._table.progress(cursor, step, version, reached, failure.details["message"])
        except DatabaseError:
            pass  # the row is there since the start of the migration; it only lacks the reason


class _NotAtOnce(Exception):
    """A script cannot run as one message."""


class _AtStatement(Exception):
    """One of several statements failed."""

    def __init__(self, statement: Statement, error: DatabaseError) -> None:
        super().__init__(str(error))
        self.statement = statement
        self.error = error


def _may_run_at_once(step: Step) -> bool:
    """Whether a script may be run again to find out where it failed: a few definitions that nobody has to wait for.

    They run no query and no function, so that the session is the same afterwards.
    """
    from ansible_collections.roastify.ops.plugins.module_utils import sql_locks  # a run without work needs none of it

    statements = step.checked.statements
    return (
        step.direction == "up"
        and step.script.transactional
        and 0 < len(statements) <= _AT_ONCE_UP_TO
        and all(_only_defines(it) for it in statements)
        and all(lock.blocks == sql_locks.NOTHING and not lock.scans for lock in sql_locks.locks_of(statements))
    )


def _only_defines(statement: Statement) -> bool:
    words = [token.upper() for token in sql_statements.tokens(statement.text)]
    if words[0] in ("COMMENT", "GRANT", "REVOKE"):
        return True
    what = next((word for word in words[1:] if word not in ("OR", "REPLACE", "UNIQUE", "UNLOGGED")), "")
    if words[0] != "CREATE" or what not in _DEFINES:
        return False
    # A table made by a query, of a partition whose bounds are computed, or a temporary one is no mere definition.
    if _QUERIES.intersection(words) or ("AS", "TABLE") in zip(words, words[1:]):
        return False
    return not any(word.strip('"').startswith("PG_TEMP") for word in words)


def _parts(statements: Sequence[Statement]) -> Iterator[Sequence[Statement]]:
    """The statements as they are sent: one by one, or in batches where there are many."""
    if len(statements) <= _SINGLY_UP_TO:
        for statement in statements:
            yield (statement,)
        return
    first = 0
    for index, statement in enumerate(statements):
        too_long = statement.offset + len(statement.text) - statements[first].offset > _BATCH_CHARACTERS
        # The server reads a message to its end before a setting in it takes effect.
        behind_a_setting = index > 0 and _is_of_session(statements[index - 1])
        if index > first and (too_long or behind_a_setting or index - first >= _BATCH_STATEMENTS):
            yield statements[first:index]
            first = index
    yield statements[first:]


def _is_of_session(statement: Statement) -> bool:
    """Whether a statement makes a setting of the session, which a transaction that is rolled back would take along."""
    if statement.head[:1] in (("SET",), ("RESET",)):
        return True
    return statement.head[:1] == ("SELECT",) and "set_config" in statement.text.lower()


def _has_savepoints(statements: Sequence[Statement]) -> bool:
    """Whether a script has savepoints of its own, which ours could get in the way of."""
    return any(it.head[:1] in (("SAVEPOINT",), ("RELEASE",), ("ROLLBACK",)) for it in statements)
