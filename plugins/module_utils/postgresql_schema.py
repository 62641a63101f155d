# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the schema of a database down as SQL that makes the same schema elsewhere, applied migrations included.

The text depends on the schema, the migrations and the major version of pg_dump alone: neither on the time nor on
who applied what, so that two databases at the same version give the same text and a repository sees real changes.
"""

from __future__ import annotations

import re

from ansible_collections.roastify.ops.plugins.module_utils import postgresql, postgresql_programs
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.migration_table import TrackingTable
from ansible_collections.roastify.ops.plugins.module_utils.postgresql import ConnectionOptions, literal
from ansible_collections.roastify.ops.plugins.module_utils.postgresql_driver import DatabaseError
from ansible_collections.roastify.ops.plugins.module_utils.sql_statements import without_secrets

# What says who applied a migration, when and how long it took is true of one database only.
_COLUMNS = ("version", "name", "checksum", "down_checksum", "statement_checksums")

# Lines of pg_dump that differ from run to run, between servers of one schema, or that older servers refuse.
_UNSTABLE = re.compile(
    r"^(\\(un)?restrict .*|-- Dumped from database version .*|-- Dumped by pg_dump version .*"
    r"|-- Started on .*|-- Completed on .*|SET transaction_timeout = .*)$"
)
_FIRST_OBJECT = re.compile(r"^-- (Name|TOC entry)", re.MULTILINE)
_END = "-- PostgreSQL database dump complete"


class SchemaError(OperationError):
    """The schema cannot be read."""


def dump_schema(
    options: ConnectionOptions, table: str = "migrations", owners: bool = False, privileges: bool = False
) -> str:
    """The schema of a database as SQL for psql, with the applied migrations as rows at the end.

    Subscriptions are left out, and passwords of user mappings are hidden, since the file is meant to be shared.

    Args:
        options: the database; its password goes to pg_dump through the environment.
        table: the tracking table, or schema.table.
        owners: whether to say who owns what.
        privileges: whether to say who may do what.

    Raises:
        SchemaError: pg_dump is missing or failed, or the tracking table cannot be read.
        OperationError: there is no connection, or the tracking table is another tool's.
    """
    if not options.database:
        raise SchemaError("No database to dump is named.", "Name it (database, PG_DATABASE).")
    # Subscriptions hold the password of another server; they belong to one server and not to a schema.
    command = ["pg_dump", "--schema-only", "--no-subscriptions", "--no-password", "--lock-wait-timeout=60s"]
    command.append("--encoding=UTF8")
    command += [] if owners else ["--no-owner"]
    command += [] if privileges else ["--no-privileges"]
    rows = _migration_rows(options, table)
    text = postgresql_programs.run(options, command, f"The schema of {options} cannot be read", SchemaError)
    return without_secrets(normalise(text)) + rows


def normalise(text: str) -> str:
    """A dump without what changes while the schema does not.

    Args:
        text: what pg_dump --schema-only wrote.

    Returns:
        The same SQL. Only what comes before the first object and behind the last one is changed: the body of a
        function may hold lines that look alike.
    """
    first = _FIRST_OBJECT.search(text)
    end = text.rfind(_END)
    if end < 0:
        return text
    begin = min(first.start(), end) if first else end
    head = _without_unstable(text[:begin])
    tail = _without_unstable(text[end:])
    return re.sub(r"\n{3,}", "\n\n", head) + text[begin:end] + tail.rstrip() + "\n"


def _without_unstable(text: str) -> str:
    return "\n".join(line for line in text.split("\n") if not _UNSTABLE.match(line))


def _migration_rows(options: ConnectionOptions, name: str) -> str:
    """INSERT of the applied migrations, in the order of their versions."""
    connection = postgresql.connect(options)
    table = TrackingTable(name)
    try:
        with connection.cursor() as cursor:
            database = table.look(cursor, "")
            if not database.exists:
                return ""
            columns = [column for column in _COLUMNS if column in database.columns]
            # The text form decides nothing but ties: a version is a number of any length.
            cursor.execute(
                f"SELECT {', '.join(columns)} FROM {table.name}"
                " ORDER BY pg_catalog.lpad(version::text, 255, '0') COLLATE \"C\""
            )
            rows = cursor.fetchall()
    except DatabaseError as error:
        raise SchemaError(
            f"The applied migrations of {options} cannot be read: {options.scrub(error.message)}.",
            "GRANT SELECT on the tracking table to this role.",
        ) from None
    finally:
        connection.close()
    if not rows:
        return ""
    values = ",\n".join(f"    ({', '.join(literal(value) for value in row)})" for row in rows)
    return "\n".join(
        (
            "",
            "--",
            "-- Applied migrations",
            "--",
            "",
            f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES",
            f"{values};",
            "",
        )
    )
