"""AWS for the tests: a moto server over HTTP."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
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
