"""The demo's program without a fleet: judging, showing, running and ending commands."""

from __future__ import annotations

import dataclasses
import http.server
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import demo
import pytest
import sources
from demo import Display, Fleet, Outcome, Step
from traffic import Report

QUIET = Report(
    seconds=10.0,
    asked_rate=200.0,
    rate=200.0,
    sent=2000,
    served=2000,
    failed=0,
    missed=0,
    in_flight=0,
    connections=5,
    reconnects=0,
    repeated=0,
    failures={},
    statuses={"200": 2000},
    versions={"1.0.0": 800},
    releases={},
    latency_ms={"p50": 1.0, "p99": 12.4, "max": 40.0},
    late_ms=0.0,
    cpu_percent=5.0,
    events=[],
)
LOSSY = dataclasses.replace(QUIET, served=1997, failed=3, failures={"reset before a response": 2, "status 503": 1})
ONE = {"app1": "1.0.0", "app2": "1.0.0"}
TWO = {"app1": "1.1.0", "app2": "1.1.0"}
NONE = {"app1": "-", "app2": "-"}
DEPLOY = Step("deploy 1.1.0", playbook="deploy.yml", source="1.1.0", live="1.1.0")
REFUSE = Step("refuse", playbook="deploy.yml", live="1.0.0", refused_because="HTTP 503")
SETUP = Step("set up", playbook="setup.yml")


@pytest.mark.parametrize(
    ("outcome", "log_text", "expected"),
    [
        (Outcome(DEPLOY, before=ONE, after=TWO, traffic=QUIET), "", []),
        (Outcome(SETUP, before=NONE, after=NONE), "", []),
        (Outcome(SETUP, before=ONE, after=ONE), "", []),
        (Outcome(SETUP, before=NONE, after=ONE), "", []),  # a stopped fleet that was raised again
        (Outcome(SETUP, before=ONE, after=TWO), "", ["app1 serves 1.1.0 instead of 1.0.0", "app2 serves"]),
        (Outcome(DEPLOY, returncode=2, before=ONE, after=TWO), "", ["deploy.yml ended with exit status 2"]),
        (Outcome(DEPLOY, before=ONE, after={**TWO, "app2": "1.0.0/1.1.0"}), "", ["app2 serves 1.0.0/1.1.0"]),
        (Outcome(DEPLOY, before=ONE, after=TWO, traffic=LOSSY), "", ["3 of 2000 requests failed: reset before"]),
        (Outcome(REFUSE, returncode=2, before=ONE, after=ONE), "app1: HTTP 503 in 4 ms", []),
        (Outcome(REFUSE, returncode=2, before=ONE, after=ONE), "no space left", ["failed, but not because"]),
        (Outcome(REFUSE, returncode=0, before=ONE, after=ONE), "HTTP 503", ["should have been refused"]),
        (Outcome(REFUSE, returncode=2, before=ONE, after=NONE), "HTTP 503", ["app1 serves -", "app2 serves -"]),
        (Outcome(SETUP, error="no Ansible"), "", ["no Ansible"]),
        (
            Outcome(DEPLOY, seconds=5, before=ONE, after=TWO, traffic=dataclasses.replace(QUIET, sent=0, served=0)),
            "",
            ["the load generator has stopped"],
        ),
    ],
)
def test_steps_are_judged(outcome: Outcome, log_text: str, expected: list[str]) -> None:
    found = demo.problems(outcome, log_text)
    assert len(found) == len(expected), found
    assert all(part in problem for part, problem in zip(expected, found)), found


def test_the_table_tells_every_step() -> None:
    outcomes = [
        Outcome(SETUP, seconds=30.04, before=NONE, after=NONE),
        Outcome(DEPLOY, seconds=21.5, before=ONE, after={**TWO, "app2": "1.0.0"}, traffic=LOSSY),
    ]
    assert demo.table(outcomes, ["app1", "app2"]) == [
        "step          seconds  served  failed  99 % within  app1            app2",
        "------------  -------  ------  ------  -----------  --------------  -----",
        "set up           30.0       -       -            -  -               -",
        "deploy 1.1.0     21.5    1997       3        12 ms  1.0.0 -> 1.1.0  1.0.0",
        "------------  -------  ------  ------  -----------  --------------  -----",
        "in all           51.5    1997       3",
    ]


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (Outcome(SETUP), ""),
        (Outcome(DEPLOY, traffic=QUIET), "2000 served, 0 failed"),
        (Outcome(REFUSE, returncode=2, traffic=QUIET), "refused; 2000 served, 0 failed"),
        (
            Outcome(DEPLOY, traffic=dataclasses.replace(QUIET, rate=120.4)),
            "2000 served, 0 failed; only 120 of 200 requests/s could be sent",
        ),
    ],
)
def test_a_step_is_described_in_a_line(outcome: Outcome, text: str) -> None:
    assert demo.describe(outcome) == text


@pytest.mark.parametrize(
    ("output", "task"),
    [
        ("", None),
        ("PLAY [Set up the hosts] ****\n", "Set up the hosts"),
        ("TASK [one] ***\nok: [app1]\n\nTASK [roastify.ops.pm2 : Install PM2] ****\n", "pm2 : Install PM2"),
        ("RUNNING HANDLER [roastify.ops.pm2 : Restart] ***\nTASK [not whole", "pm2 : Restart"),
        ("  TASK [quoted in an answer] ***\n", None),
    ],
)
def test_the_task_under_way_is_read_from_the_log(output: str, task: str | None) -> None:
    assert demo.last_task(output) == task


def test_the_steps_can_be_carried_out() -> None:
    for step in demo.STEPS:
        assert (step.playbook is None) != (step.traffic is None)
        if step.playbook:
            assert (demo.CHECKOUT / step.playbook).is_file()
        if step.source:
            sources.changes_up_to(step.source)
    assert [step.traffic for step in demo.STEPS if step.traffic] == ["start", "stop"]


def test_playbooks_get_their_source_as_variables() -> None:
    command = demo.playbook_command(DEPLOY, Path("/scratch of mine"))
    assert command[:3] == ["ansible-playbook", "deploy.yml", "--extra-vars"]
    assert json.loads(command[3]) == {
        "app_source": "/scratch of mine/application",
        "app_migrations": "/scratch of mine/migrations",
    }
    hurried = dataclasses.replace(SETUP, variables={"patience": 1})
    assert json.loads(demo.playbook_command(hurried, None)[-1]) == {"patience": 1}
    assert demo.playbook_command(SETUP, None) == ["ansible-playbook", "setup.yml"]


# -- display ----------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def use(display: Display) -> None:
    display.begin(3, "deploy 1.0.0")
    display.working(1.0, "first task")
    display.working(25.0, "second task")
    display.working(26.0, "second task")
    display.end(41.26, True, "8000 served, 0 failed")


def test_progress_elsewhere_is_plain_lines() -> None:
    stream = io.StringIO()
    use(Display(stream, 9))
    assert stream.getvalue().splitlines() == [
        "[ 3/9] deploy 1.0.0 …",
        "[ 3/9] deploy 1.0.0 … 25 s  second task",
        "[ 3/9] deploy 1.0.0  41.3 s  ok  8000 served, 0 failed",
    ]


def test_progress_on_a_terminal_rewrites_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()
    use(Display(stream, 9))
    *progress, last = stream.getvalue().split("\r\x1b[K")
    assert "\n" not in "".join(progress)
    assert all(len(line) <= 29 for line in progress)
    assert last == "[ 3/9] deploy 1.0.0  41.3 s  \x1b[32mok\x1b[0m  8000 served, 0 failed\n"


def test_colours_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    use(Display(stream, 9))
    assert "\x1b[3" not in stream.getvalue()


# -- commands ---------------------------------------------------------------------------------------


def test_output_goes_to_the_log_and_the_task_to_the_display(tmp_path: Path) -> None:
    script = "import sys, time; print('TASK [a : b] ****', flush=True); time.sleep(1.2); print('err', file=sys.stderr)"
    seen: list[str] = []
    log = tmp_path / "logs" / "x.log"
    assert demo.run_logged([sys.executable, "-c", f"{script}; sys.exit(3)"], log, seen.append) == 3
    text = log.read_text()
    assert text.startswith(f"$ {sys.executable}")
    assert "TASK [a : b]" in text
    assert text.endswith("err\n")
    assert "a : b" in seen


FAMILY = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_command_ends_with_all_that_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    process = subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, start_new_session=True)
    original = process.wait

    def impatient(timeout: float | None = None) -> int:
        waits.append(timeout or 0)
        return original(0.3)

    monkeypatch.setattr(process, "wait", impatient)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    demo.end_process(process)
    process.stdout.close()
    deadline = time.monotonic() + 5
    while demo.alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not demo.alive(child)
    assert process.poll() == -signal.SIGTERM
    assert len(waits) >= 2


def test_an_interrupt_ends_the_command(tmp_path: Path) -> None:
    pids: list[int] = []

    def interrupt(_task: str) -> None:
        pids.extend(demo.descendants(os.getpid()))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo.run_logged([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "x.log", interrupt)
    assert pids
    assert not any(demo.alive(pid) for pid in pids)


# -- the fleet --------------------------------------------------------------------------------------


class Health(http.server.BaseHTTPRequestHandler):
    answers: ClassVar[list[tuple[int, str]]] = []

    def do_GET(self) -> None:
        status, version = self.answers[0]
        self.answers.append(self.answers.pop(0))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps({"version": version}).encode() if version else b"{}")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def health_port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("answers", "version"),
    [
        ([(200, "1.0.0")], "1.0.0"),
        ([(200, "1.0.0"), (200, "1.1.0")], "1.0.0/1.1.0"),
        ([(503, "1.0.0")], "-"),
        ([(200, "")], "-"),
        ([(200, "1.0.0"), (503, "1.0.0")], "-/1.0.0"),
    ],
)
def test_versions_are_asked_of_every_worker(health_port: int, answers: list[tuple[int, str]], version: str) -> None:
    Health.answers = answers
    assert demo.version_at("127.0.0.1", health_port, "/health") == version


def test_a_host_that_is_down_has_no_version() -> None:
    assert Fleet({"app1": "127.0.0.1"}, 1, "/health", "http://127.0.0.1").versions() == {"app1": "-"}


def test_the_local_inventory_tells_the_fleet() -> None:
    fleet = Fleet.from_inventory()
    assert list(fleet.hosts) == ["app1", "app2"]
    assert fleet.url.startswith("http://")
    assert fleet.health_path.startswith("/")


def test_an_inventory_without_a_fleet_is_told(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("[app]\n")
    with pytest.raises(demo.DemoError, match="groups app and balancer"):
        Fleet.from_inventory(str(tmp_path / "hosts"))


# -- the whole --------------------------------------------------------------------------------------


class StandIn(Fleet):
    """A fleet whose hosts serve what the last step says."""

    states: ClassVar[list[dict[str, str]]] = []

    def versions(self) -> dict[str, str]:
        return self.states.pop(0)


def stand_in(*states: dict[str, str]) -> Fleet:
    StandIn.states = list(states)
    return StandIn({"app1": "127.0.0.1", "app2": "127.0.0.2"}, 5000, "/health", "http://127.0.0.1")


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(demo, "CHECKOUT", tmp_path)
    monkeypatch.setattr(demo, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(demo, "LOGS", tmp_path / "cache" / "logs")
    monkeypatch.setattr(demo, "playbook_command", lambda step, tree: [sys.executable, "-c", step.playbook])
    monkeypatch.setattr(sources, "make", lambda version, tree: tree.mkdir(parents=True))
    return tmp_path


def test_all_steps_run_in_order(scratch: Path) -> None:
    stream = io.StringIO()
    steps = (
        Step("set up", playbook="print('one')"),
        Step("deploy", playbook="print('two')", source="1.1.0", live="1.1.0"),
        Step("refuse", playbook="raise SystemExit('HTTP 503')", refused_because="HTTP 503"),
    )
    show = demo.Demo(Display(stream, 3), stand_in(NONE, NONE, TWO, TWO), steps)
    assert show.run()
    assert [outcome.after for outcome in show.outcomes] == [NONE, TWO, TWO]
    assert "two" in (scratch / "cache/logs/2-deploy.log").read_text()
    assert [row["name"] for row in show.result()["steps"]] == ["set up", "deploy", "refuse"]
    assert stream.getvalue().count("ok") == 3


def test_the_first_wrong_step_ends_the_demo_and_shows_the_log(scratch: Path) -> None:
    stream = io.StringIO()
    steps = (Step("set up", playbook="raise SystemExit('fatal: no space left')"), Step("deploy", playbook=""))
    show = demo.Demo(Display(stream, 2), stand_in(NONE, NONE), steps)
    assert not show.run()
    assert len(show.outcomes) == 1
    text = stream.getvalue()
    assert "FAILED" in text
    assert "    fatal: no space left" in text
    assert "log: cache/logs/1-set-up.log" in text


def test_a_source_that_cannot_be_laid_out_is_told(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(version: str, tree: Path) -> None:
        raise subprocess.CalledProcessError(1, ["git", "apply", "1.1.0.patch"])

    monkeypatch.setattr(sources, "make", fail)
    stream = io.StringIO()
    show = demo.Demo(Display(stream, 1), stand_in(ONE, ONE), (DEPLOY,))
    assert not show.run()
    assert "git apply 1.1.0.patch failed: a change no longer fits" in stream.getvalue()


def test_a_demo_that_ends_early_says_what_was_left_out_and_whether_the_machine_was_at_fault() -> None:
    begin = Step("start the traffic", traffic="start")
    slow = dataclasses.replace(QUIET, latency_ms={"p50": 900.0, "p99": 2950.0, "max": 4000.0})
    assert demo.remarks([Outcome(begin, traffic=QUIET)], [begin]) == []
    left, busy = demo.remarks([Outcome(begin, traffic=slow)], [begin, DEPLOY, SETUP])
    assert left == "Left out: deploy 1.1.0, set up."
    assert "took 2950 ms" in busy
