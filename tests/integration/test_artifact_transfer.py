"""How an artifact reaches hosts: sent by the controller, or fetched by them from S3 (moto over HTTP)."""

from __future__ import annotations

import os
import random
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from ansible_collections.roastify.ops.plugins.module_utils import releases
from moto_server import KEYS, REGION, aws_environment, reset
from staging_host import StagingHost

BUCKET = "shop-artifacts"


@pytest.fixture
def host(tmp_path: Path) -> StagingHost:
    """A host, and an artifact of some size, whose content does not shrink when it is packed."""
    made = StagingHost(tmp_path)
    for number in range(8):
        (made.source / f"file{number}").write_bytes(random.Random(number).randbytes(50_000))
    made.packed = made.pack("1.0.0")
    return made


def sent(outcome: subprocess.CompletedProcess[str]) -> int:
    """Bytes that the controller says it has sent."""
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return int(re.findall(r"^ +sent: (\d+)$", outcome.stdout, re.MULTILINE)[-1])


def size(host: StagingHost) -> int:
    return os.path.getsize(host.packed.path)


def staged(host: StagingHost, identifier: str) -> releases.Release:
    """A release that is what was built; nothing of its transfer is left."""
    release = host.host.release(identifier)
    assert release is not None
    assert releases.damage(host.host, release) == []
    assert release.sha256 == host.packed.sha256
    assert os.listdir(host.artifacts) == []
    return release


def test_the_controller_sends_it(host: StagingHost) -> None:
    assert sent(host.stage("r1", "-v")) == size(host)
    staged(host, "r1")
    assert sent(host.stage("r1", "-v")) == 0


def test_what_other_releases_hold_is_not_sent_again(host: StagingHost) -> None:
    host.stage("r1")
    (host.source / "file3").write_bytes(random.Random("new").randbytes(50_000))
    (host.source / "server.js").rename(host.source / "main.js")
    host.packed = host.pack("1.1.0")
    assert 50_000 < sent(host.stage("r2", "-v")) < 60_000
    release = staged(host, "r2")
    # Two releases share nothing: an accident to one is none to the other.
    assert not os.path.samefile(host.root / "releases/r1/file1", release.directory / "file1")
    assert (release.directory / "file1").stat().st_mtime == (release.directory / "file3").stat().st_mtime


def test_what_only_seems_to_be_there_is_sent(host: StagingHost) -> None:
    """A kept release was changed: its list still says what it should hold."""
    host.stage("r1")
    kept = host.root / "releases/r1/file1"
    kept.write_bytes(bytes(50_000))
    host.packed = host.pack("1.1.0")
    outcome = host.stage("r2", "-v")
    assert size(host) < sent(outcome) < size(host) + 10_000  # in vain at first, then the whole
    staged(host, "r2")
    assert "was to be copied from is damaged on this host" in outcome.stdout + outcome.stderr
    assert kept.read_bytes() == bytes(50_000)


def test_a_transfer_goes_on_where_it_was_cut_off(host: StagingHost) -> None:
    begun = host.artifacts / f"{host.packed.sha256}.tar.gz"
    begun.write_bytes(Path(host.packed.path).read_bytes()[:150_000])
    assert sent(host.stage("r1", "-v")) == size(host) - 150_000
    staged(host, "r1")


@pytest.mark.parametrize("length", [150_000, None, 10**7])
def test_what_arrived_otherwise_is_sent_anew(host: StagingHost, length: int | None) -> None:
    begun = host.artifacts / f"{host.packed.sha256}.tar.gz"
    begun.write_bytes(b"x" * (size(host) if length is None else length))
    outcome = host.stage("r1", "-v")
    assert sent(outcome) in (size(host), 2 * size(host) - 150_000)
    staged(host, "r1")


def test_a_transfer_that_never_works_is_given_up(host: StagingHost) -> None:
    (host.artifacts / f"{host.packed.sha256}.tar.gz" / "in the way").mkdir(parents=True)
    outcome = host.stage("r1")
    assert outcome.returncode != 0
    assert outcome.stderr.count("to send the artifact failed") + outcome.stdout.count("to send the artifact failed") > 1
    assert "The artifact did not arrive, 3 times." in outcome.stdout
    assert os.listdir(host.root / "releases") == []


def test_nobody_else_can_read_it_on_the_way(host: StagingHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Staging fails, so that what was sent can be looked at."""
    outcome = host.stage("r1", app_release_group="no-such-group")
    assert outcome.returncode != 0
    (arrived,) = host.artifacts.iterdir()
    assert stat.S_IMODE(arrived.stat().st_mode) == 0o600
    assert arrived.read_bytes() == Path(host.packed.path).read_bytes()


class Bucket:
    """A bucket of S3, for an artifact."""

    def __init__(self, moto: str, host: StagingHost) -> None:
        self.host = host
        self.environment = aws_environment(moto)
        self.key = f"artifacts/shop/{host.packed.sha256}.tar.gz"
        self.s3 = boto3.client("s3", endpoint_url=moto, region_name=REGION, **KEYS)
        self.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})

    def stage(self, identifier: str, **extra: Any) -> subprocess.CompletedProcess[str]:
        """Publish and stage, seen as closely as Ansible can tell."""
        variables = {
            "app_release_bucket": BUCKET,
            "app_release_url": "{{ (app_release_published | default({})).url | default('') }}",
            **extra,
        }
        return self.host.stage(identifier, "-vvv", before=["publish"], **variables, **self.environment)


@pytest.fixture
def bucket(moto: str, host: StagingHost) -> Iterator[Bucket]:
    reset(moto)
    yield Bucket(moto, host)


def test_hosts_fetch_it_from_the_bucket_and_nobody_sees_the_address(bucket: Bucket) -> None:
    outcome = bucket.stage("r1")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    staged(bucket.host, "r1")
    assert "Signature=" not in outcome.stdout + outcome.stderr
    assert "sent:" not in outcome.stdout
    (stored,) = bucket.s3.list_objects_v2(Bucket=BUCKET)["Contents"]
    assert stored["Key"] == bucket.key

    before = stored["LastModified"]
    assert bucket.stage("r2").returncode == 0
    (stored,) = bucket.s3.list_objects_v2(Bucket=BUCKET)["Contents"]
    assert stored["LastModified"] == before, "it was sent again"


def test_what_was_changed_on_the_way_does_not_arrive(bucket: Bucket) -> None:
    bucket.s3.put_object(Bucket=BUCKET, Key=bucket.key, Body=b"something else")
    outcome = bucket.stage("r1")
    assert outcome.returncode != 0
    assert "the artifact could not be fetched from http" in outcome.stdout
    assert f"not {bucket.host.packed.sha256}" in outcome.stdout
    assert "Signature=" not in outcome.stdout + outcome.stderr
    assert os.listdir(bucket.host.artifacts) == os.listdir(bucket.host.root / "releases") == []


def test_a_bucket_that_is_none_is_said(bucket: Bucket) -> None:
    outcome = bucket.stage("r1", app_release_bucket="nobodys-bucket")
    assert outcome.returncode != 0
    assert "could not be put into the bucket nobodys-bucket:" in outcome.stdout
