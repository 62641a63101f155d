"""Parts of the real playbooks, for plays that have other parts."""

from __future__ import annotations

import contextlib
from typing import Any


def task_of(tasks: list[Any], name: str) -> dict[str, Any]:
    """A task of a playbook, wherever in its blocks it is."""
    for task in tasks:
        if task.get("name") == name and "block" not in task:
            return dict(task)
        for part in ("block", "rescue", "always"):
            with contextlib.suppress(LookupError):
                return task_of(task.get(part, []), name)
    raise LookupError(name)
