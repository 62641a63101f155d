# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was deployed when, for a whole fleet, out of the journals of its hosts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils.deployments import FAILED, ROLLED_BACK, STARTED, SUCCEEDED
from ansible_collections.roastify.ops.plugins.module_utils.tables import ambiguous, names

#: Of what hosts say differently of one deployment, the first of these tells how it ended for the fleet.
_WORST_FIRST = (FAILED, STARTED, SUCCEEDED)
#: Characters of a reason that people are shown; the JSON has all of it.
_REASON = 80


def history(journals: Mapping[str, Sequence[Mapping[str, Any]]], apart: bool = False) -> list[dict[str, Any]]:
    """Each deployment once, the newest last.

    Args:
        journals: records of each host, oldest first, as the journal has them.
        apart: for people: the id of a release in place of its version where another release has the same version, of a
            reason the beginning, and of many hosts some.

    Returns:
        Of each deployment: `at`, `action`, `status` (`unfinished` if a host never learnt how it ended), `version`,
        `release` (its id), `from` and `from release` (those before), `by`, `hosts` (those that have a record),
        `deployment` and `reason`.
    """
    runs: dict[str, dict[str, Any]] = {}
    ends: dict[str, dict[str, str]] = {}
    for host, records in journals.items():
        for record in records:
            identifier = str(record["deploymentId"])
            if record["status"] == ROLLED_BACK:
                continue  # the same rollback, told of the release that was left
            row = runs.setdefault(
                identifier,
                {
                    "at": record["deployedAt"],
                    "action": record["action"],
                    "status": "",
                    "version": record["version"],
                    "release": record.get("release"),
                    "from": record.get("previousVersion"),
                    "from release": record.get("previousRelease"),
                    "by": record.get("deployedBy"),
                    "hosts": "",
                    "deployment": identifier,
                    "reason": None,
                },
            )
            row["at"] = min(row["at"], record["deployedAt"])
            row["reason"] = record.get("reason") or row["reason"]
            ends.setdefault(identifier, {})[host] = record["status"]
    for identifier, row in runs.items():
        statuses = ends[identifier]
        said = sorted(set(statuses.values()))
        worst = next((status for status in _WORST_FIRST if status in said), said[0])
        row["status"] = "unfinished" if worst == STARTED else worst
        row["hosts"] = names(sorted(statuses), 6 if apart else len(statuses))
    if apart:
        _tell_apart(runs.values())
        for row in runs.values():
            row["reason"] = _in_short(row["reason"])
    return sorted(runs.values(), key=lambda row: (row["at"], row["deployment"]))


def _in_short(reason: str | None) -> str | None:
    """The beginning of a reason, so that a table stays one."""
    line = reason.splitlines()[0] if reason else ""
    return (f"{line[:_REASON]}..." if len(line) > _REASON else line) or None


def _tell_apart(rows: Iterable[dict[str, Any]]) -> None:
    pairs = (("version", "release"), ("from", "from release"))
    alike = ambiguous((row[version], row[release]) for row in rows for version, release in pairs)
    for row in rows:
        for version, release in pairs:
            if row[version] in alike:
                row[version] = row[release] or row[version]
