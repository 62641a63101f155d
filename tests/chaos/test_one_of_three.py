"""One host of three fails, in each phase: nothing is switched, or everything returns, or as the policy says."""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path

import drill
import pytest
from demo import Fleet
from drill import NEW, OLD, Visitors
from test_lost_hosts import CUT, MEND

pytestmark = pytest.mark.slow

AWAY = "mv /usr/local/bin/pm2 /usr/local/bin/pm2.away"
BACK = "mv /usr/local/bin/pm2.away /usr/local/bin/pm2"
FULL = errno.ENOSPC


@dataclasses.dataclass(frozen=True)
class Phase:
    """How a module fails on the host, and what is said then."""

    module: str
    event: str
    pattern: str
    said: str = "No space left on device"
    once: bool = True


PHASES = {
    # The second time it has the room that was set aside.
    "lock": Phase("deploy_lock", "os.rename", r"/\.deploy\.lock", once=False),
    "environment": Phase("env_file", "os.rename", r"/environments/"),
    # Three tries are made there.
    "stage": Phase("release_stage", "os.mkdir", r"/\.staging-", once=False),
    "switch": Phase("release_activate", "os.rename", r"/\.current\."),
    "record": Phase("release_finish", "open", r"deployments\.jsonl (a|None)"),
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_host_that_fails_keeps_or_brings_back_the_fleet(
    fleet: Fleet, artifacts: dict[str, str], visitors: Visitors, phase: str
) -> None:
    host = list(fleet.hosts)[1]
    failure = PHASES[phase]
    artifact = drill.variant(artifacts[NEW], "one-of-three", drill.marked)
    with drill.accident(host, failure.module, failure.event, failure.pattern, error=FULL, once=failure.once):
        status, output = drill.deploy(f"one fails, {phase}", artifact)
    assert status != 0
    assert failure.said in output
    surveys = drill.survey_all(fleet)
    assert {one.version for one in surveys} == {OLD}, output[-3000:]
    assert set(drill.served(fleet).values()) == {OLD}
    drill.require_all_is_well(fleet, visitors, f"one fails, {phase}")


def test_a_host_that_does_not_answer_stops_it_before_anything_is_changed(
    fleet: Fleet, artifacts: dict[str, str], visitors: Visitors
) -> None:
    host = list(fleet.hosts)[1]
    before = [one.found for one in drill.survey_all(fleet)]
    with drill.fault(host, CUT, MEND):
        status, output = drill.deploy("one fails, preflight", artifacts[NEW])
    assert status != 0
    assert "UNREACHABLE" in output or "did not answer" in output
    assert [one.found for one in drill.survey_all(fleet)] == before
    drill.require_all_is_well(fleet, visitors, "one fails, preflight")


def test_a_host_on_which_the_candidate_cannot_be_tried_out(
    fleet: Fleet, artifacts: dict[str, str], visitors: Visitors
) -> None:
    host = list(fleet.hosts)[1]
    listen = "import socket, time; s = socket.create_server(('127.0.0.1', 5001)); time.sleep(600)"
    with drill.fault(
        host,
        f'nohup python3 -c "{listen}" >/dev/null 2>&1 & echo $! >/run/listener; sleep 0.5',
        "kill $(cat /run/listener); rm /run/listener",
    ):
        status, output = drill.deploy("one fails, candidate", artifacts[NEW])
    assert status != 0
    assert "port 5001" in output and "in use" in output
    assert {one.version for one in drill.survey_all(fleet)} == {OLD}
    drill.require_all_is_well(fleet, visitors, "one fails, candidate")


def test_the_host_that_migrates(fleet: Fleet, artifacts: dict[str, str], visitors: Visitors) -> None:
    """It is the first one; the others wait for it, and go no further than it does."""

    def broken(tree: Path) -> None:
        (tree / "migrations" / "090_broken.up.sql").write_text("SELECT no_such_column FROM roasts;\n")
        (tree / "migrations" / "090_broken.down.sql").write_text("SELECT 1;\n")

    artifact = drill.variant(artifacts[NEW], "one-migrates", broken, schemaVersion="090")
    status, output = drill.deploy("one fails, migrate", artifact)
    assert status != 0
    assert "no_such_column" in output
    assert {one.version for one in drill.survey_all(fleet)} == {OLD}
    drill.require_all_is_well(fleet, visitors, "one fails, migrate")


@pytest.mark.parametrize(("policy", "new"), [("rollback_fleet", 0), ("stop", 1), ("continue", 2)])
def test_the_policy_for_a_host_that_cannot_be_switched(
    fleet: Fleet, artifacts: dict[str, str], visitors: Visitors, policy: str, new: int
) -> None:
    """The host in the middle has no PM2; one host was switched before it and one would be after it."""
    host = list(fleet.hosts)[1]
    # The candidate is tried out without PM2; only the switch needs it.
    with drill.fault(host, AWAY, BACK):
        status, output = drill.deploy(
            f"policy {policy}", artifacts[NEW], deploy_on_failure=policy, deploy_batches=[1, 1, 1]
        )
    assert status != 0
    assert "PM2 is not installed" in output
    served = list(drill.served(fleet).values())
    assert served[1] == OLD
    assert served.count(NEW) == new, output
    # The same command, once the host is mended.
    status, output = drill.deploy(f"policy {policy}, afterwards", artifacts[NEW])
    assert status == 0, output
    assert set(drill.served(fleet).values()) == {NEW}
    assert drill.leftovers(fleet) == []
