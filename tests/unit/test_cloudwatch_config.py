from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ansible_collections.roastify.ops.plugins.module_utils.cloudwatch_config import (
    RETENTION_DAYS,
    ConfigurationError,
    build,
)

ROOT = Path(__file__).parents[2]
ROLE = ROOT / "roles" / "cloudwatch_agent"
SCHEMA = json.loads((ROOT / "tests" / "data" / "cwagent-schema.json").read_text(encoding="utf-8"))
DEFAULTS = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text(encoding="utf-8"))


def settings(**changes: Any) -> dict[str, Any]:
    """What the role's variables make of its defaults."""
    names = yaml.safe_load((ROLE / "vars" / "main.yml").read_text(encoding="utf-8"))["_cloudwatch_agent_settings"]
    own = {name: DEFAULTS[text.strip("{} ")] for name, text in names.items()}
    return {**own, **changes}


def complaints(configuration: dict[str, Any]) -> list[str]:
    return [error.message for error in jsonschema.Draft4Validator(SCHEMA).iter_errors(configuration)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"region": "us-east-1", "endpoint": "http://127.0.0.1:5000"},
        {"logs": []},
        {"processes": []},
        {"measurements": {}},
        {"measurements": {"mem": ["used_percent"]}},
        {
            "logs": [
                {
                    "path": "/var/log/app.log",
                    "group": "/aws/ec2/app",
                    "stream": "{hostname}",
                    "timestamp_format": "%Y-%m-%dT%H:%M:%S",
                    "exclude": ["GET /health"],
                }
            ]
        },
    ],
)
def test_the_agent_accepts_it(changes: dict[str, Any]) -> None:
    assert complaints(build(settings(**changes))) == []


def test_the_agents_schema_does_refuse() -> None:
    configuration = build(settings())
    configuration["logs"]["logs_collected"]["files"]["collect_list"][0]["retention_in_days"] = 31
    assert complaints(configuration)


def test_what_the_design_asks_for_is_in_it() -> None:
    configuration = build(settings())
    logs = configuration["logs"]["logs_collected"]["files"]["collect_list"]
    assert {log["log_group_name"] for log in logs} == {"/aws/ec2/roastify"}
    assert {log["retention_in_days"] for log in logs} == {30}
    metrics = configuration["metrics"]["metrics_collected"]
    assert metrics["mem"]["measurement"] == ["used_percent"]
    assert metrics["disk"] == {"measurement": ["used_percent"], "resources": ["/"], "drop_device": True}
    assert metrics["procstat"][0]["exe"] == "^node"


def test_all_problems_at_once() -> None:
    logs = [{"path": "relative", "group": "a group", "stream": "a:b", "retention_days": 31}]
    with pytest.raises(ConfigurationError) as caught:
        build(settings(logs=logs, measurements={"mem": ["used"], "disk": ["usedpercent"], "cpu": ["x"]}))
    message = str(caught.value)
    for part in (
        "logs[0].path must be an absolute path",
        "logs[0].group must be",
        "logs[0].stream must be",
        "logs[0].retention_days is 31; CloudWatch knows -1, 1, 3",
        "measurements.disk has no usedpercent; it has free",
        "measurements.cpu is not known; known are disk, mem, procstat",
    ):
        assert part in message


def test_retention_times_are_those_of_the_agent() -> None:
    text = json.dumps(SCHEMA["definitions"]["logsDefinition"]["definitions"]["retentionInDaysDefinition"])
    assert all(str(days) in text for days in RETENTION_DAYS)


def test_defaults_and_argument_specs_agree() -> None:
    for role in ("cloudwatch_agent", "app_env"):
        directory = ROOT / "roles" / role
        defaults = yaml.safe_load((directory / "defaults" / "main.yml").read_text(encoding="utf-8"))
        specs = yaml.safe_load((directory / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
        options = {}
        for entry in specs["argument_specs"].values():
            options.update(entry["options"])
        assert {name: option["default"] for name, option in options.items() if "default" in option} == defaults
