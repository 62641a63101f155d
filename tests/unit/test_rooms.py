"""Rules of the house that hold for the whole tree."""

import re
from pathlib import Path

import yaml

CHECKOUT = Path(__file__).parents[2]
NAME = "roast" + "ify"
#: Where the reference application may be known by name.
HOME = re.compile(r"^(roles/[^/]+/(defaults|meta)/|plugins/modules/|plugins/doc_fragments/|playbooks/[^/]+\.yml$)")


def sources():
    for room in ("playbooks", "plugins", "roles"):
        for path in (CHECKOUT / room).rglob("*"):
            if path.is_file() and path.suffix in (".py", ".yml", ".j2", ".sh", ".cjs", ".js"):
                yield path


def test_nothing_but_defaults_knows_the_reference_application():
    """The name of the collection itself is another matter."""
    found = []
    for path in sources():
        relative = str(path.relative_to(CHECKOUT))
        text = re.sub(rf"(ansible_collections[./]|\b){NAME}[./]ops\b", "", path.read_text())
        if NAME in text.lower() and not HOME.match(relative):
            found.append(relative)
    assert found == []


def test_the_clone_and_the_collection_are_one():
    """Links in collections/ make full names resolve in a plain clone."""
    links = CHECKOUT / "collections" / "ansible_collections" / NAME / "ops"
    for entry in ("galaxy.yml", "meta", "playbooks", "plugins", "roles"):
        assert (links / entry).resolve() == (CHECKOUT / entry).resolve()


def test_hosts_of_a_fleet_go_in_step_whatever_the_configuration_says():
    """With another strategy (ANSIBLE_STRATEGY=free) batches would not wait for each other, nor is run_once known."""
    found = {}
    for path in (CHECKOUT / "playbooks").glob("*.yml"):
        for play in yaml.safe_load(path.read_text()):
            if play.get("hosts") == "app":
                found[f"{path.name}: {play['name']}"] = play.get("strategy")
    assert len(found) > 10
    assert {name: strategy for name, strategy in found.items() if strategy != "linear"} == {}
