# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tracking table: a row means that the migration is applied.

Its columns id, version, name and applied_at are a contract with other tools; the ones in EXTRA_COLUMNS
are added to it when the first migration is recorded, empty in the rows that are there. A migration
outside a transaction is in the table <table>_unfinished from its first statement to its last, so that a
row of the tracking table never means "perhaps".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.migration_changes import (
    statement_checksums,
    statement_checksums_of,
)
from ansible_collections.roastify.ops.plugins.module_utils.migration_files import CheckedScript, Migration
from ansible_collections.roastify.ops.plugins.module_utils.migration_plan import Correction, Step
from ansible_collections.roastify.ops.plugins.module_utils.migration_records import AppliedMigration, Unfinished
from ansible_collections.roastify.ops.plugins.module_utils.migration_text import checksum
from ansible_collections.roastify.ops.plugins.module_utils.postgresql import advisory_key, identifier, literal
from ansible_collections.roastify.ops.plugins.module_utils.postgresql_driver import Cursor
from ansible_collections.roastify.ops.plugins.module_utils.sql_statements import Statement

LONGEST_TABLE_NAME = 63 - len("_unfinished")
"""In bytes: NAMEDATALEN - 1 less the ending; the server would cut longer names off, and both tables be one."""

REQUIRED_COLUMNS = ("id", "version", "name", "applied_at")
EXTRA_COLUMNS = {
    "checksum": "text",
    "duration_ms": "bigint",
    "applied_by": "text",
    "deployment_id": "text",
    "down_checksum": "text",
    "statement_checksums": "text",
    "tool_version": "text",
}

AS_LOGIN_ROLE = "RESET SESSION AUTHORIZATION; RESET ROLE; "
"""A script may have changed role; the record is the login role's."""

SINCE_BEGIN = -1

_APPLIED_AT = """to_char(applied_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"""

_DESCRIBE = """
SELECT pg_catalog.current_database(),
       pg_catalog.pg_is_in_recovery(),
       pg_catalog.current_setting('transaction_read_only') = 'on',
       coalesce(relation_schema.nspname, %(schema)s, pg_catalog.current_schema()),
       pg_catalog.has_schema_privilege(target_schema.oid, 'CREATE'),
       relation.relkind::text,
       pg_catalog.pg_has_role(relation.relowner, 'USAGE'),
       pg_catalog.has_table_privilege(relation.oid, 'SELECT'),
       pg_catalog.has_table_privilege(relation.oid, 'INSERT'),
       pg_catalog.row_security_active(relation.oid),
       NOT (relation.relhastriggers OR relation.relhasrules OR relation.relrowsecurity
            OR EXISTS (SELECT 1 FROM pg_catalog.pg_event_trigger WHERE evtenabled <> 'D')),
       (SELECT pg_catalog.array_agg(ARRAY[attname::text, pg_catalog.format_type(atttypid, NULL),
                                          (attnotnull AND NOT atthasdef AND attidentity = '')::text]
                                    ORDER BY attnum)
          FROM pg_catalog.pg_attribute
         WHERE attrelid = relation.oid AND attnum > 0 AND NOT attisdropped),
       pg_catalog.to_regclass(pg_catalog.quote_ident(
           coalesce(relation_schema.nspname, %(schema)s, pg_catalog.current_schema()))
           || '.' || pg_catalog.quote_ident(%(unfinished)s)) IS NOT NULL
  FROM (SELECT pg_catalog.to_regclass(%(qualified)s) AS oid) AS wanted
  LEFT JOIN pg_catalog.pg_class AS relation ON relation.oid = wanted.oid
  LEFT JOIN pg_catalog.pg_namespace AS relation_schema ON relation_schema.oid = relation.relnamespace
  LEFT JOIN pg_catalog.pg_namespace AS target_schema
         ON target_schema.nspname = coalesce(relation_schema.nspname, %(schema)s, pg_catalog.current_schema())
"""


class TableError(OperationError):
    """The tracking table cannot be used; nothing was run."""


@dataclass(frozen=True)
class Database:
    """What a runner has to know about the database before it starts.

    Attributes:
        name: of the database.
        in_recovery: it is a standby.
        read_only: its transactions are read-only.
        schema: where the tracking table is, or will be made.
        may_create: whether this role may make tables there.
        exists: whether the tracking table is there.
        is_owner: whether this role may alter it.
        may_insert: whether this role may write to it.
        columns: its columns with their types.
        has_unfinished: whether the table of unfinished migrations is there.
    """

    name: str
    in_recovery: bool
    read_only: bool
    schema: str
    may_create: bool
    exists: bool
    is_owner: bool
    may_insert: bool
    columns: dict[str, str]
    has_unfinished: bool


class TrackingTable:
    """Reads and writes the tracking table over a connection that its caller owns.

    Args:
        name: table, or schema.table; without schema it is looked for along the search_path, and made in
            the first schema of it.
    """

    def __init__(self, name: str) -> None:
        schema, _dot, table = name.rpartition(".")
        self._wanted_schema = schema or None
        self.table = table
        self.database: Database | None = None
        self.is_plain = False
        """Whether neither triggers, rules nor policies change what is written to it, nor event triggers definitions."""
        if len(table.encode()) > LONGEST_TABLE_NAME:
            raise TableError(
                f"The name {table} is too long for a table of migrations: {len(table.encode())} bytes.",
                f"Give one of at most {LONGEST_TABLE_NAME} bytes, which leaves room for {table}_unfinished.",
            )

    @property
    def name(self) -> str:
        """Its name with schema, quoted for SQL."""
        return f"{identifier(self._known.schema)}.{identifier(self.table)}"

    @property
    def unfinished_name(self) -> str:
        """The same of the table of unfinished migrations."""
        return f"{identifier(self._known.schema)}.{identifier(self.table + '_unfinished')}"

    @property
    def _unfinished_in_query(self) -> str:
        return self.unfinished_name.replace("%", "%%")

    @property
    def lock_key(self) -> int:
        """A number for advisory locks that is this table's alone."""
        return advisory_key("pg_migrate", self._known.name, self._known.schema, self.table)

    @property
    def _known(self) -> Database:
        if self.database is None:
            raise RuntimeError("look() comes first")
        return self.database

    def look(self, cursor: Cursor, settings: str) -> Database:
        """Find out about database and table; one round trip.

        Args:
            cursor: of a connection in autocommit mode.
            settings: SET commands to send along.

        Raises:
            TableError: a relation of this name is there, but of another shape.
        """
        qualified = identifier(self.table)
        if self._wanted_schema:
            qualified = f"{identifier(self._wanted_schema)}.{qualified}"
        cursor.execute(
            settings.replace("%", "%%") + _DESCRIBE,
            {"qualified": qualified, "schema": self._wanted_schema, "unfinished": self.table + "_unfinished"},
        )
        told = cursor.fetchone()
        name, recovery, read_only, schema, create, kind, owner, may_select, may_insert = told[:9]
        hides_rows, plain, columns, unfinished = told[9:]
        if schema is None or create is None:
            missing = f"The schema {schema} does not exist" if schema else "The search_path names no schema that exists"
            raise TableError(
                f'{missing} in database "{name}", so there is no place for the table {self.table}.',
                "Create the schema, or name another one (table: schema.table).",
            )
        self.is_plain = bool(plain)
        if kind is not None:
            self._check_shape(schema, kind, columns)
            if hides_rows:
                raise TableError(
                    f"Row security hides rows of {schema}.{self.table} from this role: what is applied cannot be told.",
                    "Run with the role that owns the table, or with one that bypasses row security (BYPASSRLS).",
                )
            if not may_select:
                raise TableError(
                    f"This role may not read {schema}.{self.table}.", f"GRANT SELECT ON {schema}.{self.table} to it."
                )
        self.database = Database(
            name=name,
            in_recovery=recovery,
            read_only=read_only,
            schema=schema,
            may_create=create,
            exists=kind is not None,
            is_owner=bool(owner),
            may_insert=bool(may_insert),
            columns={column: column_type for column, column_type, _needed in columns or []},
            has_unfinished=unfinished,
        )
        return self.database

    def _check_shape(self, schema: str, kind: str, columns: list[list[str]]) -> None:
        found = ", ".join(f"{column} {column_type}" for column, column_type, _needed in columns)
        types = {column: column_type for column, column_type, _needed in columns}
        reasons = [f"it has no column {column}" for column in REQUIRED_COLUMNS if column not in types]
        if kind not in ("r", "p"):
            reasons.append("it is not a table")
        for column in ("version", "name"):
            if column in types and types[column] not in ("character varying", "text", "character"):
                reasons.append(f"its column {column} is of type {types[column]}, not varchar")
        known = {*REQUIRED_COLUMNS, *EXTRA_COLUMNS}
        reasons += [
            f"its column {column} wants a value that is not ours to give"
            for column, _type, needed in columns
            if needed == "true" and column not in known
        ]
        if "id" in types and any(column == "id" and needed == "true" for column, _type, needed in columns):
            reasons.append("its column id has no default")
        if reasons:
            raise TableError(
                f"{schema}.{self.table} is another tool's: {'; '.join(reasons)}. Its columns are: {found}.",
                "Name another table for the migrations (table), or rename this one.",
            )

    def check_writable(self) -> None:
        """Refuse, before anything runs, what would fail at the first record.

        Raises:
            TableError: with the GRANT that is missing.
        """
        database = self._known
        full_name = f"{database.schema}.{self.table}"
        if database.in_recovery or database.read_only:
            what = "a standby" if database.in_recovery else "read-only for this role"
            raise TableError(
                f'Database "{database.name}" is {what}: migrations cannot be applied there.',
                "Connect to the primary (the writer endpoint) with a role that may write.",
            )
        if not database.exists and not database.may_create:
            raise TableError(
                f'This role may not create tables in schema {database.schema} of database "{database.name}".',
                f"GRANT CREATE ON SCHEMA {database.schema} to it (since PostgreSQL 15 nobody has it by default).",
            )
        if database.exists and not database.may_insert:
            raise TableError(
                f"This role may not write to {full_name}.",
                f"GRANT INSERT, DELETE ON {full_name} to it, or let it own it.",
            )
        if database.exists and not database.is_owner and self._missing_columns():
            raise TableError(
                f"{full_name} has yet to get the columns {', '.join(self._missing_columns())}, and this role does not "
                "own it.",
                "Run with the role that owns the table, or add these columns yourself (text, duration_ms bigint).",
            )

    def _missing_columns(self) -> list[str]:
        return [column for column in EXTRA_COLUMNS if column not in self._known.columns]

    def prepare(self, cursor: Cursor) -> None:
        """Make the table if it is missing, and add the columns it lacks; under the runner's lock."""
        commands = []
        if not self._known.exists:
            commands.append(
                f"""CREATE TABLE {self.name} (
                        id SERIAL PRIMARY KEY,
                        version VARCHAR(255) NOT NULL UNIQUE,
                        name VARCHAR(255) NOT NULL,
                        applied_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
                    )"""
            )
        missing = self._missing_columns()
        if missing:
            additions = ", ".join(f"ADD COLUMN {column} {EXTRA_COLUMNS[column]}" for column in missing)
            commands.append(f"ALTER TABLE {self.name} {additions}")
        if commands:
            cursor.execute(";\n".join(["BEGIN", *commands, "COMMIT"]))

    def prepare_unfinished(self, cursor: Cursor) -> None:
        """Make the table of unfinished migrations if it is missing; under the runner's lock."""
        if self._known.has_unfinished:
            return
        cursor.execute(
            f"""
            CREATE TABLE IF NOT EXISTS {self.unfinished_name} (
                version VARCHAR(255) PRIMARY KEY,
                direction VARCHAR(4) NOT NULL,
                statements_done INTEGER NOT NULL DEFAULT 0,
                done_checksum TEXT NOT NULL,
                started_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
                applied_by TEXT,
                error TEXT
            )
            """
        )

    def applied(self, cursor: Cursor) -> list[AppliedMigration]:
        """All rows, in the order of application.

        Raises:
            TableError: a version is not a number, or is there twice (as 7 and as 007).
        """
        database = self._known
        if not database.exists:
            return []
        extra = [name for name in EXTRA_COLUMNS if name in database.columns and name != "tool_version"]
        cursor.execute(
            f"""SELECT {", ".join(["id", "version", "name", _APPLIED_AT, *extra])}
                  FROM {self.name} ORDER BY id"""
        )
        rows = [AppliedMigration(*row[:4], **dict(zip(extra, row[4:]))) for row in cursor.fetchall()]
        strange = [row.version for row in rows if not (row.version.isascii() and row.version.isdigit())]
        if strange:
            raise TableError(
                f"{database.schema}.{self.table} holds versions that are not numbers: {', '.join(strange[:10])}.",
                "Name another table for the migrations (table), or correct these rows.",
            )
        seen: dict[int, str] = {}
        for row in rows:
            if row.number in seen:
                raise TableError(
                    f"{database.schema}.{self.table} holds version {row.number} twice: as {seen[row.number]} and as "
                    f"{row.version}.",
                    "Delete the wrong one of the two rows.",
                )
            seen[row.number] = row.version
        return rows

    def unfinished(self, cursor: Cursor) -> list[Unfinished]:
        """The migrations outside a transaction that did not come to their end."""
        if not self._known.has_unfinished:
            return []
        cursor.execute(
            f"""SELECT version, direction, statements_done, done_checksum,
                       to_char(started_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), error
                  FROM {self.unfinished_name} ORDER BY started_at"""
        )
        return [Unfinished(*row) for row in cursor.fetchall()]

    def record(
        self, cursor: Cursor, step: Step, duration_ms: int, context: Mapping[str, str | None], settings: str = ""
    ) -> int:
        """Write or delete the row of a migration, inside the transaction that ran it.

        Args:
            cursor: inside that transaction, acting as whatever role the script left.
            step: what was run.
            duration_ms: how long it took.
            context: applied_by, deployment_id and tool_version; recorded_version for a rollback.
            settings: commands that take back what the script set for its transaction.

        Returns:
            The id of the transaction that the row belongs to.
        """
        if step.direction == "down":
            command = f"DELETE FROM {self.name} WHERE version = {literal(context['recorded_version'])}"
        else:
            command = self.insertion(step.migration, step.migration.version, context, duration_ms, step.checked)
        cursor.execute(f"{AS_LOGIN_ROLE}{settings}{command} RETURNING pg_catalog.txid_current()")
        row = cursor.fetchone()
        if row is None:
            raise TableError(
                f"The row of version {step.migration.version} is gone from {self.name}.",
                "Find out what deleted it; the script itself must not touch the tracking table.",
            )
        return int(row[0])

    def correct(self, cursor: Cursor, correction: Correction, context: Mapping[str, str | None]) -> None:
        """Change the tables without running a script, inside a transaction.

        Args:
            cursor: inside that transaction.
            correction: what to change.
            context: applied_by, deployment_id and tool_version.
        """
        migration, version = correction.migration, literal(correction.version)
        if correction.action == "restart":
            command = f"DELETE FROM {self.unfinished_name} WHERE version = {version}"
        elif correction.action == "forget" or migration is None:
            command = f"DELETE FROM {self.name} WHERE version = {version}"
        elif correction.action == "accept":
            values = {"name": migration.name, **_checksums(migration, None)}
            changes = ", ".join(f"{column} = {literal(value)}" for column, value in values.items())
            command = f"UPDATE {self.name} SET {changes} WHERE version = {version}"
        else:
            command = self.insertion(migration, correction.version, context, None, None)
        cursor.execute(command)

    def insertion(
        self,
        migration: Migration,
        version: str,
        context: Mapping[str, str | None],
        duration_ms: int | None,
        checked: CheckedScript | None,
    ) -> str:
        """The command that records a migration.

        Args:
            migration: its files.
            version: as the table is to write it.
            context: applied_by, deployment_id and tool_version.
            duration_ms: how long it took; -1 for the time since the transaction began, None for unknown.
            checked: its script, if it was split.
        """
        now = "pg_catalog.clock_timestamp()"
        duration = literal(duration_ms)
        if duration_ms == SINCE_BEGIN:
            duration = f"(extract(epoch FROM {now} - pg_catalog.transaction_timestamp()) * 1000)::bigint"
        if self._known.columns.get("applied_at", "timestamp without time zone") != "timestamp with time zone":
            now += " AT TIME ZONE 'UTC'"  # a script may have changed the time zone as well
        values = {
            "applied_at": now,
            "version": literal(version),
            "name": literal(migration.name),
            "duration_ms": duration,
            **{column: literal(value) for column, value in _checksums(migration, checked).items()},
            **{column: literal(context[column]) for column in ("applied_by", "deployment_id", "tool_version")},
        }
        return f"INSERT INTO {self.name} ({', '.join(values)}) VALUES ({', '.join(values.values())})"

    def stands_alone(self, cursor: Cursor) -> bool:
        """Whether the database holds no table and no view but the tables of the migrations."""
        cursor.execute(
            """SELECT NOT EXISTS (
                   SELECT 1 FROM pg_catalog.pg_class AS relation
                     JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = relation.relnamespace
                    WHERE namespace.nspname NOT LIKE 'pg\\_%%' AND namespace.nspname <> 'information_schema'
                      AND relation.relkind IN ('r', 'p', 'v', 'm', 'f')
                      AND relation.relname NOT IN (%(table)s, %(unfinished)s))""",
            {"table": self.table, "unfinished": f"{self.table}_unfinished"},
        )
        row = cursor.fetchone()
        return row is not None and bool(row[0])

    def start(self, cursor: Cursor, step: Step, applied_by: str | None) -> None:
        """Note that a migration outside a transaction begins."""
        cursor.execute(
            f"""INSERT INTO {self._unfinished_in_query} (version, direction, done_checksum, applied_by)
                VALUES (%s, %s, %s, %s)""",
            (step.migration.version, step.direction, done_checksum(()), applied_by),
        )

    def progress(
        self, cursor: Cursor, step: Step, version: str, statements_done: int, error: str | None = None
    ) -> None:
        """Note how far a migration outside a transaction has come, and what stopped it.

        Args:
            cursor: of the session.
            step: what is run.
            version: as the row writes it, which may be another spelling than that of the file.
            statements_done: of the script.
            error: what stopped it.
        """
        cursor.execute(
            f"""UPDATE {self._unfinished_in_query}
                   SET statements_done = %s, done_checksum = %s, error = %s WHERE version = %s RETURNING version""",
            (statements_done, done_checksum(step.checked.statements[:statements_done]), error, version),
        )
        self._expect_row(cursor, version)

    def finish(self, cursor: Cursor, version: str) -> None:
        """Forget the progress of a migration that came to its end."""
        cursor.execute(f"DELETE FROM {self._unfinished_in_query} WHERE version = %s RETURNING version", (version,))
        self._expect_row(cursor, version)

    def _expect_row(self, cursor: Cursor, version: str) -> None:
        if cursor.fetchone() is None:
            raise TableError(
                f"The row of version {version} is gone from {self.unfinished_name}.",
                "Find out what deleted it; see what of the script is done before running again.",
            )


def _checksums(migration: Migration, checked: CheckedScript | None) -> dict[str, str | None]:
    return {
        "checksum": migration.up.checksum,
        "down_checksum": migration.down.checksum if migration.down else None,
        "statement_checksums": (
            statement_checksums(checked.statements) if checked else statement_checksums_of(migration.up)
        ),
    }


def done_checksum(statements: Sequence[Statement]) -> str:
    """What tells whether the statements that are done are still those of the file."""
    return checksum("".join(f"{statement.text};\n" for statement in statements))
