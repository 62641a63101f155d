"""Batches of a fleet."""

import pytest
from ansible_collections.roastify.ops.plugins.module_utils.batches import batches, rollout_problems

FLEET = [f"h{number}" for number in range(1, 9)]


@pytest.mark.parametrize(
    ("hosts", "sizes", "expected"),
    [
        (FLEET, [1, "25%", "100%"], [1, 2, 5]),
        (FLEET, [1], [1] * 8),
        (FLEET, ["100%"], [8]),
        (FLEET, ["30%"], [3, 3, 2]),
        (FLEET[:2], [1, "100%"], [1, 1]),
        (FLEET[:1], [1, "25%", "100%"], [1]),
        ([], [1], []),
        (FLEET, ["3"], [3, 3, 2]),
        # A single value is no list of its digits.
        (FLEET, "25", [8]),
        (FLEET, "25%", [2, 2, 2, 2]),
        (FLEET, 3, [3, 3, 2]),
    ],
)
def test_sizes(hosts, sizes, expected):
    cut = batches(hosts, sizes)
    assert [len(batch) for batch in cut] == expected
    assert [host for batch in cut for host in batch] == hosts


@pytest.mark.parametrize("sizes", [[], [0], ["0%"], ["many"], [-1], ["-5%"], [1, "x%"], "", ["1e999%"], 0, None])
def test_sizes_that_make_no_sense(sizes):
    with pytest.raises(ValueError, match="batch size"):
        batches(FLEET, sizes)


SENSE = {
    "deploy_batches": [1, "100%"],
    "rollback_batches": "50%",
    "deploy_bake": [30, 0],
    "rollback_bake": "60",
    "deploy_minimum_healthy": "50%",
    "deploy_on_failure": "stop",
    "db_migrate_on_failure": "keep",
}


def test_settings_that_make_sense():
    assert rollout_problems(SENSE) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("deploy_batches", []),
        ("rollback_batches", ["0%"]),
        ("deploy_bake", []),
        ("deploy_bake", ["a minute"]),
        ("deploy_bake", [-1]),
        ("deploy_bake", True),
        ("rollback_bake", None),
        ("rollback_bake", "inf"),
        ("deploy_minimum_healthy", "half"),
        ("deploy_minimum_healthy", ["50%"]),
        ("deploy_on_failure", "rollback"),
        ("db_migrate_on_failure", True),
    ],
)
def test_each_setting_that_makes_no_sense_is_told_with_what_to_do(name, value):
    (problem,) = rollout_problems({**SENSE, name: value})
    assert problem.startswith(name)
    assert "What to do: " in problem


def test_all_settings_that_make_no_sense_are_told_at_once():
    assert len(rollout_problems({name: [] for name in SENSE})) == len(SENSE)
