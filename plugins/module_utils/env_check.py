# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line of the environment's validation: the same engine as the modules env_validate and env_file.

usage: python -m ansible_collections.roastify.ops.plugins.module_utils.env_check COMMAND --help

Exit status: 0 if all is well, 1 if there are problems, 2 if something cannot be read, the schema is wrong or the
command is. No value of a secret is ever printed.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils import dotenv, env_format, env_input, env_templates
from ansible_collections.roastify.ops.plugins.module_utils.env_report import Problem, Report
from ansible_collections.roastify.ops.plugins.module_utils.env_schema import Schema, SchemaError
from ansible_collections.roastify.ops.plugins.module_utils.env_types import counted

FINE, PROBLEMS, UNUSABLE = 0, 1, 2

_NO_YAML = "install it (pip install PyYAML), or give the schema as JSON"


def problem_line(path: str, problem: Problem) -> str:
    """A problem as compilers write theirs, so that editors and CI find the place: path:line: error: ... [code]."""
    place = path if problem.line is None else f"{path}:{problem.line}"
    remedy = f" {problem.remedy}" if problem.remedy else ""
    return f"{place}: {problem.severity}: {problem.message}{remedy} [{problem.code}]"


def summary(path: str, report: Report) -> str:
    """The last line about a file."""
    where = f" for {report.environment}" if report.environment else " by the rules that hold everywhere"
    if not report.problems:
        return f"{path}: fine{where} ({counted(len(report.variables), 'variable')})"
    errors, warnings = counted(len(report.errors), "error"), counted(len(report.warnings), "warning")
    return f"{path}: {errors} and {warnings}{where}"


def environment_in(schema: Schema, text: str) -> str:
    """The environment that a file says it is for, as the application finds out at its start; empty if it doesn't.

    Args:
        schema: names the variable that tells.
        text: of the file.
    """
    variable = schema.data.get("environment_variable")
    named = dotenv.to_mapping(dotenv.parse(text)).get(str(variable), "") if variable else ""
    return named if named in schema.environments else ""


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _load(path: str) -> Schema:
    return Schema.load(env_input.read_schema(Path(path), _NO_YAML))


def _validate(options: argparse.Namespace) -> int:
    schema = _load(options.schema)
    if options.environment and options.environment not in schema.environments:
        known = ", ".join(schema.environments) or "none"
        raise env_input.InputError(f"{options.schema} knows no environment {options.environment}, but {known}")
    reports = []
    for path in options.files:
        content = sys.stdin.buffer.read() if path == "-" else env_input.read_file(Path(path))
        text = dotenv.decode(content)
        report = schema.validate_text(text, options.environment or environment_in(schema, text), options.unknown)
        reports.append(("stdin" if path == "-" else path, report))
    bad = any(report.errors or (options.strict and report.problems) for _path, report in reports)
    if options.format == "json":
        files: list[dict[str, Any]] = [{"path": path, **report.as_dict()} for path, report in reports]
        _say(json.dumps({"valid": not bad, "files": files}, indent=2, ensure_ascii=False))
    else:
        for path, report in reports:
            for problem in report.problems:
                _say(problem_line(path, problem))
            _say(summary(path, report))
    return PROBLEMS if bad else FINE


def _examples(options: argparse.Namespace) -> int:
    source = Path(options.schema)
    stale = 0
    for relative, text in env_templates.files(_load(options.schema), source.name).items():
        target = source.parent / relative
        if target.is_file() and target.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if options.check:
            _say(f"{target}: error: it is not what {source} makes of it: run this command without --check [examples]")
            continue
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        except OSError as error:
            raise env_input.InputError(f"{target} cannot be written: {error.strerror}") from error
        _say(f"wrote {target}")
    return PROBLEMS if options.check and stale else FINE


def _check_schema(options: argparse.Namespace) -> int:
    try:
        schema = _load(options.schema)
    except SchemaError as error:
        _tell_schema(options.schema, error)
        return PROBLEMS
    _say(f"{options.schema}: fine ({counted(len(schema.variables), 'variable')})")
    return FINE


def _json_schema(_options: argparse.Namespace) -> int:
    _say(json.dumps(env_format.json_schema(), indent=2))
    return FINE


def _tell_schema(path: str, error: SchemaError) -> None:
    for text in error.problems:
        line = env_input.line_in_schema(Path(path), text.partition(": ")[0])
        _say(f"{path}:{line}: error: {text} [schema]" if line else f"{path}: error: {text} [schema]")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="env-check",
        description="Checks .env files against a schema, and the schema itself. No value of a secret is printed.",
        epilog="Exit status: 0 if all is well, 1 if there are problems, 2 if something cannot be read or is misused.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    schema: dict[str, Any] = {
        "default": "env.schema.yml",
        "help": "the schema, in YAML or JSON (default: env.schema.yml)",
    }

    validate = commands.add_parser("validate", help="check .env files", description="Checks .env files.")
    validate.add_argument("files", nargs="+", metavar="FILE", help="a .env file, or - for standard input")
    validate.add_argument("--schema", metavar="FILE", **schema)
    validate.add_argument(
        "--environment",
        default="",
        help="the environment whose stricter rules hold; by default what the file says (environment_variable)",
    )
    validate.add_argument(
        "--unknown", choices=env_format.UNKNOWN, help="what unknown names count as (default: what the schema says)"
    )
    validate.add_argument("--strict", action="store_true", help="warnings are problems, too")
    validate.add_argument("--format", choices=("text", "json"), default="text", help="for people, or for machines")
    validate.set_defaults(run=_validate)

    examples = commands.add_parser(
        "examples", help="write the example files of a schema", description="Writes the example files of a schema."
    )
    examples.add_argument("schema", nargs="?", metavar="SCHEMA", **schema)
    examples.add_argument("--check", action="store_true", help="write nothing, say which files are out of date")
    examples.set_defaults(run=_examples)

    check = commands.add_parser("check-schema", help="check a schema itself", description="Checks a schema itself.")
    check.add_argument("schema", nargs="?", metavar="SCHEMA", **schema)
    check.set_defaults(run=_check_schema)

    description = "Prints the JSON Schema of the format, which editors and check-jsonschema take."
    printed = commands.add_parser("json-schema", help="print the JSON Schema of schemas", description=description)
    printed.set_defaults(run=_json_schema)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status; argparse itself exits with 2 where the command is wrong."""
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names and messages are more than ASCII, some terminals are not
            stream.reconfigure(errors="backslashreplace")
    try:
        return int(options.run(options))
    except SchemaError as error:
        _tell_schema(options.schema, error)
        return UNUSABLE
    except env_input.InputError as error:
        sys.stderr.write(f"env-check: {error}\n")
        return UNUSABLE


if __name__ == "__main__":
    raise SystemExit(main())
