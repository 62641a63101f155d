"""Which migrations older releases survive."""

import pytest
from ansible_collections.roastify.ops.plugins.module_utils.schema_compatibility import (
    breaks_older_code,
    obstacle,
    schema_breaks,
)
from ansible_collections.roastify.ops.plugins.module_utils.sql_statements import split


def breaks(sql):
    (statement,) = split(sql)
    return breaks_older_code(statement)


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE roasts",
        "drop table if exists a, b cascade",
        "DROP VIEW v",
        "DROP MATERIALIZED VIEW v",
        "DROP TYPE t",
        "DROP FUNCTION f(int)",
        "ALTER TABLE roasts DROP COLUMN notes",
        "ALTER TABLE roasts DROP notes",
        "ALTER TABLE roasts ADD COLUMN a int, DROP COLUMN IF EXISTS b",
        "ALTER TABLE roasts RENAME COLUMN a TO b",
        "ALTER TABLE roasts RENAME a TO b",
        "ALTER TABLE roasts RENAME TO coffees",
        "ALTER VIEW v RENAME TO w",
        "ALTER TYPE mood RENAME VALUE 'a' TO 'b'",
        "ALTER TABLE roasts ALTER COLUMN a TYPE bigint",
        "ALTER TABLE roasts ALTER a SET DATA TYPE bigint USING a::bigint",
        "ALTER TABLE roasts ALTER COLUMN a SET NOT NULL",
        "ALTER TABLE roasts ADD COLUMN a int NOT NULL",
        "ALTER TABLE roasts ADD a int /* DEFAULT 1 */ NOT NULL",
        "ALTER TABLE roasts SET SCHEMA archive",
        "ALTER TYPE address DROP ATTRIBUTE zip",
    ],
)
def test_what_older_releases_do_not_survive(sql):
    assert breaks(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE a (id int NOT NULL)",
        "ALTER TABLE roasts ADD COLUMN a int",
        "ALTER TABLE roasts ADD COLUMN a int NOT NULL DEFAULT 0",
        "ALTER TABLE roasts ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY NOT NULL",
        "ALTER TABLE roasts ADD COLUMN id bigserial NOT NULL",
        "ALTER TABLE roasts ADD CONSTRAINT c CHECK (a IS NOT NULL) NOT VALID",
        "ALTER TABLE roasts DROP CONSTRAINT c",
        "ALTER TABLE roasts RENAME CONSTRAINT c TO d",
        "ALTER TABLE roasts ALTER COLUMN a DROP NOT NULL",
        "ALTER TABLE roasts ALTER COLUMN a DROP DEFAULT",
        "ALTER TABLE roasts ALTER COLUMN a SET DEFAULT 1",
        "ALTER TYPE mood ADD VALUE 'c'",
        "ALTER INDEX i RENAME TO j",
        "DROP INDEX i",
        "DROP TRIGGER t ON roasts",
        "CREATE INDEX CONCURRENTLY i ON roasts (a)",
        "INSERT INTO roasts (notes) VALUES ('DROP TABLE roasts')",
        "UPDATE roasts SET a = 1",
        "COMMENT ON TABLE roasts IS 'RENAME me'",
    ],
)
def test_what_only_adds_is_harmless(sql):
    assert not breaks(sql)


def test_the_migrations_of_a_directory(tmp_path):
    (tmp_path / "001_a.up.sql").write_text("CREATE TABLE a (id int);")
    (tmp_path / "002_b.sql").write_text(
        "-- migrate:up\nALTER TABLE a ADD COLUMN b int;\nALTER TABLE a DROP COLUMN id;\n"
        "-- migrate:down\nALTER TABLE a ADD COLUMN id int;\n"
    )
    (tmp_path / "002_b.sql").rename(tmp_path / "010_b.sql")
    assert schema_breaks(tmp_path) == [{"version": "010", "statement": "ALTER TABLE a DROP COLUMN id"}]
    assert schema_breaks(tmp_path / "missing") == []


LIVE = {
    "version": "3.0.0",
    "schemaVersion": "012",
    "schemaBreaks": [
        {"version": "012", "statement": "DROP TABLE c"},
        {"version": "003", "statement": "DROP TABLE a"},
        {"version": "010", "statement": "DROP TABLE b"},
    ],
}


@pytest.mark.parametrize(
    ("target", "first"),
    [("011", "012 changed"), ("9", "010 and 1 more changed"), (None, "003 and 2 more changed"), ("012", None)],
)
def test_a_rollback_is_stopped_by_what_came_after_its_target(target, first):
    told = obstacle(LIVE, {"version": "1.0.0", "schemaVersion": target})
    assert (told is None) == (first is None)
    if first:
        assert f"migration {first} what it relies on: DROP TABLE" in told


def test_nothing_known_is_nothing_in_the_way():
    assert obstacle({"version": "2"}, {"version": "1"}) is None
    assert obstacle(None, LIVE) is None
    assert obstacle(LIVE, None) is None
