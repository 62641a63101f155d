"""This machine as a managed host with migrations and a database, for the tests of modules and roles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.roastify.ops.plugins.module_utils.dotenv import render
from postgresql_server import TestDatabase

ROOT = Path(__file__).parents[2]


def ansible_playbook(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it in the checkout; the environment is added to this process's."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), *arguments],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


class Host:
    """This machine as a managed host with one database."""

    def __init__(self, directory: Path, database: TestDatabase) -> None:
        self.directory = directory
        self.database = database
        self.migrations = directory / "migrations"
        self.migrations.mkdir()
        self.env_file = directory / ".env"
        self.write_env()

    def write_env(self, **changes: Any) -> None:
        options = self.database.options
        variables = {
            "PG_HOST": options.host,
            "PG_PORT": options.port,
            "PG_DATABASE": options.database,
            "PG_USER": options.user,
            "PG_PASSWORD": options.password,
            "PG_SSL": True,
            "PG_SSL_CA": options.ssl_root_cert,
            **changes,
        }
        self.env_file.write_text(render(variables))

    def write(self, name: str, sql: str) -> None:
        (self.migrations / name).write_text(sql)

    def play(self, *tasks: dict[str, Any], variables: dict[str, Any] | None = None, check: bool = False) -> Result:
        playbook = self.directory / "play.yml"
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {
                "ansible_python_interpreter": sys.executable,
                "db_migrate_directory": str(self.migrations),
                "db_migrate_env_file": str(self.env_file),
                "db_migrate_backup_directory": str(self.directory / "backups"),
                **(variables or {}),
            },
            "tasks": list(tasks),
        }
        playbook.write_text(json.dumps([play]))
        process = ansible_playbook(
            *("-i", "localhost,", str(playbook), "--diff", *(["--check"] if check else [])),
            ANSIBLE_STDOUT_CALLBACK="ansible.posix.json",
            USER="ops",
        )
        return Result(process.returncode, process.stdout, process.stderr)


class Result:
    """What a play came to."""

    def __init__(self, status: int, output: str, errors: str) -> None:
        self.status = status
        self.text = output + errors
        assert output.startswith("{") or "\n{" in output, self.text
        document = json.loads(output[output.index("{") :])
        self.stats = document["stats"]["localhost"]
        self.tasks = {
            task["task"]["name"]: task["hosts"]["localhost"] for task in document["plays"][0]["tasks"] if task["hosts"]
        }


@pytest.fixture
def host(tmp_path: Path, database: TestDatabase) -> Host:
    return Host(tmp_path, database)


def role(entry_point: str) -> dict[str, Any]:
    return {"ansible.builtin.import_role": {"name": "roastify.ops.db_migrate", "tasks_from": entry_point}}
