# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Splits PostgreSQL scripts into statements and says what the first words of a statement mean.

The rules are those of the server's own lexer and of psql: quotes, dollar quotes, nested comments,
parentheses (CREATE RULE ... DO (a; b)) and SQL-standard bodies (BEGIN ATOMIC ... END).
"""

from __future__ import annotations

import bisect
import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# What may begin an identifier: letters, the underscore and everything beyond ASCII; what may follow adds digits and $.
# Written as what is left out, which compiles far faster than ranges to the end of Unicode.
_LETTER = r"[^\x00-@\[-^`{-\x7f]"
_LETTER_OR_DIGIT = r"[^\x00-/:-@\[-^`{-\x7f]"
_IDENTIFIER_REST = r"[^\x00-#%-/:-@\[-^`{-\x7f]"

# Quoted strings are unrolled (no alternation per character): a string may be many megabytes long.
_PLAIN_STRING = r"'[^']*(?:''[^']*)*'"
_ESCAPE_STRING = r"'[^'\\]*(?:(?:\\.|'')[^'\\]*)*'"
# A string goes on after white space with a line end in it, and keeps the rules that it began with.
_GOES_ON = r"(?:[ \t\f\r]*\n\s*{0})*"
_ESCAPE_STRINGS = _ESCAPE_STRING + _GOES_ON.format(_ESCAPE_STRING)

_TOKEN = re.compile(
    rf"""
      (?P<comment> --[^\n]* )
    | (?P<block> /\* )
    | (?P<escape> [eE]{_ESCAPE_STRINGS} )
    | (?P<string> {_PLAIN_STRING} )
    | (?P<identifier> "[^"]*(?:""[^"]*)*" )
    | (?P<dollar> \$(?:{_LETTER}{_LETTER_OR_DIGIT}*)?\$ )
    | (?P<word> {_LETTER}{_IDENTIFIER_REST}* )
    | (?P<number> [0-9](?:{_LETTER_OR_DIGIT}|\.)* | \$[0-9]+ )
    | (?P<mark> [();.,\\] )
    | (?P<open> ['"] )
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE_STRING_TOKEN = re.compile(_ESCAPE_STRINGS, re.DOTALL)
_CLIENT_ENCODING = re.compile(
    r"set\s+(?:session\s+|local\s+)?(?:client_encoding\s*(?:=|\bto\b)|names)\s*'?([\w-]+)'?", re.IGNORECASE
)
_BLOCK_EDGE = re.compile(r"/\*|\*/")
_NO_ESCAPES = re.compile(
    r"\s*set\s+(?:session\s+|local\s+)?standard_conforming_strings\s*(?:=|\bto\b)\s*'?(off|false|no|0|on|true|yes|1)\b",
    re.IGNORECASE,
)
_GAP = r"(?:\s|--[^\n]*\n|/\*.*?\*/)*"
# PASSWORD 'x' with whatever may stand between and before, in a chain of literals, quoted twice within EXECUTE, or as
# the option "password" of a user mapping.
_PASSWORD = re.compile(
    rf"""\b(PASSWORD"?)({_GAP}=?{_GAP})"""
    rf"""(?:''(?:[^']|'''')+?''(?!')|(?:U&|[eEbB])?{_ESCAPE_STRINGS}|\$(\w*)\$.*?\$\3\$)""",
    re.IGNORECASE | re.DOTALL,
)
_PASSWORD_IN_A_STRING = re.compile(r"""\b(password\s*=\s*)(?:\\'[^']*\\'|''[^']*''|[^\s'"]+)""", re.IGNORECASE)
_PASSWORD_IN_A_URL = re.compile(r"""(://[^\s/:@'"]*:)[^\s@'"]+(@)""")
_SECRET_SETTING = re.compile(
    rf"""(\bSET\s+[\w."]*(?:secret|password|token|credential|_key)[\w"]*\s*(?:=|\bTO\b)\s*){_ESCAPE_STRING}""",
    re.IGNORECASE | re.DOTALL,
)
_PASSWORD_TO_COME = re.compile(r"\bPASSWORD\W{0,3}%[-0-9$]*[LIs]", re.IGNORECASE)
_ANY_LITERAL = re.compile(r"'(?:[^']|'')*'")
_HIDDEN = "'********'"

# What stands in the body of a DO block, which is not split; EXECUTE may hold it in quotes.
_LOSS_IN_A_BLOCK = re.compile(
    r"\b(?:TRUNCATE|DELETE\s+FROM|DROP\s+(?:TABLE|SCHEMA|COLUMN|OWNED|DATABASE))\b", re.IGNORECASE
)
_DROP = re.compile(r"\bDROP\b", re.IGNORECASE)
_CASCADE = re.compile(r"\bCASCADE\b", re.IGNORECASE)

_TO_UPPER = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)
_TO_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)

HEAD_LENGTH = 24


class SqlError(ValueError):
    """A script that cannot be split.

    Args:
        line: where, counted from 1.
        reason: what is wrong there and what to do about it.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason


class UnclosedError(SqlError):
    """A quote or comment that is never closed."""


@dataclass(frozen=True)
class Statement:
    """One statement of a script.

    Attributes:
        text: the statement without its semicolon, from its first word on.
        offset: where the text begins in the script, in characters.
        line: the line on which it begins, counted from 1.
        head: its first tokens: words in upper case, quoted identifiers and . , ( ) as written.
    """

    text: str
    offset: int
    line: int
    head: tuple[str, ...]

    @property
    def end_line(self) -> int:
        """The line on which the statement ends."""
        return self.line + self.text.count("\n")


class Lines:
    """Tells the line of a position in a text."""

    def __init__(self, text: str) -> None:
        self._ends = [match.start() for match in re.finditer("\n", text)]

    def of(self, position: int) -> int:
        """The line (from 1) of a character position (from 0)."""
        return bisect.bisect_left(self._ends, position) + 1


def split(text: str) -> list[Statement]:
    """Split a script into its statements; comments between statements belong to none.

    Args:
        text: the script, line ends as "\\n".

    Returns:
        The statements in their order; none for a script of comments and white space.

    Raises:
        SqlError: an unclosed quote or comment, a psql command, or data for COPY ... FROM STDIN.
    """
    return list(_statements(text, Lines(text)))


def is_open(text: str) -> bool:
    """Whether a text ends inside a quote or a comment, so that what follows it is no SQL of its own."""
    try:
        split(text)
    except UnclosedError:
        return True
    except SqlError:
        return False
    return False


def _statements(text: str, lines: Lines) -> Iterator[Statement]:
    position = 0
    length = len(text)
    backslash_escapes = False  # standard_conforming_strings is on, as it is by default since 9.1
    start = -1  # of the statement that is being read
    end = 0  # of its last token
    head: list[str] = []
    depth = 0  # of parentheses
    body = 0  # of BEGIN ATOMIC ... END and CASE ... END in it
    after_begin = False

    def finish() -> Statement:
        return Statement(text[start:end], start, lines.of(start), tuple(head))

    while position < length:
        match = _TOKEN.search(text, position)
        between = text[position : match.start()] if match else text[position:]
        stripped = between.strip()
        if stripped:
            # Operators and other marks without a meaning for splitting.
            if start < 0:
                start = position + between.index(stripped[0])
            end = position + len(between.rstrip())
            after_begin = False
        if match is None:
            break
        kind = match.lastgroup
        token = match.group()
        begin, position = match.start(), match.end()
        if kind == "comment":
            continue
        if kind == "block":
            position = _end_of_comment(text, begin, lines)
            continue
        if kind == "open":
            what = "string" if token == "'" else "quoted name"
            raise UnclosedError(lines.of(begin), f"the {what} that begins here is never closed")
        if kind == "string" and backslash_escapes:
            escaped = _ESCAPE_STRING_TOKEN.match(text, begin)
            if escaped is None:
                raise UnclosedError(lines.of(begin), "the string that begins here is never closed")
            position = escaped.end()
        elif token in ("e", "E") and text.startswith("'", position):
            raise UnclosedError(lines.of(begin), "the string that begins here is never closed")
        elif kind == "dollar":
            close = text.find(token, position)
            if close < 0:
                raise UnclosedError(lines.of(begin), f"the text quoted with {token} that begins here is never closed")
            position = close + len(token)
        elif token == "\\":
            command = text[begin : begin + 20].split(None, 1)[0]
            raise SqlError(
                lines.of(begin),
                f"{command} is a command of psql, not SQL: remove it (a migration is sent to the server itself)",
            )
        elif token == ";" and depth <= 0 and not body:
            if start >= 0:
                statement = finish()
                _refuse_copy_data(statement)
                setting = _NO_ESCAPES.match(statement.text)
                if setting:
                    backslash_escapes = setting.group(1).lower() in ("off", "false", "no", "0")
                yield statement
            start, head, depth, after_begin = -1, [], 0, False
            continue
        if start < 0:
            start = begin
        end = position
        word = _upper(token) if kind == "word" else ""
        if len(head) < HEAD_LENGTH:
            if word:
                head.append(word)
            elif kind in ("identifier", "mark"):
                head.append(token)
        if token == "(":
            depth += 1
        elif token == ")":
            depth -= 1
        elif word == "ATOMIC" and after_begin and not body and _creates_routine(head):
            body = 1
        elif body and word == "CASE":
            body += 1
        elif body and word == "END":
            body -= 1
        after_begin = word == "BEGIN"
    if start >= 0:
        statement = finish()
        _refuse_copy_data(statement)
        yield statement


def _upper(token: str) -> str:
    """A word in upper case, as far as the server folds it: ASCII letters only, where its encoding is UTF-8."""
    return token.translate(_TO_UPPER)


def _end_of_comment(text: str, begin: int, lines: Lines) -> int:
    depth = 0
    for edge in _BLOCK_EDGE.finditer(text, begin):
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    raise UnclosedError(lines.of(begin), "the comment that begins here is never closed")


def _creates_routine(head: list[str]) -> bool:
    words = [word for word in head[:4] if word not in ("OR", "REPLACE")]
    return words[:1] == ["CREATE"] and words[1:2] in (["FUNCTION"], ["PROCEDURE"])


def _refuse_copy_data(statement: Statement) -> None:
    if statement.head[:1] != ("COPY",):
        return
    words = [token.upper() for token in tokens(statement.text)]
    pairs = set(zip(words, words[1:]))
    if ("FROM", "STDIN") in pairs:
        raise SqlError(
            statement.line,
            "COPY ... FROM STDIN needs data from a client, which a migration has not: write INSERT statements "
            "(pg_dump --inserts does)",
        )
    if ("TO", "STDOUT") in pairs:
        raise SqlError(statement.line, "COPY ... TO STDOUT needs a client that takes the data: remove it")


def transaction_control(statement: Statement) -> str | None:
    """The transaction command a statement is, if it is one that a migration must not contain.

    SAVEPOINT, RELEASE and ROLLBACK TO stay inside the transaction and are not meant.

    Returns:
        The command in upper case, or None.
    """
    first, second = (*statement.head, "", "")[:2]
    if first in ("BEGIN", "END", "ABORT", "COMMIT"):
        return f"{first} {second}" if second in ("PREPARED", "AND") else first
    if first == "ROLLBACK":
        rest = [word for word in statement.head[1:3] if word not in ("WORK", "TRANSACTION")]
        return None if rest[:1] == ["TO"] else first
    if (first, second) in (("START", "TRANSACTION"), ("PREPARE", "TRANSACTION")):
        return f"{first} {second}"
    return None


def _begins_plainly(statement: Statement) -> bool:
    """Whether the statement begins a transaction without saying anything about it."""
    return statement.head in (
        ("BEGIN",),
        ("BEGIN", "WORK"),
        ("BEGIN", "TRANSACTION"),
        ("START", "TRANSACTION"),
    )


def _commits_plainly(statement: Statement) -> bool:
    """Whether the statement commits its transaction and does nothing else."""
    return statement.head[:1] in (("COMMIT",), ("END",)) and statement.head[1:] in ((), ("WORK",), ("TRANSACTION",))


def is_wrapped(statements: Sequence[Statement]) -> bool:
    """Whether a plain BEGIN is the first of these statements and a plain COMMIT the last."""
    return len(statements) > 1 and _begins_plainly(statements[0]) and _commits_plainly(statements[-1])


def other_encoding(statement: Statement) -> str | None:
    """The encoding that a statement says the client speaks, if it is another than the UTF-8 that it does speak."""
    found = _CLIENT_ENCODING.match(statement.text)
    encoding = found.group(1) if found else None
    return None if encoding is None or encoding.upper().replace("-", "") in ("UTF8", "UNICODE", "DEFAULT") else encoding


def unwrapped(statements: Sequence[Statement]) -> Sequence[Statement]:
    """The statements without a plain BEGIN and COMMIT around all of them."""
    return statements[1:-1] if is_wrapped(statements) else statements


def session_setting(statement: Statement) -> str | None:
    """The setting that a statement changes for the rest of the session, if it does; None for SET LOCAL and others."""
    if statement.head[:1] != ("SET",):
        return None
    words = list(statement.head[1:])
    if words[:1] == ["SESSION"] and words[1:2] != ["CHARACTERISTICS"]:
        words = words[1:]
    if not words or words[0] in ("LOCAL", "TRANSACTION", "CONSTRAINTS", "SESSION"):
        return None
    name = re.match(r"set\s+(?:session\s+)?([\w.\"]+)", statement.text, re.IGNORECASE)
    return name.group(1) if name else None


def changes_role(statement: Statement) -> bool:
    """Whether the statement lets the rest of the session act as another role."""
    words = [word.strip('"').upper() for word in statement.head[:4] if word not in ("SESSION", "LOCAL")]
    if words[:1] != ["SET"]:
        return False
    return words[1:2] in (["ROLE"], ["AUTHORIZATION"])


def needs_no_transaction(statement: Statement) -> str | None:
    """The command a statement is, if the server refuses it inside a transaction.

    Returns:
        A name for the command, or None.
    """
    head = statement.head
    first, second = (*head, "", "")[:2]
    if first == "VACUUM":
        return "VACUUM"
    if first in ("CREATE", "DROP") and second in ("DATABASE", "TABLESPACE"):
        return f"{first} {second}"
    if (first, second) == ("ALTER", "SYSTEM"):
        return "ALTER SYSTEM"
    if concurrent_index(statement) is not None:
        return "REINDEX CONCURRENTLY" if first == "REINDEX" else f"{first} INDEX CONCURRENTLY"
    if first == "REINDEX" and set(head[1:8]) & {"DATABASE", "SYSTEM"}:
        return "REINDEX DATABASE"
    if first == "ALTER" and "DETACH" in head and re.search(r"\bCONCURRENTLY\s*$", statement.text, re.IGNORECASE):
        return "DETACH PARTITION CONCURRENTLY"
    return None


def waits_politely(statement: Statement) -> bool:
    """Whether the statement may wait for its lock without blocking the readers and writers behind it."""
    command = needs_no_transaction(statement)
    if command is None:
        return False
    return command.endswith("CONCURRENTLY") or (command == "VACUUM" and "FULL" not in statement.head[:8])


@dataclass(frozen=True)
class ConcurrentIndex:
    """The index that a CREATE, DROP or REINDEX ... CONCURRENTLY is about.

    Attributes:
        action: CREATE, DROP or REINDEX.
        name: of the index as written, or None where the server chooses one or there are several.
        relation: the table, or for REINDEX INDEX the index, schema included; None where it is not one relation.
    """

    action: str
    name: str | None = None
    relation: str | None = None


def concurrent_index(statement: Statement) -> ConcurrentIndex | None:
    """What a CREATE, DROP or REINDEX ... CONCURRENTLY is about; None for other statements."""
    head = [word for word in statement.head if word != "UNIQUE"]
    if head[:1] == ["REINDEX"]:
        return _concurrent_reindex(head[1:])
    if head[:1] not in (["CREATE"], ["DROP"]) or head[1:3] != ["INDEX", "CONCURRENTLY"]:
        return None
    rest = head[3:]
    if head[0] == "DROP":
        return ConcurrentIndex("DROP")
    if rest[:3] == ["IF", "NOT", "EXISTS"]:
        rest = rest[3:]
    name = None
    if rest and rest[0] != "ON":
        name, rest = rest[0], rest[1:]
    if name == "U" and re.search(r"\bU&\"", statement.text, re.IGNORECASE):
        name, rest = None, rest[1:]  # a name in escapes, which only the server can read
    rest = rest[1:]  # ON
    if rest[:1] == ["ONLY"]:
        rest = rest[1:]
    return ConcurrentIndex("CREATE", _folded(name) if name else None, _relation(rest))


def _concurrent_reindex(rest: list[str]) -> ConcurrentIndex | None:
    concurrently = False
    if rest[:1] == ["("] and ")" in rest:
        end = rest.index(")")
        concurrently, rest = "CONCURRENTLY" in rest[:end], rest[end + 1 :]
    kind, rest = rest[:1], rest[1:]
    if rest[:1] == ["CONCURRENTLY"]:
        concurrently, rest = True, rest[1:]
    if not concurrently:
        return None
    return ConcurrentIndex("REINDEX", None, _relation(rest) if kind in (["INDEX"], ["TABLE"]) else None)


def _relation(words: list[str]) -> str | None:
    """The name that these words begin with."""
    length = 3 if words[1:2] == ["."] else 1
    return "".join(map(_folded, words[:length])) or None


def _folded(token: str) -> str:
    """A name as the server folds it; see _upper."""
    return token if token.startswith('"') else token.translate(_TO_LOWER)


def loses_data(statement: Statement) -> bool:
    """Whether the statement may destroy what users stored.

    Drops of tables, columns and schemas, anything dropped with CASCADE, TRUNCATE and DELETE, also where a
    DO block writes them. What a function does that was made elsewhere is not seen.
    """
    first, second = (*statement.head, "", "")[:2]
    text = statement.text
    if first == "DO":
        cascades = _CASCADE.search(text) is not None and _DROP.search(text) is not None
        return cascades or _LOSS_IN_A_BLOCK.search(text) is not None
    if first in ("TRUNCATE", "DELETE") or (first == "DROP" and second in ("TABLE", "SCHEMA", "DATABASE", "OWNED")):
        return True
    if first not in ("DROP", "ALTER", "WITH", "MERGE", "COPY", "EXPLAIN", "PREPARE"):
        return False
    words = [token.upper() for token in tokens(text)]  # free of comments
    if first in ("WITH", "MERGE", "COPY", "EXPLAIN", "PREPARE"):
        return "DELETE" in words or "TRUNCATE" in words
    if words[-1:] == ["CASCADE"]:
        return True
    if (first, second) == ("ALTER", "TABLE"):
        kept = ("CONSTRAINT", "DEFAULT", "NOT", "IDENTITY", "EXPRESSION")
        return any(word == "DROP" and after not in kept for word, after in zip(words, words[1:]))
    return (first, second) == ("ALTER", "TYPE") and ("DROP", "ATTRIBUTE") in zip(words, words[1:])


def without_secrets(text: str) -> str:
    """The text with passwords hidden: after PASSWORD, in connection strings and URLs, in settings that hold secrets.

    Where a password is put together (format with PASSWORD %L), every literal is hidden.
    """
    if _PASSWORD_TO_COME.search(text):
        return _ANY_LITERAL.sub(_HIDDEN, text)
    text = _PASSWORD.sub(rf"\1\2{_HIDDEN}", text)
    text = _PASSWORD_IN_A_STRING.sub(r"\1********", text)
    text = _PASSWORD_IN_A_URL.sub(r"\1********\2", text)
    return _SECRET_SETTING.sub(rf"\1{_HIDDEN}", text)


def summary(statement: Statement, length: int = 120) -> str:
    """The beginning of a statement on one line, secrets hidden.

    Args:
        statement: the statement.
        length: characters at most.
    """
    text = " ".join(without_secrets(statement.text).split())
    return text if len(text) <= length else text[: length - 4] + " ..."


def tokens(text: str) -> list[str]:
    """The tokens of a statement: words, numbers, quoted names and ( ) . , as written.

    A literal is given as two quotes, whatever it says. Operators and comments are left out.
    """
    found: list[str] = []
    position = 0
    while True:
        match = _TOKEN.search(text, position)
        if match is None or match.lastgroup == "open":
            return found
        kind, token, position = match.lastgroup, match.group(), match.end()
        if kind == "block":
            position = _end_of_comment(text, match.start(), Lines(text))
        elif kind == "dollar":
            close = text.find(token, position)
            position = close + len(token) if close >= 0 else len(text)
            found.append("''")
        elif kind in ("string", "escape"):
            found.append("''")
        elif kind != "comment":
            found.append(token)
