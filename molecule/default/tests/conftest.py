"""What the tests of all stages ask of a host, read from its effects: files, processes, answers."""

import json
import shlex
from pathlib import Path

import pytest

APP = "roastify"
ROOT = f"/srv/{APP}"
#: What `make molecule` shows once more at its end: what came last is all that some logs of CI keep.
FAILURES = Path(__file__).parents[3] / ".cache" / "molecule-failures"


def pytest_runtest_logreport(report):
    if report.failed:
        with FAILURES.open("a", encoding="utf-8") as failures:
            print(f"{report.nodeid}\n{report.longreprtext}\n{report.capstdout[-5000:]}", file=failures)


class Application:
    """The application as a host shows it."""

    root = ROOT
    user = APP

    def __init__(self, host):
        self.host = host

    def run(self, command):
        with self.host.sudo():
            return self.host.check_output(command)

    def python(self, code):
        """What a piece of Python prints as JSON on the host."""
        return json.loads(self.run(f"python3 -c {shlex.quote('import glob, json, urllib.request; ' + code)}"))

    @property
    def live(self):
        return self.python(f"print(open('{ROOT}/current/.release.json').read())")

    @property
    def kept(self):
        paths = f"sorted(glob.glob('{ROOT}/releases/*/.release.json'))"
        return self.python(f"print(json.dumps([json.load(open(path)) for path in {paths}]))")

    @property
    def journal(self):
        return self.python(f"print(json.dumps([json.loads(line) for line in open('{ROOT}/deployments.jsonl')]))")

    @property
    def workers(self):
        return json.loads(self.run(f"pm2-{APP} jlist --silent").splitlines()[-1])

    def answer(self, path):
        """Headers and text of an answer of the live port."""
        code = (
            f"answer = urllib.request.urlopen('http://127.0.0.1:5000{path}', timeout=5); "
            "headers = {name.lower(): value for name, value in answer.headers.items()}; "
            "print(json.dumps([headers, answer.read().decode()]))"
        )
        return self.python(code)

    def health(self):
        return json.loads(self.answer("/health")[1])


@pytest.fixture
def application(host):
    return Application(host)


def serves(application, version):
    """The release of a version is live, alone, and every worker of it answers."""
    live = application.live
    assert live["version"] == version
    assert application.run(f"readlink {ROOT}/current") == f"releases/{live['id']}"
    assert application.health()["version"] == version
    workers = application.workers
    assert {worker["name"] for worker in workers} == {f"{APP}-{live['id']}"}
    assert [worker["pm2_env"]["status"] for worker in workers] == ["online", "online"]
    seen = {application.answer("/health")[0]["x-worker"] for _attempt in range(12)}
    assert seen == {str(worker["pid"]) for worker in workers}
    return live
