# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the text of a migration: encoding, checksum, directives and sections.

A directive is a comment that stands alone on its line and begins with ``migrate:``:

- ``-- migrate:no-transaction`` above the first statement runs the script statement by statement.
- ``-- migrate:up`` and ``-- migrate:down`` divide a file that holds both directions. Each may say
  ``no-transaction`` behind it, or ``transaction:false`` as dbmate writes it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from ansible_collections.roastify.ops.plugins.module_utils import sql_statements

NO_TRANSACTION = "migrate:no-transaction"

_BYTE_ORDER_MARK = "\ufeff"

_HEAD = re.compile(r"(?:[ \t]*(?:--[^\n]*|/\*(?:[^*]|\*(?!/))*\*/[ \t]*)?\n)+")
_DIRECTIVE = re.compile(r"--\s*migrate\s*:\s*(?P<directive>\S.*?)\s*")
_MARKER = re.compile(r"^[ \t]*--\s*migrate\s*:\s*(?P<direction>up|down)\b(?P<options>[^\n]*)$", re.MULTILINE)
_OPTIONS = {"": True, "transaction:true": True, "no-transaction": False, "transaction:false": False}
_NOTHING = re.compile(r"(?:\s*(?:--[^\n]*)?)*")


@dataclass(frozen=True)
class Section:
    """One direction of a migration.

    Attributes:
        text: its SQL, every line where it is in the file: what does not belong to it is blank.
        transactional: False if it is to run outside a transaction.
    """

    text: str = field(repr=False)
    transactional: bool

    @property
    def is_blank(self) -> bool:
        """Whether it holds nothing but white space and line comments."""
        return _NOTHING.fullmatch(self.text) is not None


def normalised(content: bytes) -> str:
    """The text of a file, free of what editors and checkouts change.

    Args:
        content: the bytes of the file.

    Returns:
        The text without byte order mark, with "\\n" as line end and exactly one at its end.

    Raises:
        ValueError: the bytes are not UTF-8 text; the message says where.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"byte {error.start} (0x{content[error.start]:02x}, line {line}) is not UTF-8: save the file as UTF-8"
        ) from None
    zero = text.find("\0")
    if zero >= 0:
        line = text.count("\n", 0, zero) + 1
        raise ValueError(f"line {line} holds a NUL character, which PostgreSQL cannot store: remove it")
    if text.startswith(_BYTE_ORDER_MARK):
        text = text[1:]
    text = text.replace("\r\n", "\n").rstrip()
    return text + "\n" if text else ""


def checksum(text: str) -> str:
    """The checksum of a normalised text, blank lines above it left out; it names its algorithm, which may change."""
    return "sha256:" + hashlib.sha256(text.lstrip("\n").encode("utf-8")).hexdigest()


def whole(text: str) -> Section:
    """A file of one direction (NNN_name.up.sql).

    Args:
        text: its normalised text.

    Raises:
        ValueError: an unknown directive, or the marker of a section.
    """
    transactional = _head_is_transactional(text)
    marker = next(iter(_markers(text)), None)
    if marker:
        raise ValueError(
            f"line {_line(text, marker.start())}: migrate:{marker['direction']} divides a file of both directions, "
            "which is named NNN_name.sql; the name of this one says its direction: remove the line or rename the file"
        )
    return Section(text, transactional)


def divided(text: str) -> dict[str, Section]:
    """The directions of a file that holds both (NNN_name.sql).

    Args:
        text: its normalised text.

    Returns:
        The sections by "up" and "down". A section down without anything in it is left out: it could not
        take anything back.

    Raises:
        ValueError: no section up, a section twice, SQL above the first section, an unknown directive.
    """
    markers = list(_markers(text))
    if not markers:
        raise ValueError("holds no line `-- migrate:up`: add it above the SQL, or name the file NNN_name.up.sql")
    above = text[: markers[0].start()]
    if not Section(above, True).is_blank:
        line = _line(text, len(above) - len(above.lstrip()))
        raise ValueError(f"line {line}: stands above the first section and would never run: move it into one")
    if not _head_is_transactional(above):
        raise ValueError(
            f"{NO_TRANSACTION} stands above the sections: write it behind the one it is for: migrate:up no-transaction"
        )
    sections: dict[str, Section] = {}
    ends = [*(marker.start() for marker in markers[1:]), len(text)]
    for marker, end in zip(markers, ends):
        direction, options = marker["direction"], " ".join(marker["options"].split())
        line = _line(text, marker.start())
        if direction in sections:
            raise ValueError(f"line {line}: a second section migrate:{direction}: make one of the two")
        if options not in _OPTIONS:
            raise ValueError(f"line {line}: unknown option {options!r}; known is no-transaction")
        body = text[marker.end() : end].rstrip() + "\n"
        blank = "\n" * text.count("\n", 0, marker.end())
        transactional = _head_is_transactional(body, line) and _OPTIONS[options]
        section = Section(blank + body if body.strip() else "", transactional)
        if direction == "up" or not section.is_blank:
            sections[direction] = section
    if "up" not in sections:
        raise ValueError("has a section migrate:down, and none migrate:up: add it")
    return sections


def _head_is_transactional(text: str, line_above: int = 1) -> bool:
    """Whether no directive above the first statement says otherwise; below it they are comments like any other."""
    transactional = True
    head = _HEAD.match(text)
    for number, line in enumerate(head.group().split("\n") if head else [], line_above):
        match = _DIRECTIVE.fullmatch(line.strip())
        if match is None or _MARKER.fullmatch(line):
            continue
        if f"migrate:{match['directive']}" != NO_TRANSACTION:
            raise ValueError(
                f"line {number}: unknown directive migrate:{match['directive']}; known is {NO_TRANSACTION}"
            )
        transactional = False
    return transactional


def _markers(text: str) -> list[re.Match[str]]:
    """The markers of sections; what looks like one inside a string, a function or a comment is none."""
    found: list[re.Match[str]] = []
    begin = 0
    if "migrate" not in text:
        return found
    for marker in _MARKER.finditer(text):
        if not sql_statements.is_open(text[begin : marker.start()]):
            found.append(marker)
            begin = marker.end()
    return found


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
