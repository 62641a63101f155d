#!/usr/bin/env python3
"""Lay out the source of one version of the reference application, for the demo and for the tests.

    python tools/sources.py 1.1.0 .cache/sources/1.1.0

makes DESTINATION/application and DESTINATION/migrations: copies of examples/roastify and migrations/ with the changes
of examples/changes applied up to that version. Nothing in the checkout is touched.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
APPLICATION = CHECKOUT / "examples" / "roastify"
CHANGES = CHECKOUT / "examples" / "changes"
MIGRATIONS = CHECKOUT / "migrations"
#: What a build or a developer leaves in a source tree.
LEFT_OVER = shutil.ignore_patterns("node_modules", "dist", ".env")


def base_version() -> str:
    """Version of examples/roastify as it stands."""
    return str(json.loads((APPLICATION / "package.json").read_text(encoding="utf-8"))["version"])


def changes_up_to(version: str) -> list[Path]:
    """The changes that lead from the base to a version, in order.

    A broken version (1.2.0-unhealthy) stands on the last whole one before it, not on other broken ones.

    Args:
        version: name of a file in examples/changes, or the base version.

    Raises:
        ValueError: there is no such version.
    """
    if version == base_version():
        return []
    wanted = CHANGES / f"{version}.patch"
    if not wanted.exists():
        known = ", ".join([base_version(), *sorted(path.stem for path in CHANGES.glob("*.patch"))])
        raise ValueError(f"there is no version {version} of the reference application; there are {known}")
    whole = [path for path in CHANGES.glob("*.patch") if "-" not in path.stem and _order(path) < _order(wanted)]
    return [*sorted(whole, key=_order), wanted]


def _order(path: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in path.stem.split("-")[0].split("."))


def make(version: str, destination: Path) -> None:
    """Lay a version out, in place of what is there.

    Args:
        version: which.
        destination: directory that gets application/ and migrations/; replaced if it exists.

    Raises:
        ValueError: there is no such version.
        subprocess.CalledProcessError: a change does not fit the example any more.
    """
    changes = changes_up_to(version)
    shutil.rmtree(destination, ignore_errors=True)
    destination.mkdir(parents=True)
    shutil.copytree(APPLICATION, destination / "application", ignore=LEFT_OVER)
    shutil.copytree(MIGRATIONS, destination / "migrations")
    for change in changes:
        # Within a checkout, git would take the paths from its root and skip them all without a word.
        environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(destination.resolve().parent)}
        subprocess.run(["git", "apply", str(change)], cwd=destination, env=environment, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("version")
    parser.add_argument("destination", type=Path)
    arguments = parser.parse_args()
    try:
        make(arguments.version, arguments.destination)
    except ValueError as error:
        print(f"{error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
