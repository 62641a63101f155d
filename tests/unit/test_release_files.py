"""Whether what lies on a host is what was built, and what staging does where it isn't."""

from __future__ import annotations

import json
import os
import shutil
import stat

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import artifact, release_files, releases
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.release_files import File, FileList, ListError
from hypothesis import given
from hypothesis import strategies as st

LINKS = {".env": ".env", "uploads": "uploads"}
ASSETS = ["frontend/dist/assets"]


@pytest.fixture
def packed(tmp_path):
    root = tmp_path / "source"
    (root / "backend").mkdir(parents=True)
    (root / "uploads").mkdir()
    (root / "empty").mkdir()
    (root / "frontend/dist/assets/fonts").mkdir(parents=True)
    (root / "backend/server.js").write_text("serve()\n")
    (root / "backend/run").write_text("#!/bin/sh\n")
    (root / "backend/run").chmod(0o755)
    (root / "link").symlink_to("backend/server.js")
    (root / "uploads/.gitkeep").write_text("")
    (root / "frontend/dist/assets/index-4f2a91bc.js").write_text("page()")
    (root / "frontend/dist/assets/fonts/a-12345678.woff2").write_text("font")
    manifest = {"name": "shop", "version": "1.0.0", "commit": "abc1234", "sourceDigest": "0" * 64}
    return artifact.pack(str(root), str(tmp_path / "shop.tar.gz"), manifest)


@pytest.fixture
def host(tmp_path):
    for name in ("releases", "shared"):
        (tmp_path / "host" / name).mkdir(parents=True)
    return releases.Host(str(tmp_path / "host"))


def stage(host, packed, identifier="r1", archive=None, links=LINKS, assets=ASSETS):
    return releases.stage(host, identifier, archive or packed.path, packed.sha256, links, None, assets=assets)


@pytest.fixture
def release(host, packed):
    return stage(host, packed)[0]


def damage(host, release):
    return releases.damage(host, host.release(release.id))


def test_a_release_that_was_just_staged_is_what_was_built(host, release):
    assert damage(host, release) == []


def test_the_umask_makes_no_difference(host, packed):
    before = os.umask(0o077)
    try:
        first, _changed = stage(host, packed)
        second, _changed = stage(host, packed, "r2", archive="nowhere")
    finally:
        os.umask(before)
    assert damage(host, first) == damage(host, second) == []
    assert stat.S_IMODE((host.shared / "assets/frontend/dist/assets/fonts").stat().st_mode) == 0o755


def change(path, text):
    """Write other content in place, and hide it from whoever looks at the time."""
    status = path.stat()
    path.write_text(text)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


DAMAGE = {
    "content of the same size": (
        lambda path: change(path / "backend/server.js", "fail_()\n"),
        ["backend/server.js was changed: other content"],
    ),
    "another size": (
        lambda path: change(path / "backend/server.js", "x"),
        ["backend/server.js was changed: 1 bytes, not 8"],
    ),
    "emptied, as by a power cut": (
        lambda path: os.truncate(path / "backend/server.js", 0),
        ["backend/server.js was changed: 0 bytes, not 8"],
    ),
    "missing": (lambda path: (path / "backend/server.js").unlink(), ["backend/server.js is missing"]),
    "missing directory": (lambda path: (path / "empty").rmdir(), ["empty is missing"]),
    "missing subtree": (
        lambda path: shutil.rmtree(path / "backend"),
        ["backend is missing", "backend/run is missing", "backend/server.js is missing"],
    ),
    "added": (
        lambda path: (path / "backend/shell.js").write_text("evil()"),
        ["backend/shell.js does not come from the build"],
    ),
    "added directory": (lambda path: (path / "backend/x").mkdir(), ["backend/x does not come from the build"]),
    "writable": (lambda path: (path / "backend/server.js").chmod(0o666), ["backend/server.js has mode 0666, not 0644"]),
    "writable directory": (lambda path: (path / "backend").chmod(0o775), ["backend has mode 0775, not 0755"]),
    "writable release": (lambda path: path.chmod(0o777), [". has mode 0777: others may write"]),
    "set user id": (lambda path: (path / "backend/run").chmod(0o4755), ["backend/run has mode 4755, not 0755"]),
    "not executable": (lambda path: (path / "backend/run").chmod(0o644), ["backend/run has mode 0644, not 0755"]),
    "link that leads elsewhere": (
        lambda path: ((path / "link").unlink(), (path / "link").symlink_to("/etc/passwd")),
        ["link leads to /etc/passwd, not backend/server.js"],
    ),
    "link that became a file": (
        lambda path: ((path / "link").unlink(), (path / "link").write_text("x")),
        ["link is no link any more"],
    ),
    "file that became a link": (
        lambda path: ((path / "backend/run").unlink(), (path / "backend/run").symlink_to("server.js")),
        ["backend/run is no file any more"],
    ),
    "directory that became a link": (
        lambda path: ((path / "empty").rmdir(), (path / "empty").symlink_to("backend")),
        ["empty is no directory any more"],
    ),
    "shared link that leads elsewhere": (
        lambda path: ((path / ".env").unlink(), (path / ".env").symlink_to("/tmp/env")),
        [".env leads to /tmp/env, not ../../shared/.env"],
    ),
    "shared link that is gone": (lambda path: (path / "uploads").unlink(), ["uploads is missing"]),
    "link to assets that is gone": (
        lambda path: (path / "frontend/dist/assets").unlink(),
        ["frontend/dist/assets is missing"],
    ),
    "asset": (
        lambda path: change(path / "frontend/dist/assets/index-4f2a91bc.js", "evil()"),
        [".assets/frontend/dist/assets/index-4f2a91bc.js was changed: other content"],
    ),
    "asset that is served no more": (
        lambda path: (path / "frontend/dist/assets/index-4f2a91bc.js").unlink(),
        ["shared/assets/frontend/dist/assets/index-4f2a91bc.js is missing"],
    ),
    "list": (
        lambda path: change(path / ".release.files.json", "{}"),
        [".release.files.json says nothing: .release.files.json is not the one that .release.json means"],
    ),
    "missing list": (
        lambda path: (path / ".release.files.json").unlink(),
        [".release.files.json says nothing: .release.files.json cannot be read (No such file or directory)"],
    ),
}


@pytest.mark.parametrize(("harm", "expected"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_told(host, release, harm, expected):
    harm(release.directory)
    assert damage(host, release) == expected


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_what_belongs_to_the_application_is_told(host, release):
    os.chown(release.directory / "backend", 4321, -1)
    os.lchown(release.directory / "link", 4321, -1)
    assert damage(host, release) == [
        "backend belongs to user 4321, not 0",
        "link belongs to user 4321, not 0",
    ]


def test_times_decide_nothing(host, release):
    os.utime(release.directory / "backend/server.js", (1, 1))
    assert damage(host, release) == []


def test_files_that_releases_share_are_read_once(host, packed, monkeypatch):
    first, _changed = stage(host, packed)
    second, _changed = stage(host, packed, "r2")
    examination = releases.Examination(host)
    assert examination.sound(first)
    monkeypatch.setattr(release_files.os, "read", lambda *_arguments: pytest.fail("read again"))
    assert examination.sound(second)
    assert (examination.of("r1"), examination.of("r3")) == (True, None)


def test_a_damaged_release_is_not_rolled_back_to(host, packed):
    for identifier in ("r1", "r2", "r3"):
        stage(host, packed, identifier)
        before = host.live()
        host.link.unlink(missing_ok=True)
        host.link.symlink_to(f"releases/{identifier}")
        host.states.went_live(identifier, before.id if before else None)
    examination = releases.Examination(host)
    assert releases.previous(host, host.live(), host.kept(), examination).id == "r2"
    (host.release("r2").directory / "new.js").write_text("")
    assert releases.previous(host, host.live(), host.kept()).id == "r2"
    examination = releases.Examination(host)
    assert releases.previous(host, host.live(), host.kept(), examination).id == "r1"
    assert examination.damage == {"r2": ["new.js does not come from the build"]}


def test_staging_again_compares_and_changes_nothing(host, packed, release):
    assert stage(host, packed, archive="nowhere") == (host.release("r1"), False)


def test_a_damaged_release_is_made_anew(host, packed, release):
    (release.directory / "backend/server.js").write_text("broken")
    _release, changed = stage(host, packed)
    assert changed
    assert damage(host, release) == []
    assert os.listdir(host.releases) == ["r1"]


def test_a_damaged_release_that_is_live_is_left_alone_and_told(host, packed, release):
    (release.directory / "backend/server.js").write_text("broken")
    host.link.symlink_to("releases/r1")
    with pytest.raises(OperationError, match="release r1 is live, and it is not what was built") as caught:
        stage(host, packed)
    assert caught.value.evidence == ["backend/server.js was changed: 6 bytes, not 8"]
    assert (release.directory / "backend/server.js").read_text() == "broken"
    assert os.listdir(host.releases) == ["r1"]


def test_damage_is_not_shared(host, packed, release):
    (release.directory / "backend/server.js").write_text("broken")
    with pytest.raises(releases.ArtifactNeeded) as caught:
        stage(host, packed, "r2", archive="nowhere")
    assert caught.value.evidence == ["release r1: backend/server.js was changed: 6 bytes, not 8"]
    assert os.listdir(host.releases) == ["r1"]
    second, _changed = stage(host, packed, "r2")
    assert damage(host, second) == []
    third, _changed = stage(host, packed, "r3", archive="nowhere")
    assert os.path.samefile(third.directory / "backend/server.js", second.directory / "backend/server.js")


def test_what_staging_took_away_cannot_be_shared(host, packed, release):
    """``uploads/.gitkeep`` came with the artifact; in the first release a link took its place."""
    with pytest.raises(releases.ArtifactNeeded):
        stage(host, packed, "r2", archive="nowhere", links={".env": ".env"})
    second, _changed = stage(host, packed, "r2", links={".env": ".env"})
    assert (second.directory / "uploads/.gitkeep").is_file()
    assert damage(host, second) == damage(host, release) == []


def test_releases_with_and_without_shared_assets_share_files(host, packed, release):
    second, _changed = stage(host, packed, "r2", archive="nowhere", assets=[])
    third, _changed = stage(host, packed, "r3", archive="nowhere")
    assert not (second.directory / "frontend/dist/assets").is_symlink()
    assert damage(host, second) == damage(host, third) == []


@pytest.mark.parametrize(
    ("links", "assets"),
    [
        ({"../x": "x"}, []),
        ({"x": "../../etc"}, []),
        ({"/x": "x"}, []),
        ({"a//b": "x"}, []),
        ({}, ["."]),
        ({}, ["frontend", "frontend/dist"]),
        ({"frontend/dist": "dist"}, ["frontend/dist/assets"]),
        ({"frontend/dist/assets/x": "x"}, ["frontend/dist/assets"]),
        ({".release.json": "x"}, []),
        ({"x": "assets/mine"}, ["frontend"]),
    ],
)
def test_options_that_make_no_sense(host, packed, links, assets):
    with pytest.raises(OperationError, match="What to do"):
        stage(host, packed, links=links, assets=assets)
    assert os.listdir(host.releases) == os.listdir(host.shared) == []


def test_a_link_beneath_a_link_is_refused(host, packed):
    with pytest.raises(OperationError, match="link of this release is no directory"):
        stage(host, packed, links={"link/x": "x"})
    assert os.listdir(host.releases) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(files=JSON, links=JSON, directories=JSON)
def test_a_list_is_read_or_refused(files, links, directories):
    content = {"format": 1, "files": files, "links": links, "directories": directories}
    try:
        listing = FileList.decode(json.dumps(content).encode())
    except ListError as error:
        assert "is no list of files" in str(error)
    else:
        assert FileList.decode(listing.encode()) == listing


@given(content=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_what_is_no_list_is_refused(content):
    with pytest.raises(ListError):
        FileList.decode(content)


def test_the_list_comes_back_as_it_was():
    listing = FileList({"a\u00e9": File("0" * 64, 3, True), "b": File("1" * 64, 0, False)}, {"l": "a"}, {"d", "d/e"})
    assert FileList.decode(listing.encode()) == listing
    assert (listing.size, listing.entries) == (3, 5)
    with pytest.raises(ListError):
        FileList.decode(b"[]")
