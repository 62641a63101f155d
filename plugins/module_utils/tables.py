# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables for people, in plain text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """Rows under their headings, every column as wide as its widest cell.

    Args:
        rows: one mapping a row; what a row lacks is shown as a dash.
        columns: keys to show, in order; they are the headings, too.

    Returns:
        The lines of the table, without trailing blanks.
    """
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells)]
    return align([columns, ["-" * width for width in widths], *cells])


def align(lines: Sequence[Sequence[str]]) -> list[str]:
    """Cells side by side, every column as wide as its widest cell.

    Args:
        lines: the cells of each line, as many in each.

    Returns:
        The lines, without trailing blanks.
    """
    widths = [max(map(len, column)) for column in zip(*lines)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]


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


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(str(value).split())
