# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection that migrations run over: its settings, and the lock that lets one runner at a time write.

- The lock is a session advisory lock of the tracking table. It is polled for: a runner that waits inside
  pg_advisory_lock holds a snapshot and deadlocks with CREATE INDEX CONCURRENTLY.
- lock_timeout keeps a migration from queueing behind a long transaction, where it would block everybody
  behind it.
- What a script leaves in the session (role, search_path, settings, temporary tables) is reset before the next.
- A killed runner leaves nothing: the server notices within a second that its client is gone
  (client_connection_check_interval, PostgreSQL 14 and newer), rolls back and gives the lock free.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from ansible_collections.roastify.ops.plugins.module_utils import postgresql
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.migration_records import State
from ansible_collections.roastify.ops.plugins.module_utils.migration_table import TrackingTable
from ansible_collections.roastify.ops.plugins.module_utils.postgresql import ConnectionOptions
from ansible_collections.roastify.ops.plugins.module_utils.postgresql_driver import Connection, Cursor, DatabaseError

LOCK_NOT_AVAILABLE = "55P03"
DEADLOCK = "40P01"

RESET = (
    "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; CLOSE ALL; UNLISTEN *; DEALLOCATE ALL; DISCARD TEMP; "
    "DISCARD SEQUENCES; "
)
"""DISCARD ALL, but for the advisory lock, which that would give free."""


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


class Session:
    """A connection with the settings of a run, and its tracking table.

    Args:
        connection_options: the database.
        options: how to run.
        sleep: waits; replaced in tests.
    """

    def __init__(
        self, connection_options: ConnectionOptions, options: RunOptions, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.connection_options = connection_options
        self.options = options
        self.table = TrackingTable(options.table)
        self._sleep = sleep
        self._opened: Connection | None = None

    @property
    def connection(self) -> Connection:
        """The open connection."""
        if self._opened is None:
            raise RuntimeError("open() comes first")
        return self._opened

    def open(self) -> None:
        """Connect, and look at the tracking table.

        Raises:
            OperationError: there is no connection, or the table is not ours to use.
        """
        self._opened = postgresql.connect(self.connection_options, self._sleep)
        try:
            with self.cursor() as cursor:
                self.table.look(cursor, self.settings())
        except DatabaseError as error:
            raise self.error(error, f"The state of {self.connection_options} cannot be read") from None

    def close(self) -> None:
        """End the session, which gives the lock free."""
        if self._opened is not None:
            self._opened.close()

    def cursor(self) -> Cursor:
        """A new cursor."""
        return self.connection.cursor()

    def state(self) -> State:
        """Read the tracking table."""
        try:
            with self.cursor() as cursor:
                return State(tuple(self.table.applied(cursor)), tuple(self.table.unfinished(cursor)))
        except DatabaseError as error:
            raise self.error(error, f"{self.table.name} cannot be read") from None

    def settings(self, lock_timeout: float | None = None) -> str:
        """The commands that make the settings of a run.

        Args:
            lock_timeout: seconds, instead of that of the options.
        """
        settings = {
            "TimeZone": "'UTC'",
            "standard_conforming_strings": "on",
            **self._timeouts(self.options.lock_timeout if lock_timeout is None else lock_timeout),
            "tcp_keepalives_idle": "60",
            "tcp_keepalives_interval": "10",
            "tcp_keepalives_count": "3",
        }
        settings["idle_in_transaction_session_timeout"] = "0"
        if self.connection.server_version >= 170000:
            settings["transaction_timeout"] = "0"
        if self.connection.server_version >= 140000:
            settings["client_connection_check_interval"] = "'1s'"
            settings["idle_session_timeout"] = "0"
        return "".join(f"SET {name} = {value}; " for name, value in settings.items())

    def timeouts_of_transaction(self) -> str:
        """The commands that give a transaction the timeouts of the run back, whatever a script made of them."""
        timeouts = self._timeouts(self.options.lock_timeout)
        return "".join(f"SET LOCAL {name} = {value}; " for name, value in timeouts.items())

    def _timeouts(self, lock_timeout: float) -> dict[str, str]:
        return {
            # Rounded up, since 0 would mean without limit. The statement's first: it may hold for the next command.
            "statement_timeout": str(math.ceil(self.options.statement_timeout * 1000)),
            "lock_timeout": str(math.ceil(lock_timeout * 1000)),
        }

    def roll_back(self) -> None:
        """End a transaction that may be open."""
        if not self.connection.closed:
            try:
                with self.cursor() as cursor:
                    cursor.execute("ROLLBACK")
            except DatabaseError:
                self.connection.close()

    # -- the lock ----------------------------------------------------------------------------------

    @property
    def holds_lock(self) -> str:
        """A condition of SQL: whether this session holds the lock."""
        return (
            f"EXISTS (SELECT 1 FROM pg_catalog.pg_locks AS lock WHERE {self._lock_condition} "
            "AND lock.pid = pg_catalog.pg_backend_pid())"
        )

    @property
    def _lock_condition(self) -> str:
        key = self.table.lock_key & 0xFFFFFFFFFFFFFFFF
        return (
            f"locktype = 'advisory' AND objsubid = 1 AND granted AND classid = {key >> 32}::oid "
            f"AND objid = {key & 0xFFFFFFFF}::oid AND lock.database = (SELECT oid FROM pg_catalog.pg_database "
            "WHERE datname = pg_catalog.current_database())"
        )

    def lock(self) -> None:
        """Take the lock, waiting for another runner if there is one.

        Raises:
            LockNotFree: it did not end in time; the evidence names it.
        """
        deadline = time.monotonic() + self.options.lock_wait
        pause = 0.05
        with self.cursor() as cursor:
            while True:
                cursor.execute(f"SELECT pg_catalog.pg_try_advisory_lock({self.table.lock_key})")
                if cursor.fetchone()[0]:
                    return
                if time.monotonic() >= deadline:
                    raise LockNotFree(
                        f"Another migration run on {self.connection_options} holds the lock; waited "
                        f"{self.options.lock_wait:g} s.",
                        "Wait for it to end, or cancel it, which ends that run: SELECT pg_cancel_backend(pid).",
                        self._holder(cursor),
                    )
                self._sleep(min(pause, max(deadline - time.monotonic(), 0.01)))
                pause = min(pause * 1.5, 1.0)

    def _holder(self, cursor: Cursor) -> list[str]:
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

    def unlock(self) -> None:
        """Give the lock free."""
        if self.connection.closed:
            return
        try:
            with self.cursor() as cursor:
                if not self.connection.idle:
                    cursor.execute("ROLLBACK")
                cursor.execute(f"SELECT pg_catalog.pg_advisory_unlock({self.table.lock_key})")
        except DatabaseError:
            self.connection.close()  # which gives the lock free as well

    # -- what goes wrong -----------------------------------------------------------------------------

    def error(self, error: DatabaseError, what: str) -> OperationError:
        """A failure that is no script's.

        Args:
            error: what the server said.
            what: what could not be done.
        """
        remedy = {
            "42501": "Grant the missing privilege to this role, or run with the role that owns the schema.",
            LOCK_NOT_AVAILABLE: "Wait until whoever holds the table is done, then run again.",
        }.get(error.sqlstate or "", "Correct what the server complains about, then run again.")
        message = self.connection_options.scrub(error.message)
        return OperationError(f"{what}: {error.sqlstate or 'connection'}: {message}.", remedy)

    def long_transactions(self) -> list[str]:
        """Who may hold the locks that a migration waits for: the three oldest transactions that hold some.

        Locks are there for every role to see; since when, and what for, for members of pg_read_all_stats only.
        """
        try:
            with self.cursor() as cursor:
                cursor.execute(
                    """SELECT pid, application_name, usename, state,
                              extract(epoch FROM pg_catalog.clock_timestamp() - xact_start)::bigint
                         FROM pg_catalog.pg_stat_activity
                        WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid()
                          AND pid IN (SELECT pid FROM pg_catalog.pg_locks
                                       WHERE granted AND locktype = 'relation' AND relation >= 16384)
                        ORDER BY xact_start NULLS LAST LIMIT 3"""
                )
                return [
                    f'OPEN TRANSACTION: pid {pid}, application "{application}", user {user}'
                    + (f", {state}, for {seconds} s" if state else ", more is not for this role to see")
                    for pid, application, user, state, seconds in cursor.fetchall()
                ]
        except DatabaseError:
            return []
