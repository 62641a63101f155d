"""Which release a fleet returns to, and what is said where its hosts would not return to the same one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from migration_host import ansible_playbook

OLD, ODD = "20260101T000000Z-1.0.0-aaaaaaa", "20260102T000000Z-1.0.0-bbbbbbb"
NEW = {"id": "20260103T000000Z-1.1.0-ccccccc", "version": "1.1.0"}


def information(previous: str | None, *kept: str) -> dict[str, Any]:
    """Of a host, as far as the choice asks for it."""
    releases = [{"id": each, "version": "1.0.0"} for each in kept]
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


def test_hosts_that_keep_nothing_in_common_are_told_to_deploy(choose: Any) -> None:
    status, output = choose(app1=information(OLD, OLD), app2=information(ODD, ODD))
    assert status == 2
    assert "no earlier release is kept by all hosts; deploy the one that is meant" in output
