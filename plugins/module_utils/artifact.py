# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One built application in one file: packed reproducibly, verified, unpacked safely.

An artifact is a gzip-compressed tar file with a manifest beside it (``<artifact>.json``) and the same
manifest, less the fields that describe the file itself, inside it as ``.release.json``.
"""

from __future__ import annotations

import ctypes
import fnmatch
import gzip
import hashlib
import io
import json
import os
import posixpath
import shutil
import stat
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ansible_collections.roastify.ops.plugins.module_utils.files import write_atomically

MANIFEST_MEMBER = ".release.json"
SIDECAR_SUFFIX = ".json"
# Base names that say nothing about the source: what the build makes, history, and a developer's secrets.
SOURCE_EXCLUDE = (".git", "node_modules", "dist", ".env", ".env.local", "*.log")
# 1980-01-01: what zip-based tools use too, and so the oldest time that no tool stumbles over.
OLDEST_TIME = 315532800

_CHUNK = 1 << 20
_MANIFEST_REQUIRED = ("name", "version", "commit", "sourceDigest")
_FILE_FIELDS = ("sha256", "size")
_MAXIMUM_LINKS = 40


class ArtifactError(Exception):
    """An artifact that cannot be made or must not be used; the text says why and what to do."""


@dataclass(frozen=True)
class Contents:
    """What is inside a verified tar file, the manifest itself not counted."""

    files: int
    unpacked_size: int
    manifest: dict[str, Any] | None


@dataclass(frozen=True)
class Artifact:
    """A packed artifact: where it is and its complete manifest (the content of its sidecar)."""

    path: str
    manifest: dict[str, Any]

    @property
    def sha256(self) -> str:
        return str(self.manifest["sha256"])

    @property
    def sidecar(self) -> str:
        return self.path + SIDECAR_SUFFIX


def file_sha256(path: str) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            for chunk in iter(lambda: stream.read(_CHUNK), b""):
                digest.update(chunk)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()


def source_digest(directory: str, exclude: Iterable[str] = SOURCE_EXCLUDE) -> str:
    """SHA-256 over the relative names, executable bits and contents of a source tree.

    Times, owners and other mode bits do not count, so that a fresh clone has the same digest.
    ``exclude`` holds patterns of base names.
    """
    if not os.path.isdir(directory):
        raise ArtifactError(f"The source directory {directory} does not exist.")
    digest = hashlib.sha256()
    for name, status in _walk(directory, tuple(exclude)):
        path = os.path.join(directory, name)
        if stat.S_ISDIR(status.st_mode):
            continue
        if stat.S_ISLNK(status.st_mode):
            kind, content = (
                "link",
                hashlib.sha256(os.readlink(path).encode("utf-8", "surrogateescape")).hexdigest(),
            )
        elif stat.S_ISREG(status.st_mode):
            kind, content = "run" if status.st_mode & 0o100 else "file", file_sha256(path)
        else:
            raise ArtifactError(f"{path} is neither a file, a directory nor a link; remove it from the source.")
        digest.update(f"{kind} {content} ".encode() + name.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def pack(
    directory: str,
    destination: str,
    manifest: Mapping[str, Any],
    *,
    mtime: int = OLDEST_TIME,
    exclude: Iterable[str] = (".git",),
) -> Artifact:
    """Pack a built application into the file ``destination`` and write its sidecar.

    The same tree, manifest and time give the same bytes. An existing artifact is replaced only once
    the new one is complete on disk.
    """
    missing = [field for field in _MANIFEST_REQUIRED if not manifest.get(field)]
    if missing:
        raise ArtifactError(f"The manifest of {destination} lacks {', '.join(missing)}.")
    if not os.path.isdir(directory):
        raise ArtifactError(f"The directory to pack, {directory}, does not exist.")
    for reserved in (".env", MANIFEST_MEMBER):
        if os.path.lexists(os.path.join(directory, reserved)):
            raise ArtifactError(
                f"{os.path.join(directory, reserved)} must not be packed: a release gets its own. Remove it."
            )
    entries = list(_walk(directory, tuple(exclude)))
    members = [(name, status) for name, status in entries if not stat.S_ISDIR(status.st_mode)]
    complete = dict(manifest)
    complete["files"] = len(members)
    complete["unpackedSize"] = sum(status.st_size for _name, status in members if stat.S_ISREG(status.st_mode))

    os.makedirs(os.path.dirname(os.path.abspath(destination)), exist_ok=True)
    partial = f"{destination}.{os.getpid()}.partial"
    try:
        with open(partial, "wb") as raw:
            # An empty file name and time 0 keep the gzip header the same for the same content.
            with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as compressed:
                _write_tar(compressed, directory, entries, complete, mtime)
            raw.flush()
            os.fsync(raw.fileno())
        with open(partial, "rb") as raw:
            verified = _verify_stream(raw, destination)
        if verified.files != complete["files"]:
            raise ArtifactError(f"{directory} changed while it was packed. Build again.")
        complete["sha256"] = file_sha256(partial)
        complete["size"] = os.path.getsize(partial)
        os.replace(partial, destination)
    finally:
        if os.path.exists(partial):
            os.unlink(partial)
    # The sidecar comes last: without a fitting one the artifact counts as absent.
    write_atomically(Path(destination + SIDECAR_SUFFIX), _json(complete).decode("utf-8"))
    return Artifact(destination, complete)


def read_sidecar(path: str) -> dict[str, Any]:
    """The manifest beside an artifact."""
    sidecar = path + SIDECAR_SUFFIX
    try:
        with open(sidecar, encoding="utf-8") as stream:
            manifest = json.load(stream)
    except FileNotFoundError as error:
        raise ArtifactError(
            f"The manifest {sidecar} is missing. Copy it beside the artifact, or build the artifact again."
        ) from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"The manifest {sidecar} cannot be read: {error}. Build the artifact again.") from error
    if not isinstance(manifest, dict):
        raise ArtifactError(f"The manifest {sidecar} is not a JSON object. Build the artifact again.")
    missing = [field for field in (*_MANIFEST_REQUIRED, *_FILE_FIELDS) if not manifest.get(field)]
    if missing:
        raise ArtifactError(f"The manifest {sidecar} lacks {', '.join(missing)}. Build the artifact again.")
    return manifest


def verify(path: str, *, members: bool = True) -> Artifact:
    """Check a file against its sidecar, and with ``members`` its inside too; raise on any difference."""
    if not os.path.isfile(path):
        raise ArtifactError(f"The artifact {path} does not exist. Build it, or name an existing file.")
    manifest = read_sidecar(path)
    found = file_sha256(path)
    if found != manifest["sha256"]:
        raise ArtifactError(
            f"The artifact {path} has SHA-256 {found}, its manifest says {manifest['sha256']}: it is damaged "
            "or was replaced. Fetch or build it again."
        )
    if members:
        contents = inspect(path)
        for field in _MANIFEST_REQUIRED:
            if contents.manifest is not None and contents.manifest.get(field) != manifest[field]:
                raise ArtifactError(
                    f"The manifest beside {path} says {field} {manifest[field]}, the one inside says "
                    f"{contents.manifest.get(field)}. Build the artifact again."
                )
    return Artifact(path, manifest)


def inspect(path: str) -> Contents:
    """Verify the members of an artifact without unpacking it."""
    try:
        with open(path, "rb") as raw:
            return _verify_stream(raw, path)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error}.") from error


def verify_members(tar: tarfile.TarFile) -> Contents:
    """Refuse an archive of which a member could land, or point, outside the directory it is unpacked to."""
    directories: set[str] = set()
    links: dict[str, str] = {}
    names: set[str] = set()
    files = 0
    size = 0
    manifest: dict[str, Any] | None = None
    for member in tar:
        name = _member_name(member)
        if name in names:
            raise ArtifactError(f"{_subject(tar)} holds {name!r} twice. Build it again.")
        names.add(name)
        if member.isdir():
            directories.add(name)
            continue
        if member.issym():
            links[name] = member.linkname
        elif not member.isreg():
            raise ArtifactError(
                f"{_subject(tar)} holds {name!r}, which is a device, a pipe or a hard link. Only files, "
                "directories and symbolic links belong in an artifact; build it again."
            )
        if name == MANIFEST_MEMBER:
            manifest = _read_manifest(tar, member)
            continue
        files += 1
        size += member.size if member.isreg() else 0
    for name in names:
        for parent in _parents(name):
            # Beneath a link (or a file), a member would be written somewhere else than its name says.
            if parent in names and parent not in directories:
                raise ArtifactError(f"{_subject(tar)} holds {name!r} beneath {parent!r}, which is no directory.")
    for name, target in links.items():
        _check_link(tar, name, target, links)
    for field, value in (("files", files), ("unpackedSize", size)):
        if manifest is not None and manifest.get(field, value) != value:
            raise ArtifactError(
                f"{_subject(tar)} has {field} {value}, its manifest says {manifest[field]}. Build it again."
            )
    return Contents(files, size, manifest)


def unpack(
    path: str,
    destination: str,
    *,
    uid: int | None = None,
    gid: int | None = None,
    durable: bool = True,
) -> Contents:
    """Unpack an artifact into ``destination``, a directory that does not exist yet or is empty.

    Every member is verified before the first one is written. Owners come from ``uid`` and ``gid``
    (else the caller's), modes are 0755 and 0644 whatever the archive says. With ``durable`` everything
    is on disk when the function returns. On failure nothing is left in ``destination``.
    """
    if os.path.lexists(destination) and (not os.path.isdir(destination) or os.listdir(destination)):
        raise ArtifactError(f"{destination} exists already and is not an empty directory.")
    contents = inspect(path)
    owner = (-1 if uid is None else uid, -1 if gid is None else gid)
    created = not os.path.isdir(destination)
    try:
        _make_directory(destination, owner)
        with tarfile.open(path, "r:gz") as tar:
            for member in tar:
                _extract(tar, member, destination, owner)
        if durable:
            _sync(destination)
    except BaseException as error:
        _clear(destination, itself=created)
        if isinstance(error, (tarfile.TarError, EOFError, zlib.error, OSError)):
            raise ArtifactError(f"{path} could not be unpacked into {destination}: {error}.") from error
        raise
    return contents


def _walk(directory: str, exclude: tuple[str, ...]) -> Iterator[tuple[str, os.stat_result]]:
    """Everything beneath a directory as (relative name with slashes, lstat), in one fixed order."""
    pending = [""]
    found: list[tuple[str, os.stat_result]] = []
    while pending:
        parent = pending.pop()
        try:
            with os.scandir(os.path.join(directory, parent)) as entries:
                for entry in entries:
                    if any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in exclude):
                        continue
                    name = posixpath.join(parent, entry.name)
                    found.append((name, entry.stat(follow_symlinks=False)))
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(name)
        except OSError as error:
            raise ArtifactError(f"{error.filename} cannot be read: {error.strerror}.") from error
    # By path components, so that a directory always stands right before what it holds.
    return iter(sorted(found, key=lambda pair: pair[0].split("/")))


def _write_tar(
    stream: gzip.GzipFile,
    directory: str,
    entries: list[tuple[str, os.stat_result]],
    manifest: Mapping[str, Any],
    mtime: int,
) -> None:
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        content = _json(manifest)
        first = tarfile.TarInfo(MANIFEST_MEMBER)
        first.size, first.mtime, first.mode = len(content), mtime, 0o644
        # First in the file: whoever only wants the manifest reads one block.
        tar.addfile(first, io.BytesIO(content))
        for name, status in entries:
            path = os.path.join(directory, name)
            member = tarfile.TarInfo(name)
            member.mtime = mtime
            if stat.S_ISDIR(status.st_mode):
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(member)
            elif stat.S_ISLNK(status.st_mode):
                member.type, member.mode, member.linkname = tarfile.SYMTYPE, 0o777, os.readlink(path)
                tar.addfile(member)
            elif stat.S_ISREG(status.st_mode):
                member.mode = 0o755 if status.st_mode & 0o111 else 0o644
                member.size = status.st_size
                with open(path, "rb") as source:
                    tar.addfile(member, source)
            else:
                raise ArtifactError(f"{path} is neither a file, a directory nor a link and cannot be packed.")


def _verify_stream(raw: BinaryIO, label: str) -> Contents:
    try:
        with gzip.GzipFile(fileobj=raw) as stream, tarfile.open(name=label, fileobj=stream, mode="r:") as tar:
            contents = verify_members(tar)
            # A tar file ends before its gzip stream does, and only the end of that holds the checksum.
            while stream.read(_CHUNK):
                pass
            return contents
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ArtifactError(f"{label} is not a complete artifact ({error}). Fetch or build it again.") from error


def _subject(tar: tarfile.TarFile) -> str:
    return f"The artifact {tar.name!s}"


def _member_name(member: tarfile.TarInfo) -> str:
    """The name of a member, if it is a plain relative path."""
    name = member.name
    if name.startswith("./"):
        name = name[2:]
    parts = name.split("/")
    if not name or "\0" in name or name.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise ArtifactError(
            f"The artifact holds the member {member.name!r}, which could land outside the release directory. "
            "Do not use this file; build it again from a source you trust."
        )
    return name


def _parents(name: str) -> Iterator[str]:
    parent = posixpath.dirname(name)
    while parent:
        yield parent
        parent = posixpath.dirname(parent)


def _check_link(tar: tarfile.TarFile, name: str, target: str, links: Mapping[str, str]) -> None:
    """Follow a link as the file system would, among the other links of the archive."""
    escape = ArtifactError(
        f"{_subject(tar)} holds the link {name!r} -> {target!r}, which leads outside the release directory. "
        "Do not use this file; build it again from a source you trust."
    )
    if target.startswith("/") or not target or "\0" in target:
        raise escape
    position = name.split("/")[:-1]
    pending = target.split("/")
    followed = 0
    while pending:
        part = pending.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            if not position:
                raise escape
            position.pop()
            continue
        position.append(part)
        further = links.get("/".join(position))
        if further is not None:
            followed += 1
            if further.startswith("/") or followed > _MAXIMUM_LINKS:
                raise escape
            position.pop()
            pending = further.split("/") + pending


def _read_manifest(tar: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, Any]:
    stream = tar.extractfile(member)
    try:
        manifest = json.loads(stream.read(_CHUNK).decode("utf-8")) if stream is not None else None
    except ValueError as error:
        raise ArtifactError(f"{_subject(tar)} holds an unreadable {MANIFEST_MEMBER}: {error}.") from error
    if not isinstance(manifest, dict):
        raise ArtifactError(f"{_subject(tar)} holds a {MANIFEST_MEMBER} that is not a JSON object.")
    return manifest


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, destination: str, owner: tuple[int, int]) -> None:
    path = os.path.join(destination, _member_name(member))
    if member.isdir():
        _make_directory(path, owner)
        return
    if not os.path.isdir(os.path.dirname(path)):
        _make_parents(os.path.dirname(path), destination, owner)
    if member.issym():
        os.symlink(member.linkname, path)
        if owner != (-1, -1):
            os.lchown(path, *owner)
        return
    source = tar.extractfile(member)
    if source is None:
        raise ArtifactError(f"{_subject(tar)} holds no content for {member.name!r}.")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as target:
        shutil.copyfileobj(source, target, _CHUNK)
        if owner != (-1, -1):
            os.fchown(target.fileno(), *owner)
        os.fchmod(target.fileno(), 0o755 if member.mode & 0o111 else 0o644)
    os.utime(path, (member.mtime, member.mtime))


def _make_directory(path: str, owner: tuple[int, int]) -> None:
    os.makedirs(path, exist_ok=True)
    os.chmod(path, 0o755)
    if owner != (-1, -1):
        os.chown(path, *owner)


def _make_parents(path: str, destination: str, owner: tuple[int, int]) -> None:
    missing: list[str] = []
    while path != destination and not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        _make_directory(directory, owner)


def _clear(directory: str, *, itself: bool) -> None:
    if itself:
        shutil.rmtree(directory, ignore_errors=True)
        return
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)


def _sync(directory: str) -> None:
    """Flush one file system: a single call instead of one fsync for each of thousands of files."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if library.syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), directory)
    except AttributeError:
        os.sync()
    finally:
        os.close(descriptor)


def _json(manifest: Mapping[str, Any]) -> bytes:
    return (json.dumps(dict(manifest), indent=2, sort_keys=True) + "\n").encode("utf-8")
