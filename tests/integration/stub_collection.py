"""This collection with other modules or roles in the place of some, for plays that must not work on a host."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from migration_host import ROOT


def stub_collection(
    directory: Path, modules: Mapping[str, str], roles: Mapping[str, list[dict[str, Any]]] | None = None
) -> str:
    """Make it; all else are links to the real one.

    Args:
        directory: where, an empty one.
        modules: Python text of each module that is another one.
        roles: tasks of each role that is another one; ``NAME/ENTRY`` for an entry point of its own.

    Returns:
        Path for ANSIBLE_COLLECTIONS_PATH.
    """
    roles = roles or {}
    collection = directory / "collections" / "ansible_collections" / "roastify" / "ops"
    (collection / "plugins" / "modules").mkdir(parents=True)
    (collection / "roles").mkdir()
    for name in ("galaxy.yml", "meta", "playbooks"):
        (collection / name).symlink_to(ROOT / name)
    for path in (ROOT / "plugins").iterdir():
        if path.name != "modules":
            (collection / "plugins" / path.name).symlink_to(path)
    for path in (ROOT / "plugins" / "modules").glob("*.py"):
        if path.stem not in modules:
            (collection / "plugins" / "modules" / path.name).symlink_to(path)
    for path in (ROOT / "roles").iterdir():
        if path.name not in {name.partition("/")[0] for name in roles}:
            (collection / "roles" / path.name).symlink_to(path)
    for name, text in modules.items():
        (collection / "plugins" / "modules" / f"{name}.py").write_text(text)
    for name, tasks in roles.items():
        role, _, entry = name.partition("/")
        directory_of_tasks = collection / "roles" / role / "tasks"
        directory_of_tasks.mkdir(parents=True, exist_ok=True)
        (directory_of_tasks / f"{entry or 'main'}.yml").write_text(json.dumps(tasks))
    return str(directory / "collections")
