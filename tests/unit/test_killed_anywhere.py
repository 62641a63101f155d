"""A deployment or rollback that is killed before any of its changes, once or twice, and run again: as if it never was.

The whole way on a host, from the lock to the record, with a PM2 that only keeps the list.
"""

import dataclasses
import json
import os

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import (
    deadman,
    deploy_locks,
    deployments,
    files,
    release_states,
    releases,
    switching,
)
from ansible_collections.roastify.ops.plugins.modules import release_finish
from test_switching import List, service

PATIENT = dataclasses.replace(service(), patience=20)


class Killed(BaseException):
    """Nothing handles it, as nothing handles SIGKILL."""


class Kill:
    """Kills whoever is about to make a change.

    Attributes:
        at: which one; 0 for none.
        number: how many there were.
    """

    def __init__(self):
        self.at = self.number = 0

    def arm(self, at):
        self.at, self.number = at, 0

    def before(self, change):
        def watched(*arguments, **options):
            self.number += 1
            if self.number == self.at:
                raise Killed
            return change(*arguments, **options)

        return watched


@pytest.fixture
def kill(monkeypatch):
    kill = Kill()
    for where, name in (
        (deadman, "write_atomically"),
        (release_states, "write_atomically"),
        (switching, "link_atomically"),
        (deployments, "append_record"),
        (deploy_locks, "release"),
        (releases, "prune"),
        (List, "start"),
        (List, "delete"),
    ):
        monkeypatch.setattr(where, name, kill.before(getattr(where, name)))
    monkeypatch.setattr(deadman, "_bundle", lambda engine: None)
    monkeypatch.setattr(deadman, "_systemctl", lambda *words: None)
    monkeypatch.setattr(files, "sync_directory", lambda directory: None)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    return kill


class OneHost:
    """A host that serves z, and what is done to it as the modules do it."""

    def __init__(self, root, kill, confirm_within):
        for name in ("releases", "shared", "state", "etc", "units"):
            (root / name).mkdir(parents=True)
        for name in "zab":
            (root / "releases" / name).mkdir()
            (root / "releases" / name / ".release.json").write_text(json.dumps({"id": name, "version": "1"}))
        self.host = releases.Host(str(root))
        self.pm2 = List(self.host)
        self.pm2.user, self.pm2.home, self.pm2.ecosystem = "shop", root / "state" / "pm2", root / "etc" / "config"
        self.kill, self.confirm_within, self.number = kill, confirm_within, 0
        self.run("z")

    def run(self, target):
        """Deploy a release, or go back for None."""
        host, before = self.host, f"d{self.number}"
        self.number += 1
        deployment, live = f"d{self.number}", host.live()
        action = deployments.DEPLOY if target else deployments.ROLLBACK
        release = host.release(target) if target else releases.previous(host, live, host.kept())
        deploy_locks.acquire(host, deployment, {"holder": "ann"}, take_over=before)
        if target and (live is None or live.id != target):
            host.states.tried_out(target, deployment)

        def announce(previous):
            names = {"previousVersion": previous.version, "previousRelease": previous.id} if previous else {}
            record = deployments.Record(deployment, action, "started", release.id, release.version, **names)
            deployments.append_record(host.journal, record)

        def set_timer(previous):
            order = deadman.read_order(host)
            is_set = order is not None and order.deployment == deployment
            if target and self.confirm_within and previous and previous.id != target and not is_set:
                deadman.arm(host, self.pm2, PATIENT, release, previous, deployment, self.confirm_within)

        switching.Switch(
            host,
            self.pm2,
            release,
            PATIENT,
            announce=announce,
            prepare=lambda previous: set_timer(previous) if deadman.read_order(host) is None else None,
            confirm=set_timer,
            deployment=deployment,
            back=not target,
        ).run()
        options = {"deployment": deployment, "action": action, "status": "succeeded", "release": release.id}
        release_finish.see_that_it_is_live(host, options)
        host.settle()
        rest = {"version": None, "reason": None, "deployed_by": "ann", "confirm": False, "tried": True, "keep": 9}
        release_finish.finish(host, {**options, **rest}, dry_run=False)

    def is_killed(self, target, at):
        self.kill.arm(at)
        try:
            self.run(target)
        except Killed:
            return True
        finally:
            self.kill.arm(0)
        return False

    def left(self):
        """All that the next run, or a person, goes by."""
        host = self.host
        live, names = host.live().id, [release.id for release in host.kept()]
        back = []
        while (name := host.states.previous(live, names)) is not None:
            back.append(name)
            names.remove(name)
        ends = [(record.status, record.release, record.previousRelease) for record in host.records()]
        return {
            "live": live,
            "back": back,
            "goes to": getattr(releases.previous(host, host.live(), host.kept()), "id", None),
            "failed": [name for name in "zab" if host.states.of(name, live).state == release_states.FAILED],
            "ends": [end for end in ends if end[0] != deployments.STARTED],
            "workers": {worker.directory for worker in self.pm2.list},
            "lock": deploy_locks.read_lock(host),
            "order": deadman.read_order(host),
        }


@pytest.mark.parametrize("confirm_within", [0, 300])
@pytest.mark.parametrize("story", [("a", "b"), ("a", "b", None), ("a", "b", "a")], ids=str)
def test_it_ends_as_if_it_had_not_been(tmp_path, monkeypatch, kill, story, confirm_within):
    places = iter(tmp_path / str(number) for number in range(10_000))
    *before, last = story

    def begin():
        monkeypatch.setattr(deadman, "_UNITS", (place := next(places)) / "units")
        host = OneHost(place, kill, confirm_within)
        for target in before:
            host.run(target)
        return host

    host = begin()
    host.run(last)
    wanted = {**host.left(), "workers": 1}
    first = 1
    while (host := begin()).is_killed(last, first):
        second = 1
        while host.is_killed(last, second):
            host.run(last)
            assert {**host.left(), "workers": len(host.left()["workers"])} == wanted, (first, second)
            host = begin()
            host.is_killed(last, first)
            second += 1
        assert {**host.left(), "workers": len(host.left()["workers"])} == wanted, (first, second)
        first += 1
    assert first > 8
