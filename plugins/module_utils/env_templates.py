# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes the .env.*.example files from a schema, so that they can never say something else.

The command is env_check: `examples` writes the files, `examples --check` only says which are out of date.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils.env_schema import Schema
from ansible_collections.roastify.ops.plugins.module_utils.env_types import text_of

_WIDTH = 100


def render(schema: Schema, name: str, schema_file: str = "env.schema.yml") -> str:
    """The text of one example file."""
    template: Mapping[str, Any] = schema.data["templates"][name]
    environment = str(template["environment"])
    lines = [
        f"# {template.get('title', name)}",
        f"# Generated from {schema_file}; change it there. Values in <> are secrets to be filled in.",
    ]
    section = ""
    for variable in schema.variables:
        if variable in (template.get("leave_out") or ()):
            continue
        rules = schema.rules_for(variable, environment)
        if rules.get("section", "") != section:
            section = str(rules.get("section", ""))
            lines += ["", f"# --- {section} ---"]
        lines += textwrap.wrap(_comment(rules), _WIDTH, initial_indent="# ", subsequent_indent="#   ")
        overrides: Mapping[str, Any] = template.get("examples") or {}
        example = overrides.get(variable, rules.get("example", rules.get("default", "")))
        optional = not rules.get("required") and variable not in overrides and "example" not in rules
        if variable == schema.data.get("environment_variable"):
            example, optional = overrides.get(variable, environment), False
        mark = "#" if optional or variable in (template.get("commented") or ()) else ""
        lines.append(f"{mark}{variable}={text_of(example)}")
    return "\n".join(lines) + "\n"


def _comment(rules: Mapping[str, Any]) -> str:
    parts = [str(rules.get("description", ""))]
    kind = str(rules.get("type", "string"))
    limits = []
    if "values" in rules:
        limits.append(" or ".join(text_of(item) for item in rules["values"]))
    elif kind not in ("string", "enum"):
        limits.append(kind.replace("_", " "))
    if kind == "url" and "schemes" in rules:
        limits.append("beginning with " + " or ".join(f"{scheme}://" for scheme in rules["schemes"]))
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
        limits.append("optional")
    return f"{parts[0]} ({', '.join(limits)})"


def files(schema: Schema, schema_file: str = "env.schema.yml") -> dict[str, str]:
    """Path, relative to the schema, and text of every example file."""
    templates: Mapping[str, Any] = schema.data.get("templates") or {}
    return {str(templates[name]["file"]): render(schema, name, schema_file) for name in templates}
