# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a validation found: problems with place, rule and remedy. No field ever holds a secret's value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ERROR = "error"
WARNING = "warning"


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an environment. No field ever holds the value of a secret."""

    severity: str
    code: str
    variable: str
    message: str
    remedy: str = ""
    line: int | None = None

    def text(self, source: str = "") -> str:
        place = source
        if self.line is not None:
            place = f"{source}:{self.line}" if source else f"line {self.line}"
        return (f"{place}: " if place else "") + self.message + (f" {self.remedy}" if self.remedy else "")

    def as_dict(self) -> dict[str, Any]:
        return {
            "severity": self.severity,
            "code": self.code,
            "variable": self.variable,
            "line": self.line,
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

    def message(self, source: str) -> str:
        """All errors in one message, one line each."""
        count = len(self.errors)
        what = "1 problem" if count == 1 else f"{count} problems"
        where = f" for {self.environment}" if self.environment else ""
        lines = [f"The environment in {source} is not fit{where}: {what}."]
        return "\n".join(lines + ["  - " + problem.text(self._place(problem, source)) for problem in self.errors])

    def warning_texts(self, source: str) -> list[str]:
        return [problem.text(self._place(problem, source)) for problem in self.warnings]

    @staticmethod
    def _place(problem: Problem, source: str) -> str:
        return source if problem.line is not None else ""
