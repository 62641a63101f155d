"""Evidence from the log of an application."""

import json
import os

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import application_log, releases
from ansible_collections.roastify.ops.plugins.module_utils.pm2 import Worker


class Logs:
    """A PM2 that knows where it writes the log."""

    def __init__(self, directory):
        self.error_file, self.out_file = directory / "error.log", directory / "out.log"

    def definition(self, release):
        return {"error_file": str(self.error_file), "out_file": str(self.out_file)}


@pytest.fixture
def host(tmp_path):
    for name in ("a", "b", "c"):
        directory = tmp_path / "releases" / name
        directory.mkdir(parents=True)
        (directory / ".release.json").write_text(json.dumps({"id": name, "version": "1"}))
    host = releases.Host(str(tmp_path))
    host.release("a").environment.write_text("PG_PASSWORD='hunter2-hunter2'\nPORT=5000\nAPI_KEY=tiny\n")
    host.release("b").environment.write_text("JWT_SECRET=abcdefgh\n")
    return host


def test_secrets_of_both_releases_are_masked_and_long_lines_cut(host):
    both = [host.release("a"), host.release("b"), host.release("c"), None]
    assert application_log.secrets_of(*both) == ["hunter2-hunter2", "abcdefgh"]
    lines = application_log.masked(["password hunter2-hunter2 and abcdefgh on 5000", "x" * 2000], *both)
    assert lines[0] == "password ******** and ******** on 5000"
    assert len(lines[1]) < 700


def test_of_a_long_entry_of_json_the_message_and_the_stack_are_told(host):
    stack = "Error: refused\n" + "\n".join(f"    at step{number} (/srv/app/{number}.js:1:2)" for number in range(9))
    error = {"message": "connect as hunter2-hunter2 refused", "stack": stack, "code": "ECONNREFUSED"}
    entry = {"level": "error", "error": error, "request": "x" * 600, "message": "cannot start"}
    assert application_log.masked([json.dumps(entry)], host.release("a")) == [
        "cannot start: connect as ******** refused",
        *(f"    at step{number} (/srv/app/{number}.js:1:2)" for number in range(5)),
    ]
    bare = json.dumps({"level": "error", "request": "x" * 700})
    assert application_log.masked([bare]) == [f"{bare[:600]}..."]
    short = json.dumps({"message": "short", "stack": "a\nb"})
    assert application_log.masked([short]) == [short]


def test_what_looks_like_a_secret_is_one_whatever_its_name(host):
    release = host.release("a")
    names = "SESSION_SALT=salt-of-the-earth\nSTRIPE_SK=sk_live_1\nLICENCE=a1B2c3D4e5F6g7H8i9J0\n"
    release.environment.write_text(f"{names}DB_HOST=db-1.internal.example.com\nDESIGN=classic\n")
    line = "salt-of-the-earth sk_live_1 a1B2c3D4e5F6g7H8i9J0 db-1.internal.example.com classic"
    assert application_log.masked([line], release) == ["******** ******** ******** db-1.internal.example.com classic"]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "directory"])
def test_what_is_no_file_is_no_log_and_nobody_waits_for_it(host, tmp_path, make):
    """It lies where the user of the application writes."""
    pm2 = Logs(tmp_path)
    make(pm2.error_file)
    pm2.out_file.write_text("the port is taken\n")
    assert application_log.ApplicationLog(pm2, host.release("a")).tail() == ["the port is taken"]


def test_a_line_that_was_cut_is_left_out_since_half_a_secret_is_not_known_for_one(host, tmp_path):
    pm2 = Logs(tmp_path)
    pm2.out_file.write_bytes(b"first hunter2-hunter2" + b"." * (application_log.TAIL - 15) + b"\nlast\n")
    log = application_log.ApplicationLog(pm2, host.release("a"))
    assert log.tail() == ["last"]


def test_shows_what_was_logged_since(host, tmp_path):
    pm2 = Logs(tmp_path)
    pm2.out_file.write_text("before\n")
    log = application_log.ApplicationLog(pm2, host.release("a"))
    with pm2.out_file.open("a") as stream:
        stream.write("after\n")
    pm2.error_file.write_text("wrong\n")
    assert log.news() == ["wrong", "after"]
    assert log.tail() == ["wrong", "before", "after"]


def test_a_file_that_was_rotated_meanwhile_begins_anew(host, tmp_path):
    pm2 = Logs(tmp_path)
    file = tmp_path / "error.log"
    file.write_text("yesterday\n" * 100)
    log = application_log.ApplicationLog(pm2, host.release("a"))
    file.write_text("the port is taken\n")
    assert log.news() == ["the port is taken"]


def worker(host, release="a", **changes):
    settings = {"name": "shop-a", "pid": 0, "status": "waiting restart", "restarts": 7, "exit_code": 78, **changes}
    return Worker(directory=str(host.release(release).directory), **settings)


def test_secrets_in_addresses_and_in_json_are_masked_too(host):
    release = host.release("a")
    release.environment.write_text(
        "PG_PASSWORD='say \"häm\" twice'\nREDIS_URL=redis://cache/0\nBROKER=amqp://shop:tiptop-secret@mq/1\n"
    )
    entry = json.dumps({"password": 'say "häm" twice'})
    lines = [entry, json.dumps({"password": 'say "häm" twice'}, ensure_ascii=False), "tiptop-secret redis://cache/0"]
    lines.append("connecting to postgres://shop:elsewhere@db/shop")
    told = "\n".join(application_log.masked(lines, release))
    for secret in ("häm", "h\\u00e4m", "tiptop", "redis://cache", "elsewhere"):
        assert secret not in told, told
    assert "postgres://shop:********@db/shop" in told


def test_a_restart_loop_is_told_with_its_reason_and_without_secrets(host, tmp_path):
    pm2 = Logs(tmp_path)
    pm2.error_file.write_text("cannot start: PG_HOST is not set, password hunter2-hunter2\n")
    told = application_log.restart_loop(pm2, host.release("a"), [worker(host), worker(host, restarts=5)])
    assert told == [
        "release a ends as soon as it starts: PM2 has started 2 of 2 workers 12 times again, the last time with exit "
        "code 78. Its log says:",
        "cannot start: PG_HOST is not set, password ********",
    ]


def test_the_log_of_a_loop_is_told_once_and_without_what_is_around_it():
    start = [
        "/srv/shop/releases/a/server.js:12",
        "  start();",
        "  ^",
        "",
        "Error: listen EADDRINUSE: address already in use 127.0.0.1:5000",
        "    at Server.setupListenHandle [as _listen2] (node:net:1463:16)",
        "    at node:internal/main/run_main_module:23:47",
        "",
        "Node.js v18.20.8",
        "(Use `node --trace-warnings ...` to show where the warning was created)",
    ]
    entries = [
        {"level": "info", "message": "starting", "pid": 4711},
        {"level": 30, "msg": "connected"},
        {"level": "error", "message": "cannot start: not fit\n  - .env: PORT is not set", "pid": 4711},
        {"level": 50, "msg": "no database", "err": {"message": "timeout"}},
        {"text": "of another shape"},
    ]
    log = [*start * 3, *map(json.dumps, entries * 2), "{broken", "[]"]
    assert application_log.telling(log) == [
        "  start();",
        "Error: listen EADDRINUSE: address already in use 127.0.0.1:5000",
        "cannot start: not fit",
        "  - .env: PORT is not set",
        "no database: timeout",
        '{"text": "of another shape"}',
        "{broken",
        "[]",
    ]


def test_a_log_of_everyday_entries_is_told_as_it_is():
    log = [*(json.dumps({"level": "info", "message": f"step {number}"}) for number in range(9)), ""]
    assert application_log.telling(log) == log[6:9]
    assert application_log.telling([]) == []


def test_workers_that_one_look_finds_at_work_are_looked_at_again(host, tmp_path, monkeypatch):
    """Each lives for a moment before it ends."""
    monkeypatch.setattr(application_log.time, "sleep", lambda seconds: None)
    pm2 = Logs(tmp_path)
    looks = iter([[worker(host, status="online", pid=1)], [worker(host, restarts=8)]])
    monkeypatch.setattr(pm2, "workers", lambda: next(looks), raising=False)
    told = application_log.restart_loop(pm2, host.release("a"), [worker(host, status="online", pid=1)])
    assert "1 of 1 workers 8 times again" in told[0]


@pytest.mark.parametrize(
    "changes", [{"restarts": 2}, {"release": "b"}, {"status": "online", "pid": 1}], ids=["few", "other", "up"]
)
def test_a_worker_that_ended_once_or_is_up_is_no_loop(host, tmp_path, changes, monkeypatch):
    monkeypatch.setattr(application_log.time, "sleep", lambda seconds: None)
    pm2, workers = Logs(tmp_path), [worker(host, **changes)]
    monkeypatch.setattr(pm2, "workers", lambda: workers, raising=False)
    assert application_log.restart_loop(pm2, host.release("a"), workers) == []
