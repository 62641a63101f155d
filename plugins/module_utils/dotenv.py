# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads and writes .env files exactly as the npm package dotenv reads them, versions 16.0 to 18.0.

The application reads its .env with that package, so this is the grammar that counts. It is wider than
it looks: a quoted value may start on a later line, a quote that is followed by other text does not
count as one, and everything the reader does not understand is skipped in silence. The scanner below
follows each of these rules, runs in linear time, and also reports what was skipped.

tests/integration/test_dotenv_readers.py compares it with six versions of the package, on thousands of new
files in every run; there is no known difference. What other programs make of the same file: env_readers.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

# What JavaScript calls white space and line ends; Python's own sets differ (U+FEFF, U+0085, U+001C…).
WHITE_SPACE = (
    "\t\n\x0b\x0c\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\ufeff"
)
LINE_ENDS = "\n\u2028\u2029"  # a carriage return has become a line feed before the scan begins

_WHITE = "[" + WHITE_SPACE + "]"
_WHITE_RUN = re.compile(_WHITE + "*")
_NAME = re.compile(r"[A-Za-z0-9_.\-]+")
_EXPORT = re.compile("export" + _WHITE + "+(?=[A-Za-z0-9_.-])")
_EQUALS = re.compile(_WHITE + "*=")
_COLON = re.compile(":" + _WHITE)
_LINE_END = re.compile("[" + LINE_ENDS + "]")
_UNQUOTED_END = re.compile(r"[#\n]")
_SECTION_END = re.compile("[" + LINE_ENDS + "]|\\Z")

# Read the same by dotenv, node --env-file, python-dotenv, sh, docker and systemd.
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9_./:@%+,=\-]*\Z")
_WRITABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class DotenvError(ValueError):
    """Something cannot be read from or written to a .env file. The message never holds a value."""


class Entry(NamedTuple):
    """One assignment, in the order of the file."""

    key: str
    value: str
    line: int
    end_line: int
    quote: str = ""
    """The quote that enclosed the value: ', " or `; empty when none did."""
    unclosed_quote: str = ""
    """The quote the value starts with, if it does not enclose the value."""
    cut_by_comment: bool = False
    """An unquoted value ended at a # with no space before it: perhaps the value goes on behind it."""


class Skipped(NamedTuple):
    """A line that dotenv passes over although it is neither blank nor a comment."""

    line: int


@dataclass(frozen=True)
class Document:
    entries: list[Entry]
    skipped: list[Skipped]


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text.replace("\r\n", "\n").replace("\r", "\n")
        self.length = len(self.text)
        self._counted_to = 0
        self._line = 1

    def line_of(self, position: int) -> int:
        """The line of a position; positions must be asked for in rising order."""
        self._line += self.text.count("\n", self._counted_to, position)
        self._counted_to = max(self._counted_to, position)
        return self._line

    def skip_white(self, position: int) -> int:
        match = _WHITE_RUN.match(self.text, position)
        return match.end() if match else position

    def next_line(self, position: int) -> int:
        match = _LINE_END.search(self.text, position)
        return match.end() if match else self.length

    def name_and_value(self, position: int) -> tuple[str, int, int] | None:
        """Name, its position and the position where its value starts."""
        starts = [position]
        export = _EXPORT.match(self.text, position)
        if export:
            starts.insert(0, export.end())
        for start in starts:
            name = _NAME.match(self.text, start)
            if not name:
                continue
            separator = _EQUALS.match(self.text, name.end()) or _COLON.match(self.text, name.end())
            if separator:
                return name.group(), start, separator.end()
        return None

    def ends_entry(self, position: int) -> bool:
        """Whether only white space or a comment follows on the line."""
        stop = self.skip_white(position)
        if stop == self.length or self.text[stop] == "#":
            return True
        return _LINE_END.search(self.text, position, stop) is not None

    def closing_quote(self, opening: int) -> int | None:
        """Where the value that opens here closes: the last quote it can reach that ends an entry.

        A quote behind a backslash may be part of the value or close it; the longest value wins.
        """
        quote = self.text[opening]
        candidates: list[int] = []
        position = self.text.find(quote, opening + 1)
        while position != -1:
            candidates.append(position)
            if self.text[position - 1] != "\\":
                break
            position = self.text.find(quote, position + 1)
        for candidate in reversed(candidates):
            if self.ends_entry(candidate + 1):
                return candidate
        return None


def _strip(value: str) -> str:
    return value.strip(WHITE_SPACE)


def _unwrap(value: str) -> str:
    """Removes the quotes around a value, or around some of its lines where it holds Unicode line ends."""
    if "\u2028" not in value and "\u2029" not in value and "\n" not in value:
        if len(value) > 1 and value[0] in "'\"`" and value[0] == value[-1]:
            return value[1:-1]
        return value
    # For each kind of quote, the last one that stands at the end of a line.
    closing = {
        quote: max((end for end in _ends_of_lines(value) if value[end - 1 : end] == quote), default=0) - 1
        for quote in "'\"`"
    }
    result: list[str] = []
    position = 0
    while position < len(value):
        close = closing.get(value[position], -1)
        if close > position:
            result.append(value[position + 1 : close])
            position = close + 1
        following = _SECTION_END.search(value, position)
        end = following.end() if following else len(value)
        result.append(value[position:end])
        position = end
    return "".join(result)


def _ends_of_lines(value: str) -> list[int]:
    return [match.start() for match in _SECTION_END.finditer(value)]


def _expand(value: str, first: str) -> str:
    if first == '"':
        return value.replace("\\n", "\n").replace("\\r", "\r")
    return value


def read(text: str) -> Document:
    """Reads a whole file: the assignments, and the lines that dotenv would skip in silence."""
    scanner = _Scanner(text)
    source = scanner.text
    entries: list[Entry] = []
    skipped: list[Skipped] = []
    position = 0
    while True:
        position = scanner.skip_white(position)
        if position >= scanner.length:
            return Document(entries, skipped)
        found = scanner.name_and_value(position)
        if found is None:
            if source[position] != "#":
                skipped.append(Skipped(scanner.line_of(position)))
            position = scanner.next_line(position)
            continue
        key, key_position, start = found
        line = scanner.line_of(key_position)
        quote = unclosed = ""
        cut = False
        opening = scanner.skip_white(start)
        closing = None
        if opening < scanner.length and source[opening] in "'\"`":
            closing = scanner.closing_quote(opening)
        if closing is not None:
            quote = source[opening]
            value = _expand(source[opening + 1 : closing], quote)
            end = closing + 1
        else:
            stop = _UNQUOTED_END.search(source, start)
            end = stop.start() if stop else scanner.length
            raw = source[start:end]
            value = _strip(raw)
            cut = end < scanner.length and source[end] == "#" and raw[-1:] not in tuple(WHITE_SPACE)
            first = value[:1]
            value = _unwrap(value)
            value = _expand(value, first)
            if first in ("'", '"', "`"):
                unclosed = first
        entries.append(Entry(key, value, line, scanner.line_of(end), quote, unclosed, cut))
        # Behind the value there is white space or a comment up to the end of the line.
        position = scanner.next_line(end)


def parse(text: str) -> list[Entry]:
    """The assignments of a .env file in their order, duplicates included."""
    return read(text).entries


def to_mapping(entries: Iterable[Entry]) -> dict[str, str]:
    """What the application sees: of several assignments to one name the last counts."""
    # JavaScript objects swallow an assignment of a string to this name.
    return {entry.key: entry.value for entry in entries if entry.key != "__proto__"}


def decode(content: bytes) -> str:
    """Text of a file as Node.js sees it: UTF-8, undecodable bytes replaced."""
    return content.decode("utf-8", errors="replace")


def as_text(name: str, value: Any) -> str:
    """The text an inventory's value has in a .env file: true for true, JSON for lists and mappings."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    raise DotenvError(
        f"{name} is a {type(value).__name__}: only text, numbers, booleans, lists and mappings can be written"
    )


def _reads_back(candidate: str, value: str, neighbour: str) -> bool:
    """Whether a value survives, and does not reach into lines behind it that open with any quote."""
    behind = {"B": "'", "C": '"', "D": "`"}
    lines = [f"{name}={quote}{neighbour}{quote}" for name, quote in behind.items()]
    entries = parse("\n".join([f"A={candidate}", *lines, ""]))
    expected = [("A", value), *((name, neighbour) for name in behind)]
    return [(entry.key, entry.value) for entry in entries] == expected


def quoted(name: str, value: str) -> str:
    """The right side of an assignment that dotenv reads back as exactly this value."""
    if "\0" in value:
        raise DotenvError(
            f"{name} holds a NUL character, which no environment variable can hold: encode it, for example in base64"
        )
    if _PLAIN_VALUE.match(value):
        return value
    # Quotes that the value does not hold first: that is also what other readers understand.
    enclosed = [(quote, quote + value + quote) for quote in "'`"]
    enclosed.insert(1, ('"', '"' + value.replace("\r", "\\r") + '"'))
    candidates = [text for quote, text in enclosed if quote not in value and not value.endswith("\\")]
    candidates.append(value)
    candidates += [text for quote, text in enclosed]
    for candidate in candidates:
        if all(_reads_back(candidate, value, neighbour) for neighbour in ("\n", " # ")):
            return candidate
    raise DotenvError(
        f"{name} cannot be written so that dotenv reads it back unchanged (it mixes quotes, line ends or "
        "backslashes): encode it, for example in base64"
    )


def assignment(name: str, value: str) -> str:
    """One line of a .env file."""
    if not _WRITABLE_NAME.match(name):
        raise DotenvError(
            f"{name} is not a name for an environment variable: use letters, digits and _, and no digit first"
        )
    return f"{name}={quoted(name, value)}"


def render(variables: Mapping[str, Any], header: str = "") -> str:
    """A whole .env file; null stands for a variable that is not set.

    Raises DotenvError with every variable that cannot be written.
    """
    problems: list[str] = []
    expected: dict[str, str] = {}
    lines = [f"# {line}".rstrip() for line in header.splitlines()]
    for name, value in variables.items():
        if value is None:
            continue
        try:
            text = as_text(str(name), value)
            lines.append(assignment(str(name), text))
            expected[str(name)] = text
        except DotenvError as error:
            problems.append(str(error))
    if problems:
        raise DotenvError("; ".join(problems))
    content = "\n".join(lines) + "\n" if lines else ""
    if to_mapping(parse(content)) != expected:
        raise DotenvError("the .env file would not read back as it was written; please report this as a defect")
    return content
