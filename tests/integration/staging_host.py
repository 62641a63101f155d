"""One host, this machine, that releases are staged on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.roastify.ops.plugins.module_utils import artifact, releases
from migration_host import ansible_playbook

ASSETS = "frontend/dist/assets"


class StagingHost:
    """A controller with an artifact, and this machine as the host that is to have it.

    Args:
        directory: an empty one.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = directory / "srv"
        self.configuration = directory / "etc"
        self.artifacts = directory / "artifacts"
        for path in (self.root / "releases", self.root / "shared", self.configuration, self.artifacts):
            path.mkdir(parents=True)
        (self.configuration / "pm2.environment").write_text(f"PM2_HOME={directory}/pm2\n")
        self.host = releases.Host(str(self.root))
        self.source = directory / "source"
        (self.source / ASSETS).mkdir(parents=True)
        (self.source / "server.js").write_text("serve()\n")
        (self.source / ASSETS / "index-4f2a91bc.js").write_text("page()")
        self.packed = self.pack("1.0.0")

    def pack(self, version: str) -> artifact.Artifact:
        """Pack the source."""
        manifest = {"name": "shop", "version": version, "commit": "abc1234", "sourceDigest": "0" * 64}
        return artifact.pack(str(self.source), str(self.directory / f"shop-{version}.tar.gz"), manifest)

    def variables(self) -> dict[str, Any]:
        """Of the host."""
        return {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "app_release_name": "shop",
            "app_release_user": "root",
            "app_release_root": str(self.root),
            "app_release_configuration": str(self.configuration),
            "app_release_artifacts": str(self.artifacts),
            "app_release_port": 5998,
            "app_release_deployment": "d1",
            "app_release_links": {".env": ".env"},
            "app_release_assets": [ASSETS],
            "app_release_artifact": self.packed.path,
            "app_release_manifest": self.packed.manifest,
            "app_release_transfer_delay": 0,
        }

    def run(self, playbook: str, *options: str, **extra: Any) -> subprocess.CompletedProcess[str]:
        """A playbook on the host; what is in capitals is for the environment, all else are extra variables."""
        inventory = self.directory / "hosts.yml"
        inventory.write_text(yaml.safe_dump({"app": {"hosts": {"here": self.variables()}}}))
        environment = {name: value for name, value in extra.items() if name.isupper()}
        variables = {name: value for name, value in extra.items() if not name.isupper()}
        command = [str(playbook), "-i", str(inventory), "-e", json.dumps(variables), *options]
        return ansible_playbook(*command, ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default", **environment)

    def stage(self, identifier: str, *options: str, **extra: Any) -> subprocess.CompletedProcess[str]:
        """The tasks that staging takes, after the look that the deployment begins with."""
        tasks = [
            {
                "name": entry,
                "ansible.builtin.import_role": {"name": "roastify.ops.app_release", "tasks_from": entry},
            }
            for entry in ("preflight", *extra.pop("before", ()), "lock", "stage")
        ]
        playbook = self.directory / "stage.yml"
        playbook.write_text(yaml.safe_dump([{"hosts": "app", "gather_facts": False, "tasks": tasks}]))
        return self.run(str(playbook), *options, app_release_id=identifier, **extra)
