"""The deployments of a fleet."""

from ansible_collections.roastify.ops.plugins.module_utils.history import history


def record(deployment, status, at, **more):
    return {"deploymentId": deployment, "action": "deploy", "status": status, "version": "2", "deployedAt": at, **more}


def test_hosts_tell_of_one_deployment_once():
    journals = {
        "app1": [
            record("d1", "started", "T1", previousVersion="1", deployedBy="ann"),
            record("d1", "succeeded", "T3"),
            record("d2", "failed", "T5", reason="app2: no space"),
        ],
        "app2": [record("d1", "started", "T2"), record("d1", "succeeded", "T4")],
        "app3": [],
    }
    first, second = history(journals)
    assert first == {
        "at": "T1",
        "action": "deploy",
        "status": "succeeded",
        "version": "2",
        "release": None,
        "from": "1",
        "from release": None,
        "by": "ann",
        "hosts": "app1, app2",
        "deployment": "d1",
        "reason": None,
    }
    assert (second["status"], second["hosts"], second["reason"]) == ("failed", "app1", "app2: no space")


def test_of_a_large_fleet_people_are_told_some_hosts():
    journals = {f"app{number:03}": [record("d1", "succeeded", "T1")] for number in range(1, 101)}
    (row,) = history(journals, apart=True)
    assert row["hosts"] == "app001, app002, app003, app004, app005, app006 and 94 more"
    (row,) = history(journals)
    assert row["hosts"].count("app") == 100


def test_releases_of_one_version_are_told_apart_for_people():
    first = {"release": "a", "version": "1"}
    second = {"release": "b", "version": "1", "previousVersion": "1", "previousRelease": "a"}
    third = {"release": "c", "version": "2", "previousVersion": "1", "previousRelease": "b"}
    journal = {
        "app1": [
            record("d1", "succeeded", "T1", **first),
            record("d2", "succeeded", "T2", **second),
            record("d3", "succeeded", "T3", **third),
        ]
    }
    told = [(row["version"], row["from"]) for row in history(journal, apart=True)]
    assert told == [("a", None), ("b", "a"), ("2", "b")]
    rows = history(journal)
    assert [(row["version"], row["release"]) for row in rows] == [("1", "a"), ("1", "b"), ("2", "c")]
    assert [row["from release"] for row in rows] == [None, "a", "b"]


def test_what_no_host_saw_the_end_of_is_unfinished_and_one_failure_is_the_fleets():
    killed = {"app1": [record("d1", "started", "T1")], "app2": [record("d1", "succeeded", "T1")]}
    assert [row["status"] for row in history(killed)] == ["unfinished"]
    mixed = {"app1": [record("d1", "failed", "T1")], "app2": [record("d1", "started", "T1")]}
    assert [row["status"] for row in history(mixed)] == ["failed"]


def test_a_rollback_is_one_row():
    rows = history({"app1": [record("r", "succeeded", "T1"), record("r", "rolled_back", "T1", reason="to a")]})
    assert [(row["status"], row["reason"]) for row in rows] == [("succeeded", None)]


def test_nothing_was_deployed():
    assert history({"app1": []}) == []


def test_people_are_shown_the_beginning_of_a_reason():
    records = {
        "app1": [record("f", "failed", "T1", reason="x" * 200 + "\nmore"), record("g", "failed", "T2", reason="no")]
    }
    assert [row["reason"] for row in history(records, apart=True)] == ["x" * 80 + "...", "no"]
    assert history(records)[0]["reason"].endswith("more")


def test_an_end_that_a_newer_version_of_the_collection_wrote_is_shown_as_it_stands():
    newer = {"app1": [record("d1", "started", "T1"), record("d1", "abandoned", "T2")]}
    assert [row["status"] for row in history(newer)] == ["abandoned"]
