"""What holds for all unit tests."""

import json

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import releases
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture
def host(tmp_path):
    """The release b replaced a."""
    host = releases.Host(str(tmp_path))
    host.environments.mkdir(parents=True)
    for name in ("a", "b"):
        directory = tmp_path / "releases" / name
        directory.mkdir(parents=True)
        (directory / ".release.json").write_text(json.dumps({"id": name, "version": "1", "commit": None}))
    host.link.symlink_to("releases/b")
    host.states.went_live("a", None)
    host.states.went_live("b", "a")
    return host
