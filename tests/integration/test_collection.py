"""The collection as others get it: built, installed somewhere, used from elsewhere."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).parents[2]
PLAYBOOKS = sorted(path.stem for path in (CHECKOUT / "playbooks").glob("*.yml"))
BIN = Path(sys.executable).parent


def run(*command, cwd, **environment):
    return subprocess.run(
        [str(BIN / command[0]), *map(str, command[1:])],
        cwd=cwd,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    directory = tmp_path_factory.mktemp("built")
    outcome = run("ansible-galaxy", "collection", "build", "--output-path", directory, cwd=CHECKOUT)
    assert outcome.returncode == 0, outcome.stderr
    return next(directory.glob("roastify-ops-*.tar.gz"))


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    directory = tmp_path_factory.mktemp("installed")
    outcome = run("ansible-galaxy", "collection", "install", built, "--no-deps", "-p", directory, cwd=directory)
    assert outcome.returncode == 0, outcome.stderr
    return directory


def test_only_the_collection_is_shipped(built):
    with tarfile.open(built) as archive:
        top = {member.name.split("/")[0] for member in archive}
    assert {"plugins", "roles", "playbooks", "meta", "README.md", "docs", "examples", "migrations"} <= top
    assert not top & {"tests", "molecule", "inventories", "collections", ".venv", ".cache", "tools", ".git", "Makefile"}


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_a_playbook_resolves_everything_by_its_full_name(installed, playbook, tmp_path):
    configuration = tmp_path / "ansible.cfg"
    configuration.write_text("[defaults]\n")
    outcome = run(
        "ansible-playbook",
        "--syntax-check",
        f"roastify.ops.{playbook}",
        "-i",
        CHECKOUT / "inventories" / "local",
        cwd=installed,
        ANSIBLE_COLLECTIONS_PATH=str(installed),
        ANSIBLE_CONFIG=str(configuration),
    )
    assert outcome.returncode == 0, outcome.stderr


def test_every_role_and_module_has_documentation(installed):
    collection = installed / "ansible_collections" / "roastify" / "ops"
    modules = [f"roastify.ops.{path.stem}" for path in (collection / "plugins" / "modules").glob("*.py")]
    roles = [f"roastify.ops.{path.name}" for path in (collection / "roles").iterdir()]
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(installed)}
    outcome = run("ansible-doc", "--json", *modules, cwd=installed, **environment)
    assert outcome.returncode == 0, outcome.stderr
    documented = yaml.safe_load(outcome.stdout)
    assert all({"doc", "examples", "return"} <= set(documented[module]) for module in modules)
    outcome = run("ansible-doc", "--json", "-t", "role", *roles, cwd=installed, **environment)
    assert outcome.returncode == 0, outcome.stderr
    assert set(yaml.safe_load(outcome.stdout)) == set(roles)
