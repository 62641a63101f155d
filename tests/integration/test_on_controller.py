"""Tasks for the controller that are answered without a process of their own: with the module's own words."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import artifact
from migration_host import ansible_playbook

MANIFEST = {
    "name": "shop",
    "version": "1.2.3",
    "commit": "0" * 40,
    "sourceDigest": "0" * 64,
    "modified": False,
    "builder": "a test",
    "schemaVersion": None,
    "schemaBreaks": [],
}


@pytest.fixture
def packed(tmp_path: Path) -> artifact.Artifact:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "server.js").write_text("listen();")
    return artifact.pack(str(tmp_path / "tree"), str(tmp_path / "shop.tar.gz"), MANIFEST)


def answer(directory: Path, module: str, arguments: dict[str, Any], **task: Any) -> dict[str, Any]:
    """The result of a task on the controller."""
    kept = directory / "result.json"
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "tasks": [
            {f"roastify.ops.{module}": arguments, "register": "outcome", "ignore_errors": True, **task},
            {"ansible.builtin.copy": {"content": "{{ outcome | to_json }}", "dest": str(kept)}, "check_mode": False},
        ],
    }
    (directory / "play.yml").write_text(json.dumps([play]))
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    (directory / "hosts.yml").write_text(json.dumps({"all": {"hosts": {"localhost": local}}}))
    done = ansible_playbook("-i", str(directory / "hosts.yml"), str(directory / "play.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(kept.read_text())


@pytest.mark.parametrize("check", [False, True])
def test_an_artifact_is_verified(tmp_path, packed, check):
    outcome = answer(tmp_path, "app_artifact", {"artifact": packed.path, "keep": "3"}, check_mode=check)
    assert not outcome["failed"] and not outcome["changed"]
    assert (outcome["artifact"], outcome["manifest"], outcome["built"]) == (packed.path, packed.manifest, False)


def test_one_that_is_damaged_is_refused(tmp_path, packed):
    Path(packed.path).write_bytes(b"other")
    outcome = answer(tmp_path, "app_artifact", {"artifact": packed.path})
    assert outcome["failed"] and "damaged or was replaced" in outcome["msg"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"artifact": "/none", "artefact": "/none"}, "artefact"),
        ({"artifact": "/none", "keep": "many"}, "keep"),
        ({"artifact": "/none", "source": "/none"}, "mutually exclusive: source|artifact"),
        ({}, "one of the following is required: source, artifact"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, arguments, told):
    outcome = answer(tmp_path, "app_artifact", arguments)
    assert outcome["failed"] and told in outcome["msg"], outcome


def test_a_gate_that_stays_shut_fails_with_what_was_answered(tmp_path):
    outcome = answer(tmp_path, "health_gate", {"url": "http://127.0.0.1:1/", "patience": 0.2})
    assert outcome["failed"] and outcome["msg"].startswith("Health gate at http://127.0.0.1:1/ stays shut")
    assert outcome["asked"] and "nothing listens" in outcome["answers"][0], outcome


def test_a_gate_needs_a_place(tmp_path):
    assert "url" in answer(tmp_path, "health_gate", {})["msg"]
    assert "no URL" in answer(tmp_path, "health_gate", {"url": "shop"})["msg"]
