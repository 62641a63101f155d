"""The list and the end of workers with a real PM2: over its socket, and through its own interface where that fails."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import pm2
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.pm2 import Worker
from ansible_collections.roastify.ops.plugins.module_utils.pm2_daemon import NotUnderstood
from pm2_host import Pm2Host

#: Takes a while to end, as one that still answers requests does.
SLOW = "serve((request, response) => healthy(response)); process.on('SIGINT', () => setTimeout(process.exit, 1000, 0));"
LIMIT = pm2.COMMAND_LIMIT


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pm2Host]:
    with Pm2Host(tmp_path_factory.mktemp("pm2")).daemon() as host:
        for name in ("a", "b"):
            host.release(name, SLOW)
        yield host


@pytest.fixture
def generations(daemon: Pm2Host) -> Iterator[tuple[str, str]]:
    """Two releases with two workers each."""
    names = ("shop-a", "shop-b")
    for release, name in zip(("a", "b"), names):
        assert len(daemon.pm2.start(daemon.host.releases / release, name)) == 2
    yield names
    daemon.pm2.delete(names)


@pytest.fixture
def deaf(daemon: Pm2Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that is not understood over its socket."""

    def fails(*_arguments: object) -> None:
        raise NotUnderstood("another version of PM2")

    monkeypatch.setattr(daemon.pm2.daemon, "processes", fails)
    monkeypatch.setattr(daemon.pm2.daemon, "delete", fails)


def of(workers: list[Worker], name: str) -> list[Worker]:
    return [worker for worker in workers if worker.name == name]


def by_number(workers: list[Worker]) -> list[Worker]:
    return sorted(workers, key=lambda worker: worker.number)


def test_candidates_are_run_by_the_program_that_runs_the_workers(
    daemon: Pm2Host, generations: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one on PATH, as after an upgrade, is not what the workers are run by before the daemon starts anew."""
    monkeypatch.setitem(daemon.pm2.environment, "PATH", str(tmp_path))
    worker = daemon.pm2.workers()[0]
    assert daemon.pm2.node() == os.readlink(f"/proc/{worker.pid}/exe")
    monkeypatch.setattr(daemon.pm2, "home", tmp_path)
    assert daemon.pm2.node() == "node"
    # Its directory is the application user's: whatever lies there, nobody waits for it.
    os.mkfifo(daemon.pm2.home / "pm2.pid")
    assert daemon.pm2.node() == "node"


def test_the_socket_gives_what_the_interface_does(daemon: Pm2Host, generations: tuple[str, str]) -> None:
    over_socket = [Worker.of(entry) for entry in daemon.pm2.daemon.processes(LIMIT)]
    assert by_number(over_socket) == by_number(daemon.pm2._control("list"))
    assert {(worker.name, worker.status, worker.running) for worker in over_socket} == {
        (name, "online", True) for name in generations
    }
    assert {worker.directory for worker in over_socket} == {str(daemon.host.releases / name) for name in ("a", "b")}


@pytest.mark.parametrize("way", ["over the socket", "through the interface"])
def test_one_generation_ends_and_the_other_stays(
    daemon: Pm2Host, generations: tuple[str, str], way: str, request: pytest.FixtureRequest
) -> None:
    if way == "through the interface":
        request.getfixturevalue("deaf")
    ending, staying = generations
    before = daemon.pm2.workers()
    daemon.pm2.delete([ending, "shop-unknown"])
    # Whoever is told that they have ended may rely on it.
    assert [os.path.exists(f"/proc/{worker.pid}") for worker in of(before, ending)] == [False, False]
    assert by_number(daemon.pm2.workers()) == by_number(of(before, staying))


def test_workers_of_nobody(daemon: Pm2Host) -> None:
    assert daemon.pm2.workers() == []
    daemon.pm2.delete(["shop-a"])
    with pytest.raises(NotUnderstood, match="deleteProcessId"):
        daemon.pm2.daemon.delete([4711], LIMIT)


def test_nothing_of_node_is_started_for_them(
    daemon: Pm2Host, generations: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*command: object) -> None:
        raise AssertionError(command)

    monkeypatch.setattr(daemon.pm2, "_control", started)
    daemon.pm2.delete(generations)
    assert daemon.pm2.workers() == []


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda manager: manager.workers(), "does not say what it runs within 0.5 s"),
        (lambda manager: manager._control("list", limit=3), "was asked to list and did not within 3 s"),
    ],
    ids=["over the socket", "through the interface"],
)
def test_a_daemon_that_hangs_is_waited_for_once(
    daemon: Pm2Host, monkeypatch: pytest.MonkeyPatch, ask: Callable[[pm2.Pm2], object], said: str
) -> None:
    monkeypatch.setattr(pm2, "LIST_LIMIT", 0.5)
    process = int((daemon.pm2.home / "pm2.pid").read_text())
    os.kill(process, signal.SIGSTOP)
    try:
        assert daemon.pm2.is_up()
        with pytest.raises(OperationError, match=said) as error:
            ask(daemon.pm2)
    finally:
        os.kill(process, signal.SIGCONT)
    assert "systemctl restart pm2-shop.service" in error.value.remedy
    assert "require" not in str(error.value)
    assert daemon.pm2.workers() == []


def test_ending_may_take_as_long_as_the_workers_may(
    daemon: Pm2Host, generations: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {worker.kill_timeout for worker in daemon.pm2.workers()} == {15_000}
    limits: list[float] = []
    with monkeypatch.context() as patch:
        patch.setattr(daemon.pm2.daemon, "delete", lambda numbers, limit: limits.append(limit))
        daemon.pm2._delete(daemon.pm2.workers())
    assert limits == [LIMIT + 15]
