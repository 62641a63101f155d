# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How readers other than the npm package dotenv read a .env file, and where they see something else.

One file is often read by several programs: the application with dotenv, a script with `node --env-file`, a unit
with `EnvironmentFile=`, a container with `docker run --env-file`. They agree on plain lines only. Each function
`read_…` below is a model of one of them, made from its observed behaviour, in linear time and without ever raising
an error; `disagreements` compares them with dotenv.py.

What is modelled, and how far it is proven (tests/integration/test_dotenv_readers.py):

- node: `util.parseEnv`, which is also what `node --env-file` calls. There are two models, since the parser was
  rewritten: Node.js 20 (20.20), and Node.js 22 and later (22.20 and 24.19 behave alike). A line counts as read
  differently if either does. Proven against the parsers of all three, without any difference; earlier releases of 20
  and 22 had defects that were mended since. Node.js 18 has no `--env-file`.
- systemd: `EnvironmentFile=` of version 252 (Amazon Linux 2023, Debian 12), that is `load_env_file`, and then the
  clean-up that drops names a shell would not take. Proven against those functions of libsystemd-shared, without
  any difference. Since version 254 a backslash at the end of a comment no longer swallows the next line.
- docker: `docker run --env-file`, which its client reads. This model is NOT proven by the tests, as there is no
  docker in them: it follows Docker's documented rules. It was compared once by hand with Debian's client 20.10.24, a
  stand-in for the engine recording what it was asked for: no difference in 1,176 files. A name without = gets its
  value from the caller's environment; here it counts as not seen.

PM2 is no reader: 7.0.4 has no option and no key of its ecosystem file for a .env file and contains no parser of
one. It hands on the environment of its caller and the mapping `env` of the ecosystem file; `--node-args
--env-file=…` makes Node.js the reader. Its environment wins over the file, as dotenv overwrites nothing.

The models see text. Bytes that are no UTF-8 make systemd and docker refuse the file, while dotenv replaces them by
U+FFFD; that character is an error of its own in every value (env_types).
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ansible_collections.roastify.ops.plugins.module_utils import dotenv
from ansible_collections.roastify.ops.plugins.module_utils.env_format import READERS

NODE = "node"
SYSTEMD = "systemd"
DOCKER = "docker"

# Go's bufio.Scanner, with which docker reads lines, holds 64 KiB, the line end included.
_DOCKER_LINE_BYTES = 65535
# What Go's unicode.IsSpace takes for white space: unlike JavaScript it knows U+0085, but not U+FEFF.
_GO_SPACE = dotenv.WHITE_SPACE.replace("\ufeff", "") + "\x85"

_SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# What systemd takes for invalid UTF-8: surrogates, and the code points that Unicode calls noncharacters.
_NONCHARACTERS = [plane * 0x10000 + last for plane in range(17) for last in (0xFFFE, 0xFFFF)]
_NOT_UTF8 = re.compile("[\ud800-\udfff\ufdd0-\ufdef" + "".join(map(chr, _NONCHARACTERS)) + "]")
_ANY_LINE_END = re.compile(r"\r\n|\r|\n")
_BLANKS = re.compile(r"[ \t]*")
_BLANKS_AND_LINE_ENDS = re.compile(r"[ \t\n\r]*")
_NODE_BLANKS = re.compile(r"[ \t\n]*")
_SPACES = re.compile(r" *")
_EQUALS_OR_LINE_END = re.compile(r"[=\n\r]")
_ESCAPE_OR_LINE_END = re.compile(r"[\\\n\r]")
_ESCAPE_OR_QUOTE = re.compile(r'["\\]')

_WHITE = "[" + dotenv.WHITE_SPACE + "]"
_HEAD = re.compile(rf"{_WHITE}*(export{_WHITE}+)?([A-Za-z0-9_.\-]+)({_WHITE}*)([=:])")


class Assignment(NamedTuple):
    """One assignment as a reader sees it, in the order of the file; lines count from 1."""

    name: str
    value: str
    line: int
    end_line: int


@dataclass(frozen=True)
class Refusal:
    """A line at which a reader gives up, and what it then does, fit for a message."""

    line: int
    reason: Reason


@dataclass(frozen=True)
class Reason:
    """Why a reader sees something else, and what to do. Never holds a value."""

    text: str
    remedy: str
    reach: int = 0
    """What it concerns: 0 the line alone, 1 lines behind it too, 2 the file."""


@dataclass
class Reading:
    """What one reader makes of a text."""

    assignments: list[Assignment] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    dropped: list[tuple[int, int]] = field(default_factory=list)
    """First and last line of each comment or assignment that was read and then dropped."""
    stopped: bool = False
    """Whether nothing behind the last refusal was read; else the model went on as if that line were not there."""

    def values(self) -> dict[str, str]:
        """What the program sees, refusals set aside: of several assignments to one name the last counts."""
        return {assignment.name: assignment.value for assignment in self.assignments}


@dataclass(frozen=True)
class Disagreement:
    """A line that some readers do not read as dotenv does; `name` is empty where dotenv sees no assignment."""

    line: int
    name: str
    reasons: dict[str, Reason]


_ALIKE = "Write the value on one line, without quotes, # and backslashes, and all read the same."
_HEAD_ALIKE = "Write NAME=value at the start of the line: no export, no colon, no spaces around the =."
_NAME_ALIKE = "Use letters, digits and _ in the name, and no digit first."
_LINE_ALIKE = "Remove the line, or put # in front of it."
_NO_MARK = "Save the file as UTF-8 without byte order mark."


class _Lines:
    """Line numbers as dotenv.py counts them: each of CR LF, CR and LF ends a line. Ask in rising order."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._returns = "\r" in text
        self._counted_to = 0
        self._line = 1

    def of(self, position: int) -> int:
        if self._returns and self.text[max(position - 1, 0) : position + 1] == "\r\n":
            position -= 1  # not between the two
        if position > self._counted_to:
            start, self._counted_to = self._counted_to, position
            self._line += self.text.count("\n", start, position)
            if self._returns:
                self._line += self.text.count("\r", start, position) - self.text.count("\r\n", start, position)
        return self._line


class _LinesWithoutReturns(_Lines):
    """The same for a text from which the carriage returns were taken, as Node.js does first of all."""

    def __init__(self, text: str) -> None:
        super().__init__(text.replace("\r", ""))
        self._starts: array[int] | None = None
        if text.count("\r") != text.count("\r\n"):  # else each line end still stands there as a line feed
            self._starts = array("q", [0])
            removed = 0
            for end in _ANY_LINE_END.finditer(text):
                removed += end.group()[0] == "\r"
                self._starts.append(end.end() - removed)

    def of(self, position: int) -> int:
        return super().of(position) if self._starts is None else bisect_right(self._starts, position)


def _skip(pattern: re.Pattern[str], text: str, position: int, length: int) -> int:
    match = pattern.match(text, position, length)
    return match.end() if match else position


def _line_end(text: str, position: int, length: int) -> int:
    end = text.find("\n", position, length)
    return length if end == -1 else end


def _node_value(text: str, position: int, length: int) -> tuple[str, int, bool]:
    """Value, where it ends, and whether quotes enclosed it. There is at least one character."""
    quote = text[position]
    if quote in "'\"`":
        closing = text.find(quote, position + 1, length)
        if closing != -1:
            value = text[position + 1 : closing]
            return value.replace("\\n", "\n") if quote == '"' else value, closing + 1, True
        end = _line_end(text, position, length)
        return text[position:end], end, False
    end = _line_end(text, position, length)
    return text[position:end].partition("#")[0].rstrip(" \t\n"), end, False


def read_node(text: str) -> Reading:
    """What util.parseEnv and --env-file of Node.js 22 and later read.

    Args:
        text: the whole content of a file.
    """
    lines = _LinesWithoutReturns(text)
    source = lines.text
    reading = Reading()
    length = len(source.rstrip(" \t\n"))
    position = _skip(_NODE_BLANKS, source, 0, length)
    while position < length:
        if source[position] in "\n#":
            position = _line_end(source, position, length) + 1
            continue
        stop = _EQUALS_OR_LINE_END.search(source, position, length)
        if stop is None:
            break
        if stop.group() == "\n":
            position = _skip(_NODE_BLANKS, source, stop.end(), length)
            continue
        start, name = position, source[position : stop.start()].strip(" \t\n")
        position = stop.end()
        if position >= length or source[position] == "\n":
            line = lines.of(start)
            reading.assignments.append(Assignment(name, "", line, line))
            continue
        # This passes line ends too: a blank behind the = makes the next line the value.
        position = _skip(_NODE_BLANKS, source, position, length)
        if not name:
            continue
        if name.startswith("export "):
            name = name[7:].strip(" \t\n")
        value, end, enclosed = _node_value(source, position, length)
        line = lines.of(start)
        reading.assignments.append(Assignment(name, value, line, lines.of(end)))
        position = _line_end(source, end, length) + 1
        if not enclosed:
            position = _skip(_NODE_BLANKS, source, position, length)
    return reading


def read_node_20(text: str) -> Reading:
    """What util.parseEnv and --env-file of Node.js 20 read.

    Args:
        text: the whole content of a file.
    """
    lines = _LinesWithoutReturns(text)
    source = lines.text
    reading = Reading()
    length = len(source.rstrip(" "))
    position = _skip(_SPACES, source, 0, length)
    while position < length:
        # A comment that is the end of the file is taken for an assignment, if it has a =.
        if source[position] in "\n#" and source.find("\n", position, length) != -1:
            position = _line_end(source, position, length) + 1
            continue
        # A name may reach over several lines: what has no = is glued to the line behind it.
        equals = source.find("=", position, length)
        if equals == -1:
            break
        start, name = position, source[position:equals]
        if not name:
            reason = Reason("drops every line from here on", _LINE_ALIKE, 2)
            reading.refusals.append(Refusal(lines.of(start), reason))
            reading.stopped = True
            break
        # An end of line is what its trimming of a name of spaces ends up with.
        name = name.strip(" ") or "\n"
        name = name[7:] if name.startswith("export ") else name
        position = _skip(_SPACES, source, equals + 1, length)
        line = lines.of(start)
        if position >= length:
            reading.assignments.append(Assignment(name, "", line, lines.of(equals)))
            break
        value, end, enclosed = _node_value(source, position, length)
        if source[position] not in "'\"`":
            value = source[position:end].partition("#")[0].strip(" ")
        elif not enclosed and end == length:
            continue  # an open quote in the last line: it looks for another assignment behind it
        reading.assignments.append(Assignment(name, value, line, lines.of(end)))
        position = _line_end(source, end, length) + 1
    return reading


def read_systemd(text: str, comments_go_on: bool = True) -> Reading:
    """What EnvironmentFile= of systemd reads.

    Args:
        text: the whole content of a file.
        comments_go_on: whether a backslash at the end of a comment makes the next line a part of it, as in 253
            and before.
    """
    reading = Reading()
    nul = text.find("\0")
    if nul != -1:
        reason = Reason("refuses the whole file: it holds a NUL character", "Remove the character.", 2)
        reading.refusals.append(Refusal(_Lines(text).of(nul), reason))
        reading.stopped = True
        text = text[:nul]
    lines = _Lines(text)
    length = len(text)
    position = 0
    while True:
        position = _skip(_BLANKS_AND_LINE_ENDS, text, position, length)
        if position >= length:
            return reading
        start = position
        if text[position] in "#;":
            position = _systemd_comment_end(text, position, comments_go_on)
            reading.dropped.append((lines.of(start), lines.of(position)))
            continue
        # A = in front is the first character of a name.
        stop = _EQUALS_OR_LINE_END.search(text, position + 1)
        if stop is None:
            return reading
        position = stop.end()
        if stop.group() != "=":
            continue
        name = text[start : stop.start()].rstrip(" \t")
        value, position = _systemd_value(text, position)
        line, end_line = lines.of(start), lines.of(position)
        if _NOT_UTF8.search(name) or _NOT_UTF8.search(value):
            reason = Reason("refuses the whole file: it holds a character that it does not allow", "Remove it.", 2)
            reading.refusals.append(Refusal(line, reason))
            reading.stopped = True
            return reading
        if _SHELL_NAME.match(name):
            reading.assignments.append(Assignment(name, value, line, end_line))
        else:
            reading.dropped.append((line, end_line))


def _systemd_comment_end(text: str, position: int, goes_on: bool) -> int:
    stops = _ESCAPE_OR_LINE_END if goes_on else _ANY_LINE_END
    while True:
        stop = stops.search(text, position)
        if stop is None:
            return len(text)
        if stop.group() != "\\":
            return stop.start()
        position = stop.end() + 1


def _systemd_value(text: str, position: int) -> tuple[str, int]:
    """A value and the position of the line end behind it. Quoted parts may follow each other."""
    parts: list[str] = []
    length = len(text)
    while True:
        position = _skip(_BLANKS, text, position, length)
        character = text[position : position + 1]
        if character in ("", "\n", "\r"):
            return "".join(parts), min(position, length)
        if character == "'":
            closing = text.find("'", position + 1)
            closing = length if closing == -1 else closing
            parts.append(text[position + 1 : closing])
            position = closing + 1
        elif character == '"':
            position = _systemd_double_quoted(text, position + 1, parts)
        else:
            return _systemd_unquoted(text, position, parts)


def _systemd_double_quoted(text: str, position: int, parts: list[str]) -> int:
    while True:
        stop = _ESCAPE_OR_QUOTE.search(text, position)
        if stop is None:
            parts.append(text[position:])
            return len(text)
        parts.append(text[position : stop.start()])
        position = stop.end()
        if stop.group() == '"':
            return position
        escaped = text[position : position + 1]
        position += 1
        if escaped and escaped in '"\\`$':
            parts.append(escaped)
        elif escaped and escaped != "\n":
            parts.append("\\" + escaped)


def _systemd_unquoted(text: str, position: int, parts: list[str]) -> tuple[str, int]:
    while True:
        stop = _ESCAPE_OR_LINE_END.search(text, position)
        end = stop.start() if stop else len(text)
        if stop is None or stop.group() != "\\":
            parts.append(text[position:end].rstrip(" \t"))
            return "".join(parts), end
        parts.append(text[position:end])
        escaped = text[end + 1 : end + 2]
        if escaped not in ("\n", "\r"):
            parts.append(escaped)
        position = end + 2


def read_docker(text: str) -> Reading:
    """What docker run --env-file reads.

    Args:
        text: the whole content of a file.
    """
    lines = _Lines(text)
    reading = Reading()
    start = 0

    def refuse(why: str, remedy: str) -> None:
        reading.refusals.append(Refusal(lines.of(start), Reason(f"refuses the whole file: {why}", remedy, 2)))

    while start < len(text):
        end = _line_end(text, start, len(text))
        content = text[start : end - 1] if end > start and text[end - 1] == "\r" else text[start:end]
        if end - start > _DOCKER_LINE_BYTES // 4:  # no character has more than 4 bytes
            size = len(text[start:end].encode("utf-8", errors="surrogatepass"))
            if size > _DOCKER_LINE_BYTES:
                refuse("it has a line of more than 64 KiB", "Keep what is so long in a file of its own.")
                content = ""
        if start == 0:
            content = content[content.startswith("\ufeff") :]
        content = content.lstrip(_GO_SPACE)
        name, equals, value = content.partition("=")
        if not content or content[0] == "#":
            pass
        elif not name:
            refuse("it has a line without a name", _LINE_ALIKE)
        elif " " in name or "\t" in name:
            if equals:
                refuse("it has a blank in front of the =", _HEAD_ALIKE)
            else:
                refuse("it has a line without =", _HEAD_ALIKE if _HEAD.match(content) else _LINE_ALIKE)
        elif equals:
            # More than one line only if dotenv counts a carriage return that docker does not.
            reading.assignments.append(Assignment(name, value, lines.of(start), lines.of(end)))
        start = end + 1
    return reading


@dataclass(frozen=True)
class _Place:
    """An assignment as dotenv sees it, with what stands in its first line."""

    entry: dotenv.Entry
    head: re.Match[str] | None
    tail: str
    """What stands behind the = or : in that line."""
    mark: bool
    """Whether a byte order mark stands before it."""

    @property
    def colon(self) -> bool:
        return self.head is not None and self.head.group(4) == ":"

    @property
    def several_lines(self) -> bool:
        return self.entry.end_line > self.entry.line


def _why(place: _Place, seen: Assignment) -> Reason | None:
    """Reasons that every reader may have."""
    if place.several_lines and not place.tail.strip() and seen.value == "":
        return Reason("takes it for empty: the value starts in a later line", _ALIKE)
    if seen.value != place.entry.value and seen.value.strip(dotenv.WHITE_SPACE) == place.entry.value:
        return Reason("keeps the blanks around the value", "Remove the blanks around the value.")
    return None


def _why_node(place: _Place, seen: Assignment | None) -> Reason:
    entry, tail = place.entry, place.tail
    if seen is None:
        if place.mark:
            return Reason("takes the byte order mark for a part of the name", _NO_MARK)
        if place.colon:
            return Reason("drops the line: it has a colon", _HEAD_ALIKE)
        if place.head is not None and place.head.group(1):
            return Reason("takes export for a part of the name", _HEAD_ALIKE)
        return Reason("does not see it", _HEAD_ALIKE)
    if entry.unclosed_quote:
        return Reason("reads on to the next quote", _ALIKE)
    general = _why(place, seen)
    if general is not None:
        return general
    if entry.quote:
        if entry.quote == '"' and "\\r" in tail and entry.quote not in entry.value:
            return Reason("keeps \\r as it stands", _ALIKE)
        if entry.quote in entry.value:
            return Reason("ends the value at the first quote inside it", _ALIKE)
        return Reason("reads the value differently", _ALIKE)
    if seen.end_line > entry.end_line:
        return Reason("takes the next line for the value", "Remove the blank behind the =.")
    if entry.value[:1] in ("'", '"', "`"):
        return Reason("drops what follows the closing quote", _ALIKE)
    return Reason("reads the value differently", _ALIKE)


def _why_systemd(place: _Place, seen: Assignment | None) -> Reason:
    entry, tail = place.entry, place.tail
    if seen is None:
        if place.mark:
            return Reason("takes the byte order mark for a part of the name", _NO_MARK)
        if place.head is not None and place.head.group(1):
            return Reason("drops the line: it does not know export", _HEAD_ALIKE)
        if place.colon:
            return Reason("drops the line: it has a colon", _HEAD_ALIKE)
        if not _SHELL_NAME.match(entry.key):
            return Reason("drops the line: it does not take the name", _NAME_ALIKE)
        return Reason("does not see it", _HEAD_ALIKE)
    general = _why(place, seen)
    if general is not None:
        return general
    if seen.end_line > entry.end_line and tail.lstrip()[:1] in ("'", '"'):
        return Reason("reads on to the next quote", _ALIKE)
    if "\\" in tail or (place.several_lines and "\\" in entry.value):
        return Reason("takes a backslash for an escape", _ALIKE)
    if entry.quote == "`":
        return Reason("keeps the quotes", "Use single quotes.")
    if "#" in tail and (not entry.quote or entry.quote + entry.value + entry.quote != tail.strip()):
        return Reason("takes the # for a part of the value", _ALIKE)
    if entry.value[:1] in ("'", '"'):
        return Reason("removes the quotes", _ALIKE)
    return Reason("reads the value differently", _ALIKE)


def _why_docker(place: _Place, seen: Assignment | None) -> Reason:
    entry, tail = place.entry, place.tail
    if seen is None:
        if place.mark:
            return Reason("takes the byte order mark for a part of the name", _NO_MARK)
        return Reason("does not see it", _HEAD_ALIKE)
    general = _why(place, seen)
    if general is not None:
        return general
    if place.several_lines:
        return Reason("reads the first line only", _ALIKE)
    if entry.quote:
        return Reason("keeps the quotes", _ALIKE)
    if "#" in tail:
        return Reason("takes the # for a part of the value", _ALIKE)
    if tail[:1] in ("'", '"', "`"):
        return Reason("keeps the quotes", _ALIKE)
    return Reason("reads the value differently", _ALIKE)


_Reader = Callable[[str], Reading]
_Explanation = Callable[[_Place, "Assignment | None"], Reason]
# For each reader its models, with what to put in front of the reason if only one of several disagrees.
_MODELS: dict[str, tuple[tuple[str, _Reader, _Explanation], ...]] = {
    NODE: (("Node.js 22", read_node, _why_node), ("Node.js 20", read_node_20, _why_node)),
    SYSTEMD: (("", read_systemd, _why_systemd),),
    DOCKER: (("", read_docker, _why_docker),),
}


class _Comparison:
    """One text, read by dotenv and by others."""

    def __init__(self, text: str, document: dotenv.Document) -> None:
        self.text = text
        self.document = document
        self.effective = {entry.key: entry for entry in document.entries if entry.key != "__proto__"}
        self.starts = [entry.line for entry in document.entries]
        self._source: list[str] | None = None

    def place(self, entry: dotenv.Entry) -> _Place:
        if self._source is None:
            self._source = self.text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        line = self._source[entry.line - 1]
        head = _HEAD.match(line)
        if head is not None and head.group(2) != entry.key:
            head = None
        return _Place(entry, head, line[head.end() :] if head else line, line.startswith("\ufeff"))

    def owner(self, line: int) -> tuple[int, str]:
        """The assignment that a line belongs to, or the line alone."""
        index = bisect_right(self.starts, line) - 1
        if index >= 0 and line <= self.document.entries[index].end_line:
            entry = self.document.entries[index]
            return entry.line, entry.key
        return line, ""

    def compare(self, reading: Reading, explanation: _Explanation) -> dict[tuple[int, str], Reason]:
        """Where one model disagrees, and why."""
        refused = {self.owner(refusal.line): refusal.reason for refusal in reversed(reading.refusals)}
        swallowing: dict[tuple[int, str], Reason] = {}
        differing: dict[tuple[int, str], Reason] = {}
        last = {assignment.name: assignment for assignment in reading.assignments}
        spans = [(item.line, item.end_line) for item in reading.assignments] + reading.dropped
        spans = sorted(span for span in spans if span[0] < span[1])
        for name, entry in self.effective.items():
            seen = last.get(name)
            if seen is not None and seen.value == entry.value:
                continue
            if reading.stopped and seen is None and entry.line >= reading.refusals[-1].line:
                continue
            # The line may be a part of something that began before it: that is where the remedy is.
            index = bisect_right(spans, (entry.line, 0)) - 1
            if index < 0 or spans[index][1] < entry.line:
                differing[entry.line, name] = explanation(self.place(entry), seen)
                continue
            line = spans[index][0]
            owner = self.owner(line)
            if owner[1]:
                swallowing[owner] = Reason("swallows the lines behind it", _ALIKE, 1)
            else:
                differing[entry.line, name] = Reason(f"takes it for a part of line {line}", f"Mend line {line}.")
        for place, reason in swallowing.items():
            if place in differing:
                swallowing[place] = replace(reason, remedy=differing[place].remedy)
        return {**differing, **swallowing, **refused}

    def run(self, readers: Iterable[str]) -> list[Disagreement]:
        found: dict[tuple[int, str], dict[str, Reason]] = {}
        for reader in readers:
            outcomes = {
                version: self.compare(model(self.text), explanation)
                for version, model, explanation in _MODELS.get(reader, ())
            }
            for version, outcome in outcomes.items():
                for place, reason in outcome.items():
                    reasons = found.setdefault(place, {})
                    before = reasons.get(reader)
                    # Where only one version goes wrong, or goes further than the others.
                    others = [other.get(place) for other in outcomes.values()]
                    if any(other is None or other.reach < reason.reach for other in others):
                        reason = replace(reason, text=f"{version} {reason.text}")
                    if before is None:
                        reasons[reader] = reason
                    elif before.reach < reason.reach:
                        reasons[reader] = replace(reason, text=f"{before.text}; {reason.text}")
        return [Disagreement(line, name, reasons) for (line, name), reasons in sorted(found.items())]


def disagreements(text: str, document: dotenv.Document, readers: Sequence[str] = READERS) -> list[Disagreement]:
    """The lines of a text that a reader does not read as dotenv does, in the order of the lines.

    Of several assignments to one name only the last is compared, as it is the one that counts. A variable that is
    lost because an earlier line swallows it is told at that line only.

    Args:
        text: the whole content of a file.
        document: what dotenv.read made of that text.
        readers: those to compare with dotenv; unknown names are passed over.
    """
    wanted = [reader for reader in READERS if reader in readers]
    return _Comparison(text, document).run(wanted)
