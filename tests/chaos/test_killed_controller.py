"""The controller is killed, with all that it started, at every boundary between two tasks and in the middle of tasks.

    CHAOS_KILLS=10          so many kills, spread over an environment deployment
    CHAOS_KILLS=100         the default: every boundary of a deployment once, then at random, in deployments of
                            releases, of environments, and in rollbacks, with a delay or without, once or twice in a row
    CHAOS_SEED=1            the same kills again

After each: every host serves one version, and the next deployment succeeds, by itself, and leaves nothing behind.
"""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial

import demo
import drill
import pytest
from demo import Fleet
from drill import CACHE, NEW, OLD, Visitors

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("CHAOS_KILLS", "100"))
SEED = int(os.environ.get("CHAOS_SEED", "0")) or random.randrange(1, 1_000_000)
SHORT = 20


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of run that can be killed; each call of `command` is another one of its kind."""

    name: str
    command: Callable[[], list[str]]


@dataclasses.dataclass(frozen=True)
class Kill:
    """Where a run is to end."""

    kind: Kind
    boundary: int
    task: str
    delay: float = 0.0

    def __str__(self) -> str:
        moment = f"{self.delay:.2f} s into" if self.delay else "before"
        return f"{self.kind.name}, {moment} task {self.boundary}, {self.task}"


def kinds(artifacts: dict[str, str]) -> dict[str, Kind]:
    """Deployments of releases and environments, and rollbacks."""
    known = [
        *(Kind(f"deploy {version}", partial(deployment_of, path)) for version, path in artifacts.items()),
        Kind("environment", environment),
        Kind("rollback", partial(drill.playbook, "rollback.yml")),
    ]
    return {kind.name: kind for kind in known}


def deployment_of(artifact: str) -> list[str]:
    # So few are kept that the artifact has to be transferred each time.
    return drill.playbook("deploy.yml", release_artifact=artifact, app_release_keep=1)


def environment() -> list[str]:
    return drill.playbook("playbooks/environment.yml", app_jwt_secret=drill.another_environment())


def boundaries(kind: Kind) -> list[str]:
    """The names of the tasks of a run that nobody kills."""
    tasks = CACHE / f"tasks-{kind.name.replace(' ', '-')}"
    tasks.unlink(missing_ok=True)
    whole = drill.watched(f"whole {kind.name}", kind.command(), tasks=tasks)
    assert whole.wait() == 0, whole.said
    return tasks.read_text().splitlines()


def carry_out(number: int, kill: Kill, fleet: Fleet, visitors: Visitors) -> list[str]:
    """Kill a run; what is wrong right afterwards."""
    settings = {"kill_at": kill.boundary, **({"kill_delay": kill.delay} if kill.delay else {})}
    run = drill.watched(f"kill {number:03}", kill.kind.command(), **settings)
    status = run.wait()
    problems = []
    # A short task may be the last one, and over before the delay is.
    if status != -signal.SIGKILL and not (kill.delay and status == 0):
        problems.append(f"it ended with {status} instead of being killed: {run.log}")
    answers = drill.served(fleet)
    # Both of them while the old workers leave.
    problems += [f"{host} serves {version}" for host, version in answers.items() if demo.UNKNOWN in version.split("/")]
    return problems + visitors.failures()


def recover(number: int, kill: Kill, fleet: Fleet, visitors: Visitors, chance: random.Random) -> list[str]:
    """Run what an operator runs next; what is wrong then."""
    name = f"after {number:03}"
    command = kill.kind.command()
    if kill.kind.name == "rollback" or chance.random() < 0.3:
        # A killed rollback may have been done, and another one would go further back.
        command = environment()
    status, log = drill.run(name, *command)
    if status != 0:
        return [f"the next deployment failed with {status}: {log}", *visitors.failures()]
    served = set(drill.served(fleet).values())
    wrong = [] if served in ({OLD}, {NEW}) else [f"then {served} is served"]
    return wrong + drill.leftovers(fleet) + visitors.failures()


def plan_short(kind: Kind, kills: int) -> list[Kill]:
    """Evenly from the lock to the end of a deployment; every other one in the middle of a task."""
    tasks = boundaries(kind)
    first = next(number for number, task in enumerate(tasks, 1) if "Take the lock" in task)
    where = [first + round(step * (len(tasks) - first) / max(kills - 1, 1)) for step in range(kills)]
    plan = [Kill(kind, number, tasks[number - 1], 0.6 * (step % 2)) for step, number in enumerate(where)]
    # The heart of it, whatever the even steps meet: in each batch, before the new workers have joined and after.
    switches = [number for number, task in enumerate(tasks, 1) if task.endswith(": Switch to the release")]
    for place, (number, delay) in enumerate([(switches[0], 1.0), (switches[-1], 2.5)]):
        if place + 1 < len(plan):
            plan[-(place + 2)] = Kill(kind, number, tasks[number - 1], delay)
    return plan


def plan_long(kinds: dict[str, Kind], kills: int, chance: random.Random) -> list[Kill]:
    """Every boundary of a deployment, then any of all kinds."""
    # The first deployment to a new fleet has more tasks than those that are killed: it brings the migrations.
    order = (f"deploy {NEW}", "rollback", "environment", f"deploy {NEW}")
    tasks = {name: boundaries(kinds[name]) for name in order}
    tasks[f"deploy {OLD}"] = tasks[f"deploy {NEW}"]
    every = tasks[f"deploy {NEW}"]
    plan = [Kill(kinds[f"deploy {(NEW, OLD)[number % 2]}"], number, task) for number, task in enumerate(every, 1)]
    plan = plan[:kills]
    while len(plan) < kills:
        name = chance.choice(sorted(tasks))
        number = chance.randint(1, len(tasks[name]))
        delay = round(chance.uniform(0.05, 4), 2) if chance.random() < 0.6 else 0.0
        plan.append(Kill(kinds[name], number, tasks[name][number - 1], delay))
    return plan


def survive(plan: list[Kill], fleet: Fleet, visitors: Visitors, chance: random.Random, skips: float) -> list[str]:
    """Everything that went wrong in so many kills.

    Args:
        plan: the kills.
        fleet: the fleet.
        visitors: the traffic that runs meanwhile.
        chance: what decides.
        skips: share of the kills after which the next run is killed, too, before anything could recover.
    """
    wrong: list[str] = []
    begun = time.monotonic()
    print(f"\n{len(plan)} kills, CHAOS_SEED={SEED}")
    for number, kill in enumerate(plan, 1):
        start = time.monotonic()
        problems = carry_out(number, kill, fleet, visitors)
        if number == len(plan) or chance.random() >= skips:
            problems += recover(number, kill, fleet, visitors, chance)
        wrong += [f"kill {number} ({kill}): {problem}" for problem in problems]
        print(f"{number:3}  {time.monotonic() - start:5.1f} s  {kill}", *problems, sep="\n     ! ", flush=True)
    print(f"{visitors.served} requests served, {time.monotonic() - begun:.0f} s", flush=True)
    return wrong


@pytest.mark.skipif(KILLS > SHORT, reason="the long run has these kills, too")
def test_a_few_kills(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """In deployments of environments: on any fleet that serves, without a build."""
    assert set(drill.served(fleet).values()) in ({OLD}, {NEW})
    with capsys.disabled(), Visitors(fleet) as visitors:
        wrong = survive(plan_short(Kind("environment", environment), KILLS), fleet, visitors, random.Random(SEED), 0.0)
        wrong += visitors.failures(stop=True)
        assert all(report.served > 0 for report in visitors.total().values())
    assert wrong == []


@pytest.mark.skipif(KILLS <= SHORT, reason="the short run")
def test_a_killed_controller_needs_no_cleaning_up(
    fleet: Fleet, artifacts: dict[str, str], visitors: Visitors, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(SEED)
    with capsys.disabled():
        assert survive(plan_long(kinds(artifacts), KILLS, chance), fleet, visitors, chance, 0.2) == []
