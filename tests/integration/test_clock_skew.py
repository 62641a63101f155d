"""How far the clock of a host is away, as preflight tells it: wherever the controller is, however slow others are."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import controllers
from migration_host import ansible_playbook

FAST = "import time\nright = time.time\ntime.time = lambda: right() + 3600\n"
SLOW = "import time\ntime.sleep(4)\n"
TASKS = [
    {"name": "Look", "ansible.builtin.import_role": {"name": "roastify.ops.app_release", "tasks_from": "preflight"}},
    {"name": "Tell", "ansible.builtin.debug": {"msg": "{{ app_release_problems | select('match', 'the clock') }}"}},
]


def problems(directory: Path, zone: str, **starts: str) -> str:
    """What is said of the clocks of hosts, each with what its Python does at its start."""
    hosts = {}
    for host, start in starts.items():
        (directory / host).mkdir()
        (directory / host / "sitecustomize.py").write_text(start)
        python = directory / host / "python"
        python.write_text(f'#!/bin/sh\nPYTHONPATH={directory / host} exec {sys.executable} "$@"\n')
        python.chmod(0o755)
        hosts[host] = {"ansible_connection": "local", "ansible_python_interpreter": str(python)}
    variables = {
        "app_release_name": "shop",
        "app_release_root": str(directory / "srv"),
        "app_release_user": "root",
        "app_release_configuration": str(directory),
        "app_release_port": 5999,
        "app_release_clock_skew": 3,
    }
    (directory / "hosts.yml").write_text(json.dumps({"all": {"hosts": hosts, "vars": variables}}))
    play = {"name": "Look", "hosts": "all", "gather_facts": False, "tasks": TASKS}
    (directory / "play.yml").write_text(json.dumps([play]))
    done = ansible_playbook(
        *(str(directory / "play.yml"), "-i", str(directory / "hosts.yml")),
        TZ=zone,
        ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "UTC"])
def test_a_controller_may_be_in_any_time_zone(tmp_path: Path, zone: str) -> None:
    assert "the clock of this host" not in problems(tmp_path, zone, app1="")


def test_a_wrong_clock_is_told_and_a_slow_host_is_no_wrong_clock(tmp_path: Path) -> None:
    said = problems(tmp_path, "Europe/Berlin", app1="", fast=FAST, slow=SLOW)
    assert said.count("the clock of this host is ") == 1
    # What went by between question and answer is not counted.
    assert re.search(r"the clock of this host is (3600|359\d) s away from that of the controller", said), said


def test_what_the_time_for_the_answer_may_explain_is_no_skew() -> None:
    assert controllers.clock_skew(clock=105, asked=100, answered=110) == 0
    assert controllers.clock_skew(clock=95, asked=100, answered=110) == 5
    assert controllers.clock_skew(clock=130, asked=100, answered=110) == 20
