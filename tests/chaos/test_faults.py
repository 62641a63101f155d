"""Faults in the middle of a deployment, with traffic running: nobody notices, and nobody has to clean up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import demo
import pytest
from demo import Fleet
from drill import CACHE, NEW, OLD, deploy, run
from traffic import BackgroundTraffic

pytestmark = pytest.mark.slow

LIVE = "roastify.ops.release_activate"


def on_host(host: str, command: str) -> str:
    """Output of a shell command as root on a host."""
    status, log = run(f"on {host}", "ansible", host, "-m", "ansible.builtin.shell", "-a", command)
    assert status == 0, log.read_text()
    return log.read_text().partition("\n")[2]  # the first line is the command itself


def locks(fleet: Fleet) -> str:
    return "".join(on_host(host, "test ! -e /srv/roastify/.deploy.lock || echo LOCKED") for host in fleet.hosts)


def test_a_host_that_fails_after_another_was_switched_brings_the_fleet_back(
    fleet: Fleet, artifacts: dict[str, str], traffic: BackgroundTraffic
) -> None:
    broken = sorted(fleet.hosts)[-1]
    # The candidate is tried out without PM2; only the switch needs it.
    on_host(broken, "mv /usr/local/bin/pm2 /usr/local/bin/pm2.away")
    try:
        status, output = deploy("half a fleet", artifacts[NEW])
    finally:
        on_host(broken, "mv /usr/local/bin/pm2.away /usr/local/bin/pm2")

    assert status != 0
    assert "PM2 is not installed" in output
    assert f"This host serves {OLD} as before" in output  # the one that was switched
    assert "IT COULD NOT BE RETURNED" in output  # the broken one, which had never left
    assert set(fleet.versions().values()) == {OLD}
    assert "LOCKED" not in locks(fleet)
    for host in fleet.hosts:
        assert '"status": "failed"' in on_host(host, "tail -n 1 /srv/roastify/deployments.jsonl")

    status, output = deploy("afterwards", artifacts[NEW])
    assert status == 0, output
    assert set(fleet.versions().values()) == {NEW}


@pytest.mark.parametrize("moment", ["Transfer the artifact", "Try the release out", "Switch to the release"])
def test_a_killed_controller_needs_no_cleaning_up(
    fleet: Fleet, artifacts: dict[str, str], traffic: BackgroundTraffic, moment: str
) -> None:
    log = CACHE / "logs" / f"killed-{moment.replace(' ', '-')}.log"
    extra = json.dumps({"release_artifact": artifacts[NEW]})
    with log.open("wb") as output:
        # A session of its own: its children die with it, as they would with the terminal.
        process = subprocess.Popen(
            ["ansible-playbook", "deploy.yml", "--extra-vars", extra],
            cwd=demo.CHECKOUT,
            env=demo.ansible_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + 60
    while f": {moment}" not in log.read_text(errors="replace"):
        assert time.monotonic() < deadline and process.poll() is None, log.read_text(errors="replace")
        time.sleep(0.05)
    time.sleep(0.7)  # into the module on the host
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()

    status, output = deploy("after the kill", artifacts[NEW])
    assert status == 0, output
    assert set(fleet.versions().values()) == {NEW}
    assert "LOCKED" not in locks(fleet)
    for host in fleet.hosts:
        left = on_host(host, "ls -A /srv/roastify/releases; pm2-roastify jlist --silent | tail -n 1")
        assert ".staging-" not in left
