"""Assets of all kept releases are served from one directory, whenever a run is killed."""

from __future__ import annotations

import errno
import os
import shutil

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import artifact, release_assets, releases
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError

ASSETS = "frontend/dist/assets"


@pytest.fixture
def host(tmp_path):
    for name in ("releases", "shared"):
        (tmp_path / "host" / name).mkdir(parents=True)
    return releases.Host(str(tmp_path / "host"))


@pytest.fixture
def build(tmp_path):
    """Packs an application with the assets that are given."""

    def packed(version, assets, extra=None):
        root = tmp_path / f"source-{version}"
        directory = root / ASSETS
        directory.mkdir(parents=True)
        (root / "server.js").write_text(f"serve({version})")
        for name, content in assets.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(content)
        if extra:
            extra(directory)
        manifest = {"name": "shop", "version": version, "commit": "abc1234", "sourceDigest": "0" * 64}
        return artifact.pack(str(root), str(tmp_path / f"shop-{version}.tar.gz"), manifest)

    return packed


def stage(host, packed, identifier, assets=(ASSETS,)):
    release, _changed = releases.stage(
        host, identifier, packed.path, packed.sha256, {".env": ".env"}, None, assets=assets
    )
    return release


def served(host, identifier):
    """What a browser gets from a release, by the path that the application opens."""
    top = host.releases / identifier / ASSETS
    return {
        os.path.relpath(os.path.join(directory, name), top): open(os.path.join(directory, name)).read()
        for directory, _names, files in os.walk(top)
        for name in files
    }


OLD = {"index-11111111.js": "old()", "common-cccccccc.js": "common()", "fonts/f-aaaaaaaa.woff2": "font"}
NEW = {"index-22222222.js": "new()", "common-cccccccc.js": "common()", "img/deep/i-bbbbbbbb.png": "image"}


def test_every_release_serves_the_assets_of_all(host, build):
    stage(host, build("1", OLD), "r1")
    assert served(host, "r1") == OLD
    stage(host, build("2", NEW), "r2")
    # The old release, still live, serves them before anything was switched.
    assert served(host, "r1") == served(host, "r2") == {**OLD, **NEW}


def test_the_place_is_a_relative_link_and_the_files_are_hard_links(host, build):
    release = stage(host, build("1", OLD), "r1")
    assert os.readlink(release.directory / ASSETS) == f"../../../../shared/assets/{ASSETS}"
    assert os.path.samefile(release.directory / ".assets" / ASSETS / "index-11111111.js",
                            host.shared / "assets" / ASSETS / "index-11111111.js")  # fmt: skip


def test_assets_go_with_the_last_release_that_has_them(host, build):
    first = stage(host, build("1", OLD), "r1")
    second = stage(host, build("2", NEW), "r2")
    releases.prune(host, [first])
    assert served(host, "r2") == NEW
    assert sorted(os.listdir(host.shared / "assets" / ASSETS)) == ["common-cccccccc.js", "img", "index-22222222.js"]
    assert releases.damage(host, second) == []
    releases.prune(host, [second])
    assert os.listdir(host.shared / "assets") == []


def test_a_release_of_the_same_artifact_keeps_them(host, build):
    packed = build("1", OLD)
    first, _second = stage(host, packed, "r1"), stage(host, packed, "r2")
    releases.prune(host, [first])
    assert served(host, "r2") == OLD
    assert releases.damage(host, host.release("r2")) == []


def test_other_content_under_the_same_name_is_refused(host, build):
    stage(host, build("1", {"index.js": "old()", "x-11111111.js": ""}), "r1")
    with pytest.raises(OperationError, match=r"asset frontend/dist/assets/index.js of this release has other content"):
        stage(host, build("2", {"index.js": "new()", "y-22222222.js": ""}), "r2")
    assert served(host, "r1") == {"index.js": "old()", "x-11111111.js": ""}
    assert os.listdir(host.releases) == ["r1"]


def test_a_source_map_may_differ_since_its_name_bears_the_hash_of_the_script(host, build):
    script = "f-11111111.js"
    first = stage(host, build("1", {script: "f()", f"{script}.map": "sources"}), "r1")
    second = stage(host, build("2", {script: "f()", f"{script}.map": "sources with another comment"}), "r2")
    assert served(host, "r1") == served(host, "r2") == {script: "f()", f"{script}.map": "sources with another comment"}
    assert releases.damage(host, first) == releases.damage(host, second) == []
    releases.prune(host, [first])
    assert sorted(served(host, "r2")) == [script, f"{script}.map"]


@pytest.mark.parametrize(("old", "new"), [({"a": "file"}, {"a/b": "x"}), ({"a/b": "x"}, {"a": "file"})])
def test_a_file_where_another_release_has_a_directory_is_refused(host, build, old, new):
    stage(host, build("1", old), "r1")
    with pytest.raises(OperationError, match="other content"):
        stage(host, build("2", new), "r2")
    assert served(host, "r1") == old
    # Once the other one is gone, nothing is in the way.
    releases.prune(host, [host.release("r1")])
    stage(host, build("3", new), "r3")
    assert served(host, "r3") == new


def test_a_link_among_assets_is_refused(host, build):
    packed = build("1", OLD, lambda directory: (directory / "latest.js").symlink_to("index-11111111.js"))
    with pytest.raises(OperationError, match=r"hold a link, frontend/dist/assets/latest\.js"):
        stage(host, packed, "r1")
    assert os.listdir(host.releases) == []


def test_a_release_without_them_is_staged_all_the_same(host, build):
    release = stage(host, build("1", OLD), "r1", assets=["public/assets"])
    assert (release.manifest["sharedAssets"], release.manifest["wantedAssets"]) == ([], ["public/assets"])
    assert not (release.directory / ".assets").exists()
    assert releases.damage(host, release) == []
    with pytest.raises(OperationError, match=r"server\.js of this release is no directory"):
        stage(host, build("2", OLD), "r2", assets=["server.js"])


@pytest.mark.parametrize("harm", ["unlink", "truncate", "directory", "mode"])
def test_a_damaged_shared_asset_is_mended_by_the_next_release(host, build, harm):
    first = stage(host, build("1", OLD), "r1")
    path = host.shared / "assets" / ASSETS / "common-cccccccc.js"
    content = path.read_text()
    path.unlink()
    if harm == "truncate":
        path.write_text("")
    elif harm == "directory":
        path.mkdir()
    elif harm == "mode":
        path.write_text(content)
        path.chmod(0o666)
    assert [str(difference) for difference in release_assets.differences(first.directory, first.manifest, host.shared)]
    stage(host, build("2", NEW), "r2")
    assert served(host, "r1") == {**OLD, **NEW}
    assert releases.damage(host, first) == []


@pytest.mark.parametrize("executable", ["1", "2"])
def test_a_release_in_which_an_asset_is_executable_leaves_the_other_one_whole(host, build, executable):
    """Built on a file system where every file is, for instance; nobody runs what a page asks for."""

    def extra(directory):
        (directory / "common-cccccccc.js").chmod(0o755)

    first = stage(host, build("1", OLD, extra if executable == "1" else None), "r1")
    shared = host.shared / "assets" / ASSETS / "common-cccccccc.js"
    inode = shared.stat().st_ino
    second = stage(host, build("2", NEW, extra if executable == "2" else None), "r2")
    assert shared.stat().st_ino == inode
    assert releases.damage(host, first) == releases.damage(host, second) == []
    shared.chmod(0o644 if executable == "1" else 0o755)
    assert releases.damage(host, second) == []
    assert len(releases.damage(host, first)) == 1, "its own file has changed"


@pytest.mark.parametrize("name", [".release.json", ".release.files.json"])
def test_nothing_is_removed_where_a_release_cannot_say_what_it_has(host, build, name):
    """``current`` may point to it."""
    first = stage(host, build("1", OLD), "r1")
    second = stage(host, build("2", NEW), "r2")
    (first.directory / name).write_text("damaged")
    releases.prune(host, [second])
    assert served(host, "r1").items() >= OLD.items()
    # Nor is its content replaced.
    with pytest.raises(OperationError, match=r"one of these may need it, .* cannot be read: r1"):
        stage(host, build("3", {"index-11111111.js": "other()"}), "r3")
    assert served(host, "r1").items() >= OLD.items()


@pytest.mark.parametrize("links", [{".env": ".env"}, {".env": ".env", "public/pictures": "assets"}])
def test_what_the_application_keeps_under_that_name_is_not_ours(host, build, links):
    """An application without app_assets may have had a directory shared/assets of its own for years."""
    picture = host.shared / "assets/2019/picture.jpg"
    picture.parent.mkdir(parents=True)
    picture.write_text("data")
    packed = build("1", OLD)
    release, _changed = releases.stage(host, "r1", packed.path, packed.sha256, links, None)
    releases.prune(host, [])
    assert picture.read_text() == "data"
    with pytest.raises(OperationError):
        releases.stage(host, "r2", packed.path, "0" * 64, links, None)
    assert picture.read_text() == "data"
    # It begins to have assets, and has none any more.
    second = stage(host, build("2", NEW), "r2")
    releases.prune(host, [second])
    releases.prune(host, [release])
    assert [str(path.relative_to(host.shared)) for path in host.shared.rglob("*") if path.is_file()] == [
        "assets/2019/picture.jpg"
    ]


def test_a_link_in_place_of_a_directory_is_taken_away_and_what_it_leads_to_stays(tmp_path, host, build):
    stage(host, build("1", OLD), "r1")
    (tmp_path / "elsewhere/dist/assets").mkdir(parents=True)
    (tmp_path / "elsewhere/dist/assets/data").write_text("data")
    shutil.rmtree(host.shared / "assets/frontend")
    (host.shared / "assets/frontend").symlink_to(tmp_path / "elsewhere")
    stage(host, build("2", NEW), "r2")
    assert os.listdir(tmp_path / "elsewhere/dist/assets") == ["data"]
    assert served(host, "r2") == NEW


def test_what_cannot_be_removed_is_in_nobodys_way(host, build, monkeypatch):
    """On NFS, a file that a web server reads is renamed instead, to a name that cannot be removed until that ends."""
    first = stage(host, build("1", OLD), "r1")
    (host.shared / "assets" / ASSETS / "fonts" / ".nfs0123").write_text("old font")
    real = os.unlink

    def unlink(path, **more):
        if ".nfs" in str(path):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
        real(path, **more)

    monkeypatch.setattr(os, "unlink", unlink)
    stage(host, build("2", NEW), "r2")
    releases.prune(host, [first])
    assert served(host, "r2") == {**NEW, "fonts/.nfs0123": "old font"}
    monkeypatch.undo()
    releases.prune(host, [])
    assert served(host, "r2") == NEW


@pytest.mark.parametrize("error", [errno.EXDEV, errno.EMLINK])
def test_where_links_are_impossible_files_are_copied(host, build, monkeypatch, error):
    def fail(*_arguments, **_options):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(release_assets.os, "link", fail)
    release = stage(host, build("1", OLD), "r1")
    assert served(host, "r1") == OLD
    assert releases.damage(host, release) == []


def test_an_asset_may_have_the_longest_name_that_a_file_system_takes(host, build):
    assets = {"\u65e5" * 82 + "-1a2b3.js": "x", "y" * 255: "y"}
    stage(host, build("1", assets), "r1")
    assert served(host, "r1") == assets


def test_a_directory_that_a_killed_run_left_closed_is_opened(host, build):
    """It was made under a strict umask, and the run was killed before it could be opened to everybody."""
    for name in ("assets", "assets/frontend"):
        (host.shared / name).mkdir(mode=0o700)
    stage(host, build("1", OLD), "r1")
    for name in ("assets", "assets/frontend", f"assets/{ASSETS}"):
        assert (host.shared / name).stat().st_mode & 0o7777 == 0o755


class Killed(BaseException):
    """The process ends here: no handler of ours may tidy up, so that the test undoes what handlers do."""


STEPS = ("link", "rename", "symlink", "mkdir", "chmod", "unlink", "rmdir", "replace", "fchmod", "open")


class Murderer:
    """Ends a run at its n-th change of the file system, before or after it, and forbids everything from then on."""

    def __init__(self, monkeypatch, at, after):
        self.count = 0
        self.dead = False
        self.at = at
        self.after = after
        for name in STEPS:
            monkeypatch.setattr(os, name, self.wrap(getattr(os, name)))
        # rmtree works by file descriptors, with functions of os that it looked up before.
        monkeypatch.setattr(shutil, "rmtree", self.wrap(shutil.rmtree))

    def wrap(self, function):
        def step(*arguments, **options):
            if self.dead:
                raise Killed
            reading = function.__name__ == "open" and not arguments[1] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)
            if reading:
                return function(*arguments, **options)
            mine = self.count == self.at
            self.count += 1
            self.dead = mine
            if not mine or self.after:
                result = function(*arguments, **options)
            if mine:
                raise Killed
            return result

        return step


def invariants(host, kept):
    """What must hold at every instant: complete releases serve all that is theirs."""
    for identifier, assets in kept.items():
        release = host.release(identifier)
        if release is not None:
            assert served(host, identifier).items() >= assets.items()
            assert releases.damage(host, release) == []


def killed(action, at, after):
    """Whether the action was killed, and did not end before."""
    with pytest.MonkeyPatch.context() as patch:
        murderer = Murderer(patch, at, after)
        try:
            action()
        except Killed:
            return True
        assert not murderer.dead, "the end was swallowed"
        return False


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_staging_may_be_killed_at_every_step(tmp_path, host, build, after):
    first, second = build("1", OLD), build("2", NEW)
    stage(host, first, "r1")
    host.link.symlink_to("releases/r1")
    shutil.copytree(host.root, tmp_path / "before", symlinks=True)
    at = 0
    while True:
        shutil.rmtree(host.root)
        # Hard links become copies, which is what releases on several file systems have.
        shutil.copytree(tmp_path / "before", host.root, symlinks=True)
        if not killed(lambda: stage(host, second, "r2"), at, after):
            break
        invariants(host, {"r1": OLD, "r2": NEW})
        assert host.live().id == "r1"
        stage(host, second, "r2")
        releases.prune(host, [])
        invariants(host, {"r1": OLD, "r2": NEW})
        assert sorted(os.listdir(host.releases)) == ["r1", "r2"]
        assert served(host, "r1") == {**OLD, **NEW}
        at += 1
    assert at > 20


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_pruning_may_be_killed_at_every_step(tmp_path, host, build, after):
    first, second, third = build("1", OLD), build("2", NEW), build("3", {"index-33333333.js": "newest()"})
    stage(host, first, "r1")
    stage(host, second, "r2")
    shutil.copytree(host.root, tmp_path / "before", symlinks=True)
    at = 0
    while True:
        shutil.rmtree(host.root)
        shutil.copytree(tmp_path / "before", host.root, symlinks=True)
        if not killed(lambda: releases.prune(host, [host.release("r1")]), at, after):
            break
        invariants(host, {"r1": OLD, "r2": NEW})
        stage(host, third, "r3")
        invariants(host, {"r1": OLD, "r2": NEW})
        if host.release("r1") is None:
            assert served(host, "r2") == {**NEW, "index-33333333.js": "newest()"}
        assert [name for name in os.listdir(host.releases) if name.startswith(".")] == []
        at += 1
    assert at >= 3


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_mending_may_be_killed_at_every_step(tmp_path, host, build, after):
    """A damaged release is replaced as a whole; the one beside it is not touched."""
    first, second = build("1", OLD), build("2", NEW)
    stage(host, first, "r1")
    stage(host, second, "r2")
    (host.releases / "r2/server.js").write_text("damaged")
    host.link.symlink_to("releases/r1")
    shutil.copytree(host.root, tmp_path / "before", symlinks=True)
    at = 0
    while True:
        shutil.rmtree(host.root)
        shutil.copytree(tmp_path / "before", host.root, symlinks=True)
        if not killed(lambda: stage(host, second, "r2"), at, after):
            break
        invariants(host, {"r1": OLD})
        stage(host, second, "r2")
        releases.prune(host, [])
        invariants(host, {"r1": OLD, "r2": NEW})
        assert sorted(os.listdir(host.releases)) == ["r1", "r2"]
        at += 1
    assert at > 20


@pytest.mark.parametrize("step", ["link", "symlink", "mkdir", "rename", "write", "open"])
def test_a_full_disk_at_any_step_leaves_everything_as_it_was(tmp_path, host, build, step):
    first, second = build("1", OLD), build("2", NEW)
    stage(host, first, "r1")

    def seen():
        # What the engine notes of its own progress is not what is served.
        tops = (host.releases, host.shared)
        return sorted((str(path), path.is_file() and path.read_bytes()) for top in tops for path in top.rglob("*"))

    before = seen()
    at = 0
    while True:
        count = 0
        real = getattr(os, step)

        def full(*arguments, real=real, at=at, **options):
            nonlocal count
            if step == "open" and not arguments[1] & os.O_CREAT:
                return real(*arguments, **options)
            count += 1
            if count == at + 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, step, full)
            try:
                stage(host, second, "r2")
            except (OSError, OperationError) as error:
                assert "No space left" in str(error)
        if count <= at:
            break
        # Complete in spite of it, because only a note of it could not be written, or not there at all.
        if host.release("r2") is not None:
            invariants(host, {"r1": OLD, "r2": NEW})
            stage(host, second, "r2")
            assert host.states.of("r2").state == "verified"
            releases.prune(host, [host.release("r2")])
        assert seen() == before
        at += 1
    assert at >= 1
    assert served(host, "r1") == served(host, "r2") == {**OLD, **NEW}
