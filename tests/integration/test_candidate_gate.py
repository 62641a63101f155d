"""Releases that are not fit for traffic, each told by its own reason: real scripts, real Node.js, real PM2."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import health, switching
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.releases import Release
from pm2_host import NAME, Pm2Host, free_port

SECRET = "quartz-77-zebra"
GOOD = "serve((request, response) => healthy(response));"


@pytest.fixture
def here(tmp_path: Path) -> Pm2Host:
    return Pm2Host(tmp_path)


@pytest.fixture
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pm2Host]:
    with Pm2Host(tmp_path_factory.mktemp("pm2")).daemon() as host:
        yield host


def service(host: Pm2Host, **given: Any) -> switching.Service:
    options = {"patience": 10.0, "candidate_uptime": 0.5, **given}
    return switching.Service(host.port, host.candidate_port, **options)


def refused(host: Pm2Host, release: Release, **given: Any) -> OperationError:
    """The failure of a release that is tried out; nothing of it is left behind."""
    with pytest.raises(OperationError) as caught:
        switching.try_out(host.host, host.pm2, release, service(host, **given))
    assert health.probe("127.0.0.1", host.candidate_port, "/health").nothing_listens
    assert f"candidate {release.id} (version 1.0.0) is not fit for traffic: " in caught.value.cause
    assert "nothing was switched" in caught.value.remedy
    return caught.value


def reason(failure: OperationError) -> str:
    return failure.cause.partition("not fit for traffic: ")[2]


def test_a_good_release_is_let_through(here: Pm2Host) -> None:
    started = time.monotonic()
    gate = switching.try_out(here.host, here.pm2, here.release("a", GOOD), service(here, candidate_uptime=1.0))
    assert time.monotonic() - started >= 1.0
    assert gate.in_a_row > 3  # it was asked on while it had to stay healthy
    assert 'status "healthy", version 1.0.0' in gate.evidence()[-1]


def test_a_crash_at_the_start_is_told_with_the_exit_code_and_the_log(here: Pm2Host) -> None:
    script = "console.log('connecting with ' + process.env.HOME); throw new Error('no queue at quartz-77-zebra');"
    release = here.release("a", script, environment=f"QUEUE_PASSWORD={SECRET}\n")
    failure = refused(here, release)
    assert reason(failure).startswith("the process ended with exit code 1, ")
    evidence = "\n".join(failure.evidence)
    # The message stands above a stack trace, which must not push it out.
    assert "Error: no queue at ********" in evidence
    assert SECRET not in str(failure)


@pytest.mark.parametrize(
    ("script", "how"),
    [
        ("console.error('DATABASE missing'); process.exit(78);", "exit code 78"),
        ("console.error('killed'); process.kill(process.pid, 'SIGKILL'); setInterval(() => {}, 99);", "signal SIGKILL"),
        ("console.error('nothing to do');", "exit code 0"),
    ],
)  # fmt: skip
def test_how_a_process_ended(here: Pm2Host, script: str, how: str) -> None:
    failure = refused(here, here.release("a", script))
    assert reason(failure).startswith(f"the process ended with {how}, ")
    assert failure.evidence[-1] in script


def test_one_that_never_listens(here: Pm2Host) -> None:
    failure = refused(here, here.release("a", "console.log('waiting'); setInterval(() => {}, 1000);"), patience=1.5)
    assert "not healthy 3 times in a row within 1.5 s" in reason(failure)
    assert f"nothing listens on 127.0.0.1:{here.candidate_port}; the process runs" in reason(failure)
    assert "PORT" in reason(failure)
    assert failure.evidence[-1] == "waiting"


def test_one_that_listens_elsewhere(here: Pm2Host) -> None:
    release = here.release("a", "http.createServer((q, r) => healthy(r)).listen(0, () => console.log('up'));")
    failure = refused(here, release, patience=1.5)
    assert "has to listen on the port that the variable PORT names" in reason(failure)


def test_one_that_is_unhealthy(here: Pm2Host) -> None:
    script = "serve((q, r) => { r.statusCode = 503; r.end('no database'); }); console.error('database.lost');"
    failure = refused(here, here.release("a", script), patience=1.5)
    assert reason(failure).endswith("HTTP 503 instead of 200")
    assert "no database" in failure.evidence[-2] and "times" in failure.evidence[-2]
    assert failure.evidence[-1] == "database.lost"


def test_one_that_is_slow(here: Pm2Host) -> None:
    script = "serve((q, r) => { console.log('thinking'); setTimeout(() => healthy(r), 2500); });"
    failure = refused(here, here.release("a", script), patience=4.0)
    assert reason(failure).endswith("no answer within 2 s")
    assert "thinking" in failure.evidence[-1]


def test_one_that_sends_the_header_and_then_dawdles(here: Pm2Host) -> None:
    script = "serve((q, r) => { r.write('{'); setInterval(() => r.write(' '), 500); });"
    failure = refused(here, here.release("a", script), patience=4.0)
    assert "2 s" in reason(failure)


def test_one_of_the_wrong_version(here: Pm2Host) -> None:
    script = "serve((q, r) => r.end(JSON.stringify({ status: 'healthy', version: '0.9.0' }))); console.log('old');"
    failure = refused(here, here.release("a", script), patience=1.5)
    assert reason(failure).endswith("version 0.9.0 answered instead of 1.0.0")
    assert failure.evidence[-1] == "old"


def test_one_that_dies_after_it_was_healthy(here: Pm2Host) -> None:
    script = GOOD + "setTimeout(() => { console.error('lost the queue'); process.exit(3); }, 2000);"
    release = here.release("a", script)
    failure = refused(here, release, candidate_uptime=20.0)
    assert reason(failure).startswith("healthy 3 times in a row, but then: the process ended with exit code 3, ")
    assert failure.evidence[-1] == "lost the queue"
    assert any("healthy" in line for line in failure.evidence)
    # Who does not ask for that does not get it.
    switching.try_out(here.host, here.pm2, release, service(here, candidate_uptime=0.0))


def test_one_that_closes_its_server_before_it_ends(here: Pm2Host) -> None:
    script = """
      const server = serve((q, r) => healthy(r));
      setTimeout(() => { server.close(); console.error('giving up'); setTimeout(() => process.exit(4), 300); }, 1000);
    """
    failure = refused(here, here.release("a", script), candidate_uptime=20.0)
    assert "but then: the process ended with exit code 4, " in reason(failure)


def test_one_that_becomes_ill_after_it_was_healthy(here: Pm2Host) -> None:
    script = """
      let ill = false;
      setTimeout(() => { ill = true; console.error('pool exhausted'); }, 1000);
      serve((q, r) => { if (ill) r.statusCode = 503; healthy(r); });
    """
    failure = refused(here, here.release("a", script), candidate_uptime=20.0)
    assert reason(failure) == "healthy 3 times in a row, but then: HTTP 503 instead of 200"
    assert failure.evidence[-1] == "pool exhausted"


def test_one_that_ignores_signals_is_ended_too(here: Pm2Host) -> None:
    script = GOOD + "process.on('SIGTERM', () => {}); console.log(`pid ${process.pid}`);"
    release = here.release("a", "require('node:fs').writeFileSync('pid', String(process.pid));" + script)
    switching.try_out(here.host, here.pm2, release, service(here))
    with pytest.raises(ProcessLookupError):
        os.kill(int((release.directory / "pid").read_text()), 0)


def test_one_that_tells_pm2_that_it_is_ready(here: Pm2Host) -> None:
    # As PM2's own documentation has it. What is said is nobody's concern, however much it is.
    script = """
      http.createServer((q, r) => { process.send({ said: 'x'.repeat(1e6) }); healthy(r); })
        .listen(process.env.PORT, '127.0.0.1', () => process.send('ready'));
      process.on('disconnect', () => process.exit(3));
    """
    switching.try_out(here.host, here.pm2, here.release("a", script), service(here))


def test_its_environment_is_what_a_worker_gets(daemon: Pm2Host) -> None:
    given = {"PORT": daemon.port, "FLAG": True, "OFF": False, "NUMBER": 1.5, "TEXT": "True"}
    daemon.write_files(pm2_environment=given)
    script = """
      const { FLAG, OFF, NUMBER, TEXT } = process.env;
      if ([FLAG, OFF, NUMBER, TEXT].join() !== 'true,false,1.5,True') throw new Error([FLAG, OFF, NUMBER, TEXT].join());
    """
    release = daemon.release("a", script + GOOD)
    switching.Switch(daemon.host, daemon.pm2, release, service(daemon)).run()
    switching.try_out(daemon.host, daemon.pm2, release, service(daemon))


@pytest.mark.parametrize("ending", ["", "process.on('SIGTERM', () => {});"], ids=["ends", "is killed"])
def test_nothing_that_it_started_is_left(here: Pm2Host, ending: str) -> None:
    # A queue's worker, perhaps, which would go on with the code of a release that never served.
    script = """
      const { spawn } = require('node:child_process');
      const { pid } = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { stdio: 'ignore' });
      require('node:fs').writeFileSync('pid', String(pid));
    """
    release = here.release("a", script + GOOD + ending)
    switching.try_out(here.host, here.pm2, release, service(here))
    child = Path("/proc", (release.directory / "pid").read_text(), "status")
    assert not child.exists() or "State:\tZ" in child.read_text()


class TestAnother:
    """The module of a killed deployment, which goes on for a while."""

    def under_way(self, here: Pm2Host) -> Future[health.Gate]:
        """A release that is being tried out for half a minute."""
        slow = service(here, candidate_uptime=30.0)
        release = here.release("killed", f"require('node:fs').writeFileSync('started', '');{GOOD}")
        gate = ThreadPoolExecutor(1).submit(switching.try_out, here.host, here.pm2, release, slow)
        wait_for((release.directory / "started").exists)
        return gate

    def test_comes_to_its_end_before_the_next_one_begins(self, here: Pm2Host) -> None:
        other = self.under_way(here)
        switching.try_out(here.host, here.pm2, here.release("a", GOOD), service(here))
        assert other.done()
        with pytest.raises(OperationError, match=r"killed .*the process ended with signal SIGKILL"):
            other.result()

    def test_is_left_alone_by_whoever_lost_the_lock(self, here: Pm2Host) -> None:
        def lost() -> None:
            raise OperationError("lost the lock", "deploy again")

        other = self.under_way(here)
        with pytest.raises(OperationError, match="lost the lock"):
            switching.try_out(here.host, here.pm2, here.release("a", GOOD), service(here), lost)
        assert not other.done()
        assert switching.candidates(here.host.releases, here.candidate_port) != []
        switching.end_candidates(here.host.releases, here.candidate_port)
        wait_for(other.done)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_port_in_use_is_told_before_anything_starts(here: Pm2Host) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", here.candidate_port))
        other.listen()
        with pytest.raises(OperationError, match="is in use") as caught:
            switching.try_out(here.host, here.pm2, here.release("a", GOOD), service(here))
    assert f"sport = :{here.candidate_port}" in caught.value.remedy


class TestOnTheLivePort:
    """The same once more without a candidate stage: the old generation must go on serving."""

    @pytest.mark.parametrize(
        ("script", "cause", "said"),
        [
            ("console.error('no licence'); process.exit(78);", r"worker \d+ ended while it was starting", "no licence"),
            ("throw new Error('no licence');", r"worker \d+ ended while it was starting", "Error: no licence"),
            ("console.error('waiting'); setInterval(() => {}, 999);", "2 of 2 workers not seen healthy", "waiting"),
            (
                "console.error('no database'); serve((q, r) => { r.statusCode = 503; r.end(); });",
                "2 of 2 workers not seen healthy 3 times within 4 s, 2 of them not seen at all",
                'preload: /health says "HTTP 503": staying off port',
            ),
        ],
        ids=["crash loop", "exception", "never listens", "503"],
    )
    def test_the_old_generation_serves_on(self, daemon: Pm2Host, script: str, cause: str, said: str) -> None:
        old = daemon.release("a", GOOD)
        live = service(daemon, patience=30.0)
        switching.Switch(daemon.host, daemon.pm2, old, live).run()
        before = {worker.pid for worker in daemon.pm2.workers()}
        new = daemon.release("b", script)
        with pytest.raises(OperationError, match=cause) as caught:
            switching.Switch(daemon.host, daemon.pm2, new, service(daemon, patience=4.0)).run()
        assert any(said in line for line in caught.value.evidence), caught.value.evidence
        live_release = daemon.host.live()
        assert live_release is not None and live_release.id == "a"
        assert {worker.pid for worker in daemon.pm2.workers()} == before
        answer = live.ask(daemon.port)
        assert answer.problem("1.0.0") is None and answer.worker in before and answer.release == "a"

    def test_a_release_that_does_not_read_its_port_from_the_file_is_told_where_it_listens(self, tmp_path: Path) -> None:
        port = free_port()
        script = f"http.createServer((q, r) => healthy(r)).listen(Number(process.env.PORT) || {port}, '127.0.0.1');"
        with Pm2Host(tmp_path, pm2_environment={"NODE_ENV": "production"}).daemon() as here:
            release = here.release("a", script, environment=f"PORT={here.port}\n")
            switching.try_out(here.host, here.pm2, release, service(here))
            with pytest.raises(OperationError, match="2 of 2 workers not seen healthy") as caught:
                switching.Switch(here.host, here.pm2, release, service(here, patience=4.0)).run()
        assert caught.value.cause.endswith(f"; its workers listen on TCP port {port} instead")
        assert "PORT stands in .env alone" in caught.value.remedy

    def test_the_exit_code_of_a_crash_loop_is_told(self, daemon: Pm2Host) -> None:
        release = daemon.release("a", "console.error('no licence'); process.exit(78);")
        with pytest.raises(OperationError, match="with exit code 78"):
            switching.Switch(daemon.host, daemon.pm2, release, service(daemon)).run()
        assert daemon.pm2.workers() == []

    def test_a_release_that_a_killed_switch_left_twice_is_there_once_and_serves(self, daemon: Pm2Host) -> None:
        release = daemon.release("a", GOOD)
        live = service(daemon, patience=30.0)
        switching.Switch(daemon.host, daemon.pm2, release, live).run()
        daemon.pm2.start(release.directory, f"{NAME}-a.2")
        assert switching.Switch(daemon.host, daemon.pm2, release, live).run().changed
        workers = daemon.pm2.workers()
        assert len({worker.name for worker in workers}) == 1
        answer = live.ask(daemon.port)
        assert answer.problem("1.0.0") is None and answer.worker in {worker.pid for worker in workers}
