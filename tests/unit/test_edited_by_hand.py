"""Files of a host that somebody has edited: JSON still, but of other types than this collection writes."""

import dataclasses
import json
import os

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import (
    controllers,
    deadman,
    deploy_locks,
    deployments,
    doctor,
    history,
    releases,
)
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError

ORDER = deadman.Order("d1", "b", "a", 300, "/srv/shop", "shop", "shop", "/etc/shop", {"port": 5000})
LOCK = {"deploymentId": "d1", "holder": "ann", "origin": "laptop", "since": "now", "lease": 900, "expires": 1}
NO_OBJECT = ([], None, "text", 5, True)


def told(host):
    """What the doctor says of files that cannot be read."""
    return [finding.what for finding in doctor.unreadable(host)]


def test_what_this_collection_writes_is_readable(host):
    deploy_locks.acquire(host, "d1", {"holder": "ann", "controller": controllers.describe(os.getpid())})
    host.order.write_text(json.dumps(dataclasses.asdict(ORDER)))
    assert told(host) == []
    assert deploy_locks.read_lock(host) is not None and deadman.read_order(host) == ORDER


@pytest.mark.parametrize(
    "content", [*NO_OBJECT, {**LOCK, "expires": "soon"}, {**LOCK, "lease": None}, {**LOCK, "takenOver": "d0"}]
)
def test_a_lock_is_no_lock(host, content):
    host.lock.write_text(json.dumps(content))
    (what,) = told(host)
    assert what.startswith(f"{host.lock} cannot be read: ")
    assert releases.previous(host, host.live(), host.kept()).id == "a"
    assert deploy_locks.acquire(host, "d2", {"holder": "bob"}) is None
    assert told(host) == []


def test_nothing_is_known_of_a_holder_whose_process_has_no_number():
    assert not controllers.is_dead({**controllers.describe(1), "pid": "one"})


@pytest.mark.parametrize("content", [*NO_OBJECT, {"state": 5}, {"state": "live", "served": "2"}, {"replaced": ["a"]}])
def test_of_a_release_nothing_is_known(host, content):
    host.states.file("b").write_text(json.dumps(content))
    (what,) = told(host)
    assert what.startswith(f"{host.states.file('b')} cannot be read: ")
    assert releases.previous(host, host.live(), host.kept()) is None
    host.settle()
    assert told(host) == [] and host.states.is_settled("b")


@pytest.mark.parametrize(
    "content",
    [
        *NO_OBJECT,
        {**ORDER.__dict__, "seconds": "300"},
        {**ORDER.__dict__, "service": []},
        {**ORDER.__dict__, "service": {"port": "5000"}},
        {"deployment": "d1"},
    ],
)
def test_an_order_is_no_order(host, content):
    host.order.write_text(json.dumps(content))
    assert deadman.read_order(host) is None and deadman.main(str(host.order)) == 0
    (what,) = told(host)
    assert what.startswith(f"{host.order} cannot be read: ") and what.endswith("this host does not return by itself")


@pytest.mark.parametrize("content", [*NO_OBJECT, {"id": "b", "version": 1}, {"id": "b", "sharedLinks": []}])
def test_a_release_is_no_release(host, content):
    path = host.releases / "b" / ".release.json"
    path.write_text(json.dumps(content))
    with pytest.raises(OperationError, match="points to releases/b, which is no complete release") as refusal:
        host.live()
    (line,) = refusal.value.evidence
    assert line.startswith(f"{path} cannot be read: ")


def test_a_record_is_passed_over(host):
    good = deployments.Record("d1", "deploy", "started", "b", "1", deployedAt="2026-01-01T00:00:00Z").as_dict()
    bad = [*NO_OBJECT, {**good, "deployedAt": 5}, {**good, "status": "ended"}, {**good, "version": None}]
    host.journal.write_text("".join(json.dumps(content) + "\n" for content in [*bad, good]))
    records = [record.as_dict() for record in host.records()]
    assert records == [good]
    assert len(history.history({"app1": records})) == 1
