"""The runner of migrations against a real PostgreSQL."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import psycopg2
import pytest
from ansible_collections.roastify.ops.plugins.module_utils import postgresql_driver
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.migration_failures import MigrationError
from ansible_collections.roastify.ops.plugins.module_utils.migration_files import MigrationFilesError, read_directory
from ansible_collections.roastify.ops.plugins.module_utils.migration_plan import PlanError, plan_up
from ansible_collections.roastify.ops.plugins.module_utils.migration_runner import Runner
from ansible_collections.roastify.ops.plugins.module_utils.migration_session import LockNotFree
from ansible_collections.roastify.ops.plugins.module_utils.migration_table import TableError
from ansible_collections.roastify.ops.plugins.module_utils.postgresql import ConnectionFailed, connect
from migrating_process import MigratingProcess
from migration_project import Project, pair
from postgresql_server import EVERY_VERSION, PASSWORD

pytestmark = EVERY_VERSION

SEED_TABLE = """
CREATE TABLE migrations (
  id SERIAL PRIMARY KEY,
  version VARCHAR(255) NOT NULL UNIQUE,
  name VARCHAR(255) NOT NULL,
  applied_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
)
"""


@pytest.mark.usefixtures("each_driver")
class TestUp:
    def test_applies_in_the_order_of_numbers_and_only_once(self, project: Project) -> None:
        for version, table in (("9", "a"), ("10", "b"), ("0011", "c"), ("20260131120000", "d")):
            pair(project, version, table)
        assert project.up() == ["9", "10", "0011", "20260131120000"]
        assert project.up() == []
        assert project.recorded() == ["9", "10", "0011", "20260131120000"]

    def test_records_who_and_what(self, project: Project) -> None:
        pair(project, "001", "a")
        project.up()
        rows = project.database.query(
            "SELECT version, name, checksum LIKE 'sha256:%', duration_ms >= 0, applied_by, deployment_id, tool_version,"
            " abs(extract(epoch FROM applied_at - (now() AT TIME ZONE 'UTC'))) < 60 FROM migrations"
        )
        assert rows == [("001", "a", True, True, "ops", "d1", "pg_migrate 0.1.0", True)]

    def test_makes_the_seeds_table_with_more_columns_behind_it(self, project: Project) -> None:
        pair(project, "001", "a")
        project.up()
        columns = project.database.query(
            "SELECT column_name, data_type, character_maximum_length, is_nullable FROM information_schema.columns"
            " WHERE table_name = 'migrations' ORDER BY ordinal_position"
        )
        assert columns[:4] == [
            ("id", "integer", None, "NO"),
            ("version", "character varying", 255, "NO"),
            ("name", "character varying", 255, "NO"),
            ("applied_at", "timestamp without time zone", None, "YES"),
        ]
        assert [column[0] for column in columns[4:]] == [
            "checksum",
            "duration_ms",
            "applied_by",
            "deployment_id",
            "down_checksum",
            "statement_checksums",
            "tool_version",
        ]

    def test_a_target_stops_there(self, project: Project) -> None:
        for version in ("001", "002", "003"):
            pair(project, version, f"t{version}")
        assert project.up(target="2") == ["001", "002"]
        assert project.up(target="1") == []
        assert any("rollback" in warning for warning in plan_warnings(project, "1"))
        with pytest.raises(PlanError, match=r"no version '7'") as error:
            project.up(target="7")
        assert "001, 002, 003" in error.value.remedy

    def test_byte_order_mark_line_ends_and_percent_signs_are_data(self, project: Project) -> None:
        project.write(
            "001_data.up.sql",
            b"\xef\xbb\xbfCREATE TABLE t (v text);\r\n"
            b"INSERT INTO t VALUES ('100%'), ('%s %(x)s :v ?'), ('\xc3\xa9');\r\n",
        )
        project.up()
        assert project.database.query("SELECT v FROM t") == [("100%",), ("%s %(x)s :v ?",), ("é",)]

    @pytest.mark.parametrize("sql", ["", "-- nothing yet\n", ";;\n", "/* a /* b */ */"])
    def test_a_file_without_a_statement_is_recorded(self, project: Project, sql: str) -> None:
        project.write("001_empty.up.sql", sql)
        assert project.up() == ["001"]
        assert project.recorded() == ["001"]

    def test_a_body_of_statements_is_one_statement(self, project: Project) -> None:
        project.write(
            "001_bodies.up.sql",
            """CREATE FUNCTION f() RETURNS text LANGUAGE plpgsql AS $x$ BEGIN RETURN 'a;b'; END; $x$;
            CREATE FUNCTION g(int) RETURNS int BEGIN ATOMIC
              SELECT CASE WHEN $1 > 0 THEN 1 ELSE 2 END; SELECT $1 + 1; END;
            DO $$ BEGIN PERFORM 1; EXCEPTION WHEN others THEN NULL; END $$;
            SAVEPOINT s; ROLLBACK TO SAVEPOINT s; RELEASE SAVEPOINT s;
            """,
        )
        project.up()
        assert project.database.query("SELECT f(), g(4)") == [("a;b", 5)]

    def test_many_statements_go_in_batches(self, project: Project) -> None:
        rows = "".join(f"INSERT INTO t VALUES ({number}, 'x;y');\n" for number in range(2000))
        project.write("001_data.up.sql", "CREATE TABLE t (n int, v text);\n" + rows)
        project.up()
        assert project.database.query("SELECT count(*), sum(n) FROM t") == [(2000, 1999000)]
        project.write("002_more.up.sql", rows + "INSERT INTO t VALUES (1/0);\n" + rows)
        with pytest.raises(MigrationError) as error:
            project.up()
        assert error.value.details["line"] == 2001
        assert error.value.evidence == ["STATEMENT 2001 of 4001 (line 2001): INSERT INTO t VALUES (1/0)"]
        project.write("002_more.up.sql", rows + "INSERT INTO nowhere VALUES (1);\n" + rows)
        with pytest.raises(MigrationError) as error:
            project.up()
        assert error.value.details["line"] == 2001

    def test_a_new_enum_value_serves_the_next_migration(self, project: Project) -> None:
        project.write("001_a.up.sql", "CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE t (m mood);")
        project.write("002_b.up.sql", "ALTER TYPE mood ADD VALUE 'happy';")
        project.write("003_c.up.sql", "INSERT INTO t VALUES ('happy');")
        assert project.up() == ["001", "002", "003"]


def plan_warnings(project: Project, target: str = "latest") -> tuple[str, ...]:
    with Runner(project.database.options, project.options) as runner:
        return plan_up(read_directory(project.directory), runner.state().applied, target).warnings


@pytest.mark.usefixtures("each_driver")
class TestFailure:
    def test_rolls_back_the_file_keeps_the_earlier_ones_and_names_everything(self, project: Project) -> None:
        pair(project, "001", "a")
        project.write("002_b.up.sql", "CREATE TABLE b (id int);\n\nALTER TABLE b\n  ADD COLUMN c nonsense;\n")
        with pytest.raises(MigrationError) as error:
            project.up()
        assert project.recorded() == ["001"]
        assert project.database.tables() == ["a", "migrations"]
        assert [done.step.migration.version for done in project.runner.done] == ["001"]
        text = str(error.value)
        assert "002_b.up.sql, line 4: 42704" in text
        assert "the schema stays at version 001" in text
        assert "STATEMENT 2 of 2 (line 3): ALTER TABLE b" in text
        assert error.value.details["sqlstate"] == "42704"
        assert PASSWORD not in text

    def test_position_counts_characters_behind_line_ends_and_letters(self, project: Project) -> None:
        project.write("001_a.up.sql", "-- é\r\nSELECT 'é';\r\nSELECT 'é',\r\n  nothing;\r\n".encode())
        with pytest.raises(MigrationError) as error:
            project.up()
        assert error.value.details["line"] == 4

    def test_a_deferred_constraint_names_the_file(self, project: Project) -> None:
        project.write(
            "001_a.up.sql",
            "CREATE TABLE a (id int PRIMARY KEY);"
            "CREATE TABLE b (a int REFERENCES a DEFERRABLE INITIALLY DEFERRED); INSERT INTO b VALUES (1);",
        )
        with pytest.raises(MigrationError, match=r"001_a\.up\.sql: 23503") as error:
            project.up()
        assert "Key (a)=(1) is not present" in str(error.value)
        assert project.recorded() == []

    def test_hides_passwords_that_the_server_quotes(self, project: Project) -> None:
        project.write("001_a.up.sql", "CREATE ROLE someone LOGIN PASSWORD 'hunter2' NONSENSE;")
        with pytest.raises(MigrationError) as error:
            project.up()
        assert "hunter2" not in str(error.value) + str(error.value.details)

    def test_notices_are_kept(self, project: Project) -> None:
        project.write("001_a.up.sql", "DROP TABLE IF EXISTS nothing; DO $$ BEGIN RAISE WARNING 'look'; END $$;")
        project.up()
        notices = " ".join(project.runner.done[0].notices)
        assert "does not exist, skipping" in notices
        assert "look" in notices

    @pytest.mark.parametrize(
        ("sql", "line"),
        [
            ("CREATE TABLE a ();\nCOMMIT;\nSELECT 1/0;", 2),
            ("BEGIN;\nCREATE TABLE a ();\nCOMMIT;", 1),
            ("CREATE TABLE a ();\n\nROLLBACK;", 3),
            ("CREATE TABLE a ();\nCOMMIT AND CHAIN;", 2),
            ("START TRANSACTION;", 1),
            ("CREATE TABLE a ();\nEND;", 2),
            ("PREPARE TRANSACTION 'x';", 1),
            ("CREATE TABLE a ();\nCREATE INDEX CONCURRENTLY i ON a (b);", 2),
            ("\\set x 1\n", 1),
            ("SELECT 1;\nCOPY a FROM STDIN;\n1\n\\.\n", 2),
            ("SELECT 1;\nSELECT 'open", 2),
        ],
    )
    def test_what_breaks_out_is_refused_before_anything_runs(self, project: Project, sql: str, line: int) -> None:
        pair(project, "001", "x")
        project.write("002_bad.up.sql", sql)
        with pytest.raises(MigrationFilesError) as error:
            project.up()
        assert f"002_bad.up.sql:{line}: " in str(error.value)
        assert project.database.tables() == []

    def test_a_script_that_ends_its_transaction_unseen_is_not_recorded(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from ansible_collections.roastify.ops.plugins.module_utils import sql_statements

        monkeypatch.setattr(sql_statements, "transaction_control", lambda _statement: None)
        for sql in ("CREATE TABLE a (); COMMIT;", "COMMIT; BEGIN;", "ROLLBACK; BEGIN;", "COMMIT AND CHAIN;"):
            project.write("001_a.up.sql", sql)
            with pytest.raises(MigrationError, match="ended the transaction"):
                project.up()
            assert project.recorded() == []

    def test_the_session_is_clean_for_the_next_file(self, project: Project) -> None:
        project.database.query("CREATE ROLE weak; GRANT weak TO admin")
        project.write(
            "001_a.up.sql",
            "CREATE TEMP TABLE scratch (id int); SELECT set_config('search_path', '', false);"
            "SET statement_timeout = 300; SET lock_timeout = 300; SET TIME ZONE 'Asia/Tokyo'; SET ROLE weak;",
        )
        project.write(
            "002_b.up.sql",
            "CREATE TEMP TABLE scratch (id int); CREATE TABLE here (); SELECT pg_sleep(0.4);"
            "DO $$ BEGIN ASSERT current_setting('TimeZone') = 'UTC'; ASSERT current_user = 'admin'; END $$;",
        )
        assert project.up() == ["001", "002"]
        project.database.query("DROP OWNED BY weak; DROP ROLE weak")
        assert project.database.query(
            "SELECT bool_and(abs(extract(epoch FROM applied_at - (now() AT TIME ZONE 'UTC'))) < 60) FROM migrations"
        ) == [(True,)]


class TestTable:
    def test_a_table_made_by_the_seeds_own_statement_is_adopted(self, project: Project) -> None:
        project.database.query(SEED_TABLE)
        project.database.query(
            "INSERT INTO migrations (version, name, applied_at) VALUES ('1', 'a', '2024-12-04T10:00:00')"
        )
        pair(project, "001", "a")
        assert project.up() == []
        assert len(project.database.query("SELECT * FROM migrations")[0]) == 4  # not touched without need
        pair(project, "002", "b")
        assert project.up() == ["002"]
        rows = project.database.query(
            "SELECT id, version, name, applied_at::text, checksum FROM migrations ORDER BY id"
        )
        assert rows[0] == (1, "1", "a", "2024-12-04 10:00:00", None)
        assert rows[1][1] == "002"

    @pytest.mark.parametrize(
        "ddl",
        [
            "CREATE TABLE migrations (id serial PRIMARY KEY, timestamp bigint NOT NULL, name varchar NOT NULL)",
            "CREATE TABLE migrations (id serial PRIMARY KEY, migration varchar(255), batch int NOT NULL)",
            "CREATE TABLE migrations (id serial, name varchar(255) NOT NULL, run_on timestamp NOT NULL)",
            "CREATE TABLE migrations (id serial, version int, name text, applied_at timestamp)",
            "CREATE TABLE migrations (id serial, version text, name text, applied_at timestamp, batch int NOT NULL)",
            "CREATE VIEW migrations AS SELECT 1 AS id, '1'::text AS version, 'a'::text AS name, now() AS applied_at",
        ],
    )
    def test_another_tools_table_is_refused_with_its_columns(self, project: Project, ddl: str) -> None:
        project.database.query(ddl)
        pair(project, "001", "a")
        with pytest.raises(TableError, match="another tool's") as error:
            project.up()
        assert "id integer" in str(error.value)
        assert project.up(table="schema_history") == ["001"]

    def test_versions_that_are_no_numbers_are_refused(self, project: Project) -> None:
        project.database.query(SEED_TABLE)
        project.database.query("INSERT INTO migrations (version, name) VALUES ('1.2', 'a')")
        with pytest.raises(TableError, match=r"1\.2"):
            project.up()

    def test_one_version_twice_is_refused(self, project: Project) -> None:
        project.database.query(SEED_TABLE)
        project.database.query("INSERT INTO migrations (version, name) VALUES ('1', 'a'), ('001', 'a')")
        with pytest.raises(TableError, match="twice"):
            project.up()

    def test_a_table_in_another_schema_and_with_an_odd_name(self, project: Project) -> None:
        project.database.query("CREATE SCHEMA ops")
        pair(project, "001", "a")
        assert project.up(table='ops.per%cent"s') == ["001"]
        assert project.up(table='ops.per%cent"s') == []
        assert project.database.query('SELECT version FROM ops."per%cent""s"') == [("001",)]
        with pytest.raises(TableError, match="schema nowhere does not exist"):
            project.up(table="nowhere.migrations")

    def test_a_script_that_drops_the_tracking_table_is_undone(self, project: Project) -> None:
        pair(project, "001", "a")
        project.up()
        project.write("002_b.up.sql", "DROP TABLE migrations;")
        with pytest.raises(MigrationError, match=r"002_b\.up\.sql"):
            project.up()
        assert project.recorded() == ["001"]


class TestContradictions:
    def test_an_edited_file_stops_the_run(self, project: Project) -> None:
        pair(project, "001", "a")
        project.up()
        project.write("001_a.up.sql", "CREATE TABLE a (id bigint);\n")
        pair(project, "002", "b")
        with pytest.raises(PlanError, match="was changed after it was applied"):
            project.up()
        assert project.recorded() == ["001"]

    def test_line_ends_are_no_edit(self, project: Project) -> None:
        pair(project, "001", "a")
        project.up()
        project.write("001_a.up.sql", b"\xef\xbb\xbfCREATE TABLE a (id int);\r\n\r\n")
        assert project.up() == []

    def test_a_vanished_file_stops_the_run(self, project: Project) -> None:
        pair(project, "001", "a")
        pair(project, "002", "b")
        project.up()
        (project.directory / "001_a.up.sql").unlink()
        (project.directory / "001_a.down.sql").unlink()
        with pytest.raises(PlanError, match="001_a is applied, but its file is gone"):
            project.up()

    def test_an_older_release_runs_on_a_newer_schema(self, project: Project) -> None:
        pair(project, "001", "a")
        pair(project, "002", "b")
        project.up()
        (project.directory / "002_b.up.sql").unlink()
        (project.directory / "002_b.down.sql").unlink()
        assert project.up() == []
        assert any("ahead of the files by 002_b" in warning for warning in plan_warnings(project))

    def test_a_late_comer_stops_the_run(self, project: Project) -> None:
        pair(project, "001", "a")
        pair(project, "003", "c")
        project.up()
        pair(project, "002", "b")
        with pytest.raises(PlanError, match=r"002_b\.up\.sql is not applied, but a newer version is"):
            project.up()


class TestDown:
    def test_by_steps(self, project: Project) -> None:
        for version in ("001", "002", "003"):
            pair(project, version, f"t{version}")
        project.up()
        assert project.down(steps=2) == ["003", "002"]
        assert project.recorded() == ["001"]
        assert project.database.tables() == ["migrations", "t001"]
        assert project.down(steps=0) == []
        assert project.up() == ["002", "003"]

    def test_to_a_version(self, project: Project) -> None:
        for version in ("001", "002", "003"):
            pair(project, version, f"t{version}")
        project.up()
        assert project.down(target="1") == ["003", "002"]
        assert project.down(target="1") == []
        assert project.down(target="0") == ["001"]
        assert project.recorded() == []

    def test_finds_an_adopted_row_written_otherwise(self, project: Project) -> None:
        project.database.query(SEED_TABLE)
        project.database.query("INSERT INTO migrations (version, name) VALUES ('1', 'a'); CREATE TABLE a (id int)")
        pair(project, "001", "a")
        assert project.down(steps=1) == ["001"]
        assert project.recorded() == []

    def test_loss_of_data_has_to_be_confirmed(self, project: Project) -> None:
        pair(project, "001", "a")
        project.up()
        with pytest.raises(PlanError, match="would destroy data") as error:
            project.down(steps=1, confirm=False)
        assert "001_a.down.sql:1: DROP TABLE a" in str(error.value)
        assert project.recorded() == ["001"]

    def test_without_a_down_script_nothing_is_rolled_back(self, project: Project) -> None:
        project.write("001_a.up.sql", "CREATE TABLE a ();")
        pair(project, "002", "b")
        project.up()
        with pytest.raises(PlanError, match="cannot be rolled back"):
            project.down(steps=2)
        assert project.recorded() == ["001", "002"]

    def test_a_failing_down_is_rolled_back(self, project: Project) -> None:
        pair(project, "001", "a")
        project.write("001_a.down.sql", "DROP TABLE a;\nDROP TABLE nothing;\n")
        project.up()
        with pytest.raises(MigrationError, match=r"rollback, 001_a\.down\.sql, line 2: 42P01"):
            project.down(steps=1)
        assert project.recorded() == ["001"]
        assert "a" in project.database.tables()


@pytest.mark.usefixtures("each_driver")
class TestOutsideATransaction:
    def test_runs_each_statement_by_itself(self, project: Project) -> None:
        project.write("001_a.up.sql", "CREATE TABLE a (b int, c int);")
        project.write(
            "002_b.up.sql",
            "-- why\n-- migrate:no-transaction\nCREATE INDEX CONCURRENTLY i ON a (b);\n"
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS j ON public.a (c);\nVACUUM a;\n",
        )
        project.write(
            "002_b.down.sql", "-- migrate:no-transaction\nDROP INDEX CONCURRENTLY i;\nDROP INDEX CONCURRENTLY j;\n"
        )
        assert project.up() == ["001", "002"]
        assert project.database.query("SELECT count(*) FROM migrations_unfinished") == [(0,)]
        assert project.down(steps=1) == ["002"]
        assert project.database.query("SELECT count(*) FROM pg_indexes WHERE tablename = 'a'") == [(0,)]

    def test_a_broken_one_is_explained_and_resumed(self, project: Project) -> None:
        project.write("001_a.up.sql", "CREATE TABLE a (b int); INSERT INTO a VALUES (1), (1);")
        project.write(
            "002_b.up.sql",
            "-- migrate:no-transaction\nCREATE INDEX CONCURRENTLY i ON a (b);\n"
            "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS u ON a (b);\n",
        )
        with pytest.raises(MigrationError, match=r"002_b\.up\.sql, line 3: 23505.*1 of its 2 statements are done"):
            project.up()
        assert project.recorded() == ["001"]
        assert project.database.query("SELECT indexname FROM pg_indexes WHERE tablename = 'a'") == [("i",)]
        assert any("interrupted behind statement 1" in warning for warning in self.warnings(project))
        project.database.query("DELETE FROM a")
        assert project.up() == ["002"]
        assert project.recorded() == ["001", "002"]
        assert self.valid(project) == [("i", True), ("u", True)]

    def test_an_invalid_index_of_that_name_is_built_again(self, project: Project) -> None:
        project.database.query("CREATE TABLE a (b int)")
        project.database.query("INSERT INTO a VALUES (1), (1)")
        with pytest.raises(psycopg2.Error):
            project.database.query("CREATE UNIQUE INDEX CONCURRENTLY u ON a (b)")
        project.database.query("DELETE FROM a")
        assert self.valid(project) == [("u", False)]
        project.write(
            "001_u.up.sql", "-- migrate:no-transaction\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS u ON a (b);"
        )
        project.up()
        assert self.valid(project) == [("u", True)]
        assert any("dropped the INVALID index public.u" in warning for warning in project.runner.warnings)

    def test_a_statement_done_but_not_noted_is_not_an_error(self, project: Project) -> None:
        project.write("001_a.up.sql", "CREATE TABLE a (b int);")
        project.up()
        project.write("002_b.up.sql", "-- migrate:no-transaction\nSELECT 1;\nCREATE INDEX CONCURRENTLY i ON a (b);\n")
        project.write("003_c.up.sql", "-- migrate:no-transaction\nSELECT 1;\nSELECT 1/0;\n")
        with pytest.raises(MigrationError, match="003_c"):
            project.up()
        # As if 002 had been killed between its last statement and the record of it.
        project.database.query(
            "UPDATE migrations_unfinished SET version = '002', error = NULL;"
            "DELETE FROM migrations WHERE version = '002'"
        )
        (project.directory / "003_c.up.sql").unlink()
        assert project.up() == ["002"]
        assert any("already done" in warning for warning in project.runner.warnings)

    def test_an_edit_of_what_is_done_is_refused(self, project: Project) -> None:
        project.write("001_a.up.sql", "-- migrate:no-transaction\nCREATE TABLE a ();\nSELECT 1/0;\n")
        with pytest.raises(MigrationError):
            project.up()
        project.write("001_a.up.sql", "-- migrate:no-transaction\nCREATE TABLE other ();\nSELECT 1;\n")
        with pytest.raises(PlanError, match="was changed since"):
            project.up()
        project.write("001_a.up.sql", "-- migrate:no-transaction\nCREATE TABLE a ();\nSELECT 1;\n")
        assert project.up() == ["001"]

    @staticmethod
    def warnings(project: Project) -> tuple[str, ...]:
        with Runner(project.database.options, project.options) as runner:
            state = runner.state()
            files = read_directory(project.directory)
            return plan_up(files, state.applied, unfinished=state.unfinished).warnings

    @staticmethod
    def valid(project: Project) -> list[tuple]:
        return project.database.query(
            "SELECT relname::text, indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
            " WHERE indrelid = 'a'::regclass ORDER BY relname"
        )


def start(project: Project, count: int = 1) -> list[MigratingProcess]:
    """Runners in processes of their own, which begin together."""
    runners = [
        MigratingProcess(project.directory, project.database.options, "pg_migrate test") for _number in range(count)
    ]
    for runner in runners:
        runner.go()
    return runners


def wait_for_activity(project: Project, query: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if project.database.query(
            f"SELECT 1 FROM pg_stat_activity WHERE query LIKE '%{query}%' AND pid <> pg_backend_pid()"
        ):
            return
        time.sleep(0.02)
    pytest.fail(f"nobody runs {query}")


class TestConcurrency:
    def test_four_runners_apply_each_migration_once(self, project: Project) -> None:
        for number in range(1, 31):
            pair(project, f"{number:03}", f"t{number}")
        applied = []
        for runner in start(project, 4):
            status, versions, errors = runner.result(60)
            assert status == 0, errors
            applied += versions
        expected = [f"{number:03}" for number in range(1, 31)]
        assert sorted(applied) == expected
        assert project.recorded() == expected

    def test_the_holder_of_the_lock_is_named(self, project: Project) -> None:
        project.write("001_slow.up.sql", "SELECT pg_sleep(3);")
        (other,) = start(project)
        wait_for_activity(project, "pg_sleep")
        with pytest.raises(LockNotFree) as error:
            project.up(lock_wait=0.3)
        assert 'application "pg_migrate test", user admin' in str(error.value)
        assert other.result()[1] == ["001"]
        assert project.up() == []

    def test_two_tables_do_not_wait_for_each_other(self, project: Project) -> None:
        project.write("001_slow.up.sql", "SELECT pg_sleep(2);")
        (other,) = start(project)
        wait_for_activity(project, "pg_sleep")
        project.write("001_slow.up.sql", "SELECT 1;")
        assert project.up(table="others", lock_wait=0) == ["001"]
        other.result()

    def test_a_concurrent_index_is_no_deadlock_with_waiting_runners(self, project: Project) -> None:
        project.write("001_a.up.sql", "CREATE TABLE a (b int); INSERT INTO a SELECT generate_series(1, 200000);")
        project.write("002_b.up.sql", "-- migrate:no-transaction\nCREATE INDEX CONCURRENTLY i ON a (b);")
        applied = [version for runner in start(project, 3) for version in runner.result(60)[1]]
        assert sorted(applied) == ["001", "002"]

    @pytest.mark.parametrize("round_number", range(3))
    def test_a_killed_runner_leaves_nothing_half_done(self, project: Project, round_number: int) -> None:
        pair(project, "001", "a")
        project.write("002_b.up.sql", "CREATE TABLE b (id int); SELECT pg_sleep(30); CREATE TABLE c ();")
        (victim,) = start(project)
        wait_for_activity(project, "pg_sleep")
        victim.kill()
        victim.result()
        project.write("002_b.up.sql", "CREATE TABLE b (id int);")
        started = time.monotonic()
        assert project.up(lock_wait=20) == ["002"]
        assert time.monotonic() - started < 10  # the server noticed that its client is gone
        assert project.database.tables() == ["a", "b", "migrations"]

    def test_a_killed_runner_outside_a_transaction_is_resumed(self, project: Project) -> None:
        project.write("001_a.up.sql", "CREATE TABLE a (b int);")
        project.write(
            "002_b.up.sql",
            "-- migrate:no-transaction\nCREATE INDEX CONCURRENTLY i ON a (b);\nCREATE INDEX CONCURRENTLY j ON a (b);\n",
        )
        project.up(target="1")
        blocker = project.database.connect()
        with blocker.cursor() as cursor:
            cursor.execute("BEGIN; INSERT INTO a VALUES (1)")
            (victim,) = start(project)
            wait_for_activity(project, "CREATE INDEX CONCURRENTLY i")
            time.sleep(0.3)
            victim.kill()
            victim.result()
            time.sleep(2.5)
            cursor.execute("COMMIT")
        blocker.close()
        assert project.database.query("SELECT indisvalid FROM pg_index WHERE indrelid = 'a'::regclass") == [(False,)]
        assert project.up(lock_wait=20) == ["002"]
        assert TestOutsideATransaction.valid(project) == [("i", True), ("j", True)]

    def test_gives_up_a_lock_in_time_tries_again_and_names_who_holds_it(self, project: Project) -> None:
        project.write("001_a.up.sql", "CREATE TABLE a (b int);")
        project.up()
        project.write("002_b.up.sql", "CREATE TABLE side ();\nALTER TABLE a ADD COLUMN c int;")
        reader = project.database.connect()
        with reader.cursor() as cursor:
            cursor.execute("BEGIN; SELECT * FROM a")
            with pytest.raises(MigrationError, match=r"002_b\.up\.sql, line 2: 55P03") as error:
                project.up()
            assert "OPEN TRANSACTION: pid" in str(error.value)
            assert "tried 2 times" in str(error.value)
            assert project.database.tables() == ["a", "migrations"]
            timer = threading.Timer(0.6, lambda: cursor.execute("COMMIT"))
            timer.start()
            assert project.up(lock_retries=20) == ["002"]
            timer.join()
        reader.close()

    def test_statement_timeout(self, project: Project) -> None:
        project.write("001_a.up.sql", "SELECT pg_sleep(5);")
        with pytest.raises(MigrationError, match="57014") as error:
            project.up(statement_timeout=0.2)
        assert "raise statement_timeout" in error.value.remedy

    def test_a_script_that_drops_the_lock_is_noticed(self, project: Project) -> None:
        project.write("001_a.up.sql", "SELECT pg_advisory_unlock_all();")
        pair(project, "002", "b")
        assert project.up() == ["001", "002"]
        assert any("given up by 001_a.up.sql" in warning for warning in project.runner.warnings)

    def test_a_lost_connection_is_opened_again_once(self, project: Project) -> None:
        project.database.query("CREATE TABLE tries (id serial)")
        project.write("001_a.up.sql", "SELECT pg_sleep(1.5);")

        def cut() -> None:
            wait_for_activity(project, "pg_sleep")
            project.database.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()"
            )

        thread = threading.Thread(target=cut)
        thread.start()
        assert project.up() == ["001"]
        thread.join()
        assert any("connection was lost" in warning for warning in project.runner.warnings)
        assert project.recorded() == ["001"]


@pytest.mark.usefixtures("each_driver")
class TestConnection:
    def test_one_connection_for_a_run_without_work(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        pair(project, "001", "a")
        project.up()
        opened = []
        real = postgresql_driver.connect
        monkeypatch.setattr(postgresql_driver, "connect", lambda options: opened.append(1) or real(options))
        assert project.up() == []
        assert opened == [1]

    def test_a_plan_makes_no_table(self, project: Project) -> None:
        pair(project, "001", "a")
        with Runner(project.database.options, project.options) as runner:
            plan = plan_up(read_directory(project.directory), runner.state().applied)
        assert [step.migration.version for step in plan.steps] == ["001"]
        assert project.database.tables() == []

    def test_wrong_password_is_not_tried_again_and_never_shown(self, project: Project) -> None:
        wrong = "wr0ng-'#/%@-word"
        options = replace(project.database.options, password=wrong, connect_retries=3)
        waits: list[float] = []
        with pytest.raises(ConnectionFailed, match="password authentication failed") as error:
            connect(options, waits.append)
        assert waits == []
        assert wrong not in str(error.value)
        assert f'at localhost:{options.port} as "admin"' in str(error.value)

    def test_a_server_that_is_down_is_tried_three_more_times(self, project: Project) -> None:
        options = replace(project.database.options, port=1, connect_retries=3)
        waits: list[float] = []
        with pytest.raises(ConnectionFailed, match="after 4 attempts"):
            connect(options, waits.append)
        assert waits == [1.0, 2.0, 4.0]

    def test_a_server_that_comes_back_is_used(self, project: Project) -> None:
        server = project.database.server
        server.stop()
        waits: list[float] = []

        def wait(seconds: float) -> None:
            waits.append(seconds)
            server.start()

        connect(replace(project.database.options, connect_retries=3), wait).close()
        assert waits == [1.0]

    @pytest.mark.parametrize(
        ("change", "cause"),
        [
            ({"database": "nowhere"}, "does not exist"),
            ({"user": "nobody"}, "authentication failed"),
            ({"host": "127.0.0.1"}, "does not match host name"),
            ({"ssl_mode": "disable"}, "no pg_hba.conf entry"),
            ({"ssl_root_cert": "/nonexistent.crt"}, "cannot be read"),
        ],
    )
    def test_each_cause_has_a_remedy(self, project: Project, change: dict[str, str], cause: str) -> None:
        with pytest.raises(ConnectionFailed, match=cause) as error:
            connect(replace(project.database.options, **change))
        assert error.value.remedy
        assert PASSWORD not in str(error.value)

    def test_a_strangers_certificate_is_refused(self, project: Project) -> None:
        stranger = project.database.server.directory / "stranger.crt"
        with pytest.raises(ConnectionFailed, match="certificate verify failed"):
            connect(replace(project.database.options, ssl_root_cert=str(stranger)))

    def test_a_role_that_may_not_write(self, project: Project) -> None:
        pair(project, "001", "a")
        project.database.query("CREATE ROLE reader LOGIN PASSWORD 'reader'")
        project.database.options = replace(project.database.options, user="reader", password="reader")
        with pytest.raises(TableError, match="may not create tables in schema public") as error:
            project.up()
        assert "GRANT CREATE ON SCHEMA public" in error.value.remedy
        admin = replace(project.database.options, user="admin", password=PASSWORD)
        project.database.options, limited = admin, project.database.options
        project.up()
        pair(project, "002", "b")
        project.database.options = limited
        with pytest.raises(OperationError, match="may not read"):
            project.up()
        project.database.query("GRANT SELECT ON migrations TO reader")
        with pytest.raises(TableError, match="may not write"):
            project.up()
        project.database.query("ALTER ROLE reader SET default_transaction_read_only = on")
        with pytest.raises(TableError, match="read-only"):
            project.up()
        project.database.options = admin
        project.database.query("DROP OWNED BY reader; DROP ROLE reader")
