# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a directory of migrations: NNN_name.up.sql with NNN_name.down.sql, or both in NNN_name.sql.

A version is a number of any length: 001, 42 and 20260131120000 sort as numbers, and 7 and 007 are the
same version. The text of a file is compared and hashed without byte order mark, with "\\n" as line end
and without white space at its end, so that a checkout on another system is the same migration.
"""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.roastify.ops.plugins.module_utils import migration_text, sql_statements
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.migration_text import NO_TRANSACTION
from ansible_collections.roastify.ops.plugins.module_utils.sql_statements import SqlError, Statement

_FILE_NAME = re.compile(r"(?P<version>[0-9]+)_(?P<name>.+?)(?:\.(?P<direction>up|down))?\.sql")

LONGEST_NAME = 255
"""What the columns version and name of the tracking table hold."""

_LONGEST_COUNTER = 6
"""Versions of more digits are taken for times, which have gaps by nature."""


class MigrationFilesError(OperationError):
    """The files cannot be used; nothing was run. The evidence holds one line per problem."""


@dataclass(frozen=True)
class Script:
    """One direction of a migration: a file, or a section of one.

    Attributes:
        directory: where it was read.
        file: its name there.
        text: normalised text; lines of another section are blank, so that line numbers are those of the file.
        transactional: False if `-- migrate:no-transaction` stands above its first statement.
    """

    directory: Path
    file: str
    text: str = field(repr=False)
    transactional: bool

    @property
    def path(self) -> Path:
        """The whole name of the file."""
        return self.directory / self.file

    @functools.cached_property
    def checksum(self) -> str:
        """The name of the algorithm and the hash of the text."""
        return migration_text.checksum(self.text)


@dataclass(frozen=True)
class Migration:
    """One version of the schema.

    Attributes:
        version: as the file's name writes it: 001.
        name: what stands between version and direction: initial_schema.
        up: the script that brings the schema to this version.
        down: the script that takes it back, or None.
    """

    version: str
    name: str
    up: Script
    down: Script | None

    @property
    def number(self) -> int:
        """The version as a number, which is what counts."""
        return int(self.version)


@dataclass(frozen=True)
class MigrationSet:
    """The migrations of a directory.

    Attributes:
        directory: where they were read.
        migrations: all of them in the order of their versions.
        warnings: what is odd but no reason to stop.
    """

    directory: Path
    migrations: tuple[Migration, ...]
    warnings: tuple[str, ...] = ()

    def by_number(self) -> dict[int, Migration]:
        """The migrations by the number of their version."""
        return {migration.number: migration for migration in self.migrations}


def read_directory(directory: Path) -> MigrationSet:
    """Read all migrations of a directory; sub-directories and files that are not SQL are left alone.

    Args:
        directory: the directory.

    Returns:
        The migrations in version order.

    Raises:
        MigrationFilesError: with every problem found: unusable names, duplicate versions, a down script
            without its up script, undecodable text, unknown directives.
    """
    problems: list[str] = []
    found: dict[tuple[int, str], dict[str, Script]] = {}
    spelling: dict[tuple[int, str], str] = {}
    for name in _sql_files(directory):
        match = _FILE_NAME.fullmatch(name)
        if not _is_unicode(name):
            problems.append(f"{name!a}: the name holds bytes that are not UTF-8; rename it")
            continue
        if match is None:
            problems.append(
                f"{name}: not named NNN_name.up.sql, NNN_name.down.sql or NNN_name.sql; rename it or move it away"
            )
            continue
        if max(len(match["version"]), len(match["name"])) > LONGEST_NAME:
            problems.append(f"{name}: version and name may have at most {LONGEST_NAME} characters each")
            continue
        try:
            scripts = _read_scripts(directory, name, match["direction"])
        except ValueError as error:
            problems.append(f"{name}: {error}")
            continue
        key = (int(match["version"]), match["name"])
        directions = found.setdefault(key, {})
        twice = next((directions[direction] for direction in scripts if direction in directions), None)
        if twice:
            problems.append(f"version {key[0]} exists twice: {twice.file} and {name}; give one of them another number")
            continue
        directions.update(scripts)
        if "up" in scripts or key not in spelling:
            spelling[key] = match["version"]

    problems += _duplicates(found)
    for directions in found.values():
        if "up" not in directions and not _refused(directions["down"].file, problems):
            problems.append(f"{directions['down'].file}: there is no .up.sql for it; add it or remove this file")
    if problems:
        raise MigrationFilesError(
            f"The migrations in {directory} cannot be used; nothing was run.",
            "Correct these files and run again.",
            problems,
        )
    migrations = tuple(
        Migration(spelling[key], key[1], scripts["up"], scripts.get("down")) for key, scripts in sorted(found.items())
    )
    return MigrationSet(directory, migrations, tuple(_gaps(migrations)))


def _is_unicode(name: str) -> bool:
    """Whether a name of the file system can be written down, and does not hold bytes that Python only carries along."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _sql_files(directory: Path) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return sorted(
                entry.name
                for entry in entries
                if entry.name.lower().endswith(".sql") and not entry.name.startswith(".") and not entry.is_dir()
            )
    except OSError as error:
        raise MigrationFilesError(
            f"Migrations cannot be read from {directory}: {error.strerror}.",
            "Give the directory that holds the NNN_name.up.sql files, on the host that runs them.",
        ) from error


def _refused(down: str, problems: list[str]) -> bool:
    """Whether the up script of a down script was refused for a reason of its own."""
    up = down[: -len("down.sql")] + "up.sql"
    return any(problem.startswith(f"{up}:") for problem in problems)


def _duplicates(found: dict[tuple[int, str], dict[str, Script]]) -> list[str]:
    names: dict[int, list[str]] = {}
    for (number, _name), scripts in found.items():
        names.setdefault(number, []).append(next(iter(scripts.values())).file)
    return [
        f"version {number} exists {_times(len(files))}: {' and '.join(sorted(files))}; give each its own number"
        for number, files in sorted(names.items())
        if len(files) > 1
    ]


def _times(count: int) -> str:
    return "twice" if count == 2 else f"{count} times"


def _gaps(migrations: tuple[Migration, ...]) -> list[str]:
    counters = [migration for migration in migrations if len(migration.version) <= _LONGEST_COUNTER]
    pairs = list(zip(counters, counters[1:]))
    steps = [later.number - earlier.number for earlier, later in pairs]
    if not steps or steps.count(1) * 2 < len(steps):
        return []  # they count in tens, or in no order that could have a gap
    return [
        f"no migration between {earlier.version} and {later.version}: one may be missing"
        for (earlier, later), step in zip(pairs, steps)
        if step > 1
    ]


def _read_scripts(directory: Path, file: str, direction: str | None) -> dict[str, Script]:
    """The directions that a file holds: the one that its name says, or both."""
    try:
        with open(os.path.join(directory, file), "rb", buffering=0) as stream:
            content = stream.read()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    text = migration_text.normalised(content)
    sections = {direction: migration_text.whole(text)} if direction else migration_text.divided(text)
    return {name: Script(directory, file, section.text, section.transactional) for name, section in sections.items()}


@dataclass(frozen=True)
class CheckedScript:
    """A script that may be run: split, and free of what a migration must not do."""

    script: Script
    statements: tuple[Statement, ...]


def check_scripts(scripts: list[Script], unwrap: bool = False) -> list[CheckedScript]:
    """Split scripts and refuse what would break out of the runner's transaction.

    Args:
        scripts: the scripts that are about to run.
        unwrap: take off a BEGIN that is a script's first statement together with a COMMIT that is its last.

    Returns:
        The same with their statements.

    Raises:
        MigrationFilesError: with every problem of every script, as file:line.
    """
    problems: list[str] = []
    checked = []
    for script in scripts:
        try:
            statements = sql_statements.split(script.text)
        except SqlError as error:
            problems.append(f"{script.file}:{error.line}: {error.reason}")
            continue
        wrapped = script.transactional and sql_statements.is_wrapped(statements)
        if wrapped and unwrap:
            statements = list(sql_statements.unwrapped(statements))
        checked.append(CheckedScript(script, tuple(statements)))
        for statement in statements:
            reason = _refusal(statement, script.transactional)
            if reason:
                if wrapped and statement in (statements[0], statements[-1]):
                    reason += " (unwrap takes off a BEGIN and COMMIT around a whole file)"
                problems.append(f"{script.file}:{statement.line}: {reason}")
    if problems:
        raise MigrationFilesError(
            "The migrations that are to run cannot be used; nothing was run.",
            "Correct these files and run again.",
            problems,
        )
    return checked


def _refusal(statement: Statement, transactional: bool) -> str | None:
    command = sql_statements.transaction_control(statement)
    if command:
        how = (
            "every migration runs in a transaction of its own"
            if transactional
            else f"{NO_TRANSACTION} runs each statement by itself"
        )
        return f"{command} is not the migration's to say: {how}; remove it"
    encoding = sql_statements.other_encoding(statement)
    if encoding:
        return f"{encoding} is not the encoding of this script, which is sent as UTF-8: remove the statement"
    if transactional:
        command = sql_statements.needs_no_transaction(statement)
        if command:
            return (
                f"{command} cannot run inside a transaction: put it into a migration of its own whose first line is "
                f"-- {NO_TRANSACTION}"
            )
    elif statement.head[:2] == ("DISCARD", "ALL"):
        return "DISCARD ALL would give up the lock that keeps other runs away: remove it"
    elif sql_statements.changes_role(statement):
        return f"SET ROLE would outlast its statement in a {NO_TRANSACTION} migration: remove it"
    return None
