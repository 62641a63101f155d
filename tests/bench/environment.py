"""Measures the validation of an environment: 60 variables against a schema of 60, and python-dotenv on the same file.

usage: make bench    or    python tests/bench/environment.py --help

What is measured, each as the median of many rounds, in one process and one after the other within a round:

- the engine: Schema.load (the schema checked, too), the file parsed, every rule asked, the report made;
- its parts: Schema.load alone, parsing alone;
- python-dotenv: dotenv_values of the same file, which parses it and checks nothing. Ratios are taken within a round;
- a process: `python -m ...env_check validate` from its start to its end, which reads YAML, too.

Before anything is measured it is verified that the file is found good, and each of 60 broken ones bad. Nothing here
fails for being slow: a machine has bad days.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]
sys.path[:0] = [str(CHECKOUT / "collections")]

import yaml  # noqa: E402
from ansible_collections.roastify.ops.plugins.module_utils import dotenv  # noqa: E402
from ansible_collections.roastify.ops.plugins.module_utils.env_schema import Schema  # noqa: E402
from dotenv import dotenv_values  # noqa: E402

PROGRAM = "ansible_collections.roastify.ops.plugins.module_utils.env_check"

# Rules, a good value and a bad one. Six of each kind make sixty.
KINDS: list[tuple[dict[str, Any], str, str]] = [
    ({"type": "port", "min": 1024}, "5000", "80"),
    ({"type": "url", "schemes": ["https"], "forbid_local": True}, "https://app.roastify.online/path", "http://x.io"),
    ({"type": "host"}, "db-%d.internal.roastify.online", "a..b"),
    ({"type": "duration", "min": "1m", "max": "90d"}, "7d", "7"),
    ({"type": "enum", "values": ["debug", "info", "warn", "error"]}, "info", "loud"),
    ({"secret": True, "min_length": 32, "min_entropy": 96}, "%d-k7Gq9Zx4vB2nM8sL5tR1wY6pD3fH0j", "short"),
    ({"type": "email"}, "noreply-%d@roastify.online", "nobody"),
    ({"pattern": "^[a-z][a-z0-9_]*$", "max_length": 63}, "roastify_%d", "9lives"),
    ({"type": "list", "items": {"type": "port"}, "max_items": 5}, "8080,8081,8082", "8080,x"),
    ({"type": "integer", "min": 1, "max": 1000}, "60", "0"),
]
COUNT = 60


def schema_data() -> dict[str, Any]:
    """A schema of 60 variables with what Roastify's has: environments, groups, comparisons, readers."""
    variables: dict[str, Any] = {}
    for number in range(COUNT):
        rules = copy.deepcopy(KINDS[number % len(KINDS)][0])
        rules.update(
            {"required": number % 2 == 0, "section": f"Part {number // 10}", "description": f"Variable {number}"}
        )
        rules["environments"] = {"production": {"required": True}}
        variables[f"APP_VARIABLE_{number:02}"] = rules
    names = list(variables)
    return {
        "version": 1,
        "environments": {"local": {}, "staging": {"like": "production"}, "production": {}},
        "readers": ["dotenv", "node"],
        "variables": variables,
        "groups": [{"rule": "all_or_none", "variables": names[start : start + 3]} for start in range(0, 12, 3)],
        "comparisons": [{"left": names[9], "operator": "<=", "right": names[19]}],
    }


def values() -> dict[str, str]:
    return {
        name: KINDS[index % 10][1].replace("%d", str(index)) for index, name in enumerate(schema_data()["variables"])
    }


def text_of(variables: dict[str, str]) -> str:
    """A file as people write it: a comment for each part, some values in quotes."""
    lines = []
    for index, (name, value) in enumerate(variables.items()):
        if index % 10 == 0:
            lines += ["", f"# --- part {index // 10} ---"]
        lines.append(f'{name}="{value}"' if index % 4 == 0 else f"{name}={value}")
    return "\n".join(lines[1:]) + "\n"


def verify(data: dict[str, Any]) -> None:
    """The file is good, and with any one value broken it is not."""
    good = values()
    report = Schema.load(data).validate_text(text_of(good), "staging")
    assert not report.problems and len(report.variables) == COUNT, report.message("the file")
    assert dict(dotenv.to_mapping(dotenv.parse(text_of(good)))) == good
    for index, name in enumerate(good):
        broken = Schema.load(data).validate_text(text_of({**good, name: KINDS[index % 10][2]}), "staging")
        assert any(problem.variable == name for problem in broken.errors), name


def milliseconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200, help="rounds of what runs in one process")
    parser.add_argument("--processes", type=int, default=15, help="rounds of whole processes")
    options = parser.parse_args()
    data = schema_data()
    verify(data)
    with tempfile.TemporaryDirectory() as directory:
        file, schema_file = Path(directory, ".env"), Path(directory, "env.schema.yml")
        file.write_text(text_of(values()), encoding="utf-8")
        schema_file.write_text(yaml.safe_dump(data), encoding="utf-8")
        assert dotenv_values(file) == values()

        def engine() -> object:
            return Schema.load(data).validate_text(file.read_text(encoding="utf-8"), "staging")

        work: dict[str, Callable[[], object]] = {
            "engine": engine,
            "Schema.load": lambda: Schema.load(data),
            "parse": lambda: dotenv.read(file.read_text(encoding="utf-8")),
            "python-dotenv": lambda: dotenv_values(file),
        }
        times: dict[str, list[float]] = {name: [] for name in work}
        for number in range(options.rounds + 5):
            for name, function in work.items():
                spent = milliseconds(function)
                if number >= 5:  # the first ones fill caches
                    times[name].append(spent)
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "collections")}
        command = [sys.executable, "-m", PROGRAM, "validate", str(file), "--schema", str(schema_file)]
        command += ["--environment", "staging"]
        empty = [sys.executable, "-c", "pass"]

        def process(arguments: list[str]) -> float:
            return milliseconds(lambda: subprocess.run(arguments, env=environment, check=True, capture_output=True))

        whole = [process(command) for _ in range(options.processes)]
        python = [process(empty) for _ in range(options.processes)]
    ratios = [ours / theirs for ours, theirs in zip(times["engine"], times["python-dotenv"])]
    print(f"{COUNT} variables, Python {sys.version.split()[0]}, medians of {options.rounds} rounds")
    for name, spent in times.items():
        slow = sorted(spent)[-len(spent) // 10]
        print(f"  {name:<16}{statistics.median(spent):8.2f} ms   (slowest tenth from {slow:.2f})")
    print(f"  engine / python-dotenv: {statistics.median(ratios):.2f}")
    print(
        f"  a whole process: {statistics.median(whole):.0f} ms, of which Python's start {statistics.median(python):.0f}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
