"""What of an artifact is sent to a host that holds releases already, and what befalls it on the way."""

import errno
import io
import os
import random
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.module_utils.urls import open_url
from ansible.plugins.action import ActionBase
from ansible_collections.roastify.ops.plugins.action import release_stage as release_stage_action
from ansible_collections.roastify.ops.plugins.module_utils import (
    artifact,
    deploy_locks,
    release_files,
    releases,
    transfers,
)
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.transfers import Held
from ansible_collections.roastify.ops.plugins.modules import release_stage


def fill(directory, seed):
    """A tree of files, of which some are empty, alike or executable, and links."""
    chance = random.Random(seed)
    for number in range(chance.randint(1, 12)):
        path = directory / chance.choice(["", "a", "a/b", "ä"]) / f"file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.choice([b"", b"alike", chance.randbytes(chance.randint(1, 3000))]))
        path.chmod(chance.choice([0o644, 0o755]))
        if chance.random() < 0.2:
            (path.parent / f"link{number}").symlink_to(path.name)
    return directory


def pack(directory, destination):
    manifest = {"name": "shop", "version": "1.0.0", "commit": "abc1234", "sourceDigest": "0" * 64}
    return artifact.pack(str(directory), str(destination), manifest, mtime=1_700_000_000)


def seen(directory):
    """Everything in a tree that a release has of an artifact."""
    return {
        str(path.relative_to(directory)): (
            path.lstat().st_mode,
            path.lstat().st_mtime if path.is_file() and not path.is_symlink() else None,
            os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None,
        )
        for path in sorted(directory.rglob("*"))
    }


@pytest.mark.parametrize("seed", range(40))
def test_a_difference_makes_what_the_artifact_would_make(tmp_path, seed):
    packed = pack(fill(tmp_path / "source", seed), tmp_path / "shop.tar.gz")
    listing = artifact.read_list(packed.path)
    contents = {file.sha256: tmp_path / "source" / name for name, file in listing.files.items()}
    chance = random.Random(seed)
    held = {sha256: path for sha256, path in contents.items() if chance.random() < 0.6}
    difference = tmp_path / "difference.tar.gz"
    artifact.write_difference(packed.path, str(difference), held)

    def supply(file):
        return release_files.chunks(held[file.sha256]) if file.sha256 in held else None

    artifact.unpack(packed.path, str(tmp_path / "whole"))
    artifact.unpack(str(difference), str(tmp_path / "put together"), supply=supply)
    assert seen(tmp_path / "put together") == seen(tmp_path / "whole")
    if any(file.sha256 in held for file in listing.files.values()):
        with pytest.raises(artifact.ArtifactError, match="lacks"):
            artifact.unpack(str(difference), str(tmp_path / "without"))
    assert not (tmp_path / "without").exists() or not held


def test_the_same_difference_has_the_same_bytes(tmp_path):
    packed = pack(fill(tmp_path / "source", 7), tmp_path / "shop.tar.gz")
    held = {next(iter(artifact.read_list(packed.path).files.values())).sha256}
    for name in ("first", "second"):
        artifact.write_difference(packed.path, str(tmp_path / name), held)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


@pytest.mark.parametrize("supplied", [b"another", b"", b"content and more"])
def test_other_content_than_listed_is_not_taken_from_anywhere(tmp_path, supplied):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "server.js").write_bytes(b"content")
    packed = pack(tmp_path / "source", tmp_path / "shop.tar.gz")
    held = {file.sha256 for file in artifact.read_list(packed.path).files.values()}
    artifact.write_difference(packed.path, str(tmp_path / "difference"), held)
    with pytest.raises(artifact.ArtifactError, match=r"'server.js'.*damaged on this host"):
        artifact.unpack(str(tmp_path / "difference"), str(tmp_path / "release"), supply=lambda file: iter([supplied]))
    assert not (tmp_path / "release").exists()


def test_a_damaged_artifact_has_no_difference(tmp_path):
    packed = pack(fill(tmp_path / "source", 3), tmp_path / "shop.tar.gz")
    content = bytearray((tmp_path / "shop.tar.gz").read_bytes())
    (tmp_path / "shop.tar.gz").write_bytes(content[:-20])
    with pytest.raises(artifact.ArtifactError):
        artifact.write_difference(packed.path, str(tmp_path / "difference"), {"0" * 64})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop.tar.gz", "shop.tar.gz.json", "source"]


def test_what_a_host_holds_travels_as_text():
    digests = [f"{number:064x}"[::-1] for number in range(1000)]
    held = Held.decode(Held(digests).encode())
    assert all(digest in held for digest in digests)
    assert "f" * 64 not in held
    assert len(Held(digests).encode()) < 11 * len(digests)
    assert len(Held.decode("")) == 0
    for text in ("AAAA", "not base64!"):
        with pytest.raises(ValueError):
            Held.decode(text)


def test_a_difference_is_made_where_it_is_worth_while_and_once(tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    for number in range(10):
        (source / f"file{number}").write_bytes(random.Random(number).randbytes(10_000))
    packed = pack(source, tmp_path / "shop.tar.gz")
    digests = [file.sha256 for file in artifact.read_list(packed.path).files.values()]

    def parcel(*held):
        return transfers.parcel(packed.path, packed.sha256, Held(held), str(tmp_path))

    for held in ([], ["0" * 64], digests[:1]):
        assert (parcel(*held).path, parcel(*held).sha256, parcel(*held).whole) == (packed.path, packed.sha256, True)
    some = parcel(*digests[:9])
    assert not some.whole
    assert some.sha256 == artifact.file_sha256(some.path)
    assert 10_000 < some.size == os.path.getsize(some.path) < 13_000
    monkeypatch.setattr(artifact, "write_difference", None)
    # What is held beyond this artifact changes nothing.
    assert parcel(*digests[:9], "1" * 64) == some


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_controller_without_room_for_a_difference_sends_the_whole(tmp_path, monkeypatch, error):
    packed = pack(fill(tmp_path / "source", 3), tmp_path / "shop.tar.gz")
    held = Held(file.sha256 for file in artifact.read_list(packed.path).files.values())

    def fail(*_arguments):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(artifact, "write_difference", fail)
    assert transfers.parcel(packed.path, packed.sha256, held, str(tmp_path)).whole
    error = errno.EIO
    with pytest.raises(OSError):
        transfers.parcel(packed.path, packed.sha256, held, str(tmp_path))


class Fetching:
    """A host that fetches an artifact.

    Args:
        directory: an empty one.
        monkeypatch: of pytest.
    """

    def __init__(self, directory, monkeypatch):
        for name in ("srv/releases", "srv/shared", "artifacts"):
            (directory / name).mkdir(parents=True)
        self.host = releases.Host(str(directory / "srv"))
        self.packed = pack(fill(directory / "source", 3), directory / "shop.tar.gz")
        self.content = Path(self.packed.path).read_bytes()
        self.artifact = directory / "artifacts" / f"{self.packed.sha256}.tar.gz"
        #: What happens at each answer before anything of it is read, the first one first.
        self.events = []
        monkeypatch.setattr(release_stage, "open_url", self.answer)

    def answer(self, _url, **_options):
        (self.events.pop(0) if self.events else lambda: None)()
        return io.BytesIO(self.content)

    def options(self, deployment):
        return {
            "release": "r1",
            "artifact": str(self.artifact),
            "url": "http://bucket/shop?Signature=secret",
            "transfer_delay": 0,
            "sha256": self.packed.sha256,
            "difference_sha256": None,
            "links": {},
            "group": None,
            "assets": [],
            "deployment": deployment,
        }

    def fetch(self, deployment):
        release_stage.fetch(self.host, self.options(deployment))

    def take_lock(self, deployment, dead=None):
        deploy_locks.acquire(self.host, deployment, {"holder": "ann", "origin": "laptop", "since": "now"}, dead)


@pytest.fixture
def fetching(tmp_path, monkeypatch):
    return Fetching(tmp_path, monkeypatch)


def test_what_a_killed_run_still_fetches_does_not_disturb_the_next_one(fetching):
    """Its module works on, although its controller is dead."""

    def next_run():
        fetching.take_lock("d2", dead="d1")
        fetching.fetch("d2")

    fetching.take_lock("d1")
    fetching.events = [next_run]
    with pytest.raises(OperationError, match="lost the lock of this host: deployment d2 has it now"):
        fetching.fetch("d1")
    assert fetching.artifact.read_bytes() == fetching.content
    assert os.listdir(fetching.artifact.parent) == [fetching.artifact.name]


def test_the_next_run_clears_away_what_a_killed_one_still_fetches(fetching):
    def next_run():
        fetching.take_lock("d2", dead="d1")
        fetching.fetch("d2")
        assert release_stage.stage(fetching.host, fetching.options("d2"), False)[1]
        assert os.listdir(fetching.artifact.parent) == []

    fetching.take_lock("d1")
    fetching.events = [next_run]
    with pytest.raises(OperationError, match="lost the lock of this host"):
        fetching.fetch("d1")
    assert os.listdir(fetching.artifact.parent) == []


@pytest.mark.parametrize("error", [EOFError("ends too early"), artifact.ArtifactError("it cannot be read")])
def test_a_fetch_that_fails_is_tried_again(fetching, error):
    def fail():
        raise error

    fetching.events = [fail, fail]
    fetching.fetch(None)
    assert fetching.artifact.read_bytes() == fetching.content
    fetching.artifact.unlink()
    fetching.events = [fail, fail, fail]
    with pytest.raises(OperationError, match=f"could not be fetched from http://bucket/shop, 3 times: {error}"):
        fetching.fetch(None)
    assert os.listdir(fetching.artifact.parent) == []


def test_an_artifact_that_goes_while_it_is_looked_at_is_needed(fetching, monkeypatch):
    fetching.fetch(None)
    real = os.path.isfile

    def gone(path):
        found = real(path)
        fetching.artifact.unlink()
        return found

    monkeypatch.setattr(releases.os.path, "isfile", gone)
    with pytest.raises(releases.ArtifactNeeded, match="cannot be read: No such file"):
        release_stage.stage(fetching.host, fetching.options(None), False)


def test_a_server_that_calls_the_artifact_an_encoding_of_a_tar_file_changes_nothing(fetching, monkeypatch):
    """Some take the ``.gz`` of its name for that."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(fetching.content)))
            self.end_headers()
            self.wfile.write(fetching.content)

        def log_message(self, *_arguments):
            pass

    monkeypatch.setattr(release_stage, "open_url", open_url)
    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/shop.tar.gz"
        release_stage.fetch(fetching.host, {**fetching.options(None), "url": address})
    finally:
        server.shutdown()
        server.server_close()
    assert fetching.artifact.read_bytes() == fetching.content


@pytest.fixture
def action(monkeypatch):
    """An action whose module asks for the artifact and whose host is this machine."""
    made = release_stage_action.ActionModule.__new__(release_stage_action.ActionModule)
    made.asked = []
    made.commands = 0
    made.between = lambda: None

    def execute_module(module_args, task_vars):
        made.asked.append(module_args)
        return {"artifact_needed": "it is not on this host", "held": "", "received": {}}

    def execute(script, sudoable=True, in_data=b""):
        made.commands += 1
        assert made.commands < 20, "it never ends"
        done = subprocess.run(["/bin/sh", "-c", script], input=in_data, capture_output=True, check=False)
        made.between()
        return {"rc": done.returncode, "stdout": done.stdout.decode(), "stderr": done.stderr.decode()}

    made._connection = SimpleNamespace(has_pipelining=True)
    made._display = SimpleNamespace(warning=lambda text: None)
    made._low_level_execute_command = execute
    made._execute_module = execute_module
    monkeypatch.setattr(ActionBase, "run", lambda self, tmp=None, task_vars=None: {})
    return made


def test_an_artifact_that_gets_shorter_while_it_is_sent_is_said(action, tmp_path, monkeypatch):
    """A build writes over it in place, for instance."""
    monkeypatch.setattr(release_stage_action, "_PORTION", 1000)
    source = tmp_path / "shop.tar.gz"
    source.write_bytes(b"x" * 5000)
    action.between = lambda: source.write_bytes(b"y" * 2500)
    target = tmp_path / "host" / "shop.tar.gz"
    target.parent.mkdir()
    action._task = SimpleNamespace(
        args={"source": str(source), "artifact": str(target), "sha256": "0" * 64, "transfer_delay": 0}
    )
    outcome = action.run()
    assert outcome["failed"]
    assert re.search(r"shop\.tar\.gz became shorter while it was sent: it ended after \d+ of 5000", outcome["msg"])
    assert "See that nothing writes to it, and deploy again" in outcome["msg"]
    assert len(action.asked) == 1, "it is of no use to try again"


def test_a_host_that_fetches_pauses_as_long_as_is_set(action):
    action._task = SimpleNamespace(args={"url": "http://bucket/shop", "transfer_delay": "30"})
    action.run()
    assert action.asked == [{"url": "http://bucket/shop", "transfer_delay": "30"}]
