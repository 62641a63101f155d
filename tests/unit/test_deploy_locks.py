"""One deployment at a time."""

import errno
import json
import os
import subprocess
import sys
import time

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import controllers, deploy_locks, releases, reserve
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError

FACTS = {"holder": "ann", "origin": "laptop", "since": "2026-01-01T00:00:00Z"}


@pytest.fixture
def host(tmp_path):
    return releases.Host(str(tmp_path))


def test_the_first_takes_it_and_the_second_is_told_who_has_it(host):
    assert deploy_locks.acquire(host, "d1", FACTS) is None
    with pytest.raises(deploy_locks.LockHeld, match="deployment d1 of ann from laptop") as refusal:
        deploy_locks.acquire(host, "d2", FACTS)
    assert refusal.value.lock["deploymentId"] == "d1"


def test_the_same_deployment_may_ask_again(host):
    deploy_locks.acquire(host, "d1", FACTS)
    assert deploy_locks.acquire(host, "d1", FACTS) is None


def test_an_expired_lease_is_taken_over_and_said_so(host):
    deploy_locks.acquire(host, "d1", FACTS, lease=-1)
    assert deploy_locks.acquire(host, "d2", FACTS)["deploymentId"] == "d1"


@pytest.mark.parametrize("set_back, ends_by_itself", [(0, True), (60, True), (880, True), (920, False), (9e6, False)])
def test_a_clock_that_was_set_back_keeps_no_lease_alive(host, set_back, ends_by_itself):
    """Whoever is at work while that happens keeps the lock, unless it was by more than a whole lease."""
    deploy_locks.acquire(host, "d1", FACTS, lease=900)
    lock = deploy_locks.read_lock(host)
    now = time.time() - set_back
    assert deploy_locks.is_leased(lock, now) == ends_by_itself
    host.lock.write_text(json.dumps({**lock, "expires": lock["expires"] + set_back}))
    if ends_by_itself:
        with pytest.raises(deploy_locks.LockHeld):
            deploy_locks.acquire(host, "d2", FACTS)
    else:
        assert deploy_locks.acquire(host, "d2", FACTS)["deploymentId"] == "d1"


def test_what_is_left_of_a_lease_is_told_by_the_clock_of_the_host():
    lock = {**FACTS, "deploymentId": "d1", "expires": 1000}
    assert "when its lease ends, in 400 s" in str(deploy_locks.LockHeld(lock, now=600))


def test_whoever_is_refused_is_told_how_the_lock_of_a_dead_one_is_taken_over():
    """The doctor, too, is refused, which takes nothing over itself."""
    remedy = deploy_locks.LockHeld({**FACTS, "deploymentId": "d1", "expires": 1000}, now=600).remedy
    assert (
        "if it is dead, deploy or roll back again: on the controller that it ran on that takes over at once" in remedy
    )


def test_the_lock_of_the_dead_is_taken_over(host):
    deploy_locks.acquire(host, "d1", FACTS)
    assert deploy_locks.acquire(host, "d2", FACTS, take_over="d1")["deploymentId"] == "d1"


def test_the_lock_of_another_is_not_taken_over_in_its_place(host):
    deploy_locks.acquire(host, "d3", FACTS)
    with pytest.raises(deploy_locks.LockHeld):
        deploy_locks.acquire(host, "d2", FACTS, take_over="d1")


def test_whoever_lost_the_lock_must_not_go_on(host):
    deploy_locks.acquire(host, "d1", FACTS)
    deploy_locks.hold(host, "d1")
    deploy_locks.acquire(host, "d2", FACTS, take_over="d1")
    with pytest.raises(OperationError, match="lost the lock"):
        deploy_locks.hold(host, "d1")


def test_a_host_that_its_own_timer_has_brought_back_needs_no_lock_to_return(host):
    """Hosts of a large batch wait for their turn while their timers run; each gives the lock up when it is back."""
    for name in ("a", "b"):
        (host.releases / name).mkdir(parents=True)
        (host.releases / name / ".release.json").write_text(json.dumps({"id": name, "version": name, "sha256": name}))
    host.link.symlink_to("releases/a")
    deploy_locks.hold(host, "d1", back_to="a")
    assert deploy_locks.read_lock(host) is None
    with pytest.raises(OperationError, match="nobody has it now"):
        deploy_locks.hold(host, "d1", back_to="b")
    # Whoever has it by now may be about to switch.
    deploy_locks.acquire(host, "d2", FACTS)
    with pytest.raises(OperationError, match="deployment d2 has it now"):
        deploy_locks.hold(host, "d1", back_to="a")


@pytest.mark.parametrize("lease", [60, 5000])
def test_holding_renews_the_lease_for_as_long_as_it_was_taken(host, lease):
    deploy_locks.acquire(host, "d1", FACTS, lease=lease)
    lock = json.loads(host.lock.read_text())
    host.lock.write_text(json.dumps({**lock, "expires": 1}))
    before = time.time()
    deploy_locks.hold(host, "d1")
    assert before + lease - 1 <= deploy_locks.read_lock(host)["expires"] <= time.time() + lease


def test_only_the_holder_gives_it_back(host):
    deploy_locks.acquire(host, "d1", FACTS)
    assert not deploy_locks.release(host, "d2")
    assert deploy_locks.release(host, "d1")
    assert deploy_locks.read_lock(host) is None


def test_room_for_the_way_back_is_set_aside_with_the_lock_and_stays(host):
    room = host.root / ".reserve"
    deploy_locks.acquire(host, "d1", FACTS)
    assert room.stat().st_blocks * 512 >= 1024 * 1024
    reserve.give(host.root)
    deploy_locks.release(host, "d1")
    assert room.stat().st_blocks * 512 >= 1024 * 1024


def test_a_rollback_finds_the_room_on_a_disk_that_the_release_has_filled(host, monkeypatch):
    deploy_locks.acquire(host, "d1", FACTS)
    deploy_locks.release(host, "d1")
    full_disk(monkeypatch, host)
    deploy_locks.acquire(host, "d2", FACTS)
    assert deploy_locks.read_lock(host)["deploymentId"] == "d2"
    # And where there is none to be had, the lock goes back all the same.
    monkeypatch.setattr(os, "posix_fallocate", no_room)
    deploy_locks.release(host, "d2")
    assert deploy_locks.read_lock(host) is None and not (host.root / ".reserve").exists()


def test_a_release_that_went_live_in_between_is_not_overwritten(host):
    directory = host.releases / "a"
    directory.mkdir(parents=True)
    (directory / ".release.json").write_text(json.dumps({"id": "a", "version": "1"}))
    for expected in (None, ""):
        deploy_locks.acquire(host, "d1", FACTS, expected_live=expected)
    deploy_locks.release(host, "d1")
    host.link.symlink_to("releases/a")
    for expected in ("", "b"):
        with pytest.raises(OperationError, match=r"a is live on this host, and (b|nothing) was when"):
            deploy_locks.acquire(host, "d2", FACTS, expected_live=expected)
        assert deploy_locks.read_lock(host) is None
    deploy_locks.acquire(host, "d2", FACTS, expected_live="a")


def test_the_last_step_of_a_dead_deployment_does_not_keep_the_next_one(host):
    """Its module works on when the controller is killed, and switches after the next one has looked."""
    directory = host.releases / "a"
    directory.mkdir(parents=True)
    (directory / ".release.json").write_text(json.dumps({"id": "a", "version": "1"}))
    deploy_locks.acquire(host, "d1", FACTS)
    host.link.symlink_to("releases/a")
    assert deploy_locks.acquire(host, "d2", FACTS, take_over="d1", expected_live="")["deploymentId"] == "d1"


def no_room(descriptor, start, size):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_disk(monkeypatch, host):
    """Nothing can be written while the reserve is there."""
    write = deploy_locks.write_atomically

    def refused(path, text):
        if (host.root / ".reserve").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, text)

    monkeypatch.setattr(deploy_locks, "write_atomically", refused)


@pytest.mark.parametrize("renew", [deploy_locks.hold, lambda host, mine: deploy_locks.acquire(host, mine, FACTS)])
def test_a_lock_is_renewed_on_a_disk_that_is_full_by_now(host, monkeypatch, renew):
    deploy_locks.acquire(host, "d1", FACTS, lease=1)
    full_disk(monkeypatch, host)
    renew(host, "d1")
    assert deploy_locks.read_lock(host)["expires"] > time.time()
    assert not (host.root / ".reserve").exists()


def test_no_lock_is_taken_where_there_is_no_room_for_the_way_back(host, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", no_room)
    with pytest.raises(OSError, match="No space left"):
        deploy_locks.acquire(host, "d1", FACTS)
    assert os.listdir(host.root) == []


def test_a_way_back_is_gone_without_room_too(host, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", no_room)
    deploy_locks.acquire(host, "d1", FACTS, back=True)
    assert deploy_locks.read_lock(host)["deploymentId"] == "d1"


def test_what_fails_for_another_reason_leaves_the_room(host, monkeypatch):
    deploy_locks.acquire(host, "d1", FACTS)

    def refused(path, text):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(deploy_locks, "write_atomically", refused)
    with pytest.raises(PermissionError):
        deploy_locks.hold(host, "d1")
    assert (host.root / ".reserve").exists()


def test_an_unreadable_lock_is_no_lock(host):
    host.lock.write_text("{half")
    assert deploy_locks.acquire(host, "d1", FACTS) is None


def test_a_living_process_is_not_dead_and_an_ended_one_is():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    described = json.loads(json.dumps(controllers.describe(child.pid)))
    assert not controllers.is_dead(described)
    child.communicate(b"\n")
    assert controllers.is_dead(described)


def test_a_process_that_ended_and_was_not_waited_for_is_dead():
    """In a container whose first process waits for nobody it keeps its id for ever."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    described = controllers.describe(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert controllers.is_dead(described)
    child.communicate()


def test_another_process_of_the_same_id_does_not_keep_the_dead_alive():
    described = {**controllers.describe(os.getpid()), "started": "1"}
    assert controllers.is_dead(described)


def test_nothing_is_known_of_processes_of_other_machines():
    assert not controllers.is_dead({**controllers.describe(999_999_999), "machine": "elsewhere"})
