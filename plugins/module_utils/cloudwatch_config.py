# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds the configuration of the Amazon CloudWatch agent.

The agent's own schema lets misspelt measurements and most other mistakes through and the agent then
sends nothing, so what can be checked is checked here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

RETENTION_DAYS = (
    -1, 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653
)  # fmt: skip
MEASUREMENTS = {
    "mem": {"used_percent", "available_percent", "used", "available", "free", "total", "buffered", "cached"},
    "disk": {"used_percent", "free", "total", "used", "inodes_free", "inodes_used", "inodes_total"},
    "procstat": {
        "cpu_usage", "cpu_time", "cpu_time_system", "cpu_time_user", "memory_rss", "memory_vms", "memory_data",
        "memory_stack", "memory_swap", "num_threads", "num_fds", "pid_count", "read_bytes", "write_bytes",
        "read_count", "write_count",
    },
}  # fmt: skip
_LOG_GROUP = re.compile(r"[A-Za-z0-9_/.#-]{1,512}\Z")
_STREAM = re.compile(r"[^:*]{1,512}\Z")


class ConfigurationError(ValueError):
    """The settings are wrong; the message names every problem."""


def build(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as a mapping, ready for JSON. Settings are those of the role cloudwatch_agent."""
    problems: list[str] = []
    collected = [_log(log, number, problems) for number, log in enumerate(settings["logs"])]
    for section, names in settings["measurements"].items():
        known = MEASUREMENTS.get(section)
        if known is None:
            problems.append(f"measurements.{section} is not known; known are {', '.join(sorted(MEASUREMENTS))}")
            continue
        for name in names:
            if name not in known:
                problems.append(f"measurements.{section} has no {name}; it has {', '.join(sorted(known))}")
    if problems:
        raise ConfigurationError("The CloudWatch agent cannot be configured so: " + "; ".join(problems))

    configuration: dict[str, Any] = {
        "agent": {
            "metrics_collection_interval": int(settings["interval"]),
            "run_as_user": str(settings["user"]),
        }
    }
    if settings.get("region"):
        configuration["agent"]["region"] = str(settings["region"])
    if collected:
        configuration["logs"] = {"logs_collected": {"files": {"collect_list": collected}}}
    metrics = _metrics(settings)
    if metrics:
        configuration["metrics"] = {
            "namespace": str(settings["namespace"]),
            "append_dimensions": dict(settings["dimensions"]),
            "aggregation_dimensions": [[name] for name in settings["dimensions"]],
            "metrics_collected": metrics,
        }
    for section in ("logs", "metrics"):
        if settings.get("endpoint") and section in configuration:
            configuration[section]["endpoint_override"] = str(settings["endpoint"])
    return configuration


def _log(log: Mapping[str, Any], number: int, problems: list[str]) -> dict[str, Any]:
    path, group, stream = (str(log.get(key, "")) for key in ("path", "group", "stream"))
    retention = log.get("retention_days")
    where = f"logs[{number}]"
    if not path.startswith("/"):
        problems.append(f"{where}.path must be an absolute path or pattern")
    if not _LOG_GROUP.match(group):
        problems.append(f"{where}.group must be up to 512 letters, digits and the characters _ - / . #")
    if not _STREAM.match(stream):
        problems.append(f"{where}.stream must be up to 512 characters other than : and *")
    entry: dict[str, Any] = {"file_path": path, "log_group_name": group, "log_stream_name": stream}
    if retention is not None:
        if retention not in RETENTION_DAYS:
            allowed = ", ".join(str(days) for days in RETENTION_DAYS)
            problems.append(f"{where}.retention_days is {retention}; CloudWatch knows {allowed}")
        entry["retention_in_days"] = retention
    if log.get("timestamp_format"):
        entry["timestamp_format"] = str(log["timestamp_format"])
        entry["timezone"] = "UTC"
    excluded: Sequence[str] = log.get("exclude") or ()
    if excluded:
        entry["filters"] = [{"type": "exclude", "expression": str(expression)} for expression in excluded]
    return entry


def _metrics(settings: Mapping[str, Any]) -> dict[str, Any]:
    measurements: Mapping[str, Sequence[str]] = settings["measurements"]
    metrics: dict[str, Any] = {}
    if measurements.get("mem"):
        metrics["mem"] = {"measurement": list(measurements["mem"])}
    if measurements.get("disk"):
        metrics["disk"] = {
            "measurement": list(measurements["disk"]),
            "resources": list(settings["disks"]),
            # Device names differ between instance types and would make a metric of each.
            "drop_device": True,
        }
    if measurements.get("procstat") and settings.get("processes"):
        metrics["procstat"] = [
            {"exe": str(expression), "measurement": list(measurements["procstat"])}
            for expression in settings["processes"]
        ]
    return metrics
