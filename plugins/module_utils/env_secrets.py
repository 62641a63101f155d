# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What may be said about a value, and whether a value is a placeholder or a weak secret."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable

# Nobody means these as a value, whatever the variable.
# Each pattern takes linear time, and a random password hardly ever matches one: <…> counts only around words, and
# inside a longer value only as a part of its own.
_MARKERS = (
    re.compile(r"\A<[A-Za-z0-9 ._,:/|()-]*>\Z"),
    re.compile(r"(?:\A|[/:@.=,;_ -])<(?:[a-z][a-z_ -]{2,40}|[A-Z][A-Z_ -]{2,40})>(?=\Z|[/:@.=,;?&_ -])"),
    re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]{0,63}(?::?[-?=][^{}]{0,63})?\}"),
    re.compile(r"\A\[[A-Za-z _-]+\]\Z"),
    re.compile(r"\A%[A-Za-z_]+%\Z"),
    re.compile(r"(?:\A|[^A-Za-z0-9])[xX]{4,}(?:\Z|[^A-Za-z0-9])"),
    re.compile(r"\A(?:\*{3,}|\.{3,}|\?{3,}|…)\Z"),
    re.compile(r"AKIAIOSFODNN7EXAMPLE|EXAMPLEKEY\Z"),
)
_TEMPLATE_BRACES = (("{{", "}}"), ("{%", "%}"))
_TEMPLATE_LEFTOVERS = (
    re.compile(r"\A\s*\$ANSIBLE_VAULT;"),
    re.compile(r"\ANone\Z"),
    re.compile(r"AnsibleUndefined|__omit_place_holder__|!vault\b|\A!unsafe\b|VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"),
)
# Compared with the value in lower case without - _ . and spaces; the whole value must be the word.
# fmt: off
_WORDS = frozenset(
    {
        "changeme", "changethis", "changeit", "replaceme", "replacethis", "insertme", "insertvaluehere",
        "fillmein", "fillin", "todo", "tbd", "fixme", "placeholder", "dummy", "undefined", "nan",
        "objectobject",
    }
)
_SECRET_WORDS = frozenset(
    {
        "secret", "secretkey", "mysecret", "mysecretkey", "supersecret", "topsecret", "jwtsecret",
        "yoursecret", "apikey", "token", "password", "passwd", "passw0rd", "password1", "password123",
        "mypassword", "pass", "admin", "root", "administrator", "test", "testing", "example", "sample",
        "default", "demo", "foo", "foobar", "bar", "null", "none", "true", "false", "letmein", "qwerty",
        "qwertyuiop", "asdfgh", "welcome",
    }
)
# fmt: on
_WORDS_IN_FRONT = re.compile(
    r"\A(?:your|change[-_ ]?(?:me|this|it)|replace[-_ ]?(?:me|this|with)|(?:insert|put)[-_ ]?your|my[-_ ]?own)[-_ ]",
    re.I,
)
# Compared with the value as the words are.
_YOURS_HERE = re.compile(r"\Ayour[a-z0-9]*here\Z")
_YOUR_SECRET = re.compile(r"\A(?:your|my|the)[a-z]*(?:secret|password|passphrase|key|token)\Z")
# RFC 2606 keeps these for documentation and tests: nothing real is ever there.
_EXAMPLE_DOMAINS = ("example.com", "example.org", "example.net", "example", "invalid")
_EXAMPLE_LABELS = re.compile(r"\A(?:your-?(?:domain|company|host|app|site|server)|my-?domain)\Z")
_USUAL_NAME = re.compile(r"(?:[A-Z_][A-Z0-9_.-]*|[a-z_][a-z0-9_.-]*|npm_[A-Za-z0-9_]*)\Z")
_SEQUENCES = ("0123456789" * 3, "abcdefghijklmnopqrstuvwxyz" * 2, "qwertyuiopasdfghjklzxcvbnm")


def describe(value: str) -> str:
    """All that is ever said about a secret: how long it is and what kinds of characters it has."""
    kinds = []
    for kind, pattern in (
        ("lower-case letters", r"[a-z]"),
        ("upper-case letters", r"[A-Z]"),
        ("digits", r"[0-9]"),
        ("spaces", r"\s"),
        ("other characters", r"[^A-Za-z0-9\s]"),
    ):
        if re.search(pattern, value):
            kinds.append(kind)
    unit = "character" if len(value) == 1 else "characters"
    return f"{len(value)} {unit}" + (f": {', '.join(kinds)}" if kinds else "")


def shown(value: str, secret: bool, known: Iterable[str] = ()) -> str:
    """What was found, for a message.

    Lines get swapped and pasted into each other, so even the value of a variable that is no secret is
    shown only if it cannot be one: a short number, or a near miss of a word that the schema knows.
    """
    if not secret:
        if re.match(r"-?[0-9]{1,6}\Z", value):
            return value
        word = value.strip().lower()
        if len(word) <= 20 and any(distance(word, str(name).lower()) <= 2 for name in known):
            return repr(value)
    return describe(value)


def distance(left: str, right: str, limit: int = 3) -> int:
    """Edits between two words (insert, delete, replace, swap of neighbours), or `limit` if that many."""
    if abs(len(left) - len(right)) >= limit:
        return limit
    before: list[int] = []
    previous = list(range(len(right) + 1))
    for row, character in enumerate(left, 1):
        current = [row]
        for column, other in enumerate(right, 1):
            cost = min(previous[column] + 1, current[-1] + 1, previous[column - 1] + (character != other))
            if row > 1 and column > 1 and character == right[column - 2] and left[row - 2] == other:
                cost = min(cost, before[column - 2] + 1)
            current.append(cost)
        if min(current) >= limit:
            return limit
        before, previous = previous, current
    return min(previous[-1], limit)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    candidates = list(known)
    folded = {candidate.upper().replace("-", "_"): candidate for candidate in candidates}
    wanted = name.upper().replace("-", "_")
    if wanted in folded:
        return folded[wanted]
    limit = 1 if len(wanted) < 3 else 2 if len(wanted) < 6 else 3
    ranked = sorted((distance(wanted, key, limit), key) for key in folded)
    if ranked and ranked[0][0] < limit:
        return folded[ranked[0][1]]
    ends = sorted(
        key for key in folded if len(wanted) >= 4 and (key.endswith("_" + wanted) or wanted.endswith("_" + key))
    )
    return folded[ends[0]] if ends else None


def leftover(value: str) -> bool:
    """Whether a template or a vault value was written instead of what it stands for."""
    return any(pattern.search(value) for pattern in _TEMPLATE_LEFTOVERS)


def placeholder(value: str, secret: bool, more: Iterable[str] = ()) -> bool:
    """Whether the value only stands where a real one should be.

    Words count when they are the whole value, so that a random string or a real host name that happens
    to contain one is left alone.
    """
    if value in more:
        return True
    if any(pattern.search(value) for pattern in _MARKERS):
        return True
    for opening, closing in _TEMPLATE_BRACES:
        start = value.find(opening)
        if start != -1 and value.find(closing, start + len(opening)) != -1:
            return True
    folded = re.sub(r"[-_. ]", "", value.lower())
    if folded in _WORDS or folded.rstrip("0123456789!") in _WORDS:
        return True
    if _WORDS_IN_FRONT.match(value) or _YOURS_HERE.match(folded):
        return True
    if not secret:
        return False
    return folded.rstrip("0123456789!") in _SECRET_WORDS or folded in _SECRET_WORDS or bool(_YOUR_SECRET.match(folded))


def example_host(host: str) -> bool:
    """Whether a host name is one that documentation uses, such as example.com or db.your-domain.net."""
    labels = host.lower().rstrip(".").split(".")
    reserved = any(labels[-len(name.split(".")) :] == name.split(".") for name in _EXAMPLE_DOMAINS)
    return reserved or any(_EXAMPLE_LABELS.match(label) for label in labels)


def presentable(name: str) -> bool:
    """Whether the name of an unknown variable may be shown.

    A secret of several lines without quotes falls into lines, and the last line of a base64 text looks like an
    assignment: its "name" is a piece of the secret. Names in one case, as names of variables are, are shown.
    """
    return len(name) <= 64 and bool(_USUAL_NAME.match(name))


def entropy_bits(value: str) -> float:
    """Shannon's estimate from the characters alone: an upper bound, low for what is plainly weak."""
    if not value:
        return 0.0
    counts = Counter(value)
    return len(value) * -sum(n / len(value) * math.log2(n / len(value)) for n in counts.values())


def weakness(value: str, min_entropy: float = 0) -> str | None:
    """Why a secret is easy to guess, however long it is; `min_entropy` is in bits."""
    if not value:
        return None
    if len(value) >= 4:
        if len(set(value)) <= 2:
            return "consists of one or two different characters"
        for size in range(1, min(len(value) // 2, 16) + 1):
            unit = value[:size]
            if (unit * (len(value) // size + 1))[: len(value)] == value:
                return f"repeats the same {size} characters"
        lower = value.lower()
        if any(lower in sequence or lower in sequence[::-1] for sequence in _SEQUENCES):
            return "is a run of neighbouring letters or digits"
    if min_entropy and entropy_bits(value) < min_entropy:
        return f"is too regular: fewer than {min_entropy:g} bits by its characters"
    return None
