# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where releases lie on a host, which one is live, and how one is put there or taken away."""

from __future__ import annotations

import contextlib
import errno
import grp
import json
import os
import posixpath
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils import (
    artifact,
    deployments,
    env_file,
    release_assets,
    release_files,
    release_states,
)
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.files import (
    Kinds,
    exclusively,
    misfit_of,
    read_object,
    remove_temporary,
    sync_directory,
)
from ansible_collections.roastify.ops.plugins.module_utils.release_states import ReleaseStates

MANIFEST = artifact.MANIFEST_MEMBER
#: Unfinished releases have this prefix: nothing that has it can be live, kept or rolled back to.
STAGING_PREFIX = ".staging-"
#: In the root: the state of each release, as ``<release id>.json``.
STATES = ".states"
#: In the shared directory: the environment of each release, as ``<release id>.env``.
ENVIRONMENTS = "environments"
#: In the lock, see ``deploy_locks``: ids of the dead deployments that it was taken over from, one after the other.
TAKEN_OVER = "takenOver"
#: What stands in the lock beside them.
LOCK_KINDS: Kinds = {
    **dict.fromkeys(("deploymentId", "holder", "origin", "since"), (str,)),
    **dict.fromkeys(("lease", "expires"), (int, float)),
    "controller": (dict,),
    TAKEN_OVER: (list,),
}
#: How a difference ends that is about nothing but the owner, see release_files: after chown -R, all of them are.
_OWNER = re.compile(r" belongs to user \d+, not \d+$")
#: Room beyond the unpacked size: directory blocks, log lines and the journal while the deployment runs.
SPACE_RESERVE = 64 * 1024 * 1024


@dataclass(frozen=True)
class Release:
    """One complete release on a host."""

    id: str
    directory: Path
    manifest: Mapping[str, Any]

    @property
    def version(self) -> str:
        """Version of the application."""
        return str(self.manifest.get("version", ""))

    @property
    def commit(self) -> str | None:
        """Commit it was built from."""
        commit = self.manifest.get("commit")
        return None if commit is None else str(commit)

    @property
    def sha256(self) -> str:
        """SHA-256 of the artifact it was unpacked from."""
        return str(self.manifest.get("sha256", ""))

    @property
    def environment(self) -> Path:
        """The ``.env`` that its workers read."""
        return self.directory / ".env"


class Host:
    """The directory tree of one application on this host.

    Args:
        root: for instance ``/srv/<app>``.
    """

    def __init__(self, root: str) -> None:
        self.root = Path(root)
        self.releases = self.root / "releases"
        self.shared = self.root / "shared"
        self.environments = self.shared / ENVIRONMENTS
        self.link = self.root / "current"
        self.journal = self.root / "deployments.jsonl"
        self.lock = self.root / ".deploy.lock"
        #: What a timer is to do unless the deployment is confirmed, see ``deadman``.
        self.order = self.root / ".deadman.json"
        self.states = ReleaseStates(self.root / STATES)

    def require(self) -> None:
        """See that the host was set up.

        Raises:
            OperationError: a directory is missing, cannot be written to, or is where links in releases do not reach it.
        """
        missing = [str(path) for path in (self.releases, self.shared) if not path.is_dir()]
        if missing:
            raise OperationError(
                f"{' and '.join(missing)} missing on this host", "run the setup playbook against it first"
            )
        for path in (self.root, self.releases, self.shared):
            if os.statvfs(path).f_flag & os.ST_RDONLY:
                raise OperationError(
                    f"{path} is on a file system that is mounted read-only",
                    "see why: after an error of the disk the kernel does that (dmesg, journalctl -k), and such a host "
                    "is better replaced; else mount -o remount,rw. What serves goes on serving",
                )
        # As the kernel follows them: from where releases really are.
        beside = self.releases / os.pardir / self.shared.name
        if not beside.exists() or not beside.samefile(self.shared):
            raise OperationError(
                f"{self.releases} is a link to {os.path.realpath(self.releases)}: links in releases lead to "
                f"{os.path.realpath(beside)} from there, and not to {self.shared}",
                f"mount what it leads to at {self.releases} in its place (mount --bind will do)",
            )

    def release(self, identifier: str) -> Release | None:
        """A complete release by its id, or None."""
        directory = self.releases / identifier
        if not identifier or "/" in identifier or identifier.startswith("."):
            return None
        manifest = read_object(directory / MANIFEST, release_files.MANIFEST_KINDS)
        if manifest is None or manifest.get("id") != identifier:
            return None
        return Release(identifier, directory, manifest)

    def kept(self) -> list[Release]:
        """All complete releases, by id."""
        if not self.releases.is_dir():
            return []
        found = (self.release(name) for name in sorted(os.listdir(self.releases)))
        return [release for release in found if release is not None]

    def records(self) -> list[deployments.Record]:
        """The journal of this host, oldest first."""
        return deployments.read_records(self.journal)

    def settle(self) -> None:
        """Write down what a killed run could not any more, right after it had renamed the link."""
        live = self.live()
        started = next((record for record in reversed(self.records()) if record.status == deployments.STARTED), None)
        deployed = started.release if started and started.action == deployments.DEPLOY else None
        self.states.settle(live.id if live else None, deployed)

    def live(self) -> Release | None:
        """The release that ``current`` points to, None before the first deployment.

        Raises:
            OperationError: ``current`` is no link, dangles, or points elsewhere. Nothing is ever removed to mend that.
        """
        if not os.path.lexists(self.link):
            return None
        if not self.link.is_symlink():
            raise OperationError(
                f"{self.link} is not a symbolic link",
                f"look what it holds, move it aside (mv {self.link} {self.link}.aside) and deploy again",
            )
        target = os.readlink(self.link)
        identifier = os.path.basename(target.rstrip("/"))
        directory = Path(os.path.normpath(self.root / target))
        release = self.release(identifier) if directory == self.releases / identifier else None
        if release is None:
            kept = ", ".join(release.id for release in self.kept()) or "none"
            raise OperationError(
                f"{self.link} points to {target}, which is no complete release of this host",
                f"point it to a complete release (there are: {kept}) with ln -sfn releases/ID {self.link}, "
                "or remove the link if nothing is served from it",
                unreadable(directory / MANIFEST, release_files.MANIFEST_KINDS),
            )
        return release

    def find(self, wanted: str) -> Release:
        """The release that an operator means by an id or a version.

        Args:
            wanted: release id, or a version; of several releases of one version that is meant which served last, and
                of those that never did the one that came last.

        Raises:
            OperationError: there is none.
        """
        kept = self.kept()
        for release in kept:
            if release.id == wanted:
                return release
        states = {release.id: self.states.of(release.id) for release in kept}
        same_version = [release for release in kept if release.version == wanted]
        if same_version:
            return max(same_version, key=lambda release: (states[release.id].served, states[release.id].number))
        names = ", ".join(f"{release.id} (version {release.version})" for release in kept) or "none"
        raise OperationError(f"release {wanted} is not on this host", f"choose one of the kept releases: {names}")


def unreadable(path: Path, wanted: Kinds) -> list[str]:
    """Why a JSON file that is there counts as missing, for people: none if it does not.

    Args:
        path: the file.
        wanted: the types of its fields.
    """
    problem = misfit_of(path, wanted)
    return [f"{path} cannot be read: {problem}"] if problem else []


def space_problem(directory: Path, needed_bytes: int, needed_files: int) -> OperationError | None:
    """Whether an artifact fits.

    Args:
        directory: any existing directory of the file system in question.
        needed_bytes: bytes of the artifact and of what it unpacks to.
        needed_files: files and directories that it unpacks to.
    """
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    wanted = needed_bytes + SPACE_RESERVE
    remedy = "free some space (old logs, old dumps of the database) or enlarge the volume; nothing was changed"
    if free < wanted:
        return OperationError(
            f"not enough space in {directory}: {free // 2**20} MiB free, {wanted // 2**20} MiB needed", remedy
        )
    # Some file systems (btrfs) count no inodes and say 0 of 0.
    if status.f_files and status.f_favail < needed_files:
        return OperationError(
            f"not enough inodes in {directory}: {status.f_favail} free, {needed_files} needed", remedy
        )
    return None


class ArtifactNeeded(OperationError):
    """The content of a release is not on the host: the artifact has to be transferred first."""


def damage(host: Host, release: Release, known: dict[tuple[int, int], str] | None = None) -> list[str]:
    """In what a release on the host is not what was built.

    Args:
        host: where.
        release: the release.
        known: digests by device and inode, for releases that share files; filled on the way.

    Returns:
        A line for each difference, by path; empty if there is none.
    """
    found = release_files.differences(release.directory, release.manifest, known=known)
    found += release_assets.differences(release.directory, release.manifest, host.shared)
    lines = [str(difference) for difference in found]
    installed = host.states.of(release.id).environment
    is_own = installed is not None and has_own_environment(host, release)
    if is_own and installed != env_file.fingerprint(release.environment):
        lines.append(".env is not what was installed with the release")
    return lines


def has_own_environment(host: Host, release: Release) -> bool:
    """Whether a ``.env`` is of this release alone; one that all share changes, and no release is damaged by that.

    Args:
        host: where.
        release: the release.
    """
    if not release.environment.is_symlink():
        return False
    target = os.path.normpath(release.directory / os.readlink(release.environment))
    return target.startswith(os.path.normpath(host.environments) + os.sep)


class Examination:
    """Compares releases of a host with what was built, each once.

    Args:
        host: where.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._known: dict[tuple[int, int], str] = {}
        #: By release id: in what it is not what was built.
        self.damage: dict[str, list[str]] = {}
        #: Ids of the releases that are.
        self.intact: set[str] = set()

    def sound(self, release: Release) -> bool:
        """Whether a release is what was built, as far as that can be told.

        Args:
            release: the release.
        """
        if not release_files.has_list(release.manifest):
            return True  # nobody can tell, and the first rollback after an upgrade must find it
        if release.id not in self.damage and release.id not in self.intact:
            try:
                problems = damage(self._host, release, self._known)
            except OSError as error:  # for instance, it is being pruned right now
                problems = [f"{error.filename} cannot be read: {error.strerror}"]
            except env_file.EnvFileError as error:
                problems = [str(error)]
            if problems:
                self.damage[release.id] = problems
            else:
                self.intact.add(release.id)
        return release.id in self.intact

    def of(self, release: str) -> bool | None:
        """Whether a release is intact; None if nobody looked, or can tell.

        Args:
            release: its id.
        """
        return False if release in self.damage else True if release in self.intact else None


def previous(
    host: Host, live: Release | None, kept: Sequence[Release], examination: Examination | None = None
) -> Release | None:
    """The release that a rollback without an argument returns to.

    That of a rollback which was killed is its own: the same command again brings it to its end, and not further back.

    Args:
        host: where.
        live: the live release.
        kept: the complete releases of the host.
        examination: compares the release with what was built; a damaged one is passed over.
    """
    run = _cut_off(host)
    if run is not None and run.action == deployments.ROLLBACK:
        release = host.release(run.release)
        if release is not None and (examination is None or examination.sound(release)):
            return release
    return _before(host, live, kept, examination)


def _cut_off(host: Host) -> deployments.Record | None:
    """The last run, if it is at work or was killed: it has no end in the journal, or has not given its lock back.

    The journal has it before the last host is done, and before what is not needed any more was cleared away.
    """
    records = host.records()
    run = deployments.cut_off(records)
    lock = read_object(host.lock, LOCK_KINDS)
    holders = [lock.get("deploymentId"), *lock.get(TAKEN_OVER, [])] if lock else []
    if run is None and records and records[-1].deploymentId in holders:
        ends = (record for record in reversed(records) if record.status != deployments.ROLLED_BACK)
        last = next(ends, None)
        return last if last is not None and last.status == deployments.SUCCEEDED else None
    return run


def _before(
    host: Host, live: Release | None, kept: Sequence[Release], examination: Examination | None
) -> Release | None:
    """What served before the live release was deployed, by the recorded states; a damaged one is passed over."""
    names = [release.id for release in kept]
    while True:
        identifier = host.states.previous(live.id if live else None, names)
        release = host.release(identifier) if identifier else None
        if release is None or examination is None or examination.sound(release):
            return release
        names.remove(release.id)


def stage(
    host: Host,
    identifier: str,
    archive: Path,
    sha256: str,
    links: Mapping[str, str],
    group: str | None,
    dry_run: bool = False,
    assets: Sequence[str] = (),
    difference: Difference | None = None,
) -> tuple[Release | None, bool]:
    """Put a complete release beside the others; nothing live is touched.

    The release is made under a name that nothing follows and gets its own name by rename(2) once it is complete
    and on disk, so that a release that can be seen is a release that can be served.

    Content that the host has already, in a release with another environment, is linked instead of unpacked: the
    files of a release are never written to again, so that two releases can share them. Each is hashed first, so that
    damage is not handed on.

    A release that is here already is compared, file by file, with what was built. A damaged one is made anew, as a
    whole, unless it is the live one.

    Args:
        host: where.
        identifier: release id.
        archive: the transferred artifact; not looked at where the host has its content already.
        sha256: what the artifact must hash to.
        links: links to make in the release: path in the release -> path in the shared directory.
        group: group that may read the release; None leaves it to everybody.
        dry_run: only check.
        assets: directories in the release whose files are served to all releases together, see ``release_assets``.
        difference: what the archive is if not the artifact itself: all of it that kept releases don't hold.

    Returns:
        The release (None in a dry run that would make it) and whether anything changed.

    Raises:
        ArtifactNeeded: the artifact is not on the host, nor its content.
        OperationError: wrong content, another release of that id, no space, the live release is damaged.
    """
    _check_paths(links, assets)
    existing = host.release(identifier)
    if existing is not None:
        if existing.sha256 != sha256:
            raise OperationError(
                f"release {identifier} is here already with other content (artifact {existing.sha256[:12]}, "
                f"not {sha256[:12]})",
                "deploy under another release id: a complete release is never written to again",
            )
        problems = damage(host, existing)
        if not problems:
            if not dry_run and host.states.of(identifier).state == release_states.STAGING:
                # It got its name, and the run was killed before it could say so.
                _record_verified(host, existing)
            return existing, False
        live = host.live()
        if live is not None and live.id == identifier:
            raise OperationError(
                f"release {identifier} is live, and it is not what was built",
                "deploy again with playbooks/deploy.yml (app_release_id left empty): a new release is made beside it",
                shown(problems),
            )
    elif os.path.lexists(host.releases / identifier):
        raise OperationError(
            f"{host.releases / identifier} exists but is no complete release",
            f"it was not made by this collection; look at it and move it aside: mv {host.releases / identifier} /root/",
        )
    if dry_run:
        return existing, True
    _remove_unfinished(host)
    host.states.forget_all_but([*(release.id for release in host.kept()), identifier])
    known = host.states.of(identifier)
    # One that was being made anew when a run was killed may have no name at the moment, and is no new one for that.
    is_new = existing is None and (not known.number or known.state == release_states.STAGING)
    if is_new:
        host.states.record(identifier, release_states.STAGING)
    directory = host.releases / f"{STAGING_PREFIX}{identifier}"
    final = host.releases / identifier
    try:
        manifest, listing = _fill(host, identifier, archive, sha256, directory, links, difference)
        _finish(host, directory, identifier, sha256, manifest, listing, links, group, assets)
        # Nothing so far is sure to be on disk: after a power cut, a name that came first would hold empty files.
        artifact.sync_file_system(str(directory))
        served = host.shared / release_assets.SHARED
        if served.is_dir() and os.stat(served).st_dev != os.stat(directory).st_dev:
            artifact.sync_file_system(str(served))
        if existing is not None:
            # Nothing serves from it. Whoever still runs there finds the same paths again at once.
            os.rename(final, host.releases / f"{STAGING_PREFIX}{identifier}.damaged")
        os.rename(directory, final)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            release_assets.remove_unclaimed(host.releases, host.shared, assets)
        raise
    sync_directory(host.releases)
    release = Release(identifier, final, manifest)
    if is_new:
        _record_verified(host, release)
    else:
        # What it was before is true of it still: what it is made of is the same. Only its .env may be another one.
        _record_environment(host, release)
        _remove_unfinished(host)
    return host.release(identifier), True


def _record_verified(host: Host, release: Release) -> None:
    host.states.record(release.id, release_states.VERIFIED, environment=_own_environment(host, release))


def _record_environment(host: Host, release: Release) -> None:
    known, environment = host.states.of(release.id), _own_environment(host, release)
    if environment not in (None, known.environment):
        # A killed switch may still have to be written down: it tells by the file alone what was live before.
        state = release_states.LIVE if host.states.is_settled(release.id) else known.state
        host.states.record(release.id, state, known.deployment, known.reason, environment)


def _own_environment(host: Host, release: Release) -> str | None:
    return env_file.fingerprint(release.environment) if has_own_environment(host, release) else None


def shown(problems: Sequence[str], most: int = 10) -> list[str]:
    """The first of many lines, and how many more there are.

    Args:
        problems: all of them.
        most: how many to show.
    """
    more = len(problems) - most
    return [*problems[:most], *([f"and {more} more"] if more > 0 else [])]


def damaged(release: Release, problems: Sequence[str], remedy: str) -> str:
    """A release that is not what was built, told to a person.

    Args:
        release: the release.
        problems: in what it differs.
        remedy: what to do.
    """
    if all(_OWNER.search(line) for line in problems):
        top = release.directory
        remedy = f"chown -Rh {os.geteuid()} {top}, since nothing but the owner is another one; or else {remedy}"
    cause = f"release {release.id} is not what was built: {len(problems)} difference{'s'[: len(problems) != 1]}"
    return str(OperationError(cause, remedy, shown(problems)))


def _check_paths(links: Mapping[str, str], assets: Sequence[str]) -> None:
    """Refuse options that would have staging write outside a release, or one part of it in another."""
    for name in [*links, *links.values(), *assets]:
        if not name or name.startswith("/") or posixpath.normpath(name) != name or name.split("/")[0] in (".", ".."):
            raise OperationError(
                f"{name!r} is no plain relative path", "correct app_release_links, or app_assets (app_release_assets)"
            )
    tops = [*links, *assets, *release_files.OWN_FILES, release_files.ASSETS]
    for number, name in enumerate(tops):
        if release_files.beneath(name, tuple(tops[:number] + tops[number + 1 :])):
            raise OperationError(
                f"{name} stands twice, or in another one, among the links and assets of a release",
                "correct app_release_links, or app_assets (app_release_assets)",
            )
    if assets and any(release_files.beneath(target, (release_assets.SHARED,)) for target in links.values()):
        raise OperationError(
            f"a link leads to {release_assets.SHARED} in the shared directory, where the assets of all releases are",
            "choose another name in app_release_links",
        )


def _fill(
    host: Host,
    identifier: str,
    archive: Path,
    sha256: str,
    directory: Path,
    links: Mapping[str, str],
    difference: Difference | None,
) -> tuple[Mapping[str, Any], release_files.FileList]:
    """Fill a new directory with the content of an artifact; its manifest and its list of files."""
    damaged: list[str] = []
    for twin in host.kept():
        if twin.sha256 != sha256 or twin.id == identifier:
            continue
        try:
            return twin.manifest, _share(twin, directory, links)
        except release_files.ListError as error:
            damaged.append(f"release {twin.id}: {error}")
            shutil.rmtree(directory, ignore_errors=True)
    if not os.path.isfile(archive):
        raise ArtifactNeeded(
            f"the artifact {archive} is not on this host, and no undamaged release here has its content",
            "deploy the artifact itself (without release_kept): only releases that every host keeps can do without it",
            damaged,
        )
    return _unpack(host, archive, sha256, directory, difference)


@dataclass(frozen=True)
class Difference:
    """A transferred file that holds only what the host lacks of an artifact.

    Attributes:
        sha256: of the file.
        files_sha256: of the artifact's list of files, as its manifest gives it: it vouches for every file.
    """

    sha256: str
    files_sha256: str


def held(host: Host) -> dict[str, Path]:
    """The contents that complete releases hold, as their lists say; whoever uses one has to hash it.

    Args:
        host: where.

    Returns:
        Path of a file by its SHA-256.
    """
    found: dict[str, Path] = {}
    for release in host.kept():
        with contextlib.suppress(release_files.ListError):
            listing = release_files.read_list(release.directory, release.manifest)
            place = release_files.place(release.directory, release.manifest)
            for name, file in listing.files.items():
                where = place.of(name)
                if where is not None:
                    found[file.sha256] = release.directory / where
    return found


def _unpack(
    host: Host, archive: Path, sha256: str, directory: Path, difference: Difference | None
) -> tuple[Mapping[str, Any], release_files.FileList]:
    """Fill a new directory from the artifact; its manifest and its list of files.

    What a difference leaves out is copied and not linked: two releases of different content share nothing, so that
    no accident to one is one to the other, which may be the one to return to.
    """
    wanted = difference.sha256 if difference else sha256
    try:
        found = artifact.file_sha256(str(archive))
    except artifact.ArtifactError as error:
        raise ArtifactNeeded(str(error), "deploy again; it is transferred anew") from error
    if found != wanted:
        raise ArtifactNeeded(
            f"the artifact {archive} has SHA-256 {found}, not {wanted}: it was damaged or replaced on the way",
            "deploy again; it is transferred anew",
        )
    contents = held(host) if difference else {}

    def supply(file: release_files.File) -> Iterator[bytes] | None:
        path = contents.get(file.sha256)
        return None if path is None else release_files.chunks(path)

    def fits(unpacked: artifact.Contents) -> None:
        if difference and unpacked.manifest[release_files.LIST_DIGEST] != difference.files_sha256:
            raise artifact.ArtifactError(f"{archive} belongs to another artifact than {sha256}.")
        problem = space_problem(host.releases, unpacked.unpacked_size, unpacked.listing.entries)
        if problem:
            raise problem

    try:
        unpacked = artifact.unpack(str(archive), str(directory), durable=False, accept=fits, supply=supply)
    except artifact.ArtifactError as error:
        if difference:
            raise ArtifactNeeded(str(error), "deploy again; the whole artifact is transferred then") from error
        raise OperationError(str(error), "nothing was changed on this host") from error
    return unpacked.manifest, unpacked.listing


def _share(twin: Release, directory: Path, links: Mapping[str, str]) -> release_files.FileList:
    """Fill a new directory as unpacking would, with hard links to the files of a release of the same content.

    Args:
        twin: that release.
        directory: to make.
        links: what will be replaced in it and need not be there.

    Returns:
        The list of files.

    Raises:
        release_files.ListError: the twin is damaged, or cannot be linked to.
    """
    listing = release_files.read_list(twin.directory, twin.manifest)
    place = release_files.place(twin.directory, twin.manifest)
    owner = os.geteuid()
    os.mkdir(directory)
    for name in sorted(listing.directories):
        release_files.make_directories(directory, name)
    for name, file in listing.files.items():
        if release_files.beneath(name, links):
            continue
        where = place.of(name)
        if where is None:
            raise release_files.ListError(f"{name} was replaced by a link to shared files")
        problem = release_files.file_problem(twin.directory / where, file, owner)
        if problem:
            raise release_files.ListError(f"{where} {problem}")
        try:
            os.link(twin.directory / where, directory / name, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EMLINK, errno.EXDEV):
                raise
            raise release_files.ListError(f"{where} cannot be linked to: {error.strerror}") from error
    for name, target in listing.links.items():
        os.symlink(target, directory / name)
    _write(directory / release_files.LIST_MEMBER, listing.encode())
    return listing


def _finish(
    host: Host,
    directory: Path,
    identifier: str,
    sha256: str,
    manifest: Mapping[str, Any],
    listing: release_files.FileList,
    links: Mapping[str, str],
    group: str | None,
    assets: Sequence[str],
) -> None:
    """Make the content of an artifact a release: links, assets, manifest, who may enter."""
    made: dict[str, str] = {}
    for name, target in links.items():
        path = directory / name
        for parent in release_files.parents(name):
            if parent in listing.links or parent in listing.files:
                raise OperationError(
                    f"{name} cannot be linked to shared files: {parent} of this release is no directory",
                    "correct app_release_links",
                )
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif os.path.lexists(path):
            path.unlink()
        release_files.make_directories(directory, posixpath.dirname(name))
        # Relative to where the release will stand, so that the whole tree could be moved.
        final = host.releases / identifier / name
        made[name] = os.path.relpath(host.shared / target, final.parent)
        os.symlink(made[name], path)
    present = release_assets.move_aside(directory, host.releases / identifier, host.shared, assets, listing)
    content = {
        **manifest,
        "id": identifier,
        "sha256": sha256,
        "stagedAt": deployments.now(),
        "sharedLinks": made,
        "sharedAssets": present,
        "wantedAssets": [*assets],  # of which this build may lack some
    }
    (directory / MANIFEST).unlink(missing_ok=True)
    _write(directory / MANIFEST, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8"))
    if group is not None:
        os.chown(directory, -1, _group_id(group))
        os.chmod(directory, 0o750)
    else:
        os.chmod(directory, 0o755)
    release_assets.publish(directory, host.releases, host.shared, present, listing)


def _group_id(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise OperationError(
            f"there is no group {group} on this host, which is to read the release",
            "run the setup playbook against it, or correct app_group (app_release_group)",
        ) from error


def _write(path: Path, content: bytes) -> None:
    """Make a file in a release that is not complete yet."""
    with open(path, "xb") as stream:
        stream.write(content)
        os.fchmod(stream.fileno(), release_files.PLAIN)


def remove_environments(host: Host, but: str = "") -> list[str]:
    """Take away the environments of releases that are gone.

    Args:
        host: where.
        but: a release that is about to come: its environment is installed before it is staged.

    Returns:
        Ids of those releases.
    """
    if not host.environments.is_dir():
        return []
    owners = {name[: -len(".env")]: name for name in os.listdir(host.environments) if name.endswith(".env")}
    gone = sorted(owner for owner in owners if owner != but and not (host.releases / owner).is_dir())
    for owner in gone:
        (host.environments / owners[owner]).unlink()
    return gone


def _remove_unfinished(host: Host) -> list[str]:
    """Take away what a killed run left; the deployment lock says that no other run is at it.

    Returns:
        What could not be removed, and why. It stays until the next time: nothing ever follows such a name.
    """
    stays: list[str] = []
    for name in os.listdir(host.releases):
        if name.startswith(STAGING_PREFIX):
            try:
                shutil.rmtree(host.releases / name)
            except OSError as error:
                stays.append(f"{host.releases / name}: {error}")
    remove_temporary(host.states.directory / "*.json")
    remove_temporary(host.environments / "*.env")
    with exclusively(host.root):  # others may be trying to get the lock
        for path in (host.link, host.lock, host.journal, host.order):
            remove_temporary(path)
    return stays


def prunable(host: Host, keep: int) -> list[Release]:
    """Releases that may go.

    The live one and the one a rollback returns to stay whatever the number; of the others those that failed or
    never served go first, then those that served longest ago, all by their recorded states. A rollback passes over
    what is damaged, so that releases are compared with what was built, but only where there are too many of them.

    Args:
        host: where.
        keep: complete releases to keep, the live one included.
    """
    kept = host.kept()
    live = host.live()
    surplus = max(len(kept) - max(keep, 1), 0)
    if not surplus:
        return []
    examination = Examination(host)
    # If all are damaged, the one that would be it is the best there is.
    back = _before(host, live, kept, examination) or _before(host, live, kept, None)
    # A rollback that is not at its end goes elsewhere, perhaps.
    stay = {release.id for release in (live, back, previous(host, live, kept, examination)) if release}
    states = {release.id: host.states.of(release.id) for release in kept}

    def worth(release: Release) -> tuple[bool, int, int]:
        state = states[release.id]
        return state.state != release_states.FAILED and state.served > 0, state.served, state.number

    candidates = sorted((release for release in kept if release.id not in stay), key=worth)
    return candidates[:surplus]


def prune(host: Host, doomed: Sequence[Release]) -> list[str]:
    """Remove releases, what killed runs left, and the environments and assets of releases that are gone.

    Each is renamed first, so that a half-removed one can't be mistaken for a release.

    Args:
        host: where.
        doomed: what ``prunable`` named.

    Returns:
        What could not be removed, and why: somebody made it immutable, for instance, or mounted something in it. A
        deployment that serves well has not failed for that.
    """
    assets = {name for release in doomed for name in release_files.place(release.directory, release.manifest).assets}
    stays: list[str] = []
    for release in doomed:
        try:
            os.rename(release.directory, host.releases / f"{STAGING_PREFIX}{release.id}.removing")
        except FileNotFoundError:
            pass
        except OSError as error:
            stays.append(f"{release.directory}: {error}")
    stays += _remove_unfinished(host)
    remove_environments(host)
    release_assets.remove_unclaimed(host.releases, host.shared, assets)
    host.states.forget_all_but(release.id for release in host.kept())
    return stays
