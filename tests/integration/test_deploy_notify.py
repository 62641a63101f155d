"""Who is told how a deployment ended: real HTTP servers, Amazon SNS as moto has it, and fleets that fall apart.

The fleets are of this machine, and what they deploy is nothing. What tells of it is taken out of the playbooks.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from ansible_collections.roastify.ops.plugins.module_utils import webhooks
from migration_host import ROOT, ansible_playbook
from moto_server import KEYS, REGION, aws_environment, reset
from playbook_tasks import task_of

PLAYBOOKS = ROOT / "playbooks"
CANARY = "cAnArY-webhook-4d1f0c9be7"


class Webhook:
    """A server that takes messages, or does with the next ones what it is told to.

    Attributes:
        received: what came, whether it was taken or not.
        answers: of the next requests: a status, ``hang`` or ``drip``; 200 where none are left.
    """

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.answers: list[int | str] = []
        self.paths: list[str] = []
        self.over = threading.Event()
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.headers["Content-Type"] == "application/json"
                hook.received.append(json.loads(body))
                hook.paths.append(self.path)
                answer = hook.answers.pop(0) if hook.answers else 200
                if answer == "hang":
                    hook.over.wait(60)
                elif answer == "drip":
                    with contextlib.suppress(OSError):
                        for character in "HTTP/1.1 200 OK and no end to it" + "." * 60:
                            self.wfile.write(character.encode())
                            if hook.over.wait(0.2):
                                break
                else:
                    self.send_response(int(answer))
                    self.send_header("Location", f"http://127.0.0.1:{self.server.server_address[1]}/elsewhere")
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.place = f"127.0.0.1:{self.server.server_port}"
        self.url = f"http://{self.place}/services/{CANARY}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    started = Webhook()
    yield started
    started.close()


@pytest.fixture
def other_webhook() -> Iterator[Webhook]:
    started = Webhook()
    yield started
    started.close()


# -- webhooks -----------------------------------------------------------------------------------------


def test_a_server_that_is_ill_twice_gets_the_message_a_third_time(webhook: Webhook) -> None:
    webhook.answers = [500, 503]
    assert webhooks.send([webhook.url], {"text": "a"}, pause=0.01) == ([webhook.place], [])
    assert webhook.received == [{"text": "a"}] * 3


def test_a_server_that_stays_ill_is_left_after_three_tries(webhook: Webhook) -> None:
    webhook.answers = [500] * 5
    assert webhooks.send([webhook.url], {}, pause=0.01) == ([], [f"{webhook.place}: HTTP 500 (tried 3 times)"])
    assert len(webhook.received) == 3


@pytest.mark.parametrize("answer", [400, 403, 404, 410, 302, 307])
def test_an_answer_that_will_not_change_is_not_asked_for_again(webhook: Webhook, answer: int) -> None:
    webhook.answers = [answer]
    assert webhooks.send([webhook.url], {}) == ([], [f"{webhook.place}: HTTP {answer} (tried once)"])
    assert len(webhook.received) == 1


@pytest.mark.parametrize("how", ["hang", "drip"])
def test_one_that_does_not_end_holds_up_neither_the_deployment_nor_the_others(
    webhook: Webhook, other_webhook: Webhook, how: str
) -> None:
    webhook.answers = [how] * 3
    started = time.monotonic()
    taken, refused = webhooks.send([webhook.url, other_webhook.url], {"text": "a"}, limit=0.7, pause=0.01)
    assert time.monotonic() - started < 30
    assert taken == [other_webhook.place]
    assert refused == [f"{webhook.place}: no answer within 0.7 s (tried 3 times)"]
    assert len(other_webhook.received) == 1


# -- the role -----------------------------------------------------------------------------------------


class Controller:
    """Runs plays on fleets of this machine, at -vvv, and sees that no secret shows."""

    def __init__(self, directory: Path, moto: str = "") -> None:
        self.directory = directory
        self.environment = aws_environment(moto) if moto else {}

    def run(
        self, *plays: dict[str, Any], hosts: tuple[str, ...] = ("app1",), check: bool = False, **variables: Any
    ) -> tuple[int, str]:
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, **variables}
        inventory = {"all": {"children": {"app": {"hosts": {host: local for host in hosts}}}}}
        (self.directory / "hosts.yml").write_text(json.dumps(inventory))
        playbook = self.directory / "play.yml"
        playbook.write_text(json.dumps(plays))
        done = ansible_playbook(
            *(
                "-i",
                str(self.directory / "hosts.yml"),
                str(playbook),
                "-vvv",
                "--diff",
                *(["--check"] if check else []),
            ),
            ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default",
            ANSIBLE_HOST_KEY_CHECKING="false",
            **self.environment,
        )
        output = done.stdout + done.stderr
        (self.directory / "log").write_text(output)
        for secret in (CANARY, KEYS["aws_secret_access_key"]):
            assert secret not in output
        return done.returncode, " ".join(output.split())


def play(event: str, **variables: Any) -> dict[str, Any]:
    told = {
        "deploy_notify_event": event,
        "deploy_notify_name": "shop",
        "deploy_notify_environment": "staging",
        "deploy_notify_version": "1.2.0",
        "deploy_notify_commit": "abc123",
        "deploy_notify_previous_version": "1.1.0",
        "deploy_notify_deployed_by": "ann",
        "deploy_notify_hosts": ["app1", "app2"],
        "deploy_notify_failures": ["app2, Try: no <answer> für uns"] if event == "failed" else [],
        **{f"deploy_notify_{name}": value for name, value in variables.items()},
    }
    return {
        "hosts": "app",
        "gather_facts": False,
        "any_errors_fatal": True,
        # As with hosts of EC2: the controller never becomes root.
        "vars": {"ansible_become": False},
        "tasks": [{"ansible.builtin.include_role": {"name": "roastify.ops.deploy_notify"}, "vars": told}],
    }


def test_the_role_tells_once_for_the_fleet(webhook: Webhook, tmp_path: Path) -> None:
    status, output = Controller(tmp_path).run(play("failed", webhooks=[webhook.url, None]), hosts=("app1", "app2"))
    assert status == 0, output
    (payload,) = webhook.received
    assert payload["text"].startswith("*FAILED: deployment of shop 1.2.0 to staging*\n")
    assert "no &lt;answer&gt; für uns" in payload["text"]
    for name, value in {
        "version": "1.2.0",
        "commit": "abc123",
        "deployedBy": "ann",
        "previousVersion": "1.1.0",
        "status": "failed",
    }.items():
        assert payload[name] == value
    assert payload["deployedAt"].endswith("Z")
    assert f"Told {webhook.place}." in output
    assert "changed=1" not in output


@pytest.mark.parametrize(
    ("event", "variables", "check"),
    [("started", {}, False), ("succeeded", {"on": ["failed"]}, False), ("failed", {}, True)],
    ids=["not by default", "not wanted", "check mode"],
)
def test_nobody_is_told(webhook: Webhook, tmp_path: Path, event: str, variables: dict[str, Any], check: bool) -> None:
    status, output = Controller(tmp_path).run(play(event, webhooks=[webhook.url], **variables), check=check)
    assert status == 0, output
    assert webhook.received == []
    assert "Told" not in output and "COULD NOT" not in output


def test_whoever_cannot_be_told_is_named_and_nothing_fails(webhook: Webhook, tmp_path: Path) -> None:
    webhook.answers = [404]
    broken = [webhook.url, f"ftp://{CANARY}", f"http://127.0.0.1:1/{CANARY}"]
    topic = f"arn:aws:sns:{REGION}:123456789012:nowhere"
    controller = Controller(tmp_path)
    # No AWS there.
    controller.environment = aws_environment("http://127.0.0.1:1")
    status, output = controller.run(play("failed", webhooks=broken, sns_topic=topic))
    assert status == 0, output
    assert "failed=0" in output
    for line in (
        f"COULD NOT TELL {webhook.place}: HTTP 404 (tried once). This changes nothing else.",
        "COULD NOT TELL webhook 2 of 3: its address is not a URL of HTTP or HTTPS.",
        "COULD NOT TELL 127.0.0.1:1: Connection refused (tried 3 times).",
        "COULD NOT TELL topic nowhere: Failed to publish message: ",
    ):
        assert line in output
    assert "Told" not in output


def test_sns_delivers_it_to_its_subscribers(moto: str, tmp_path: Path) -> None:
    reset(moto)
    sns, sqs = (boto3.client(service, endpoint_url=moto, region_name=REGION, **KEYS) for service in ("sns", "sqs"))
    topic = sns.create_topic(Name="deployments")["TopicArn"]
    queue = sqs.create_queue(QueueName="deployments")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)

    controller = Controller(tmp_path, moto)
    # The region is that of the topic, whatever the controller's own is.
    controller.environment["AWS_REGION"] = "us-east-1"
    for event in ("succeeded", "failed"):
        status, output = controller.run(
            play(event, sns_topic=topic, deployment=f"d-{event}", name="läden"), hosts=("app1", "app2")
        )
        assert status == 0, output
        assert "Told topic deployments." in output
    messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
    first, body = [json.loads(message["Body"]) for message in messages]
    assert first["Subject"] == "l?den 1.2.0 serves in staging"
    assert body["Subject"] == "FAILED: deployment of l?den 1.2.0 to staging"
    told = json.loads(body["Message"])
    assert told["text"].startswith("FAILED: deployment of läden 1.2.0 to staging\n\nBefore: 1.1.0\n")
    assert "  app2, Try: no <answer> für uns" in told["text"]
    assert (told["status"], told["environment"], told["deploymentId"]) == ("failed", "staging", "d-failed")


def test_a_misspelt_setting_is_refused_without_showing_the_address(webhook: Webhook, tmp_path: Path) -> None:
    status, output = Controller(tmp_path).run(play("failed", webhooks=[webhook.url, {"url": CANARY}], on=["failure"]))
    assert status != 0
    assert "deploy_notify_on" in output
    assert webhook.received == []


# -- fleets that fall apart ---------------------------------------------------------------------------


class Fleet:
    """Three hosts of this machine that deploy nothing, with the real beginning and end of a playbook around it."""

    HOSTS = ("app1", "app2", "app3")

    def __init__(self, directory: Path, webhook: Webhook) -> None:
        self.controller = Controller(directory)
        self.directory = directory
        self.webhook = webhook

    def deploy(
        self,
        *work: dict[str, Any],
        playbook: str = "deploy",
        changed: bool = True,
        without: tuple[str, ...] = (),
        served: str = "r1",
        **variables: Any,
    ) -> tuple[int, str]:
        source = yaml.safe_load((PLAYBOOKS / f"{playbook}.yml").read_text())
        deployment = next(play for play in source if "Take the lock" in json.dumps(play))
        begins, ended, failed = (
            task_of(deployment["tasks"], name)
            for name in (
                "Tell that it begins",
                "Tell that it ended",
                "Return to what served before and record the failure",
            )
        )
        switched = {
            "ansible.builtin.set_fact": {
                "app_release_activation": {
                    "changed": changed,
                    "failed": f"{{{{ inventory_hostname in {list(without)} }}}}",
                    "msg": "failed on the live port",
                }
            },
        }
        plays = [
            {
                "hosts": "app",
                "gather_facts": False,
                "any_errors_fatal": deployment["any_errors_fatal"],
                "vars": {
                    **{name: deployment["vars"][name] for name in ("app_release_action", "_balanced", "_on_failure")},
                    "app_release_manifest": {"version": "1.2.0", "commit": "abc123"},
                    "app_release_id": "r2",
                    "app_release_deployed_by": "ann",
                    "app_release_deployment": "d1",
                    "app_release_root": str(self.directory / "{{ inventory_hostname }}"),
                    "app_release_lock": {"taken_over": None},
                    "deploy_is_told": True,
                    "_is_live": False,
                },
                "tasks": [
                    {
                        "ansible.builtin.file": {"path": "{{ app_release_root }}/{{ item }}", "state": "directory"},
                        "loop": ["releases", "shared"],
                    },
                    {"block": [begins, *work, switched, ended], "rescue": [failed]},
                ],
            },
            source[-1],
        ]
        for each in plays:
            each.setdefault("vars", {}).update(
                {"deploy_notify_webhooks": [self.webhook.url], "deploy_notify_name": "shop", **variables}
            )
        text = json.dumps(plays).replace('": "tasks/', f'": "{PLAYBOOKS}/tasks/')
        live = {"id": served, "version": {"r1": "1.1.0", "r2": "1.2.0"}[served]}
        return self.controller.run(*json.loads(text), hosts=self.HOSTS, app_release_info={"live": live, "health": None})

    @property
    def told(self) -> list[tuple[str, str]]:
        """Event and text of every message."""
        return [(payload["status"], payload["text"]) for payload in self.webhook.received]


@pytest.fixture
def fleet(tmp_path: Path, webhook: Webhook) -> Fleet:
    return Fleet(tmp_path, webhook)


def lose(*hosts: str) -> list[dict[str, Any]]:
    """Hosts are not to be reached any more."""
    gone = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    return [
        {"ansible.builtin.set_fact": gone, "when": f"inventory_hostname in {list(hosts)}"},
        {"name": "Work", "ansible.builtin.ping": {}},
    ]


def fail(*hosts: str) -> dict[str, Any]:
    return {
        "name": "Try",
        "ansible.builtin.fail": {"msg": "does not serve\nHTTP 503"},
        "when": f"inventory_hostname in {list(hosts)}",
    }


def test_a_deployment_that_went_well_is_told_once(fleet: Fleet) -> None:
    status, output = fleet.deploy({"name": "Work", "ansible.builtin.ping": {}})
    assert status == 0, output
    ((event, text),) = fleet.told
    assert event == "succeeded"
    assert text.startswith(
        "*shop 1.2.0 serves*\nBefore: 1.1.0\nCommit: abc123\nBy: ann\nHosts: app1, app2, app3\nTook: "
    )
    assert "roastify.ops.rollback" in text


def test_its_beginning_is_told_too_to_whoever_wants_that(fleet: Fleet) -> None:
    fleet.deploy(deploy_notify_on=["started", "succeeded"])
    assert [event for event, _ in fleet.told] == ["started", "succeeded"]
    assert "Took" not in fleet.told[0][1]


def test_a_deployment_that_changed_nothing_is_not_told(fleet: Fleet) -> None:
    status, output = fleet.deploy(changed=False)
    assert (status, fleet.told) == (0, []), output


def test_a_rollback_is_told(fleet: Fleet) -> None:
    status, output = fleet.deploy(playbook="rollback")
    assert status == 0, output
    ((event, text),) = fleet.told
    assert event == "rolled_back"
    assert text.startswith("*shop was rolled back to 1.2.0*\n")


@pytest.mark.parametrize("playbook, event", [("deploy", "succeeded"), ("rollback", "rolled_back")])
def test_a_killed_run_that_is_found_complete_is_told(fleet: Fleet, playbook: str, event: str) -> None:
    """On a host that it was killed on: on the others it had come to its end."""
    dead = {"deploymentId": "d0"}
    lock = {"taken_over": f"{{{{ {dead} if inventory_hostname == 'app2' else none }}}}"}
    status, output = fleet.deploy(playbook=playbook, changed=False, served="r2", app_release_lock=lock)
    assert status == 0, output
    ((told, text),) = fleet.told
    assert (told, "Before:" in text) == (event, False), output


@pytest.mark.parametrize("hosts", [("app1",), ("app2",), ("app3",), ("app2", "app3"), Fleet.HOSTS], ids="-".join)
def test_whatever_host_fails_it_is_told_once(fleet: Fleet, hosts: tuple[str, ...]) -> None:
    status, output = fleet.deploy(fail(*hosts))
    assert status != 0
    ((event, text),) = fleet.told
    assert event == "failed", output
    assert f"{hosts[0]}, Try: does not serve\nHTTP 503\n" in text
    assert text.count("does not serve") == len(hosts)
    assert "Every host serves 1.1.0 as before." in text
    inventory = os.path.relpath(fleet.directory / "hosts.yml", ROOT)
    assert f"ansible-playbook -i {inventory} roastify.ops.status\n" in text


@pytest.mark.parametrize("hosts", [("app1",), ("app3",), ("app1", "app2")], ids="-".join)
def test_hosts_that_are_lost_are_told_once(fleet: Fleet, hosts: tuple[str, ...]) -> None:
    status, output = fleet.deploy(*lose(*hosts))
    assert status != 0
    ((event, text),) = fleet.told
    assert event == "failed", output
    assert f"Does not answer, see what it serves: {', '.join(hosts)}." in text
    assert "Every other host serves 1.1.0 as before." in text
    assert f"no answer from {', '.join(hosts)}" in text


def test_a_host_that_fails_while_another_is_lost(fleet: Fleet) -> None:
    status, output = fleet.deploy(*lose("app1"), fail("app2"))
    assert status != 0
    assert [event for event, _ in fleet.told] == ["failed"], output


def test_a_fleet_that_went_on_without_a_host(fleet: Fleet) -> None:
    _, output = fleet.deploy(without=("app2",), deploy_on_failure="continue")
    ((event, text),) = fleet.told
    assert event == "failed", output
    assert "Serves the new release, so that the fleet is on two versions: app1, app3." in text
    assert "Every other host serves 1.1.0 as before." in text
    assert "failed on the live port" in text


def test_a_fleet_of_which_no_host_is_left_is_told_by_the_controller(fleet: Fleet) -> None:
    status, output = fleet.deploy(*lose(*Fleet.HOSTS))
    assert status != 0
    ((event, text),) = fleet.told
    assert event == "failed", output
    assert "Does not answer, see what it serves: app1, app2, app3." in text
    assert "as before" not in text
    assert "No host answers any more." in text


@pytest.mark.parametrize("playbook", ["deploy", "rollback"])
def test_hosts_that_are_lost_only_after_one_has_failed(fleet: Fleet, playbook: str) -> None:
    """The way back is where they are lost: its first step that needs a host."""
    gone = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    status, output = fleet.deploy({"ansible.builtin.set_fact": gone}, fail("app2"), playbook=playbook)
    assert status != 0
    ((event, text),) = fleet.told
    assert event == "failed", output
    assert "app1, app2, app3" in text


def test_a_webhook_that_is_ill_does_not_keep_the_lock_from_being_given_back(fleet: Fleet) -> None:
    fleet.webhook.answers = [404, 404]
    status, output = fleet.deploy(fail("app1"))
    assert status != 0
    assert len(fleet.told) == 1
    assert "COULD NOT TELL" in output
    assert "Give the lock back" in output.partition("COULD NOT TELL")[2]


def test_a_misspelt_setting_keeps_neither_lock_nor_deployment(fleet: Fleet) -> None:
    status, output = fleet.deploy(deploy_notify_on=["sucess"])
    assert status == 0, output
    assert "value of deploy_notify_on must be one or more of: started, succeeded, failed, rolled_back" in output
    assert "rescued=0" in output
    status, output = fleet.deploy(fail("app1"), deploy_notify_on=["sucess"])
    assert status != 0
    assert "Give the lock back" in output.rpartition("value of deploy_notify_on")[2]
    assert fleet.told == []
