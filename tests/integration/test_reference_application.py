"""The reference application as it is deployed: built, packed, unpacked, started, against a real PostgreSQL."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import artifact, artifact_build
from postgresql_server import PASSWORD

ROOT = Path(__file__).resolve().parents[2]
JWT_SECRET = "integration-" + "7f3a" * 16
SECURITY_HEADERS = (
    "Content-Security-Policy",
    "Strict-Transport-Security",
    "X-Frame-Options",
    "X-Content-Type-Options",
)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def json(self):
        return json.loads(self.body)


class Process:
    """One started release, and what it logged."""

    def __init__(self, release: Path, environment: dict[str, str], output: Path) -> None:
        self.port = int(environment["PORT"])
        self.output = output
        with output.open("w") as stream:
            self.process = subprocess.Popen(
                [artifact_build.find_node("18").node, str(release / "backend/src/server.js")],
                cwd=release,
                env={"PATH": os.environ["PATH"], **environment},
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def ask(self, path: str, body: dict | None = None, headers: dict[str, str] | None = None) -> Answer:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **(headers or {})},
        )
        started = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return Answer(response.status, dict(response.headers), response.read(), time.monotonic() - started)
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, dict(error.headers), error.read(), time.monotonic() - started)

    def wait(self, status: int, path: str = "/health", seconds: float = 20) -> Answer:
        end = time.monotonic() + seconds
        answer = None
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError):
                answer = self.ask(path)
                if answer.status == status:
                    return answer
            time.sleep(0.1)
        pytest.fail(f"{path} did not answer {status}: {answer}\n{self.output.read_text()}")

    def log(self) -> list[dict]:
        return [json.loads(line) for line in self.output.read_text().splitlines()]

    def events(self) -> list[str]:
        return [line.get("event", "") for line in self.log()]

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> artifact.Artifact:
    """Version 1.0.0, built as a deployment builds it; its own tests ran in a build of their own."""
    build = artifact_build.plan(
        source=str(ROOT / "examples/roastify"),
        migrations=str(ROOT / "migrations"),
        destination=str(tmp_path_factory.mktemp("artifacts")),
        name="roastify",
        steps=[step for step in artifact_build.DEFAULT_STEPS if step != "test"],
        expect=["node_modules", "frontend/dist/index.html"],
        bundles="frontend/dist/assets",
    )
    return artifact_build.run(build)


@pytest.fixture(scope="module")
def release(packed, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("releases") / "20261122T233000Z-1.0.0-abc1234"
    artifact.unpack(packed.path, str(directory))
    manifest = json.loads((directory / ".release.json").read_text())
    (directory / ".release.json").write_text(json.dumps({**manifest, "id": directory.name}))
    return directory


@pytest.fixture
def environment(database) -> dict[str, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for migration in sorted((ROOT / "migrations").glob("*.up.sql")):
        database.query(migration.read_text())
    options = database.options
    return {
        "NODE_ENV": "production",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "APP_URL": "http://localhost",
        "PG_HOST": options.host,
        "PG_PORT": str(options.port),
        "PG_DATABASE": options.database,
        "PG_USER": options.user,
        "PG_PASSWORD": PASSWORD,
        "PG_SSL": "true",
        "PG_SSL_CA": options.ssl_root_cert,
        "JWT_SECRET": JWT_SECRET,
        "LOG_LEVEL": "debug",
    }


@pytest.fixture
def start(tmp_path):
    """Starts releases, and stops them when the test is over."""
    processes: list[Process] = []

    def make(release: Path, environment: dict[str, str]) -> Process:
        processes.append(Process(release, environment, tmp_path / f"output-{len(processes)}"))
        return processes[-1]

    yield make
    for process in processes:
        process.stop()


@pytest.fixture
def application(start, release, environment) -> Process:
    process = start(release, environment)
    process.wait(200)
    return process


def changed(release: Path, target: Path, *changes: str) -> Path:
    """A copy of a release with changes of examples/changes applied: only the back end runs from its source."""
    tree = target / "tree"
    shutil.copytree(release, tree / "application", symlinks=True)
    shutil.move(tree / "application/migrations", tree / "migrations")
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(target)}
    for change in changes:
        patch = str(ROOT / f"examples/changes/{change}.patch")
        subprocess.run(["git", "apply", patch], cwd=tree, env=environment, check=True)
    (tree / "application/.release.json").unlink()
    return tree / "application"


def test_the_artifact_is_small_and_complete(packed, release):
    assert packed.manifest["size"] < 3_000_000
    assert packed.manifest["schemaVersion"] == "001"
    assert packed.manifest["node"] == ">=18.18"
    assert (release / "env.schema.yml").read_bytes() == (ROOT / "examples/roastify/env.schema.yml").read_bytes()
    assert os.readlink(release / "node_modules/roastify-backend") == "../backend"
    assert not (release / "node_modules/vite").exists()
    size = sum(path.lstat().st_size for path in (release / "node_modules").rglob("*"))
    assert size < 10_000_000


def test_health_answers_what_the_load_balancer_expects(application, release):
    answer = application.ask("/health")
    assert answer.status == 200
    assert answer.json["status"] == "healthy"
    assert answer.json["version"] == "1.0.0"
    assert answer.json["checks"]["database"]["status"] == "healthy"
    assert set(answer.json["checks"]["memory"]) == {"used", "total", "percentage"}
    assert answer.headers["X-Release"] == release.name
    assert answer.headers["X-Worker"] == str(application.process.pid)


def test_a_roast_is_stored_and_listed(application, database):
    made = application.ask("/api/roasts", {"target": "Sam", "body": "'); DROP TABLE roasts; --", "author": "Kim"})
    assert made.status == 201
    listed = application.ask("/api/roasts").json["roasts"]
    assert [roast["body"] for roast in listed] == ["'); DROP TABLE roasts; --"]
    assert database.query("SELECT target, author FROM roasts") == [("Sam", "Kim")]


def test_the_page_and_its_assets_have_the_right_headers(application):
    page = application.ask("/")
    assert page.status == 200 and page.headers["Cache-Control"] == "no-cache"
    assets = re.findall(r'(?:src|href)="(/assets/[^"]+)"', page.body.decode())
    assert len(assets) >= 3
    for path in assets:
        asset = application.ask(path, headers={"Accept-Encoding": "gzip"})
        assert asset.status == 200
        assert asset.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        if asset.headers.get("Content-Encoding") == "gzip":
            assert gzip.decompress(asset.body)
    script = next(path for path in assets if path.endswith(".js"))
    assert application.ask(script, headers={"Accept-Encoding": "gzip"}).headers["Content-Encoding"] == "gzip"
    for path in ("/", assets[0], "/health", "/api/roasts", "/nothing", "/assets/none.js"):
        answer = application.ask(path)
        assert all(name in answer.headers for name in SECURITY_HEADERS), path


def test_health_stays_quick_under_load(application):
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _number: application.ask("/health"), range(400)))
    assert {answer.status for answer in answers} == {200}
    assert max(answer.seconds for answer in answers) < 2


def test_a_lost_database_is_told_and_comes_back(application, postgresql_server):
    postgresql_server.stop()
    try:
        sick = application.wait(503)
        assert sick.json["status"] == "unhealthy" and sick.seconds < 2
        assert sick.json["checks"]["database"]["status"] == "unhealthy"
        refused = application.ask("/api/roasts")
        assert refused.status == 503 and refused.headers["Retry-After"] == "5"
        assert application.ask("/").status == 200
        time.sleep(1.5)
    finally:
        postgresql_server.start()
    application.wait(200)
    assert application.ask("/api/roasts").status == 200
    events = application.events()
    assert events.count("database.lost") == 1 and events.count("database.restored") == 1
    assert "database.retry" in events


def test_health_does_not_wait_for_a_database_that_hangs(application, postgresql_server):
    pids = subprocess.run(
        ["pgrep", "-P", (postgresql_server.directory / "data/postmaster.pid").read_text().split()[0]],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    for pid in pids:
        os.kill(int(pid), signal.SIGSTOP)
    try:
        answer = application.ask("/health")
    finally:
        for pid in pids:
            os.kill(int(pid), signal.SIGCONT)
    assert answer.status == 503 and answer.seconds < 2
    application.wait(200)


def test_the_name_of_the_database_host_is_verified(start, release, environment):
    process = start(release, {**environment, "PG_HOST": "127.0.0.1"})
    assert process.wait(503).json["checks"]["database"]["status"] == "unhealthy"
    assert any("altnames" in str(line.get("reason")) for line in process.log())


def test_a_strange_authority_is_refused(start, release, environment, postgresql_server):
    stranger = str(postgresql_server.directory / "stranger.crt")
    start(release, {**environment, "PG_SSL_CA": stranger}).wait(503)


def test_the_file_is_read_and_the_process_environment_wins(start, release, environment, tmp_path):
    text = {**environment, "PORT": "1", "LOG_LEVEL": "error"}
    values = "".join(f'{name}="{value}"\n' for name, value in text.items())
    (release / ".env").write_text(values)
    try:
        process = start(release, {"PORT": environment["PORT"], "HOST": "127.0.0.1"})
        assert process.wait(200).json["status"] == "healthy"
        # Nothing but JSON on stdout, not even from the library that reads the file.
        assert process.log() == []
    finally:
        (release / ".env").unlink()


def test_missing_variables_end_the_start_with_all_their_names(start, release, environment):
    del environment["PG_HOST"], environment["JWT_SECRET"]
    process = start(release, environment)
    assert process.process.wait(10) == 78
    entry, *told = process.output.read_text().splitlines()
    assert [found["variable"] for found in json.loads(entry)["problems"]] == ["PG_HOST", "JWT_SECRET"]
    # The last lines are for people: one for each problem.
    assert json.loads(entry)["message"].splitlines() == told
    assert "PG_HOST is not set but required" in told[-2] and "JWT_SECRET is not set but required" in told[-1]


def test_no_secret_reaches_the_log(application, database):
    application.ask(
        f"/api/roasts?password={PASSWORD}&token={JWT_SECRET}", headers={"Authorization": "Bearer quartz-77-zebra"}
    )
    application.ask("/api/roasts", {"target": "x", "body": "card 4111111111111111"})
    database.query("ALTER TABLE roasts RENAME COLUMN body TO text")
    assert application.ask("/api/roasts").status == 500
    time.sleep(0.2)
    text = application.output.read_text()
    assert "unexpected error" in text
    for secret in (PASSWORD, JWT_SECRET, "quartz-77-zebra", "4111111111111111"):
        assert secret not in text


def test_a_request_in_flight_is_finished_when_the_process_is_told_to_end(application, database):
    blocker = database.connect()
    with blocker.cursor() as cursor, ThreadPoolExecutor(1) as pool:
        cursor.execute("BEGIN; LOCK TABLE roasts")
        request = pool.submit(application.ask, "/api/roasts")
        time.sleep(0.5)
        application.process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        with pytest.raises(OSError):
            application.ask("/health")
        cursor.execute("COMMIT")
        answer = request.result()
    blocker.close()
    assert answer.status == 200 and answer.headers["Connection"] == "close"
    assert application.process.wait(10) == 0
    assert application.events()[-1] == "drain.end"


def test_both_versions_live_on_the_newer_schema(start, application, release, environment, database, tmp_path):
    newer = changed(release, tmp_path, "1.1.0")
    database.query((newer.parent / "migrations/002_roast_likes.up.sql").read_text())
    made = application.ask("/api/roasts", {"target": "Sam", "body": "Old code, new table."}).json["roast"]
    application.stop()
    process = start(newer, environment)
    assert process.wait(200).json["version"] == "1.1.0"
    assert process.ask(f"/api/roasts/{made['id']}/likes", {}).json["roast"]["likes"] == 1
    assert process.ask("/api/roasts").json["roasts"][0]["likes"] == 1
    database.query((newer.parent / "migrations/002_roast_likes.down.sql").read_text())
    process.stop()
    again = start(release, environment)
    again.wait(200)
    assert len(again.ask("/api/roasts").json["roasts"]) == 1


def test_the_unhealthy_version_says_503_though_its_database_is_fine(start, release, environment, tmp_path):
    process = start(changed(release, tmp_path, "1.1.0", "1.2.0-unhealthy"), environment)
    answer = process.wait(503).json
    assert answer["status"] == "unhealthy" and answer["version"] == "1.2.0-unhealthy"
    assert answer["checks"]["database"]["status"] == "healthy"


def test_the_crashing_version_ends_with_an_error(start, release, environment, tmp_path):
    process = start(changed(release, tmp_path, "1.1.0", "1.2.1-crash"), environment)
    assert process.process.wait(10) == 1
    assert process.log()[-1]["level"] == "error"
