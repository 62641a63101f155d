from __future__ import annotations

import time
from typing import Any

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import dotenv, env_readers, env_types
from ansible_collections.roastify.ops.plugins.module_utils.env_file_text import file_problems
from ansible_collections.roastify.ops.plugins.module_utils.env_format import READERS
from ansible_collections.roastify.ops.plugins.module_utils.env_schema import MAX_TEXT, Schema, SchemaError
from hypothesis import given, settings
from hypothesis import strategies as st

SCHEMA = {"variables": {name: {} for name in ("A", "B", "C")}}


def said(text: str, *readers: str) -> dict[tuple[int, str], dict[str, str]]:
    """Line and variable of each disagreement, with the reason of each reader."""
    found = env_readers.disagreements(text, dotenv.read(text), readers or READERS)
    return {(item.line, item.name): {reader: reason.text for reader, reason in item.reasons.items()} for item in found}


# --- where all agree, and where they do not: what was measured with the real readers ---


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A=v\nB=1\n",
        "A=a b c",
        "A=it's",
        "A=${B}x$$",
        "A=val;x",
        "A=~",
        "A=",
        " A=1",
        "# c\n\nA=1\r\nB=2\r\n",
        "A=1\nA=2",
        "A=postgres://user:pass@host:5432/name?ssl=1&x=%20",
    ],
)
def test_all_read_the_same(text: str) -> None:
    assert said(text) == {}


COMMENT = "takes the # for a part of the value"
ESCAPE = "takes a backslash for an escape"
QUOTES = "keeps the quotes"
BLANKS = "keeps the blanks around the value"
BLANK_NAME = "refuses the whole file: it has a blank in front of the ="
NO_EQUALS = "refuses the whole file: it has a line without ="


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("A = v", {"docker": BLANK_NAME}),
        ("A='v'", {"docker": QUOTES}),
        ("A=v # c", {"systemd": COMMENT, "docker": COMMENT}),
        ("A=v#c", {"systemd": COMMENT, "docker": COMMENT}),
        ("A=#v", {"systemd": COMMENT, "docker": COMMENT}),
        ("A='v' # c", {"systemd": COMMENT, "docker": QUOTES}),
        ('A="a\\nb"', {"systemd": ESCAPE, "docker": QUOTES}),
        ("A=a\\nb", {"systemd": ESCAPE}),
        ('A="a\\rb"', {"node": "keeps \\r as it stands", "systemd": ESCAPE, "docker": QUOTES}),
        ('A="a\\"b"', {"node": "ends the value at the first quote inside it", "systemd": ESCAPE, "docker": QUOTES}),
        ("A=`v`", {"systemd": QUOTES, "docker": QUOTES}),
        ("A=v ", {"docker": BLANKS}),
        ("A=\tv", {"node": f"Node.js 20 {BLANKS}", "docker": BLANKS}),
        ("A='x\ny'", {"docker": "reads the first line only"}),
        ("export A=v", {"systemd": "drops the line: it does not know export", "docker": BLANK_NAME}),
        (
            "export  A=v",
            {
                "node": "Node.js 20 takes export for a part of the name",
                "systemd": "drops the line: it does not know export",
                "docker": BLANK_NAME,
            },
        ),
        ("A: v", {**dict.fromkeys(("node", "systemd"), "drops the line: it has a colon"), "docker": NO_EQUALS}),
        ("\ufeffA=v", dict.fromkeys(("node", "systemd"), "takes the byte order mark for a part of the name")),
        ("B=1\n\ufeffA=v", dict.fromkeys(READERS[1:], "takes the byte order mark for a part of the name")),
        ("A=v\\\nB=1", {"systemd": "swallows the lines behind it"}),
        ("A= \nB=1", {"node": "Node.js 22 swallows the lines behind it", "docker": BLANKS}),
        ("A=\n'v'", dict.fromkeys(READERS[1:], "takes it for empty: the value starts in a later line")),
        ("A=\ufffe", {"systemd": "refuses the whole file: it holds a character that it does not allow"}),
        ("A=" + "x" * 65534, {"docker": "refuses the whole file: it has a line of more than 64 KiB"}),
        ('A="open\nB=1\nC="2"', dict.fromkeys(("node", "systemd"), "swallows the lines behind it")),
    ],
)  # fmt: skip
def test_each_tells_its_reason(text: str, reasons: dict[str, str]) -> None:
    [line] = [place for place in said(text) if place[1] == "A"]
    assert said(text)[line] == reasons


def test_names_that_systemd_does_not_take() -> None:
    assert said("A-B=1\na.b=1\n1A=1\n", "systemd") == {
        (1, "A-B"): {"systemd": "drops the line: it does not take the name"},
        (2, "a.b"): {"systemd": "drops the line: it does not take the name"},
        (3, "1A"): {"systemd": "drops the line: it does not take the name"},
    }


def test_what_a_line_swallows_is_told_at_that_line_alone() -> None:
    assert list(said("A='open\nB=1\nC=2\n", "node", "systemd")) == [(1, "A")]


@pytest.mark.parametrize(
    ("text", "place", "reader", "reason"),
    [
        ("nonsense\nB=1", (2, "B"), "node", "Node.js 20 takes it for a part of line 1"),
        ("A=1\n \nB=1", (3, "B"), "node", "Node.js 20 takes it for a part of line 2"),
        ("# c \\\nB=1", (2, "B"), "systemd", "takes it for a part of line 1"),
        ("=x\nB=1\nC=2", (1, ""), "node", "Node.js 20 drops every line from here on"),
        ("=x\nB=1", (1, ""), "docker", "refuses the whole file: it has a line without a name"),
        ("two words\nB=1", (1, ""), "docker", NO_EQUALS),
        ("A='x\ny z'\nB=1", (1, "A"), "docker", NO_EQUALS),
        ("A=1\nB=\0", (2, "B"), "systemd", "refuses the whole file: it holds a NUL character"),
    ],
)
def test_lines_that_spoil_others(text: str, place: tuple[int, str], reader: str, reason: str) -> None:
    assert said(text, reader) == {place: {reader: reason}}


@pytest.mark.parametrize("reader", ["node", "docker"])
def test_a_carriage_return_alone_ends_no_line_for_some(reader: str) -> None:
    found = said("A=1\r\rB=2\rC=1\r\nD='y' # c", reader, "systemd")
    assert found == {(1, "A"): {reader: "swallows the lines behind it"}, (5, "D"): found[5, "D"]}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_numbers(end: str) -> None:
    text = end.join(["# c", "", "A=1", "B=v#x", "C='a", "b' # c", "D=x#y"])
    assert list(said(text, "systemd")) == [(4, "B"), (5, "C"), (7, "D")]


def test_only_the_last_of_several_counts() -> None:
    assert said("A=v#c\nA=1\n") == {}
    assert list(said("A=1\nA=v#c\n", "docker")) == [(2, "A")]


# --- the warning ---


def warnings(data: dict[str, Any], text: str) -> list[str]:
    report = Schema.load(data).validate_text(text)
    return [problem.text() for problem in report.warnings if problem.code == "readers_disagree"]


def test_the_warning_names_readers_and_remedy() -> None:
    assert warnings(SCHEMA, "A='canary' # canary\n") == [
        "line 1: A is read differently by systemd (takes the # for a part of the value) and docker (keeps the quotes). "
        "Write the value on one line, without quotes, # and backslashes, and all read the same. Or take systemd and "
        "docker out of `readers` in the schema, if they never read this file."
    ]
    assert warnings(SCHEMA, "A=canary \n") == [
        "line 1: A is read differently by docker (keeps the blanks around the value). Remove the blanks around the "
        "value. Or take docker out of `readers` in the schema, if it never reads this file."
    ]


def test_the_schema_says_who_reads() -> None:
    assert len(warnings({**SCHEMA, "readers": ["dotenv", "systemd"]}, "A='x y'\nB=x # y\n")) == 1
    assert warnings({**SCHEMA, "readers": ["dotenv"]}, "A='x y'\nB=x # y\n") == []


def test_no_second_word_on_a_line_with_an_error() -> None:
    report = Schema.load(SCHEMA).validate_text('A=\'open\nB=1\nC="x\nA=1"\n')
    assert {(problem.line, problem.code) for problem in report.problems if problem.line in (1, 3)} >= {
        (1, "unclosed_quote"),
        (3, "swallowed"),
    }
    assert "readers_disagree" not in [problem.code for problem in report.problems]


def test_one_warning_for_a_line() -> None:
    # To dotenv U+2028 ends a line, to whoever counts lines it does not.
    assert len(warnings(SCHEMA, "A='x'\u2028B='y'\n")) == 1


def test_variables_are_compared_only_if_the_schema_names_readers() -> None:
    variables = {"A": "two words", "B": "with # and 'quote'", "C": "plain"}
    assert Schema.load(SCHEMA).validate_variables(variables).problems == []
    report = Schema.load({**SCHEMA, "readers": ["dotenv", "node", "docker"]}).validate_variables(variables)
    assert [(problem.code, problem.variable, problem.line) for problem in report.problems] == [
        ("readers_disagree", "A", None),
        ("readers_disagree", "B", None),
    ]


# --- whatever the input: no traceback, no time without end ---

PIECES = st.sampled_from(
    [
        "A",
        "B=",
        "=",
        ":",
        "'",
        '"',
        "`",
        "\\",
        "\n",
        "\r",
        "#",
        " ",
        "\t",
        "export ",
        "x",
        "\ufeff",
        "\u2028",
        "\0",
        ";",
    ]
)
TEXTS = st.text() | st.lists(PIECES, max_size=30).map("".join)


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_no_text_is_too_strange(text: str) -> None:
    document = dotenv.read(text)
    last = text.count("\n") + text.count("\r") + 1
    for found in env_readers.disagreements(text, document):
        assert 1 <= found.line <= last and found.reasons
    places = [problem.line for problem in file_problems(text, document, {}) if problem.code == "readers_disagree"]
    assert len(places) == len(set(places))


@settings(max_examples=200, deadline=None)
@given(st.binary())
def test_no_bytes_are_too_strange(content: bytes) -> None:
    Schema.load(SCHEMA).validate_text(dotenv.decode(content))


RULES = st.fixed_dictionaries(
    {"type": st.sampled_from(sorted(env_types.CHECKS))},
    optional={
        "secret": st.booleans(),
        "required": st.booleans(),
        "min": st.integers() | st.floats() | st.text(max_size=3),
        "max": st.integers() | st.floats() | st.text(max_size=3),
        "min_length": st.integers(),
        "values": st.lists(st.text(max_size=3) | st.integers(), max_size=3),
        "default": st.text(max_size=3) | st.integers() | st.none(),
        "pattern": st.text(max_size=4),
        "items": st.dictionaries(st.sampled_from(["type", "min", "pattern"]), st.text(max_size=6)),
        "separator": st.text(max_size=2),
        "required_if": st.dictionaries(st.sampled_from("ABC"), st.text(max_size=2)),
    },
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.sampled_from("ABC"), RULES, min_size=1), TEXTS, st.lists(st.sampled_from(READERS)))
def test_a_schema_is_refused_or_works_on_any_text(variables: dict[str, Any], text: str, readers: list[str]) -> None:
    try:
        own = Schema.load({"variables": variables, "readers": readers})
    except SchemaError as error:
        assert error.problems
        return
    own.validate_text(f"A={text}\n{text}")
    own.validate_variables({"A": text, "B": text[:3], "C": None})


MEGABYTES = 10_000_000
SECONDS = 60  # against hanging: each takes a few seconds at most
UNITS = {
    "single quotes": "'",
    "double quotes": '"',
    "backslashes": "\\",
    "line ends": "\n",
    "carriage returns": "\r",
    "blanks": " ",
    "one line": "x",
    "open quotes": "A='",
    "escaped quotes": "A='\\'",
    "equals signs": "=",
    "brackets": "[",
    "comments": "#=",
}
LINES = {
    "one name": "A=1\n",
    "open quotes": 'A="\n',
    "three kinds of open quotes": "A=`'\"\n",
    "colons": "A: \n",
    "joined lines": "A=\\\n",
    "joined comments": "# \\\n",
    "no name": "= \n",
    "quotes before names": "'\n=",
    "Unicode line ends": "\u2028'x",
}


@pytest.mark.parametrize("start", ["", "A='"])
@pytest.mark.parametrize("unit", UNITS.values(), ids=list(UNITS))
def test_ten_megabytes_end(start: str, unit: str) -> None:
    text = start + unit * (MEGABYTES // len(unit))
    begin = time.process_time()
    dotenv.read(text)
    [problem] = Schema.load(SCHEMA).validate_text(text).problems
    assert problem.code == "file_too_large"
    assert time.process_time() - begin < SECONDS


@pytest.mark.parametrize("unit", [*UNITS.values(), *LINES.values()], ids=[*UNITS, *(f"lines of {it}" for it in LINES)])
def test_the_largest_text_that_is_read_ends(unit: str) -> None:
    text = unit * ((MAX_TEXT if unit in UNITS.values() else MAX_TEXT // 8) // len(unit))
    begin = time.process_time()
    Schema.load(SCHEMA).validate_text(text)
    assert time.process_time() - begin < SECONDS


@pytest.mark.parametrize("kind", sorted(env_types.CHECKS))
def test_long_values_end(kind: str) -> None:
    rules = {"type": kind, "secret": True, "min_entropy": 50, **({"values": ["a"]} if kind == "enum" else {})}
    own = Schema.load({"variables": {"A": rules}})
    begin = time.process_time()
    for unit in ("{{", "${", "<a", "1", "a.", "a@", "[", "(", "-", ",", "/", "xX ", "http://", "your_", "%a"):
        for size in (130_000, MEGABYTES):
            value = unit * (size // len(unit))
            problems = own.validate([dotenv.Entry("A", value, 1, 1)]).problems
            assert size < MEGABYTES or [problem.code for problem in problems] == ["too_long"]
    assert time.process_time() - begin < SECONDS


@pytest.mark.parametrize("value", ["[" * MEGABYTES, "'\"`" * (MEGABYTES // 3), "\\" * MEGABYTES, "\n" * MEGABYTES])
def test_long_values_of_an_inventory_end(value: str) -> None:
    begin = time.process_time()
    report = Schema.load(SCHEMA).validate_variables({"A": value})
    assert report.errors[0].code in ("too_long", "not_writable")
    assert time.process_time() - begin < SECONDS
