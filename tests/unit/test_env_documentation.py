"""docs/environment.md names everything that the engine knows, in the engine's own words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import env_check, env_format, env_types
from test_env_messages import SAID

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/environment.md").read_text(encoding="utf-8")
TABLES = {
    "top": env_format.TOP_LEVEL,
    "environment": env_format.ENVIRONMENT,
    "rules": env_format.RULES,
    "rules of types": env_format.TYPE_RULES,
    "group": env_format.GROUP,
    "comparison": env_format.COMPARISON,
    "template": env_format.TEMPLATE,
}


def first_cells(heading: str) -> list[str]:
    """What stands in `code` at the left of the table below a header row."""
    rows = PAGE[PAGE.index(heading) :].partition("\n\n")[0].splitlines()[2:]
    return [re.match(r"\| `([^`]+)` \|", row).group(1) for row in rows]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", TABLES)
def test_every_key_is_there_as_the_engine_describes_it(name: str) -> None:
    for key, described in TABLES[name].items():
        row = re.compile(rf"^\| `{key}` \|.*\| {re.escape(described.description)} \|$", re.MULTILINE)
        assert row.search(PAGE), f"{key} of {name}: {described.description}"


def test_no_key_is_there_that_the_engine_does_not_know() -> None:
    found = re.findall(r"^\| `([a-z_]+)` \| (?:.* \| )?[A-Z].*\. \|$", PAGE, re.MULTILINE)
    assert set(found) <= {key for table in TABLES.values() for key in table}


def test_the_types_that_have_a_rule_are_named() -> None:
    for rule, described in env_format.TYPE_RULES.items():
        types = ", ".join(kind for kind in env_types.CHECKS if rule in env_types.TYPE_RULES.get(kind, ()))
        assert re.search(rf"^\| `{rule}` \| [^|]+ \| {types} \| {re.escape(described.description)} \|$", PAGE, re.M)


def test_every_type_code_and_rule_of_groups() -> None:
    assert first_cells("| type | takes |") == list(env_types.CHECKS)
    codes = first_cells("| code | what is wrong |")
    assert len(set(codes)) == len(codes)
    assert set(codes) == {code for _place, code, _message in SAID}
    assert first_cells("| rule | demands |") == list(env_format.GROUP_RULES)


def test_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        env_check.main(["--help"])
    commands = re.findall(r"^    ([a-z-]+)(?: {2,}|$)", capsys.readouterr().out, re.MULTILINE)
    assert len(commands) == 4
    assert [cell.split()[1] for cell in first_cells("| command | does |")] == commands


def test_the_module_names_every_key() -> None:
    text = (ROOT / "plugins/modules/env_validate.py").read_text(encoding="utf-8")
    for table in (env_format.TOP_LEVEL, env_format.RULES, env_format.TYPE_RULES):
        assert [key for key in table if f"C({key})" not in text] == []
    assert [kind for kind in env_types.CHECKS if not re.search(rf"\b{kind}\b", text)] == []
