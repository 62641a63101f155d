# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads what the modules env_validate and env_file and the command env_check are given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils.env_sources import Source


class InputError(Exception):
    """Something that was given cannot be read; the message never quotes it."""


def read_file(path: Path) -> bytes:
    """Content of a file; raises InputError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Check the path, and who may read it.") from error


def read_schema(path: Path, without_yaml: str = "pass the content as `schema`, which the controller reads") -> Any:
    """A schema file in JSON, or in YAML where a parser is installed.

    Args:
        path: the file.
        without_yaml: what to do on a host without one, for the message.

    Raises:
        InputError: it cannot be read, is neither, or has a key twice, of which YAML would drop the first in silence.
    """
    text = read_file(path).decode("utf-8", errors="replace")
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        import yaml
    except ImportError:
        raise InputError(f"{path} is not JSON, and this host has no PyYAML to read YAML with: {without_yaml}") from None
    try:
        # The one of libyaml is far faster, where PyYAML was built with it.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        root = loader.get_single_node()
        _refuse_twice(path, root)
        return None if root is None else loader.construct_document(root)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise InputError(f"{place} is not valid YAML: {getattr(error, 'problem', 'syntax error')}") from error
    except (ValueError, RecursionError) as error:  # a date such as 2024-99-99; nesting without end
        raise InputError(f"{path} is not valid YAML: {type(error).__name__}") from error


def _refuse_twice(path: Path, root: Any) -> None:
    pending, done = [root], set()
    while pending:
        node = pending.pop()
        if node is None or id(node) in done or not isinstance(node.value, list):
            continue
        done.add(id(node))
        first: dict[Any, int] = {}
        for item in node.value:
            if not isinstance(item, tuple):
                pending.append(item)
                continue
            key, value = item
            pending.append(value)
            if not isinstance(key.value, str) or key.value == "<<":
                continue
            line = key.start_mark.line + 1
            if key.value in first:
                raise InputError(f"{path}:{line} has the key {key.value} again (first in line {first[key.value]})")
            first[key.value] = line


def line_in_schema(path: Path, where: str) -> int | None:
    """Line of a YAML schema, from 1, of a place that env_schema_check names, as exactly as it is found.

    Args:
        path: the file.
        where: for instance `variables.PORT.min` or `groups[0].rule`.
    """
    try:
        import yaml

        node: Any = yaml.compose(read_file(path).decode("utf-8", errors="replace"), Loader=yaml.SafeLoader)
    except (ImportError, ValueError, InputError, yaml.YAMLError):
        return None
    line: int | None = None
    rest = where.replace("[", ".").replace("]", "")
    while rest and node is not None and isinstance(node.value, list):
        following = None
        if node.value and not isinstance(node.value[0], tuple):
            number, _dot, rest_of_it = rest.partition(".")
            if number.isdigit() and int(number) < len(node.value):
                following, rest = node.value[int(number)], rest_of_it
                line = following.start_mark.line + 1
        else:
            for key, value in node.value:
                if isinstance(key.value, str) and (rest + ".").startswith(key.value + "."):
                    following, rest = value, rest[len(key.value) + 1 :]
                    line = key.start_mark.line + 1
                    break
        node = following
    return line


def read_sources(text: str) -> list[Source]:
    """Sources given as JSON. What does not parse is not quoted: it may hold secrets.

    Args:
        text: a list of mappings with `name`, `variables` (a mapping or its JSON text) and, if they are known, `places`.

    Raises:
        InputError: it is something else.
    """
    try:
        sources = [(str(it["name"]), it["variables"], dict(it.get("places") or {})) for it in json.loads(text)]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InputError("`sources` is not a list of mappings with name, variables and places") from None
    return [Source(name, _mapping(variables, name), places) for name, variables, places in sources]


def read_variables(text: str) -> dict[str, Any]:
    """Variables given as JSON. What does not parse is not quoted: it may hold secrets."""
    return _mapping(text, "`variables`")


def _mapping(content: Any, what: str) -> dict[str, Any]:
    if isinstance(content, str):
        try:
            content = json.loads(content)
        except ValueError:
            content = None
    if not isinstance(content, dict):
        raise InputError(f"{what} is neither a mapping nor the JSON text of one: it needs NAME: value pairs")
    return {str(name): value for name, value in content.items()}
