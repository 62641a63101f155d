"""AWS for the tests: a moto server over HTTP."""

from __future__ import annotations

import contextlib
import http.server
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REGION = "eu-west-1"
# Not words: Ansible blanks out a secret wherever its letters appear.
KEYS = {"aws_access_key_id": "AKIAMOTOFAKE00000000", "aws_secret_access_key": "moto-fake-secret-0000"}


@contextlib.contextmanager
def running() -> Iterator[str]:
    """The address of a moto server that runs until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{address}/moto-api/", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, "moto_server ended"
                assert time.monotonic() < deadline, "moto_server does not answer"
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait(10)


@contextlib.contextmanager
def answering(moto: str, change: Callable[[bytes, bytes], bytes]) -> Iterator[str]:
    """The address of a proxy that may change answers; it is given the request and the answer."""

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = urllib.request.Request(moto, body, dict(self.headers))
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    code, answer, kind = response.status, response.read(), response.headers["Content-Type"]
            except urllib.error.HTTPError as error:
                code, answer, kind = error.code, error.read(), error.headers["Content-Type"]
            answer = change(body, answer)
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """The address of a moto server."""
    with running() as address:
        yield address


def reset(moto: str) -> None:
    """Forget everything that was made in it."""
    urllib.request.urlopen(urllib.request.Request(f"{moto}/moto-api/reset", method="POST"), timeout=10).close()


def aws_environment(moto: str) -> dict[str, str]:
    """Variables for a process that is to take it for AWS."""
    return {
        "AWS_ENDPOINT_URL": moto,
        "AWS_REGION": REGION,
        **{name.upper(): value for name, value in KEYS.items()},
    }
