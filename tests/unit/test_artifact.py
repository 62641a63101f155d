"""Artifacts: reproducible packing, verification, and unpacking that nothing escapes from."""

from __future__ import annotations

import io
import json
import os
import random
import stat
import tarfile

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import artifact
from ansible_collections.roastify.ops.plugins.module_utils.artifact import ArtifactError

MANIFEST = {"name": "shop", "version": "1.2.3", "commit": "abcdef0123", "sourceDigest": "5" * 64}


@pytest.fixture
def tree(tmp_path):
    """A small built application with everything that has to survive."""
    root = tmp_path / "tree"
    (root / "backend/src").mkdir(parents=True)
    (root / "node_modules/.bin").mkdir(parents=True)
    (root / "node_modules/tool").mkdir()
    (root / "empty").mkdir()
    (root / "package.json").write_text('{"version": "1.2.3"}')
    (root / "backend/src/server.js").write_text("listen();")
    (root / "node_modules/tool/run.js").write_text("#!/usr/bin/env node\n")
    (root / "node_modules/tool/run.js").chmod(0o775)
    (root / "node_modules/.bin/tool").symlink_to("../tool/run.js")
    (root / "node_modules/shop-backend").symlink_to("../backend")
    (root / ("long-" * 30)).write_text("longer than an old tar header holds")
    (root / "gr\u00fc\u00dfe.txt").write_text("not ASCII")
    return root


def pack(tree, tmp_path, name="shop.tar.gz", **options):
    return artifact.pack(str(tree), str(tmp_path / name), MANIFEST, **options)


def craft(path, *members, manifest=None):
    """An archive as an attacker would make it: (name, type, link target or content)."""
    with tarfile.open(path, "w:gz") as tar:
        for name, kind, value in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            content = b""
            if kind == tarfile.REGTYPE:
                content = value.encode()
                member.size = len(content)
            else:
                member.linkname = value
            tar.addfile(member, io.BytesIO(content))
        if manifest is not None:
            content = json.dumps(manifest).encode()
            member = tarfile.TarInfo(artifact.MANIFEST_MEMBER)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return str(path)


class TestPack:
    def test_the_same_tree_gives_the_same_bytes(self, tree, tmp_path):
        first = pack(tree, tmp_path, mtime=1700000000)
        for path in tree.rglob("*"):
            os.utime(path, (1, 1), follow_symlinks=False)
        (tree / "package.json").chmod(0o600)
        second = pack(tree, tmp_path, "again.tar.gz", mtime=1700000000)
        assert first.sha256 == second.sha256

    def test_the_manifest_stands_beside_and_inside(self, tree, tmp_path):
        packed = pack(tree, tmp_path)
        beside = json.loads((tmp_path / "shop.tar.gz.json").read_text())
        assert beside == packed.manifest
        inside = artifact.inspect(packed.path).manifest
        assert inside == {key: value for key, value in beside.items() if key not in ("sha256", "size")}
        assert beside["size"] == os.path.getsize(packed.path)
        assert beside["files"] == 7

    def test_members_tell_nothing_of_the_builder(self, tree, tmp_path):
        with tarfile.open(pack(tree, tmp_path, mtime=1700000000).path) as tar:
            for member in tar:
                assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
                assert member.mtime == 1700000000
                assert member.mode in (0o644, 0o755, 0o777)

    @pytest.mark.parametrize("name", [".env", ".release.json"])
    def test_what_belongs_to_a_release_is_not_packed(self, tree, tmp_path, name):
        (tree / name).write_text("X=1")
        with pytest.raises(ArtifactError, match="must not be packed"):
            pack(tree, tmp_path)
        assert not (tmp_path / "shop.tar.gz").exists()

    def test_a_link_that_leads_out_is_not_packed_and_the_old_artifact_stays(self, tree, tmp_path):
        before = pack(tree, tmp_path)
        (tree / "out").symlink_to("../../etc")
        with pytest.raises(ArtifactError, match="leads outside"):
            pack(tree, tmp_path)
        assert artifact.verify(before.path).sha256 == before.sha256
        assert sorted(os.listdir(tmp_path)) == ["shop.tar.gz", "shop.tar.gz.json", "tree"]

    def test_a_pipe_is_refused(self, tree, tmp_path):
        os.mkfifo(tree / "pipe")
        with pytest.raises(ArtifactError, match="cannot be packed"):
            pack(tree, tmp_path)

    def test_an_incomplete_manifest_is_refused(self, tree, tmp_path):
        with pytest.raises(ArtifactError, match="lacks version, sourceDigest"):
            artifact.pack(str(tree), str(tmp_path / "x"), {"name": "shop", "commit": "abc"})


class TestUnpack:
    def test_everything_comes_back(self, tree, tmp_path):
        packed = pack(tree, tmp_path, mtime=1700000000)
        target = tmp_path / "release"
        contents = artifact.unpack(packed.path, str(target))
        assert contents.files == 7
        for path in tree.rglob("*"):
            found = target / path.relative_to(tree)
            if path.is_symlink():
                assert os.readlink(found) == os.readlink(path)
            elif path.is_file():
                assert found.read_bytes() == path.read_bytes()
                assert found.stat().st_mtime == 1700000000
            else:
                assert found.is_dir()
        assert (target / "node_modules/shop-backend/src/server.js").read_text() == "listen();"
        assert stat.S_IMODE((target / "node_modules/tool/run.js").stat().st_mode) == 0o755
        assert stat.S_IMODE((target / "package.json").stat().st_mode) == 0o644
        assert json.loads((target / ".release.json").read_text())["version"] == "1.2.3"

    def test_modes_do_not_depend_on_the_umask(self, tree, tmp_path):
        packed = pack(tree, tmp_path)
        before = os.umask(0o077)
        try:
            artifact.unpack(packed.path, str(tmp_path / "release"))
        finally:
            os.umask(before)
        for directory, _names, files in os.walk(tmp_path / "release"):
            assert stat.S_IMODE(os.stat(directory).st_mode) == 0o755
            assert all(os.stat(os.path.join(directory, name)).st_mode & 0o444 == 0o444 for name in files)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
    def test_the_owner_is_the_one_asked_for(self, tree, tmp_path):
        artifact.unpack(pack(tree, tmp_path).path, str(tmp_path / "release"), uid=4321, gid=1234)
        for path in [tmp_path / "release", *(tmp_path / "release").rglob("*")]:
            assert (path.lstat().st_uid, path.lstat().st_gid) == (4321, 1234), path

    def test_a_used_directory_is_refused(self, tree, tmp_path):
        packed = pack(tree, tmp_path)
        (tmp_path / "release").mkdir()
        (tmp_path / "release/file").write_text("precious")
        with pytest.raises(ArtifactError, match="not an empty directory"):
            artifact.unpack(packed.path, str(tmp_path / "release"))
        assert (tmp_path / "release/file").read_text() == "precious"

    def test_set_user_id_bits_are_dropped(self, tmp_path):
        with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
            member = tarfile.TarInfo("tool")
            member.mode = 0o6755
            tar.addfile(member)
        artifact.unpack(str(tmp_path / "x.tar.gz"), str(tmp_path / "release"))
        assert stat.S_IMODE((tmp_path / "release/tool").stat().st_mode) == 0o755


FILE, LINK, HARD, DIRECTORY = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
HOSTILE = {
    "absolute name": [("/etc/cron.d/x", FILE, "x")],
    "name with dots": [("../x", FILE, "x")],
    "name with dots inside": [("a/../../x", FILE, "x")],
    "empty part": [("a//x", FILE, "x")],
    "absolute link": [("a", LINK, "/etc")],
    "link with dots": [("a", LINK, "..")],
    "link that leads out from below": [("d", DIRECTORY, ""), ("d/a", LINK, "../../x")],
    "member beneath a link": [("a", LINK, "."), ("a/x", FILE, "x")],
    "member beneath a later link": [("a/x", FILE, "x"), ("a", LINK, ".")],
    "link through a link": [
        ("d", DIRECTORY, ""),
        ("d/e", DIRECTORY, ""),
        ("d/e/f", LINK, "../.."),
        ("h", LINK, "d/e/f/../.."),
    ],
    "links in a circle": [("a", LINK, "b"), ("b", LINK, "a/..")],
    "hard link": [("a", FILE, "x"), ("b", HARD, "a")],
    "device": [("a", tarfile.CHRTYPE, "")],
    "pipe": [("a", tarfile.FIFOTYPE, "")],
    "name twice": [("a", FILE, "x"), ("a", FILE, "y")],
    "name twice, spelled otherwise": [("a", FILE, "x"), ("./a", FILE, "y")],
}


class TestHostile:
    @pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
    def test_nothing_is_written(self, tmp_path, members):
        path = craft(tmp_path / "x.tar.gz", *members)
        with pytest.raises(ArtifactError):
            artifact.unpack(path, str(tmp_path / "inner/release"))
        assert not (tmp_path / "inner/release").exists()
        assert {entry.name for entry in tmp_path.iterdir()} <= {"x.tar.gz", "inner"}

    def test_a_broken_manifest_is_refused(self, tmp_path):
        with pytest.raises(ArtifactError, match="unreadable"):
            artifact.inspect(craft(tmp_path / "x.tar.gz", (".release.json", FILE, "{")))

    def test_contents_that_the_manifest_does_not_know_are_refused(self, tmp_path):
        path = craft(tmp_path / "x.tar.gz", ("a", FILE, "x"), manifest={"files": 2})
        with pytest.raises(ArtifactError, match="files 1, its manifest says 2"):
            artifact.inspect(path)

    def test_damage_of_any_byte_is_noticed_or_harmless(self, tree, tmp_path):
        """A damaged file never unpacks to something else, and never fails with a bare Python error."""
        pack(tree, tmp_path)
        data = (tmp_path / "shop.tar.gz").read_bytes()
        chance = random.Random(7)
        for turn in range(60):
            position = chance.randrange(len(data))
            damaged = bytearray(data)
            damaged[position] ^= 1 << chance.randrange(8)
            if turn % 3 == 0:
                damaged = damaged[:position]
            (tmp_path / "bad.tar.gz").write_bytes(bytes(damaged))
            try:
                artifact.unpack(str(tmp_path / "bad.tar.gz"), str(tmp_path / f"r{turn}"), durable=False)
            except ArtifactError:
                assert not (tmp_path / f"r{turn}").exists()
                continue
            assert (tmp_path / f"r{turn}/backend/src/server.js").read_text() == "listen();"


class TestVerify:
    def test_a_good_one(self, tree, tmp_path):
        assert artifact.verify(pack(tree, tmp_path).path).manifest["version"] == "1.2.3"

    def test_a_missing_file_names_the_remedy(self, tmp_path):
        with pytest.raises(ArtifactError, match=r"does not exist\. Build it"):
            artifact.verify(str(tmp_path / "none.tar.gz"))

    def test_a_missing_sidecar(self, tree, tmp_path):
        packed = pack(tree, tmp_path)
        os.unlink(packed.sidecar)
        with pytest.raises(ArtifactError, match=r"missing\. Copy it beside"):
            artifact.verify(packed.path)

    def test_another_sha256(self, tree, tmp_path):
        packed = pack(tree, tmp_path)
        with open(packed.path, "ab") as stream:
            stream.write(b"\0")
        with pytest.raises(ArtifactError, match="damaged or was replaced"):
            artifact.verify(packed.path)

    def test_a_sidecar_of_another_version(self, tree, tmp_path):
        packed = pack(tree, tmp_path)
        manifest = {**packed.manifest, "version": "9.9.9"}
        (tmp_path / "shop.tar.gz.json").write_text(json.dumps(manifest))
        with pytest.raises(ArtifactError, match=r"says version 9.9.9, the one inside says 1.2.3"):
            artifact.verify(packed.path)

    @pytest.mark.parametrize("text", ["", "[]", '{"name": "shop"}'])
    def test_a_broken_sidecar(self, tree, tmp_path, text):
        packed = pack(tree, tmp_path)
        (tmp_path / "shop.tar.gz.json").write_text(text)
        with pytest.raises(ArtifactError, match="Build the artifact again"):
            artifact.verify(packed.path)


class TestSourceDigest:
    def test_times_and_owners_do_not_count(self, tree):
        before = artifact.source_digest(str(tree))
        os.utime(tree / "package.json", (1, 1))
        (tree / "package.json").chmod(0o600)
        assert artifact.source_digest(str(tree)) == before

    def test_what_the_build_makes_does_not_count(self, tree):
        before = artifact.source_digest(str(tree))
        for name in ("node_modules/x", "frontend/dist/x", ".git/x"):
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
        (tree / ".env").write_text("SECRET=1")
        assert artifact.source_digest(str(tree)) == before

    @pytest.mark.parametrize("change", ["content", "name", "executable", "added", "removed", "link"])
    def test_everything_else_counts(self, tree, change):
        (tree / "link").symlink_to("package.json")
        before = artifact.source_digest(str(tree))
        server = tree / "backend/src/server.js"
        if change == "content":
            server.write_text("listen(1);")
        elif change == "name":
            server.rename(server.with_name("other.js"))
        elif change == "executable":
            server.chmod(0o755)
        elif change == "added":
            (tree / "backend/new.js").write_text("")
        elif change == "removed":
            server.unlink()
        else:
            (tree / "link").unlink()
            (tree / "link").symlink_to("backend")
        assert artifact.source_digest(str(tree)) != before

    def test_a_missing_directory(self, tmp_path):
        with pytest.raises(ArtifactError, match="does not exist"):
            artifact.source_digest(str(tmp_path / "none"))
