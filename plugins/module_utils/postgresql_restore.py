# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings a backup back: restored into a new database beside the live one, then swapped by name.

Until the swap the live database serves as if nothing happened, and a restore that fails is dropped. The swap
is one transaction of two renames, so that whatever dies leaves either the old or the new one under the name.
While it lasts the server lets nobody connect; the sessions in the old database are ended, and applications
that connect again find the new one. The old database stays, under another name.
"""

from __future__ import annotations

import datetime
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils import postgresql, postgresql_backup, postgresql_programs
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.migration_table import TableError, TrackingTable
from ansible_collections.roastify.ops.plugins.module_utils.postgresql import (
    ConnectionFailed,
    ConnectionOptions,
    advisory_key,
    identifier,
    literal,
)
from ansible_collections.roastify.ops.plugins.module_utils.postgresql_driver import Connection, Cursor, DatabaseError

# Seconds: to wait for locks on the databases themselves, and to get the sessions in the old one to end.
_LOCK_TIMEOUT = 10
_SWAP_TIMEOUT = 60

_OBJECT_IN_USE = "55006"
_LOCK_NOT_AVAILABLE = "55P03"

# Length of names in bytes; NAMEDATALEN - 1, https://www.postgresql.org/docs/current/limits.html
_NAME_BYTES = 63

# Connection limit of a database that is being restored, together with its name the mark by which the next restore
# knows what a killed one left. It is set by CREATE DATABASE itself; a comment would come a moment too late.
_UNFINISHED = 2147481647

# Their values are lists of quoted names; variable_is_guc_list_quote() in src/bin/pg_dump/dumputils.c
_LISTS_OF_NAMES = (
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
)

# A connection that waits while pg_restore works must not be ended for that.
_NO_LIMITS = """
SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings
 WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout',
                'transaction_timeout')
"""

_LOOK = """
SELECT pg_catalog.to_jsonb(d),
       pg_catalog.pg_get_userbyid(d.datdba),
       pg_catalog.pg_has_role(d.datdba, 'USAGE'),
       pg_catalog.pg_encoding_to_char(d.encoding),
       (SELECT spcname FROM pg_catalog.pg_tablespace WHERE oid = d.dattablespace),
       pg_catalog.shobj_description(d.oid, 'pg_database'),
       CASE WHEN pg_catalog.has_database_privilege(d.oid, 'CONNECT') THEN pg_catalog.pg_database_size(d.oid) END,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_xacts WHERE database = d.datname)
  FROM pg_catalog.pg_database AS d WHERE d.datname = %(name)s
"""

_ROLE = """
SELECT rolname, rolsuper, rolcreatedb OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = CURRENT_USER
"""

# pg_terminate_backend() is for members of the session's role and of pg_signal_backend, and for sessions of
# superusers it is for superusers. What a session is does not show to other roles: its type is null.
_SESSIONS = """
SELECT activity.pid, activity.usename, activity.application_name,
       coalesce(activity.client_addr::text, 'a local socket'),
       (me.rolsuper OR (NOT theirs.rolsuper AND (pg_catalog.pg_has_role(theirs.oid, 'USAGE')
                                                 OR pg_catalog.pg_has_role('pg_signal_backend', 'USAGE'))))
  FROM pg_catalog.pg_stat_activity AS activity
  JOIN pg_catalog.pg_roles AS theirs ON theirs.oid = activity.usesysid
  JOIN pg_catalog.pg_roles AS me ON me.rolname = CURRENT_USER
 WHERE activity.datid = %(oid)s::pg_catalog.oid
   AND coalesce(activity.backend_type, 'client backend') IN ('client backend', 'walsender')
 ORDER BY activity.pid
"""

# Whether the transaction of the swap keeps newcomers out of the old database already.
_FENCED = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_locks
                WHERE pid = %(pid)s AND locktype = 'object' AND granted AND mode = 'AccessExclusiveLock'
                  AND classid = 'pg_catalog.pg_database'::pg_catalog.regclass AND objid = %(oid)s::pg_catalog.oid)
"""

_GRANTS = """
SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(grantee)) END,
       privilege_type, is_grantable
  FROM pg_catalog.pg_database AS d, pg_catalog.aclexplode(d.datacl)
 WHERE d.oid = %(oid)s::pg_catalog.oid ORDER BY 1, 2
"""

_SETTINGS = """
SELECT CASE setrole WHEN 0 THEN NULL ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(setrole)) END, entry
  FROM pg_catalog.pg_db_role_setting, pg_catalog.unnest(setconfig) WITH ORDINALITY AS it (entry, number)
 WHERE setdatabase = %(oid)s::pg_catalog.oid ORDER BY 1 NULLS FIRST, number
"""


class RestoreError(OperationError):
    """The database was not restored; the live one is as it was."""


@dataclass(frozen=True)
class Archive:
    """A file that pg_restore can read, as its table of contents says.

    Attributes:
        path: the file.
        entries: how many tables, indexes, functions ... it holds.
        database: what it was made of.
        made_at: when, in the words of pg_restore.
        server_version: of the server it was made of.
    """

    path: Path
    entries: int
    database: str
    made_at: str
    server_version: str


@dataclass(frozen=True)
class LiveDatabase:
    """The database that is to be replaced.

    Attributes:
        oid: the server's number of it.
        owner: the role that owns it.
        encoding: its encoding's name.
        tablespace: where it is stored.
        comment: the comment on it.
        size: its size in bytes; None if this role may not know.
        row: its row of pg_database.
    """

    oid: str
    owner: str
    encoding: str
    tablespace: str
    comment: str | None
    size: int | None
    row: Mapping[str, Any]


@dataclass(frozen=True)
class RestorePlan:
    """What a restore would do.

    Attributes:
        archive: what is restored.
        database: the name that it gets.
        live: the database of this name; None if there is none.
        sessions: how many are in it.
        new: the name while it is restored.
        previous: what the live database is called afterwards; None if there is none.
        warnings: what the operator should know before.
    """

    archive: Archive
    database: str
    live: LiveDatabase | None
    sessions: int
    new: str
    previous: str | None
    warnings: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """The same for people."""
        archive = self.archive
        result = [
            f"read {archive.path}: {archive.entries} objects of database {archive.database}, made {archive.made_at} "
            f"of PostgreSQL {archive.server_version}",
            f"restore it into a new database {self.new}",
        ]
        if self.live is None or self.previous is None:
            return [*result, f"rename that to {self.database}, which does not exist now"]
        size = "" if self.live.size is None else f" ({self.live.size >> 20} MiB)"
        return [
            *result,
            f"end the sessions in {self.database} ({self.sessions} now); what was written since the backup is not "
            "in the restored one",
            f"rename {self.database}{size} to {self.previous}, which is kept",
            f"rename {self.new} to {self.database}",
        ]


@dataclass(frozen=True)
class Restored:
    """A restore that is done.

    Attributes:
        plan: what it did.
        seconds: how long it took.
        swap_seconds: how long nobody could connect.
        warnings: what happened beside the plan.
    """

    plan: RestorePlan
    seconds: float
    swap_seconds: float
    warnings: tuple[str, ...]

    @property
    def drop_command(self) -> str | None:
        """SQL that removes the database that was replaced."""
        return f"DROP DATABASE {identifier(self.plan.previous)}" if self.plan.previous else None


def newest(directory: Path, database: str) -> Path:
    """The newest backup of a database, by the time in its name.

    Args:
        directory: where backups are kept.
        database: whose backup.

    Raises:
        RestoreError: there is none, or the directory cannot be read.
        BackupError: another user could have put it there.
    """
    try:
        postgresql_backup.check_directory(directory)
        backups = postgresql_backup.of_database(directory, database)
    except OSError as error:
        raise RestoreError(
            f"The backups in {directory} cannot be read: {error.strerror}.", "Name the directory of the backups."
        ) from error
    if not backups:
        raise RestoreError(
            f"There is no backup of database {database} in {directory}.",
            "Look there for its name (<database>-<time>.dump), or name the file itself.",
        )
    return backups[-1]


def read_archive(options: ConnectionOptions, path: Path) -> Archive:
    """Read the table of contents of a backup.

    Args:
        options: whose secrets must not show in a failure.
        path: the backup.

    Raises:
        RestoreError: there is no such file, or pg_restore cannot read it.
    """
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise RestoreError(
            f"The backup {path} cannot be read: {error.strerror}.", "Name a file that pg_dump wrote, on this host."
        ) from error
    contents = postgresql_backup.read_contents(options, path, RestoreError)

    def said(what: str) -> str:
        match = re.search(rf"^; +{what}:? (.+)$", contents, re.MULTILINE)
        return match.group(1).strip() if match else "unknown"

    return Archive(
        path=path,
        entries=postgresql_backup.count_entries(contents),
        database=said("dbname"),
        made_at=said("Archive created at"),
        server_version=said("Dumped from database version").split(" ")[0],
    )


class Restoration:
    """One restore; use it as a context manager, which opens and closes the connection.

    Args:
        options: the database to restore, and a role that owns it and may create databases.
        archive: what to restore.
        maintenance_database: another database to connect to, since nobody may be in the one that is renamed.
        table: the tracking table of the migrations, whose lock keeps them from running meanwhile.
        jobs: how many tables pg_restore fills at once.
    """

    def __init__(
        self,
        options: ConnectionOptions,
        archive: Archive,
        maintenance_database: str = "postgres",
        table: str = "migrations",
        jobs: int = 1,
    ) -> None:
        if not options.database:
            raise RestoreError("No database to restore is named.", "Name it (database, PG_DATABASE).")
        if maintenance_database == options.database:
            raise RestoreError(
                f"The database to restore, {options.database}, is also the one to connect to meanwhile.",
                "Name another database to connect to (maintenance_database).",
            )
        self._options = options
        self._database = options.database
        self._maintenance = replace(options, database=maintenance_database)
        self._archive = archive
        self._table = table
        self._jobs = jobs
        self._warnings: list[str] = []
        self._connection: Connection | None = None
        self._guard: Connection | None = None

    def __enter__(self) -> Restoration:
        self._connection = self._connect()
        return self

    def __exit__(self, *_exception: object) -> None:
        for connection in (self._guard, self._connection):
            if connection is not None:
                connection.close()

    def plan(self) -> RestorePlan:
        """Find out what would be done; changes nothing.

        Raises:
            RestoreError: with everything that this role lacks.
        """
        with self._cursor("The databases cannot be looked at") as cursor:
            cursor.execute(_ROLE)
            role, _is_super, may_create = cursor.fetchone()
            cursor.execute(_LOOK, {"name": self._database})
            row = cursor.fetchone()
            problems: list[tuple[str, str]] = []
            if not may_create:
                problems.append((f'role "{role}" may not create databases', f"ALTER ROLE {identifier(role)} CREATEDB"))
            live = None
            sessions = []
            if row is not None:
                record, owner, is_owner, encoding, tablespace, comment, size, prepared = row
                live = LiveDatabase(str(record["oid"]), owner, encoding, tablespace, comment, size, record)
                if not is_owner:
                    problems.append(
                        (
                            f'role "{role}" does not own database {self._database}, but "{owner}" does',
                            f"GRANT {identifier(owner)} TO {identifier(role)}",
                        )
                    )
                if prepared:
                    problems.append(
                        (
                            f"{prepared} prepared transactions in {self._database} keep it from being renamed",
                            "COMMIT PREPARED or ROLLBACK PREPARED each (pg_prepared_xacts)",
                        )
                    )
                sessions = self._sessions(cursor, live)
                strangers = sorted({usename for _pid, usename, _application, _address, may in sessions if not may})
                problems += [
                    (
                        f'role "{role}" may not end the sessions of "{stranger}" in {self._database}',
                        f"GRANT pg_signal_backend TO {identifier(role)} (sessions of a superuser: end them yourself)",
                    )
                    for stranger in strangers
                ]
        if problems:
            raise RestoreError(
                f"{self._options} cannot be restored: {'; '.join(problem for problem, _remedy in problems)}.",
                f"Use a role that may, or: {'; '.join(remedy for _problem, remedy in problems)}.",
            )
        stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d%H%M%S")
        return RestorePlan(
            archive=self._archive,
            database=self._database,
            live=live,
            sessions=len(sessions),
            new=_with_suffix(self._database, f"_restore_{stamp}"),
            previous=_with_suffix(self._database, f"_before_restore_{stamp}") if live else None,
            warnings=tuple(self._remarks(live)),
        )

    def run(self, plan: RestorePlan) -> Restored:
        """Restore beside and swap.

        Args:
            plan: what plan() just answered.

        Raises:
            RestoreError: the live database is as it was, and the new one is gone.
        """
        began = time.monotonic()
        self._warnings = []
        self._keep_others_out(plan)
        self._drop_unfinished()
        self._create(plan)
        try:
            final = self._properties(plan)
            self._restore(plan)
            swap_seconds = self._swap(plan, final)
        except BaseException as error:
            self._drop(plan.new)
            if isinstance(error, OperationError):
                error.evidence += self._warnings
            raise
        return Restored(plan, time.monotonic() - began, swap_seconds, (*plan.warnings, *self._warnings))

    # -- looking ---------------------------------------------------------------------------------

    def _connect(self, options: ConnectionOptions | None = None) -> Connection:
        connection = postgresql.connect(options or self._maintenance)
        try:
            with connection.cursor() as cursor:
                cursor.execute(_NO_LIMITS)
        except DatabaseError as error:
            connection.close()
            raise self._error(error, f"{options or self._maintenance} does not answer") from None
        return connection

    @contextmanager
    def _cursor(self, what: str, connection: Connection | None = None) -> Iterator[Cursor]:
        """A cursor; what the server refuses becomes a RestoreError that begins with what did not work."""
        connection = connection or self._connection
        if connection is None:
            raise RuntimeError("the restoration was not entered")
        try:
            with connection.cursor() as cursor:
                yield cursor
        except DatabaseError as error:
            raise self._error(error, what) from None

    def _error(self, error: DatabaseError, what: str) -> RestoreError:
        remedy = "Correct what the server complains about, then run again; the live database is as it was."
        parameter = re.search(r"permission denied to set parameter (\".*\")", error.message)
        if parameter:
            remedy = (
                f"Restore as superuser, or GRANT SET ON PARAMETER {parameter.group(1)} to this role (PostgreSQL 15), "
                "or ALTER DATABASE ... RESET it; the live database is as it was."
            )
        lines = [
            f"{name}: {self._options.scrub(text)}"
            for name, text in (("SQLSTATE", error.sqlstate), ("detail", error.detail), ("hint", error.hint))
            if text
        ]
        return RestoreError(
            f"{what}: {self._options.scrub(error.message)}.",
            remedy,
            lines,
        )

    @staticmethod
    def _sessions(cursor: Cursor, live: LiveDatabase) -> list[tuple[int, str, str, str, bool]]:
        cursor.execute(_SESSIONS, {"oid": live.oid})
        return [(row[0], row[1], row[2], row[3], row[4]) for row in cursor.fetchall()]

    def _remarks(self, live: LiveDatabase | None) -> Iterator[str]:
        if self._archive.database not in (self._database, "unknown"):
            yield f"{self._archive.path} is a backup of database {self._archive.database}, not of {self._database}"
            if live is None:
                yield "privileges on the database itself and its settings are not taken from another database's backup"
        if live is not None and not live.row["datallowconn"]:
            yield f"{self._database} allows no connections now; the restored one will"

    # -- restoring beside ------------------------------------------------------------------------

    def _keep_others_out(self, plan: RestorePlan) -> None:
        """Take the locks that keep another restore and migrations away, until the connections are closed."""
        key = advisory_key("pg_restore", plan.database)
        with self._cursor("The lock of restores cannot be taken") as cursor:
            cursor.execute(f"SELECT pg_catalog.pg_try_advisory_lock({key})")
            if not cursor.fetchone()[0]:
                raise RestoreError(
                    f"Another restore of {self._options} is running.", "Wait for it to end, then look what it left."
                )
        if plan.live is None:
            return
        try:
            self._guard = self._connect(replace(self._options, connect_retries=0))
        except ConnectionFailed as error:
            # Whoever cannot connect cannot migrate; and a database in this state needs its backup most.
            self._warnings.append(f"the lock of the migrations was not taken: {error.cause}")
            return
        with self._cursor("The lock of the migrations cannot be taken", self._guard) as cursor:
            table = TrackingTable(self._table)
            try:
                table.look(cursor, "")
            except TableError as error:
                self._warnings.append(f"the lock of the migrations was not taken: {error.cause}")
                return
            cursor.execute(f"SELECT pg_catalog.pg_try_advisory_lock({table.lock_key})")
            if not cursor.fetchone()[0]:
                raise RestoreError(
                    f"Migrations are running on {self._options}: another session holds their lock.",
                    "Wait for them to end, then decide again whether to restore.",
                )

    def _drop_unfinished(self) -> None:
        """Remove what a restore left that was killed; ours is the lock, so that none is at work."""
        with self._cursor("The databases cannot be looked at") as cursor:
            cursor.execute(
                "SELECT datname FROM pg_catalog.pg_database"
                f" WHERE datconnlimit = {_UNFINISHED} AND pg_catalog.pg_has_role(datdba, 'USAGE')"
            )
            names = [name for (name,) in cursor.fetchall()]
        for name in names:
            stamp = re.search(r"_restore_[0-9]{14}\Z", name)
            if stamp and name == _with_suffix(self._database, stamp.group()):
                self._drop(name)
                self._warnings.append(f"{name} was removed, which an earlier restore had not finished")

    def _create(self, plan: RestorePlan) -> None:
        if plan.live is None:
            match = re.search(r"^CREATE DATABASE .*? WITH (TEMPLATE = template0.*);$", self._archived(), re.MULTILINE)
            properties = match.group(1) if match else "TEMPLATE = template0"
        else:
            properties = f"OWNER = {identifier(plan.live.owner)} {_locale(plan.live)}"
        with self._cursor(f"The new database {plan.new} cannot be created") as cursor:
            cursor.execute(f"CREATE DATABASE {identifier(plan.new)} WITH {properties} CONNECTION LIMIT = {_UNFINISHED}")

    def _archived(self) -> str:
        """SQL of the database itself (not of what is in it) out of the backup."""
        contents = postgresql_programs.run(
            self._options,
            ["pg_restore", "--list", "--create", str(self._archive.path)],
            f"The backup {self._archive.path} cannot be read",
            RestoreError,
        )
        pattern = re.compile(r"\d+; \d+ \d+ (DATABASE|DATABASE PROPERTIES|ACL|COMMENT) - ")
        wanted = [line for line in contents.splitlines() if pattern.match(line)]
        with tempfile.NamedTemporaryFile("w", prefix="contents.", encoding="utf-8") as chosen:
            chosen.write("\n".join([*wanted, ""]))
            chosen.flush()
            return postgresql_programs.run(
                self._options,
                [
                    *("pg_restore", "--create", "--schema-only", "--file=-"),
                    *(f"--use-list={chosen.name}", str(self._archive.path)),
                ],
                f"The backup {self._archive.path} cannot be read",
                RestoreError,
            )

    def _properties(self, plan: RestorePlan) -> list[str]:
        """SQL that gives the database what belongs to it and is not in it, for inside the swap.

        What this role may not set shows here, before the long part.
        """
        if plan.live is None:
            unlimited = f"ALTER DATABASE {identifier(plan.database)} CONNECTION LIMIT -1"
            if self._archive.database != plan.database:
                return [unlimited]
            # psql's commands, and what CREATE DATABASE did already.
            skipped = re.compile(
                r"^(\\.*|CREATE DATABASE .*|SET .*|SELECT pg_catalog\.set_config.*|--.*)$", re.MULTILINE
            )
            statements = [unlimited, skipped.sub("", self._archived()).strip()]
            trial = [f"ALTER DATABASE {identifier(plan.new)} RENAME TO {identifier(plan.database)}", *statements]
        else:
            with self._cursor("The properties of the live database cannot be read") as cursor:
                statements = list(_property_statements(cursor, plan.live, plan.database))
                trial = list(_property_statements(cursor, plan.live, plan.new))
        with self._cursor("The properties of the database cannot be set as they were") as cursor:
            cursor.execute("BEGIN")
            try:
                for statement in filter(None, trial):
                    cursor.execute(statement)
            finally:
                cursor.execute("ROLLBACK")
        return [statement for statement in statements if statement]

    def _restore(self, plan: RestorePlan) -> None:
        # pg_restore reads a name with = or :// as a connection string, so that it gets one.
        target = "dbname='" + plan.new.replace("\\", "\\\\").replace("'", "\\'") + "'"
        postgresql_programs.run(
            self._options,
            [
                *("pg_restore", "--exit-on-error", "--no-password", f"--jobs={self._jobs}", f"--dbname={target}"),
                str(self._archive.path),
            ],
            f"The restore of {self._archive.path} failed; {plan.database} is as it was, and the new database is gone",
            RestoreError,
        )
        # A backup holds no statistics, without which the planner does badly.
        connection = self._connect(replace(self._options, database=plan.new))
        try:
            with self._cursor(f"The restored database {plan.new} cannot be analyzed", connection) as cursor:
                cursor.execute("ANALYZE")
        finally:
            connection.close()

    def _drop(self, name: str) -> None:
        """Remove a database that is no good, over a connection of its own: the other one may be the reason."""
        try:
            connection = self._connect()
            try:
                with connection.cursor() as cursor:
                    force = " WITH (FORCE)" if connection.server_version >= 130000 else ""
                    cursor.execute(f"DROP DATABASE IF EXISTS {identifier(name)}{force}")
            finally:
                connection.close()
        except (OperationError, DatabaseError) as error:
            self._warnings.append(f"{name} is left over: DROP DATABASE {identifier(name)} ({error})")

    # -- swapping --------------------------------------------------------------------------------

    def _swap(self, plan: RestorePlan, final: list[str]) -> float:
        """Exchange the names; the seconds that it took."""
        statements = [f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}s'"]
        if plan.live is not None and plan.previous is not None:
            statements.append(f"ALTER DATABASE {identifier(plan.database)} RENAME TO {identifier(plan.previous)}")
        statements.append(f"ALTER DATABASE {identifier(plan.new)} RENAME TO {identifier(plan.database)}")
        deadline = time.monotonic() + _SWAP_TIMEOUT
        while True:
            began = time.monotonic()
            error = self._rename(plan, [*statements, *final])
            if error is None:
                return time.monotonic() - began
            if error.sqlstate not in (_OBJECT_IN_USE, _LOCK_NOT_AVAILABLE) or time.monotonic() > deadline:
                what = f"{plan.new} cannot take the place of {plan.database}; the new database is gone"
                raise self._with_sessions(plan, self._error(error, what))
            time.sleep(0.5)

    def _with_sessions(self, plan: RestorePlan, error: RestoreError) -> RestoreError:
        if plan.live is not None:
            with suppress(RestoreError), self._cursor("The sessions cannot be looked at") as cursor:
                error.evidence += [
                    f'pid {pid}, user {user}, application "{application}", from {address}'
                    for pid, user, application, address, _may in self._sessions(cursor, plan.live)
                ]
        return error

    def _rename(self, plan: RestorePlan, statements: list[str]) -> DatabaseError | None:
        """One attempt, in one transaction; the server's refusal if it did not work.

        The first rename locks newcomers out of the old database and then waits (5 s) for those who are in it;
        a second connection ends them in the meantime.
        """
        connection = self._connect()
        failures: list[DatabaseError] = []

        def rename() -> None:
            try:
                with connection.cursor() as cursor:
                    cursor.execute("BEGIN")
                    for statement in statements:
                        cursor.execute(statement)
                    cursor.execute("COMMIT")
            except DatabaseError as error:
                failures.append(error)

        try:
            # A daemon, so that a broken connection cannot keep the whole process.
            worker = threading.Thread(target=rename, daemon=True)
            worker.start()
            while worker.is_alive():
                if plan.live is not None:
                    # Sessions that cannot be ended make the rename fail, which says so.
                    with suppress(OperationError):
                        self._end_sessions(plan.live, connection.backend_pid)
                worker.join(0.05)
        finally:
            connection.close()
        if failures and self._is_swapped(plan):
            return None  # the answer to COMMIT was lost, not the commit
        return failures[0] if failures else None

    def _end_sessions(self, live: LiveDatabase, renaming_pid: int) -> None:
        with self._cursor("The sessions cannot be ended") as cursor:
            cursor.execute(_FENCED, {"pid": renaming_pid, "oid": live.oid})
            if not cursor.fetchone()[0]:
                return  # whoever is ended now would come back
            guard = self._guard.backend_pid if self._guard is not None else None
            others = [pid for pid, _user, _application, _address, may in self._sessions(cursor, live)
                      if may and pid != guard]  # fmt: skip
            if others:
                cursor.execute(
                    "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.unnest(%(pids)s::int[]) AS pid",
                    {"pids": others},
                )
            elif self._guard is not None:
                # Last of all, so that no migration begins in between.
                self._guard.close()
                self._guard = None

    def _is_swapped(self, plan: RestorePlan) -> bool:
        with suppress(OperationError, DatabaseError):
            connection = self._connect()
            try:
                with connection.cursor() as cursor:
                    cursor.execute(
                        "SELECT datname FROM pg_catalog.pg_database WHERE datname IN (%(new)s, %(database)s)",
                        {"new": plan.new, "database": plan.database},
                    )
                    return [name for (name,) in cursor.fetchall()] == [plan.database]
            finally:
                connection.close()
        return False


def _with_suffix(name: str, suffix: str) -> str:
    """A name that the server does not cut off: it would cut the suffix."""
    return name.encode()[: _NAME_BYTES - len(suffix)].decode(errors="ignore") + suffix


def _literal(text: str) -> str:
    """A string for SQL; as quote_literal() of the server does, an E gets a blank before it, apart from words."""
    quoted = literal(text)
    return f" {quoted}" if quoted.startswith("E") else quoted


def _locale(live: LiveDatabase) -> str:
    """Options of CREATE DATABASE that make another database sort and compare as this one does."""
    row = live.row
    options = {
        "TEMPLATE": "template0",
        "ENCODING": _literal(live.encoding),
        "LC_COLLATE": _literal(row["datcollate"]),
        "LC_CTYPE": _literal(row["datctype"]),
    }
    if live.tablespace != "pg_default":  # naming that one wants a privilege which taking it does not
        options["TABLESPACE"] = identifier(live.tablespace)
    provider = {"c": "libc", "i": "icu", "b": "builtin"}.get(row.get("datlocprovider") or "c", "libc")
    if "datlocprovider" in row:
        options["LOCALE_PROVIDER"] = provider
    # The column is called daticulocale in PostgreSQL 15 and 16.
    own = row.get("datlocale") or row.get("daticulocale")
    if provider != "libc" and own:
        options[f"{provider.upper()}_LOCALE"] = _literal(own)
    if row.get("daticurules"):
        options["ICU_RULES"] = _literal(row["daticurules"])
    return " ".join(f"{name} = {value}" for name, value in options.items())


def _property_statements(cursor: Cursor, live: LiveDatabase, name: str) -> Iterator[str]:
    """SQL that gives a database the privileges, settings and comment of the live one."""
    database = identifier(name)
    if live.row["datacl"] is not None:
        yield f"REVOKE ALL ON DATABASE {database} FROM PUBLIC"
        yield f"REVOKE ALL ON DATABASE {database} FROM {identifier(live.owner)}"
        cursor.execute(_GRANTS, {"oid": live.oid})
        for grantee, privilege, grantable in cursor.fetchall():
            option = " WITH GRANT OPTION" if grantable else ""
            yield f"GRANT {privilege} ON DATABASE {database} TO {grantee}{option}"
    cursor.execute(_SETTINGS, {"oid": live.oid})
    for role, entry in cursor.fetchall():
        setting, _equals, value = entry.partition("=")
        whose = f"ALTER ROLE {role} IN DATABASE {database}" if role else f"ALTER DATABASE {database}"
        yield f"{whose} SET {identifier(setting)} TO {_setting_value(setting, value)}"
    yield f"ALTER DATABASE {database} CONNECTION LIMIT {int(live.row['datconnlimit'])}"
    if live.row["datistemplate"]:
        yield f"ALTER DATABASE {database} IS_TEMPLATE true"
    if live.comment is not None:
        yield f"COMMENT ON DATABASE {database} IS {_literal(live.comment)}"


def _setting_value(name: str, value: str) -> str:
    """The value of a setting as SET wants it."""
    if name.lower() not in _LISTS_OF_NAMES:
        return _literal(value)
    words = re.findall(r'\s*("(?:[^"]|"")*"|[^,"\s][^,]*)\s*(?:,|$)', value)
    names = [word[1:-1].replace('""', '"') if word.startswith('"') else word.strip() for word in words]
    return ", ".join(map(_literal, names)) or "''"
