# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks the schema of an environment itself: its keys (env_format), and how they fit together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils import env_format, env_secrets, env_types

_NAME = re.compile(env_format.NAME[:-1] + r"\Z")
_KNOWN_RULES = {kind: {*env_format.RULES, *env_types.TYPE_RULES.get(kind, ())} for kind in env_types.CHECKS}
_RULES = {**env_format.RULES, **env_format.TYPE_RULES}


def problems_of(data: Any) -> list[str]:
    """Everything that is wrong with a schema, each as `place: what`."""
    check = _Check(data)
    check.run()
    return check.problems


def _number(kind: str, value: Any) -> float:
    """A bound as a number; a duration in milliseconds."""
    milliseconds = env_types.duration_milliseconds(str(value)) if kind == "duration" else None
    return float(value) if milliseconds is None else milliseconds


def _among(name: Any, known: Iterable[str]) -> bool:
    return isinstance(name, str) and name in known


def _names(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, Mapping)) else []


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (str, bool, int, float))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _kind_of(rules: Any) -> str:
    return str(rules.get("type", "string")) if isinstance(rules, Mapping) else "string"


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
        self.unknown_keys("schema", data, env_format.TOP_LEVEL)
        version = data.get("version", 1)
        if version != 1 or isinstance(version, bool):
            self.say("version", "only version 1 of the format is known")
        if data.get("unknown", "warning") not in env_format.UNKNOWN:
            self.say("unknown", "must be ignore, warning or error")
        self.text("schema", data, "description")
        self.strings("ignore", data.get("ignore", []))
        self.readers(data.get("readers", list(env_format.READERS)))
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
            self.variable(name, rules, variables, environments)
        if "environment_variable" in data and not _among(data["environment_variable"], variables):
            self.say("environment_variable", f"{data['environment_variable']} is not a variable of this schema")
        self.groups(data.get("groups", []), variables, environments)
        self.comparisons(data.get("comparisons", []), variables)
        self.templates(data.get("templates", {}), variables, environments)

    def text(self, where: str, mapping: Mapping[Any, Any], *keys: str) -> None:
        """Keys that hold a text, where they are there at all."""
        for key in keys:
            if key in mapping and not isinstance(mapping[key], str):
                self.say(f"{where}.{key}" if where != "schema" else key, "must be a text")

    def readers(self, value: Any) -> None:
        known = env_format.READERS
        if not _is_list(value) or not value or not all(_among(name, known) for name in value):
            self.say("readers", f"must be a list of at least one of {', '.join(known)}")
        elif len(set(value)) < len(value):
            self.say("readers", "names one of them twice")

    def name(self, where: str, name: Any) -> bool:
        """Whether a key is a text. YAML reads some names as something else: ON, YES and NO as booleans."""
        if isinstance(name, str):
            return True
        self.say(where, f"YAML reads this name as a {type(name).__name__}: put quotes around it")
        return False

    def strings(self, where: str, value: Any) -> None:
        if not _is_list(value) or not all(isinstance(item, str) for item in value):
            self.say(where, "must be a list of texts")

    def environments(self, environments: Mapping[str, Any]) -> None:
        for name, settings in environments.items():
            where = f"environments.{name}"
            if not self.name(where, name) or settings is None:
                continue
            if not isinstance(settings, Mapping):
                self.say(where, "must be a mapping")
                continue
            self.unknown_keys(where, settings, env_format.ENVIRONMENT)
            self.text(where, settings, "description")
            if settings.get("like", "") is None:
                self.say(f"{where}.like", "must be the name of another environment")
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

    def variable(self, name: Any, rules: Any, variables: Mapping[str, Any], environments: Mapping[str, Any]) -> None:
        where = f"variables.{name}"
        if not self.name(where, name):
            return
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
        known = _KNOWN_RULES[kind]
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
            self.unknown_keys(place, overrides, known - env_format.FIXED)
            self.rules(place, kind, overrides, variables)
            effective.append((place, {**rules, **overrides}))
            if "min_entropy" in overrides and not rules.get("secret"):
                self.say(f"{place}.min_entropy", "is a rule for secrets: set `secret: true`")
        if "min_entropy" in rules and not rules.get("secret"):
            self.say(f"{where}.min_entropy", "is a rule for secrets: set `secret: true`")
        if kind == "enum" and "values" not in rules:
            self.say(where, "an enum needs `values`")
        if _among(rules.get("deprecated"), variables) and rules["deprecated"] == name:
            self.say(f"{where}.deprecated", "must name another variable")
        if len(self.problems) > before:
            return
        for place, merged in effective:
            overrides = merged if place == where else own[place.rpartition(".")[2]]
            self.consistency(place, kind, merged, "default" in overrides)

    def rules(self, where: str, kind: str, rules: Mapping[str, Any], variables: Mapping[str, Any]) -> None:
        for key, value in rules.items():
            if _among(key, _RULES):
                self.rule(f"{where}.{key}", kind, _RULES[key].kind, value, variables)

    def rule(self, place: str, kind: str, holds: str, value: Any, variables: Mapping[str, Any]) -> None:
        """One rule of a variable of the type `kind`; `holds` is what env_format says that it holds."""
        if holds == "boolean" and not isinstance(value, bool):
            self.say(place, "must be true or false")
        elif holds == "count" and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            self.say(place, "must be a whole number, 0 or more")
        elif holds in ("text", "deprecated", "separator") and not isinstance(value, str):
            self.say(place, "must be a text")
        elif holds == "separator" and not value:
            self.say(place, "must have at least one character")
        elif holds == "scalars" and (not _is_list(value) or not value or not all(_is_scalar(item) for item in value)):
            self.say(place, "must be a list with at least one item")
        elif holds == "value" and not (_is_scalar(value) or isinstance(value, (list, dict))):
            self.say(place, "must be a value")
        elif holds == "bits" and (not _is_number(value) or value < 0):
            self.say(place, "must be a number of bits")
        elif holds == "bound":
            measure = env_types.ORDERED.get(kind)
            if measure == "duration" and (not isinstance(value, str) or env_types.duration_milliseconds(value) is None):
                self.say(place, "must be a duration such as 15m or 7d")
            elif measure == "number" and not _is_number(value):
                self.say(place, "must be a number")
        elif holds == "pattern":
            try:
                re.compile(value)
            except (re.error, TypeError, RecursionError, OverflowError) as error:
                self.say(place, f"is not a regular expression ({error})")
        elif holds == "required_if":
            self.required_if(place, value, variables)
        elif holds == "deprecated" and not _among(value, variables) and value != "":
            self.say(place, "must name the variable of this schema that replaces it, or be empty")
        elif holds == "items":
            self.items(place, value)

    def items(self, place: str, value: Any) -> None:
        kind = value.get("type", "string") if isinstance(value, Mapping) else None
        if not isinstance(value, Mapping) or not _among(kind, env_types.CHECKS) or kind == "list":
            self.say(place, "must be a mapping of rules with a known type other than list")
            return
        self.unknown_keys(place, value, {*env_format.ITEM_RULES, *env_types.TYPE_RULES.get(str(kind), ())})
        before = len(self.problems)
        self.rules(place, str(kind), value, {})
        if kind == "enum" and "values" not in value:
            self.say(place, "an enum needs `values`")
        if len(self.problems) == before:
            self.consistency(place, str(kind), value, False)

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
        if not _is_list(groups):
            self.say("groups", "must be a list")
            return
        for number, group in enumerate(groups):
            where = f"groups[{number}]"
            if not isinstance(group, Mapping):
                self.say(where, "must be a mapping with name, rule and variables")
                continue
            self.unknown_keys(where, group, env_format.GROUP)
            self.text(where, group, "name", "remedy")
            if group.get("rule") not in env_format.GROUP_RULES:
                self.say(f"{where}.rule", f"must be {' or '.join(env_format.GROUP_RULES)}")
            if not _is_list(group.get("environments", [])):
                self.say(f"{where}.environments", "must be a list of environments of this schema")
            names = group.get("variables")
            if not isinstance(names, list) or len(names) < 2:
                self.say(f"{where}.variables", "must be a list of at least two variables")
                continue
            for number_of_name, name in enumerate(names):
                if not _among(name, variables):
                    self.say(f"{where}.variables", f"{name} is not a variable of this schema")
                elif name in names[:number_of_name]:
                    self.say(f"{where}.variables", f"{name} is named twice")
            for environment in _names(group.get("environments")):
                if not _among(environment, environments):
                    self.say(f"{where}.environments", f"{environment} is not an environment of this schema")

    def comparisons(self, comparisons: Any, variables: Mapping[str, Any]) -> None:
        if not _is_list(comparisons):
            self.say("comparisons", "must be a list")
            return
        for number, comparison in enumerate(comparisons):
            where = f"comparisons[{number}]"
            if not isinstance(comparison, Mapping):
                self.say(where, "must be a mapping with left, operator and right")
                continue
            before = len(self.problems)
            self.unknown_keys(where, comparison, env_format.COMPARISON)
            self.text(where, comparison, "remedy")
            operator = comparison.get("operator")
            if operator not in env_format.OPERATORS:
                self.say(f"{where}.operator", f"must be one of {' '.join(env_format.OPERATORS)}")
            for side in ("left", "right"):
                if not _among(comparison.get(side), variables):
                    self.say(f"{where}.{side}", f"{comparison.get(side)} is not a variable of this schema")
            if len(self.problems) > before:
                continue
            left, right = comparison["left"], comparison["right"]
            if left == right:
                self.say(where, "compares a variable with itself")
            if operator in ("==", "!="):
                continue
            kinds = [_kind_of(variables[name]) for name in (left, right)]
            measures = [env_types.ORDERED.get(kind) for kind in kinds]
            if None in measures or measures[0] != measures[1]:
                self.say(
                    where,
                    f"{operator} compares two numbers or two durations, but {left} is of type {kinds[0]} "
                    f"and {right} of type {kinds[1]}",
                )

    def templates(self, templates: Any, variables: Mapping[str, Any], environments: Mapping[str, Any]) -> None:
        if not isinstance(templates, Mapping):
            self.say("templates", "must be a mapping of names to templates")
            return
        for name, template in templates.items():
            where = f"templates.{name}"
            if not isinstance(template, Mapping):
                self.say(where, "must be a mapping with file and environment")
                continue
            self.unknown_keys(where, template, env_format.TEMPLATE)
            self.text(where, template, "title")
            if not isinstance(template.get("file"), str) or not template["file"]:
                self.say(f"{where}.file", "must be the path of the file to generate")
            if not _among(template.get("environment"), environments):
                self.say(f"{where}.environment", "must be an environment of this schema")
            examples = template.get("examples", {})
            if not isinstance(examples, Mapping):
                self.say(f"{where}.examples", "must be a mapping of variables to values")
            elif not all(_is_scalar(value) or isinstance(value, (list, dict)) for value in examples.values()):
                self.say(f"{where}.examples", "must have a value for each variable")
            for key in ("commented", "leave_out"):
                if not _is_list(template.get(key, [])):
                    self.say(f"{where}.{key}", "must be a list of variables of this schema")
            for key in ("examples", "commented", "leave_out"):
                for variable in _names(template.get(key)):
                    if not _among(variable, variables):
                        self.say(f"{where}.{key}", f"{variable} is not a variable of this schema")
