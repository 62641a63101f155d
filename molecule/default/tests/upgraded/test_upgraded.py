"""After 1.1.0, with a new migration."""

from conftest import serves

testinfra_hosts = ["ansible://app"]


def test_version_1_1_0_serves(application):
    serves(application, "1.1.0")


def test_1_0_0_is_kept(application):
    assert [release["version"] for release in application.kept] == ["1.0.0", "1.1.0"]


def test_the_journal_says_what_was_live_before(application):
    record = application.journal[-1]
    assert (record["action"], record["status"]) == ("deploy", "succeeded")
    assert (record["version"], record["previousVersion"]) == ("1.1.0", "1.0.0")
