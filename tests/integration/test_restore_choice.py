"""Which host of the fleet a backup of the database is restored from."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from migration_host import ROOT, ansible_playbook
from stub_collection import stub_collection

#: In place of the role: says from where it would restore.
RESTORE = [{"name": "Say", "ansible.builtin.debug": {"msg": "restores from {{ inventory_hostname }}"}}]


@pytest.fixture
def restore(tmp_path: Path) -> Any:
    """Exit status and output of the playbook; a host has backups of these days, or does not answer."""

    def run(backup: str, limit: str = "all", **days: list[int] | None) -> tuple[int, str]:
        hosts: dict[str, Any] = {}
        for host, backups in days.items():
            directory = tmp_path / host
            directory.mkdir(exist_ok=True)
            for day in backups or []:
                (directory / f"shop-202601{day:02}T000000Z.dump").touch()
            hosts[host] = {"ansible_connection": "local", "db_migrate_backup_directory": str(directory)}
            if backups is None:
                hosts[host].update(ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=1)
        common = {"ansible_python_interpreter": sys.executable, "app_root": "/srv/shop", "restore_backup": backup}
        (tmp_path / "hosts.yml").write_text(json.dumps({"app": {"hosts": hosts, "vars": common}}))
        roles = {"db_migrate/restore": RESTORE, "db_migrate/status": []}
        done = ansible_playbook(
            *(str(ROOT / "playbooks" / "restore.yml"), "-i", str(tmp_path / "hosts.yml"), "--limit", limit),
            ANSIBLE_COLLECTIONS_PATH=stub_collection(tmp_path, {}, roles),
            ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default",
        )
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    return run


def test_the_newest_backup_of_the_fleet(restore: Any) -> None:
    status, output = restore("newest", app1=[1, 2], app2=[3])
    assert status == 0, output
    assert "restores from app2" in output and "restores from app1" not in output


def test_a_host_that_does_not_answer_may_have_the_newest(restore: Any) -> None:
    status, output = restore("newest", app1=None, app2=[1], app3=[2])
    assert status != 0
    assert "restores from" not in output
    assert "app1 did not answer, and may have the newest backup. Nothing was restored." in output, output
    assert "--limit 'localhost,app,!app1'" in output


@pytest.mark.parametrize(("backup", "limit"), [("newest", "localhost,app,!app2"), ("/srv/a.dump", "all")])
def test_there_is_a_way_without_it(restore: Any, backup: str, limit: str) -> None:
    _, output = restore(backup, limit, app1=[1], app2=None)
    assert "restores from app1" in output, output
