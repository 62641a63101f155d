"""What does not need the linter itself: reading migrations, the table for people, agreement of the defaults."""

from __future__ import annotations

import io
import stat
import tarfile
from pathlib import Path

import pytest
import yaml
from ansible_collections.roastify.ops.plugins.module_utils import sql_locks, sql_statements, squawk
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.squawk import Finding, LintError, LintOptions, LintReport

CHECKOUT = Path(__file__).parents[2]


def archive(path: Path, members: dict[str, str], links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return path


def test_an_archive_gives_the_migrations_of_its_directory_only(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "a.tar.gz",
        {
            "server.js": "",
            "migrations/001_a.up.sql": "SELECT 1;\n",
            "./migrations/002_b.sql": "-- migrate:up\nSELECT 2;\n-- migrate:down\nSELECT 3;\n",
            "migrations/README.md": "not SQL",
            "migrations/deeper/003_c.up.sql": "SELECT 4;\n",
            "node_modules/x/migrations/004_d.up.sql": "SELECT 5;\n",
            "../migrations/005_e.up.sql": "SELECT 6;\n",
        },
    )
    read = squawk.read_migrations(path)
    assert [migration.up.file for migration in read.migrations] == ["001_a.up.sql", "002_b.sql"]
    assert read.migrations[1].up.text.strip().endswith("SELECT 2;")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.tar.gz"]


def test_another_directory_of_an_archive(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.gz", {"db/sql/1_a.up.sql": "SELECT 1;\n", "migrations/2_b.up.sql": ""})
    assert [it.version for it in squawk.read_migrations(path, "db/sql/").migrations] == ["1"]


def test_archives_that_cannot_be_used(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.tar.gz"
    garbage.write_text("no archive")
    whole = archive(tmp_path / "whole.tar.gz", {f"migrations/{n}_a.up.sql": "SELECT 1;\n" * n for n in range(1, 50)})
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(whole.read_bytes()[:-200])
    cases = {
        garbage: "cannot be read: not a gzip file",
        cut: "cannot be read",
        archive(tmp_path / "empty.tar.gz", {"server.js": ""}): "holds no directory migrations",
        archive(tmp_path / "link.tar.gz", {}, {"migrations/1_a.up.sql": "/etc/passwd"}): "1_a.up.sql: not a regular",
        archive(tmp_path / "twice.tar.gz", {"migrations/1_a.up.sql": "", "migrations/1_b.up.sql": ""}): (
            f"migrations of {tmp_path}/twice.tar.gz cannot be used"
        ),
        tmp_path / "absent": "cannot be read from",
    }
    for path, message in cases.items():
        with pytest.raises(OperationError) as caught:
            squawk.read_migrations(path)
        assert message in str(caught.value), path


def test_the_table_shows_findings_beside_what_they_are_about() -> None:
    claims = sql_locks.locks_of(sql_statements.split("INSERT INTO t VALUES (1);\nDROP TABLE t;\nDO '';"))
    findings = (
        Finding("1_a.up.sql", 2, 1, "ban-drop-table", "Dropping.", "", True),
        Finding("1_a.up.sql", 2, 1, "other", "Bad.", "Do better.", False),
    )
    report = LintReport(("1_a.up.sql", "2_b.up.sql"), findings, {"1_a.up.sql": claims})
    assert report.lines() == [
        "where         lock or rule                                            blocks            why",
        "1_a.up.sql:2  ACCESS EXCLUSIVE on t and the tables that t references  reads and writes  DROP TABLE t",
        "1_a.up.sql:2  ban-drop-table                                                            waived: Dropping.",
        "1_a.up.sql:2  other                                                                     Bad. Do better.",
        "1_a.up.sql:3  unknown                                                 unknown           "
        "DO ''; a DO block may do anything",
    ]
    assert [finding.rule for finding in report.unsafe] == ["other"]
    assert report.as_dict()["unsafe"] == 1
    assert LintReport((), (), {}).lines() == []


def test_a_missing_linter_is_told_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(LintError, match=r"neither in .* nor on PATH") as caught:
        squawk.find_program()
    assert "requirements/controller.txt" in caught.value.remedy
    for directory in (tmp_path / "bin", tmp_path):
        directory.mkdir(exist_ok=True)
        program = directory / "squawk"
        program.write_text("#!/bin/sh\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        assert squawk.find_program() == str(program)


def other_linter(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_a_linter_that_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "1_a.up.sql").write_text("SELECT 1;\n")
    migrations = squawk.read_migrations(tmp_path)
    cases = {
        "echo hello": "gave no usable answer",
        "echo '[{}]'": "gave no usable answer",
        "echo broken >&2; exit 3": "exit status 3",
        "sleep 20": "did not answer within 0.2 seconds",
    }
    for script, message in cases.items():
        with pytest.raises(LintError, match=message):
            squawk.lint(migrations, [], LintOptions(timeout=0.2), other_linter(tmp_path / "other", script))
    with pytest.raises(LintError, match="cannot be run: No such file"):
        squawk.lint(migrations, [], LintOptions(), str(tmp_path / "absent"))


def test_the_defaults_are_the_same_everywhere() -> None:
    wanted = list(squawk.EXCLUDED_RULES)
    defaults = yaml.safe_load((CHECKOUT / "roles/db_migrate/defaults/main.yml").read_text())
    assert defaults["db_migrate_lint_excluded_rules"] == wanted
    module = (CHECKOUT / "plugins/modules/sql_lint.py").read_text()
    documentation = yaml.safe_load(module.split('DOCUMENTATION = r"""', 1)[1].split('"""', 1)[0])
    assert documentation["options"]["excluded_rules"]["default"] == wanted
