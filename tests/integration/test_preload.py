"""Applications that do nothing for their own switch, under the role's preload: real PM2, real Node.js, real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import traffic
from ansible_collections.roastify.ops.plugins.module_utils import health, switching
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from npm_packages import brought_node, own_node
from pm2_host import COMMON, ROLE, Pm2Host, free_port, pm2_packages

NODES = [node for node in (brought_node(), own_node()) if node is not None]
#: No handler of any signal, no header of its own.
PLAIN = """
serve((request, response) => {
  if (request.url === '/slow') setTimeout(() => response.end('slow'), 1500);
  else healthy(response);
}).on('upgrade', (request, socket) => {
  socket.write('HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n\\r\\n');
  socket.on('data', () => {});
  socket.on('error', () => {});
});
"""
MIX = traffic.Mix(keep_alive=0.6, sticky=0.0, closing=0.4)
HEALTH = (traffic.Target("GET", "/health", expects="health"),)
HARD_LIMIT_MS = 4000
# Seconds of silence after which a draining worker may hang up: quietMs, less what a busy machine is late.
MAY_HANG_UP = 2.0 * 0.8
CLOSE_FRAME = b"\x88\x02\x03\xe9"


class Connection:
    """A client's connection that stays open, and says so when it does not."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self._connection.connect()
        # Reconnecting by itself would hide what is looked for.
        self._connection.auto_open = 0

    def get(self, path: str = "/health") -> http.client.HTTPResponse:
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        answer.read()
        return answer

    def ended(self) -> bool:
        """Whether the server has closed it."""
        sock = self._connection.sock
        if sock is None:
            return True
        sock.setblocking(False)
        try:
            return sock.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            sock.settimeout(10)


def web_socket(port: int) -> socket.socket:
    """An open WebSocket, right behind its handshake."""
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.sendall(b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        received += client.recv(1)
    assert received.startswith(b"HTTP/1.1 101 ")
    return client


def read_to_end(client: socket.socket) -> bytes:
    received = b""
    while part := client.recv(4096):
        received += part
    return received


class Process:
    """One application for itself, started as a candidate is."""

    def __init__(
        self,
        directory: Path,
        node: Path,
        script: str,
        preload: bool = True,
        name: str = "server.js",
        quiet_ms: int = 2000,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.directory = directory
        shutil.copy(ROLE / "files/preload.cjs", directory)
        options = {"hardLimitMs": HARD_LIMIT_MS, "quietMs": quiet_ms, "selfGate": True}
        (directory / "preload.json").write_text(json.dumps(options))
        (directory / ".release.json").write_text(json.dumps({"id": "20260102T030405Z-1.0.0-abc", "version": "1.0.0"}))
        (directory / name).write_text(script)
        self.output = directory / "output"
        with self.output.open("wb") as stream:
            self._process = subprocess.Popen(
                [node, *(["--require", "./preload.cjs"] if preload else []), name],
                cwd=directory,
                env={"PORT": str(self.port), "PATH": os.environ["PATH"], **(environment or {})},
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def wait_healthy(self) -> None:
        until(lambda: health.probe("127.0.0.1", self.port, "/health").problem() is None, self.output.read_text)

    def wait_said(self, text: str) -> None:
        until(lambda: text in self.output.read_text(), self.output.read_text)

    def tell(self, number: signal.Signals = signal.SIGINT) -> None:
        self._process.send_signal(number)

    def end(self) -> int:
        return self._process.wait(20)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None


def until(true: Callable[[], bool], tell: Callable[[], str] = str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, tell()
        time.sleep(0.02)


@pytest.fixture(params=NODES, ids=[str(number) for number, _ in enumerate(NODES)])
def node(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture
def start(tmp_path: Path, node: Path) -> Iterator[Callable[..., Process]]:
    with contextlib.ExitStack() as stack:

        def make(script: str = PLAIN, **options: Any) -> Process:
            process = Process(tmp_path, node, COMMON + script, **options)
            stack.callback(process.kill)
            return process

        yield make


class TestOneProcess:
    def test_answers_name_the_worker_and_the_release(self, start: Callable[..., Process]) -> None:
        process = start()
        process.wait_healthy()
        answer = health.probe("127.0.0.1", process.port, "/health")
        assert (answer.worker, answer.release) == (process.pid, "20260102T030405Z-1.0.0-abc")

    def test_headers_of_the_application_stay_as_they_are(self, start: Callable[..., Process]) -> None:
        process = start("""
          serve((request, response) => {
            if (request.url === '/list') {
              response.writeHead(200, ['Set-Cookie', 'a=1', 'Set-Cookie', 'b=2', 'x-worker', 'mine']);
            } else if (request.url === '/object') response.writeHead(200, 'Fine', { 'X-RELEASE': 'mine' });
            else response.setHeader('X-Worker', 'mine');
            healthy(response);
          });
        """)
        process.wait_healthy()
        client = Connection(process.port)
        answer = client.get("/list")
        assert answer.headers.get_all("Set-Cookie") == ["a=1", "b=2"]
        assert answer.headers.get_all("X-Worker") == ["mine"]
        answer = client.get("/object")
        assert (answer.reason, answer.headers.get_all("X-Release")) == ("Fine", ["mine"])
        assert answer.headers.get_all("X-Worker") == [str(process.pid)]
        assert client.get("/").headers.get_all("X-Worker") == ["mine"]

    @pytest.mark.parametrize(
        "head",
        [
            "response.setHeader('Connection', 'keep-alive');",
            "response.writeHead(200, { connection: 'keep-alive', 'X-Own': 'a' });",
            "response.writeHead(200, 'Fine', ['X-Own', 'a', 'Connection', 'keep-alive']);",
            "response.writeHead(200, [['X-Own', 'a'], ['Connection', 'keep-alive']]);",
        ],
        ids=["setHeader", "object", "list", "pairs"],
    )
    def test_an_application_that_asks_to_keep_the_connection_drains_too(
        self, start: Callable[..., Process], head: str
    ) -> None:
        process = start(f"serve((request, response) => {{ {head} healthy(response); }});")
        process.wait_healthy()
        client = Connection(process.port)
        before = client.get()
        process.tell()
        until(lambda: health.probe("127.0.0.1", process.port, "/health").nothing_listens)
        after = client.get()
        assert before.headers.get_all("Connection") == ["keep-alive"]
        assert after.headers.get_all("Connection") == ["close"]
        assert before.headers["X-Own"] == after.headers["X-Own"]
        assert process.end() == 0

    @pytest.mark.parametrize("preload", [True, False])
    def test_an_idle_connection_may_be_used_after_the_signal(
        self, start: Callable[..., Process], preload: bool
    ) -> None:
        process = start(preload=preload)
        process.wait_healthy()
        idle = Connection(process.port)
        assert idle.get().headers["Connection"] != "close"
        process.tell()
        if not preload:  # the proof that this test would see a cut connection
            until(idle.ended)
            return
        until(lambda: health.probe("127.0.0.1", process.port, "/health").nothing_listens)
        answer = idle.get()
        assert (answer.status, answer.headers["Connection"]) == (200, "close")
        assert process.end() == 0

    def test_a_client_that_thinks_for_a_while_is_not_cut(self, start: Callable[..., Process]) -> None:
        process = start()
        process.wait_healthy()
        idle, silent = Connection(process.port), Connection(process.port)
        idle.get()
        process.tell()
        time.sleep(1.5)
        assert not silent.ended()
        assert idle.get().status == 200
        until(silent.ended)
        assert process.end() == 0

    def test_nobody_is_hung_up_on_while_others_ask(self, start: Callable[..., Process]) -> None:
        process = start(quiet_ms=1000)
        process.wait_healthy()
        asking, silent = Connection(process.port), Connection(process.port)
        for client in (asking, silent):
            client.get()
        process.tell()
        time.sleep(0.7)
        asked = time.monotonic()
        assert asking.get().status == 200
        time.sleep(0.6)
        # With whom others ask through the same load balancer, whose next request may come over any of its connections.
        assert not silent.ended() or time.monotonic() - asked > 0.9
        until(silent.ended)
        assert process.end() == 0

    def test_silence_is_over_well_before_what_is_left_is_cut(self, start: Callable[..., Process]) -> None:
        process = start(quiet_ms=HARD_LIMIT_MS * 10)
        process.wait_healthy()
        silent = Connection(process.port)
        silent.get()
        told = time.monotonic()
        process.tell()
        until(silent.ended)
        assert time.monotonic() - told < HARD_LIMIT_MS / 1000 * 0.85
        assert process.end() == 0

    def test_what_is_under_way_is_answered(self, start: Callable[..., Process]) -> None:
        process = start()
        process.wait_healthy()
        client = Connection(process.port)
        answers: list[http.client.HTTPResponse] = []
        thread = threading.Thread(target=lambda: answers.append(client.get("/slow")))
        thread.start()
        time.sleep(0.3)
        process.tell(signal.SIGTERM)
        thread.join(10)
        assert [(answer.status, answer.headers["Connection"]) for answer in answers] == [(200, "close")]
        assert process.end() == 0

    def test_so_are_requests_that_wait_behind_it_on_its_connection(self, start: Callable[..., Process]) -> None:
        process = start()
        process.wait_healthy()
        client = socket.create_connection(("127.0.0.1", process.port), timeout=20)
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        time.sleep(0.3)
        process.tell()
        assert read_to_end(client).count(b"slow") == 2
        assert process.end() == 0

    def test_what_never_ends_is_cut_at_the_limit_and_told(self, start: Callable[..., Process]) -> None:
        process = start("serve((request, response) => { if (request.url === '/health') healthy(response); });")
        process.wait_healthy()
        client = socket.create_connection(("127.0.0.1", process.port), timeout=20)
        client.sendall(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.3)
        process.tell()
        assert process.end() == 0
        assert client.recv(1) == b""
        assert (
            f"preload: still at work {HARD_LIMIT_MS} ms after SIGINT: 1 requests are cut" in process.output.read_text()
        )

    @pytest.mark.parametrize(
        ("kill_timeout", "limit"), [(1500, 1000), (90_000, HARD_LIMIT_MS), ("none", HARD_LIMIT_MS)]
    )
    def test_it_ends_before_the_pm2_that_started_it_kills(
        self, start: Callable[..., Process], kill_timeout: int | str, limit: int
    ) -> None:
        # The options may be newer than the worker's generation, which keeps the time that PM2 was told at its start.
        process = start(
            "serve((request, response) => { if (request.url === '/health') healthy(response); });",
            environment={"pm2_env": json.dumps({"kill_timeout": kill_timeout})},
        )
        process.wait_healthy()
        client = socket.create_connection(("127.0.0.1", process.port), timeout=20)
        client.sendall(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.3)
        process.tell()
        assert process.end() == 0
        assert f"preload: still at work {limit} ms after SIGINT" in process.output.read_text()

    def test_what_is_under_way_is_answered_although_the_application_left_the_port_itself(
        self, start: Callable[..., Process]
    ) -> None:
        process = start("""
          const server = serve((request, response) => {
            if (request.url === '/leave') server.close();
            if (request.url === '/slow') setTimeout(() => response.end('slow'), 1500);
            else healthy(response);
          });
        """)
        process.wait_healthy()
        client = Connection(process.port)
        answers: list[int] = []
        thread = threading.Thread(target=lambda: answers.append(client.get("/slow").status))
        thread.start()
        time.sleep(0.3)
        Connection(process.port).get("/leave")
        until(lambda: health.probe("127.0.0.1", process.port, "/health").nothing_listens)
        process.tell()
        assert process.end() == 0
        thread.join(10)
        assert answers == [200]

    def test_a_web_socket_is_closed_by_its_own_protocol(self, start: Callable[..., Process]) -> None:
        process = start()
        process.wait_healthy()
        client = web_socket(process.port)
        process.tell()
        assert client.recv(4) == CLOSE_FRAME
        client.sendall(b"\x88\x82\x00\x00\x00\x00\x03\xe9")
        assert read_to_end(client) == b""
        assert process.end() == 0

    def test_the_library_ws_and_its_clients_understand_that(self, start: Callable[..., Process], node: Path) -> None:
        library = json.dumps(str(pm2_packages() / "ws"))
        process = start(f"""
          const {{ WebSocketServer }} = require({library});
          const server = serve((request, response) => healthy(response));
          new WebSocketServer({{ server }}).on('connection', (peer) => {{
            peer.on('message', (message) => peer.send(message));
            peer.on('close', (code) => console.log(`closed with ${{code}}`));
          }});
        """)
        process.wait_healthy()
        script = f"""
          const client = new (require({library}))('ws://127.0.0.1:{process.port}');
          client.on('open', () => client.send('hello')).on('message', () => console.log('open'));
          client.on('close', (code) => console.log(code));
        """
        with subprocess.Popen([node, "-e", script], stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == "open\n"
            process.tell()
            assert client.stdout.readline() == "1001\n"
        assert process.end() == 0
        assert "closed with 1001" in process.output.read_text()

    def test_https_too(self, start: Callable[..., Process], tmp_path: Path) -> None:
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"),
                *("-keyout", "server.key", "-out", "server.crt"),
            ],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )
        process = start("""
          const [key, cert] = ['server.key', 'server.crt'].map((name) => require('node:fs').readFileSync(name));
          require('node:https').createServer({ key, cert }, (request, response) => healthy(response))
            .listen(Number(process.env.PORT), '127.0.0.1', () => console.log('up'));
        """)
        process.wait_said("up")
        context = ssl.create_default_context(cafile=str(tmp_path / "server.crt"))
        context.check_hostname = False
        idle = http.client.HTTPSConnection("127.0.0.1", process.port, timeout=10, context=context)
        seen = []
        for moment in ("before", "after"):
            if moment == "after":
                process.tell()
                until(lambda: health.probe("127.0.0.1", process.port, "/health").nothing_listens)
                idle.auto_open = 0
            idle.request("GET", "/health")
            answer = idle.getresponse()
            answer.read()
            seen.append((answer.headers["X-Worker"], answer.headers["Connection"] == "close"))
        assert seen == [(str(process.pid), False), (str(process.pid), True)]
        assert process.end() == 0

    def test_without_a_server_the_signal_does_what_it_always_does(self, start: Callable[..., Process]) -> None:
        process = start("console.log('at work'); setInterval(() => {}, 1000);")
        process.wait_said("at work")
        process.tell(signal.SIGTERM)
        assert process.end() == -signal.SIGTERM

    def test_http_2_is_left_alone(self, start: Callable[..., Process]) -> None:
        process = start("""
          const server = require('node:http2').createServer((request, response) => response.end(version));
          server.listen(Number(process.env.PORT), '127.0.0.1', () => {
            const client = require('node:http2').connect(`http://127.0.0.1:${process.env.PORT}`);
            const stream = client.request({ ':path': '/' });
            stream.on('response', (headers) => console.log(JSON.stringify(headers))).on('end', () => client.close());
            stream.resume();
          });
        """)
        process.wait_said(":status")
        assert "x-worker" not in process.output.read_text()
        process.tell()
        assert process.end() == -signal.SIGINT


class TestApplicationsWithHandlers:
    """Everything is as it would be without the preload."""

    def test_its_own_handler_decides_alone(self, start: Callable[..., Process]) -> None:
        process = start(PLAIN + "process.on('SIGINT', () => setTimeout(() => process.exit(7), 300));")
        process.wait_healthy()
        client = Connection(process.port)
        client.get()
        process.tell()
        time.sleep(0.1)
        # Nothing drains: the port is open, and connections are kept.
        assert health.probe("127.0.0.1", process.port, "/health").code == 200
        assert client.get().headers["Connection"] != "close"
        assert process.end() == 7

    def test_the_reference_application_drains_itself(self, start: Callable[..., Process]) -> None:
        lifecycle = ROLE.parents[1] / "examples/roastify/backend/src/lifecycle.js"
        process = start(f"""
          const say = (message, {{ event }}) => console.log(`own ${{event}}`);
          require({json.dumps(str(lifecycle))}).serve((request, response) => healthy(response), {{
            host: '127.0.0.1', port: Number(process.env.PORT), log: {{ info: say, warn: say }}, lingerMs: 0,
          }});
        """)
        process.wait_healthy()
        idle = Connection(process.port)
        idle.get()
        process.tell()
        process.wait_said("own drain.start")
        assert idle.get().headers["Connection"] == "close"
        assert process.end() == 0
        assert process.output.read_text().split("\n") == ["own ready", "own drain.start", "own drain.end", ""]

    def test_a_handler_for_one_signal_leaves_the_other_to_the_preload(self, start: Callable[..., Process]) -> None:
        process = start(PLAIN + "process.on('SIGTERM', () => process.exit(7));")
        process.wait_healthy()
        process.tell(signal.SIGINT)
        assert process.end() == 0

    def test_the_second_signal_ends_what_handled_the_first_once(self, start: Callable[..., Process]) -> None:
        process = start(PLAIN + "process.once('SIGINT', () => console.log('winding up'));")
        process.wait_healthy()
        process.tell()
        process.wait_said("winding up")
        process.tell()
        assert process.end() == -signal.SIGINT

    def test_libraries_that_look_whether_somebody_else_listens_find_nobody(self, start: Callable[..., Process]) -> None:
        # Cleans up, and then ends the process unless another listener will: thus do drivers of databases.
        process = start(
            PLAIN
            + """
          process.once('SIGINT', () => setTimeout(() => {
            console.log(`others: ${process.listenerCount('SIGINT')} ${process.listeners('SIGINT').length}`);
            if (process.listenerCount('SIGINT') === 0) process.exit(9);
          }, 200));
        """
        )
        process.wait_healthy()
        process.tell()
        assert process.end() == 9
        assert "others: 0 0" in process.output.read_text()

    def test_signal_exit_only_watches(self, start: Callable[..., Process], node: Path) -> None:
        package = next(
            (path for path in (node.resolve().parents[1] / "lib/node_modules/npm/node_modules/signal-exit",
                               brought_node().parents[1] / "lib/node_modules/npm/node_modules/signal-exit")
             if path.exists()), None,
        )  # fmt: skip
        if package is None:
            pytest.skip("no npm with signal-exit here")
        process = start(
            f"const watch = require({json.dumps(str(package))}); (watch.onExit || watch)(() => console.log('bye'));"
            + PLAIN
        )
        process.wait_healthy()
        idle = Connection(process.port)
        idle.get()
        process.tell()
        until(lambda: health.probe("127.0.0.1", process.port, "/health").nothing_listens)
        assert idle.get().status == 200
        assert process.end() == 0
        assert process.output.read_text().count("bye") == 1


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pm2Host]:
    with Pm2Host(tmp_path_factory.mktemp("pm2")).daemon() as host:
        yield host


def switch(host: Pm2Host, identifier: str, script: str = PLAIN, version: str = "1.0.0") -> switching.Outcome:
    release = host.host.release(identifier) or host.release(identifier, script, version)
    service = switching.Service(host.port, host.candidate_port, patience=60.0)
    return switching.Switch(host.host, host.pm2, release, service).run()


class TestSwitchesUnderPm2:
    def test_no_request_is_lost(self, shop: Pm2Host) -> None:
        switch(shop, "a", version="1.0.0")
        url = f"http://127.0.0.1:{shop.port}"
        with traffic.BackgroundTraffic(
            url, 150, targets=HEALTH, mix=MIX, think=(0.05, 3.0), repeat_after=MAY_HANG_UP, seed=1
        ) as load:
            web = web_socket(shop.port)
            slow = Connection(shop.port)
            answers: list[int] = []
            thread = threading.Thread(target=lambda: answers.append(slow.get("/slow").status))
            thread.start()
            for identifier, version in (("b", "1.1.0"), ("a", "1.0.0"), ("b", "1.1.0"), ("a", "1.0.0")):
                outcome = switch(shop, identifier, version=version)
                # By the headers that the application does not send, every worker was seen.
                assert f"2 workers of shop-{identifier} healthy" in outcome.evidence[0]
            thread.join()
            assert web.recv(4) == CLOSE_FRAME
            web.close()
        report = load.report()
        assert report.failed == 0, traffic.describe(report)
        assert report.served > 500
        assert set(report.versions) == {"1.0.0", "1.1.0"}
        assert set(report.releases) == {"a", "b"}
        assert answers == [200]
        assert len({worker.name for worker in shop.pm2.workers()}) == 1

    @pytest.mark.parametrize("own", ["", "process.on('SIGTERM', () => process.exit(7));"], ids=["plain", "for Docker"])
    def test_a_generation_joins_only_once_it_is_healthy(self, shop: Pm2Host, own: str) -> None:
        switch(shop, "a", version="1.0.0")
        warming = (
            f"{own}\n"
            + """
          const ready = Date.now() + 2500;
          serve((request, response) => {
            if (Date.now() < ready) response.statusCode = 503;
            healthy(response);
          });
        """
        )
        url = f"http://127.0.0.1:{shop.port}"
        with traffic.BackgroundTraffic(
            url, 100, targets=HEALTH, mix=MIX, think=(0.05, 3.0), repeat_after=MAY_HANG_UP, seed=2
        ) as load:
            before = shop.log().count("staying off")
            switch(shop, "warming-too" if own else "warming", warming, version="1.2.0")
        report = load.report()
        assert report.failed == 0, traffic.describe(report)
        assert report.versions["1.2.0"] > 0
        assert shop.log().count(f'preload: /health says "HTTP 503": staying off port {shop.port}') > before

    @pytest.mark.parametrize(
        "application",
        [
            "server.listen(Number(process.env.PORT), '127.0.0.1', listening);",
            "server.on('listening', listening).listen({ port: process.env.PORT, host: '127.0.0.1' });",
        ],
        ids=["callback", "event"],
    )
    def test_an_application_that_is_healthy_only_once_it_listens(
        self, tmp_path_factory: pytest.TempPathFactory, application: str
    ) -> None:
        with Pm2Host(tmp_path_factory.mktemp("pm2")).daemon() as host:
            script = f"""
              let times = 0;
              const server = http.createServer((request, response) => {{
                if (times === 0) response.statusCode = 503;
                healthy(response);
              }});
              const listening = () => {{
                times += 1;
                console.log(`listening: ${{server.listening}} ${{JSON.stringify(server.address())}}, time ${{times}}`);
              }};
              {application}
            """
            switch(host, "a", script)
            url = f"http://127.0.0.1:{host.port}"
            with traffic.BackgroundTraffic(
                url, 50, targets=HEALTH, mix=MIX, think=(0.05, 3.0), repeat_after=MAY_HANG_UP, seed=3
            ) as load:
                switch(host, "b", script, version="1.1.0")
            report = load.report()
            assert report.failed == 0, traffic.describe(report)
            assert report.versions["1.1.0"] > 0
            said = host.log()
            assert f"telling the application that it listens on port {host.port}" in said
            assert "pm2_preload_self_gate: false" in said
            address = json.dumps({"address": "127.0.0.1", "family": "IPv4", "port": host.port}, separators=(",", ":"))
            # Told once, whether in truth or ahead of it: two workers of either generation.
            assert said.count(f"listening: true {address}, time 1") == 4
            assert "time 2" not in said

    def test_one_that_is_ill_stays_off_even_when_it_was_told_that_it_listens(self, shop: Pm2Host) -> None:
        switch(shop, "a", version="1.0.0")
        ill = "serve((request, response) => { response.statusCode = 503; response.end('no database'); });"
        shop.pm2.start(shop.release("ill", ill).directory, "shop-ill")
        try:
            told = "telling the application that it listens"
            until(lambda: "staying off" in shop.log().rpartition(told)[2] and told in shop.log(), shop.log)
            answers = [health.probe("127.0.0.1", shop.port, "/health") for _ in range(20)]
            assert {(answer.code, answer.release) for answer in answers} == {(200, "a")}
        finally:
            shop.pm2.delete(["shop-ill"])

    @pytest.mark.parametrize(
        "listens",
        [
            "metrics.listen(Number(process.env.METRICS), '127.0.0.1'); main.listen(process.env.PORT, '127.0.0.1');",
            "metrics.listen(process.env.METRICS, () => main.listen(Number(process.env.PORT), '127.0.0.1'));",
        ],
        ids=["both", "metrics first"],
    )
    def test_a_server_on_another_port_is_not_asked_for_the_health_path(
        self, tmp_path_factory: pytest.TempPathFactory, listens: str
    ) -> None:
        port = free_port()
        with Pm2Host(tmp_path_factory.mktemp("pm2")).daemon() as host:
            host.write_files(pm2_environment={"PORT": str(host.port), "METRICS": str(port)})
            script = f"""
              const metrics = http.createServer((request, response) => {{
                response.writeHead(request.url === '/metrics' ? 200 : 404).end();
              }});
              const main = http.createServer((request, response) => healthy(response));
              {listens}
            """
            switch(host, "a", script)
            # Now that both ports are served, a worker that were held back on either of them would stay there.
            switch(host, "b", script, version="1.1.0")
            until(lambda: health.probe("127.0.0.1", port, "/metrics").release == "b", host.log)
            assert "staying off" not in host.log()

    @pytest.mark.parametrize(
        "script", ["console.error('no licence'); process.exit(78);", "throw new Error('no licence');"]
    )
    def test_last_words_are_in_the_log_once_for_each_end(
        self, tmp_path_factory: pytest.TempPathFactory, script: str
    ) -> None:
        with Pm2Host(tmp_path_factory.mktemp("pm2"), pm2_instances=1).daemon() as host:
            release = host.release("a", "require('node:fs').appendFileSync('starts', '.');" + script)
            host.pm2.start(release.directory, "shop-a")
            starts = release.directory / "starts"
            until(lambda: starts.exists() and len(starts.read_text()) >= 3, host.log)
            host.pm2.delete(["shop-a"])
            said = [line for line in host.log().splitlines() if line.endswith("no licence")]
            # The last process may have been ended from outside, before it had said anything.
            assert len(starts.read_text()) - len(said) in (0, 1)

    def test_what_a_child_is_at_work_on_is_answered(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        """PM2 tells the children of a worker to end at the same time as the worker, which needs their answers."""
        with Pm2Host(tmp_path_factory.mktemp("pm2"), pm2_instances=1).daemon() as host:
            script = """
              const { fork, execFile } = require('node:child_process');
              const pool = fork('./pool.js');
              const wait = (answer) => execFile('sleep', ['2'], (error) => answer(error ? 'failed' : 'well'));
              const ask = (answer) => pool.once('message', answer).send('work');
              serve((request, response) => {
                if (request.url === '/health') healthy(response);
                else (request.url === '/fork' ? ask : wait)((said) => response.end(said));
              });
            """
            for identifier in ("a", "b"):
                directory = host.release(identifier, script).directory
                (directory / "pool.js").write_text(
                    "require('fs').writeFileSync('pid', String(process.pid));"
                    "process.on('message', () => setTimeout(() => process.send('well'), 2000));"
                    # As one that is connected to something.
                    "setInterval(() => {}, 1000);"
                )
            switch(host, "a")
            said: list[str] = []

            def ask(path: str) -> None:
                client = http.client.HTTPConnection("127.0.0.1", host.port, timeout=20)
                client.request("GET", path)
                said.append(client.getresponse().read().decode())

            threads = [threading.Thread(target=ask, args=(path,)) for path in ("/fork", "/spawn")]
            for thread in threads:
                thread.start()
            time.sleep(0.5)
            old = {worker.name for worker in host.pm2.workers()}
            host.pm2.start(host.host.releases / "b", "shop-b")
            host.pm2.delete(sorted(old))
            for thread in threads:
                thread.join()
            assert said == ["well", "well"]
            child = Path("/proc", (host.host.releases / "a/pid").read_text(), "status")
            until(lambda: not child.exists(), child.read_text, 5)

    @pytest.mark.parametrize("kind", ["http", "http2", "net"])
    def test_a_candidate_does_without_a_further_port_that_the_live_release_has(
        self, tmp_path_factory: pytest.TempPathFactory, kind: str
    ) -> None:
        """One for metrics, whose number is written down somewhere: workers share it, and a candidate is none."""
        port = free_port()
        with Pm2Host(tmp_path_factory.mktemp("pm2")).daemon() as host:
            script = f"""
              const further = require('{kind}').createServer((one, two) => two?.end('metrics'));
              further.listen({port}, () => console.log('further'));
              serve((request, response) => healthy(response));
            """
            switch(host, "a", script)
            until(lambda: "further" in host.log(), host.log)
            release = host.release("b", script, version="1.1.0")
            service = switching.Service(host.port, host.candidate_port, patience=20.0, candidate_uptime=0.5)
            switching.try_out(host.host, host.pm2, release, service)
            switch(host, "b")

    def test_a_release_may_listen_on_all_addresses_in_other_words(
        self, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """0.0.0.0 and :: exclude each other, and one of them is what no address means."""
        with Pm2Host(tmp_path_factory.mktemp("pm2")).daemon() as host:
            plain = "http.createServer((request, response) => healthy(response))"
            listens = {
                "none": ".listen(process.env.PORT, () => console.log('listens'))",
                "v4": ".listen({ port: process.env.PORT, host: '0.0.0.0' }, () => console.log('listens'))",
                "late": ".on('listening', () => console.log('listens')).listen(Number(process.env.PORT))",
            }
            for identifier, how in listens.items():
                switch(host, identifier, plain + how)
            switch(host, "none")
            assert host.log().count("listens") == 8
            # But not on fewer than it wants, or on more.
            loopback = plain + ".listen(process.env.PORT, '127.0.0.1')"
            with pytest.raises(OperationError, match=r"EADDRINUSE 127\.0\.0\.1") as failure:
                switch(host, "loopback", loopback)
            assert f"sport = :{host.port}'; if it is PM2, what serves listens on another" in failure.value.remedy

    def test_arguments_of_node_name_what_lies_in_the_release(
        self, tmp_path_factory: pytest.TempPathFactory, node: Path
    ) -> None:
        """As they do for a candidate; PM2 enters the directory of the release only after Node.js has read them."""
        arguments = ["--env-file=.env", "--require", "./first.js", "--require=agent/register", "--import", "./last.mjs"]
        arguments += ["--import", "agent"]
        if node != brought_node():
            pytest.skip("--env-file and --import need a newer Node.js")
        given = {"pm2_instances": 1, "pm2_node_arguments": arguments}
        with Pm2Host(tmp_path_factory.mktemp("pm2"), node, **given).daemon() as host:
            release = host.release("a", "console.log(process.env.SAID); " + PLAIN, environment="SAID=env")
            (release.directory / "node_modules/agent").mkdir(parents=True)
            for name in ("first.js", "last.mjs", "node_modules/agent/register.js", "node_modules/agent/index.js"):
                (release.directory / name).write_text(f"console.log('{name}');")
            service = switching.Service(host.port, host.candidate_port, patience=20.0, candidate_uptime=0)
            switching.try_out(host.host, host.pm2, release, service)
            assert switching.Switch(host.host, host.pm2, release, service).run().changed
            assert "env\n" in host.log()

    def test_variables_that_count_as_a_process_starts_are_there_by_then(
        self, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """As they are for a candidate; PM2 gives a worker its environment once Node.js has started."""
        options = '--max-old-space-size=333 --require "./with space.js"'
        given = {"NODE_OPTIONS": options, "NODE_EXTRA_CA_CERTS": "/etc/hostname"}
        directory = tmp_path_factory.mktemp("pm2")
        with Pm2Host(directory, pm2_instances=1, pm2_environment=given).daemon() as host:
            given["PORT"] = str(host.port)
            host.write_files(pm2_environment=given)
            script = """
              const heap = require('node:v8').getHeapStatistics().heap_size_limit;
              const started = require('node:fs').readFileSync('/proc/self/environ', 'utf8');
              const right = heap < 600e6 && globalThis.loaded && started.includes('NODE_EXTRA_CA_CERTS=/etc/hostname');
              serve((request, response) => { if (!right) response.statusCode = 503; healthy(response); });
            """
            release = host.release("a", script)
            (release.directory / "with space.js").write_text("globalThis.loaded = true;")
            service = switching.Service(host.port, host.candidate_port, patience=10.0, candidate_uptime=0)
            switching.try_out(host.host, host.pm2, release, service)
            assert switching.Switch(host.host, host.pm2, release, service).run().changed

    @pytest.mark.parametrize("esm", [False, True], ids=["promise", "module"])
    def test_a_start_that_fails_in_a_promise_is_tried_again(
        self, tmp_path_factory: pytest.TempPathFactory, esm: bool
    ) -> None:
        """The database is away when the host starts: PM2 alone would keep a worker that never listens."""
        with Pm2Host(tmp_path_factory.mktemp("pm2"), pm2_instances=1).daemon() as host:
            release = host.release("a", "")
            main = """
              const connect = async () => {
                fs.appendFileSync('starts', '.');
                if (fs.readFileSync('starts', 'utf8').length < 3) throw new Error('no database');
              };
            """
            listens = """http.createServer((request, response) => {
              if (request.url !== '/health') Promise.reject(new Error('a bug in one request'));
              response.end('{"status":"healthy","version":"1.0.0"}');
            }).listen(process.env.PORT, '127.0.0.1');"""
            if esm:
                (release.directory / "package.json").write_text('{"type": "module"}')
                script = "import fs from 'node:fs'; import http from 'node:http';" + main + "await connect();" + listens
            else:
                script = "const fs = require('fs'), http = require('http');" + main
                script += "(async () => { await connect();" + listens + "})();"
            (release.directory / "server.js").write_text(script)
            host.pm2.start(release.directory, "shop-a")
            until(lambda: health.probe("127.0.0.1", host.port, "/health").problem() is None, host.log)
            assert (release.directory / "starts").read_text() == "..."
            assert host.log().count("Error: no database") == 2
            # Of a worker that serves, one bad request stays what it is under PM2: a line in the log.
            served = health.probe("127.0.0.1", host.port, "/health").worker
            health.probe("127.0.0.1", host.port, "/bug")
            until(lambda: "a bug in one request" in host.log(), host.log)
            assert health.probe("127.0.0.1", host.port, "/health").worker == served

    def test_one_that_is_ill_serves_if_nobody_else_does(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        with Pm2Host(tmp_path_factory.mktemp("pm2"), pm2_instances=1).daemon() as host:
            script = "serve((request, response) => { response.statusCode = 503; response.end('no database'); });"
            host.pm2.start(host.release("a", script).directory, "shop-a")
            until(lambda: health.probe("127.0.0.1", host.port, "/health").code == 503, host.log)
            assert "since nobody else serves" in host.log()

    def test_a_worker_that_outgrew_its_memory_serves_until_its_successor_does(
        self, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        host = Pm2Host(tmp_path_factory.mktemp("pm2"), pm2_instances=1, pm2_max_memory_restart="200M")
        host.pm2.environment["PM2_WORKER_INTERVAL"] = "2000"
        script = """
          const fs = require('node:fs');
          const successor = fs.existsSync('started');
          fs.writeFileSync('started', '');
          const leak = Buffer.alloc(successor ? 0 : 250e6, 1);
          setTimeout(() => serve((request, response) => healthy(response, leak)), successor ? 5000 : 0);
        """
        with host.daemon():
            host.pm2.start(host.release("a", script).directory, "shop-a")
            until(lambda: health.probe("127.0.0.1", host.port, "/health").problem() is None, host.log)
            workers = []
            while len(set(workers)) < 2:
                answer = health.probe("127.0.0.1", host.port, "/health")
                assert answer.problem() is None, (answer.describe(), len(workers))
                workers.append(answer.worker)
                time.sleep(0.02)
                assert len(workers) < 1500

    def test_without_the_preload_connections_are_cut(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        """The control: the same switch, and an idle connection does not survive it."""
        with Pm2Host(tmp_path_factory.mktemp("pm2"), pm2_preload=False).daemon() as host:
            switch(host, "a")
            idle, web = Connection(host.port), web_socket(host.port)
            assert idle.get().headers["X-Worker"] is None
            switch(host, "b", version="1.1.0")
            assert idle.ended()
            with contextlib.suppress(ConnectionResetError):
                assert web.recv(4) == b""
            # And with it, the same connection is used once more, on the old generation.
            host.write_files(pm2_preload=True)
            switch(host, "c", version="1.2.0")
            idle = Connection(host.port)
            idle.get()
            deleting = threading.Thread(target=lambda: switch(host, "d", version="1.3.0"))
            deleting.start()
            answer = None
            while deleting.is_alive() and not idle.ended():
                answer = idle.get()
                if answer.headers["Connection"] == "close":
                    break
                time.sleep(0.05)
            deleting.join()
            assert answer is not None and answer.headers["Connection"] == "close"
            assert answer.headers["X-Release"] == "c"
