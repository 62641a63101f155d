from __future__ import annotations

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import env_secrets

ANYWHERE = [
    "<secure-password>", "<key>", "changeme", "CHANGE_ME", "change-this", "replace_me", "replace-with-your-key",
    "your-secret-here", "your_api_key", "{{ vault_password }}", "${PASSWORD}", "%PASSWORD%", "[your password]",
    "xxxxx", "XXXXXXXX", "roastify-db.xxxxx.us-east-1.rds.amazonaws.com", "****", "...", "todo", "TBD", "fixme",
    "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "placeholder", "undefined",
]  # fmt: skip
SECRETS_ONLY = ["secret", "password", "Password123!", "admin", "test", "default", "null", "letmein", "qwerty"]
REAL = [
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "test-db.internal",
    "k7Gsecret0Qw1password9Zx4000",
    "fooxxxxbar9Q",
    "correct horse battery staple",
    "a<b",
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


@pytest.mark.parametrize(
    "value", ["$ANSIBLE_VAULT;1.1;AES256", "AnsibleUndefined", "__omit_place_holder__abc", "!vault |"]
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
