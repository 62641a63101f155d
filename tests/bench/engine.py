"""The engine of pg_migrate in a plain process: applies what is pending in a directory (connection in PGHOST ...).

Without a directory it only loads what it needs, which is what starting it takes.
"""

import sys
from pathlib import Path

import psycopg2  # noqa: F401  (the runner imports it when it connects)
from ansible_collections.roastify.ops.plugins.module_utils.migration_files import read_directory
from ansible_collections.roastify.ops.plugins.module_utils.migration_plan import plan_up
from ansible_collections.roastify.ops.plugins.module_utils.migration_runner import Runner
from ansible_collections.roastify.ops.plugins.module_utils.postgresql import ConnectionOptions

if sys.argv[1:]:
    with Runner(ConnectionOptions()) as runner:
        runner.run(lambda state: plan_up(read_directory(Path(sys.argv[1])), state.applied, unfinished=state.unfinished))
    print(len(runner.done), "applied")
