"""What is told of a host, and what is mended."""

import dataclasses
import hashlib
import http.server
import json
import os
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.roastify.ops.plugins.filter.examination import examination
from ansible_collections.roastify.ops.plugins.module_utils import (
    deadman,
    deploy_locks,
    deployments,
    doctor,
    env_file,
)
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.files import link_atomically
from ansible_collections.roastify.ops.plugins.module_utils.pm2 import Worker


class Manager:
    """A PM2 that is up and has workers."""

    service = "pm2-shop.service"

    def __init__(self, host, *running):
        self.running = [Worker(f"shop-{name}", 1, "online", str(host.releases / name)) for name in running]
        self.up = True

    def is_up(self):
        return self.up

    def ensure_up(self):
        self.up = True

    def workers(self):
        return self.running

    def delete(self, generations):
        self.running = [worker for worker in self.running if worker.name not in generations]


@pytest.fixture
def host(host):
    """Each of its releases has its environment."""
    for name in ("a", "b"):
        (host.environments / f"{name}.env").write_text("PORT=5000\n")
        (host.environments / f"{name}.env").chmod(0o600)
        (host.releases / name / ".env").symlink_to(f"../../shared/environments/{name}.env")
    return host


@pytest.fixture
def port():
    """A healthy application."""

    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"status": "healthy", "version": "1"}')

        def log_message(self, *_arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def findings(host, pm2, port):
    return doctor.examine(host, pm2, port, "/health")


def test_a_host_that_is_well_has_nothing_to_tell(host, port):
    assert findings(host, Manager(host, "b"), port) == []


def test_what_a_killed_deployment_left_is_explained_and_mended(host, port):
    pm2 = Manager(host, "b", "a")
    (host.releases / ".staging-c").mkdir()
    (host.root / ".current.77.abcd").symlink_to("releases/c")
    (host.environments / "gone.env").write_text("A=1\n")
    (host.environments / "gone.env").chmod(0o600)
    host.states.went_live("a", "b", back=True)  # the link was not renamed
    deploy_locks.acquire(host, "d1", {"holder": "ann", "origin": "laptop"})
    host.lock.write_text(json.dumps({**deploy_locks.read_lock(host), "expires": time.time() - 60}))
    (host.root / ".deadman.json").write_text(
        json.dumps(deadman.Order("d1", "a", "b", 300, str(host.root), "shop", "shop", "/etc/shop", {}).__dict__)
    )
    found = findings(host, pm2, port)
    told = "\n".join(finding.what for finding in found)
    for words in (
        "a timer waits for release a",
        "not of the live release: shop-a",
        "deployment d1 of ann from laptop left its lock",
        ".staging-c was left",
        ".current.77.abcd was left",
        "the recorded state of the live release b is behind the link",
        "environments of releases that are gone: gone",
    ):
        assert words in told
    stopped = []
    for finding in found:
        if finding.what.startswith("a timer"):
            assert deadman.disarm(host, lambda *words: stopped.append(words))
        else:
            finding.repair()
    assert stopped == [("stop", "deadman-shop.timer")]
    assert findings(host, pm2, port) == []
    assert host.live().id == "b"


def test_what_a_killed_deployment_left_is_not_ended_while_it_is_all_that_serves(host, port):
    """The link is renamed, and the workers of what is live have fallen by now."""
    pm2 = Manager(host, "a", "b")
    pm2.running[1] = dataclasses.replace(pm2.running[1], pid=0, status="errored")
    for finding in findings(host, pm2, port):
        if finding.repair is not None:
            finding.repair()
    assert "shop-a" in {worker.name for worker in pm2.running}
    assert "all that serves" in "\n".join(finding.remedy for finding in findings(host, pm2, port))


def test_of_two_timers_the_one_for_what_is_live_waits_again(host, port, monkeypatch):
    """a was not confirmed before b either, whose deployment was killed before the link."""
    monkeypatch.setattr(deadman, "_systemctl", lambda *words: None)
    link_atomically(host.link, "releases/a")
    host.states.went_live("a", "b")
    first = deadman.Order("d1", "a", "b", 300, str(host.root), "shop", "shop", "/etc/shop", {})
    second = dataclasses.replace(first, deployment="d2", release="b", previous="a", replaced=first.__dict__)
    (host.root / ".deadman.json").write_text(json.dumps(second.__dict__))
    for finding in findings(host, Manager(host, "a"), port):
        if finding.what.startswith("a timer"):
            finding.repair()
    assert deadman.read_order(host) == first


def test_a_host_that_cannot_return_is_not_said_to_do_so(host, port):
    """Somebody removed the release before by hand."""
    order = deadman.Order("d1", "b", "a", 300, str(host.root), "shop", "shop", "/etc/shop", {})
    (host.root / ".deadman.json").write_text(json.dumps(order.__dict__))
    (finding,) = findings(host, Manager(host, "b"), port)
    assert "this host returns to a by itself" in finding.what
    assert doctor.unconfirmed(host, host.live()) == finding.what
    (host.releases / "a" / ".release.json").unlink()
    (finding, _other) = findings(host, Manager(host, "b"), port)
    assert "this host cannot return to a by itself" in finding.what
    assert doctor.unconfirmed(host, host.live()) is None


def test_when_a_host_returns_is_told_as_long_as_that_is_known(host):
    order = deadman.Order("d1", "b", "a", 300, str(host.root), "shop", "shop", "/etc/shop", {})
    host.order.write_text(json.dumps(order.__dict__))
    os.utime(host.order, (time.time(), time.time() + 3600))
    ends = datetime.fromtimestamp(host.order.stat().st_mtime + 300, timezone.utc)
    assert doctor.unconfirmed(host, host.live()).endswith(f"to a by itself, at {ends:%H:%M:%S} UTC at the earliest")
    os.utime(host.order, (1, 1))
    assert "list-timers deadman-shop.timer" in doctor.unconfirmed(host, host.live())
    host.order.unlink()
    assert doctor.unconfirmed(host, host.live()) is None
    assert "list-timers" in deadman.due(host, order)


def test_the_state_is_mended_as_a_deployment_would(host, port):
    """a is deployed again after b and killed right behind the link: that went forth, as the journal says."""
    deployments.append_record(host.journal, deployments.Record("d3", "deploy", "started", "a", "1"))
    link_atomically(host.link, "releases/a")
    for finding in findings(host, Manager(host, "a"), port):
        finding.repair()
    assert host.states.previous("a", ["a", "b"]) == "b"


def test_a_worker_that_does_not_run(host, port):
    pm2 = Manager(host, "b")
    pm2.running += [dataclasses.replace(pm2.running[0], pid=0, status="errored")]
    (finding,) = findings(host, pm2, port)
    assert finding.what == "1 of 2 workers of the live release b do not run: errored" and finding.repair is None


def test_a_stranger_that_answers_in_its_place(host, port):
    (finding,) = findings(host, Manager(host), port)
    assert finding.what == "something answers on the port, but PM2 runs no worker of the live release b"
    assert "ss -ltnp" in finding.remedy and finding.repair is None


def test_a_manager_that_hangs_is_asked_once(host, port):
    class Hangs(Manager):
        asked = 0

        def workers(self):
            self.asked += 1
            raise OperationError("the PM2 daemon does not say what it runs", "restart it", ["Node.js: stopped"])

    for where in (port, 1):
        pm2 = Hangs(host)
        finding, *others = findings(host, pm2, where)
        assert (finding.what, finding.remedy) == ("the PM2 daemon does not say what it runs", "restart it")
        assert finding.evidence == ("Node.js: stopped",)
        assert len(others) == (where == 1)
        assert pm2.asked == 1


def test_a_host_that_serves_well_is_not_asked_for_its_workers(host, port):
    pm2 = Manager(host, "b")
    assert doctor.look(pm2, host.live(), port, "/health", always=False).workers == ()
    assert doctor.look(pm2, host.live(), 1, "/health", always=False).workers == pm2.running
    assert doctor.look(None, host.live(), 1, "/health").is_ill


def test_a_live_release_that_runs_twice(host, port):
    pm2 = Manager(host, "b")
    pm2.running += [dataclasses.replace(pm2.running[0], name="shop-b.2")]
    (finding,) = findings(host, pm2, port)
    assert finding.what == "the live release b runs more than once: shop-b, shop-b.2" and finding.repair is None


def test_what_is_not_for_a_program_to_decide_is_left_alone(host, port):
    (host.releases / "notes").mkdir()
    (host.root / "shared" / "environments" / "b.env").unlink()
    found = findings(host, Manager(host, "b"), port)
    assert [finding.repair for finding in found] == [None, None]
    assert "the environment of the live release b is missing" in found[0].what
    assert "notes is no complete release" in found[1].what


def test_a_file_system_of_its_own_for_releases_is_no_finding(host, port):
    (host.releases / "lost+found").mkdir()
    assert findings(host, Manager(host, "b"), port) == []


def test_nobody_is_told_to_move_away_what_serves(host, port):
    """The manifest of the live release was damaged; then somebody did what the finding says."""
    (host.releases / "b" / ".release.json").write_text("")
    (finding,) = findings(host, Manager(host, "b"), port)
    assert "points to releases/b, which is no complete release" in finding.what
    (host.releases / "b").rename(host.root / "b")
    assert [finding.what for finding in findings(host, Manager(host, "b"), port)] == [finding.what]
    (host.root / "b").rename(host.releases / "b")
    host.link.unlink()
    host.link.symlink_to("releases/a")
    told = [finding for finding in findings(host, Manager(host, "b"), port) if "b is no complete" in finding.what]
    assert [finding.remedy.startswith("look at it; unless something runs from it (fuser -v") for finding in told] == [
        True
    ]


def test_an_environment_that_somebody_edited(host, port):
    host.states.record("b", "live", environment=env_file.fingerprint(host.release("b").environment))
    assert findings(host, Manager(host, "b"), port) == []
    host.release("b").environment.write_text("PORT=5001\n")
    (finding,) = findings(host, Manager(host, "b"), port)
    assert "somebody changed the environment of release b" in finding.what and finding.repair is None


def test_an_environment_that_nobody_can_read(host, port):
    host.states.record("b", "live", environment="installed")
    path = host.environments / "b.env"
    path.unlink()
    path.mkdir(mode=0o700)
    (finding,) = findings(host, Manager(host, "b"), port)
    assert "the environment of release b can't be read" in finding.what and finding.repair is None


def test_secrets_that_others_may_read(host, port):
    path = host.environments / "a.env"
    path.chmod(0o644)
    (finding,) = findings(host, Manager(host, "b"), port)
    assert f"others than the application's user may read {path}" == finding.what
    finding.repair()
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_application_that_does_not_serve(host, port):
    pm2 = Manager(host, "b")
    pm2.up = False
    (finding,) = findings(host, pm2, port)
    assert finding.what == "PM2 does not run, so that release b does not serve"
    finding.repair()
    (finding,) = findings(host, pm2, 1)
    assert "the live release b is not healthy: nothing listens" in finding.what
    assert finding.remedy.startswith("see why, then roll back to a")


def test_a_living_lock_is_no_ones_to_take(host, port):
    deploy_locks.acquire(host, "d1", {"holder": "ann", "origin": "laptop", "since": "now"})
    (finding,) = findings(host, Manager(host, "b"), port)
    assert finding.repair is None and "holds the lock" in finding.what
    assert finding.remedy == deploy_locks.TAKE_OVER


def test_a_lock_from_before_the_clock_was_set_back(host, port):
    deploy_locks.acquire(host, "d1", {"holder": "ann", "origin": "laptop"})
    host.lock.write_text(json.dumps({**deploy_locks.read_lock(host), "expires": time.time() + 86400}))
    (finding,) = findings(host, Manager(host, "b"), port)
    assert "left its lock, before the clock of this host was set back" in finding.what
    finding.repair()
    assert findings(host, Manager(host, "b"), port) == []


def test_a_link_that_leads_nowhere(host, port):
    host.link.unlink()
    host.link.symlink_to("releases/gone")
    (finding,) = findings(host, Manager(host, "b"), port)
    assert "which is no complete release" in finding.what and finding.repair is None


def test_what_was_mended_is_not_left():
    found = [{"what": "this"}, {"what": "that"}]
    examined = {"live": True, "healthy": True, "findings": found, "lines": [], "repaired": ["this"]}
    assert examination(examined, {})["left"] == 1
    out = {"state": "out", "reason": ""}
    assert examination(examined, out)["left"] == 2
    assert examination(examined, out, mended=True)["left"] == 1
    assert examination({**examined, "findings": []}, {})["left"] == 0


def test_in_check_mode_nothing_is_said_to_be_mended():
    found = [{"what": "this"}]
    examined = {"live": True, "healthy": True, "findings": found, "lines": ["this"], "repaired": ["this"]}
    told = examination(examined, {"state": "out", "reason": ""}, mended=True, check=True)
    assert told["lines"][:2] == ["this", "this host is out of the load balancer: it gets no requests (would be mended)"]
    assert told["left"] == 2
    assert examination(examined, {}, check=True)["left"] == 1


@pytest.mark.parametrize("dry_run, said", [(False, "(mended)"), (True, "(would be mended)")])
def test_what_is_mended_and_what_would_be(host, port, dry_run, said):
    (host.releases / ".staging-c").mkdir()
    found = findings(host, Manager(host, "b"), port)
    repaired = list(doctor.mend(host, found, dry_run))
    assert repaired == [found[0].what]
    assert doctor.lines(found, repaired, dry_run)[0] == f"{found[0].what} {said}"
    assert (host.releases / ".staging-c").exists() == dry_run


@pytest.mark.parametrize("dry_run", [False, True])
def test_nothing_is_mended_nor_promised_while_a_deployment_holds_the_lock(host, port, dry_run):
    (host.releases / ".staging-c").mkdir()
    deploy_locks.acquire(host, "d1", {"holder": "ann", "origin": "laptop", "since": "now"})
    with pytest.raises(deploy_locks.LockHeld):
        list(doctor.mend(host, findings(host, Manager(host, "b"), port), dry_run))
    assert (host.releases / ".staging-c").exists()


@pytest.mark.parametrize(
    "left, silent, said",
    [
        ({"app1": 0, "app2": 0}, [], "Nothing is left to do on any host."),
        ({"app1": 0, "app2": 2}, [], "LEFT TO DO: app2 (2); what, stands above."),
        ({"app1": 1, "app2": 2}, [], "LEFT TO DO: app1 (1), app2 (2); what, stands above."),
        ({"app1": 0}, ["app2"], "Nothing is left to do on the other hosts. Nothing is known of app2."),
        ({"app1": 1}, ["app2"], "LEFT TO DO: app1 (1); what, stands above. Nothing is known of app2."),
    ],
)
def test_the_last_word_says_where_something_is_left_to_do(left, silent, said):
    assert last_word({host: (count, "b") for host, count in left.items()}, silent) == said


@pytest.mark.parametrize("releases", [("a", "b"), ("a", None)])
def test_the_last_word_says_that_hosts_serve_different_releases(releases):
    told = last_word({f"app{number}": (0, release) for number, release in enumerate(releases, 1)})
    assert told == (
        "Nothing is left to do on any host. The hosts do not serve the same release: see playbooks/status.yml."
    )


def last_word(hosts, silent=()):
    """What is said of hosts at the end, of each how many findings are left and which release is live."""
    plays = yaml.safe_load((Path(__file__).parents[2] / "playbooks" / "doctor.yml").read_text())
    last = plays[-1]["tasks"][-1]
    variables = {name: trust_as_template(value) for name, value in last["vars"].items()}
    variables["ansible_play_hosts"] = list(hosts)
    variables["ansible_play_hosts_all"] = [*hosts, *silent]
    variables["hostvars"] = {
        host: {
            "inventory_hostname": host,
            "doctor_found": {"left": count},
            "app_release_examination": {"release": release},
        }
        for host, (count, release) in hosts.items()
    }
    message = trust_as_template(last["ansible.builtin.debug"]["msg"])
    return Templar(DataLoader(), variables=variables).template(message)


def test_whether_a_host_serves_and_what(host, port):
    assert doctor.serves(host, port, "/health") == (True, True, "b")
    assert doctor.serves(host, 1, "/health") == (True, False, "b")
    host.link.unlink()
    assert doctor.serves(host, port, "/health") == (False, False, None)
    host.link.symlink_to("releases/gone")
    assert doctor.serves(host, port, "/health") == (True, False, None)


def test_a_host_that_an_older_version_of_the_collection_has_set_up_is_told_what_setup_would_change(host, port):
    preload, ecosystem = host.root / "preload.cjs", host.root / "ecosystem.config.cjs"
    preload.write_text("older")
    sums = {str(path): hashlib.sha256(b"newer").hexdigest() for path in (preload, ecosystem)}
    manager = Manager(host, "b")
    (found,) = doctor.examine(host, manager, port, "/health", sums)
    assert found.what.endswith(f": setup would change {preload}, {ecosystem}")
    assert "--tags pm2 --check --diff" in found.remedy and found.repair is None
    for path in (preload, ecosystem):
        path.write_text("newer")
    assert doctor.examine(host, manager, port, "/health", sums) == []
