# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cut a fleet into the batches that are switched one after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence


def batches(hosts: Sequence[str], sizes: Sequence[int | str]) -> list[list[str]]:
    """Hosts in batches.

    Args:
        hosts: names, in the order in which they are to be switched.
        sizes: size of each batch, as a number of hosts or a percentage of the fleet (``25%``, rounded up); the last
            one repeats until no host is left.

    Returns:
        The batches, none of them empty.

    Raises:
        ValueError: no size, or one that isn't at least one host.
    """
    if not sizes:
        raise ValueError('no batch sizes: give at least one, for instance ["100%"]')
    counts = [_count(size, len(hosts)) for size in sizes]
    cut: list[list[str]] = []
    remaining = list(hosts)
    while remaining:
        count = counts[min(len(cut), len(counts) - 1)]
        cut.append(remaining[:count])
        remaining = remaining[count:]
    return cut


def _count(size: int | str, total: int) -> int:
    text = str(size).strip()
    try:
        if text.endswith("%"):
            count = math.ceil(total * float(text[:-1]) / 100) if float(text[:-1]) > 0 else 0
        else:
            count = int(text)
    except ValueError:
        count = 0
    if count < 1 and total:
        raise ValueError(f'batch size "{size}" is neither a number of hosts above 0 nor a percentage above 0%')
    return count
