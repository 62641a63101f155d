"""What can be said about locks without a server; tests/integration compares the claims with a real one."""

from __future__ import annotations

import string
import time

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import sql_locks, sql_statements
from ansible_collections.roastify.ops.plugins.module_utils.sql_locks import StatementLock
from hypothesis import given
from hypothesis import strategies as st


def locks(script: str) -> list[StatementLock]:
    return sql_locks.locks_of(sql_statements.split(script))


def test_every_mode_blocks_somebody_or_nobody() -> None:
    claims = [locks(f"LOCK TABLE t IN {mode} MODE")[0] for mode in sql_locks.MODES]
    assert [claim.mode for claim in claims] == list(sql_locks.MODES)
    strength = [sql_locks.BLOCKED.index(claim.blocks) for claim in claims]
    assert strength == sorted(strength)


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("ALTER TABLE orders ADD COLUMN c int", "ACCESS EXCLUSIVE on orders: blocks reads and writes"),
        (
            'alter table only Shop.Orders add column c int references "Odd Name" (id), alter d type bigint',
            'ACCESS EXCLUSIVE on shop.orders, SHARE ROW EXCLUSIVE on "Odd Name": blocks reads and writes; '
            "rewrites the table unless the old type is stored alike",
        ),
        (
            "CREATE INDEX CONCURRENTLY i ON orders (a)",
            "SHARE UPDATE EXCLUSIVE on orders: blocks schema changes and vacuum; "
            "reads the whole table to build an index",
        ),
        ("CREATE TABLE t (a int)", "no lock on an existing relation: blocks nothing"),
        ("GRANT SELECT ON t TO r", "no lock on an existing relation: blocks nothing"),
        ("DO $$ BEGIN DROP TABLE t; END $$", "unknown: a DO block may do anything"),
        ("CALL tidy()", "unknown: a procedure may do anything"),
        ("SELECT tidy_up()", "unknown: tidy_up() may do anything"),
        ("SELECT audit.fn(a) FROM t", "ACCESS SHARE on t: blocks nothing; perhaps more: fn() may do anything"),
        ("SOMETHING NEW", "unknown: what SOMETHING locks is not known here"),
        (
            "DROP TABLE t CASCADE",
            "ACCESS EXCLUSIVE on t and the tables that t references: blocks reads and writes; "
            "perhaps more: what CASCADE removes is not in its text",
        ),
        (
            "ALTER TABLE t ADD COLUMN c int DEFAULT own_default()",
            "ACCESS EXCLUSIVE on t: blocks reads and writes; rewrites the table if own_default() is volatile",
        ),
        (
            "/* a */ VACUUM -- b\n (FULL) t",
            "ACCESS EXCLUSIVE on t: blocks reads and writes; rewrites the table",
        ),
        (
            'DROP TABLE "a""b"',
            'ACCESS EXCLUSIVE on "a""b" and the tables that "a""b" references: blocks reads and writes',
        ),
        ("DELETE FROM t", "ROW EXCLUSIVE on t: blocks writes to the same rows; writes every row"),
        ("DELETE FROM t WHERE a = 1", "ROW EXCLUSIVE on t: blocks writes to the same rows"),
    ],
)
def test_one_line_for_a_person(sql: str, text: str) -> None:
    assert str(locks(sql)[0]) == text


def test_what_an_earlier_statement_created_is_nobody_elses() -> None:
    script = """
        CREATE TABLE shop.new (a int);
        ALTER TABLE shop.new ADD b int NOT NULL DEFAULT random();
        CREATE INDEX i ON shop.new (a);
        ALTER TABLE shop.new SET SCHEMA other;
        DROP INDEX shop.i;
        ALTER TABLE other.new RENAME TO newer;
        TRUNCATE other.newer;
        TRUNCATE shop.new;
        DROP TABLE other.newer;
        CREATE TABLE IF NOT EXISTS perhaps (a int);
        ALTER TABLE perhaps ADD b int;
    """
    assert [claim.blocks for claim in locks(script)] == [
        *["nothing"] * 4,
        "reads and writes",  # of the table that it is an index of: that has another name by now
        *["nothing"] * 2,
        "reads and writes",
        *["nothing"] * 2,
        "reads and writes",
    ]


def test_each_script_starts_anew() -> None:
    assert locks("CREATE TABLE t (a int)")[0].locks == ()
    assert locks("ALTER TABLE t ADD b int")[0].mode == "ACCESS EXCLUSIVE"


def test_passwords_do_not_show() -> None:
    (claim,) = locks("CREATE ROLE r PASSWORD 'hunter2'")
    assert "hunter2" not in str(claim.as_dict())
    assert claim.line == 1


def test_statements_are_shortened_and_placed() -> None:
    first, second = locks("SELECT 1;\n\n  UPDATE   t\n SET a = '" + "x" * 500 + "' WHERE b = 1")
    assert (first.line, second.line) == (1, 3)
    assert len(second.statement) == sql_locks.LONGEST_STATEMENT
    assert second.statement.startswith("UPDATE t SET a = 'xxx")


def test_changes_of_rows_are_merged_and_changes_of_the_schema_are_not() -> None:
    script = "INSERT INTO t VALUES (1);" * 3 + "ALTER TABLE t ADD a int; ALTER TABLE t ADD b int; DELETE FROM t;"
    assert [(claim.mode, claim.count) for claim in sql_locks.merged(locks(script))] == [
        ("ROW EXCLUSIVE", 3),
        ("ACCESS EXCLUSIVE", 1),
        ("ACCESS EXCLUSIVE", 1),
        ("ROW EXCLUSIVE", 1),
    ]


def test_much_data_takes_no_longer_than_splitting_it() -> None:
    rows = ",\n".join(f"({number}, 'it''s a ''value''', now())" for number in range(100_000))
    statements = sql_statements.split(f"INSERT INTO t (a, b, c) VALUES {rows};" + "INSERT INTO t VALUES (1);" * 5000)
    began = time.process_time()
    claims = sql_locks.merged(sql_locks.locks_of(statements))
    assert time.process_time() - began < 5
    assert [claim.count for claim in claims] == [5001]


WORDS = [
    *("ALTER", "TABLE", "CREATE", "DROP", "INDEX", "ON", "CONCURRENTLY", "IF", "EXISTS", "NOT", "t", "a.b", "(", ")"),
    *(",", "ADD", "CONSTRAINT", "SELECT", "FROM", "WITH", "AS", "UPDATE", "INSERT", "INTO", "VIEW", "SCHEMA", "TYPE"),
    *("REFERENCES", "DEFAULT", "f", "'x'", '"Q"', "RENAME", "TO", "CASCADE", "COMMENT", "COLUMN", "REINDEX", "VACUUM"),
    *("ATTACH", "DETACH", "PARTITION", "OF", "LOCK", "MODE", "IN", "TRIGGER", "EXPLAIN", "REFRESH", "USING", "."),
]


@given(st.lists(st.sampled_from(WORDS), max_size=14))
def test_no_text_breaks_it(words: list[str]) -> None:
    for claim in locks(" ".join(words)):
        assert str(claim)
        assert claim.as_dict()["blocks"] in sql_locks.BLOCKED


@given(st.text(alphabet=string.printable + "é", max_size=40))
def test_tokens_of_any_text_end(text: str) -> None:
    try:
        statements = sql_statements.split(text)
    except sql_statements.SqlError:
        return
    for statement in statements:
        assert sql_statements.tokens(statement.text) is not None


def test_tokens() -> None:
    text = """ALTER TABLE "A b".c /* x /* y */ */ ADD d text DEFAULT 'it''s' || E'\\'' || $q$;$q$, -- z
        DROP e"""
    assert sql_statements.tokens(text) == [
        *("ALTER", "TABLE", '"A b"', ".", "c", "ADD", "d", "text", "DEFAULT", "''", "''", "''", ",", "DROP", "e")
    ]
