"""Batches of a fleet."""

import pytest
from ansible_collections.roastify.ops.plugins.module_utils.batches import batches

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
    ],
)
def test_sizes(hosts, sizes, expected):
    cut = batches(hosts, sizes)
    assert [len(batch) for batch in cut] == expected
    assert [host for batch in cut for host in batch] == hosts


@pytest.mark.parametrize("sizes", [[], [0], ["0%"], ["many"], [-1], ["-5%"], [1, "x%"]])
def test_sizes_that_make_no_sense(sizes):
    with pytest.raises(ValueError, match="batch size"):
        batches(FLEET, sizes)
