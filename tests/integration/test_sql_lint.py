"""The module sql_lint and the role's entry point, with the real linter, run by Ansible."""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.roastify.ops.plugins.module_utils import squawk
from ansible_collections.roastify.ops.plugins.module_utils.squawk import EXCLUDED_RULES, LintError, LintOptions
from migration_host import ROOT, ansible_playbook

FILES = {
    "001_start.up.sql": "CREATE TABLE orders (id int);\nCREATE INDEX orders_id ON orders (id);\n",
    "002_index.up.sql": "\nCREATE INDEX orders_note ON orders (note);\n",
    "002_index.down.sql": "DROP INDEX orders_note;\nDROP TABLE gone;\n",
    "003_slow.up.sql": "-- migrate:no-transaction\nCREATE INDEX CONCURRENTLY orders_total ON orders (total);\n",
    "004_drop.up.sql": (
        "ALTER TABLE orders DROP COLUMN old;\n"
        "-- squawk-ignore ban-drop-table\n"
        "DROP TABLE gone;\n"
        "ALTER TABLE orders RENAME COLUMN a TO b;\n"
    ),
    "005_both.sql": (
        "-- migrate:up\nALTER TABLE orders ADD CONSTRAINT k CHECK (a > 0);\n-- migrate:down\nDROP TABLE x;\n"
    ),
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "migrations"
    path.mkdir()
    for name, text in FILES.items():
        (path / name).write_text(text)
    return path


def play(directory: Path, *tasks: dict[str, Any], check: bool = False) -> dict[str, dict[str, Any]]:
    """What the tasks of a play on this machine answered."""
    playbook = directory / "play.yml"
    variables = {"ansible_python_interpreter": sys.executable}
    document = [
        {"hosts": "somewhere", "connection": "local", "gather_facts": False, "vars": variables, "tasks": list(tasks)}
    ]
    playbook.write_text(json.dumps(document))
    process = ansible_playbook(
        *("-i", "somewhere,", str(playbook), *(["--check"] if check else [])),
        ANSIBLE_STDOUT_CALLBACK="ansible.posix.json",
    )
    output = process.stdout
    assert "{" in output, output + process.stderr
    answer = json.loads(output[output.index("{") :])
    return {
        task["task"]["name"].rpartition(" : ")[2]: task["hosts"]["somewhere"]
        for task in answer["plays"][0]["tasks"]
        if task["hosts"]
    }


def task(name: str, path: Path, **options: Any) -> dict[str, Any]:
    return {"name": name, "roastify.ops.sql_lint": {"path": str(path), **options}, "ignore_errors": True}


def found(result: dict[str, Any]) -> list[tuple[str, int, str]]:
    return [(it["file"], it["line"], it["rule"]) for it in result["findings"]]


ALL = [
    ("002_index.up.sql", 2, "require-concurrent-index-creation"),
    ("004_drop.up.sql", 1, "ban-drop-column"),
    ("004_drop.up.sql", 4, "renaming-column"),
    ("005_both.sql", 2, "constraint-missing-not-valid"),
]


def test_true_findings_with_their_locks(tmp_path: Path, directory: Path) -> None:
    # Neither this one nor any other found by going up counts.
    (tmp_path / ".squawk.toml").write_text('excluded_rules = ["ban-drop-column"]\n')
    (directory / ".squawk.toml").write_text('excluded_rules = ["ban-drop-column"]\n')
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    results = play(
        tmp_path,
        task("All", directory, pg_version="15"),
        task("Pending", directory, applied=applied("1", "0002", "3")),
        task("Down", directory, include_down=True),
        task("Excluded", directory, excluded_rules=[*EXCLUDED_RULES, "ban-drop-column", "renaming-column"]),
        task(
            "Included",
            directory,
            included_rules=["require-table-schema"],
            applied=applied("1", "2", "3", "4"),
        ),
        check=True,
    )
    everything = results["All"]
    assert found(everything) == ALL
    assert (everything["changed"], everything["unsafe"]) == (False, 4)
    assert everything["files"] == [name for name in FILES if ".down." not in name]
    assert everything["remarks"] == ["down scripts are not linted: 2"]
    assert "001_start.up.sql" not in everything["locks"]
    assert [lock["text"] for lock in everything["locks"]["003_slow.up.sql"]] == [
        "SHARE UPDATE EXCLUSIVE on orders: blocks schema changes and vacuum; reads the whole table to build an index"
    ]
    assert [(lock["line"], lock["mode"], lock["blocks"]) for lock in everything["locks"]["005_both.sql"]] == [
        (2, "ACCESS EXCLUSIVE", "reads and writes")
    ]
    assert any(line.startswith("002_index.up.sql:2  SHARE on orders") for line in everything["lines"])
    assert any(line.startswith("004_drop.up.sql:1   ban-drop-column") for line in everything["lines"])

    pending = results["Pending"]
    assert found(pending) == ALL[1:]
    assert pending["remarks"] == ["down scripts are not linted: 1", "applied already and not linted: 3"]
    assert ("002_index.down.sql", 2, "ban-drop-table") in found(results["Down"])
    assert ("005_both.sql", 4, "ban-drop-table") in found(results["Down"])
    assert found(results["Excluded"]) == [ALL[0], ALL[3]]
    assert ("005_both.sql", 2, "require-table-schema") in found(results["Included"])
    assert before == {path.name: path.read_bytes() for path in directory.iterdir()}


def test_waivers_and_refusal(tmp_path: Path, directory: Path) -> None:
    waivers = {
        "002_index.up.sql": ["require-concurrent-index-creation"],
        "004_drop.up.sql": ["ban-drop-column"],
        "005_both.sql": ["*"],
    }
    results = play(
        tmp_path,
        task("Waived", directory, waivers=waivers),
        task("Refused", directory, waivers=waivers, fail_on_findings=True),
        task("Accepted", directory, waivers={**waivers, "004_drop.up.sql": ["*"]}, fail_on_findings=True),
    )
    waived = results["Waived"]
    assert [(it["rule"], it["waived"]) for it in waived["findings"]] == [
        ("require-concurrent-index-creation", True),
        ("ban-drop-column", True),
        ("renaming-column", False),
        ("constraint-missing-not-valid", True),
    ]
    assert waived["unsafe"] == 1
    assert results["Refused"]["failed"]
    assert "hold 1 unsafe statements; nothing was run" in results["Refused"]["msg"]
    assert "004_drop.up.sql:4   renaming-column" in results["Refused"]["msg"]
    assert found(results["Refused"]) == found(waived)
    assert not results["Accepted"].get("failed")
    assert results["Accepted"]["unsafe"] == 0


def test_a_release_artifact_is_linted_like_its_directory(tmp_path: Path, directory: Path) -> None:
    path = tmp_path / "shop.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(directory, "migrations")
        archive.add(directory / "001_start.up.sql", "db/001_start.up.sql")
    results = play(
        tmp_path, task("Artifact", path), task("Other", path, directory_in_archive="db"), task("Directory", directory)
    )
    assert results["Artifact"]["findings"] == results["Directory"]["findings"]
    assert results["Artifact"]["locks"] == results["Directory"]["locks"]
    assert (results["Other"]["files"], results["Other"]["findings"]) == (["001_start.up.sql"], [])


def test_everything_wrong_is_told_at_once(tmp_path: Path, directory: Path) -> None:
    wrong = play(
        tmp_path,
        task(
            "Wrong",
            directory,
            applied=[{"version": "seven"}],
            pg_version="fifteen",
            excluded_rules=["no-such-rule", "ban-drop-column", "a,b", "--config"],
            included_rules=["nor-this-one"],
            waivers={"009_absent.up.sql": ["ban-drop-column"], "004_drop.up.sql": ["ban-dorp-column"]},
        ),
        task("Absent", tmp_path / "absent"),
        task("No list", directory, waivers={"004_drop.up.sql": "ban-drop-column"}),
    )
    for part in (
        "applied: 'seven' is not a version",
        "pg_version: 'fifteen' is not a version of PostgreSQL",
        "excluded_rules: there is no rule no-such-rule",
        "excluded_rules: there is no rule a,b",
        "excluded_rules: there is no rule --config",
        "included_rules: there is no rule nor-this-one",
        "waivers: there is no file 009_absent.up.sql",
        "waivers of 004_drop.up.sql: there is no rule ban-dorp-column",
    ):
        assert part in wrong["Wrong"]["msg"]
    assert "rule ban-drop-column" not in wrong["Wrong"]["msg"]
    assert "No such file or directory" in wrong["Absent"]["msg"]
    assert "needs a list of rules" in wrong["No list"]["msg"]


def test_every_rule_that_is_left_out_by_default_exists(directory: Path) -> None:
    squawk.lint(squawk.read_migrations(directory), [], LintOptions())
    with pytest.raises(LintError, match="do not exist") as caught:
        squawk.lint(squawk.read_migrations(directory), [], LintOptions(excluded_rules=[*EXCLUDED_RULES, "x"]))
    assert caught.value.evidence == ["excluded_rules: there is no rule x"]


def test_transactions_are_assumed_where_the_runner_makes_one(tmp_path: Path) -> None:
    sql = "CREATE INDEX CONCURRENTLY i ON orders (a);\nCREATE INDEX CONCURRENTLY j ON orders (b);\n"
    (tmp_path / "1_inside.up.sql").write_text(sql)
    (tmp_path / "2_outside.up.sql").write_text(f"-- migrate:no-transaction\n{sql}")
    (tmp_path / "3_own.up.sql").write_text("BEGIN;\nDROP TABLE a;\nCOMMIT;\n")
    report = squawk.lint(squawk.read_migrations(tmp_path), [], LintOptions(pg_version="15"))
    rules = {(finding.file, finding.rule) for finding in report.findings}
    assert ("1_inside.up.sql", "ban-concurrent-index-creation-in-transaction") in rules
    assert not any(file == "2_outside.up.sql" for file, _rule in rules)
    assert ("3_own.up.sql", "transaction-nesting") in rules


def test_odd_names_and_broken_files(tmp_path: Path) -> None:
    (tmp_path / "1_a [b]*?{c} é.up.sql").write_text("\nDROP TABLE a;\n")
    (tmp_path / "2_b.up.sql").write_text("SELECT 'never closed;\n")
    (tmp_path / "3_c.up.sql").write_text("ALTER TABEL x;\n")
    (tmp_path / "4_d.up.sql").write_text("")
    report = squawk.lint(squawk.read_migrations(tmp_path), [], LintOptions(waivers={"2_b.up.sql": ["syntax-error"]}))
    rules = {(finding.file, finding.line, finding.rule, finding.waived) for finding in report.findings}
    assert ("1_a [b]*?{c} é.up.sql", 2, "ban-drop-table", False) in rules
    assert ("2_b.up.sql", 1, "syntax-error", True) in rules
    assert ("3_c.up.sql", 1, "syntax-error", False) in rules
    assert "never closed" in str(report.findings)
    assert squawk.lint(squawk.read_migrations(tmp_path), ["1", "2", "3", "4"], LintOptions()).findings == ()


def test_five_hundred_files_are_linted_in_one_go(tmp_path: Path) -> None:
    for number in range(1, 501):
        (tmp_path / f"{number:03}_m.up.sql").write_text(
            f"CREATE TABLE t{number} (id bigint, v text);\nCREATE INDEX i{number} ON t{number} (v);\nDROP TABLE old;\n"
        )
    migrations = squawk.read_migrations(tmp_path)
    report = squawk.lint(migrations, [], LintOptions(pg_version="15"))
    assert [finding.rule for finding in report.findings] == ["ban-drop-table"] * 500


def applied(*versions: str) -> list[dict[str, str]]:
    return [{"version": version} for version in versions]


def entry_point(directory: Path, **variables: Any) -> dict[str, Any]:
    return {
        "name": "Lint",
        "ansible.builtin.include_role": {"name": "roastify.ops.db_migrate", "tasks_from": "lint"},
        "vars": {"db_migrate_lint_path": str(directory), **variables},
    }


LINT, SHOW, CONTRADICTION, REFUSE = (
    it["name"] for it in yaml.safe_load((ROOT / "roles/db_migrate/tasks/lint.yml").read_text())
)


def test_the_entry_point_warns_or_refuses_or_does_nothing(tmp_path: Path, directory: Path) -> None:
    warned = play(tmp_path, entry_point(directory, db_migrate_lint_applied=applied("1", "2", "3")))
    assert found(warned[LINT]) == ALL[1:]
    assert warned[SHOW]["msg"] == "\n".join(warned[LINT]["lines"])
    assert "failed" not in warned[REFUSE]

    changed = [{"version": "1", "name": "start", "checksum": "sha256:other", "applied_by": "ann"}]
    stopped = play(tmp_path, entry_point(directory, db_migrate_lint_applied=changed))
    assert stopped[CONTRADICTION]["failed"]
    assert "was changed after it was applied by ann" in stopped[CONTRADICTION]["msg"]

    refused = play(tmp_path, entry_point(directory, db_migrate_lint="fail"))
    assert refused[REFUSE]["failed"]
    assert refused[REFUSE]["msg"].startswith(
        "4 unsafe statements in the migrations, listed above; nothing was changed."
    )

    waivers = {file: ["*"] for file, _line, _rule in ALL}
    accepted = play(tmp_path, entry_point(directory, db_migrate_lint="fail", db_migrate_lint_waivers=waivers))
    assert accepted[LINT]["unsafe"] == 0
    assert "failed" not in accepted[REFUSE]

    for off in ("off", False):  # YAML takes an unquoted off for a boolean
        nothing = play(tmp_path, entry_point(directory, db_migrate_lint=off))
        assert nothing[LINT]["skipped"] and nothing[SHOW]["skipped"] and nothing[REFUSE]["skipped"]
