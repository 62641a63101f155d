"""A deployment of what every host serves already: where it ends, and what keeps it from ending there.

The tasks are those of deploy.yml; hosts, database and the address of the users answer what a test says.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from migration_host import ROOT, ansible_playbook
from playbook_tasks import task_of
from stub_collection import stub_collection

RELEASE = "20260101T000000Z-1.0.0-aaaaaaa"
APPLIED = {"ready": True, "pending": [], "problems": []}
TASKS = (
    "Choose the batches, the same for all hosts",
    "Look again before it ends",
    "See whether all migrations of the release are applied",
    "End where nothing is left to do",
)
#: What they need of their play.
PLAY_VARIABLES = (
    "_first",
    "_balanced",
    "_is_live",
    "_drains",
    "_fleet",
    "_is_up_to_date",
    "_keeps",
    "db_migrate_directory",
)
WENT_ON = "The deployment went on"


def information(**differs: Any) -> dict[str, Any]:
    """Of a host that serves the release and has nothing to do."""
    live = {"id": RELEASE, "version": "1.0.0", "sha256": "a"}
    answer = {"healthy": True, "version": "1.0.0"}
    return {"live": live, "health": answer, "lock": None, "findings": [], "kept": [live], **differs}


class Deployment:
    """The part of deploy.yml that decides, on three hosts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        known = [
            {
                "name": "Ask the database",
                "ansible.builtin.set_fact": {
                    "db_migrate_known": "{{ stub_schema }}",
                    "asked": "{{ db_migrate_known_directory }}",
                },
            }
        ]
        look = [
            {
                "name": "Look",
                "ansible.builtin.set_fact": {"app_release_info": "{{ stub_later }}"},
                "failed_when": "not app_release_examine",
            }
        ]
        gate = [
            {
                "name": "Ask the address of the users",
                "ansible.builtin.assert": {"that": "healthcheck_gate_version == stub_answers"},
            }
        ]
        self.collections = stub_collection(
            directory, {}, {"db_migrate/known": known, "app_release/preflight": look, "healthcheck_gate": gate}
        )

    def run(
        self,
        last: dict[str, Any] | None = None,
        schema: dict[str, Any] | None = None,
        schema_version: str | None = "001",
        later: dict[str, Any] | None = None,
        status: int = 0,
        limit: str = "all",
        left_behind: bool = False,
        **variables: Any,
    ) -> str:
        """What it says.

        Args:
            last: in what the information of the last host differs.
            schema: what the database answers.
            schema_version: of the manifest.
            later: in what it differs when it is looked at again.
            status: with which it ends.
            limit: hosts that are deployed to.
            left_behind: whether the last host has failed and the fleet went on without it.
            variables: of the play.
        """
        source = yaml.safe_load((ROOT / "playbooks/deploy.yml").read_text())
        play = next(play for play in source if play["name"] == "Deploy the release")
        end = {
            "name": WENT_ON,
            "ansible.builtin.debug": {
                "msg": "asked of {{ asked | default('nothing') }}, idle {{ deploy_is_idle }}, plan {{ deploy_plan }}"
            },
        }
        plays = [
            {
                "name": "Deploy",
                "hosts": "app",
                "gather_facts": False,
                "any_errors_fatal": play["any_errors_fatal"],
                "vars": {
                    **{name: play["vars"][name] for name in PLAY_VARIABLES},
                    "app_release_root": "/srv/shop",
                    "app_release_id": RELEASE,
                    "app_release_manifest": {"version": "1.0.0", "schemaVersion": schema_version},
                    "stub_schema": schema or APPLIED,
                    "stub_answers": "1.0.0",
                    **variables,
                },
                "tasks": [*(task_of(play["tasks"], name) for name in TASKS), end],
            }
        ]
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        hosts = {
            host: {
                **local,
                "app_release_info": information(**(last or {}) if host == "app3" else {}),
                "stub_later": information(**(later or last or {}) if host == "app3" else {}),
            }
            for host in ("app1", "app2", "app3")
        }
        if left_behind:
            hosts["app3"]["app_release_activation"] = {"failed": True}
        (self.directory / "hosts.yml").write_text(yaml.safe_dump({"app": {"hosts": hosts}}))
        text = yaml.safe_dump(plays).replace(": tasks/", f": {ROOT}/playbooks/tasks/")
        (self.directory / "play.yml").write_text(text)
        done = ansible_playbook(
            *("-i", str(self.directory / "hosts.yml"), str(self.directory / "play.yml"), "--limit", limit),
            ANSIBLE_COLLECTIONS_PATH=self.collections,
            ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default",
        )
        assert done.returncode == status, done.stdout + done.stderr
        return " ".join(done.stdout.split())


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, f"every host serves {RELEASE}, healthy and with this environment, and all of its migrations are applied."),
        ({"schema_version": None}, f"every host serves {RELEASE}, healthy and with this environment."),
        (
            {
                "last": {"health": {"healthy": True, "version": None}},
                "app_release_verify_version": False,
                "stub_answers": "",
            },
            "Nothing to",
        ),
    ],
    ids=["migrations applied", "no migrations", "any version may answer"],
)
def test_it_ends_where_nothing_is_left_to_do(deployment: Deployment, given: dict[str, Any], said: str) -> None:
    output = deployment.run(**given)
    assert said in output
    assert WENT_ON not in output


@pytest.mark.parametrize(
    "given",
    [
        {"last": {"live": None}},
        {"last": {"live": {"id": "another"}}},
        {"last": {"health": {"healthy": True, "version": "0.9.0"}}},
        {"last": {"findings": [{"what": "a timer waits"}]}},
        {"last": {"kept": [{}, {}, {}]}, "app_release_keep": 2},
        {"schema": {**APPLIED, "ready": False}},
        {"schema": {**APPLIED, "pending": ["002_b.sql"]}},
        {"schema": {**APPLIED, "problems": ["001 was edited"]}},
        {"alb_target_provider": "haproxy"},
        {"db_migrate_schema_file": "schema.sql"},
    ],
    ids=lambda given: " ".join(given),
)
def test_it_goes_on_where_there_is_something_to_do(deployment: Deployment, given: dict[str, Any]) -> None:
    output = deployment.run(**given)
    assert "Nothing to do" not in output
    assert WENT_ON in output
    # The database is asked only where it decides, and of the migrations of the release.
    assert (f"asked of /srv/shop/releases/{RELEASE}/migrations, idle True" in output) == ("schema" in given)


@pytest.mark.parametrize("given", [{"release_artifact": "shop.tar.gz"}, {"release_kept": "live"}], ids=str)
def test_what_was_not_built_now_needs_no_second_look(deployment: Deployment, given: dict[str, str]) -> None:
    later = {"findings": [{"what": "not asked for"}]}
    assert "Nothing to do" in deployment.run(later=later, **given)
    if "release_artifact" in given:
        # It may be a while until the artifact is where the hosts fetch it.
        assert WENT_ON in deployment.run(later=later, **given, app_release_bucket="artifacts")


def test_it_goes_on_where_a_host_fell_ill_while_it_was_built(deployment: Deployment) -> None:
    output = deployment.run(later={"health": {"healthy": False, "version": "1.0.0"}})
    assert "Nothing to do" not in output
    assert WENT_ON in output


@pytest.mark.parametrize("live", [{"id": "another"}, None])
def test_it_stops_where_another_deployment_switched_a_host_while_it_was_built(
    deployment: Deployment, live: dict[str, str] | None
) -> None:
    output = deployment.run(later={"live": live}, status=2)
    now = live["id"] if live else "nothing"
    assert f"Another deployment has switched this host to {now} since this one looked at it" in output
    assert "Nothing to do" not in output
    assert WENT_ON not in output


def test_it_fails_where_users_are_not_answered(deployment: Deployment) -> None:
    output = deployment.run(stub_answers="0.9.0", status=2)
    assert "Nothing to do" not in output
    assert WENT_ON not in output


@pytest.mark.parametrize(
    "given",
    [{"limit": "app1,app2"}, {"left_behind": True}],
    ids=["a part of the fleet", "a host that was left behind"],
)
def test_either_version_may_answer_where_not_all_hosts_serve_the_release(
    deployment: Deployment, given: dict[str, Any]
) -> None:
    assert "Nothing to do" in deployment.run(stub_answers="", **given)


@pytest.mark.parametrize(
    ("provider", "drains", "plan"),
    [
        ("haproxy", True, "[['app3'], ['app2']]"),
        ("haproxy", False, "[['app2'], ['app3']]"),
        ("none", True, "[['app2'], ['app3']]"),
    ],
)
def test_a_fleet_of_one_grows_behind_a_load_balancer(
    deployment: Deployment, provider: str, drains: bool, plan: str
) -> None:
    output = deployment.run(
        last={"live": None, "health": None}, limit="app2,app3", alb_target_provider=provider, deploy_drain=drains
    )
    assert f"plan {plan}" in output
