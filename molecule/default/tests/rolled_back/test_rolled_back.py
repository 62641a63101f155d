"""After the rollback."""

from conftest import serves

testinfra_hosts = ["ansible://app"]


def test_version_1_0_0_serves_again(application):
    serves(application, "1.0.0")


def test_both_releases_are_kept(application):
    assert [release["version"] for release in application.kept] == ["1.0.0", "1.1.0"]


def test_the_journal_says_so(application):
    assert [(record["status"], record["version"]) for record in application.journal[-3:]] == [
        ("started", "1.0.0"),
        ("succeeded", "1.0.0"),
        ("rolled_back", "1.1.0"),
    ]
