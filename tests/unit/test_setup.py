"""What the playbook `setup` takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

PLAYBOOK = Path(__file__).parents[2] / "playbooks" / "setup.yml"


@pytest.mark.parametrize("given, ships", [({}, True), ({"app_cloudwatch": False}, False)])
@pytest.mark.parametrize("typed", [False, True], ids=["in the inventory", "with -e"])
def test_a_fleet_does_without_the_agent(given: dict[str, object], ships: bool, typed: bool) -> None:
    """What is typed behind -e is a text."""
    plays = yaml.safe_load(PLAYBOOK.read_text(encoding="utf-8"))
    (ship,) = [task for play in plays for task in play.get("tasks", []) if task["name"] == "Ship logs and metrics"]
    variables = {name: str(value).lower() if typed else value for name, value in given.items()}
    assert Templar(DataLoader(), variables=variables).evaluate_conditional(trust_as_template(ship["when"])) is ships
