# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a validation found: problems with place, rule and remedy. No field ever holds a secret's value."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ERROR = "error"
WARNING = "warning"


def and_of(names: Sequence[str]) -> str:
    """Names in a sentence: `A`, `A and B`, `A, B and C`.

    Args:
        names: at least one.
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an environment. No field ever holds the value of a secret.

    `code` is the rule that is broken: a stable name for machines. `found` is what was there instead, as far as
    it may be shown ("not set", "empty", a near miss, else length and kinds of characters); empty where the
    message has nothing of the kind. `line` counts from 1, None stands for no line.
    """

    severity: str
    code: str
    variable: str
    message: str
    remedy: str = ""
    line: int | None = None
    found: str = ""

    def text(self, source: str = "") -> str:
        """The problem for people, in one line: place, message and remedy."""
        place = source
        if self.line is not None:
            place = f"{source}:{self.line}" if source else f"line {self.line}"
        return (f"{place}: " if place else "") + self.message + (f" {self.remedy}" if self.remedy else "")

    def as_dict(self) -> dict[str, Any]:
        """The problem for machines; the keys are stable."""
        return {
            "severity": self.severity,
            "code": self.code,
            "variable": self.variable,
            "line": self.line,
            "found": self.found,
            "message": self.message,
            "remedy": self.remedy,
        }


@dataclass
class Report:
    """The outcome of a validation."""

    environment: str
    variables: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def errors(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.severity == ERROR]

    @property
    def warnings(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.severity == WARNING]

    def as_dict(self) -> dict[str, Any]:
        """The report for machines; the keys are stable and hold no value of a variable."""
        return {
            "environment": self.environment,
            "valid": not self.errors,
            "variables": self.variables,
            "problems": [problem.as_dict() for problem in self.problems],
        }

    def message(self, source: str, places: Mapping[str, str] | None = None) -> str:
        """All errors in one message, one line each.

        `source` is the file, or what stands for it; `places` says of single variables where they stand.
        """
        count = len(self.errors)
        what = "1 problem" if count == 1 else f"{count} problems"
        where = f" for {self.environment}" if self.environment else ""
        lines = [f"The environment in {source} is not fit{where}: {what}."]
        place = functools.partial(self._place, source=source, places=places or {})
        return "\n".join(lines + ["  - " + problem.text(place(problem)) for problem in self.errors])

    def warning_texts(self, source: str, places: Mapping[str, str] | None = None) -> list[str]:
        """Each warning in one line, with its place as in `message`."""
        return [problem.text(self._place(problem, source, places or {})) for problem in self.warnings]

    @staticmethod
    def _place(problem: Problem, source: str, places: Mapping[str, str]) -> str:
        return places.get(problem.variable, source if problem.line is not None else "")
