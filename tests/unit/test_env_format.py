"""The JSON Schema of env.schema.yml (docs/env.schema.json) and the engine's own check say the same."""

from __future__ import annotations

import copy
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.roastify.ops.plugins.module_utils import env_format, env_types
from ansible_collections.roastify.ops.plugins.module_utils.env_schema_check import problems_of
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "docs/env.schema.json"
VALIDATOR = Draft202012Validator(env_format.json_schema())

# A schema with every key of the format somewhere.
RICH: dict[str, Any] = {
    "version": 1,
    "description": "An application",
    "environments": {"local": {"description": "here"}, "staging": {"like": "production"}, "production": None},
    "environment_variable": "STAGE",
    "readers": ["dotenv", "node"],
    "unknown": "error",
    "ignore": ["npm_*"],
    "variables": {
        "STAGE": {"type": "enum", "values": ["local", "staging", "production"], "section": "One"},
        "TEXT": {"pattern": "^[a-z]+$", "pattern_hint": "Letters", "min_length": 1, "max_length": 9, "example": "x"},
        "KEY": {
            "secret": True,
            "min_entropy": 96,
            "placeholders": ["blank"],
            "required": True,
            "remedy": "Ask Jo.",
            "environments": {"production": {"min_entropy": 128.5, "min_length": 64}},
        },
        "PORT": {"type": "port", "min": 1, "max": 9000, "default": 80, "environments": {"local": {"min": 1024}}},
        "RATE": {"type": "number", "min": 0.5},
        "LIFE": {"type": "duration", "min": "5m", "max": "90d", "environments": {"production": {"max": "7d"}}},
        "LIMIT": {"type": "duration"},
        "URL": {"type": "url", "schemes": ["https"], "credentials": False, "forbid_local": True},
        "HOST": {"type": "host", "forbid_local": True, "required_if": {"TEXT": ["x", "y"], "URL": "*"}},
        "HOSTS": {
            "type": "list",
            "separator": ";",
            "min_items": 1,
            "max_items": 3,
            "items": {"type": "host", "forbid_local": True},
        },
        "SIZES": {"type": "list", "items": {"type": "enum", "values": [1, 2]}, "allow_empty": True},
        "OLD": {"deprecated": "TEXT", "allow_placeholder": True, "multiline": True, "description": "gone"},
        "DEBUG": {"type": "boolean", "environments": {"production": {"forbidden": True}}},
    },
    "groups": [
        {"name": "G", "rule": "all_or_none", "variables": ["TEXT", "URL"], "environments": ["local"], "remedy": "."},
        {"rule": "at_most_one", "variables": ["HOST", "HOSTS"]},
    ],
    "comparisons": [
        {"left": "LIFE", "operator": "<=", "right": "LIMIT", "remedy": "x"},
        {"left": "TEXT", "operator": "!=", "right": "KEY"},
    ],
    "templates": {
        "one": {
            "file": ".env.example",
            "title": "T",
            "environment": "production",
            "examples": {"TEXT": "abc", "PORT": 1},
            "commented": ["URL"],
            "leave_out": ["OLD"],
        }
    },
}

# What only the engine finds, since JSON Schema has no words for it. env_format.json_schema names them, too.
RELATIONS = {
    "names of variables": r"is not a variable of this schema|must name (the|another) variable",
    "names of environments": r"is not an environment of this schema|must be an environment of this schema",
    "environments like others": r"is like ",
    "least above greatest": r"is greater than ",
    "own rules broken": r"\.(default|values): (one of them )?(is|has|does|must be|holds|begins|points|leads) ",
    "default of a required one": r"has no use for a default",
    "order between types": r"compares ",
    "no regular expression": r"is not a regular expression",
    "whole numbers written as 5.0": r"must be a whole number",
    "names that YAML reads as something else": r"put quotes around it",
}


def refused(data: Any) -> list[str]:
    """What the JSON Schema says against a schema."""
    return [f"{list(error.absolute_path)}: {error.message}" for error in VALIDATOR.iter_errors(data)]


def only_relations(problems: list[str]) -> bool:
    return all(any(re.search(pattern, problem) for pattern in RELATIONS.values()) for problem in problems)


def test_the_shipped_file_is_made_from_the_engine() -> None:
    assert json.loads(SHIPPED.read_text(encoding="utf-8")) == env_format.json_schema(), (
        "out of date: write the output of `env_check json-schema` to docs/env.schema.json"
    )
    Draft202012Validator.check_schema(env_format.json_schema())


def test_every_key_is_described() -> None:
    def mappings(node: Any) -> list[dict[str, Any]]:
        inner = [found for value in node.values() if isinstance(value, dict) for found in mappings(value)]
        return [*inner, node["properties"]] if node.get("additionalProperties") is False else inner

    described = mappings(env_format.json_schema())
    assert len(described) == 8
    for properties in described:
        for name, key in properties.items():
            assert re.match(r"[A-Z].*\.$", key["description"]), name


def test_rules_of_types_are_those_of_the_engine() -> None:
    assert {rule for rules in env_types.TYPE_RULES.values() for rule in rules} == set(env_format.TYPE_RULES)
    assert not set(env_format.RULES) & set(env_format.TYPE_RULES)
    assert set(env_format.RULES) >= env_format.FIXED


def test_roastify_passes() -> None:
    text = (ROOT / "examples/roastify/env.schema.yml").read_text(encoding="utf-8")
    assert "# yaml-language-server: $schema=../../docs/env.schema.json" in text
    assert refused(yaml.safe_load(text)) == []
    assert problems_of(yaml.safe_load(text)) == []


def test_the_rich_one_passes_and_has_every_key() -> None:
    assert refused(RICH) == []
    assert problems_of(RICH) == []

    def keys(node: Any) -> set[str]:
        if isinstance(node, dict):
            return set(node) | {key for value in node.values() for key in keys(value)}
        return {key for item in node for key in keys(item)} if isinstance(node, list) else set()

    tables = (
        env_format.TOP_LEVEL, env_format.ENVIRONMENT, env_format.RULES, env_format.TYPE_RULES,
        env_format.GROUP, env_format.COMPARISON, env_format.TEMPLATE,
    )  # fmt: skip
    assert {name for table in tables for name in table} <= keys(RICH)


JUNK: list[Any] = [
    None,
    True,
    False,
    -1,
    0,
    3,
    1.5,
    "",
    "x",
    "1h",
    "PORT",
    [],
    ["x"],
    ["PORT", "PORT"],
    [[]],
    {},
    {"A": 1},
]
KEYS = sorted({*env_format.TOP_LEVEL, *env_format.RULES, *env_format.TYPE_RULES, *env_format.GROUP, "x", "likes"})


def places(node: Any) -> list[tuple[Any, Any]]:
    """Every mapping or list with each of its keys or indexes."""
    children = list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
    return [(node, key) for key, _ in children] + [place for _, child in children for place in places(child)]


def mutant(source: random.Random) -> dict[str, Any]:
    """The rich schema with one thing changed."""
    data = copy.deepcopy(RICH)
    holder, key = source.choice(places(data))
    how = source.randrange(4)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, dict):
        holder[source.choice(KEYS)] = holder.pop(key)
    elif how == 2 and isinstance(holder, dict):
        holder[source.choice(KEYS)] = source.choice(JUNK)
    else:
        holder[key] = source.choice(JUNK)
    return data


def test_mutants_are_refused_by_both_or_by_neither() -> None:
    source = random.Random(11)
    seen: Counter[str] = Counter()
    for _ in range(1500):
        data = mutant(source)
        by_json, by_engine = refused(data), problems_of(data)
        if by_json:
            assert by_engine, f"only the JSON Schema refuses: {by_json}"
        elif by_engine:
            assert only_relations(by_engine), f"only the engine refuses: {by_engine}"
            for name, pattern in RELATIONS.items():
                seen[name] += any(re.search(pattern, problem) for problem in by_engine)
        seen["by both" if by_json else "by the engine" if by_engine else "by neither"] += 1
    assert min(seen["by both"], seen["by neither"]) > 100, seen
    # The list of what JSON Schema cannot say has nothing in it that never happens.
    rare = {"environments like others", "order between types", "no regular expression", "default of a required one"}
    rare |= {"whole numbers written as 5.0", "names that YAML reads as something else"}
    assert all(seen[name] for name in RELATIONS if name not in rare), seen


LEAVES = st.none() | st.booleans() | st.integers(-2, 99) | st.floats() | st.text(max_size=4) | st.sampled_from(KEYS)


@settings(max_examples=600, deadline=None)
@given(
    st.recursive(
        LEAVES,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*KEYS, "A", "B"]), inner, max_size=4)
            | st.fixed_dictionaries({"variables": st.dictionaries(st.sampled_from("AB"), inner, max_size=2)})
            | st.fixed_dictionaries({"type": st.sampled_from(sorted(env_types.CHECKS))}, optional={"min": inner})
        ),
        max_leaves=15,
    )
)
def test_what_the_json_schema_refuses_the_engine_refuses(data: Any) -> None:
    by_json, by_engine = refused(data), problems_of(data)
    if by_json:
        assert by_engine, by_json
    elif by_engine:
        assert only_relations(by_engine), by_engine


def test_each_relation_is_found_by_the_engine_alone() -> None:
    def with_rules(**rules: Any) -> dict[str, Any]:
        return {"variables": {"A": {}, "B": rules}, "environments": {"x": {}}}

    cases: dict[str, Any] = {
        "names of variables": with_rules(required_if={"C": 1}),
        "names of environments": with_rules(environments={"y": {}}),
        "environments like others": {"variables": {"A": {}}, "environments": {"x": {"like": "x"}}},
        "least above greatest": with_rules(min_length=2, max_length=1),
        "own rules broken": with_rules(type="port", default="x"),
        "default of a required one": with_rules(required=True, default="x"),
        "order between types": {**with_rules(), "comparisons": [{"left": "A", "operator": "<", "right": "B"}]},
        "no regular expression": with_rules(pattern="("),
        "whole numbers written as 5.0": with_rules(min_length=5.0),
    }
    assert set(cases) == set(RELATIONS) - {"names that YAML reads as something else"}
    for name, data in cases.items():
        assert refused(data) == [], name
        problems = problems_of(data)
        assert len(problems) == 1 and re.search(RELATIONS[name], problems[0]), (name, problems)
    assert problems_of(yaml.safe_load("variables: {ON: {}}")) == [
        "variables.True: YAML reads this name as a bool: put quotes around it"
    ]
