"""Reading a directory of migrations."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.roastify.ops.plugins.module_utils.migration_files import (
    Migration,
    MigrationFilesError,
    MigrationSet,
    Script,
    check_scripts,
    read_directory,
)
from ansible_collections.roastify.ops.plugins.module_utils.migration_text import checksum, normalised


def versions(files: MigrationSet) -> list[str]:
    return [migration.version for migration in files.migrations]


def problems(directory: Path) -> list[str]:
    with pytest.raises(MigrationFilesError) as error:
        read_directory(directory)
    return error.value.evidence


class TestRead:
    def test_sorts_versions_as_numbers(self, tmp_path: Path) -> None:
        for name in ("10_b", "9_a", "0011_c", "20260131120000_d", "000_zero"):
            (tmp_path / f"{name}.up.sql").touch()
        assert versions(read_directory(tmp_path)) == ["000", "9", "10", "0011", "20260131120000"]

    def test_pairs_up_and_down(self, tmp_path: Path) -> None:
        for name in ("001_a.up.sql", "001_a.down.sql", "002_with space_and.dot.up.sql"):
            (tmp_path / name).touch()
        first, second = read_directory(tmp_path).migrations
        assert (first.name, first.down is not None) == ("a", True)
        assert (second.name, second.down) == ("with space_and.dot", None)

    def test_leaves_other_files_alone(self, tmp_path: Path) -> None:
        for name in ("README.md", "001_a.up.sql~", "001_a.up.sql.orig", ".001_a.up.sql", "001_a.up.sql"):
            (tmp_path / name).touch()
        (tmp_path / "002_directory.up.sql").mkdir()
        assert versions(read_directory(tmp_path)) == ["001"]

    def test_an_empty_directory_has_no_migrations(self, tmp_path: Path) -> None:
        assert read_directory(tmp_path).migrations == ()

    def test_a_missing_directory(self, tmp_path: Path) -> None:
        with pytest.raises(MigrationFilesError, match="No such file"):
            read_directory(tmp_path / "nowhere")

    def test_tells_all_problems_at_once(self, tmp_path: Path) -> None:
        files: dict[str, bytes] = {
            "001_a.up.sql": b"",
            "1_b.up.sql": b"",
            "002_c.down.sql": b"",
            "3.sql": b"",
            "010_both.sql": b"SELECT 1;",
            "011_marked.up.sql": b"SELECT 1;\n-- migrate:down\nDROP TABLE t;",
            "004_D.UP.SQL": b"",
            "005_latin.up.sql": b"SELECT 1;\nSELECT '\xe9';\n",
            "006_nul.up.sql": b"\nSELECT '\0';",
            "007_typo.up.sql": b"\n-- migrate:no-transactions\nSELECT 1;",
            f"008_{'x' * 240}.up.sql": b"",
        }
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        (tmp_path / "009_gone.up.sql").symlink_to("nowhere")
        found = "\n".join(problems(tmp_path))
        assert "version 1 exists twice: 001_a.up.sql and 1_b.up.sql" in found
        assert "002_c.down.sql: there is no .up.sql for it" in found
        assert "3.sql: not named NNN_name.up.sql" in found
        assert "004_D.UP.SQL: not named NNN_name.up.sql" in found
        assert "005_latin.up.sql: byte 18 (0xe9, line 2) is not UTF-8" in found
        assert "006_nul.up.sql: line 2 holds a NUL character" in found
        assert "007_typo.up.sql: line 2: unknown directive migrate:no-transactions" in found
        assert "009_gone.up.sql: cannot be read: No such file" in found
        assert "010_both.sql: holds no line `-- migrate:up`" in found
        assert "011_marked.up.sql: line 2: migrate:down divides a file of both directions" in found
        assert len(found.splitlines()) == 10

    def test_one_version_spelled_twice_under_one_name(self, tmp_path: Path) -> None:
        for name in ("1_a.up.sql", "001_a.up.sql"):
            (tmp_path / name).touch()
        assert problems(tmp_path) == [
            "version 1 exists twice: 001_a.up.sql and 1_a.up.sql; give one of them another number"
        ]

    def test_many_files_of_one_version(self, tmp_path: Path) -> None:
        for name in ("7_a", "7_b", "07_c"):
            (tmp_path / f"{name}.up.sql").touch()
        assert "exists 3 times: 07_c.up.sql and 7_a.up.sql and 7_b.up.sql" in problems(tmp_path)[0]

    def test_a_name_that_is_not_utf_8(self, tmp_path: Path) -> None:
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/001_caf\xe9.up.sql"))).touch()
        assert problems(tmp_path) == ["'001_caf\\udce9.up.sql': the name holds bytes that are not UTF-8; rename it"]

    def test_an_undecodable_up_file_is_one_problem_not_two(self, tmp_path: Path) -> None:
        (tmp_path / "001_a.up.sql").write_bytes(b"\xff")
        (tmp_path / "001_a.down.sql").touch()
        assert len(problems(tmp_path)) == 1

    @pytest.mark.parametrize(
        ("names", "gaps"),
        [
            (["001", "002", "004"], 1),
            (["001", "002", "003"], 0),
            (["010", "020", "030"], 0),
            (["001", "002", "20260101120000", "20260301120000"], 0),
        ],
    )
    def test_gaps_are_warnings(self, tmp_path: Path, names: list[str], gaps: int) -> None:
        for name in names:
            (tmp_path / f"{name}_x.up.sql").touch()
        assert len(read_directory(tmp_path).warnings) == gaps


class TestText:
    def test_is_free_of_what_editors_change(self) -> None:
        assert normalised(b"\xef\xbb\xbfSELECT 1;\r\nSELECT 2;\r\n\r\n  ") == "SELECT 1;\nSELECT 2;\n"
        assert normalised(b"") == normalised(b"\xef\xbb\xbf\r\n") == ""
        assert normalised(b"SELECT 'a\rb';") == "SELECT 'a\rb';\n"

    def test_checksum_names_its_algorithm(self) -> None:
        assert checksum("") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

    @pytest.mark.parametrize(
        ("text", "transactional"),
        [
            ("-- migrate:no-transaction\nSELECT 1;", False),
            ("\n  --why\n--migrate: no-transaction  \nSELECT 1;", False),
            ("SELECT 1;\n-- migrate:no-transaction\n", True),
            ("SELECT '\n-- migrate:no-transaction\n';", True),
            ("/* -- migrate:no-transaction */ SELECT 1;", True),
            ("-- migrate the users: all of them\nSELECT 1;", True),
        ],
    )
    def test_the_directive_stands_above_the_first_statement(
        self, tmp_path: Path, text: str, transactional: bool
    ) -> None:
        (tmp_path / "001_a.up.sql").write_text(text)
        assert read_directory(tmp_path).migrations[0].up.transactional is transactional


class TestSections:
    def read(self, directory: Path, text: str) -> Migration:
        (directory / "001_a.sql").write_text(text)
        (migration,) = read_directory(directory).migrations
        return migration

    def test_lines_stay_those_of_the_file(self, tmp_path: Path) -> None:
        found = self.read(tmp_path, "-- why\n-- migrate:up\nSELECT 1;\n\n-- migrate:down\nSELECT 2;\nSELECT 3;\n")
        assert found.down is not None
        up, down = check_scripts([found.up, found.down])
        assert [(it.text, it.line) for it in up.statements] == [("SELECT 1", 3)]
        assert [(it.text, it.line) for it in down.statements] == [("SELECT 2", 6), ("SELECT 3", 7)]
        assert found.up.file == found.down.file == "001_a.sql"

    def test_sections_in_any_order_with_options_of_their_own(self, tmp_path: Path) -> None:
        found = self.read(
            tmp_path, "-- migrate:down  transaction:false\nVACUUM;\n-- migrate:up no-transaction\nVACUUM;\n"
        )
        assert found.down is not None
        assert (found.up.transactional, found.down.transactional) == (False, False)
        found = self.read(tmp_path, "-- migrate:up\n--migrate:no-transaction\nVACUUM;\n-- migrate:down\nSELECT 1;\n")
        assert found.down is not None
        assert (found.up.transactional, found.down.transactional) == (False, True)

    def test_the_other_section_does_not_count_for_the_checksum(self, tmp_path: Path) -> None:
        one = self.read(tmp_path, "-- migrate:up\nSELECT 1;\n-- migrate:down\nSELECT 2;\n")
        other = self.read(tmp_path, "-- a comment\n\n-- migrate:up\nSELECT 1;\n\n-- migrate:down\nSELECT 3;\n")
        assert one.down and other.down
        assert one.up.checksum == other.up.checksum == checksum("SELECT 1;\n")
        assert one.down.checksum != other.down.checksum

    @pytest.mark.parametrize("down", ["", "-- migrate:down\n", "-- migrate:down\n-- nothing to do\n\n"])
    def test_an_empty_section_takes_nothing_back(self, tmp_path: Path, down: str) -> None:
        assert self.read(tmp_path, f"-- migrate:up\nSELECT 1;\n{down}").down is None

    @pytest.mark.parametrize(
        "text",
        [
            "-- migrate:up\nSELECT '\n-- migrate:down\n';\n",
            "-- migrate:up\nDO $$ BEGIN\n-- migrate:down\nEND $$;\n",
            "-- migrate:up\nSELECT 1; /*\n-- migrate:down\n*/\n",
        ],
    )
    def test_what_only_looks_like_a_marker_divides_nothing(self, tmp_path: Path, text: str) -> None:
        found = self.read(tmp_path, text)
        assert found.down is None
        assert len(check_scripts([found.up])[0].statements) == 1

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("SELECT 1;\n-- migrate:up\n", "line 1: stands above the first section"),
            (
                "-- migrate:no-transaction\n-- migrate:up\nVACUUM;\n",
                "stands above the sections: write it behind the one",
            ),
            ("-- migrate:up\n-- migrate:up\n", "line 2: a second section migrate:up"),
            ("-- migrate:down\nSELECT 1;\n", "has a section migrate:down, and none migrate:up"),
            ("-- migrate:up transaction:maybe\n", "line 1: unknown option 'transaction:maybe'"),
            ("-- migrate:up\n-- migrate:fast\nSELECT 1;\n", "line 2: unknown directive migrate:fast"),
        ],
    )
    def test_what_cannot_be_divided(self, tmp_path: Path, text: str, problem: str) -> None:
        (tmp_path / "001_a.sql").write_text(text)
        assert problem in problems(tmp_path)[0]

    def test_both_formats_of_one_version_are_a_duplicate(self, tmp_path: Path) -> None:
        (tmp_path / "001_a.sql").write_text("-- migrate:up\n")
        (tmp_path / "001_a.up.sql").touch()
        assert "version 1 exists twice: 001_a.sql and 001_a.up.sql" in problems(tmp_path)[0]


class TestUnwrap:
    def scripts(self, directory: Path, text: str) -> list[Script]:
        (directory / "001_a.up.sql").write_text(text)
        return [migration.up for migration in read_directory(directory).migrations]

    @pytest.mark.parametrize(("begin", "commit"), [("BEGIN", "COMMIT"), ("start transaction", "END WORK")])
    def test_takes_off_what_is_around_the_whole_file(self, tmp_path: Path, begin: str, commit: str) -> None:
        scripts = self.scripts(tmp_path, f"-- why\n{begin};\nSELECT 1;\nSELECT 2;\n{commit};\n")
        (checked,) = check_scripts(scripts, unwrap=True)
        assert [it.text for it in checked.statements] == ["SELECT 1", "SELECT 2"]
        with pytest.raises(MigrationFilesError) as error:
            check_scripts(scripts)
        assert len(error.value.evidence) == 2 and "unwrap takes off" in error.value.evidence[0]

    @pytest.mark.parametrize(
        "text",
        [
            "BEGIN;\nSELECT 1;\n",
            "SELECT 1;\nCOMMIT;\n",
            "BEGIN ISOLATION LEVEL SERIALIZABLE;\nSELECT 1;\nCOMMIT;\n",
            "BEGIN;\nSELECT 1;\nCOMMIT AND CHAIN;\n",
            "BEGIN;\nSELECT 1;\nCOMMIT;\nBEGIN;\nSELECT 1;\nCOMMIT;\n",
        ],
    )
    def test_anything_else_is_still_refused(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(MigrationFilesError):
            check_scripts(self.scripts(tmp_path, text), unwrap=True)


def test_check_names_every_place(tmp_path: Path) -> None:
    (tmp_path / "001_a.up.sql").write_text("SELECT 1;\nCOMMIT;\nVACUUM;\n")
    (tmp_path / "002_b.up.sql").write_text("-- migrate:no-transaction\nBEGIN;\nSET ROLE x;\nVACUUM;\n")
    (tmp_path / "003_c.up.sql").write_text("SELECT 'open")
    scripts = [migration.up for migration in read_directory(tmp_path).migrations]
    with pytest.raises(MigrationFilesError) as error:
        check_scripts(scripts)
    places = [":".join(problem.split(":")[:2]) for problem in error.value.evidence]
    assert places == ["001_a.up.sql:2", "001_a.up.sql:3", "002_b.up.sql:2", "002_b.up.sql:3", "003_c.up.sql:1"]
