"""The journal of deployments."""

import dataclasses
import resource
import signal

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import deployments
from ansible_collections.roastify.ops.plugins.module_utils.deployments import Record


def deployed(release, before=None, status="succeeded"):
    return Record("d-" + release, "deploy", status, release, release.upper(), previousRelease=before)


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


def test_a_reason_may_hold_other_separators_of_lines(tmp_path):
    journal = tmp_path / "deployments.jsonl"
    record = dataclasses.replace(deployed("a", status="failed"), reason="one\u2028two\x85three\nfour")
    deployments.append_record(journal, record)
    assert deployments.read_records(journal) == [record]


def test_a_full_disk_is_told_and_leaves_no_half_line(tmp_path):
    """A write that only partly fits is no error to the kernel; the next one is. So it is with a limit of the size."""
    journal = tmp_path / "deployments.jsonl"
    deployments.append_record(journal, deployed("a"))
    before = journal.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            deployments.append_record(journal, deployed("b", "a"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert journal.read_bytes() == before


class TestARunThatWasCutOff:
    """d2 began last."""

    @pytest.fixture
    def records(self):
        return [
            Record("d1", "deploy", "started", "b", "B", previousRelease="a"),
            Record("d2", "rollback", "started", "a", "A", previousRelease="b"),
        ]

    def test_has_no_end(self, records):
        assert deployments.cut_off(records) == records[-1]
        assert deployments.cut_off([*records, Record("d2", "rollback", "succeeded", "a", "A")]) is None
        assert deployments.cut_off([]) is None

    def test_whatever_is_told_late_of_the_one_before_it(self, records):
        """By a controller that was slow and lost its lock, or by the timer of a host."""
        late = Record("d1", "deploy", "failed", "b", "B", deployedBy="this host")
        assert deployments.cut_off([*records, late]) == records[-1]

    def test_and_nobody_has_been_at_work_since(self, records):
        assert deployments.cut_off([*records, Record("d3", "deploy", "failed", "c", "C")]) is None
