"""A disk of one host of three is full, or has no inodes left, when something is to be written.

The disk is real and small: a file system in memory stands in for the directory on that host while a drill lasts, so
that the disk of the machine that all this runs on stays as it is. It is filled at the moment in question, behind the
back of preflight, which has seen enough room; what fails is the kernel's own ENOSPC.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import drill
import pytest
from demo import Fleet
from drill import NEW, OLD, Visitors

pytestmark = pytest.mark.slow

ROOT = "/srv/roastify"
ARTIFACTS = "/var/lib/roastify/artifacts"
SIZE = "size=200m,nr_inodes=30000"


def fill(place: str) -> str:
    # The kernel's count of free pages is no exact one: it may say that there are none a little early.
    return (
        f"dd if=/dev/zero of={place}/filler bs=64k 2>/dev/null || true; "
        f"while echo more >> {place}/filler; do :; done 2>/dev/null"
    )


def fill_behind_the_journal(place: str) -> str:
    """The last page of the journal would take one more record, however full the disk is; so would that of the order.

    The timer is called off before the success is recorded, and its order goes: a second name of it keeps its page.
    """
    pad = (
        "import os; size = os.path.getsize('deployments.jsonl'); line = dict(filler='x' * ((-size - 15) % 4096)); "
        "import json; open('deployments.jsonl', 'a').write(json.dumps(line) + chr(10))"
    )
    return f'cd {place}; ln .deadman.json filler.order; python3 -c "{pad}"; {fill(place)}'


def fill_inodes(place: str) -> str:
    many = "for number in range(10**6): open(str(number), 'x')"
    return f'mkdir -p {place}/filler; cd {place}/filler; python3 -c "{many}" 2>/dev/null || true'


@contextlib.contextmanager
def small_disk(host: str, place: str) -> Iterator[None]:
    """A small file system in place of a directory, with what is in it; what is in it then stays afterwards.

    A bind mount shows the copy, and takes it away again, in one step: whoever serves from there notices nothing.
    """
    drill.on(
        host,
        f"""
        mkdir -p /mnt/under /mnt/small
        mount --bind {place} /mnt/under
        mount -t tmpfs -o {SIZE},mode=$(stat -c %a {place}) none /mnt/small
        chown --reference={place} /mnt/small
        cp -a {place}/. /mnt/small/
        mount --bind /mnt/small {place}
        """,
        mounts=True,
    )
    try:
        yield
    finally:
        drill.on(
            host,
            f"""
            rm -rf /mnt/small/filler*
            find /mnt/under -mindepth 1 -delete
            cp -a /mnt/small/. /mnt/under/
            umount -l {place}
            umount -l /mnt/small
            umount -l /mnt/under
            """,
            mounts=True,
        )


MOMENTS = {
    "in the transfer": (ARTIFACTS, fill, "Put the release on the host"),
    "in unpacking": (ROOT, fill, "Put the release on the host"),
    "in unpacking, of inodes": (ROOT, fill_inodes, "Put the release on the host"),
    "in the switch": (ROOT, fill, "Try the release out"),
    "in the record": (ROOT, fill_behind_the_journal, "Record the success"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_full_disk_leaves_what_is_served(
    fleet: Fleet, artifacts: dict[str, str], visitors: Visitors, moment: str
) -> None:
    host = list(fleet.hosts)[1]
    place, full, task = MOMENTS[moment]
    artifact = drill.variant(artifacts[NEW], "full-disk", drill.marked)
    command = drill.playbook("deploy.yml", release_artifact=artifact, app_release_transfer_delay=0)
    with small_disk(host, place):
        status, output = drill.meanwhile(f"full {moment}", command, task, drill.on_host(host, full(place)))
        # What is left to be written from the switch on may fit into the reserve, unless the logs have filled that, too.
        whole = status == 0 and moment == "in the switch"
        assert whole or "No space left on device" in output or "not enough" in output, output[-3000:]
        assert set(drill.served(fleet).values()) == {NEW if whole else OLD}
        assert {one.version for one in drill.survey_all(fleet)} == {NEW if whole else OLD}
        assert visitors.failures() == []
        drill.on(host, f"rm -rf {place}/filler*")
        drill.require_all_is_well(fleet, visitors, f"full {moment}")
    assert drill.leftovers(fleet) == []


@pytest.mark.parametrize(("full", "said"), [(fill, "not enough space"), (fill_inodes, "not enough inodes")])
def test_preflight_sees_a_full_disk(
    fleet: Fleet, artifacts: dict[str, str], visitors: Visitors, full: Callable[[str], str], said: str
) -> None:
    host = list(fleet.hosts)[1]
    artifact = drill.variant(artifacts[NEW], "full-disk", drill.marked)
    with small_disk(host, ROOT):
        drill.on(host, full(ROOT))
        before = [one.found for one in drill.survey_all(fleet)]
        status, output = drill.deploy(said, artifact)
        assert status != 0
        assert said in " ".join(output.split()), output
        assert [one.found for one in drill.survey_all(fleet)] == before
        drill.on(host, f"rm -rf {ROOT}/filler*")
    assert visitors.failures() == []
