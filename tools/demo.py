#!/usr/bin/env python3
"""The whole way of a deployment on the sandbox fleet, with live traffic: what `make demo` runs.

Every step is a playbook that people run too. What Ansible says goes to .cache/demo/logs/, one file per step;
a table of all steps stands at the end. The exit status is 0 only if every step did what it should, every host
was on the expected version after each step, and no request failed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import sources
from traffic import BackgroundTraffic, Report, TrafficError

CHECKOUT = Path(__file__).resolve().parent.parent
CACHE = CHECKOUT / ".cache" / "demo"
LOGS = CACHE / "logs"
RATE = 200
TAIL_LINES = 40
UNKNOWN = "-"


class DemoError(Exception):
    """The demo cannot go on."""


# -- the steps ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Step:
    """One row of the demo: what is run, and what must be true afterwards."""

    name: str
    playbook: str | None = None
    source: str | None = None  # version whose source tree the playbook gets
    traffic: str | None = None  # start | stop
    live: str | None = None  # version that every host serves afterwards; None: as before
    variables: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # The playbook must fail, and this must stand in its log: any other failure would prove nothing.
    refused_because: str | None = None


#: Milliseconds that nearly all requests stay below on a machine that has room for hosts, balancer and load.
BUSY_MS = 1000
STEPS = (
    Step("raise the sandbox", playbook="playbooks/sandbox.yml"),
    Step("set the hosts up", playbook="setup.yml"),
    Step("deploy 1.0.0", playbook="deploy.yml", source="1.0.0", live="1.0.0"),
    Step("start the traffic", traffic="start"),
    Step("deploy 1.1.0", playbook="deploy.yml", source="1.1.0", live="1.1.0"),
    Step("roll back", playbook="rollback.yml", live="1.0.0"),
    Step(
        "refuse unhealthy 1.2.0",
        playbook="deploy.yml",
        source="1.2.0-unhealthy",
        live="1.0.0",
        refused_because=r"HTTP 503",
        # It never becomes healthy: nobody has to wait as long for it as for a slow start.
        variables={"app_release_patience": 20},
    ),
    Step("stop the traffic", traffic="stop"),
)


@dataclasses.dataclass
class Outcome:
    """What a step did."""

    step: Step
    seconds: float = 0.0
    returncode: int = 0
    log: Path | None = None
    before: Mapping[str, str] = dataclasses.field(default_factory=dict)
    after: Mapping[str, str] = dataclasses.field(default_factory=dict)
    traffic: Report | None = None
    error: str | None = None


def problems(outcome: Outcome, log_text: str) -> list[str]:
    """Everything that is not as it should be after a step."""
    step, found = outcome.step, []
    if outcome.error:
        found.append(outcome.error)
    if step.refused_because is None:
        if outcome.returncode:
            found.append(f"{step.playbook} ended with exit status {outcome.returncode}")
    elif outcome.returncode == 0:
        found.append(f"{step.playbook} succeeded and should have been refused")
    elif not re.search(step.refused_because, log_text):
        found.append(f"{step.playbook} failed, but not because of {step.refused_because!r}")
    for host, version in outcome.after.items():
        expected = step.live or outcome.before.get(host, UNKNOWN)
        # The first steps may find a fleet that serves, and a fleet may be raised without serving.
        if (step.live or expected != UNKNOWN) and version != expected:
            found.append(f"{host} serves {version} instead of {expected}")
    report = outcome.traffic
    if report is not None:
        if report.failed:
            kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(report.failures.items()))
            found.append(f"{report.failed} of {report.sent} requests failed: {kinds}")
        if not report.sent and outcome.seconds > 1:
            found.append("no request was sent: the load generator has stopped")
    return found


# -- the fleet ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Fleet:
    """The addresses of the inventory: application hosts by name, and where visitors go."""

    hosts: Mapping[str, str]
    port: int
    health_path: str
    url: str

    @classmethod
    def from_inventory(cls, inventory: str | None = None, directory: Path = CHECKOUT) -> Fleet:
        """Ask Ansible, so that templates and other variable files count; no host is contacted.

        Args:
            inventory: another one than that of ansible.cfg.
            directory: where Ansible runs, for an inventory whose paths are relative to it.
        """
        facts = {
            "address": "{{ ansible_host | default(inventory_hostname) }}",
            "port": "{{ app_port }}",
            "path": "{{ app_health_path }}",
            "balancer": "{{ inventory_hostname in groups.balancer | default([]) }}",
        }
        command = ["ansible", "app:balancer", "-m", "ansible.builtin.debug", "-a", json.dumps({"msg": facts})]
        callback = {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1"}
        done = subprocess.run(
            [*command, *(["-i", inventory] if inventory else [])],
            cwd=directory,
            env={**ansible_environment(), **callback},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            results = json.loads(done.stdout[done.stdout.index("{") :])["plays"][0]["tasks"][0]["hosts"]
            rows = {host: result["msg"] for host, result in results.items()}
            balancers = [row["address"] for row in rows.values() if row["balancer"]]
            apps = {host: row for host, row in rows.items() if not row["balancer"]}
            first = next(iter(apps.values()))
            return cls(
                hosts={host: str(row["address"]) for host, row in sorted(apps.items())},
                port=int(first["port"]),
                health_path=str(first["path"]),
                # Without a load balancer, visitors go to a host.
                url=f"http://{balancers[0]}" if balancers else f"http://{first['address']}:{first['port']}",
            )
        except (ValueError, LookupError, TypeError, StopIteration) as error:
            output = (done.stdout + done.stderr).strip()[-2000:]
            raise DemoError(f"The inventory does not tell the hosts of groups app and balancer:\n{output}") from error

    def versions(self) -> dict[str, str]:
        """The version that each host answers, asked directly and not through the load balancer."""
        return {host: version_at(address, self.port, self.health_path) for host, address in self.hosts.items()}

    def wait_for_balancer(self, seconds: float = 30.0) -> None:
        """Until the load balancer has seen enough good health answers to let visitors in."""
        address, _, port = self.url.removeprefix("http://").partition(":")
        end = time.monotonic() + seconds
        while ask_version(address, int(port or 80), self.health_path) is None:
            if time.monotonic() > end:
                raise DemoError(f"{self.url}{self.health_path} did not answer within {seconds:g} s.")
            time.sleep(0.2)


def version_at(address: str, port: int, path: str) -> str:
    """Several answers, since several workers share the port: all versions among them, or `-`."""
    answers = {ask_version(address, port, path) or UNKNOWN for _ in range(4)}
    return "/".join(sorted(answers))


def ask_version(address: str, port: int, path: str) -> str | None:
    # Which version it is, is asked, not how fast: with this traffic on one machine an answer may take seconds.
    connection = http.client.HTTPConnection(address, port, timeout=10)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        document = json.loads(response.read())
        return str(document["version"]) if response.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return None
    finally:
        connection.close()


# -- running ------------------------------------------------------------------------------------------


def ansible_environment() -> dict[str, str]:
    path = os.pathsep.join((str(CHECKOUT / ".venv" / "bin"), os.environ.get("PATH", os.defpath)))
    # Logs are for looking into afterwards, and their TASK lines tell what is under way.
    form = {"ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default", "ANSIBLE_NOCOLOR": "1", "PYTHONUNBUFFERED": "1"}
    return {**os.environ, "PATH": path, **form}


def playbook_command(step: Step, tree: Path | None) -> list[str]:
    assert step.playbook is not None
    command = ["ansible-playbook", step.playbook]
    variables = dict(step.variables)
    if tree is not None:
        variables |= {"app_source": str(tree / "application"), "app_migrations": str(tree / "migrations")}
    if variables:
        command += ["--extra-vars", json.dumps(variables)]
    return command


def run_logged(command: Sequence[str], log: Path, tick: Callable[[str], None]) -> int:
    """Run a command with its output in a file; `tick` gets the task that is under way, twice a second."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        output.write(f"$ {' '.join(command)}\n\n".encode())
        output.flush()
        # A session of its own: Ctrl-C reaches this program only, which then ends everything in order.
        process = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env=ansible_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            with log.open("rb") as follow:
                task = ""
                while process.poll() is None:
                    task = last_task(follow.read().decode("utf-8", "replace")) or task
                    tick(task)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(0.5)
            return process.returncode
        finally:
            end_process(process)


def last_task(output: str) -> str | None:
    found = re.findall(r"^(?:TASK|RUNNING HANDLER|PLAY) \[(.*)\] \*", output, re.MULTILINE)
    # "role : task" reads well without the name of the collection.
    return re.sub(r"^[a-z0-9_]+\.[a-z0-9_]+\.(?=\w+ : )", "", found[-1]) if found else None


def end_process(process: subprocess.Popen[bytes]) -> None:
    """End a command and what it started: ask, ask again, then insist. Nothing to do if it has ended."""
    if process.poll() is not None:
        return
    # Ansible's workers lead sessions of their own, so the process group is not enough.
    family = [process.pid, *descendants(process.pid)]
    for number, patience in ((signal.SIGINT, 10), (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        for pid in family if number != signal.SIGINT else family[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        family = [pid for pid in family if alive(pid)]
        if not family:
            return


def descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            fields = stat.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = list(children.get(pid, []))
    for child in found:  # grows while it is walked
        found += children.get(child, [])
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# -- showing ------------------------------------------------------------------------------------------


class Display:
    """Progress: one line that is rewritten on a terminal, plain lines elsewhere."""

    HEARTBEAT = 20.0

    def __init__(self, stream: TextIO, steps: int) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._colours = self._terminal and "NO_COLOR" not in os.environ
        self._steps = steps
        self._heading = ""
        self._next_heartbeat = 0.0

    def begin(self, number: int, name: str) -> None:
        self._heading = f"[{number:2}/{self._steps}] {name}"
        self._next_heartbeat = self.HEARTBEAT
        if not self._terminal:
            self.line(f"{self._heading} …")

    def working(self, seconds: float, details: str) -> None:
        text = f"{self._heading} … {seconds:.0f} s" + (f"  {details}" if details else "")
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write("\r\x1b[K" + (text if len(text) <= width else text[: width - 1] + "…"))
            self._stream.flush()
        elif seconds >= self._next_heartbeat:
            self._next_heartbeat += self.HEARTBEAT
            self.line(text)

    def end(self, seconds: float, good: bool, details: str) -> None:
        word = self.colour("32", "ok") if good else self.colour("31", "FAILED")
        self.line(f"{self._heading}  {seconds:.1f} s  {word}" + (f"  {details}" if details else ""))

    def line(self, text: str = "") -> None:
        self._stream.write(("\r\x1b[K" if self._terminal else "") + text + "\n")
        self._stream.flush()

    def colour(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colours else text


def describe(outcome: Outcome) -> str:
    """What a step's line says when it has ended."""
    parts = []
    if outcome.step.refused_because and outcome.returncode:
        parts.append("refused")
    if outcome.traffic is not None:
        report = outcome.traffic
        parts.append(f"{report.served} served, {report.failed} failed")
        if not report.rate_reached and report.seconds > 1:
            parts.append(f"only {report.rate:.0f} of {report.asked_rate:.0f} requests/s could be sent")
    return "; ".join(parts)


def change(before: str, after: str) -> str:
    return before if before == after else f"{before} -> {after}"


def table(outcomes: Sequence[Outcome], hosts: Sequence[str]) -> list[str]:
    """The lines of the closing table."""
    rows = [["step", "seconds", "served", "failed", "99 % within", *hosts]]
    for outcome in outcomes:
        report = outcome.traffic
        figures = [UNKNOWN] * 3
        if report is not None:
            figures = [str(report.served), str(report.failed), f"{report.latency_ms['p99']:.0f} ms"]
        versions = [change(outcome.before.get(host, UNKNOWN), outcome.after.get(host, UNKNOWN)) for host in hosts]
        rows.append([outcome.step.name, f"{outcome.seconds:.1f}", *figures, *versions])
    reports = [outcome.traffic for outcome in outcomes if outcome.traffic is not None]
    rows.append(
        [
            "in all",
            f"{sum(outcome.seconds for outcome in outcomes):.1f}",
            str(sum(report.served for report in reports)),
            str(sum(report.failed for report in reports)),
            "",
            *([""] * len(hosts)),
        ]
    )
    return format_rows(rows, right=range(1, 5))


def format_rows(rows: Sequence[Sequence[str]], right: Sequence[int]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    lines = [
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]
    rule = "  ".join("-" * width for width in widths)
    return [lines[0], rule, *lines[1:-1], rule, lines[-1]]


# -- the demo -----------------------------------------------------------------------------------------


class Demo:
    """Runs the steps in order and remembers their outcomes."""

    def __init__(self, display: Display, fleet: Fleet, steps: Sequence[Step] = STEPS, rate: float = RATE) -> None:
        self.display = display
        self.fleet = fleet
        self.steps = steps
        self.outcomes: list[Outcome] = []
        self.traffic = BackgroundTraffic(fleet.url, rate)

    def run(self) -> bool:
        """True if every step did what it should; the first one that does not ends the demo."""
        versions: Mapping[str, str] = self.fleet.versions()
        with contextlib.ExitStack() as stack:
            for number, step in enumerate(self.steps, 1):
                self.display.begin(number, step.name)
                outcome = Outcome(step, before=versions, after=versions)
                self.outcomes.append(outcome)
                if step.traffic == "start":
                    stack.callback(self.stop_traffic)
                self.carry_out(number, outcome)
                versions = outcome.after
                log_text = outcome.log.read_text(errors="replace") if outcome.log else ""
                found = problems(outcome, log_text)
                self.display.end(outcome.seconds, not found, describe(outcome))
                if found:
                    self.explain(outcome, found, log_text)
                    return False
        return True

    def carry_out(self, number: int, outcome: Outcome) -> None:
        step, start = outcome.step, time.monotonic()
        try:
            if step.playbook:
                tree = None
                if step.source:
                    tree = CACHE / "source" / step.source
                    sources.make(step.source, tree)
                outcome.log = LOGS / f"{number}-{step.name.replace(' ', '-')}.log"
                outcome.returncode = run_logged(
                    playbook_command(step, tree),
                    outcome.log,
                    lambda task: self.display.working(time.monotonic() - start, self.progress(task)),
                )
            elif step.traffic == "start":
                self.fleet.wait_for_balancer()
                self.traffic.start()
                time.sleep(3)  # so that the row shows how it is when nothing happens
            elif step.traffic == "stop":
                self.traffic.stop()
        except subprocess.CalledProcessError as error:
            outcome.error = f"{' '.join(error.cmd)} failed: a change no longer fits the example"
        except (DemoError, TrafficError, OSError, ValueError) as error:
            outcome.error = str(error)
        finally:
            outcome.seconds = time.monotonic() - start
        outcome.after = self.fleet.versions()
        if self.traffic.started:
            try:
                outcome.traffic = self.traffic.lap()
            except TrafficError as error:
                outcome.error = outcome.error or str(error)

    def stop_traffic(self) -> None:
        with contextlib.suppress(TrafficError):
            self.traffic.stop()

    def progress(self, task: str) -> str:
        counts = ""
        if self.traffic.started:
            with contextlib.suppress(TrafficError):
                now = self.traffic.mark()
                counts = f"{now.served} served, {now.failed} failed  "
        return counts + task

    def explain(self, outcome: Outcome, found: Sequence[str], log_text: str) -> None:
        """Why a step counts as failed, with the evidence."""
        show = self.display.line
        if outcome.log is not None and outcome.returncode:
            show()
            for line in log_text.splitlines()[-TAIL_LINES:]:
                show(f"    {line}")
        show()
        for problem in found:
            show(f"  {problem}")
        for event in outcome.traffic.events[:10] if outcome.traffic else []:
            show(
                f"    at {event['at']:.3f} s, {event['client']}, {event['request']}: {event['kind']}: {event['detail']}"
            )
        if outcome.log is not None:
            show(f"  log: {outcome.log.relative_to(CHECKOUT)}")

    def result(self) -> dict[str, Any]:
        """The outcomes for programs."""
        return {
            "steps": [
                {
                    "name": outcome.step.name,
                    "seconds": round(outcome.seconds, 1),
                    "before": dict(outcome.before),
                    "after": dict(outcome.after),
                    "error": outcome.error,
                    "traffic": outcome.traffic.as_dict() if outcome.traffic else None,
                }
                for outcome in self.outcomes
            ]
        }


def farewell(fleet: Fleet) -> list[str]:
    hosts = ", ".join(f"{host} http://{address}:{fleet.port}" for host, address in fleet.hosts.items())
    return [
        "What was raised keeps running:",
        f"  {fleet.url}/  through the load balancer; directly: {hosts}",
        "  .venv/bin/ansible-playbook playbooks/status.yml  shows what is deployed",
        f"  {LOGS.relative_to(CHECKOUT)}/  has what Ansible said",
        "  make demo-down  removes everything",
    ]


def interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def remarks(outcomes: Sequence[Outcome], steps: Sequence[Step] = STEPS) -> list[str]:
    """What somebody has to know of a demo that did not come to its end."""
    found = []
    left = [step.name for step in steps[len(outcomes) :]]
    if left:
        found.append(f"Left out: {', '.join(left)}.")
    before = next((each.traffic for each in outcomes if each.step.traffic == "start" and each.traffic), None)
    if before is not None and before.latency_ms["p99"] > BUSY_MS:
        found.append(
            f"Before anything was deployed under them, 99 % of the requests took {before.latency_ms['p99']:.0f} ms: "
            "this machine is too busy, or too slow, to judge a deployment by its requests."
        )
    return found


def main() -> int:
    # A terminal that closes, or a supervisor, must end the steps just as Ctrl-C does.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    display = Display(sys.stdout, len(STEPS))
    demo = None
    good, interrupted = False, False
    start = time.monotonic()
    try:
        shutil.rmtree(LOGS, ignore_errors=True)
        demo = Demo(display, Fleet.from_inventory())
        good = demo.run()
    except DemoError as error:
        display.line(f"{error}")
    except KeyboardInterrupt:
        interrupted = True
        display.line("Interrupted. The step under way and the traffic were ended; what was raised is still there.")
    if demo is None:
        return 130 if interrupted else 1
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / "result.json").write_text(json.dumps(demo.result(), indent=2) + "\n")
    display.line()
    for line in table(demo.outcomes, list(demo.fleet.hosts)):
        display.line(line)
    display.line()
    for line in farewell(demo.fleet):
        display.line(line)
    display.line()
    if good:
        text = f"As it should be: every step, every version, no request lost, {time.monotonic() - start:.0f} s."
        display.line(display.colour("32", text))
        return 0
    text = "Interrupted." if interrupted else "Not as it should be: see above."
    display.line(display.colour("31", " ".join([text, *remarks(demo.outcomes)])))
    return 130 if interrupted else 1


if __name__ == "__main__":
    sys.exit(main())
