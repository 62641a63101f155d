"""Candidates that a killed deployment has left."""

import os
import socket
import subprocess
import sys

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import switching
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError

LISTEN = """
import os, socket, sys, time
listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
print("listening", flush=True)
time.sleep(float(os.environ.get("SECONDS", "60")))
"""


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def listening(tmp_path, port):
    """What listens on the port: starts it in a directory, with an environment; all are ended in the end."""
    started = []

    def start(directory, **environment):
        directory.mkdir(parents=True)
        process = subprocess.Popen(
            [sys.executable, "-c", LISTEN],
            cwd=directory,
            env={**os.environ, "PORT": str(port), **environment},
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout.readline() == b"listening\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_what_a_killed_deployment_still_tries_out_is_in_nobodys_way(tmp_path, port, listening):
    releases = tmp_path / "releases"
    process = listening(releases / "r1", RELEASE_CANDIDATE="1")
    with pytest.raises(OperationError, match="is in use"):
        switching.require_free(port)
    switching.require_free(port, releases)
    switching.end_candidates(releases, port)
    process.wait(5)
    switching.require_free(port)


def test_whoever_else_has_the_port_is_told_and_left_alone(tmp_path, port, listening):
    other = listening(tmp_path / "elsewhere", RELEASE_CANDIDATE="1")
    switching.end_candidates(tmp_path / "releases", port)
    with pytest.raises(OperationError, match="is in use"):
        switching.require_free(port, tmp_path / "releases")
    assert other.poll() is None


def test_a_worker_is_no_candidate(tmp_path, port, listening):
    worker = listening(tmp_path / "releases" / "r1")
    switching.end_candidates(tmp_path / "releases", port)
    assert switching.candidates(tmp_path / "releases", port) == []
    assert worker.poll() is None


def test_one_that_is_dying_has_the_port_a_moment_longer_than_an_environment(tmp_path, port, listening):
    listening(tmp_path / "elsewhere", SECONDS="0.5")
    switching.require_free(port, tmp_path / "releases")
