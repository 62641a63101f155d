"""The way back of a fleet."""

import pytest
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
