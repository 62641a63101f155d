# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables and lists for people, in plain text."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    """Rows under their headings, every column as wide as its widest cell.

    Args:
        rows: one mapping a row; what a row lacks is shown as a dash.
        keys: what to show, in order; they are the headings, too.

    Returns:
        The lines of the table, without trailing blanks.
    """
    cells = [[_cell(row.get(key)) for key in keys] for row in rows]
    rules = ["-" * max(map(columns, column)) for column in zip(keys, *cells)]
    return align([keys, rules, *cells])


def align(lines: Sequence[Sequence[str]]) -> list[str]:
    """Cells side by side, every column as wide as its widest cell.

    Args:
        lines: the cells of each line, as many in each.

    Returns:
        The lines, without trailing blanks.
    """
    widths = [max(map(columns, column)) for column in zip(*lines)]
    return ["  ".join(map(padded, line, widths)).rstrip() for line in lines]


def columns(text: str) -> int:
    """How much room a text needs on a terminal, where wide letters take two columns.

    Args:
        text: one line.
    """
    return len(text) if text.isascii() else sum(map(_width, text))


def padded(text: str, width: int) -> str:
    """Text that fills a width, where it is not wider.

    Args:
        text: one line.
        width: columns of a terminal.
    """
    return text + " " * (width - columns(text))


def names(hosts: Sequence[str], limit: int = 6) -> str:
    """Hosts in one line.

    Args:
        hosts: their names.
        limit: how many are named; the others are counted.
    """
    rest = len(hosts) - limit
    return ", ".join(hosts) if rest < 2 else f"{', '.join(hosts[:limit])} and {rest} more"


def ambiguous(releases: Iterable[tuple[str | None, str | None]]) -> frozenset[str]:
    """The versions that do not tell apart the releases of a table, so that it has to show their ids.

    Args:
        releases: version and id of each; what lacks one of them says nothing.
    """
    ids: dict[str, set[str]] = {}
    for version, identifier in releases:
        if version and identifier:
            ids.setdefault(version, set()).add(identifier)
    return frozenset(version for version, found in ids.items() if len(found) > 1)


def _width(letter: str) -> int:
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(str(value).split())
