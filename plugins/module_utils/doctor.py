# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Examines a host of the release engine: what is not as it should be, why, and what mends it.

Nothing that is found here has to be mended by hand for the next deployment to succeed: a deployment clears up by
itself. This is for people who want to understand a host, or to have it clean without deploying.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.roastify.ops.plugins.module_utils import (
    application_log,
    deadman,
    deploy_locks,
    env_file,
    health,
    release_files,
    release_states,
    releases,
)
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.pm2 import Pm2, Worker, strays
from ansible_collections.roastify.ops.plugins.module_utils.releases import (
    LOCK_KINDS,
    MANIFEST,
    SPACE_RESERVE,
    STAGING_PREFIX,
    Host,
    Release,
    has_own_environment,
    remove_environments,
)


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        what: a sentence.
        remedy: what to do, for people.
        repair: mends it; None where that is not for a program to decide.
        evidence: lines that show it.
    """

    what: str
    remedy: str
    repair: Callable[[], object] | None = None
    evidence: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """The finding for a module's result."""
        return {
            "what": self.what,
            "remedy": self.remedy,
            "repairable": self.repair is not None,
            "evidence": list(self.evidence),
        }


def lines(findings: Sequence[Finding], repaired: Sequence[str] = (), dry_run: bool = False) -> list[str]:
    """Findings for people.

    Args:
        findings: what was found.
        repaired: what of it was mended.
        dry_run: whether it was not, and only would be.
    """
    done = " (would be mended)" if dry_run else " (mended)"
    told = []
    for finding in findings:
        mended = done if finding.what in repaired else " (can be mended)" if finding.repair else ""
        told += [f"{finding.what}{mended}", *(f"    {line}" for line in finding.evidence)]
        told.append(f"  What to do: {finding.remedy}")
    return told or ["everything is as it should be"]


def mend(host: Host, findings: Sequence[Finding], dry_run: bool = False) -> Iterator[str]:
    """Mend what can be mended, one after the other.

    Args:
        host: where.
        findings: what was found there.
        dry_run: only tell.

    Returns:
        What of it is mended by now.

    Raises:
        LockHeld: a deployment is at work, which must not lose what it is just making; nothing was changed.
        OperationError, OSError: a repair failed; those before it have been made.
    """
    deploy_locks.require_free(host, deployment="")
    for finding in findings:
        if finding.repair is not None:
            if not dry_run:
                finding.repair()
            yield finding.what


def examine(host: Host, pm2: Pm2, port: int, health_path: str, sums: Mapping[str, str] | None = None) -> list[Finding]:
    """Everything that is not as it should be on a host, the most urgent first. Changes nothing.

    Args:
        host: where.
        pm2: how the application is run.
        port: on which it serves.
        health_path: path of its health check.
        sums: SHA-256 of the files that setup would write, by path.
    """
    try:
        live = host.live()
    except OperationError as error:
        return [Finding(error.cause, error.remedy, None, tuple(error.evidence)), *_leftovers(host, None)]
    return [*findings(host, pm2, live, look(pm2, live, port, health_path)), *_set_up(sums or {})]


@dataclass(frozen=True)
class Service:
    """How the live release serves, as it was seen.

    Attributes:
        answer: to a request for its health; None where no release is live.
        workers: all that PM2 has for the application; none where it does not run, or was not asked.
        restart_loop: evidence that the workers of the live release end as soon as they start.
        silence: why PM2 did not say what it runs, though it was asked.
    """

    answer: health.Answer | None = None
    workers: Sequence[Worker] = ()
    restart_loop: Sequence[str] = ()
    silence: OperationError | None = None

    @property
    def is_ill(self) -> bool:
        """Whether there is a live release, and it does not answer well."""
        return self.answer is not None and self.answer.problem() is not None


def look(pm2: Pm2 | None, live: Release | None, port: int, health_path: str, always: bool = True) -> Service:
    """See how the live release serves.

    Args:
        pm2: how the application is run; None where it was not set up.
        live: the live release, if there is one.
        port: on which it serves.
        health_path: path of its health check.
        always: whether PM2 is asked for its workers where the release answers well, too.
    """
    seen = Service(health.probe("127.0.0.1", port, health_path) if live else None)
    if pm2 is None or not (always or seen.is_ill):
        return seen
    workers: Sequence[Worker] = ()
    try:
        workers = pm2.workers() if pm2.is_up() else ()
        loop = application_log.restart_loop(pm2, live, workers) if live and workers and seen.is_ill else ()
    except OperationError as error:
        return Service(seen.answer, workers, silence=error)
    return Service(seen.answer, workers, loop)


def findings(host: Host, pm2: Pm2, live: Release | None, service: Service) -> list[Finding]:
    """Everything that is not as it should be on a host whose live release was looked at, the most urgent first.

    Args:
        host: where.
        pm2: how the application is run.
        live: the live release, if there is one.
        service: how it serves.
    """
    return [
        *_service(host, pm2, live, service),
        *unreadable(host),
        *_unconfirmed(host, live),
        *_environments(host, live),
        *_generations(pm2, live, service.workers),
        *_lock(host),
        *_leftovers(host, live),
        *_space(host),
    ]


def unreadable(host: Host) -> list[Finding]:
    """Files of a host that count as missing, since they do not hold what this collection writes there.

    Args:
        host: where.
    """
    found = [
        Finding(
            f"{what}: nobody knows by it who is at work here",
            f"unless a deployment is at work, remove it (rm {host.lock}); the next deployment replaces it",
        )
        for what in releases.unreadable(host.lock, LOCK_KINDS)
    ]
    if host.order.exists() and deadman.read_order(host) is None:
        reason = releases.unreadable(host.order, deadman.KINDS) or [f"{host.order} cannot be read: it is no order"]
        found.append(
            Finding(
                f"{reason[0]}: this host does not return by itself",
                f"mend it; or, once a deployment has ended well, remove it (rm {host.order})",
            )
        )
    for release in host.kept():
        path = host.states.file(release.id)
        found += [
            Finding(
                f"{what}: nobody knows by it what became of release {release.id}",
                f"mend it, or remove it (rm {path}); until then name the release that a rollback is to return to",
            )
            for what in releases.unreadable(path, release_states.KINDS)
        ]
    return found


def serves(host: Host, port: int, health_path: str) -> tuple[bool, bool, str | None]:
    """Whether a release is live, whether it answers well, and its id where it is complete.

    Args:
        host: where.
        port: on which it serves.
        health_path: path of its health check.
    """
    try:
        live = host.live()
    except OperationError:
        # The link leads to nothing; that is a finding.
        return True, False, None
    if live is None:
        return False, False, None
    return True, health.probe("127.0.0.1", port, health_path).problem() is None, live.id


def _service(host: Host, pm2: Pm2, live: Release | None, service: Service) -> Iterator[Finding]:
    if live is None:
        return
    if not pm2.is_up():
        yield Finding(
            f"PM2 does not run, so that release {live.id} does not serve",
            f"systemctl start {pm2.service}",
            pm2.ensure_up,
        )
        return
    if service.silence is not None:
        yield Finding(service.silence.cause, service.silence.remedy, None, tuple(service.silence.evidence))
    if service.answer is None or service.answer.problem() is None:
        if service.silence is None:
            yield from _workers(live, service.workers)
        return
    previous = host.states.previous(live.id, [release.id for release in host.kept()])
    back = f"roll back to {previous}, or deploy" if previous else "deploy"
    yield Finding(
        f"the live release {live.id} is not healthy: {service.answer.describe()}",
        f"see why, then {back}: both start new workers and see that they are well",
        None,
        tuple(service.restart_loop),
    )


def _workers(live: Release, workers: Sequence[Worker]) -> Iterator[Finding]:
    """What is wrong with the workers of a release that answers."""
    own = [worker for worker in workers if worker.directory == str(live.directory)]
    if not own:
        yield Finding(
            f"something answers on the port, but PM2 runs no worker of the live release {live.id}",
            "see who it is with ss -ltnp, end it if it does not belong there, then deploy the release again, which "
            "starts its workers",
        )
    idle = [worker for worker in own if not worker.up]
    if idle:
        yield Finding(
            f"{len(idle)} of {len(own)} workers of the live release {live.id} do not run: "
            + ", ".join(sorted({worker.status or "without a state" for worker in idle})),
            "see why in the log of the application, then deploy the release again, which starts new workers",
        )
    generations = sorted({worker.name for worker in own})
    if len(generations) > 1:
        yield Finding(
            f"the live release {live.id} runs more than once: {', '.join(generations)}",
            "a deployment that was killed left it so, or one is at work now; deploy the release again: that leaves one",
        )


def unconfirmed(host: Host, live: Release | None) -> str | None:
    """That a host may return by itself, for people; None if the release that it serves is confirmed.

    Args:
        host: where.
        live: its live release.
    """
    order = deadman.read_order(host)
    return None if order is None else _return(host, live, order)


def _return(host: Host, live: Release | None, order: deadman.Order) -> str | None:
    if live is None or live.id != order.release or host.release(order.previous) is None:
        return None
    return (
        f"release {live.id} is not confirmed: unless deployment {order.deployment} ends well, this host returns to "
        f"{order.previous} by itself, {deadman.due(host, order)}"
    )


def _unconfirmed(host: Host, live: Release | None) -> Iterator[Finding]:
    order = deadman.read_order(host)
    if order is None:
        return
    told = _return(host, live, order)
    if told is None and live is not None and live.id == order.release:
        told = (
            f"release {live.id} is not confirmed, and this host cannot return to {order.previous} by itself: that is "
            "no complete release here any more"
        )
    if told is not None:
        yield Finding(told, "wait for the deployment to end, or deploy the release again, which confirms it")
    else:
        yield Finding(
            f"a timer waits for release {order.release} to be confirmed, which is not live any more",
            "it does nothing when it ends; the repair stops it",
            functools.partial(deadman.give_up, host),
        )


def _environments(host: Host, live: Release | None) -> Iterator[Finding]:
    if live is not None and not live.environment.exists():
        yield Finding(
            f"the environment of the live release {live.id} is missing: its workers can't start again",
            "deploy again: that makes a new release with the environment of the inventory",
        )
    for release in host.kept():
        installed = host.states.of(release.id).environment
        if installed is None or not release.environment.exists() or not has_own_environment(host, release):
            continue
        try:
            is_as_installed = env_file.fingerprint(release.environment) == installed
        except env_file.EnvFileError as error:
            yield Finding(f"the environment of release {release.id} can't be read: {error}", "deploy again")
            continue
        if not is_as_installed:
            yield Finding(
                f"somebody changed the environment of release {release.id} on this host since it was installed",
                "workers that start anew take it as it is now; deploy again, which installs the inventory's in a new "
                "release. Nothing returns to this one by itself",
            )
    for path in sorted(host.environments.glob("*.env")) if host.environments.is_dir() else ():
        if stat.S_IMODE(path.lstat().st_mode) & 0o077:
            yield Finding(
                f"others than the application's user may read {path}",
                f"chmod 600 {path}, and think of who may have read the secrets in it",
                functools.partial(os.chmod, path, 0o600),
            )


def _generations(pm2: Pm2, live: Release | None, workers: Sequence[Worker]) -> Iterator[Finding]:
    others, alone = strays(workers, live.directory if live else None)
    if not others:
        return
    what = f"PM2 runs workers that are not of the live release: {', '.join(others)}"
    if live is not None and alone:
        yield Finding(
            what,
            "they are all that serves, since those of the live release are down: deploy or roll back, which ends them "
            "once others serve",
        )
    else:
        yield Finding(
            what,
            "a deployment that was killed left them, or one is at work now; the repair removes them",
            functools.partial(pm2.delete, others),
        )


def _lock(host: Host) -> Iterator[Finding]:
    lock = deploy_locks.read_lock(host)
    if lock is None:
        return
    who = f"deployment {lock.get('deploymentId')} of {lock.get('holder')} from {lock.get('origin')}"
    now = time.time()
    remaining = int(lock.get("expires", 0) - now)
    if deploy_locks.is_leased(lock, now):
        yield Finding(
            f"{who} holds the lock since {lock.get('since')}, for another {remaining} s unless it is renewed",
            deploy_locks.TAKE_OVER,
        )
    else:
        when = f"which ended {-remaining} s ago" if remaining <= 0 else "before the clock of this host was set back"
        yield Finding(
            f"{who} left its lock, {when}",
            "the next deployment takes over; the repair removes it",
            functools.partial(deploy_locks.release, host, str(lock.get("deploymentId"))),
        )


def _leftovers(host: Host, live: Release | None) -> Iterator[Finding]:
    kept = {release.id for release in host.kept()}
    # That it is no complete release is told of the link: it may serve, and must not be moved away.
    linked = Path(os.path.normpath(host.root / os.readlink(host.link))) if host.link.is_symlink() else None
    for path in sorted(host.releases.iterdir()) if host.releases.is_dir() else ():
        if path.name.startswith(STAGING_PREFIX):
            yield Finding(
                f"{path} was left by a deployment that was killed",
                "the next deployment removes it",
                functools.partial(shutil.rmtree, path),
            )
        elif path.name not in kept and not path.name.startswith(".") and path.name != "lost+found" and path != linked:
            yield Finding(
                f"{path} is no complete release: no {MANIFEST} in it says that it is this one",
                f"look at it; unless something runs from it (fuser -v {path}), move it away: mv {path} /root/",
                None,
                tuple(releases.unreadable(path / MANIFEST, release_files.MANIFEST_KINDS)),
            )
    for path in sorted(host.root.glob(f".{host.link.name}.*")):
        yield Finding(f"{path} was left by a switch that was killed", "it is never followed", path.unlink)
    if live is not None and not host.states.is_settled(live.id):
        yield Finding(
            f"the recorded state of the live release {live.id} is behind the link",
            "a switch was killed between the two; the link counts, and the next deployment writes the state down",
            host.settle,
        )
    owners = {path.name[: -len(".env")] for path in host.environments.glob("*.env")} if kept else set()
    # What the link leads to may have been moved away, and come back.
    but = linked.name if linked is not None else ""
    gone = sorted(owner for owner in owners if owner != but and not (host.releases / owner).is_dir())
    if gone:
        yield Finding(
            f"environments of releases that are gone: {', '.join(gone)}",
            "the next deployment removes them",
            functools.partial(remove_environments, host, but),
        )


def _space(host: Host) -> Iterator[Finding]:
    status = os.statvfs(_existing(host.releases))
    free = status.f_bavail * status.f_frsize
    if free < SPACE_RESERVE:
        yield Finding(
            f"{free // 2**20} MiB are free in {host.releases}, which is too little to deploy",
            "free some space (old logs, old dumps of the database) or enlarge the volume",
        )


def _set_up(sums: Mapping[str, str]) -> Iterator[Finding]:
    others = [path for path, wanted in sums.items() if _sum(Path(path)) != wanted]
    if others:
        yield Finding(
            "this host was set up by another version of this collection, or for another inventory: setup would change "
            + ", ".join(others),
            "what serves goes on, and deployments succeed all the same. See what differs with setup.yml --tags pm2 "
            "--check --diff, then run it without --check: it restarts nothing, and workers that are started from then "
            "on have it",
        )


def _sum(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def _existing(path: Path) -> Path:
    return path if path.is_dir() else Path("/")
