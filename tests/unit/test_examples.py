"""The reference application and its changes: they fit each other, and name no machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
APPLICATION = ROOT / "examples/roastify"
CHANGES = ROOT / "examples/changes"
# Each change and those it stands on.
CHAINS = {
    "1.1.0": ["1.1.0"],
    "1.2.0-unhealthy": ["1.1.0", "1.2.0-unhealthy"],
    "1.2.1-crash": ["1.1.0", "1.2.1-crash"],
}


@pytest.fixture
def tree(tmp_path):
    ignore = shutil.ignore_patterns("node_modules", "dist")
    shutil.copytree(APPLICATION, tmp_path / "application", ignore=ignore)
    shutil.copytree(ROOT / "migrations", tmp_path / "migrations")
    return tmp_path


def apply(tree: Path, change: str) -> None:
    # Beneath a repository git would silently skip every path, hence the ceiling.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)}
    for arguments in (["--check"], []):
        command = ["git", "apply", *arguments, str(CHANGES / f"{change}.patch")]
        result = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_change_is_known():
    assert {path.stem for path in CHANGES.glob("*.patch")} == set(CHAINS)


@pytest.mark.parametrize(("version", "changes"), CHAINS.items(), ids=CHAINS.keys())
def test_each_change_applies_and_makes_its_version(tree, version, changes):
    for change in changes:
        apply(tree, change)
    package = read(tree / "application/package.json")
    lock = read(tree / "application/package-lock.json")
    assert package["version"] == lock["version"] == lock["packages"][""]["version"] == version
    assert (tree / "migrations/002_roast_likes.up.sql").exists()


def test_every_migration_has_its_way_back(tree):
    apply(tree, "1.1.0")
    ups = {path.name.replace(".up.sql", "") for path in (tree / "migrations").glob("*.up.sql")}
    downs = {path.name.replace(".down.sql", "") for path in (tree / "migrations").glob("*.down.sql")}
    assert ups == downs and len(ups) >= 2


def test_the_root_scripts_are_there():
    package = read(APPLICATION / "package.json")
    assert package["version"] == "1.0.0"
    expected = {"build", "build:frontend", "build:backend", "verify:build", "test", "start"}
    assert expected <= set(package["scripts"])


def test_the_lock_file_names_no_host():
    for path, entry in read(APPLICATION / "package-lock.json")["packages"].items():
        if path.startswith("node_modules/") and not entry.get("link"):
            assert entry["integrity"].startswith("sha512-"), path
            assert "resolved" not in entry, path


def test_dependencies_are_pinned_exactly():
    for workspace in ("backend", "frontend"):
        package = read(APPLICATION / workspace / "package.json")
        for name, version in {**package.get("dependencies", {}), **package.get("devDependencies", {})}.items():
            assert re.fullmatch(r"\d+\.\d+\.\d+", version), name


def test_production_dependencies_run_on_node_18():
    for path, entry in read(APPLICATION / "package-lock.json")["packages"].items():
        wanted = entry.get("engines", {}).get("node", "*") if isinstance(entry.get("engines"), dict) else "*"
        if entry.get("dev") or entry.get("devOptional") or not path.startswith("node_modules/"):
            continue
        lowest = re.match(r">=\s*(\d+)", wanted)
        assert lowest is None or int(lowest.group(1)) <= 18, f"{path} wants {wanted}"
