"""What the playbook `status` concludes of a fleet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.roastify.ops.plugins.module_utils.tables import table

PLAYBOOK = Path(__file__).parents[2] / "playbooks" / "status.yml"


def row(release: str | None, healthy: bool | None, intact: bool | None = None) -> dict[str, Any]:
    return {"release": release, "healthy": healthy, "intact": intact, "lock": None, "remarks": []}


def task(name: str) -> dict[str, Any]:
    """A task of the playbook."""
    plays = yaml.safe_load(PLAYBOOK.read_text(encoding="utf-8"))
    (found,) = [task for play in plays for task in play.get("tasks", []) if task["name"] == name]
    return found


def verdict(rows: dict[str, dict[str, Any]], *unreachable: str) -> str:
    return str(concluded("_verdict", rows, *unreachable))


def concluded(name: str, rows: dict[str, dict[str, Any]], *unreachable: str, **given: Any) -> Any:
    """The value of a variable of the task that shows the fleet."""
    show = task("Show the fleet")
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


def test_a_table_fits_a_hundred_columns_and_has_no_column_for_a_lock_that_nobody_holds() -> None:
    status = {
        **row("20260102T030405Z-1.10.0-0123456789ab", True),
        "version": "1.10.0",
        "commit": "0123456789ab",
        "deployed by": "ann",
        "deployed at": "2026-01-02T03:04:05Z",
        "schema version": "042",
        "previous": "1.9.12",
        "workers": 4,
        "load balancer": "unhealthy",
    }
    written = task("Say it in short for people")["ansible.builtin.set_fact"]["status_row"]
    templar = Templar(DataLoader(), variables={"inventory_hostname": "app10", "app_release_status": status})
    short = {name: templar.template(trust_as_template(value)) for name, value in written.items()}
    assert (short["commit"], short["deployed (UTC)"]) == ("01234567", "2026-01-02 03:04")
    columns = concluded("_columns", {"app10": status}, alb_target_provider="aws")
    lines = table([short], columns)
    assert max(map(len, lines)) <= 100, lines
    assert "lock" not in columns
    assert "lock" in concluded("_columns", {"app10": {**status, "lock": "bob"}})
    nothing = {**status, "commit": "", "deployed at": None}
    templar = Templar(DataLoader(), variables={"inventory_hostname": "app10", "app_release_status": nothing})
    assert templar.template(trust_as_template(written["deployed (UTC)"])) == ""
    unversioned = {"app_release_status": {**status, "commit": "unversioned"}}
    assert Templar(DataLoader(), variables=unversioned).template(trust_as_template(written["commit"])) == "unversioned"
