# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One face for the two drivers of PostgreSQL: psycopg2, and psycopg (3) where that one is not installed.

Both come down to the simple query protocol of libpq: a query may hold several statements, without
parameters a % in it is data, and the cursor then stands on the result of the last statement. What a
driver raises becomes a DatabaseError, so that nobody else needs to know which one it was.
"""

from __future__ import annotations

import collections
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError

DRIVERS = ("psycopg2", "psycopg")
"""In the order in which they are looked for."""

CHOICE = "POSTGRESQL_DRIVER"
"""Environment variable that names one of DRIVERS, for hosts that have both."""

# PQtransactionStatus of libpq, https://www.postgresql.org/docs/current/libpq-status.html
_IDLE = 0
_IN_TRANSACTION = 2

# As many as psycopg2 keeps; a migration that says more than that has nothing to say.
_NOTICES_KEPT = 50


class DriverMissing(OperationError):
    """This Python has no driver for PostgreSQL."""


class DatabaseError(Exception):
    """The server refused something, or the connection to it broke.

    Attributes:
        message: the server's primary message, else the driver's.
        sqlstate: the server's code; None if the server did not answer.
        detail: the server's further explanation, if it gave one.
        hint: what the server proposes.
        context: where in functions it happened.
        position: the character of the query that it complains about, counted from 1.
    """

    def __init__(self, error: Any) -> None:
        diagnosis = error.diag
        self.message: str = (diagnosis.message_primary or str(error)).strip()
        self.sqlstate: str | None = diagnosis.sqlstate
        self.detail: str | None = diagnosis.message_detail
        self.hint: str | None = diagnosis.message_hint
        self.context: str | None = diagnosis.context
        self.position = int(diagnosis.statement_position) if diagnosis.statement_position else None
        super().__init__(str(error).strip())


class Cursor:
    """Runs queries; use it as a context manager."""

    def __init__(self, cursor: Any, error: type[Exception]) -> None:
        self._cursor = cursor
        self._error = error

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._cursor.close()

    def execute(self, query: str, parameters: Mapping[str, object] | Sequence[object] | None = None) -> None:
        """Run a query of one or more statements.

        Args:
            query: SQL. With parameters, a % that is data is written %%.
            parameters: for %(name)s or %s.

        Raises:
            DatabaseError: the query failed.
        """
        try:
            if parameters is None:
                self._cursor.execute(query)
            else:
                self._cursor.execute(query, parameters)
        except self._error as error:
            raise DatabaseError(error) from None

    def fetchone(self) -> Any:
        """The next row of the last statement's result, None behind its end."""
        return self._cursor.fetchone()

    def fetchall(self) -> list[Any]:
        """The rows that are left of the last statement's result."""
        return list(self._cursor.fetchall())


class _CursorOfThree(Cursor):
    """psycopg 3 keeps every result and stands on the first."""

    def execute(self, query: str, parameters: Mapping[str, object] | Sequence[object] | None = None) -> None:
        super().execute(query, parameters)
        while self._cursor.nextset():
            pass


class Connection:
    """A connection in autocommit mode: transactions are what the SQL says.

    Args:
        connection: of the driver.
        driver: the driver's module.
    """

    def __init__(self, connection: Any, driver: ModuleType) -> None:
        self._connection = connection
        self._error: type[Exception] = driver.Error
        self._is_three = driver.__name__ == "psycopg"
        self._notices: collections.deque[str] = collections.deque(maxlen=_NOTICES_KEPT)
        connection.autocommit = True
        if self._is_three:
            connection.add_notice_handler(lambda it: self._notices.append(f"{it.severity}:  {it.message_primary}"))
        else:
            connection.notices = self._notices

    def cursor(self) -> Cursor:
        """A new cursor."""
        kind = _CursorOfThree if self._is_three else Cursor
        try:
            return kind(self._connection.cursor(), self._error)
        except self._error as error:
            raise DatabaseError(error) from None

    def close(self) -> None:
        """End the session; the server rolls back what is open."""
        self._connection.close()

    @property
    def closed(self) -> bool:
        """Whether it was closed, or is known to be broken."""
        return bool(self._connection.closed)

    @property
    def idle(self) -> bool:
        """Whether no transaction is open."""
        return int(self._connection.info.transaction_status) == _IDLE

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open that has not failed."""
        return int(self._connection.info.transaction_status) == _IN_TRANSACTION

    @property
    def server_version(self) -> int:
        """As PQserverVersion says it: 150004 for 15.4."""
        return int(self._connection.info.server_version)

    @property
    def backend_pid(self) -> int:
        """The process id of the server that was told when the connection was made."""
        return int(self._connection.info.backend_pid)

    def fileno(self) -> int:
        """The file descriptor of its socket."""
        return int(self._connection.fileno())

    def take_notices(self) -> list[str]:
        """What the server remarked since the last call: the newest 50."""
        notices = [notice.strip() for notice in self._notices]
        self._notices.clear()
        return notices


def connect(parameters: Mapping[str, Any]) -> Connection:
    """Open a connection.

    Args:
        parameters: keywords of libpq.

    Raises:
        DriverMissing: there is no driver.
        DatabaseError: there is no connection; the message may hold secrets.
    """
    driver = _driver()
    options = dict(parameters)
    if driver.__name__ == "psycopg":
        # The other cursors speak the extended protocol as soon as there are parameters: one statement only.
        options["cursor_factory"] = driver.ClientCursor
    try:
        return Connection(driver.connect(**options), driver)
    except driver.Error as error:
        raise DatabaseError(error) from None


def _driver() -> ModuleType:
    chosen = os.environ.get(CHOICE)
    for name in [chosen] if chosen in DRIVERS else DRIVERS:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise DriverMissing(
        f"There is no driver for PostgreSQL in {sys.executable}: neither psycopg2 nor psycopg can be imported.",
        "Install psycopg2 (package python3-psycopg2), or psycopg 3.1 or newer, for this Python on this host.",
    )
