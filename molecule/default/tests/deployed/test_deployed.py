"""After setup and the first deployment, run twice."""

import pytest
from conftest import serves

testinfra_hosts = ["ansible://app"]


def test_version_1_0_0_serves(application):
    serves(application, "1.0.0")


def test_health_is_as_the_seed_says(application):
    health = application.health()
    assert set(health) == {"status", "timestamp", "version", "uptime", "checks"}
    assert health["status"] == "healthy"
    assert set(health["checks"]["database"]) == {"status", "responseTime"}
    assert set(health["checks"]["memory"]) == {"used", "total", "percentage"}


def test_the_second_deployment_changed_nothing(application):
    assert [record["status"] for record in application.journal] == ["started", "succeeded"]
    assert len(application.kept) == 1


def test_the_record_has_the_fields_of_the_seed(application):
    record = application.journal[-1]
    assert record["version"] == "1.0.0"
    assert record["deployedAt"].endswith("Z")
    assert record["deployedBy"]
    assert record["commit"]


@pytest.mark.parametrize(
    ("path", "owner", "mode"),
    [
        ("", "root", 0o755),
        ("/releases", "root", 0o750),
        ("/current/.release.json", "root", 0o644),
        ("/current/backend/src/server.js", "root", 0o644),
        ("/shared/.env", "roastify", 0o600),
        ("/shared/logs", "roastify", 0o750),
        ("/deployments.jsonl", "root", 0o644),
    ],
)
def test_file_modes(host, application, path, owner, mode):
    with host.sudo():
        found = host.file(application.root + path)
        assert (found.user, found.mode) == (owner, mode)


def test_the_application_cannot_write_to_its_code(application):
    assert (
        application.run(
            f"find -L {application.root}/current -not -type l -user {application.user} -not -path '*/.env' "
            "-not -path '*/uploads*'"
        )
        == ""
    )


def test_the_environment_comes_from_the_shared_directory(application):
    assert application.run(f"readlink {application.root}/current/.env") == "../../shared/.env"


def test_no_lock_is_left(host, application):
    with host.sudo():
        assert not host.file(f"{application.root}/.deploy.lock").exists


# Runs on the host and names no secret on its command line, which sudo would write to the system's log.
FIND_SECRETS = """
import json, os, subprocess
lines = open("/srv/roastify/shared/.env").read().splitlines()
values = dict(line.split("=", 1) for line in lines if "=" in line)
secrets = [values[name].strip("'\\"").encode() for name in ("PG_PASSWORD", "JWT_SECRET")]
assert all(len(secret) >= 20 for secret in secrets)
places = []
for command in (["ps", "axeww"], ["pm2-roastify", "jlist"]):
    if any(secret in subprocess.run(command, capture_output=True, check=True).stdout for secret in secrets):
        places.append(" ".join(command))
for top in ("/etc", "/srv", "/var", "/tmp", "/root", "/home"):
    for directory, _directories, files in os.walk(top):
        for path in (os.path.join(directory, name) for name in files):
            if os.path.isfile(path) and not os.path.islink(path):
                content = open(path, "rb").read()
                places += [path for secret in secrets if secret in content]
print(json.dumps(sorted(set(places))))
"""


def test_secrets_are_in_one_file_only(application):
    assert application.python(FIND_SECRETS) == [f"{application.root}/shared/.env"]


def test_the_service_starts_at_boot(host, application):
    service = host.service(f"pm2-{application.user}")
    assert service.is_enabled
    assert service.is_running


def test_hashed_assets_may_be_cached_for_a_year(application):
    page = application.answer("/")[1]
    asset = page.split('src="')[1].split('"')[0]
    headers, _body = application.answer(asset)
    assert "max-age=31536000" in headers["cache-control"]
    assert "immutable" in headers["cache-control"]


def test_security_headers(application):
    headers, _body = application.answer("/")
    assert {"content-security-policy", "strict-transport-security", "x-frame-options", "x-content-type-options"} <= set(
        headers
    )
