"""Two controllers, one fleet: one deployment at a time, and never an older one over a newer one."""

from __future__ import annotations

import re
import signal

import drill
import pytest
from demo import Fleet
from drill import NEW, OLD, Run, Visitors

pytestmark = pytest.mark.slow


def test_of_two_that_start_at_once_one_at_most_switches(
    fleet: Fleet, artifacts: dict[str, str], visitors: Visitors
) -> None:
    runs = [
        Run("at once, release", drill.playbook("deploy.yml", release_artifact=artifacts[NEW])),
        Run(
            "at once, environment",
            drill.playbook("playbooks/environment.yml", app_jwt_secret=drill.another_environment()),
        ),
    ]
    statuses = [run.wait() for run in runs]
    said = [run.said for run in runs]
    for status, output in zip(statuses, said):
        refused = ("is at work here", "refused its lock", "switched it in between")
        assert status == 0 or any(words in output for words in refused), output
    # Both may have refused each other, each with the lock of another host.
    surveys = drill.survey_all(fleet)
    assert len({one.live for one in surveys}) == 1
    if statuses.count(0) == 1:
        assert surveys[0].version == (NEW, OLD)[statuses.index(0)]
    assert drill.leftovers(fleet) == []
    drill.require_all_is_well(fleet, visitors, "at once")


def test_what_was_built_while_another_went_live_is_refused(
    fleet: Fleet, artifacts: dict[str, str], visitors: Visitors
) -> None:
    # It has seen what is live, and is at its build for long.
    slow = Run("built for long", drill.playbook("deploy.yml", release_artifact=artifacts[NEW]))
    slow.until("[Choose the batches")
    slow.signal(signal.SIGSTOP)
    try:
        status, output = drill.deploy_environment("in between")
        assert status == 0, output
        between = {one.live for one in drill.survey_all(fleet)}
        assert len(between) == 1
    finally:
        slow.signal(signal.SIGCONT)
    assert slow.wait() != 0
    assert "another one has switched it in between" in re.sub(r"\s+", " ", slow.said)
    assert {one.live for one in drill.survey_all(fleet)} == between
    assert drill.leftovers(fleet) == []
    drill.require_all_is_well(fleet, visitors, "in between")


def test_the_lock_of_a_dead_holder_is_taken_over_and_said_so(
    fleet: Fleet, artifacts: dict[str, str], visitors: Visitors
) -> None:
    dead = Run("holder", drill.playbook("deploy.yml", release_artifact=artifacts[NEW]))
    dead.until(": Validate the environment and install it")
    dead.kill()
    lock = drill.on(next(iter(fleet.hosts)), "cat /srv/roastify/.deploy.lock")
    status, output = drill.deploy_environment("heir")
    assert status == 0, output
    deployment = re.search(r'"deploymentId": "([^"]+)"', lock)
    assert deployment and f"took over the lock of deployment {deployment[1]}" in re.sub(r"\s+", " ", output)
    assert drill.leftovers(fleet) == []
    assert set(drill.served(fleet).values()) == {OLD}


def test_a_slow_old_deployment_does_not_switch_after_a_newer_one(
    fleet: Fleet, artifacts: dict[str, str], visitors: Visitors
) -> None:
    # Its lease runs out while it is stopped: to everybody else it looks dead.
    slow = Run("slow", drill.playbook("deploy.yml", release_artifact=artifacts[NEW], app_release_lease=30))
    slow.until(": Try the release out")
    slow.signal(signal.SIGSTOP)
    try:
        # What a deployment of the slow one is still at on the hosts ends by itself; its lease does not.
        status, output = drill.deploy_environment("newer", app_release_lease=30)
        refusals = 0
        while status != 0 and "is at work here" in output and refusals < 20:
            refusals += 1
            status, output = drill.deploy_environment("newer", app_release_lease=30)
        assert status == 0, output
        newer = {one.live for one in drill.survey_all(fleet)}
        assert len(newer) == 1
    finally:
        slow.signal(signal.SIGCONT)
    assert slow.wait() != 0
    assert "lost the lock of this host" in slow.said
    assert {one.live for one in drill.survey_all(fleet)} == newer
    assert set(drill.served(fleet).values()) == {OLD}
    drill.require_all_is_well(fleet, visitors, "slow")
