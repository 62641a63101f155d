# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lints migrations with squawk (https://squawkhq.com), and puts the locks of their statements beside its findings.

Squawk is a program that the PyPI package squawk-cli installs; requirements/controller.in pins its version.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils import sql_locks, sql_statements
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.migration_files import (
    MigrationFilesError,
    MigrationSet,
    Script,
    read_directory,
)
from ansible_collections.roastify.ops.plugins.module_utils.sql_locks import StatementLock
from ansible_collections.roastify.ops.plugins.module_utils.sql_statements import SqlError
from ansible_collections.roastify.ops.plugins.module_utils.tables import align

PROGRAM = "squawk"

MATTERS_OF_TASTE = (
    "ban-char-field",
    "prefer-bigint-over-int",
    "prefer-bigint-over-smallint",
    "prefer-identity",
    "prefer-robust-stmts",
    "prefer-text-field",
    "prefer-timestamp-tz",
    "require-enum-value-ordering",
)
"""Rules about the choice of types and about style. A migration that breaks them is safe to run.

prefer-robust-stmts wants IF NOT EXISTS, which is worse than useless for an index: it takes an INVALID one for the
wanted one. The runner knows by itself how far a migration came.
"""

DONE_BY_THE_RUNNER = ("require-lock-timeout", "require-statement-timeout")
"""Rules that ask for settings which the runner makes before every migration."""

EXCLUDED_RULES = tuple(sorted(MATTERS_OF_TASTE + DONE_BY_THE_RUNNER))
"""The rules that are left out by default; what remains is about safety."""

SYNTAX_ERROR = "syntax-error"
ALL_RULES = "*"
"""Stands for every rule in a waiver."""

_VERSION = re.compile(r"[0-9]{1,2}(\.[0-9]+)*")
_RULE = re.compile(r"[a-z][a-z0-9-]*")
_UNKNOWN_RULE = re.compile(r"invalid rule name (\S+)")


class LintError(OperationError):
    """The migrations could not be linted; nothing is known about them."""


@dataclass(frozen=True)
class LintOptions:
    """How to lint.

    Attributes:
        excluded_rules: rules that are not applied.
        included_rules: rules that squawk applies only on demand.
        waivers: file name to the rules whose findings in it are accepted, or ["*"].
        pg_version: version of the server, "15" or "15.4"; "" for what squawk assumes.
        include_down: lint the down scripts as well.
        timeout: seconds that squawk may take.
    """

    excluded_rules: Sequence[str] = EXCLUDED_RULES
    included_rules: Sequence[str] = ()
    waivers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    pg_version: str = ""
    include_down: bool = False
    timeout: float = 60


@dataclass(frozen=True)
class Finding:
    """Something that squawk found.

    Attributes:
        file: name of the file.
        line: counted from 1.
        column: counted from 1.
        rule: name of the rule.
        message: what is wrong.
        help: what to do instead, or "".
        waived: whether a waiver accepts it.
    """

    file: str
    line: int
    column: int
    rule: str
    message: str
    help: str
    waived: bool


@dataclass(frozen=True)
class LintReport:
    """What is known about migrations before they run.

    Attributes:
        files: names of the files that were linted, in the order in which they run.
        findings: in the same order.
        locks: file name to what its statements lock; statements without a lock on an existing relation are left out.
        remarks: what was left out.
    """

    files: tuple[str, ...]
    findings: tuple[Finding, ...]
    locks: Mapping[str, Sequence[StatementLock]]
    remarks: tuple[str, ...] = ()

    @property
    def unsafe(self) -> list[Finding]:
        """The findings that no waiver accepts."""
        return [finding for finding in self.findings if not finding.waived]

    def lines(self) -> list[str]:
        """A table for people: every finding, and every statement that may block somebody."""
        rows: list[tuple[str, str, str, str]] = []
        for file in self.files:
            found: list[tuple[int, int, tuple[str, str, str, str]]] = []
            locks = self.locks.get(file, ())
            for lock in locks:
                if lock.blocks != sql_locks.NOTHING:
                    what = lock.taken or lock.mode
                    more = f"and {lock.count - 1} more like it" if lock.count > 1 else ""
                    text = "; ".join(part for part in (lock.statement, more, lock.scans, lock.unknown) if part)
                    found.append((lock.line, 0, (f"{file}:{lock.line}", what, lock.blocks, text)))
            for finding in self.findings:
                if finding.file == file:
                    text = f"{'waived: ' if finding.waived else ''}{finding.message} {finding.help}".strip()
                    cells = (f"{file}:{finding.line}", finding.rule, "", text)
                    found.append((finding.line, 1, cells))
            rows += [cells for _line, _kind, cells in sorted(found)]
        return align([("where", "lock or rule", "blocks", "why"), *rows]) if rows else []

    def as_dict(self) -> dict[str, Any]:
        """The same for a module's result."""
        return {
            "files": list(self.files),
            "findings": [asdict(finding) for finding in self.findings],
            "locks": {file: [lock.as_dict() for lock in locks] for file, locks in self.locks.items()},
            "lines": self.lines(),
            "unsafe": len(self.unsafe),
            "remarks": list(self.remarks),
        }


def find_program() -> str:
    """The path of squawk: beside the Python that runs this, else on PATH.

    Raises:
        LintError: it is not installed.
    """
    beside = Path(sys.executable).with_name(PROGRAM)
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(PROGRAM)
    if not found:
        raise LintError(
            f"The linter {PROGRAM} is neither in {beside.parent} nor on PATH.",
            "Install requirements/controller.txt (or squawk-cli from PyPI) into the Python that runs Ansible, "
            "or switch the lint off.",
        )
    return found


def read_migrations(path: Path, directory_in_archive: str = "migrations") -> MigrationSet:
    """Read the migrations of a directory, or of a release artifact.

    Args:
        path: a directory, or a .tar.gz that holds one.
        directory_in_archive: its name in the archive.

    Raises:
        LintError: there is no such file or directory, or the archive cannot be read.
        MigrationFilesError: the migrations cannot be used.
    """
    if not path.is_file():
        return read_directory(path)
    with tempfile.TemporaryDirectory(prefix="migrations.") as temporary:
        _extract(path, directory_in_archive.strip("/"), Path(temporary))
        try:
            # The scripts are in memory from here on.
            return read_directory(Path(temporary))
        except MigrationFilesError as error:
            cause = error.cause.replace(temporary, f"{directory_in_archive} of {path}")
            raise MigrationFilesError(cause, error.remedy, error.evidence) from None


def _extract(path: Path, directory: str, destination: Path) -> None:
    """Write the SQL files of one directory of an archive, and nothing else of it."""
    found = False
    links = []
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                parent, name = posixpath.split(posixpath.normpath(member.name))
                found = found or parent == directory or (parent, name) == posixpath.split(directory)
                if parent != directory or not name.lower().endswith(".sql"):
                    continue
                source = archive.extractfile(member) if member.isreg() else None
                if source is None:
                    if not member.isdir():
                        links.append(f"{member.name}: not a regular file")
                    continue
                with open(destination / name, "xb") as target:
                    shutil.copyfileobj(source, target)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise LintError(
            f"The archive {path} cannot be read: {error}.", "Give a release artifact, or a directory of migrations."
        ) from error
    if links:
        raise LintError(f"The archive {path} holds migrations that are links.", "Pack the files themselves.", links)
    if not found:
        raise LintError(
            f"The archive {path} holds no directory {directory}.",
            "Name the directory of the migrations, as it is in the archive.",
        )


def lint(
    migrations: MigrationSet, applied_versions: Iterable[str], options: LintOptions, program: str | None = None
) -> LintReport:
    """Lint the migrations that are not applied.

    Args:
        migrations: all migrations.
        applied_versions: versions that are applied; they compare as numbers.
        options: how.
        program: path of squawk; None to look for it.

    Raises:
        LintError: an option names what does not exist (all of them at once), or squawk failed.
    """
    program = program or find_program()
    applied = _checked(migrations, applied_versions, options, program)
    pending = [migration for migration in migrations.migrations if migration.number not in applied]
    scripts = [migration.up for migration in pending]
    downs = [migration.down for migration in pending if migration.down is not None]
    remarks = []
    if options.include_down:
        scripts += downs
    elif downs:
        remarks.append(f"down scripts are not linted: {len(downs)}")
    skipped = len(migrations.migrations) - len(pending)
    if skipped:
        remarks.append(f"applied already and not linted: {skipped}")

    findings: list[Finding] = []
    locks: dict[str, list[StatementLock]] = {}
    for script in scripts:
        try:
            statements = sql_statements.split(script.text)
        except SqlError as error:
            findings.append(Finding(script.file, error.line, 1, SYNTAX_ERROR, error.reason, "", False))
            continue
        claims = sql_locks.merged(claim for claim in sql_locks.locks_of(statements) if claim.mode != "none")
        if claims:
            locks.setdefault(script.file, []).extend(claims)
    for transactional in (True, False):
        group = [script for script in scripts if script.transactional == transactional]
        findings += _run(program, group, transactional, options)
    files = tuple(dict.fromkeys(script.file for script in scripts))
    order = {file: number for number, file in enumerate(files)}
    findings.sort(key=lambda finding: (order[finding.file], finding.line, finding.column, finding.rule))
    return LintReport(files, tuple(_waived(findings, options.waivers)), locks, tuple(remarks))


def _waived(findings: Iterable[Finding], waivers: Mapping[str, Sequence[str]]) -> Iterable[Finding]:
    for finding in findings:
        rules = waivers.get(finding.file, ())
        yield Finding(**{**asdict(finding), "waived": ALL_RULES in rules or finding.rule in rules})


def _checked(migrations: MigrationSet, applied_versions: Iterable[str], options: LintOptions, program: str) -> set[int]:
    """The numbers of the applied versions, if all options make sense."""
    problems = []
    applied = set()
    for version in applied_versions:
        if str(version).isascii() and str(version).isdigit():
            applied.add(int(version))
        else:
            problems.append(f"applied: {version!r} is not a version")
    if options.pg_version and not _VERSION.fullmatch(options.pg_version):
        problems.append(f"pg_version: {options.pg_version!r} is not a version of PostgreSQL, as 15 or 15.4")
    known = {
        script.file
        for migration in migrations.migrations
        for script in (migration.up, migration.down)
        if script is not None
    }
    named: dict[str, list[str]] = {}
    for option in ("excluded_rules", "included_rules"):
        for rule in getattr(options, option):
            named.setdefault(rule, []).append(option)
    for file, rules in options.waivers.items():
        if file not in known:
            problems.append(f"waivers: there is no file {file}")
        for rule in rules:
            if rule not in (ALL_RULES, SYNTAX_ERROR):
                named.setdefault(rule, []).append(f"waivers of {file}")
    for rule in _unknown_rules(program, list(named), options.timeout):
        problems.append(f"{', '.join(named[rule])}: there is no rule {rule}")
    if problems:
        raise LintError(
            "The lint is set up with things that do not exist; nothing was linted.",
            "Correct these; https://squawkhq.com/docs/rules lists the rules.",
            problems,
        )
    return applied


def _unknown_rules(program: str, rules: list[str], timeout: float) -> list[str]:
    """Which of the names squawk does not know; it names one at a time."""
    unknown = [rule for rule in rules if not _RULE.fullmatch(rule)]
    rules = [rule for rule in rules if rule not in unknown]
    while rules:
        # There is nothing to lint on standard input: only the options count.
        answer = _call([program, "--config", os.devnull, *(f"--exclude={rule}" for rule in rules)], timeout, os.sep)
        match = _UNKNOWN_RULE.search(answer.stderr)
        if match is None or match[1] not in rules:
            break
        unknown.append(match[1])
        rules.remove(match[1])
    return unknown


def _run(program: str, scripts: Sequence[Script], transactional: bool, options: LintOptions) -> list[Finding]:
    """Lint scripts that are all run within a transaction, or all without one, with a single process."""
    if not scripts:
        return []
    arguments = [program, "--config", "none.toml", "--reporter", "json"]
    arguments += [f"--exclude={rule}" for rule in options.excluded_rules]
    arguments += [f"--include={rule}" for rule in options.included_rules]
    if options.pg_version:
        arguments.append(f"--pg-version={options.pg_version}")
    if transactional:
        arguments.append("--assume-in-transaction")
    with tempfile.TemporaryDirectory(prefix="lint.") as directory:
        # An explicit empty one: otherwise squawk takes the first it finds in a directory above.
        Path(directory, "none.toml").write_text("")
        for number, script in enumerate(scripts):
            # Squawk takes paths for patterns: a name of our own has no sign with a meaning in it.
            Path(directory, f"{number}.sql").write_text(script.text, encoding="utf-8")
        answer = _call([*arguments, *(f"{number}.sql" for number in range(len(scripts)))], options.timeout, directory)
    try:
        items = json.loads(answer.stdout)
        return [_finding(item, scripts) for item in items]
    except (ValueError, KeyError, TypeError, IndexError):
        raise LintError(
            f"The linter {program} gave no usable answer (exit status {answer.returncode}).",
            "Install the version of squawk-cli that requirements/controller.txt pins.",
            (answer.stderr or answer.stdout).strip().splitlines()[-5:],
        ) from None


def _finding(item: Mapping[str, Any], scripts: Sequence[Script]) -> Finding:
    return Finding(
        scripts[int(Path(item["file"]).stem)].file,
        item["line"] + 1,
        item["column"] + 1,
        item["rule_name"],
        item["message"],
        item["help"] or "",
        False,
    )


def _call(arguments: Sequence[str], timeout: float, directory: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            arguments,
            cwd=directory,
            # Without the variables that make squawk talk to a code host.
            env={"PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise LintError(
            f"The linter {arguments[0]} did not answer within {timeout:g} seconds.",
            "Raise timeout, or switch the lint off for this run.",
        ) from None
    except OSError as error:
        raise LintError(
            f"The linter {arguments[0]} cannot be run: {error.strerror}.",
            "Install the squawk-cli that requirements/controller.txt pins; it needs a build for this system.",
        ) from error
