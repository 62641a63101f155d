"""The way back of a fleet."""

from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.roastify.ops.plugins.module_utils.way_back import way_back

FLEET = ["a", "b", "c", "d"]
PLAN = [["a"], ["b", "c"], ["d"]]


@pytest.mark.parametrize(
    ("plan", "begun", "expected"),
    [
        (PLAN, FLEET, [["d"], ["b", "c"], ["a"]]),
        # The others of a batch come along: whether there is anything to do for them, they know.
        (PLAN, ["a", "b"], [["b", "c"], ["a"]]),
        (PLAN, [], []),
        ([FLEET], ["a"], [FLEET]),
        # Nothing was planned yet.
        ([], ["c"], [FLEET]),
        ([], [], []),
        # A host that the plan forgot.
        ([["a"], ["b"]], ["a", "b", "d"], [["c", "d"], ["b"], ["a"]]),
        # A host that is not part of the fleet any more.
        ([["a", "x"], ["b", "c", "d"]], ["x"], [["a", "x"]]),
    ],
)
def test_the_last_batch_goes_back_first(plan, begun, expected):
    assert way_back(FLEET, plan, begun) == expected


def test_the_plan_stays_as_it_is():
    plan = [["a"], ["b"]]
    way_back(["a", "b"], plan, ["a", "b"])[0].append("c")
    assert plan == [["a"], ["b"]]


@pytest.mark.parametrize(
    ("failed", "reason"),
    [
        (2, "h0, Try: no; h1, Try: no"),
        (100, "h0, Try: no; h1, Try: no; h2, Try: no; h3, Try: no; h4, Try: no; h5, Try: no; and 94 more hosts"),
        (0, "no answer from h100"),
    ],
)
def test_the_journal_of_a_large_fleet_has_some_of_the_causes(failed, reason):
    (block,) = yaml.safe_load((Path(__file__).parents[2] / "playbooks/tasks/abandon.yml").read_text())
    (record,) = [task for task in block["block"] if task["name"] == "Record the failure and give the lock back"]
    hosts = {f"h{number}": {"deploy_failure_cause": "", "deploy_left": True} for number in range(100)}
    for host in list(hosts)[:failed]:
        hosts[host]["deploy_failure_cause"] = f"{host}, Try: no"
    variables = {"ansible_play_hosts_all": [*hosts, "h100"]} | {
        name: trust_as_template(value) if isinstance(value, str) else value for name, value in record["vars"].items()
    }
    variables["_hosts"] = [{"inventory_hostname": host, **facts} for host, facts in hosts.items()]
    assert Templar(DataLoader(), variables=variables).template(trust_as_template("{{ app_release_reason }}")) == reason


LIVE, BEFORE, BAD = ({"id": f"r-{state}", "state": state} for state in ("live", "previous", "failed"))


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ([LIVE], "so that there is nothing to return to. What to do: deploy a version that is well"),
        (
            [LIVE, BAD],
            "so that there is nothing to return to. What to do: deploy a version that is well; "
            "-e release=ID returns to one all the same: r-failed (failed)",
        ),
        # It has served, and is out of reach: another one was deployed since the live one has replaced it.
        ([BAD, BEFORE, LIVE], ". What to do: name one with -e release=ID: r-failed (failed), r-previous (previous)"),
    ],
)
def test_what_may_be_returned_to_is_neither_live_nor_named_without_its_state(kept, said):
    tasks = yaml.safe_load((Path(__file__).parents[2] / "roles/app_release/tasks/choose.yml").read_text())
    variables = {name: trust_as_template(value) for name, value in tasks[-1]["vars"].items()}
    variables |= {"app_release_info": {"live": LIVE, "kept": kept}, "app_release_chosen": "", "app_release_target": ""}
    variables |= {"app_release_problems": [], "_app_release_schema_problem": [], "__app_release_disagreement": []}
    variables |= {"ansible_play_batch": ["app1"], "inventory_hostname": "app1"}
    problems = Templar(DataLoader(), variables=variables).template(trust_as_template("{{ _problems }}"))
    assert problems == [f"no earlier release is kept that served well{', ' * said.startswith('so')}{said}"]
