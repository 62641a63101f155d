"""Makes .env files for tests: picked by hand, of random pieces, and of the lines that people write.

dotenv-corpus.json holds some of them with what the npm package dotenv 16 reads from each, for the unit tests, which
need no Node.js. tests/integration/test_dotenv_readers.py compares many more with the real readers. To make the file
anew, after that test has installed dotenv:

    python tests/data/dotenv_corpus.py .cache/dotenv-readers-*/node_modules/dotenv-16.6
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

FIXED_SEED = 20261122
FILE = Path(__file__).with_name("dotenv-corpus.json")
READER = """
const dotenv = require(process.argv[1]);
const inputs = JSON.parse(require('fs').readFileSync(0, 'utf8'));
process.stdout.write(JSON.stringify(inputs.map((text) => dotenv.parse(text))));
"""

HAND_PICKED = [
    "",
    "A=1",
    "A=1\nB=2\n",
    "A = 1",
    "A=\n",
    "A=\nB=1",
    "A=''",
    'A=""',
    "A=' padded '",
    "A= padded ",
    "A='single' # comment",
    'A="double" # comment',
    "A=plain # comment",
    "A=plain#comment",
    "A=#comment",
    "A='has # inside'",
    'A="has # inside"',
    "A=`has # inside`",
    'A="line\\nfeed"',
    "A='line\\nfeed'",
    "A=line\\nfeed",
    'A="carriage\\rreturn"',
    'A="tab\\tkept"',
    'A="C:\\new\\table"',
    'A="two\nlines"',
    "A='two\nlines'\nB=after",
    "A=`two\nlines`\nB=after",
    'A="-----BEGIN KEY-----\nabc\n-----END KEY-----"\nB=after',
    "export A=1",
    "export   A=1",
    "export\nA=1",
    "export=1",
    "export A",
    "A: 1",
    "A:1",
    "A:\nB=1",
    "# comment\nA=1",
    "  # comment\n  A=1",
    "#A=1\nB=2",
    "; comment\nA=1",
    "A",
    "A\nB=1",
    "A\n=1",
    "=1\nB=2",
    "A==1",
    "A=1=2",
    "A-b=1",
    "a.b=1",
    "A b=1",
    "1A=1",
    "A=1\r\nB=2\r\n",
    "A=1\rB=2",
    "A='x'\r\nB=2",
    "\ufeffA=1\nB=2",
    "A=1\nA=2",
    "A=$HOME",
    "A=${HOME}",
    'A="$HOME"',
    "A=$(whoami)",
    "A=pa$$word",
    "A=it's",
    "A='it's'",
    'A="it\'s"',
    "A='it\\'s'",
    "A='it'\\''s'",
    'A="say \\"hi\\""',
    'A="say "hi""',
    "A='a' 'b'",
    "A='a'b",
    'A="a"b',
    'A="a" b # c',
    'A="unterminated',
    'A="unterminated\nB=2',
    'A="unterminated\nB="two"',
    "A='unterminated\nB='two'\nC='three'",
    'A=unterminated"\nB=2',
    "A=`un\nB=`two`",
    'A="ends with backslash\\"',
    'A="ends with backslash\\"\nB="2"',
    "A='ends with backslash\\'\nB='2'",
    "A=\\",
    "A=a\\\nB=2",
    "A=\n'next line'",
    'A=\n\n  "next line"\nB=2',
    'A={"json": true}',
    "A='{\"json\": [1, 2]}'",
    "A=[1, 2]",
    "A=a b c",
    "A=a\tb",
    "A=\u00a0x\u00a0",
    "A='\u00a0x\u00a0'",
    "A=x\u2028B=2",
    "A=1 # c\u2028B=2",
    "A=x\u2028'y'",
    "A=\u2018smart\u2019",
    "__proto__=1\nA=2",
    "constructor=1",
    "A=\x85x\x1c",
    "A=é",
    "A=😀",
    "KEY_WITH_é=1",
    "A=user@host",
    "A=postgres://u:p%40ss@h:5432/d?sslmode=require#frag",
    "A='postgres://u:p@h/d#frag'",
    "A=1\n\n\n# c\n\n\nB=2",
    "A=1   #   \n   B   =   2   #   c",
    "A='1'\n   # comment\n'B'=2",
    "A=true\nB=false\nC=null",
    "A=0x10\nB=08\nC=1e3",
    "A='multi\n# not a comment\nB=no'\nC=yes",
    "A=1\t",
    "A=\t1",
    "A=1\t# c",
    "\tA=1\n\tB=2",
    "A= \nB=2",
    "A= 'x'",
    "A='x' \nB=2",
    "export  A=1",
    "export\tA=1",
    "A=1\n  \nB=2",
    "=x\nA=1",
    " = \nA=1",
    "# c=1",
    "# c \\\nA=1",
    "; c \\\nA=1\nB=2",
    "A=\\\nB=1\nC=2",
    "A=x \\ \nB=1",
    'A="a\\\nb"\nB=1',
    'A="\\$x \\`y \\z"',
    'A="x" "y"',
    'A=x "y"',
    "A=\ufffe",
    "A=1\nB=\ufdd0\nC=2",
    "A=\u3000x\u3000",
    "A=1\n\u0085B=2",
    "A\tB=1\nC=2",
    "A=1\rB='x\ry'\rC=3",
    "A='x\r\ny'\r\nB=2\r\n",
    "A=" + "x" * 65533 + "\nB=1",
    "A=" + "x" * 65534 + "\nB=1",
    "A=" + "é" * 32766 + "\nB=1",
    "A=" + "é" * 32767 + "\nB=1",
]

_PIECES = [
    "A", "B", "KEY", "export", "export ", "=", "=", ":", ": ", ",", " ", "\n", "\n", "\n", "'", '"', "`", "\\", "\\n",
    "\\r", "#", " # c", "x", "a b", "'v'", '"v"', "`v`", "\t", "\r\n", "\r", "\u00a0", "\ufeff", "\u2028", "\u2029",
    "-", ".", "__proto__", "$", "{}", "\x85", "\x1c", "é", "1", "'\\''", '\\"', "=\n", "A=", "B=", "C='", 'D="',
    ";", "\\\n", "# \\\n", "\\$", "  ", "\t ", "\ufffe", "\u3000",
]  # fmt: skip
_STARTS = ["", "", "", "", "", "export ", " ", "\t", "# ", "; ", "export  ", "\ufeff"]
_NAMES = ["A", "B", "C", "DATABASE_URL", "SMTP_PASS", "a.b", "A-B", "1A", "_", "é"]
_EQUALS = ["=", "=", "=", "=", "=", "=", " = ", "= ", " =", ": ", ":", "", "=\t"]
_VALUES = [
    "", "1", "plain", "two words", "user@host", "https://example.com/?a=1&b=2", "#fff", "a#b", "a # b", "$HOME", "it's",
    "pa$$word", "C:\\new\\table", "a\\nb", "a\\rb", 'say \\"hi\\"', '{"a": [1, 2]}', "two\nlines", "B=2\nC=3", "\\",
    "trailing\\", " padded ", "\u00a0", "`ls`", "🔑", "a;b", "~", "*", "x=y", "# \\",
]  # fmt: skip
_QUOTES = [
    ("", ""),
    ("", ""),
    ("", ""),
    ("'", "'"),
    ('"', '"'),
    ("`", "`"),
    ("'", ""),
    ('"', ""),
    ("", "'"),
    ('"', "'"),
]
_ENDS = ["", "", "", "", "", " ", "\t", " # comment", "# comment", " trailing", " # \\", " 'x'", " # it's", "\\"]


def generated(seed: int, count: int) -> list[str]:
    source = random.Random(seed)
    return ["".join(source.choice(_PIECES) for _ in range(source.randint(2, 18))) for _ in range(count)]


def written_by_people(seed: int, count: int) -> list[str]:
    source = random.Random(seed)

    def line() -> str:
        quote, unquote = source.choice(_QUOTES)
        return (
            source.choice(_STARTS)
            + source.choice(_NAMES)
            + source.choice(_EQUALS)
            + quote
            + source.choice(_VALUES)
            + unquote
            + source.choice(_ENDS)
        )

    files = []
    for _ in range(count):
        lines = [source.choice((line(), line(), line(), line(), "", "# comment", "nonsense")) for _ in range(4)]
        files.append(source.choice(("\n", "\n", "\n", "\r\n", "\r")).join(lines) + source.choice(("", "\n")))
    return files


def read_with_npm(package: Path, inputs: list[str], node: str = "node") -> list[dict[str, str]]:
    """What the parser of a package, in that directory, reads from each text."""
    done = subprocess.run(
        [node, "-e", READER, str(package.resolve())],
        input=json.dumps(inputs),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(done.stdout)


if __name__ == "__main__":
    corpus = [text for text in HAND_PICKED if len(text) < 1000] + generated(FIXED_SEED, 1000)
    corpus += written_by_people(FIXED_SEED, 1000)
    read = read_with_npm(Path(sys.argv[1]), corpus)
    lines = [json.dumps([text, values]) for text, values in zip(corpus, read)]
    FILE.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    print(f"{FILE}: {len(corpus)} files")
