"""A runner of migrations in a process of its own, to be killed or to race against others.

usage: migrating_process.py DIRECTORY APPLICATION_NAME, with the connection in PGHOST, PGPORT ...
It says "ready", waits for a line on standard input, migrates, and says what it did as JSON. Exit code 3 is an
error with cause and remedy, as the module would show it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.migration_files import read_directory
from ansible_collections.roastify.ops.plugins.module_utils.migration_plan import plan_up
from ansible_collections.roastify.ops.plugins.module_utils.migration_runner import Runner
from ansible_collections.roastify.ops.plugins.module_utils.migration_session import RunOptions
from ansible_collections.roastify.ops.plugins.module_utils.postgresql import ConnectionOptions

EXPLAINED = 3


class MigratingProcess:
    """Starts this file.

    Args:
        directory: of the migrations.
        options: the database.
        application_name: what the server shows.
    """

    def __init__(self, directory: Path, options: ConnectionOptions, application_name: str) -> None:
        self.application_name = application_name
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(directory), application_name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                **options.environment(),
                "PGSSLROOTCERT": options.ssl_root_cert or "",
                "PYTHONPATH": str(Path(__file__).parents[2] / "collections"),
            },
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise AssertionError(self._process.communicate()[1])

    def go(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def ends_within(self, seconds: float) -> bool:
        """Wait; whether it ended by itself meanwhile."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End it as the kernel does when memory runs out."""
        self._process.kill()

    def result(self, seconds: float = 120) -> tuple[int, list[str], str]:
        """Exit code, the versions it applied, and what it said on standard error."""
        output, errors = self._process.communicate(timeout=seconds)
        return self._process.returncode, json.loads(output or "[]"), errors


def main(directory: str, application_name: str) -> int:
    """Migrate to the newest version."""
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        with Runner(ConnectionOptions(application_name=application_name), RunOptions()) as runner:
            runner.run(
                lambda state: plan_up(read_directory(Path(directory)), state.applied, unfinished=state.unfinished)
            )
    except OperationError as error:
        print(error, file=sys.stderr)
        return EXPLAINED
    print(json.dumps([done.step.migration.version for done in runner.done]))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
