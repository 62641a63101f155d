"""A part of a fleet: what --limit leaves of it, and what to type instead of one that leaves too little."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.roastify.ops.plugins.module_utils.preflight import lost_hosts

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
INVENTORY = """
all:
  hosts:
    localhost: {ansible_connection: local}
    database:
  children:
    app: {hosts: {app1: , app2: , app3: }}
    west: {hosts: {app1: , app2: , database: }}
"""


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path = tmp_path / "hosts.yml"
    path.write_text(INVENTORY)
    return path


@pytest.mark.parametrize(
    "limit", [None, "app1", "app1,app2", "app,!app3", "!app3,!localhost", "app1:app3", "app:&west", "&west,app"]
)
def test_the_limit_that_is_told_has_the_controller_and_the_same_hosts(inventory: Path, limit: str | None) -> None:
    plays = yaml.safe_load((PLAYBOOKS / "deploy.yml").read_text())
    (play,) = [play for play in plays if play.get("name") == "Deploy the release"]
    (task,) = [task for task in play["tasks"] if task["name"] == "See that the release was built"]
    manager = InventoryManager(DataLoader(), [str(inventory)])
    manager.subset(limit)
    hosts = [host.name for host in manager.list_hosts("app")]
    variables = {"ansible_play_hosts_all": hosts, **({"ansible_limit": limit} if limit else {})}
    variables |= {name: trust_as_template(value) for name, value in task["vars"].items()}
    message = trust_as_template(task["ansible.builtin.assert"]["fail_msg"])
    told = str(Templar(DataLoader(), variables=variables).template(message))
    found = re.search(r"--limit '([^']+)'", told)
    assert found, told
    manager.subset(found[1])
    assert [host.name for host in manager.list_hosts("app")] == hosts
    assert [host.name for host in manager.list_hosts("localhost")] == ["localhost"]


@pytest.mark.parametrize("limit", ["app", "localhost,app", "localhost:app", "app:!app3", "!app3", "app:&west"])
def test_the_limit_without_a_lost_host_has_the_others(inventory: Path, limit: str) -> None:
    manager = InventoryManager(DataLoader(), [str(inventory)])
    manager.subset(limit)
    hosts = [host.name for host in manager.list_hosts("app")]
    (told,) = lost_hosts(hosts, hosts[1:], limit)
    manager.subset(told.rpartition("--limit ")[2].strip("'"))
    assert [host.name for host in manager.list_hosts("app")] == hosts[1:]


@pytest.mark.parametrize(
    "limit, status",
    [("localhost,app2", 0), ("localhost:app:!app1", 0), ("localhost,~app[12]", 0), ("localhost,ap1", 2),
     ("localhost,database", 2), ("localhost,!app", 2)],
)  # fmt: skip
def test_a_limit_that_leaves_no_application_host_is_refused(inventory: Path, limit: str, status: int) -> None:
    """Where the inventory has localhost, Ansible would do nothing, and end well."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(inventory), str(PLAYBOOKS / "fleet.yml"),
         "--limit", limit],
        cwd=PLAYBOOKS.parent,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    assert (f"--limit {limit} leaves no host of group app" in " ".join(done.stdout.split())) == bool(status)


def test_hosts_in_a_file_are_left_to_ansible(inventory: Path, tmp_path: Path) -> None:
    """The file that --limit @FILE names is read by nobody else."""
    (tmp_path / "retry").write_text("localhost\napp1\n")
    test_a_limit_that_leaves_no_application_host_is_refused(inventory, f"@{tmp_path}/retry", 0)
