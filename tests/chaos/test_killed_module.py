"""A module of the engine is killed on one host of three, each time right before a certain system call.

The controller lives and sees a module that ended without an answer: the fleet returns to one release by itself, and
the next deployment succeeds. Which call it is does not depend on luck; see `drill.accident`.
"""

from __future__ import annotations

import drill
import pytest
from demo import Fleet
from drill import NEW, OLD, Visitors

pytestmark = pytest.mark.slow

# Module, audit event, its arguments, which of several such events.
MOMENTS = {
    "as the lock is taken": ("deploy_lock", "os.rename", r"/\.deploy\.lock", 1),
    "in the middle of unpacking": ("release_stage", "open", r"server\.js", 1),
    "as the state of the new release is written": ("release_stage", "os.rename", r"/\.states/", 1),
    "before the new release gets its name": ("release_stage", "os.rename", r"/\.staging-\S+ /srv/\S+/releases/", 1),
    "as the timer is set": ("release_activate", "os.rename", r"/\.deadman\.json", 1),
    "before the link is made": ("release_activate", "os.symlink", r"/\.current\.", 1),
    "between the link and its renaming": ("release_activate", "os.rename", r"/\.current\.", 1),
    "after the renaming, before it is written down": ("release_activate", "os.rename", r"/\.states/", 1),
    "between the states of the new and the old": ("release_activate", "os.rename", r"/\.states/", 2),
    "as the timer is stopped": ("release_finish", "os.remove", r"/\.deadman\.json", 1),
    "before the lock is given back": ("release_finish", "os.remove", r"/\.deploy\.lock", 1),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_module_needs_no_cleaning_up(
    fleet: Fleet, artifacts: dict[str, str], visitors: Visitors, moment: str
) -> None:
    host = list(fleet.hosts)[1]
    module, event, pattern, nth = MOMENTS[moment]
    artifact = drill.variant(artifacts[NEW], "killed-module", drill.marked)
    with drill.accident(host, module, event, pattern, nth):
        status, output = drill.deploy(f"killed {moment}", artifact)
    assert status != 0, output
    if module != "deploy_lock":
        assert "it ended on the host without an answer, exit code 137" in " ".join(output.split())
    served = drill.served(fleet)
    assert set(served.values()) == {OLD}, f"{served}: {output[-3000:]}"
    drill.require_all_is_well(fleet, visitors, f"killed {moment}")
