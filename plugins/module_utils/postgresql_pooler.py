# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds out whether a connection pooler (PgBouncer) keeps a client on one session of the server.

A migration run lives in one session: its advisory lock, its timeouts, its transaction. In transaction or
statement mode a pooler hands the session to somebody else in between; then two runners get the same lock,
and the settings of one client reach another (https://www.pgbouncer.org/features.html).

Nothing is written or set to find out. A pooler shows by the process id that the client was given at the
start, which is not the one of the server's process. Then a second client holds a transaction: where
sessions are shared, it is given the process of the first one, or the first one is moved to another.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable

from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.postgresql_driver import Connection, DatabaseError

_PROCESS = "SELECT pg_catalog.pg_backend_pid()"

# A busy pool of two sessions gives the same ones back in every second round; not in twenty of them.
_ROUNDS = 20

# In session mode a pool without a free session lets the second client wait, for as long as the first one stays.
_PATIENCE = 3.0

_SHARES = "it shares the sessions of the server between its clients"

_REMEDY = (
    "Connect to the server's own port, or to a pool of PgBouncer with pool_mode=session (host and port, PG_HOST and "
    "PG_PORT)."
)


class PoolerError(OperationError):
    """A pooler is in the way; nothing was written."""


def refuse_shared_sessions(
    connection: Connection, connect_again: Callable[[], Connection], database: str, patience: float = 10
) -> None:
    """Refuse a connection whose session belongs to others as well; one round trip if there is no pooler.

    Args:
        connection: in no transaction.
        connect_again: opens another connection with the same options.
        database: how the refusal names the database.
        patience: seconds that the pooler may take to find a session.

    Raises:
        PoolerError: the pooler shares sessions, or it cannot be told whether it does.
        TimeoutError: the pooler has no session.
        DatabaseError: the connection broke.
    """
    first = _Client(connection)
    if not first.asks(_PROCESS, patience):
        first.hang_up_if_waiting()
        raise TimeoutError(f"no session of the server became free within {patience:g} s")
    process = first.process
    if process == connection.backend_pid:
        return
    try:
        second = _Client(connect_again())
    except DatabaseError as error:
        raise _refusal(database, f"whether it keeps sessions could not be found out ({error.message})") from None
    try:
        for _round in range(_ROUNDS):
            holds = second.asks(f"BEGIN; {_PROCESS}")
            if holds and second.process == process:
                raise _refusal(database, _SHARES)
            if not first.asks(_PROCESS) or first.process != process:
                raise _refusal(database, _SHARES)
            # Poolers serve in turn: who is answered before a client that asked earlier has a session to itself.
            if not holds and not second.answered():
                return
            if second.process == process:
                raise _refusal(database, _SHARES)
            second.asks("ROLLBACK; SELECT 0")
    except DatabaseError as error:
        raise _refusal(database, f"no transaction is possible there ({error.message})") from None
    finally:
        first.hang_up_if_waiting()
        second.hang_up_if_waiting()
        second.connection.close()


def _refusal(database: str, why: str) -> PoolerError:
    return PoolerError(
        f"Before {database} is a connection pooler, and {why}: the lock and the settings of a run would not stay with "
        "it.",
        _REMEDY,
    )


class _Client:
    """Asks in a thread, because libpq knows no limit for the time of an answer."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.process = 0
        self._thread = threading.Thread()
        self._error: DatabaseError | None = None

    def asks(self, query: str, patience: float = _PATIENCE) -> bool:
        """Send a query whose result is a process id; whether the answer came in time."""
        self._thread = threading.Thread(target=self._ask, args=(query,), daemon=True)
        self._thread.start()
        self._thread.join(patience)
        return self.answered()

    def answered(self) -> bool:
        """Whether the answer is there; raises the DatabaseError that came instead."""
        if self._thread.is_alive():
            return False
        if self._error is not None:
            raise self._error
        return True

    def hang_up_if_waiting(self) -> None:
        """End the wait for an answer by breaking the connection, so that no session is left to this client."""
        if self._thread.is_alive():
            with contextlib.suppress(OSError):
                line = socket.socket(fileno=os.dup(self.connection.fileno()))
                line.shutdown(socket.SHUT_RDWR)
                line.close()
            self._thread.join(_PATIENCE)

    def _ask(self, query: str) -> None:
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(query)
                self.process = int(cursor.fetchone()[0])
        except DatabaseError as error:
            self._error = error
