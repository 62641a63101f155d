"""Which release a fleet returns to or deploys again, and what is said where its hosts would not get the same one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from migration_host import ROOT, ansible_playbook
from playbook_tasks import task_of
from stub_collection import stub_collection

OLD, ODD = "20260101T000000Z-1.0.0-aaaaaaa", "20260102T000000Z-1.0.0-bbbbbbb"
NEW = {"id": "20260103T000000Z-1.1.0-ccccccc", "version": "1.1.0", "state": "live"}


def information(previous: str | None, *kept: str) -> dict[str, Any]:
    """Of a host, as far as the choice asks for it."""
    releases = [{"id": each, "version": "1.0.0", "state": "previous"} for each in kept]
    return {
        "live": NEW,
        "previous": next((release for release in releases if release["id"] == previous), None),
        "kept": [NEW, *releases],
    }


@pytest.fixture
def choose(tmp_path: Path) -> Any:
    """Exit status and output of the choice of a fleet, given by the information of each host."""

    def run(**hosts: dict[str, Any]) -> tuple[int, str]:
        variables = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        fleet = {
            host: {**variables, "app_release_info": info, "app_release_problems": []} for host, info in hosts.items()
        }
        (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"app": {"hosts": fleet}}))
        role = {"name": "roastify.ops.app_release", "tasks_from": "choose"}
        play = {
            "name": "Choose",
            "hosts": "app",
            "gather_facts": False,
            "tasks": [{"name": "Choose", "ansible.builtin.import_role": role}],
        }
        (tmp_path / "choose.yml").write_text(yaml.safe_dump([play]))
        done = ansible_playbook(
            *(str(tmp_path / "choose.yml"), "-i", str(tmp_path / "hosts.yml")),
            ANSIBLE_STDOUT_CALLBACK="roastify.ops.progress",
        )
        return done.returncode, done.stdout

    return run


def test_hosts_that_agree_return_together(choose: Any) -> None:
    status, output = choose(app1=information(OLD, OLD), app2=information(OLD, OLD, ODD))
    assert status == 0, output


def test_hosts_that_do_not_agree_say_who_would_return_to_what(choose: Any) -> None:
    status, output = choose(
        app1=information(OLD, OLD),
        app2=information(ODD, ODD, OLD),
        app3=information(OLD, OLD, ODD),
        app4=information(None, OLD),
    )
    assert status == 2
    assert (
        f"the hosts do not agree on the release to return to: app1, app3 would return to {OLD}; app2 would return to "
        f"{ODD}; app4 to none. What to do: name one that all hosts keep with -e release=ID: {OLD}\n"
    ) in output, output
    # Once: what the others say is the same for all of them.
    assert output.count(f"would return to {ODD}") == 1
    assert "FAILED   app2, app3: See that" in output
    assert "the hosts do not agree on the release to return to; see app1\n" in output


def test_where_a_part_of_the_fleet_is_back_already_its_release_is_named_first(choose: Any) -> None:
    back = {**information(ODD, ODD), "live": {"id": OLD, "version": "1.0.0"}}
    back["kept"] = information(OLD, OLD, ODD)["kept"]
    status, output = choose(app1=information(OLD, ODD, OLD), app2=back)
    assert status == 2
    assert f"name one that all hosts keep with -e release=ID: {OLD}, {ODD}\n" in output, output


def test_a_fresh_host_is_no_reason_to_wait_with_the_others(choose: Any) -> None:
    status, output = choose(app1=information(OLD, OLD), app2={"live": None, "previous": None, "kept": []})
    assert status == 2
    assert "nothing is live here" in output, output
    assert "or leave this host out (--limit" in output


def test_hosts_that_keep_nothing_in_common_are_told_to_deploy(choose: Any) -> None:
    status, output = choose(app1=information(OLD, OLD), app2=information(ODD, ODD))
    assert status == 2
    assert "no earlier release is kept by all hosts; deploy the one that is meant" in output


#: In place of the module: says what the test wrote down for the host, and looks up the release that is asked for.
LOOK = """#!/usr/bin/python
import json, os
from ansible.module_utils.basic import AnsibleModule
names = "name root user configuration port health_path release candidate_port verify examine journal_entries"
module = AnsibleModule({name: {"type": "str"} for name in names.split()}, supports_check_mode=True)
with open(os.path.join(module.params["root"], "info.json")) as file:
    info = json.load(file)
target = [release for release in info["kept"] if module.params["release"] in (release["id"], release["version"])]
module.exit_json(changed=False, problems=[], target=target[0] if target else None, **info)
"""
ONE = {"id": "r1", "version": "1.0.0", "sha256": "a", "schemaVersion": "001", "intact": True}
TWO = {"id": "r2", "version": "2.0.0", "sha256": "b", "schemaVersion": "002", "intact": True}
#: The content of the second with another environment.
TWO_AGAIN = {**TWO, "id": "r2b"}
OBSTACLE = "version 1.0.0 works with the schema up to 001, and migration 002 changed what it relies on: DROP TABLE a"


@pytest.fixture
def deploy_kept(tmp_path: Path) -> Any:
    """Exit status and output of a deployment of what the hosts keep; of each host the id of what it serves is given.

    Another host is lost before, if ``lost`` is given: what an earlier playbook of the run saw of it.
    """
    releases = {each["id"]: each for each in (ONE, TWO, TWO_AGAIN)}

    def run(kept: Any, *live: str, lost: Any = None, **variables: Any) -> tuple[int, str]:
        source = yaml.safe_load((ROOT / "playbooks" / "deploy.yml").read_text())
        look = next(play for play in source if play["name"] == "Look before anything is changed")
        deploy = next(play for play in source if play["name"] == "Deploy the release")
        needed = [task_of(look["tasks"], name) for name in ("See the hosts", "Stop if anything stands in the way")]
        say = {"name": "Say", "ansible.builtin.debug": {"msg": "deploys {{ app_release_manifest.id }}"}}
        plays = [
            {**look, "tasks": needed},
            {**deploy, "tasks": [task_of(deploy["tasks"], "See that every host keeps the release"), say]},
        ]
        hosts = {}
        for number, identifier in enumerate(live, 1):
            root = tmp_path / f"app{number}"
            root.mkdir()
            older = {**ONE, "schemaObstacle": None if identifier == "r1" else OBSTACLE}
            info = {
                "live": releases.get(identifier),
                "kept": [older, TWO, TWO_AGAIN],
                "clock_skew": 0,
                "lock_problem": None,
            }
            (root / "info.json").write_text(json.dumps({**info, "health": {"healthy": True}}))
            hosts[root.name] = {"ansible_connection": "local", "app_release_root": str(root)}
        if lost:
            plays.insert(0, {"hosts": "app", "gather_facts": False, "tasks": [{"ansible.builtin.ping": {}}]})
            hosts["app9"] = {"ansible_host": "127.0.0.1", "ansible_port": 1, "app_release_info": lost}
        common = {
            "ansible_python_interpreter": sys.executable,
            "app_release_name": "shop",
            "app_env_problems": [],
            "release_kept": kept,
            **variables,
        }
        built = {
            "ansible_connection": "local",
            "app_build_result": {"artifact": "a.tar.gz", "manifest": {"id": "built"}},
        }
        groups = {"app": {"hosts": hosts}, "controller": {"hosts": {"localhost": built}}}
        (tmp_path / "hosts.yml").write_text(json.dumps({"all": {"children": groups, "vars": common}}))
        (tmp_path / "play.yml").write_text(json.dumps(plays))
        done = ansible_playbook(
            *(str(tmp_path / "play.yml"), "-i", str(tmp_path / "hosts.yml")),
            ANSIBLE_COLLECTIONS_PATH=stub_collection(tmp_path, {"release_info": LOOK}),
            ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default",
        )
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    return run


@pytest.mark.parametrize(
    ("kept", "live", "deployed"),
    [
        ("live", ["r2", "r2"], "r2"),
        pytest.param("live", ["r2", "r2b"], "r2", id="one content with two environments"),
        ("2.0.0", ["r1", "r2"], "r2"),
        pytest.param("r1", ["r1", "r2"], "r1", id="an older one that is said to work"),
        pytest.param("", ["r2", "r1"], "built", id="an empty one is none"),
    ],
)
def test_what_is_deployed_again(deploy_kept: Any, kept: str, live: list[str], deployed: str) -> None:
    status, output = deploy_kept(kept, *live, rollback_accept_schema=kept == "r1")
    assert status == 0, output
    assert f"deploys {deployed}" in output


def test_where_nothing_is_live_there_is_nothing_to_deploy_again(deploy_kept: Any) -> None:
    status, output = deploy_kept("live", "none", "none")
    assert status == 2
    assert "Nothing is live on app1, so that it cannot be deployed with another environment." in output, output


def test_a_host_that_was_lost_by_an_earlier_playbook_of_the_run_is_missed(deploy_kept: Any) -> None:
    status, output = deploy_kept("live", "r2", "r2", lost={"live": TWO, "kept": [TWO]})
    assert status != 0
    assert "app9 did not answer" in output, output
    assert "--limit 'localhost,app,!app9'" in output
    assert "deploys" not in output


def test_a_rollback_misses_it_too(tmp_path: Path) -> None:
    """Else it would go on without, and leave it on the release that the others have left."""
    source = yaml.safe_load((ROOT / "playbooks" / "rollback.yml").read_text())
    look = next(play for play in source if play["name"] == "Look before anything is changed")
    stop = task_of(look["tasks"], "Stop where hosts are missing, or the settings do not fit")
    plays = [
        {"hosts": "app", "gather_facts": False, "tasks": [{"ansible.builtin.ping": {}}]},
        {**look, "tasks": [stop, {"name": "Go on", "ansible.builtin.debug": {"msg": "rolls back"}}]},
    ]
    (tmp_path / "play.yml").write_text(json.dumps(plays))
    hosts = {
        "app1": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
        "app9": {"ansible_host": "127.0.0.1", "ansible_port": 1},
    }
    (tmp_path / "hosts.yml").write_text(json.dumps({"app": {"hosts": hosts}}))
    done = ansible_playbook(
        *(str(tmp_path / "play.yml"), "-i", str(tmp_path / "hosts.yml")),
        ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default",
    )
    output = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert "Nothing was changed. app9 did not answer in this run" in output.replace("\\n", " "), output
    assert "--limit 'app,!app9'" in output
    assert "rolls back" not in output


def test_hosts_that_serve_different_releases_have_no_live_one(deploy_kept: Any) -> None:
    status, output = deploy_kept("live", "r2", "r1", "none")
    assert status == 2
    assert "Nothing was changed. On app1: the hosts serve different releases (app1 serves r2, app2 serves r1)" in output
    assert "name the one that is meant, -e release_kept=ID" in output
    assert "deploys" not in output


#: Of a rollback that was killed behind its switch.
BEGUN = {"action": "rollback", "status": "started", "release": "r1", "previousRelease": "r2"}


@pytest.mark.parametrize(
    ("live", "journal", "directory"),
    [
        ([TWO, TWO], [], "r2"),
        pytest.param([ONE, TWO], [], "r2", id="the first host serves the older one already"),
        pytest.param([ONE, TWO_AGAIN], [], "r2", id="and keeps the newer content with another environment"),
        pytest.param([ONE, {**TWO, "sha256": "c"}], [], "r1", id="and does not keep the newer one"),
        pytest.param([{**ONE, "schemaVersion": None}, TWO], [], "r2", id="and has no migrations"),
        pytest.param([ONE, ONE], [BEGUN], "r2", id="all hosts do, since the rollback was killed"),
        pytest.param([ONE, ONE], [BEGUN, {**BEGUN, "status": "succeeded"}], "r1", id="and it was not killed"),
        pytest.param([ONE, ONE], [{**BEGUN, "action": "deploy"}], "r1", id="and it was a deployment"),
    ],
)
def test_migrations_are_rolled_back_by_the_newest_release_of_the_fleet(
    tmp_path: Path, live: list[dict[str, Any]], journal: list[dict[str, str]], directory: str
) -> None:
    source = yaml.safe_load((ROOT / "playbooks" / "rollback.yml").read_text())
    look = next(play for play in source if play["name"] == "Look before anything is changed")
    say = [{"name": "Say", "ansible.builtin.debug": {"msg": "{{ db_migrate_directory }}"}}]
    plan = task_of(look["tasks"], "See that the migrations can be rolled back")
    (tmp_path / "play.yml").write_text(json.dumps([{**look, "tasks": [plan]}]))
    hosts = {
        f"app{number}": {
            "ansible_connection": "local",
            "app_release_root": "/srv/shop",
            "app_release_info": {"live": each, "kept": [live[0], TWO], "journal": journal},
            "app_release_chosen": ONE,
            "rollback_migrations": True,
        }
        for number, each in enumerate(live, 1)
    }
    (tmp_path / "hosts.yml").write_text(json.dumps({"app": {"hosts": hosts}}))
    done = ansible_playbook(
        *(str(tmp_path / "play.yml"), "-i", str(tmp_path / "hosts.yml")),
        ANSIBLE_COLLECTIONS_PATH=stub_collection(tmp_path, {}, {"db_migrate/rollback_plan": say}),
        ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default",
    )
    assert f"/srv/shop/releases/{directory}/migrations" in done.stdout, done.stdout
    assert done.returncode == 0


def test_an_older_release_is_not_deployed_on_a_schema_that_broke_it(deploy_kept: Any, choose: Any) -> None:
    status, output = deploy_kept("r1", "r1", "r2")
    assert status == 2
    assert (
        f"Nothing was changed. On app2: {OBSTACLE}. What to do: go back with the schema as well (rollback.yml" in output
    )
    assert "On app1" not in output
    # In the words of a rollback.
    told = output.partition("On app2: ")[2].partition("(-e rollback_accept_schema=true)")[0]
    older = {**information(OLD, OLD), "previous": {**ONE, "schemaObstacle": OBSTACLE}}
    status, output = choose(app1=older)
    assert status == 2
    assert told in " ".join(output.split()), output
