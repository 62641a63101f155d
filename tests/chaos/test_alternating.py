"""Many deployments and rollbacks in a row under live traffic: clients that keep their connections, that keep their
cookies and so their host, and that do neither; and visitors with WebSockets, half of which keep their cookies too.

    CHAOS_ROUNDS=50 CHAOS_ALTERNATING_RATE=500 .venv/bin/python -m pytest -s tests/chaos/test_alternating.py

    CHAOS_ROUNDS=20             deployments and rollbacks
    CHAOS_ALTERNATING_RATE=200  requests per second
    CHAOS_WEBSOCKETS=20         visitors with a WebSocket, each with five messages per second
    CHAOS_CLOSED_BY=application who closes WebSockets: the application, which sees all its connections off itself, or
                                the `preload` of role pm2, beside an application that does nothing about signals

The reference application has no WebSockets: what is deployed are variants of it that do (websockets/). In every round
the generation that serves is replaced on every host, so every WebSocket must be closed, by the protocol, and its
visitor be served again. The figures of every round are in .cache/drills/result.json.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import demo
import pytest
import websocket_traffic
from demo import Fleet, Outcome, Step
from drill import CACHE, HERE, NEW, OLD, PATIENCE, begins_with, build, playbook, run, variant
from traffic import BackgroundTraffic, Report

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "20"))
RATE = float(os.environ.get("CHAOS_ALTERNATING_RATE", "200"))
WEBSOCKETS = int(os.environ.get("CHAOS_WEBSOCKETS", "20"))
CLOSED_BY = os.environ.get("CHAOS_CLOSED_BY", "application")

# Each round changes the live version.
CYCLE = (
    Step(f"deploy {NEW}", playbook="deploy.yml", source=NEW, live=NEW),
    Step(f"roll back to {OLD}", playbook="rollback.yml", live=OLD),
)
# Seconds between two requests of a visitor: some pause for longer than a draining worker waits for silence.
THINK = (0.05, 3.0)
# A request that no visitor is free for is not sent. There are enough for half of them to think and as many to wait for
# an answer, while a starved machine takes some seconds for it.
CONNECTIONS = 2_500


def with_web_sockets(tree: Path) -> None:
    """A change for `variant`: the application has WebSockets."""
    source = tree / "backend" / "src"
    shutil.copy(HERE / "websockets" / "endpoint.js", source / "endpoint.js")
    if CLOSED_BY == "preload":
        shutil.copy(HERE / "websockets" / "plain-lifecycle.js", source / "lifecycle.js")
    own = json.dumps({"closesItself": CLOSED_BY == "application"})
    # A line of log for each request would be a tenth of what this machine can do.
    begins_with(f"process.env.LOG_LEVEL = 'warn'; require('./endpoint').install({own});")(tree)


def web_socket_problems(step: Step, lap: websocket_traffic.Report) -> list[str]:
    """What is not as it should be with the visitors with WebSockets after a round."""
    found = []
    if lap.failed:
        kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(lap.failures.items()))
        found.append(f"WebSockets: {lap.failed} failed: {kinds}")
    seen = {"closed by the protocol": lap.closed, "served again": lap.reconnected, "open": lap.served}
    for what, number in seen.items():
        if number < lap.visitors:
            found.append(f"WebSockets: {number} {what}, of {lap.visitors} visitors")
    if step.live not in lap.versions:
        found.append(f"WebSockets: none was served by {step.live}, only by {', '.join(lap.versions) or 'nobody'}")
    return found


def carry_out(number: int, step: Step, artifacts: dict[str, str], fleet: Fleet, traffic: BackgroundTraffic) -> Outcome:
    outcome = Outcome(step, before=fleet.versions())
    start = time.monotonic()
    assert step.playbook is not None
    command = playbook(step.playbook, **({"release_artifact": artifacts[step.source]} if step.source else {}))
    outcome.returncode, outcome.log = run(f"{number:03} {step.name}", *command)
    outcome.seconds = time.monotonic() - start
    outcome.after = fleet.versions()
    outcome.traffic = traffic.lap()
    return outcome


def describe(number: int, rounds: int, outcome: Outcome, web: websocket_traffic.Report, found: list[str]) -> str:
    report = outcome.traffic
    assert report is not None
    # Tells a starved machine from a lost request.
    load = f"load {os.getloadavg()[0]:4.1f}"
    versions = ", ".join(f"{host} {version}" for host, version in outcome.after.items())
    line = (
        f"round {number:3}/{rounds}  {outcome.step.name:18}  {outcome.seconds:6.1f} s  "
        f"{report.served:6} served  {report.failed:3} failed  {report.rate:5.0f}/s  "
        f"99 % within {report.latency_ms['p99']:5.0f} ms  "
        f"WebSockets {web.closed:3} closed, {web.reconnected:3} back within {web.away_ms['max']:4.0f} ms, "
        f"{web.echoed:6} messages, {web.failed:3} failed  {load}  {versions}"
    )
    return "\n".join([line, *(f"    {problem}" for problem in found)])


def summarize(outcomes: list[Outcome], total: Report, web: websocket_traffic.Report) -> list[str]:
    lines = [
        f"{len(outcomes)} rounds, {total.served} requests served, {total.failed} failed, {total.missed} not sent, "
        f"{total.rate:.0f}/s, 99 % within {total.latency_ms['p99']:.0f} ms, longest {total.latency_ms['max']:.0f} ms",
        f"{web.visitors} visitors with WebSockets: {web.opened} opened, {web.closed} closed by the protocol, "
        f"{web.reconnected} served again within {web.away_ms['max']:.0f} ms (half of them within "
        f"{web.away_ms['p50']:.0f} ms), {web.echoed} messages echoed, {web.crossed} sent again, {web.failed} failed",
    ]
    for name, group in itertools.groupby(sorted(outcomes, key=kind), key=kind):
        seconds = [outcome.seconds for outcome in group]
        figures = " / ".join(f"{value:.1f}" for value in (min(seconds), statistics.median(seconds), max(seconds)))
        lines.append(f"{name}: {figures} s (shortest, median, longest)")
    return lines


def kind(outcome: Outcome) -> str:
    return "deploy" if outcome.step.source else "roll back"


def alternate(
    fleet: Fleet, rounds: int = ROUNDS, rate: float = RATE, show: Callable[[str], None] = print
) -> tuple[list[str], Report, websocket_traffic.Report]:
    """Switch the fleet so many times under traffic; what went wrong, and the traffic in all."""
    name = f"websockets-{CLOSED_BY}"
    artifacts = {version: variant(build(version), f"{version}-{name}", with_web_sockets) for version in (OLD, NEW)}
    status, log = run(f"000 deploy {OLD}", *playbook("deploy.yml", release_artifact=artifacts[OLD]))
    assert status == 0, f"the first deployment failed: {log}"
    fleet.wait_for_balancer()

    outcomes: list[Outcome] = []
    laps: list[websocket_traffic.Report] = []
    wrong: list[str] = []
    with (
        BackgroundTraffic(fleet.url, rate, think=THINK, timeout=PATIENCE, connections=CONNECTIONS) as traffic,
        websocket_traffic.in_background(fleet.url, WEBSOCKETS, timeout=PATIENCE) as web,
    ):
        assert websocket_traffic.wait_served(web), f"not every WebSocket is served: {web.report()}"
        for number, step in zip(range(1, rounds + 1), itertools.cycle(CYCLE)):
            outcome = carry_out(number, step, artifacts, fleet, traffic)
            outcomes.append(outcome)
            websocket_traffic.wait_served(web)
            laps.append(web.lap())
            assert outcome.log is not None
            found = demo.problems(outcome, outcome.log.read_text(errors="replace"))
            found += web_socket_problems(step, laps[-1])
            wrong += [f"round {number}, {step.name}: {problem} ({outcome.log})" for problem in found]
            show(describe(number, rounds, outcome, laps[-1], found))
            if outcome.returncode:
                break  # the following rounds would only repeat it
        web_total = web.stop()
        total = traffic.stop()
    if total.failed != sum(outcome.traffic.failed for outcome in outcomes if outcome.traffic):
        wrong.append("requests failed after the last round")
    if web_total.failed != sum(lap.failed for lap in laps):
        wrong.append("WebSockets failed after the last round")
    for line in summarize(outcomes, total, web_total):
        show(line)
    for event in total.events:
        show(f"    at {event['at']:.3f} s, {event['client']}, {event['request']}: {event['kind']}: {event['detail']}")
    for event in web_total.events:
        show(f"    at {event['at']:.3f} s, WebSocket, {event['client']}: {event['kind']}: {event['detail']}")
    CACHE.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "name": outcome.step.name,
            "seconds": outcome.seconds,
            "after": dict(outcome.after),
            "traffic": outcome.traffic.as_dict() if outcome.traffic else None,
            "websockets": lap.as_dict(),
        }
        for outcome, lap in zip(outcomes, laps)
    ]
    result = {"rounds": rows, "total": total.as_dict(), "websockets": web_total.as_dict()}
    (CACHE / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    return wrong, total, web_total


#: A round as it should be, of two visitors.
GOOD = websocket_traffic.Report(
    seconds=9.0,
    visitors=2,
    served=2,
    opened=3,
    sent=90,
    echoed=89,
    crossed=1,
    under_way=0,
    closed=3,
    reconnected=2,
    failed=0,
    failures={},
    codes={"1001": 3},
    versions={OLD: 40, NEW: 49},
    echo_ms={},
    away_ms={},
    events=[],
)


@pytest.mark.parametrize(
    ("differs", "said"),
    [
        ({}, ""),
        ({"failed": 2, "failures": {"lost": 1, "reset": 1}}, "2 failed: lost 1, reset 1"),
        ({"closed": 0}, "0 closed by the protocol, of 2 visitors"),
        ({"reconnected": 1}, "1 served again, of 2 visitors"),
        ({"served": 1}, "1 open, of 2 visitors"),
        ({"versions": {OLD: 89}}, f"none was served by {NEW}, only by {OLD}"),
        ({"versions": {}}, f"none was served by {NEW}, only by nobody"),
    ],
)
def test_a_round_in_which_web_sockets_fail_or_were_not_tried_is_noticed(differs: dict[str, object], said: str) -> None:
    found = web_socket_problems(CYCLE[0], dataclasses.replace(GOOD, **differs))
    assert found == ([f"WebSockets: {said}"] if said else [])


@pytest.mark.slow
def test_alternating_deployments_and_rollbacks_lose_nothing(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    assert CLOSED_BY in ("application", "preload"), f"CHAOS_CLOSED_BY is {CLOSED_BY}"
    with capsys.disabled():
        print()
        wrong, total, web = alternate(fleet)
    assert not wrong, "\n".join(wrong)
    assert total.failed == 0
    assert total.missed == 0, f"{total.missed} requests could not be sent: this proves less than {RATE:g} requests/s"
    assert web.failed == 0
    assert min(web.closed, web.reconnected) >= ROUNDS * WEBSOCKETS, f"WebSockets were not tried in every round: {web}"
