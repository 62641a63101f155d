"""The command line of the environment's validation, and what pip and pre-commit take it from."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.roastify.ops.plugins.module_utils import env_check, env_format

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/roastify"
SCHEMA = """\
variables:
  PORT: {type: port, required: true}
  KEY: {secret: true, min_length: 32}
environments:
  local: {}
  production: {}
"""
SECRET = "cAnArY9z8y7x6w5v4u3t2s"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "env.schema.yml").write_text(SCHEMA)
    (tmp_path / "good.env").write_text("PORT=5000\n")
    (tmp_path / "bad.env").write_text(f"KEY={SECRET}\nPROT=1\n")
    return tmp_path


def test_problems_are_lines_that_editors_understand(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert env_check.main(["validate", "bad.env", "--environment", "production"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "bad.env: error: PORT is not set but required. PROT is set: if that is meant, rename it. Set it. [missing]",
        "bad.env:1: error: KEY is shorter than 32 characters (found 22 characters: lower-case letters, upper-case "
        "letters, digits). Use 32 characters or more. [too_short]",
        "bad.env:2: warning: PROT is not in the schema. Did you mean PORT? [unknown]",
        "bad.env: 2 errors and 1 warning for production",
    ]


def test_a_good_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert env_check.main(["validate", "good.env"]) == 0
    assert capsys.readouterr().out == "good.env: fine by the rules that hold everywhere (1 variable)\n"


def test_a_file_that_says_its_environment_is_judged_by_that(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "own.yml").write_text(
        "variables:\n  WHERE: {type: enum, values: [local, production]}\n"
        "  KEY: {environments: {production: {required: true}}}\n"
        "environments: {local: {}, production: {}}\nenvironment_variable: WHERE\n"
    )
    (here / "own.env").write_text("WHERE=production\n")
    assert env_check.main(["validate", "own.env", "--schema", "own.yml"]) == 1
    assert "KEY is not set but required in production." in capsys.readouterr().out
    assert env_check.main(["validate", "own.env", "--schema", "own.yml", "--environment", "local"]) == 1
    assert "WHERE is production, but this is local." in capsys.readouterr().out
    (here / "own.env").write_text("WHERE=local\n")
    assert env_check.main(["validate", "own.env", "--schema", "own.yml"]) == 0
    assert capsys.readouterr().out == "own.env: fine for local (1 variable)\n"


def test_for_machines(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert env_check.main(["validate", "good.env", "bad.env", "--format", "json", "--unknown", "ignore"]) == 1
    text = capsys.readouterr().out
    assert SECRET not in text
    result = json.loads(text)
    assert result["valid"] is False
    assert [(file["path"], file["valid"], file["variables"]) for file in result["files"]] == [
        ("good.env", True, ["PORT"]),
        ("bad.env", False, ["KEY", "PROT"]),
    ]
    assert result["files"][1]["problems"][1] == {
        "severity": "error",
        "code": "too_short",
        "variable": "KEY",
        "line": 1,
        "found": "22 characters: lower-case letters, upper-case letters, digits",
        "message": "KEY is shorter than 32 characters (found 22 characters: lower-case letters, upper-case letters, "
        "digits).",
        "remedy": "Use 32 characters or more.",
    }


def test_warnings_count_where_they_are_to(here: Path) -> None:
    (here / "warned.env").write_text("PORT=1\nSOMETHING_ELSE=1\n")
    assert env_check.main(["validate", "warned.env"]) == 0
    assert env_check.main(["validate", "warned.env", "--strict"]) == 1
    assert env_check.main(["validate", "warned.env", "--unknown", "error"]) == 1


def test_standard_input(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"PORT=x\n")))
    assert env_check.main(["validate", "-"]) == 1
    assert capsys.readouterr().out.startswith("stdin:1: error: PORT is not a port")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["validate", "missing.env"], "missing.env cannot be read: No such file or directory"),
        (["validate", "good.env", "--schema", "no.yml"], "no.yml cannot be read: No such file or directory"),
        (["validate", "good.env", "--environment", "prod"], "knows no environment prod, but local, production"),
        (["check-schema", "broken.yml"], "broken.yml:2 is not valid YAML"),
        (["check-schema", "twice.yml"], "twice.yml:3 has the key A again (first in line 2)"),
    ],
)
def test_what_cannot_be_used(
    here: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "broken.yml").write_text("a: 1\nb: {c: d: e}\n")
    (here / "twice.yml").write_text("variables:\n  A: {}\n  A: {}\n")
    assert env_check.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err


@pytest.mark.parametrize("arguments", [[], ["validate"], ["validate", "good.env", "--format", "xml"], ["nonsense"]])
def test_wrong_usage(here: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        env_check.main(arguments)
    assert caught.value.code == 2


def test_a_wrong_schema_has_lines_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "env.schema.yml").write_text(
        "variables:\n  A:\n    type: port\n    min: x\n  B: {}\n  a.b: {}\ngroups:\n"
        "  - {rule: all_or_none, variables: [A, B]}\n  - rule: some\n    variables: [A, B]\nunknown: x\n"
    )
    expected = [
        "env.schema.yml:11: error: unknown: must be ignore, warning or error [schema]",
        "env.schema.yml:4: error: variables.A.min: must be a number [schema]",
        "env.schema.yml:6: error: variables.a.b: is not a name for an environment variable [schema]",
        "env.schema.yml:9: error: groups[1].rule: must be all_or_none or exactly_one or at_least_one or at_most_one "
        "[schema]",
    ]
    assert env_check.main(["check-schema"]) == 1
    assert capsys.readouterr().out.splitlines() == expected
    assert env_check.main(["validate", "good.env"]) == 2
    assert capsys.readouterr().out.splitlines() == expected


def test_a_good_schema(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(EXAMPLE / "env.schema.yml")
    assert env_check.main(["check-schema", path]) == 0
    assert re.fullmatch(re.escape(path) + r": fine \(\d+ variables\)\n", capsys.readouterr().out)


def test_the_json_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert env_check.main(["json-schema"]) == 0
    assert json.loads(capsys.readouterr().out) == env_format.json_schema()


def test_examples_out_of_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "env.schema.yml").write_text((EXAMPLE / "env.schema.yml").read_text(encoding="utf-8"))
    path = str(tmp_path / "env.schema.yml")
    example = tmp_path / "backend/.env.production.example"
    assert env_check.main(["examples", "--check", path]) == 1
    assert f"{example}: error: it is not what {path} makes of it" in capsys.readouterr().out
    assert not example.exists()
    assert env_check.main(["examples", path]) == 0
    assert env_check.main(["examples", "--check", path]) == 0
    assert example.read_text(encoding="utf-8") == (EXAMPLE / "backend/.env.production.example").read_text("utf-8")
    example.write_text("PORT=1\n")
    assert env_check.main(["examples", "--check", path]) == 1


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {**os.environ, "PYTHONPATH": str(ROOT / "collections"), **environment}
    command = [sys.executable, "-m", "ansible_collections.roastify.ops.plugins.module_utils.env_check", *arguments]
    return subprocess.run(command, env=own, capture_output=True, text=True, timeout=60, check=False)


def test_as_a_command_of_its_own(here: Path) -> None:
    assert run("validate", "good.env").returncode == 0
    (here / "env.schema.yml").write_text("variables: {LOG: {type: log_group}}")
    (here / "bad.env").write_text("LOG=aws/x\n")
    bad = run("validate", "bad.env", PYTHONIOENCODING="ascii")
    assert (bad.returncode, bad.stderr) == (1, "")
    assert "Begin it with a slash, as in /aws/ec2/\\u2026" in bad.stdout
    assert run("validate").returncode == 2


def test_without_pyyaml(here: Path) -> None:
    (here / "hidden").mkdir()
    (here / "hidden/yaml.py").write_text("raise ImportError\n")
    path = os.pathsep.join([str(here / "hidden"), str(ROOT / "collections")])
    result = run("validate", "good.env", PYTHONPATH=path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "env-check: env.schema.yml is not JSON, and this host has no PyYAML to read YAML with: install it "
        "(pip install PyYAML), or give the schema as JSON\n"
    )
    (here / "env.schema.json").write_text(json.dumps(yaml.safe_load(SCHEMA)))
    assert run("validate", "good.env", "--schema", "env.schema.json", PYTHONPATH=path).returncode == 0


# --- what pip and pre-commit take it from ---


def test_the_package_is_of_the_version_of_the_collection() -> None:
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["version"]
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("hook", "path", "checked"),
    [
        ("env-validate", ".env", True),
        ("env-validate", "backend/.env.local", True),
        ("env-validate", "deploy/production.env", True),
        ("env-validate", ".env.example", False),
        ("env-validate", "backend/.env.aws.example", False),
        ("env-validate", ".env.sample", False),
        ("env-validate", ".envrc", False),
        ("env-validate", "src/environment.js", False),
        ("env-validate", "env.schema.yml", False),
        ("env-examples", "examples/roastify/env.schema.yml", True),
        ("env-examples", "backend/.env.aws.example", True),
        ("env-examples", ".env", False),
    ],
)
def test_files_that_hooks_look_at(hook: str, path: str, checked: bool) -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    own = {entry["id"]: entry for entry in hooks}[hook]
    found = re.search(own["files"], path) and not re.search(own.get("exclude", "^$"), path)
    assert bool(found) is checked
