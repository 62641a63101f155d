"""A real PM2 with the files that role pm2 writes for it, and releases made of small scripts."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.roastify.ops.plugins.module_utils.pm2 import Pm2
from ansible_collections.roastify.ops.plugins.module_utils.releases import Host, Release
from npm_packages import brought_node, installed

ROLE = Path(__file__).parents[2] / "roles/pm2"
NAME = "shop"
#: What every release of a test can use.
COMMON = """
const http = require('node:http');
const { version } = require('./.release.json');
const healthy = (response) => response.end(JSON.stringify({ status: 'healthy', version }));
const serve = (listener) => http.createServer(listener).listen(Number(process.env.PORT), '127.0.0.1');
"""


def pm2_packages() -> Path:
    """The node_modules of the PM2 that the role installs."""
    (lock_directory,) = (ROLE / "files").glob("lock-*")
    return Path(installed(lock_directory), "node_modules")


def free_port() -> int:
    """A TCP port of the loopback address that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Pm2Host:
    """One application on this machine, with a PM2 daemon of its own.

    Args:
        directory: where everything goes; short, because the name of a Unix socket is.
        node: the program that runs PM2 and the application.
        given: variables of role pm2 over its defaults.
    """

    def __init__(self, directory: Path, node: Path | None = None, **given: Any) -> None:
        self.port, self.candidate_port = free_port(), free_port()
        self.host = Host(str(directory / "app"))
        self.configuration = directory / "etc"
        state = directory / "var"
        programs = directory / "bin"
        for path in (self.host.releases, self.host.shared / "logs", self.configuration, state / "pm2", programs):
            path.mkdir(parents=True)
        self._variables: dict[str, Any] = {
            "pm2_app_name": NAME,
            "pm2_app_root": str(self.host.root),
            "pm2_state_directory": str(state),
            "_pm2_configuration_directory": str(self.configuration),
            "pm2_script": "server.js",
            "pm2_environment": {"NODE_ENV": "production", "PORT": str(self.port)},
            "pm2_health_path": "/health",
            "ansible_managed": "Ansible managed",
            **given,
        }
        self.write_files()
        # Programs of these names, wherever they come from.
        (programs / "node").symlink_to(node or brought_node())
        (programs / "pm2").symlink_to(pm2_packages() / "pm2/bin/pm2")
        environment = self.configuration / "pm2.environment"
        text = environment.read_text()
        environment.write_text(text.replace("PATH=", f"PATH={programs}:", 1))
        self.pm2 = Pm2(NAME, pwd.getpwuid(os.getuid()).pw_name, str(self.configuration))

    def _templar(self) -> Templar:
        loader = DataLoader()
        variables: dict[str, Any] = {}
        for name in ("defaults/main.yml", "vars/main.yml"):
            variables |= loader.load_from_file(str(ROLE / name), trusted_as_template=True)
        return Templar(loader, variables | self._variables)

    def write_files(self, **given: Any) -> None:
        """What role pm2 puts into the configuration directory, as Ansible renders it."""
        self._variables |= given
        for name in ("ecosystem.config.cjs", "pm2.environment", "preload.json"):
            if name == "pm2.environment" and (self.configuration / name).exists():
                continue
            template = (ROLE / "templates" / f"{name}.j2").read_text()
            (self.configuration / name).write_text(self._templar().template(trust_as_template(template)))
        shutil.copy(ROLE / "files/preload.cjs", self.configuration)

    def release(self, identifier: str, script: str, version: str = "1.0.0", environment: str = "") -> Release:
        """A complete release.

        Args:
            identifier: its id.
            script: JavaScript that runs behind COMMON.
            version: what its manifest says.
            environment: content of its .env.
        """
        directory = self.host.releases / identifier
        directory.mkdir()
        (directory / ".release.json").write_text(json.dumps({"id": identifier, "version": version}))
        (directory / "server.js").write_text(COMMON + script)
        (directory / ".env").write_text(environment)
        found = self.host.release(identifier)
        assert found is not None
        return found

    def command(self, *arguments: str) -> str:
        """What `pm2` answers."""
        binary = shutil.which("pm2", path=self.pm2.environment["PATH"])
        assert binary is not None
        return subprocess.run(
            [binary, *arguments],
            env=self.pm2.environment,
            cwd=self.pm2.home.parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout

    @contextlib.contextmanager
    def daemon(self) -> Iterator[Pm2Host]:
        """Has the daemon run, which systemd does elsewhere, until the block ends."""
        self.command("ping")
        try:
            yield self
        finally:
            self.command("kill")

    def log(self) -> str:
        """All that the workers said."""
        files = sorted((self.host.shared / "logs").glob("*.log"))
        return "".join(file.read_text(errors="replace") for file in files)
