"""What the drills have in common: running playbooks, and artifacts to deploy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import demo
import sources

CACHE = demo.CHECKOUT / ".cache" / "chaos"
OLD, NEW = "1.0.0", "1.1.0"


def run(name: str, *command: str) -> tuple[int, Path]:
    log = CACHE / "logs" / f"{name.replace(' ', '-')}.log"
    return demo.run_logged(command, log, lambda _task: None), log


def build(version: str, variant: str = "", change: Callable[[Path], None] | None = None) -> str:
    """Path of the artifact of a version, or of a variant of it whose source tree was changed."""
    name = f"{version}-{variant}" if variant else version
    tree = CACHE / "source" / name
    sources.make(version, tree)
    if change:
        change(tree)
    variables = {"app_source": str(tree / "application"), "app_migrations": str(tree / "migrations")}
    status, log = run(f"build {name}", "ansible-playbook", "playbooks/build.yml", "--extra-vars", json.dumps(variables))
    found = re.findall(r"(/\S+\.tar\.gz)\b", log.read_text())
    assert status == 0 and found, f"{name} was not built: {log}"
    return str(found[-1])


def deploy(name: str, artifact: str, **variables: object) -> tuple[int, str]:
    """Exit code and output of a deployment of a built artifact."""
    extra = json.dumps({"release_artifact": artifact, **variables})
    status, log = run(name, "ansible-playbook", "deploy.yml", "--extra-vars", extra)
    return status, log.read_text(errors="replace")
