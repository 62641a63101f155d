#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_migrate_info
short_description: Tell which SQL migrations of a PostgreSQL database are applied
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description:
  - Compares a directory of migrations with the tracking table of a database and changes neither.
  - Contradictions between the two are returned, not failed on.
options:
  directory:
    description:
      - Directory on the managed host that holds the migrations, as for M(roastify.ops.pg_migrate). Without
        it the tracking table alone is read, and RV(applied) and RV(schema_version) are the answer.
    type: path
  optional:
    description:
      - A host that has no O(env_file) or no driver for PostgreSQL yet, because nothing was ever deployed to
        it, is answered with RV(ready) V(false) instead of an error.
    type: bool
    default: false
attributes:
  check_mode:
    description: Reads only.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
extends_documentation_fragment:
  - roastify.ops.attributes
  - roastify.ops.postgresql
  - roastify.ops.postgresql.migrations
seealso:
  - module: roastify.ops.pg_migrate
"""

EXAMPLES = r"""
- name: See which migrations are applied
  roastify.ops.pg_migrate_info:
    directory: /srv/shop/current/migrations
    env_file: /srv/shop/shared/.env
  register: migrations

- name: Show them
  ansible.builtin.debug:
    msg: "{{ migrations.lines }}"
"""

RETURN = r"""
migrations:
  description: All migrations known to the files or the table, in the order of their versions.
  returned: success
  type: list
  elements: dict
  contains:
    version:
      description: Version as the file's name writes it.
      type: str
      returned: always
    name:
      description: Name of the migration.
      type: str
      returned: always
    state:
      description: V(applied), V(pending), V(changed) (the file is not what was applied), V(missing)
        (applied, without a file), or V(interrupted) (started outside a transaction and not ended).
      type: str
      returned: always
    file:
      description: Name of the file, null if it is missing.
      type: str
      returned: always
    has_down:
      description: Whether it can be rolled back.
      type: bool
      returned: always
    applied_at:
      description: When it was applied (UTC), null if it was not.
      type: str
      returned: always
    duration_ms:
      description: How long it took, null if that was not recorded.
      type: int
      returned: always
    applied_by:
      description: Who applied it, null if that was not recorded.
      type: str
      returned: always
    deployment_id:
      description: Deployment that applied it, null if that was not recorded.
      type: str
      returned: always
ready:
  description: V(false) if O(optional) kept this from being an error; the other values are empty then.
  returned: success
  type: bool
applied:
  description: The rows of the tracking table, in the order of application.
  returned: success
  type: list
  elements: dict
  sample:
    - version: "001"
      name: orders
      applied_at: "2026-01-02T03:04:05Z"
      checksum: sha256:0f1e
      down_checksum: sha256:1a2b
      statement_checksums: 0a1b2c3d4e5f
      duration_ms: 12
      applied_by: ann
      deployment_id: 20260102T030400Z-123456
server_version:
  description: Version of the server.
  returned: success
  type: str
  sample: "15.18"
pending:
  description: Files that are not applied.
  returned: success
  type: list
  elements: str
schema_version:
  description: Newest applied version, null if there is none.
  returned: success
  type: str
problems:
  description: Contradictions that would stop a run.
  returned: success
  type: list
  elements: str
remarks:
  description: Oddities that would not stop a run.
  returned: success
  type: list
  elements: str
lines:
  description: The same as a table for people.
  returned: success
  type: list
  elements: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.roastify.ops.plugins.module_utils import migration_report, postgresql_arguments
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.migration_files import read_directory
from ansible_collections.roastify.ops.plugins.module_utils.migration_records import State
from ansible_collections.roastify.ops.plugins.module_utils.migration_runner import Runner
from ansible_collections.roastify.ops.plugins.module_utils.migration_session import RunOptions
from ansible_collections.roastify.ops.plugins.module_utils.postgresql_driver import DriverMissing
from ansible_collections.roastify.ops.plugins.module_utils.postgresql_environment import EnvironmentFileError


def read(module):
    """The state of the database and the server's version."""
    options = module.params
    connection = postgresql_arguments.connection_options(options, "pg_migrate_info", module.no_log_values.add)
    with Runner(connection, RunOptions(table=options["table"])) as runner:
        return runner.state(), runner.server_version


def main():
    module = AnsibleModule(
        argument_spec=dict(
            optional=dict(type="bool", default=False),
            **postgresql_arguments.postgresql_arguments(),
            **{**postgresql_arguments.migration_arguments(), "directory": dict(type="path")},
        ),
        supports_check_mode=True,
    )
    options = module.params
    directory = options["directory"]
    state, server_version, ready = State((), ()), None, True
    try:
        files = read_directory(Path(directory)) if directory else None
        state, server_version = read(module)
    except (DriverMissing, EnvironmentFileError) as error:
        missing = isinstance(error, DriverMissing) or isinstance(error.__cause__, FileNotFoundError)
        if not (options["optional"] and missing):
            module.fail_json(msg=str(error))
        ready = False
    except OperationError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, ready=ready, server_version=server_version, **migration_report.info(files, state))


if __name__ == "__main__":
    main()
