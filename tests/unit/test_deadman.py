"""A host that nobody confirms returns by itself; systemd and PM2 are met on the fleet."""

import errno
import json
import os
import subprocess
import sys
import time
import zipfile

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import (
    deadman,
    deploy_locks,
    deployments,
    release_states,
    releases,
)
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.files import link_atomically
from ansible_collections.roastify.ops.plugins.module_utils.pm2 import Worker
from ansible_collections.roastify.ops.plugins.module_utils.switching import Service

SERVICE = Service(port=1, candidate_port=2)


class Application:
    """What the timer is told of PM2."""

    application, user = "shop", "shop"

    def __init__(self, directory):
        self.home = directory / "state" / "pm2"
        self.home.parent.mkdir(exist_ok=True)
        self.ecosystem = directory / "etc" / "ecosystem.config.cjs"


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setattr(deadman, "_UNITS", tmp_path / "units")
    for name in ("units", "shared"):
        (tmp_path / name).mkdir()
    for name in ("a", "b", "c"):
        directory = tmp_path / "releases" / name
        directory.mkdir(parents=True)
        (directory / ".release.json").write_text(json.dumps({"id": name, "version": "1"}))
    host = releases.Host(str(tmp_path))
    host.link.symlink_to("releases/b")
    host.states.went_live("a", None)
    host.states.went_live("b", "a", "d1")
    return host


@pytest.fixture
def calls():
    return []


@pytest.fixture
def order(host, calls):
    def systemctl(*arguments):
        calls.append(arguments)

    release, previous = host.release("b"), host.release("a")
    return deadman.arm(host, Application(host.root), SERVICE, release, previous, "d1", 300, systemctl)


def back(host, order, previous):
    link_atomically(host.link, f"releases/{previous.id}")
    host.states.went_live(previous.id, order.release, order.deployment, back=True)


def test_the_timer_is_on_disk_and_started(host, order, calls):
    assert calls == [
        ("daemon-reload",),
        ("stop", "deadman-shop.service"),
        ("enable", "--quiet", "deadman-shop.timer"),
        ("restart", "deadman-shop.timer"),
    ]
    timer = (host.root / "units" / "deadman-shop.timer").read_text()
    assert "OnActiveSec=300\n" in timer and "WantedBy=timers.target" in timer
    assert deadman.read_order(host) == order
    assert (host.root / ".deadman.json").stat().st_mode & 0o077 == 0


def test_the_second_time_systemd_need_not_read_its_units_again(host, order, calls):
    calls.clear()
    release, previous = host.release("b"), host.release("a")
    deadman.arm(host, Application(host.root), SERVICE, release, previous, "d2", 300, lambda *words: calls.append(words))
    assert [words[0] for words in calls] == ["stop", "enable", "restart"]


def test_an_order_of_another_version_of_this_collection_is_read_as_far_as_it_is_known(host, order):
    content = json.loads(deadman.order_file(host).read_text())
    deadman.order_file(host).write_text(json.dumps({**content, "colour": "red"}))
    assert deadman.read_order(host) == order
    deadman.order_file(host).write_text(json.dumps({"colour": "red"}))
    assert deadman.read_order(host) is None


def test_so_is_how_the_application_serves(host, order, monkeypatch):
    """A newer version was killed, and the timer has the code of the older one that came after it."""
    served = []

    class Switched:
        def __init__(self, _host, _pm2, _release, service, **_more):
            served.append(service)

        def run(self):
            link_atomically(host.link, "releases/a")

    monkeypatch.setattr(deadman, "Switch", Switched)
    monkeypatch.setattr(deadman, "Pm2", lambda *_arguments: None)
    content = json.loads(deadman.order_file(host).read_text())
    content["service"]["colour"] = "red"
    deadman.order_file(host).write_text(json.dumps(content))
    assert deadman.main(str(deadman.order_file(host))) == 0
    assert (served, host.live().id) == ([SERVICE], "a")


def test_an_order_names_nothing_that_it_does_not_say(host, order):
    """Versions that do not know `replaced` refuse a file that has it, and with it the way back to them."""
    assert "replaced" not in json.loads(deadman.order_file(host).read_text())


def test_confirmed_it_does_nothing(host, order, calls):
    assert deadman.disarm(host, lambda *arguments: calls.append(arguments))
    assert calls[-1] == ("stop", "deadman-shop.timer")
    assert deadman.fire(host, order, back) is None
    assert host.live().id == "b"
    assert not deadman.disarm(host)


def test_unconfirmed_the_host_returns_and_says_so(host, order):
    deploy_locks.acquire(host, "d1", {"holder": "ann"})
    told = deadman.fire(host, order, back)
    assert told == "not confirmed by its controller within 300 s: this host returned to a"
    assert host.live().id == "a"
    assert host.states.of("b", "a").state == "failed"
    record = host.records()[-1]
    assert (record.status, record.release, record.previousRelease, record.reason) == ("failed", "b", "a", told)
    assert deadman.read_order(host) is None
    with pytest.raises(OperationError, match="lost the lock"):
        deploy_locks.hold(host, "d1")


def nothing(_order, _live):
    return []


def test_a_switch_that_was_cut_off_before_the_link_leaves_no_workers(host, order):
    link_atomically(host.link, "releases/a")
    host.states.record("b", release_states.READY, "d1")
    cleared = []

    def clear(what, live):
        cleared.append((what.release, live.id))
        return ["shop-b"]

    assert deadman.fire(host, order, back, clear) == "removed what a switch has left that was cut off: shop-b"
    assert cleared == [("b", "a")]
    assert host.live().id == "a"
    assert deadman.read_order(host) is None


def test_nor_does_it_end_them_where_they_are_all_that_serves(host, order, monkeypatch):
    left = [Worker("shop-b", os.getpid(), "online", str(host.releases / "b"))]
    fallen = Worker("shop-a", 0, "errored", str(host.releases / "a"))
    ended = []

    class Manager(Application):
        def __init__(self, *_arguments):
            pass

        def is_up(self):
            return True

        def workers(self):
            return [*left, fallen]

        def delete(self, generations):
            ended.extend(generations)

    monkeypatch.setattr(deadman, "Pm2", Manager)
    link_atomically(host.link, "releases/a")
    host.states.record("b", release_states.READY, "d1")
    deadman.fire(host, order, back)
    assert ended == []


@pytest.mark.parametrize(
    "cut",
    [KeyboardInterrupt(), OperationError("PM2 still lists shop-b", "look"), OSError(errno.ENOSPC, "full")],
    ids=str,
)
def test_a_return_that_was_cut_off_after_the_link_is_written_down_by_the_next_try(host, order, cut):
    deploy_locks.acquire(host, "d1", {"holder": "ann"})

    def cut_off(*arguments):
        back(*arguments)
        raise cut

    with pytest.raises(type(cut)):
        deadman.fire(host, order, cut_off)
    assert "returned to a" in deadman.fire(host, order, back, nothing)
    assert host.states.of("b", "a").state == "failed"
    assert [(record.release, record.status) for record in host.records()] == [("b", "failed")]
    assert deploy_locks.read_lock(host) is None
    assert deadman.read_order(host) is None


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "step",
    [(release_states.ReleaseStates, "record"), (deployments, "append_record"), (deploy_locks, "release")],
    ids=lambda step: step[1],
)
def test_a_failure_that_is_written_down_in_part_is_written_down_by_the_next_try(
    host, order, monkeypatch, step, is_done
):
    deploy_locks.acquire(host, "d1", {"holder": "ann"})
    action = getattr(*step)

    def full(*arguments, **options):
        if is_done:
            action(*arguments, **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*step, full)
        with pytest.raises(OSError, match="No space left"):
            deadman.fire(host, order, back)
    deadman.fire(host, order, back, nothing)
    assert host.states.of("b", "a").state == "failed"
    assert [(record.release, record.status) for record in host.records()] == [("b", "failed")]
    assert deploy_locks.read_lock(host) is None
    assert deadman.read_order(host) is None


def test_what_was_left_already_is_left_alone(host, order):
    link_atomically(host.link, "releases/c")
    assert deadman.fire(host, order, back, nothing) is None
    assert host.live().id == "c"
    assert deadman.read_order(host) is None


def test_a_newer_order_is_not_carried_out_by_an_older_timer(host, order):
    host.root.joinpath(".deadman.json").write_text(json.dumps({**order.__dict__, "deployment": "d2"}))
    assert deadman.fire(host, order, back) is None
    assert host.live().id == "b"


def test_another_deployment_is_not_disturbed(host, order):
    deploy_locks.acquire(host, "d2", {"holder": "bob", "origin": "ci", "since": "now"})
    with pytest.raises(OperationError, match="deployment d2 of bob"):
        deadman.fire(host, order, back)
    assert host.live().id == "b"
    lock = deploy_locks.read_lock(host)
    host.lock.write_text(json.dumps({**lock, "expires": time.time() - 1}))
    assert deadman.fire(host, order, back)


def test_where_the_release_before_is_ill_the_new_one_serves_on_and_it_is_tried_again(host, order):
    def fail(_host, _order, _previous):
        raise OperationError("not healthy", "look")

    with pytest.raises(OperationError, match="not healthy"):
        deadman.fire(host, order, fail)
    assert host.live().id == "b"
    assert deadman.read_order(host) == order


def test_without_a_timer_nothing_may_be_switched(host):
    def broken(*_arguments):
        raise OperationError("no systemd here", "look")

    with pytest.raises(OperationError, match="could not be set: no systemd here"):
        deadman.arm(host, Application(host.root), SERVICE, host.release("b"), host.release("a"), "d1", 300, broken)
    assert deadman.read_order(host) is None


class TestAfterAKilledDeployment:
    """b was not confirmed by d1, which was killed; d2 is to bring c."""

    def arm(self, host, systemctl=lambda *words: None):
        release, previous = host.release("c"), host.release("b")
        return deadman.arm(host, Application(host.root), SERVICE, release, previous, "d2", 300, systemctl)

    def switch(self, host):
        link_atomically(host.link, "releases/c")
        host.states.went_live("c", "b", "d2")

    def test_a_timer_that_cannot_be_set_leaves_the_one_that_waits(self, host, order):
        def broken(*_arguments):
            raise OperationError("systemd hangs", "look")

        with pytest.raises(OperationError, match="systemd hangs"):
            self.arm(host, broken)
        assert deadman.read_order(host) == order

    @pytest.mark.parametrize("step", ["enable", "restart"])
    def test_and_has_it_wait_again_where_it_had_come_to_its_end(self, host, order, step):
        """Its service, which was about to try again, was stopped."""
        told = []

        def broken_once(*words):
            if words[0] == step and step not in [before[0] for before in told]:
                told.append(words)
                raise OperationError("systemd hangs", "look")
            told.append(words)

        with pytest.raises(OperationError, match="systemd hangs"):
            self.arm(host, broken_once)
        assert deadman.read_order(host) == order
        assert told[-1] == ("restart", "deadman-shop.timer")
        assert len(told) == {"enable": 3, "restart": 4}[step]

    def test_so_does_a_full_disk(self, host, order, monkeypatch):
        def full(_engine):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(deadman, "_bundle", full)
        with pytest.raises(OperationError, match="No space left"):
            self.arm(host)
        assert deadman.read_order(host) == order

    def test_the_service_that_tries_again_does_not_meet_the_new_order(self, host, order, calls):
        calls.clear()
        self.arm(host, lambda *words: calls.append((*words, deadman.read_order(host).deployment)))
        # Nobody starts between the two: whoever does that holds the lock of the directory.
        assert calls[0] == ("stop", "deadman-shop.service", "d2")

    def test_a_second_failure_leaves_the_host_to_the_first_timer(self, host, order, calls):
        self.arm(host)
        self.switch(host)
        link_atomically(host.link, "releases/b")
        calls.clear()
        deadman.give_up(host, lambda *words: calls.append(words))
        assert deadman.read_order(host) == order
        assert calls == [("restart", "deadman-shop.timer")]
        assert deadman.fire(host, order, back)
        assert host.live().id == "a"
        assert deadman.read_order(host) is None

    def test_so_does_a_second_one_that_nobody_confirms(self, host, order):
        second = self.arm(host)
        self.switch(host)
        assert deadman.fire(host, second, back, systemctl=lambda *words: None)
        assert (host.live().id, deadman.read_order(host)) == ("b", order)

    def test_and_a_switch_that_was_cut_off_before_the_link(self, host, order):
        second = self.arm(host)
        deadman.fire(host, second, back, nothing, lambda *words: None)
        assert (host.live().id, deadman.read_order(host)) == ("b", order)

    def test_a_success_confirms_both(self, host, order):
        self.arm(host)
        self.switch(host)
        assert deadman.disarm(host, lambda *words: None)
        assert deadman.read_order(host) is None

    def test_a_failure_of_what_went_elsewhere_has_nothing_to_wait_for(self, host, order, calls):
        self.arm(host)
        link_atomically(host.link, "releases/a")
        deadman.give_up(host, lambda *words: calls.append(words))
        assert deadman.read_order(host) is None
        assert calls[-1] == ("stop", "deadman-shop.timer")


def test_the_kept_code_is_there_after_a_power_cut(host, order, monkeypatch):
    """The timer is of use then, if ever."""
    engine = host.root / "state" / "deadman.pyz"
    left = engine.with_name(".deadman.pyz.abcd_123")
    left.write_text("half")
    synced = []

    def sync(descriptor):
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}"), os.fstat(descriptor).st_ino))

    monkeypatch.setattr(os, "fsync", sync)
    deadman._bundle(engine)
    assert engine.stat().st_ino in [number for _, number in synced]
    assert str(engine.parent) in [path for path, _ in synced]
    assert [path.name for path in engine.parent.iterdir()] == [engine.name]


def test_the_kept_code_runs_by_itself(host, order, tmp_path):
    """As systemd runs it: another process, nothing of Ansible's, with an order that is none any more."""
    engine = host.root / "state" / "deadman.pyz"
    assert "ansible_collections/roastify/ops/plugins/module_utils/switching.py" in zipfile.ZipFile(engine).namelist()
    link_atomically(host.link, "releases/c")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "pm2.environment").write_text(f"PM2_HOME={tmp_path}\n")
    done = subprocess.run(
        [sys.executable, "-I", str(engine), str(host.root / ".deadman.json")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "nothing to do any more\n"), done.stderr
    assert deadman.read_order(host) is None
