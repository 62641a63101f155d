"""Releases that misbehave: each is caught before it is switched to, with the reason and its last words."""

from __future__ import annotations

import re

import drill
import pytest
from demo import Fleet
from drill import NEW, OLD, Visitors

pytestmark = pytest.mark.slow

# What the entry of the application begins with, what the output must say, and variables of the deployment.
RELEASES: dict[str, tuple[str, str, dict[str, object]]] = {
    "crashes at its start": (
        "console.error('I cannot go on like this'); process.exit(3);",
        r"exit code 3.*I cannot go on like this",
        {},
    ),
    "never listens": (
        "console.log('I listen to nobody'); setInterval(() => {}, 1000); if (true) return;",
        r"has to listen on the port.*I listen to nobody",
        {"app_release_patience": 5},
    ),
    "answers 503": (
        "require('./health').createHealth = () => async () => ({ status: 'unhealthy', checks: {} });",
        r"HTTP 503",
        {"app_release_patience": 5},
    ),
    "is slow for 90 s": (
        "require('http').createServer = ((make) => (listener) => make((request, response) => "
        "setTimeout(() => listener(request, response), 90000)))(require('http').createServer);",
        r"no (whole )?answer|within 2|timed out|time",
        {"app_release_patience": 8},
    ),
    "says another version": (
        "require('./health').createHealth = (({ createHealth }) => (parts) => "
        "createHealth({ ...parts, version: '0.0.1' }))(require('./health'));",
        r"0\.0\.1",
        {"app_release_patience": 5},
    ),
    "dies after some seconds": (
        "setTimeout(() => { console.error('That is enough'); process.exit(4); }, 4000);",
        r"exit code 4.*That is enough",
        {"app_release_candidate_uptime": 8},
    ),
}


@pytest.mark.parametrize("release", RELEASES)
def test_a_release_that_misbehaves_is_not_switched_to(
    fleet: Fleet, artifacts: dict[str, str], visitors: Visitors, release: str
) -> None:
    script, said, variables = RELEASES[release]
    artifact = drill.variant(artifacts[NEW], f"bad-{release.replace(' ', '-')}", drill.begins_with(script))
    live = [one.live for one in drill.survey_all(fleet)]
    status, output = drill.deploy(f"release {release}", artifact, **variables)
    assert status != 0
    assert "is not fit for traffic" in output
    assert re.search(said, output, re.DOTALL), output
    surveys = drill.survey_all(fleet)
    assert [one.live for one in surveys] == live
    assert all(one.journal[-1]["status"] == "failed" for one in surveys)
    assert [line for one in surveys for line in one.leftovers()] == []
    assert set(drill.served(fleet).values()) == {OLD}
    assert visitors.failures() == []


def test_what_dies_on_the_live_port_alone_is_left_again(
    fleet: Fleet, artifacts: dict[str, str], visitors: Visitors
) -> None:
    """Good as a candidate, and bad beside the others: the switch itself has a gate."""
    script = "if (!process.env.RELEASE_CANDIDATE) { console.error('Not in public'); process.exit(5); }"
    artifact = drill.variant(artifacts[NEW], "bad-in-public", drill.begins_with(script))
    status, output = drill.deploy("dies in public", artifact)
    assert status != 0
    assert "failed on the live port" in output
    assert "Not in public" in output
    assert set(drill.served(fleet).values()) == {OLD}
    drill.require_all_is_well(fleet, visitors, "dies in public")
