"""Parts of the real playbooks, for plays that have other parts."""

from __future__ import annotations

import contextlib
from typing import Any


def task_of(tasks: list[Any], name: str) -> dict[str, Any]:
    """A task or a block of a playbook, wherever in its blocks it is; of two with the same name the inner one."""
    for task in tasks:
        for part in ("block", "rescue", "always"):
            with contextlib.suppress(LookupError):
                return task_of(task.get(part, []), name)
        if task.get("name") == name:
            return dict(task)
    raise LookupError(name)
