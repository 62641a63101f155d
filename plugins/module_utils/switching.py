# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put a release into service beside the one that serves, then let the old one go.

The switch is by generations: one PM2 application per release, both on the live port, the new one joining it before
the old one leaves. Until the link is renamed, every failure leaves the old generation as it was.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import itertools
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ansible_collections.roastify.ops.plugins.module_utils import application_log, health, reserve
from ansible_collections.roastify.ops.plugins.module_utils.application_log import ApplicationLog
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.files import link_atomically
from ansible_collections.roastify.ops.plugins.module_utils.pm2 import Pm2, Worker
from ansible_collections.roastify.ops.plugins.module_utils.releases import Host, Release

LOOPBACK = "127.0.0.1"
#: Seconds that a candidate has to stay healthy unless told otherwise. Every deployment takes so much longer, once for
#: all hosts: what dies soon is caught before anything is switched, what dies later is for the first batch to show.
CANDIDATE_UPTIME = 3.0
#: Seconds that the module of a killed deployment may take to its end once its candidate was ended.
OTHERS_END = 30.0
#: Seconds that a killed process may take to let its port go.
DYING = 2.0


@dataclass(frozen=True)
class Service:
    """How the application serves, and what it takes to be trusted with traffic.

    Attributes:
        port: the live port, which generations share.
        candidate_port: a free port for trying a release out.
        health_path: path of the health check.
        wanted: healthy answers in a row.
        interval: seconds between two requests.
        patience: seconds for a release to become healthy.
        verify_version: whether the health answer must name the release's version.
        candidate_uptime: seconds that a candidate has to stay healthy after that.
    """

    port: int
    candidate_port: int
    health_path: str = "/health"
    wanted: int = 3
    interval: float = 0.1
    patience: float = 60.0
    verify_version: bool = True
    candidate_uptime: float = CANDIDATE_UPTIME

    def ask(self, port: int) -> health.Answer:
        """One health request on this host."""
        return health.probe(LOOPBACK, port, self.health_path)

    def gate(self, release: Release) -> health.Gate:
        """The gate that a release must pass."""
        version = release.version if self.verify_version else None
        return health.Gate(self.wanted, self.interval, self.patience, version)


def _die_with_parent() -> None:
    # A killed module must not leave a candidate behind. The kernel forgets this wish when the user changes, but
    # subprocess changes the user before it calls us.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _tail(stream: IO[bytes]) -> list[str]:
    stream.flush()
    size = os.fstat(stream.fileno()).st_size
    start = max(size - application_log.TAIL, 0)
    text = os.pread(stream.fileno(), application_log.TAIL, start)
    return application_log.whole_lines(text, start > 0)[-application_log.LINES :]


def _in_javascript(value: object) -> str:
    """The text of a variable as PM2 gives it to a worker: a YAML ``true`` is no ``True`` there."""
    return value if isinstance(value, str) else json.dumps(value)


@contextlib.contextmanager
def _candidate(pm2: Pm2, release: Release, service: Service, log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a release for itself on the candidate port, with its real environment, until the block ends."""
    definition = pm2.definition(release.directory)
    arguments = definition.get("node_args") or []
    # Workers of PM2 have process.send(), with which many say that they are ready. Nobody reads what is said.
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [pm2.node(), *arguments, definition["script"]],
            cwd=release.directory,
            env={
                **pm2.environment,
                **{name: _in_javascript(value) for name, value in (definition.get("env") or {}).items()},
                "HOST": LOOPBACK,
                "PORT": str(service.candidate_port),
                # For applications whose timers and queues must not run twice.
                "RELEASE_CANDIDATE": "1",
                # How Node.js finds its parent.
                "NODE_CHANNEL_FD": str(theirs.fileno()),
            },
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent,
            **pm2.identity(),
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=2)
            except subprocess.TimeoutExpired:
                process.kill()  # nothing but our own requests ever reached it
                process.wait()


def candidates(releases: Path, port: int) -> list[int]:
    """Process ids of candidates of this application: a module goes on for a while when its controller is killed.

    Args:
        releases: the directory of the releases that they run from.
        port: that they were given.
    """
    found = []
    top = Path(os.path.realpath(releases))
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it has ended meanwhile
            environment = Path("/proc", name, "environ").read_bytes().split(b"\0")
            home = Path(os.readlink(f"/proc/{name}/cwd"))
            if {b"RELEASE_CANDIDATE=1", b"PORT=%d" % port} <= set(environment) and top in home.parents:
                found.append(int(name))
    return found


def end_candidates(releases: Path, port: int) -> None:
    """End what a killed deployment still tries out; the lock says that no other is at it.

    Nothing but the engine's own requests ever reached it.

    Args:
        releases: the directory of the releases that they run from.
        port: that they were given.
    """
    deadline = time.monotonic() + 5
    while left := candidates(releases, port):
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)


@contextlib.contextmanager
def _alone(host: Host, port: int, confirm: Callable[[], None]) -> Iterator[None]:
    """Keep every other process of this application that tries a release out off the port, until the block ends.

    The module of a killed deployment goes on for a while. Its candidate is ended, and so are those that it may still
    be about to start: only when it has come to its end, which frees the lock, does the block begin.

    Args:
        host: whose shared directory stands for the port.
        port: on which candidates listen.
        confirm: raises if this deployment must not go on; asked before anybody's candidate is ended.

    Raises:
        OperationError: the other one does not end.
    """
    descriptor = os.open(host.shared, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + OTHERS_END
        while True:
            confirm()
            end_candidates(host.releases, port)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise OperationError(
                        "another process on this host is trying a release of this application out, and does not end",
                        f"see who it is with fuser -v {host.shared}, end it and deploy again",
                    ) from error
            time.sleep(0.05)
        end_candidates(host.releases, port)
        yield
    finally:
        os.close(descriptor)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def require_free(port: int, releases: Path | None = None) -> None:
    """See that nobody listens on a port of the loopback address.

    Args:
        port: on which a release is to be tried out.
        releases: a candidate from this directory may: whoever has the lock of the deployment ends it.

    Raises:
        OperationError: somebody else does.
    """
    # A process that is dying shows no environment any more while one of its threads still has the port.
    deadline = time.monotonic() + DYING
    while not _is_free(port):
        if releases is not None and candidates(releases, port):
            return
        if time.monotonic() > deadline:
            raise OperationError(
                f"port {port}, on which the new release was to be tried out, is in use",
                f"see who has it with ss -ltnp 'sport = :{port}', or choose another: -e app_release_candidate_port=N",
            )
        time.sleep(0.05)


def _how(returncode: int) -> str:
    """How a process ended, by its return code as subprocess has it."""
    if returncode >= 0:
        return f"exit code {returncode}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-returncode).name}"
    return f"signal {-returncode}"


def try_out(
    host: Host, pm2: Pm2, release: Release, service: Service, confirm: Callable[[], None] = lambda: None
) -> health.Gate:
    """Start a release beside everything that serves and see whether it would be healthy.

    Args:
        host: where.
        pm2: how the application is run.
        release: the candidate.
        service: ports and the gate's figures.
        confirm: raises if this deployment must not go on.

    Returns:
        The opened gate.

    Raises:
        OperationError: the release did not become healthy, or did not stay so; nothing was switched.
    """
    with _alone(host, service.candidate_port, confirm):
        require_free(service.candidate_port)
        try:
            return _see_healthy(pm2, release, service)
        finally:
            # Processes that it started do not end with it, and would go on with work that is not theirs yet.
            end_candidates(host.releases, service.candidate_port)


def _see_healthy(pm2: Pm2, release: Release, service: Service) -> health.Gate:
    with tempfile.TemporaryFile() as log, _candidate(pm2, release, service, log) as process:
        started = time.monotonic()

        def ask() -> health.Answer:
            return service.ask(service.candidate_port)

        def gone() -> str | None:
            if process.poll() is None:
                return None
            seconds = time.monotonic() - started
            return f"the process ended with {_how(process.returncode)}, {seconds:.1f} s after its start"

        gate = service.gate(release)
        reason = gate.wait(ask, gone) or gate.stay_open(ask, service.candidate_uptime, gone)
        if reason is None:
            return gate
        if gone() is None and gate.last is not None and gate.last.nothing_listens:
            reason += "; the process runs, and has to listen on the port that the variable PORT names"
        raise OperationError(
            f"candidate {release.id} (version {release.version}) is not fit for traffic: {reason}",
            "mend the release and deploy again; nothing was switched, the old version serves",
            application_log.masked([*gate.evidence(), *_tail(log)], release),
        )


class _Unseen(OperationError):
    """Workers live, and none of them answers on the live port."""


@dataclass
class Outcome:
    """What a switch did.

    Attributes:
        changed: whether anything was started, stopped or linked.
        previous: release that was live before.
        evidence: health answers that opened the gate.
    """

    changed: bool
    previous: Release | None
    evidence: list[str]


class Switch:
    """Bring one release into service on this host.

    Args:
        host: where.
        pm2: how the application is run.
        release: what is to be live.
        service: ports and the gate's figures.
        announce: called once, right before the first change, with the release that was live (or None).
        prepare: called right before the new generation is started, with the release that was live (or None).
        confirm: called right before the link is renamed, with the release that was live (or None); raises if this
            deployment must not go on.
        deployment: id of the deployment, for the states of the releases.
        back: whether this returns to a release that served before.
    """

    def __init__(
        self,
        host: Host,
        pm2: Pm2,
        release: Release,
        service: Service,
        announce: Callable[[Release | None], None] = lambda previous: None,
        prepare: Callable[[Release | None], None] = lambda previous: None,
        confirm: Callable[[Release | None], None] = lambda previous: None,
        deployment: str | None = None,
        back: bool = False,
    ) -> None:
        self.deployment = deployment
        self.back = back
        self.host = host
        self.pm2 = pm2
        self.release = release
        self.service = service
        self.announce = announce
        self.prepare = prepare
        self.confirm = confirm

    def is_done(self, workers: list[Worker], live: Release | None) -> health.Gate | None:
        """Whether the release is live, alone and healthy already.

        Returns:
            The opened gate, or None if there is something to do.
        """
        if live is None or live.id != self.release.id or not workers:
            return None
        at_home = all(worker.up and worker.directory == str(self.release.directory) for worker in workers)
        if not at_home or len({worker.name for worker in workers}) != 1:
            return None
        gate = self.service.gate(self.release)
        gate.patience = 5.0  # it serves already: either it answers now or it is ill
        return gate if gate.wait(lambda: self.service.ask(self.service.port)) is None else None

    def run(self, heal: bool = True, dry_run: bool = False) -> Outcome:
        """Start, gate, link, drain.

        Args:
            heal: start a new generation if the release is live but not healthy; else it is left to itself.
            dry_run: only say whether anything would change.

        Raises:
            OperationError: the new generation isn't healthy; it is gone again and the old one serves as before.
        """
        live = self.host.live()
        if dry_run and not self.pm2.is_up():
            return Outcome(True, live, [])
        if not dry_run:
            self.pm2.ensure_up()
        workers = self.pm2.workers()
        done = self.is_done(workers, live)
        if done is not None:
            return Outcome(False, live, done.evidence())
        if dry_run:
            return Outcome(True, live, [])
        if self.back:
            reserve.give(self.host.root)
        self.host.settle()
        self.announce(live)
        serves = any(self._serves(worker, live) for worker in workers)
        # What is not of the live release was left by a killed run: it must not stand in the way. But workers of the
        # live one may be down for a moment, and PM2 about to start them again; and what a return goes to may be all
        # that serves well, while new workers of it have yet to show that they do. Where no worker of the live one runs,
        # whatever does is all that serves: killed right behind the link, a run leaves those of the release before.
        own = {worker.name for worker in workers if live and worker.directory == str(live.directory)}
        goal = {worker.name for worker in workers if self.back and self._serves(worker, self.release)}
        last = {worker.name for worker in workers if live and not serves and worker.running}
        leftovers = sorted({worker.name for worker in workers} - own - goal - last)
        self.pm2.delete(leftovers)
        remaining = [worker for worker in workers if worker.name not in leftovers]
        if not heal and serves and live is not None and live.id == self.release.id:
            return Outcome(bool(leftovers), live, [])
        done = self.is_done(remaining, live) if leftovers else None
        if done is not None:
            return Outcome(True, live, done.evidence())
        self.prepare(live)
        generation = self._free_name([worker.name for worker in remaining])
        evidence = self._join(generation, live, ApplicationLog(self.pm2, self.release))
        if live is None or live.id != self.release.id:
            self.host.states.went_live(self.release.id, live.id if live else None, self.deployment, self.back)
        # All others there are by now: a daemon that came up a moment ago may have started the old release since.
        self.pm2.delete(sorted({worker.name for worker in self.pm2.workers()} - {generation}))
        return Outcome(True, live, evidence)

    def _serves(self, worker: Worker, release: Release | None) -> bool:
        return release is not None and worker.running and worker.directory == str(release.directory)

    def _free_name(self, taken: list[str]) -> str:
        """A name for the new generation: what is replaced by itself has one, or two if that was cut off."""
        name = f"{self.pm2.application}-{self.release.id}"
        names = itertools.chain([name], (f"{name}.{number}" for number in itertools.count(2)))
        return next(free for free in names if free not in taken)

    def _join(self, generation: str, live: Release | None, log: ApplicationLog) -> list[str]:
        """Start the new generation on the live port, see every worker of it answer well, and rename the link."""
        moves = live is None or live.id != self.release.id
        before = self.pm2.ports()
        try:
            workers = self.pm2.start(self.release.directory, generation)
            evidence = self._see_all(generation, workers, live)
            self.confirm(live)
            if not any(worker.name == generation and worker.running for worker in self.pm2.workers()):
                raise OperationError(
                    f"the workers of release {self.release.id} were healthy and are gone again: the PM2 daemon was "
                    "restarted, or somebody ended them",
                    f"see why with journalctl -u {self.pm2.service}, then deploy again; the old version serves",
                )
            if moves:
                link_atomically(self.host.link, os.path.join("releases", self.release.id))
            return evidence
        except OperationError as error:
            # The old version goes on serving, and its requests fill the same log.
            told = application_log.telling(log.news())
            error.evidence = application_log.masked([*error.evidence, *told], self.release, live)
            if any("EADDRINUSE" in line and f":{self.service.port}" in line for line in told):
                error.remedy = (
                    f"see who has the port with ss -ltnp 'sport = :{self.service.port}'; if it is PM2, what serves "
                    "listens on another address than this release, which has to listen on the same to take over from "
                    "it; the old version serves"
                )
            elsewhere = self.pm2.ports() - before if isinstance(error, _Unseen) else set()
            # One that is not healthy is held back from the live port, and may have others.
            if (
                elsewhere
                and self.service.port not in elsewhere
                and not any("staying off port" in line for line in told)
            ):
                error.cause += f"; its workers listen on TCP port {', '.join(map(str, sorted(elsewhere)))} instead"
                error.remedy = (
                    "as a candidate it got PORT in its process environment; live, PORT stands in .env alone: read it "
                    "from there (README); its workers were removed, the old version serves"
                )
            self.pm2.delete([generation])
            raise
        except OSError:  # the disk is full, even for a link
            # Renamed, and perhaps not for good: a file system that fails so late has said so, and both may serve.
            if not (moves and self._is_linked()):
                self.pm2.delete([generation])
            raise

    def _is_linked(self) -> bool:
        now = self.host.live()
        return now is not None and now.id == self.release.id

    def _is_mistakable(self, generation: str, live: Release | None) -> bool:
        """Whether a good answer that names no worker may be one of what is live, and not of the new generation."""
        if live is None or (self.service.verify_version and live.version != self.release.version):
            return False
        # Asked each time: they may be down when the switch begins, and PM2 about to start them again.
        return any(worker.name != generation and self._serves(worker, live) for worker in self.pm2.workers())

    def _crashes(self, generation: str) -> str:
        """What PM2 knows of the ends of a generation's workers."""
        workers = [worker for worker in self.pm2.workers() if worker.name == generation]
        codes = sorted({str(worker.exit_code) for worker in workers if worker.exit_code is not None})
        return f" with exit code {' and '.join(codes)}" if codes else ""

    def _see_all(self, generation: str, workers: list[Worker], live: Release | None) -> list[str]:
        failure = f"release {self.release.id} (version {self.release.version}) failed on the live port"
        remedy = "mend the release and deploy again; its workers were removed, the old version serves"
        if not workers:
            raise OperationError(f"{failure}: PM2 started no worker", remedy)
        version = self.release.version if self.service.verify_version else None
        # Answers of the old generation come in between: they are neither good nor bad.
        missing = {worker.pid: self.service.wanted for worker in workers}
        anonymous = self.service.wanted * len(workers)
        bad = health.Gate()
        silent = set(missing)
        unproven = 0
        deadline = time.monotonic() + self.service.patience
        last = "none"
        while missing and anonymous:
            answer = self.service.ask(self.service.port)
            last = answer.describe()
            problem = answer.problem(version)
            if answer.worker is None:
                if problem is None and self._is_mistakable(generation, live):
                    unproven += 1
                elif problem is None:
                    anonymous -= 1
            elif answer.worker in missing:
                silent.discard(answer.worker)
                if problem:
                    bad.judge(answer)
                    missing[answer.worker] = self.service.wanted
                else:
                    missing[answer.worker] -= 1
                    if not missing[answer.worker]:
                        del missing[answer.worker]
            gone = [worker.pid for worker in workers if not worker.running]
            if gone:
                raise OperationError(
                    f"{failure}: worker {gone[0]} ended while it was starting{self._crashes(generation)}",
                    remedy,
                    bad.evidence(),
                )
            late = bool(missing and anonymous) and time.monotonic() > deadline
            if late and unproven:
                raise OperationError(
                    f"{failure}: {unproven} answers were healthy, but named no worker, and what is live has the same "
                    "version: they may all have been its own",
                    f"set pm2_preload: true and run the setup playbook, or have the application answer with header "
                    f"{health.WORKER_HEADER}, its process id; the old version serves",
                )
            if late:
                # An answer that names no worker may be one of theirs.
                unseen = len(silent) == len(workers) and (answer.nothing_listens or answer.worker is not None)
                raise (_Unseen if unseen else OperationError)(
                    f"{failure}: {len(missing)} of {len(workers)} workers not seen healthy {self.service.wanted} times "
                    f"within {self.service.patience:g} s, {len(silent)} of them not seen at all; "
                    f"last answer on port {self.service.port}: {last}",
                    remedy,
                    bad.evidence(),
                )
            # Until one of the new workers answers, all this asks is what serves.
            seen = len(silent) < len(workers) or anonymous < self.service.wanted * len(workers)
            time.sleep(min(self.service.interval, 0.02) if seen else self.service.interval)
        return [f"{len(workers)} workers of {generation} healthy on port {self.service.port}: {last}"]
