"""Switching by generations, with a PM2 that only keeps the list; real PM2 is met in molecule and in the sandbox."""

import dataclasses
import errno
import json
import os

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import health, pm2, releases, reserve, switching
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError

#: A process that runs as long as the tests do.
ALIVE = os.getpid()
NONE = health.Answer()
#: Beyond the highest process id of any kernel.
GONE = 2**30


class List:
    """PM2's list, and what it was told."""

    application = "shop"
    service = "pm2-shop.service"

    def __init__(self, host, *running):
        self.host = host
        self.list = [self.worker(f"shop-{name}", name) for name in running]
        self.told = []
        self.started_pid = ALIVE
        self.listening, self.opened = {9100}, set()

    def worker(self, generation, release, pid=ALIVE):
        return pm2.Worker(generation, pid, "online", str(self.host.releases / release))

    def ensure_up(self):
        return False

    def is_up(self):
        return True

    def workers(self):
        return list(self.list)

    def ports(self):
        return set(self.listening)

    def definition(self, release):
        return {}

    def start(self, release, generation):
        self.told.append(("start", generation, link_of(self.host)))
        self.listening |= self.opened
        self.list.append(self.worker(generation, release.name, self.started_pid))
        return self.list[-1:]

    def delete(self, generations):
        if generations:
            self.told.append(("delete", *generations, link_of(self.host)))
        self.list = [worker for worker in self.list if worker.name not in generations]


@dataclasses.dataclass(frozen=True)
class Answers(switching.Service):
    """A service that answers what the test says."""

    answer: health.Answer = NONE

    def ask(self, port):
        return self.answer


def service(**answer):
    good = {"code": 200, "status": "healthy", "version": "1", "worker": ALIVE, **answer}
    return Answers(port=1, candidate_port=2, interval=0, patience=0.05, wanted=2, answer=health.Answer(**good))


def link_of(host):
    return os.path.basename(os.readlink(host.link)) if host.link.is_symlink() else None


@pytest.fixture
def host(tmp_path):
    for name in ("a", "b", "c"):
        directory = tmp_path / "releases" / name
        directory.mkdir(parents=True)
        (directory / ".release.json").write_text(json.dumps({"id": name, "version": "1"}))
    (tmp_path / "shared").mkdir()
    return releases.Host(str(tmp_path))


def switch(host, processes, release, how=None, **options):
    return switching.Switch(host, processes, host.release(release), how or service(), **options)


def test_the_first_release_is_started_and_then_linked(host):
    processes = List(host)
    outcome = switch(host, processes, "a").run()
    assert outcome.changed and outcome.previous is None
    assert processes.told == [("start", "shop-a", None)]
    assert link_of(host) == "a"


def test_the_old_one_goes_only_after_the_link_is_renamed(host):
    host.link.symlink_to("releases/a")
    processes = List(host, "a")
    outcome = switch(host, processes, "b").run()
    assert outcome.previous.id == "a"
    assert processes.told == [("start", "shop-b", "a"), ("delete", "shop-a", "b")]


def test_what_is_live_and_well_is_left_alone(host):
    host.link.symlink_to("releases/a")
    processes = List(host, "a")
    assert not switch(host, processes, "a").run().changed
    assert processes.told == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"code": 503, "status": "unhealthy"}, "not seen healthy"),
        ({"version": "0"}, "not seen healthy"),
        ({"worker": 1}, "not seen healthy"),
    ],
)
def test_a_generation_that_is_not_well_goes_and_the_old_one_stays(host, answer, reason):
    host.link.symlink_to("releases/a")
    processes = List(host, "a")
    with pytest.raises(OperationError, match=reason):
        switch(host, processes, "b", service(**answer)).run()
    assert processes.told == [("start", "shop-b", "a"), ("delete", "shop-b", "a")]
    assert [worker.name for worker in processes.list] == ["shop-a"]


NOBODY = {"code": None, "status": None, "version": None, "worker": None, "error": "nothing listens on 127.0.0.1:1"}


@pytest.mark.parametrize("answer", [NOBODY, {"worker": 1}], ids=["the first", "another one serves"])
def test_workers_that_listen_on_another_port_are_told_where_theirs_stands(host, answer):
    """As a candidate the release listened where it had to, since PORT was in its process environment."""
    processes = List(host)
    processes.opened = {3000, 3001}
    with pytest.raises(OperationError, match="; its workers listen on TCP port 3000, 3001 instead") as failure:
        switch(host, processes, "b", service(**answer)).run()
    assert failure.value.remedy.startswith(
        "as a candidate it got PORT in its process environment; live, PORT stands in"
    )


def test_workers_that_are_held_back_are_not_taken_for_such(host, monkeypatch):
    """Their metrics have a port of their own, which they open at once."""
    said = ['preload: /health says "HTTP 503": staying off port 1, next look in 50 ms']
    monkeypatch.setattr(switching.ApplicationLog, "news", lambda self: said)
    processes = List(host)
    processes.opened = {9101}
    with pytest.raises(OperationError) as failure:
        switch(host, processes, "b", service(worker=1)).run()
    assert "instead" not in failure.value.cause
    assert failure.value.remedy.startswith("mend the release")


@pytest.mark.parametrize(
    ("answer", "opened"),
    [(NOBODY, set()), ({"code": 503, "status": "unhealthy"}, {9101}), ({"code": 503, "worker": None}, {9101})],
    ids=["nowhere", "they answer", "somebody answers"],
)
def test_nor_are_those_that_may_listen_where_they_have_to(host, answer, opened):
    processes = List(host)
    processes.opened = opened
    with pytest.raises(OperationError) as failure:
        switch(host, processes, "b", service(**answer)).run()
    assert "instead" not in failure.value.cause


def test_what_serves_is_not_hurried_while_nobody_of_the_new_ones_is_there(host):
    """Its health may cost a query each time, and it may limit how often one may ask."""

    class Counting(Answers):
        asked = 0

        def ask(self, port):
            type(self).asked += 1
            return super().ask(port)

    slow = Counting(port=1, candidate_port=2, interval=0.2, patience=0.5, answer=health.Answer(code=200, worker=1))
    with pytest.raises(OperationError, match="1 of them not seen at all"):
        switch(host, List(host), "b", slow).run()
    assert Counting.asked <= 4


def test_the_last_answer_that_is_wanted_may_come_in_the_last_moment(host):
    late = dataclasses.replace(service(), wanted=1, patience=0)
    assert switch(host, List(host), "a", late).run().changed


def test_a_worker_that_dies_while_starting_is_not_waited_for(host):
    host.link.symlink_to("releases/a")
    processes = List(host, "a")
    processes.started_pid = GONE
    with pytest.raises(OperationError, match="ended while it was starting"):
        switch(host, processes, "b").run()
    assert link_of(host) == "a"


def test_a_deployment_that_lost_its_lock_does_not_switch(host):
    host.link.symlink_to("releases/a")
    processes = List(host, "a")

    def lost(_previous):
        raise OperationError("lost the lock", "look")

    with pytest.raises(OperationError, match="lost the lock"):
        switch(host, processes, "b", confirm=lost).run()
    assert link_of(host) == "a"
    assert [worker.name for worker in processes.list] == ["shop-a"]


def test_a_link_that_cannot_be_renamed_leaves_the_old_one_alone(host, monkeypatch):
    host.link.symlink_to("releases/a")
    processes = List(host, "a")

    def full(link, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(switching, "link_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        switch(host, processes, "b").run()
    assert link_of(host) == "a"
    assert [worker.name for worker in processes.list] == ["shop-a"]


def test_a_link_that_is_renamed_and_perhaps_not_for_good_keeps_its_workers(host, monkeypatch):
    host.link.symlink_to("releases/a")
    processes = List(host, "a")
    rename = switching.link_atomically

    def unsure(link, target):
        rename(link, target)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(switching, "link_atomically", unsure)
    with pytest.raises(OSError, match="Input/output error"):
        switch(host, processes, "b").run()
    assert link_of(host) == "b"
    assert [worker.name for worker in processes.list] == ["shop-a", "shop-b"]


def test_the_host_is_prepared_before_a_worker_of_the_new_release_runs(host):
    host.link.symlink_to("releases/a")
    processes = List(host, "a")
    prepared = []
    switch(host, processes, "b", prepare=lambda previous: prepared.append((previous.id, list(processes.told)))).run()
    assert prepared == [("a", [])]


def test_killed_before_the_link_was_renamed_the_next_run_clears_up(host):
    host.link.symlink_to("releases/a")
    processes = List(host, "a", "b")
    switch(host, processes, "c").run()
    assert processes.told == [("delete", "shop-b", "a"), ("start", "shop-c", "a"), ("delete", "shop-a", "c")]


def test_killed_after_the_link_was_renamed_the_same_run_again_clears_up(host):
    host.link.symlink_to("releases/b")
    processes = List(host, "a", "b")
    assert switch(host, processes, "b").run().changed
    assert processes.told == [("delete", "shop-a", "b")]


def test_what_the_daemon_starts_meanwhile_goes_as_well(host):
    """It came up a moment ago, and its unit had not started the live release yet when the switch began."""
    host.link.symlink_to("releases/a")
    processes = List(host)
    late = processes.worker("shop-a", "a")
    switch(host, processes, "b", confirm=lambda previous: processes.list.append(late)).run()
    assert [worker.name for worker in processes.list] == ["shop-b"]


def test_a_daemon_that_starts_anew_before_the_link_leaves_the_old_one_serving(host):
    host.link.symlink_to("releases/a")
    processes = List(host, "a")

    def starts_anew(_previous):
        processes.list = [processes.worker("shop-a", "a")]

    with pytest.raises(OperationError, match="are gone again"):
        switch(host, processes, "b", confirm=starts_anew).run()
    assert [worker.name for worker in processes.list] == ["shop-a"]
    assert link_of(host) == "a"


class TestAReturnToWhatStillServes:
    """The run before was killed behind the link, and what is live now has fallen ill."""

    @pytest.fixture
    def processes(self, host):
        host.link.symlink_to("releases/b")
        return List(host, "a", "b")

    def test_that_fails_leaves_it(self, host, processes):
        processes.started_pid = GONE
        with pytest.raises(OperationError):
            switch(host, processes, "a", back=True).run()
        assert [worker.name for worker in processes.list] == ["shop-a", "shop-b"]

    def test_that_succeeds_leaves_one(self, host, processes):
        assert switch(host, processes, "a", back=True).run().changed
        assert [worker.name for worker in processes.list] == ["shop-a.2"]


class TestOnlyWhatAKilledRunLeftServes:
    """It was killed behind the link, and the workers of what is live are down by now."""

    @pytest.fixture
    def processes(self, host):
        host.link.symlink_to("releases/b")
        processes = List(host, "a", "b")
        processes.list[1] = dataclasses.replace(processes.list[1], status="errored", pid=0)
        return processes

    @pytest.mark.parametrize("release", ["b", "c"])
    def test_a_failure_leaves_it(self, host, processes, release):
        processes.started_pid = GONE
        with pytest.raises(OperationError):
            switch(host, processes, release).run()
        assert "shop-a" in [worker.name for worker in processes.list]

    @pytest.mark.parametrize("release", ["a", "b", "c"])
    def test_it_goes_once_another_one_serves(self, host, processes, release):
        assert switch(host, processes, release).run().changed
        assert link_of(host) == release
        assert len(processes.list) == 1
        assert processes.told[0][0] == "start"

    def test_but_not_what_does_not_run_either(self, host, processes):
        processes.list[0] = dataclasses.replace(processes.list[0], pid=0)
        switch(host, processes, "c").run()
        assert processes.told[0] == ("delete", "shop-a", "b")


def test_what_is_live_and_ill_is_replaced_by_a_second_generation_of_itself(host):
    host.link.symlink_to("releases/a")
    processes = List(host, "a")
    ill = processes.list[0]
    processes.list = [dataclasses.replace(ill, status="errored")]
    assert switch(host, processes, "a").run().changed
    assert processes.told == [("start", "shop-a.2", "a"), ("delete", "shop-a", "a")]
    processes.list = [dataclasses.replace(processes.list[0], status="errored")]
    switch(host, processes, "a").run()
    assert processes.told[2:] == [("start", "shop-a", "a"), ("delete", "shop-a.2", "a")]


def test_killed_between_two_generations_of_itself_it_is_replaced_by_a_third(host):
    host.link.symlink_to("releases/a")
    processes = List(host, "a")
    processes.list.append(processes.worker("shop-a.2", "a"))
    assert switch(host, processes, "a").run().changed
    assert processes.told == [("start", "shop-a.3", "a"), ("delete", "shop-a", "shop-a.2", "a")]
    assert [worker.name for worker in processes.list] == ["shop-a.3"]


def test_without_worker_headers_good_answers_are_counted(host):
    assert switch(host, List(host), "b", service(worker=None)).run().changed


def test_and_those_of_another_version_than_what_is_live(host):
    host.link.symlink_to("releases/a")
    manifest = host.releases / "b" / ".release.json"
    manifest.write_text(json.dumps({"id": "b", "version": "2"}))
    assert switch(host, List(host, "a"), "b", service(worker=None, version="2")).run().changed


def test_but_not_where_what_is_live_may_have_given_them(host):
    host.link.symlink_to("releases/a")
    processes = List(host, "a")
    with pytest.raises(OperationError, match="named no worker") as caught:
        switch(host, processes, "b", service(worker=None)).run()
    assert "pm2_preload: true" in caught.value.remedy
    assert [worker.name for worker in processes.list] == ["shop-a"]


@pytest.mark.parametrize("release", ["a", "b"])
@pytest.mark.parametrize("left", ["errored", None])
def test_workers_that_are_gone_have_given_none(host, release, left):
    """PM2 has given them up, or somebody has deleted them: nothing but the new ones answers."""
    host.link.symlink_to("releases/a")
    processes = List(host)
    if left:
        processes.list = [dataclasses.replace(processes.worker("shop-a", "a", pid=0), status=left)]
    assert switch(host, processes, release, service(worker=None)).run().changed


def test_workers_that_come_back_meanwhile_may_have_given_them(host):
    host.link.symlink_to("releases/a")
    processes = List(host)
    start = processes.start

    def start_both(release, generation):
        processes.list.append(processes.worker("shop-a", "a"))
        return start(release, generation)

    processes.start = start_both
    with pytest.raises(OperationError, match="named no worker"):
        switch(host, processes, "b", service(worker=None)).run()
    assert [worker.name for worker in processes.list] == ["shop-a"]


def test_workers_of_the_live_release_that_are_down_are_left_for_pm2_to_start_again(host):
    """The database was away, and they wait for their next start; what was deployed does not start either."""
    host.link.symlink_to("releases/a")
    processes = List(host, "a")
    processes.list = [dataclasses.replace(processes.list[0], status="waiting restart", pid=0)]
    processes.started_pid = GONE
    with pytest.raises(OperationError):
        switch(host, processes, "b").run()
    assert [worker.name for worker in processes.list] == ["shop-a"]
    processes.started_pid = ALIVE
    assert switch(host, processes, "b").run().changed
    assert [worker.name for worker in processes.list] == ["shop-b"]


def test_a_dry_run_touches_nothing(host):
    host.link.symlink_to("releases/a")
    processes = List(host, "a")
    assert switch(host, processes, "b").run(dry_run=True).changed
    assert not switch(host, processes, "a").run(dry_run=True).changed
    assert processes.told == []


def test_announced_once_before_the_first_change(host):
    host.link.symlink_to("releases/a")
    processes = List(host, "a")
    announced = []
    switch(host, processes, "b", announce=lambda previous: announced.append((previous.id, list(processes.told)))).run()
    assert announced == [("a", [])]


@pytest.mark.parametrize("back", [True, False])
def test_only_a_way_back_uses_the_room_that_was_set_aside_for_it(host, back):
    host.link.symlink_to("releases/b")
    reserve.hold(host.root)
    there = []
    announce = lambda previous: there.append((host.root / ".reserve").exists())  # noqa: E731
    switch(host, List(host, "b"), "a", announce=announce, back=back).run()
    assert there == [not back]


def test_the_environment_of_pm2(tmp_path):
    (tmp_path / "pm2.environment").write_text('# comment\nPM2_HOME=/var/lib/shop/pm2\nLANG="C.UTF-8"\n')
    assert pm2.read_environment(tmp_path / "pm2.environment") == {"PM2_HOME": "/var/lib/shop/pm2", "LANG": "C.UTF-8"}
    with pytest.raises(OperationError, match="PM2 was not set up"):
        pm2.read_environment(tmp_path / "missing")


def test_what_never_left_is_left_to_itself_though_it_is_ill(host):
    host.link.symlink_to("releases/a")
    processes = List(host, "a")
    assert not switch(host, processes, "a", service(code=503)).run(heal=False).changed
    assert [call for call in processes.told if call[0] == "start"] == []
