"""The application judges its environment at start-up as the deployment does: same schema, same words.

The deployment's half is plugins/module_utils/env_*.py, the application's examples/roastify/backend/src/environment.
Both get the same inputs here and must say the same, letter by letter.
"""

from __future__ import annotations

import difflib
import json
import os
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.roastify.ops.plugins.module_utils import artifact, artifact_build, dotenv
from ansible_collections.roastify.ops.plugins.module_utils.env_file_text import dotenv_problems
from ansible_collections.roastify.ops.plugins.module_utils.env_report import Report
from ansible_collections.roastify.ops.plugins.module_utils.env_schema import Schema, _shortened

ROOT = Path(__file__).resolve().parents[2]
APPLICATION = ROOT / "examples/roastify"
ROASTIFY = (APPLICATION / "env.schema.yml").read_text(encoding="utf-8")
SEED = int(os.environ.get("ENVIRONMENT_SEED", random.SystemRandom().randrange(2**32)))
ROUNDS = 500
NOT_CONFIGURED = 78

#: Reads {cases: [{schema, text, variables, source}], patterns: [[pattern, texts]]} and answers each.
RUNNER = """
const environment = require(process.argv[1]);
const patterns = require(`${process.argv[1]}/patterns`);
const { cases = [], schemas = [], expressions = [] } = JSON.parse(require('node:fs').readFileSync(0, 'utf8'));
const read = schemas.map((text) => environment.parseSchema(text));
const judged = cases.map(({ schema, text, variables, source }) => {
  const { report, values } = environment.judge(read[schema], text, variables);
  return { message: report.message(source), warnings: report.warningTexts(source), problems: report.problems, values };
});
const matched = expressions.map(([pattern, texts]) => {
  const good = patterns.isPattern(pattern);
  if (!good) return { good };
  try {
    const compiled = patterns.compile(pattern);
    return { good, found: texts.map((text) => compiled.test(text)) };
  } catch (error) {
    if (!(error instanceof patterns.PatternError)) throw error;
    return { good };
  }
});
process.stdout.write(JSON.stringify({ judged, matched }));
"""

#: Every type and every rule that Roastify does without.
ZOO = r"""
unknown: error
ignore: [OTHER_*, "VITE_?", "X[0-9]", "Y[!a]Z"]
readers: [dotenv]
environment_variable: STAGE
environments:
  wild: {like: tame}
  tame: {like: caged}
  caged: {}
  free:
variables:
  STAGE: {type: enum, values: [wild, tame, caged, free, elsewhere]}
  TEXT: {min_length: 2, max_length: 5, description: "Some text."}
  EMPTY: {allow_empty: true, default: seven, example: nine}
  LINES: {multiline: true, max_length: 60}
  NEEDED: {required: true, pattern: '^\w+(-\d+)?$', pattern_hint: "Words, then a number.."}
  PLAIN_PATTERN: {pattern: '\A[^\W\d_]+\Z'}
  COUNT: {type: integer, min: -5, max: 12345678901234567, default: 3}
  PART: {type: number, min: 0.5, max: 1.0e+2}
  DOOR: {type: port, min: 1024, max: 60000}
  FLAG: {type: boolean, remedy: Ask the keeper.}
  LINK: {type: url, schemes: [https, postgres, 'mqtt+tls'], credentials: true, forbid_local: true}
  PAGE: {type: url}
  PLACE: {type: host, forbid_local: true}
  MAIL: {type: email}
  TIME: {type: duration, min: 500ms, max: 1.5d}
  LONGER: {type: duration, default: 2h}
  KIND: {type: enum, values: [lion, tiger, 3, yes, 010, 1.50, 1e3, 'yes', 0x1F, 1_000, "null", 12:30]}
  RULE: {type: regex}
  REGION: {type: aws_region}
  NAME_OF_RESOURCE: {type: arn}
  BUCKET: {type: s3_bucket}
  GROUP_OF_LOGS: {type: log_group}
  WAY: {type: path}
  DATA: {type: json, default: {a: [1, 2.0, true, "ü"]}}
  FOOD: {type: list, separator: ;, items: {type: integer, min: 1}, min_items: 2, max_items: 3}
  HOSTS: {type: list, items: {type: host, forbid_local: true, min_length: 3}}
  KEY: {secret: true, min_entropy: 60.5, example: what-everybody-knows, placeholders: [open-sesame, 42, on, 1.50]}
  SECOND_KEY:
    secret: true
    min_length: 8
    environments: {caged: {required: true, min_length: 12, example: other-example}, tame: {min_length: 10}}
  WHY: {required_if: {KIND: [lion, 3], FLAG: true}}
  WHY_NOT: {required_if: {KEY: '*', SECOND_KEY: abc}, description: A reason}
  WHO: {required_if: {SECOND_KEY: uncaged-secret-9x}}
  OLD: {deprecated: TEXT}
  OLDER: {deprecated: NEEDED}
  GONE: {deprecated: ''}
  PLACEHOLDERS: {allow_placeholder: true}
  FORBIDDEN: {environments: {wild: {forbidden: true, remedy: Not here.}, free: {forbidden: true}}}
  LEFT: &numbers {type: integer}
  RIGHT: {<<: *numbers, type: number, default: 10}
  TWIN: {}
groups:
  - {name: A pair, rule: all_or_none, variables: [LEFT, MAIL, WAY]}
  - {rule: exactly_one, variables: [PAGE, LINK], environments: [caged]}
  - {rule: at_least_one, variables: [TEXT, LINES, EMPTY], environments: [free], remedy: Say something.}
  - {name: One at most, rule: at_most_one, variables: [REGION, BUCKET, PLACE]}
comparisons:
  - {left: LEFT, operator: '<', right: RIGHT}
  - {left: COUNT, operator: '>=', right: LEFT, remedy: Count again.}
  - {left: LONGER, operator: '>', right: TIME}
  - {left: TIME, operator: '<=', right: LONGER}
  - {left: TWIN, operator: '!=', right: TEXT}
  - {left: TWIN, operator: '==', right: WHY}
"""

BARE = """
unknown: ignore
readers: [dotenv]
variables:
  ONLY: {required: true, type: integer, description: The only one}
  KEY: {secret: true}
"""

SCHEMAS = {"roastify": ROASTIFY, "zoo": ZOO, "bare": BARE}
DATA = {name: yaml.safe_load(text) for name, text in SCHEMAS.items()}

GOOD = {
    "APP_ENVIRONMENT": "production", "NODE_ENV": "production", "PORT": "5000", "HOST": "10.0.0.7",
    "APP_URL": "https://roastify.online", "LOG_LEVEL": "info", "TRUSTED_PROXIES": "1",
    "PG_HOST": "db.internal.roastify.online", "PG_PORT": "5432", "PG_DATABASE": "roastify", "PG_USER": "roastify",
    "PG_PASSWORD": "f7Kq2xWm9PzR4tLd8VbN", "PG_SSL": "true", "PG_SSL_CA": "/etc/ssl/rds.pem", "PG_POOL_SIZE": "9",
    "JWT_SECRET": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "JWT_EXPIRES_IN": "7d",
    "AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "AKIAQ3EGV7ZT2M5XKLRP",
    "AWS_SECRET_ACCESS_KEY": "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", "S3_BUCKET": "roastify-storage",
    "EMAIL_FROM": "noreply@roastify.online", "SMTP_HOST": "smtp.roastify.online", "SMTP_PORT": "587",
    "SMTP_USER": "mailer", "SMTP_PASS": "Zw8eR5tY1uI6oP3aS9dF7gH", "CLOUDWATCH_LOG_GROUP": "/aws/ec2/roastify",
    "STAGE": "wild", "TEXT": "hello", "EMPTY": "", "LINES": "one\ntwo", "NEEDED": "word-12", "PLAIN_PATTERN": "wörd",
    "COUNT": "12", "PART": "1.5", "DOOR": "8443", "FLAG": "true", "LINK": "postgres://u:p@db.zoo.net/x",
    "PAGE": "http://zoo.net:8080/a?b#c", "PLACE": "2001:db8::1", "MAIL": "a.b+c@zoo.net", "TIME": "15m",
    "LONGER": "1h", "KIND": "lion", "RULE": "^a(b|c)*$", "NAME_OF_RESOURCE": "arn:aws:s3:::bucket/x",
    "BUCKET": "zoo-bucket", "GROUP_OF_LOGS": "/aws/zoo", "WAY": "/a/b", "DATA": '{"a":[1,2,{"b":null}]}',
    "FOOD": "1; 2", "HOSTS": "a.zoo.net,10.0.0.1", "KEY": "kT9-vQ2_xL7+mB4=", "SECOND_KEY": "uncaged-secret-9x",
    "WHY": "because", "WHY_NOT": "perhaps", "WHO": "me", "LEFT": "3", "RIGHT": "10", "TWIN": "hello", "ONLY": "1",
    "REGION": "us-east-1", "OLD": "old", "OLDER": "older", "GONE": "gone", "FORBIDDEN": "x", "PLACEHOLDERS": "<x>",
}  # fmt: skip

#: Values that have broken something somewhere, for any type.
ODD = [
    "", " ", "  x", "x\u00a0", "\u200b", "\ufeff", "\x00", "a\tb", "a\nb", "\u2028", "\x85x", "x\x1f", "“x”", "ü",
    "😀😀", "İstanbul", "changeme", "Change-Me-1!", "CHANGE_ME", "your_password_here", "your-secret", "my_own_key",
    "<secret>", "a<word>b", "{{ x }}", "{{ vault_password }}", "${HOME}", "${A:-b}", "%PATH%", "[your name]", "xxxx",
    "a-xxxxx", "***", "…", "...", "TODO", "None", "$ANSIBLE_VAULT;1.1;AES256", " $ANSIBLE_VAULT;1",
    "AnsibleUndefined", "!vault |", "!vaults", "AKIAIOSFODNN7EXAMPLE", "password1", "Password!!", "secret",
    "open-sesame", "42", "what-everybody-knows", "other-example", "abc", "aaaaaaaa", "abababab", "abcabcabc",
    "abcdefgh", "hgfedcba", "qwertyuiop", "98765432", "aaaabbbbccccdddd", "correct horse", "0", "-0", "-5", "-6",
    "00", "08", "1e3", "0x10", "1_000", "+1", "1.", ".5", "0.5", "0.49999", "100.00", "100.01", "NaN", "Infinity",
    "٣", "³", "1023", "1024", "65535", "65536", "123456789012345678", "1234567890123456789", "12345678901234567",
    "12345678901234568", "-123456", "TRUE", "True", "yes", "no", "ture", "false", "3", "8", "1.5", "1.50", "1000",
    "31", "null", "750", "None ", "tigre", "loin", "10", "10s", "1h30m", "500ms", "499ms", "1.5d", "36h", "36.1h",
    "1 d", "1  d", "1d ", "9" * 400 + "d", "0s", "7D", "٣d", "http://", "//zoo.net", "http:zoo.net", "http:///x",
    "HTTP://ZOO.NET", "ftp://zoo.net", "https://localhost", "https://LocalHost.", "https://127.1.2.3",
    "https://[::1]:5", "https://[::1", "https://::1]", "https://[1.2.3.4]", "https://[v1.x]",
    "https://[fe80::1%eth0]/", "https://[::ffff:127.0.0.1]", "https://[::ffff:0.0.0.0]", "https://[::]",
    "https://0.0.0.0", "https://a:99999", "https://a:b", "https://a:", "https://u:p@ss@db.net/", "https://u@db.net",
    "postgres://u:p@ss/w@db.net", "https://u:12/w@h",
    "https://:p@db.net", "https://@db.net", "postgres://u:p/w@db.net/x", "mqtt+tls://h", "mqtt+tls:x",
    "https://exa mple.net", "https://ex\u2100.net", "https://bücher.net", "https://a..b", "https://-a.net",
    "https://a_b.net", "https://1.2.3", "https://example.com", "https://x.example.org:99999/",
    "https://db.your-domain.net", "https://host.docker.internal", "https://x.local.", "1http://x", "example.com",
    "my-domain.net", "localhost", "LOCALHOST", "127.0.0.1", "127.0.0.01", "256.1.1.1", "1.2.3", "::1", "[::1]", "::",
    "1::2::3", "0:0:0:0:0:0:0:1", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8:9",
    "12345::", ":1:2:3:4:5:6:7", "::1%", "::1%a%b", "::1.2.3.4", "::ffff:127.0.0.1", "::FFFF:7F00:1", "fe80::1%x",
    "host:80", "db.net:x", "a.b.c.", "a..", ".", "a" * 63, "a" * 64, "x." * 126 + "x", "x." * 127 + "x", "a@b",
    "a@b.c", "@b.c", "a@", "a@@b.c", "a..b@c.d", "a" * 64 + "@b.c", "a" * 65 + "@b.c", "a@example.com", "ä@b.c",
    "a@[1.2.3.4]", "a@1.2.3.4", "(", ")", "[", "]", "a{2,1}", "a{,}", "*", "a**", "a*?", "(?P<a>x)(?P=a)", "(?<a>x)",
    "\\", "\\q", "[z-a]", "[]a]", "(?<=a+)b", "(?i)a", "a(?i)", "x{,3}", "[[:alpha:]]", "us-east-1a", "us-east-",
    "xx-east-1", "us-gov-west-1", "eu-isoe-west-1", "us-isob-east-1", "us-east-1é", "us-east-1 ",
    "arn:aws:iam::123456789012:role/x", "arn:aws-cn:s3:::x", "arn:aws:iam::12345:x",
    "arn:aws:sns:us-east-1:123456789012:", "arn:x", "s3://x", "a/b", "ab", "ABC", "a..b", "1.2.3.4", "xn--a",
    "b-s3alias", "-ab", "ab-", "aws/x", "x" * 512, "x" * 513, "log group", "/", "/..", "/a/../b", "relative", "/...",
    "{", "{}", "[1,]", "nul", "'x'", "1,2", "[\"\\ud800\"]", "1.0e", "\"x\"", "[1] ", ";", "1;;2", "1;2;3;4",
    "1;2;x", "0;1", "1", "a.net,localhost", ",", "a.net, b.net", "xy,z", "1; 2 ;3", "x" * 4096, "x" * 4097,
    "y" * 131066, "z" * 131070, "ü" * 65530, "\"quoted\"", "'quoted'", "`quoted`", "\"half", "a'b", "a\\nb", "a#b",
    "#b", "a $b",
]  # fmt: skip

NAMES = [
    "DATABSE_URL", "PORTT", "port", "HOSTS_", "PATH", "HOME", "LD_PRELOAD", "npm_config_x", "PM2_HOME",
    "NODE_OPTIONS", "NODE_ENVS", "JWT_SECRTE", "OTHER_X", "VITE_A", "VITE_AB", "X5", "XA", "YbZ", "YaZ", "a-b",
    "a.b", "MIIEvQIBADANBgkqhkiG9w0BAQ", "AbC", "x" * 70, "__proto__", "constructor", "1", "EXPORT", "export",
    "toString", "PG_PASWORD", "KEYS", "ONYL", "SECRET", "HOST_PG", "hasOwnProperty",
]  # fmt: skip


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    """The back end as a deployment lays it out, with what it needs to run and no page."""
    build = artifact_build.plan(
        source=str(APPLICATION),
        destination=str(tmp_path_factory.mktemp("artifacts")),
        name="roastify",
        steps=["ci --omit=dev"],
        expect=["node_modules", "env.schema.yml"],
    )
    directory = tmp_path_factory.mktemp("releases") / "20261122T233000Z-1.0.0-abc1234"
    artifact.unpack(artifact_build.run(build).path, str(directory))
    return directory


def ask(release: Path, **question: Any) -> dict[str, Any]:
    """What the application's half answers, in one process for all questions."""
    command = [artifact_build.find_node("18").node, "-e", RUNNER, str(release / "backend/src/environment")]
    answer = subprocess.run(
        command, input=json.dumps(question), capture_output=True, text=True, timeout=300, check=False, encoding="utf-8"
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    return dict(json.loads(answer.stdout))


def expected(schema: Schema, text: str, variables: dict[str, str]) -> Report:
    """What the deployment's half says of a file, and of variables of the process that win over it."""
    document = dotenv.read(text)
    from_file = dotenv.to_mapping(document.entries)
    own = str(schema.data.get("environment_variable", ""))
    named = variables.get(own, from_file.get(own, ""))
    environment = named if named in schema.environments else ""
    if not variables:
        report = schema.validate_text(text, environment)
    else:
        # What the process has counts, and stands in no line.
        entries = [
            entry._replace(value=variables[entry.key], line=None) if entry.key in variables else entry
            for entry in document.entries
        ]
        more = [name for name in schema.variables if name in variables and name not in from_file]
        entries += [dotenv.Entry(name, variables[name], None, 0) for name in more]  # type: ignore[arg-type]
        report = schema.validate(entries, environment)
        report.problems += dotenv_problems(document, schema.variables)
        report.problems.sort(key=lambda problem: (problem.line or 0, problem.severity, problem.code))
        report.problems = _shortened(report.problems)
        report = schema._without_odd_names(report)
    # What other readers see is left to the deployment.
    report.problems = [problem for problem in report.problems if problem.code != "readers_disagree"]
    return report


def compare(release: Path, cases: list[tuple[str, str, dict[str, str]]]) -> list[Report]:
    """Both halves on (schema, text of the file, variables of the process); the reports, which are the same."""
    loaded = {name: Schema.load(data) for name, data in DATA.items()}
    names = list(SCHEMAS)
    source = "/srv/app/current/.env"
    questions = [
        {"schema": names.index(schema), "text": text, "variables": variables, "source": source}
        for schema, text, variables in cases
    ]
    answers = ask(release, schemas=list(SCHEMAS.values()), cases=questions)["judged"]
    assert len(answers) == len(cases)
    reports = []
    for (name, text, variables), answer in zip(cases, answers):
        report = expected(loaded[name], text, variables)
        case = f"seed {SEED}, schema {name}, variables {variables!r:.2000}, file:\n{text[:4000]!r}"
        said = (answer["message"], answer["problems"], answer["warnings"])
        wanted = (report.message(source), [it.as_dict() for it in report.problems], report.warning_texts(source))
        if said != wanted:  # an assertion would take minutes to explain texts of this length
            lines = difflib.unified_diff(
                wanted[0].splitlines(), said[0].splitlines(), "deployment", "application", "", "", 0
            )
            differ = [(one, other) for one, other in zip(wanted[1], said[1]) if one != other][:3]
            pytest.fail("\n".join([case, *lines, repr(differ)])[:20_000], pytrace=False)
        reports.append(report)
    return reports


def file_of(variables: dict[str, str]) -> str:
    """A .env file with these variables, as far as dotenv can read them back."""
    lines = []
    for name, value in variables.items():
        try:
            lines.append(f"{name}={dotenv.quoted(name, value)}")
        except dotenv.DotenvError:
            lines.append(f'{name}="{value}"')
    return "\n".join([*lines, ""])


def good(schema: str) -> dict[str, str]:
    return {name: GOOD[name] for name in DATA[schema]["variables"] if name in GOOD}


def test_a_good_environment_is_good_for_both(release):
    (report,) = compare(release, [("roastify", file_of(good("roastify")), {})])
    assert report.problems == [] and report.environment == "production"
    answer = ask(
        release,
        schemas=[ROASTIFY],
        cases=[{"schema": 0, "text": file_of({"PORT": "6000"}), "variables": {"PORT": "7000"}, "source": ""}],
    )["judged"][0]
    defaults = {
        name: str(rules["default"]).lower() if isinstance(rules["default"], bool) else str(rules["default"])
        for name, rules in DATA["roastify"]["variables"].items()
        if "default" in rules
    }
    assert len(defaults) > 5
    assert answer["values"] == {**defaults, "PORT": "7000"}


def test_each_odd_value_of_each_variable(release):
    """One variable at a time has one odd value, all others are good."""
    cases = []
    for schema in SCHEMAS:
        for name, rules in DATA[schema]["variables"].items():
            # Long ones once for each type is enough.
            values = ODD if rules.get("type", "string") not in ("enum", "boolean") else [v for v in ODD if len(v) < 99]
            for value in values:
                if len(value) > 5000 and name not in ("TEXT", "KEY", "LINES"):
                    continue
                cases.append((schema, "", {**good(schema), name: value}))
    reports = compare(release, cases)
    found = {problem.code for report in reports for problem in report.problems}
    assert len(cases) > 10_000
    assert found >= {
        "arn", "aws_region", "boolean", "comparison", "deprecated", "duration", "email", "enum", "forbidden", "group",
        "host", "integer", "invisible_character", "json", "list", "local_host", "log_group", "missing", "number",
        "outer_space", "path", "pattern", "placeholder", "port", "quoted_twice", "regex", "s3_bucket", "shared_secret",
        "smart_quote", "template_leftover", "too_few", "too_large", "too_long", "too_many", "too_short", "too_small",
        "url", "url_credentials", "url_scheme", "weak_secret",
    }  # fmt: skip


def mutated(rng: random.Random, value: str) -> str:
    """A value that went wrong in one of the usual ways, or in none."""
    position = rng.randrange(len(value) + 1)
    return rng.choice(
        [
            value,
            value,
            value,
            value[:position],
            value[:position] + rng.choice("aZ0 -_.,;:/@%'\"\\#=äß😀\u00a0\t") + value[position:],
            value[:position] + value[position + 1 :],
            value[:position]
            + value[position + 1 : position + 2]
            + value[position : position + 1]
            + value[position + 2 :],
            value.upper(),
            value.title(),
            value + value,
            f" {value}",
            f'"{value}"',
            rng.choice(ODD),
            rng.choice(list(GOOD.values())),
        ]
    )


def random_text(rng: random.Random, names: list[str]) -> str:
    """A .env file by a hurried hand."""
    lines = []
    # Mostly complete, so that deeper rules are reached too.
    share = rng.choice([0.2, 0.7, 0.95])
    for name in names:
        if rng.random() > share:
            continue
        value = GOOD.get(name, "1") if rng.random() < 0.6 else mutated(rng, GOOD.get(name, "1"))
        if rng.random() < 0.05:
            name = rng.choice([name.lower(), name[:-1], name + "X", name.replace("_", "-"), name[1:] + name[:1]])
        style = rng.randrange(12)
        if style < 5:
            lines.append(file_of({name: value}).rstrip("\n"))
        elif style < 8:
            lines.append(f"{name}={value}")
        else:
            quote = rng.choice("'\"`")
            ending = rng.choice(["", " # comment", "  ", "#x", quote, " y"])
            lines.append(
                f"{rng.choice(['', 'export ', ' '])}{name}{rng.choice([' = ', '=', ': '])}{quote}{value}{quote}{ending}"
            )
    for _ in range(rng.choice([0, 0, 1, 3])):
        extra = rng.choice(
            [
                "# a comment", "", "no assignment", "=x", f"{rng.choice(NAMES)}={rng.choice(ODD[:60])}",
                f"{rng.choice(names)}={rng.choice(ODD)}", 'OPEN="never closed', "MORE='a\nPORT=1\nKEY=2'", "A: b",
                "dGhlIGVuZA==",
            ]
        )  # fmt: skip
        lines.insert(rng.randrange(len(lines) + 1), extra)
    if rng.random() < 0.3:
        rng.shuffle(lines)
    return rng.choice(["", "", "\ufeff"]) + rng.choice(["\n", "\n", "\r\n", "\r"]).join(lines) + rng.choice(["", "\n"])


def test_random_environments(release):
    rng = random.Random(SEED)
    cases = []
    for _ in range(ROUNDS):
        for schema in SCHEMAS:
            names = list(DATA[schema]["variables"])
            variables: dict[str, str] = {}
            if rng.random() < 0.3:
                chosen = [*rng.sample(names, min(3, len(names))), rng.choice(NAMES)]
                variables = {name: mutated(rng, GOOD.get(name, "1")) for name in chosen if name != "__proto__"}
            cases.append((schema, random_text(rng, names), variables))
    reports = compare(release, cases)
    found = {problem.code for report in reports for problem in report.problems}
    assert found >= {
        "unclosed_quote",
        "swallowed",
        "skipped_line",
        "duplicate",
        "cut_by_comment",
        "unknown",
        "reserved",
    }
    # Neither all broken nor all good, and in every environment.
    assert {report.environment for report in reports} >= {"", "production", "wild"}
    assert sum(not report.errors for report in reports) > 5


def test_texts_beyond_all_measure(release):
    many = "".join(f"NAME_{number}=1\n" for number in range(250))
    odd = "".join(f"aB{number}x=1\n" for number in range(150))
    cases = [(schema, text, {}) for schema in SCHEMAS for text in (many, odd, "A=1\n" * 300_000 + "B=2\n" * 300_000)]
    reports = compare(release, cases)
    assert {"file_too_large", "unknown"} <= {problem.code for report in reports for problem in report.problems}


def random_expression(rng: random.Random, depth: int = 0) -> str:
    atoms = [
        "a", "b", "1", "_", "-", " ", "é", ".", "^", "$", r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", r"\b", r"\B",
        r"\A", r"\Z", r"\.", r"\-", r"\/", r"\n", r"\x41", r"\u00e9", r"\0", r"\101", r"\1", "[a-c]", "[^a-c]",
        r"[\w-]", r"[^\W\d]", "[]a]", "[^]a]", r"[\D\s]", r"[a\]b]", "[-a]", "[a-]", "{", "}", "]", "a{2}", "[.*]",
        r"\\", "(?:)", "()", r"[\b]", "[&&a]", "[a~]", r"\q", ")", "*",
    ]  # fmt: skip
    if depth > 3 or rng.random() < 0.5:
        return rng.choice(atoms)
    inner = [random_expression(rng, depth + 1) for _ in range(rng.randrange(1, 4))]
    body = "".join(inner)
    return rng.choice(
        [
            body,
            body,
            f"({body})",
            f"(?:{body})",
            f"(?P<n{depth}>{body})",
            f"(?={body})",
            f"(?!{body})",
            f"(?<={body})",
            f"(?<!{body})",
            "|".join(inner),
            body + rng.choice(["*", "+", "?", "*?", "{2}", "{1,2}", "{,2}", "{1,}", "{2,1}", "??"]),
            f"(?{rng.choice(['i', 's', 'm', 'x', 'i-s'])}{rng.choice([')', ':'])}{body}" + rng.choice(["", ")"]),
        ]
    )


def test_expressions_mean_the_same(release):
    rng = random.Random(SEED)
    # (?a:…) is not among the random ones, since Python forgets its flag at the start of an expression.
    # No text has a character outside of the basic plane: with (?<=^(?:(?<=a)(?=a)|(?<!a)(?!a))), V8 finds places
    # in the middle of one.
    texts = [
        "", "a", "ab", "b1", "a b", "aa", "1_2", "é", "A", "a\n", "\n", "a-b", "٣", "]", "{", "\u00a0", "c…",
        "a.b/c\\",
    ]  # fmt: skip
    patterns = [str(rules["pattern"]) for rules in DATA["roastify"]["variables"].values() if "pattern" in rules]
    patterns += [
        "(?i)straße",
        r"^[\w.-]+@[\w-]+$",
        "(?s)a.b",
        "(?x) a b # c",
        r"(a)\1",
        "(?P<x>a)(?P=x)",
        "^[^:*]{1,3}$",
        r"(?a)^\w\s?\S?$",
    ]
    assert len(patterns) > 10
    patterns += [random_expression(rng) for _ in range(4000)]
    answers = ask(release, expressions=[[pattern, texts] for pattern in patterns])["matched"]
    compiled = 0
    for pattern, answer in zip(patterns, answers):
        try:
            mine = re.compile(pattern)
        except (re.error, OverflowError, RecursionError):
            mine = None
        assert answer["good"] == (mine is not None), f"seed {SEED}: {pattern!r}"
        # A group that took no part equals nothing in Python, and the empty text in JavaScript.
        if mine and "found" in answer and r"\1" not in pattern:
            compiled += 1
            # Whether \B is found in an empty text depends on the version of Python.
            found = zip(texts, answer["found"], (bool(mine.search(text)) for text in texts))
            wrong = [text for text, theirs, ours in found if theirs != ours and (text or r"\B" not in pattern)]
            assert wrong == [], f"seed {SEED}: {pattern!r}"
    assert compiled > 1000


# --- The real application -------------------------------------------------------------------------------------------


def start(release: Path, variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    node = artifact_build.find_node("18").node
    return subprocess.run(
        [node, str(release / "backend/src/server.js")],
        cwd=release,
        env={"PATH": os.environ["PATH"], **(variables or {})},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture
def own_release(release, tmp_path) -> Path:
    """A release that a test may damage."""
    directory = tmp_path / "20261122T233000Z-1.0.0-abc1234"
    shutil.copytree(release, directory, symlinks=True)
    return directory


def test_the_application_refuses_a_broken_file_in_the_words_of_the_deployment(own_release):
    secrets = {
        "PG_PASSWORD": "tr0ub4dor&3-canary",
        "JWT_SECRET": "canary-canary-canary-canary-canary",
        "SMTP_PASS": "canary",
    }
    broken = {
        **good("roastify"),
        **secrets,
        "PG_SSL": "yes",
        "PORT": "80",
        "JWT_EXPIRES_IN": "7",
        "APP_URL": "http://localhost",
    }
    del broken["S3_BUCKET"], broken["SMTP_USER"], broken["NODE_ENV"]
    text = "# by hand\n" + file_of(broken) + "NODE_ENVS=production\nLEGACY=1\n"
    source = own_release / ".env"
    source.write_text(text)
    report = Schema.load(DATA["roastify"]).validate_text(text, "production")
    assert len(report.errors) > 8
    result = start(own_release)
    assert result.returncode == NOT_CONFIGURED
    (entry,) = [json.loads(line) for line in result.stdout.splitlines()]
    assert entry["event"] == "start.refused" and entry["level"] == "error"
    assert entry["message"] == f"cannot start: {report.message(str(source))}"
    assert entry["problems"] == [problem.as_dict() for problem in report.errors]
    assert result.stderr == f"cannot start: {report.message(str(source))}\n"
    for secret in secrets.values():
        assert secret not in result.stdout + result.stderr


def test_variables_of_the_process_win_and_have_no_line(own_release):
    (own_release / ".env").write_text(file_of({**good("roastify"), "PORT": "80"}))
    result = start(own_release, {"PORT": "81", "PG_SSL": "no"})
    assert result.returncode == NOT_CONFIGURED
    problems = {found["variable"]: found for found in json.loads(result.stdout)["problems"]}
    assert set(problems) == {"PORT", "PG_SSL"}
    assert [found["line"] for found in problems.values()] == [None, None]
    assert "(found 81)" in problems["PORT"]["message"]


def test_only_the_base_rules_hold_where_no_environment_is_named(own_release):
    relaxed = {**good("roastify"), "PG_SSL": "false", "PG_HOST": "localhost"}
    (own_release / ".env").write_text(file_of({**relaxed, "PORT": "x"}))
    result = start(own_release, {"APP_ENVIRONMENT": ""})
    assert [found["variable"] for found in json.loads(result.stdout)["problems"]] == ["PORT"]
    result = start(own_release, {"APP_ENVIRONMENT": "produktion"})
    assert [found["variable"] for found in json.loads(result.stdout)["problems"]] == ["APP_ENVIRONMENT", "PORT"]
    result = start(own_release)
    assert {"PG_SSL", "PG_HOST", "PORT"} == {found["variable"] for found in json.loads(result.stdout)["problems"]}


def test_nothing_is_set_at_all(own_release):
    result = start(own_release)
    assert result.returncode == NOT_CONFIGURED
    entry = json.loads(result.stdout)
    assert f"(there is no {own_release / '.env'})" in entry["message"]
    required = [name for name, rules in DATA["roastify"]["variables"].items() if rules.get("required")]
    assert [found["variable"] for found in entry["problems"]] == required


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (None, "is missing. A release without it is broken"),
        ("variables: [", "line 2 is not valid YAML"),
        ("a: 1", "it has no mapping `variables`"),
        ("variables: {A: {type: colour}}", "variables.A has a type that is not known here"),
        ("variables: {A: {pattern: '(?>a)'}}", "variables.A has a pattern that JavaScript cannot follow"),
    ],
)
def test_a_release_whose_schema_is_broken_does_not_start(own_release, schema, says):
    (own_release / ".env").write_text(file_of(good("roastify")))
    path = own_release / "env.schema.yml"
    path.unlink()
    if schema is not None:
        path.write_text(schema + "\n")
    result = start(own_release)
    assert result.returncode == NOT_CONFIGURED, result.stderr
    message = json.loads(result.stdout)["message"]
    assert message.startswith(f"cannot start: The schema of the environment, {path},") and says in message


def test_the_half_of_the_application_knows_no_application():
    for path in (APPLICATION / "backend/src/environment").glob("*.js"):
        text = path.read_text(encoding="utf-8").replace("roastify.ops.env_validate", "")
        assert not re.search(r"roast|PG_|JWT_|SMTP_", text, re.IGNORECASE), path
