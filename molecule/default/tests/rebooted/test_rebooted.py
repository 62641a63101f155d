"""After a reboot, nobody having touched anything."""

from conftest import serves

testinfra_hosts = ["ansible://app"]


def test_the_live_release_serves(application):
    serves(application, "1.0.0")
