# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of each release on a host, written down when it happens.

Each release has a small file, ``.states/<release id>.json``, replaced in one step. What a rollback returns
to, what may be pruned and what status tells follow from these files and from where ``current`` points; times of files
and the order of names decide nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils.deployments import now
from ansible_collections.roastify.ops.plugins.module_utils.files import kinds, read_object, write_atomically

#: It is being unpacked: a release that stays in this state was killed there, and is no release.
STAGING = "staging"
#: It is complete, and what was built.
VERIFIED = "verified"
#: It was healthy as a candidate, on a port of its own.
READY = "ready"
#: ``current`` points to it.
LIVE = "live"
#: It served well until another one took its place.
PREVIOUS = "previous"
#: It was not fit for traffic, or was rolled back from.
FAILED = "failed"


@dataclass(frozen=True)
class ReleaseState:
    """The state of one release.

    Attributes:
        state: one of the states above.
        at: since when (UTC), for people.
        number: rises with every change of any release on this host; what came later has the higher one.
        served: its number when it went live the last time, 0 if it never did.
        replaced: the release that was live before it.
        deployment: the deployment that put it into this state.
        reason: why it failed.
        environment: fingerprint of the ``.env`` that was installed for it, see env_file.
    """

    state: str = VERIFIED
    at: str = ""
    number: int = 0
    served: int = 0
    replaced: str | None = None
    deployment: str | None = None
    reason: str | None = None
    environment: str | None = None


KINDS = kinds(ReleaseState)


class ReleaseStates:
    """The states of all releases of a host.

    Args:
        directory: where the files are; made with the first one.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def of(self, release: str, live: str | None = None) -> ReleaseState:
        """The state of a release.

        Args:
            release: its id.
            live: the id that ``current`` points to. The link is changed before the file is, so that it is right where
                the two differ.
        """
        content = self._content(release)
        state = ReleaseState(**{name: content[name] for name in KINDS if name in content})
        if release == live:
            return replace(state, state=LIVE)
        return replace(state, state=PREVIOUS) if state.state == LIVE else state

    def record(
        self,
        release: str,
        state: str,
        deployment: str | None = None,
        reason: str | None = None,
        environment: str | None = None,
    ) -> ReleaseState:
        """Write a new state of a release down; what is known of its service stays.

        Args:
            release: its id.
            state: the new state.
            deployment: id of the deployment that brings it about.
            reason: why it failed.
            environment: fingerprint of its ``.env``; None leaves what is known of it.

        Raises:
            OSError: the disk is full; the state is the old one.
        """
        known = self.of(release)
        environment = environment or known.environment
        return self._write(
            release, replace(known, state=state, deployment=deployment, reason=reason, environment=environment)
        )

    def tried_out(self, release: str, deployment: str | None = None) -> None:
        """Write down that a release was healthy as a candidate.

        One that served and was rolled back from, or failed then, is not returned to for that: it stays what it is
        until it serves again. Nor is one judged anew that is live by now, or was when a killed run renamed the link:
        its file tells by that alone what was live before.

        Args:
            release: its id.
            deployment: id of the deployment that tried it out.

        Raises:
            OSError: the disk is full; the state is the old one.
        """
        known = self.of(release)
        if self._written(release) != LIVE and (known.state != FAILED or not known.served):
            self.record(release, READY, deployment)

    def went_live(self, release: str, before: str | None, deployment: str | None = None, back: bool = False) -> None:
        """Write down that ``current`` points to a release now.

        Args:
            release: the release that is live.
            before: the one that was, or None.
            deployment: id of the deployment that switched.
            back: whether this goes back (or forth again) between releases that served before, as a rollback does:
                what each of them replaced when it was deployed stays true then.
        """
        known = self.of(release)
        goes_back = back and known.served > 0
        replaced = known.replaced if goes_back else before
        if not goes_back and release in self._chain(before):
            # It leaves its old place in the chain: what it had replaced there would be out of reach.
            self._pass_over(release)
        self._write(
            release,
            replace(
                known,
                state=LIVE,
                replaced=replaced if replaced != release else known.replaced,
                deployment=deployment,
                reason=None,
                served=self._next(),
            ),
        )
        if before is not None and before != release and self.of(before).state != FAILED:
            self._write(before, replace(self.of(before), state=PREVIOUS, deployment=deployment))

    def settle(self, live: str | None, deployed: str | None = None) -> None:
        """Write down what a killed run could not any more, right after it had renamed the link.

        Args:
            live: the id that ``current`` points to.
            deployed: the release that was deployed last, as the journal has it; it went forth then, even if it had
                served before.
        """
        if live is None or self.is_settled(live):
            return
        known = self.of(live)
        # Two say so where a run was killed between the files of the release that came and of the one that went.
        others = sorted(self._others(live), key=lambda release: self.of(release).served)
        before = others[-1] if others else None
        if self._written(live) != LIVE or (before is not None and self.of(before).served > known.served):
            self.went_live(live, before, known.deployment, back=known.served > 0 and deployed != live)
        for release in self._others(live):
            self._write(release, self.of(release))

    def previous(self, live: str | None, kept: Iterable[str]) -> str | None:
        """The release that a rollback without an argument returns to.

        It is the one that served before the live one was deployed. One that failed or was rolled back from is passed
        over, so that a second rollback goes further back and not forth to what was bad.

        Args:
            live: the live release.
            kept: releases that are complete on this host.

        Returns:
            A release id, or None if there is none to return to.
        """
        present = set(kept)
        for release in self._chain(live):
            if release in present and self.of(release).state != FAILED:
                return release
        return None

    def leads_back(self, left: str, target: str) -> bool:
        """Whether going from one release to another goes back to what was live before it, and not forth again.

        Args:
            left: the release that is left.
            target: the release that is gone to.
        """
        return target in self._chain(left)

    def forget_all_but(self, releases: Iterable[str]) -> None:
        """Take away the states of releases that are gone; what replaced one of them replaced the one before it then.

        Args:
            releases: those that are there, or about to come.
        """
        for release in set(self._known()) - set(releases):
            with contextlib.suppress(OSError):  # on a full disk it stays until the next time
                self._pass_over(release)
                os.unlink(self.file(release))

    def _chain(self, release: str | None) -> list[str]:
        """What was live before a release, and before that, and so on."""
        chain: list[str] = []
        position = release
        while position is not None:
            position = self.of(position).replaced
            if position is None or position == release or position in chain:
                break
            chain.append(position)
        return chain

    def _known(self) -> list[str]:
        names = os.listdir(self.directory) if self.directory.is_dir() else []
        return [name[: -len(".json")] for name in names if name.endswith(".json") and not name.startswith(".")]

    def _pass_over(self, release: str) -> None:
        """Have what replaced a release replace the one before it instead."""
        before = self.of(release).replaced
        for later in self._known():
            if later != release and self.of(later).replaced == release:
                state = self._written(later) or VERIFIED
                self._store(later, replace(self.of(later), state=state, replaced=before if before != later else None))

    def is_settled(self, live: str) -> bool:
        """Whether the file of the release that ``current`` points to says that it is live, and no other does."""
        return self._written(live) == LIVE and not self._others(live)

    def _others(self, live: str) -> list[str]:
        """Releases whose files say that they are live, although another one is."""
        return [release for release in self._known() if release != live and self._written(release) == LIVE]

    def _written(self, release: str) -> str | None:
        """The state that stands in the file, whatever the link says."""
        return self._content(release).get("state")

    def file(self, release: str) -> Path:
        """Where the state of a release stands.

        Args:
            release: its id.
        """
        return self.directory / f"{release}.json"

    def _content(self, release: str) -> dict[str, Any]:
        return read_object(self.file(release), KINDS) or {}

    def _next(self) -> int:
        return max((self.of(release).number for release in self._known()), default=0) + 1

    def _write(self, release: str, state: ReleaseState) -> ReleaseState:
        return self._store(release, replace(state, at=now(), number=self._next()))

    def _store(self, release: str, state: ReleaseState) -> ReleaseState:
        self.directory.mkdir(mode=0o755, exist_ok=True)
        content = {name: value for name, value in asdict(state).items() if value is not None}
        write_atomically(self.file(release), json.dumps(content, ensure_ascii=False) + "\n", 0o600)
        return state
