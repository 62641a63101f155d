# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes the .env.*.example files from a schema, so that they can never say something else.

The command is env_check: `examples` writes the files, `examples --check` only says which are out of date.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils.env_schema import Schema
from ansible_collections.roastify.ops.plugins.module_utils.env_types import text_of

_WIDTH = 110

#: What the types are called where their names are not words.
_KINDS = {
    "url": "URL",
    "email": "e-mail address",
    "regex": "regular expression",
    "aws_region": "AWS region",
    "arn": "ARN",
    "s3_bucket": "S3 bucket",
    "log_group": "log group",
    "path": "absolute path",
    "json": "JSON",
}


def render(schema: Schema, name: str, schema_file: str = "env.schema.yml") -> str:
    """The text of one example file."""
    template: Mapping[str, Any] = schema.data["templates"][name]
    environment = str(template["environment"])
    lines = [
        f"# {template.get('title', name)}",
        f"# Generated from {schema_file}; change it there. Fill in what stands in <>.",
    ]
    section = ""
    for variable in schema.variables:
        if variable in (template.get("leave_out") or ()):
            continue
        rules = schema.rules_for(variable, environment)
        if rules.get("section", "") != section:
            section = str(rules.get("section", ""))
            lines += ["", f"# --- {section} ---"]
        lines += textwrap.wrap(
            _comment(rules, _group(schema, variable, environment)),
            _WIDTH,
            initial_indent="# ",
            subsequent_indent="#   ",
        )
        overrides: Mapping[str, Any] = template.get("examples") or {}
        example = overrides.get(variable, rules.get("example", rules.get("default", "")))
        optional = not rules.get("required") and variable not in overrides and "example" not in rules
        if variable == schema.data.get("environment_variable"):
            example, optional = overrides.get(variable, environment), False
        mark = "#" if optional or variable in (template.get("commented") or ()) else ""
        lines.append(f"{mark}{variable}={text_of(example)}")
    return "\n".join(lines) + "\n"


def _group(schema: Schema, variable: str, environment: str) -> str:
    """Name of the group of a variable that is set as a whole or not at all; empty if it is in none."""
    for group in schema.data.get("groups") or ():
        holds = environment in group.get("environments", [environment])
        if group["rule"] == "all_or_none" and variable in group["variables"] and holds:
            return str(group.get("name", ""))
    return ""


def _or_of(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} or {items[-1]}"


def _comment(rules: Mapping[str, Any], group: str) -> str:
    parts = [str(rules.get("description", ""))]
    kind = str(rules.get("type", "string"))
    limits = []
    if "values" in rules:
        allowed = [text_of(item) for item in rules["values"]]
        limits.append(_or_of(allowed) if len(allowed) > 1 else f"must be {allowed[0]}")
    elif kind not in ("string", "enum"):
        limits.append(_KINDS.get(kind, kind))
    if kind == "url" and "schemes" in rules:
        limits.append("beginning with " + _or_of([f"{scheme}://" for scheme in rules["schemes"]]))
    for low, high, unit in (("min", "max", ""), ("min_length", "max_length", " characters")):
        if low in rules and high in rules:
            limits.append(f"{rules[low]} to {rules[high]}{unit}")
        elif low in rules:
            limits.append(f"at least {rules[low]}{unit}")
        elif high in rules:
            limits.append(f"at most {rules[high]}{unit}")
    if rules.get("required"):
        limits.append("required")
    elif "default" in rules:
        limits.append(f"default {text_of(rules['default'])}")
    else:
        limits.append(f"optional: all of {group} or none" if group else "optional")
    return f"{parts[0]} ({', '.join(limits)})"


def files(schema: Schema, schema_file: str = "env.schema.yml") -> dict[str, str]:
    """Path, relative to the schema, and text of every example file."""
    templates: Mapping[str, Any] = schema.data.get("templates") or {}
    return {str(templates[name]["file"]): render(schema, name, schema_file) for name in templates}
