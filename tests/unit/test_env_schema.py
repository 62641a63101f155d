from __future__ import annotations

import base64
import json
import random
import string
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.roastify.ops.plugins.module_utils import dotenv, env_templates
from ansible_collections.roastify.ops.plugins.module_utils.env_schema import Schema, SchemaError
from hypothesis import given, settings
from hypothesis import strategies as st
from test_env_format import mutant

EXAMPLE = Path(__file__).parents[2] / "examples" / "roastify"


def schema(variables: dict[str, Any], **more: Any) -> Schema:
    return Schema.load({"variables": variables, **more})


def errors(own: Schema, text: str, environment: str = "") -> list[str]:
    return [problem.text() for problem in own.validate_text(text, environment).errors]


def warnings(own: Schema, text: str, environment: str = "") -> list[str]:
    return [problem.text() for problem in own.validate_text(text, environment).warnings]


# --- the schema itself ---


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ([], "schema: must be a mapping with the key `variables`"),
        ({"variables": {}}, "variables: must be a mapping of variable names to rules, with at least one"),
        ({"variables": {"A": {}}, "varibles": {}}, "schema: unknown key varibles, did you mean variables?"),
        ({"variables": {"A": {"type": "strng"}}}, "variables.A: unknown type strng, did you mean string?"),
        ({"variables": {"A": {"requird": True}}}, "variables.A: unknown key requird, did you mean required?"),
        ({"variables": {"A": {"required": "yes"}}}, "variables.A.required: must be true or false"),
        ({"variables": {"A": {"schemes": ["http"]}}}, "variables.A: unknown key schemes; known are"),
        ({"variables": {"A": {"min_length": -1}}}, "variables.A.min_length: must be a whole number, 0 or more"),
        ({"variables": {"A": {"min_length": 5, "max_length": 4}}}, "variables.A: min_length is greater"),
        ({"variables": {"A": {"type": "duration", "min": "1h", "max": "1m"}}}, "variables.A: min is greater"),
        ({"variables": {"A": {"type": "duration", "min": 5}}}, "variables.A.min: must be a duration"),
        ({"variables": {"A": {"pattern": "("}}}, "variables.A.pattern: is not a regular expression"),
        ({"variables": {"A": {"type": "enum"}}}, "variables.A: an enum needs `values`"),
        ({"variables": {"A": {"values": []}}}, "variables.A.values: must be a list with at least one item"),
        ({"variables": {"A": {"type": "port", "default": "x"}}}, "variables.A.default: is not a port"),
        ({"variables": {"A": {"type": "port", "values": ["x"]}}}, "variables.A.values: one of them is not a port"),
        ({"variables": {"A": {"required": True, "default": "x"}}}, "variables.A: a required variable has no use"),
        ({"variables": {"A": {"required_if": {"B": "x"}}}}, "variables.A.required_if: B is not a variable"),
        ({"variables": {"A": {"deprecated": "B"}}}, "variables.A.deprecated: must name the variable"),
        ({"variables": {"A": {"environments": {"x": {}}}}}, "variables.A.environments.x: is not an environment"),
        ({"variables": {"1A": {}}}, "variables.1A: is not a name for an environment variable"),
        ({"variables": {"A": "string"}}, "variables.A: must be a mapping of rules"),
        ({"variables": {"A": {}}, "version": 2}, "version: only version 1 of the format is known"),
        ({"variables": {"A": {}}, "environments": {"x": {"like": "y"}}}, "environments.x: is like y, which is not"),
        (
            {"variables": {"A": {}}, "environments": {"x": {"like": "y"}, "y": {"like": "x"}}},
            "environments.x: is like itself (x → y → x)",
        ),
        ({"variables": {"A": {}}, "groups": [{"rule": "all", "variables": ["A", "B"]}]}, "groups[0].rule: must be"),
        (
            {"variables": {"A": {}}, "groups": [{"rule": "all_or_none", "variables": ["A", "B"]}]},
            "groups[0].variables: B is not a variable of this schema",
        ),
        (
            {"variables": {"A": {}}, "comparisons": [{"left": "A", "operator": "=<", "right": "A"}]},
            "comparisons[0].operator: must be one of",
        ),
        ({"variables": {"A": {"type": "list", "items": {"type": "list"}}}}, "variables.A.items: must be a mapping"),
    ],
)
def test_a_wrong_schema_is_told(data: Any, problem: str) -> None:
    with pytest.raises(SchemaError) as caught:
        Schema.load(data)
    assert any(found.startswith(problem) for found in caught.value.problems), caught.value.problems


def test_all_that_is_wrong_with_a_schema_at_once() -> None:
    with pytest.raises(SchemaError) as caught:
        Schema.load({"variables": {"A": {"type": "x1"}, "B": {"required": 1}}, "groups": {}, "unknown": "x"})
    assert len(caught.value.problems) == 4


KEYS = {
    "variables", "A", "type", "groups", "environments", "like", "values", "rule", "comparisons", "left", "templates",
    "required_if", "deprecated", "items", "examples", "min", "max", "pattern", "default", "unknown", "ignore",
}  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(KEYS)), inner),
        max_leaves=12,
    )
)
def test_no_schema_is_too_strange(data: Any) -> None:
    try:
        Schema.load(data)
    except SchemaError as error:
        assert error.problems


def mutated(node: Any, source: random.Random) -> Any:
    """A copy of a schema with something else somewhere."""
    if source.random() < 0.02 or not isinstance(node, (dict, list)):
        junk: list[Any] = [None, True, -1, 1.5, "", "x", [], [[]], {}, {"A": []}, ["A", "A"], node]
        return source.choice(junk) if source.random() < 0.1 else node
    if isinstance(node, list):
        return [mutated(item, source) for item in node]
    return {key: mutated(value, source) for key, value in node.items()}


def test_a_schema_is_refused_or_works() -> None:
    original = yaml.safe_load((EXAMPLE / "env.schema.yml").read_text(encoding="utf-8"))
    text = (EXAMPLE / "backend" / ".env.aws.example").read_text(encoding="utf-8")
    source = random.Random(7)
    accepted = 0
    for _ in range(300):
        try:
            own = Schema.load(mutated(original, source))
        except SchemaError as error:
            assert error.problems
            continue
        accepted += 1
        own.validate_text(text, next(iter(own.environments), ""))
        env_templates.files(own)
    assert 0 < accepted < 300


# --- rules, each with its exact message ---


def test_missing_and_empty() -> None:
    own = schema({"A": {"required": True, "description": "The first letter"}, "B": {"required": True}, "C": {}})
    assert errors(own, "B=\n") == [
        "A is not set but required. Set it: The first letter.",
        "line 1: B is empty but required. Set it.",
    ]
    assert errors(schema({"A": {"required": True, "allow_empty": True}}), "A=\n") == []


def test_own_remedy() -> None:
    own = schema({"A": {"type": "port", "remedy": "Ask Jo."}})
    assert errors(own, "A=x") == ["line 1: A is not a port (found 1 character: lower-case letters). Ask Jo."]


def test_misspelt_name_of_a_required_variable() -> None:
    own = schema({"PG_PASSWORD": {"required": True}})
    assert errors(own, "PG_PASWORD=x") == [
        "PG_PASSWORD is not set but required. PG_PASWORD is set: if that is meant, rename it. Set it."
    ]
    assert warnings(own, "PG_PASWORD=x") == ["line 1: PG_PASWORD is not in the schema. Did you mean PG_PASSWORD?"]


@pytest.mark.parametrize(("unknown", "count"), [("ignore", (0, 0)), ("warning", (0, 1)), ("error", (1, 0))])
def test_unknown_names(unknown: str, count: tuple[int, int]) -> None:
    own = schema({"A": {}}, unknown=unknown, ignore=["npm_*"])
    text = "ZZZ_TOP=1\nnpm_config_x=1"
    assert (len(errors(own, text)), len(warnings(own, text))) == count


def test_reserved_names() -> None:
    assert warnings(schema({"A": {}}), "LD_PRELOAD=/x.so") == [
        "line 1: LD_PRELOAD belongs to the system or to Node.js. Remove it from the application's environment."
    ]


def test_required_if() -> None:
    own = schema({"STORAGE": {}, "S3_BUCKET": {"required_if": {"STORAGE": ["s3", "both"]}}, "X": {}})
    assert errors(own, "STORAGE=s3") == ["S3_BUCKET is not set but required, because STORAGE is s3. Set it."]
    assert errors(own, "STORAGE=disk") == []
    own = schema({"A": {"secret": True}, "B": {"required_if": {"A": "*"}}})
    assert errors(own, "A=9f86d081884c7d65") == ["B is not set but required, because A is set. Set it."]


def test_groups() -> None:
    names = {"A": {}, "B": {}, "C": {}}

    def own(rule: str) -> Schema:
        return schema(names, groups=[{"name": "Letters", "rule": rule, "variables": ["A", "B", "C"]}])

    assert errors(own("all_or_none"), "A=1") == [
        "line 1: Letters: A is set, but B and C are not. Set B and C too, or remove A."
    ]
    assert errors(own("all_or_none"), "") == []
    assert errors(own("all_or_none"), "A=1\nB=1\nC=1") == []
    assert errors(own("exactly_one"), "") == ["Letters: none of A, B and C is set. Set one of them."]
    assert errors(own("exactly_one"), "A=1\nB=1") == [
        "line 2: Letters: A and B are set, but only one may be. Keep the one that is meant."
    ]
    assert errors(own("at_most_one"), "") == []
    assert errors(own("at_least_one"), "A=1\nB=1") == []


def test_comparisons() -> None:
    own = schema(
        {"LOW": {"type": "integer"}, "HIGH": {"type": "integer", "default": 10}},
        comparisons=[{"left": "LOW", "operator": "<=", "right": "HIGH"}],
    )
    assert errors(own, "LOW=9\nHIGH=10") == []
    assert errors(own, "LOW=11") == ["line 1: LOW must be at most HIGH. Change one of them."]
    own = schema(
        {"A": {"type": "duration"}, "B": {"type": "duration"}},
        comparisons=[{"left": "A", "operator": "<", "right": "B"}],
    )
    assert errors(own, "A=90s\nB=2m") == []
    assert errors(own, "A=180s\nB=2m") == ["line 1: A must be less than B. Change one of them."]


def test_environments_are_stricter() -> None:
    own = schema(
        {"A": {"type": "boolean", "environments": {"production": {"required": True, "values": [True]}}}},
        environments={"local": {}, "staging": {"like": "production"}, "production": {}},
    )
    assert errors(own, "A=false", "local") == []
    for environment in ("staging", "production"):
        assert errors(own, "", environment) == [f"A is not set but required in {environment}. Set it."]
        assert errors(own, "A=false", environment) == [
            f"line 1: A must be true in {environment} (found 'false'). Set it to true."
        ]
    assert errors(own, "A=true", "prod") == [
        "The schema knows no environment prod. Use one of its environments (local, staging, production) or add "
        "it to the schema."
    ]


def test_secrets() -> None:
    own = schema({"A": {"secret": True, "example": "0ld-Ex4mple-Value"}, "B": {"secret": True}, "USER": {}})
    assert errors(own, "A=<key>") == ["line 1: A still has a placeholder. Set the real value."]
    assert errors(own, "A=0ld-Ex4mple-Value") == ["line 1: A still has a placeholder. Set the real value."]
    assert errors(own, "A=abcabcabcabc") == [
        "line 1: A repeats the same 3 characters. Generate a random one, for example with `openssl rand -hex 32`."
    ]
    assert errors(own, "A=9f86d081884c\nB=9f86d081884c") == [
        "line 2: B has the same value as A. Give every secret a value of its own."
    ]
    assert errors(own, "A=9f86d081884c\nUSER=9f86d081884c") == [
        "line 1: A has the same value as USER. Give every secret a value of its own."
    ]
    assert errors(own, "A=$ANSIBLE_VAULT;1.1;AES256") == [
        "line 1: A holds a template or vault text instead of what it stands for. Check how the inventory sets it."
    ]


def test_deprecated() -> None:
    own = schema({"OLD": {"deprecated": "NEW"}, "NEW": {}, "GONE": {"deprecated": ""}})
    assert warnings(own, "OLD=1\nGONE=1") == [
        "line 1: OLD is deprecated. Use NEW instead.",
        "line 2: GONE is deprecated. Remove it.",
    ]


def test_too_long_for_the_system() -> None:
    assert errors(schema({"A": {}}), "A=" + "x" * 131072) == [
        "line 1: A is longer than the system allows (131072 bytes). Put it in a file, and the path of that in the "
        "environment."
    ]


def test_problems_of_the_file() -> None:
    own = schema({"A": {}, "B": {}, "C": {}}, readers=["dotenv"])
    report = own.validate_text('A=1\nnonsense\nA=x#y\nB=\'open\nC="x\nB=1"\n')
    assert [(problem.line, problem.code, problem.severity) for problem in report.problems] == [
        (2, "skipped_line", "warning"),
        (3, "cut_by_comment", "warning"),
        (3, "duplicate", "warning"),
        (4, "unclosed_quote", "error"),
        (5, "invisible_character", "error"),
        (5, "swallowed", "error"),
    ]


def test_variables_of_an_inventory() -> None:
    own = schema({"PORT": {"type": "port", "required": True}, "ON": {"type": "boolean"}, "X": {"required": True}})
    report = own.validate_variables({"PORT": 5000, "ON": True, "X": None})
    assert [problem.text() for problem in report.errors] == ["X is not set but required. Set it."]
    assert report.variables == ["ON", "PORT"]
    report = own.validate_variables({"PORT": 5000, "X": "a\0b"})
    assert [problem.code for problem in report.errors] == ["not_writable"]


# --- Roastify's own ---

SCHEMA = Schema.load(yaml.safe_load((EXAMPLE / "env.schema.yml").read_text(encoding="utf-8")))
PRODUCTION = {
    "NODE_ENV": "production",
    "PORT": 5000,
    "APP_URL": "https://roastify.online",
    "PG_HOST": "roastify-db.c1x2y3.us-east-1.rds.amazonaws.com",
    "PG_PORT": 5432,
    "PG_DATABASE": "roastify",
    "PG_USER": "roastify_admin",
    "PG_PASSWORD": "cAnArY'p4\"ss #w0rd$9z",
    "PG_SSL": True,
    "JWT_SECRET": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "JWT_EXPIRES_IN": "7d",
    "AWS_REGION": "us-east-1",
    "S3_BUCKET": "roastify-storage",
    "CLOUDWATCH_LOG_GROUP": "/aws/ec2/roastify",
    "CLOUDWATCH_LOG_STREAM": "application",
}
MAIL = {
    "EMAIL_FROM": "noreply@roastify.online",
    "SMTP_HOST": "email-smtp.us-east-1.amazonaws.com",
    "SMTP_PORT": 587,
    "SMTP_USER": "AKIAQ7RSTUVWXYZ23456",
    "SMTP_PASS": "BEq7vN2mQ8zL4xK9wR5tY1uP6sD3fG0hJ",
}
SEED = [
    "NODE_ENV", "PORT", "APP_URL", "PG_HOST", "PG_PORT", "PG_DATABASE", "PG_USER", "PG_PASSWORD",
    "PG_SSL", "JWT_SECRET", "JWT_EXPIRES_IN", "AWS_REGION", "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY", "S3_BUCKET", "EMAIL_FROM", "SMTP_HOST", "SMTP_PORT", "SMTP_USER",
    "SMTP_PASS", "CLOUDWATCH_LOG_GROUP", "CLOUDWATCH_LOG_STREAM",
]  # fmt: skip


def test_every_variable_of_the_design_is_there_and_in_both_examples() -> None:
    assert set(SEED) <= set(SCHEMA.variables)
    for text in env_templates.files(SCHEMA).values():
        assert set(SEED) <= {line.lstrip("#").split("=")[0] for line in text.splitlines()}


def test_the_examples_are_made_from_the_schema() -> None:
    for relative, text in env_templates.files(SCHEMA).items():
        written = (EXAMPLE / relative).read_text(encoding="utf-8")
        assert written == text, f"{relative} is out of date: see the head of env.schema.yml"


def test_an_example_says_in_words_what_a_variable_takes() -> None:
    own = schema(
        {
            "MODE": {"type": "enum", "values": ["a", "b", "c"], "description": "Mode"},
            "ONLY": {"values": [True], "type": "boolean", "required": True, "description": "Only"},
            "LINK": {"type": "url", "schemes": ["http", "https"], "description": "Link"},
            "USER": {"description": "User"},
            "PASS": {"description": "Pass", "example": "<pass>"},
        },
        environments={"e": {}},
        groups=[{"name": "the login", "rule": "all_or_none", "variables": ["USER", "PASS"]}],
        templates={"t": {"file": "t.example", "environment": "e"}},
    )
    assert env_templates.render(own, "t").splitlines() == [
        "# t",
        "# Generated from env.schema.yml; change it there. Fill in what stands in <>.",
        "# Mode (a, b or c, optional)",
        "#MODE=",
        "# Only (must be true, required)",
        "ONLY=",
        "# Link (URL, beginning with http:// or https://, optional)",
        "#LINK=",
        "# User (optional: all of the login or none)",
        "#USER=",
        "# Pass (optional: all of the login or none)",
        "PASS=<pass>",
    ]


def test_the_examples_lack_nothing_but_real_values() -> None:
    for text in env_templates.files(SCHEMA).values():
        report = SCHEMA.validate_text(text, "production")
        assert {problem.code for problem in report.problems} == {"placeholder"}
        assert {"PG_PASSWORD", "JWT_SECRET", "SMTP_PASS"} <= {problem.variable for problem in report.problems}


def test_a_good_environment_passes() -> None:
    report = SCHEMA.validate_variables(PRODUCTION, "production")
    assert report.problems == []
    assert SCHEMA.validate_text(dotenv.render(PRODUCTION), "production").problems == []


@pytest.mark.parametrize(
    ("change", "variable", "code"),
    [
        ({"PG_SSL": False}, "PG_SSL", "enum"),
        ({"PG_SSL": None}, "PG_SSL", "missing"),
        ({"APP_URL": "http://roastify.online"}, "APP_URL", "url_scheme"),
        ({"JWT_SECRET": "9f86d081884c7d659a2feaa0c55ad015"}, "JWT_SECRET", "too_short"),
        ({"JWT_SECRET": "0011" * 16}, "JWT_SECRET", "weak_secret"),
        ({"PG_PASSWORD": "short9Qx"}, "PG_PASSWORD", "too_short"),
        ({"PG_HOST": "localhost"}, "PG_HOST", "local_host"),
        ({"NODE_ENV": "development"}, "NODE_ENV", "enum"),
        ({"AWS_ACCESS_KEY_ID": "AKIAQ7RSTUVWXYZ23456"}, "AWS_ACCESS_KEY_ID", "group"),
        ({"SMTP_HOST": "mail.roastify.online"}, "SMTP_HOST", "group"),
        ({"JWT_EXPIRES_IN": "7"}, "JWT_EXPIRES_IN", "duration"),
        ({"PORT": 80}, "PORT", "too_small"),
        ({"PG_PASSWORD": PRODUCTION["JWT_SECRET"]}, "JWT_SECRET", "shared_secret"),
        ({"APP_ENVIRONMENT": "staging"}, "APP_ENVIRONMENT", "other_environment"),
        ({**MAIL, "SMTP_PASS": "short9Qx"}, "SMTP_PASS", "too_short"),
        ({**MAIL, "SMTP_PASS": "<ses-password>"}, "SMTP_PASS", "placeholder"),
        ({**MAIL, "EMAIL_FROM": "noreply@example.com"}, "EMAIL_FROM", "placeholder"),
        ({**MAIL, "SMTP_PORT": 26}, "SMTP_PORT", "enum"),
    ],
)
def test_production_is_strict(change: dict[str, Any], variable: str, code: str) -> None:
    report = SCHEMA.validate_variables({**PRODUCTION, **change}, "production")
    assert [(problem.variable, problem.code) for problem in report.errors] == [(variable, code)]


def test_the_sandbox_is_not_as_strict() -> None:
    relaxed = {"PG_SSL": False, "APP_URL": "http://127.0.0.1:8080", "PG_HOST": "localhost", "S3_BUCKET": None}
    assert SCHEMA.validate_variables({**PRODUCTION, **relaxed}, "local").errors == []


def test_no_value_of_a_secret_is_ever_in_a_report() -> None:
    source = random.Random(4)
    alphabet = string.ascii_letters + string.digits + " '\"#$\\`é"
    for _ in range(400):
        canary = "".join(source.choice(alphabet) for _ in range(source.randint(7, 40)))
        name = source.choice(list(SCHEMA.variables))
        # Whatever line a secret gets into, and whatever the file does with it.
        lines = dotenv.render(PRODUCTION).splitlines()
        lines.insert(source.randrange(len(lines)), f"{name}={source.choice(['', chr(39), chr(34)])}{canary}")
        report = SCHEMA.validate_text("\n".join(lines), "production")
        said = "\n".join([report.message(".env"), *report.warning_texts(".env"), repr(report.problems)])
        for start in range(0, max(1, len(canary) - 7)):
            piece = canary[start : start + 8]
            assert piece.strip() == "" or piece not in said, (name, piece)
        assert str(PRODUCTION["JWT_SECRET"]) not in said


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200), st.sampled_from(["", "local", "production"]))
def test_no_file_is_too_strange(text: str, environment: str) -> None:
    for problem in SCHEMA.validate_text(text, environment).problems:
        assert problem.message
        assert problem.severity in ("error", "warning")


def test_a_file_that_is_none_is_told_in_short() -> None:
    own = schema({"A": {}}, readers=["dotenv"])
    told = warnings(own, "nonsense\n" * 102)
    assert len(told) == 101
    assert told[-1] == "line 101: 2 more problems of this kind (skipped_line). Check that it is the right file."
    assert len(warnings(own, "nonsense\n" * 101)) == 101
    told = warnings(own, "".join(f"NAME_{number}=1\n" for number in range(150)))
    assert len(told) == 101
    assert "50 more names are not in the schema. Check that this is the right file." in told


@pytest.mark.parametrize(
    "unit",
    [
        "x\n",
        "PORT=1\n",
        "A='\n",
        "A=x#y\n",
        "A: x\n",
        "export ",
        'A="\\"\n',
        "PG_HOS{n}=\n",
        "aB{n}==\n",
        "{{",
        "\ufeff",
        "=",
    ],
)
def test_no_file_takes_long(unit: str) -> None:
    text = "".join(unit.replace("{n}", str(number)) for number in range(2**17 // len(unit)))
    begin = time.monotonic()
    for own in (text, f"JWT_SECRET={text}", f"JWT_SECRET='{text}'"):
        assert len(SCHEMA.validate_text(own, "production").problems) < 400
    assert time.monotonic() - begin < 30
    report = SCHEMA.validate_text(unit * (10 * 2**20 // len(unit)), "production")
    assert [problem.code for problem in report.problems] == ["file_too_large"]


def test_pieces_of_a_secret_are_not_taken_for_names() -> None:
    """A private key without quotes falls into lines, whose last one looks like an assignment."""
    source = random.Random(8)
    for _ in range(300):
        key = base64.b64encode(source.randbytes(source.randint(60, 130))).decode("ascii")
        lines = [key[start : start + 64] for start in range(0, len(key), 64)]
        text = "\n".join(["PORT=5000", "PG_SSL_CA=-----BEGIN KEY-----", *lines, "-----END KEY-----"])
        report = SCHEMA.validate_text(text, "production")
        said = "\n".join([report.message(".env"), *report.warning_texts(".env"), json.dumps(report.as_dict())])
        for line in lines:
            for start in range(len(line) - 7):
                assert line[start : start + 8] not in said, line


PIECES = [
    "STAGE", "TEXT", "KEY", "PORT", "LIFE", "URL", "HOSTS", "OLD", "=", "=", "=", "\n", "\n", "'", '"', "#", " ", "\\",
    "export ", "80", "7d", "-1", "é", "\u2028", "true", "https://a", "a;b", "production", "\x00", "{{", "x" * 99,
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.sampled_from(PIECES), max_size=40), st.sampled_from(["", "local", "staging"]))
def test_no_schema_with_no_file_breaks_the_engine(seed: int, pieces: list[str], environment: str) -> None:
    try:
        own = Schema.load(mutant(random.Random(seed)))
    except SchemaError as error:
        assert error.problems
        return
    report = own.validate_text("".join(pieces), environment)
    for problem in report.problems:
        assert problem.message and problem.severity in ("error", "warning")
    json.dumps(report.as_dict())
    for text in env_templates.files(own).values():
        assert text.startswith("# ")


def test_placeholders_of_the_schema_are_written_as_in_a_file() -> None:
    own = schema({"A": {"placeholders": [True, 1.5, "on"]}})
    assert [len(errors(own, f"A={value}\n")) for value in ("true", "1.5", "on", "True", "off")] == [1, 1, 1, 0, 0]
