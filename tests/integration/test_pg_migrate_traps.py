"""What a sceptical administrator tried: states that would be wrong with a success as the result."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.roastify.ops.plugins.module_utils.migration_failures import MigrationError
from ansible_collections.roastify.ops.plugins.module_utils.migration_files import MigrationFilesError
from ansible_collections.roastify.ops.plugins.module_utils.migration_plan import PlanError
from ansible_collections.roastify.ops.plugins.module_utils.migration_table import TableError
from migration_project import Project, pair
from postgresql_server import EVERY_VERSION

pytestmark = [EVERY_VERSION, pytest.mark.usefixtures("each_driver")]

ALONE = "-- migrate:no-transaction\n"


def kill_as_if(project: Project) -> None:
    """Make the note of a failed migration look like that of one whose runner was killed."""
    project.database.query("UPDATE migrations_unfinished SET error = NULL")


class TestSettingsOfTheScriptBefore:
    """The server reads a message to its end before any of it runs."""

    def test_rules_of_quoting(self, project: Project) -> None:
        project.write("001_a.up.sql", "SET standard_conforming_strings = off;\nSELECT 1;\n")
        project.write("002_b.up.sql", "CREATE TABLE b (path text DEFAULT 'C:\\new');\n")
        project.write("003_c.up.sql", "INSERT INTO b DEFAULT VALUES;\n")
        project.up()
        assert project.database.query("SELECT path FROM b") == [("C:\\new",)]

    @pytest.mark.parametrize("second", ["CREATE TABLE b (id int);\n", "SELECT 1;\nCREATE TABLE b (id int);\n"])
    def test_properties_of_transactions(self, project: Project, second: str) -> None:
        project.write("001_a.up.sql", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY;\n")
        project.write("002_b.up.sql", second)
        assert project.up() == ["001", "002"]

    def test_within_a_batch(self, project: Project) -> None:
        rows = "INSERT INTO t VALUES ('a\\nb');\n" * 300
        project.write("001_a.up.sql", f"CREATE TABLE t (v text);\nSET standard_conforming_strings = off;\n{rows}")
        project.up()
        assert project.database.query("SELECT DISTINCT v FROM t") == [("a\nb",)]

    def test_another_encoding_is_refused(self, project: Project) -> None:
        project.write("001_a.up.sql", "SET client_encoding = 'LATIN1';\nSELECT 1;\n")
        project.write("002_b.up.sql", "SET NAMES 'LATIN1';\n")
        project.write("003_c.up.sql", "SET client_encoding TO 'UTF8';\n")
        with pytest.raises(MigrationFilesError) as error:
            project.up()
        assert [it.split(":")[0] for it in error.value.evidence] == ["001_a.up.sql", "002_b.up.sql"]


class TestDefinitionsInOneMessage:
    def test_a_temporary_table_does_not_hide_the_next_ones(self, project: Project) -> None:
        project.write("001_a.up.sql", "CREATE TEMP TABLE orders (id int);\n")
        project.write("002_b.up.sql", "CREATE TABLE orders (id int);\nCREATE INDEX orders_id ON orders (id);\n")
        project.up()
        assert project.database.query("SELECT count(*) FROM pg_indexes WHERE indexname = 'orders_id'") == [(1,)]

    @pytest.mark.parametrize("between", ["", " ", " /* why */ "])
    def test_a_query_in_a_definition_does_not_leak(self, project: Project, between: str) -> None:
        project.database.query("CREATE SCHEMA other")
        query = "SELECT set_config('search_path', 'other', false)"
        project.write("001_a.up.sql", f"CREATE TABLE k AS{between}({query});\n")
        project.write("002_b.up.sql", "CREATE TABLE b (id int);\n")
        project.up()
        assert project.database.query("SELECT to_regclass('public.b') IS NOT NULL") == [(True,)]

    def test_an_event_trigger_does_not_leak(self, project: Project) -> None:
        project.database.query(
            "CREATE SCHEMA other; CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM set_config('search_path', 'other', false); END $$;"
            "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f()"
        )
        for version, table in (("001", "a"), ("002", "b")):
            pair(project, version, table)
        project.up()
        assert {"a", "b"} <= set(project.database.tables())

    def test_a_record_that_a_trigger_swallows_is_missed(self, project: Project) -> None:
        pair(project, "001", "a")
        project.up()
        project.database.query(
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
            "CREATE TRIGGER t BEFORE INSERT ON migrations FOR EACH ROW EXECUTE FUNCTION f()"
        )
        pair(project, "002", "b")
        with pytest.raises(TableError, match="is gone"):
            project.up()
        assert "b" not in project.database.tables()

    def test_what_fails_is_found_statement_by_statement(self, project: Project) -> None:
        project.database.query("CREATE TABLE c (id int)")
        project.write("001_a.up.sql", "CREATE TABLE a (id int);\nCREATE TABLE b (id int);\nCREATE TABLE c (id int);\n")
        with pytest.raises(MigrationError) as error:
            project.up()
        assert error.value.details["line"] == 3
        assert project.database.tables() in (["c"], ["c", "migrations"])


class TestOutsideATransaction:
    @pytest.mark.parametrize(
        ("statement", "before"),
        [
            ("CREATE INDEX CONCURRENTLY foo ON b (x)", "CREATE INDEX foo ON a (x)"),
            ("DROP INDEX CONCURRENTLY fooo", "SELECT 1"),
        ],
    )
    def test_a_failure_is_still_one_the_second_time(self, project: Project, statement: str, before: str) -> None:
        project.database.query(f"CREATE TABLE a (x int); CREATE TABLE b (x int); {before}")
        project.write("001_a.up.sql", f"{ALONE}{statement};\n")
        for _attempt in range(2):
            with pytest.raises(MigrationError):
                project.up()
        assert project.recorded() == []

    def test_an_index_of_another_table_is_not_the_one_that_was_asked_for(self, project: Project) -> None:
        project.database.query("CREATE TABLE a (x int); CREATE TABLE b (x int); CREATE INDEX foo ON a (x)")
        project.write("001_a.up.sql", f"{ALONE}CREATE INDEX CONCURRENTLY foo ON b (x);\n")
        with pytest.raises(MigrationError):
            project.up()
        kill_as_if(project)
        with pytest.raises(MigrationError):
            project.up()

    @pytest.mark.parametrize(
        ("schema", "table", "index"),
        [
            ("public", "b", "i" * 70),
            ('"a.b"', "b", "foo"),
            ("public", "\u00c4t", "foo"),
            ("public", "b", '"Foo ""bar"""'),
        ],
    )
    def test_an_invalid_index_is_known_by_its_name(self, project: Project, schema: str, table: str, index: str) -> None:
        project.database.query(
            f"CREATE SCHEMA IF NOT EXISTS {schema}; CREATE TABLE {schema}.{table} (x int);"
            f"CREATE INDEX {index} ON {schema}.{table} (x);"
            "UPDATE pg_index SET indisvalid = false WHERE indrelid IN"
            f" (SELECT oid FROM pg_class WHERE relname IN ('{table}'))"
        )
        project.write("001_a.up.sql", f"{ALONE}CREATE INDEX CONCURRENTLY {index} ON {schema}.{table} (x);\n")
        assert project.up() == ["001"]
        assert project.database.query("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [(0,)]

    def test_without_its_directive_it_does_not_start_anew(self, project: Project) -> None:
        project.database.query("CREATE TABLE a (x int)")
        project.write("001_a.up.sql", f"{ALONE}INSERT INTO a VALUES (1);\nSELECT 1/0;\n")
        with pytest.raises(MigrationError):
            project.up()
        project.write("001_a.up.sql", "INSERT INTO a VALUES (1);\nSELECT 1;\n")
        with pytest.raises(PlanError) as error:
            project.up()
        assert "is to run in a transaction now" in error.value.evidence[0]
        assert project.database.query("SELECT count(*) FROM a") == [(1,)]

    def test_another_spelling_of_the_version_is_the_same_migration(self, project: Project) -> None:
        project.database.query("CREATE TABLE a (x int)")
        rows = f"{ALONE}INSERT INTO a VALUES (1);\nINSERT INTO a VALUES (2);\n"
        path = project.write("7_a.up.sql", rows + "SELECT 1/0;\n")
        with pytest.raises(MigrationError):
            project.up()
        path.rename(project.directory / "007_a.up.sql")
        with pytest.raises(MigrationError):
            project.up()
        project.write("007_a.up.sql", rows)
        assert project.up() == ["007"]
        assert project.database.query("SELECT x FROM a ORDER BY x") == [(1,), (2,)]
        assert project.database.query("SELECT count(*) FROM migrations_unfinished") == [(0,)]

    def test_giving_up_the_lock_ends_the_run(self, project: Project) -> None:
        project.write("001_a.up.sql", f"{ALONE}SELECT pg_advisory_unlock_all();\nCREATE TABLE a (id int);\n")
        with pytest.raises(PlanError, match="gave the lock"):
            project.up()
        assert "a" not in project.database.tables()
        project.write("002_b.up.sql", f"{ALONE}DISCARD ALL;\n")
        with pytest.raises(MigrationFilesError):
            project.up()

    def test_nothing_below_it_is_rolled_back(self, project: Project) -> None:
        pair(project, "001", "a")
        project.write("002_b.up.sql", f"{ALONE}CREATE TABLE b (id int);\nSELECT 1/0;\n")
        with pytest.raises(MigrationError):
            project.up()
        with pytest.raises(PlanError) as error:
            project.down(steps=1)
        assert "002 was interrupted after statement 1" in error.value.evidence[0]
        assert "a" in project.database.tables()

    def test_a_directive_below_a_licence(self, project: Project) -> None:
        project.write("001_a.up.sql", f"/* A licence.\n * Of two lines. */\n{ALONE}VACUUM;\n")
        assert project.up() == ["001"]


class TestTable:
    def test_rows_that_are_hidden_are_not_taken_for_missing(self, project: Project) -> None:
        pair(project, "001", "a")
        project.up()
        project.database.query(
            "ALTER TABLE migrations ENABLE ROW LEVEL SECURITY; ALTER TABLE migrations FORCE ROW LEVEL SECURITY;"
            "DO $$ BEGIN CREATE ROLE hidden LOGIN PASSWORD 'hidden-from'; EXCEPTION WHEN duplicate_object THEN END $$;"
            "GRANT ALL ON migrations TO hidden; GRANT ALL ON SCHEMA public TO hidden"
        )
        project.database.options = replace(project.database.options, user="hidden", password="hidden-from")
        with pytest.raises(TableError, match="Row security"):
            project.up()

    def test_a_name_that_would_be_cut_off_is_refused(self, project: Project) -> None:
        pair(project, "001", "a")
        with pytest.raises(TableError, match="too long"):
            project.up(table="m" * 53)
        assert project.up(table="m" * 52) == ["001"]


class TestRedo:
    def test_the_same_command_again_does_not_go_deeper(self, project: Project) -> None:
        for version, table in (("001", "a"), ("002", "b")):
            pair(project, version, table)
        project.up()
        project.write("002_b.up.sql", "SELECT 1/0;\n")
        with pytest.raises(MigrationError):
            project.redo(steps=1)
        with pytest.raises(PlanError) as error:
            project.redo(steps=1)
        assert "002_b.up.sql is pending" in error.value.evidence[0]
        assert "a" in project.database.tables()


def test_zero_is_below_version_000(project: Project) -> None:
    for version, table in (("000", "a"), ("001", "b")):
        pair(project, version, table)
    project.up()
    assert project.down(target="000") == ["001"]
    assert project.down(target="0") == ["000"]
