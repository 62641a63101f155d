# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sees to it that a CREATE INDEX or REINDEX CONCURRENTLY leaves no INVALID index behind.

Such a build is not undone when it fails or is killed: an index stays that every write maintains and no
query uses, and CREATE INDEX IF NOT EXISTS takes it for the one that was asked for
(https://www.postgresql.org/docs/current/sql-createindex.html, sql-reindex.html: names end in _ccnew or _ccold).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ansible_collections.roastify.ops.plugins.module_utils import sql_statements
from ansible_collections.roastify.ops.plugins.module_utils.postgresql_driver import Cursor, DatabaseError
from ansible_collections.roastify.ops.plugins.module_utils.sql_statements import ConcurrentIndex, Statement

_OF_REINDEX = re.compile(r"_cc(new|old)[0-9]*$")


class ConcurrentBuild:
    """The watch over one statement outside a transaction.

    Args:
        cursor: of the connection that runs the statement.
        statement: any statement; one that builds no index concurrently is none of this one's business.
        warn: takes what a person should know.
    """

    def __init__(self, cursor: Cursor, statement: Statement, warn: Callable[[str], None]) -> None:
        self._cursor = cursor
        self._warn = warn
        index = sql_statements.concurrent_index(statement)
        self._index = index if index and index.action != "DROP" else None
        self._before: set[str] = set()

    def before(self) -> None:
        """Drop what an interrupted build of the same index left."""
        if self._index is None:
            return
        invalid = self._invalid(self._index)
        for name, left_over in sorted(invalid.items()):
            if left_over:
                self._drop(name)
        self._before = {name for name, left_over in invalid.items() if not left_over}

    def failed(self) -> None:
        """Drop what this build left."""
        if self._index is None:
            return
        try:
            for name in sorted(set(self._invalid(self._index)) - self._before):
                self._drop(name)
        except DatabaseError as error:  # the reason of the failed build counts; the next run drops it
            self._warn(f"an INVALID index is left on {self._index.relation}: {error.message}")

    def done(self) -> None:
        """Tell of INVALID indexes that are still there."""
        if self._index is None:
            return
        left = sorted(self._invalid(self._index))
        if left:
            self._warn(
                f"{', '.join(left)} on {self._index.relation} is INVALID: the server keeps it up to date but never "
                "uses it; drop it (DROP INDEX CONCURRENTLY)"
            )

    def is_there(self) -> bool:
        """Whether the index that was to be made is on its table, under its name, and can be used."""
        if self._index is None or self._index.name is None:
            return False
        self._cursor.execute(
            """SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_index AS entry
                                JOIN pg_catalog.pg_class AS relation ON relation.oid = entry.indexrelid
                               WHERE entry.indrelid = pg_catalog.to_regclass(%s) AND entry.indisvalid
                                 AND relation.relname = %s::pg_catalog.name)""",
            (self._index.relation, _unquoted(self._index.name)),
        )
        row = self._cursor.fetchone()
        return row is not None and bool(row[0])

    def _invalid(self, index: ConcurrentIndex) -> dict[str, bool]:
        """The INVALID indexes of the relation that nobody builds, by SQL name, and whether such a build left them.

        The relation is a table, or the index that is built anew; TOAST tables have indexes, too. The server cuts
        long names off, which its type name does as well.
        """
        self._cursor.execute(
            """WITH wanted AS (SELECT pg_catalog.to_regclass(%(relation)s) AS oid),
                    base AS (SELECT coalesce(entry.indrelid, wanted.oid) AS oid
                               FROM wanted LEFT JOIN pg_catalog.pg_index AS entry ON entry.indexrelid = wanted.oid)
               SELECT pg_catalog.quote_ident(namespace.nspname) || '.' || pg_catalog.quote_ident(relation.relname),
                      relation.relname::text,
                      coalesce(relation.relname = %(name)s::pg_catalog.name, false)
                 FROM base
                 JOIN pg_catalog.pg_class AS base_relation ON base_relation.oid = base.oid
                 JOIN pg_catalog.pg_index AS entry ON entry.indrelid IN (base.oid, base_relation.reltoastrelid)
                 JOIN pg_catalog.pg_class AS relation ON relation.oid = entry.indexrelid
                 JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = relation.relnamespace
                WHERE NOT entry.indisvalid AND relation.relkind = 'i'
                  AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_stat_progress_create_index AS build
                                   WHERE build.index_relid = entry.indexrelid)""",
            {"relation": index.relation, "name": _unquoted(index.name) if index.name else None},
        )
        found = self._cursor.fetchall()
        if index.action == "REINDEX":
            return {sql_name: _OF_REINDEX.search(name) is not None for sql_name, name, _wanted in found}
        return {sql_name: wanted for sql_name, _name, wanted in found}

    def _drop(self, name: str) -> None:
        self._cursor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        self._warn(f"dropped the INVALID index {name}, left by an interrupted build")


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
