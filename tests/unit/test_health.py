"""The health gate, asked of real sockets."""

import contextlib
import http.server
import json
import socket
import threading
import time

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import health
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.health import Answer, Gate, Place


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


@pytest.mark.parametrize("status", ["degraded", "ok", "OK", "Healthy", "UP", "pass", "warn", "success", 200, True])
def test_degraded_serves_and_so_does_what_is_well_in_other_words(server, status):
    server.body = json.dumps({"status": status, "version": "1.0.0"}).encode()
    assert ask(server).problem("1.0.0") is None


@pytest.mark.parametrize(
    ("code", "body", "problem"),
    [
        (503, b'{"status": "unhealthy", "version": "1.0.0"}', "HTTP 503 instead of 200"),
        (200, b'{"status": "unhealthy", "version": "1.0.0"}', 'status "unhealthy" instead of healthy'),
        (200, b'{"status": "DOWN", "version": "1.0.0"}', 'status "DOWN" instead of healthy'),
        (200, b'{"status": false, "version": "1.0.0"}', 'status "False" instead of healthy'),
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


@pytest.mark.parametrize(
    "begin", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nX-Padding: "], ids=["in the body", "in the header"]
)
def test_who_sends_a_byte_now_and_then_is_late_too(begin):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def dawdle():
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(begin)
                for _ in range(200):
                    time.sleep(0.05)
                    connection.sendall(b" ")

        thread = threading.Thread(target=dawdle, daemon=True)
        thread.start()
        answer = health.probe("127.0.0.1", listener.getsockname()[1], "/health", limit=0.3)
    thread.join(20)
    assert answer.problem() == "no answer within 0.3 s"
    assert answer.milliseconds < 5_000


def test_an_opened_gate_stays_open_as_long_as_all_is_well():
    gate = Gate(wanted=2, interval=0.001)
    assert gate.stay_open(lambda: GOOD, 0.02, lambda: None) is None
    assert gate.asked > 2
    asked = gate.asked
    assert gate.stay_open(lambda: BAD, 0, lambda: None) is None
    assert gate.asked == asked


def test_one_bad_answer_shuts_it_again():
    answers = iter([GOOD, BAD])
    gate = Gate(wanted=2, interval=0.001)
    reason = gate.stay_open(lambda: next(answers), 60, lambda: None)
    assert reason == "healthy 2 times in a row, but then: HTTP 503 instead of 200"
    assert gate.last == BAD


def test_the_end_of_the_process_is_a_better_reason_than_the_end_of_its_socket():
    ends = iter([None, None, None, "the process ended with signal SIGKILL"])
    refused = Answer(error="nothing listens on 127.0.0.1:5001")
    reason = Gate(wanted=2, interval=0.001).stay_open(lambda: refused, 60, lambda: next(ends))
    assert reason == "healthy 2 times in a row, but then: the process ended with signal SIGKILL"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://127.0.0.1:5000/health", Place("127.0.0.1", 5000, "/health", tls=False)),
        ("https://shop.example.com", Place("shop.example.com", 443, "/", tls=True)),
        ("http://[::1]/health?deep=1", Place("::1", 80, "/health?deep=1", tls=False)),
    ],
)
def test_a_url_says_where_to_ask(url, place):
    assert health.place(url) == place


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "ftp://h/", "http://:80/", "http://h:abc/", "http://h:70000/", "http://h:0/", "http://[::1/"],
)
def test_what_is_no_url_is_refused_with_a_remedy(url):
    with pytest.raises(OperationError, match="is no URL of HTTP or HTTPS\nWhat to do: name a scheme"):
        health.place(url)
