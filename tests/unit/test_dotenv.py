from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import dotenv
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "data"))
import dotenv_corpus  # noqa: E402


def read(text: str) -> dict[str, str]:
    return dotenv.to_mapping(dotenv.parse(text))


def test_reads_what_npm_dotenv_reads() -> None:
    corpus = json.loads(dotenv_corpus.FILE.read_text(encoding="utf-8"))
    assert len(corpus) >= 2000
    different = [(text, values, read(text)) for text, values in corpus if read(text) != values]
    assert different == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("A=1\nB=2", [1, 2]),
        ("\n\n# c\nA=1\n\nB=2", [4, 6]),
        ("A='x\ny\nz'\nB=2", [1, 4]),
        ("A=1\r\n\r\nB=2", [1, 3]),
        ("export\nA=1", [2]),
    ],
)
def test_entries_know_their_lines(text: str, lines: list[int]) -> None:
    assert [entry.line for entry in dotenv.parse(text)] == lines


def test_an_entry_knows_where_it_ends() -> None:
    assert dotenv.parse("A='x\ny\nz'\nB=2")[0].end_line == 3


def test_tells_what_is_skipped_in_silence() -> None:
    document = dotenv.read("A=1\nthis is nothing\n# comment\n=x\nB=2\n")
    assert [skipped.line for skipped in document.skipped] == [2, 4]


def test_tells_of_quotes_that_do_not_close() -> None:
    entries = dotenv.parse("A=\"open\nB='fine'\nC=a\"b\n")
    assert [entry.unclosed_quote for entry in entries] == ['"', "", ""]


def test_tells_of_a_value_that_a_comment_cuts() -> None:
    entries = dotenv.parse("A=abc#def\nB=abc # def\nC='abc#def'\n")
    assert [entry.cut_by_comment for entry in entries] == [True, False, False]


def test_the_last_of_two_counts() -> None:
    entries = dotenv.parse("A=1\nA=2")
    assert len(entries) == 2
    assert dotenv.to_mapping(entries) == {"A": "2"}


def test_undecodable_bytes_do_not_stop_it() -> None:
    assert read(dotenv.decode(b"A=\xff\nB=2")) == {"A": "\ufffd", "B": "2"}


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_no_text_is_too_strange(text: str) -> None:
    document = dotenv.read(text)
    assert all(entry.line >= 1 for entry in document.entries)


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True), st.text(max_size=30), max_size=5))
def test_what_can_be_written_reads_back(variables: dict[str, str]) -> None:
    try:
        content = dotenv.render(variables)
    except dotenv.DotenvError:
        return
    assert read(content) == variables


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("", ""),
        ("plain", "plain"),
        ("https://host/path?a=1,2", "'https://host/path?a=1,2'"),
        ("a b", "'a b'"),
        ("a#b", "'a#b'"),
        ("it's", '"it\'s"'),
        ("both ' and \"", "`both ' and \"`"),
        ("two\nlines", "'two\nlines'"),
        ("a\rb", '"a\\rb"'),
        ("back\\slash", "'back\\slash'"),
    ],
)
def test_quotes_only_where_needed(value: str, written: str) -> None:
    assert dotenv.quoted("A", value) == written
    assert read(f"A={written}") == {"A": value}


def test_values_of_an_inventory_become_text() -> None:
    content = dotenv.render({"A": True, "B": False, "C": 5000, "D": None, "E": ["x", 1], "F": {"k": "v"}})
    assert read(content) == {"A": "true", "B": "false", "C": "5000", "E": '["x",1]', "F": '{"k":"v"}'}


def test_refuses_all_that_cannot_be_written_at_once_and_without_values() -> None:
    with pytest.raises(dotenv.DotenvError) as caught:
        dotenv.render({"1A": "canary", "B": "canary\0", "C": "canary ' \" ` \n"})
    message = str(caught.value)
    assert "1A is not a name" in message
    assert "B holds a NUL character" in message
    assert "C cannot be written" in message
    assert "canary" not in message


@pytest.mark.parametrize("start", ["", "A=", "A='", 'A="'])
@pytest.mark.parametrize(
    "unit",
    ["A=1\n", "A='\n", 'A="\\"\n', "A=\n", " ", "A", "\\'", "A='\\'", "A:", "A='x' ", "\u2028'", "\u2028'x", "export "],
    ids=repr,
)
def test_time_grows_with_the_length_only(start: str, unit: str) -> None:
    """Four times as long takes four times as long, or some of what is lost to others; not sixteen times."""

    def seconds(length: int) -> float:
        text = start + unit * (length // len(unit))
        begin = time.process_time()
        dotenv.read(text)
        return time.process_time() - begin

    assert seconds(200_000) < 10 * max(min(seconds(50_000) for _ in range(2)), 0.01)
