# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a release is made of, file by file, and whether that is what lies on the host.

The list is made when the artifact is packed and travels inside it, as its second member; the manifest, the first one,
holds the SHA-256 of the list. So the SHA-256 of the artifact vouches for every file of every host, and nothing has to
be hashed on a host until somebody asks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils.files import Kinds

#: Name of the list, in the artifact and in each release.
LIST_MEMBER = ".release.files.json"
#: In the manifest: SHA-256 of the list.
LIST_DIGEST = "filesSha256"
#: In a release: what the artifact has in a directory whose files are served to all releases together.
ASSETS = ".assets"
#: Files that the engine itself keeps at the top of a release, beside those of the artifact.
OWN_FILES = (".release.json", LIST_MEMBER)
#: What stands in the manifest of an artifact, and what staging adds to it.
MANIFEST_KINDS: Kinds = {
    **dict.fromkeys(("id", "name", "version", "sourceDigest", "sha256", LIST_DIGEST), (str,)),
    **dict.fromkeys(("commit", "schemaVersion", "node"), (str, type(None))),
    **dict.fromkeys(("files", "size", "unpackedSize"), (int,)),
    **dict.fromkeys(("schemaBreaks", "sharedAssets", "wantedAssets"), (list,)),
    "sharedLinks": (dict,),
}
#: Modes that a release has: nothing in it may be written to by anybody but root, nor change who runs it.
PLAIN, EXECUTABLE, DIRECTORY = 0o644, 0o755, 0o755

_FORMAT = 1
_CHUNK = 1 << 20


class ListError(Exception):
    """A list of files that cannot be read; the text says what is wrong with it."""


@dataclass(frozen=True)
class File:
    """One file of an artifact: SHA-256 as 64 hexadecimal digits, size in bytes."""

    sha256: str
    size: int
    executable: bool

    @property
    def mode(self) -> int:
        """Permission bits that it has in a release."""
        return EXECUTABLE if self.executable else PLAIN


@dataclass
class FileList:
    """Everything in an artifact, by its path relative to the release; links with what they lead to."""

    files: dict[str, File] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    @property
    def entries(self) -> int:
        """Inodes that it takes to unpack it."""
        return len(self.files) + len(self.links) + len(self.directories)

    def encode(self) -> bytes:
        """As the bytes of the member: the same content gives the same bytes."""
        content = {
            "format": _FORMAT,
            "files": {name: [file.sha256, file.size, f"{file.mode:04o}"] for name, file in sorted(self.files.items())},
            "links": dict(sorted(self.links.items())),
            "directories": sorted(self.directories),
        }
        return (json.dumps(content, separators=(",", ":")) + "\n").encode("ascii")

    @classmethod
    def decode(cls, data: bytes) -> FileList:
        """The list out of the bytes of the member.

        Raises:
            ListError: this is no such list.
        """
        try:
            content = json.loads(data.decode("utf-8"))
            if content["format"] != _FORMAT:
                raise ListError(f"{LIST_MEMBER} has format {content['format']!r}, this collection reads {_FORMAT}")
            files = {
                name: File(_text(sha256), _natural(size), {"0644": False, "0755": True}[mode])
                for name, (sha256, size, mode) in content["files"].items()
            }
            links = {name: _text(target) for name, target in content["links"].items()}
            return cls(files, links, {_text(name) for name in content["directories"]})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ListError(f"{LIST_MEMBER} is no list of files ({type(error).__name__}: {error})") from error


@dataclass(frozen=True)
class Difference:
    """One way in which a release is not what was built."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path} {self.problem}"


@dataclass(frozen=True)
class Place:
    """Where the parts of a release are, once links to shared files were made in it.

    Args:
        directory: of the release.
        links: path in the release -> what the link there leads to; whatever the artifact had there is gone.
        assets: directories of the artifact that were moved beneath ``ASSETS``, each a link now.
    """

    directory: Path
    links: Mapping[str, str]
    assets: tuple[str, ...]

    def of(self, name: str) -> str | None:
        """Where an entry of the artifact is now, relative to the release; None if staging took it away."""
        if beneath(name, self.links):
            return None
        return posixpath.join(ASSETS, name) if beneath(name, self.assets) else name


def place(directory: Path, manifest: Mapping[str, Any]) -> Place:
    """The places of a release.

    Args:
        directory: of the release.
        manifest: of the release, as staging wrote it.
    """
    links = manifest.get("sharedLinks")
    assets = manifest.get("sharedAssets")
    return Place(
        directory,
        {str(name): str(target) for name, target in links.items()} if isinstance(links, dict) else {},
        tuple(str(name) for name in assets) if isinstance(assets, list) else (),
    )


def beneath(name: str, tops: Mapping[str, str] | tuple[str, ...]) -> bool:
    """Whether a path is one of others or lies in one of them."""
    return any(name == top or name.startswith(top + "/") for top in tops)


def has_list(manifest: Mapping[str, Any]) -> bool:
    """Whether a release was staged with a list of its files; the first versions of this collection made none.

    Args:
        manifest: of the release.
    """
    return LIST_DIGEST in manifest


def read_list(directory: Path, manifest: Mapping[str, Any]) -> FileList:
    """The list of a release, if it is the one that its manifest means.

    Args:
        directory: of the release.
        manifest: of the release.

    Raises:
        ListError: missing, damaged, or of another build.
    """
    try:
        data = (directory / LIST_MEMBER).read_bytes()
    except OSError as error:
        raise ListError(f"{LIST_MEMBER} cannot be read ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != manifest.get(LIST_DIGEST):
        raise ListError(f"{LIST_MEMBER} is not the one that .release.json means")
    return FileList.decode(data)


def file_digest(path: Path | str, size: int, known: dict[tuple[int, int], str] | None = None) -> str | None:
    """SHA-256 of a regular file, as 64 hexadecimal digits.

    Args:
        path: the file; a link is not followed.
        size: in bytes, as it should be; a file of another size is not read.
        known: digests by device and inode, for releases that share files; filled on the way.

    Returns:
        None if the file is missing, no regular file, unreadable, or of another size.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            return None
        inode = (status.st_dev, status.st_ino)
        if known is not None and inode in known:
            return known[inode]
        digest = hashlib.sha256()
        for chunk in _rest(descriptor):
            digest.update(chunk)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    if known is not None:
        known[inode] = digest.hexdigest()
    return digest.hexdigest()


def _rest(descriptor: int) -> Iterator[bytes]:
    """What is still to be read of an open file."""
    while chunk := os.read(descriptor, _CHUNK):
        yield chunk


def chunks(path: Path | str) -> Iterator[bytes]:
    """The content of a file, as far as it can be read: whoever needs it hashes it.

    Args:
        path: the file; a link is not followed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        yield from _rest(descriptor)
    except OSError:
        return
    finally:
        os.close(descriptor)


def file_problem(path: Path, wanted: File, owner: int, known: dict[tuple[int, int], str] | None = None) -> str | None:
    """How a file differs from what was built; None if it doesn't.

    Modification times decide nothing: content can change without them, and they can change without it.

    Args:
        path: the file.
        wanted: what it should be.
        owner: user id that it must belong to.
        known: see ``file_digest``.
    """
    try:
        status = os.lstat(path)
    except OSError:
        return "is missing"
    if not stat.S_ISREG(status.st_mode):
        return "is no file any more"
    if status.st_size != wanted.size:
        return f"was changed: {status.st_size} bytes, not {wanted.size}"
    if file_digest(path, wanted.size, known) != wanted.sha256:
        return "was changed: other content"
    return _access_problem(status, wanted.mode, owner)


def differences(
    directory: Path,
    manifest: Mapping[str, Any],
    *,
    owner: int | None = None,
    known: dict[tuple[int, int], str] | None = None,
) -> list[Difference]:
    """In what a release is not what was built: changed, missing and added files, modes, owners, links.

    Args:
        directory: of the release.
        manifest: of the release, as staging wrote it.
        owner: user id that everything must belong to; None for whoever asks, who is the one that stages, too: root.
        known: see ``file_digest``.

    Returns:
        By path; empty if it is what was built.
    """
    owner = os.geteuid() if owner is None else owner
    try:
        listing = read_list(directory, manifest)
    except ListError as error:
        return [Difference(LIST_MEMBER, f"says nothing: {error}")]
    where = place(directory, manifest)
    files = _placed(where, listing.files)
    links = {**_placed(where, listing.links), **where.links, **_asset_links(where)}
    directories = set(_placed(where, dict.fromkeys(listing.directories, "")))
    for name in [*files, *links, *directories]:
        directories.update(parents(name))

    found: list[Difference] = []
    problem = _top_problem(os.lstat(directory), owner)
    if problem:
        found.append(Difference(".", problem))
    seen: set[str] = set()
    for name, status in _walk(directory):
        seen.add(name)
        if name in OWN_FILES:
            problem = _access_problem(status, PLAIN, owner)
        elif name in files:
            problem = file_problem(directory / name, files[name], owner, known)
        elif name in links:
            problem = _link_problem(directory / name, status, links[name], owner)
        elif name in directories:
            is_directory = stat.S_ISDIR(status.st_mode)
            problem = _access_problem(status, DIRECTORY, owner) if is_directory else "is no directory any more"
        else:
            problem = "does not come from the build"
        if problem:
            found.append(Difference(name, problem))
    found += [Difference(name, "is missing") for name in {*files, *links, *directories} - seen]
    return sorted(found, key=lambda difference: difference.path)


def make_directories(top: Path, name: str) -> None:
    """Make a directory and those above it, readable by everybody whatever the umask says.

    One of ours that is there already is made readable, too: a run may have been killed right after it had made it.

    Args:
        top: an existing directory.
        name: path beneath it; empty for ``top`` itself.
    """
    for parent in [*reversed([*parents(name)]), *([name] if name else [])]:
        path = top / parent
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
        status = os.lstat(path)
        is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
        if is_ours and stat.S_IMODE(status.st_mode) != DIRECTORY:
            os.chmod(path, DIRECTORY)


def parents(name: str) -> Iterator[str]:
    """The directories above a relative path, the nearest first."""
    parent = posixpath.dirname(name)
    while parent:
        yield parent
        parent = posixpath.dirname(parent)


def _placed(where: Place, entries: Mapping[str, Any]) -> dict[str, Any]:
    placed = {where.of(name): value for name, value in entries.items()}
    return {name: value for name, value in placed.items() if name is not None}


def _asset_links(where: Place) -> dict[str, str]:
    """What each link in place of a directory of assets leads to."""
    shared = where.directory.parent.parent / "shared" / "assets"
    return {name: os.path.relpath(shared / name, (where.directory / name).parent) for name in where.assets}


def _walk(directory: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Everything beneath a directory, by its relative path, links not followed."""
    pending = [""]
    while pending:
        parent = pending.pop()
        with os.scandir(directory / parent) as entries:
            for entry in entries:
                name = posixpath.join(parent, entry.name)
                yield name, entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(name)


def _access_problem(status: os.stat_result, mode: int, owner: int) -> str | None:
    found = stat.S_IMODE(status.st_mode)
    if found != mode:
        return f"has mode {found:04o}, not {mode:04o}"
    return _owner_problem(status, owner)


def _owner_problem(status: os.stat_result, owner: int) -> str | None:
    return f"belongs to user {status.st_uid}, not {owner}" if status.st_uid != owner else None


def _top_problem(status: os.stat_result, owner: int) -> str | None:
    """The directory of the release: its group may enter, and nobody but its owner may write."""
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"has mode {stat.S_IMODE(status.st_mode):04o}: others may write"
    return _owner_problem(status, owner)


def _link_problem(path: Path, status: os.stat_result, target: str, owner: int) -> str | None:
    if not stat.S_ISLNK(status.st_mode):
        return "is no link any more"
    found = os.readlink(path)
    return f"leads to {found}, not {target}" if found != target else _owner_problem(status, owner)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _natural(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{value!r} is no size")
    return value
