"""The journal of deployments, and which release a rollback returns to."""

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import deployments
from ansible_collections.roastify.ops.plugins.module_utils.deployments import Record


def deployed(release, before=None, status="succeeded"):
    return Record("d-" + release, "deploy", status, release, release.upper(), previousRelease=before)


def rolled_back(from_release, to_release):
    return [
        Record("r", "rollback", "succeeded", to_release, to_release.upper(), previousRelease=from_release),
        Record("r", "rollback", "rolled_back", from_release, from_release.upper()),
    ]


def test_a_record_survives_the_journal(tmp_path):
    journal = tmp_path / "deployments.jsonl"
    record = Record("d1", "deploy", "succeeded", "r1", "1.0.0", "abc", "2026-01-01T00:00:00Z", "ann", "0.9.0", "r0")

    deployments.append_record(journal, record)

    assert deployments.read_records(journal) == [record]


def test_fields_keep_the_names_of_the_seed():
    fields = set(deployed("r1", "r0").as_dict())
    assert {"version", "deployedAt", "previousRelease"} <= fields
    assert {"deployedBy", "commit", "previousVersion"} <= set(Record.__dataclass_fields__)


def test_no_journal_means_no_records(tmp_path):
    assert deployments.read_records(tmp_path / "missing") == []


def test_a_line_cut_off_by_a_power_failure_is_passed_over_and_not_continued(tmp_path):
    journal = tmp_path / "deployments.jsonl"
    deployments.append_record(journal, deployed("a"))
    with journal.open("a") as stream:
        stream.write('{"deploymentId": "d2", "act')

    deployments.append_record(journal, deployed("b", "a"))

    assert [record.release for record in deployments.read_records(journal)] == ["a", "b"]


@pytest.mark.parametrize(
    ("records", "current", "kept", "expected"),
    [
        pytest.param([], None, [], None, id="nothing was ever deployed"),
        pytest.param([deployed("a")], "a", ["a"], None, id="the first release has nothing before it"),
        pytest.param([deployed("a"), deployed("b", "a")], "b", ["a", "b"], "a", id="the one before"),
        pytest.param(
            [deployed("a"), deployed("b", "a"), deployed("c", "b"), *rolled_back("c", "b")],
            "b",
            ["a", "b", "c"],
            "a",
            id="a second rollback goes further back, not forth to what was bad",
        ),
        pytest.param(
            [deployed("a"), deployed("b", "a"), *rolled_back("b", "a"), deployed("c", "a")],
            "c",
            ["a", "b", "c"],
            "a",
            id="after a rollback and a new deployment",
        ),
        pytest.param(
            [deployed("a"), deployed("b", "a"), *rolled_back("b", "a"), deployed("b", "a")],
            "b",
            ["a", "b"],
            "a",
            id="a rolled back release that was deployed again",
        ),
        pytest.param(
            [deployed("a"), deployed("b", "a"), deployed("c", "b", "failed")],
            "b",
            ["a", "b", "c"],
            "a",
            id="a failed deployment changes nothing",
        ),
        pytest.param(
            [deployed("a"), deployed("b", "a"), deployed("c", "b")],
            "c",
            ["a", "c"],
            "a",
            id="a pruned one is passed over",
        ),
        pytest.param([deployed("a"), deployed("b", "a")], "b", ["b"], None, id="nothing is left to return to"),
    ],
)
def test_previous_release(records, current, kept, expected):
    assert deployments.previous_release(current, kept, records) == expected


def test_the_state_of_a_release_is_its_newest_event():
    records = [deployed("a"), deployed("b", "a"), *rolled_back("b", "a")]
    assert deployments.state_of("a", records) == "succeeded"
    assert deployments.state_of("b", records) == "rolled_back"
    assert deployments.state_of("c", records) == "staged"


def test_a_rollback_that_failed_does_not_spoil_its_target():
    records = [deployed("a"), deployed("b", "a"), Record("r", "rollback", "failed", "a", "A", previousRelease="b")]
    assert deployments.previous_release("b", ["a", "b"], records) == "a"


def test_a_rollback_forth_again_is_no_judgement_of_what_is_left():
    records = [deployed("a"), deployed("b", "a"), *rolled_back("b", "a")]
    assert deployments.leads_back("b", "a", records)
    assert not deployments.leads_back("a", "b", records)
