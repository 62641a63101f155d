# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The types of environment variables: what is wrong with a value, and how to write it right.

Each check returns None for a good value, or a Finding. A finding never holds the value: what is shown of
a value is decided in one place, env_secrets.describe.
"""

from __future__ import annotations

import ipaddress
import json
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

Rules = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """A broken rule: which, in what way, and what to do. All three are fit for a log."""

    code: str
    message: str
    remedy: str = ""


Check = Callable[[str, Rules], "Finding | None"]

#: Longest value, in characters, that a pattern is tried on: a pattern that backtracks is the schema's own
#: doing, but nobody's value may make it run for minutes.
MAX_PATTERN_VALUE = 4096

_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(ms|s|m|h|d|w|y)\Z", re.ASCII)
_MILLISECONDS = {
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
    "y": 31_557_600_000,
}
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\Z")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,17})?\Z")
_HOST_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\Z")
_EMAIL_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*\Z")
_REGION = re.compile(
    r"(?:af|ap|ca|cn|eu|eusc|il|me|mx|sa|us|us-gov|us-iso[a-z]?|eu-isoe)"
    r"-(?:central|north|south|east|west|northeast|northwest|southeast|southwest|de-east)-[1-9]\Z"
)
_ARN = re.compile(r"arn:aws[a-z-]*:[a-z0-9-]+:[a-z0-9-]*:(?:[0-9]{12}|aws)?:[^\s]+\Z")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")
_LOG_GROUP = re.compile(r"[A-Za-z0-9_/.#-]{1,512}\Z")


def text_of(value: Any) -> str:
    """A YAML value of the schema as it is written in a .env file."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, dict)):
        return json.dumps(value, separators=(",", ":"))
    return str(value)


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 item, 2 items."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def duration_milliseconds(value: str) -> float | None:
    """A duration such as 7d in milliseconds, None if it is none. Units as the npm package ms reads them."""
    match = _DURATION.match(value)
    return float(match.group(1)) * _MILLISECONDS[match.group(2)] if match else None


#: Types with an order, and what they measure: only like can be compared with like.
ORDERED = {"integer": "number", "number": "number", "port": "number", "duration": "duration"}


def comparable(kind: str, value: str) -> float | str:
    """A value in the form in which two of its type are compared. For values that passed their check."""
    if kind == "duration":
        milliseconds = duration_milliseconds(value)
        return value if milliseconds is None else milliseconds
    if kind in ORDERED:
        try:
            return float(value)
        except ValueError:
            return value
    return value


def is_local_host(host: str) -> bool:
    """Whether a host name can only mean the machine or the local network it is used on."""
    name = host.lower().rstrip(".")
    if name in ("localhost", "host.docker.internal") or name.endswith((".localhost", ".local", ".localdomain")):
        return True
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    # ::ffff:127.0.0.1 is 127.0.0.1, which Python says itself from 3.13 on only.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback or (mapped or address).is_unspecified


def host_of(kind: str, value: str) -> str:
    """The host that a value of a type names; empty if that type or value has none."""
    if kind == "host":
        return value
    if kind == "email":
        return value.rpartition("@")[2]
    if kind == "url":
        try:
            return urlsplit(value).hostname or ""
        except ValueError:
            return ""
    return ""


def _local_host(host: str, rules: Rules) -> Finding | None:
    if rules.get("forbid_local") and is_local_host(host):
        return Finding("local_host", "points to this machine itself", "Name the host that the service runs on.")
    return None


def check_host_name(host: str) -> bool:
    """Whether this is an address or a DNS name; underscores are allowed, as resolvers take them."""
    try:
        ipaddress.ip_address(host)
        return True
    except ValueError:
        pass
    if re.match(r"[0-9.]+\Z", host):  # an IPv4 address with a mistake in it
        return False
    labels = host.rstrip(".").split(".")
    return len(host) <= 253 and all(_HOST_LABEL.match(label) for label in labels)


def _bounds(value: float, rules: Rules, unit: str = "") -> Finding | None:
    if "min" in rules and value < float(rules["min"]):
        return Finding("too_small", f"is less than {rules['min']}{unit}", f"Use {rules['min']}{unit} or more.")
    if "max" in rules and value > float(rules["max"]):
        return Finding("too_large", f"is more than {rules['max']}{unit}", f"Use {rules['max']}{unit} or less.")
    return None


def _too_long(limit: int) -> Finding:
    most = counted(limit, "character")
    return Finding("too_long", f"is longer than {most}", f"Use {most} or fewer.")


def _string(value: str, rules: Rules) -> Finding | None:
    return None


def _integer(value: str, rules: Rules) -> Finding | None:
    if not _INTEGER.match(value):
        return Finding("integer", "is not a whole number", "Write digits only: no sign but -, no leading 0.")
    return _bounds(int(value), rules)


def _number(value: str, rules: Rules) -> Finding | None:
    if not _NUMBER.match(value):
        return Finding("number", "is not a number", "Write digits with at most one point.")
    return _bounds(float(value), rules)


def _port(value: str, rules: Rules) -> Finding | None:
    if not _INTEGER.match(value) or not 1 <= int(value) <= 65535:
        return Finding("port", "is not a port", "Use a whole number from 1 to 65535.")
    return _bounds(int(value), rules)


def _boolean(value: str, rules: Rules) -> Finding | None:
    if value in ("true", "false"):
        return None
    return Finding("boolean", "is not a boolean", "Write true or false, in lower case.")


_ENCODE = "Write user names and passwords in a URL percent-encoded (@ is %40, / is %2F, # is %23)."


def _url(value: str, rules: Rules) -> Finding | None:
    schemes = [str(scheme) for scheme in rules.get("schemes", ("http", "https"))]
    wanted = " or ".join(f"{scheme}://" for scheme in schemes)
    if re.search(r"\s", value):
        return Finding("url", "is not a URL: it holds white space", "Encode spaces as %20.")
    try:
        parts = urlsplit(value)
        host, _port_number = parts.hostname or "", parts.port
    except ValueError:
        return Finding("url", "is not a URL", f"Write it as {wanted}host/path.")
    if not parts.scheme or not parts.netloc:
        return Finding("url", "is not a URL: it has no scheme or no host", f"Begin it with {wanted}.")
    if parts.scheme not in schemes:
        return Finding("url_scheme", f"does not begin with {wanted}", f"Begin it with {wanted}.")
    if not host or not check_host_name(host):
        return Finding("url", "has no valid host name", _ENCODE)
    # The host of postgres://user:pass@word/x@db is word, since a password ends at the first of @, /, ? and #.
    if rules.get("credentials") and value.count("@") > ("@" in parts.netloc):
        return Finding("url", "has an @ in its password or path that is not encoded", _ENCODE)
    if (parts.username is not None or parts.password is not None) and not rules.get("credentials"):
        return Finding("url_credentials", "holds a user name or password", "Put those in variables of their own.")
    return _local_host(host, rules)


def _host(value: str, rules: Rules) -> Finding | None:
    if "://" in value:
        return Finding("host", "is a URL where a host name is wanted", "Leave out the scheme and the path.")
    if not check_host_name(value):
        if re.search(r":[0-9]+\Z", value):
            return Finding("host", "has a port behind the host name", "Put the port in its own variable.")
        return Finding("host", "is not a host name or address", "Write a DNS name or an IP address, alone.")
    return _local_host(value, rules)


def _email(value: str, rules: Rules) -> Finding | None:
    local, at, domain = value.rpartition("@")
    good = at and len(local) <= 64 and _EMAIL_LOCAL.match(local) and "." in domain and check_host_name(domain)
    if not good:
        return Finding("email", "is not an e-mail address", "Write it as name@domain.")
    return None


def _duration(value: str, rules: Rules) -> Finding | None:
    milliseconds = duration_milliseconds(value)
    if milliseconds is None:
        if _NUMBER.match(value):
            return Finding(
                "duration",
                "is a duration without a unit, which libraries read differently (seconds, milliseconds)",
                "Add the unit: ms, s, m, h, d, w or y.",
            )
        return Finding("duration", "is not a duration", "Write a number and a unit, such as 15m, 12h or 7d.")
    lowest, highest = (duration_milliseconds(str(rules.get(rule, ""))) for rule in ("min", "max"))
    if lowest is not None and milliseconds < lowest:
        return Finding("too_small", f"is shorter than {rules['min']}", f"Use {rules['min']} or more.")
    if highest is not None and milliseconds > highest:
        return Finding("too_large", f"is longer than {rules['max']}", f"Use {rules['max']} or less.")
    return None


def _enum(value: str, rules: Rules) -> Finding | None:
    return None  # `values` is a rule of every type


def _regex(value: str, rules: Rules) -> Finding | None:
    if len(value) > MAX_PATTERN_VALUE:
        return _too_long(MAX_PATTERN_VALUE)
    try:
        # What it only warns of (a set within a set) is no reason to refuse it, and not for a host's output.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(value)
    except (re.error, OverflowError, RecursionError):
        return Finding("regex", "is not a regular expression", "Check its brackets and backslashes.")
    return None


def _aws_region(value: str, rules: Rules) -> Finding | None:
    if not _REGION.match(value):
        if value and _REGION.match(value[:-1]) and value[-1].isalpha():
            return Finding("aws_region", "is an availability zone, not a region", "Leave out the letter at its end.")
        return Finding("aws_region", "is not an AWS region", "Write it as in us-east-1 or eu-central-1.")
    return None


def _arn(value: str, rules: Rules) -> Finding | None:
    if not _ARN.match(value):
        return Finding("arn", "is not an ARN", "Write it as arn:aws:service:region:account:resource.")
    return None


def _s3_bucket(value: str, rules: Rules) -> Finding | None:
    if value.startswith("s3://") or "/" in value:
        return Finding("s3_bucket", "is more than a bucket name", "Leave out s3:// and any path.")
    reserved = value.startswith(("xn--", "sthree-", "amzn-s3-demo-")) or value.endswith(
        ("-s3alias", "--ol-s3", ".mrap", "--x-s3")
    )
    address = re.match(r"[0-9]+(?:\.[0-9]+){3}\Z", value)
    if not _BUCKET.match(value) or ".." in value or reserved or address:
        return Finding(
            "s3_bucket",
            "is not an S3 bucket name",
            "Use 3 to 63 lower-case letters, digits, dots and hyphens, with a letter or digit at both ends.",
        )
    return None


def _log_group(value: str, rules: Rules) -> Finding | None:
    if not _LOG_GROUP.match(value):
        return Finding(
            "log_group",
            "is not a CloudWatch log group name",
            "Use up to 512 letters, digits and the characters _ - / . #",
        )
    if value.startswith("aws/"):
        return Finding("log_group", "begins with aws/, which AWS reserves", "Begin it with a slash, as in /aws/ec2/…")
    return None


def _path(value: str, rules: Rules) -> Finding | None:
    if not value.startswith("/"):
        return Finding("path", "is not an absolute path", "Begin it with a slash.")
    if ".." in value.split("/"):
        return Finding("path", "leads upwards with ..", "Write the path without .. in it.")
    return None


def _refuse_constant(name: str) -> None:
    # Python reads NaN and Infinity, which JSON has not and JSON.parse refuses.
    raise ValueError(name)


def _json(value: str, rules: Rules) -> Finding | None:
    try:
        json.loads(value, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return Finding("json", "is not valid JSON", "Check quotes, commas and brackets.")
    return None


def _list(value: str, rules: Rules) -> Finding | None:
    separator = str(rules.get("separator", ","))
    items = [item.strip() for item in value.split(separator)] if value else []
    if "" in items:
        return Finding("list", "has an empty item", f"Leave out the {separator} too many.")
    if len(items) < int(rules.get("min_items", 0)):
        return Finding("too_few", f"has fewer than {counted(rules['min_items'], 'item')}", "Add the missing ones.")
    if "max_items" in rules and len(items) > int(rules["max_items"]):
        return Finding("too_many", f"has more than {counted(rules['max_items'], 'item')}", "Take some out.")
    item_rules: Rules = rules.get("items") or {}
    for number, item in enumerate(items, 1):
        finding = check(str(item_rules.get("type", "string")), item, item_rules)
        if finding:
            return Finding(finding.code, f"has an item {number} that {finding.message}", finding.remedy)
    return None


CHECKS: dict[str, Check] = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "port": _port,
    "boolean": _boolean,
    "url": _url,
    "host": _host,
    "email": _email,
    "duration": _duration,
    "enum": _enum,
    "regex": _regex,
    "aws_region": _aws_region,
    "arn": _arn,
    "s3_bucket": _s3_bucket,
    "log_group": _log_group,
    "path": _path,
    "json": _json,
    "list": _list,
}

#: Rules that only some types know.
TYPE_RULES: dict[str, frozenset[str]] = {
    "integer": frozenset({"min", "max"}),
    "number": frozenset({"min", "max"}),
    "port": frozenset({"min", "max"}),
    "duration": frozenset({"min", "max"}),
    "url": frozenset({"schemes", "credentials", "forbid_local"}),
    "host": frozenset({"forbid_local"}),
    "list": frozenset({"separator", "items", "min_items", "max_items"}),
}

_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u00a0\u00ad\u200b-\u200f\u2028-\u202e\u2060\ufeff\ufffd]")
_SMART_QUOTES = re.compile("[\u2018\u2019\u201c\u201d]")


def has_invisible(value: str) -> bool:
    """Whether a value of any type holds a character that nobody sees and nobody meant, or bytes that are no UTF-8."""
    return bool(_INVISIBLE.search(value))


def check(kind: str, value: str, rules: Rules) -> Finding | None:
    """The first broken rule of one value. Whether it may be missing or empty is not asked here."""
    if has_invisible(value) or (not rules.get("multiline") and re.search(r"[\n\t]", value)):
        return Finding(
            "invisible_character",
            "holds an invisible character (line end, control character, no-break or zero-width space)",
            "Type the value again instead of pasting it; a value that needs several lines needs `multiline`.",
        )
    if value != value.strip():
        return Finding("outer_space", "begins or ends with a space", "Remove it.")
    if _SMART_QUOTES.search(value):
        return Finding("smart_quote", "holds a typographic quote", "Type the value again, with plain quotes.")
    if "values" in rules and value not in [text_of(item) for item in rules["values"]]:
        allowed = " or ".join(text_of(item) for item in rules["values"])
        return Finding("enum", f"must be {allowed}", f"Set it to {allowed}.")
    finding = CHECKS[kind](value, rules)
    if finding:
        return finding
    if len(value) < int(rules.get("min_length", 0)):
        fewest = counted(rules["min_length"], "character")
        return Finding("too_short", f"is shorter than {fewest}", f"Use {fewest} or more.")
    if "max_length" in rules and len(value) > int(rules["max_length"]):
        return _too_long(int(rules["max_length"]))
    if "pattern" in rules and len(value) > MAX_PATTERN_VALUE:
        return _too_long(MAX_PATTERN_VALUE)
    if "pattern" in rules and not re.search(str(rules["pattern"]), value):
        hint = str(rules.get("pattern_hint", "")) or f"It must match {rules['pattern']}"
        return Finding("pattern", "does not have the right form", f"{hint.rstrip('.')}.")
    return None
