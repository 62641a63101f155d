"""WebSockets and the other visitors while generations change under a real PM2, as the drill of alternating deployments
has them: closed by the application itself, by the preload, and by nobody, which has to be noticed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import traffic
import websocket_traffic
from ansible_collections.roastify.ops.plugins.module_utils import switching
from pm2_host import Pm2Host
from websocket_traffic import Report

CHECKOUT = Path(__file__).parents[2]
ENDPOINT = json.dumps(str(CHECKOUT / "tests/chaos/websockets/endpoint.js"))
VISITORS = 6
HARD_LIMIT_MS = 2000
# Seconds of silence after which one that drains may hang up: half its hard limit, less what a busy machine is late.
MAY_HANG_UP = HARD_LIMIT_MS / 1000 / 2 * 0.8


def script(closes_itself: bool, lifecycle: str) -> str:
    """An application that answers its health, with the endpoint of the drills and a lifecycle of a file."""
    return f"""
      require({ENDPOINT}).install({{ closesItself: {json.dumps(closes_itself)} }});
      require({json.dumps(str(CHECKOUT / lifecycle))}).serve((request, response) => healthy(response), {{
        host: '127.0.0.1', port: Number(process.env.PORT), log: {{ info() {{}}, warn() {{}} }},
        hardLimitMs: {HARD_LIMIT_MS},
      }});
    """


REFERENCE, PLAIN = "examples/roastify/backend/src/lifecycle.js", "tests/chaos/websockets/plain-lifecycle.js"
SCRIPTS = {
    "application": script(True, REFERENCE),
    "preload": script(False, PLAIN),
    "nobody": script(False, REFERENCE),
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pm2Host]:
    with Pm2Host(tmp_path_factory.mktemp("pm2")).daemon() as host:
        yield host


def switch(host: Pm2Host, closed_by: str, version: str) -> None:
    identifier = f"{closed_by}-{version}"
    release = host.host.release(identifier) or host.release(identifier, SCRIPTS[closed_by], version)
    service = switching.Service(host.port, host.candidate_port, patience=60.0)
    switching.Switch(host.host, host.pm2, release, service).run()


def alternate(host: Pm2Host, closed_by: str, *versions: str) -> tuple[list[Report], Report]:
    """Switch to one version after the other; the WebSockets' laps and total. No request may fail."""
    switch(host, closed_by, "1.0.0")
    url = f"http://127.0.0.1:{host.port}"
    health = (traffic.Target("GET", "/health", expects="health"),)
    laps = []
    with (
        traffic.BackgroundTraffic(url, 60, targets=health, think=(0.05, 3.0), repeat_after=MAY_HANG_UP, seed=1) as load,
        websocket_traffic.in_background(url, VISITORS, seed=1) as web,
    ):
        assert websocket_traffic.wait_served(web)
        for version in versions:
            switch(host, closed_by, version)
            assert websocket_traffic.wait_served(web)
            laps.append(web.lap())
        total = web.stop()
    report = load.report()
    assert report.failed == 0, traffic.describe(report)
    return laps, total


@pytest.mark.parametrize("closed_by", ["application", "preload"])
def test_every_web_socket_is_closed_cleanly_and_served_again(shop: Pm2Host, closed_by: str) -> None:
    laps, total = alternate(shop, closed_by, "1.1.0", "1.0.0")
    assert total.failed == 0, total.events
    for lap, version in zip(laps, ("1.1.0", "1.0.0")):
        assert lap.closed >= VISITORS
        assert lap.reconnected >= VISITORS
        assert version in lap.versions
    assert total.codes == {"1001": total.closed, "1000": VISITORS}


def test_it_is_noticed_if_nobody_closes_them(shop: Pm2Host) -> None:
    """The control: an application that handles the signals itself, and forgets its WebSockets."""
    _, total = alternate(shop, "nobody", "1.1.0")
    kinds = {"closed without a close frame", "reset"}
    assert sum(total.failures.get(kind, 0) for kind in kinds) == VISITORS
    assert total.closed == 0
