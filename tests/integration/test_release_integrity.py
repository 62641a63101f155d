"""Status compares hosts with what was built; staging never shares what is damaged."""

from __future__ import annotations

import http.server
import os
import threading

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import releases
from staging_host import StagingHost


def status(host, **extra):
    outcome = host.run("playbooks/status.yml", **extra)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    # Ansible folds long lines of YAML.
    return " ".join(outcome.stdout.split())


@pytest.fixture
def fleet(tmp_path):
    return StagingHost(tmp_path)


def test_status_says_whether_what_runs_is_what_was_built(fleet):
    assert fleet.stage("r1").returncode == 0
    (fleet.root / "current").symlink_to("releases/r1")

    output = status(fleet, status_format="json", verify=True)
    assert '\\"intact\\": true' in output or '"intact": true' in output
    assert "intact" not in status(fleet)  # the table has the column when it was asked for
    assert "What runs is what was built." in status(fleet, verify=True)

    (fleet.root / "releases/r1/server.js").write_text("tamper\n")
    (fleet.root / "releases/r1/shell.js").write_text("")
    output = status(fleet, verify=True)
    assert "here: release r1 is not what was built:" in output
    assert "server.js was changed: 7 bytes, not 8" in output
    assert "shell.js does not come from the build" in output
    assert "DAMAGED: what runs on here is not what was built; deploy again." in output
    output = status(fleet, status_format="json", verify=True)
    assert "server.js was changed: 7 bytes, not 8" in output
    assert '\\"intact\\": false' in output or '"intact": false' in output
    # Nobody asked, nobody looked.
    assert "is not what was built" not in status(fleet)


class _Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"status": "healthy", "version": "1.0.0"}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def test_status_calls_nothing_served_beside_a_host_that_does_not_answer(fleet):
    assert fleet.stage("r1").returncode == 0
    (fleet.root / "current").symlink_to("releases/r1")
    output = status(fleet)
    assert "here is not healthy" in output
    assert "NOT SERVING: here, of hosts that have the same release; see playbooks/doctor.yml." in output
    assert "All hosts serve" not in output

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        output = status(fleet, app_release_port=server.server_port)
        server.shutdown()
    assert "All hosts serve the same release." in output and "NOT SERVING" not in output


def test_a_release_of_the_same_artifact_needs_no_transfer(fleet):
    outcome = fleet.stage("r1")
    assert outcome.returncode == 0, outcome.stdout
    os.unlink(fleet.packed.path)
    outcome = fleet.stage("r2")
    assert outcome.returncode == 0, outcome.stdout
    first, second = fleet.host.release("r1"), fleet.host.release("r2")
    assert os.path.samefile(first.directory / "server.js", second.directory / "server.js")
    assert os.listdir(fleet.artifacts) == []


def test_damage_is_not_shared_but_transferred_again(fleet):
    assert fleet.stage("r1").returncode == 0
    (fleet.root / "releases/r1/server.js").write_text("tamper\n")
    outcome = fleet.stage("r2")
    assert outcome.returncode == 0, outcome.stdout
    assert releases.damage(fleet.host, fleet.host.release("r2")) == []
    assert os.listdir(fleet.artifacts) == []


def test_damage_is_told_where_there_is_no_artifact(fleet):
    assert fleet.stage("r1").returncode == 0
    (fleet.root / "releases/r1/server.js").write_text("tamper\n")
    outcome = fleet.stage("r2", app_release_artifact="")
    assert outcome.returncode != 0
    assert "no undamaged release here has its content" in outcome.stdout
    assert "release r1: server.js was changed: 7 bytes, not 8" in outcome.stdout
    assert os.listdir(fleet.root / "releases") == ["r1"]


def test_a_damaged_live_release_is_told_before_a_deployment(fleet):
    """And is left as it is: the new release is made beside it."""
    assert fleet.stage("r1").returncode == 0
    (fleet.root / "current").symlink_to("releases/r1")
    (fleet.root / "releases/r1/server.js").write_text("tamper\n")
    outcome = fleet.stage("r2")
    assert outcome.returncode == 0, outcome.stdout
    assert "release r1 is not what was built: 1 difference" in outcome.stdout + outcome.stderr
    assert releases.damage(fleet.host, fleet.host.release("r2")) == []
    assert (fleet.root / "releases/r1/server.js").read_text() == "tamper\n"
