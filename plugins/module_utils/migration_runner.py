# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs migrations over one connection: each in a transaction of its own, its record in the same one.

What guards a run:

- A session advisory lock of the tracking table lets one runner at a time write. It is polled for:
  a runner that waits inside pg_advisory_lock holds a snapshot and deadlocks with CREATE INDEX CONCURRENTLY.
- lock_timeout keeps a migration from queueing behind a long transaction, where it would block everybody
  behind it; the migration is rolled back and tried again after a pause.
- What a script leaves in the session (role, search_path, settings, temporary tables) is reset before the next.
- A killed runner leaves nothing: the server notices within a second that its client is gone
  (client_connection_check_interval, PostgreSQL 14 and newer), rolls back and gives the lock free.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils import postgresql, sql_statements
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.migration_files import checksum
from ansible_collections.roastify.ops.plugins.module_utils.migration_plan import (
    AppliedMigration,
    Plan,
    PlanError,
    Step,
    Unfinished,
    schema_version,
)
from ansible_collections.roastify.ops.plugins.module_utils.migration_table import Database, TrackingTable
from ansible_collections.roastify.ops.plugins.module_utils.postgresql import ConnectionOptions
from ansible_collections.roastify.ops.plugins.module_utils.sql_statements import Statement

try:
    import psycopg2
except ImportError:  # the module says how to get it
    psycopg2 = None  # type: ignore[assignment]

TOOL_VERSION = "0.1.0"
"""Of the collection; recorded with every migration."""

_LOCK_NOT_AVAILABLE = "55P03"
_DEADLOCK = "40P01"
_QUERY_CANCELED = "57014"
_ALREADY_THERE = ("42P07", "42710", "42701", "42P06")

# One statement per message names the failing one exactly. Scripts of many statements (data) are sent in
# batches: fewer round trips, and far less memory in the server than one message of megabytes.
_SINGLY_UP_TO = 200
_BATCH_STATEMENTS = 200
_BATCH_CHARACTERS = 256 * 1024

_RESET = "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; CLOSE ALL; UNLISTEN *; DEALLOCATE ALL; DISCARD TEMP; "


class MigrationError(OperationError):
    """A migration failed.

    Attributes:
        details: file, line, statement, sqlstate, message, detail, hint, version: for machines.
    """

    def __init__(self, cause: str, remedy: str, evidence: list[str], details: dict[str, Any]) -> None:
        super().__init__(cause, remedy, evidence)
        self.details = details


class LockNotFree(OperationError):
    """Another runner holds the lock, and did so for the whole time that this one waited."""


@dataclass(frozen=True)
class RunOptions:
    """How migrations are run.

    Attributes:
        table: the tracking table, or schema.table.
        lock_wait: seconds to wait for another runner.
        lock_timeout: seconds that one statement may wait for locks on tables.
        lock_retries: how often a migration that could not get its locks is tried again.
        statement_timeout: seconds that one statement may take; 0 for no limit.
        applied_by: who runs this.
        deployment_id: the deployment this belongs to.
    """

    table: str = "migrations"
    lock_wait: float = 60
    lock_timeout: float = 5
    lock_retries: int = 5
    statement_timeout: float = 900
    applied_by: str | None = None
    deployment_id: str | None = None


@dataclass(frozen=True)
class State:
    """What the database says about its migrations."""

    applied: tuple[AppliedMigration, ...]
    unfinished: tuple[Unfinished, ...]

    @property
    def schema_version(self) -> str | None:
        """The newest applied version."""
        return schema_version(self.applied)


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


@dataclass
class Runner:
    """One run; use it as a context manager, which closes the connection.

    Attributes:
        connection_options: the database.
        options: how to run.
        sleep: waits; replaced in tests.
        done: what was run so far, also when a later migration failed.
        warnings: what happened beside the plan.
        state_after: what the database says after a run that succeeded.
    """

    connection_options: ConnectionOptions
    options: RunOptions = field(default_factory=RunOptions)
    sleep: Callable[[float], None] = time.sleep
    done: list[Done] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._table = TrackingTable(self.options.table)
        self._connection: Any = None
        self.state_after: State | None = None

    def __enter__(self) -> Runner:
        self._open()
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._connection is not None:
            self._connection.close()

    @property
    def database(self) -> Database:
        """What is known about the database."""
        if self._table.database is None:
            raise RuntimeError("the runner is not connected")
        return self._table.database

    def state(self) -> State:
        """Read the tracking table."""
        with self._cursor() as cursor:
            try:
                return State(tuple(self._table.applied(cursor)), tuple(self._table.unfinished(cursor)))
            except psycopg2.Error as error:
                raise self._database_error(error, f"{self._table.name} cannot be read") from None

    def check(self, plan: Plan) -> None:
        """Refuse a plan that could not be recorded; writes nothing."""
        if plan.steps:
            self._table.check_writable()

    def run(self, make_plan: Callable[[State], Plan], state: State | None = None) -> Plan:
        """Make a plan and run it; without anything to do, nothing is locked or written.

        Args:
            make_plan: decides from the state of the database what is to run.
            state: what state() just answered, if the caller asked already.

        Returns:
            The plan that was run. What it did is in `done`, also after an exception.

        Raises:
            OperationError: with cause and remedy; the failing migration was rolled back.
        """
        state = state or self.state()
        plan = make_plan(state)
        self.check(plan)
        self.state_after = state
        if not plan.steps:
            return plan
        try:
            return self._run(state, plan, make_plan)
        except psycopg2.Error as error:
            raise self._database_error(error, "The run was interrupted") from None

    def _run(self, state: State, plan: Plan, make_plan: Callable[[State], Plan]) -> Plan:
        self._lock()
        try:
            # Another runner may have been at work until now.
            with self._cursor() as cursor:
                self._table.look(cursor, "")
            current = self.state()
            if current != state:
                state, plan = current, make_plan(current)
            if plan.steps:
                self._prepare()
            for step in plan.steps:
                state = self._apply(step, state)
            self.state_after = state
        finally:
            self._unlock()
        return plan

    # -- connection and lock ---------------------------------------------------------------------

    def _open(self) -> None:
        self._connection = postgresql.connect(self.connection_options, self.sleep)
        try:
            with self._cursor() as cursor:
                self._table.look(cursor, self._settings())
        except psycopg2.Error as error:
            raise self._database_error(error, f"The state of {self.connection_options} cannot be read") from None

    def _cursor(self) -> Any:
        return self._connection.cursor()

    def _settings(self, lock_timeout: float | None = None) -> str:
        lock_timeout = self.options.lock_timeout if lock_timeout is None else lock_timeout
        settings = {
            "TimeZone": "'UTC'",
            "standard_conforming_strings": "on",
            "lock_timeout": str(int(lock_timeout * 1000)),
            "statement_timeout": str(int(self.options.statement_timeout * 1000)),
            "tcp_keepalives_idle": "60",
            "tcp_keepalives_interval": "10",
            "tcp_keepalives_count": "3",
        }
        if self._connection.server_version >= 140000:
            settings["client_connection_check_interval"] = "'1s'"
            settings["idle_session_timeout"] = "0"
        return "".join(f"SET {name} = {value}; " for name, value in settings.items())

    @property
    def _lock_condition(self) -> str:
        key = self._table.lock_key & 0xFFFFFFFFFFFFFFFF
        return (
            f"locktype = 'advisory' AND objsubid = 1 AND granted AND classid = {key >> 32}::oid "
            f"AND objid = {key & 0xFFFFFFFF}::oid AND lock.database = (SELECT oid FROM pg_catalog.pg_database "
            "WHERE datname = pg_catalog.current_database())"
        )

    def _lock(self) -> None:
        deadline = time.monotonic() + self.options.lock_wait
        pause = 0.05
        with self._cursor() as cursor:
            while True:
                cursor.execute(f"SELECT pg_catalog.pg_try_advisory_lock({self._table.lock_key})")
                if cursor.fetchone()[0]:
                    return
                if time.monotonic() >= deadline:
                    raise LockNotFree(
                        f"Another migration run on {self.connection_options} holds the lock; waited "
                        f"{self.options.lock_wait:g} s.",
                        "Wait for it to end. If it hangs, end its connection: SELECT pg_terminate_backend(pid).",
                        self._lock_holder(cursor),
                    )
                self.sleep(min(pause, max(deadline - time.monotonic(), 0.01)))
                pause = min(pause * 1.5, 1.0)

    def _lock_holder(self, cursor: Any) -> list[str]:
        cursor.execute(
            f"""SELECT lock.pid, activity.application_name, activity.usename,
                       coalesce(activity.client_addr::text, 'a local socket'),
                       to_char(activity.backend_start, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), activity.state
                  FROM pg_catalog.pg_locks AS lock LEFT JOIN pg_catalog.pg_stat_activity AS activity USING (pid)
                 WHERE {self._lock_condition}"""
        )
        return [
            f'held by pid {pid}, application "{application}", user {user} from {address}, connected since {since}'
            + (f", {state}" if state else "")
            for pid, application, user, address, since, state in cursor.fetchall()
        ]

    def _unlock(self) -> None:
        if self._connection.closed:
            return
        try:
            with self._cursor() as cursor:
                if self._connection.info.transaction_status != psycopg2.extensions.TRANSACTION_STATUS_IDLE:
                    cursor.execute("ROLLBACK")
                cursor.execute(f"SELECT pg_catalog.pg_advisory_unlock({self._table.lock_key})")
        except psycopg2.Error:
            self._connection.close()  # which gives the lock free as well

    def _take_lock_again(self, previous: Step | None) -> None:
        who = f" by {previous.script.file}" if previous else ""
        self.warnings.append(f"the lock of the migrations was given up{who}; it was taken again")
        self._lock()

    def _prepare(self) -> None:
        with self._cursor() as cursor:
            try:
                self._table.prepare(cursor)
                self._table.look(cursor, "")
            except psycopg2.Error as error:
                self._roll_back()
                raise self._database_error(error, f"The table {self._table.name} cannot be prepared") from None

    # -- one migration ---------------------------------------------------------------------------

    def _apply(self, step: Step, state: State) -> State:
        """Run one migration, again where its failure may pass; the state after it."""
        attempts = 0
        lost = False
        while True:
            try:
                if step.script.transactional:
                    done = self._in_transaction(step, state)
                else:
                    done = self._by_statement(step, state)
                break
            except _ConnectionLost as error:
                if lost:
                    raise self._failed(step, None, error.__cause__, state) from None
                lost = True
                self.warnings.append(f"the connection was lost during {step.script.file}; connected again")
                state = self._reconnect()
                if self._is_done(step, state):  # the server did commit, only its answer was lost
                    self.done.append(Done(step, 0))
                    return state
            except MigrationError as error:
                retry = step.script.transactional and error.details["sqlstate"] in (_LOCK_NOT_AVAILABLE, _DEADLOCK)
                if not retry or attempts >= self.options.lock_retries:
                    raise
                attempts += 1
                self._pause(attempts)
        self.done.append(done)
        number = step.migration.number
        applied = [row for row in state.applied if row.number != number]
        if step.direction == "up":
            applied.append(AppliedMigration(0, step.migration.version, step.migration.name))
        return State(tuple(applied), tuple(row for row in state.unfinished if row.number != number))

    def _pause(self, attempt: int) -> None:
        self.sleep(min(2.0 ** (attempt - 1), 30.0) * random.uniform(0.5, 1.0))

    def _reconnect(self) -> State:
        self._connection.close()
        self._open()
        self._lock()
        return self.state()

    @staticmethod
    def _is_done(step: Step, state: State) -> bool:
        applied = step.migration.number in {row.number for row in state.applied}
        return applied == (step.direction == "up")

    def _begin(self, cursor: Any, step: Step, settings: str, begin: str) -> int:
        """Clean up after the previous script, make sure of the lock; the id of the new transaction, if any."""
        del self._connection.notices[:]
        query = (
            f"{_RESET}{settings}{begin}SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_locks AS lock WHERE "
            f"{self._lock_condition} AND lock.pid = pg_catalog.pg_backend_pid()), "
            f"{'pg_catalog.txid_current()' if begin else '0'}"
        )
        cursor.execute(query)
        locked, transaction = cursor.fetchone()
        if not locked:
            self._roll_back()
            self._take_lock_again(self.done[-1].step if self.done else None)
            if self._is_done(step, self.state()):
                raise PlanError(
                    f"{step.script.file} was run by somebody else meanwhile.", "Run again to see what is left to do."
                )
            cursor.execute(query)
            transaction = cursor.fetchone()[1]
        return int(transaction)

    def _in_transaction(self, step: Step, state: State) -> Done:
        part: Sequence[Statement] = ()
        try:
            with self._cursor() as cursor:
                started = time.monotonic()
                transaction = self._begin(cursor, step, self._settings(), "BEGIN; ")
                for part in _parts(step.checked.statements):
                    # Without a second argument: with one, psycopg2 would take every % for a placeholder.
                    cursor.execute(step.script.text[part[0].offset : part[-1].offset + len(part[-1].text)])
                part = ()
                status = self._connection.info.transaction_status
                if status != psycopg2.extensions.TRANSACTION_STATUS_INTRANS:
                    raise self._broke_out(step)
                duration = round((time.monotonic() - started) * 1000)
                if self._table.record(cursor, step, duration, self._context(step, state)) != transaction:
                    raise self._broke_out(step)
                cursor.execute("COMMIT")
                return Done(step, duration, self._notices())
        except psycopg2.Error as error:
            self._raise_if_lost(error)
            self._roll_back()
            raise self._failed(step, part, error, state) from None
        except BaseException:
            self._roll_back()
            raise

    def _context(self, step: Step, state: State) -> dict[str, str | None]:
        recorded = {row.number: row.version for row in state.applied}.get(step.migration.number)
        return {
            "recorded_version": recorded,
            "applied_by": self.options.applied_by,
            "deployment_id": self.options.deployment_id,
            "tool_version": f"pg_migrate {TOOL_VERSION}",
        }

    def _notices(self) -> tuple[str, ...]:
        return tuple(self.connection_options.scrub(notice.strip()) for notice in self._connection.notices)

    def _roll_back(self) -> None:
        if not self._connection.closed:
            try:
                with self._cursor() as cursor:
                    cursor.execute("ROLLBACK")
            except psycopg2.Error:
                self._connection.close()

    def _raise_if_lost(self, error: Exception) -> None:
        if self._connection.closed:
            raise _ConnectionLost from error

    # -- a migration outside a transaction ---------------------------------------------------------

    def _by_statement(self, step: Step, state: State) -> Done:
        statements = step.checked.statements
        # CREATE INDEX CONCURRENTLY waits without blocking anybody, and lock_timeout would leave it half done.
        polite = all(sql_statements.waits_politely(it) for it in statements if it.head[:1] != ("SET",))
        statement: Statement | None = None
        reached = 0
        try:
            with self._cursor() as cursor:
                started = time.monotonic()
                self._begin(cursor, step, self._settings(0 if polite else None), "")
                self._table.prepare_unfinished(cursor)
                self._table.look(cursor, "")
                row = next((it for it in state.unfinished if it.number == step.migration.number), None)
                reached = self._resume_at(cursor, step, row)
                for index in range(reached, len(statements)):
                    statement = statements[index]
                    self._execute_alone(cursor, statement, resumed=row is not None and index == reached)
                    if self._connection.info.transaction_status != psycopg2.extensions.TRANSACTION_STATUS_IDLE:
                        raise self._broke_out(step)
                    if index + 1 < len(statements):
                        self._table.progress(cursor, step, index + 1, _checksum_of(statements[: index + 1]), None)
                    reached = index + 1
                statement = None
                duration = round((time.monotonic() - started) * 1000)
                notices = self._notices()
                cursor.execute("BEGIN")
                self._table.finish(cursor, step)
                self._table.record(cursor, step, duration, self._context(step, state))
                cursor.execute("COMMIT")
                return Done(step, duration, notices)
        except psycopg2.Error as error:
            self._raise_if_lost(error)
            self._roll_back()
            failure = self._failed(step, [statement] if statement else (), error, state, reached)
            self._note_failure(step, reached, failure)
            raise failure from None
        except BaseException:
            self._roll_back()
            raise

    def _resume_at(self, cursor: Any, step: Step, row: Unfinished | None) -> int:
        statements = step.checked.statements
        if row is None or row.direction != step.direction:
            if row is not None:
                self._table.finish(cursor, step)
            self._table.start(cursor, step, _checksum_of(()), self.options.applied_by)
            return 0
        if row.done_checksum != _checksum_of(statements[: row.statements_done]):
            raise PlanError(
                f"{step.script.file} was interrupted after statement {row.statements_done}, and one of its statements "
                "up to there was changed since: what is done cannot be told from what is not.",
                f"Restore these statements, or undo what they did and delete the row of version {row.version} from "
                f"{self._table.unfinished_name}.",
            )
        return row.statements_done

    def _execute_alone(self, cursor: Any, statement: Statement, resumed: bool) -> None:
        """Run a statement outside a transaction, and see to it that no INVALID index stays behind."""
        index = sql_statements.concurrent_index(statement)
        builds = index is not None and index.action == "CREATE"
        attempts = 0
        while True:
            before: set[str] = set()
            if index is not None and builds:
                before = self._invalid_indexes(cursor, index.table)
                if index.name is not None and self._drop_invalid(cursor, index.name, before):
                    before = self._invalid_indexes(cursor, index.table)
            try:
                cursor.execute(statement.text)
            except psycopg2.Error as error:
                if self._connection.closed:
                    raise
                if resumed and error.pgcode in _ALREADY_THERE:
                    # The interrupted run did this one, and was killed before it could note it.
                    self.warnings.append(f"line {statement.line} was already done: {error.diag.message_primary}")
                    return
                if index is not None and builds:
                    self._drop_left_over(cursor, index.table, before)
                if error.pgcode not in (_LOCK_NOT_AVAILABLE, _DEADLOCK) or attempts >= self.options.lock_retries:
                    raise
                attempts += 1
                self._pause(attempts)
                continue
            if index is not None and builds:
                left = sorted(self._invalid_indexes(cursor, index.table))
                if left:
                    self.warnings.append(
                        f"{', '.join(left)} on {index.table} is INVALID: the server keeps it up to date but never "
                        "uses it; drop it (DROP INDEX CONCURRENTLY)"
                    )
            return

    def _invalid_indexes(self, cursor: Any, table: str | None) -> set[str]:
        """The indexes of a table that a broken CREATE INDEX CONCURRENTLY left, names quoted where needed."""
        cursor.execute(
            """SELECT pg_catalog.quote_ident(namespace.nspname) || '.' || pg_catalog.quote_ident(relation.relname)
                 FROM pg_catalog.pg_index AS entry
                 JOIN pg_catalog.pg_class AS relation ON relation.oid = entry.indexrelid
                 JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = relation.relnamespace
                WHERE entry.indrelid = pg_catalog.to_regclass(%s) AND NOT entry.indisvalid AND relation.relkind = 'i'
                  AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_stat_progress_create_index AS build
                                   WHERE build.index_relid = entry.indexrelid)""",
            (table,),
        )
        return {name for (name,) in cursor.fetchall()}

    def _drop_left_over(self, cursor: Any, table: str | None, before: set[str]) -> None:
        try:
            for name in sorted(self._invalid_indexes(cursor, table) - before):
                self._drop_invalid(cursor, name, {name})
        except psycopg2.Error as error:  # the reason of the failed build counts; the next run drops it
            self.warnings.append(f"an INVALID index is left on {table}: {self.connection_options.scrub(str(error))}")

    def _drop_invalid(self, cursor: Any, name: str, invalid: set[str]) -> bool:
        """Drop an INVALID index by its name, with or without schema."""
        for candidate in invalid:
            if candidate == name or candidate.endswith(f".{name}") or candidate.endswith(f".{name.strip(chr(34))}"):
                cursor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {candidate}")
                self.warnings.append(f"dropped the INVALID index {candidate}, left by an interrupted build")
                return True
        return False

    def _note_failure(self, step: Step, reached: int, failure: MigrationError) -> None:
        if self._connection.closed:
            return
        done = step.checked.statements[:reached]
        try:
            with self._cursor() as cursor:
                cursor.execute(_RESET + self._settings())
                self._table.progress(cursor, step, reached, _checksum_of(done), failure.details["message"])
        except psycopg2.Error:
            pass  # the row is there since the start of the migration; it only lacks the reason

    # -- errors ------------------------------------------------------------------------------------

    def _database_error(self, error: Any, what: str) -> OperationError:
        message = self.connection_options.scrub((error.diag.message_primary or str(error)).strip())
        remedy = {
            "42501": "Grant the missing privilege to this role, or run with the role that owns the schema.",
            _LOCK_NOT_AVAILABLE: "Wait until whoever holds the table is done, then run again.",
        }.get(error.pgcode, "Correct what the server complains about, then run again.")
        return OperationError(f"{what}: {error.pgcode or 'connection'}: {message}.", remedy)

    def _broke_out(self, step: Step) -> MigrationError:
        message = "the script ended the transaction it ran in"
        return MigrationError(
            f"{step.script.file}: {message}. What it did before may stay; it is not recorded.",
            "Remove the command that commits or rolls back, check what is left in the database, and run again.",
            [],
            self._details(step, None, None, message),
        )

    @staticmethod
    def _details(step: Step, line: int | None, sqlstate: str | None, message: str) -> dict[str, Any]:
        return {
            "version": step.migration.version,
            "file": step.script.file,
            "path": str(step.script.path),
            "line": line,
            "sqlstate": sqlstate,
            "message": message,
        }

    def _failed(
        self, step: Step, part: Sequence[Statement] | None, error: Any, state: State, reached: int | None = None
    ) -> MigrationError:
        """What a person at three in the morning needs to know about a failed migration."""
        scrub = self.connection_options.scrub
        diagnosis = getattr(error, "diag", None)
        sqlstate = getattr(error, "pgcode", None)
        message = scrub((getattr(diagnosis, "message_primary", None) or str(error)).strip())
        statement, line = self._locate(step, part, getattr(diagnosis, "statement_position", None))
        details = self._details(step, line, sqlstate, message)
        evidence = []
        for name, text in (
            ("detail", getattr(diagnosis, "message_detail", None)),
            ("hint", getattr(diagnosis, "message_hint", None)),
            ("context", getattr(diagnosis, "context", None)),
        ):
            details[name] = scrub(text) if text else None
            if text:
                evidence.append(f"{name.upper()}: {details[name]}")
        details["statement"] = scrub(statement.text) if statement else None
        if statement:
            shown = scrub(statement.text)
            number = step.checked.statements.index(statement) + 1
            evidence.append(
                f"STATEMENT {number} of {len(step.checked.statements)} (line {statement.line}): "
                + (shown if len(shown) <= 600 else shown[:600] + " ...")
            )
        elif part:
            evidence.append(f"STATEMENT: one of those on lines {part[0].line} to {part[-1].end_line}")
        elif error is not None and not self._connection.closed:
            evidence.append("STATEMENT: none of the script; the failure came when it was recorded and committed")
        if sqlstate in (_LOCK_NOT_AVAILABLE, _DEADLOCK):
            evidence += self._long_transactions()
        where = f"{step.script.file}, line {line}" if line else step.script.file
        version = state.schema_version or "none"
        if step.script.transactional:
            consequence = f"It was rolled back and is not recorded; the schema stays at version {version}."
        else:
            consequence = (
                f"It runs outside a transaction: {reached or 0} of its {len(step.checked.statements)} statements are "
                "done and stay; the next run goes on behind them."
            )
        direction = "" if step.direction == "up" else "rollback, "
        cause = f"{direction}{where}: {sqlstate or 'connection lost'}: {message}. {consequence}"
        return MigrationError(cause, self._remedy(sqlstate, message), evidence, details)

    def _locate(
        self, step: Step, part: Sequence[Statement] | None, position: str | None
    ) -> tuple[Statement | None, int | None]:
        """The failing statement and line; the server gives a position for errors of syntax and names only."""
        if not part:
            return None, None
        if position:
            offset = part[0].offset + int(position) - 1
            line = step.script.text.count("\n", 0, offset) + 1
            return next(it for it in reversed(part) if it.offset <= offset), line
        return (part[0], part[0].line) if len(part) == 1 else (None, part[0].line)

    def _remedy(self, sqlstate: str | None, message: str) -> str:
        if sqlstate in (_LOCK_NOT_AVAILABLE, _DEADLOCK):
            return (
                f"Let the transactions that hold the table end (tried {self.options.lock_retries + 1} times, "
                f"{self.options.lock_timeout:g} s each), then run again."
            )
        if sqlstate == _QUERY_CANCELED and "statement timeout" in message:
            return (
                f"A statement took longer than {self.options.statement_timeout:g} s: make it smaller, or raise "
                "statement_timeout."
            )
        if sqlstate == "42501":
            return "Grant the missing privilege to the role that migrates, or let it own the object; then run again."
        if sqlstate == "25001":
            return "Put the statement into a migration of its own whose first line is -- migrate:no-transaction."
        if sqlstate is None:
            return "Look at the server's log, then run again: the next run finds out what is applied."
        return "Correct the script and run again."

    def _long_transactions(self) -> list[str]:
        try:
            with self._cursor() as cursor:
                cursor.execute(
                    """SELECT pid, application_name, usename, state,
                              extract(epoch FROM clock_timestamp() - xact_start)::bigint
                         FROM pg_catalog.pg_stat_activity
                        WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
                        ORDER BY xact_start LIMIT 3"""
                )
                return [
                    f'OPEN TRANSACTION: pid {pid}, application "{application}", user {user}, {state}, for {seconds} s'
                    for pid, application, user, state, seconds in cursor.fetchall()
                ]
        except psycopg2.Error:
            return []


def _parts(statements: Sequence[Statement]) -> Iterator[Sequence[Statement]]:
    """The statements as they are sent: one by one, or in batches where there are many."""
    if len(statements) <= _SINGLY_UP_TO:
        for statement in statements:
            yield (statement,)
        return
    first = 0
    for index, statement in enumerate(statements):
        too_long = statement.offset + len(statement.text) - statements[first].offset > _BATCH_CHARACTERS
        if index > first and (too_long or index - first >= _BATCH_STATEMENTS):
            yield statements[first:index]
            first = index
    yield statements[first:]


def _checksum_of(statements: Sequence[Statement]) -> str:
    return checksum("".join(f"{statement.text};\n" for statement in statements))
