# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of an artifact has to be sent to a host that holds releases already."""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from ansible_collections.roastify.ops.plugins.module_utils import artifact

#: Hexadecimal digits by which a host names what it holds. Two contents that share so many are found out by the host,
#: which asks for the whole artifact then.
_DIGITS = 16
#: Part of an artifact's bytes that a host has to hold for a difference to be made: packing one takes time, too.
_WORTHWHILE = 0.2


@dataclass(frozen=True)
class Parcel:
    """A file to be sent.

    Attributes:
        path: on the controller.
        sha256: of the file.
        size: in bytes.
        whole: whether it is the artifact itself, or only what the host lacks of it.
    """

    path: str
    sha256: str
    size: int
    whole: bool


class Held(Collection[str]):
    """Contents that a host holds, named by the beginnings of their SHA-256."""

    def __init__(self, digests: Iterable[str]) -> None:
        self._beginnings = frozenset(digest[:_DIGITS] for digest in digests)

    def __contains__(self, digest: object) -> bool:
        return isinstance(digest, str) and digest[:_DIGITS] in self._beginnings

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._beginnings))

    def __len__(self) -> int:
        return len(self._beginnings)

    def encode(self) -> str:
        """As text: 11 characters for each content."""
        return base64.b64encode(bytes.fromhex("".join(self))).decode("ascii")

    @classmethod
    def decode(cls, text: str) -> Held:
        """Out of the text.

        Raises:
            ValueError: this is no such text.
        """
        digits = base64.b64decode(text, validate=True).hex()
        if len(digits) % _DIGITS:
            raise ValueError(f"{len(digits)} digits")
        return cls(digits[start : start + _DIGITS] for start in range(0, len(digits), _DIGITS))


def parcel(path: str, sha256: str, held: Held, directory: str) -> Parcel:
    """Choose what to send; hosts that hold the same get the same file, which is made once.

    Args:
        path: the artifact, on the controller.
        sha256: of the artifact, as its manifest gives it.
        held: what the host holds; empty sends the artifact itself.
        directory: where differences are made, on the controller; whoever owns it removes it.

    Raises:
        ArtifactError: the artifact cannot be read.
        OSError: the difference cannot be written, though there is room for it.
    """
    whole = Parcel(path, sha256, os.path.getsize(path), True)
    if not held:
        return whole
    listing = artifact.read_list(path)
    present = sum(file.size for file in listing.files.values() if file.sha256 in held)
    if present < _WORTHWHILE * listing.size:
        return whole
    # What the host holds beyond this artifact makes no difference.
    wanted = Held(file.sha256 for file in listing.files.values() if file.sha256 in held)
    name = hashlib.sha256(wanted.encode().encode("ascii")).hexdigest()
    target = os.path.join(directory, f"{sha256[:_DIGITS]}-{name[:_DIGITS]}.tar.gz")
    try:
        with open(f"{target}.lock", "wb") as lock:
            # A process for each host: the first one makes it, the others wait.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.exists(target):
                artifact.write_difference(path, target, wanted)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        return whole  # there is no room for it: the deployment takes longer, and needs nobody
    size = os.path.getsize(target)
    return Parcel(target, artifact.file_sha256(target), size, False) if size < whole.size else whole
