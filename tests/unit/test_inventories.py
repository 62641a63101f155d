"""Staging and production are complete, agree with the sandbox, and work offline, without credentials."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
INVENTORIES = ROOT / "inventories"
EC2 = ["staging", "production"]
ALL = ["local", *EC2]
# The facts that mapping.yml hands to the roles and that the playbooks use.
FACTS = {
    "app_name", "app_user", "app_group", "app_root", "app_state_directory", "app_port", "app_health_path",
    "app_instances", "app_script", "app_environment", "app_source", "app_migrations", "app_env_schema",
    "app_environment_variables", "database_host", "database_port", "database_name", "database_user",
    "database_password", "database_ca_file", "database_controller_ca_file",
}  # fmt: skip
SECRETS = ["vault_database_password", "vault_jwt_secret", "vault_smtp_user", "vault_smtp_password"]


class Encrypted(str):
    """A value with the tag !vault."""


class Loader(yaml.SafeLoader):
    pass


Loader.add_constructor("!vault", lambda loader, node: Encrypted(node.value))


def load(path: Path) -> dict[str, Any]:
    return yaml.load(path.read_text(encoding="utf-8"), Loader)


def variables(inventory: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for path in sorted((INVENTORIES / inventory / "group_vars" / "all").glob("*.yml")):
        content = load(path)
        assert not set(result) & set(content), f"{path} sets again what another file of {inventory} sets"
        result.update(content)
    return result


def test_a_host_that_falls_silent_is_lost_long_before_the_others_return_by_themselves() -> None:
    """As ssh is by itself, whoever waits for an answer waits for hours, and all hosts wait for each other."""
    configuration = configparser.RawConfigParser()
    configuration.read(ROOT / "ansible.cfg")
    options = dict(re.findall(r"-o (\w+)=(\w+)", configuration["ssh_connection"]["ssh_args"]))
    silence = int(options["ServerAliveInterval"]) * int(options["ServerAliveCountMax"])
    limit = load(ROOT / "roles/app_release/defaults/main.yml")["app_release_confirm_within"]
    # A host that is only busy has a minute to answer.
    assert 60 <= silence <= limit / 5


def ansible(command: str, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment.update(
        {
            "ANSIBLE_HOME": str(home),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
            "PWD": str(ROOT),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(home / "none"),
            "AWS_SHARED_CREDENTIALS_FILE": str(home / "none"),
        }
    )
    return subprocess.run(
        [str(Path(sys.executable).with_name(command)), *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_sandbox_says_how_often_its_balancer_asks() -> None:
    # HAProxy does not tell it: the time that a switch may take follows from what the inventory says.
    interval = load(ROOT / "roles" / "sandbox" / "defaults" / "main.yml")["sandbox_balancer_check_interval"]
    assert f"{variables('local')['alb_target_check_interval']}s" == interval


@pytest.mark.parametrize("inventory", ALL)
def test_every_inventory_has_the_shared_facts(inventory: str) -> None:
    own = variables(inventory)
    assert FACTS - set(own) == set()
    assert own["app_environment"] == inventory


def test_the_mapping_is_one_file() -> None:
    for inventory in ALL:
        link = INVENTORIES / inventory / "group_vars" / "all" / "mapping.yml"
        assert link.is_symlink() and link.resolve() == INVENTORIES / "mapping.yml"


def test_staging_and_production_have_the_same_variables() -> None:
    staging, production = (variables(inventory) for inventory in EC2)
    assert set(staging) == set(production)
    names = [set(own["app_environment_variables"]) for own in (staging, production)]
    assert names[0] == names[1]
    schema = load(ROOT / "examples" / "roastify" / "env.schema.yml")
    assert names[0] <= set(schema["variables"])


@pytest.mark.parametrize("inventory", EC2)
def test_secrets_are_encrypted(inventory: str) -> None:
    vault = load(INVENTORIES / inventory / "group_vars" / "all" / "vault.yml")
    assert sorted(vault) == sorted(SECRETS)
    for value in vault.values():
        assert isinstance(value, Encrypted)
        assert value.startswith(f"$ANSIBLE_VAULT;1.2;AES256;{inventory}\n")


@pytest.mark.parametrize("inventory", EC2)
def test_hosts_come_from_ec2_by_tag(inventory: str) -> None:
    plugin = load(INVENTORIES / inventory / "aws_ec2.yml")
    assert plugin["plugin"] == "amazon.aws.aws_ec2"
    assert plugin["filters"]["tag:Environment"] == inventory
    assert plugin["filters"]["instance-state-name"] == "running"
    assert plugin["compose"]["instance_id"] == "aws_instance_id"


@pytest.mark.parametrize("inventory", EC2)
def test_lists_without_credentials_and_passwords(inventory: str, tmp_path: Path) -> None:
    done = ansible("ansible-inventory", "-i", f"inventories/{inventory}", "--list", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "app" in json.loads(done.stdout)["all"]["children"]


@pytest.mark.parametrize(
    ("name", "given", "path"),
    [
        ("app_build_artifact", {"release_artifact": "dist/shop.tar.gz"}, "dist/shop.tar.gz"),
        ("app_build_artifact", {"release_artifact": "/dist/shop.tar.gz"}, "/dist/shop.tar.gz"),
        ("app_build_artifact", {}, None),
        ("app_build_source", {"app_source": "../shop"}, "../shop"),
    ],
)
def test_a_path_counts_from_where_it_was_typed(
    name: str, given: dict[str, str], path: str | None, tmp_path: Path
) -> None:
    # Modules on the controller run in the directory of the playbook, which is another one.
    playbook = tmp_path / "play.yml"
    tasks = [{"ansible.builtin.debug": {"msg": f"it is [{{{{ {name} }}}}]"}}]
    playbook.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    extra = json.dumps({"app_source": "/shop", **given})
    done = ansible("ansible-playbook", "-i", "inventories/local", "-e", extra, str(playbook), home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"it is [{'' if path is None else ROOT / path}]" in done.stdout


@pytest.mark.parametrize("inventory", EC2)
def test_a_deployment_would_refuse_the_placeholders_and_nothing_else(inventory: str, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("example\n")
    arguments = {
        "variables": "{{ app_environment_variables | to_json }}",
        "schema_file": "{{ app_env_schema }}",
        "environment": "{{ app_environment }}",
    }
    done = ansible(
        "ansible",
        "localhost",
        f"--inventory=inventories/{inventory}",
        f"--vault-password-file={password}",
        "--module-name=roastify.ops.env_validate",
        f"--args={json.dumps(arguments)}",
        f"--extra-vars=ansible_python_interpreter={sys.executable}",
        "--extra-vars=ansible_become=false",
        home=tmp_path,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 2, output
    assert f"is not fit for {inventory}: 5 problems." in output
    for name in ("PG_HOST", "PG_PASSWORD", "JWT_SECRET", "SMTP_USER", "SMTP_PASS"):
        assert f"- {name} still has a placeholder." in output
