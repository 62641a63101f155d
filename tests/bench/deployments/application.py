"""The application of the bench as an artifact: 3,000 files, 24 MB packed, the same bytes for the same version."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import shutil
from pathlib import Path

from ansible_collections.roastify.ops.plugins.module_utils import artifact

SERVER = Path(__file__).parent / "server.js"
FILES = 3000
#: Random bytes in a file. Written in base64 they are a third longer, and gzip takes that third away again.
BYTES = 7720
#: One file in so many differs from version to version.
CHANGED = 10


def _text(seed: str) -> str:
    """Text of a file: looks random, and is the same each time."""
    return base64.encodebytes(random.Random(seed).randbytes(BYTES)).decode()


def write_tree(directory: Path, version: str, breaks: bool = False) -> None:
    """Write a version of the application into a directory, over another version or into nothing.

    Args:
        directory: where; it is created.
        version: decides the contents.
        breaks: whether it cannot start.
    """
    fresh = not directory.exists()
    for number in range(FILES - 2):
        changes = number % CHANGED == 0
        if not (fresh or changes):
            continue
        file = directory / "node_modules" / f"package-{number // 30:03}" / f"file-{number % 30:02}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_text(f"{number} {version if changes else ''}"), encoding="ascii")
    (directory / "package.json").write_text(json.dumps({"name": "bench", "version": version}) + "\n", encoding="ascii")
    shutil.copyfile(SERVER, directory / "server.js")
    if breaks:
        (directory / "server.js").write_text("throw new Error('cannot start');\n", encoding="ascii")


def pack(tree: Path, destination: Path, version: str, breaks: bool = False) -> artifact.Artifact:
    """Write a version and pack it, as role app_build would have done.

    Args:
        tree: a directory that `write_tree` has written before, or that does not exist.
        destination: the file; its manifest comes beside it.
        version: the version.
        breaks: whether it cannot start.
    """
    write_tree(tree, version, breaks)
    manifest = {
        "name": "bench",
        "version": version,
        "commit": hashlib.sha256(version.encode()).hexdigest()[:40],
        "sourceDigest": hashlib.sha256(version.encode()).hexdigest(),
        "modified": False,
        "builder": "tests/bench/deployments",
        "schemaVersion": None,
        "schemaBreaks": [],
    }
    return artifact.pack(str(tree), str(destination), manifest)
