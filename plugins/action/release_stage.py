# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage a release; the host is sent what it lacks of the artifact, in as few trips as that takes: ask, send, stage.

Ansible's own way to send a file (action copy) takes seven sessions of SSH. Here the file goes through the standard
input of one command, which runs as the user that owns the release, so that nothing has to be moved and nobody else can
read it on the way. A transfer that was cut off goes on where it ended.
"""

from __future__ import annotations

import posixpath
import shlex
import time
from typing import Any

from ansible import constants
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible_collections.roastify.ops.plugins.module_utils import transfers
from ansible_collections.roastify.ops.plugins.module_utils.artifact import ArtifactError
from ansible_collections.roastify.ops.plugins.module_utils.transfers import Held, Parcel

_TRIES = 3
#: Bytes that one command takes. So much is in memory for each host that Ansible works on at the same time, which may be
#: fifty; a command more takes a few round trips.
_PORTION = 16 * 1024 * 1024


class ActionModule(ActionBase):
    """Runs the module release_stage, and between two runs of it sends the artifact if the host asks for that."""

    #: Bytes that were sent.
    _sent = 0

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        source, files_sha256 = arguments.pop("source", ""), arguments.pop("files_sha256", "")
        pause = float(arguments.get("transfer_delay", 2))
        if not source:
            result.update(self._execute_module(module_args=arguments, task_vars=task_vars))
            return result

        def ask(**more: Any) -> dict[str, Any]:
            return self._execute_module(
                module_args={**arguments, "artifact_follows": True, **more}, task_vars=task_vars
            )

        outcome = ask()
        held = Held.decode(outcome.get("held", ""))
        for number in range(1, _TRIES + 1):
            if outcome.get("failed") or not outcome.get("artifact_needed"):
                break
            try:
                parcel = transfers.parcel(source, arguments["sha256"], held, constants.DEFAULT_LOCAL_TMP)
                target = posixpath.join(posixpath.dirname(arguments["artifact"]), f"{parcel.sha256}.tar.gz")
                last = number == _TRIES
                # Known once: after a transfer that failed, nobody has looked again.
                offset = outcome.pop("received", {}).get(posixpath.basename(target), 0)
                problem = self._send(parcel, target, offset, last, task_vars)
            except (ArtifactError, OSError) as error:
                outcome = {"failed": True, "msg": f"The artifact {source} could not be read on the controller: {error}"}
                break
            if problem is None:
                more = {} if parcel.whole else {"difference_sha256": parcel.sha256, "files_sha256": files_sha256}
                outcome = ask(artifact=target, **more)
                problem = outcome.get("artifact_needed")
                held = Held(())  # whatever was wrong with a difference, the artifact itself does not need it
            if problem:
                self._display.warning(
                    f"{(task_vars or {}).get('inventory_hostname')}: try {number} of {_TRIES} to send the artifact "
                    f"failed: {problem}"
                )
                if last:
                    outcome = {"failed": True, "msg": f"The artifact did not arrive, {_TRIES} times. {problem}"}
                else:
                    time.sleep(pause * 2 ** (number - 1))
        for internal in ("artifact_needed", "held", "received"):
            outcome.pop(internal, None)
        result.update(outcome, sent=self._sent)
        return result

    def _send(
        self, parcel: Parcel, target: str, offset: int, give_up: bool, task_vars: dict[str, Any] | None
    ) -> str | None:
        """Send a file, from where an earlier transfer of it ended; what went wrong, or None.

        Raises:
            AnsibleConnectionFailure: the host does not answer, and there is no further try.
            ArtifactError: the file has become shorter.
        """
        if offset >= parcel.size:
            offset = 0  # it was all there, and was not what it should be
        if not self._connection.has_pipelining:
            return self._copy(parcel, target, task_vars)
        try:
            with open(parcel.path, "rb") as stream:
                stream.seek(offset)
                while offset < parcel.size:
                    portion = stream.read(_PORTION)
                    if not portion:
                        raise ArtifactError(
                            f"{parcel.path} became shorter while it was sent: it ended after {offset} of "
                            f"{parcel.size} bytes. See that nothing writes to it, and deploy again."
                        )
                    # Appended only where exactly the earlier part is: another transfer may still write to it.
                    script = (
                        f"umask 077 && test $(stat -c %s {shlex.quote(target)}) -eq {offset} && "
                        f"cat >> {shlex.quote(target)}"
                        if offset
                        else f"umask 077 && rm -f {shlex.quote(target)} && cat > {shlex.quote(target)}"
                    )
                    done = self._low_level_execute_command(script, sudoable=True, in_data=portion)
                    if done["rc"] != 0:
                        said = (done["stderr"] or done["stdout"]).strip() or f"exit code {done['rc']}"
                        # Whoever is short of room does not need half an artifact.
                        self._low_level_execute_command(f"rm -f {shlex.quote(target)}", sudoable=True)
                        return f"{target} could not be written: {said}"
                    offset += len(portion)
                    self._sent += len(portion)
        except AnsibleConnectionFailure as error:
            if give_up:
                raise
            return str(error)
        except OSError as error:
            return f"{parcel.path} cannot be read: {error.strerror}"
        return None

    def _copy(self, parcel: Parcel, target: str, task_vars: dict[str, Any] | None) -> str | None:
        """The same over a connection whose commands have no standard input, such as amazon.aws.aws_ssm."""
        task = self._task.copy()
        task.args = {"src": parcel.path, "dest": target, "mode": "0600"}
        action = self._shared_loader_obj.action_loader.get(
            "ansible.legacy.copy",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        outcome = action.run(task_vars=task_vars)
        self._sent += parcel.size
        return str(outcome.get("msg", "no message")) if outcome.get("failed") else None
