# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Validates an environment against a schema: all problems at once, never a secret's value.

The schema is a mapping (env.schema.yml, read by whoever has a YAML parser). `Schema.load` checks the
schema itself, `Schema.validate` an environment. The reference of the format is the documentation of the
module env_validate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils import dotenv, env_secrets
from ansible_collections.roastify.ops.plugins.module_utils.env_file_text import file_problems, rendered_problems
from ansible_collections.roastify.ops.plugins.module_utils.env_format import READERS
from ansible_collections.roastify.ops.plugins.module_utils.env_report import ERROR, Problem, Report
from ansible_collections.roastify.ops.plugins.module_utils.env_schema_check import problems_of
from ansible_collections.roastify.ops.plugins.module_utils.env_types import text_of
from ansible_collections.roastify.ops.plugins.module_utils.env_validation import Validation

#: Longest text of a .env file, in characters. Linux passes on at most a quarter of the stack's limit of 8 MiB as
#: arguments and environment together (execve(2)).
MAX_TEXT = 2 * 1024 * 1024

#: Most problems of one rule that are told one by one.
MAX_PROBLEMS = 100


class SchemaError(ValueError):
    """The schema is wrong; `problems` has every reason."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("the schema of the environment is wrong: " + "; ".join(self.problems))


def _examples(name: str, data: Mapping[str, Any]) -> list[str]:
    rules = data["variables"][name]
    holders: list[Mapping[str, Any]] = [rules, *((rules.get("environments") or {}).values())]
    found = [holder["example"] for holder in holders if "example" in holder]
    for template in (data.get("templates") or {}).values():
        examples = template.get("examples") or {}
        if name in examples:
            found.append(examples[name])
    return [text_of(value) for value in found]


def _shortened(problems: list[Problem]) -> list[Problem]:
    """At most 100 problems of each rule, so that a file that is none can be reported, too."""
    counts = Counter(problem.code for problem in problems)
    seen: Counter[str] = Counter()
    kept: list[Problem] = []
    for problem in problems:
        seen[problem.code] += 1
        rest = counts[problem.code] - MAX_PROBLEMS
        if seen[problem.code] <= MAX_PROBLEMS or rest == 1:
            kept.append(problem)
        elif seen[problem.code] == MAX_PROBLEMS + 1:
            message = f"{rest} more problems of this kind ({problem.code})."
            kept.append(
                Problem(problem.severity, problem.code, "", message, "Check that it is the right file.", problem.line)
            )
    return kept


class Schema:
    """A checked schema."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data
        self.variables: dict[str, Mapping[str, Any]] = dict(data["variables"])
        self.environments: Mapping[str, Any] = data.get("environments") or {}
        #: Of each secret, the values that an example file or the schema shows: everybody knows them.
        self.examples = {name: _examples(name, data) for name, rules in self.variables.items() if rules.get("secret")}

    @classmethod
    def load(cls, data: Any) -> Schema:
        """Checks a schema; raises SchemaError with everything that is wrong with it."""
        problems = problems_of(data)
        if problems:
            raise SchemaError(problems)
        return cls(data)

    def rules_for(self, name: str, environment: str) -> dict[str, Any]:
        """The rules of a variable in one environment: its own, then those of what it is like, then its."""
        rules = dict(self.variables[name])
        overrides: Mapping[str, Any] = rules.pop("environments", None) or {}
        if overrides:
            for step in reversed(self.lineage(environment)):
                rules.update(overrides.get(step) or {})
        return rules

    def lineage(self, environment: str) -> list[str]:
        """An environment, what it is like, what that is like, and so on."""
        lineage: list[str] = []
        current: str | None = environment
        while current:
            lineage.append(current)
            current = (self.environments.get(current) or {}).get("like")
        return lineage

    def validate_text(self, text: str, environment: str = "", unknown: str | None = None) -> Report:
        """Validates the content of a .env file.

        `unknown` is what unknown names count as (ignore, warning or error), by default what the schema says.
        """
        if len(text) > MAX_TEXT:
            problem = Problem(
                ERROR,
                "file_too_large",
                "",
                f"The file is longer than {MAX_TEXT // 1024} KiB, more than Linux takes for a whole environment.",
                "Check that it is the right file.",
                found=f"{len(text)} characters",
            )
            return Report(environment, [], [problem])
        document = dotenv.read(text)
        report = self.validate(document.entries, environment, unknown)
        report.problems.extend(file_problems(text, document, self.variables, self.data.get("readers", READERS)))
        report.problems.sort(key=lambda problem: (problem.line or 0, problem.severity, problem.code))
        report.problems = _shortened(report.problems)
        return self._without_odd_names(report)

    def _without_odd_names(self, report: Report) -> Report:
        """Takes out what was read as a name but may be a piece of a secret of several lines."""
        shown: dict[str, str] = {}
        for name in dict.fromkeys([*(problem.variable for problem in report.problems), *report.variables]):
            if name in self.variables or not name or env_secrets.presentable(name):
                continue
            if len(shown) > 100 or env_secrets.nearest(name, self.variables) is None:
                shown[name] = f"(a name of {len(name)} characters)"
        if shown:
            report.variables = sorted({shown.get(name, name) for name in report.variables})
            report.problems = [
                replace(
                    problem,
                    variable=shown[problem.variable],
                    message=problem.message.replace(problem.variable, shown[problem.variable]),
                    remedy=problem.remedy.replace(problem.variable, shown[problem.variable]),
                )
                if problem.variable in shown
                else problem
                for problem in report.problems
            ]
        return report

    def validate_variables(
        self, variables: Mapping[str, Any], environment: str = "", unknown: str | None = None
    ) -> Report:
        """Validates variables as an inventory holds them; null stands for a variable that is not set."""
        entries: list[dotenv.Entry] = []
        problems: list[Problem] = []
        lines: list[str] = []
        for name, value in variables.items():
            if value is None:
                continue
            try:
                text = dotenv.as_text(str(name), value)
                lines.append(dotenv.assignment(str(name), text))
            except dotenv.DotenvError as error:
                problems.append(Problem(ERROR, "not_writable", str(name), f"{error}."))
                text = text if isinstance(value, str) else "?"
            entries.append(dotenv.Entry(str(name), text, 0, 0))
        report = self.validate(entries, environment, unknown)
        # The role writes the file for dotenv; other readers count only if the schema names them.
        report.problems.extend(rendered_problems(lines, self.data.get("readers", ())))
        reported = {problem.variable for problem in problems}
        kept = [problem for problem in report.problems if problem.variable not in reported]
        report.problems = [replace(problem, line=None) for problem in problems + kept]
        return report

    def validate(self, entries: Sequence[dotenv.Entry], environment: str = "", unknown: str | None = None) -> Report:
        """Validates assignments that were read already; of several to one name the last counts."""
        if environment and environment not in self.environments:
            known = ", ".join(self.environments) or "none"
            problem = Problem(
                ERROR,
                "environment",
                "",
                f"The schema knows no environment {environment}.",
                f"Use one of its environments ({known}) or add it to the schema.",
            )
            return Report(environment, sorted({entry.key for entry in entries}), [problem])
        return Validation(self, list(entries), environment, unknown).run()
