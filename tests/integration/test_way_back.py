"""The way back of a fleet that failed in the middle: in what order, and whatever happens to a host meanwhile.

The hosts are of this machine. Playbooks and roles are the real ones; the modules that would work on a host only note
that they were called, and fail or lose the host where a test says so.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from migration_host import ROOT, ansible_playbook
from playbook_tasks import task_of
from stub_collection import stub_collection

HOSTS = ("app1", "app2", "app3", "app4")
PLAN = [["app1"], ["app2", "app3"], ["app4"]]
#: Stands between the way forward and the way back in what is noted.
GOES_BACK = "fleet goes back"
#: What a stub notes, says and does; its first argument of note is the host's directory.
STUB = """#!/usr/bin/python
import json, os
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils import basic

def main():
    basic._load_params()
    arguments = {name: value for name, value in basic._load_params().items() if not name.startswith("_ansible")}
    module = AnsibleModule(argument_spec={name: dict(type="raw") for name in arguments}, supports_check_mode=True)
    root = arguments["root"]
    what = WHAT.format(**arguments)
    with open(os.path.join(os.path.dirname(root), "events"), "a") as events:
        events.write(f"{os.path.basename(root)} {what}\\n")
    goes_back = any(os.path.exists(os.path.join(os.path.dirname(root), name)) for name in ("goes-back", "at any time"))
    if (goes_back or what == "switch r2") and os.path.exists(os.path.join(root, "lose " + what)):
        open(os.path.join(root, "lost"), "w").close()
    if (goes_back or what == "switch r2") and os.path.exists(os.path.join(root, "fail " + what)):
        module.fail_json(msg=f"{what} failed as it was told to")
    if os.path.exists(os.path.join(root, "kill " + what)):
        os.kill(os.getpid(), 9)
    live = os.path.join(root, "live")
    changed = True
    if "release" in arguments and what.startswith("switch"):
        with open(live) as file:
            changed = file.read() != arguments["release"]
        with open(live, "w") as file:
            file.write(arguments["release"])
    with open(live) as file:
        serves = file.read()
    shown = dict(id=serves, version=serves.replace("r", "") + ".0.0") if serves else None
    module.exit_json(changed=changed, live=shown)

main()
"""
#: Modules and what they note.
STUBS = {
    "release_activate": "'switch {release}'",
    "deploy_lock": "'lock ' + arguments.get('state', 'held')",
    "release_finish": "'{status}'",
    "balancer": "'{state}'",
}
#: In place of the role: what it is called for, without a load balancer.
BALANCER = [
    {
        "name": "Tell the load balancer",
        "roastify.ops.balancer": {"root": "{{ app_release_root }}", "state": "{{ alb_target_state }}"},
        "delegate_to": "{{ alb_target_balancer | default(inventory_hostname) }}",
    }
]
#: In place of its entry point that takes hosts out, but only where others are left to serve.
LEAVE = [
    {
        "name": "Ask the load balancer to let it go",
        "roastify.ops.balancer": {
            "root": "{{ app_release_root }}",
            "state": "drained{{ ' or all stops' if alb_target_alone == 'stop' else '' }}",
        },
    }
]
#: In place of the rollback of migrations.
SCHEMA = [{"name": "Roll back", "roastify.ops.balancer": {"root": "{{ app_release_root }}", "state": "schema back"}}]


def _together(events: Iterable[str]) -> list[str]:
    """Events of hosts that did the same one after the other, as one."""
    told = []
    for what, same in itertools.groupby(events, lambda event: event.partition(" ")[2]):
        told.append(" ".join([*sorted(event.partition(" ")[0] for event in same), what]))
    return told


class Fleet:
    """Four hosts that serve r1.

    Attributes:
        served: what they served when the deployment looked at them; empty for nothing.
        output: of the last run.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.served = "r1"
        self.output = ""
        modules = {
            module: STUB.replace("WHAT.format(**arguments)", f"({what}).format(**arguments)")
            for module, what in STUBS.items()
        }
        roles = {"alb_target": BALANCER, "alb_target/leave": LEAVE, "db_migrate/rollback": SCHEMA}
        self.collections = stub_collection(directory, modules, roles)
        for host in HOSTS:
            (directory / host).mkdir()
            (directory / host / "live").write_text("r1")

    def order(self, host: str, *what: str) -> None:
        """Tell a host what happens in its switch or on the way back: ``fail``, ``kill``, or ``lose WHAT`` after it."""
        for each in what:
            (self.directory / host / each).touch()

    def deploy(
        self,
        playbook: str = "deploy",
        plan: list[list[str]] | None = None,
        stumbles: str = "",
        left: dict[str, Any] | None = None,
        goes_on: bool = False,
        extra: dict[str, Any] | None = None,
        **variables: Any,
    ) -> list[str]:
        """What happened once the fleet was on its way back, in this order; the run must have failed, or goes on.

        Args:
            playbook: whose beginning and end it is.
            plan: the batches; empty: there is none, and everybody was switched.
            stumbles: a host that fails when all hosts are switched, or ``fleet`` where users are not answered then.
            left: facts of an earlier deployment of the same run; if there are any, the host stumbles before the switch.
            goes_on: whether it may end well; then it is all that happened.
            extra: variables of the command line.
            variables: of the play.
        """
        plan = PLAN if plan is None else plan
        source = yaml.safe_load((ROOT / "playbooks" / f"{playbook}.yml").read_text())
        play = next(play for play in source if "Take the lock" in json.dumps(play))
        begins, switch, back = (
            task_of(play["tasks"], name)
            for name in (
                "Tell that it begins",
                "Switch, batch by batch",
                "Return to what served before and record the failure",
            )
        )
        if not plan:
            role: dict[str, Any] = {"name": "roastify.ops.app_release", "tasks_from": "activate"}
            switch = {"ansible.builtin.include_role": role}
        facts: list[dict[str, Any]] = [{"ansible.builtin.set_fact": {"deploy_plan": plan}}] if plan else []
        end = {"name": "Stumble", "ansible.builtin.fail": {"msg": "too late"}, "when": "inventory_hostname == stumbles"}
        work = [begins, switch, end]
        if stumbles == "fleet":
            work.append(task_of(play["tasks"], "Ask where users ask"))
        if left is not None:
            work = [begins, end, switch] if left else work
            begin = task_of(play["tasks"], "Name the deployment")
            choices = ("Choose the id, the same for all hosts", "Choose id and batches, the same for all hosts")
            choice = task_of(play["tasks"], choices[playbook == "rollback"])
            facts = [{"ansible.builtin.set_fact": {"app_release_id": "r0", **left}}, begin, choice, *facts]
        turn = {
            "ansible.builtin.shell": f"cd {self.directory}; echo {GOES_BACK} >> events; touch goes-back; "
            "for host in app*; do [ ! -e $host/'lose at once' ] || touch $host/lost; "
            "[ ! -e $host/'switched by another' ] || printf r3 > $host/live; done",
            "delegate_to": "localhost",
            "run_once": True,
        }
        names = ("_balanced", "_first", "_drains", "_bake", "_on_failure")
        own = {name: play["vars"][name] for name in names if name in play["vars"]}
        plays = [
            {
                "hosts": "app",
                "gather_facts": False,
                "any_errors_fatal": play["any_errors_fatal"],
                "vars": {
                    "app_release_name": "shop",
                    "app_release_manifest": {"version": "2.0.0", "commit": "abc123", "sha256": "b"},
                    "app_release_id": "r2",
                    "app_release_chosen": {"id": "r2"},
                    "_app_release_new_id": "r2",
                    "app_release_deployed_by": "ann",
                    "app_release_deployment": "d1",
                    "app_release_lease": 900,
                    "app_release_root": str(self.directory / "{{ inventory_hostname }}"),
                    "app_release_action": play["vars"]["app_release_action"],
                    "_is_live": False,
                    "deploy_is_told": False,
                    "stumbles": stumbles,
                    "alb_target_provider": "stub",
                    "rollback_drain": playbook == "deploy",
                    **own,
                    **variables,
                },
                "tasks": [*facts, {"block": work, "rescue": [turn, back]}],
            }
        ]
        lost = f"'{self.directory}/' ~ inventory_hostname ~ '/lost'"
        local = {
            "ansible_python_interpreter": sys.executable,
            "ansible_connection": f"{{{{ 'ansible.builtin.ssh' if ({lost}) is exists else 'local' }}}}",
            "ansible_host": "127.0.0.1",
            "ansible_port": 1,
            "app_release_info": {
                "live": {"id": self.served, "version": "1.0.0"} if self.served else None,
                "health": {"healthy": True} if self.served else None,
                "kept": [],
            },
            "app_env_validation": {"alike": []},
        }
        hosts = sorted(host for batch in plan or PLAN for host in batch)
        inventory = {"all": {"children": {"app": {"hosts": dict.fromkeys(hosts, local)}}}}
        (self.directory / "hosts.yml").write_text(json.dumps(inventory))
        text = json.dumps(plays).replace('": "tasks/', f'": "{ROOT}/playbooks/tasks/')
        (self.directory / "play.yml").write_text(text)
        done = ansible_playbook(
            *("-i", str(self.directory / "hosts.yml"), "-e", json.dumps(extra or {}), str(self.directory / "play.yml")),
            ANSIBLE_COLLECTIONS_PATH=self.collections,
            ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default",
        )
        self.output = done.stdout + done.stderr
        assert done.returncode != 0 or goes_on, self.output
        events = (self.directory / "events").read_text().splitlines()
        if not goes_on:
            events = events[events.index(GOES_BACK) + 1 :]
        return _together(event for event in events if "lock" not in event and "failed" not in event)

    def live(self) -> dict[str, str]:
        """What every host serves."""
        return {host: (self.directory / host / "live").read_text() for host in HOSTS}

    def closed(self) -> list[str]:
        """Hosts that recorded the failure and gave their lock back afterwards."""
        events = (self.directory / "events").read_text().splitlines()
        own = {host: [event for event in events if event.startswith(host)] for host in HOSTS}
        return [host for host in HOSTS if own[host][-2:] == [f"{host} failed", f"{host} lock released"]]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def test_batches_go_back_in_reverse(fleet: Fleet) -> None:
    fleet.order("app4", "fail switch r2")
    assert fleet.deploy() == [
        # It put itself back, and was out of the load balancer.
        *("app4 switch r1", "app4 registered"),
        *("app2 app3 drained", "app2 app3 switch r1", "app2 app3 registered"),
        *("app1 drained", "app1 switch r1", "app1 registered"),
    ], fleet.output
    assert set(fleet.live().values()) == {"r1"}
    assert fleet.closed() == list(HOSTS)


def test_a_module_that_was_killed_is_told_as_that(fleet: Fleet) -> None:
    fleet.order("app4", "kill switch r2")
    fleet.deploy()
    assert set(fleet.live().values()) == {"r1"}
    output = " ".join(fleet.output.split())
    assert "app4, Switch to the release: it ended on the host without an answer" in output, fleet.output
    assert "then run the same command again" in output


def test_only_a_deployment_stops_where_nobody_else_would_serve(fleet: Fleet) -> None:
    forward = ["app1 drained or all stops", "app2 app3 drained or all stops", "app4 drained or all stops"]
    assert [each for each in fleet.deploy(goes_on=True) if "drained" in each] == forward, fleet.output
    (fleet.directory / "events").unlink()
    events = fleet.deploy("rollback", goes_on=True, extra={"rollback_drain": True})
    assert [each for each in events if "drained" in each] == ["app1 drained", "app2 app3 drained", "app4 drained"]


def test_nobody_waits_for_the_load_balancer_unless_that_is_wished_for(fleet: Fleet) -> None:
    fleet.order("app4", "fail switch r2")
    assert fleet.deploy(rollback_drain=False) == [
        *("app4 switch r1", "app4 registered"),
        *("app2 app3 switch r1", "app2 app3 registered"),
        *("app1 switch r1", "app1 registered"),
    ], fleet.output
    assert set(fleet.live().values()) == {"r1"}


def test_what_was_never_begun_is_left_alone(fleet: Fleet) -> None:
    fleet.order("app3", "fail switch r2")
    assert fleet.deploy() == [
        # Only the one that was switched has to leave for its return.
        *("app2 drained", "app2 app3 switch r1", "app2 app3 registered"),
        *("app1 drained", "app1 switch r1", "app1 registered"),
    ], fleet.output
    assert set(fleet.live().values()) == {"r1"}


def test_a_host_that_cannot_return_keeps_nobody_else(fleet: Fleet) -> None:
    fleet.order("app3", "fail switch r1", "fail drained")
    fleet.order("app2", "fail registered")
    assert fleet.deploy(stumbles="app4") == [
        *("app4 drained", "app4 switch r1", "app4 registered"),
        *("app2 app3 drained", "app2 app3 switch r1", "app2 registered"),
        # The latter at the very end, since the load balancer will hardly call it healthy.
        *("app1 drained", "app1 switch r1", "app1 app3 registered"),
    ], fleet.output
    assert fleet.live() == {"app1": "r1", "app2": "r1", "app3": "r2", "app4": "r1"}
    assert fleet.closed() == list(HOSTS)
    assert fleet.output.count("IT COULD NOT BE RETURNED") > 0


@pytest.mark.parametrize("moment", ["at once", "lock held", "drained", "switch r1", "registered"])
def test_a_host_that_is_lost_on_the_way_keeps_nobody_else(fleet: Fleet, moment: str) -> None:
    plan = [["app1"], ["app2", "app3"]]
    fleet.order("app3", f"lose {moment}")
    events = fleet.deploy(plan=plan, stumbles="app1")
    assert {host: fleet.live()[host] for host in ("app1", "app2")} == {"app1": "r1", "app2": "r1"}, fleet.output
    assert events[-3:] == ["app1 drained", "app1 switch r1", "app1 registered"]
    assert fleet.closed()[:2] == ["app1", "app2"]


def test_a_host_says_what_it_serves_in_the_end(fleet: Fleet) -> None:
    fleet.order("app3", "fail switch r2")
    fleet.order("app4", "switched by another")
    fleet.deploy()
    assert fleet.live() == {"app1": "r1", "app2": "r1", "app3": "r1", "app4": "r3"}
    assert "This host serves 1.0.0 as before, release r1" in fleet.output, fleet.output
    assert "This host serves 3.0.0 by now, release r3, which is not what served before" in fleet.output


def test_hosts_of_a_first_deployment_say_what_it_left(fleet: Fleet) -> None:
    fleet.served = ""
    for host in HOSTS:
        (fleet.directory / host / "live").write_text("")
    fleet.order("app2", "fail switch r2")
    fleet.deploy(plan=[["app1"], ["app2", "app3"], ["app4"]], alb_target_provider="none")
    assert fleet.live()["app1"] == "r2"
    assert "This host keeps r2: nothing served here before that it could return to." in fleet.output, fleet.output
    assert "Nothing was live on this host before." in fleet.output
    assert "see who switched it" not in fleet.output


def test_nobody_leaves_where_nobody_else_is_left_to_serve(fleet: Fleet) -> None:
    fleet.order("app2", "lose switch r2")
    assert fleet.deploy(plan=[["app1"], ["app2"]]) == ["app1 switch r1", "app1 registered"], fleet.output
    assert fleet.live()["app1"] == "r1"


def test_without_a_plan_all_go_back_together(fleet: Fleet) -> None:
    assert fleet.deploy(plan=[], stumbles="app1") == ["app1 app2 app3 app4 switch r1"], fleet.output
    assert set(fleet.live().values()) == {"r1"}


def test_a_rollback_goes_back_as_well_and_stays_in_the_load_balancer(fleet: Fleet) -> None:
    fleet.order("app4", "fail switch r2")
    assert fleet.deploy("rollback") == [
        *("app4 switch r1", "app4 registered"),
        *("app2 app3 switch r1", "app2 app3 registered"),
        *("app1 switch r1", "app1 registered"),
    ], fleet.output


def test_with_the_policy_stop_who_is_well_stays(fleet: Fleet) -> None:
    fleet.order("app3", "fail switch r2")
    assert fleet.deploy(deploy_on_failure="stop") == [
        *("app3 switch r1", "app1 app2 app3 registered"),
    ], fleet.output
    assert fleet.live() == {"app1": "r2", "app2": "r2", "app3": "r1", "app4": "r1"}


@pytest.mark.parametrize("playbook", ["deploy", "rollback"])
def test_what_an_earlier_deployment_of_the_run_left_decides_nothing(fleet: Fleet, playbook: str) -> None:
    left = {
        "deploy_past_return": True,
        "deploy_begun": True,
        "deploy_left": True,
        "deploy_failure": "of yesterday",
        "deploy_failure_cause": "of yesterday",
        "app_release_activation": {"changed": True},
        "app_release_reversion": {"failed": True},
        "db_migrate_result": {"changed": True},
        # Of whatever dealt with a failure before, the repair of the doctor for instance.
        "ansible_failed_task": {"name": "of yesterday", "action": "fail"},
        "ansible_failed_result": {"msg": "of yesterday"},
    }
    assert fleet.deploy(playbook, stumbles="app2", left=left, db_migrate_on_failure="rollback") == [], fleet.output
    assert "This host serves 1.0.0 as before, release r1" in fleet.output, fleet.output
    for wrong in ("of yesterday", "This host keeps", "IT COULD NOT BE RETURNED"):
        assert wrong not in fleet.output


def test_a_rollback_after_a_deployment_of_the_same_run_switches_to_its_own_release(fleet: Fleet) -> None:
    fleet.order("app4", "fail switch r2")
    fleet.deploy("rollback", left={}, stumbles="app4")
    assert "app1 switch r2" in (fleet.directory / "events").read_text(), fleet.output


def test_with_the_policy_stop_all_stay_where_it_is_the_fleet_that_fails(fleet: Fleet) -> None:
    nobody = {"healthcheck_gate_url": "http://127.0.0.1:1/", "healthcheck_gate_patience": 0.2}
    events = fleet.deploy(stumbles="fleet", deploy_on_failure="stop", app_release_verify_version=False, **nobody)
    assert not [event for event in events if "switch" in event], fleet.output
    assert set(fleet.live().values()) == {"r2"}
    assert fleet.closed() == list(HOSTS)
    assert "Health gate at http://127.0.0.1:1/ stays shut" in fleet.output
    assert "IT COULD NOT BE RETURNED" not in fleet.output


def test_with_the_policy_continue_a_host_that_serves_nothing_stays_out_of_the_load_balancer(fleet: Fleet) -> None:
    fleet.served = ""
    for host in HOSTS:
        (fleet.directory / host / "live").write_text("")
    fleet.order("app3", "fail switch r2")
    events = fleet.deploy(deploy_on_failure="continue", goes_on=True)
    registered = [event for event in events if "registered" in event]
    assert registered == ["app1 registered", "app2 registered", "app4 registered"], fleet.output
    assert {host: fleet.live()[host] for host in ("app2", "app3", "app4")} == {"app2": "r2", "app3": "", "app4": "r2"}


def test_a_rollback_takes_no_policy_of_a_deployment(fleet: Fleet) -> None:
    fleet.order("app3", "fail switch r2")
    events = fleet.deploy("rollback", extra={"deploy_on_failure": "continue", "deploy_drain": True})
    assert "app1 switch r1" in events, fleet.output
    assert set(fleet.live().values()) == {"r1"}
    assert "drained" not in (fleet.directory / "events").read_text()


@pytest.mark.parametrize("variables", [{}, {"alb_target_balancer": "gone.invalid"}], ids=["refuses", "does not answer"])
def test_a_rollback_that_takes_nobody_out_of_the_load_balancer_does_not_need_it(
    fleet: Fleet, variables: dict[str, str]
) -> None:
    (fleet.directory / "at any time").touch()
    fleet.order("app1", "fail registered")
    events = fleet.deploy("rollback", plan=[["app1", "app2"], ["app3", "app4"]], goes_on=True, **variables)
    assert set(fleet.live().values()) == {"r2"}, fleet.output
    assert GOES_BACK not in events
    assert variables or fleet.output.count("This host may be out of the load balancer") == 1


def test_a_rollback_that_leaves_the_load_balancer_goes_back_where_it_cannot_return_to_it(fleet: Fleet) -> None:
    (fleet.directory / "at any time").touch()
    fleet.order("app1", "fail registered")
    fleet.deploy("rollback", rollback_drain=True)
    assert set(fleet.live().values()) == {"r1"}, fleet.output


def test_the_rest_of_the_migrations_is_rolled_back_by_the_release_that_brought_them(fleet: Fleet) -> None:
    # Its first host serves the older release already, since the rollback before was killed.
    fleet.served = "r2"
    left = {"deploy_past_return": True, "deploy_newer": "r3"}
    fleet.deploy("rollback", stumbles="app1", extra=left)
    assert "since migrations of r3 were rolled back" in fleet.output, fleet.output
    assert "/app1/releases/r3/migrations" in fleet.output


#: A deployment that migrated, on its first host.
MIGRATED = {
    "db_migrate_on_failure": "rollback",
    "db_migrate_result": "{{ {'changed': inventory_hostname == 'app1'} }}",
    "db_migrate_plan": {"schema_version_before": "001"},
}


def test_the_schema_goes_back_last_and_once(fleet: Fleet) -> None:
    fleet.order("app4", "fail switch r2")
    events = fleet.deploy(**MIGRATED)
    assert events[-2:] == ["app1 registered", "app1 schema back"], fleet.output


@pytest.mark.parametrize(
    ("host", "order", "variables"),
    [
        pytest.param("app3", ["fail switch r2"], {"deploy_on_failure": "stop"}, id="some keep the release"),
        pytest.param("app3", ["fail switch r1"], {"stumbles": "app4"}, id="one cannot return"),
        pytest.param("app3", ["lose switch r2"], {}, id="one does not answer"),
        pytest.param("app1", ["fail lock held"], {"stumbles": "app4"}, id="the lock is lost"),
    ],
)
def test_the_schema_stays_for_whoever_may_need_it(
    fleet: Fleet, host: str, order: list[str], variables: dict[str, Any]
) -> None:
    fleet.order(host, *order)
    events = fleet.deploy(**MIGRATED, **variables)
    assert not [event for event in events if "schema back" in event], fleet.output
    output = " ".join(fleet.output.split())
    assert "were not rolled back; see above" in output
    # A further deployment would not: it finds them applied, so that they are not its own.
    releases = f"{fleet.directory}/app1/releases"
    assert f"migrate.yml -e migrate_rollback_to=001 -e db_migrate_directory={releases}/r2/migrations" in output


@pytest.mark.parametrize(
    ("does", "past_return"),
    [
        ("import os; os.kill(os.getpid(), 9)", True),
        ("raise RuntimeError", True),
        ("module.fail_json(msg='in the middle', changed=True, rolled_back=[{}])", True),
        ("module.fail_json(msg='before it began', changed=False, rolled_back=[])", False),
        ("module.exit_json(changed=True, rolled_back=[{}])", True),
        ("module.exit_json(changed=False, rolled_back=[])", False),
        # What failed came before it.
        ("", False),
    ],
)
def test_the_newer_release_comes_back_only_where_its_schema_is_known_to_be_whole(
    tmp_path: Path, does: str, past_return: bool
) -> None:
    stub = "#!/usr/bin/python\nfrom ansible.module_utils.basic import AnsibleModule\nmodule = AnsibleModule({})\n"
    source = yaml.safe_load((ROOT / "playbooks" / "rollback.yml").read_text())
    play = next(play for play in source if "Take the lock" in json.dumps(play))
    begins, ends = (
        task_of(play["tasks"], name)
        for name in ("Note that the newer schema may be gone", "Note whether a part of it may be gone")
    )
    step = {"roastify.ops.pg_migrate": {}, "register": "db_migrate_result"}
    # As the playbook sets it when it begins.
    variables = {"db_migrate_result": {}}
    if not does:
        step = {"name": "Back up", "ansible.builtin.fail": {}}
    say = {"ansible.builtin.debug": {"msg": "past return: {{ deploy_past_return }}, newer: {{ deploy_newer }}"}}
    block = {"block": [begins, step], "always": [ends, say]}
    plays = [{"hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": [block]}]
    (tmp_path / "play.yml").write_text(json.dumps(plays))
    done = ansible_playbook(
        *("-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}"),
        *("-e", json.dumps({"app_release_info": {"live": {"id": "r2", "sha256": "b"}, "kept": [], "journal": []}})),
        str(tmp_path / "play.yml"),
        ANSIBLE_COLLECTIONS_PATH=stub_collection(tmp_path, {"pg_migrate": stub + does}),
        ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default",
    )
    assert f"past return: {past_return}, newer: r2" in done.stdout, done.stdout
