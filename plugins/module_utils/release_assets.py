# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Front-end assets of all kept releases, served from one directory.

A page that was opened before a switch asks for the assets of its own release, and in a fleet that is half switched it
may ask a host that serves the other one. Assets whose names bear a hash of their content can lie beside each other, so
every kept release finds its directory of assets replaced by a link to the same shared one, which holds the files of
all of them::

    releases/<id>/.assets/frontend/dist/assets/index-4f2a.js    the file
    releases/<id>/frontend/dist/assets -> ../../../../shared/assets/frontend/dist/assets
    shared/assets/frontend/dist/assets/index-4f2a.js            the same file, by a hard link

Files are added when a release is staged, before it gets its name and on all hosts before any host switches; they are
removed when no release has them any more. What is in the shared directory and in no release was left by a run that was
killed, and goes with the next one. That holds for the directories of assets alone: whatever else lies in
``shared/assets`` belongs to the application or to people, who may have had that name before.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import shutil
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ansible_collections.roastify.ops.plugins.module_utils import release_files
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.files import read_object
from ansible_collections.roastify.ops.plugins.module_utils.release_files import ASSETS, MANIFEST_KINDS, FileList

#: In the shared directory.
SHARED = "assets"


@dataclass
class Claims:
    """What the releases of a host want to find in the shared directory.

    Args:
        files: SHA-256 by path beneath the shared directory.
        directories: directories that releases link to.
        unreadable: releases that could not be asked; while there is one, nothing may be removed.
    """

    files: dict[str, str] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    unreadable: list[str] = field(default_factory=list)


def claims(releases: Path) -> Claims:
    """Ask the releases of a host for their assets.

    Directories that are no complete release count, too: ``current`` may point to one whose manifest was damaged.

    Args:
        releases: the directory that holds them.
    """
    found = Claims()
    for name in sorted(os.listdir(releases)):
        directory = releases / name
        if name.startswith("."):
            continue  # unfinished, or being removed
        manifest = read_object(directory / ".release.json", MANIFEST_KINDS)
        if manifest is None:
            if os.path.lexists(directory / ASSETS):
                found.unreadable.append(name)
            continue
        assets = release_files.place(directory, manifest).assets
        if not assets:
            continue
        try:
            listing = release_files.read_list(directory, manifest)
        except release_files.ListError:
            found.unreadable.append(name)
            continue
        found.directories.update(assets)
        for path, file in listing.files.items():
            if release_files.beneath(path, assets):
                found.files[path] = file.sha256
    return found


def move_aside(directory: Path, final: Path, shared: Path, paths: Sequence[str], listing: FileList) -> list[str]:
    """Put a link in place of each directory of assets of a release that is being staged.

    Args:
        directory: of the unfinished release.
        final: where it will stand.
        shared: the shared directory of the host.
        paths: directories of assets, relative to the release.
        listing: of the release.

    Returns:
        Those of them that the release has.

    Raises:
        OperationError: one of them is, or holds, a link.
    """
    present = [path for path in paths if path in listing.directories]
    for path in sorted({*paths} - {*present}):
        if path in listing.files or path in listing.links:
            raise OperationError(
                f"{path} of this release is no directory, so that it cannot hold assets",
                "correct app_assets (app_release_assets)",
            )
    for name in listing.links:
        if release_files.beneath(name, tuple(present)):
            raise OperationError(
                f"the assets of this release hold a link, {name}: assets are served as files from a shared directory",
                "let the build copy what the link leads to, or leave the directory out of app_assets "
                "(app_release_assets)",
            )
    for path in present:
        release_files.make_directories(directory, posixpath.dirname(posixpath.join(ASSETS, path)))
        os.rename(directory / path, directory / ASSETS / path)
        os.symlink(os.path.relpath(shared / SHARED / path, (final / path).parent), directory / path)
    return present


def publish(directory: Path, releases: Path, shared: Path, paths: Sequence[str], listing: FileList) -> None:
    """Add the assets of a release to the shared directory. Nothing that is served changes.

    Args:
        directory: of the unfinished release, its assets moved aside.
        releases: the directory that holds the others.
        shared: the shared directory of the host.
        paths: directories of assets that the release has.
        listing: of the release.

    Raises:
        OperationError: another release has other content under the same name.
        OSError: no space.
    """
    if not paths:
        return
    claimed = claims(releases)
    mine = {name: file for name, file in listing.files.items() if release_files.beneath(name, tuple(paths))}
    _refuse_collisions({name: file.sha256 for name, file in mine.items()}, claimed.files)
    # What no release has is in the way at most: a file, perhaps, where a directory is needed now.
    top = shared / SHARED
    _remove(top, paths, claimed, mine)
    for path in paths:
        release_files.make_directories(shared, posixpath.join(SHARED, path))
    for name, file in mine.items():
        release_files.make_directories(top, posixpath.dirname(name))
        source, target = directory / ASSETS / name, top / name
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.lstat(source), os.lstat(target)):
                continue
        if _problem(target, file) is None:
            continue  # the file of another release, live perhaps: it stays the same one
        if os.path.lexists(target) and claimed.unreadable and name not in claimed.files:
            raise OperationError(
                f"asset {name} of this release is shared already with other content, and one of these may need it, "
                f"whose {release_files.LIST_MEMBER} or .release.json cannot be read: {', '.join(claimed.unreadable)}",
                f"see which of them is live (readlink {releases.parent / 'current'}), move the others out of "
                f"{releases} and deploy again",
            )
        _place(source, target)


def remove_unclaimed(releases: Path, shared: Path, left: Collection[str] = ()) -> list[str]:
    """Take away the shared assets that no release has any more.

    Args:
        releases: the directory that holds the releases.
        shared: the shared directory of the host.
        left: directories of assets that releases had which are gone now.

    Returns:
        Their paths beneath the directory of shared assets; none where a release could not be asked what it has.
    """
    top = shared / SHARED
    return _remove(top, left, claims(releases), {}) if top.is_dir() else []


def _remove(top: Path, left: Collection[str], claimed: Claims, also: Mapping[str, object]) -> list[str]:
    if claimed.unreadable:
        return []
    wanted = {*claimed.files, *also}
    directories = {*claimed.directories}
    for name in [*wanted, *claimed.directories]:
        directories.update(release_files.parents(name))
    removed: list[str] = []

    def unlink(name: str) -> None:
        # Best effort: on NFS, a file that is being read goes by another name until that ends, and refuses to go.
        with contextlib.suppress(OSError):
            os.unlink(top / name)
            removed.append(name)

    for base in sorted({*left, *claimed.directories}):
        above = [*release_files.parents(base)]
        for name in [*reversed(above), base]:
            if os.path.islink(top / name):  # nothing of ours, and nobody knows where it leads
                unlink(name)
        for parent, names, files in os.walk(top / base, topdown=False):
            prefix = os.path.relpath(parent, top) + "/"
            for name in files:
                if prefix + name not in wanted:
                    unlink(prefix + name)
            for name in names:
                if os.path.islink(os.path.join(parent, name)):
                    unlink(prefix + name)
                elif prefix + name not in directories:
                    with contextlib.suppress(OSError):  # everything that could go is gone by now
                        os.rmdir(os.path.join(parent, name))
        for name in [base, *above]:
            if name not in directories:
                with contextlib.suppress(OSError):  # it was never made, or something else is in it
                    os.rmdir(top / name)
    return sorted(removed)


def differences(directory: Path, manifest: Mapping[str, object], shared: Path) -> list[release_files.Difference]:
    """Which assets of a release are not served as they were built.

    Args:
        directory: of the release.
        manifest: of the release.
        shared: the shared directory of the host.
    """
    assets = release_files.place(directory, manifest).assets
    if not assets:
        return []
    try:
        listing = release_files.read_list(directory, manifest)
    except release_files.ListError:
        return []  # whoever compares the release says so
    found: list[release_files.Difference] = []
    for name, file in listing.files.items():
        if not release_files.beneath(name, assets):
            continue
        served = shared / SHARED / name
        with contextlib.suppress(OSError):
            if os.path.samestat(os.lstat(directory / ASSETS / name), os.lstat(served)):
                continue  # the same file, compared with the release
        problem = _problem(served, file)
        if problem and not (_is_source_map(name) and os.path.isfile(served)):
            found.append(release_files.Difference(f"{shared.name}/{SHARED}/{name}", problem))
    return found


def _problem(served: Path, file: release_files.File) -> str | None:
    """How a shared asset differs from what was built; None if it doesn't.

    It is the file of one of the releases that have this content, which may be executable in one and not in another
    (file systems differ). Nobody runs what a page asks for, so that either will do.
    """
    known: dict[tuple[int, int], str] = {}
    problem = release_files.file_problem(served, file, os.geteuid(), known)
    if problem is None:
        return None
    other = replace(file, executable=not file.executable)
    return None if release_files.file_problem(served, other, os.geteuid(), known) is None else problem


def _is_source_map(name: str) -> bool:
    """Whether a file may differ between releases under one name: bundlers name it after the script, whose hash stays
    the same where a comment changes. Only who debugs a page reads it, and gets that of the release staged last."""
    return name.endswith(".map")


def _refuse_collisions(mine: Mapping[str, str], claimed: Mapping[str, str]) -> None:
    taken = set(claimed)
    for name in claimed:
        taken.update(release_files.parents(name))
    for name, sha256 in sorted(mine.items()):
        above = [parent for parent in release_files.parents(name) if parent in claimed]
        differs = claimed.get(name, sha256) != sha256 and not _is_source_map(name)
        if differs or (name in taken and name not in claimed) or above:
            raise OperationError(
                f"asset {above[0] if above else name} of this release has other content than a kept release has under "
                "the same name, so that pages of one of them would break",
                "let the build put a hash of the content into the name, or leave the directory out of app_assets "
                "(app_release_assets); nothing was changed on this host",
            )


def _place(source: Path, target: Path) -> None:
    """Give a file a second name, in place of whatever damaged thing has it now."""
    # Of this name alone: nobody asks for it, and if we are killed here, no release claims it. The target's own name is
    # no part of it, since that may be as long as a name can be.
    temporary = target.with_name(f".{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(os.lstat(target).st_mode):
                shutil.rmtree(target)
        try:
            os.link(source, temporary)
        except OSError as error:
            # Another file system, or more links than this one counts (ext4: 65,000).
            if error.errno not in (errno.EXDEV, errno.EMLINK):
                raise
            _copy(source, temporary)
        os.rename(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _copy(source: Path, target: Path) -> None:
    with open(source, "rb") as old, open(target, "xb") as new:
        shutil.copyfileobj(old, new, 1 << 20)
        os.fchmod(new.fileno(), stat.S_IMODE(os.fstat(old.fileno()).st_mode))
        new.flush()
        os.fsync(new.fileno())
