# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell whether a fleet has a release already, the same artifact with the same environment, and what is left to do."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any


def reusable_release(
    hosts: Sequence[Mapping[str, Any]],
    sha256: str,
    links: Mapping[str, str] | None = None,
    assets: Sequence[str] | None = None,
) -> str | None:
    """The release that is to be deployed, if hosts have it.

    A release is an artifact and an environment, with links to what is shared. A host that has none of it under this id
    gets it; one that has something else under it rules the id out, and so does one whose release is damaged.

    Args:
        hosts: of each host its ``kept`` releases (their manifests with, where somebody looked, ``intact``), the id of
            its ``live`` one or None, and ``alike``: names of environments, ``<release id>.env``, that equal the one to
            be deployed.
        sha256: of the artifact to be deployed.
        links: that it is to have, as module release_stage takes them; None where any may be.
        assets: directories of assets that it is to have; None where any may be.

    Returns:
        Its id, that of most hosts' live release first, then the newest; None if a new one has to be made.
    """
    fitting: set[str] = set()
    unfit: set[str] = set()
    for host in hosts:
        for release in host["kept"]:
            fits = is_whole(release) and release["sha256"] == sha256 and f"{release['id']}.env" in host["alike"]
            fits = fits and (links is None or _links(release) == _wanted_links(links))
            fits = fits and (assets is None or _assets(release) == set(assets))
            (fitting if fits else unfit).add(release["id"])
    live = [host["live"] for host in hosts]
    # Ids begin with their time.
    return max(fitting - unfit, key=lambda identifier: (live.count(identifier), identifier), default=None)


def is_whole(release: Mapping[str, Any]) -> bool:
    """Whether nothing is known to be damaged in a release that a host keeps: what is, staging counts as absent.

    Args:
        release: as module release_info gives it.
    """
    return release.get("intact") is not False


def _links(release: Mapping[str, Any]) -> dict[str, str]:
    """What a release has, but for the environment, which is compared by its content."""
    return {name: target for name, target in (release.get("sharedLinks") or {}).items() if name != ".env"}


def _wanted_links(links: Mapping[str, str]) -> dict[str, str]:
    """What it is to have, as staging makes them."""
    places = {name: posixpath.join("releases/id", posixpath.dirname(name)) for name in links if name != ".env"}
    return {name: os.path.relpath(posixpath.join("shared", links[name]), place) for name, place in places.items()}


def _assets(release: Mapping[str, Any]) -> set[str]:
    return set(release.get("wantedAssets", release.get("sharedAssets")) or [])


def is_up_to_date(hosts: Sequence[Mapping[str, Any]], release: str, version: str | None, keep: int) -> bool:
    """Whether a deployment of a release would find nothing to do on any host.

    Args:
        hosts: of each its info, as module release_info gives it when it verifies and examines.
        release: id of the release, which reusable_release has found to be what is to be deployed.
        version: that has to answer; None where any may.
        keep: complete releases that a deployment would keep.

    Returns:
        True only where all hosts serve it well and hold nothing that a deployment would clear up.
    """
    return bool(hosts) and all(_is_up_to_date(host, release, version, keep) for host in hosts)


def _is_up_to_date(info: Mapping[str, Any], release: str, version: str | None, keep: int) -> bool:
    answer = info["health"] or {}
    return (
        (info["live"] or {}).get("id") == release
        and answer.get("healthy") is True
        and version in (None, answer.get("version"))
        and info["lock"] is None
        # None: nobody examined the host.
        and info["findings"] == []
        # The live and the previous one always stay.
        and len(info["kept"]) <= max(keep, 2)
    )
