"""Ten of the drills' kills: the controller dies in the middle of a deployment, while users ask."""

import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[4]


def test_a_killed_controller_needs_no_cleaning_up() -> None:
    drill = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-s", "tests/chaos/test_killed_controller.py"]
    settings = {
        "CHAOS_INVENTORY": str(CHECKOUT / "molecule" / "inventory"),
        "CHAOS_DIRECTORY": str(CHECKOUT / "molecule" / "default"),
        "CHAOS_KILLS": "10",
        "CHAOS_RATE": "60",
    }
    done = subprocess.run(drill, cwd=CHECKOUT, env={**os.environ, **settings}, timeout=1200)
    assert done.returncode == 0, "see above, and .cache/drills/logs"
