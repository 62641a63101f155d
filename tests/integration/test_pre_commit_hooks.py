"""The hooks of .pre-commit-hooks.yaml, run by pre-commit itself in a repository of an application."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = """\
variables:
  PORT: {type: port, required: true, description: Port it listens on}
  JWT_SECRET: {secret: true, min_length: 32, example: <random>}
  PG_SSL: {type: boolean, environments: {production: {values: [true]}}}
environments: {production: {}}
templates:
  one: {file: .env.example, environment: production}
"""
SECRET = "cAnArY9z8y7x6w5v4u3t2s1r0q"
BAD = f"PORT=five\nJWT_SECRET={SECRET}\nPG_SSL=false\n"
GOOD = "PORT=5000\nPG_SSL=true\n"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def git(directory: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=tests", "-c", "user.email=tests@localhost", "-c", "commit.gpgsign=false"]
    result = subprocess.run(["git", *identity, *arguments], cwd=directory, capture_output=True, text=True, check=True)
    return result.stdout.strip()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with what the hooks need of this one, as it is now."""
    directory = tmp_path_factory.mktemp("hooks")
    for name in ("pyproject.toml", ".pre-commit-hooks.yaml"):
        shutil.copy(ROOT / name, directory / name)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "plugins/module_utils", directory / "plugins/module_utils", ignore=ignored)
    git(directory, "init", "--quiet")
    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "--message", "hooks")
    return directory


@pytest.fixture
def application(tmp_path: Path, source: Path) -> Path:
    """A repository that uses the hooks."""
    git(tmp_path, "init", "--quiet")
    (tmp_path / ".pre-commit-config.yaml").write_text(
        f"repos:\n  - repo: {source}\n    rev: {git(source, 'rev-parse', 'HEAD')}\n    hooks:\n"
        "      - {id: env-validate, args: [--environment=production]}\n      - {id: env-examples}\n"
    )
    (tmp_path / "env.schema.yml").write_text(SCHEMA)
    return tmp_path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pre-commit keeps the environment that it makes for the hooks, once for all tests here."""
    return tmp_path_factory.mktemp("pre-commit")


@pytest.fixture
def pre_commit(application: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("PRE_COMMIT_HOME", str(home))
    for name in [name for name in os.environ if name.startswith("GIT_") or name == "PYTHONPATH"]:
        monkeypatch.delenv(name)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        git(application, "add", "--all")
        command = ["pre-commit", *arguments]
        return subprocess.run(command, cwd=application, capture_output=True, text=True, timeout=600, check=False)

    return run


def test_a_bad_environment_stops_the_commit(application: Path, pre_commit: Run) -> None:
    (application / ".env").write_text(BAD)
    result = pre_commit("run", "env-validate")
    assert result.returncode == 1, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert (
        ".env:1: error: PORT is not a port (found 4 characters: lower-case letters). "
        "Use a whole number from 1 to 65535. [port]" in lines
    )
    assert any(line.startswith(".env:2: error: JWT_SECRET is shorter than 32 characters") for line in lines)
    assert any(line.startswith(".env:3: error: PG_SSL must be true in production") for line in lines)
    assert SECRET not in result.stdout + result.stderr


def test_a_good_one_and_files_of_other_kinds_do_not(application: Path, pre_commit: Run) -> None:
    (application / ".env").write_text(GOOD)
    (application / ".env.sample").write_text(BAD)
    (application / "environment.txt").write_text(BAD)
    result = pre_commit("run", "env-validate", "--all-files")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Passed" in result.stdout


def test_files_in_directories_are_found(application: Path, pre_commit: Run) -> None:
    (application / "backend").mkdir()
    for name in ("backend/.env.production", "backend/staging.env"):
        (application / name).write_text("PORT=x\n")
    result = pre_commit("run", "env-validate", "--all-files")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "backend/.env.production:1: error: PORT" in result.stdout
    assert "backend/staging.env:1: error: PORT" in result.stdout


def test_examples_out_of_date_stop_the_commit(application: Path, pre_commit: Run) -> None:
    (application / ".env.example").write_text("PORT=1\n")
    result = pre_commit("run", "env-examples", "--all-files")
    assert result.returncode == 1, result.stdout + result.stderr
    assert ".env.example: error: it is not what env.schema.yml makes of it" in result.stdout


def test_the_repository_as_pre_commit_tries_it(application: Path, source: Path, pre_commit: Run) -> None:
    (application / ".env").write_text(BAD)
    result = pre_commit("try-repo", str(source), "env-validate", "--all-files")
    assert result.returncode == 1, result.stdout + result.stderr
    assert ".env:1: error: PORT is not a port" in result.stdout
    assert SECRET not in result.stdout + result.stderr
