# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an older release still works with the schema that a newer one brought.

A migration that only adds (tables, columns with a default or without a value, indexes) leaves older releases working.
One that takes away, renames, changes a type or demands a value breaks them. Each artifact lists such migrations of its
own as ``schemaBreaks``, so that a rollback knows without asking the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils import migration_files, sql_statements
from ansible_collections.roastify.ops.plugins.module_utils.sql_statements import Statement

#: What older code may still read or call, by the words that DROP is followed by. An index or a trigger is not.
_READ_BY_CODE = ("TABLE", "VIEW", "MATERIALIZED", "SCHEMA", "TYPE", "DOMAIN", "SEQUENCE", "FUNCTION", "PROCEDURE")


def breaks_older_code(statement: Statement) -> bool:
    """Whether code that was written for the schema before a statement may fail after it.

    Args:
        statement: one statement of a migration.
    """
    words = [token.upper() for token in sql_statements.tokens(statement.text)]
    if words[:1] == ["DROP"]:
        return words[1:2] != [] and words[1] in _READ_BY_CODE
    if words[:1] != ["ALTER"]:
        return False
    kind = next(iter(words[1:2]), "")
    pairs = list(zip(words, [*words[1:], ""]))
    if "RENAME" in words:
        return kind in _READ_BY_CODE and ("RENAME", "CONSTRAINT") not in pairs
    if kind == "TYPE":
        return ("DROP", "ATTRIBUTE") in pairs
    if kind != "TABLE":
        return ("SET", "SCHEMA") in pairs and kind in _READ_BY_CODE
    kept = ("CONSTRAINT", "DEFAULT", "NOT", "IDENTITY", "EXPRESSION")
    drops_column = any(word == "DROP" and after not in kept for word, after in pairs)
    changes_type = "TYPE" in words and "ALTER" in words[1:]
    demands_value = ("SET", "NOT") in pairs or _adds_without_value(words)
    return drops_column or changes_type or demands_value or ("SET", "SCHEMA") in pairs


def _adds_without_value(words: list[str]) -> bool:
    """Whether a column is added that every insert has to name: NOT NULL, and nothing that fills it in."""
    if "ADD" not in words or ("NOT", "NULL") not in zip(words, words[1:]):
        return False
    fills = {"DEFAULT", "GENERATED", "SERIAL", "BIGSERIAL", "SMALLSERIAL"}
    return ("ADD", "CONSTRAINT") not in zip(words, words[1:]) and not fills & set(words)


def schema_breaks(directory: Path) -> list[dict[str, Any]]:
    """The migrations of a directory that older releases don't survive.

    Args:
        directory: of migrations; may be missing.

    Returns:
        For each its `version` and the `statement`, in short and without secrets.

    Raises:
        MigrationFilesError: the files cannot be read as migrations.
        SqlError: one of them is cut off in the middle of a statement.
    """
    if not directory.is_dir():
        return []
    found = []
    for migration in migration_files.read_directory(directory).migrations:
        statements = sql_statements.split(migration.up.text)
        breaking = next((it for it in statements if breaks_older_code(it)), None)
        if breaking is not None:
            found.append({"version": migration.version, "statement": sql_statements.summary(breaking)})
    return found


def obstacle(live: Mapping[str, Any] | None, target: Mapping[str, Any] | None) -> str | None:
    """Why a release can't be returned to with the schema that the live one brought.

    Args:
        live: manifest of the live release.
        target: manifest of the release to return to.

    Returns:
        A sentence that names the first migration in the way, or None.
    """
    if not live or not target:
        return None
    known = int(target.get("schemaVersion") or 0)
    breaking = [it for it in live.get("schemaBreaks") or [] if int(it["version"]) > known]
    if not breaking:
        return None
    first = min(breaking, key=lambda it: int(it["version"]))
    more = f" and {len(breaking) - 1} more" if len(breaking) > 1 else ""
    return (
        f"version {target.get('version')} works with the schema up to {target.get('schemaVersion') or 'none'}, and "
        f"migration {first['version']}{more} changed what it relies on: {first['statement']}"
    )
