"""Reads .env files with systemd's own functions; run as a program, so that a fault in them ends no test run.

    python systemd_reader.py <libsystemd-shared-….so>

Takes a JSON list of texts, writes a JSON list of what EnvironmentFile= makes of each: a mapping of the variables, or
the number of the error for which the whole file is refused. systemd loads such a file with load_env_file, and then
drops what is no valid assignment with strv_env_clean_with_callback.
"""

from __future__ import annotations

import ctypes
import json
import sys
import tempfile
from pathlib import Path

_STRINGS = ctypes.POINTER(ctypes.c_char_p)


def read(library: ctypes.CDLL, path: Path) -> dict[str, str] | int:
    """What EnvironmentFile= makes of one file."""
    loaded = _STRINGS()
    answer = int(library.load_env_file(None, bytes(path), ctypes.byref(loaded)))
    if answer < 0:
        return answer
    cleaned = library.strv_env_clean_with_callback(loaded, None, None)
    values: dict[str, str] = {}
    index = 0
    while cleaned and cleaned[index] is not None:
        name, _, value = cleaned[index].decode().partition("=")
        values[name] = value
        index += 1
    library.strv_free(cleaned)
    return values


def main() -> None:
    library = ctypes.CDLL(sys.argv[1])
    library.strv_env_clean_with_callback.restype = _STRINGS
    library.strv_env_clean_with_callback.argtypes = [_STRINGS, ctypes.c_void_p, ctypes.c_void_p]
    library.strv_free.argtypes = [_STRINGS]
    library.strv_free.restype = ctypes.c_void_p
    library.log_set_max_level(0)  # it would tell of each odd line
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "environment"
        answers = []
        for text in json.load(sys.stdin):
            path.write_bytes(text.encode())
            answers.append(read(library, path))
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
