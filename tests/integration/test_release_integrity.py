"""Status compares hosts with what was built; staging never shares what is damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.roastify.ops.plugins.module_utils import artifact, releases

CHECKOUT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ASSETS = "frontend/dist/assets"


class Fleet:
    """One host, this machine, with a release that was staged on it."""

    def __init__(self, directory):
        self.directory = directory
        self.root = directory / "srv"
        self.configuration = directory / "etc"
        for path in (self.root / "releases", self.root / "shared", self.configuration, directory / "artifacts"):
            path.mkdir(parents=True)
        (self.configuration / "pm2.environment").write_text(f"PM2_HOME={directory}/pm2\n")
        self.host = releases.Host(str(self.root))
        source = directory / "source"
        (source / ASSETS).mkdir(parents=True)
        (source / "server.js").write_text("serve()\n")
        (source / ASSETS / "index-4f2a91bc.js").write_text("page()")
        manifest = {"name": "shop", "version": "1.0.0", "commit": "abc1234", "sourceDigest": "0" * 64}
        self.packed = artifact.pack(str(source), str(directory / "shop.tar.gz"), manifest)
        self.variables = {
            "app_release_name": "shop",
            "app_release_user": "root",
            "app_release_root": str(self.root),
            "app_release_configuration": str(self.configuration),
            "app_release_artifacts": str(directory / "artifacts"),
            "app_release_port": 5998,
            "app_release_deployment": "d1",
            "app_release_links": {".env": ".env"},
            "app_release_assets": [ASSETS],
            "app_release_artifact": self.packed.path,
            "app_release_manifest": self.packed.manifest,
        }
        self.inventory = directory / "hosts.yml"
        here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        self.inventory.write_text(yaml.safe_dump({"app": {"hosts": {"here": here}, "vars": self.variables}}))

    def run(self, playbook, **extra):
        return subprocess.run(
            [BIN / "ansible-playbook", playbook, "-i", self.inventory, "-e", json.dumps(extra)],
            cwd=CHECKOUT,
            env={
                **os.environ,
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_STDOUT_CALLBACK": "default",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def stage(self, identifier, **extra):
        """The tasks that staging takes, after the look that the deployment begins with."""
        role = {"name": "roastify.ops.app_release"}
        tasks = [
            {"ansible.builtin.import_role": {**role, "tasks_from": "preflight"}},
            {"ansible.builtin.import_role": {**role, "tasks_from": "lock"}},
            {"ansible.builtin.import_role": {**role, "tasks_from": "stage"}},
        ]
        playbook = self.directory / "stage.yml"
        playbook.write_text(yaml.safe_dump([{"hosts": "app", "gather_facts": False, "tasks": tasks}]))
        return self.run(playbook, app_release_id=identifier, **extra)

    def status(self, **extra):
        outcome = self.run("playbooks/status.yml", **extra)
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
        # Ansible folds long lines of YAML.
        return " ".join(outcome.stdout.split())


@pytest.fixture
def fleet(tmp_path):
    return Fleet(tmp_path)


def ran(output, task):
    """Whether a task did something else than to be skipped."""
    block = output.split(f"[roastify.ops.app_release : {task}]")[1].split("TASK [")[0]
    return "skipping:" not in block


def test_status_says_whether_what_runs_is_what_was_built(fleet):
    assert fleet.stage("r1").returncode == 0
    (fleet.root / "current").symlink_to("releases/r1")

    output = fleet.status(status_format="json", verify=True)
    assert '\\"intact\\": true' in output or '"intact": true' in output
    assert "intact" not in fleet.status()  # the table has the column when it was asked for
    assert "What runs is what was built." in fleet.status(verify=True)

    (fleet.root / "releases/r1/server.js").write_text("tamper\n")
    (fleet.root / "releases/r1/shell.js").write_text("")
    output = fleet.status(verify=True)
    assert "here: release r1 is not what was built:" in output
    assert "server.js was changed: 7 bytes, not 8" in output
    assert "shell.js does not come from the build" in output
    assert "DAMAGED: what runs on here is not what was built; deploy again." in output
    output = fleet.status(status_format="json", verify=True)
    assert "server.js was changed: 7 bytes, not 8" in output
    assert '\\"intact\\": false' in output or '"intact": false' in output
    # Nobody asked, nobody looked.
    assert "is not what was built" not in fleet.status()


def test_a_release_of_the_same_artifact_needs_no_transfer(fleet):
    outcome = fleet.stage("r1")
    assert outcome.returncode == 0, outcome.stdout
    assert ran(outcome.stdout, "Transfer the artifact")
    outcome = fleet.stage("r2")
    assert outcome.returncode == 0, outcome.stdout
    assert not ran(outcome.stdout, "Transfer the artifact")
    assert not ran(outcome.stdout, "Transfer the artifact, because the kept release is damaged")
    first, second = fleet.host.release("r1"), fleet.host.release("r2")
    assert os.path.samefile(first.directory / "server.js", second.directory / "server.js")
    assert os.listdir(fleet.directory / "artifacts") == []


def test_damage_is_not_shared_but_transferred_again(fleet):
    assert fleet.stage("r1").returncode == 0
    (fleet.root / "releases/r1/server.js").write_text("tamper\n")
    outcome = fleet.stage("r2")
    assert outcome.returncode == 0, outcome.stdout
    assert not ran(outcome.stdout, "Transfer the artifact")
    assert ran(outcome.stdout, "Transfer the artifact, because the kept release is damaged")
    assert releases.damage(fleet.host, fleet.host.release("r2")) == []
    assert os.listdir(fleet.directory / "artifacts") == []


def test_damage_is_told_where_there_is_no_artifact(fleet):
    assert fleet.stage("r1").returncode == 0
    (fleet.root / "releases/r1/server.js").write_text("tamper\n")
    outcome = fleet.stage("r2", app_release_artifact="")
    assert outcome.returncode != 0
    assert "no undamaged release here has its content" in outcome.stdout
    assert "release r1: server.js was changed: 7 bytes, not 8" in outcome.stdout
    assert os.listdir(fleet.root / "releases") == ["r1"]


def test_a_damaged_live_release_is_told_before_a_deployment(fleet):
    """Preflight knows, so that the transfer is not left out, and the id is not used again."""
    assert fleet.stage("r1").returncode == 0
    (fleet.root / "current").symlink_to("releases/r1")
    (fleet.root / "releases/r1/server.js").write_text("tamper\n")
    outcome = fleet.stage("r2")
    assert outcome.returncode == 0, outcome.stdout
    assert "release r1 is not what was built: 1 difference" in outcome.stdout + outcome.stderr
    assert ran(outcome.stdout, "Transfer the artifact")
    assert not ran(outcome.stdout, "Transfer the artifact, because the kept release is damaged")
    assert releases.damage(fleet.host, fleet.host.release("r2")) == []
    assert (fleet.root / "releases/r1/server.js").read_text() == "tamper\n"
