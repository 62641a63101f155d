"""The dependencies are stated in several places, for several tools. This holds them together."""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parents[2]
# What setup installs on: the oldest ansible-core is the one of Python 3.11, the newest that of 3.13.
PYTHONS = ["3.11", "3.12", "3.13"]


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def locked(name: str) -> list[Requirement]:
    """Give the requirements of a lock file, which has one per unindented line, without their hashes."""
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    return [Requirement(line.rstrip("\\ ")) for line in lines if re.match(r"[A-Za-z0-9]", line)]


def pins(name: str, python: str) -> dict[str, str]:
    environment = {"python_version": python, "python_full_version": f"{python}.9"}
    return {
        requirement.name: str(requirement.specifier)
        for requirement in locked(name)
        if requirement.marker is None or requirement.marker.evaluate(environment)
    }


COLLECTIONS: dict[str, str] = {entry["name"]: entry["version"] for entry in load("requirements.yml")["collections"]}


def test_galaxy_and_requirements_name_the_same_collections() -> None:
    assert load("galaxy.yml")["dependencies"] == COLLECTIONS


@pytest.mark.parametrize("name", sorted(COLLECTIONS))
def test_installed_ansible_package_brings_the_collection(name: str) -> None:
    manifest = importlib.metadata.distribution("ansible").locate_file(
        Path("ansible_collections", *name.split("."), "MANIFEST.json")
    )
    version = json.loads(Path(str(manifest)).read_text())["collection_info"]["version"]
    assert version in SpecifierSet(COLLECTIONS[name]), (
        f"requirements.yml wants {name} {COLLECTIONS[name]}, ansible brings {version}"
    )


@pytest.mark.parametrize("python", PYTHONS)
def test_locked_ansible_core_satisfies_the_collection(python: str) -> None:
    wanted = SpecifierSet(load("meta/runtime.yml")["requires_ansible"])
    core = pins("controller.txt", python)["ansible-core"].removeprefix("==")
    assert Version(core) in wanted


@pytest.mark.parametrize("python", PYTHONS)
def test_tests_run_with_the_versions_of_the_controller(python: str) -> None:
    development = pins("development.txt", python)
    differing = {
        name: (pin, development.get(name))
        for name, pin in pins("controller.txt", python).items()
        if development.get(name) != pin
    }
    assert differing == {}, "run `make lock`"


@pytest.mark.parametrize("name", ["controller", "development"])
def test_locks_pin_and_hash_everything_that_is_asked_for(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    requirements = locked(f"{name}.txt")
    assert all(re.fullmatch(r"==[^,*]+", str(requirement.specifier)) for requirement in requirements)
    assert all(
        "--hash=sha256:" in block for block in re.split(r"\n(?=[A-Za-z0-9])", text) if re.match(r"[A-Za-z0-9]", block)
    )
    names = {requirement.name.lower() for requirement in requirements}
    asked = [
        Requirement(line).name.lower()
        for line in (ROOT / "requirements" / f"{name}.in").read_text().splitlines()
        if re.match(r"[A-Za-z0-9]", line)
    ]
    assert set(asked) <= names, "run `make lock`"


def test_locks_name_no_index() -> None:
    for lock in (ROOT / "requirements").glob("*.txt"):
        assert "index-url" not in lock.read_text()
