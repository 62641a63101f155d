"""What is typed behind -e is understood, or refused before anything is changed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.roastify.ops.plugins.module_utils import given_variables
from jinja2 import Environment, meta

ROOT = Path(__file__).parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
OPTIONS = given_variables.role_options(str(ROOT / "roles"))
KNOWN = given_variables.OF_PLAYBOOKS | given_variables.OF_INVENTORIES | OPTIONS


def problems(given: dict[str, Any], refused: dict[str, str] | None = None, inventory: set[str] | None = None) -> Any:
    return given_variables.problems(given, refused or {}, lambda: OPTIONS, lambda: inventory or set())


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("relase", "release"),
        ("Release", "release"),
        ("relaese", "release"),
        ("relesse", "release"),
        ("verifi", "verify"),
        ("app_post", "app_port"),
        ("releases", "release"),
        ("app_sorce", "app_source"),
        ("app-source", "app_source"),
        ("appSource", "app_source"),
        ("deploy_batch", "deploy_batches"),
        ("deplay_batches", "deploy_batches"),
        ("app_release_kept", "release_kept"),
        ("release_artefact", "release_artifact"),
        ("rollback_migration", "rollback_migrations"),
        ("doctor_repare", "doctor_repair"),
        ("sandbox_stat", "sandbox_state"),
        ("database_hsot", "database_host"),
        ("app_release_buckets", "app_release_bucket"),
        ("own_variable", "own_variables"),
    ],
)
def test_a_slip_is_told_with_what_was_meant(slip: str, meant: str) -> None:
    (told,) = problems({slip: "1"})
    assert told.startswith(f"{slip} is not known; did you mean ")
    # app_release_kept may be release_kept or app_release_keep.
    assert meant in told.removesuffix("?").partition("did you mean ")[2].split(" or ")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "region",
            "my_variable",
            "ansible_user",
            "ansible_usr",
            "env",
            "version",
            "site",
            "color",
            "checkout",
            "stage",
        ),
        *("awx_job_id", "awx_user_email", "tower_project_revision", "semaphore_vars", "git_commit", "build_number"),
        *("vault_database_password", "vault_jwt_secret", "app_version", "deploy_environment", "release_notes"),
        *("pg_version", "database_url", "kill_timeout", "target_group", "aws_environment", "very", ""),
    ],
)
def test_a_variable_of_somebodys_own_is_none_of_our_business(name: str) -> None:
    assert problems({name: "1"}) == []


def test_what_is_known_is_never_refused() -> None:
    assert problems(dict.fromkeys(KNOWN, "1")) == []


def test_where_all_is_known_otherwise_nothing_is_read() -> None:
    def read() -> set[str]:
        raise AssertionError

    assert given_variables.problems({"release": "1", "ansible_user": "me", "app_source": "."}, {}, read, read) == []
    assert given_variables.problems({"region": "eu", "app_release_keep": 3}, {}, lambda: OPTIONS, read) == []


def test_all_slips_are_told_at_once() -> None:
    assert len(problems({"relase": "1", "release": "2", "app_sorce": "."})) == 2


def test_what_the_inventory_sets_is_known() -> None:
    assert problems({"app_ports": [1], "relase": 1}, inventory={"app_ports"}) == problems({"relase": 1})


@pytest.mark.parametrize("own", ["releases,relase", "releases relase", ["relase", "releases"]], ids=str)
def test_whoever_has_such_a_variable_says_so(own: Any) -> None:
    assert problems({"relase": "1", "releases": "2", "own_variables": own}, {"releases": "no"}) == []
    assert len(problems({"relase": "1", "app_sorce": ".", "own_variables": own})) == 1


@pytest.mark.parametrize(("value", "refused"), [("1.1.0", True), (1.1, True), ("", False), (None, False)])
def test_what_would_be_ignored_is_refused_unless_it_says_nothing(value: Any, refused: bool) -> None:
    assert problems({"release": value}, {"release": "say release_kept"}) == ["release: say release_kept"] * refused
    assert problems({"release": value}, {"release": ""}) == []


def test_the_message_says_what_happened_and_the_way_out() -> None:
    told = given_variables.message(["relase is not known; did you mean release?", "release: no"])
    assert told.splitlines() == [
        "Nothing was changed: not all of what -e gives would be heeded.",
        "- relase is not known; did you mean release?",
        "- release: no",
        "Correct it. A variable that is really your own is let through with -e own_variables=NAME,NAME.",
    ]


def test_the_options_of_the_roles_are_those_of_their_specifications() -> None:
    """They are looked for in the text, since reading YAML would take twenty times as long."""
    options: set[str] = set()
    for role in ROLES:
        entries = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
        for entry in entries.values():
            options |= set(entry.get("options") or {})
    assert options == OPTIONS


class Everything(dict):  # type: ignore[type-arg]
    """Filters and tests that Jinja itself does not know."""

    def __contains__(self, name: object) -> bool:
        return True

    def get(self, name: str, default: object = None) -> Any:
        return lambda *_: None

    __missing__ = get


def used_and_set(paths: list[Path]) -> tuple[set[str], set[str]]:
    """Names that templates and conditions of YAML files read, and those that the files set."""
    language = Environment()
    language.filters = Everything()
    language.tests = Everything()
    read: set[str] = set()
    written: set[str] = set()

    def walk(node: Any, key: str = "") -> None:
        if isinstance(node, dict):
            for name, value in node.items():
                if name in ("vars", "ansible.builtin.set_fact"):
                    written.update(value)
                elif name in ("register", "loop_var", "index_var"):
                    written.add(value)
                walk(value, name)
        elif isinstance(node, list):
            for value in node:
                walk(value, key)
        elif isinstance(node, str):
            is_expression = key in ("when", "that", "until", "failed_when", "changed_when")
            text = node if "{{" in node or "{%" in node else f"{{{{ {node} }}}}" if is_expression else ""
            read.update(meta.find_undeclared_variables(language.parse(text)))

    for path in paths:
        walk(yaml.safe_load(path.read_text()))
    return read, written


ANSIBLES_OWN = {"groups", "hostvars", "inventory_hostname", "lookup", "now", "query"}


def test_the_playbooks_read_what_is_listed_and_nothing_else() -> None:
    read, written = used_and_set([*(ROOT / "playbooks").rglob("*.yml"), ROOT / "inventories" / "mapping.yml"])
    _, found_by_roles = used_and_set([path for role in ROLES for path in (role / "tasks").glob("*.yml")])
    # What playbooks/environment.yml sets others give by -e.
    asked = read - written - found_by_roles - ANSIBLES_OWN - OPTIONS - given_variables.OF_INVENTORIES | {"release_kept"}
    asked = {name for name in asked if not name.startswith(("_", "ansible_"))}
    assert asked == given_variables.OF_PLAYBOOKS - {"own_variables"}


def test_the_facts_that_inventories_share_are_listed() -> None:
    read, written = used_and_set([ROOT / "inventories" / "mapping.yml"])
    asked = {name for name in read - written if name.startswith("app_")} - OPTIONS
    for inventory in ("local", "staging", "production"):
        main = yaml.safe_load((ROOT / "inventories" / inventory / "group_vars" / "all" / "main.yml").read_text())
        asked |= {name for name in main if name.startswith(("app_", "database_"))} - OPTIONS
    # app_env_schema is an option, and said there as a fact as well.
    assert asked - given_variables.OF_PLAYBOOKS == given_variables.OF_INVENTORIES - OPTIONS


def test_whatever_the_documentation_tells_to_type_is_known() -> None:
    places = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", *(ROOT / "playbooks").glob("*.yml")]
    text = "\n".join(path.read_text() for path in places)
    typed = set(re.findall(r"-e (?:'\{\")?([a-z_]+)(?:=|\")", text))
    assert len(typed) > 30
    assert typed - KNOWN == set()


@pytest.mark.parametrize("playbook", sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml")))
def test_every_playbook_looks_at_what_is_typed(playbook: str) -> None:
    """With --limit and --tags, too, since it is where the hosts of its first play are named."""
    (first, *_) = yaml.safe_load((ROOT / "playbooks" / f"{playbook}.yml").read_text())
    if imported := first.get("ansible.builtin.import_playbook"):
        assert imported in ("fleet.yml", "deploy.yml")
    else:
        assert first["hosts"].startswith("{{ query('roastify.ops.understood', 'localhost'")


@pytest.fixture
def play(tmp_path: Path) -> Any:
    """Exit status and output of a playbook without hosts that could be changed."""
    inventory = tmp_path / "inventory"
    (inventory / "group_vars").mkdir(parents=True)
    (inventory / "hosts.yml").write_text("app: {hosts: {nobody.invalid: {ansible_connection: local}}}")
    (inventory / "group_vars" / "all.yml").write_text("app_ports: [1]\n")

    def run(playbook: str, *options: str) -> tuple[int, str]:
        done = subprocess.run(
            [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(inventory), playbook, *options],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    return run


def test_a_run_with_slips_ends_before_it_begins(play: Any, tmp_path: Path) -> None:
    (tmp_path / "more.yml").write_text("deplay_batches: [1]\nregion: eu\n")
    more = f"@{tmp_path / 'more.yml'}"
    status, output = play(
        "roastify.ops.rollback", "-e", "relase=1.1.0 region=eu", "-e", '{"app_sorce": "."}', "-e", more
    )
    assert status != 0
    assert "Nothing was changed: not all of what -e gives would be heeded." in output
    for told in ("relase is not known; did you mean release?", "did you mean app_source?", "mean deploy_batches?"):
        assert told in output, output
    assert "region" not in output


@pytest.mark.parametrize(
    ("playbook", "given", "told"),
    [
        ("deploy.yml", {"release": "1.1.0"}, "-e release_kept=VERSION"),
        ("playbooks/environment.yml", {"release_artifact": "a.tar.gz"}, "release_artifact: release_kept"),
        ("rollback.yml", {"release_artifact": "a.tar.gz"}, "deploy.yml -e release_artifact=PATH"),
        ("rollback.yml", {"release_kept": "1.1.0"}, "-e release=VERSION"),
    ],
)
def test_what_a_playbook_would_ignore_is_refused_under_a_limit_too(
    play: Any, playbook: str, given: dict[str, str], told: str
) -> None:
    status, output = play(playbook, "--limit", "app", "-e", json.dumps(given))
    assert status != 0
    assert "Nothing was changed: not all of what -e gives would be heeded." in output and told in output, output


def test_group_vars_and_the_switch_let_a_name_through(play: Any) -> None:
    given = {"app_ports": [2], "relase": 1, "own_variables": "relase"}
    status, output = play("playbooks/fleet.yml", "-e", json.dumps(given))
    assert status == 0, output
    del given["own_variables"]
    status, output = play("playbooks/fleet.yml", "-e", json.dumps(given))
    assert status != 0 and "relase" in output and "app_ports" not in output
