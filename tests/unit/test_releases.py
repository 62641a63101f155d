"""Releases on a host: which is live, how one is staged, which ones may go."""

import errno
import json
import os

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import artifact, release_states, releases
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError


@pytest.fixture
def host(tmp_path):
    for name in ("releases", "shared"):
        (tmp_path / name).mkdir()
    return releases.Host(str(tmp_path))


@pytest.fixture
def packed(tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    (source / "server.js").write_text("serve()\n")
    (source / ".env.production.example").write_text("PORT=\n")
    destination = tmp_path_factory.mktemp("artifacts") / "shop-1.0.0.tar.gz"
    manifest = {"name": "shop", "version": "1.0.0", "commit": "abc1234", "sourceDigest": "0" * 64}
    return artifact.pack(str(source), str(destination), manifest)


def complete(host, identifier, version="1.0.0"):
    directory = host.releases / identifier
    directory.mkdir()
    (directory / ".release.json").write_text(json.dumps({"id": identifier, "version": version, "sha256": identifier}))


def stage(host, packed, identifier="r1", **changes):
    arguments = {"sha256": packed.sha256, "links": {".env": ".env"}, "group": None, **changes}
    return releases.stage(host, identifier, packed.path, **arguments)


def test_before_the_first_deployment_nothing_is_live(host):
    assert host.live() is None


def test_the_live_release_is_what_the_link_says(host):
    complete(host, "r1")
    complete(host, "r2")
    host.link.symlink_to("releases/r1")
    assert host.live().id == "r1"


def test_a_directory_in_place_of_the_link_is_refused_and_kept(host):
    host.link.mkdir()
    (host.link / "precious").write_text("data")
    with pytest.raises(OperationError, match="not a symbolic link"):
        host.live()
    assert (host.link / "precious").exists()


@pytest.mark.parametrize("target", ["releases/gone", "/somewhere/else", "shared"])
def test_a_link_to_no_complete_release_is_refused(host, target):
    host.link.symlink_to(target)
    with pytest.raises(OperationError, match="no complete release"):
        host.live()


def test_a_disk_that_became_read_only_is_said_before_anything_is_built(host, monkeypatch):
    real = os.statvfs

    class ReadOnly:
        f_flag = os.ST_RDONLY | os.ST_RELATIME

    monkeypatch.setattr(os, "statvfs", lambda path: ReadOnly if path == host.shared else real(path))
    with pytest.raises(OperationError, match=rf"{host.shared} is on a file system that is mounted read-only"):
        host.require()


def test_releases_from_where_shared_files_are_out_of_reach_are_refused(tmp_path, host):
    """Somebody moved them to a larger disk: workers that start anew would find neither .env nor uploads."""
    host.require()
    host.releases.rename(tmp_path / "disk")
    elsewhere = tmp_path / "elsewhere" / "releases"
    elsewhere.parent.mkdir()
    (tmp_path / "disk").rename(elsewhere)
    host.releases.symlink_to(elsewhere)
    with pytest.raises(OperationError, match=r"lead to .*/elsewhere/shared from there, and not to"):
        host.require()
    # All of it elsewhere is as good as all of it here.
    host.shared.rename(elsewhere.parent / "shared")
    host.shared.symlink_to(elsewhere.parent / "shared")
    host.require()


def test_staging_makes_a_complete_release(host, packed):
    release, changed = stage(host, packed)
    assert changed
    assert (release.id, release.version, release.sha256) == ("r1", "1.0.0", packed.sha256)
    assert os.readlink(release.directory / ".env") == "../../shared/.env"
    assert (release.directory / "server.js").read_text() == "serve()\n"


def test_staging_the_same_content_again_changes_nothing(host, packed):
    stage(host, packed)
    before = sorted((str(path), path.lstat().st_mtime_ns) for path in host.releases.rglob("*"))
    _release, changed = stage(host, packed)
    assert not changed
    assert sorted((str(path), path.lstat().st_mtime_ns) for path in host.releases.rglob("*")) == before


def test_other_content_under_the_same_id_is_refused(host, packed):
    stage(host, packed)
    with pytest.raises(OperationError, match="other content"):
        stage(host, packed, sha256="1" * 64)


def test_content_that_is_here_already_is_shared_and_not_unpacked_again(host, packed):
    stage(host, packed, links={".env": "environments/r1.env"})
    packed_again = host.root / "nowhere.tar.gz"
    release, changed = releases.stage(host, "r2", packed_again, packed.sha256, {".env": "environments/r2.env"}, None)
    assert changed
    assert (release.id, release.sha256, release.version) == ("r2", packed.sha256, "1.0.0")
    assert os.readlink(release.directory / ".env") == "../../shared/environments/r2.env"
    first = host.release("r1")
    assert os.path.samefile(first.directory / "server.js", release.directory / "server.js")
    assert (first.id, os.readlink(first.environment)) == ("r1", "../../shared/environments/r1.env")
    releases.prune(host, [first])
    assert (release.directory / "server.js").read_text() == "serve()\n"


def test_content_that_is_nowhere_is_said(host, packed):
    with pytest.raises(OperationError, match="is not on this host, and no undamaged release here has its content"):
        releases.stage(host, "r1", host.root / "nowhere.tar.gz", packed.sha256, {}, None)
    assert os.listdir(host.releases) == []


def test_an_environment_goes_with_its_release(host):
    host.environments.mkdir()
    for name in ("a", "b"):
        complete(host, name)
        (host.environments / f"{name}.env").write_text("PORT=5000\n")
    (host.environments / "never-staged.env").write_text("PORT=5000\n")
    (host.environments / "notes.txt").write_text("not ours")
    releases.prune(host, [host.release("a")])
    assert sorted(os.listdir(host.environments)) == ["b.env", "notes.txt"]


def test_a_damaged_artifact_is_refused_and_leaves_nothing(host, packed):
    with open(packed.path, "r+b") as stream:
        stream.seek(20)
        stream.write(b"\0\0\0\0")
    with pytest.raises(OperationError, match="damaged or replaced"):
        stage(host, packed)
    assert os.listdir(host.releases) == []


def test_what_a_killed_run_left_is_cleared_away(host, packed):
    (host.releases / ".staging-r1").mkdir()
    (host.releases / ".staging-r1" / "half").write_text("")
    stage(host, packed)
    assert os.listdir(host.releases) == ["r1"]


def test_an_unfinished_release_is_never_found(host):
    (host.releases / "r1").mkdir()
    assert host.release("r1") is None
    assert host.kept() == []


def test_a_group_that_is_not_there_is_said(host, packed):
    """The tree was restored to a host that was not set up, for instance."""
    with pytest.raises(OperationError, match="there is no group no-such-group on this host"):
        stage(host, packed, group="no-such-group")
    assert os.listdir(host.releases) == []


def test_no_space_is_said_before_anything_is_unpacked(host, packed, monkeypatch):
    real = os.statvfs(host.root)

    class Full:
        f_bavail, f_frsize, f_files, f_favail = 1, real.f_frsize, 0, 0

    monkeypatch.setattr(releases.os, "statvfs", lambda path: Full)
    with pytest.raises(OperationError, match="not enough space"):
        stage(host, packed)
    assert os.listdir(host.releases) == []


def test_a_release_is_found_by_id_and_by_version(host):
    complete(host, "20260101T000000Z-1.0.0-abc")
    complete(host, "20260102T000000Z-1.0.0-abd")
    assert host.find("20260101T000000Z-1.0.0-abc").id == "20260101T000000Z-1.0.0-abc"
    host.states.record("20260102T000000Z-1.0.0-abd", release_states.VERIFIED)
    assert host.find("1.0.0").id == "20260102T000000Z-1.0.0-abd"
    host.states.went_live("20260101T000000Z-1.0.0-abc", None)
    assert host.find("1.0.0").id == "20260101T000000Z-1.0.0-abc"
    with pytest.raises(OperationError, match=r"release 2\.0\.0 is not on this host"):
        host.find("2.0.0")


def served(host, *order):
    before = None
    for release in order:
        host.states.went_live(release, before)
        before = release


def test_pruning_takes_failed_ones_first_and_keeps_live_and_previous(host):
    for name in ("a", "b", "c", "d", "e"):
        complete(host, name)
    served(host, "a", "b")
    host.states.record("e", release_states.FAILED)
    served(host, "b", "c", "d")
    host.link.symlink_to("releases/d")
    assert [release.id for release in releases.prunable(host, 4)] == ["e"]
    assert [release.id for release in releases.prunable(host, 3)] == ["e", "a"]
    assert [release.id for release in releases.prunable(host, 1)] == ["e", "a", "b"]


def test_pruning_never_takes_the_live_one_though_it_is_the_oldest(host):
    for name in ("a", "b", "c"):
        complete(host, name)
    host.link.symlink_to("releases/a")
    assert [release.id for release in releases.prunable(host, 1)] == ["b", "c"]


def test_pruning_keeps_what_a_rollback_goes_to_and_not_what_it_passes_over(host, packed, monkeypatch):
    for name in ("a", "b", "c"):
        stage(host, packed, name)
    served(host, "a", "b", "c")
    host.link.symlink_to("releases/c")
    assert [release.id for release in releases.prunable(host, 2)] == ["a"]
    (host.releases / "b" / "server.js").unlink()
    assert [release.id for release in releases.prunable(host, 2)] == ["b"]
    # Without another one to return to, it may be better than nothing.
    (host.releases / "a" / "server.js").unlink()
    assert [release.id for release in releases.prunable(host, 2)] == ["a"]
    monkeypatch.setattr(releases, "damage", None)
    assert releases.prunable(host, 3) == [], "nobody looks where nothing is to go"


def test_pruning_removes_releases(host):
    complete(host, "a")
    complete(host, "b")
    releases.prune(host, [host.release("a")])
    assert os.listdir(host.releases) == ["b"]


def test_what_cannot_be_removed_is_in_nobodys_way(host, packed, monkeypatch):
    """Somebody made it immutable, or mounted something in it; the release that has just gone live serves well."""
    for name in ("a", "b", "c"):
        complete(host, name)
    rename, rmtree = os.rename, releases.shutil.rmtree

    def refused(path):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))

    monkeypatch.setattr(os, "rename", lambda old, new: refused(old) if old.name == "a" else rename(old, new))
    monkeypatch.setattr(
        releases.shutil, "rmtree", lambda path, **more: refused(path) if "b.removing" in str(path) else rmtree(path)
    )
    stays = releases.prune(host, host.kept())
    assert [line.partition(": ")[0] for line in stays] == [
        f"{host.releases}/a",
        f"{host.releases}/.staging-b.removing",
    ]
    assert sorted(os.listdir(host.releases)) == [".staging-b.removing", "a"]
    release, _changed = stage(host, packed)
    assert releases.damage(host, release) == []


def test_what_killed_processes_were_about_to_put_in_place_goes_with_the_next_run(tmp_path):
    host = releases.Host(str(tmp_path / "shop"))
    for directory in (host.releases, host.environments, host.states.directory):
        directory.mkdir(parents=True)
    doomed = [
        host.root / "..deploy.lock.8gvrzz2n",
        host.root / "..deadman.json.a_c4e6g8",
        host.root / ".deployments.jsonl.12345678",
        host.states.directory / ".r1.json.abcdefgh",
        host.environments / ".r1.env.abcdefgh",
    ]
    stays = [host.root / ".profile.template", host.root / ".deploy.lock", host.environments / "notes.abcdefgh"]
    for path in (*doomed, *stays):
        path.write_text("")
    left = host.root / ".current.4711.0123abcd"
    left.symlink_to("releases/r1")
    releases.prune(host, [])
    assert not [path for path in (*doomed, left) if os.path.lexists(path)]
    assert all(path.exists() for path in stays)


def test_an_environment_that_somebody_edited_on_the_host_is_damage(host, packed):
    """What runs may still be well; what starts anew with it may not, so nothing returns to it."""
    host.environments.mkdir()
    for name in ("r1", "r2"):
        (host.environments / f"{name}.env").write_text("PORT=5000\nJWT_SECRET='a secret'\n")
        stage(host, packed, name, links={".env": f"environments/{name}.env"})
    host.states.went_live("r1", None)
    host.states.went_live("r2", "r1")
    path = host.environments / "r1.env"
    path.write_text('# by another version\nJWT_SECRET="a secret"\nPORT=5000\n')
    assert releases.damage(host, host.release("r1")) == []
    path.write_text("PORT=5000\n")
    assert releases.damage(host, host.release("r1")) == [".env is not what was installed with the release"]
    assert releases.previous(host, host.release("r2"), host.kept(), releases.Examination(host)) is None
    path.unlink()
    assert releases.damage(host, host.release("r1")) == [".env is not what was installed with the release"]
    assert "a secret" not in (host.states.directory / "r1.json").read_text()
    assert (host.states.directory / "r1.json").stat().st_mode & 0o077 == 0


def test_a_release_that_an_older_version_of_the_collection_staged_is_returned_to(host, packed):
    """It made no lists of files: nobody can tell whether the release is what was built, and it has served."""
    for name in ("r1", "r2"):
        stage(host, packed, name)
        manifest = json.loads((host.releases / name / ".release.json").read_text())
        del manifest["filesSha256"]
        (host.releases / name / ".release.json").write_text(json.dumps(manifest))
        (host.releases / name / ".release.files.json").unlink()
    host.states.went_live("r1", None)
    host.states.went_live("r2", "r1")
    examination = releases.Examination(host)
    assert releases.previous(host, host.release("r2"), host.kept(), examination).id == "r1"
    assert (examination.of("r1"), examination.damage) == (None, {})


def test_where_nothing_but_the_owner_was_changed_its_remedy_is_told(host, packed, monkeypatch):
    """Somebody typed chown -R at night: no rollback is possible then, and this is what makes it so again."""
    release, _changed = stage(host, packed)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    lines = releases.damage(host, release)
    told = releases.damaged(release, lines, "name another release")
    assert f"What to do: chown -Rh 4711 {release.directory}, since nothing but the owner" in told
    (release.directory / "server.js").write_text("other")
    told = releases.damaged(release, releases.damage(host, release), "name another release")
    assert "What to do: name another release" in told


def test_an_environment_that_all_releases_share_says_nothing_of_one(host, packed):
    """The default of the role: the next deployment brings a changed variable to all of them."""
    shared = host.shared / ".env"
    shared.write_text("SECRET=1\n")
    stage(host, packed, "r1")
    host.states.went_live("r1", None)
    shared.write_text("SECRET=2\n")
    stage(host, packed, "r2")
    host.states.went_live("r2", "r1")
    assert releases.previous(host, host.release("r2"), host.kept(), releases.Examination(host)).id == "r1"
    assert host.states.of("r2").environment is None
    # Nor where an earlier version of this collection has written it down.
    host.states.record("r1", release_states.PREVIOUS, environment="0" * 64)
    assert releases.damage(host, host.release("r1")) == []


def test_a_release_is_made_anew_once_for_a_changed_environment(host, packed):
    host.environments.mkdir()
    environment = host.environments / "r1.env"
    environment.write_text("PORT=5000\n")

    def again():
        return stage(host, packed, "r1", links={".env": "environments/r1.env"})[1]

    assert again()
    host.states.record("r1", release_states.FAILED, deployment="d1", reason="not healthy")
    environment.write_text("PORT=5001\n")
    assert [again(), again()] == [True, False]
    assert releases.damage(host, host.release("r1")) == []
    state = host.states.of("r1")
    assert (state.state, state.deployment, state.reason) == (release_states.FAILED, "d1", "not healthy")


def test_killed_while_it_is_made_anew_it_is_still_what_it_was(host, packed, monkeypatch):
    stage(host, packed)
    host.states.went_live("r1", None, "d1")
    host.states.record("r1", release_states.FAILED, "d1", "not healthy")
    (host.releases / "r1" / "server.js").write_text("other()\n")
    rename = os.rename

    def killed(source, target):
        """Between the two names: the damaged one has lost its own, and the new one has none."""
        if str(source).endswith(".staging-r1"):
            os._exit(9)
        rename(source, target)

    process = os.fork()
    if not process:
        monkeypatch.setattr(os, "rename", killed)
        stage(host, packed)
        os._exit(0)
    assert os.waitpid(process, 0)[1] == 9 << 8
    assert host.release("r1") is None
    assert stage(host, packed)[1]
    state = host.states.of("r1")
    assert (state.state, state.deployment, state.reason) == (release_states.FAILED, "d1", "not healthy")


def test_an_environment_that_cannot_be_read_is_damage(host, packed):
    host.environments.mkdir()
    environment = host.environments / "r1.env"
    environment.write_text("PORT=5000\n")
    stage(host, packed, "r1", links={".env": "environments/r1.env"})
    environment.unlink()
    environment.mkdir()
    examination = releases.Examination(host)
    assert not examination.sound(host.release("r1"))
    assert examination.damage["r1"] == [f"{host.releases}/r1/.env cannot be read: Is a directory"]
