"""Makes dotenv-corpus.json: .env files and what the npm package dotenv reads from them.

Run it where Node.js is, with the directory that has dotenv 16 in its node_modules:

    python tests/data/dotenv_corpus.py examples/roastify
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

FILE = Path(__file__).with_name("dotenv-corpus.json")
READER = """
const dotenv = require(require.resolve('dotenv', { paths: [process.argv[1]] }));
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
]

_PIECES = [
    "A", "B", "KEY", "export", "export ", "=", "=", ":", ": ", ",", " ", "\n", "\n", "\n", "'", '"', "`", "\\", "\\n",
    "\\r", "#", " # c", "x", "a b", "'v'", '"v"', "`v`", "\t", "\r\n", "\r", "\u00a0", "\ufeff", "\u2028", "\u2029",
    "-", ".", "__proto__", "$", "{}", "\x85", "\x1c", "é", "1", "'\\''", '\\"', "=\n", "A=", "B=", "C='", 'D="',
]  # fmt: skip


def generated(seed: int, count: int) -> list[str]:
    source = random.Random(seed)
    return ["".join(source.choice(_PIECES) for _ in range(source.randint(2, 18))) for _ in range(count)]


def read_with_npm(directory: Path, inputs: list[str]) -> list[dict[str, str]]:
    done = subprocess.run(
        ["node", "-e", READER, str(directory.resolve())],
        input=json.dumps(inputs),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(done.stdout)


if __name__ == "__main__":
    corpus = HAND_PICKED + generated(20261122, 2000)
    read = read_with_npm(Path(sys.argv[1]), corpus)
    lines = [json.dumps([text, values]) for text, values in zip(corpus, read)]
    FILE.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    print(f"{FILE}: {len(corpus)} files")
