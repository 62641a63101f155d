# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that was switched returns to the release before by itself, unless its controller confirms the deployment.

Nothing on the controller can do that: it may be dead, or the host out of its reach. So the host sets a timer of its
own before it starts a worker of the new release, and the end of the deployment stops it. The timer is a unit of systemd
on disk, so that it is there after a reboot, too; it runs the very code that set it, which is kept beside it.

Sources: systemd.timer(5) (OnActiveSec counts from the start of the timer, which at boot is the boot),
systemd.unit(5) (ConditionPathExists).
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils import deploy_locks, deployments, release_states
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.files import (
    exclusively,
    kinds,
    misfit,
    read_object,
    remove_temporary,
    write_atomically,
)
from ansible_collections.roastify.ops.plugins.module_utils.pm2 import Pm2, strays
from ansible_collections.roastify.ops.plugins.module_utils.releases import Host, Release
from ansible_collections.roastify.ops.plugins.module_utils.switching import Service, Switch

#: Seconds between two tries to return, while the release before is not healthy or another deployment is at work.
RETRY = 30
_UNITS = Path("/etc/systemd/system")
_PACKAGE = "ansible_collections.roastify.ops.plugins.module_utils"
_MAIN = f"import sys\n\nfrom {_PACKAGE} import deadman\n\nsys.exit(deadman.main(sys.argv[1]))\n"
#: systemctl answers at once; a system that does not has other troubles.
_LIMIT = 30


@dataclass(frozen=True)
class Order:
    """What the host is to do unless it is told otherwise.

    Attributes:
        deployment: the deployment that has to be confirmed.
        release: the release that it switched to.
        previous: the release to return to.
        seconds: until then, from the switch or from the last boot.
        root: of the application's tree.
        name: of the application.
        user: that it runs as.
        configuration: directory of the PM2 configuration.
        service: how it serves, as in switching.Service.
        replaced: the order of a killed deployment that this one took the place of. Where this one fails, the host is on
            the release again that nobody has confirmed.
    """

    deployment: str
    release: str
    previous: str
    seconds: int
    root: str
    name: str
    user: str
    configuration: str
    service: dict[str, Any]
    replaced: dict[str, Any] | None = None

    @property
    def unit(self) -> str:
        """Name of the systemd units, without their kind."""
        return f"deadman-{self.name}"


KINDS = kinds(Order)
_SERVICE_KINDS = kinds(Service)


def order_file(host: Host) -> Path:
    """Where the order of a host stands; there is none while nothing waits for a confirmation."""
    return host.order


def read_order(host: Host) -> Order | None:
    """The order of a host, or None."""
    return _order_of(read_object(order_file(host), KINDS))


def _order_of(content: object) -> Order | None:
    """The order that a file has, whichever version of this collection wrote it; None if it has none."""
    if not isinstance(content, dict) or misfit(content, KINDS) or misfit(content.get("service", {}), _SERVICE_KINDS):
        return None
    with contextlib.suppress(TypeError):  # one without what every order has is none
        return Order(**_known(KINDS, content))
    return None


def _known(names: Collection[str], content: Mapping[str, Any]) -> dict[str, Any]:
    """What this version of the collection knows of what another one may have written."""
    return {name: value for name, value in content.items() if name in names}


def due(host: Host, order: Order) -> str:
    """When a host returns by itself, for people: nothing is decided by it.

    Args:
        host: where.
        order: its order, which is written as the timer starts.
    """
    with contextlib.suppress(FileNotFoundError):  # it is confirmed by now
        ends = datetime.fromtimestamp(order_file(host).stat().st_mtime + order.seconds, timezone.utc)
        if ends > datetime.now(timezone.utc):
            return f"at {ends:%H:%M:%S} UTC at the earliest"
    # It tries again and again, or counts from the boot of the host, see systemd.timer(5).
    return f"when its timer ends (systemctl list-timers {order.unit}.timer)"


def arm(
    host: Host,
    pm2: Pm2,
    service: Service,
    release: Release,
    previous: Release,
    deployment: str,
    seconds: int,
    systemctl: Callable[..., None] | None = None,
) -> Order:
    """Set the timer.

    Args:
        host: where.
        pm2: how the application is run.
        service: how it serves.
        release: the release that is about to be live.
        previous: the release to return to.
        deployment: id of the deployment that is to confirm it.
        seconds: how long it may take to do so.
        systemctl: runs systemctl; for tests.

    Returns:
        The order.

    Raises:
        OperationError: the timer could not be set; nothing may be switched then.
    """
    call = systemctl or _systemctl
    before = read_order(host)
    unconfirmed = before is not None and before.deployment != deployment and before.release == previous.id
    order = Order(
        deployment,
        release.id,
        previous.id,
        seconds,
        str(host.root),
        pm2.application,
        pm2.user,
        str(pm2.ecosystem.parent),
        asdict(service),
        asdict(before) if before is not None and unconfirmed else None,
    )
    try:
        engine = pm2.home.parent / "deadman.pyz"
        _bundle(engine)
        changed = [_write_unit(order, kind, text) for kind, text in _units(order, engine).items()]
        _write_order(host, order)
        if any(changed):
            call("daemon-reload")
        # That of an order before may be waiting to try again: it would carry out this one, and at once.
        call("stop", f"{order.unit}.service")
        call("enable", "--quiet", f"{order.unit}.timer")
        call("restart", f"{order.unit}.timer")
    except (OSError, OperationError) as error:
        with contextlib.suppress(OSError, OperationError):
            if before is None:
                order_file(host).unlink()
            elif read_order(host) != before:
                _write_order(host, before)
                # Its time may be over: then it was the service, which is stopped, that would have tried again.
                call("restart", f"{before.unit}.timer")
        raise OperationError(
            f"the timer that would bring this host back could not be set: {error}",
            f"see systemctl status {order.unit}.timer, or deploy without it: app_release_confirm_within=0",
        ) from error
    return order


def _write_order(host: Host, order: Order) -> None:
    # Versions of this collection that do not know a field refuse the file, and would look at no host that has it.
    content = {name: value for name, value in asdict(order).items() if value is not None}
    write_atomically(order_file(host), json.dumps(content, indent=2) + "\n", mode=0o600)


def disarm(host: Host, systemctl: Callable[..., None] | None = None) -> bool:
    """Stop the timer: the release is confirmed, or left already.

    Returns:
        Whether there was one.
    """
    order = read_order(host)
    if order is None:
        return False
    # The order goes first: without it the timer does nothing.
    order_file(host).unlink()
    (systemctl or _systemctl)("stop", f"{order.unit}.timer")
    return True


def give_up(host: Host, systemctl: Callable[..., None] | None = None) -> None:
    """Stop the timer of a deployment that failed; that of a killed one before it waits again for what is live now.

    Args:
        host: where.
        systemctl: runs systemctl; for tests.

    Raises:
        OSError: the order could not be written.
        OperationError: the timer could not be started or stopped.
    """
    order = read_order(host)
    if order is not None and not _resume(host, order, systemctl):
        disarm(host, systemctl)


def _resume(host: Host, order: Order, systemctl: Callable[..., None] | None) -> bool:
    """Have the order of the killed deployment wait again whose release is live; whether there is one."""
    live = host.live()
    before = _order_of(order.replaced)
    if before is None or live is None or live.id != before.release:
        return False
    _write_order(host, before)
    (systemctl or _systemctl)("restart", f"{before.unit}.timer")
    return True


def fire(
    host: Host,
    order: Order,
    switch: Callable[[Host, Order, Release], Any] | None = None,
    clear: Callable[[Order, Release], list[str]] | None = None,
    systemctl: Callable[..., None] | None = None,
) -> str | None:
    """Return to the release before, because nobody confirmed the new one.

    Args:
        host: where.
        order: what was to be confirmed.
        switch: how the host returns; for tests.
        clear: how it is rid of workers of a switch that was cut off; for tests.
        systemctl: runs systemctl; for tests.

    Returns:
        What was done, for the journal of systemd; None if there was nothing to do any more.

    Raises:
        OperationError: another deployment is at work, or the release before is not healthy. The one that is live
            serves on.
    """
    with exclusively(host.releases):
        if read_order(host) != order:
            return None
        live = host.live()
        reason = f"not confirmed by its controller within {order.seconds} s: this host returned to {order.previous}"
        if live is None or live.id != order.release:
            # A switch was cut off. Nobody else is in the middle of one: see exclusively.
            removed = (clear or _clear)(order, live) if live is not None else []
            if live is not None and _has_returned(host, order, live):
                _record_failure(host, order, reason, systemctl)
                return reason
            _end(host, order, systemctl)
            return f"removed what a switch has left that was cut off: {', '.join(removed)}" if removed else None
        lock = deploy_locks.read_lock(host)
        if lock is not None and lock.get("deploymentId") != order.deployment:
            deploy_locks.require_free(host, order.deployment)
        (switch or _return)(host, order, host.find(order.previous))
        _record_failure(host, order, reason, systemctl)
        return reason


def _has_returned(host: Host, order: Order, live: Release) -> bool:
    """Whether the release served, and what cut the switch back off was between the link and the last word on it."""
    left = host.states.of(order.release, live.id)
    # Failed by this deployment while its order stands: the journal and the lock are still to come.
    served = left.state in (release_states.PREVIOUS, release_states.FAILED) and left.deployment == order.deployment
    return served and live.id == order.previous


def _record_failure(host: Host, order: Order, reason: str, systemctl: Callable[..., None] | None) -> None:
    """Write down that the host has returned, once, and be done with the order."""
    left = host.release(order.release)
    if left is not None:
        host.states.record(left.id, release_states.FAILED, order.deployment, reason)
    told = (order.deployment, order.release, deployments.FAILED)
    if told not in {(record.deploymentId, record.release, record.status) for record in host.records()}:
        deployments.append_record(
            host.journal,
            deployments.Record(
                deploymentId=order.deployment,
                action=deployments.DEPLOY,
                status=deployments.FAILED,
                release=order.release,
                version=left.version if left else "",
                commit=left.commit if left else None,
                deployedAt=deployments.now(),
                deployedBy="this host",
                previousRelease=order.previous,
                reason=reason,
            ),
        )
    # A controller that is only slow must not switch or confirm any more.
    deploy_locks.release(host, order.deployment)
    _end(host, order, systemctl)


def _end(host: Host, order: Order, systemctl: Callable[..., None] | None) -> None:
    """Be done with an order that was carried out, or is about nothing any more."""
    if not _resume(host, order, systemctl):
        order_file(host).unlink()


def main(path: str) -> int:
    """What the service runs: do what an order says.

    Args:
        path: of the order.

    Returns:
        Exit code: 0, or 75 (EX_TEMPFAIL) if it has to be tried again.
    """
    order = _order_of(read_object(Path(path), KINDS))
    if order is None:
        return 0
    try:
        done = fire(Host(order.root), order)
    except (OperationError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 75
    sys.stdout.write(f"{done or 'nothing to do any more'}\n")
    return 0


def _return(host: Host, order: Order, previous: Release) -> None:
    pm2 = Pm2(order.name, order.user, order.configuration)
    service = Service(**_known(_SERVICE_KINDS, order.service))
    Switch(host, pm2, previous, service, deployment=order.deployment, back=True).run()


def _clear(order: Order, live: Release) -> list[str]:
    pm2 = Pm2(order.name, order.user, order.configuration)
    if not pm2.is_up():
        return []
    leftovers, alone = strays(pm2.workers(), live.directory)
    if alone:
        return []  # what runs besides is all that serves, and the next switch ends it once it has something better
    pm2.delete(leftovers)
    return leftovers


def _units(order: Order, engine: Path) -> Mapping[str, str]:
    condition = f"ConditionPathExists={order.root}/.deadman.json"
    what = f"Return {order.name} to the release before, unless its deployment is confirmed"
    return {
        "service": f"""[Unit]
Description={what}
{condition}
After=pm2-{order.name}.service

[Service]
Type=oneshot
ExecStart={sys.executable} {engine} {order.root}/.deadman.json
Restart=on-failure
RestartSec={RETRY}
""",
        "timer": f"""[Unit]
Description={what}
{condition}

[Timer]
OnActiveSec={order.seconds}
AccuracySec=1

[Install]
WantedBy=timers.target
""",
    }


def _write_unit(order: Order, kind: str, text: str) -> bool:
    path = _UNITS / f"{order.unit}.{kind}"
    with contextlib.suppress(FileNotFoundError):
        if path.read_text(encoding="utf-8") == text:
            return False
    write_atomically(path, text)
    return True


def _bundle(engine: Path) -> None:
    """Keep the code that runs now, for the timer: the module's own archive, or what it was loaded from.

    It has to be there after a power cut as well: only then does the timer run at all, at the next start.
    """
    here = Path(__file__)
    archive = next((parent for parent in here.parents if parent.is_file()), None)
    kept = io.BytesIO(archive.read_bytes() if archive is not None else b"")
    with zipfile.ZipFile(kept, "a", zipfile.ZIP_DEFLATED) as bundle:
        if archive is None:
            package = Path(*_PACKAGE.split("."))
            for level in (package, *package.parents[:-1]):
                bundle.writestr(f"{level}/__init__.py", "")
            for path in sorted(here.parent.glob("*.py")):
                bundle.write(path, f"{package}/{path.name}")
        if "__main__.py" not in bundle.namelist():
            bundle.writestr("__main__.py", _MAIN)
    remove_temporary(engine)
    write_atomically(engine, kept.getvalue(), mode=0o600)


def _systemctl(*arguments: str) -> None:
    try:
        done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False, timeout=_LIMIT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OperationError(f"systemctl {' '.join(arguments)}: {error}", "see that systemd runs") from error
    if done.returncode != 0:
        raise OperationError(f"systemctl {' '.join(arguments)}: {done.stderr.strip()}", "see journalctl --boot")
