"""Rules of the house that hold for every role."""

import re
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

CHECKOUT = Path(__file__).parents[2]
ROLES = sorted(path for path in (CHECKOUT / "roles").iterdir() if path.is_dir())


def load(path):
    return yaml.safe_load(path.read_text()) if path.exists() else None


@pytest.fixture(params=ROLES, ids=lambda role: role.name)
def role(request):
    return request.param


def test_every_variable_bears_the_name_of_its_role(role):
    defaults = load(role / "defaults" / "main.yml") or {}
    assert [name for name in defaults if not name.startswith(f"{role.name}_")] == []


def test_internal_variables_are_marked_as_such(role):
    names = load(role / "vars" / "main.yml") or {}
    assert [name for name in names if not name.startswith(f"_{role.name}_")] == []


def test_the_specification_and_the_defaults_say_the_same(role):
    """Required options have no useful default; every other default is stated, as it is."""
    specification = load(role / "meta" / "argument_specs.yml")["argument_specs"]
    defaults = load(role / "defaults" / "main.yml") or {}
    options = {}
    for entry in specification.values():
        options.update(entry.get("options") or {})
    assert set(defaults) - set(options) == set()
    stated = {name: option["default"] for name, option in options.items() if "default" in option}
    assert {name: defaults.get(name) for name in stated} == stated
    without = {name for name, option in options.items() if "default" not in option and not option.get("required")}
    assert {name for name in without if defaults.get(name)} == set()


def test_every_option_is_described(role):
    specification = load(role / "meta" / "argument_specs.yml")["argument_specs"]
    for entry in specification.values():
        assert entry["short_description"] and entry["description"]
        for name, option in (entry.get("options") or {}).items():
            assert option.get("description"), name


def test_a_switch_that_was_typed_is_one(role):
    """What -e NAME=false gives is a text, which counts as true: only a module takes it for what it means."""
    switches = {
        name
        for entry in load(role / "meta" / "argument_specs.yml")["argument_specs"].values()
        for name, option in (entry.get("options") or {}).items()
        if option["type"] == "bool"
    }
    handed_on = r"""^\s*\w+: "\{\{ NAME( or omit)? \}\}"$"""
    found = []
    for path in [*role.glob("tasks/*.yml"), *role.glob("vars/*.yml"), *role.glob("templates/*")]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for name in switches:
                used = re.search(rf"\b{name}\b(?! \| (ansible\.builtin\.)?bool\b)(?!: | to )", line)
                if used and not re.match(handed_on.replace("NAME", name), line):
                    found.append(f"{path.name}:{number}: {line.strip()}")
    assert found == []


SETS = re.compile(r"\|\s*(?:difference|union|symmetric_difference)\b")


def test_lists_keep_their_order():
    """Ansible's filters for sets give a list in the order of hashes, another one in every run."""
    files = [path for name in ("roles", "playbooks", "inventories") for path in (CHECKOUT / name).rglob("*.yml")]
    assert [f"{path}: {line}" for path in files for line in path.read_text().splitlines() if SETS.search(line)] == []


def test_a_build_without_its_tests_keeps_the_order_of_its_steps():
    (task, *_) = load(CHECKOUT / "roles/app_build/tasks/main.yml")
    defaults = load(CHECKOUT / "roles/app_build/defaults/main.yml")
    steps = trust_as_template(task["roastify.ops.app_artifact"]["steps"])
    for tested, expected in (
        (True, defaults["app_build_steps"]),
        (False, [step for step in defaults["app_build_steps"] if step != "test"]),
    ):
        variables = {"app_build_steps": defaults["app_build_steps"], "app_build_test": tested}
        assert Templar(DataLoader(), variables=variables).template(steps) == expected
