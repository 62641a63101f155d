"""One host of three is cut off, or loses its power, in the middle of a deployment."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import drill
import pytest
from demo import Fleet
from drill import NEW, OLD, Visitors

pytestmark = pytest.mark.slow

CUT = "systemctl stop ssh.socket ssh.service 2>/dev/null || systemctl stop ssh.service; pkill -KILL -x sshd || true"
MEND = "systemctl start ssh.service"
# Whatever is open stays open, and nobody answers. Sessions are processes of their own, named so or sshd-session.
SILENCE = "pkill -STOP '^sshd'"
SPEAK = "pkill -CONT '^sshd'"
#: Seconds after which a host returns by itself.
CONFIRM = 25


def until(what: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.5)


def test_a_host_that_is_cut_off_before_its_switch(fleet: Fleet, artifacts: dict[str, str], visitors: Visitors) -> None:
    host = list(fleet.hosts)[2]
    # The first host is switched by then.
    command = drill.playbook("deploy.yml", release_artifact=artifacts[NEW])
    try:
        status, output = drill.meanwhile(
            "cut off before", command, "Switch to the release", drill.on_host(host, CUT), occurrence=4
        )
    finally:
        drill.on(host, MEND)
    assert status != 0
    assert f"no answer from {host}" in output or "UNREACHABLE" in output
    assert set(drill.served(fleet).values()) == {OLD}
    drill.require_all_is_well(fleet, visitors, "cut off before")


def test_a_host_that_is_cut_off_after_its_switch_returns_by_itself(
    fleet: Fleet, artifacts: dict[str, str], visitors: Visitors
) -> None:
    host = list(fleet.hosts)[2]
    command = drill.playbook("deploy.yml", release_artifact=artifacts[NEW], app_release_confirm_within=CONFIRM)
    try:
        status, output = drill.meanwhile("cut off after", command, "Record the success", drill.on_host(host, CUT))
        assert status != 0
        others = {name: version for name, version in drill.served(fleet).items() if name != host}
        assert set(others.values()) == {OLD}, output
        until(lambda: drill.served(fleet)[host] == OLD, CONFIRM + 60)
        until(lambda: not drill.on(host, "ls -A /srv/roastify | grep deadman || true"), 60)
        last = drill.survey(host).journal[-1]
        assert (last["status"], last["deployedBy"]) == ("failed", "this host")
    finally:
        drill.on(host, MEND)
    drill.require_all_is_well(fleet, visitors, "cut off after")


def switching(name: str, host: str, artifact: str, **variables: object) -> drill.Run:
    """A deployment that is at work in the middle of the switch of a host: behind its link, before its answer."""
    before = drill.survey(host).live
    run = drill.Run(name, drill.playbook("deploy.yml", release_artifact=artifact, **variables))
    run.until("Switch to the release")
    until(lambda: not drill.on(host, "readlink /srv/roastify/current").strip().endswith(before), 120)
    assert run.process.poll() is None, run.said
    return run


def test_a_host_that_falls_silent_in_the_middle_of_its_switch(
    fleet: Fleet, artifacts: dict[str, str], visitors: Visitors
) -> None:
    """No connection ends, as when a machine loses its power: ssh by itself would wait for the answer for hours."""
    host = next(iter(fleet.hosts))
    run = switching("silent", host, artifacts[NEW])
    drill.on(host, SILENCE)
    try:
        assert run.wait() != 0
        assert f"no answer from {host}" in run.said or "UNREACHABLE" in run.said
        others = {name: version for name, version in drill.served(fleet).items() if name != host}
        assert set(others.values()) == {OLD}, run.said
    finally:
        drill.on(host, SPEAK)
    # It serves the new release, which nobody has confirmed: the same command again ends that.
    drill.require_all_is_well(fleet, visitors, "silent", artifacts[NEW])


def test_a_host_that_is_rebooted_in_the_middle_of_its_switch(
    fleet: Fleet, artifacts: dict[str, str], old_is_live: None
) -> None:
    host = next(iter(fleet.hosts))
    # The first batch is this host alone: users are with the others by then. Nobody asks it directly: no host answers
    # while it is rebooted.
    with Visitors(fleet, direct=False) as visitors:
        run = switching("rebooted", host, artifacts[NEW], deploy_drain=True)
        subprocess.run([drill.engine(), "kill", "--signal=KILL", host], check=True, capture_output=True)
        subprocess.run([drill.engine(), "start", host], check=True, capture_output=True)
        assert run.wait() != 0
        others = {name: version for name, version in drill.served(fleet).items() if name != host}
        assert set(others.values()) == {OLD}, run.said
        # It serves something again, by itself.
        until(lambda: drill.served(fleet)[host] in (OLD, NEW), 60)
        # Nobody has confirmed the new release on that host, if it serves it: the same command again ends that.
        drill.require_all_is_well(fleet, visitors, "rebooted", artifacts[NEW])
        assert visitors.failures(stop=True) == []


def test_a_host_that_is_rebooted_before_it_is_confirmed_returns_by_itself(
    fleet: Fleet, artifacts: dict[str, str], old_is_live: None
) -> None:
    """The controller dies and the host loses its power: nobody is left to bring it back but its own timer."""
    host = next(iter(fleet.hosts))
    command = drill.playbook("deploy.yml", release_artifact=artifacts[NEW], app_release_confirm_within=CONFIRM)
    tasks = drill.CACHE / "tasks-reboot"
    tasks.unlink(missing_ok=True)
    with Visitors(fleet, direct=False) as visitors:
        run = drill.watched("rebooted and dead", command, tasks=tasks)
        until(lambda: tasks.exists() and "Watch the hosts of the batch" in tasks.read_text(), 180)
        run.kill()
        assert drill.served(fleet)[host] == NEW
        subprocess.run([drill.engine(), "kill", "--signal=KILL", host], check=True, capture_output=True)
        subprocess.run([drill.engine(), "start", host], check=True, capture_output=True)
        until(lambda: drill.served(fleet)[host] == OLD, CONFIRM + 90)
        assert set(drill.served(fleet).values()) == {OLD}
        # Whoever was on a connection to the host as its power went has noticed; nobody since.
        visitors.failures()
        drill.require_all_is_well(fleet, visitors, "rebooted and dead")
