"""A lock that will not be had is told before anything is built, and not by what a dead one has left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils import controllers
from migration_host import ansible_playbook

TASKS = [
    {"name": "Look", "ansible.builtin.import_role": {"name": "roastify.ops.app_release", "tasks_from": "preflight"}},
    {"name": "Tell", "ansible.builtin.debug": {"msg": "{{ app_release_problems | select('match', 'deployment ') }}"}},
]


def test_only_a_lock_that_somebody_may_still_hold_is_in_the_way(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "60"])
    alive = controllers.describe(os.getpid())
    dying = controllers.describe(process.pid)
    process.kill()
    process.wait()
    holders: dict[str, tuple[dict[str, Any], float]] = {
        "here": (alive, 600),
        "elsewhere": ({**alive, "machine": "another one"}, 600),
        "dead": (dying, 600),
        "late": (alive, -1),
    }
    hosts = {}
    for name, (controller, seconds) in holders.items():
        for directory in ("releases", "shared"):
            (tmp_path / name / directory).mkdir(parents=True)
        lock = {"deploymentId": f"of-{name}", "holder": "ann", "origin": "a", "since": "now", "controller": controller}
        (tmp_path / name / ".deploy.lock").write_text(json.dumps({**lock, "expires": int(time.time() + seconds)}))
        hosts[name] = {"ansible_connection": "local", "app_release_root": str(tmp_path / name)}
    variables = {
        "ansible_python_interpreter": sys.executable,
        "app_release_name": "shop",
        "app_release_user": "root",
        "app_release_configuration": str(tmp_path),
        "app_release_port": 5999,
    }
    (tmp_path / "hosts.yml").write_text(json.dumps({"all": {"hosts": hosts, "vars": variables}}))
    (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": TASKS}]))
    done = ansible_playbook(
        *(str(tmp_path / "play.yml"), "-i", str(tmp_path / "hosts.yml")),
        ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = [name for name in holders if f"deployment of-{name} of ann from a is at work here" in done.stdout]
    assert told == ["here", "elsewhere"], done.stdout
    assert "that takes over at once, elsewhere when its lease ends, in" in " ".join(done.stdout.split())
