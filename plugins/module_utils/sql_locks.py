# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says which locks on which relations the statements of a script take in PostgreSQL, and whom they block.

The rules are those of PostgreSQL's documentation: chapter "Explicit Locking"
(https://www.postgresql.org/docs/current/explicit-locking.html) for the modes and what conflicts with them,
and the page of each command, above all ALTER TABLE
(https://www.postgresql.org/docs/current/sql-altertable.html), for the mode that it takes.
tests/integration/test_sql_locks_on_server.py compares them with pg_locks of real servers.

Only the text is known. Views, inheritance and foreign keys that exist already may carry a lock further:
to the partitions of a table, to the tables below a view. What a function does cannot be told at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils import sql_statements
from ansible_collections.roastify.ops.plugins.module_utils.sql_statements import Statement
from ansible_collections.roastify.ops.plugins.module_utils.sql_tokens import (
    Tokens,
    called_functions,
    names_in_with,
    outside,
    sources,
    without_column_lists,
    word_set,
)

ACCESS_SHARE = "ACCESS SHARE"
ROW_SHARE = "ROW SHARE"
ROW_EXCLUSIVE = "ROW EXCLUSIVE"
SHARE_UPDATE_EXCLUSIVE = "SHARE UPDATE EXCLUSIVE"
SHARE = "SHARE"
SHARE_ROW_EXCLUSIVE = "SHARE ROW EXCLUSIVE"
EXCLUSIVE = "EXCLUSIVE"
ACCESS_EXCLUSIVE = "ACCESS EXCLUSIVE"

MODES = (
    ACCESS_SHARE,
    ROW_SHARE,
    ROW_EXCLUSIVE,
    SHARE_UPDATE_EXCLUSIVE,
    SHARE,
    SHARE_ROW_EXCLUSIVE,
    EXCLUSIVE,
    ACCESS_EXCLUSIVE,
)
"""The lock modes, the weakest first."""

NOTHING = "nothing"
SCHEMA_CHANGES = "schema changes and vacuum"
SAME_ROWS = "writes to the same rows"
WRITES = "writes"
WRITES_AND_ROW_LOCKS = "writes and SELECT FOR UPDATE"
READS_AND_WRITES = "reads and writes"
UNKNOWN = "unknown"

BLOCKED = (NOTHING, SCHEMA_CHANGES, SAME_ROWS, WRITES, WRITES_AND_ROW_LOCKS, UNKNOWN, READS_AND_WRITES)
"""Whom a statement may block, the mildest first."""

_BLOCKED_BY = {
    ACCESS_SHARE: NOTHING,
    ROW_SHARE: NOTHING,
    ROW_EXCLUSIVE: NOTHING,
    SHARE_UPDATE_EXCLUSIVE: SCHEMA_CHANGES,
    SHARE: WRITES,
    SHARE_ROW_EXCLUSIVE: WRITES,
    EXCLUSIVE: WRITES_AND_ROW_LOCKS,
    ACCESS_EXCLUSIVE: READS_AND_WRITES,
}

LONGEST_STATEMENT = 100
"""Characters of a statement that are shown."""

REWRITES = "rewrites the table"
READS = "reads the whole table"
BUILDS_INDEX = "reads the whole table to build an index"
MAY_REWRITE_TYPE = "rewrites the table unless the old type is stored alike"


# Functions of PostgreSQL that take no lock on a user's table.
_HARMLESS = word_set(
    """abs array_agg array_length avg bool_and bool_or cast ceil char_length coalesce concat concat_ws count
    current_setting currval date_trunc exists extract floor format gen_random_uuid generate_series greatest
    json_agg json_build_object jsonb_agg jsonb_build_object jsonb_set lastval least left length lower lpad ltrim max
    md5 min mod nextval now nullif overlay position pg_get_serial_sequence pg_notify pg_sleep power quote_ident
    quote_literal random regexp_replace replace right round row row_number rpad rtrim set_config setval
    split_part string_agg substr substring sum to_char to_date to_timestamp to_tsvector trim unnest upper version
    clock_timestamp statement_timestamp transaction_timestamp"""
)
_VOLATILE = word_set(
    """clock_timestamp gen_random_uuid nextval random timeofday uuid_generate_v1 uuid_generate_v1mc uuid_generate_v4
    uuidv4 uuidv7"""
)
_NOT_VOLATILE = (_HARMLESS - _VOLATILE) - {"currval", "lastval", "pg_sleep", "set_config", "setval", "pg_notify"}
_SERIAL = word_set("SERIAL BIGSERIAL SMALLSERIAL SERIAL2 SERIAL4 SERIAL8")
_COLUMN_CLAUSES = word_set("NOT NULL CHECK UNIQUE PRIMARY REFERENCES GENERATED CONSTRAINT COLLATE DEFERRABLE INITIALLY")
# Storage parameters of tables that only ACCESS EXCLUSIVE may change; the others need SHARE UPDATE EXCLUSIVE.
_STRICT_PARAMETERS = frozenset(("USER_CATALOG_TABLE",))
_STRICT_INDEX_PARAMETERS = word_set("FASTUPDATE BUFFERING GIN_PENDING_LIST_LIMIT PAGES_PER_RANGE AUTOSUMMARIZE")


@dataclass(frozen=True)
class RelationLock:
    """A lock on one relation.

    Attributes:
        mode: one of MODES.
        relation: name as written (unquoted names in lower case), or words where the text does not name it.
        blocks: one of BLOCKED.
    """

    mode: str
    relation: str
    blocks: str


@dataclass(frozen=True)
class StatementLock:
    """The locks of one statement.

    Attributes:
        line: where the statement begins, counted from 1.
        statement: its first LONGEST_STATEMENT characters on one line, passwords hidden.
        locks: what it locks, the strongest first; relations that the same script created are left out.
        scans: what it does with the whole table while it holds the lock, or "".
        unknown: why its locks cannot be told from its text, or "".
        count: of how many statements in a row this is the first; see merged.
    """

    line: int
    statement: str
    locks: tuple[RelationLock, ...] = ()
    scans: str = ""
    unknown: str = ""
    count: int = 1

    @property
    def mode(self) -> str:
        """The strongest mode; "none" without a lock, "unknown" if it cannot be told."""
        if self.unknown:
            return UNKNOWN
        return self.locks[0].mode if self.locks else "none"

    @property
    def relations(self) -> tuple[str, ...]:
        """All relations it locks, those with the strongest mode first."""
        return tuple(lock.relation for lock in self.locks)

    @property
    def blocks(self) -> str:
        """The worst of what it blocks, one of BLOCKED."""
        found = [lock.blocks for lock in self.locks] + ([UNKNOWN] if self.unknown else [])
        return max(found, key=BLOCKED.index, default=NOTHING)

    @property
    def taken(self) -> str:
        """The modes and their relations: ACCESS EXCLUSIVE on orders, SHARE ROW EXCLUSIVE on customers."""
        modes = dict.fromkeys(lock.mode for lock in self.locks)
        return ", ".join(
            f"{mode} on {' and '.join(lock.relation for lock in self.locks if lock.mode == mode)}" for mode in modes
        )

    def __str__(self) -> str:
        """One line: ACCESS EXCLUSIVE on orders: blocks reads and writes; rewrites the table."""
        if self.unknown and not self.locks:
            return f"unknown: {self.unknown}"
        if not self.locks:
            return "no lock on an existing relation: blocks nothing"
        worst = max((lock.blocks for lock in self.locks), key=BLOCKED.index)
        ends = [f"{self.taken}: blocks {worst}"]
        if self.scans:
            ends.append(self.scans)
        if self.unknown:
            ends.append(f"perhaps more: {self.unknown}")
        return "; ".join(ends)

    def as_dict(self) -> dict[str, Any]:
        """The same for a module's result."""
        return {
            "line": self.line,
            "statement": self.statement,
            "mode": self.mode,
            "relations": list(self.relations),
            "blocks": self.blocks,
            "scans": self.scans,
            "count": self.count,
            "text": str(self),
        }


def locks_of(statements: Iterable[Statement]) -> list[StatementLock]:
    """The locks of the statements of one script, in their order.

    A relation that an earlier statement creates for certain (no IF NOT EXISTS) is used by nobody else:
    its locks are left out.
    """
    known = _Known()
    return [_locks(statement, known) for statement in statements]


def merged(locks: Iterable[StatementLock]) -> list[StatementLock]:
    """The same with one entry for changes of rows that follow each other and lock the same.

    A thousand INSERT become one entry. What changes the schema keeps its own.
    """
    numbered = ((str(lock) if lock.mode in MODES[:3] else number, lock) for number, lock in enumerate(locks))
    groups = [[lock for _key, lock in group] for _key, group in itertools.groupby(numbered, key=lambda pair: pair[0])]
    return [replace(group[0], count=sum(lock.count for lock in group)) for group in groups]


@dataclass
class _Known:
    """What the earlier statements of a script tell."""

    created: set[str] = field(default_factory=set)
    table_of_index: dict[str, str] = field(default_factory=dict)


@dataclass
class _Found:
    """What one statement takes."""

    locks: dict[str, RelationLock] = field(default_factory=dict)
    scans: list[str] = field(default_factory=list)
    unknown: str = ""

    def lock(self, mode: str, *relations: str, blocks: str = "") -> None:
        for relation in relations:
            held = self.locks.get(relation)
            if held is None or MODES.index(held.mode) < MODES.index(mode):
                self.locks[relation] = RelationLock(mode, relation, blocks or _BLOCKED_BY[mode])


def _locks(statement: Statement, known: _Known) -> StatementLock:
    found = _Found()
    tokens = Tokens(_tokens(statement))
    _dispatch(tokens, found, known)
    locks = [lock for lock in found.locks.values() if lock.relation not in known.created]
    # The strongest first, and what has a name before what has not.
    locks.sort(key=lambda lock: (-MODES.index(lock.mode), lock.relation.startswith("the ")))
    _remember(tokens, known)
    return StatementLock(
        statement.line,
        sql_statements.summary(statement, LONGEST_STATEMENT),
        tuple(locks),
        # A table that nobody uses yet may be read and rewritten at leisure.
        "; ".join(dict.fromkeys(found.scans)) if locks else "",
        found.unknown,
    )


def _tokens(statement: Statement) -> Sequence[str]:
    # The values of an INSERT may be many megabytes, and tell nothing.
    text = statement.text
    if statement.head[:1] == ("INSERT",) and len(text) > 100_000:
        text = text[:100_000]
    return sql_statements.tokens(text)


def _dispatch(tokens: Tokens, found: _Found, known: _Known) -> None:
    first = tokens.peek()
    command = _COMMANDS.get(first)
    if command is None:
        found.unknown = f"what {first} locks is not known here"
        return
    command(tokens, found, known)


def _nothing(tokens: Tokens, found: _Found, known: _Known) -> None:
    """Commands that lock no relation."""


def _anything(tokens: Tokens, found: _Found, known: _Known) -> None:
    what = {"DO": "a DO block", "CALL": "a procedure", "EXECUTE": "a prepared statement"}.get(
        tokens.peek(), tokens.peek()
    )
    found.unknown = f"{what} may do anything"


def _explain(tokens: Tokens, found: _Found, known: _Known) -> None:
    tokens.take("EXPLAIN")
    tokens.skip_parentheses()
    tokens.skip("ANALYZE", "VERBOSE")
    if tokens.peek() in _COMMANDS:
        _dispatch(Tokens(tokens.raw[tokens.place :]), found, known)


# Data


def _data(tokens: Tokens, found: _Found, known: _Known) -> None:
    """SELECT, INSERT, UPDATE, DELETE, MERGE, VALUES and WITH before any of them."""
    words = tokens.words
    own_names = names_in_with(tokens) if "WITH" in words else set()
    for place, word in enumerate(words):
        if word not in ("INTO", "UPDATE", "FROM"):
            continue
        before = words[place - 1] if place else ""
        at = tokens.at(place + 1)
        at.skip("ONLY")
        if word == "INTO" and before in ("INSERT", "MERGE"):
            found.lock(ROW_EXCLUSIVE, at.name(), blocks=SAME_ROWS if before == "MERGE" else NOTHING)
        elif (word == "UPDATE" and before not in ("FOR", "DO", "KEY", "ON", "THEN")) or (
            word == "FROM" and before == "DELETE"
        ):
            found.lock(ROW_EXCLUSIVE, at.name(), blocks=SAME_ROWS)
            if "WHERE" not in words[place:]:
                found.scans.append("writes every row")
    row_locks = any(
        word == "FOR" and words[place + 1 : place + 2] and words[place + 1] in ("UPDATE", "SHARE", "NO", "KEY")
        for place, word in enumerate(words)
    )
    for relation in sources(tokens):
        if relation not in own_names:
            if row_locks:
                found.lock(ROW_SHARE, relation, blocks=SAME_ROWS)
            else:
                found.lock(ACCESS_SHARE, relation)
    for name in called_functions(without_column_lists(words)):
        if name not in _HARMLESS and name not in own_names:
            found.unknown = f"{name}() may do anything"
            break


def _query(tokens: Tokens, found: _Found, known: _Known) -> None:
    """The query that begins here, of a view or of CREATE TABLE AS."""
    _data(Tokens(tokens.raw[tokens.place :]), found, known)


def _copy(tokens: Tokens, found: _Found, known: _Known) -> None:
    tokens.take("COPY")
    if tokens.peek() == "(":
        _query(tokens, found, known)
        return
    name = tokens.name()
    tokens.skip_parentheses()
    found.lock(ROW_EXCLUSIVE if tokens.take("FROM") else ACCESS_SHARE, name)


# Maintenance and locks


def _truncate(tokens: Tokens, found: _Found, known: _Known) -> None:
    tokens.take("TRUNCATE")
    tokens.skip("TABLE")
    names = tokens.names()
    found.lock(ACCESS_EXCLUSIVE, *names)
    if "CASCADE" in tokens.rest():
        found.lock(ACCESS_EXCLUSIVE, *(f"the tables that reference {name}" for name in names))


def _lock(tokens: Tokens, found: _Found, known: _Known) -> None:
    tokens.take("LOCK")
    tokens.skip("TABLE")
    names = tokens.names()
    mode = ACCESS_EXCLUSIVE
    if tokens.take("IN"):
        words = tokens.rest()
        mode = " ".join(words[: words.index("MODE")]) if "MODE" in words else mode
    found.lock(mode if mode in MODES else ACCESS_EXCLUSIVE, *names)


def _vacuum(tokens: Tokens, found: _Found, known: _Known) -> None:
    tokens.take("VACUUM")
    options: list[str] = []
    if tokens.peek() == "(":
        start = tokens.place
        tokens.skip_parentheses()
        options = tokens.words[start : tokens.place]
    start = tokens.place
    tokens.skip("FULL", "FREEZE", "VERBOSE", "ANALYZE", "ANALYSE")
    options += tokens.words[start : tokens.place]
    full = any(
        word == "FULL" and options[place + 1 : place + 2] not in (["FALSE"], ["OFF"], ["0"])
        for place, word in enumerate(options)
    )
    names = tokens.names() if tokens.peek() else ["every table in turn"]
    found.lock(ACCESS_EXCLUSIVE if full else SHARE_UPDATE_EXCLUSIVE, *names)
    if full:
        found.scans.append(REWRITES)


def _analyze(tokens: Tokens, found: _Found, known: _Known) -> None:
    tokens.place = 1
    tokens.skip_parentheses()
    tokens.skip("VERBOSE")
    found.lock(SHARE_UPDATE_EXCLUSIVE, *(tokens.names() if tokens.peek() else ["every table in turn"]))


def _cluster(tokens: Tokens, found: _Found, known: _Known) -> None:
    tokens.take("CLUSTER")
    tokens.skip_parentheses()
    tokens.skip("VERBOSE")
    found.lock(ACCESS_EXCLUSIVE, tokens.name() if tokens.peek() else "every clustered table in turn")
    found.scans.append(REWRITES)


def _reindex(tokens: Tokens, found: _Found, known: _Known) -> None:
    tokens.take("REINDEX")
    concurrently = False
    if tokens.peek() == "(":
        start = tokens.place
        tokens.skip_parentheses()
        options = tokens.words[start : tokens.place]
        concurrently = "CONCURRENTLY" in options and "CONCURRENTLY FALSE" not in " ".join(options)
    kind = tokens.peek()
    tokens.place += 1
    concurrently = tokens.take("CONCURRENTLY") or concurrently
    name = tokens.name() if tokens.peek() else "the database"
    if kind == "INDEX":
        table, index = known.table_of_index.get(name, f"the table of {name}"), name
    elif kind == "TABLE":
        table, index = name, f"the indexes of {name}"
    else:
        table, index = f"each table of {name} in turn", "its indexes"
    if concurrently:
        found.lock(SHARE_UPDATE_EXCLUSIVE, table, index)
        return
    found.lock(SHARE, table)
    # Every query that is planned takes a lock on all indexes of its tables: reads wait as well.
    found.lock(ACCESS_EXCLUSIVE, index)
    found.scans.append(BUILDS_INDEX)


def _refresh(tokens: Tokens, found: _Found, known: _Known) -> None:
    tokens.take("REFRESH", "MATERIALIZED", "VIEW")
    concurrently = tokens.take("CONCURRENTLY")
    found.lock(EXCLUSIVE if concurrently else ACCESS_EXCLUSIVE, tokens.name())
    if concurrently:
        found.scans.append("computes the whole view")
    elif tokens.rest()[-2:] != ["NO", "DATA"]:
        found.scans.append("computes and rewrites the whole view")


def _kind(tokens: Tokens) -> str:
    """What kind of object comes next; materialized views and foreign tables take the locks of tables."""
    kind = tokens.peek()
    tokens.place += 1
    if kind in ("MATERIALIZED", "FOREIGN") and tokens.peek() in ("VIEW", "TABLE"):
        tokens.place += 1
        return "TABLE"
    return kind


def _comment(tokens: Tokens, found: _Found, known: _Known) -> None:
    tokens.seek("ON")
    kind = _kind(tokens)
    if kind == "COLUMN":
        found.lock(SHARE_UPDATE_EXCLUSIVE, tokens.name().rpartition(".")[0])
    elif kind in ("TABLE", "VIEW", "INDEX", "SEQUENCE"):
        found.lock(SHARE_UPDATE_EXCLUSIVE, tokens.name())
    elif kind in ("CONSTRAINT", "TRIGGER", "RULE", "POLICY") and tokens.seek("ON") and not tokens.take("DOMAIN"):
        found.lock(ACCESS_SHARE, tokens.name())


# CREATE


def _create(tokens: Tokens, found: _Found, known: _Known) -> None:
    tokens.take("CREATE")
    replace = tokens.take("OR", "REPLACE")
    tokens.skip("GLOBAL", "LOCAL", "TEMPORARY", "TEMP", "UNLOGGED", "UNIQUE", "CONSTRAINT", "RECURSIVE")
    kind = tokens.peek()
    tokens.place += 1
    if kind in ("TABLE", "FOREIGN"):
        if kind == "FOREIGN" and not tokens.take("TABLE"):
            return
        _create_table(tokens, found, known)
    elif kind == "INDEX":
        _create_index(tokens, found)
    elif kind == "VIEW":
        name = tokens.name()
        if replace:
            found.lock(ACCESS_EXCLUSIVE, name)
        if tokens.seek("AS"):
            _view_sources(tokens, found)
    elif kind == "MATERIALIZED":
        if tokens.seek("AS"):
            _query(tokens, found, known)
    elif kind == "TRIGGER":
        tokens.seek("ON")
        found.lock(SHARE_ROW_EXCLUSIVE, tokens.name())
    elif kind == "RULE":
        tokens.seek("TO")
        found.lock(ACCESS_EXCLUSIVE, tokens.name())
    elif kind == "POLICY":
        tokens.seek("ON")
        found.lock(ACCESS_EXCLUSIVE, tokens.name())
    elif kind == "STATISTICS":
        tokens.seek("FROM")
        found.lock(SHARE_UPDATE_EXCLUSIVE, tokens.name())
    elif kind == "PUBLICATION":
        _publication(tokens, found)
    elif kind == "EXTENSION":
        found.unknown = "the script of an extension may do anything"
    elif kind == "SCHEMA" and {"CREATE", "TABLE"} & set(tokens.rest()):
        found.unknown = "statements within CREATE SCHEMA are not read"


def _view_sources(tokens: Tokens, found: _Found) -> None:
    """A view only looks its relations up; what its functions do happens when it is read."""
    found.lock(ACCESS_SHARE, *sources(Tokens(tokens.raw[tokens.place :])))


def _create_table(tokens: Tokens, found: _Found, known: _Known) -> None:
    tokens.take("IF", "NOT", "EXISTS")
    itself = tokens.name()
    words = tokens.words
    if tokens.take("PARTITION", "OF"):
        parent = tokens.name()
        found.lock(ACCESS_EXCLUSIVE, parent, f"the default partition of {parent}")
        found.scans.append("reads the default partition, if there is one")
    for place, word in enumerate(words):
        if word not in ("REFERENCES", "INHERITS", "LIKE"):
            continue
        at = tokens.at(place + 1)
        if word == "REFERENCES":
            other = at.name()
            if other != itself:
                found.lock(SHARE_ROW_EXCLUSIVE, other)
        elif word == "INHERITS" and at.take("("):
            found.lock(SHARE_UPDATE_EXCLUSIVE, *at.names())
        elif word == "LIKE" and words[place - 1] in ("(", ","):
            found.lock(ACCESS_SHARE, at.name())
    if tokens.seek("AS"):
        _query(tokens, found, known)


def _create_index(tokens: Tokens, found: _Found) -> None:
    concurrently = tokens.take("CONCURRENTLY")
    tokens.seek("ON")
    tokens.skip("ONLY")
    found.lock(SHARE_UPDATE_EXCLUSIVE if concurrently else SHARE, tokens.name())
    found.scans.append(BUILDS_INDEX)


def _publication(tokens: Tokens, found: _Found) -> None:
    if tokens.seek("TABLE"):
        for part in tokens.parts():
            part.skip("TABLE", "ONLY")
            found.lock(SHARE_UPDATE_EXCLUSIVE, part.name())


# DROP


def _drop(tokens: Tokens, found: _Found, known: _Known) -> None:
    tokens.take("DROP")
    kind = tokens.peek()
    tokens.place += 1
    if kind in ("MATERIALIZED", "FOREIGN", "EVENT") and tokens.peek() in ("VIEW", "TABLE", "TRIGGER"):
        kind = "NONE" if kind == "EVENT" else tokens.peek()
        tokens.place += 1
    cascade = "CASCADE" in tokens.words[-1:]
    concurrently = kind == "INDEX" and tokens.take("CONCURRENTLY")
    tokens.take("IF", "EXISTS")
    if kind in ("TABLE", "VIEW", "SEQUENCE"):
        names = tokens.names()
        found.lock(ACCESS_EXCLUSIVE, *names)
        if kind == "TABLE":
            others = [name for name in names if name not in known.created]
            found.lock(ACCESS_EXCLUSIVE, *(f"the tables that {name} references" for name in others))
    elif kind == "INDEX":
        mode = SHARE_UPDATE_EXCLUSIVE if concurrently else ACCESS_EXCLUSIVE
        for name in tokens.names():
            found.lock(mode, known.table_of_index.get(name, f"the table of {name}"), name)
    elif kind in ("TRIGGER", "RULE", "POLICY"):
        tokens.seek("ON")
        found.lock(ACCESS_EXCLUSIVE, tokens.name())
    elif kind == "STATISTICS":
        found.lock(SHARE_UPDATE_EXCLUSIVE, *(f"the table of {name}" for name in tokens.names()))
    elif kind == "SCHEMA" and cascade:
        found.lock(ACCESS_EXCLUSIVE, *(f"everything in {name}" for name in tokens.names()))
        return
    elif kind in ("OWNED", "EXTENSION"):
        found.unknown = f"what DROP {kind} removes is not in its text"
    if cascade:
        found.unknown = "what CASCADE removes is not in its text"


# ALTER


def _alter(tokens: Tokens, found: _Found, known: _Known) -> None:
    tokens.take("ALTER")
    kind = _kind(tokens)
    if kind in ("TABLE", "INDEX", "VIEW", "SEQUENCE"):
        tokens.take("IF", "EXISTS")
        if tokens.take("ALL", "IN", "TABLESPACE"):
            found.unknown = "the relations of a tablespace are not in its text"
            return
        tokens.skip("ONLY")
        name = tokens.name()
        _ALTER_RELATION[kind](name, tokens, found)
    elif kind in ("TRIGGER", "RULE", "POLICY"):
        tokens.seek("ON")
        found.lock(ACCESS_EXCLUSIVE, tokens.name())
    elif kind == "PUBLICATION":
        name = tokens.name()
        if tokens.peek() == "SET" and tokens.peek(1) != "(":
            found.lock(SHARE_UPDATE_EXCLUSIVE, f"the tables of {name}")
        _publication(tokens, found)
    elif kind == "TYPE":
        name = tokens.name()
        if {"ATTRIBUTE"} & set(tokens.rest()):
            found.lock(ACCESS_EXCLUSIVE, name)
    elif kind == "DOMAIN":
        name = tokens.name()
        words = tokens.rest()
        checks = words[:1] in (["ADD"], ["VALIDATE"]) or words[:3] == ["SET", "NOT", "NULL"]
        if checks and words[-2:] != ["NOT", "VALID"]:
            found.lock(SHARE, f"the tables with columns of {name}")
            found.scans.append(READS)
    elif kind in ("EXTENSION", "SUBSCRIPTION"):
        found.unknown = f"what ALTER {kind} changes is not in its text"


def _alter_view(name: str, tokens: Tokens, found: _Found) -> None:
    found.lock(ACCESS_EXCLUSIVE, name)


def _alter_sequence(name: str, tokens: Tokens, found: _Found) -> None:
    words = tokens.rest()
    strict = words[:1] in (["RENAME"], ["OWNER"], ["SET"])
    found.lock(ACCESS_EXCLUSIVE if strict else SHARE_ROW_EXCLUSIVE, name)
    if tokens.seek("OWNED", "BY") and tokens.peek() != "NONE":
        found.lock(ACCESS_SHARE, tokens.name().rpartition(".")[0])


def _alter_index(name: str, tokens: Tokens, found: _Found) -> None:
    words = tokens.rest()
    if words[:2] == ["ATTACH", "PARTITION"]:
        tokens.place += 2
        found.lock(SHARE_UPDATE_EXCLUSIVE, name)
        found.lock(ACCESS_EXCLUSIVE, tokens.name())
    elif (
        words[:2] == ["SET", "TABLESPACE"]
        or {"OWNER", "DEPENDS"} & set(words[:2])
        or set(words) & _STRICT_INDEX_PARAMETERS
    ):
        found.lock(ACCESS_EXCLUSIVE, name)
    else:
        found.lock(SHARE_UPDATE_EXCLUSIVE, name)


def _alter_table(name: str, tokens: Tokens, found: _Found) -> None:
    for action in tokens.parts():
        found.lock(_action(name, action, found), name)


def _action(table: str, action: Tokens, found: _Found) -> str:
    """The mode that one action of ALTER TABLE needs on its table; further locks go to found."""
    words = action.words
    first, second = (*words, "", "")[:2]
    if first == "ADD":
        action.place = 1
        return _add(table, action, found)
    if first == "ALTER" and second == "CONSTRAINT":
        return ACCESS_EXCLUSIVE
    if first == "ALTER":
        action.place = 1
        action.skip("COLUMN")
        action.name()
        return _alter_column(action, found)
    if first == "DROP" and second == "CONSTRAINT":
        action.place = 2
        action.take("IF", "EXISTS")
        found.lock(ACCESS_EXCLUSIVE, f"the table that {action.name()} references, if it is a foreign key")
        return ACCESS_EXCLUSIVE
    if first == "VALIDATE":
        found.scans.append(READS)
        return SHARE_UPDATE_EXCLUSIVE
    if first == "ATTACH":
        action.place = 2
        partition = action.name()
        found.lock(ACCESS_EXCLUSIVE, partition, f"the default partition of {table}")
        found.scans.append(f"reads the whole of {partition} unless a constraint of it says the same")
        return SHARE_UPDATE_EXCLUSIVE
    if first == "DETACH":
        action.place = 2
        partition = action.name()
        if words[-1] == "CONCURRENTLY":
            # The second of its two transactions takes the partition away, when nobody reads it any more.
            found.lock(ACCESS_EXCLUSIVE, partition)
            return SHARE_UPDATE_EXCLUSIVE
        found.lock(ACCESS_EXCLUSIVE, partition)
        if words[-1] == "FINALIZE":
            return SHARE_UPDATE_EXCLUSIVE
        found.lock(ACCESS_EXCLUSIVE, f"the default partition of {table}")
        return ACCESS_EXCLUSIVE
    if first in ("ENABLE", "DISABLE"):
        return SHARE_ROW_EXCLUSIVE if "TRIGGER" in words[:3] else ACCESS_EXCLUSIVE
    if first == "CLUSTER" or words[:3] == ["SET", "WITHOUT", "CLUSTER"]:
        return SHARE_UPDATE_EXCLUSIVE
    if first in ("SET", "RESET") and second == "(":
        return ACCESS_EXCLUSIVE if set(words) & _STRICT_PARAMETERS else SHARE_UPDATE_EXCLUSIVE
    if first == "SET" and second in ("LOGGED", "UNLOGGED", "TABLESPACE", "ACCESS"):
        found.scans.append(REWRITES)
        return ACCESS_EXCLUSIVE
    if first == "INHERIT":
        action.place = 1
        found.lock(SHARE_UPDATE_EXCLUSIVE, action.name())
        return ACCESS_EXCLUSIVE
    if words[:2] == ["NO", "INHERIT"]:
        action.place = 2
        found.lock(ACCESS_SHARE, action.name())
        return ACCESS_EXCLUSIVE
    return ACCESS_EXCLUSIVE


def _add(table: str, action: Tokens, found: _Found) -> str:
    words = action.words
    not_valid = words[-2:] == ["NOT", "VALID"]
    if action.take("CONSTRAINT"):
        action.name()
    kind = action.peek()
    if kind == "FOREIGN":
        action.seek("REFERENCES")
        found.lock(SHARE_ROW_EXCLUSIVE, action.name())
        if not not_valid:
            found.scans.append(READS)
        return SHARE_ROW_EXCLUSIVE
    if kind in ("CHECK", "NOT"):
        if not not_valid:
            found.scans.append(READS)
        return ACCESS_EXCLUSIVE
    if kind in ("UNIQUE", "PRIMARY") or (kind == "EXCLUDE" and action.peek(1) in ("USING", "(")):
        if "USING" in words and words[words.index("USING") + 1 :][:1] == ["INDEX"] and "TABLESPACE" not in words:
            if kind == "PRIMARY":
                found.scans.append(f"{READS} unless its columns are NOT NULL")
        else:
            found.scans.append(BUILDS_INDEX)
        return ACCESS_EXCLUSIVE
    action.skip("COLUMN")
    action.take("IF", "NOT", "EXISTS")
    action.name()
    _add_column(table, action, found)
    return ACCESS_EXCLUSIVE


def _add_column(table: str, action: Tokens, found: _Found) -> None:
    words = outside(action.rest())
    default = _default(action.rest())
    if words and words[0] in _SERIAL:
        found.scans.append(REWRITES)
    if "IDENTITY" in words or "STORED" in words:
        found.scans.append(REWRITES)
    for name in called_functions(default):
        if name in _VOLATILE:
            found.scans.append(REWRITES)
        elif name not in _NOT_VOLATILE:
            found.scans.append(f"rewrites the table if {name}() is volatile")
    if "REFERENCES" in words:
        action.seek("REFERENCES")
        other = action.name()
        if other != table:
            found.lock(SHARE_ROW_EXCLUSIVE, other)
        if default:  # nulls reference nothing and need no check
            found.scans.append(READS)
    if "UNIQUE" in words or "PRIMARY" in words:
        found.scans.append(BUILDS_INDEX)
    has_value = bool(default) or "IDENTITY" in words or (words and words[0] in _SERIAL)
    if "CHECK" in words or (any(pair == ("NOT", "NULL") for pair in zip(words, words[1:])) and not has_value):
        found.scans.append(READS)


def _default(words: Sequence[str]) -> list[str]:
    """The expression behind DEFAULT, up to the next clause of the column."""
    depth = 0
    place = words.index("DEFAULT") + 1 if "DEFAULT" in words else len(words)
    start = place
    while place < len(words) and (depth or words[place] not in _COLUMN_CLAUSES or place == start):
        depth += {"(": 1, ")": -1}.get(words[place], 0)
        place += 1
    return list(words[start:place])


def _alter_column(action: Tokens, found: _Found) -> str:
    words = action.rest()
    if words[:2] == ["SET", "STATISTICS"] or words[:2] in (["SET", "("], ["RESET", "("]):
        return SHARE_UPDATE_EXCLUSIVE
    if words[:1] == ["TYPE"] or words[:3] == ["SET", "DATA", "TYPE"]:
        found.scans.append(MAY_REWRITE_TYPE)
    elif words[:2] == ["SET", "EXPRESSION"]:
        found.scans.append(REWRITES)
    elif words[:3] == ["SET", "NOT", "NULL"]:
        found.scans.append(f"{READS} unless a valid CHECK constraint proves it")
    return ACCESS_EXCLUSIVE


_ALTER_RELATION: dict[str, Callable[[str, Tokens, _Found], None]] = {
    "TABLE": _alter_table,
    "INDEX": _alter_index,
    "VIEW": _alter_view,
    "SEQUENCE": _alter_sequence,
}

_COMMANDS: dict[str, Callable[[Tokens, _Found, _Known], None]] = {
    **dict.fromkeys(("SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH", "VALUES", "("), _data),
    **dict.fromkeys(("DO", "CALL", "EXECUTE", "IMPORT"), _anything),
    **dict.fromkeys(
        word_set(
            """ABORT BEGIN CHECKPOINT COMMIT DEALLOCATE DISCARD END GRANT LISTEN NOTIFY PREPARE REASSIGN RELEASE RESET
        REVOKE ROLLBACK SAVEPOINT SET SHOW START UNLISTEN LOAD"""
        ),
        _nothing,
    ),
    "EXPLAIN": _explain,
    "COPY": _copy,
    "TRUNCATE": _truncate,
    "LOCK": _lock,
    "VACUUM": _vacuum,
    "ANALYZE": _analyze,
    "ANALYSE": _analyze,
    "CLUSTER": _cluster,
    "REINDEX": _reindex,
    "REFRESH": _refresh,
    "COMMENT": _comment,
    "CREATE": _create,
    "DROP": _drop,
    "ALTER": _alter,
}


# What later statements need to know


def _remember(tokens: Tokens, known: _Known) -> None:
    at = Tokens(tokens.raw)
    if at.take("CREATE"):
        replaces = at.take("OR", "REPLACE")
        at.skip("GLOBAL", "LOCAL", "TEMPORARY", "TEMP", "UNLOGGED", "UNIQUE", "RECURSIVE", "MATERIALIZED", "FOREIGN")
        kind = at.peek()
        at.place += 1
        if kind not in ("TABLE", "VIEW", "INDEX", "SEQUENCE"):
            return
        at.skip("CONCURRENTLY")
        maybe = at.take("IF", "NOT", "EXISTS") or replaces
        if kind == "INDEX":
            name = "" if at.peek() == "ON" else at.name()
            at.seek("ON")
            at.skip("ONLY")
            table = at.name()
            if name:
                # An index lies in the schema of its table.
                schema = table.rpartition(".")[0]
                name = f"{schema}.{name}" if schema else name
                known.table_of_index[name] = table
        else:
            name = at.name()
        if name and not maybe:
            known.created.add(name)
    elif at.take("DROP"):
        at.skip("MATERIALIZED", "FOREIGN")
        if at.peek() in ("TABLE", "VIEW", "INDEX", "SEQUENCE"):
            at.place += 1
            at.skip("CONCURRENTLY")
            at.take("IF", "EXISTS")
            known.created.difference_update(at.names())
    elif at.take("ALTER"):
        at.skip("MATERIALIZED", "FOREIGN")
        if at.peek() not in ("TABLE", "VIEW", "INDEX", "SEQUENCE"):
            return
        at.place += 1
        at.take("IF", "EXISTS")
        at.skip("ONLY")
        old = at.name()
        if old not in known.created:
            return
        schema = old.rpartition(".")[0]
        if at.take("RENAME", "TO"):
            new = at.name()
            known.created.discard(old)
            known.created.add(f"{schema}.{new}" if schema else new)
        elif at.take("SET", "SCHEMA"):
            known.created.discard(old)
            known.created.add(f"{at.name()}.{old.rpartition('.')[2]}")
