# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the hosts of a fleet would return to the same release."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils.tables import names


def disagreement(choices: Mapping[str, Mapping[str, Any] | None], hosts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What stands in the way of a fleet that is to return to one release.

    Args:
        choices: of each host the manifest of the release that it would return to, or None.
        hosts: of each its info, as module release_info gives it.

    Returns:
        One sentence with its remedy if the hosts would return to different releases, else nothing. A host that has none
        to return to says so itself.
    """
    by_release: dict[str, list[str]] = {}
    for host, release in choices.items():
        if release:
            by_release.setdefault(release["id"], []).append(host)
    if len(by_release) < 2:
        return []
    who = [f"{names(those)} would return to {identifier}" for identifier, those in by_release.items()]
    homeless = [host for host, release in choices.items() if not release]
    if homeless:
        who.append(f"{names(homeless)} to none")
    live = {(info.get("live") or {}).get("id") for info in hosts.values()}
    kept = [[release["id"] for release in info["kept"]] for info in hosts.values()]
    # What some serve already is a way back for the others only where it is theirs; it is the nearest then.
    common = [
        identifier
        for identifier in kept[0]
        if all(identifier in each for each in kept) and (identifier not in live or identifier in by_release)
    ]
    common.sort(key=lambda identifier: identifier not in live)
    remedy = (
        f"name one that all hosts keep with -e release=ID: {', '.join(common)}"
        if common
        else "no earlier release is kept by all hosts; deploy the one that is meant (-e release_artifact=PATH)"
    )
    return [f"the hosts do not agree on the release to return to: {'; '.join(who)}. What to do: {remedy}"]
