# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cut a fleet into the batches that are switched one after the other, and see whether settings of that make sense."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

#: Values that these settings may have.
_CHOICES = {
    "deploy_on_failure": ("rollback_fleet", "stop", "continue"),
    "db_migrate_on_failure": ("keep", "rollback"),
}


def batches(hosts: Sequence[str], sizes: int | str | Sequence[int | str]) -> list[list[str]]:
    """Hosts in batches.

    Args:
        hosts: names, in the order in which they are to be switched.
        sizes: size of each batch, as a number of hosts or a percentage of the fleet (``25%``, rounded up); the last
            one repeats until no host is left. A single one needs no list.

    Returns:
        The batches, none of them empty.

    Raises:
        ValueError: no size, or one that isn't at least one host.
    """
    if not listed(sizes):
        raise ValueError('no batch sizes: give at least one, for instance ["100%"]')
    counts = [_count(size, len(hosts)) for size in listed(sizes)]
    cut: list[list[str]] = []
    remaining = list(hosts)
    while remaining:
        count = counts[min(len(cut), len(counts) - 1)]
        cut.append(remaining[:count])
        remaining = remaining[count:]
    return cut


def listed(value: Any) -> list[Any]:
    """A setting that is a list, or the only element of one: a text is no list of its letters."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def rollout_problems(settings: Mapping[str, Any]) -> list[str]:
    """What makes no sense of the settings of a deployment or rollback.

    Args:
        settings: by the names of the playbooks' variables; which ones there are decides what is looked at.

    Returns:
        A sentence for each, with what to do.
    """
    found = []
    for name, value in settings.items():
        if name in _CHOICES and value not in _CHOICES[name]:
            found.append(f'{name} is "{value}". What to do: choose one of {", ".join(_CHOICES[name])}')
        elif name.endswith("_batches"):
            try:
                batches(["one"], value)
            except ValueError as error:
                found.append(f'{name}: {error}. What to do: give for instance [1, "25%"]')
        elif name == "deploy_minimum_healthy":
            try:
                _count(value, 1)
            except ValueError as error:
                found.append(f"{name}: {error}. What to do: give for instance 50%")
        elif name.endswith("_bake") and not (listed(value) and all(map(_is_time, listed(value)))):
            found.append(f"{name} is {value!r}. What to do: give seconds for each batch, for instance [60, 0]")
    return found


def _is_time(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and 0 <= float(value) < math.inf
    except (TypeError, ValueError):
        return False


def _count(size: int | str, total: int) -> int:
    text = str(size).strip()
    try:
        if text.endswith("%"):
            count = math.ceil(total * float(text[:-1]) / 100) if float(text[:-1]) > 0 else 0
        else:
            count = int(text)
    except (ValueError, OverflowError):
        count = 0
    if count < 1 and total:
        raise ValueError(f'batch size "{size}" is neither a number of hosts above 0 nor a percentage above 0%')
    return count
