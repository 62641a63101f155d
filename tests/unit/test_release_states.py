"""The recorded states of releases, and which one a rollback returns to."""

import errno
import json
import os

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import release_states
from ansible_collections.roastify.ops.plugins.module_utils.release_states import ReleaseStates


class Fleet:
    """One host and what is done to it, in the order in which the modules do it."""

    def __init__(self, directory):
        self.states = ReleaseStates(directory)
        self.live = None

    def switch(self, release, back=False):
        self.states.went_live(release, self.live, "d", back)
        self.live = release

    def deploy(self, *releases):
        for release in releases:
            self.states.record(release, release_states.VERIFIED)
            self.states.tried_out(release)
            self.switch(release)

    def fail(self, release):
        self.states.record(release, release_states.FAILED, "d", "not healthy")

    def fail_after_the_switch(self, release):
        before = self.live
        self.deploy(release)
        self.switch(before, back=True)
        self.fail(release)

    def roll_back(self, target):
        left = self.live
        self.switch(target, back=True)
        if self.states.leads_back(left, target):
            self.states.record(left, release_states.FAILED, "d", "rolled back from")

    def states_of(self, *releases):
        return [self.states.of(release, self.live).state for release in releases]


@pytest.fixture
def fleet(tmp_path):
    return Fleet(tmp_path / ".states")


def test_the_way_of_a_release(fleet):
    fleet.states.record("a", release_states.STAGING)
    assert fleet.states_of("a") == ["staging"]
    fleet.deploy("a", "b")
    assert fleet.states_of("a", "b", "unknown") == ["previous", "live", "verified"]
    fleet.roll_back("a")
    assert fleet.states_of("a", "b") == ["live", "failed"]
    assert fleet.states.of("b").reason == "rolled back from"
    fleet.deploy("b")
    assert fleet.states_of("a", "b") == ["previous", "live"]
    assert fleet.states.of("b").reason is None


STORIES = {
    "nothing was ever deployed": ([], None, None),
    "the first release has nothing before it": ([("deploy", "a")], None, None),
    "the one before": ([("deploy", "a", "b")], None, "a"),
    "a second rollback goes further back": ([("deploy", "a", "b", "c"), ("roll_back", "b")], None, "a"),
    "after a rollback and a deployment": ([("deploy", "a", "b"), ("roll_back", "a"), ("deploy", "c")], None, "a"),
    "rolled back, deployed again": ([("deploy", "a", "b"), ("roll_back", "a"), ("deploy", "b")], None, "a"),
    "forth again": ([("deploy", "a", "b"), ("roll_back", "a"), ("roll_back", "b")], None, "a"),
    "a failed deployment changes nothing": ([("deploy", "a", "b"), ("fail", "c")], None, "a"),
    "failed after the switch": ([("deploy", "a", "b"), ("fail_after_the_switch", "c")], None, "a"),
    "the older content again": ([("deploy", "a", "b", "a")], None, "b"),
    "a pruned one is passed over": ([("deploy", "a", "b", "c")], ["a", "c"], "a"),
    "nothing is left": ([("deploy", "a", "b")], ["b"], None),
    "the older content again, which failed": ([("deploy", "c", "a", "b"), ("fail_after_the_switch", "a")], None, "c"),
    "the older content again, rolled back": ([("deploy", "c", "a", "b", "a"), ("roll_back", "b")], None, "c"),
}


@pytest.mark.parametrize(("story", "kept", "expected"), STORIES.values(), ids=STORIES)
def test_what_a_rollback_returns_to(fleet, story, kept, expected):
    for action, *releases in story:
        getattr(fleet, action)(*releases)
    assert fleet.states.previous(fleet.live, kept or ["a", "b", "c"]) == expected


def test_a_rollback_forth_again_is_no_judgement_of_what_is_left(fleet):
    fleet.deploy("a", "b")
    assert fleet.states.leads_back("b", "a")
    assert not fleet.states.leads_back("a", "b")


def test_the_link_is_right_where_a_killed_run_left_the_files_behind(fleet):
    fleet.deploy("a")
    fleet.states.record("b", release_states.READY, "d2")
    fleet.live = "b"  # the link was renamed, and then the power went
    assert fleet.states_of("a", "b") == ["previous", "live"]
    fleet.states.settle("b")
    assert (fleet.states.of("b").replaced, fleet.states.of("b").deployment) == ("a", "d2")
    assert fleet.states.previous("b", ["a", "b"]) == "a"
    before = fleet.states.of("b")
    fleet.states.settle("b")
    assert fleet.states.of("b") == before


def test_a_killed_return_keeps_what_was_replaced(fleet):
    fleet.deploy("a", "b")
    fleet.live = "a"
    fleet.states.settle("a")
    assert fleet.states.of("a").replaced is None
    assert fleet.states.previous("a", ["a", "b"]) is None


def test_a_killed_deployment_of_what_had_served_before_went_forth(fleet):
    fleet.deploy("w", "x", "y")
    fleet.live = "x"  # deployed again, and killed after the link was renamed
    fleet.states.settle("x", deployed="x")
    assert fleet.states.previous("x", ["w", "x", "y"]) == "y"


def test_to_be_healthy_as_a_candidate_is_no_pardon(fleet):
    fleet.deploy("a", "b")
    fleet.roll_back("a")
    fleet.states.tried_out("b", "d4")
    assert fleet.states_of("a", "b") == ["live", "failed"]
    fleet.fail("c")
    fleet.states.tried_out("c", "d5")
    assert fleet.states_of("c") == ["ready"]


def test_a_candidate_that_is_live_by_now_stays_so(fleet):
    """The module of a killed deployment switched to it after its successor had looked."""
    fleet.deploy("a", "b")
    fleet.states.tried_out("b", "d2")
    assert fleet.states.is_settled("b")
    fleet.states.settle("b", deployed="b")
    assert fleet.states.previous("b", ["a", "b"]) == "a"


def test_a_candidate_that_a_killed_switch_left_stands_for_what_was_live_until_that_is_written_down(fleet):
    fleet.deploy("a", "b")
    fleet.states.record("c", release_states.READY, "d3")
    fleet.live = "c"  # the link was renamed, and then the power went; b is deployed again
    fleet.states.tried_out("b", "d4")
    fleet.states.settle("c", deployed="c")
    fleet.switch("b")
    assert fleet.states.previous("b", ["a", "b", "c"]) == "c"
    assert fleet.states.previous("b", ["a", "b"]) == "a"


def test_order_is_what_happened_and_neither_names_nor_times(fleet):
    fleet.deploy("z", "a")
    os.utime(fleet.states.directory / "z.json")
    assert fleet.states.of("a").served > fleet.states.of("z").served > 0


def test_a_broken_file_is_an_unknown_release_and_the_next_one_replaces_it(fleet):
    fleet.deploy("a")
    (fleet.states.directory / "a.json").write_text('{"state": "li')
    assert fleet.states.of("a").state == "verified"
    fleet.states.settle("a")
    assert json.loads((fleet.states.directory / "a.json").read_text())["state"] == "live"


def test_states_go_with_their_releases(fleet):
    fleet.deploy("a", "b", "c")
    fleet.states.forget_all_but(["b", "c"])
    assert sorted(os.listdir(fleet.states.directory)) == ["b.json", "c.json"]


def test_a_release_that_is_gone_does_not_cut_the_way_back_to_those_before_it(fleet):
    fleet.deploy("a", "b", "c")
    fleet.fail("b")  # deployed again, and not healthy
    fleet.deploy("d")
    fleet.states.forget_all_but(["a", "c", "d"])
    fleet.roll_back("c")
    assert fleet.states.previous("c", ["a", "c", "d"]) == "a"


def test_on_a_full_disk_a_release_that_is_gone_is_not_forgotten_before_its_place_is_taken(fleet, monkeypatch):
    fleet.deploy("a", "b", "c")

    def full(*_arguments, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(release_states, "write_atomically", full)
        fleet.states.forget_all_but(["a", "c"])
    assert fleet.states.previous("c", ["a", "c"]) == "a"
    fleet.states.forget_all_but(["a", "c"])
    assert sorted(os.listdir(fleet.states.directory)) == ["a.json", "c.json"]
    assert fleet.states.previous("c", ["a", "c"]) == "a"


class TestKilledBetweenTheTwoFiles:
    """The release that came has its state, the one that went still says that it is live."""

    @pytest.fixture
    def fleet(self, fleet):
        fleet.deploy("a", "b")
        path = fleet.states.directory / "a.json"
        path.write_text(path.read_text().replace('"previous"', '"live"'))
        return fleet

    def test_the_next_run_writes_the_other_one(self, fleet):
        assert not fleet.states.is_settled("b")
        served = fleet.states.of("b").served
        fleet.states.settle("b", deployed="b")
        assert fleet.states.is_settled("b")
        assert fleet.states.of("b").served == served
        assert json.loads((fleet.states.directory / "a.json").read_text())["state"] == "previous"

    @pytest.mark.parametrize("order", [sorted, lambda names: sorted(names, reverse=True)])
    def test_and_killed_again_after_the_link(self, fleet, monkeypatch, order):
        names = os.listdir
        monkeypatch.setattr(os, "listdir", lambda where: order(names(where)))
        fleet.states.record("c", release_states.READY, "d3")
        fleet.states.settle("c", deployed="c")
        assert fleet.states.previous("c", ["a", "b", "c"]) == "b"

    def test_and_the_older_one_again_and_killed_after_the_link(self, fleet):
        fleet.states.settle("a", deployed="a")
        assert fleet.states.previous("a", ["a", "b"]) == "b"


def test_a_full_disk_leaves_the_state_as_it_was(fleet, monkeypatch):
    fleet.deploy("a")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        fleet.fail("a")
    assert json.loads((fleet.states.directory / "a.json").read_text())["state"] == "live"
