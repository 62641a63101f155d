"""What of an artifact is sent to a host that holds releases already."""

import os
import random

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import artifact, release_files, transfers
from ansible_collections.roastify.ops.plugins.module_utils.transfers import Held


def fill(directory, seed):
    """A tree of files, of which some are empty, alike or executable, and links."""
    chance = random.Random(seed)
    for number in range(chance.randint(1, 12)):
        path = directory / chance.choice(["", "a", "a/b", "ä"]) / f"file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.choice([b"", b"alike", chance.randbytes(chance.randint(1, 3000))]))
        path.chmod(chance.choice([0o644, 0o755]))
        if chance.random() < 0.2:
            (path.parent / f"link{number}").symlink_to(path.name)
    return directory


def pack(directory, destination):
    manifest = {"name": "shop", "version": "1.0.0", "commit": "abc1234", "sourceDigest": "0" * 64}
    return artifact.pack(str(directory), str(destination), manifest, mtime=1_700_000_000)


def seen(directory):
    """Everything in a tree that a release has of an artifact."""
    return {
        str(path.relative_to(directory)): (
            path.lstat().st_mode,
            path.lstat().st_mtime if path.is_file() and not path.is_symlink() else None,
            os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None,
        )
        for path in sorted(directory.rglob("*"))
    }


@pytest.mark.parametrize("seed", range(40))
def test_a_difference_makes_what_the_artifact_would_make(tmp_path, seed):
    packed = pack(fill(tmp_path / "source", seed), tmp_path / "shop.tar.gz")
    listing = artifact.read_list(packed.path)
    contents = {file.sha256: tmp_path / "source" / name for name, file in listing.files.items()}
    chance = random.Random(seed)
    held = {sha256: path for sha256, path in contents.items() if chance.random() < 0.6}
    difference = tmp_path / "difference.tar.gz"
    artifact.write_difference(packed.path, str(difference), held)

    def supply(file):
        return release_files.chunks(held[file.sha256]) if file.sha256 in held else None

    artifact.unpack(packed.path, str(tmp_path / "whole"))
    artifact.unpack(str(difference), str(tmp_path / "put together"), supply=supply)
    assert seen(tmp_path / "put together") == seen(tmp_path / "whole")
    if any(file.sha256 in held for file in listing.files.values()):
        with pytest.raises(artifact.ArtifactError, match="lacks"):
            artifact.unpack(str(difference), str(tmp_path / "without"))
    assert not (tmp_path / "without").exists() or not held


def test_the_same_difference_has_the_same_bytes(tmp_path):
    packed = pack(fill(tmp_path / "source", 7), tmp_path / "shop.tar.gz")
    held = {next(iter(artifact.read_list(packed.path).files.values())).sha256}
    for name in ("first", "second"):
        artifact.write_difference(packed.path, str(tmp_path / name), held)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


@pytest.mark.parametrize("supplied", [b"another", b"", b"content and more"])
def test_other_content_than_listed_is_not_taken_from_anywhere(tmp_path, supplied):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "server.js").write_bytes(b"content")
    packed = pack(tmp_path / "source", tmp_path / "shop.tar.gz")
    held = {file.sha256 for file in artifact.read_list(packed.path).files.values()}
    artifact.write_difference(packed.path, str(tmp_path / "difference"), held)
    with pytest.raises(artifact.ArtifactError, match=r"'server.js'.*damaged on this host"):
        artifact.unpack(str(tmp_path / "difference"), str(tmp_path / "release"), supply=lambda file: iter([supplied]))
    assert not (tmp_path / "release").exists()


def test_a_damaged_artifact_has_no_difference(tmp_path):
    packed = pack(fill(tmp_path / "source", 3), tmp_path / "shop.tar.gz")
    content = bytearray((tmp_path / "shop.tar.gz").read_bytes())
    (tmp_path / "shop.tar.gz").write_bytes(content[:-20])
    with pytest.raises(artifact.ArtifactError):
        artifact.write_difference(packed.path, str(tmp_path / "difference"), {"0" * 64})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop.tar.gz", "shop.tar.gz.json", "source"]


def test_what_a_host_holds_travels_as_text():
    digests = [f"{number:064x}"[::-1] for number in range(1000)]
    held = Held.decode(Held(digests).encode())
    assert all(digest in held for digest in digests)
    assert "f" * 64 not in held
    assert len(Held(digests).encode()) < 11 * len(digests)
    assert len(Held.decode("")) == 0
    for text in ("AAAA", "not base64!"):
        with pytest.raises(ValueError):
            Held.decode(text)


def test_a_difference_is_made_where_it_is_worth_while_and_once(tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    for number in range(10):
        (source / f"file{number}").write_bytes(random.Random(number).randbytes(10_000))
    packed = pack(source, tmp_path / "shop.tar.gz")
    digests = [file.sha256 for file in artifact.read_list(packed.path).files.values()]

    def parcel(*held):
        return transfers.parcel(packed.path, packed.sha256, Held(held), str(tmp_path))

    for held in ([], ["0" * 64], digests[:1]):
        assert (parcel(*held).path, parcel(*held).sha256, parcel(*held).whole) == (packed.path, packed.sha256, True)
    some = parcel(*digests[:9])
    assert not some.whole
    assert some.sha256 == artifact.file_sha256(some.path)
    assert 10_000 < some.size == os.path.getsize(some.path) < 13_000
    monkeypatch.setattr(artifact, "write_difference", None)
    # What is held beyond this artifact changes nothing.
    assert parcel(*digests[:9], "1" * 64) == some
