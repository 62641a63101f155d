# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One validation of one environment: every rule that a schema has is asked here."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ansible_collections.roastify.ops.plugins.module_utils import dotenv, env_secrets, env_types
from ansible_collections.roastify.ops.plugins.module_utils.env_report import ERROR, WARNING, Problem, Report, and_of

if TYPE_CHECKING:
    from ansible_collections.roastify.ops.plugins.module_utils.env_schema import Schema

# Set by the system or by Node.js itself: a .env file that sets one changes more than the application.
_RESERVED = ("PATH", "HOME", "USER", "SHELL", "PWD", "IFS", "NODE_OPTIONS", "NODE_PATH", "PM2_HOME")
_RESERVED_PATTERNS = ("LD_*", "npm_*", "PM2_*")

# A file of random bytes has a million names; nobody reads more than this many of them.
_MAX_NAMES = 100

# Linux takes no more than this for one NAME=value (MAX_ARG_STRLEN).
_MAX_VARIABLE = 131072


class Validation:
    """One run over one environment."""

    def __init__(self, schema: Schema, entries: list[dotenv.Entry], environment: str, unknown: str | None) -> None:
        self.schema = schema
        self.environment = environment
        self.own = schema.data.get("environment_variable")
        self.unknown = unknown or str(schema.data.get("unknown", WARNING))
        self.entries = {entry.key: entry for entry in entries if entry.key != "__proto__"}
        self.rules = {name: schema.rules_for(name, environment) for name in schema.variables}
        self.strangers: list[str] | None = None
        self.problems: list[Problem] = []

    def run(self) -> Report:
        for name, rules in self.rules.items():
            self.variable(name, rules)
        self.same_secrets()
        self.groups()
        self.comparisons()
        self.unknown_names()
        return Report(self.environment, sorted(self.entries), self.problems)

    def value(self, name: str) -> str | None:
        """The value of a variable that is set; an empty one counts as not set unless it may be empty."""
        entry = self.entries.get(name)
        if entry is None or (entry.value == "" and not self.rules.get(name, {}).get("allow_empty")):
            return None
        return entry.value

    def say(self, code: str, name: str, message: str, remedy: str = "", severity: str = ERROR, found: str = "") -> None:
        entry = self.entries.get(name)
        self.problems.append(Problem(severity, code, name, message, remedy, entry.line if entry else None, found))

    def why(self) -> str:
        return f" in {self.environment}" if self.environment else ""

    def variable(self, name: str, rules: Mapping[str, Any]) -> None:
        value = self.value(name)
        if value is None:
            self.missing(name, rules)
            return
        if rules.get("forbidden"):
            remedy = str(rules.get("remedy", "")) or "Remove it."
            self.say("forbidden", name, f"{name} must not be set{self.why()}.", remedy)
            return
        secret = bool(rules.get("secret"))
        own_remedy = str(rules.get("remedy", ""))
        if "deprecated" in rules:
            self.deprecated(name, str(rules["deprecated"]))
        if len(value.encode("utf-8", errors="replace")) + len(name) + 2 > _MAX_VARIABLE:
            self.say(
                "too_long",
                name,
                f"{name} is longer than the system allows ({_MAX_VARIABLE} bytes).",
                "Put it in a file, and the path of that in the environment.",
                found=f"{len(value)} characters",
            )
            return
        if self.own == name and self.environment and value != self.environment and value in self.schema.environments:
            self.say(
                "other_environment",
                name,
                f"{name} is {value}, but this is {self.environment}.",
                "Take the file of the right environment.",
                found=value,
            )
            return
        kind = str(rules.get("type", "string"))
        allowed = [env_types.text_of(item) for item in rules.get("values", ())]
        if value not in allowed and env_secrets.leftover(value):
            self.say(
                "template_leftover",
                name,
                f"{name} holds a template or vault text instead of what it stands for.",
                "Check how the inventory sets it.",
                found=env_secrets.describe(value),
            )
            return
        if not rules.get("allow_placeholder") and value not in allowed:
            more = [env_types.text_of(item) for item in rules.get("placeholders", ())]
            if secret:
                more += self.schema.examples.get(name, ())
            host = env_types.host_of(kind, value)
            if env_secrets.placeholder(value, secret, more) or (host and env_secrets.example_host(host)):
                self.say(
                    "placeholder",
                    name,
                    f"{name} still has a placeholder.",
                    own_remedy or "Set the real value.",
                    found=env_secrets.describe(value),
                )
                return
        if len(value) > 2 and value[0] == value[-1] and value[0] in "'\"" and kind not in ("json", "regex"):
            self.say(
                "quoted_twice",
                name,
                f"{name} has quotes around its value that are part of it.",
                "Take out one pair of quotes.",
                found=env_secrets.describe(value),
            )
            return
        finding = env_types.check(kind, value, rules)
        if finding:
            base = self.schema.variables[name]
            known = [env_types.text_of(item) for own in (base, rules) for item in own.get("values", ())]
            known += ["true", "false"] if kind == "boolean" else []
            found = env_secrets.shown(value, secret, known)
            where = self.why() if env_types.check(kind, value, base) is None else ""
            self.say(
                finding.code,
                name,
                f"{name} {finding.message}{where} (found {found}).",
                own_remedy or finding.remedy,
                found=found,
            )
            return
        if secret:
            weakness = env_secrets.weakness(value, float(rules.get("min_entropy", 0)))
            if weakness:
                remedy = own_remedy or "Generate a random one, for example with `openssl rand -hex 32`."
                self.say("weak_secret", name, f"{name} {weakness}.", remedy, found=env_secrets.describe(value))

    def deprecated(self, name: str, replacement: str) -> None:
        remedy = f"Use {replacement} instead." if replacement else "Remove it."
        if replacement and self.value(replacement) is not None:
            remedy = f"{replacement} is set too and counts: remove {name}."
        self.say("deprecated", name, f"{name} is deprecated.", remedy, WARNING)

    def missing(self, name: str, rules: Mapping[str, Any]) -> None:
        reason = ""
        if rules.get("required"):
            reason = "" if self.schema.variables[name].get("required") else self.why()
        else:
            condition = self.met_condition(rules.get("required_if") or {})
            if condition is None:
                return
            reason = f", because {condition}"
        state = "empty" if name in self.entries else "not set"
        remedy = str(rules.get("remedy", ""))
        if not remedy:
            description = str(rules.get("description", "")).rstrip(".")
            remedy = f"Set it: {description}." if description else "Set it."
        old = [other for other, own in self.rules.items() if own.get("deprecated") == name and self.value(other)]
        near = self.misspelt(name) if name not in self.entries else None
        if old:
            remedy = f"{old[0]} is its old name and is set: rename it."
        elif near:
            remedy = f"{near} is set: if that is meant, rename it. {remedy}"
        self.say("missing", name, f"{name} is {state} but required{reason}.", remedy, found=state)

    def misspelt(self, name: str) -> str | None:
        if self.strangers is None:
            self.strangers = [other for other in self.entries if other not in self.rules][:_MAX_NAMES]
        for stranger in self.strangers:
            if env_secrets.nearest(stranger, [name]) == name:
                return stranger
        return None

    def met_condition(self, conditions: Mapping[str, Any]) -> str | None:
        """The first condition that holds; `true` also stands for "is set at all"."""
        for other, wanted in conditions.items():
            value = self.value(other)
            if value is None:
                continue
            allowed = [env_types.text_of(item) for item in (wanted if isinstance(wanted, list) else [wanted])]
            if "*" in allowed:
                return f"{other} is set"
            if value in allowed:
                return f"{other} is {value}" if not self.rules[other].get("secret") else f"{other} has that value"
        return None

    def same_secrets(self) -> None:
        """A secret that another variable has too is no longer one."""
        reported = {problem.variable for problem in self.problems}
        holders: dict[str, str] = {}
        for name in self.rules:
            value = self.value(name)
            if value and not self.rules[name].get("secret"):
                holders.setdefault(value, name)
        for name, rules in self.rules.items():
            value = self.value(name)
            if not value or not rules.get("secret"):
                continue
            other = holders.setdefault(value, name)
            if other != name and name not in reported:
                self.say(
                    "shared_secret",
                    name,
                    f"{name} has the same value as {other}.",
                    "Give every secret a value of its own.",
                    found=env_secrets.describe(value),
                )

    def groups(self) -> None:
        for group in self.schema.data.get("groups", []):
            environments = group.get("environments")
            if environments and not set(environments) & set(self.schema.lineage(self.environment)):
                continue
            names: list[str] = list(group["variables"])
            present = [name for name in names if self.value(name) is not None]
            absent = [name for name in names if name not in present]
            title = str(group.get("name", ", ".join(names)))
            remedy = str(group.get("remedy", ""))
            rule = group["rule"]
            if rule == "all_or_none" and present and absent:
                self.say(
                    "group",
                    present[0],
                    f"{title}: {and_of(present)} {_is(present)} set, but {and_of(absent)} {_is(absent)} not.",
                    remedy or f"Set {and_of(absent)} too, or remove {and_of(present)}.",
                )
            elif rule in ("exactly_one", "at_least_one") and not present:
                self.say("group", names[0], f"{title}: none of {and_of(names)} is set.", remedy or "Set one of them.")
            elif rule in ("exactly_one", "at_most_one") and len(present) > 1:
                self.say(
                    "group",
                    present[1],
                    f"{title}: {and_of(present)} are set, but only one may be.",
                    remedy or "Keep the one that is meant.",
                )

    def comparisons(self) -> None:
        reported = {problem.variable for problem in self.problems}
        for comparison in self.schema.data.get("comparisons", []):
            left, right, operator = comparison["left"], comparison["right"], comparison["operator"]
            values = [self.value(name) or self.default(name) for name in (left, right)]
            if None in values or {left, right} & reported:
                continue
            first, second = (
                env_types.comparable(str(self.rules[name].get("type", "string")), str(value))
                for name, value in zip((left, right), values)
            )
            if not _holds(first, operator, second):
                self.say(
                    "comparison",
                    left if left in self.entries else right,
                    f"{left} must be {_OPERATOR_WORDS[operator]} {right}.",
                    str(comparison.get("remedy", "")) or "Change one of them.",
                )

    def default(self, name: str) -> str | None:
        return env_types.text_of(self.rules[name]["default"]) if "default" in self.rules[name] else None

    def unknown_names(self) -> None:
        ignored = list(self.schema.data.get("ignore", []))
        count = odd = 0
        for name in self.entries:
            if name in self.rules or any(fnmatch.fnmatchcase(name, pattern) for pattern in ignored):
                continue
            if name in _RESERVED or any(fnmatch.fnmatchcase(name, pattern) for pattern in _RESERVED_PATTERNS):
                self.say(
                    "reserved",
                    name,
                    f"{name} belongs to the system or to Node.js.",
                    "Remove it from the application's environment.",
                    WARNING,
                )
                continue
            value = self.entries[name].value
            if env_types.has_invisible(value) and odd < _MAX_NAMES:
                odd += 1
                # Nobody knows its type, but no type has room for this.
                self.say(
                    "invisible_character",
                    name,
                    f"{name} holds an invisible character, or bytes that are not UTF-8 "
                    f"(found {env_secrets.describe(value)}).",
                    "Type the value again instead of pasting it, and save the file as UTF-8.",
                    WARNING,
                    env_secrets.describe(value),
                )
            if self.unknown == "ignore":
                continue
            count += 1
            if count > _MAX_NAMES:
                continue
            near = env_secrets.nearest(name, self.rules)
            remedy = f"Did you mean {near}?" if near else "Remove it, or add it to the schema."
            self.say("unknown", name, f"{name} is not in the schema.", remedy, self.unknown)
        if count > _MAX_NAMES:
            message = f"{count - _MAX_NAMES} more names are not in the schema."
            self.say("unknown", "", message, "Check that this is the right file.", self.unknown)


def _holds(first: float | str, operator: str, second: float | str) -> bool:
    if operator == "==":
        return first == second
    if operator == "!=":
        return first != second
    if isinstance(first, str) or isinstance(second, str):
        return True  # the schema check lets texts be compared for equality only
    return {
        "<": first < second,
        "<=": first <= second,
        ">": first > second,
        ">=": first >= second,
    }[operator]


_OPERATOR_WORDS = {
    "==": "equal to",
    "!=": "different from",
    "<": "less than",
    "<=": "at most",
    ">": "more than",
    ">=": "at least",
}


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
