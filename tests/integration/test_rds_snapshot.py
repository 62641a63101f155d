"""The role's snapshots of Amazon RDS, against a moto server over HTTP and a real PostgreSQL.

moto has no database behind its instances, and its snapshots are available at once. Where they must not be, a
proxy before it says so; the role and the modules that it calls are the real ones.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from migration_host import Host, ansible_playbook, role
from moto_server import KEYS, REGION, answering, aws_environment, reset
from postgresql_server import PASSWORD, TestDatabase


@pytest.fixture
def rds(moto: str) -> Iterator[Any]:
    """A client, with an instance and an Aurora cluster."""
    reset(moto)
    client = boto3.client("rds", endpoint_url=moto, region_name=REGION, **KEYS)
    for name in ("shop-db", "other-db"):
        client.create_db_instance(
            DBInstanceIdentifier=name,
            Engine="postgres",
            DBInstanceClass="db.t3.small",
            AllocatedStorage=20,
            MasterUsername="owner",
            MasterUserPassword="never-used-word",
        )
    client.create_db_cluster(
        DBClusterIdentifier="shop-cluster",
        Engine="aurora-postgresql",
        MasterUsername="owner",
        MasterUserPassword="never-used-word",
    )
    yield client
    client.close()


def saying(moto: str, status: str) -> contextlib.AbstractContextManager[str]:
    """The address of a proxy in whose answers no snapshot is available: it has this status instead."""

    def change(_request: bytes, answer: bytes) -> bytes:
        replaced = answer.replace(b"<Status>available<", f"<Status>{status}<".encode())
        return replaced if b"Snapshot" in answer else answer

    return answering(moto, change)


class Fleet:
    """A managed host that has neither boto3 nor credentials, and a controller that has both."""

    def __init__(self, host: Host) -> None:
        self.host = host
        host.write("001_a.up.sql", "CREATE TABLE a (id int);\n")
        absent = host.directory / "absent"
        for name in ("boto3", "botocore"):
            (absent / name).mkdir(parents=True)
            (absent / name / "__init__.py").write_text("raise ImportError('not on a managed host')\n")
        self.python = host.directory / "python"
        self.python.write_text(
            "#!/bin/sh\nunset AWS_ENDPOINT_URL AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_REGION\n"
            f'PYTHONPATH={absent} exec {sys.executable} "$@"\n'
        )
        self.python.chmod(0o755)

    def migrate(self, endpoint: str, check: bool = False, **variables: Any) -> tuple[int, str]:
        """Exit code and output of the role."""
        playbook = self.host.directory / "play.yml"
        play = {
            "hosts": "managed",
            "connection": "local",
            "gather_facts": False,
            "vars": {
                "db_migrate_directory": str(self.host.migrations),
                "db_migrate_env_file": str(self.host.env_file),
                "db_migrate_backup_method": "rds_snapshot",
                **variables,
            },
            "tasks": [role("main"), {"ansible.builtin.debug": {"msg": "{{ db_migrate_backup_result | default({}) }}"}}],
        }
        playbook.write_text(json.dumps([play]))
        process = ansible_playbook(
            *("-i", str(self._inventory()), str(playbook), *(["--check"] if check else [])),
            **aws_environment(endpoint),
        )
        # Ansible folds long lines.
        return process.returncode, " ".join((process.stdout + process.stderr).split())

    def _inventory(self) -> Path:
        path = self.host.directory / "inventory.yml"
        path.write_text(json.dumps({"all": {"hosts": {"managed": {"ansible_python_interpreter": str(self.python)}}}}))
        return path


@pytest.fixture
def fleet(host: Host) -> Fleet:
    return Fleet(host)


def tags(snapshot: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in snapshot["TagList"]}


def instance_snapshots(rds: Any) -> list[str]:
    answer = rds.describe_db_snapshots(SnapshotType="manual")
    return sorted(it["DBSnapshotIdentifier"] for it in answer["DBSnapshots"])


def test_an_instance_is_snapshot_before_anything_is_migrated(
    moto: str, rds: Any, fleet: Fleet, database: TestDatabase
) -> None:
    own = [{"Key": "CreatedBy", "Value": "roastify.ops.db_migrate"}]
    for number in range(1, 5):
        rds.create_db_snapshot(
            DBInstanceIdentifier="shop-db", DBSnapshotIdentifier=f"shop-db-2026010{number}t000000z", Tags=own
        )
    # Somebody else's, of another instance, and one that this role made of another instance.
    rds.create_db_snapshot(DBInstanceIdentifier="shop-db", DBSnapshotIdentifier="by-hand")
    rds.create_db_snapshot(DBInstanceIdentifier="other-db", DBSnapshotIdentifier="other-db-20260101t000000z", Tags=own)

    variables = {"db_migrate_rds_instance": "shop-db", "db_migrate_deployment_id": "20260110T--1.2.0_Ä"}
    status, output = fleet.migrate(moto, check=True, **variables)
    assert status == 0, output
    assert len(instance_snapshots(rds)) == 6
    status, output = fleet.migrate(moto, db_migrate_backup_keep=2, **variables)
    assert status == 0, output
    assert database.tables() == ["a", "migrations"]
    kept, new = (name for name in instance_snapshots(rds) if name.startswith("shop-db-"))
    assert kept == "shop-db-20260104t000000z"
    assert new.startswith("shop-db-20") and new.endswith("z-20260110t-1-2-0")
    assert new in output
    assert {"by-hand", "other-db-20260101t000000z"} < set(instance_snapshots(rds))
    (snapshot,) = rds.describe_db_snapshots(DBSnapshotIdentifier=new)["DBSnapshots"]
    assert tags(snapshot) == {
        "CreatedBy": "roastify.ops.db_migrate",
        "Deployment": variables["db_migrate_deployment_id"],
    }
    assert PASSWORD not in output
    assert KEYS["aws_secret_access_key"] not in output

    # Nothing to migrate, nothing to back up.
    before = instance_snapshots(rds)
    status, output = fleet.migrate(moto, **variables)
    assert (status, instance_snapshots(rds)) == (0, before), output


def test_a_cluster_is_snapshot(moto: str, rds: Any, fleet: Fleet, database: TestDatabase) -> None:
    rds.create_db_cluster_snapshot(
        DBClusterIdentifier="shop-cluster",
        DBClusterSnapshotIdentifier="shop-cluster-20260101t000000z",
        Tags=[{"Key": "CreatedBy", "Value": "roastify.ops.db_migrate"}],
    )
    status, output = fleet.migrate(moto, db_migrate_rds_cluster="shop-cluster", db_migrate_backup_keep=1)
    assert status == 0, output
    assert database.tables() == ["a", "migrations"]
    answer = rds.describe_db_cluster_snapshots(DBClusterIdentifier="shop-cluster", SnapshotType="manual")
    (snapshot,) = answer["DBClusterSnapshots"]
    assert snapshot["DBClusterSnapshotIdentifier"] != "shop-cluster-20260101t000000z"
    assert tags(snapshot) == {"CreatedBy": "roastify.ops.db_migrate"}


@pytest.mark.parametrize(
    ("said", "message"), [("creating", "its status is creating after 5 s"), ("failed", "its status is failed")]
)
def test_one_that_does_not_become_available_stops_the_run(
    moto: str, rds: Any, fleet: Fleet, database: TestDatabase, said: str, message: str
) -> None:
    own = [{"Key": "CreatedBy", "Value": "roastify.ops.db_migrate"}]
    rds.create_db_snapshot(DBInstanceIdentifier="shop-db", DBSnapshotIdentifier="shop-db-20260101t000000z", Tags=own)
    with saying(moto, said) as endpoint:
        status, output = fleet.migrate(
            endpoint, db_migrate_rds_instance="shop-db", db_migrate_rds_snapshot_timeout=5, db_migrate_backup_keep=1
        )
    assert status != 0, output
    assert "The backup failed and nothing was migrated." in output
    assert message in output
    assert database.tables() == []
    assert "shop-db-20260101t000000z" in instance_snapshots(rds), "an older snapshot was removed"


def test_what_cannot_be_snapshot_stops_the_run(moto: str, rds: Any, fleet: Fleet, database: TestDatabase) -> None:
    for variables, message in (
        ({"db_migrate_rds_instance": "missing-db"}, "missing-db"),
        ({}, "set either db_migrate_rds_instance or"),
        ({"db_migrate_rds_instance": "a", "db_migrate_rds_cluster": "b"}, "set either db_migrate_rds_instance or"),
    ):
        status, output = fleet.migrate(moto, **variables)
        assert status != 0, output
        assert "The backup failed and nothing was migrated." in output
        assert message in output
    assert instance_snapshots(rds) == []
    assert database.tables() == []


def test_none_leaves_the_backup_to_others(moto: str, rds: Any, fleet: Fleet, database: TestDatabase) -> None:
    status, output = fleet.migrate(moto, db_migrate_backup_method="none")
    assert status == 0, output
    assert instance_snapshots(rds) == []
    assert database.tables() == ["a", "migrations"]
