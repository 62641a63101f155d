"""The role alb_target and what playbooks make of it: Amazon's load balancer as moto has it, over HTTP, and no HAProxy.

moto calls a registered target healthy at once, and forgets one that is taken out at once. Where it must not, a proxy
before it says so.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from migration_host import ansible_playbook
from moto_server import KEYS, REGION, answering, aws_environment, reset
from staging_host import StagingHost
from stub_collection import stub_collection

HOSTS = ("app1", "app2")
#: Finds what a file beside the inventory says.
DOCTOR = """#!/usr/bin/python
import json
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils import basic

basic._load_params()
names = [name for name in basic._load_params() if not name.startswith("_ansible")]
module = AnsibleModule(argument_spec={name: dict(type="raw") for name in names}, supports_check_mode=True)
with open(module.params["root"] + "/found") as file:
    module.exit_json(**json.load(file))
"""
WELL = {
    "live": True,
    "release": "r1",
    "healthy": True,
    "findings": [],
    "lines": ["everything is as it should be"],
    "repaired": [],
}
#: As HAProxy 2.6.12 answers; columns in between are left out.
STATISTICS = """\
# pxname,svname,scur,status,check_status,last_chk,check_rise,check_fall,addr,
shop,app1,0,UP,L7OK,,2,3,10.0.0.1:5000,
shop,app2,0,MAINT,,,,,10.0.0.2:5000,
shop,BACKEND,0,UP,,,,,,

"""


class Group:
    """A target group with two instances."""

    def __init__(self, moto: str) -> None:
        reset(moto)
        self.client = boto3.client("elbv2", endpoint_url=moto, region_name=REGION, **KEYS)
        computing = boto3.client("ec2", endpoint_url=moto, region_name=REGION, **KEYS)
        image = computing.describe_images()["Images"][0]["ImageId"]
        made = computing.run_instances(ImageId=image, MinCount=2, MaxCount=2)
        self.instances = [each["InstanceId"] for each in made["Instances"]]
        network = computing.describe_vpcs()["Vpcs"][0]["VpcId"]
        subnets = [each["SubnetId"] for each in computing.describe_subnets()["Subnets"][:2]]
        self.arn = self.client.create_target_group(
            Name="shop",
            Protocol="HTTP",
            Port=5000,
            VpcId=network,
            HealthCheckIntervalSeconds=30,
            HealthCheckTimeoutSeconds=5,
            HealthyThresholdCount=2,
        )["TargetGroups"][0]["TargetGroupArn"]
        balancer = self.client.create_load_balancer(Name="shop", Subnets=subnets)["LoadBalancers"][0]["LoadBalancerArn"]
        self.client.create_listener(
            LoadBalancerArn=balancer,
            Protocol="HTTP",
            Port=80,
            DefaultActions=[{"Type": "forward", "TargetGroupArn": self.arn}],
        )
        self.register(*self.instances)

    def register(self, *instances: str) -> None:
        self.client.register_targets(
            TargetGroupArn=self.arn, Targets=[{"Id": instance, "Port": 5000} for instance in instances]
        )

    def deregister(self, instance: str) -> None:
        self.client.deregister_targets(TargetGroupArn=self.arn, Targets=[{"Id": instance, "Port": 5000}])

    def delay(self, seconds: int) -> None:
        self.client.modify_target_group_attributes(
            TargetGroupArn=self.arn,
            Attributes=[{"Key": "deregistration_delay.timeout_seconds", "Value": str(seconds)}],
        )

    def states(self) -> list[str]:
        """Of each instance."""
        answer = self.client.describe_target_health(TargetGroupArn=self.arn)["TargetHealthDescriptions"]
        found = {each["Target"]["Id"]: each["TargetHealth"]["State"] for each in answer}
        return [found.get(instance, "absent") for instance in self.instances]


@pytest.fixture
def group(moto: str) -> Group:
    return Group(moto)


class Controller:
    """Runs plays on two hosts of this machine.

    Attributes:
        asked: how often a task asked the load balancer.
    """

    def __init__(self, directory: Path, group: Group | None = None, **variables: Any) -> None:
        self.directory = directory
        self.variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "alb_target_provider": "aws",
            "alb_target_group": "shop",
            "alb_target_region": REGION,
            **variables,
        }
        self.instances = group.instances if group else ["", ""]
        self.asked = 0

    def run(
        self, endpoint: str, entry: str, show: str = "", before: str = "", only: str = "", **variables: Any
    ) -> tuple[int, str, list[Any]]:
        """Exit code and output of an entry point of the role, and a variable of each host afterwards.

        Args:
            endpoint: address of the load balancer's interface.
            entry: the entry point.
            show: the variable.
            before: an entry point that all hosts run before.
            only: the host that runs the entry point; else all.
            variables: of the role.
        """
        role, first = ({"name": "roastify.ops.alb_target", "tasks_from": each} for each in (entry, before))
        prepared = [{"ansible.builtin.import_role": first}] if before else []
        results = self.directory / "results"
        results.mkdir(exist_ok=True)
        for path in results.iterdir():
            path.unlink()
        play = {
            "hosts": "app",
            "gather_facts": False,
            "any_errors_fatal": True,
            "tasks": [
                *prepared,
                {
                    "ansible.builtin.import_role": role,
                    "vars": variables,
                    "when": f"inventory_hostname == '{only}'" if only else True,
                },
                {
                    "ansible.builtin.copy": {
                        "content": f"{{{{ {show or dict()} | to_json }}}}",
                        "dest": f"{results}/{{{{ inventory_hostname }}}}",
                    },
                    "check_mode": False,
                },
            ],
        }
        hosts = {
            host: {"instance_id": instance, **self.variables}
            for host, instance in zip(HOSTS, self.instances, strict=True)
        }
        gone = {"ansible_host": "127.0.0.1", "ansible_port": 1}
        inventory = {"all": {"hosts": {"gone": gone}, "children": {"app": {"hosts": hosts}}}}
        (self.directory / "hosts.yml").write_text(json.dumps(inventory))
        (self.directory / "play.yml").write_text(json.dumps([play]))
        done = ansible_playbook(
            *("-i", str(self.directory / "hosts.yml"), str(self.directory / "play.yml")),
            ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default",
            **aws_environment(endpoint),
        )
        output = done.stdout + done.stderr
        self.asked = sum(done.stdout.count(f"alb_target : Ask {what}]") for what in ("the target group", "HAProxy"))
        return done.returncode, output, [json.loads(path.read_text()) for path in sorted(results.iterdir())]


# -- the budget -------------------------------------------------------------------------------------------


def test_the_target_group_says_what_time_a_deployment_needs(moto: str, group: Group, tmp_path: Path) -> None:
    controller = Controller(tmp_path, group)
    wanted: dict[str, Any] = {
        "alb_target_plan": [["app1"], ["app2"]],
        "alb_target_bake": [30, 0],
        "alb_target_confirm_within": 900,
        "alb_target_lease": 900,
    }
    group.delay(120)
    status, output, budgets = controller.run(moto, "budget", "alb_target_budget", **wanted)
    assert status == 0, output
    # Once for the fleet, and every host knows.
    assert controller.asked == 1
    assert (
        budgets[0]
        == budgets[1]
        == {
            "line": "Time: the target group shop drains a host in 120 s and calls it healthy in 65 s at most "
            "(2 checks, one every 30 s, of 5 s at most); 2 batches may take 7 min.",
            "problems": [],
        }
    )
    # What Amazon sets unless somebody sets something else.
    group.delay(300)
    _, output, budgets = controller.run(moto, "budget", "alb_target_budget", **wanted)
    (problem,) = budgets[0]["problems"]
    assert "takes 300 s (deregistration_delay.timeout_seconds), and alb_target_timeout is 180 s" in problem


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"alb_target_group": "shpo"}, f"there is no target group shpo in {REGION}"),
        ({}, "the load balancer could not be asked for target group shop: "),
    ],
)
def test_a_target_group_that_does_not_answer_is_a_problem_like_others(
    moto: str, group: Group, tmp_path: Path, variables: dict[str, Any], message: str
) -> None:
    def refuse(_request: bytes, _answer: bytes) -> bytes:
        return b"<html>teapot</html>"

    controller = Controller(tmp_path, group, **variables)
    with answering(moto, refuse) if not variables else contextlib.nullcontext(moto) as endpoint:
        status, output, budgets = controller.run(endpoint, "budget", "alb_target_budget", alb_target_plan=[["app1"]])
    assert status == 0, output
    (problem,) = budgets[0]["problems"]
    assert problem.startswith(message) and "What to do: " in problem
    assert budgets[0]["line"] == ""


@pytest.mark.parametrize("entry", ["budget", "look"])
def test_without_a_load_balancer_nobody_is_asked(tmp_path: Path, entry: str) -> None:
    controller = Controller(tmp_path, alb_target_provider="none")
    status, output, _ = controller.run("http://127.0.0.1:1", entry)
    assert status == 0, output
    assert "ok=1 " in output and "community" not in output


# -- how hosts stand --------------------------------------------------------------------------------------


def test_who_is_in_the_target_group(moto: str, group: Group, tmp_path: Path) -> None:
    group.deregister(group.instances[1])
    controller = Controller(tmp_path, group)
    status, output, (first, second) = controller.run(moto, "look", "alb_target_seen")
    assert status == 0, output
    assert controller.asked == 1
    assert first == {"state": "in", "reason": "", "remarks": []}
    assert second["state"] in ("out", "leaving")
    (told,) = second["remarks"]
    assert told.startswith("app2 is out of the load balancer and gets no requests (")


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[Path]:
    """A socket that answers as HAProxy's does."""
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        asked = connection.recv(100)
                        connection.sendall(STATISTICS.encode() if asked == b"show stat\n" else b"Unknown command\n")

        threading.Thread(target=serve, daemon=True).start()
        yield path
        listener.shutdown(socket.SHUT_RDWR)


def test_who_is_in_the_backend(haproxy: Path, tmp_path: Path) -> None:
    variables: dict[str, Any] = {
        "alb_target_provider": "haproxy",
        "alb_target_backend": "shop",
        "alb_target_balancer": "app2",
    }
    controller = Controller(tmp_path, alb_target_socket=str(haproxy), **variables)
    status, output, seen = controller.run("", "look", "alb_target_seen")
    assert status == 0, output
    assert [each["state"] for each in seen] == ["in", "out"]
    plan = [["app1"], ["app2"]]
    _, output, budgets = controller.run("", "budget", "alb_target_budget", alb_target_plan=plan)
    assert "calls it healthy in 6 s at most (2 checks, one every 2 s)" in budgets[0]["line"], output
    # The machine that it runs on is gone: nobody else is.
    controller.variables["alb_target_balancer"] = "gone"
    status, output, seen = controller.run("", "look", "alb_target_seen")
    assert status == 0, output
    assert [each["state"] for each in seen] == ["unknown", "unknown"]


# -- in and out -------------------------------------------------------------------------------------------


def test_a_host_leaves_and_comes_back(moto: str, group: Group, tmp_path: Path) -> None:
    controller = Controller(tmp_path, group)
    status, output, _ = controller.run(moto, "main", alb_target_state="drained", alb_target_timeout=20)
    assert status == 0, output
    assert "healthy" not in group.states()
    # One of them is the file that this test reads.
    for changed in ("changed=2", "changed=1"):
        status, output, _ = controller.run(moto, "main", alb_target_state="registered", alb_target_timeout=20)
        assert status == 0, output
        assert group.states() == ["healthy", "healthy"]
        assert changed in output


def test_a_host_that_still_drains_is_put_back_when_it_may_be(moto: str, group: Group, tmp_path: Path) -> None:
    """The community's module takes it for registered, and would leave it out."""
    seen: list[bytes] = []

    def drains(request: bytes, answer: bytes) -> bytes:
        if b"Action=DescribeTargetHealth" not in request or len(seen) >= 4:
            return answer
        seen.append(request)
        if len(seen) == 4:
            # The delay is over.
            for instance in group.instances:
                group.deregister(instance)
        draining = (
            b"<State>draining</State><Reason>Target.DeregistrationInProgress</Reason>"
            b"<Description>Target deregistration is in progress</Description>"
        )
        return answer.replace(b"<State>healthy</State>", draining)

    controller = Controller(tmp_path, group)
    with answering(moto, drains) as endpoint:
        status, output, _ = controller.run(endpoint, "main", alb_target_state="registered", alb_target_timeout=30)
    assert status == 0, output
    assert group.states() == ["healthy", "healthy"]
    assert "Register a target that had to finish draining first" in output


NOT_IN_USE = (
    b"<State>unused</State><Reason>Target.NotInUse</Reason>"
    b"<Description>Target is in an Availability Zone that is not enabled for the load balancer</Description>"
)


def not_in_use(request: bytes, answer: bytes) -> bytes:
    if b"Action=DescribeTargetHealth" not in request:
        return answer
    return answer.replace(b"<State>healthy</State>", NOT_IN_USE)


def test_a_target_that_the_load_balancer_does_not_use_is_no_verdict(moto: str, group: Group, tmp_path: Path) -> None:
    controller = Controller(tmp_path, group)
    with answering(moto, not_in_use) as endpoint:
        status, output, _ = controller.run(endpoint, "main", alb_target_state="registered", alb_target_timeout=20)
    assert status != 0, output
    told = " ".join(output.split())
    assert "app2 is registered in the load balancer, which does not use it: it gets no requests (Target.Not" in told
    assert "What to do: enable the availability zone" in told


LEAVE: dict[str, Any] = {"alb_target_batch": ["app1"], "alb_target_timeout": 20}


def ill(group: Group, *instances: int) -> Callable[[bytes, bytes], bytes]:
    """A load balancer that does not call these healthy."""

    def change(request: bytes, answer: bytes) -> bytes:
        if b"Action=DescribeTargetHealth" not in request:
            return answer
        members = answer.split(b"<member>")
        names = [group.instances[number].encode() for number in instances]
        wrong = b"<State>unhealthy</State><Reason>Target.Timeout</Reason>"
        return b"<member>".join(
            member.replace(b"<State>healthy</State>", wrong) if any(name in member for name in names) else member
            for member in members
        )

    return change


def test_a_host_leaves_where_another_one_is_healthy_for_the_load_balancer(
    moto: str, group: Group, tmp_path: Path
) -> None:
    controller = Controller(tmp_path, group)
    status, output, _ = controller.run(moto, "leave", before="budget", only="app1", **LEAVE)
    assert status == 0, output
    assert (group.states()[0] != "healthy", group.states()[1]) == (True, "healthy")


@pytest.mark.parametrize("alone", ["stop", "stay"])
def test_the_last_host_that_is_healthy_for_the_load_balancer_does_not_leave(
    moto: str, group: Group, tmp_path: Path, alone: str
) -> None:
    controller = Controller(tmp_path, group)
    with answering(moto, ill(group, 1)) as endpoint:
        status, output, _ = controller.run(
            endpoint, "leave", before="budget", only="app1", **LEAVE, alb_target_alone=alone
        )
    assert group.states() == ["healthy", "healthy"], output
    assert (status == 0) == (alone == "stay"), output
    told = " ".join(output.split())
    assert "while app1 would be out of the load balancer nobody would serve: the target group shop calls no" in told
    assert "app2: unhealthy, Target.Timeout" in told
    assert ("Nothing was changed on app1: " in told) == (alone == "stop")


def test_hosts_that_nobody_put_into_batches_leave_together(moto: str, group: Group, tmp_path: Path) -> None:
    controller = Controller(tmp_path, group)
    status, output, _ = controller.run(moto, "leave", before="budget", alb_target_timeout=20)
    assert group.states() == ["healthy", "healthy"], output
    assert status != 0
    assert "while app1, app2 would be out of the load balancer nobody would serve" in " ".join(output.split())


def test_a_fleet_of_which_nobody_is_healthy_is_switched_in_its_place(moto: str, group: Group, tmp_path: Path) -> None:
    controller = Controller(tmp_path, group)
    with answering(moto, ill(group, 0, 1)) as endpoint:
        status, output, _ = controller.run(endpoint, "leave", before="budget", only="app1", **LEAVE)
    assert status == 0, output
    assert group.states() == ["healthy", "healthy"]
    assert "app1 stays in the load balancer: the target group shop calls no host healthy" in " ".join(output.split())


@contextlib.contextmanager
def server_of_haproxy(path: Path, comes: list[str]) -> Iterator[list[str]]:
    """A socket of HAProxy's; a server that is enabled has these states one after the other. Gives the commands."""
    commands: list[str] = []
    states = [comes[-1]]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            nonlocal states
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        asked = connection.recv(1000).decode()
                        answer = ""
                        if asked == "show stat\n":
                            state = states.pop(0) if len(states) > 1 else states[0]
                            answer = (
                                "# pxname,svname,scur,status,weight,check_status,last_chk,check_rise,check_fall,addr,\n"
                                f"shop,app1,0,{state},1,,,,,10.0.0.1:5000,\n"
                            )
                        else:
                            commands.append(asked)
                            states = ["MAINT"] if "disable server" in asked else comes.copy()
                        connection.sendall(answer.encode() or b"\n")

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield commands
        finally:
            listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("comes", "status"),
    [
        (["no check"], 0),
        (["DOWN 1/2", "DOWN 1/2", "UP"], 0),
        (["DOWN"], 2),
    ],
    ids=["without checks", "with checks", "ill"],
)
def test_a_server_of_haproxy_leaves_and_comes_back(tmp_path: Path, comes: list[str], status: int) -> None:
    controller = Controller(
        tmp_path,
        alb_target_provider="haproxy",
        alb_target_backend="shop",
        alb_target_balancer="app2",
        alb_target_socket=str(tmp_path / "admin.sock"),
        alb_target_timeout=4,
    )
    with server_of_haproxy(tmp_path / "admin.sock", comes) as commands:
        done, output, _ = controller.run("", "main", only="app1", alb_target_state="drained")
        assert done == 0, output
        assert "disable server shop/app1" in commands[-1]
        done, output, _ = controller.run("", "main", only="app1", alb_target_state="registered")
    assert done == status, output
    assert "enable server shop/app1" in commands[-1]
    assert ("server shop/app1 not status 'UP' after 4 retries" in output) == (status != 0)
    assert "duplicate" not in output


# -- playbooks --------------------------------------------------------------------------------------------


def test_status_says_who_is_out_of_the_load_balancer(haproxy: Path, tmp_path: Path) -> None:
    host = StagingHost(tmp_path / "host")
    host.stage("r1")
    (host.root / "current").symlink_to("releases/r1")
    variables = {"alb_target_backend": "shop", "alb_target_balancer": "here", "alb_target_socket": str(haproxy)}
    out = {"alb_target_provider": "haproxy", "alb_target_server": "app2", **variables}
    told = " ".join(host.run("playbooks/status.yml", **out).stdout.split())
    assert "load balancer" in told
    assert "here is out of the load balancer and gets no requests (MAINT); the next deployment puts it back" in told
    told = host.run("playbooks/status.yml", status_format="json", **out).stdout
    # Ansible breaks long lines.
    assert '"load balancer": "out"' in " ".join(told.replace("\\", "").split())
    told = host.run("playbooks/status.yml", **{**out, "alb_target_server": "app1"}).stdout
    assert "  balancer\n" in told and "gets no requests" not in told
    assert "balancer" not in host.run("playbooks/status.yml").stdout.partition("Show the fleet")[2]


class Clinic:
    """Two hosts of a target group, of which the second was left out, and what the doctor of the host itself says."""

    def __init__(self, directory: Path, moto: str, group: Group) -> None:
        self.directory = directory
        self.moto = moto
        self.collections = stub_collection(directory, {"release_doctor": DOCTOR})
        group.deregister(group.instances[1])
        hosts = {
            host: {
                "ansible_connection": "local",
                "ansible_python_interpreter": sys.executable,
                "app_release_name": "shop",
                "app_release_root": str(directory / host),
                "alb_target_provider": "aws",
                "alb_target_group": "shop",
                "alb_target_region": REGION,
                "alb_target_timeout": 10,
                "instance_id": instance,
            }
            for host, instance in zip(HOSTS, group.instances, strict=True)
        }
        (directory / "hosts.yml").write_text(json.dumps({"all": {"children": {"app": {"hosts": hosts}}}}))
        for host in HOSTS:
            (directory / host).mkdir()
            self.finds(host, WELL)

    def finds(self, host: str, what: dict[str, Any]) -> None:
        (self.directory / host / "found").write_text(json.dumps(what))

    def run(self, *options: str) -> str:
        done = ansible_playbook(
            *("playbooks/doctor.yml", "-i", str(self.directory / "hosts.yml"), *options),
            ANSIBLE_COLLECTIONS_PATH=self.collections,
            ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default",
            **aws_environment(self.moto),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return " ".join(done.stdout.split())


@pytest.fixture
def clinic(moto: str, group: Group, tmp_path: Path) -> Clinic:
    return Clinic(tmp_path, moto, group)


REPAIR = ("-e", "doctor_repair=true")


def test_the_doctor_puts_a_healthy_host_back(clinic: Clinic, group: Group) -> None:
    told = clinic.run()
    assert "[app1] => msg: everything is as it should be" in told
    assert "[app2] => msg: |- this host is out of the load balancer: it gets no requests (can be mended)" in told
    assert "LEFT TO DO: app2 (1); what, stands above." in told
    told = clinic.run(*REPAIR, "--check")
    assert "[app2] => msg: |- this host is out of the load balancer: it gets no requests (would be mended)" in told
    assert "LEFT TO DO: app2 (1); what, stands above." in told
    assert group.states()[1] != "healthy"
    told = clinic.run(*REPAIR)
    assert "[app2] => msg: |- this host is out of the load balancer: it gets no requests (mended)" in told
    assert group.states() == ["healthy", "healthy"]
    assert "Nothing is left to do on any host." in told
    assert "[app2] => msg: everything is as it should be" in clinic.run(*REPAIR)


def test_the_doctor_does_not_put_back_what_is_ill(clinic: Clinic, group: Group) -> None:
    ill = {"what": "it is ill", "remedy": "see why", "repairable": False, "evidence": []}
    clinic.finds("app2", {**WELL, "healthy": False, "findings": [ill], "lines": ["it is ill", "  What to do: see why"]})
    told = clinic.run(*REPAIR)
    assert "[app2] => msg:" in told and "it is ill" in told and "see why" in told
    assert "this host is out of the load balancer: it gets no requests" in told
    assert "mended" not in told
    assert group.states()[1] != "healthy"


def test_the_doctor_does_not_miss_a_host_that_nothing_is_deployed_to(clinic: Clinic) -> None:
    clinic.finds("app2", {**WELL, "live": False, "healthy": False})
    assert "out of the load balancer" not in clinic.run(*REPAIR)


def test_the_doctor_says_that_a_host_could_not_be_put_back(clinic: Clinic, moto: str) -> None:
    def slow(_request: bytes, answer: bytes) -> bytes:
        return answer.replace(b"<State>healthy</State>", b"<State>initial</State>")

    with answering(moto, slow) as clinic.moto:
        told = clinic.run(*REPAIR)
    assert "app2 could not be put back: Status check timeout of 10 exceeded, last status was initial" in told
    assert "it gets no requests (can be mended)" in told


def test_the_doctor_cannot_mend_what_the_load_balancer_does_not_use(clinic: Clinic, group: Group, moto: str) -> None:
    group.register(group.instances[1])
    with answering(moto, not_in_use) as clinic.moto:
        told = clinic.run(*REPAIR)
    assert "this host is registered in the load balancer, which does not use it: it gets no requests" in told
    assert "What to do: enable the availability zone" in told
    assert "mended" not in told


def test_the_doctor_looks_again_before_it_says_mended(clinic: Clinic, group: Group, moto: str) -> None:
    """One that still drains counts as registered, and ends the wait when it is ill."""
    group.register(group.instances[1])
    asked: list[bytes] = []

    def drains(request: bytes, answer: bytes) -> bytes:
        if b"Action=DescribeTargetHealth" not in request:
            return answer
        asked.append(request)
        changed = ill(group, 1)(request, answer)
        return changed.replace(b"unhealthy<", b"draining<") if len(asked) <= 3 else changed

    with answering(moto, drains) as clinic.moto:
        told = clinic.run(*REPAIR)
    assert "the load balancer does not call this host healthy, which answers well itself" in told
    assert "mended" not in told
