# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The keys that a schema of an environment may have: what each holds and what it is for.

These tables are the one place that says so. env_schema_check refuses what is not in them, and json_schema makes
from them what editors and other tools check env.schema.yml with (docs/env.schema.json). Validations themselves
use env_schema_check alone, so that a host needs no library: JSON Schema cannot express everything that it checks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ansible_collections.roastify.ops.plugins.module_utils import env_types


class Key(NamedTuple):
    """What a key holds (one of the kinds that env_schema_check knows), and what it is for."""

    kind: str
    description: str


GROUP_RULES = ("all_or_none", "exactly_one", "at_least_one", "at_most_one")
OPERATORS = ("==", "!=", "<", "<=", ">", ">=")
READERS = ("dotenv", "node", "systemd", "docker")
UNKNOWN = ("ignore", "warning", "error")
#: What an environment variable may be called, so that a shell can set it too.
NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
#: A duration as the npm package ms reads it, always with its unit.
DURATION = r"^[0-9]+(\.[0-9]+)? ?(ms|s|m|h|d|w|y)$"

TOP_LEVEL = {
    "version": Key("version", "Version of this format: 1."),
    "description": Key("text", "What this is the environment of."),
    "environments": Key(
        "environments",
        "Names of the environments that stricter rules exist for. One that is `like` another has its rules too.",
    ),
    "environment_variable": Key(
        "variable",
        "The variable that tells the application at its start which of the environments it is in. In a file for "
        "another environment it is an error.",
    ),
    "readers": Key("readers", "Who reads the .env file. Lines that they would read differently are reported."),
    "unknown": Key("unknown", "What a variable counts as that is not in `variables`. By default a warning."),
    "ignore": Key("texts", "Patterns of unknown names that are not reported, such as `npm_*`."),
    "variables": Key("variables", "Each variable and its rules."),
    "groups": Key("groups", "Variables that depend on each other."),
    "comparisons": Key("comparisons", "Pairs of variables whose values are compared."),
    "templates": Key("templates", "Example files that are generated from this schema."),
}

ENVIRONMENT = {
    "like": Key("environment", "The environment whose rules hold here too."),
    "description": Key("text", "What this environment is."),
}

#: Rules of a variable of any type.
RULES = {
    "type": Key("type", "What the value is. By default a string."),
    "description": Key("text", "What the variable is for. Shown in example files, and where it is missing."),
    "section": Key("text", "Heading in example files."),
    "required": Key("boolean", "Whether it must be set."),
    "required_if": Key(
        "required_if",
        "Other variables and the values of them (one, a list, or `*` for any) that make this one required.",
    ),
    "forbidden": Key("boolean", "Whether it must not be set; of use in one environment."),
    "secret": Key(
        "boolean",
        "Whether it is a secret: its value is never shown, must not be easy to guess, and must not be that of another "
        "variable, or one that the schema has as an example.",
    ),
    "example": Key("value", "Value in example files. That of a secret is refused as a placeholder."),
    "default": Key("value", "What the application takes where it is not set."),
    "values": Key("scalars", "The only values that are allowed."),
    "pattern": Key("pattern", "Regular expression that is searched for in the value; ^ and $ are its ends."),
    "pattern_hint": Key("text", "What to do about a value that does not match, for people."),
    "min_length": Key("count", "Fewest characters."),
    "max_length": Key("count", "Most characters."),
    "allow_empty": Key("boolean", "Whether an empty value counts as a value. Otherwise it counts as not set."),
    "allow_placeholder": Key("boolean", "Whether what looks like a placeholder is a value."),
    "multiline": Key("boolean", "Whether the value may have line ends and tabs."),
    "placeholders": Key("scalars", "More values that are placeholders."),
    "min_entropy": Key("bits", "Of a secret: fewest bits by Shannon's estimate from its characters."),
    "deprecated": Key("deprecated", "Name of the variable that replaces this one, or empty if none does."),
    "remedy": Key("text", "How to put the variable right, in place of the general advice."),
    "environments": Key("overrides", "Rules that replace those here in single environments."),
}

#: Rules of some types only; env_types.TYPE_RULES says of which.
TYPE_RULES = {
    "min": Key("bound", "Least value (or shortest duration)."),
    "max": Key("bound", "Greatest value (or longest duration)."),
    "schemes": Key("scalars", "Schemes that a URL may have. By default http and https."),
    "credentials": Key("boolean", "Whether a URL may hold a user name and password."),
    "forbid_local": Key("boolean", "Whether a host must not be this machine itself (localhost, 127.0.0.1, ::1)."),
    "separator": Key("separator", "What is between the items of a list. By default a comma."),
    "items": Key("items", "Rules of each item of a list: a type other than list, and its rules."),
    "min_items": Key("count", "Fewest items."),
    "max_items": Key("count", "Most items."),
}

#: Rules that an environment cannot change, since they say what the variable is.
FIXED = frozenset({"environments", "section", "type", "secret", "description"})

#: Rules of the items of a list, besides those of their type.
ITEM_RULES = ("type", "values", "pattern", "pattern_hint", "min_length", "max_length")

GROUP = {
    "name": Key("text", "What messages call the group."),
    "rule": Key("group_rule", "How many of the variables are to be set."),
    "variables": Key("names", "The variables, at least two."),
    "environments": Key("environment_names", "The environments that the rule holds in. By default all."),
    "remedy": Key("text", "How to put it right, in place of the general advice."),
}

COMPARISON = {
    "left": Key("variable", "The variable on the left."),
    "operator": Key("operator", "How they must compare. Only numbers, ports and durations have an order."),
    "right": Key("variable", "The variable on the right."),
    "remedy": Key("text", "How to put it right, in place of the general advice."),
}

TEMPLATE = {
    "file": Key("path", "Path of the example file, from the directory of the schema."),
    "title": Key("text", "First line of the file."),
    "environment": Key("environment", "The environment that the file is for."),
    "examples": Key("examples", "Values in place of the variables' own examples."),
    "commented": Key("names_or_none", "Variables that are written as comments."),
    "leave_out": Key("names_or_none", "Variables that are not written."),
}

_TEXT: dict[str, Any] = {"type": "string"}
_SCALAR: dict[str, Any] = {"type": ["string", "boolean", "number"]}
_VALUE: dict[str, Any] = {"type": ["string", "boolean", "number", "array", "object"]}
_NAMES: dict[str, Any] = {"type": "array", "items": {"type": "string", "pattern": NAME}}
_KINDS: dict[str, dict[str, Any]] = {
    "version": {"const": 1},
    "text": _TEXT,
    "texts": {"type": "array", "items": _TEXT},
    "path": {"type": "string", "minLength": 1},
    "boolean": {"type": "boolean"},
    "count": {"type": "integer", "minimum": 0},
    "bits": {"type": "number", "minimum": 0},
    "bound": {"type": ["number", "string"]},
    "value": _VALUE,
    "scalars": {"type": "array", "items": _SCALAR, "minItems": 1},
    "pattern": {"type": "string", "format": "regex"},
    "separator": {"type": "string", "minLength": 1},
    "type": {"enum": sorted(env_types.CHECKS)},
    "variable": {"type": "string", "pattern": NAME},
    "deprecated": {"type": "string"},
    "environment": _TEXT,
    "names": {**_NAMES, "minItems": 2, "uniqueItems": True},
    "names_or_none": _NAMES,
    "environment_names": {"type": "array", "items": _TEXT},
    "group_rule": {"enum": list(GROUP_RULES)},
    "operator": {"enum": list(OPERATORS)},
    "unknown": {"enum": list(UNKNOWN)},
    "readers": {"type": "array", "items": {"enum": list(READERS)}, "minItems": 1, "uniqueItems": True},
    "required_if": {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {**_SCALAR, "type": [*_SCALAR["type"], "array"], "items": _SCALAR},
    },
    "examples": {
        "type": "object",
        "additionalProperties": {"type": ["string", "boolean", "number", "array", "object"]},
    },
    "items": {"$ref": "#/$defs/items"},
    "overrides": {"type": "object", "additionalProperties": {"$ref": "#/$defs/override"}},
    "environments": {
        "type": "object",
        "additionalProperties": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/environment"}]},
    },
    "variables": {
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"pattern": NAME},
        "additionalProperties": {"$ref": "#/$defs/variable"},
    },
    "groups": {"type": "array", "items": {"$ref": "#/$defs/group"}},
    "comparisons": {"type": "array", "items": {"$ref": "#/$defs/comparison"}},
    "templates": {"type": "object", "additionalProperties": {"$ref": "#/$defs/template"}},
}


def _mapping(keys: dict[str, Key], required: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    properties = {name: {"description": key.description, **_KINDS[key.kind]} for name, key in keys.items()}
    result: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        result["required"] = list(required)
    return {**result, **more}


def _by_type(overrides: bool) -> list[dict[str, Any]]:
    """Which rules a type has not, and what its bounds are."""
    conditions = []
    same: dict[frozenset[str], list[str]] = {}
    for kind in sorted(env_types.CHECKS):
        same.setdefault(env_types.TYPE_RULES.get(kind, frozenset()), []).append(kind)
    bounds = {
        "duration": {"type": "string", "pattern": DURATION},
        "number": {"type": "number"},
    }
    groups = [(kinds, rules) for rules, kinds in same.items() if "min" not in rules]
    groups += [([kind], rules) for rules, kinds in same.items() if "min" in rules for kind in kinds]
    for kinds, rules in groups:
        properties: dict[str, Any] = {name: False for name in TYPE_RULES if name not in rules}
        if "min" in rules:
            properties.update({side: bounds[env_types.ORDERED[kinds[0]]] for side in ("min", "max")})
        if overrides:
            inside = {"properties": dict(properties)}
            properties["environments"] = {"additionalProperties": inside}
        condition: dict[str, Any] = {"properties": {"type": {"enum": kinds}}}
        if "string" not in kinds:
            condition["required"] = ["type"]
        conditions.append({"if": condition, "then": {"properties": properties}})
    enum = {"properties": {"type": {"const": "enum"}}, "required": ["type"]}
    conditions.append({"if": enum, "then": {"required": ["values"]}})
    return conditions


def json_schema() -> dict[str, Any]:
    """The format as a JSON Schema (draft 2020-12).

    What it cannot express, and env_schema_check alone finds: names of variables and environments that the schema
    does not have, environments that are like each other in a circle, a least above its greatest, defaults and
    `values` that break the variable's own rules, a default of a required variable, an order between types that
    have none, and patterns that are no regular expressions.
    """
    secrets_only = {
        "if": {"not": {"properties": {"secret": {"const": True}}, "required": ["secret"]}},
        "then": {
            "properties": {
                "min_entropy": False,
                "environments": {"additionalProperties": {"properties": {"min_entropy": False}}},
            }
        },
    }
    overridable = {name: key for name, key in {**RULES, **TYPE_RULES}.items() if name not in FIXED}
    item_types = [kind for kind in sorted(env_types.CHECKS) if kind != "list"]
    item_rules = {name: RULES[name] for name in ITEM_RULES} | {
        name: key for name, key in TYPE_RULES.items() if name not in env_types.TYPE_RULES["list"]
    }
    items = _mapping(item_rules, allOf=_by_type(overrides=False))
    items["properties"]["type"] = {"description": RULES["type"].description, "enum": item_types}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Schema of an application's environment (env.schema.yml of roastify.ops)",
        **_mapping(TOP_LEVEL, ("variables",)),
        "$defs": {
            "environment": _mapping(ENVIRONMENT),
            "variable": _mapping({**RULES, **TYPE_RULES}, allOf=[*_by_type(overrides=True), secrets_only]),
            "override": _mapping(overridable),
            "items": items,
            "group": _mapping(GROUP, ("rule", "variables")),
            "comparison": _mapping(COMPARISON, ("left", "operator", "right")),
            "template": _mapping(TEMPLATE, ("file", "environment")),
        },
    }
