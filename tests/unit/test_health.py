"""The health gate, asked of real sockets."""

import http.server
import json
import socket
import threading
import time

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import health
from ansible_collections.roastify.ops.plugins.module_utils.health import Answer, Gate


@pytest.fixture
def server():
    """An HTTP server; the test sets what it answers."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            time.sleep(self.server.delay)
            self.send_response(self.server.code)
            for name, value in self.server.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(self.server.body)

        def log_message(self, *arguments):
            pass

    instance = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    instance.code, instance.delay, instance.headers = 200, 0, {}
    instance.body = json.dumps({"status": "healthy", "version": "1.0.0"}).encode()
    thread = threading.Thread(target=instance.serve_forever, daemon=True)
    thread.start()
    yield instance
    instance.shutdown()
    instance.server_close()


def ask(server, **options):
    return health.probe("127.0.0.1", server.server_address[1], "/health", **options)


def test_a_healthy_answer_has_no_problem(server):
    server.headers = {"X-Release": "r1", "X-Worker": "42"}
    answer = ask(server)
    assert answer.problem("1.0.0") is None
    assert (answer.code, answer.status, answer.version) == (200, "healthy", "1.0.0")
    assert (answer.release, answer.worker) == ("r1", 42)


def test_degraded_serves(server):
    server.body = b'{"status": "degraded", "version": "1.0.0"}'
    assert ask(server).problem("1.0.0") is None


@pytest.mark.parametrize(
    ("code", "body", "problem"),
    [
        (503, b'{"status": "unhealthy", "version": "1.0.0"}', "HTTP 503 instead of 200"),
        (200, b'{"status": "unhealthy", "version": "1.0.0"}', 'status "unhealthy" instead of healthy'),
        (200, b'{"status": "healthy", "version": "0.9.0"}', "version 0.9.0 answered instead of 1.0.0"),
        (200, b"OK", "the answer names no version"),
        (301, b"", "HTTP 301 instead of 200"),
    ],
)
def test_what_keeps_the_gate_shut(server, code, body, problem):
    server.code, server.body = code, body
    assert ask(server).problem("1.0.0").startswith(problem)


def test_a_plain_answer_is_enough_where_no_version_is_asked_for(server):
    server.body = b"OK"
    assert ask(server).problem() is None


def test_a_late_answer_is_none(server):
    server.delay = 0.5
    assert ask(server, limit=0.1).problem() == "no answer within 0.1 s"


def test_nothing_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert health.probe("127.0.0.1", port, "/health").problem() == f"nothing listens on 127.0.0.1:{port}"


GOOD = Answer(code=200, status="healthy", version="1.0.0")
BAD = Answer(code=503, status="unhealthy", version="1.0.0")


def test_the_gate_wants_good_answers_in_a_row():
    gate = Gate(wanted=2, version="1.0.0")
    assert [gate.judge(answer) for answer in (GOOD, BAD, GOOD, GOOD)] == [False, False, False, True]


def test_the_gate_gives_up_and_shows_what_it_saw():
    gate = Gate(wanted=2, interval=0.001, patience=0.02)
    reason = gate.wait(lambda: BAD)
    assert "not healthy 2 times in a row within 0.02 s" in reason
    assert reason.endswith("HTTP 503 instead of 200")
    assert len(gate.evidence()) == 1 and "times)" in gate.evidence()[0]


def test_the_gate_does_not_wait_for_the_dead():
    gate = Gate(patience=60)
    assert gate.wait(lambda: BAD, lambda: "the process ended with exit code 1") == "the process ended with exit code 1"
