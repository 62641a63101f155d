"""What is made of the answers of a daemon; a real one is met in tests/integration/test_pm2.py."""

from __future__ import annotations

import json
import os
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.roastify.ops.plugins.module_utils.pm2_daemon import (
    NoAnswer,
    NotUnderstood,
    Pm2Daemon,
    listening,
)

WORKER = {"name": "shop-a", "pid": 7, "pm_id": 0, "pm2_env": {"status": "online"}}


def frame(*parts: bytes) -> bytes:
    return bytes([1 << 4 | len(parts)]) + b"".join(struct.pack(">I", len(part)) + part for part in parts)


def reply(value: object, call: int = 0) -> bytes:
    return frame(b"j:" + json.dumps(value).encode(), b"s:%d" % call)


class Daemon:
    """Listens on a socket, takes what it is sent and answers the same to everybody."""

    def __init__(self, path: Path) -> None:
        self.answers: list[bytes] = []
        self.asked = b""
        self.hangs_up = True
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.end = threading.Event()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            with connection:
                if self.end.is_set():
                    return
                self.asked += connection.recv(2**16)
                for answer in self.answers:
                    connection.sendall(answer)
                if not self.hangs_up:
                    self.end.wait(10)

    def close(self, path: Path) -> None:
        self.end.set()
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(str(path))
        self.thread.join()
        self.listener.close()


@pytest.fixture
def path() -> Iterator[Path]:
    # The name of a Unix socket is short.
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory) / "rpc.sock"


@pytest.fixture
def daemon(path: Path) -> Iterator[Daemon]:
    server = Daemon(path)
    yield server
    server.close(path)


def test_the_list(daemon: Daemon, path: Path) -> None:
    daemon.answers = [reply({"args": [[WORKER]]})]
    assert Pm2Daemon(path).processes(5) == [WORKER]
    call = {"type": "call", "method": "getMonitorData", "args": [{}]}
    assert daemon.asked == frame(b"j:" + json.dumps(call).encode(), b"s:0")


def test_an_answer_in_pieces(daemon: Daemon, path: Path) -> None:
    whole = reply({"args": [[WORKER]]})
    daemon.answers = [whole[place : place + 1] for place in range(len(whole))]
    assert Pm2Daemon(path).processes(5) == [WORKER]


def test_answers_in_another_order(daemon: Daemon, path: Path) -> None:
    daemon.answers = [reply({"args": [{}]}, call=1), reply({"args": [{}]}, call=0)]
    Pm2Daemon(path).delete([3, 4], 5)


def test_a_refusal(daemon: Daemon, path: Path) -> None:
    daemon.answers = [reply({"args": [{}]}), reply({"error": "Unknown id 4"}, call=1)]
    with pytest.raises(NotUnderstood, match="deleteProcessId: Unknown id 4"):
        Pm2Daemon(path).delete([3, 4], 5)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        reply({"args": [[WORKER]]})[:-3],
        frame(b"j:{}"),
        frame(b"j:{}", b"s:0"),
        frame(b"j:{", b"s:0"),
        frame(b"raw", b"s:0"),
        frame(b"j:\xff", b"s:0"),
        frame(b"j:{}", b"s:\xff"),
        frame(b"j:{}", b"raw"),
        reply({"args": []}),
        reply({"args": "none"}),
        reply([]),
        reply({"args": [None]}),
        reply({"args": [["shop-a"]]}),
        reply({"args": [[{"name": "shop-a"}]]}),
        reply({"args": [[{**WORKER, "pm2_env": None}]]}),
        reply({"args": [[{**WORKER, "pm_id": None}]]}),
        reply({"args": [[WORKER]]}, call=9),
        bytes([1 << 4 | 2]) + struct.pack(">I", 2**31),
    ],
)
def test_what_is_no_list(daemon: Daemon, path: Path, answer: bytes) -> None:
    daemon.answers = [answer]
    with pytest.raises(NotUnderstood, match="getMonitorData"):
        Pm2Daemon(path).processes(5)


@pytest.mark.parametrize("ask", [lambda daemon: daemon.processes(0.2), lambda daemon: daemon.delete([1], 0.2)])
def test_a_daemon_that_does_not_answer(daemon: Daemon, path: Path, ask: Callable[[Pm2Daemon], object]) -> None:
    daemon.hangs_up = False
    with pytest.raises(NoAnswer, match=r"no answer within 0.2 s"):
        ask(Pm2Daemon(path))


def test_nobody_listens(path: Path) -> None:
    assert not Pm2Daemon(path).listens()
    with pytest.raises(NotUnderstood):
        Pm2Daemon(path).processes(5)


def test_somebody_listens(daemon: Daemon, path: Path) -> None:
    assert Pm2Daemon(path).listens()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_where_a_process_listens(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as listener, socket.socket(family) as other:
        listener.bind((address, 0))
        other.bind((address, 0))
        listener.listen()
        port = listener.getsockname()[1]
        with socket.create_connection((address, port)) as connection:
            assert port in listening(os.getpid())
            assert not {other.getsockname()[1], connection.getsockname()[1]} & listening(os.getpid())
    assert port not in listening(os.getpid())
    assert listening(2**30) == set()
