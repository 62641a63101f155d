"""Role app_env with variables from Parameter Store and Secrets Manager, against a moto server over HTTP."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from ansible_collections.roastify.ops.plugins.module_utils import dotenv
from migration_host import ansible_playbook
from moto_server import KEYS, REGION, aws_environment, reset

SCHEMA = {
    "variables": {
        "PORT": {"type": "port", "required": True},
        "PG_PASSWORD": {"secret": True, "required": True, "min_length": 20},
        "JWT_SECRET": {"secret": True, "required": True, "min_length": 32},
        "SMTP_PASS": {"secret": True},
    },
    "environments": {"production": {}},
}
PASSWORD = "cAnArY-parameter-7c1e4b90aa"
JWT = "cAnArY-secrets-manager-51f09b3e8d6c7a"


class Stores:
    """Both stores of AWS, and a controller that asks them."""

    def __init__(self, moto: str, directory: Path) -> None:
        self.moto = moto
        self.directory = directory
        self.path = directory / "shared" / "r1.env"
        self.parameters = boto3.client("ssm", endpoint_url=moto, region_name=REGION, **KEYS)
        self.secrets = boto3.client("secretsmanager", endpoint_url=moto, region_name=REGION, **KEYS)
        (directory / "env.schema.yml").write_text(yaml.safe_dump(SCHEMA))

    def parameter(self, name: str, value: str) -> None:
        self.parameters.put_parameter(Name=name, Value=value, Type="SecureString")

    def secret(self, name: str, value: str) -> None:
        self.secrets.create_secret(Name=name, SecretString=value)

    def play(self, inventory: dict[str, Any], *arguments: str, **variables: Any) -> tuple[int, str]:
        """Exit code and output of the role, at -vvv."""
        group_vars = self.directory / "group_vars"
        group_vars.mkdir(exist_ok=True)
        lines = [f"  {name}: {json.dumps(value)}" for name, value in inventory.items()]
        (group_vars / "all.yml").write_text("\n".join(["---", "app_env_variables:", *lines, ""]))
        (self.directory / "hosts.yml").write_text("all: {hosts: {web: {ansible_connection: local}}}\n")
        play = {
            "hosts": "web",
            "gather_facts": False,
            "vars": {
                "ansible_python_interpreter": sys.executable,
                "app_env_path": str(self.path),
                "app_env_schema": str(self.directory / "env.schema.yml"),
                "app_env_owner": str(os.getuid()),
                "app_env_group": str(os.getgid()),
                **variables,
            },
            "tasks": [{"ansible.builtin.import_role": {"name": "roastify.ops.app_env"}}],
        }
        playbook = self.directory / "play.yml"
        playbook.write_text(json.dumps([play]))
        process = ansible_playbook(
            *("-i", str(self.directory / "hosts.yml"), str(playbook), "-vvv", "--diff", *arguments),
            ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default",
            ANSIBLE_CACHE_PLUGIN="ansible.builtin.jsonfile",
            ANSIBLE_CACHE_PLUGIN_CONNECTION=str(self.directory / "facts"),
            **aws_environment(self.moto),
        )
        output = process.stdout + process.stderr
        cached = "".join(path.read_text() for path in self.directory.glob("facts/*"))
        for secret in (PASSWORD, JWT):
            assert secret not in output + cached
        return process.returncode, output

    def installed(self) -> dict[str, str]:
        return dotenv.to_mapping(dotenv.parse(self.path.read_text()))


@pytest.fixture
def stores(moto: str, tmp_path: Path) -> Iterator[Stores]:
    reset(moto)
    yield Stores(moto, tmp_path)


def test_inventory_and_both_stores_make_one_environment(stores: Stores) -> None:
    stores.parameter("/shop/production/PG_PASSWORD", PASSWORD)
    stores.parameter("/shop/staging/PG_PASSWORD", "another-one-of-another-place")
    stores.secret("shop/production", json.dumps({"JWT_SECRET": JWT}))
    where = {"app_env_ssm_path": "/shop/production", "app_env_secret": "shop/production"}
    inventory = {"PORT": 5000, "PG_PASSWORD": None}

    status, output = stores.play(inventory, "--check", **where)
    assert status == 0, output
    assert not stores.path.exists()
    status, output = stores.play(inventory, **where)
    assert status == 0, output
    assert stores.installed() == {"PORT": "5000", "PG_PASSWORD": PASSWORD, "JWT_SECRET": JWT}
    assert stat.S_IMODE(stores.path.stat().st_mode) == 0o600
    assert "+PG_PASSWORD=(new)" in output
    status, output = stores.play(inventory, **where)
    assert status == 0 and "changed=0" in output, output


def test_a_variable_of_two_sources_and_everything_else_is_told_at_once_with_its_place(stores: Stores) -> None:
    stores.parameter("/shop/production/PG_PASSWORD", PASSWORD)
    stores.parameter("/shop/production/JWT_SECRET", JWT[:20])
    inventory = {"PORT": 99999, "PG_PASSWORD": "word-that-is-long-enough"}
    status, output = stores.play(inventory, app_env_ssm_path="/shop/production")
    assert status != 0
    file = os.path.relpath(stores.directory / "group_vars" / "all.yml", Path(__file__).parents[2])
    place = str(stores.directory / "group_vars" / "all.yml") if file.startswith("..") else file
    store = "SSM Parameter Store, below /shop/production"
    for message in (
        "not fit for production: 3 problems.",
        f"- {place}:3: PORT is not a port (found 99999).",
        f"- {place}:4: PG_PASSWORD is also set in {store}.",
        f"- {store}: JWT_SECRET is shorter than 32 characters (found 20 characters",
    ):
        assert message in output, output
    assert "word-that-is-long-enough" not in output
    assert not stores.path.exists()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"app_env_ssm_path": "/shop/production"}, "/shop/production"),
        ({"app_env_secret": "shop/production"}, "shop/production"),
        ({"app_env_secret": "shop/text"}, "secret shop/text is neither a mapping nor the JSON text of one"),
    ],
    ids=["no parameter", "no secret", "no JSON"],
)
def test_a_store_without_an_answer_stops_the_run(stores: Stores, where: dict[str, str], message: str) -> None:
    stores.secret("shop/text", PASSWORD)
    status, output = stores.play({"PORT": 5000}, **where)
    assert status != 0
    assert message in output
    assert not stores.path.exists()
