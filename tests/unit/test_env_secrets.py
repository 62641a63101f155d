from __future__ import annotations

import random
import string
import time

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import env_secrets

ANYWHERE = [
    "<secure-password>", "<key>", "changeme", "CHANGE_ME", "change-this", "replace_me", "replace-with-your-key",
    "your-secret-here", "your_api_key", "{{ vault_password }}", "${PASSWORD}", "%PASSWORD%", "[your password]",
    "xxxxx", "XXXXXXXX", "roastify-db.xxxxx.us-east-1.rds.amazonaws.com", "****", "...", "todo", "TBD", "fixme",
    "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "placeholder", "undefined",
    "change_me_in_production", "changeme123", "Change-It-Now", "put_your_key_in", "yourpasswordhere",
    "postgres://<user>:<password>@db.internal/app", "https://<HOST>/x", "${DB_PASSWORD:-secret}", "{% raw %}",
]  # fmt: skip
SECRETS_ONLY = [
    "mysecretkey",
    "thepassword",
    "the-api-key",
    "secret",
    "password",
    "Password123!",
    "admin",
    "test",
    "default",
    "null",
    "letmein",
    "qwerty",
]
REAL = [
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "test-db.internal",
    "k7Gsecret0Qw1password9Zx4000",
    "fooxxxxbar9Q",
    "correct horse battery staple",
    "a<b",
    "9k<Wq7>Zp-4vN2m",
    "9k${Wq7-4vN2m",
    "yourtown-4vN2mQ8z",
]


@pytest.mark.parametrize("value", ANYWHERE)
def test_placeholders_of_any_variable(value: str) -> None:
    assert env_secrets.placeholder(value, secret=False)
    assert env_secrets.placeholder(value, secret=True)


@pytest.mark.parametrize("value", SECRETS_ONLY)
def test_words_that_only_a_secret_must_not_be(value: str) -> None:
    assert env_secrets.placeholder(value, secret=True)
    assert not env_secrets.placeholder(value, secret=False)


@pytest.mark.parametrize("value", REAL)
def test_no_false_alarm(value: str) -> None:
    assert not env_secrets.placeholder(value, secret=True)
    assert not env_secrets.leftover(value)
    assert env_secrets.weakness(value) is None


def test_random_secrets_raise_no_alarm() -> None:
    source = random.Random(5)
    printable = string.ascii_letters + string.digits + string.punctuation
    for alphabet, length in ((printable, 40), (printable, 20), ("0123456789abcdef", 64), (string.ascii_letters, 32)):
        for _ in range(5000):
            value = "".join(source.choice(alphabet) for _ in range(length))
            assert not env_secrets.placeholder(value, secret=True), value
            assert not env_secrets.leftover(value), value
            assert env_secrets.weakness(value, min_entropy=48) is None, value


@pytest.mark.parametrize(
    ("host", "documented"),
    [
        ("example.com", True),
        ("smtp.example.org.", True),
        ("api.your-domain.io", True),
        ("mydomain.net", True),
        ("db.invalid", True),
        ("example.com.roastify.online", False),
        ("myexample.com", False),
        ("yourtango.com", False),
        ("roastify.online", False),
    ],
)
def test_hosts_of_the_documentation(host: str, documented: bool) -> None:
    assert env_secrets.example_host(host) is documented


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("PG_HOST", True),
        ("npm_config_userAgent", True),
        ("api.key", True),
        ("MIIEvQIBADANBgkqhkiG9w", False),
        ("c3VyZQ", False),
        ("databaseUrl", False),
        ("A" * 65, False),
    ],
)
def test_names_that_may_be_shown(name: str, shown: bool) -> None:
    assert env_secrets.presentable(name) is shown


@pytest.mark.parametrize(
    "value",
    ["{" * 131_000, "${" * 65_000, "<" * 131_000, "<a" * 65_000, "x" * 131_000, "1" * 131_000 + "a", "your" * 32_000,
     "{%" * 65_000, "a-" * 65_000, "%A" * 65_000, ".x" * 65_000],
)  # fmt: skip
def test_no_value_takes_long(value: str) -> None:
    begin = time.monotonic()
    env_secrets.placeholder(value, secret=True)
    env_secrets.leftover(value)
    env_secrets.weakness(value, min_entropy=96)
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    "value", ["None", "$ANSIBLE_VAULT;1.1;AES256", "AnsibleUndefined", "__omit_place_holder__abc", "!vault |"]
)
def test_leftovers_of_templates(value: str) -> None:
    assert env_secrets.leftover(value)


@pytest.mark.parametrize(
    "value", ["aaaaaaaaaaaa", "abababababab", "abcabcabcabcabc", "0123456789", "qwertyuiop", "zyxwvutsrq"]
)
def test_weak_secrets(value: str) -> None:
    assert env_secrets.weakness(value)


def test_entropy() -> None:
    assert env_secrets.entropy_bits("") == 0
    assert env_secrets.entropy_bits("aaaa") == 0
    assert env_secrets.entropy_bits("abcd") == 8
    assert env_secrets.weakness("aabbccddee", min_entropy=96)


def test_only_length_and_kinds_are_said() -> None:
    assert env_secrets.describe("Ab1 -") == (
        "5 characters: lower-case letters, upper-case letters, digits, spaces, other characters"
    )
    assert env_secrets.describe("a") == "1 character: lower-case letters"


@pytest.mark.parametrize(
    ("value", "secret", "shown"),
    [
        ("99999", False, "99999"),
        ("ture", False, "'ture'"),
        ("99999", True, "5 characters: digits"),
        ("true", True, "4 characters: lower-case letters"),
        ("hunter2", False, "7 characters: lower-case letters, digits"),
        ("0123456789", False, "10 characters: digits"),
    ],
)
def test_what_is_shown(value: str, secret: bool, shown: str) -> None:
    assert env_secrets.shown(value, secret, ["true", "false"]) == shown


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DATABSE_URL", "DATABASE_URL"),
        ("database_url", "DATABASE_URL"),
        ("PGHOST", "PG_HOST"),
        ("HSOT", "HOST"),
        ("PASSWORD", "PG_PASSWORD"),
        ("SOMETHING_ELSE", None),
    ],
)
def test_nearest_name(name: str, meant: str | None) -> None:
    assert env_secrets.nearest(name, ["DATABASE_URL", "PG_HOST", "HOST", "PG_PASSWORD"]) == meant
