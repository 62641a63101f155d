"""Names of backups and databases, and text for and from PostgreSQL's programs."""

import sys
from pathlib import Path

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import (
    postgresql_backup,
    postgresql_programs,
    postgresql_restore,
    postgresql_schema,
)
from ansible_collections.roastify.ops.plugins.module_utils.postgresql import ConnectionOptions
from ansible_collections.roastify.ops.plugins.module_utils.postgresql_backup import BackupError

OPTIONS = ConnectionOptions(host="db", database="shop", user="owner", password="p'w/d@ 1")


def test_databases_with_similar_names_do_not_share_backups(tmp_path):
    names = ["a-b", "a_b", "a/b", "a", "a-20260101T000000Z", ".a", "é", "..", "A b", "a%2Db"]
    for name in names:
        (tmp_path / f"{postgresql_backup._in_file_name(name)}-20260101T000000Z-x.dump").touch()
    assert len(list(tmp_path.iterdir())) == len(names)
    assert [len(postgresql_backup.of_database(tmp_path, name)) for name in names] == [1] * len(names)


def test_the_time_in_the_name_decides_and_a_new_name_comes_last(tmp_path):
    names = ["shop-20260102T000000Z.dump", "shop-20260101T000000Z-z.dump", "shop-29990101T000000Z.dump", "shop-1.dump"]
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in postgresql_backup.of_database(tmp_path, "shop")] == [names[1], names[0], names[2]]
    # Also where the clock was set back since.
    new = postgresql_backup._free_name(tmp_path, "shop", "d/1")
    assert new.name == "shop-29990101T000001Z-d_1.dump"
    assert len(postgresql_backup._free_name(tmp_path, "é" * 31 + "a", "x" * 300).name) < 255


def test_pruning_keeps_at_least_one(tmp_path):
    for day in range(1, 4):
        (tmp_path / f"shop-2026010{day}T000000Z.dump").touch()
    assert len(postgresql_backup.prune(tmp_path, "shop", 0)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["shop-20260103T000000Z.dump"]


def test_a_backup_of_no_database_is_refused(tmp_path):
    with pytest.raises(BackupError, match="No database"):
        postgresql_backup.back_up(ConnectionOptions(host="db"), tmp_path / "backups", keep=1)
    assert not (tmp_path / "backups").exists()


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("pg_dump: error: aborting because of server version mismatch", "Install the PostgreSQL client"),
        ("pg_restore: error: unsupported version (1.16) in file header", "Install the PostgreSQL client"),
        ('ERROR:  unrecognized configuration parameter "transaction_timeout"', "the server's own major version"),
        ("pg_dump: error: could not write to file: No space left on device", "Make room"),
        ("ERROR:  canceling statement due to lock timeout", "holds a table exclusively"),
        ('ERROR:  role "app" does not exist', "Create the missing role"),
        ('ERROR:  must be able to SET ROLE "app"', "a member of every owner"),
        ('ERROR:  permission denied to create extension "x"', "the extension"),
        ("pg_restore: error: input file is too short (read 3, expected 5)", "no complete archive"),
        ("ERROR:  permission denied for table a", "pg_read_all_data"),
        ("something else", "Correct what sh complains about"),
    ],
)
def test_failures_of_the_programs_have_a_remedy(said, remedy):
    with pytest.raises(BackupError) as error:
        postgresql_programs.run(
            OPTIONS, ["sh", "-c", f"echo '{said.replace(chr(39), '')}' >&2; exit 3"], "It failed", BackupError
        )
    assert error.value.cause == "It failed (exit status 3)."
    assert remedy in error.value.remedy
    assert error.value.evidence == [said]


def test_the_password_is_in_the_environment_and_nowhere_else():
    program = "import os, sys; print(os.environ['PGPASSWORD'], sys.argv[1:])"
    assert postgresql_programs.run(OPTIONS, [sys.executable, "-c", program], "", BackupError) == "p'w/d@ 1 []\n"
    with pytest.raises(BackupError) as error:
        postgresql_programs.run(OPTIONS, ["sh", "-c", 'echo "no $PGPASSWORD" >&2; exit 1'], "It failed", BackupError)
    assert "p'w" not in str(error.value)
    assert "p'w" not in repr(OPTIONS)


def test_a_program_that_hangs_is_ended():
    with pytest.raises(BackupError, match=r"took longer than 0\.2 s"):
        postgresql_programs.run(OPTIONS, ["sleep", "60"], "It failed", BackupError, timeout=0.2)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("work_mem", "5MB", "'5MB'"),
        ("app.motto", "it's, so\\", " E'it''s, so\\\\'"),
        ("search_path", '"$user", public', "'$user', 'public'"),
        ("search_path", '""', "''"),
        ("search_path", "", "''"),
        ("search_path", '"Od""d, name", a', "'Od\"d, name', 'a'"),
        ("Search_Path", "a", "'a'"),
    ],
)
def test_settings_are_written_as_they_are_set(name, value, expected):
    assert postgresql_restore._setting_value(name, value) == expected


def test_long_names_keep_their_suffix():
    suffix = "_before_restore_20260102030405"
    assert postgresql_restore._with_suffix("shop", suffix) == "shop" + suffix
    long = postgresql_restore._with_suffix("é" * 31, suffix)
    assert long.endswith(suffix)
    assert len(long.encode()) <= 63


def test_the_newest_of_none_is_an_error(tmp_path):
    with pytest.raises(postgresql_restore.RestoreError, match="no backup of database shop"):
        postgresql_restore.newest(tmp_path, "shop")
    with pytest.raises(postgresql_restore.RestoreError, match="No such file"):
        postgresql_restore.newest(tmp_path / "missing", "shop")
    with pytest.raises(postgresql_restore.RestoreError, match="No such file"):
        postgresql_restore.read_archive(OPTIONS, Path(tmp_path / "missing.dump"))


DUMP = """--
-- PostgreSQL database dump
--

\\restrict abc

-- Dumped from database version {server}
-- Dumped by pg_dump version {client}

SET statement_timeout = 0;
{setting}SET lock_timeout = 0;

--
-- Name: f(); Type: FUNCTION; Schema: public
--

CREATE FUNCTION f() RETURNS text AS '
\\restrict mine
-- Dumped by pg_dump version 1


SET transaction_timeout = 0;
-- PostgreSQL database dump complete
' LANGUAGE sql;


--
-- PostgreSQL database dump complete
--

\\unrestrict abc

"""


def test_a_schema_is_the_same_whoever_dumped_it():
    older = DUMP.format(server="15.1", client="15.1", setting="")
    newer = DUMP.format(server="17.6", client="17.6", setting="SET transaction_timeout = 0;\n").replace("abc", "xyz")
    normal = postgresql_schema.normalise(older)
    assert postgresql_schema.normalise(newer) == normal
    assert postgresql_schema.normalise(normal) == normal
    body = DUMP[DUMP.index("CREATE") : DUMP.index("LANGUAGE")]
    assert body in normal
    assert normal.count("restrict") == 1
    assert normal.endswith("-- PostgreSQL database dump complete\n--\n")
