# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which order a fleet goes back that failed in the middle of a deployment."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def way_back(hosts: Sequence[str], plan: Sequence[Sequence[str]], begun: Collection[str]) -> list[list[str]]:
    """Batches of hosts that go back together, the last that was switched first.

    Args:
        hosts: the fleet.
        plan: the batches in which it was to be switched; empty if that was not decided yet.
        begun: hosts whose switch has begun. Batches without one have nothing to go back from.

    Returns:
        The batches. Hosts that no batch of the plan has are one of their own, and the first: none is forgotten.
    """
    planned = {host for batch in plan for host in batch}
    batches = [list(batch) for batch in plan] + [[host for host in hosts if host not in planned]]
    return [batch for batch in reversed(batches) if not set(begun).isdisjoint(batch)]
