"""Whether a fleet has a release already."""

import pytest
from ansible_collections.roastify.ops.plugins.module_utils.release_reuse import is_up_to_date, reusable_release

OLD, NEW = {"id": "r1", "sha256": "a"}, {"id": "r2", "sha256": "a"}
OTHER = {"id": "r3", "sha256": "b"}


def host(kept, alike, live=None):
    return {"kept": kept, "alike": [f"{identifier}.env" for identifier in alike], "live": live}


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ([host([], [])], None),
        ([host([OLD], ["r1"], "r1")], "r1"),
        ([host([OLD], [], "r1")], None),  # the environment changed
        ([host([OTHER], ["r3"], "r3")], None),  # the artifact changed
        ([host([OLD, NEW], ["r1", "r2"], "r1")], "r1"),  # what is live stays
        ([host([OLD, NEW], ["r1", "r2"])], "r2"),
        ([host([OLD], ["r1"], "r1"), host([], [])], "r1"),  # a fresh host gets the same one
        ([host([OLD], ["r1"], "r1"), host([OLD], [], "r1")], None),  # one host's environment changed
        ([host([OLD, NEW], ["r2"], "r1"), host([OLD], ["r1"], "r1")], "r2"),
        ([host([OLD], ["r1", "gone"], "r1")], "r1"),
        ([host([{**OLD, "intact": True}], ["r1"], "r1")], "r1"),
        ([host([{**OLD, "intact": False}], ["r1"], "r1")], None),  # damaged: not used again
        ([host([OLD], ["r1"], "r1"), host([{**OLD, "intact": False}], ["r1"], "r1")], None),
    ],
)
def test_a_release_is_an_artifact_and_an_environment(hosts, expected):
    assert reusable_release(hosts, "a") == expected


LINKS = {".env": "environments/r9.env", "data/up": "uploads"}
MADE = {".env": "../../shared/environments/r1.env", "data/up": "../../../shared/uploads"}


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ({"sharedLinks": MADE, "sharedAssets": ["dist"], "wantedAssets": ["dist", "public"]}, "r1"),
        ({"sharedLinks": MADE, "sharedAssets": ["dist"], "wantedAssets": ["dist"]}, None),
        ({"sharedLinks": MADE, "sharedAssets": ["dist", "public"]}, "r1"),  # by an earlier version
        ({"sharedLinks": MADE}, None),
        ({"sharedLinks": {".env": MADE[".env"]}, "wantedAssets": ["dist", "public"]}, None),
        ({"sharedLinks": {**MADE, "logs": "../../shared/logs"}, "wantedAssets": ["dist", "public"]}, None),
        ({"sharedLinks": {**MADE, "data/up": "../../../shared/up"}, "wantedAssets": ["dist", "public"]}, None),
    ],
)
def test_a_release_with_other_links_or_assets_than_configured_is_another_one(release, expected):
    hosts = [host([{**OLD, **release}], ["r1"], "r1")]
    assert reusable_release(hosts, "a", LINKS, ["public", "dist"]) == expected
    assert reusable_release(hosts, "a") == "r1"


def served(**differs):
    """Of a host that has nothing to do."""
    return {
        "live": OLD,
        "health": {"healthy": True, "version": "1.0.0"},
        "lock": None,
        "findings": [],
        "kept": [OLD, OTHER],
        **differs,
    }


@pytest.mark.parametrize("version", ["1.0.0", None])
def test_a_fleet_that_serves_it_well_is_up_to_date(version):
    assert is_up_to_date([served(), served()], "r1", version, 2)


@pytest.mark.parametrize(
    "differs",
    [
        {"live": None},
        {"live": NEW},
        {"health": None},
        {"health": {"healthy": False, "version": "1.0.0"}},
        {"health": {"healthy": True, "version": "0.9.0"}},
        {"health": {"healthy": True}},
        {"lock": {"holder": "ann"}},
        {"findings": None},
        {"findings": [{"what": "PM2 runs workers that are not of the live release"}]},
        {"kept": [OLD, NEW, OTHER]},
    ],
)
def test_one_host_with_something_to_do_is_enough(differs):
    assert not is_up_to_date([served(), served(**differs)], "r1", "1.0.0", 2)


def test_the_previous_release_stays_however_few_are_kept():
    assert is_up_to_date([served()], "r1", "1.0.0", 1)
    assert not is_up_to_date([served(kept=[OLD, NEW, OTHER])], "r1", "1.0.0", 1)


def test_no_host_is_no_fleet():
    assert not is_up_to_date([], "r1", "1.0.0", 2)
