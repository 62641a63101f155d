# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Validates an environment against a schema: all problems at once, never a secret's value.

The schema is a mapping (env.schema.yml, read by whoever has a YAML parser). `Schema.load` checks the
schema itself, `Schema.validate` an environment. The reference of the format is the documentation of the
module env_validate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils import dotenv
from ansible_collections.roastify.ops.plugins.module_utils.env_report import ERROR, Problem, Report
from ansible_collections.roastify.ops.plugins.module_utils.env_schema_check import problems_of
from ansible_collections.roastify.ops.plugins.module_utils.env_validation import Validation, file_problems


class SchemaError(ValueError):
    """The schema is wrong; `problems` has every reason."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("the schema of the environment is wrong: " + "; ".join(self.problems))


class Schema:
    """A checked schema."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data
        self.variables: dict[str, Mapping[str, Any]] = dict(data["variables"])
        self.environments: Mapping[str, Any] = data.get("environments") or {}

    @classmethod
    def load(cls, data: Any) -> Schema:
        """Checks a schema; raises SchemaError with everything that is wrong with it."""
        problems = problems_of(data)
        if problems:
            raise SchemaError(problems)
        return cls(data)

    def rules_for(self, name: str, environment: str) -> dict[str, Any]:
        """The rules of a variable in one environment: its own, then those of what it is like, then its."""
        rules = {key: value for key, value in self.variables[name].items() if key != "environments"}
        overrides: Mapping[str, Any] = self.variables[name].get("environments") or {}
        for step in reversed(self.lineage(environment)):
            rules.update(overrides.get(step) or {})
        return rules

    def lineage(self, environment: str) -> list[str]:
        lineage: list[str] = []
        current: str | None = environment
        while current:
            lineage.append(current)
            current = (self.environments.get(current) or {}).get("like")
        return lineage

    def validate_text(self, text: str, environment: str = "", unknown: str | None = None) -> Report:
        """Validates the content of a .env file."""
        document = dotenv.read(text)
        report = self.validate(document.entries, environment, unknown)
        report.problems.extend(file_problems(document, self.variables))
        report.problems.sort(key=lambda problem: (problem.line or 0, problem.severity, problem.code))
        return report

    def validate_variables(
        self, variables: Mapping[str, Any], environment: str = "", unknown: str | None = None
    ) -> Report:
        """Validates variables as an inventory holds them; null stands for a variable that is not set."""
        entries: list[dotenv.Entry] = []
        problems: list[Problem] = []
        for name, value in variables.items():
            if value is None:
                continue
            try:
                text = dotenv.as_text(str(name), value)
                dotenv.assignment(str(name), text)
            except dotenv.DotenvError as error:
                problems.append(Problem(ERROR, "not_writable", str(name), f"{error}."))
                text = text if isinstance(value, str) else "?"
            entries.append(dotenv.Entry(str(name), text, 0, 0))
        report = self.validate(entries, environment, unknown)
        reported = {problem.variable for problem in problems}
        kept = [problem for problem in report.problems if problem.variable not in reported]
        report.problems = [Problem(p.severity, p.code, p.variable, p.message, p.remedy) for p in problems + kept]
        return report

    def validate(self, entries: Sequence[dotenv.Entry], environment: str = "", unknown: str | None = None) -> Report:
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
