"""What the playbook `status` concludes of a fleet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

PLAYBOOK = Path(__file__).parents[2] / "playbooks" / "status.yml"


def row(release: str | None, healthy: bool | None, intact: bool | None = None) -> dict[str, Any]:
    return {"release": release, "healthy": healthy, "intact": intact, "remarks": []}


def verdict(rows: dict[str, dict[str, Any]], *unreachable: str) -> str:
    return str(concluded("_verdict", rows, *unreachable))


def concluded(name: str, rows: dict[str, dict[str, Any]], *unreachable: str, **given: Any) -> Any:
    """The value of a variable of the task that shows the fleet."""
    plays = yaml.safe_load(PLAYBOOK.read_text(encoding="utf-8"))
    (show,) = [task for play in plays for task in play.get("tasks", []) if task["name"] == "Show the fleet"]
    trusted = {name: trust_as_template(value) for name, value in show["vars"].items() if isinstance(value, str)}
    variables = {**show["vars"], **trusted, "alb_target_provider": "none", **given}
    variables["ansible_play_hosts"] = list(rows)
    variables["ansible_play_hosts_all"] = [*rows, *unreachable]
    variables["hostvars"] = {host: {"app_release_status": dict(row, host=host)} for host, row in rows.items()}
    return Templar(DataLoader(), variables=variables).template(trust_as_template(f"{{{{ {name} }}}}"))


WELL, ILL, NEWER, NOTHING = row("r1", True), row("r1", False), row("r2", True), row(None, None)


@pytest.mark.parametrize(
    "rows, said",
    [
        ({"app1": WELL, "app2": WELL}, "All hosts serve the same release."),
        ({"app1": NOTHING, "app2": NOTHING}, "Nothing is deployed."),
        ({"app1": WELL, "app2": NEWER}, "DRIFT: "),
        ({"app1": WELL, "app2": NOTHING}, "DRIFT: "),
        ({"app1": WELL, "app2": ILL}, "NOT SERVING: app2, "),
    ],
)
def test_a_fleet_all_of_which_answers(rows: dict[str, dict[str, Any]], said: str) -> None:
    assert verdict(rows).startswith(said)


@pytest.mark.parametrize(
    "rows, said",
    [
        ({"app1": WELL}, "The hosts that could be reached serve the same release; of the others nothing is known."),
        ({"app1": NOTHING}, "Nothing is deployed on the hosts that could be reached; of the others nothing is known."),
        ({"app1": WELL, "app2": NEWER}, "DRIFT: "),
        ({"app1": WELL, "app2": ILL}, "NOT SERVING: app2, "),
    ],
)
def test_nothing_is_said_of_hosts_that_could_not_be_reached(rows: dict[str, dict[str, Any]], said: str) -> None:
    assert verdict(rows, "app3").startswith(said)


def test_what_is_intact_is_said_of_hosts_that_could_be_reached() -> None:
    rows = {"app1": row("r1", True, intact=True)}
    assert concluded("_integrity", rows) == []
    assert concluded("_integrity", rows, verify=True) == ["What runs is what was built."]
    assert concluded("_integrity", rows, "app2", verify=True) == [
        "What runs on the hosts that could be reached is what was built."
    ]
    unknown = {**rows, "app2": row("r1", True), "app3": NOTHING}
    (said,) = concluded("_integrity", unknown, verify=True)
    assert said.startswith("Nobody can tell whether what runs on app2 is what was built: ")
    damaged = {**unknown, "app2": row("r1", True, intact=False)}
    (said,) = concluded("_integrity", damaged, "app4", verify=True)
    assert said.startswith("DAMAGED: what runs on app2 is not")


def test_where_releases_differ_they_are_named() -> None:
    assert "release" in concluded("_columns", {"app1": WELL, "app2": NEWER})
    assert "release" not in concluded("_columns", {"app1": WELL, "app2": WELL})
