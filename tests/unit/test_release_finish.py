"""How a deployment is recorded as ended, on a host."""

import errno
import json
import os

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import deploy_locks, deployments, releases
from ansible_collections.roastify.ops.plugins.module_utils.files import link_atomically
from ansible_collections.roastify.ops.plugins.modules import release_finish


@pytest.fixture
def host(tmp_path):
    (tmp_path / "shared").mkdir()
    for name in ("a", "b"):
        directory = tmp_path / "releases" / name
        directory.mkdir(parents=True)
        (directory / ".release.json").write_text(json.dumps({"id": name, "version": name, "commit": "c"}))
    host = releases.Host(str(tmp_path))
    host.states.went_live("a", None)
    switch(host, "b", "a")
    deploy_locks.acquire(host, "d1", {"holder": "ann"})
    deployments.append_record(
        host.journal, deployments.Record("d1", "deploy", "started", "b", "b", previousVersion="a", previousRelease="a")
    )
    return host


def switch(host, release, before, back=False):
    link_atomically(host.link, f"releases/{release}")
    host.states.went_live(release, before, "d1", back)


def serve_z_before(host):
    """z served before a."""
    (host.releases / "z").mkdir()
    (host.releases / "z" / ".release.json").write_text(json.dumps({"id": "z", "version": "z"}))
    host.states.went_live("z", None)
    host.states.went_live("a", "z")
    host.states.went_live("b", "a")


def end(host, status, **more):
    options = {
        "deployment": "d1",
        "action": "deploy",
        "status": status,
        "release": "b",
        "version": None,
        "reason": None,
        "deployed_by": "ann",
        "confirm": False,
        "tried": True,
        "keep": 5,
        **more,
    }
    return release_finish.finish(host, options, dry_run=False)[0]


def statuses(host):
    return [record.status for record in host.records()]


def test_a_success_is_recorded_once_and_gives_the_lock_back(host):
    assert end(host, "succeeded").previousVersion == "a"
    assert end(host, "succeeded") is None
    assert statuses(host) == ["started", "succeeded"]
    assert deploy_locks.read_lock(host) is None
    assert host.states.of("b", "b").state == "live"


def test_a_failure_elsewhere_after_the_success_here_counts_and_is_recorded_once(host):
    """Another host could not record it: this one takes the lock again, returns, and says that it failed."""
    end(host, "succeeded")
    deploy_locks.acquire(host, "d1", {"holder": "ann"})
    deploy_locks.hold(host, "d1")
    switch(host, "a", "b", back=True)
    assert end(host, "failed", reason="app3: no space").reason == "app3: no space"
    assert end(host, "failed", reason="again") is None
    assert statuses(host) == ["started", "succeeded", "failed"]
    assert host.states.of("b", "a").state == "failed"
    assert host.states.previous("a", ["a", "b"]) is None
    assert deploy_locks.read_lock(host) is None


def test_a_failure_is_recorded_in_the_room_that_was_set_aside_for_it(host, monkeypatch):
    append = deployments.append_record
    there = []
    monkeypatch.setattr(
        deployments, "append_record", lambda *what: (there.append((host.root / ".reserve").exists()), append(*what))
    )
    end(host, "failed", reason="no space")
    assert there == [False]


def test_a_failure_is_not_made_good_by_a_later_success(host):
    switch(host, "a", "b", back=True)
    end(host, "failed", reason="not healthy")
    switch(host, "b", "a")
    assert end(host, "succeeded") is None
    assert statuses(host) == ["started", "failed"]


def test_what_a_killed_run_began_is_brought_to_its_end_by_the_next_one_of_its_release(host):
    deploy_locks.acquire(host, "d2", {"holder": "ann"}, take_over="d1")
    record = end(host, "succeeded", deployment="d2")
    assert (record.deploymentId, record.previousRelease) == ("d2", "a")
    assert end(host, "succeeded", deployment="d3") is None
    assert statuses(host) == ["started", "succeeded"]


def test_what_a_killed_run_of_another_release_began_is_not(host):
    assert end(host, "succeeded", deployment="d2", release="a") is None


def test_a_killed_rollback_is_brought_to_its_end_and_goes_no_further(host):
    serve_z_before(host)
    deployments.append_record(
        host.journal,
        deployments.Record("d2", "rollback", "started", "a", "a", previousVersion="b", previousRelease="b"),
    )
    switch(host, "a", "b", back=True)
    assert releases.previous(host, host.live(), host.kept()).id == "a"
    deploy_locks.acquire(host, "d3", {"holder": "ann"}, take_over="d1")
    assert end(host, "succeeded", deployment="d3", action="rollback", release="a").status == "succeeded"
    assert statuses(host) == ["started", "started", "succeeded", "rolled_back"]
    assert host.states.of("b", "a").state == "failed"
    assert releases.previous(host, host.live(), host.kept()).id == "z"


@pytest.mark.parametrize("times", [1, 2])
def test_so_is_one_that_was_killed_while_the_old_release_was_still_there(host, times):
    """The same command clears that up, and so has a start of its own: from the release that it goes to."""
    before = "b"
    for number in range(2, 3 + times):
        deployments.append_record(
            host.journal,
            deployments.Record(f"d{number}", "rollback", "started", "a", "a", previousRelease=before),
        )
        before = "a"
    switch(host, "a", "b", back=True)
    deploy_locks.acquire(host, f"d{2 + times}", {"holder": "ann"}, take_over="d1")
    assert end(host, "succeeded", deployment=f"d{2 + times}", action="rollback", release="a").previousRelease == "b"
    assert host.states.of("b", "a").state == "failed"
    assert statuses(host)[-1] == "rolled_back"


class TestARollbackKilledAtItsEnd:
    """From b to a, which z served before."""

    @pytest.fixture
    def host(self, host):
        serve_z_before(host)
        deployments.append_record(
            host.journal, deployments.Record("d2", "rollback", "started", "a", "a", previousRelease="b")
        )
        deploy_locks.acquire(host, "d2", {"holder": "ann"}, take_over="d1")
        switch(host, "a", "b", back=True)
        return host

    @pytest.mark.parametrize(
        "step",
        [(deployments, "append_record"), (releases, "prune"), (deploy_locks, "release")],
        ids=lambda step: step[1],
    )
    def test_goes_no_further_when_it_is_run_again(self, host, monkeypatch, step):
        def killed(*_arguments):
            raise KeyboardInterrupt

        rollback = {"action": "rollback", "release": "a"}
        with monkeypatch.context() as patch:
            patch.setattr(*step, killed)
            with pytest.raises(KeyboardInterrupt):
                end(host, "succeeded", deployment="d2", **rollback)
        assert releases.previous(host, host.live(), host.kept()).id == "a"
        assert "z" not in {release.id for release in releases.prunable(host, 1)}
        deploy_locks.acquire(host, "d3", {"holder": "ann"}, take_over="d2")
        deploy_locks.acquire(host, "d3", {"holder": "ann"})
        # Killed, too, before it does anything, and once more.
        for number in (3, 4):
            assert releases.previous(host, host.live(), host.kept()).id == "a"
            deploy_locks.acquire(host, f"d{number + 1}", {"holder": "ann"}, take_over=f"d{number}")
        end(host, "succeeded", deployment="d5", **rollback)
        assert statuses(host)[-2:] == ["succeeded", "rolled_back"]
        assert statuses(host).count("succeeded") == 1
        assert host.states.of("b", "a").state == "failed"
        assert releases.previous(host, host.live(), host.kept()).id == "z"

    def test_and_failed_it_is_none(self, host):
        switch(host, "b", "a", back=True)
        deployments.append_record(host.journal, deployments.Record("d2", "rollback", "failed", "z", "z"))
        assert releases.previous(host, host.live(), host.kept()).id == "a"


def test_what_was_healed_is_not_told_for_something_else(host):
    end(host, "succeeded")
    deploy_locks.acquire(host, "d2", {"holder": "ann"})
    deployments.append_record(
        host.journal, deployments.Record("d2", "deploy", "started", "b", "b", previousRelease="b")
    )
    assert end(host, "succeeded", deployment="d2").previousRelease == "b"


def test_what_cannot_be_removed_makes_no_failure_of_a_success(host, monkeypatch):
    """A fleet that serves well would return for it."""

    def rmtree(path):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))

    monkeypatch.setattr(releases.shutil, "rmtree", rmtree)
    serve_z_before(host)
    options = {"deployment": "d1", "action": "deploy", "status": "succeeded", "release": "b", "version": None}
    more = {"reason": None, "deployed_by": "ann", "confirm": False, "tried": True, "keep": 2}
    record, pruned, stays = release_finish.finish(host, {**options, **more}, dry_run=False)
    assert (record.status, [release.id for release in pruned]) == ("succeeded", ["z"])
    assert len(stays) == 1
    assert "Device or resource busy" in stays[0]
    assert deploy_locks.read_lock(host) is None


def test_what_is_not_live_is_no_success(host):
    switch(host, "a", "b", back=True)
    with pytest.raises(release_finish.OperationError, match="a is live here, not b"):
        release_finish.see_that_it_is_live(host, {"status": "succeeded", "release": "b"})


def test_what_served_before_and_was_not_tried_is_still_returned_to(host):
    """It was to be deployed again, and a host did not answer in the transfer."""
    options = {"release": "a", "deployment": "d2", "reason": "app3: no answer"}
    deploy_locks.acquire(host, "d2", {"holder": "ann"}, take_over="d1")
    end(host, "failed", tried=False, **options)
    assert host.states.previous("b", ["a", "b"]) == "a"
    end(host, "failed", **{**options, "deployment": "d3"})
    assert host.states.previous("b", ["a", "b"]) is None


def test_who_lost_the_lock_touches_nothing_but_the_journal(host):
    deploy_locks.acquire(host, "d2", {"holder": "bob"}, take_over="d1")
    (host.root / "shared" / "environments").mkdir()
    coming = host.root / "shared" / "environments" / "c.env"
    coming.write_text("A=1\n")
    switch(host, "a", "b", back=True)
    assert end(host, "failed", reason="lost the lock").status == "failed"
    assert statuses(host) == ["started", "failed"]
    assert host.states.of("b", "a").state == "previous"
    assert deploy_locks.read_lock(host)["deploymentId"] == "d2"
    assert coming.exists() and (host.root / ".reserve").exists()
