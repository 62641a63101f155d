"""The playbook that shows what was deployed when."""

from __future__ import annotations

import json
from pathlib import Path

from ansible_collections.roastify.ops.plugins.module_utils.deployments import Record, append_record
from staging_host import StagingHost

FIRST, SECOND = "20260101T000000Z-1.0.0-aaaaaaa", "20260102T000000Z-1.0.0-bbbbbbb"


def test_releases_of_one_version_are_told_apart_for_people_and_not_for_machines(tmp_path: Path) -> None:
    host = StagingHost(tmp_path)
    journal = host.root / "deployments.jsonl"
    append_record(journal, Record("d1", "deploy", "succeeded", FIRST, "1.0.0", deployedAt="2026-01-01T00:00:00Z"))
    append_record(
        journal,
        Record(
            *("d2", "deploy", "succeeded", SECOND, "1.0.0"),
            deployedAt="2026-01-02T00:00:00Z",
            previousVersion="1.0.0",
            previousRelease=FIRST,
        ),
    )
    outcome = host.run("playbooks/history.yml")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert f"2026-01-02T00:00:00Z  deploy  succeeded  {SECOND}  {FIRST}  -" in outcome.stdout

    outcome = host.run("playbooks/history.yml", history_format="json")
    rows = json.loads("[" + outcome.stdout.partition("[{")[2].partition("}]")[0].join(["{", "}]"]).replace("\\", ""))
    assert [(row["version"], row["release"]) for row in rows] == [("1.0.0", FIRST), ("1.0.0", SECOND)]
