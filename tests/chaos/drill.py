"""What the drills have in common: running playbooks, and artifacts to deploy."""

from __future__ import annotations

import json
import re
from pathlib import Path

import demo
import sources

CACHE = demo.CHECKOUT / ".cache" / "chaos"
OLD, NEW = "1.0.0", "1.1.0"


def run(name: str, *command: str) -> tuple[int, Path]:
    log = CACHE / "logs" / f"{name.replace(' ', '-')}.log"
    return demo.run_logged(command, log, lambda _task: None), log


def build(version: str) -> str:
    """Path of the artifact of a version."""
    tree = CACHE / "source" / version
    sources.make(version, tree)
    variables = {"app_source": str(tree / "application"), "app_migrations": str(tree / "migrations")}
    status, log = run(
        f"build {version}", "ansible-playbook", "playbooks/build.yml", "--extra-vars", json.dumps(variables)
    )
    found = re.findall(r"(/\S+\.tar\.gz)\b", log.read_text())
    assert status == 0 and found, f"{version} was not built: {log}"
    return str(found[-1])


def deploy(name: str, artifact: str, **variables: object) -> tuple[int, str]:
    """Exit code and output of a deployment of a built artifact."""
    extra = json.dumps({"release_artifact": artifact, **variables})
    status, log = run(name, "ansible-playbook", "deploy.yml", "--extra-vars", extra)
    return status, log.read_text(errors="replace")
