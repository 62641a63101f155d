"""Every rule of an environment's schema with the exact words that people read: tests/data/environment-messages.json.

A case there has a `schema`, perhaps an `environment`, and a .env file as `text` (or a text repeated as `repeat`, an
inventory as `variables`, several of them as `sources`; `port` is where a deployment asks). `problems` is all that is
found in it, `secrets` what must not be shown.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.roastify.ops.plugins.module_utils.env_port import PORT, port_problems
from ansible_collections.roastify.ops.plugins.module_utils.env_report import Report
from ansible_collections.roastify.ops.plugins.module_utils.env_schema import Schema
from ansible_collections.roastify.ops.plugins.module_utils.env_sources import Source, merge

ROOT = Path(__file__).resolve().parents[2]
CASES: list[dict[str, Any]] = json.loads((ROOT / "tests/data/environment-messages.json").read_text(encoding="utf-8"))
ENGINE = sorted((ROOT / "plugins/module_utils").glob("env_*.py"))


def report_of(case: dict[str, Any]) -> Report:
    schema, environment = Schema.load(case["schema"]), case.get("environment", "")
    if "variables" in case:
        report = schema.validate_variables(case["variables"], environment)
        if "port" in case:
            rules = schema.variables.get(PORT, {})
            report.problems += port_problems(case["variables"], rules, environment, case["port"])
        return report
    if "sources" in case:
        merged = merge([Source(source["name"], source["variables"], {}) for source in case["sources"]])
        report = schema.validate_variables(merged.variables, environment)
        report.problems += merged.problems
        return report
    if "repeat" in case:
        head, unit, times = case["repeat"]
        return schema.validate_text(head + unit * times, environment)
    return schema.validate_text(case["text"], environment)


@pytest.mark.parametrize("case", CASES, ids=[case["title"] for case in CASES])
def test_exact_words(case: dict[str, Any]) -> None:
    found = report_of(case).problems
    expected = [{"line": None, "found": "", **problem} for problem in case["problems"]]
    assert [
        {
            "severity": problem.severity,
            "code": problem.code,
            "variable": problem.variable,
            "line": problem.line,
            "found": problem.found,
            "text": f"{problem.message} {problem.remedy}".strip(),
        }
        for problem in found
    ] == expected
    for problem in found:
        assert problem.message.endswith("."), "a sentence"
        said = repr(problem) + problem.text(".env")
        assert not any(secret in said for secret in case.get("secrets", ())), "a secret is shown"


def test_titles_are_unique() -> None:
    titles = [case["title"] for case in CASES]
    assert len(set(titles)) == len(titles)


# --- no rule without a case: what the sources can say, against what the cases say ---


def _pattern(node: ast.expr) -> str:
    """What a message of the sources looks like: what is filled in may be anything."""
    if isinstance(node, ast.Constant):
        return re.escape(str(node.value))
    if isinstance(node, ast.JoinedStr):
        return "".join(_pattern(part) for part in node.values)
    return ".*"


def _said_in_sources() -> Iterator[tuple[str, str, str]]:
    """Place, code and pattern of the message of each Finding(...), Problem(...) and say(...) with a code of its own."""
    for path in ENGINE:
        if path.name == "env_schema_check.py":
            continue  # speaks of the schema, in texts without codes
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            code, message = {"Finding": (0, 1), "say": (0, 2), "Problem": (1, 3)}.get(name, (0, 0))
            if not message or len(node.args) <= message:
                continue
            if name == "say" and isinstance(node.func, ast.Name):
                code, message = 1, 2  # the short form in env_file_text
            value = node.args[code]
            place = f"{path.name}:{node.lineno}"
            if isinstance(value, ast.Constant):
                yield place, str(value.value), _pattern(node.args[message])
            else:
                # Handing on the code of something that is listed itself.
                assert ast.unparse(value) in ("finding.code", "problem.code", "code", "p.code"), place


SAID = list(_said_in_sources())


def test_every_code_has_a_case() -> None:
    codes = {code for _place, code, _message in SAID}
    assert len(codes) > 40
    assert codes == {problem["code"] for case in CASES for problem in case["problems"]}


@pytest.mark.parametrize(("place", "code", "pattern"), SAID, ids=[f"{code}@{place}" for place, code, _ in SAID])
def test_every_message_has_a_case(place: str, code: str, pattern: str) -> None:
    texts = [problem["text"] for case in CASES for problem in case["problems"] if problem["code"] == code]
    assert any(re.search(pattern, text, re.DOTALL) for text in texts), f"no case for {place}"
