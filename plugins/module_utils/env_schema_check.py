# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks the schema of an environment itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils import env_secrets, env_types

_TOP_LEVEL = {
    "version",
    "description",
    "environments",
    "variables",
    "groups",
    "comparisons",
    "unknown",
    "ignore",
    "templates",
}
_RULES = {
    "type", "description", "section", "required", "required_if", "secret", "example", "default",
    "values", "pattern", "pattern_hint", "min_length", "max_length", "allow_empty",
    "allow_placeholder", "multiline", "placeholders", "min_entropy", "deprecated", "remedy",
    "environments",
}  # fmt: skip
_BOOLEANS = {
    "required",
    "secret",
    "allow_empty",
    "allow_placeholder",
    "multiline",
    "credentials",
    "forbid_local",
}
_COUNTS = {"min_length", "max_length", "min_items", "max_items"}
_TEXTS = {"description", "section", "pattern_hint", "remedy", "separator", "deprecated"}
_LISTS = {"values", "schemes", "placeholders"}
_GROUP_RULES = ("all_or_none", "exactly_one", "at_least_one", "at_most_one")
_OPERATORS = ("==", "!=", "<", "<=", ">", ">=")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def problems_of(data: Any) -> list[str]:
    """Everything that is wrong with a schema, each as `place: what`."""
    check = _Check(data)
    check.run()
    return check.problems


def _number(kind: str, value: Any) -> float:
    milliseconds = env_types.duration_milliseconds(str(value)) if kind == "duration" else None
    return float(value) if milliseconds is None else milliseconds


def _among(name: Any, known: Iterable[str]) -> bool:
    return isinstance(name, str) and name in known


def _names(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, Mapping)) else []


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (str, bool, int, float))


class _Check:
    """Collects everything that is wrong with a schema."""

    def __init__(self, data: Any) -> None:
        self.data = data
        self.problems: list[str] = []

    def say(self, where: str, what: str) -> None:
        self.problems.append(f"{where}: {what}")

    def unknown_keys(self, where: str, mapping: Mapping[Any, Any], known: Iterable[str]) -> None:
        names = list(known)
        for key in mapping:
            if not _among(key, names):
                near = env_secrets.nearest(str(key), names)
                meant = (
                    f", did you mean {near.lower() if near else near}?"
                    if near
                    else f"; known are {', '.join(sorted(names))}"
                )
                self.say(where, f"unknown key {key}{meant}")

    def run(self) -> None:
        data = self.data
        if not isinstance(data, Mapping):
            self.say("schema", "must be a mapping with the key `variables`")
            return
        self.unknown_keys("schema", data, _TOP_LEVEL)
        if data.get("version", 1) != 1:
            self.say("version", "only version 1 of the format is known")
        if data.get("unknown", "warning") not in ("ignore", "warning", "error"):
            self.say("unknown", "must be ignore, warning or error")
        self.strings("ignore", data.get("ignore", []))
        environments = data.get("environments", {})
        if not isinstance(environments, Mapping):
            self.say("environments", "must be a mapping of names to {} or {like: another name}")
            environments = {}
        self.environments(environments)
        variables = data.get("variables")
        if not isinstance(variables, Mapping) or not variables:
            self.say("variables", "must be a mapping of variable names to rules, with at least one")
            return
        for name, rules in variables.items():
            self.variable(str(name), rules, variables, environments)
        self.groups(data.get("groups", []), variables, environments)
        self.comparisons(data.get("comparisons", []), variables)
        self.templates(data.get("templates", {}), variables, environments)

    def strings(self, where: str, value: Any) -> None:
        if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(v, str) for v in value):
            self.say(where, "must be a list of texts")

    def environments(self, environments: Mapping[str, Any]) -> None:
        for name, settings in environments.items():
            where = f"environments.{name}"
            if settings is None:
                continue
            if not isinstance(settings, Mapping):
                self.say(where, "must be a mapping")
                continue
            self.unknown_keys(where, settings, ("like", "description"))
            seen = [name]
            while True:
                step = environments.get(seen[-1])
                following = step.get("like") if isinstance(step, Mapping) else None
                if following is None:
                    break
                if not _among(following, environments):
                    self.say(where, f"is like {following}, which is not an environment of this schema")
                    break
                if following in seen:
                    self.say(where, f"is like itself ({' → '.join([*seen, following])})")
                    break
                seen.append(following)

    def variable(self, name: str, rules: Any, variables: Mapping[str, Any], environments: Mapping[str, Any]) -> None:
        where = f"variables.{name}"
        if not _NAME.match(name):
            self.say(where, "is not a name for an environment variable")
        if not isinstance(rules, Mapping):
            self.say(where, "must be a mapping of rules, such as {type: string}")
            return
        kind = rules.get("type", "string")
        if not _among(kind, env_types.CHECKS):
            near = env_secrets.nearest(str(kind), env_types.CHECKS)
            meant = f", did you mean {near}?" if near else f"; known are {', '.join(sorted(env_types.CHECKS))}"
            self.say(where, f"unknown type {kind}{meant}")
            return
        before = len(self.problems)
        known = _RULES | env_types.TYPE_RULES.get(kind, frozenset())
        self.unknown_keys(where, rules, known)
        self.rules(where, kind, rules, variables)
        own = rules.get("environments", {})
        effective = [(where, dict(rules))]
        if not isinstance(own, Mapping):
            self.say(f"{where}.environments", "must be a mapping of environment names to rules")
            own = {}
        for environment, overrides in own.items():
            place = f"{where}.environments.{environment}"
            if environment not in environments:
                self.say(place, "is not an environment of this schema")
            if not isinstance(overrides, Mapping):
                self.say(place, "must be a mapping of rules")
                continue
            self.unknown_keys(place, overrides, known - {"environments", "section", "type", "secret", "description"})
            self.rules(place, kind, overrides, variables)
            effective.append((place, {**rules, **overrides}))
        if kind == "enum" and "values" not in rules:
            self.say(where, "an enum needs `values`")
        if len(self.problems) > before:
            return
        for place, merged in effective:
            overrides = merged if place == where else own[place.rpartition(".")[2]]
            self.consistency(place, kind, merged, "default" in overrides)

    def rules(self, where: str, kind: str, rules: Mapping[str, Any], variables: Mapping[str, Any]) -> None:
        for key, value in rules.items():
            place = f"{where}.{key}"
            if key in _BOOLEANS and not isinstance(value, bool):
                self.say(place, "must be true or false")
            elif key in _COUNTS and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
                self.say(place, "must be a whole number, 0 or more")
            elif key in _TEXTS and not isinstance(value, str):
                self.say(place, "must be a text")
            elif key in _LISTS and (
                not isinstance(value, Sequence)
                or isinstance(value, str)
                or not value
                or not all(_is_scalar(item) for item in value)
            ):
                self.say(place, "must be a list with at least one item")
            elif key in ("example", "default") and not (_is_scalar(value) or isinstance(value, (list, dict))):
                self.say(place, "must be a value")
            elif key == "min_entropy" and (not isinstance(value, (int, float)) or isinstance(value, bool)):
                self.say(place, "must be a number of bits")
            elif key in ("min", "max") and key in env_types.TYPE_RULES.get(kind, ()):
                if kind == "duration":
                    if env_types.duration_milliseconds(str(value)) is None:
                        self.say(place, "must be a duration such as 15m or 7d")
                elif not isinstance(value, (int, float)) or isinstance(value, bool):
                    self.say(place, "must be a number")
            elif key == "pattern":
                try:
                    re.compile(value)
                except (re.error, TypeError) as error:
                    self.say(place, f"is not a regular expression ({error})")
            elif key == "required_if":
                self.required_if(place, value, variables)
            elif key == "deprecated" and not _among(value, variables) and value != "":
                self.say(place, "must name the variable of this schema that replaces it, or be empty")
            elif key == "items":
                self.items(place, value)

    def items(self, place: str, value: Any) -> None:
        kind = value.get("type", "string") if isinstance(value, Mapping) else None
        if not isinstance(value, Mapping) or not _among(kind, env_types.CHECKS) or kind == "list":
            self.say(place, "must be a mapping of rules with a known type other than list")
            return
        known = {"type", "values", "pattern", "pattern_hint", "min_length", "max_length"}
        self.unknown_keys(place, value, known | env_types.TYPE_RULES.get(str(kind), frozenset()))
        self.rules(place, str(kind), value, {})

    def required_if(self, place: str, value: Any, variables: Mapping[str, Any]) -> None:
        if not isinstance(value, Mapping) or not value:
            self.say(place, "must be a mapping such as {STORAGE: s3}")
            return
        for other, wanted in value.items():
            if other not in variables:
                self.say(place, f"{other} is not a variable of this schema")
            if not _is_scalar(wanted) and not (isinstance(wanted, list) and all(_is_scalar(w) for w in wanted)):
                self.say(place, f"the value for {other} must be one value or a list of values")

    def consistency(self, where: str, kind: str, rules: Mapping[str, Any], with_default: bool) -> None:
        for low, high in (("min_length", "max_length"), ("min_items", "max_items"), ("min", "max")):
            if low in rules and high in rules:
                measure = kind if low == "min" else "number"
                if _number(measure, rules[low]) > _number(measure, rules[high]):
                    self.say(where, f"{low} is greater than {high}")
        if with_default:
            finding = env_types.check(kind, env_types.text_of(rules["default"]), rules)
            if finding:
                self.say(f"{where}.default", finding.message)
            if rules.get("required"):
                self.say(where, "a required variable has no use for a default")
        for item in rules.get("values", ()):
            finding = env_types.check(kind, env_types.text_of(item), {k: v for k, v in rules.items() if k != "values"})
            if finding:
                self.say(f"{where}.values", f"one of them {finding.message}")

    def groups(self, groups: Any, variables: Mapping[str, Any], environments: Mapping[str, Any]) -> None:
        if not isinstance(groups, Sequence) or isinstance(groups, str):
            self.say("groups", "must be a list")
            return
        for number, group in enumerate(groups):
            where = f"groups[{number}]"
            if not isinstance(group, Mapping):
                self.say(where, "must be a mapping with name, rule and variables")
                continue
            self.unknown_keys(where, group, ("name", "rule", "variables", "environments", "remedy"))
            if group.get("rule") not in _GROUP_RULES:
                self.say(f"{where}.rule", f"must be {' or '.join(_GROUP_RULES)}")
            names = group.get("variables")
            if not isinstance(names, list) or len(names) < 2:
                self.say(f"{where}.variables", "must be a list of at least two variables")
                continue
            for name in names:
                if not _among(name, variables):
                    self.say(f"{where}.variables", f"{name} is not a variable of this schema")
            for environment in _names(group.get("environments")):
                if not _among(environment, environments):
                    self.say(f"{where}.environments", f"{environment} is not an environment of this schema")

    def comparisons(self, comparisons: Any, variables: Mapping[str, Any]) -> None:
        if not isinstance(comparisons, Sequence) or isinstance(comparisons, str):
            self.say("comparisons", "must be a list")
            return
        for number, comparison in enumerate(comparisons):
            where = f"comparisons[{number}]"
            if not isinstance(comparison, Mapping):
                self.say(where, "must be a mapping with left, operator and right")
                continue
            self.unknown_keys(where, comparison, ("left", "operator", "right", "remedy"))
            if comparison.get("operator") not in _OPERATORS:
                self.say(f"{where}.operator", f"must be one of {' '.join(_OPERATORS)}")
            for side in ("left", "right"):
                if not _among(comparison.get(side), variables):
                    self.say(f"{where}.{side}", f"{comparison.get(side)} is not a variable of this schema")

    def templates(self, templates: Any, variables: Mapping[str, Any], environments: Mapping[str, Any]) -> None:
        if not isinstance(templates, Mapping):
            self.say("templates", "must be a mapping of names to templates")
            return
        for name, template in templates.items():
            where = f"templates.{name}"
            if not isinstance(template, Mapping):
                self.say(where, "must be a mapping with file and environment")
                continue
            self.unknown_keys(where, template, ("file", "title", "environment", "examples", "commented", "leave_out"))
            if not isinstance(template.get("file"), str):
                self.say(f"{where}.file", "must be the path of the file to generate")
            if not _among(template.get("environment"), environments):
                self.say(f"{where}.environment", "must be an environment of this schema")
            for key in ("examples", "commented", "leave_out"):
                for variable in _names(template.get(key)):
                    if not _among(variable, variables):
                        self.say(f"{where}.{key}", f"{variable} is not a variable of this schema")
