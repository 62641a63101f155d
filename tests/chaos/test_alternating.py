"""Many deployments and rollbacks in a row under live traffic: clients that keep their connections, that keep their
cookies and so their host, and that do neither. The reference application has no WebSockets.

    CHAOS_ROUNDS=50 CHAOS_ALTERNATING_RATE=500 .venv/bin/python -m pytest tests/chaos/test_alternating.py

The figures of every round are in .cache/drills/result.json.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import time
from collections.abc import Callable

import demo
import pytest
from demo import Fleet, Outcome, Step
from drill import CACHE, NEW, OLD, build, playbook, run
from traffic import BackgroundTraffic, Report

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "20"))
RATE = float(os.environ.get("CHAOS_ALTERNATING_RATE", "200"))

# Deployments to a newer and to an older version, and a rollback; each round changes the live version.
CYCLE = (
    Step(f"deploy {NEW}", playbook="deploy.yml", source=NEW, live=NEW),
    Step(f"roll back to {OLD}", playbook="rollback.yml", live=OLD),
    Step(f"deploy {NEW}", playbook="deploy.yml", source=NEW, live=NEW),
    Step(f"deploy {OLD}", playbook="deploy.yml", source=OLD, live=OLD),
)


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


def describe(number: int, rounds: int, outcome: Outcome, found: list[str]) -> str:
    report = outcome.traffic
    assert report is not None
    # Tells a starved machine from a lost request.
    load = f"load {os.getloadavg()[0]:4.1f}"
    versions = ", ".join(f"{host} {version}" for host, version in outcome.after.items())
    line = (
        f"round {number:3}/{rounds}  {outcome.step.name:18}  {outcome.seconds:6.1f} s  "
        f"{report.served:6} served  {report.failed:3} failed  {report.rate:5.0f}/s  "
        f"99 % within {report.latency_ms['p99']:5.0f} ms  {load}  {versions}"
    )
    return "\n".join([line, *(f"    {problem}" for problem in found)])


def summarize(outcomes: list[Outcome], total: Report) -> list[str]:
    lines = [
        f"{len(outcomes)} rounds, {total.served} requests served, {total.failed} failed, {total.missed} not sent, "
        f"{total.rate:.0f}/s"
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
) -> tuple[list[str], Report]:
    """Switch the fleet so many times under traffic; what went wrong, and the traffic in all."""
    artifacts = {version: build(version) for version in (OLD, NEW)}
    status, log = run(f"000 deploy {OLD}", *playbook("deploy.yml", release_artifact=artifacts[OLD]))
    assert status == 0, f"the first deployment failed: {log}"
    fleet.wait_for_balancer()

    outcomes: list[Outcome] = []
    wrong: list[str] = []
    with BackgroundTraffic(fleet.url, rate) as traffic:
        for number, step in zip(range(1, rounds + 1), itertools.cycle(CYCLE)):
            outcome = carry_out(number, step, artifacts, fleet, traffic)
            outcomes.append(outcome)
            assert outcome.log is not None
            found = demo.problems(outcome, outcome.log.read_text(errors="replace"))
            wrong += [f"round {number}, {step.name}: {problem} ({outcome.log})" for problem in found]
            show(describe(number, rounds, outcome, found))
            if outcome.returncode:
                break  # the following rounds would only repeat it
        total = traffic.stop()
    if total.failed != sum(outcome.traffic.failed for outcome in outcomes if outcome.traffic):
        wrong.append("requests failed after the last round")
    for line in summarize(outcomes, total):
        show(line)
    for event in total.events:
        show(f"    at {event['at']:.3f} s, {event['client']}, {event['request']}: {event['kind']}: {event['detail']}")
    CACHE.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "name": outcome.step.name,
            "seconds": outcome.seconds,
            "after": dict(outcome.after),
            "traffic": outcome.traffic.as_dict() if outcome.traffic else None,
        }
        for outcome in outcomes
    ]
    (CACHE / "result.json").write_text(json.dumps({"rounds": rows, "total": total.as_dict()}, indent=2) + "\n")
    return wrong, total


@pytest.mark.slow
def test_alternating_deployments_and_rollbacks_lose_no_request(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        print()
        wrong, total = alternate(fleet)
    assert not wrong, "\n".join(wrong)
    assert total.failed == 0
    assert total.missed == 0, f"{total.missed} requests could not be sent: this proves less than {RATE:g} requests/s"
