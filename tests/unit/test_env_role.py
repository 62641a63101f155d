"""The role app_env and the modules through ansible-playbook, at -vvv: no secret shows."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.roastify.ops.plugins.module_utils import dotenv

ROOT = Path(__file__).parents[2]
PASSWORD = "cAnArY'p4\"ss #w0rd$9z"
JWT = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
GOOD: dict[str, Any] = {
    "NODE_ENV": "production",
    "PORT": 5000,
    "APP_URL": "https://roastify.online",
    "PG_HOST": "db.internal",
    "PG_DATABASE": "roastify",
    "PG_USER": "roastify_admin",
    "PG_PASSWORD": PASSWORD,
    "PG_SSL": True,
    "JWT_SECRET": JWT,
    "AWS_REGION": "us-east-1",
    "S3_BUCKET": "roastify-storage",
    "SMTP_HOST": None,
    "CLOUDWATCH_LOG_GROUP": "/aws/ec2/roastify",
}


def pieces(secret: str) -> list[str]:
    return [secret[start : start + 8] for start in range(len(secret) - 7)]


class Playbook:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "shared" / ".env"

    def run(self, tasks: list[dict[str, Any]], variables: dict[str, Any], *arguments: str) -> tuple[int, str]:
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {
                "ansible_python_interpreter": sys.executable,
                "app_env_path": str(self.path),
                "app_env_owner": str(os.getuid()),
                "app_env_group": str(os.getgid()),
                "app_env_schema": str(ROOT / "examples" / "roastify" / "env.schema.yml"),
            },
            "tasks": tasks,
        }
        (self.directory / "playbook.yml").write_text(yaml.safe_dump([play]))
        # As a file of variables, as an inventory has them: extra variables are part of the command line.
        (self.directory / "variables.json").write_text(json.dumps({"app_env_variables": variables}))
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                "--inventory=localhost,",
                f"--extra-vars=@{self.directory / 'variables.json'}",
                str(self.directory / "playbook.yml"),
                *arguments,
            ],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_HOME": str(self.directory / "ansible"), "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout + done.stderr

    def role(self, variables: dict[str, Any], *arguments: str, entry: str = "main") -> tuple[int, str]:
        task = {"ansible.builtin.import_role": {"name": "roastify.ops.app_env", "tasks_from": entry}}
        return self.run([task], variables, *arguments)


@pytest.fixture
def playbook(tmp_path: Path) -> Playbook:
    return Playbook(tmp_path)


def assert_silent(output: str) -> None:
    for secret in (PASSWORD, JWT):
        found = [piece for piece in pieces(secret) if piece in output]
        assert found == []


def test_installs_and_shows_no_secret(playbook: Playbook) -> None:
    status, output = playbook.role(GOOD, "--check", "--diff", "-vvv")
    assert status == 0, output
    assert not playbook.path.exists()
    assert_silent(output)

    status, output = playbook.role(GOOD, "--diff", "-vvv")
    assert status == 0, output
    assert "changed=1" in output
    assert "+PG_PASSWORD=(new)" in output
    assert_silent(output)
    assert stat.S_IMODE(playbook.path.stat().st_mode) == 0o600
    read = dotenv.to_mapping(dotenv.parse(playbook.path.read_text(encoding="utf-8")))
    assert read["PG_PASSWORD"] == PASSWORD
    assert read["PG_SSL"] == "true"
    assert "SMTP_HOST" not in read

    status, output = playbook.role(GOOD, "--diff", "-vvv")
    assert status == 0, output
    assert "changed=0" in output
    assert_silent(output)


def test_a_bad_environment_changes_nothing_and_lists_everything(playbook: Playbook) -> None:
    bad = {**GOOD, "PG_SSL": False, "JWT_SECRET": JWT[:40], "S3_BUCKET": None, "PGPORT": 1}
    for entry in ("main", "validate"):
        status, output = playbook.role(bad, "--diff", "-vvv", entry=entry)
        assert status == 2
        assert not playbook.path.exists()
        for message in (
            "The environment in app_env_variables is not fit for production: 3 problems.",
            "- PG_SSL must be true in production (found 'false'). Set it to true,",
            "- JWT_SECRET is shorter than 64 characters in production (found 40 characters: ",
            "- S3_BUCKET is not set but required in production.",
        ):
            assert message in output, output
        assert "PGPORT is not in the schema. Did you mean PG_PORT?" in output
        assert_silent(output)


def test_a_port_where_nobody_asks_for_the_health_is_a_problem(playbook: Playbook) -> None:
    tasks = [
        {
            "ansible.builtin.import_role": {"name": "roastify.ops.app_env", "tasks_from": "validate"},
            "vars": {"app_env_port": 5001, "app_env_fail": False},
        },
        {"ansible.builtin.debug": {"msg": "{{ app_env_problems }}"}},
    ]
    status, output = playbook.run(tasks, GOOD)
    assert status == 0, output
    text = " ".join(output.split())
    assert "is not fit for production: 1 problem" in text
    assert "PORT is 5000, but a deployment asks the application for its health at port 5001" in text
    assert playbook.role(GOOD, "-e", "app_env_port=5000", entry="validate")[0] == 0
    status, output = playbook.role({**GOOD, "PORT": 99999}, "-e", "app_env_port=5001", entry="validate")
    assert status == 2 and "is not fit for production: 1 problem" in output, output


def test_validation_alone_changes_nothing(playbook: Playbook) -> None:
    status, output = playbook.role(GOOD, "-vvv", entry="validate")
    assert status == 0, output
    assert "changed=0" in output
    assert not playbook.path.exists()
    assert_silent(output)


def test_env_validate_reads_a_file(playbook: Playbook) -> None:
    source = playbook.directory / "some.env"
    source.write_text(dotenv.render({**GOOD, "PG_SSL": "ture"}), encoding="utf-8")
    task = {
        "name": "Validate",
        "roastify.ops.env_validate": {
            "path": str(source),
            "schema_file": "{{ app_env_schema }}",
            "environment": "production",
        },
    }
    status, output = playbook.run([task], {}, "-vvv")
    assert status == 2
    assert f"{source}:8: PG_SSL must be true (found" in " ".join(output.split())
    assert_silent(output)


def test_env_validate_hides_a_mapping_and_can_go_on(playbook: Playbook) -> None:
    tasks = [
        {
            "name": "Validate",
            "roastify.ops.env_validate": {
                "variables": {**GOOD, "PG_SSL": False},
                "schema_file": "{{ app_env_schema }}",
                "environment": "production",
                "fail": False,
            },
            "register": "checked",
        },
        {"name": "Tell", "ansible.builtin.assert": {"that": ["not checked.valid", "checked.problems | length == 1"]}},
    ]
    status, output = playbook.run(tasks, {}, "-vv")
    assert status == 0, output
    assert_silent(output)


def test_a_wrong_schema_is_told(playbook: Playbook) -> None:
    task = {
        "name": "Validate",
        "roastify.ops.env_validate": {"content": "A=1", "schema": {"variables": {"A": {"type": "prt"}}}},
    }
    status, output = playbook.run([task], {})
    assert status == 2
    assert "the schema of the environment is wrong: variables.A: unknown type prt, did you mean port?" in output
