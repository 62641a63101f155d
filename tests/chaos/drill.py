"""The vocabulary of the drills: artifacts, runs of Ansible that can be killed, hosts as they really are, visitors.

Which fleet they drill is told by the environment, so that other tests can use them on theirs:

    CHAOS_INVENTORY   the inventory; the drills' own if it is not set
    CHAOS_DIRECTORY   where Ansible runs, for an inventory whose paths are relative to it; the checkout if it is not set

The names of the containers must be those of the hosts. What Ansible said is in .cache/drills/logs/.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import string
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import demo
import sources
from ansible_collections.roastify.ops.plugins.module_utils import artifact as artifacts
from demo import Fleet
from traffic import BackgroundTraffic, Report

HERE = Path(__file__).resolve().parent
CACHE = demo.CHECKOUT / ".cache" / "drills"
INVENTORY = Path(os.environ.get("CHAOS_INVENTORY") or HERE / "inventory").resolve()
DIRECTORY = Path(os.environ.get("CHAOS_DIRECTORY") or demo.CHECKOUT).resolve()
OLD, NEW = "1.0.0", "1.1.0"
ROOT = "/srv/roastify"
#: Requests per second while a drill goes on.
RATE = float(os.environ.get("CHAOS_RATE", "80"))
#: Seconds for which a visitor waits for an answer. Where hosts, load and controller share two processors all is slow;
#: what is refused, cut off or wrong fails at once, and what is lost is never answered.
PATIENCE = 30.0
#: Drills are many. That a candidate has to stay healthy is a drill of its own; and hosts that stay in the load balancer
#: while they are switched hide nothing.
QUICK: Mapping[str, object] = {"app_release_candidate_uptime": 0.1, "deploy_drain": False}
#: Seconds after which a run of Ansible hangs.
LONGEST = 600


# -- running ------------------------------------------------------------------------------------------


def environment(**more: str) -> dict[str, str]:
    """For Ansible on the fleet of the drills, whatever the tests were started with."""
    own = {name: value for name, value in demo.ansible_environment().items() if not name.startswith("ANSIBLE_")}
    settings = {
        "ANSIBLE_CONFIG": str(demo.CHECKOUT / "ansible.cfg"),
        "ANSIBLE_INVENTORY": str(INVENTORY),
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
        "ANSIBLE_NOCOLOR": "1",
    }
    return {**own, **settings, **more}


class Run:
    """A command of Ansible under way, in a session of its own: what it started dies with it, as with a terminal.

    Args:
        name: of its log.
        command: what to run; paths are relative to the checkout.
        more: environment variables.
    """

    def __init__(self, name: str, command: Sequence[str], **more: str) -> None:
        self.log = CACHE / "logs" / f"{re.sub(r'[^a-zA-Z0-9.]+', '-', name)}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.started = time.monotonic()
        with self.log.open("wb") as output:
            output.write(f"$ {' '.join(command)}\n\n".encode())
            output.flush()
            self.process = subprocess.Popen(
                command,
                cwd=DIRECTORY,
                env=environment(**more),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def until(self, text: str, seconds: float = 120) -> None:
        """Until the output holds a text."""
        deadline = time.monotonic() + seconds
        while text not in self.said:
            assert time.monotonic() < deadline and self.process.poll() is None, f"no {text!r} in {self.log}"
            time.sleep(0.02)

    def wait(self) -> int:
        """Exit code; negative if a signal ended it."""
        try:
            return self.process.wait(LONGEST)
        finally:
            demo.end_process(self.process)

    def signal(self, number: signal.Signals) -> None:
        """To the process and all that it started; Ansible's workers lead sessions of their own."""
        for process in (self.process.pid, *demo.descendants(self.process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait(10)


def playbook(path: str, **variables: object) -> list[str]:
    """The command that runs a playbook of the checkout."""
    extra = json.dumps({**QUICK, **variables})
    return ["ansible-playbook", str(demo.CHECKOUT / path), "--extra-vars", extra]


def watched(name: str, command: Sequence[str], **settings: object) -> Run:
    """A run at whose boundaries between tasks something happens.

    Args:
        name: of its log.
        command: what to run.
        settings: of callback_plugins/moments.py, without their prefix.
    """
    more = {f"DRILL_{key.upper()}": str(value) for key, value in settings.items()}
    return Run(
        name,
        command,
        ANSIBLE_CALLBACK_PLUGINS=str(HERE / "callback_plugins"),
        ANSIBLE_CALLBACKS_ENABLED="moments",
        PYTHONPATH=str(demo.CHECKOUT / "tools"),
        **more,
    )


def meanwhile(name: str, command: Sequence[str], moment: str, do: str, occurrence: int = 1) -> tuple[int, str]:
    """Exit code and output of a run in which something happens right before a task.

    Args:
        name: of its log.
        command: what to run.
        moment: part of the name of the task.
        do: shell command; `on_host` makes one for a host.
        occurrence: which of several tasks of such a name.
    """
    under_way = watched(name, command, moment=moment, do=do, occurrence=occurrence)
    status = under_way.wait()
    assert f" {moment}" in under_way.said or f"[{moment}" in under_way.said, f"no task {moment} in {under_way.log}"
    return status, under_way.said


def run(name: str, *command: str) -> tuple[int, Path]:
    """Exit code and log of a command of Ansible."""
    under_way = Run(name, command)
    return under_way.wait(), under_way.log


def deploy(name: str, artifact: str, **variables: object) -> tuple[int, str]:
    """Exit code and output of a deployment of a built artifact."""
    status, log = run(name, *playbook("deploy.yml", release_artifact=artifact, **variables))
    return status, log.read_text(errors="replace")


def another_environment() -> str:
    """What makes the environment another one: the cheapest real deployment, without a build and a transfer."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(64))


def deploy_environment(name: str, **variables: object) -> tuple[int, str]:
    """Exit code and output of a deployment of what is live with another environment."""
    variables = {"app_jwt_secret": another_environment(), **variables}
    status, log = run(name, *playbook("playbooks/environment.yml", **variables))
    return status, log.read_text(errors="replace")


def roll_back(name: str, **variables: object) -> tuple[int, str]:
    """Exit code and output of a rollback."""
    status, log = run(name, *playbook("rollback.yml", **variables))
    return status, log.read_text(errors="replace")


# -- artifacts ----------------------------------------------------------------------------------------


def build(version: str, variant: str = "", change: Callable[[Path], None] | None = None) -> str:
    """Path of the artifact of a version, or of a variant of it whose source tree was changed."""
    name = f"{version}-{variant}" if variant else version
    tree = CACHE / "source" / name
    sources.make(version, tree)
    if change:
        change(tree)
    variables = {"app_source": str(tree / "application"), "app_migrations": str(tree / "migrations")}
    status, log = run(f"build {name}", *playbook("playbooks/build.yml", **variables))
    found = re.findall(r"(/\S+\.tar\.gz)\b", log.read_text())
    assert status == 0 and found, f"{name} was not built: {log}"
    return str(found[-1])


def variant(base: str, name: str, change: Callable[[Path], None], **manifest: object) -> str:
    """Path of an artifact made of another one: unpacked, changed and packed again, which takes no build.

    Args:
        base: the artifact that it is made of.
        name: of the variant.
        change: gets the directory of the unpacked application.
        manifest: fields of the manifest that differ.
    """
    tree = CACHE / "variants" / name
    shutil.rmtree(tree, ignore_errors=True)
    tree.parent.mkdir(parents=True, exist_ok=True)
    contents = artifacts.unpack(base, str(tree), durable=False)
    for own in (".release.json", ".release.files.json"):
        (tree / own).unlink(missing_ok=True)
    change(tree)
    path = CACHE / "variants" / f"{name}.tar.gz"
    derived = ("files", "unpackedSize", "filesSha256")
    content = {key: value for key, value in contents.manifest.items() if key not in derived}
    artifacts.pack(str(tree), str(path), {**content, **manifest})
    shutil.rmtree(tree)
    return str(path)


def begins_with(script: str) -> Callable[[Path], None]:
    """A change for `variant`: the application's entry begins with other JavaScript."""

    def change(tree: Path) -> None:
        entry = tree / "backend" / "src" / "server.js"
        entry.write_text(f"{script}\n{entry.read_text()}")

    return change


def marked(tree: Path) -> None:
    """A change for `variant` that only makes the content another one, so that it has to be transferred."""
    (tree / "mark.txt").write_text(secrets.token_hex(16))


# -- hosts --------------------------------------------------------------------------------------------


def engine() -> str:
    """The container engine that the fleet runs on."""
    return (demo.CHECKOUT / ".cache" / "engine").read_text().splitlines()[0]


def on(host: str, script: str, wanted: bool = True, mounts: bool = False) -> str:
    """Output of a shell script as root on a host, past SSH, so that it works where SSH does not.

    Args:
        host: its name.
        script: what to run.
        wanted: whether it has to succeed.
        mounts: whether it may mount file systems, which root of a container may not.
    """
    rights = ["--privileged"] if mounts else []
    done = subprocess.run(
        [engine(), "exec", "-i", *rights, host, "sh", "-eu"], input=script, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 or not wanted, f"{host}: {script}: {done.stderr or done.stdout}"
    return done.stdout


def on_host(host: str, script: str) -> str:
    """The shell command that runs a script as root on a host."""
    return shlex.join([engine(), "exec", host, "sh", "-c", script])


_SURVEY = r"""
import json, os, subprocess, sys
root, name = "/srv/roastify", "roastify"
def names(path):
    try:
        return sorted(os.listdir(path))
    except FileNotFoundError:
        return []
def read(path):
    try:
        with open(path) as stream:
            return json.load(stream)
    except FileNotFoundError:
        return None
    except ValueError:
        return "not JSON"
candidates = []
for process in names("/proc"):
    try:
        with open(f"/proc/{process}/environ", "rb") as stream:
            if b"RELEASE_CANDIDATE=1" in stream.read().split(b"\0"):
                candidates.append(process)
    except OSError:
        pass
unclaimed = []
for top, _, files in os.walk(f"{root}/shared/assets"):
    below = os.path.relpath(top, f"{root}/shared/assets")
    homes = [f"{root}/releases/{release}/.assets/{below}" for release in names(f"{root}/releases")]
    unclaimed += [file for file in files if not any(os.path.exists(f"{home}/{file}") for home in homes)]
listed = subprocess.run([f"pm2-{name}", "jlist", "--silent"], capture_output=True, text=True).stdout
workers = json.loads(listed.strip().splitlines()[-1]) if listed.strip() else []
journal = []
try:
    with open(f"{root}/deployments.jsonl") as stream:
        for line in stream:
            record = json.loads(line)
            journal += [record] if "deploymentId" in record else []
except FileNotFoundError:
    pass
timer = subprocess.run(["systemctl", "is-active", f"deadman-{name}.timer"], capture_output=True, text=True)
print(json.dumps({
    "root": names(root),
    "current": os.readlink(f"{root}/current") if os.path.islink(f"{root}/current") else None,
    "releases": {entry: (read(f"{root}/releases/{entry}/.release.json") or {}).get("version")
                 for entry in names(f"{root}/releases")},
    "states": {entry: read(f"{root}/.states/{entry}") for entry in names(f"{root}/.states")},
    "environments": names(f"{root}/shared/environments"),
    "shared": names(f"{root}/shared"),
    "artifacts": names(f"/var/lib/{name}/artifacts"),
    "unclaimed": unclaimed,
    "candidates": candidates,
    "timer": timer.stdout.strip() in ("active", "activating"),
    "journal": journal[-20:],
    "workers": [{"name": worker["name"], "status": worker["pm2_env"]["status"], "pid": worker["pid"],
                 "directory": worker["pm2_env"]["pm_cwd"]} for worker in workers],
}))
"""


@dataclasses.dataclass(frozen=True)
class Survey:
    """What is on a host, seen without the code that put it there."""

    host: str
    found: Mapping[str, Any]

    @property
    def live(self) -> str:
        """Id of the release that `current` points to."""
        return str(self.found["current"] or "").rpartition("/")[2]

    @property
    def version(self) -> str | None:
        """Version of the release that `current` points to."""
        version = self.found["releases"].get(self.live)
        return None if version is None else str(version)

    @property
    def journal(self) -> list[dict[str, Any]]:
        """The newest records, oldest first."""
        return list(self.found["journal"])

    def state(self, release: str) -> dict[str, Any]:
        """What is written of a release."""
        return dict(self.found["states"].get(f"{release}.json") or {})

    def leftovers(self) -> list[str]:
        """All that must not be there once a deployment has ended, well or not."""
        found, complete = self.found, self.found["releases"]
        lines = [f"releases/{name} is no release" for name, version in complete.items() if version is None]
        own = (".states", ".reserve")
        lines += [f"{name} in {ROOT}" for name in found["root"] if name.startswith(".") and name not in own]
        for name, state in found["states"].items():
            release = name.removesuffix(".json")
            if name.startswith(".") or release not in complete:
                lines.append(f".states/{name} of no release")
            elif not isinstance(state, dict) or state.get("state") == "staging":
                lines.append(f".states/{name} says {state}")
        lines += [
            f"environments/{name} of no release"
            for name in found["environments"]
            if name.startswith(".") or name.removesuffix(".env") not in complete
        ]
        lines += [f"{name} in shared/" for name in found["shared"] if name.startswith(".")]
        lines += [f"artifact {name}" for name in found["artifacts"]]
        lines += [f"asset {name} of no release" for name in found["unclaimed"]]
        lines += [f"candidate, process {process}" for process in found["candidates"]]
        lines += ["the timer still runs"] if found["timer"] else []
        directory = f"{ROOT}/releases/{self.live}"
        workers = found["workers"]
        lines += [
            f"worker {worker['name']}, {worker['status']}, in {worker['directory']}"
            for worker in workers
            if worker["directory"] != directory or worker["status"] != "online"
        ]
        if len({worker["name"] for worker in workers}) != 1:
            lines.append(f"generations: {sorted({worker['name'] for worker in workers})}")
        if self.state(self.live).get("state") != "live":
            lines.append(f"the state of the live release is {self.state(self.live)}")
        return [f"{self.host}: {line}" for line in lines]


def survey(host: str) -> Survey:
    """Look at a host."""
    done = subprocess.run(
        [engine(), "exec", "-i", host, "python3", "-"], input=_SURVEY, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{host}: {done.stderr}"
    return Survey(host, json.loads(done.stdout))


def served(fleet: Fleet, seconds: float = 15) -> dict[str, str]:
    """The version that each host answers, `-` among them if it does not.

    A host of a starved machine is asked again; that none refuses anybody is for the visitors to see.
    """
    deadline = time.monotonic() + seconds
    while True:
        answers = fleet.versions()
        if not any(demo.UNKNOWN in answer.split("/") for answer in answers.values()) or time.monotonic() > deadline:
            return answers
        time.sleep(0.5)


def survey_all(fleet: Fleet) -> list[Survey]:
    """Look at every host."""
    return [survey(host) for host in fleet.hosts]


def leftovers(fleet: Fleet) -> list[str]:
    """All that must not be there once a deployment has ended, and hosts that do not serve the same."""
    surveys = survey_all(fleet)
    lines = [line for one in surveys for line in one.leftovers()]
    if len({one.live for one in surveys}) != 1:
        lines.append(f"not the same release: { ({one.host: one.live for one in surveys}) }")
    return lines


def doctor(name: str = "doctor") -> list[str]:
    """What the doctor finds on the fleet."""
    _, log = run(name, *playbook("playbooks/doctor.yml", doctor_format="json"))
    text = log.read_text(errors="replace")
    return [line for line in text.splitlines() if '"what"' in line or "What to do" in line]


def require_all_is_well(fleet: Fleet, visitors: Visitors, name: str, artifact: str | None = None) -> None:
    """The next deployment succeeds without a hand's turn, leaves nothing behind, and nobody has noticed anything.

    Args:
        fleet: that of the drill.
        visitors: its traffic.
        name: of the drill.
        artifact: what is deployed; none: what all hosts serve, with another environment.
    """
    assert visitors.failures() == []
    afterwards = f"{name}, afterwards"
    status, output = deploy(afterwards, artifact) if artifact else deploy_environment(afterwards)
    assert status == 0, output
    assert leftovers(fleet) == []
    assert len(set(served(fleet).values())) == 1
    assert visitors.failures() == []


@contextlib.contextmanager
def fault(host: str, cause: str, end: str) -> Iterator[None]:
    """Something is wrong with a host while the block lasts.

    Args:
        host: its name.
        cause: script that makes it so.
        end: script that ends it, run whatever happens.
    """
    on(host, cause)
    try:
        yield
    finally:
        on(host, end)


_HOOK = r"""
import json, os, re, signal, sys

def listen():
    try:
        with open("/run/drill.json") as stream:
            order = json.load(stream)
    except OSError:
        return
    if os.path.exists("/run/drill.done") and order["once"]:
        return  # once is enough: the way back must not meet with the same accident
    state = {"missing": order["nth"]}
    def hook(event, arguments):
        if event != order["event"] or state["missing"] < 1 and order["once"]:
            return
        module = getattr(sys.modules.get("__main__"), "_module_fqn", "")
        if not module.endswith("." + order["module"]) or not re.search(order["pattern"], " ".join(map(str, arguments))):
            return
        state["missing"] -= 1
        if state["missing"] == 0 or not order["once"]:
            os.close(os.open("/run/drill.done", os.O_CREAT | os.O_WRONLY))
            if order["do"]:
                os.system(order["do"])
                return
            if order["error"]:
                raise OSError(order["error"], os.strerror(order["error"]))
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

listen()
"""
_SITE = "$(python3 -c 'import site; print(site.getsitepackages()[0])')"


@contextlib.contextmanager
def accident(
    host: str,
    module: str,
    event: str,
    pattern: str,
    nth: int = 1,
    error: int = 0,
    do: str = "",
    once: bool = True,
) -> Iterator[None]:
    """A module is killed on a host, or fails, right before a certain system call: always the same one.

    Python itself announces what it is about to do to audit hooks (sys.addaudithook); the host gets one by a .pth file,
    and the engine is as it is. Afterwards the accident must have happened.

    Args:
        host: its name.
        module: for instance ``release_activate``.
        event: for instance ``os.rename``; see the table of audit events of Python's documentation.
        pattern: regular expression that the arguments of the event match, joined by spaces.
        nth: which of several such events.
        error: number of the error that the call fails with, instead of a kill.
        do: shell command that is run on the host each time such an event comes, instead of a kill.
        once: whether it happens once; else to everybody who tries again.
    """
    order = {"module": module, "event": event, "pattern": pattern, "nth": nth, "error": error, "do": do}
    order["once"] = once and not do
    on(host, f"rm -f /run/drill.done; mkdir -p {_SITE}; cat > /run/drill.json <<'END'\n{json.dumps(order)}\nEND")
    on(host, f"cat > {_SITE}/drill_hook.py <<'END'\n{_HOOK}\nEND\necho 'import drill_hook' > {_SITE}/drill.pth")
    try:
        yield
        assert on(host, "ls /run").split().count("drill.done") == 1, f"{module} never came to {event} {pattern}"
    finally:
        on(host, f"rm -rf /run/drill.* {_SITE}/drill.pth {_SITE}/drill_hook.py")


# -- visitors -----------------------------------------------------------------------------------------


class Visitors:
    """Traffic to where users go, and some to each host itself, where no load balancer hides anything.

    Args:
        fleet: the fleet.
        rate: requests per second, a quarter of them to the hosts themselves.
        balanced: whether there are users.
        direct: whether hosts are asked themselves; one that is rebooted cannot answer.
        options: of the traffic.
    """

    def __init__(
        self, fleet: Fleet, rate: float = RATE, balanced: bool = True, direct: bool = True, **options: Any
    ) -> None:
        hosts = {host: f"http://{address}:{fleet.port}" for host, address in fleet.hosts.items()}
        places = {"users": (fleet.url, rate * 0.75)} if balanced else {}
        if direct:
            places |= {host: (url, rate * 0.25 / len(hosts)) for host, url in hosts.items()}
        options = {"timeout": PATIENCE, **options}
        # Whoever asks a host itself does what the load balancer does for users: a request that meets the end of a
        # connection that was kept is sent again.
        self._traffic = {
            name: BackgroundTraffic(url, share, repeat_after=0.0 if url in hosts.values() else None, **options)
            for name, (url, share) in places.items()
        }

    def __enter__(self) -> Visitors:
        for traffic in self._traffic.values():
            traffic.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for traffic in self._traffic.values():
            traffic.stop()

    def failures(self, stop: bool = False) -> list[str]:
        """Every request that failed since this was asked last, with how."""
        lines = []
        for name, traffic in self._traffic.items():
            if stop:
                traffic.stop()
            report = traffic.lap()
            kinds = [f"{event['request']}: {event['kind']}: {event['detail']}" for event in report.events]
            if report.failed:
                lines += [f"{name}: {report.failed} of {report.sent} requests failed", *kinds[:10]]
        return lines

    def total(self) -> dict[str, Report]:
        """What happened in all, by where the requests went."""
        return {name: traffic.report() for name, traffic in self._traffic.items()}

    @property
    def served(self) -> int:
        return sum(report.served for report in self.total().values())
