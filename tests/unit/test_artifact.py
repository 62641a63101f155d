"""Artifacts: reproducible packing, verification, and unpacking that nothing escapes from."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import artifact, release_files
from ansible_collections.roastify.ops.plugins.module_utils.artifact import ArtifactError
from ansible_collections.roastify.ops.plugins.module_utils.release_files import (
    LIST_DIGEST,
    LIST_MEMBER,
    File,
    FileList,
)
from hypothesis import given, settings
from hypothesis import strategies as st

MANIFEST = {"name": "shop", "version": "1.2.3", "commit": "abcdef0123", "sourceDigest": "5" * 64, "schemaVersion": None}


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


def member(name, kind=tarfile.REGTYPE, value="", **fields):
    """A member as an attacker may make it, and its content."""
    info = tarfile.TarInfo(name)
    info.type = kind
    content = b""
    if kind == tarfile.REGTYPE:
        content = value if isinstance(value, bytes) else value.encode()
        info.size = len(content)
    else:
        info.linkname = value
    for field, changed in fields.items():
        setattr(info, field, changed)
    return info, content


def listed(members):
    """The list of files that fits, so that nothing but the member itself is wrong."""
    listing = FileList()
    for info, content in members:
        if info.isdir():
            listing.directories.add(info.name)
        elif info.issym():
            listing.links[info.name] = info.linkname
        else:
            listing.files[info.name] = File(hashlib.sha256(content).hexdigest(), len(content), bool(info.mode & 0o111))
    return listing


def craft(path, *members, manifest=None, listing=None, tail=b"", end=True):
    """An archive as an attacker would make it; each member is (name, type, link target or content) or from member()."""
    members = [entry if isinstance(entry[0], tarfile.TarInfo) else member(*entry) for entry in members]
    content = (listing or listed(members)).encode()
    listing = FileList.decode(content)
    manifest = {
        **MANIFEST,
        "files": len(listing.files) + len(listing.links),
        "unpackedSize": listing.size,
        LIST_DIGEST: hashlib.sha256(content).hexdigest(),
        **(manifest or {}),
    }
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", encoding="utf-8", errors="surrogateescape") as tar:
        own = [member(artifact.MANIFEST_MEMBER, value=json.dumps(manifest)), member(LIST_MEMBER, value=content)]
        for info, data in [*own, *members]:
            tar.addfile(info, io.BytesIO(data))
        unpadded = tar.offset
    data = raw.getvalue() if end else raw.getvalue()[:unpadded]
    path.write_bytes(gzip.compress(data + tail))
    return str(path)


class TestPack:
    def test_the_same_tree_gives_the_same_bytes(self, tree, tmp_path):
        first = pack(tree, tmp_path, mtime=1700000000)
        for path in tree.rglob("*"):
            os.utime(path, (1, 1), follow_symlinks=False)
        (tree / "package.json").chmod(0o600)
        second = pack(tree, tmp_path, "again.tar.gz", mtime=1700000000)
        assert first.sha256 == second.sha256

    def test_what_a_killed_build_left_goes_with_the_next_one(self, tree, tmp_path):
        gone = subprocess.Popen(["true"])
        gone.wait()
        stays = {f"shop-1.tar.gz.{os.getppid()}.partial", "film.partial", "shop.tar.gz.1x.partial"}
        for name in (*stays, f"shop-1.tar.gz.{gone.pid}.partial", f"shop.tar.gz.{gone.pid}.partial"):
            (tmp_path / name).write_text("half")
        pack(tree, tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {*stays, "tree", "shop.tar.gz", "shop.tar.gz.json"}

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

    @pytest.mark.parametrize(("mode", "found"), [(0o6755, 0o755), (0o666, 0o644), (0o4644, 0o644), (0o777, 0o755)])
    def test_modes_that_give_rights_away_are_dropped(self, tmp_path, mode, found):
        path = craft(tmp_path / "x.tar.gz", member("d", DIRECTORY, mode=0o2777), member("d/tool", mode=mode))
        artifact.unpack(path, str(tmp_path / "release"))
        assert stat.S_IMODE((tmp_path / "release/d/tool").stat().st_mode) == found
        assert stat.S_IMODE((tmp_path / "release/d").stat().st_mode) == 0o755

    def test_names_that_only_windows_fears_are_names(self, tmp_path):
        names = ["README.md", "readme.md", "a\\b", "nul", "what?", "caf\u00e9", "cafe\u0301", "x" * 255, " "]
        path = craft(tmp_path / "x.tar.gz", *[(name, FILE, name) for name in names])
        artifact.unpack(path, str(tmp_path / "release"))
        for name in names:
            assert (tmp_path / "release" / name).read_text() == name

    @pytest.mark.parametrize("mtime", [-1, 1 << 40, 1e300])
    def test_times_that_no_file_can_have_are_replaced(self, tmp_path, mtime):
        info, content = member("a", FILE, "x")
        info.mtime = 0
        info.pax_headers = {"mtime": str(mtime)}
        artifact.unpack(craft(tmp_path / "x.tar.gz", (info, content)), str(tmp_path / "release"))
        assert (tmp_path / "release/a").stat().st_mtime == artifact.OLDEST_TIME

    def test_what_does_not_fit_is_said_before_anything_is_written(self, tree, tmp_path):
        seen = []

        def refuse(contents):
            seen.append((contents.files, contents.unpacked_size, os.listdir(tmp_path / "inner")))
            raise ArtifactError("no room")

        packed = pack(tree, tmp_path)
        (tmp_path / "inner").mkdir()
        with pytest.raises(ArtifactError, match="no room"):
            artifact.unpack(packed.path, str(tmp_path / "inner/release"), accept=refuse)
        assert seen == [(packed.manifest["files"], packed.manifest["unpackedSize"], [])]
        assert os.listdir(tmp_path / "inner") == []

    def test_the_release_is_what_the_list_says(self, tree, tmp_path):
        packed = pack(tree, tmp_path)
        artifact.unpack(packed.path, str(tmp_path / "release"))
        assert release_files.differences(tmp_path / "release", packed.manifest) == []


FILE, LINK, HARD, DIRECTORY = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
HOSTILE = {
    "absolute name": ([("/etc/cron.d/x", FILE, "x")], "'/etc/cron.d/x', which could land outside"),
    "name with dots": ([("../x", FILE, "x")], "'../x', which could land outside"),
    "name with dots inside": ([("a/../../x", FILE, "x")], "could land outside"),
    "name that is a dot": ([("./x", FILE, "x")], "could land outside"),
    "empty part": ([("a//x", FILE, "x")], "could land outside"),
    "absolute link": ([("a", LINK, "/etc")], "link 'a' -> '/etc', which leads outside"),
    "link with dots": ([("a", LINK, "..")], "leads outside"),
    "link that leads out from below": ([("d", DIRECTORY, ""), ("d/a", LINK, "../../x")], "leads outside"),
    "member beneath a link": ([("a", LINK, "."), ("a/x", FILE, "x")], "'a/x' beneath 'a', which is no directory"),
    "member beneath a later link": ([("a/x", FILE, "x"), ("a", LINK, ".")], "'a/x' beneath 'a'"),
    "member beneath a file": ([("a", FILE, "x"), ("a/x", FILE, "x")], "'a/x' beneath 'a'"),
    "directory that becomes a link": ([("a", DIRECTORY, ""), ("a", LINK, "."), ("a/x", FILE, "x")], "'a' twice"),
    "link through a link": (
        [("d", DIRECTORY, ""), ("d/e", DIRECTORY, ""), ("d/e/f", LINK, "../.."), ("h", LINK, "d/e/f/../..")],
        "'h' -> 'd/e/f/../..', which leads outside",
    ),
    "links in a circle": ([("a", LINK, "b"), ("b", LINK, "a/..")], "leads outside"),
    "long chain of links": ([(f"l{n}", LINK, f"l{n + 1}") for n in range(60)], "leads outside"),
    "link to nothing": ([("a", LINK, "")], "leads outside"),
    "hard link": ([("a", FILE, "x"), ("b", HARD, "a")], "'b', which is a device"),
    "hard link that leads out": ([("b", HARD, "../../etc/passwd")], "'b', which is a device"),
    "character device": ([("a", tarfile.CHRTYPE, "")], "'a', which is a device"),
    "block device": ([("a", tarfile.BLKTYPE, "")], "'a', which is a device"),
    "pipe": ([("a", tarfile.FIFOTYPE, "")], "'a', which is a device"),
    "unknown type": ([("a", b"Z", "")], "'a'"),
    "contiguous file": ([("a", tarfile.CONTTYPE, "")], "'a'"),
    "name twice": ([("a", FILE, "x"), ("a", FILE, "x")], "'a' twice"),
    "line break": ([("a\nb", FILE, "x")], "control characters"),
    "escape sequence": ([("a\x1b[2J", FILE, "x")], "control characters"),
    "not UTF-8": ([("a\udcff", FILE, "x")], "not UTF-8"),
    "too long a part": ([("x" * 256, FILE, "x")], "too long a name"),
    "the manifest again": ([(".release.json", FILE, "{}")], "a name that releases use themselves"),
    "the list again": ([(".release.files.json", FILE, "{}")], "a name that releases use themselves"),
    "assets of the engine": ([(".assets", DIRECTORY, "")], "a name that releases use themselves"),
}
PAX = {
    "another name": ({"path": "../../x"}, "could land outside"),
    "a name with an end in it": ({"path": "a\0b"}, "control characters"),
    "a size that goes back": ({"size": "-512"}, "otherwise than its list|not a complete artifact|points back"),
    "an enormous size": ({"size": str(1 << 60)}, "otherwise than its list"),
    "a size that is none": ({"size": "many"}, "otherwise than its list|not a complete artifact"),
    "a sparse file": ({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1"}, "."),
    "an old sparse file": ({"GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 40)}, "sparse file"),
    "an enormous header": ({"comment": "x" * (2 << 20)}, "has a header of"),
}


def refused(tmp_path, path, text="."):
    """An archive is refused by whoever looks and by whoever unpacks, and nothing is left."""
    before = {entry.name for entry in tmp_path.iterdir()}
    (tmp_path / "inner").mkdir(exist_ok=True)
    with pytest.raises(ArtifactError, match=text):
        artifact.inspect(path)
    with pytest.raises(ArtifactError, match=text):
        artifact.unpack(path, str(tmp_path / "inner/release"), durable=False)
    assert os.listdir(tmp_path / "inner") == []
    assert {entry.name for entry in tmp_path.iterdir()} == before | {"inner"}


class TestHostile:
    @pytest.mark.parametrize(("members", "text"), HOSTILE.values(), ids=HOSTILE.keys())
    def test_nothing_is_left(self, tmp_path, members, text):
        refused(tmp_path, craft(tmp_path / "x.tar.gz", *members), text)

    @pytest.mark.parametrize(("headers", "text"), PAX.values(), ids=PAX.keys())
    def test_extended_headers(self, tmp_path, headers, text):
        refused(tmp_path, craft(tmp_path / "x.tar.gz", member("a", FILE, "x", pax_headers=headers)), text)

    def test_a_link_in_an_extended_header(self, tmp_path):
        path = craft(tmp_path / "x.tar.gz", member("l", LINK, "a", pax_headers={"linkpath": "/etc"}))
        refused(tmp_path, path, "'l' otherwise")

    def test_a_header_for_all_members(self, tmp_path):
        raw = io.BytesIO(gzip.decompress(Path(craft(tmp_path / "x.tar.gz", ("a", FILE, "x"))).read_bytes()))
        header = tarfile.TarInfo.create_pax_global_header({"path": "../x"})
        (tmp_path / "x.tar.gz").write_bytes(gzip.compress(header + raw.getvalue()))
        refused(tmp_path, str(tmp_path / "x.tar.gz"), "does not begin with")

    def test_a_long_name_of_gnu_tar(self, tmp_path):
        name = "d/" * 2000 + "x"
        info, content = member(name, FILE, "x")
        path = tmp_path / "x.tar.gz"
        data = info.tobuf(format=tarfile.GNU_FORMAT) + content.ljust(512, b"\0")
        start = gzip.decompress(Path(craft(path, listing=listed([(info, content)]), end=False)).read_bytes())
        path.write_bytes(gzip.compress(start + data + bytes(1024)))
        refused(tmp_path, str(path), "too long a name")

    def test_what_is_not_in_the_list(self, tmp_path):
        refused(tmp_path, craft(tmp_path / "x.tar.gz", ("a", FILE, "x"), listing=FileList()), "'a' otherwise")

    @pytest.mark.parametrize("change", ["content", "size", "mode", "link", "directory"])
    def test_what_is_in_the_list_otherwise(self, tmp_path, change):
        members = [member("a", FILE, "x"), member("l", LINK, "a"), member("d", DIRECTORY)]
        listing = listed(members)
        file = listing.files["a"]
        if change == "content":
            listing.files["a"] = File("0" * 64, file.size, file.executable)
        elif change == "size":
            listing.files["a"] = File(file.sha256, 2, file.executable)
        elif change == "mode":
            listing.files["a"] = File(file.sha256, file.size, True)
        elif change == "link":
            listing.links["l"] = "d"
        else:
            listing.directories.clear()
        refused(tmp_path, craft(tmp_path / "x.tar.gz", *members, listing=listing), "otherwise than its list")

    def test_what_is_missing(self, tmp_path):
        members = [member("a", FILE, "x"), member("b", FILE, "y")]
        path = craft(tmp_path / "x.tar.gz", members[0], listing=listed(members))
        refused(tmp_path, path, r"lacks 'b' \(1 of 2 members\)")

    @pytest.mark.parametrize(
        "text", ["", "[]", '{"format": 2}', '{"format": 1, "files": {"a": ["x", -1, "0644"]}}', "[" * 100000, "\xff"]
    )
    def test_a_broken_list(self, tmp_path, text):
        class Broken(FileList):
            def encode(self):
                return text.encode("latin-1")

        members = [member(artifact.MANIFEST_MEMBER, value="?"), member(LIST_MEMBER, value=text.encode("latin-1"))]
        manifest = {**MANIFEST, LIST_DIGEST: hashlib.sha256(members[1][1]).hexdigest()}
        members[0] = member(artifact.MANIFEST_MEMBER, value=json.dumps(manifest))
        with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
            for info, content in members:
                tar.addfile(info, io.BytesIO(content))
        refused(tmp_path, str(tmp_path / "x.tar.gz"), "is no list of files|has format 2")

    @pytest.mark.parametrize("names", [[], ["a"], [".release.json", "a"], [".release.files.json", ".release.json"]])
    def test_what_was_packed_by_something_else(self, tmp_path, names):
        with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
            for name in names:
                info, content = member(name, FILE, "{}")
                tar.addfile(info, io.BytesIO(content))
        refused(tmp_path, str(tmp_path / "x.tar.gz"), "does not begin with|another list|points back")

    def test_a_broken_manifest(self, tmp_path):
        with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
            info, content = member(".release.json", FILE, "{")
            tar.addfile(info, io.BytesIO(content))
        refused(tmp_path, str(tmp_path / "x.tar.gz"), "unreadable")

    def test_contents_that_the_manifest_does_not_know(self, tmp_path):
        path = craft(tmp_path / "x.tar.gz", ("a", FILE, "x"), manifest={"files": 2})
        refused(tmp_path, path, "files 1, its manifest says 2")

    def test_something_after_the_end(self, tmp_path):
        path = craft(tmp_path / "x.tar.gz", ("a", FILE, "x"), tail=b"more")
        refused(tmp_path, path, "something after its end")
        path = craft(tmp_path / "x.tar.gz", ("a", FILE, "x"), tail=bytes(8 << 20))
        refused(tmp_path, path, "something after its end")
        for tail in (b"more", bytes(512), gzip.compress(b"more")):
            path = craft(tmp_path / "x.tar.gz", ("a", FILE, "x"))
            with open(path, "ab") as stream:
                stream.write(tail)
            refused(tmp_path, path, "something behind its end")

    def test_a_small_file_that_inflates_to_a_large_one(self, tmp_path):
        """What is not listed is not read on, and what is listed was accepted before."""
        path = craft(tmp_path / "x.tar.gz", ("a", FILE, bytes(64 << 20)), listing=listed([member("a", FILE, b"x")]))
        assert os.path.getsize(path) < 1 << 20
        refused(tmp_path, path, "'a' otherwise")

    def test_an_archive_without_end_is_complete_if_nothing_is_missing(self, tmp_path):
        path = craft(tmp_path / "x.tar.gz", ("a", FILE, "x"), end=False)
        artifact.unpack(path, str(tmp_path / "release"))
        assert (tmp_path / "release/a").read_text() == "x"

    def test_cut_at_every_byte(self, tmp_path):
        data = Path(craft(tmp_path / "x.tar.gz", ("a", FILE, "x"), ("l", LINK, "a"))).read_bytes()
        for length in range(len(data)):
            (tmp_path / "x.tar.gz").write_bytes(data[:length])
            refused(tmp_path, str(tmp_path / "x.tar.gz"))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A packed tree, its bytes, the tar file in them, and what has to come out."""
    root = tmp_path_factory.mktemp("good")
    (root / "tree/d").mkdir(parents=True)
    (root / "tree/d/server.js").write_text("listen();" * 100)
    (root / "tree/run").write_text("#!/bin/sh\n")
    (root / "tree/run").chmod(0o755)
    (root / "tree/link").symlink_to("d/server.js")
    (root / "tree" / ("long-" * 30)).write_text("")
    packed = artifact.pack(str(root / "tree"), str(root / "x.tar.gz"), MANIFEST)
    data = Path(packed.path).read_bytes()
    return data, gzip.decompress(data), packed.manifest


def refused_or_the_same(data, manifest):
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "x.tar.gz"
        path.write_bytes(data)
        target = Path(scratch) / "release"
        try:
            artifact.unpack(str(path), str(target), durable=False)
        except ArtifactError:
            assert os.listdir(scratch) == ["x.tar.gz"]
            return
        assert sorted(os.listdir(scratch)) == ["release", "x.tar.gz"]
        found = json.loads((target / ".release.json").read_text())
        # The list vouches for everything but itself; what vouches for that is the SHA-256 of the artifact.
        if found.get(LIST_DIGEST) == manifest[LIST_DIGEST]:
            assert release_files.differences(target, manifest) == []


class TestDamage:
    @settings(max_examples=150, deadline=None)
    @given(data=st.data())
    def test_of_the_file(self, good, data):
        """Cut, or with bits flipped: refused, or the same comes out; no bare Python error, no file outside."""
        packed, _tar, manifest = good
        broken = bytearray(packed)
        for position in data.draw(st.lists(st.integers(0, len(broken) - 1), max_size=4)):
            broken[position] ^= 1 << data.draw(st.integers(0, 7))
        refused_or_the_same(bytes(broken[: data.draw(st.integers(0, len(broken)))]), manifest)

    @settings(max_examples=300, deadline=None)
    @given(data=st.data())
    def test_of_the_archive_inside(self, good, data):
        """As before, but the checksum of gzip is right, as an attacker would have it."""
        _packed, tar, manifest = good
        broken = bytearray(tar)
        for _turn in range(data.draw(st.integers(1, 3))):
            block = data.draw(st.integers(0, len(broken) // 512 - 1)) * 512
            position = block + data.draw(st.integers(0, 511))
            broken[position] = data.draw(st.integers(0, 255))
            if data.draw(st.booleans()):
                checksum = 256 + sum(broken[block : block + 148]) + sum(broken[block + 156 : block + 512])
                broken[block + 148 : block + 156] = b"%06o\0 " % checksum
        refused_or_the_same(gzip.compress(bytes(broken)), manifest)

    @settings(max_examples=100, deadline=None)
    @given(text=st.binary(max_size=4096))
    def test_that_leaves_nothing_of_it(self, good, text):
        refused_or_the_same(text, good[2])
        refused_or_the_same(gzip.compress(text), good[2])


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

    @pytest.mark.parametrize("field", ["version", "sha256", "files", "schemaVersion"])
    def test_a_sidecar_that_lacks_something(self, tree, tmp_path, field):
        packed = pack(tree, tmp_path)
        manifest = {name: value for name, value in packed.manifest.items() if name != field}
        (tmp_path / "shop.tar.gz.json").write_text(json.dumps(manifest))
        with pytest.raises(ArtifactError, match=rf"shop\.tar\.gz\.json lacks {field}\. Build the artifact again"):
            artifact.verify(packed.path)

    @pytest.mark.parametrize("field, value", [("size", "many"), ("schemaVersion", 2), ("schemaBreaks", {})])
    def test_a_sidecar_of_other_types(self, tree, tmp_path, field, value):
        packed = pack(tree, tmp_path)
        (tmp_path / "shop.tar.gz.json").write_text(json.dumps({**packed.manifest, field: value}))
        with pytest.raises(ArtifactError, match=rf"is not what a build writes: {field} is .*, not "):
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

    def test_one_that_hosts_keep_is_compared_and_not_read_again(self, tree, tmp_path):
        """Every byte of it counts as before, and what is said beside it does."""
        packed = pack(tree, tmp_path)
        hostile = craft(tmp_path / "shop.tar.gz", ("../passwd", tarfile.REGTYPE, "root::0:0"))
        inside = artifact._beginning(hostile).manifest
        sha256 = hashlib.sha256((tmp_path / "shop.tar.gz").read_bytes()).hexdigest()
        beside = {**packed.manifest, **inside, "sha256": sha256}
        (tmp_path / "shop.tar.gz.json").write_text(json.dumps(beside))
        with pytest.raises(ArtifactError, match="passwd"):
            artifact.verify(packed.path, known=["0" * 64])
        assert artifact.verify(packed.path, known=[sha256]).sha256 == sha256
        (tmp_path / "shop.tar.gz.json").write_text(json.dumps({**beside, "version": "9.9.9"}))
        with pytest.raises(ArtifactError, match=r"says version 9.9.9, the one inside says 1.2.3"):
            artifact.verify(packed.path, known=[sha256])
        (tmp_path / "shop.tar.gz").write_bytes(b"other")
        with pytest.raises(ArtifactError, match="damaged or was replaced"):
            artifact.verify(packed.path, known=[sha256])

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
