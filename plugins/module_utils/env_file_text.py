# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong with the text of a .env file, whatever its variables mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils import dotenv, env_readers
from ansible_collections.roastify.ops.plugins.module_utils.env_format import READERS
from ansible_collections.roastify.ops.plugins.module_utils.env_report import ERROR, WARNING, Problem, and_of

_ASSIGNMENT = re.compile(r"^[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=", re.MULTILINE)


def file_problems(
    text: str, document: dotenv.Document, known: Mapping[str, Any], readers: Sequence[str] = READERS
) -> list[Problem]:
    """Lines that the application skips, cuts or overwrites, and lines that other programs read differently.

    Args:
        text: the whole content of a file.
        document: what dotenv.read made of that text.
        known: the variables of the schema, by name.
        readers: the programs that read the file, of env_format.READERS.
    """
    problems = dotenv_problems(document, known)
    told = {problem.line for problem in problems if problem.severity == ERROR}
    for found in env_readers.disagreements(text, document, readers):
        # One warning for a line, and none where an error says what to mend.
        if found.line not in told:
            problems.append(reader_problem(found))
            told.add(found.line)
    return problems


def dotenv_problems(document: dotenv.Document, known: Mapping[str, Any]) -> list[Problem]:
    """Lines that the application itself skips, cuts or overwrites.

    Args:
        document: what dotenv.read made of a file.
        known: the variables of the schema, by name.
    """
    problems = [
        Problem(
            WARNING,
            "skipped_line",
            "",
            "This line is neither an assignment nor a comment, and the application skips it in silence.",
            "Write it as NAME=value, or put # in front.",
            skipped.line,
        )
        for skipped in document.skipped
    ]
    first: dict[str, int] = {}
    for entry in document.entries:
        name, line = entry.key, entry.line

        def say(severity: str, code: str, message: str, remedy: str, name: str = name, line: int = line) -> None:
            problems.append(Problem(severity, code, name, f"{name} {message}", remedy, line))

        if name in first:
            message = f"is set again (first in line {first[name]}); the last one counts."
            say(WARNING, "duplicate", message, "Keep one of them.")
        first.setdefault(name, line)
        if entry.unclosed_quote:
            say(
                ERROR,
                "unclosed_quote",
                f"has a value that opens with a quote ({entry.unclosed_quote}) which does not enclose it.",
                "Close the quote at the end of the value, or put another kind of quote around it.",
            )
        if entry.cut_by_comment:
            say(
                WARNING,
                "cut_by_comment",
                "has a # in its value; the application takes what follows for a comment.",
                "Put quotes around the value, or a space before the # of a comment.",
            )
        swallowed = [found for found in _ASSIGNMENT.findall(entry.value) if found in known]
        if "\n" in entry.value and swallowed:
            say(
                ERROR,
                "swallowed",
                f"has a value of several lines that contains an assignment of {and_of(swallowed)}.",
                "A missing quote swallows the lines behind it: close the value where it ends.",
            )
    return problems


def rendered_problems(lines: Sequence[str], readers: Sequence[str]) -> list[Problem]:
    """Variables that some programs would read differently from the application, in a file that is yet to be written.

    Args:
        lines: its assignments, as dotenv.assignment writes them.
        readers: the programs that will read it, of env_format.READERS.
    """
    text = "\n".join([*lines, ""])
    found = env_readers.disagreements(text, dotenv.read(text), readers) if readers else []
    return [replace(reader_problem(disagreement), line=None) for disagreement in found]


def reader_problem(found: env_readers.Disagreement) -> Problem:
    """The warning about a line that some programs read differently from the application.

    Args:
        found: the line, and why which reader disagrees.
    """
    items: list[str] = []
    before = ""
    for reader, reason in found.reasons.items():
        items.append(f"{reader} ({'likewise' if reason.text == before else reason.text})")
        before = reason.text
    who = and_of(items)
    remedies = dict.fromkeys(reason.remedy for reason in found.reasons.values())
    readers = and_of(list(found.reasons))
    them = "it never reads" if len(found.reasons) == 1 else "they never read"
    remedy = f"{' '.join(remedies)} Or take {readers} out of `readers` in the schema, if {them} this file."
    what = f"{found.name} is" if found.name else "This line is"
    return Problem(WARNING, "readers_disagree", found.name, f"{what} read differently by {who}.", remedy, found.line)
