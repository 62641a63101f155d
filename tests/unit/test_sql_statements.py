"""Splitting scripts, and what the first words of a statement mean."""

from __future__ import annotations

import time

import pytest
from ansible_collections.roastify.ops.plugins.module_utils.sql_statements import (
    ConcurrentIndex,
    SqlError,
    Statement,
    changes_role,
    concurrent_index,
    loses_data,
    needs_no_transaction,
    split,
    transaction_control,
    waits_politely,
    without_secrets,
)
from hypothesis import given
from hypothesis import strategies as st


def only(sql: str) -> Statement:
    (statement,) = split(sql)
    return statement


def texts(sql: str) -> list[str]:
    return [statement.text for statement in split(sql)]


class TestSplit:
    @pytest.mark.parametrize(
        "sql",
        [
            "SELECT 'a;b'",
            "SELECT 'it''s; fine'",
            "SELECT 'back\\'",
            "SELECT E'it\\'s; \\\\'",
            "SELECT E'a'\n  'b\\';'",
            "SELECT U&'d\\0061t;a', N'x;', B'01'",
            'SELECT "a;""b;"',
            "SELECT $$a; 'b; $x$ ; $$",
            "SELECT $tag$a; $$ ; $ta$ ; $tag$",
            "SELECT $é$a;$é$",
            "SELECT a$b, $1, a$b$c",
            "SELECT /* a; /* b; */ c; */ 1",
            "SELECT 1 -- a; 'b",
            "SELECT 5 ? 3, a ?| b, :x, '%s', %(y)s, {{z}}, ${w}",
            "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)",
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN a THEN 1 END; END",
            "create or replace procedure p() begin atomic insert into t values (1); end",
            "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN; END;'",
            "CREATE FUNCTION begin_(atomic int) RETURNS int LANGUAGE sql AS $$SELECT 1;$$",
        ],
    )
    def test_is_one_statement(self, sql: str) -> None:
        assert texts(f"{sql}\n;SELECT 'after'")[1:] == ["SELECT 'after'"]
        assert len(split(f"{sql}\n;")) == 1
        assert len(split(f"{sql}\n; {sql}\n;")) == 2

    @pytest.mark.parametrize("sql", ["", "  \n", ";", ";;\n;", "-- nothing", "/* a /* b */ */ ;", "-- a\n/* b */\n;"])
    def test_is_none(self, sql: str) -> None:
        assert split(sql) == []

    def test_tells_lines_and_offsets(self) -> None:
        sql = "-- é\n\nSELECT 1;\n/* x\n*/ SELECT\n  2 ;\nSELECT 3 -- end\n"
        statements = split(sql)
        assert [(it.line, it.end_line, it.text) for it in statements] == [
            (3, 3, "SELECT 1"),
            (5, 6, "SELECT\n  2"),
            (7, 7, "SELECT 3"),
        ]
        assert all(sql[it.offset :].startswith(it.text) for it in statements)

    def test_a_statement_may_begin_with_a_mark(self) -> None:
        assert texts("(SELECT 1);(SELECT 2)") == ["(SELECT 1)", "(SELECT 2)"]

    def test_backslashes_count_when_the_script_says_so(self) -> None:
        assert texts("SET standard_conforming_strings = off; SELECT 'a\\';b'; SELECT 2") == [
            "SET standard_conforming_strings = off",
            "SELECT 'a\\';b'",
            "SELECT 2",
        ]

    @pytest.mark.parametrize(
        ("sql", "line", "reason"),
        [
            ("SELECT 1;\nSELECT 'open;\n", 2, "string that begins here is never closed"),
            ("SELECT E'open\\';\n", 1, "string that begins here is never closed"),
            ('\n\nSELECT "open', 3, "quoted name"),
            ("SELECT $a$ open $$", 1, r"\$a\$ that begins here"),
            ("/* a /* b */", 1, "comment that begins here"),
            ("SELECT 1;\n\\i other.sql\n", 2, r"\\i is a command of psql"),
            ("\\restrict abc\n", 1, "psql"),
            ("COPY t (a, b) FROM stdin;\n1\t2\n\\.\n", 1, "COPY"),
        ],
    )
    def test_refuses(self, sql: str, line: int, reason: str) -> None:
        with pytest.raises(SqlError, match=reason) as error:
            split(sql)
        assert error.value.line == line

    def test_megabytes_take_no_time(self) -> None:
        sql = (
            f"INSERT INTO t VALUES ('{'x' * 1_000_000}', $${'y;' * 500_000}$$);"
            + "INSERT INTO t VALUES (1);\n" * 20_000
        )
        started = time.process_time()
        assert len(split(sql)) == 20_001
        assert time.process_time() - started < 5

    @given(
        st.lists(
            st.sampled_from(
                [
                    "SELECT 1",
                    "SELECT 'a;'';'",
                    "SELECT $x$;$x$",
                    'SELECT ";"',
                    "/*;*/ SELECT 2",
                    "SELECT E'\\';'",
                    "VALUES (3)",
                ]
            ),
            max_size=8,
        ),
        st.lists(st.sampled_from([";", ";\n", " ; -- ;\n", ";/* ; /* ; */ */", "\n;\n"]), min_size=8, max_size=8),
    )
    def test_finds_what_was_joined(self, parts: list[str], separators: list[str]) -> None:
        script = "".join(part + separator for part, separator in zip(parts, separators))
        assert texts(script) == [part.replace("/*;*/ ", "") for part in parts]

    @given(st.text("ab'\"$;\\-/*E\n() BEGIN", max_size=60))
    def test_never_loses_text(self, sql: str) -> None:
        try:
            statements = split(sql)
        except SqlError:
            return
        position = 0
        for statement in statements:
            assert statement.offset >= position
            assert sql[statement.offset : statement.offset + len(statement.text)] == statement.text
            position = statement.offset + len(statement.text)


class TestMeaning:
    @pytest.mark.parametrize(
        ("sql", "command"),
        [
            ("BEGIN", "BEGIN"),
            ("begin transaction isolation level serializable", "BEGIN"),
            ("START TRANSACTION", "START TRANSACTION"),
            ("commit", "COMMIT"),
            ("COMMIT AND CHAIN", "COMMIT AND"),
            ("END", "END"),
            ("ABORT", "ABORT"),
            ("/* x */ ROLLBACK", "ROLLBACK"),
            ("ROLLBACK WORK AND CHAIN", "ROLLBACK"),
            ("PREPARE TRANSACTION 'x'", "PREPARE TRANSACTION"),
            ("ROLLBACK TO s", None),
            ("ROLLBACK TRANSACTION TO SAVEPOINT s", None),
            ("SAVEPOINT s", None),
            ("RELEASE s", None),
            ("PREPARE q AS SELECT 1", None),
            ("DO $$ BEGIN COMMIT; END $$", None),
            ("SELECT 'COMMIT'", None),
        ],
    )
    def test_transaction_control(self, sql: str, command: str | None) -> None:
        assert transaction_control(only(sql)) == command

    @pytest.mark.parametrize(
        ("sql", "command", "polite"),
        [
            ("CREATE INDEX CONCURRENTLY i ON t (a)", "CREATE INDEX CONCURRENTLY", True),
            ("create unique index concurrently on t (a)", "CREATE INDEX CONCURRENTLY", True),
            ("DROP INDEX CONCURRENTLY i", "DROP INDEX CONCURRENTLY", True),
            ("REINDEX (VERBOSE) TABLE CONCURRENTLY t", "REINDEX CONCURRENTLY", True),
            ("REINDEX DATABASE d", "REINDEX DATABASE", False),
            ("VACUUM t", "VACUUM", True),
            ("VACUUM FULL t", "VACUUM", False),
            ("VACUUM (ANALYZE, FULL) t", "VACUUM", False),
            ("CREATE DATABASE d", "CREATE DATABASE", False),
            ("ALTER SYSTEM SET x = 1", "ALTER SYSTEM", False),
            ("ALTER TABLE t DETACH PARTITION p CONCURRENTLY", "DETACH PARTITION CONCURRENTLY", True),
            ("ALTER TABLE t DETACH PARTITION p", None, False),
            ("CREATE INDEX concurrently_not ON t (a)", None, False),
            ("ALTER TYPE m ADD VALUE 'x'", None, False),
            ("REINDEX TABLE t", None, False),
        ],
    )
    def test_needs_no_transaction(self, sql: str, command: str | None, polite: bool) -> None:
        assert needs_no_transaction(only(sql)) == command
        assert waits_politely(only(sql)) == polite

    @pytest.mark.parametrize(
        ("sql", "index"),
        [
            ("CREATE INDEX CONCURRENTLY Name ON t (a)", ConcurrentIndex("CREATE", "name", "t")),
            ("CREATE INDEX CONCURRENTLY ON Shop.T (a)", ConcurrentIndex("CREATE", None, "shop.t")),
            (
                'CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS "I" ON ONLY "S"."T" USING gin (a)',
                ConcurrentIndex("CREATE", '"I"', '"S"."T"'),
            ),
            ("DROP INDEX CONCURRENTLY i", ConcurrentIndex("DROP", None, None)),
            ("CREATE INDEX i ON t (a)", None),
            ("SELECT 1", None),
        ],
    )
    def test_concurrent_index(self, sql: str, index: ConcurrentIndex | None) -> None:
        assert concurrent_index(only(sql)) == index

    @pytest.mark.parametrize(
        "sql",
        [
            "DROP TABLE t",
            "ALTER TABLE t DROP --c\n COLUMN a",
            "ALTER TABLE t DROP/**/COLUMN a",
            "ALTER TYPE t DROP ATTRIBUTE a",
            "WITH gone AS (DELETE /**/ FROM t RETURNING 1) SELECT 1",
            "MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN DELETE",
            "COPY (DELETE FROM t RETURNING *) TO '/tmp/x'",
            "EXPLAIN ANALYZE DELETE FROM t",
            "DO $$ BEGIN DROP TYPE x CASCADE; END $$",
            "ALTER TABLE t DROP COLUMN a",
            'ALTER TABLE t ADD b int, DROP "a"',
            "ALTER TABLE t DROP a",
            "TRUNCATE t",
            "DELETE FROM t",
            "WITH x AS (DELETE FROM t RETURNING 1) SELECT 1",
            "DROP SCHEMA s",
            "DROP TYPE m CASCADE",
        ],
    )
    def test_loses_data(self, sql: str) -> None:
        assert loses_data(only(sql))

    @pytest.mark.parametrize(
        "sql",
        [
            "DROP INDEX i",
            "DROP TYPE m",
            "ALTER TABLE t DROP CONSTRAINT c",
            "ALTER TABLE t ALTER a DROP NOT NULL, ALTER b DROP DEFAULT",
            "CREATE TABLE t (a int REFERENCES b ON DELETE CASCADE)",
            "UPDATE t SET a = 1",
            "WITH x AS (SELECT 1) SELECT 1",
        ],
    )
    def test_keeps_data(self, sql: str) -> None:
        assert not loses_data(only(sql))

    def test_changes_role(self) -> None:
        changing = ("SET ROLE r", "SET SESSION ROLE r", "SET LOCAL ROLE r", "SET SESSION AUTHORIZATION r")
        assert all(changes_role(only(sql)) for sql in changing)
        assert not changes_role(only("SET search_path = role"))

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("CREATE ROLE r PASSWORD 'a''b' LOGIN", "CREATE ROLE r PASSWORD '********' LOGIN"),
            ("alter role r encrypted password E'a\\'b'", "alter role r encrypted password '********'"),
            ("OPTIONS (user 'u', password 'p')", "OPTIONS (user 'u', password '********')"),
            ("PASSWORD /* c */ 'hunter2'", "PASSWORD /* c */ '********'"),
            ("PASSWORD --c\n'hunter2'", "PASSWORD --c\n'********'"),
            ("PASSWORD U&'hunter2'", "PASSWORD '********'"),
            ("PASSWORD 'hun'\n'ter2' LOGIN", "PASSWORD '********' LOGIN"),
            ("OPTIONS (SET \"password\" 'hunter2')", "OPTIONS (SET \"password\" '********')"),
            ("EXECUTE 'ALTER ROLE r PASSWORD ''hunter2'' LOGIN'", "EXECUTE 'ALTER ROLE r PASSWORD '********' LOGIN'"),
            ("format('PASSWORD %L', 'hunter2')", "format('********', '********')"),
            ("CONNECTION 'host=h password=hunter2 port=1'", "CONNECTION 'host=h password=******** port=1'"),
            ("dblink('postgresql://u:hunter2@h/db')", "dblink('postgresql://u:********@h/db')"),
            ("ALTER ROLE r SET app.secret = 'hunter2'", "ALTER ROLE r SET app.secret = '********'"),
            ("SELECT 'postgresql://h:5432/db', 'a@b'", "SELECT 'postgresql://h:5432/db', 'a@b'"),
            ("PASSWORD $$x$$", "PASSWORD '********'"),
            ("password_hash text", "password_hash text"),
        ],
    )
    def test_without_secrets(self, text: str, shown: str) -> None:
        assert without_secrets(text) == shown
