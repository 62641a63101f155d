# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks HAProxy, by the socket of its runtime API, how the servers of a backend stand.

Source: docs.haproxy.org/2.6/management.html, 9.1 (statistics as CSV) and 9.3 (one command, one answer, end of file).
"""

from __future__ import annotations

import csv
import socket
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError

#: HAProxy answers at once; one that does not has other troubles.
_LIMIT = 10
#: Lines of the statistics that are no servers.
_SUMS = ("FRONTEND", "BACKEND")


def servers(path: str, backend: str) -> list[dict[str, Any]]:
    """The servers of a backend.

    Args:
        path: of the socket.
        backend: its name.

    Returns:
        Of each ``name``, ``address``, ``status`` (for instance ``UP``, ``DOWN 1/2``, ``MAINT``), ``check`` and
        ``answer`` of the last health check, ``rise`` and ``fall`` (None without checks). Empty if there is no such
        backend.

    Raises:
        OperationError: HAProxy does not answer, or not with statistics.
    """
    return parse(_ask(path, "show stat"), backend)


def parse(text: str, backend: str) -> list[dict[str, Any]]:
    """The servers of a backend, out of the answer to ``show stat``.

    Raises:
        OperationError: it is no such answer.
    """
    if not text.startswith("# pxname,svname,"):
        raise OperationError(
            f"HAProxy answered something else than statistics: {text.strip()[:80]!r}",
            "see that it is the socket of HAProxy's runtime API",
        )
    rows = csv.DictReader(text[len("# ") :].strip().splitlines())
    return [
        {
            "name": row["svname"],
            "address": row.get("addr") or "",
            "status": row["status"],
            # HAProxy marks a check that is under way with an asterisk.
            "check": (row.get("check_status") or "").lstrip("* "),
            "answer": row.get("last_chk") or "",
            "rise": int(row["check_rise"]) if row.get("check_rise") else None,
            "fall": int(row["check_fall"]) if row.get("check_fall") else None,
        }
        for row in rows
        if row["pxname"] == backend and row["svname"] not in _SUMS
    ]


def _ask(path: str, command: str) -> str:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_LIMIT)
            connection.connect(path)
            connection.sendall(f"{command}\n".encode())
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
            return b"".join(parts).decode("utf-8", "replace")
    except OSError as error:
        raise OperationError(
            f"HAProxy does not answer at {path}: {error.strerror or error}",
            "see that it runs, and that its configuration has this stats socket",
        ) from error
