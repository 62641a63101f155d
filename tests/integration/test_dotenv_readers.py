"""The models of dotenv.py and env_readers.py against the real readers of .env files.

Every run has new files beside the fixed ones; a failure names their seed, and DOTENV_SEED=<seed> makes them again.

Differences between dotenv.py and npm's dotenv 16.0 to 18.0, between env_readers.py and Node.js 20, 22 and 24, or
systemd 252: none are known, and none is tolerated here. docker's reader is not among them: there is no docker here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import dotenv, env_readers
from npm_packages import brought_node, installed, own_node

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "data"))
import dotenv_corpus  # noqa: E402

PINNED = HERE / "dotenv-readers"
PACKAGES: dict[str, str] = json.loads((PINNED / "package.json").read_text())["dependencies"]
PARSER = """
const { parseEnv } = require('util');
const texts = JSON.parse(require('fs').readFileSync(0, 'utf8'));
process.stdout.write(JSON.stringify(texts.map((text) => ({ ...parseEnv(text) }))));
"""
SEED = int(os.environ.get("DOTENV_SEED") or time.time_ns())

Values = dict[str, str]


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    """Files picked by hand, the same ones in every run, and new ones."""
    texts = list(dotenv_corpus.HAND_PICKED)
    for seed in (dotenv_corpus.FIXED_SEED, SEED):
        texts += dotenv_corpus.generated(seed, 2000) + dotenv_corpus.written_by_people(seed, 2000)
    assert len(texts) >= 8000
    return texts


@pytest.fixture(scope="module")
def packages() -> Path:
    return installed(PINNED) / "node_modules"


def different(texts: Sequence[str], real: Sequence[object], model: Sequence[object]) -> list[str]:
    """A few of the texts that a model reads differently, the short ones, with the seed that made them."""
    assert len(texts) == len(real) == len(model)
    found = sorted((t, r, m) for t, r, m in zip(texts, real, model) if r != m) if real != model else []
    found.sort(key=lambda item: len(item[0]))
    return [f"DOTENV_SEED={SEED}: {t!r} is {r!r}, not {m!r}" for t, r, m in found[:5]]


@pytest.mark.parametrize("package", PACKAGES)
def test_dotenv_reads_as_npm_does(package: str, packages: Path, corpus: list[str]) -> None:
    version = json.loads((packages / package / "package.json").read_text())["version"]
    assert PACKAGES[package] == f"npm:dotenv@{version}"
    real = dotenv_corpus.read_with_npm(packages / package, corpus, str(brought_node()))
    assert different(corpus, real, [dotenv.to_mapping(dotenv.parse(text)) for text in corpus]) == []


def parse_env(node: Path, texts: Sequence[str]) -> list[Values]:
    """What util.parseEnv of one Node.js reads from each text."""
    done = subprocess.run(
        [node, "-e", PARSER], input=json.dumps(texts), capture_output=True, text=True, check=True, timeout=300
    )
    # Written as it is read: an own property __proto__ does not survive, as in process.env of the application.
    return [dict(values) for values in json.loads(done.stdout)]


def node_of(packages: Path, major: int) -> Path:
    found = list(packages.glob(f"node-{major}-*/bin/node"))
    assert len(found) == 1, f"npm has no Node.js {major} for this machine: only for Linux on x64 and arm64"
    found[0].chmod(0o755)
    return found[0]


def major_of(node: Path) -> int:
    return int(subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout[1:].split(".")[0])


def model_of_node(major: int) -> Callable[[str], env_readers.Reading]:
    return env_readers.read_node_20 if major == 20 else env_readers.read_node


def test_node_reads_as_its_models_do(packages: Path, corpus: list[str]) -> None:
    nodes = {node: major_of(node) for node in (node_of(packages, 20), node_of(packages, 22), brought_node())}
    assert sorted(nodes.values())[:2] == [20, 22]
    own = own_node()
    # Node.js 18 and the early releases of 20 have no util.parseEnv.
    probe = "process.exit(typeof require('util').parseEnv === 'function' ? 0 : 1)"
    if own and subprocess.run([own, "-e", probe]).returncode == 0:
        nodes.setdefault(own, major_of(own))
    for node, major in nodes.items():
        model = [without_proto(model_of_node(major)(text).values()) for text in corpus]
        assert different(corpus, parse_env(node, corpus), model) == [], f"Node.js {major}"


def without_proto(values: Values) -> Values:
    return {name: value for name, value in values.items() if name != "__proto__"}


@pytest.fixture(scope="module")
def systemd() -> Path:
    """The library with systemd's own parser."""
    places = ("lib/*/systemd", "lib*/systemd")
    found = [path for place in places for path in Path("/usr").glob(f"{place}/libsystemd-shared-*.so")]
    assert found, "systemd's parser is missing: apt-get install libsystemd-shared (or run tools/bootstrap tests)"
    return found[0]


def environment_file(library: Path, texts: Sequence[str]) -> list[Values | int]:
    done = subprocess.run(
        [sys.executable, str(HERE / "systemd_reader.py"), str(library)],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    answers: list[Values | int] = json.loads(done.stdout)
    return answers


def comments_go_on(library: Path) -> bool:
    version = re.search(r"libsystemd-shared-(\d+)", library.name)
    assert version, library
    return int(version[1]) < 254


def test_systemd_reads_as_its_model_does(systemd: Path, corpus: list[str]) -> None:
    real = [answer if isinstance(answer, dict) else "refused" for answer in environment_file(systemd, corpus)]
    readings = [env_readers.read_systemd(text, comments_go_on(systemd)) for text in corpus]
    model = ["refused" if reading.refusals else reading.values() for reading in readings]
    assert different(corpus, real, model) == []
    assert 10 < real.count("refused") < len(corpus) / 2


def wrong_verdicts(text: str, reader: str, real: Sequence[Values | int]) -> list[str]:
    """What `disagreements` says wrongly of a text, given what one or several versions of a reader see in it."""
    document = dotenv.read(text)
    wanted = dotenv.to_mapping(document.entries)
    refused = any(isinstance(values, int) for values in real)
    differing = {
        name
        for name, value in wanted.items()
        if any(isinstance(values, int) or values.get(name) != value for values in real)
    }
    found = env_readers.disagreements(text, document, [reader])
    told = {item.name for item in found}
    reach = {item.line: item.reasons[reader].reach for item in found}
    lines = {entry.key: entry.line for entry in document.entries}
    wrong = [
        f"{name} differs, and nothing says so"
        for name in differing - told
        if 2 not in reach.values() and not any(reach[line] == 1 and line <= lines[name] for line in reach)
    ]
    if refused != any("refuses the whole file" in item.reasons[reader].text for item in found):
        wrong.append("refused by one only")
    for item in found:
        if item.name and item.name not in differing and reach[item.line] == 0:
            wrong.append(f"{item.name} is said to differ, and does not")
    return wrong


def shortest(wrong: Sequence[tuple[str, list[str]]]) -> list[str]:
    found = sorted((item for item in wrong if item[1]), key=lambda item: len(item[0]))
    return [f"DOTENV_SEED={SEED}: {len(found)} wrong, as {text!r}: {what}" for text, what in found[:10]]


def test_verdicts_on_node(packages: Path, corpus: list[str]) -> None:
    versions = [parse_env(node, corpus) for node in (node_of(packages, 20), node_of(packages, 22), brought_node())]
    wrong = [(text, wrong_verdicts(text, env_readers.NODE, real)) for text, *real in zip(corpus, *versions)]
    assert shortest(wrong) == []


def test_verdicts_on_systemd(systemd: Path, corpus: list[str]) -> None:
    # The verdict is that of 252: for a later library, without the files in which a comment ends in a backslash.
    texts = [text for text in corpus if comments_go_on(systemd) or not re.search(r"[#;].*\\[\r\n]", text)]
    real = environment_file(systemd, texts)
    wrong = [(text, wrong_verdicts(text, env_readers.SYSTEMD, [values])) for text, values in zip(texts, real)]
    assert shortest(wrong) == []
    agreeing = sum(not env_readers.disagreements(text, dotenv.read(text), [env_readers.SYSTEMD]) for text in texts)
    assert 500 < agreeing < len(texts) - 500
