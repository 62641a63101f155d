"""What is told of a deployment, and how it gets to webhooks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.roastify.ops.plugins.module_utils import webhooks
from ansible_collections.roastify.ops.plugins.module_utils.notification import message

ROOT = Path(__file__).parents[2]
FAILED = {
    "event": "failed",
    "name": "shop",
    "environment": "production",
    "version": "1.2.0",
    "commit": "0123456789abcdef",
    "previous_version": "1.1.0",
    "deployed_by": "ann",
    "deployment": "20250102T030405Z-7",
    "hosts": ["app1", "app2", "app3"],
    "seconds": 72,
    "failures": ["app2, Try the release out: not fit for traffic\nEvidence:\n  HTTP 503 in 3 ms"],
    "command": "ansible-playbook -i inventories/production roastify.ops.status",
}


def test_a_failure_for_people() -> None:
    told = message(FAILED)
    assert told["subject"] == "FAILED: deployment of shop 1.2.0 to production"
    assert told["text"] == (
        "FAILED: deployment of shop 1.2.0 to production\n"
        "\n"
        "Before: 1.1.0\nCommit: 0123456789ab\nBy: ann\nHosts: app1, app2, app3\nTook: 1 min 12 s\n"
        "Deployment: 20250102T030405Z-7\n"
        "\n"
        "Every host serves 1.1.0 as before.\n"
        "\n"
        "  app2, Try the release out: not fit for traffic\n  Evidence:\n    HTTP 503 in 3 ms\n"
        "\n"
        "Next: ansible-playbook -i inventories/production roastify.ops.status"
    )


def test_a_failure_for_machines_has_the_names_of_the_journal() -> None:
    payload = message(FAILED, now="2025-01-02T03:05:17Z")["payload"]
    text = payload.pop("text")
    assert text.startswith("*FAILED: deployment of shop 1.2.0 to production*\nBefore: 1.1.0\n")
    assert "```\nansible-playbook -i inventories/production roastify.ops.status\n```" in text
    assert payload == {
        "status": "failed",
        "action": "deploy",
        "application": "shop",
        "environment": "production",
        "version": "1.2.0",
        "commit": "0123456789abcdef",
        "previousVersion": "1.1.0",
        "deployedAt": "2025-01-02T03:05:17Z",
        "deployedBy": "ann",
        "deploymentId": "20250102T030405Z-7",
        "hosts": ["app1", "app2", "app3"],
        "durationSeconds": 72,
        "reason": FAILED["failures"][0],
    }


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({"event": "started"}, "Deployment of shop 1.2.0 to production has begun"),
        ({"event": "started", "action": "rollback"}, "Rollback of shop to 1.2.0 in production has begun"),
        ({"event": "succeeded"}, "shop 1.2.0 serves in production"),
        ({"event": "failed", "action": "rollback"}, "FAILED: rollback of shop to 1.2.0 in production"),
        ({"event": "rolled_back"}, "shop in production was rolled back to 1.2.0"),
        ({"event": "rolled_back", "environment": "", "version": ""}, "shop was rolled back"),
        ({"event": "succeeded", "version": None, "environment": ""}, "shop serves"),
    ],
)
def test_titles(changes: dict[str, Any], title: str) -> None:
    told = message({**FAILED, **changes})
    assert told["subject"] == title
    assert told["text"].splitlines()[0] == title
    assert told["payload"]["text"].splitlines()[0] == f"*{title}*"
    if changes["event"] != "failed":
        assert "as before" not in told["text"]


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (
            {"lost": ["app3"], "unreturned": ["app1"]},
            [
                "COULD NOT BE RETURNED to the release before: app1.",
                "Does not answer, see what it serves: app3.",
                "Every other host serves 1.1.0 as before.",
            ],
        ),
        ({"lost": ["app1", "app2", "app3"]}, ["Does not answer, see what it serves: app1, app2, app3."]),
        (
            {"switched": ["app1"]},
            [
                "Serves the new release, so that the fleet is on two versions: app1.",
                "Every other host serves 1.1.0 as before.",
            ],
        ),
        ({"previous_version": ""}, ["Every host is as it was before."]),
    ],
    ids=["lost and unreturned", "all lost", "policy", "first deployment"],
)
def test_what_the_hosts_serve_after_a_failure(changes: dict[str, Any], lines: list[str]) -> None:
    assert message({**FAILED, **changes})["text"].split("\n\n")[2].splitlines() == lines


def test_only_the_beginning_of_long_failures_is_told() -> None:
    first = "\n".join(f"line {number} {'x' * 500}" for number in range(40))
    others = [f"app{number}: the same\nand more" for number in range(2, 12)]
    told = message({**FAILED, "failures": [first, *others], "hosts": [f"app{n}" for n in range(1, 101)]})
    reason = told["payload"]["reason"].splitlines()
    assert reason[14].startswith("line 14 x") and reason[14].endswith("x...") and len(reason[14]) == 203
    assert reason[15] == "(25 more lines)"
    assert reason[16:] == [*(f"app{n}: the same" for n in range(2, 7)), "(and 5 more hosts)"]
    assert "Hosts: app1, app2, app3, app4, app5, app6 and 94 more\n" in told["text"]
    assert len(told["payload"]["text"]) < 6000


def test_credentials_in_addresses_are_masked() -> None:
    told = message({**FAILED, "failures": ["cannot reach postgres://shop:p@ss/word@db:5432/shop, see there"]})
    assert "cannot reach postgres://********@db:5432/shop, see there" in told["text"]
    assert "p@ss" not in json.dumps(told) and "word@" not in json.dumps(told)


def test_nothing_that_is_told_can_call_a_channel_or_leave_its_box() -> None:
    told = message({**FAILED, "version": "<!channel>", "failures": ["a & b <@U1> ``` *bold*"]})
    text = told["payload"]["text"]
    assert "&lt;!channel&gt;" in text and "a &amp; b &lt;@U1&gt; ''' *bold*" in text
    assert "<" not in text and ">" not in text
    assert text.count("```") == 4
    assert "<!channel>" in told["text"], "an e-mail is no HTML"


@pytest.mark.parametrize("name", ["ü" * 30, "a\nb\tc", "x" * 300, " " * 5 + "y"])
def test_a_subject_is_what_sns_accepts(name: str) -> None:
    subject = message({**FAILED, "name": name})["subject"]
    assert 0 < len(subject) <= 100
    assert all(" " <= character <= "~" for character in subject)


def test_what_is_not_known_is_left_out() -> None:
    told = message({"event": "succeeded", "name": "shop", "seconds": 0}, now="T")
    assert told["text"] == "shop serves\n\nTook: 0 s"
    known = {"status": "succeeded", "action": "deploy", "application": "shop", "deployedAt": "T", "durationSeconds": 0}
    assert json.loads(told["json"]) == {"text": told["text"], **known}
    assert told["payload"] == {"text": "*shop serves*\nTook: 0 s", **known}


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (59, "59 s"), (60, "1 min 0 s"), (3723, "1 h 2 min 3 s"), (-5, "0 s")]
)
def test_durations(seconds: int, words: str) -> None:
    assert f"Took: {words}\n" in message({**FAILED, "seconds": seconds})["text"]


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({"event": "ended", "name": "shop"}, "event ended: it must be one of started, succeeded, failed, rolled_back"),
        ({"event": "failed", "name": "shop", "action": "walk"}, "action walk: it must be deploy or rollback"),
        ({"event": "failed", "name": "shop", "verson": "1"}, "verson: no such attribute of a notice"),
    ],
)
def test_what_cannot_be_told(told: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        message(told)


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("https://hooks.example.com/services/T0/B0/s3cret", "hooks.example.com"),
        ("http://127.0.0.1:8080/s3cret?token=s3cret", "127.0.0.1:8080"),
    ],
)
def test_only_the_host_of_a_webhook_is_named(url: str, where: str) -> None:
    assert webhooks.place(url) == where
    assert webhooks.examine([url]) == ([where], [])


@pytest.mark.parametrize(
    "url",
    [
        "s3cret",
        "ftp://host/s3cret",
        "https:///s3cret",
        "http://host:s3cret/",
        "http://[s3cret/",
        "https://hooks.example.com/s3cret\n",
        "https://user:s3cret@hooks.example.com/",
    ],
)
def test_an_address_that_is_none_is_told_without_it(url: str) -> None:
    good, bad = webhooks.send([url], {"text": "a"})
    assert good == []
    assert bad == webhooks.examine([url])[1]
    assert bad[0].startswith("webhook 1 of 1: its address ")
    assert "s3cret" not in bad[0]


def test_nobody_is_there() -> None:
    waited: list[float] = []
    reason = webhooks.deliver("http://127.0.0.1:1/s3cret", {"text": "a"}, sleep=waited.append)
    assert reason == "Connection refused (tried 3 times)"
    assert waited == [1.0, 2.0]


@pytest.mark.parametrize(
    "settings, told",
    [
        ({}, False),
        ({"deploy_notify_webhooks": [], "deploy_notify_sns_topic": ""}, False),
        ({"deploy_notify_webhooks": None, "deploy_notify_sns_topic": None}, False),
        ({"deploy_notify_webhooks": ["http://a"]}, True),
        ({"deploy_notify_webhooks": None, "deploy_notify_sns_topic": "arn:a"}, True),
    ],
)
def test_a_deployment_asks_whether_anybody_is_to_be_told(settings, told):
    """A secret that the vault lacks is null: that must not end a deployment, or keep its lock."""
    (begin,) = yaml.safe_load((ROOT / "playbooks" / "tasks" / "begin.yml").read_text())
    asked = begin["ansible.builtin.set_fact"]["deploy_is_told"]
    assert Templar(DataLoader(), variables=settings).template(trust_as_template(asked)) is told


def test_a_topic_that_is_null_is_none():
    (task,) = yaml.safe_load((ROOT / "roles/deploy_notify/tasks/main.yml").read_text())
    variables = {
        "deploy_notify_event": "failed",
        "deploy_notify_on": ["failed"],
        "_deploy_notify_webhooks": ["http://a"],
        "deploy_notify_sns_topic": None,
        "ansible_check_mode": False,
    }
    conditions = [*task["when"], *(each["when"] for each in task["block"] if "sns" in str(each.get("when")))]
    templar = Templar(DataLoader(), variables=variables)
    assert [templar.evaluate_conditional(trust_as_template(condition)) for condition in conditions] == [
        *(True for _ in task["when"]),
        False,
    ]
