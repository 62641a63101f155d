"""How an artifact reaches hosts: sent by the controller, or fetched by them from S3 (moto over HTTP)."""

from __future__ import annotations

import hashlib
import json
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from migration_host import ansible_playbook
from moto_server import KEYS, REGION, aws_environment, reset

BUCKET = "shop-artifacts"
CONTENT = bytes(range(256)) * 4096


class Transfer:
    """A controller with an artifact, and this machine as the host that is to have it."""

    def __init__(self, moto: str, directory: Path) -> None:
        self.moto = moto
        self.directory = directory
        self.artifact = directory / "shop-1.0.0.tar.gz"
        self.artifact.write_bytes(CONTENT)
        self.sha256 = hashlib.sha256(CONTENT).hexdigest()
        self.arrived = directory / "artifacts" / f"{self.sha256}.tar.gz"
        self.arrived.parent.mkdir()
        self.s3 = boto3.client("s3", endpoint_url=moto, region_name=REGION, **KEYS)

    def play(self, *entries: str, **variables: Any) -> tuple[int, str]:
        tasks = [
            {
                "name": entry,
                "ansible.builtin.include_role": {"name": "roastify.ops.app_release", "tasks_from": entry},
                "vars": {"app_release_url": "{{ (app_release_published | default({})).url | default('') }}"},
            }
            for entry in entries
        ]
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {
                "ansible_python_interpreter": sys.executable,
                "app_release_name": "shop",
                "app_release_artifact": str(self.artifact),
                "app_release_manifest": {"sha256": self.sha256},
                "app_release_bucket": BUCKET,
                "app_release_transfer_delay": 0,
                "_app_release_remote": str(self.arrived),
                **variables,
            },
            "tasks": tasks,
        }
        playbook = self.directory / "play.yml"
        playbook.write_text(json.dumps([play]))
        process = ansible_playbook(
            *("-i", "localhost,", str(playbook), "-vvv"),
            ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default",
            **aws_environment(self.moto),
        )
        return process.returncode, process.stdout + process.stderr


@pytest.fixture
def transfer(moto: str, tmp_path: Path) -> Iterator[Transfer]:
    reset(moto)
    made = Transfer(moto, tmp_path)
    made.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    yield made


def arrived(transfer: Transfer) -> bool:
    path = transfer.arrived
    return path.is_file() and path.read_bytes() == CONTENT and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_controller_sends_it(transfer: Transfer) -> None:
    status, output = transfer.play("transfer")
    assert status == 0, output
    assert arrived(transfer)
    assert not transfer.s3.list_objects_v2(Bucket=BUCKET).get("Contents")


def test_hosts_fetch_it_from_the_bucket_and_nobody_sees_the_address(transfer: Transfer) -> None:
    status, output = transfer.play("publish", "transfer")
    assert status == 0, output
    assert arrived(transfer)
    assert "Signature=" not in output
    (stored,) = transfer.s3.list_objects_v2(Bucket=BUCKET)["Contents"]
    assert stored["Key"] == f"artifacts/shop/{transfer.sha256}.tar.gz"

    before = stored["LastModified"]
    transfer.arrived.unlink()
    status, output = transfer.play("publish", "transfer")
    assert status == 0, output
    assert arrived(transfer)
    (stored,) = transfer.s3.list_objects_v2(Bucket=BUCKET)["Contents"]
    assert stored["LastModified"] == before, "it was sent again"


def test_what_was_changed_on_the_way_does_not_arrive(transfer: Transfer) -> None:
    transfer.s3.put_object(Bucket=BUCKET, Key=f"artifacts/shop/{transfer.sha256}.tar.gz", Body=CONTENT[:-1] + b"x")
    status, output = transfer.play("publish", "transfer")
    assert status != 0
    assert not transfer.arrived.exists()
    assert "could not be fetched from http" in output and "did not match" in output
    assert "Signature=" not in output


def test_a_bucket_that_is_none_is_said(transfer: Transfer) -> None:
    status, output = transfer.play("publish", app_release_bucket="nobodys-bucket")
    assert status != 0
    assert "could not be put into the bucket nobodys-bucket:" in output
