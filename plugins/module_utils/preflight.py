# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a release fits on every host of a fleet, and what is going to happen there: before anything is written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils.batches import batches as cut
from ansible_collections.roastify.ops.plugins.module_utils.release_reuse import is_whole
from ansible_collections.roastify.ops.plugins.module_utils.releases import SPACE_RESERVE
from ansible_collections.roastify.ops.plugins.module_utils.tables import ambiguous, names

_COMPARATOR = re.compile(r"(>=|<=|>|<|=|\^|~)?\s*v?(\d+|[xX*])(?:\.(\d+|[xX*]))?(?:\.(\d+|[xX*]))?(?:[-+]\S*)?")
_MEBIBYTE = 2**20


def problems(info: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[str]:
    """What stands in the way of a release on one host, each with what to do.

    Args:
        info: of the host, as module release_info gives it.
        manifest: of the artifact; in check mode it may not be built, and then nobody knows what room it needs.
    """
    found = []
    if _is_built(manifest) and not _is_here(info, manifest):
        wanted = _bytes_wanted(manifest)
        if info["free_bytes"] <= wanted:
            found.append(
                f"not enough space: {info['free_bytes'] // _MEBIBYTE} MiB free, {wanted // _MEBIBYTE} MiB needed. "
                "What to do: free some (old logs, old dumps of the database) or enlarge the volume"
            )
        # -1: the file system does not count them.
        if info["free_files"] != -1 and info["free_files"] <= manifest["files"]:
            found.append(
                f"not enough inodes: {info['free_files']} free, {manifest['files']} needed. What to do: remove many "
                "small files, or enlarge the volume"
            )
    wanted_node = manifest.get("node")
    if wanted_node and info["node_version"] and satisfies(info["node_version"], wanted_node) is False:
        found.append(
            f"Node.js {info['node_version']} runs here, and the application wants {wanted_node} (engines of its "
            "package.json). What to do: install it (roastify.ops.node_runtime, setup playbook). PM2 keeps the one that "
            "it was started with: then restart it, host by host and out of the load balancer (runbook)"
        )
    return found


def peers(batches: Sequence[Sequence[str]], hosts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Batches that would leave nobody to serve while their hosts are out of the load balancer.

    Hosts of earlier batches serve the new release by then: their gate has opened, or the deployment has ended.

    Args:
        batches: in which the hosts are switched.
        hosts: of each its info, as module release_info gives it.

    Returns:
        A sentence for each of them, with what to do.
    """
    serving = {host for host, info in hosts.items() if (info["health"] or {}).get("healthy")}
    everyone = [host for batch in batches for host in batch]
    found = []
    well = set(serving)
    for batch in batches:
        others = [host for host in everyone if host not in batch]
        if others and serving & set(batch) and not well & set(others):
            new = [host for host in others if host in hosts and not hosts[host]["live"]]
            ill = [host for host in others if host not in new]
            why = [f"{names(ill)} {'are' if len(ill) > 1 else 'is'} not healthy"] if ill else []
            why += [f"nothing is live on {names(new)} yet"] if new else []
            mend = f"mend {names(ill)} first (playbooks/doctor.yml), or " if ill else ""
            found.append(
                f"while {names(batch)} would be out of the load balancer nobody would serve: {', and '.join(why)}. "
                f"What to do: {mend}leave hosts in the load balancer while they are switched: -e deploy_drain=false"
            )
        well |= set(batch)
    return found


def lost_hosts(hosts: Sequence[str], answering: Sequence[str], limit: str = "localhost,app") -> list[str]:
    """What to do about hosts that Ansible has lost in this run: it goes on without them, and does not say so again.

    Args:
        hosts: that the run is for.
        answering: of these, those that answer still.
        limit: option ``--limit`` of the run, or what it is like without one.

    Returns:
        One sentence with what to do; none if all of them answer.
    """
    lost = [host for host in hosts if host not in answering]
    if not lost:
        return []
    # Where a pattern has a comma, a colon divides nothing any more.
    divider = ":" if ":" in limit and "," not in limit else ","
    without = divider.join([limit, *(f"!{host}" for host in lost)])
    return [
        f"{', '.join(lost)} did not answer in this run; see above. What to do: see why, or go on without: "
        f"--limit '{without}'"
    ]


def batches_that_serve(
    hosts: Sequence[str], sizes: int | str | Sequence[int | str], infos: Mapping[str, Mapping[str, Any]]
) -> list[list[str]]:
    """Batches of a fleet whose hosts leave the load balancer while they are switched.

    In their usual order, whose first host is known and tried first; but where nobody would be left to serve, hosts on
    which nothing is live go before all others, if that helps: they serve by the time the others leave. So a fleet of
    one can grow.

    Args:
        hosts: names, in the usual order.
        sizes: of the batches, as for `batches.batches`.
        infos: of each host its info, as module release_info gives it.

    Raises:
        ValueError: sizes that make no sense.
    """
    usual = cut(hosts, sizes)
    if not peers(usual, infos):
        return usual
    new = [host for host in hosts if host in infos and not infos[host]["live"]]
    other = cut([*new, *(host for host in hosts if host not in new)], sizes)
    return usual if peers(other, infos) else other


def plan(
    hosts: Mapping[str, Mapping[str, Any]], manifest: Mapping[str, Any], release: str, batches: Sequence[Sequence[str]]
) -> list[dict[str, Any]]:
    """One row for each host: how it stands, and what is going to be done.

    Args:
        hosts: of each its info, as module release_info gives it.
        manifest: of the artifact.
        release: id of the release.
        batches: in which the hosts are switched.
    """
    batch_of = {host: number for number, batch in enumerate(batches, 1) for host in batch}
    rows = [_row(host, info, manifest, release, batch_of.get(host)) for host, info in hosts.items()]
    lives = [info["live"] or {} for info in hosts.values()]
    alike = ambiguous([(live.get("version"), live.get("id")) for live in lives] + [(manifest.get("version"), release)])
    for row, live in zip(rows, lives):
        if row["serves"] in alike:
            row["serves"] = live["id"]
    return rows


def _row(
    host: str, info: Mapping[str, Any], manifest: Mapping[str, Any], release: str, batch: int | None
) -> dict[str, Any]:
    live = info["live"] or {}
    here, built = _is_here(info, manifest), _is_built(manifest)
    if live.get("id") == release:
        action = "nothing: it is live"
    elif any(kept["id"] == release and is_whole(kept) for kept in info["kept"]):
        action = "switch: it is here"
    elif here:
        action = "share files, switch"
    else:
        action = "transfer, switch" if built else "build, transfer, switch"
    needed = None
    if here:
        needed = 0  # what a host keeps has no size
    elif built:
        needed = _bytes_wanted(manifest) // _MEBIBYTE
    return {
        "host": host,
        "serves": live.get("version"),
        "healthy": (info["health"] or {}).get("healthy"),
        "to do": action,
        "batch": batch,
        "MiB free": info["free_bytes"] // _MEBIBYTE,
        "MiB needed": needed,
        "Node.js": info["node_version"],
        "lock": (info["lock"] or {}).get("holder"),
    }


def _is_built(manifest: Mapping[str, Any]) -> bool:
    return "sha256" in manifest


def _is_here(info: Mapping[str, Any], manifest: Mapping[str, Any]) -> bool:
    return any(kept["sha256"] == manifest.get("sha256") and is_whole(kept) for kept in info["kept"])


def _bytes_wanted(manifest: Mapping[str, Any]) -> int:
    return int(manifest["size"]) + int(manifest["unpackedSize"]) + SPACE_RESERVE


def satisfies(version: str, wanted: str) -> bool | None:
    """Whether a version of Node.js is in a range, as package.json writes it.

    Args:
        version: for instance 18.20.8.
        wanted: for instance ``>=18 <25`` or ``^20.1 || 22``.

    Returns:
        None if the range uses more of npm's grammar than comparators, ``^``, ``~``, ``x`` and ``||``
        (docs.npmjs.com, semver): what is not understood must not stop a deployment.
    """
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    if len(numbers) != 3:
        return None
    answers = [_in_all(numbers, alternative) for alternative in wanted.split("||")]
    return None if None in answers else any(answers)


def _in_all(version: tuple[int, ...], wanted: str) -> bool | None:
    if re.search(r"\s-\s", wanted):
        return None
    text = wanted.strip()
    position, good = 0, True
    while position < len(text):
        match = _COMPARATOR.match(text, position)
        if match is None:
            return None
        good = good and _holds(version, match[1] or "", [match[2], match[3], match[4]])
        position = match.end()
        position += len(text[position:]) - len(text[position:].lstrip())
    return good


def _holds(version: tuple[int, ...], operator: str, parts: Sequence[str | None]) -> bool:
    """One comparator; what is left out or x stands for any number."""
    known: list[int] = []
    for part in parts:
        if part is None or not part.isdigit():
            break
        known.append(int(part))
    if not known:
        return True
    low = (*known, 0, 0)[:3]
    if operator == "^":
        fixed = next((index for index, number in enumerate(known) if number), len(known) - 1)
        return version >= low and version[: fixed + 1] == low[: fixed + 1]
    if operator == "~":
        fixed = min(len(known), 2)
        return version >= low and version[:fixed] == low[:fixed]
    prefix = version[: len(known)]
    return {
        "": prefix == tuple(known),
        "=": prefix == tuple(known),
        ">=": version >= low,
        "<": version < low,
        ">": prefix > tuple(known),
        "<=": prefix <= tuple(known),
    }[operator]
