"""Whether a release fits, and what is going to happen."""

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import preflight

MANIFEST = {"sha256": "new", "size": 8 * 2**20, "unpackedSize": 24 * 2**20, "files": 3000, "node": ">=18 <25"}


def host(**changes):
    return {
        "live": {"id": "r1", "version": "1.0.0"},
        "kept": [{"id": "r1", "sha256": "old"}],
        "health": {"healthy": True},
        "free_bytes": 2**30,
        "free_files": 100_000,
        "node_version": "18.20.8",
        "lock": None,
        **changes,
    }


def test_a_release_that_fits():
    assert preflight.problems(host(), MANIFEST) == []
    assert preflight.problems(host(free_files=-1), MANIFEST) == []


def test_what_check_mode_would_have_to_build_is_planned_as_far_as_it_is_known():
    unbuilt = {"name": "shop", "version": "1.1.0", "commit": "abc", "sourceDigest": "def"}
    assert preflight.problems(host(free_bytes=0), unbuilt) == []
    info = {"free_files": 9, **host()}
    (row,) = preflight.plan({"app1": info}, unbuilt, "r2", [["app1"]])
    assert (row["to do"], row["MiB needed"]) == ("build, transfer, switch", None)


def test_what_is_kept_by_all_hosts_has_no_size_and_is_planned_all_the_same():
    kept = {"id": "r0", "sha256": "old", "version": "0.9.0"}
    info = {"free_files": 9, **host(kept=[{"id": "r1", "sha256": "live"}, kept])}
    assert preflight.problems(info, kept) == []
    (row,) = preflight.plan({"app1": info}, kept, "r2", [["app1"]])
    assert (row["to do"], row["MiB needed"]) == ("share files, switch", 0)


def test_hosts_that_were_lost_are_missed():
    assert preflight.lost_hosts(["app1", "app2"], ["app1", "app2"]) == []
    (told,) = preflight.lost_hosts(["app1", "app2", "app3"], ["app2"], "app")
    assert told.startswith("app1, app3 did not answer in this run")
    assert told.endswith("--limit 'app,!app1,!app3'")


def test_everything_in_the_way_is_told_at_once():
    space, inodes, node = preflight.problems(
        host(free_bytes=40 * 2**20, free_files=2999, node_version="16.20.2"), MANIFEST
    )
    assert space.startswith("not enough space: 40 MiB free, 96 MiB needed. What to do:")
    assert inodes.startswith("not enough inodes: 2999 free, 3000 needed. What to do:")
    assert node.startswith("Node.js 16.20.2 runs here, and the application wants >=18 <25")


def test_what_is_here_needs_no_space():
    assert preflight.problems(host(free_bytes=0, kept=[{"id": "r1", "sha256": "new"}]), MANIFEST) == []


def test_what_is_damaged_counts_as_absent():
    damaged = host(free_bytes=0, kept=[{"id": "r2", "sha256": "new", "intact": False}])
    (problem,) = preflight.problems(damaged, MANIFEST)
    assert problem.startswith("not enough space: 0 MiB free, 96 MiB needed")
    (row,) = preflight.plan({"app1": damaged}, MANIFEST, "r2", [["app1"]])
    assert (row["to do"], row["MiB needed"]) == ("transfer, switch", 96)


def test_the_plan_says_what_happens_on_each_host():
    fleet = {
        "app1": host(live={"id": "r2", "version": "2"}, kept=[{"id": "r2", "sha256": "new"}]),
        "app2": host(kept=[{"id": "r2", "sha256": "new"}]),
        "app3": host(kept=[{"id": "r9", "sha256": "new"}]),
        "app4": host(live=None, kept=[], health=None),
    }
    rows = preflight.plan(fleet, MANIFEST, "r2", [["app1"], ["app2", "app3", "app4"]])
    assert [(row["host"], row["to do"], row["batch"], row["MiB needed"]) for row in rows] == [
        ("app1", "nothing: it is live", 1, 0),
        ("app2", "switch: it is here", 2, 0),
        ("app3", "share files, switch", 2, 0),
        ("app4", "transfer, switch", 2, 96),
    ]
    assert rows[3]["serves"] is None and rows[3]["healthy"] is None


def test_the_plan_shows_ids_where_versions_do_not_tell_releases_apart():
    fleet = {
        "app1": host(live={"id": "r2", "version": "2"}),
        "app2": host(live={"id": "r1", "version": "1"}),
        "app3": host(live=None),
    }
    plan = [["app1", "app2", "app3"]]
    assert [row["serves"] for row in preflight.plan(fleet, {**MANIFEST, "version": "2"}, "r3", plan)] == [
        "r2",
        "1",
        None,
    ]
    assert [row["serves"] for row in preflight.plan(fleet, {**MANIFEST, "version": "3"}, "r3", plan)] == [
        "2",
        "1",
        None,
    ]


@pytest.mark.parametrize(
    ("version", "wanted", "expected"),
    [
        ("18.20.8", ">=18", True),
        ("18.20.8", ">=18 <25", True),
        ("18.20.8", ">= 18.0.0 < 25", True),
        ("25.0.0", ">=18 <25", False),
        ("18.20.8", "^18", True),
        ("18.1.0", "^18.2", False),
        ("19.0.0", "^18.2", False),
        ("18.20.8", "~18.20", True),
        ("18.21.0", "~18.20.1", False),
        ("18.21.0", "~18", True),
        ("18.20.8", "18", True),
        ("18.20.8", "18.x", True),
        ("18.20.8", "*", True),
        ("18.20.8", "18.20.7", False),
        ("18.20.8", ">18", False),
        ("19.0.0", ">18", True),
        ("18.20.8", "<=18", True),
        ("22.3.0", "^18 || ^20 || >=22", True),
        ("21.3.0", "^18 || ^20 || >=22", False),
        ("v20.1.0", "20", True),
        ("18.20.8", "16 - 18", None),
        ("18.20.8", "lts/*", None),
        ("unknown", ">=18", None),
    ],
)
def test_ranges_of_versions(version, wanted, expected):
    assert preflight.satisfies(version, wanted) is expected


@pytest.mark.parametrize(
    ("batches", "well", "lonely"),
    [
        ([["app1"], ["app2", "app3"]], "app1 app2 app3", []),
        ([["app1"], ["app2", "app3"]], "app1", ["app1"]),
        ([["app1"], ["app2", "app3"]], "app2 app3", []),
        ([["app1", "app2"], ["app3"]], "app1 app2", ["app1, app2"]),
        # Nobody serves yet, and a whole fleet at once never leaves the load balancer.
        ([["app1"], ["app2", "app3"]], "", []),
        ([["app1", "app2", "app3"]], "app1", []),
    ],
)
def test_somebody_serves_while_a_batch_is_out_of_the_load_balancer(batches, well, lonely):
    hosts = {name: host(health={"healthy": name in well.split()}) for name in ("app1", "app2", "app3")}
    hosts["app3"] = hosts["app3"] if "app3" in well else host(live=None, health=None)
    found = preflight.peers(batches, hosts)
    assert [sentence.partition(" would be")[0].removeprefix("while ") for sentence in found] == lonely
    assert all("deploy_drain=false" in sentence for sentence in found)


#: How hosts stand.
WELL, ILL, NEW = host(), host(health={"healthy": False}), host(live=None, health=None)


def test_a_host_on_which_nothing_is_live_is_not_called_ill():
    (told,) = preflight.peers([["app1"], ["app2", "app3"]], {"app1": WELL, "app2": ILL, "app3": NEW})
    assert told.startswith(
        "while app1 would be out of the load balancer nobody would serve: app2 is not healthy, and nothing is live on "
        "app3 yet. What to do: mend app2 first (playbooks/doctor.yml), or leave"
    )
    (told,) = preflight.peers([["app1"], ["app2"]], {"app1": WELL, "app2": NEW})
    assert "nobody would serve: nothing is live on app2 yet. What to do: leave hosts in the load balancer" in told


@pytest.mark.parametrize(
    ("hosts", "sizes", "expected"),
    [
        # A fleet of one grows: the new host serves before the other one leaves.
        ([WELL, NEW], [1, "100%"], [["app2"], ["app1"]]),
        ([WELL, NEW, NEW], [1, "100%"], [["app2"], ["app3", "app1"]]),
        ([WELL, ILL, NEW], [1], [["app3"], ["app1"], ["app2"]]),
        # Where others are left the first host stays the first.
        ([WELL, WELL, NEW], [1, "100%"], [["app1"], ["app2", "app3"]]),
        ([NEW, NEW], [1, "100%"], [["app1"], ["app2"]]),
        ([WELL, NEW], ["100%"], [["app1", "app2"]]),
        # It would not help.
        ([WELL, ILL, NEW], [2, 1], [["app1", "app2"], ["app3"]]),
        ([WELL, ILL], [1], [["app1"], ["app2"]]),
    ],
)
def test_new_hosts_go_first_where_nobody_else_would_serve(hosts, sizes, expected):
    fleet = {f"app{number}": info for number, info in enumerate(hosts, 1)}
    assert preflight.batches_that_serve(list(fleet), sizes, fleet) == expected
