"""The environment changes by itself, comes back with its release, is refused when it is wrong, and never shows.

One story, told in order: every test builds on the state that the one before it left.
"""

import contextlib
import itertools
import os
import re
import secrets
import sys
from pathlib import Path

import pytest
import testinfra
from conftest import Application, serves
from secret_sources import CHECKOUT, Controller

sys.path.insert(0, str(CHECKOUT / "tests" / "integration"))
import moto_server

HOSTS = ("mol-app1", "mol-app2")
DATABASE_PASSWORD = CHECKOUT / ".cache" / "molecule" / "secrets" / "database_password"


@pytest.fixture(scope="module")
def controller(tmp_path_factory):
    with moto_server.running() as address:
        yield Controller(address, tmp_path_factory.mktemp("controller"))


@pytest.fixture(scope="module")
def applications():
    inventory = CHECKOUT / "molecule" / "inventory"
    return [Application(testinfra.get_host(f"ansible://{name}", ansible_inventory=str(inventory))) for name in HOSTS]


@pytest.fixture(scope="module")
def began(applications):
    """Release and environment of each host before the story begins."""
    return [(application.live, environment_of(application, application.live["id"])) for application in applications]


def environment_of(application, release):
    path = f"{application.root}/shared/environments/{release}.env"
    return application.run(f"cat {path}"), application.run(f"stat -c '%U %a' {path}")


def limit_of(application):
    """What the workers took from their environment, by the headers of an answer to an empty request."""
    code = (
        "import urllib.error\n"
        "request = urllib.request.Request('http://127.0.0.1:5000/api/roasts', data=b'{}', "
        "headers={'content-type': 'application/json'})\n"
        "try: answer = urllib.request.urlopen(request, timeout=5)\n"
        "except urllib.error.HTTPError as error: answer = error\n"
        "print(json.dumps(answer.headers['RateLimit-Limit']))"
    )
    return int(application.python(code))


def test_a_changed_environment_is_a_new_release_of_the_same_content(controller, applications, began):
    controller.store(
        password=controller.canary("Parameter Store", DATABASE_PASSWORD.read_text().strip()),
        jwt=controller.canary("Secrets Manager", secrets.token_hex(32)),
    )
    variables = controller.variables(RATE_LIMIT_REQUESTS=5999)
    run = controller.play("playbooks/environment.yml", "-e", f"@{variables}")
    assert run.status == 0, run.output
    for application, (old, old_environment) in zip(applications, began):
        live = serves(application, "1.0.0")
        assert live["id"] != old["id"]
        assert live["sha256"] == old["sha256"]
        text, mode = environment_of(application, live["id"])
        assert "SMTP_HOST=smtp.roastify.online\n" in text
        assert mode == "roastify 600"
        assert limit_of(application) == 5999
        assert environment_of(application, old["id"]) == old_environment
        scripts = [f"{application.root}/releases/{release['id']}/backend/src/server.js" for release in (old, live)]
        assert len(set(application.run(f"stat -c %i {' '.join(scripts)}").split())) == 1, "its files are not shared"


def test_the_same_again_changes_nothing(controller, applications):
    before = [application.journal for application in applications]
    variables = controller.directory / "variables.yml"
    run = controller.play("playbooks/environment.yml", "-e", f"@{variables}")
    assert run.status == 0, run.output
    assert re.findall(r"mol-app\d : ok=\d+ changed=(\d+)", run.text) == ["0", "0"]
    assert [application.journal for application in applications] == before


def test_a_bad_environment_is_refused_with_every_problem_and_its_place(controller, applications):
    before = [(application.live, application.journal) for application in applications]
    variables = controller.variables(PORT=99999, PG_PASSWORD="a-word-of-the-inventory", SMTP_PORT=None, PG_HSOT="db")
    run = controller.play("playbooks/environment.yml", "-e", f"@{variables}")
    assert run.status != 0
    for message in (
        "Nothing was changed. On mol-app1:",
        "PORT is not a port (found 99999)",
        "PG_PASSWORD is also set in SSM Parameter Store, below /roastify/local.",
        "E-mail: EMAIL_FROM, SMTP_HOST, SMTP_USER and SMTP_PASS are set, but SMTP_PORT is not.",
        "PG_HSOT is not in the schema. Did you mean PG_HOST?",
    ):
        assert message in run.text, run.output
    assert "a-word-of-the-inventory" not in run.output
    assert [(application.live, application.journal) for application in applications] == before


def test_an_environment_that_does_not_work_is_not_switched_to(controller, applications):
    """The schema can't know that a password is not the database's: who asks the database does."""
    before = [application.live for application in applications]
    controller.store(controller.canary("Parameter Store", secrets.token_hex(16)), secrets.token_hex(32))
    variables = controller.variables()
    run = controller.play("playbooks/environment.yml", "-e", f"@{variables}")
    assert run.status != 0
    assert "password authentication failed" in run.text
    assert "This host serves 1.0.0 as before" in run.text
    for application, live in zip(applications, before):
        assert serves(application, "1.0.0")["id"] == live["id"]
        assert limit_of(application) == 5999
        assert application.journal[-1]["status"] == "failed"


def test_a_rollback_brings_the_environment_back(controller, applications, began):
    run = controller.play("rollback.yml")
    assert run.status == 0, run.output
    for application, (old, old_environment) in zip(applications, began):
        assert serves(application, "1.0.0")["id"] == old["id"]
        assert environment_of(application, old["id"]) == old_environment
        assert limit_of(application) == 6000


def test_a_restart_loop_is_told_with_its_reason_and_healed_by_a_deployment(controller, applications):
    """Somebody edits the live environment by hand, and the host starts anew."""
    broken, well = applications
    live = broken.live
    path = f"{broken.root}/shared/environments/{live['id']}.env"
    broken.run(f"sed -i '/^JWT_SECRET=/d' {path} && systemctl restart pm2-roastify")
    deadline = "for try in $(seq 60); do pm2-roastify jlist | grep -q '\"restart_time\":[3-9]' && exit; sleep 0.5; done"
    broken.run(deadline)
    run = controller.play("playbooks/status.yml")
    assert run.status == 0, run.output
    assert "mol-app1 is not healthy: nothing listens on 127.0.0.1:5000" in run.text
    assert f"release {live['id']} ends as soon as it starts" in run.text
    assert "with exit code 78" in run.text
    assert "JWT_SECRET is not set but required." in run.text

    run = controller.play("playbooks/environment.yml")
    assert run.status == 0, run.output
    for application in (broken, well):
        serves(application, "1.0.0")
        assert limit_of(application) == 6000


#: Runs on the host; what it looks for comes from its files, so that no command line names a secret.
FIND = """
import json, os, re, subprocess
known = set()
folder = "/srv/roastify/shared/environments"
names = r"^(?:PG_PASSWORD|JWT_SECRET|SMTP_PASS|AWS_ACCESS_KEY_ID|AWS_SECRET_ACCESS_KEY)=(.*)$"
for name in os.listdir(folder):
    text = open(os.path.join(folder, name)).read()
    known |= {value.strip("'\\"").encode() for value in re.findall(names, text, re.MULTILINE)}
assert len(known) >= 6 and all(len(value) >= 20 for value in known), len(known)
places = []
def look(place, content):
    if any(value in content for value in known):
        places.append(place)
for command in (["ps", "axeww"], ["pm2-roastify", "jlist"], ["pm2-roastify", "prettylist"], ["journalctl", "--all"]):
    look(" ".join(command), subprocess.run(command, capture_output=True, check=True).stdout)
for process in filter(str.isdigit, os.listdir("/proc")):
    for part in ("cmdline", "environ"):
        try:
            look(f"/proc/{process}/{part}", open(f"/proc/{process}/{part}", "rb").read())
        except OSError:
            pass
for top in ("/etc", "/srv", "/var", "/tmp", "/root", "/home", "/opt", "/run", "/dev/shm"):
    for directory, folders, files in os.walk(top):
        for path in (os.path.join(directory, name) for name in files + folders):
            look(f"name of {path}", path.encode())
            if os.path.isfile(path) and not os.path.islink(path):
                try:
                    content = open(path, "rb").read()
                except OSError:
                    continue  # it was a temporary one, and is gone
                if directory != folder:
                    look(path, content)
                elif os.stat(path).st_mode & 0o077:
                    places.append(f"{path} is readable by others")
print(json.dumps(sorted(set(places))))
"""


def test_no_secret_is_anywhere_on_a_host_but_in_the_environments(applications):
    """Backups, logs that CloudWatch gets, PM2's dump, shell histories and temporary files are all among these."""
    for application in applications:
        assert application.python(FIND) == []


def files_since(top, began):
    """Path and content of the files below a directory that were written since; other processes come and go there."""
    for directory, _directories, names in os.walk(top):
        for path in (Path(directory, name) for name in names):
            with contextlib.suppress(OSError):
                if path.is_file() and not path.is_symlink() and path.stat().st_mtime >= began:
                    yield path, path.read_bytes()


def test_no_secret_is_in_anything_that_the_controller_wrote(controller):
    assert len(controller.runs) == 7
    assert all(len(secret) >= 20 for secret in controller.canaries.values())
    texts = [(trace, text.encode()) for run in controller.runs for trace, text in run.traces.items()]
    own = {controller.directory / "variables.yml", DATABASE_PASSWORD}
    tops = (Path("/tmp"), Path.home() / ".ansible")
    files = (found for top in tops for found in files_since(top, controller.began) if found[0] not in own)
    leaks = [
        f"{name} in {place}"
        for place, content in itertools.chain(texts, files)
        for name, secret in controller.canaries.items()
        if secret.encode() in content
    ]
    assert leaks == []


def test_the_traces_were_there_to_be_searched(controller):
    """A search of nothing finds nothing."""
    for run in controller.runs:
        assert len(run.traces["output"]) > 10_000
        assert len(run.traces["log"]) > 10_000
