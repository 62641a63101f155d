"""What else can be asked of migrations: both directions in one file, redo, baseline, repair."""

from __future__ import annotations

import pytest
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.migration_failures import MigrationError
from ansible_collections.roastify.ops.plugins.module_utils.migration_files import read_directory
from ansible_collections.roastify.ops.plugins.module_utils.migration_plan import PlanError, plan_up
from migration_project import Project, pair
from postgresql_server import EVERY_VERSION

pytestmark = EVERY_VERSION

BOTH = """\
-- migrate:up
CREATE TABLE a (id int);
INSERT INTO a VALUES (1);

-- migrate:down
DROP TABLE a;
"""


class TestOneFileForBothDirections:
    def test_goes_up_and_back(self, project: Project) -> None:
        project.write("001_a.sql", BOTH)
        assert project.up() == ["001"]
        assert project.database.query("SELECT * FROM a") == [(1,)]
        assert project.up() == []
        assert project.down(steps=1) == ["001"]
        assert "a" not in project.database.tables()

    def test_an_error_bears_the_line_of_the_file(self, project: Project) -> None:
        project.write("001_a.sql", BOTH.replace("DROP TABLE a", "SELECT 1;\nDROP TABLE other"))
        project.up()
        with pytest.raises(MigrationError) as error:
            project.down(steps=1)
        assert (error.value.details["file"], error.value.details["line"]) == ("001_a.sql", 7)
        assert "STATEMENT 2 of 2 (line 7): DROP TABLE other" in error.value.evidence

    def test_mixes_with_the_other_format(self, project: Project) -> None:
        project.write("001_a.sql", BOTH)
        pair(project, "002", "b")
        project.write("003_c.sql", "-- migrate:up transaction:false\nCREATE INDEX CONCURRENTLY i ON a (id);\n")
        assert project.up() == ["001", "002", "003"]
        with pytest.raises(PlanError) as refused:
            project.down(steps=1)
        assert refused.value.evidence == ["003_c.sql: has no down script"]


class TestUnwrap:
    def test_the_whole_file_is_still_one_transaction(self, project: Project) -> None:
        project.write("001_a.up.sql", "BEGIN;\nCREATE TABLE a (id int);\nSELECT 1/0;\nCOMMIT;\n")

        def plan(state):  # type: ignore[no-untyped-def]
            return plan_up(read_directory(project.directory), state.applied, unwrap=True)

        with pytest.raises(MigrationError) as error:
            project._run(plan)
        assert error.value.details["line"] == 3
        assert "a" not in project.database.tables()
        project.write("001_a.up.sql", "BEGIN;\nCREATE TABLE a (id int);\nCOMMIT;\n")
        assert project._run(plan) == ["001"]
        project.write("001_a.up.sql", "BEGIN;\nCREATE TABLE a (id bigint);\nCOMMIT;\n")
        with pytest.raises(PlanError) as told:
            project._run(plan)
        assert "+ 001_a.up.sql:2: CREATE TABLE a (id bigint)" in told.value.evidence[0]


class TestRedo:
    def test_runs_the_file_as_it_is_now(self, project: Project) -> None:
        pair(project, "001", "a")
        pair(project, "002", "b")
        project.up()
        project.write("002_b.up.sql", "CREATE TABLE b (id bigint);\n")
        assert project.redo(steps=1) == ["002", "002"]
        assert project.database.query("SELECT data_type FROM information_schema.columns WHERE table_name = 'b'") == [
            ("bigint",)
        ]
        assert project.recorded() == ["001", "002"]
        assert project.up() == []

    def test_what_fails_on_the_way_up_again_is_pending(self, project: Project) -> None:
        pair(project, "001", "a")
        project.up()
        project.write("001_a.up.sql", "CREATE TABLE a (id int);\nSELECT 1/0;\n")
        with pytest.raises(MigrationError):
            project.redo(steps=1)
        assert (project.recorded(), "a" in project.database.tables()) == ([], False)

    def test_loss_of_data_has_to_be_confirmed(self, project: Project) -> None:
        pair(project, "001", "a")
        project.up()
        with pytest.raises(PlanError, match="destroy data"):
            project.redo(steps=1, confirm=False)
        assert project.recorded() == ["001"]


class TestBaseline:
    def test_records_what_the_database_holds_and_runs_the_rest(self, project: Project) -> None:
        for version, table in (("001", "a"), ("002", "b"), ("003", "c")):
            pair(project, version, table)
        project.database.query("CREATE TABLE a (id int); CREATE TABLE b (id int)")
        assert project.baseline("002") == ["001", "002"]
        assert project.baseline("002") == []
        assert project.up() == ["003"]
        rows = project.database.query(
            "SELECT version, duration_ms IS NULL, checksum LIKE 'sha256:%', down_checksum LIKE 'sha256:%', applied_by"
            " FROM migrations ORDER BY id LIMIT 2"
        )
        assert rows == [("001", True, True, True, "ops"), ("002", True, True, True, "ops")]

    def test_an_empty_database_holds_nothing(self, project: Project) -> None:
        pair(project, "001", "a")
        with pytest.raises(PlanError, match="There is no table"):
            project.baseline()
        assert project.database.tables() == []

    def test_files_that_could_not_run_can_be_recorded(self, project: Project) -> None:
        project.write("001_dump.up.sql", "\\restrict abc\nCOPY a FROM stdin;\n1\n\\.\n")
        project.database.query("CREATE TABLE a (id int)")
        assert project.baseline() == ["001"]
        assert project.up() == []


class TestRepair:
    def test_an_edited_file_is_told_and_accepted(self, project: Project) -> None:
        project.write("001_a.up.sql", "CREATE TABLE a (id int);\nCREATE TABLE b (id int);\n")
        project.up()
        project.write("001_a.up.sql", "CREATE TABLE a (id int);\n\nCREATE TABLE b (id bigint);\n")
        with pytest.raises(PlanError) as told:
            project.up()
        account = told.value.evidence[0].splitlines()
        assert "by ops (deployment d1)" in account[0]
        assert account[-2:] == [
            "    - statement 2 of 2 as it was applied (its text is not kept)",
            "    + 001_a.up.sql:3: CREATE TABLE b (id bigint)",
        ]
        assert project.repair("1") == ["001"]
        assert project.up() == []
        assert project.repair("1") == []

    def test_a_row_without_file_is_forgotten(self, project: Project) -> None:
        for version, table in (("001", "a"), ("002", "b")):
            pair(project, version, table)
        project.up()
        for path in project.directory.glob("001_*"):
            path.unlink()
        with pytest.raises(PlanError, match="contradict"):
            project.up()
        assert project.repair("001") == ["001"]
        assert project.recorded() == ["002"]
        assert "a" in project.database.tables()
        assert project.up() == []

    def test_the_rows_of_another_tool_get_their_checksums(self, project: Project) -> None:
        pair(project, "001", "a")
        project.database.query(
            "CREATE TABLE migrations (id serial PRIMARY KEY, version varchar(255) NOT NULL UNIQUE,"
            " name varchar(255) NOT NULL, applied_at timestamp DEFAULT current_timestamp);"
            "INSERT INTO migrations (version, name) VALUES ('001', 'a'); CREATE TABLE a (id int)"
        )
        assert project.up() == []
        assert project.repair("001") == ["001"]
        assert project.database.query("SELECT checksum LIKE 'sha256:%' FROM migrations") == [(True,)]

    def test_an_interrupted_migration_starts_anew(self, project: Project) -> None:
        project.write(
            "001_a.up.sql",
            "-- migrate:no-transaction\nCREATE TABLE a (id int);\nSELECT 1/0;\n",
        )
        with pytest.raises(MigrationError):
            project.up()
        project.write("001_a.up.sql", "-- migrate:no-transaction\nCREATE TABLE a (id bigint);\n")
        with pytest.raises(PlanError, match="cannot be told"):
            project.up()
        project.database.query("DROP TABLE a")
        assert project.repair("001") == ["001"]
        assert project.up() == ["001"]

    def test_nothing_is_repaired_if_one_of_them_cannot_be(self, project: Project) -> None:
        project.write("001_a.up.sql", "CREATE TABLE a (id int);\n")
        project.up()
        project.write("001_a.up.sql", "CREATE TABLE a (id bigint);\n")
        with pytest.raises(PlanError):
            project.repair("1", "2")
        with pytest.raises(PlanError, match="contradict"):
            project.up()


class TestLossInABlock:
    @pytest.mark.parametrize(
        "block",
        [
            "DO $$ BEGIN DROP TABLE a; END $$;",
            "DO $$ BEGIN EXECUTE 'ALTER TABLE a DROP COLUMN id'; END $$;",
            "DO $$ BEGIN DELETE FROM a; END $$;",
        ],
    )
    def test_is_seen(self, project: Project, block: str) -> None:
        project.write("001_a.up.sql", "CREATE TABLE a (id int);\n")
        project.write("001_a.down.sql", block + "\n")
        project.up()
        with pytest.raises(PlanError, match="destroy data"):
            project.down(steps=1, confirm=False)
        project.down(steps=1)


class TestWhatAScriptSetsForItsTransaction:
    def test_does_not_reach_its_record(self, project: Project) -> None:
        project.write("001_a.up.sql", "CREATE TABLE a (id int);\n")
        project.up()
        # Longer than the script allows, which in turn leaves a busy machine time to lift its limit.
        project.database.query(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN PERFORM pg_catalog.pg_sleep(1.5); RETURN new; END';"
            "CREATE TRIGGER slow BEFORE INSERT ON migrations FOR EACH ROW EXECUTE FUNCTION public.wait()"
        )
        project.write(
            "002_b.up.sql",
            "CREATE TABLE b (id int);\nSET LOCAL statement_timeout = '1s';\nSET LOCAL search_path = pg_catalog;\n"
            "SET LOCAL TimeZone = 'Asia/Tokyo';\n",
        )
        assert project.up() == ["002"]

    def test_a_read_only_transaction_is_explained(self, project: Project) -> None:
        project.write("001_a.up.sql", "CREATE TABLE a (id int);\nSET TRANSACTION READ ONLY;\n")
        with pytest.raises(MigrationError) as error:
            project.up()
        assert "made its transaction read-only" in error.value.remedy
        assert project.database.tables() in ([], ["migrations"])


class TestReindex:
    def test_what_an_interrupted_one_left_is_dropped(self, project: Project) -> None:
        # As a killed REINDEX CONCURRENTLY leaves it: a copy that is not valid.
        project.database.query(
            "CREATE TABLE a (id int); CREATE INDEX i ON a (id); CREATE INDEX i_ccnew ON a (id);"
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'i_ccnew'::regclass"
        )
        project.write("001_a.up.sql", "-- migrate:no-transaction\nREINDEX INDEX CONCURRENTLY i;\n")
        assert project.up() == ["001"]
        assert project.runner is not None
        assert any("dropped the INVALID index public.i_ccnew" in warning for warning in project.runner.warnings)
        names = project.database.query("SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'a'::regclass")
        assert names == [("i",)]

    def test_what_a_failing_one_leaves_is_dropped(self, project: Project) -> None:
        # The index cannot be built anew: its function fails by now.
        project.database.query(
            "CREATE FUNCTION f(n int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';"
            "CREATE TABLE a (id int); INSERT INTO a VALUES (0); CREATE INDEX i ON a (f(id));"
            "CREATE OR REPLACE FUNCTION f(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 1/n; END'"
        )
        project.write("001_a.up.sql", "-- migrate:no-transaction\nREINDEX TABLE CONCURRENTLY a;\n")
        with pytest.raises(OperationError, match="division by zero"):
            project.up()
        left = project.database.query("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid")
        assert left == []
