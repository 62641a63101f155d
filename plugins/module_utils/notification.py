# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people and machines are told of a deployment that began or ended."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils.deployments import (
    DEPLOY,
    FAILED,
    ROLLBACK,
    ROLLED_BACK,
    STARTED,
    STATUSES,
    SUCCEEDED,
)
from ansible_collections.roastify.ops.plugins.module_utils.deployments import now as _now

#: Lines of the first failure that are told: enough for a cause, what to do and the newest evidence.
FAILURE_LINES = 15
#: Failures of further hosts of which the first line is told.
FURTHER_FAILURES = 5
#: Characters of one line of a failure. With the above it stays far below the 4,000 characters that Slack advises for a
#: text, and below the 256 KiB of a message of Amazon SNS.
LINE_LENGTH = 200
#: Hosts that are named; of more the number is told.
NAMED_HOSTS = 6
#: Characters of a subject of Amazon SNS, ASCII without line breaks (API reference of SNS, action Publish).
SUBJECT_LENGTH = 100
#: User and password in an address, up to the last "@": a password may contain that character itself.
_CREDENTIALS = re.compile(r"(?<=://)\S*(?=@)")


@dataclass(frozen=True)
class Notice:
    """All that can be told of one event; what is empty is left out.

    Attributes:
        event: ``started``, ``succeeded``, ``failed`` or ``rolled_back``.
        name: of the application.
        environment: where, for instance ``production``.
        action: ``deploy`` or ``rollback``; which of them failed, or began.
        version: that was, or is to be, deployed or returned to.
        commit: that it was built from.
        previous_version: that served before.
        deployed_by: who ran it.
        deployment: its id.
        hosts: the fleet.
        seconds: how long it took.
        failures: the message of every host that failed, secrets already masked.
        lost: hosts that do not answer.
        unreturned: hosts that could not be returned to the release before.
        switched: hosts that serve the new release although the deployment failed.
        command: what to type next.
    """

    event: str
    name: str
    environment: str = ""
    action: str = DEPLOY
    version: str = ""
    commit: str = ""
    previous_version: str = ""
    deployed_by: str = ""
    deployment: str = ""
    hosts: Sequence[str] = ()
    seconds: int | None = None
    failures: Sequence[str] = ()
    lost: Sequence[str] = ()
    unreturned: Sequence[str] = ()
    switched: Sequence[str] = ()
    command: str = ""


def message(told: Mapping[str, Any], now: str = "") -> dict[str, Any]:
    """An event in all the forms that it is sent in.

    Args:
        told: the attributes of ``Notice``, by name.
        now: when it happened (UTC, ISO 8601); the present moment by default.

    Returns:
        ``subject`` and ``text`` for people; ``payload`` for webhooks: ``text`` as Slack reads it, and beside it the
        fields of the journal; ``json``, the JSON of these fields with the text for people.

    Raises:
        ValueError: the event or the action is none of those, or an attribute is unknown.
    """
    known = {field.name for field in fields(Notice)}
    unknown = sorted(set(told) - known)
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: no such attribute of a notice; there are {', '.join(sorted(known))}")
    notice = Notice(**{name: value for name, value in told.items() if value is not None})
    if notice.event not in STATUSES:
        raise ValueError(f"event {notice.event}: it must be one of {', '.join(STATUSES)}")
    if notice.action not in (DEPLOY, ROLLBACK):
        raise ValueError(f"action {notice.action}: it must be {DEPLOY} or {ROLLBACK}")
    reason = _reason(notice)
    machine = {
        "status": notice.event,
        "action": notice.action,
        "application": notice.name,
        "environment": notice.environment,
        "version": notice.version,
        "commit": notice.commit,
        "previousVersion": notice.previous_version,
        "deployedAt": now or _now(),
        "deployedBy": notice.deployed_by,
        "deploymentId": notice.deployment,
        "hosts": list(notice.hosts),
        "durationSeconds": notice.seconds,
        "reason": "\n".join(reason),
    }
    known_of_it = {name: value for name, value in machine.items() if value not in ("", [], None)}
    text = _plain(notice, reason)
    return {
        "subject": _subject(_title(notice)),
        "text": text,
        "payload": {"text": _slack(notice, reason), **known_of_it},
        "json": json.dumps({"text": text, **known_of_it}, ensure_ascii=False),
    }


def _title(notice: Notice) -> str:
    what = f"{notice.name} {notice.version}".strip()
    back = f"{notice.name} to {notice.version}" if notice.version else notice.name
    to, where = (f" {word} {notice.environment}" if notice.environment else "" for word in ("to", "in"))
    run = f"rollback of {back}{where}" if notice.action == ROLLBACK else f"deployment of {what}{to}"
    return {
        STARTED: f"{run[0].upper()}{run[1:]} has begun",
        SUCCEEDED: f"{what} serves{where}",
        FAILED: f"FAILED: {run}",
        ROLLED_BACK: f"{notice.name}{where} was rolled back" + (f" to {notice.version}" if notice.version else ""),
    }[notice.event]


def _facts(notice: Notice) -> str:
    facts = {
        "Before": notice.previous_version,
        "Commit": notice.commit[:12],
        "By": notice.deployed_by,
        "Hosts": _several(notice.hosts),
        "Took": "" if notice.seconds is None else _duration(int(notice.seconds)),
        "Deployment": notice.deployment,
    }
    return "\n".join(f"{name}: {value}" for name, value in facts.items() if value)


def _state(notice: Notice) -> list[str]:
    """What the hosts serve after a failure; one that may serve the wrong release first."""
    if notice.event != FAILED:
        return []
    lines = []
    if notice.unreturned:
        lines.append(f"COULD NOT BE RETURNED to the release before: {_several(notice.unreturned)}.")
    if notice.lost:
        lines.append(f"Does not answer, see what it serves: {_several(notice.lost)}.")
    if notice.switched:
        lines.append(f"Serves the new release, so that the fleet is on two versions: {_several(notice.switched)}.")
    apart = {*notice.unreturned, *notice.lost, *notice.switched}
    if not set(notice.hosts) <= apart:
        who = "Every other host" if apart else "Every host"
        serves = f"serves {notice.previous_version} as before" if notice.previous_version else "is as it was before"
        lines.append(f"{who} {serves}.")
    return lines


def _reason(notice: Notice) -> list[str]:
    """The first failure with its evidence, of the others what they begin with."""
    if not notice.failures:
        return []
    lines = [line.rstrip() for line in notice.failures[0].splitlines() if line.strip()]
    left_out = len(lines) - FAILURE_LINES
    told = lines[:FAILURE_LINES] + ([f"({left_out} more lines)"] if left_out > 0 else [])
    others = notice.failures[1:]
    told += [(other.splitlines() or [""])[0] for other in others[:FURTHER_FAILURES]]
    if len(others) > FURTHER_FAILURES:
        told.append(f"(and {len(others) - FURTHER_FAILURES} more hosts)")
    masked = (_CREDENTIALS.sub("********", line) for line in told)
    return [line if len(line) <= LINE_LENGTH else f"{line[:LINE_LENGTH]}..." for line in masked]


def _plain(notice: Notice, reason: Sequence[str]) -> str:
    parts = [_title(notice), _facts(notice), "\n".join(_state(notice)), "\n".join(f"  {line}" for line in reason)]
    if notice.command:
        parts.append(f"Next: {notice.command}")
    return "\n\n".join(filter(None, parts))


def _slack(notice: Notice, reason: Sequence[str]) -> str:
    parts = [f"*{_escaped(_title(notice))}*", _escaped(_facts(notice)), _escaped("\n".join(_state(notice)))]
    if reason:
        parts.append(_fenced("\n".join(reason)))
    if notice.command:
        parts.append(f"Next:\n{_fenced(notice.command)}")
    return "\n".join(filter(None, parts))


def _escaped(text: str) -> str:
    """Slack's three control characters: whoever names a commit must not be able to call a whole channel."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _fenced(text: str) -> str:
    return f"```\n{_escaped(text).replace('```', chr(39) * 3)}\n```"


def _subject(title: str) -> str:
    plain = re.sub(r"[^ -~]+", "?", " ".join(title.split())).strip() or "?"
    return plain if len(plain) <= SUBJECT_LENGTH else f"{plain[: SUBJECT_LENGTH - 3]}..."


def _several(hosts: Sequence[str]) -> str:
    named = ", ".join(hosts[:NAMED_HOSTS])
    return named if len(hosts) <= NAMED_HOSTS else f"{named} and {len(hosts) - NAMED_HOSTS} more"


def _duration(seconds: int) -> str:
    minutes, rest = divmod(max(seconds, 0), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    while len(parts) > 1 and not parts[0][0]:
        parts.pop(0)
    return " ".join(f"{number} {unit}" for number, unit in parts)
