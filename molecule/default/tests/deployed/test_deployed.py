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
        ("/shared/environments", "root", 0o750),
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


def test_the_environment_is_that_of_the_release(application):
    link = application.run(f"readlink {application.root}/current/.env")
    assert link == f"../../shared/environments/{application.live['id']}.env"
    assert application.run(f"stat -L -c '%U %a' {application.root}/current/.env") == "roastify 600"


def test_no_lock_is_left(host, application):
    with host.sudo():
        assert not host.file(f"{application.root}/.deploy.lock").exists


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
