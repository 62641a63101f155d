# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads what the modules env_validate and env_file are given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class InputError(Exception):
    """Something that was given cannot be read; the message never quotes it."""


def read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}. Check the path and the user of the task."
        ) from error


def read_schema(path: Path) -> Any:
    """A schema file in JSON, or in YAML where a parser is installed."""
    text = read_file(path).decode("utf-8", errors="replace")
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        import yaml
    except ImportError:
        raise InputError(
            f"{path} is not JSON, and this host has no PyYAML to read YAML with: pass the content as `schema`, "
            "which the controller reads"
        ) from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise InputError(f"{place} is not valid YAML: {getattr(error, 'problem', 'syntax error')}") from error


def read_variables(text: str) -> dict[str, Any]:
    """Variables given as JSON. What does not parse is not quoted: it may hold secrets."""
    try:
        variables = json.loads(text)
    except ValueError:
        variables = None
    if not isinstance(variables, dict):
        raise InputError("`variables` is neither a mapping nor the JSON text of one: pass NAME: value pairs")
    return {str(name): value for name, value in variables.items()}
