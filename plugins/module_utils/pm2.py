# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Talk to the PM2 daemon of one application.

PM2 is told what to run and asked what runs; whether that serves is never asked of it: it exits 0 and says
"online" for releases that answer nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.files import open_regular
from ansible_collections.roastify.ops.plugins.module_utils.pm2_daemon import (
    NoAnswer,
    NotUnderstood,
    Pm2Daemon,
    listening,
)

#: What Node.js runs for one action: PM2's own interface, instead of its command line, which would have to be started
#: once more for the list.
_CONTROL = """
const fs = require('fs'), path = require('path'), { promisify } = require('util');
const [binary, action, ecosystem, ...generations] = process.argv.slice(1);
const pm2 = require(path.resolve(fs.realpathSync(binary), '../..'));
const call = (name, ...parameters) => promisify(pm2[name]).apply(pm2, parameters);
const describe = ({ name, pid, pm_id, pm2_env: { status, pm_cwd, restart_time, exit_code, kill_timeout } }) => (
  { name, pid, pm_id, pm2_env: { status, pm_cwd, restart_time, exit_code, kill_timeout } });
const remove = async () => {
  const listed = new Set((await call('list')).map((entry) => entry.name));
  for (const name of generations) if (listed.has(name)) await call('delete', name);
};
(async () => {
  await call('connect');
  if (action === 'start') await call('start', ecosystem);
  if (action === 'delete') await remove();
  process.stdout.write('\\n' + JSON.stringify((await call('list')).map(describe)) + '\\n', () => process.exit(0));
})().catch((error) => { console.error(error && error.message || error); process.exit(1); });
"""
#: Seconds for one PM2 command, beside the time that ending workers have to drain.
COMMAND_LIMIT = 60
#: Seconds for its list, which takes a fraction of one; the rest is for a starved machine.
LIST_LIMIT = 20


@dataclass(frozen=True)
class Worker:
    """One process in PM2's list.

    Attributes:
        name: of its generation.
        pid: 0 if there is none at the moment.
        status: what PM2 calls it. That it is "online" says nothing of whether it serves.
        directory: of its release.
        restarts: how often PM2 has started it again.
        exit_code: of its last end, None if it never ended or PM2 does not know.
        number: by which PM2 knows it.
        kill_timeout: milliseconds that it has to end by itself.
    """

    name: str
    pid: int
    status: str
    directory: str
    restarts: int = 0
    exit_code: int | None = None
    number: int = -1
    kill_timeout: int = 0

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Worker:
        """The worker that an entry of PM2's list is about.

        Args:
            entry: with name, pid, pm_id and pm2_env; while a worker is starting much of it is missing.
        """
        settings = entry["pm2_env"]
        return cls(
            name=entry["name"],
            pid=entry.get("pid") or 0,
            status=settings.get("status") or "",
            directory=settings.get("pm_cwd") or "",
            restarts=settings.get("restart_time") or 0,
            exit_code=settings.get("exit_code"),
            number=entry["pm_id"],
            kill_timeout=settings.get("kill_timeout") or 0,
        )

    @property
    def running(self) -> bool:
        """Whether there is a process behind the entry."""
        return self.pid > 0 and os.path.exists(f"/proc/{self.pid}")

    @property
    def up(self) -> bool:
        """Whether there is one that PM2 has started to its satisfaction; that it serves is not said."""
        return self.running and self.status == "online"


def strays(workers: Sequence[Worker], directory: Path | None) -> tuple[list[str], bool]:
    """What PM2 runs besides one release.

    Args:
        workers: PM2's list.
        directory: of the release; None if there is none.

    Returns:
        The names of the other generations, and whether they are all that may serve: no worker of the release runs.
    """
    own = [worker for worker in workers if directory is not None and worker.directory == str(directory)]
    others = sorted({worker.name for worker in workers if worker not in own})
    return others, not any(worker.running for worker in own)


def read_environment(path: Path) -> dict[str, str]:
    """The environment that the systemd unit and every PM2 command share.

    Args:
        path: file of NAME=value lines, written by role pm2.

    Raises:
        OperationError: the file is missing.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise OperationError(
            f"{path} is missing: PM2 was not set up for this application", "run the setup playbook first"
        ) from error
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.lstrip().startswith("#"))
    return {name.strip(): value.strip().strip('"') for name, value in pairs}


class Pm2:
    """The PM2 daemon of one application.

    Args:
        application: name of the application; its PM2 applications are called ``<application>-<release id>``.
        user: the user it runs as.
        configuration: directory of role pm2's files, for instance ``/etc/<application>``.
    """

    def __init__(self, application: str, user: str, configuration: str) -> None:
        self.application = application
        self.user = user
        self.ecosystem = Path(configuration) / "ecosystem.config.cjs"
        self.environment = read_environment(Path(configuration) / "pm2.environment")
        self.home = Path(self.environment["PM2_HOME"])
        self.daemon = Pm2Daemon(self.home / "rpc.sock")
        self.service = f"pm2-{application}.service"

    def identity(self) -> dict[str, Any]:
        """Arguments for subprocess that make a child run as the application user."""
        if os.geteuid() != 0:
            return {}
        account = pwd.getpwnam(self.user)
        groups = os.getgrouplist(self.user, account.pw_gid)
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups, "umask": 0o027}

    def node(self) -> str:
        """The program that runs the workers: that of the daemon, whatever PATH leads to since that was started.

        Returns:
            Its path; just its name where no daemon says so.
        """
        try:
            # Replaced in its place, it is run from there all the same.
            program = os.readlink(f"/proc/{self._process()}/exe").removesuffix(" (deleted)")
        except (OSError, ValueError):
            return "node"
        return program if os.path.basename(program).startswith("node") and os.access(program, os.X_OK) else "node"

    def ports(self) -> set[int]:
        """The TCP ports that workers share: the daemon listens on them in their place, and hands connections over."""
        try:
            return listening(self._process())
        except (OSError, ValueError):
            return set()

    def _process(self) -> int:
        """The id of the daemon's process, as it has written it down."""
        with open_regular(self.home / "pm2.pid") as stream:
            return int(stream.read(32))

    def _run(
        self, what: str, command: Sequence[str], extra: Mapping[str, str] | None = None, limit: float = COMMAND_LIMIT
    ) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command,
                env={
                    **self.environment,
                    **(extra or {}),
                },  # nothing of the caller's: PM2 keeps what it is given
                cwd=self.home.parent,  # a directory that no deployment removes
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=limit,
                check=False,
                **self.identity(),
            )
        except subprocess.TimeoutExpired as error:
            raise self._stuck(f"was asked to {what} and did not", limit) from error
        except FileNotFoundError as error:
            raise OperationError(f"{command[0]} is not installed", "run the setup playbook first") from error

    def _control(
        self, action: str, *generations: str, extra: Mapping[str, str] | None = None, limit: float = COMMAND_LIMIT
    ) -> list[Worker]:
        """Do one thing and say what runs after it, in one start of Node.js."""
        what = f"{action} {' '.join(generations)}".rstrip()
        command = ["node", "-e", _CONTROL, self._binary(), action, str(self.ecosystem), *generations]
        outcome = self._run(what, command, extra, limit)
        if outcome.returncode != 0:
            said = (outcome.stderr + outcome.stdout).strip().splitlines()[-15:]
            raise OperationError(
                f"PM2 could not {what}",
                f"look at the daemon with systemctl status {self.service}",
                said,
            )
        # PM2 may say something of its own before.
        return self._ours(json.loads(outcome.stdout.splitlines()[-1]))

    def _ours(self, entries: Iterable[Mapping[str, Any]]) -> list[Worker]:
        workers = map(Worker.of, entries)
        return [worker for worker in workers if worker.name.startswith(f"{self.application}-")]

    def _binary(self) -> str:
        found = shutil.which("pm2", path=self.environment.get("PATH"))
        if found is None:
            raise OperationError("PM2 is not installed", "run the setup playbook first")
        return found

    def is_up(self) -> bool:
        """Whether the daemon listens on its socket."""
        return self.daemon.listens()

    def ensure_up(self) -> bool:
        """Have systemd start the daemon if it isn't there.

        Left to itself, the pm2 command would start one that systemd knows nothing of.

        Returns:
            Whether it had to be started.
        """
        if self.is_up():
            return False
        with contextlib.suppress(subprocess.TimeoutExpired):  # whether it came up is seen below
            command = ["systemctl", "restart", self.service]
            subprocess.run(command, capture_output=True, check=False, timeout=COMMAND_LIMIT)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            if self.is_up():
                return True
            time.sleep(0.2)
        raise OperationError(
            f"the PM2 daemon does not come up: nothing listens on {self.home}/rpc.sock",
            f"see journalctl -u {self.service}, or run the setup playbook",
        )

    def workers(self) -> list[Worker]:
        """All processes that PM2 has for this application, of all generations."""
        try:
            return self._ours(self.daemon.processes(LIST_LIMIT))
        except NoAnswer as error:
            raise self._stuck("does not say what it runs", LIST_LIMIT) from error
        except NotUnderstood:
            return self._control("list")

    def _stuck(self, what: str, limit: float) -> OperationError:
        return OperationError(
            f"the PM2 daemon {what} within {limit:g} s",
            f"look at it with systemctl status {self.service}; if it hangs, systemctl restart {self.service} starts it "
            "and its workers anew",
        )

    def definition(self, release: Path) -> dict[str, Any]:
        """What PM2 would run for a release: the first application of the ecosystem file.

        Args:
            release: directory of the release.
        """
        script = "process.stdout.write(JSON.stringify(require(process.argv[1]).apps))"
        command = ["node", "-e", script, str(self.ecosystem)]
        outcome = self._run(f"read {self.ecosystem}", command, {"RELEASE_DIRECTORY": str(release)})
        if outcome.returncode != 0:
            raise OperationError(
                f"{self.ecosystem} cannot be read by Node.js",
                "run the setup playbook again; it writes this file",
                outcome.stderr.strip().splitlines()[-5:],
            )
        applications = json.loads(outcome.stdout)
        if not applications:
            raise OperationError(f"{self.ecosystem} names no application for {release}", "see that the release exists")
        return dict(applications[0])

    def start(self, release: Path, generation: str) -> list[Worker]:
        """Start the workers of a release beside whatever runs.

        Args:
            release: directory of the release.
            generation: name of the PM2 application.

        Returns:
            The workers that were started; whether they serve is for the gate to find out.
        """
        extra = {"RELEASE_DIRECTORY": str(release), "GENERATION": generation}
        workers = self._control("start", generation, extra=extra)
        return [worker for worker in workers if worker.name == generation]

    def delete(self, generations: Sequence[str]) -> None:
        """Drain and end generations; returns when their processes are gone.

        Args:
            generations: names of PM2 applications.

        Raises:
            OperationError: one of them is still there.
        """
        if not generations:
            return
        left = self._of(generations, self.workers())
        # An application deleted while it was starting can come back in the list (seen with PM2 7.0.4).
        for _ in range(2):
            if not left:
                return
            left = self._of(generations, self._delete(left))
        if left:
            raise OperationError(
                f"PM2 still lists {', '.join(sorted({worker.name for worker in left}))} after deleting it",
                f"look at the daemon with systemctl status {self.service}, then deploy again",
            )

    @staticmethod
    def _of(generations: Sequence[str], workers: Iterable[Worker]) -> list[Worker]:
        return [worker for worker in workers if worker.name in generations]

    def _delete(self, workers: Sequence[Worker]) -> list[Worker]:
        """End workers, all at once; what runs after it."""
        limit = COMMAND_LIMIT + max(worker.kill_timeout for worker in workers) / 1000
        try:
            self.daemon.delete([worker.number for worker in workers], limit)
        except NoAnswer as error:
            raise self._stuck("has not ended its workers", limit) from error
        except NotUnderstood:
            return self._control("delete", *sorted({worker.name for worker in workers}), limit=limit)
        return self.workers()
