"""Artifacts that are not what was built: refused before anything live is touched."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import drill
import pytest
from demo import Fleet
from drill import NEW, OLD, Visitors

pytestmark = pytest.mark.slow


def copy_of(artifact: str, name: str) -> Path:
    path = drill.CACHE / "variants" / f"{name}.tar.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(artifact, path)
    shutil.copyfile(f"{artifact}.json", f"{path}.json")
    return path


def truncated(artifact: str) -> Path:
    path = copy_of(artifact, "truncated")
    path.write_bytes(path.read_bytes()[:-1000])
    return path


def flipped(artifact: str) -> Path:
    path = copy_of(artifact, "flipped")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


def hostile(artifact: str) -> Path:
    """A member that leads out of the release; whoever made it has made a fitting manifest, too."""
    path = copy_of(artifact, "hostile")
    packed = io.BytesIO()
    with (
        tarfile.open(artifact) as source,
        gzip.GzipFile(fileobj=packed, mode="wb") as stream,
        tarfile.open(fileobj=stream, mode="w") as target,
    ):
        for member in source:
            target.addfile(member, source.extractfile(member) if member.isreg() else None)
        content = b"root::0:0::/root:/bin/sh\n"
        member = tarfile.TarInfo("../../../etc/passwd")
        member.size = len(content)
        target.addfile(member, io.BytesIO(content))
    path.write_bytes(packed.getvalue())
    manifest = json.loads(Path(f"{artifact}.json").read_text())
    manifest["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest["size"] = path.stat().st_size
    Path(f"{path}.json").write_text(json.dumps(manifest))
    return path


@pytest.mark.parametrize(
    ("damage", "said"), [(truncated, "its manifest says"), (flipped, "its manifest says"), (hostile, "passwd")]
)
def test_the_controller_refuses_it(
    fleet: Fleet, artifacts: dict[str, str], visitors: Visitors, damage: Callable[[str], Path], said: str
) -> None:
    before = [one.found for one in drill.survey_all(fleet)]
    status, output = drill.deploy(f"artifact {damage.__name__}", str(damage(artifacts[NEW])))
    assert status != 0
    assert said in output
    assert [one.found for one in drill.survey_all(fleet)] == before
    assert visitors.failures() == []


# A byte of what has arrived becomes another one, before it is read on the host.
FLIP = "for file in /var/lib/roastify/artifacts/*.tar.gz; do printf X | dd of=$file bs=1 seek=5000 conv=notrunc; done"


def test_what_was_damaged_on_the_way_is_sent_again(fleet: Fleet, artifacts: dict[str, str], visitors: Visitors) -> None:
    host = list(fleet.hosts)[1]
    artifact = drill.variant(artifacts[NEW], "on-the-way", drill.marked)
    once = f"test -e /run/drill.flipped || {{ touch /run/drill.flipped; {FLIP}; }} 2>/dev/null"
    with drill.accident(host, "release_stage", "open", r"/artifacts/[0-9a-f]{64}\.tar\.gz", do=once):
        status, output = drill.deploy("damaged on the way", artifact)
    assert status == 0, output
    assert "it was damaged or replaced on the way" in " ".join(output.split())
    assert drill.leftovers(fleet) == []
    assert set(drill.served(fleet).values()) == {NEW}


def test_hosts_refuse_what_is_damaged_each_time(fleet: Fleet, artifacts: dict[str, str], visitors: Visitors) -> None:
    host = list(fleet.hosts)[1]
    artifact = drill.variant(artifacts[NEW], "on-the-way", drill.marked)
    with drill.accident(
        host, "release_stage", "open", r"/artifacts/[0-9a-f]{64}\.tar\.gz", do=f"{{ {FLIP}; }} 2>/dev/null"
    ):
        status, output = drill.deploy("damaged each time", artifact, app_release_transfer_delay=0)
    assert status != 0
    assert "The artifact did not arrive, 3 times." in output
    assert set(drill.served(fleet).values()) == {OLD}
    assert all(one.version == OLD for one in drill.survey_all(fleet))
    status, output = drill.deploy("damaged each time, afterwards", artifact)
    assert status == 0, output
    assert drill.leftovers(fleet) == []
    assert set(drill.served(fleet).values()) == {NEW}
