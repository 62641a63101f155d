"""Measures deployments against Capistrano and against the least that one can be, on the same fleet in one run.

usage: make bench-deploy [rounds=5]    or    python tests/bench/deployments.py --help

A fleet of its own (inventory deployments/inventory, eight hosts) is raised, set up and removed at the end. A built
artifact of 24 MB and 3,000 files goes to 1, 2, 4 and 8 of its hosts:

- ours: deploy.yml as it is shipped, with its canary batch, its trial of three seconds and its gates;
- ours, at once: the same with all hosts in one batch, no minimum uptime and one healthy answer instead of three;
- Capistrano 3 with the usual upload of an archive, in parallel, and `pm2 startOrReload` (deployments/Capfile);
- the floor, a bare script: scp, tar, rename, `pm2 startOrReload`, in parallel (deployments/floor.sh).

Each deploys a version that no host has, the same bytes for all; then ours deploys the same again; then another version
comes, and all roll back. The order of the tools is rotated, ratios are taken within a round, and the tables show
medians. Each time it is verified that every host serves what it should. Nothing here fails for being slow.

Round trips are counted by the hosts: sshd there logs every session that a client opens. A tool that opens one session
to do ten things has made one round trip. All tools begin without an open connection.

At the end the three deploy under traffic to one host, once a good version and once one that cannot start. The
application is of the commonest kind, one that does nothing on SIGINT.

Capistrano comes from the packages of Debian, and is installed where it is missing and root may do so.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
HERE = Path(__file__).parent / "deployments"
sys.path[:0] = [str(CHECKOUT / "collections"), str(CHECKOUT / "tools"), str(HERE)]

import application  # noqa: E402
from traffic import BackgroundTraffic, Target  # noqa: E402

CACHE = CHECKOUT / ".cache/bench-fleet"
RESULTS = CHECKOUT / ".cache/bench/deployments.json"
CAPISTRANO_PACKAGES = ["capistrano", "ruby-ed25519", "ruby-bcrypt-pbkdf"]
#: Hosts of the inventory, and their addresses.
HOSTS = {f"bench-app{number}": f"10.80.0.{10 + number}" for number in range(1, 9)}
OURS, AT_ONCE, CAPISTRANO, FLOOR = "ours", "ours, at once", "Capistrano", "floor"
PORTS = {OURS: 5000, AT_ONCE: 5000, CAPISTRANO: 5100, FLOOR: 5200}
#: What takes the waiting and the second look out of ours.
AT_ONCE_VARIABLES = {
    "deploy_batches": ["100%"],
    "app_release_candidate_uptime": 0,
    "app_release_healthy_threshold": 1,
}
DEPLOY, AGAIN, ROLLBACK = "deploy", "the same again", "rollback"
#: Requests a second, of the part under traffic.
RATE = 50
#: Seconds that an application may need to serve once its tool says that it does.
PATIENCE = 60


class Failed(Exception):
    """A tool did not do its work; the text says what it said."""


@dataclass(frozen=True)
class Run:
    """One run of a tool.

    Attributes:
        action: DEPLOY, AGAIN or ROLLBACK.
        tool: as the tables show it.
        size: how many hosts.
        round: number of the round; ratios are taken within one.
        wall: seconds from the start of the process to its end.
        cpu: seconds of the processor that it used on the controller, children included.
        host_cpu: seconds of the processor that all hosts together used meanwhile, or None where that is not counted.
        late: seconds from its end until every host had answered with the new version; what asking takes is in it.
        sessions: SSH sessions that it opened, by host.
        connections: SSH connections that it opened, by host.
        load: load average of the machine when it began.
    """

    action: str
    tool: str
    size: int
    round: int
    wall: float
    cpu: float
    host_cpu: float | None
    late: float
    sessions: tuple[int, ...]
    connections: tuple[int, ...]
    load: float


def environment(**more: str) -> dict[str, str]:
    """The environment of every tool: how to reach the hosts, and nothing that they would ask a person."""
    return {
        **os.environ,
        "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
        "BENCH_KEY": str(CACHE / "id_ed25519"),
        "BENCH_KNOWN_HOSTS": str(CACHE / "known_hosts"),
        "BENCH_LOG": str(CACHE / "capistrano.log"),
        **more,
    }


def playbook(path: str, hosts: Sequence[str] = (), variables: Mapping[str, object] | None = None) -> list[str]:
    """The command that runs a playbook on the fleet of the bench."""
    command = ["ansible-playbook", "-i", str(HERE / "inventory"), path]
    if hosts:
        command += ["--limit", ",".join(["localhost", *hosts])]
    return [*command, *(["-e", json.dumps(variables)] if variables else [])]


def run(command: Sequence[str], cwd: Path = CHECKOUT, **more: str) -> tuple[float, float, int, str]:
    """Run a command to its end: seconds, seconds of the processor, exit code, and what it said."""
    with tempfile.TemporaryFile("w+") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=cwd, env=environment(**more), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        return wall, usage.ru_utime + usage.ru_stime, process.returncode, output.read()


def must(command: Sequence[str]) -> None:
    """Run something that is not measured."""
    _, _, code, said = run(command)
    if code:
        raise Failed(f"{' '.join(command)} ended with {code}:\n{said}")


def install_capistrano() -> str:
    """Have Capistrano; its version."""
    if shutil.which("cap") is None:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise Failed(f"Capistrano is missing. Install it, as root: apt-get install {' '.join(CAPISTRANO_PACKAGES)}")
        must(["apt-get", "install", "--yes", "--no-install-recommends", *CAPISTRANO_PACKAGES])
    said = subprocess.run(["cap", "--version"], capture_output=True, text=True, check=True).stdout
    return said.partition("(")[0].strip()


def counter(pid: str) -> Callable[[], float] | None:
    """What reads how many seconds of the processor the container of a process has used.

    Args:
        pid: of the first process of the container.
    """
    for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        # Version 1 counts nanoseconds, version 2 microseconds, and has systemd of the container in a part of it.
        old = Path(f"/sys/fs/cgroup/cpuacct{path}/cpuacct.usage")
        new = Path(f"/sys/fs/cgroup{path.removesuffix('/init.scope')}/cpu.stat")
        if "cpuacct" in controllers.split(",") and old.exists():
            return lambda: int(old.read_text(encoding="ascii")) / 1e9
        if not controllers and new.exists():
            return lambda: int(new.read_text(encoding="ascii").split()[1]) / 1e6
    return None


class Fleet:
    """The hosts, as those that do not deploy see them."""

    def __init__(self) -> None:
        self.engine = (CHECKOUT / ".cache/engine").read_text(encoding="utf-8").splitlines()[0]
        self.counters: dict[str, Callable[[], float] | None] = {}

    def cpu(self, hosts: Sequence[str]) -> float | None:
        """Seconds of the processor that hosts have used together since they were started, or None if nobody counts."""
        if not self.counters:
            command = [self.engine, "inspect", "--format={{.State.Pid}}", *HOSTS]
            pids = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            self.counters.update(zip(HOSTS, map(counter, pids)))
        found = [self.counters[host] for host in hosts]
        return sum(read() for read in found if read is not None) if all(found) else None

    def served(self, tool: str, host: str) -> str | None:
        """The version that a host serves on the port of a tool, or None if it does not answer."""
        try:
            with urllib.request.urlopen(f"http://{HOSTS[host]}:{PORTS[tool]}/health", timeout=5) as answer:
                return str(json.load(answer)["version"])
        except OSError:
            return None

    def logged(self, host: str, since: float) -> tuple[int, int]:
        """Sessions and connections that sshd of a host has logged since a time, without asking it over SSH."""
        command = [self.engine, "exec", host, "journalctl", "--unit=ssh", "--output=cat", f"--since=@{since:.6f}"]
        log = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return len(re.findall("^Starting session: ", log, re.M)), len(re.findall("^Accepted publickey ", log, re.M))


class Bench:
    """Artifacts and the tools that deploy them.

    Args:
        scratch: for artifacts.
    """

    def __init__(self, scratch: Path) -> None:
        self.fleet = Fleet()
        self.scratch = scratch
        # No host has any of these versions, not even one of an earlier run.
        self.number = time.time_ns() // 10**9 * 1000
        self.runs: list[Run] = []

    def artifact(self, breaks: bool = False) -> tuple[str, Path]:
        """A version that was never built before; the one before it goes."""
        self.number += 1
        version = f"1.0.{self.number}"
        for old in self.scratch.glob("bench-*"):
            old.unlink()
        path = self.scratch / f"bench-{version}.tar.gz"
        application.pack(self.scratch / "tree", path, version, breaks=breaks)
        return version, path

    def command(self, tool: str, action: str, hosts: Sequence[str], artifact: Path | None) -> list[str]:
        """What is run for an action."""
        addresses = [HOSTS[host] for host in hosts]
        if tool == FLOOR:
            deploy = ["deploy", str(artifact), str(self.number)]
            return [str(HERE / "floor.sh"), *(["rollback"] if action == ROLLBACK else deploy), *addresses]
        if tool == CAPISTRANO:
            return ["cap", "bench", "deploy:rollback" if action == ROLLBACK else "deploy"]
        if action == ROLLBACK:
            return playbook("rollback.yml", hosts)
        variables = {"release_artifact": str(artifact), **(AT_ONCE_VARIABLES if tool == AT_ONCE else {})}
        return playbook("deploy.yml", hosts, variables)

    def attempt(
        self, tool: str, action: str, hosts: Sequence[str], artifact: Path | None = None
    ) -> tuple[float, float, int, str]:
        """Run a tool without connections of an earlier run, and leave none."""
        with tempfile.TemporaryDirectory(prefix="ssh") as sockets:
            done = run(
                self.command(tool, action, hosts, artifact),
                cwd=HERE if tool == CAPISTRANO else CHECKOUT,
                ANSIBLE_SSH_CONTROL_PATH_DIR=sockets,
                BENCH_HOSTS=" ".join(HOSTS[host] for host in hosts),
                BENCH_ARTIFACT=str(artifact or ""),
            )
            for socket in Path(sockets).iterdir():
                subprocess.run(["ssh", "-q", "-O", "exit", "-o", f"ControlPath={socket}", "host"], capture_output=True)
        return done

    def measure(
        self, tool: str, action: str, hosts: Sequence[str], number: int, version: str, artifact: Path | None = None
    ) -> None:
        """Run a tool, count, and verify that every host serves a version afterwards."""
        load, since, used = os.getloadavg()[0], time.time(), self.fleet.cpu(hosts)
        wall, cpu, code, said = self.attempt(tool, action, hosts, artifact)
        now, ended = self.fleet.cpu(hosts), time.monotonic()
        host_cpu = None if used is None or now is None else now - used
        while True:
            served = {host: self.fleet.served(tool, host) for host in hosts}
            late = time.monotonic() - ended
            if code or set(served.values()) == {version} or late > PATIENCE:
                break
            time.sleep(0.1)
        if code or set(served.values()) != {version}:
            raise Failed(f"{action} by {tool} ended with {code}; wanted {version}, served are {served}\n{said}")
        logged = [self.fleet.logged(host, since) for host in hosts]
        sessions, connections = zip(*logged)
        self.runs.append(Run(action, tool, len(hosts), number, wall, cpu, host_cpu, late, sessions, connections, load))
        print(
            f"  {count(len(hosts)):7} {tool:14} {action:15} {wall:6.1f} s, "
            f"served {late:4.1f} s later, CPU {cpu:5.1f} s here and {seconds(host_cpu)} there, "
            f"sessions {max(sessions):3}, load {load:.1f}",
            flush=True,
        )

    def cell(self, size: int, number: int) -> None:
        """All that is measured with so many hosts in one round."""
        hosts = list(HOSTS)[:size]
        first, path = self.artifact()
        for tool in rotated([OURS, CAPISTRANO, FLOOR], number):
            self.measure(tool, DEPLOY, hosts, number, first, path)
        self.measure(OURS, AGAIN, hosts, number, first, path)
        second, path = self.artifact()
        for tool in rotated([AT_ONCE, CAPISTRANO, FLOOR], number):
            self.measure(tool, DEPLOY, hosts, number, second, path)
        for tool in rotated([OURS, CAPISTRANO, FLOOR], number):
            self.measure(tool, ROLLBACK, hosts, number, first)

    def warm_up(self) -> None:
        """Two releases everywhere, by every tool: nobody's first one is measured."""
        for _ in range(2):
            version, path = self.artifact()
            for tool in (AT_ONCE, CAPISTRANO, FLOOR):
                self.measure(tool, DEPLOY, list(HOSTS), 0, version, path)
        self.runs.clear()

    def under_traffic(self) -> list[str]:
        """Deployments to one host while requests come: how many failed, and what serves afterwards."""
        host = next(iter(HOSTS))
        health = [Target("GET", "/health", expects="health")]
        lines = [f"Under traffic ({RATE} requests a second) on one host: failed requests, and how it ended"]
        for breaks in (False, True):
            version, path = self.artifact(breaks)
            for tool in (OURS, CAPISTRANO, FLOOR):
                with BackgroundTraffic(f"http://{HOSTS[host]}:{PORTS[tool]}", rate=RATE, targets=health) as traffic:
                    time.sleep(2)
                    _, _, code, _ = self.attempt(tool, DEPLOY, [host], path)
                    time.sleep(5)
                    report = traffic.stop()
                served = self.fleet.served(tool, host)
                ended = f"exit code {code}, serves {served or 'nothing'} ({'new' if served == version else 'not new'})"
                kind = "cannot start" if breaks else "good version"
                lines.append(f"  {kind:13} {tool:12} {report.failed:5} of {report.sent:5}   {ended}")
        return lines


def rotated(items: Sequence[str], by: int) -> list[str]:
    """The items, beginning with another one each time."""
    by %= len(items)
    return [*items[by:], *items[:by]]


def seconds(value: float | None) -> str:
    """Seconds, as the tables show them."""
    return f"{'?':>5} s" if value is None else f"{value:5.1f} s"


class Tables:
    """What was measured, as people read it."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.sizes = sorted({it.size for it in runs})

    def of(self, action: str, tool: str, size: int) -> list[Run]:
        """The runs of one kind."""
        return [it for it in self.runs if (it.action, it.tool, it.size) == (action, tool, size)]

    def ratio(self, size: int, one: tuple[str, str], other: tuple[str, str]) -> float:
        """How long one takes in times of another, each (action, tool), as the median of the rounds."""

        def by_round(action: str, tool: str) -> dict[int, float]:
            rounds: dict[int, list[float]] = {}
            for it in self.of(action, tool, size):
                rounds.setdefault(it.round, []).append(it.wall)
            return {number: statistics.mean(walls) for number, walls in rounds.items()}

        ones, others = by_round(*one), by_round(*other)
        return statistics.median(ones[number] / others[number] for number in ones)

    def table(self, action: str, tools: Sequence[str]) -> Iterator[str]:
        """Medians of an action, with ratios to the others."""
        yield f"{action}; medians, ratios within a round; CPU is that of the controller, and of all hosts together"
        yield (
            f"  {'hosts':>5} {'':14} {'time':>8} {'best':>8} {'/ floor':>8} {'/ Capistrano':>12} {'round trips':>11}"
            f" {'CPU here':>8} {'there':>8} {'served after':>12} {'load':>10}"
        )
        for size in self.sizes:
            for tool in tools:
                runs = self.of(action, tool, size)
                if not runs:
                    continue
                there = [it.host_cpu for it in runs if it.host_cpu is not None]
                loads = [it.load for it in runs]
                yield (
                    f"  {size:5} {tool:14} {statistics.median(it.wall for it in runs):6.1f} s"
                    f" {min(it.wall for it in runs):6.1f} s {self.ratio(size, (action, tool), (action, FLOOR)):8.2f}"
                    f" {self.ratio(size, (action, tool), (action, CAPISTRANO)):12.2f} {trips(runs):>11}"
                    f" {statistics.median(it.cpu for it in runs):6.1f} s"
                    f"  {seconds(statistics.median(there) if there else None)}"
                    f" {statistics.median(it.wall + it.late for it in runs):10.1f} s"
                    f" {f'{min(loads):.0f}-{max(loads):.0f}':>10}"
                )

    def again(self) -> Iterator[str]:
        """The same version once more."""
        yield f"{AGAIN}, by ours"
        for size in self.sizes:
            runs = self.of(AGAIN, OURS, size)
            yield (
                f"  {count(size):8} {statistics.median(it.wall for it in runs):6.1f} s, "
                f"{self.ratio(size, (AGAIN, OURS), (DEPLOY, OURS)):.2f} of a deployment, "
                f"{self.ratio(size, (AGAIN, OURS), (DEPLOY, AT_ONCE)):.2f} of one at once; round trips {trips(runs)}"
            )

    def aims(self) -> Iterator[str]:
        """How the aims stand."""
        ours = [it for it in self.runs if it.tool in (OURS, AT_ONCE)]
        for action, most in ((DEPLOY, 12), (ROLLBACK, 5)):
            found = max(max(it.sessions) for it in ours if it.action == action)
            yield f"aim: {action} in at most {most} round trips for any host: {found}"
        for size in self.sizes:
            for tool in (OURS, AT_ONCE):
                yield (
                    f"aim: {count(size)} faster than Capistrano: {tool}: "
                    f"deploy {self.ratio(size, (DEPLOY, tool), (DEPLOY, CAPISTRANO)):.2f}"
                )
            back = self.ratio(size, (ROLLBACK, OURS), (ROLLBACK, CAPISTRANO))
            yield f"aim: {count(size)} faster than Capistrano: rollback {back:.2f}"
        largest = self.sizes[-1]
        for tool in (OURS, AT_ONCE):
            found_ratio = self.ratio(largest, (DEPLOY, tool), (DEPLOY, FLOOR))
            yield f"aim: {count(largest)} in at most 2 times the floor: {tool}: {found_ratio:.2f}"
        for size in self.sizes:
            found_ratio = self.ratio(size, (AGAIN, OURS), (DEPLOY, OURS))
            yield f"aim: the same again on {count(size)} under 0.33 of a deployment: {found_ratio:.2f}"


def count(hosts: int) -> str:
    """So many hosts, in words."""
    return f"{hosts} {'host' if hosts == 1 else 'hosts'}"


def trips(runs: Sequence[Run]) -> str:
    """Sessions for one host: the median, and the most of any."""
    every = [sessions for it in runs for sessions in it.sessions]
    return f"{statistics.median(every):g}, {max(every)}"


@contextmanager
def fleet(keep: bool, found: bool) -> Iterator[None]:
    """A fleet that is set up, or was found so; it goes at the end, also after a failure, unless it is kept."""
    try:
        for path in [] if found else ["playbooks/sandbox.yml", "setup.yml", str(HERE / "playbooks/prepare.yml")]:
            must(playbook(path))
        yield
    finally:
        if not keep:
            must(playbook("playbooks/sandbox.yml", variables={"sandbox_state": "absent"}))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each tool runs (default 3)")
    parser.add_argument("--sizes", default="1,2,4,8", help="how many hosts (default 1,2,4,8)")
    parser.add_argument("--keep", action="store_true", help="leave the fleet as it is at the end")
    parser.add_argument("--found", action="store_true", help="take the fleet that an earlier run with --keep has left")
    parser.add_argument("--no-traffic", action="store_true", help="leave out the deployments under traffic")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    if not all(1 <= size <= len(HOSTS) for size in sizes):
        parser.error(f"--sizes are between 1 and {len(HOSTS)}")
    try:
        version = install_capistrano()
        begin = time.monotonic()
        with fleet(arguments.keep, arguments.found), tempfile.TemporaryDirectory(prefix="bench") as scratch:
            bench = Bench(Path(scratch))
            print(f"{version}, {os.cpu_count()} processors for everything, the hosts too; fleet ready after", end=" ")
            print(f"{time.monotonic() - begin:.0f} s", flush=True)
            bench.warm_up()
            for number in range(arguments.rounds):
                print(f"round {number + 1} of {arguments.rounds}", flush=True)
                for size in rotated_sizes(sizes, number):
                    bench.cell(size, number)
            RESULTS.parent.mkdir(parents=True, exist_ok=True)
            RESULTS.write_text(json.dumps([vars(it) for it in bench.runs], indent=1), encoding="utf-8")
            tables = Tables(bench.runs)
            print()
            print("\n".join(tables.table(DEPLOY, [FLOOR, CAPISTRANO, OURS, AT_ONCE])), end="\n\n")
            print("\n".join(tables.table(ROLLBACK, [FLOOR, CAPISTRANO, OURS])), end="\n\n")
            print("\n".join(tables.again()), end="\n\n")
            print("\n".join(tables.aims()), end="\n\n", flush=True)
            if not arguments.no_traffic:
                print("\n".join(bench.under_traffic()), end="\n\n")
            print(f"all of it took {time.monotonic() - begin:.0f} s")
    except Failed as error:
        raise SystemExit(str(error)) from None


def rotated_sizes(sizes: Sequence[int], by: int) -> list[int]:
    """The sizes, beginning with another one each time."""
    by %= len(sizes)
    return [*sizes[by:], *sizes[:by]]


if __name__ == "__main__":
    main()
