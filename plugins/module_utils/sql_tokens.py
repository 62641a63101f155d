# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Walks through the tokens of one SQL statement: names, lists, what it reads and which functions it calls."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence

_SIMPLE_NAME = re.compile(r'"([a-z_][a-z0-9_$]*)"')


def word_set(text: str) -> frozenset[str]:
    """The words of a text, for tables of words."""
    return frozenset(text.split())


# Words that stand before a parenthesis and call nothing.
_NO_FUNCTION = word_set(
    """all and any array as bit by char character check decimal distinct double exists filter float from group having
    if in int interval into is join lateral not numeric on only or over partition references select set some
    table then time timestamp timestamptz union unique using values varbit varchar varying when where with within
    materialized returning limit offset intersect except else case conflict nothing update insert like order sets
    cube rollup grouping end null key default generated always stored primary foreign constraint"""
)
_FROM_IN_CALL = frozenset(("EXTRACT", "SUBSTRING", "TRIM", "OVERLAY"))


class Tokens:
    """The tokens of a statement and a place in them."""

    def __init__(self, raw: Sequence[str]) -> None:
        self.raw = raw
        self.words = [token.upper() for token in raw]
        self.place = 0

    def at(self, place: int) -> Tokens:
        """The same tokens, seen from another place."""
        other = copy.copy(self)
        other.place = place
        return other

    def peek(self, offset: int = 0) -> str:
        place = self.place + offset
        return self.words[place] if 0 <= place < len(self.words) else ""

    def take(self, *words: str) -> bool:
        """Step over these words if they come next."""
        if tuple(self.words[self.place : self.place + len(words)]) != words:
            return False
        self.place += len(words)
        return True

    def skip(self, *words: str) -> None:
        """Step over each of these words that comes next, in any order."""
        while self.peek() in words and self.peek():
            self.place += 1

    def name(self) -> str:
        """Step over a name, schema included."""
        parts = []
        while self.place < len(self.raw):
            parts.append(folded(self.raw[self.place]))
            self.place += 1
            if self.peek() != ".":
                break
            self.place += 1
        return ".".join(parts)

    def names(self) -> list[str]:
        """Step over names with commas between them, without the lists of columns behind them."""
        found = []
        while True:
            self.skip("ONLY")
            found.append(self.name())
            self.skip_parentheses()
            if not self.take(","):
                return found

    def skip_parentheses(self) -> None:
        """Step over a pair of parentheses and what is in it, if one comes next."""
        if self.peek() != "(":
            return
        depth = 0
        while self.place < len(self.words):
            depth += {"(": 1, ")": -1}.get(self.peek(), 0)
            self.place += 1
            if depth == 0:
                return

    def rest(self) -> list[str]:
        return self.words[self.place :]

    def seek(self, *words: str) -> bool:
        """Go behind the next place, outside parentheses, where these words stand."""
        depth = 0
        for place in range(self.place, len(self.words) - len(words) + 1):
            if depth == 0 and tuple(self.words[place : place + len(words)]) == words:
                self.place = place + len(words)
                return True
            depth += {"(": 1, ")": -1}.get(self.words[place], 0)
        return False

    def parts(self) -> list[Tokens]:
        """What follows, divided at the commas outside parentheses."""
        depth = 0
        start = self.place
        found = []
        for place in range(self.place, len(self.words)):
            depth += {"(": 1, ")": -1}.get(self.words[place], 0)
            if depth == 0 and self.words[place] == ",":
                found.append(Tokens(self.raw[start:place]))
                start = place + 1
        found.append(Tokens(self.raw[start:]))
        return found


def folded(token: str) -> str:
    simple = _SIMPLE_NAME.fullmatch(token)
    if simple:
        return simple[1]
    return token if token.startswith('"') else token.lower()


def called_functions(words: Sequence[str]) -> list[str]:
    """The names, in lower case, that stand before a parenthesis and may be functions."""
    return [
        word.strip('"').lower()
        for word, after in zip(words, words[1:])
        if after == "(" and (word[:1].isalpha() or word[:1] in '_"') and word.lower() not in _NO_FUNCTION
    ]


def without_column_lists(words: Sequence[str]) -> list[str]:
    """The words without names that stand before a list of columns: INSERT INTO t (a, b), AS x (a, b)."""
    kept: list[str] = []
    for place, word in enumerate(words):
        if word != "(" or place == 0:
            kept.append(word)
            continue
        start = place - 1
        while start >= 2 and words[start - 1] == ".":
            start -= 2
        before = words[start - 1] if start else ""
        if before in ("INTO", "AS", "JOIN") or (before == "WITH" or before == "RECURSIVE"):
            kept[-1] = ","  # not a name any more
        kept.append(word)
    return kept


def names_in_with(tokens: Tokens) -> set[str]:
    """The names that WITH gives to its queries."""
    names = set()
    for place in range(1, len(tokens.words)):
        if tokens.words[place - 1] in ("WITH", ",", "RECURSIVE"):
            at = tokens.at(place)
            name = at.name()
            at.skip_parentheses()
            if at.peek() == "AS" and at.peek(1) in ("(", "MATERIALIZED", "NOT"):
                names.add(name)
    return names


def sources(tokens: Tokens) -> list[str]:
    """The relations behind FROM, JOIN and USING."""
    words = tokens.words
    found: list[str] = []
    callers = [""]
    for place, word in enumerate(words):
        before = words[place - 1] if place else ""
        if word == "(":
            callers.append(before)
        elif word == ")" and len(callers) > 1:
            callers.pop()
        begins = (
            (word == "FROM" and before not in ("DELETE", "DISTINCT") and callers[-1] not in _FROM_IN_CALL)
            or word == "JOIN"
            or (word == "USING" and words[0] in ("DELETE", "MERGE") and words[place + 1 : place + 2] != ["("])
        )
        if not begins:
            continue
        at = tokens.at(place + 1)
        while True:
            at.skip("ONLY", "LATERAL")
            if at.peek() == "(":
                at.skip_parentheses()
            else:
                name = at.name()
                if at.peek() != "(" and name:
                    found.append(name)
                at.skip_parentheses()
            at.skip("AS")
            if at.peek() not in (",", "", ")") and at.peek(1) in (",", "("):
                at.name()
                at.skip_parentheses()
            if word == "JOIN" or not at.take(","):
                break
    return list(dict.fromkeys(found))


def outside(words: Sequence[str]) -> list[str]:
    """The words outside parentheses."""
    depth = 0
    kept = []
    for word in words:
        depth -= word == ")"
        if depth == 0:
            kept.append(word)
        depth += word == "("
    return kept
