from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import env_types

GOOD: list[tuple[str, dict[str, Any], list[str]]] = [
    ("string", {}, ["a", "a b", "é"]),
    ("integer", {}, ["0", "-5", "42"]),
    ("integer", {"min": 1, "max": 10}, ["1", "10"]),
    ("number", {}, ["0", "1.5", "-0.25"]),
    ("port", {}, ["1", "5000", "65535"]),
    ("boolean", {}, ["true", "false"]),
    ("url", {}, ["http://h", "https://roastify.online", "https://h:8443/p?q=1#f", "http://[::1]:80/"]),
    ("url", {}, ["https://h/@user", "https://h:80/?to=a@b"]),
    ("url", {"schemes": ["postgres"], "credentials": True}, ["postgres://u:p%40ss@db.internal:5432/d"]),
    ("host", {}, ["localhost", "db.internal", "10.0.0.1", "::1", "a-b.c", "0.0.0.0", "_srv.x", "host."]),
    ("host", {"forbid_local": True}, ["db.internal", "10.0.0.1", "localhost.example.org"]),
    ("email", {}, ["a@b.co", "no-reply+x@mail.roastify.online"]),
    ("duration", {}, ["7d", "12h", "15m", "500ms", "30 s", "1.5h", "2w", "1y"]),
    ("duration", {"min": "5m", "max": "90d"}, ["5m", "90d", "1w"]),
    ("enum", {"values": ["a", "b"]}, ["a", "b"]),
    ("enum", {"values": [587, True]}, ["587", "true"]),
    ("regex", {}, ["^a+$", ""]),
    ("aws_region", {}, ["us-east-1", "eu-central-2", "ap-southeast-4", "us-gov-west-1", "il-central-1"]),
    ("arn", {}, ["arn:aws:sns:us-east-1:123456789012:topic", "arn:aws-cn:s3:::bucket"]),
    ("s3_bucket", {}, ["roastify-storage", "a.b.c", "123"]),
    ("log_group", {}, ["/aws/ec2/roastify", "group_1.x#y"]),
    ("path", {}, ["/", "/etc/ssl/ca.pem"]),
    ("json", {}, ["{}", "[1]", '"x"', "null"]),
    ("list", {}, ["a,b", "a", ""]),
    ("list", {"items": {"type": "port"}, "separator": ";"}, ["1;2"]),
    ("list", {"min_items": 2, "max_items": 2}, ["a,b"]),
    ("string", {"multiline": True}, ["a\nb"]),
    ("string", {"pattern": "^x+$", "min_length": 2, "max_length": 3}, ["xx", "xxx"]),
]

BAD: list[tuple[str, dict[str, Any], str, str]] = [
    ("integer", {}, "08", "integer"),
    ("integer", {}, "1e3", "integer"),
    ("integer", {}, "0x10", "integer"),
    ("integer", {}, "5432;", "integer"),
    ("integer", {}, "\u0665", "integer"),
    ("integer", {}, "9" * 5000, "integer"),
    ("integer", {"min": 1}, "0", "too_small"),
    ("integer", {"max": 1}, "2", "too_large"),
    ("number", {}, "NaN", "number"),
    ("number", {}, "1,5", "number"),
    ("port", {}, "0", "port"),
    ("port", {}, "65536", "port"),
    ("port", {}, "five", "port"),
    ("port", {"min": 1024}, "80", "too_small"),
    ("boolean", {}, "True", "boolean"),
    ("boolean", {}, "1", "boolean"),
    ("boolean", {}, "yes", "boolean"),
    ("url", {}, "roastify.online", "url"),
    ("url", {}, "https://", "url"),
    ("url", {}, "https://a b", "url"),
    ("url", {}, "https://h:99999", "url"),
    ("url", {}, "https://[::1", "url"),
    ("url", {}, "https://u:p#w@h", "url"),
    ("url", {}, "https://u:p@h", "url_credentials"),
    ("url", {}, "https://u:p@ss/w@h", "url_credentials"),
    ("url", {"credentials": True}, "https://u:p@ss/w@h", "url"),
    ("url", {"credentials": True}, "https://u:p@ss@h", "url"),
    ("url", {"credentials": True}, "https://u:p@ss?w@h", "url"),
    ("url", {"credentials": True}, "https://u:12/w@h", "url"),
    ("url", {}, "ftp://h", "url_scheme"),
    ("url", {"schemes": ["https"]}, "http://h", "url_scheme"),
    ("url", {"forbid_local": True}, "https://localhost:3000", "local_host"),
    ("host", {}, "https://h", "host"),
    ("host", {}, "h:5432", "host"),
    ("host", {}, "300.1.1.1", "host"),
    ("host", {}, "a..b", "host"),
    ("host", {}, "-a", "host"),
    ("host", {}, "a" * 64, "host"),
    ("host", {"forbid_local": True}, "localhost", "local_host"),
    ("host", {"forbid_local": True}, "127.0.0.53", "local_host"),
    ("host", {"forbid_local": True}, "::1", "local_host"),
    ("host", {"forbid_local": True}, "laptop.local", "local_host"),
    ("email", {}, "a@b", "email"),
    ("email", {}, "a b@c.de", "email"),
    ("email", {}, "@c.de", "email"),
    ("duration", {}, "7", "duration"),
    ("duration", {}, "1h30m", "duration"),
    ("duration", {}, "7 days", "duration"),
    ("duration", {"min": "5m"}, "10s", "too_small"),
    ("duration", {"max": "90d"}, "1y", "too_large"),
    ("enum", {"values": ["a", "b"]}, "c", "enum"),
    ("regex", {}, "(", "regex"),
    ("aws_region", {}, "us-east-1a", "aws_region"),
    ("aws_region", {}, "us-east", "aws_region"),
    ("arn", {}, "arn:sns", "arn"),
    ("s3_bucket", {}, "Upper", "s3_bucket"),
    ("s3_bucket", {}, "s3://bucket", "s3_bucket"),
    ("s3_bucket", {}, "ab", "s3_bucket"),
    ("s3_bucket", {}, "a..b", "s3_bucket"),
    ("s3_bucket", {}, "10.0.0.1", "s3_bucket"),
    ("s3_bucket", {}, "xn--bucket", "s3_bucket"),
    ("log_group", {}, "a group", "log_group"),
    ("log_group", {}, "aws/x", "log_group"),
    ("path", {}, "relative/x", "path"),
    ("path", {}, "/a/../b", "path"),
    ("json", {}, "{'a': 1}", "json"),
    ("json", {}, '{"a": NaN}', "json"),
    ("json", {}, "-Infinity", "json"),
    ("json", {}, "[" * 100_000, "json"),
    ("list", {}, "a,,b", "list"),
    ("list", {"min_items": 2}, "a", "too_few"),
    ("list", {"max_items": 1}, "a,b", "too_many"),
    ("list", {"items": {"type": "port"}}, "80,x", "port"),
    ("string", {"min_length": 3}, "ab", "too_short"),
    ("string", {"max_length": 3}, "abcd", "too_long"),
    ("string", {"pattern": "^x+$"}, "y", "pattern"),
    ("string", {}, " a", "outer_space"),
    ("string", {}, "a\nb", "invisible_character"),
    ("string", {}, "a\u200bb", "invisible_character"),
    ("string", {}, "a\u00a0b", "invisible_character"),
    ("string", {}, "prod\r", "invisible_character"),
    ("string", {}, "\u201csmart\u201d", "smart_quote"),
]


@pytest.mark.parametrize(
    ("kind", "rules", "value"), [(kind, rules, value) for kind, rules, values in GOOD for value in values]
)
def test_accepts(kind: str, rules: dict[str, Any], value: str) -> None:
    assert env_types.check(kind, value, rules) is None


@pytest.mark.parametrize(("kind", "rules", "value", "code"), BAD)
def test_refuses(kind: str, rules: dict[str, Any], value: str, code: str) -> None:
    finding = env_types.check(kind, value, rules)
    assert finding is not None
    assert finding.code == code
    assert finding.message
    assert finding.remedy.endswith((".", "#", "…")), "says what to do"


def test_every_type_is_tried() -> None:
    assert {kind for kind, _, _ in GOOD} == set(env_types.CHECKS)


def test_messages_say_what_is_allowed() -> None:
    finding = env_types.check("boolean", "false", {"values": [True]})
    assert finding is not None
    assert (finding.message, finding.remedy) == ("must be true", "Set it to true.")
