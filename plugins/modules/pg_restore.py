#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_restore
short_description: Restore a PostgreSQL database from a backup
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description:
  - Restores a backup of M(roastify.ops.pg_backup), or any other archive of C(pg_dump) in the custom format, into a new
    database beside the live one, then swaps the two by name. A restore that fails leaves the live database as it was,
    and nothing else.
  - The live database is kept as C(<database>_before_restore_<time>), and the result says how to remove it. What was
    written to it since the backup is in it alone. The server needs room for both.
  - The new database gets the owner, encoding, locale, privileges, settings, connection limit and comment of the live
    one. If there is no live one, it gets those that the backup holds.
  - For the swap the server lets nobody into the database and ends the sessions in it, usually for less than a second.
    Applications that connect again find the restored one.
  - While it runs, migrations of M(roastify.ops.pg_migrate) have to wait; while they run, nothing is restored.
  - Every call restores.
notes:
  - The role has to own the database, or be a member of the role that does, and needs C(CREATEDB). To end the sessions
    of other roles it has to be a member of them or of C(pg_signal_backend). On Amazon RDS the master user usually
    is all that.
  - Roles belong to the server and are in no backup. Those that the backup names have to exist.
  - Connect to the server itself, not to PgBouncer.
  - Logical replication slots and subscriptions stay with the database that was replaced.
options:
  path:
    description: The backup, on the managed host.
    type: path
  directory:
    description: Directory of backups on the managed host; the newest one of the database is taken, by the time in its
      name.
    type: path
  confirm:
    description: Without this nothing is done, and the failure says what would be done.
    type: bool
    default: false
  maintenance_database:
    description: Another database of the server to connect to, since nobody may be in one that is renamed.
    type: str
    default: postgres
  table:
    description: The tracking table of the migrations, or C(schema.table), whose lock keeps them from running meanwhile.
    type: str
    default: migrations
  jobs:
    description: How many tables and indexes C(pg_restore) makes at once, each over a connection of its own.
    type: int
    default: 1
attributes:
  check_mode:
    description: Reads the backup, checks what the role may do, and reports what would be done.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
extends_documentation_fragment:
  - roastify.ops.attributes
  - roastify.ops.postgresql
requirements:
  - C(pg_restore) of the server's major version
seealso:
  - module: roastify.ops.pg_backup
"""

EXAMPLES = r"""
- name: See what restoring the newest backup would do
  roastify.ops.pg_restore:
    directory: /var/lib/shop/backups
    env_file: /srv/shop/shared/.env
  check_mode: true

- name: Restore a backup with the role that owns the server
  roastify.ops.pg_restore:
    path: /var/lib/shop/backups/shop-20260102T030405Z.dump
    env_file: /srv/shop/shared/.env
    user: postgres
    password: "{{ vault_postgres_password }}"
    confirm: true
"""

RETURN = r"""
path:
  description: The backup.
  returned: success
  type: str
  sample: /var/lib/shop/backups/shop-20260102T030405Z.dump
steps:
  description: What was done, or would be.
  returned: success, and when confirm is missing
  type: list
  elements: str
previous_database:
  description: What the database is called now that was live before; none if there was none.
  returned: success, not in check mode
  type: str
  sample: shop_before_restore_20260102040506
drop_command:
  description: SQL that removes it.
  returned: success, not in check mode
  type: str
  sample: DROP DATABASE "shop_before_restore_20260102040506"
seconds:
  description: How long it took.
  returned: success, not in check mode
  type: float
swap_seconds:
  description: How long nobody could connect.
  returned: success, not in check mode
  type: float
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.roastify.ops.plugins.module_utils import postgresql_arguments, postgresql_restore
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError


def main():
    module = AnsibleModule(
        argument_spec=dict(
            path=dict(type="path"),
            directory=dict(type="path"),
            confirm=dict(type="bool", default=False),
            maintenance_database=dict(type="str", default="postgres"),
            table=dict(type="str", default="migrations"),
            jobs=dict(type="int", default=1),
            **postgresql_arguments.postgresql_arguments(),
        ),
        mutually_exclusive=[("path", "directory")],
        required_one_of=[("path", "directory")],
        supports_check_mode=True,
    )
    options = module.params
    if options["jobs"] < 1:
        module.fail_json(msg="jobs must be 1 or more.")
    restored = None
    try:
        connection = postgresql_arguments.connection_options(options, "pg_restore", module.no_log_values.add)
        if options["path"]:
            path = Path(options["path"])
        else:
            path = postgresql_restore.newest(Path(options["directory"]), connection.database or "")
        archive = postgresql_restore.read_archive(connection, path)
        with postgresql_restore.Restoration(
            connection, archive, options["maintenance_database"], options["table"], options["jobs"]
        ) as restoration:
            plan = restoration.plan()
            if not module.check_mode:
                if not options["confirm"]:
                    steps = "\n".join(f"  {line}" for line in (*plan.lines, *plan.warnings))
                    module.fail_json(
                        msg=f"Nothing was restored, because confirm is not true. With it, this would:\n{steps}",
                        path=str(path),
                        steps=plan.lines,
                    )
                restored = restoration.run(plan)
    except OperationError as error:
        module.fail_json(msg=str(error))
    for warning in restored.warnings if restored else plan.warnings:
        module.warn(warning)
    result = {}
    if restored:
        result = dict(
            previous_database=plan.previous,
            drop_command=restored.drop_command,
            seconds=round(restored.seconds, 3),
            swap_seconds=round(restored.swap_seconds, 3),
        )
    module.exit_json(changed=True, path=str(path), steps=plan.lines, **result)


if __name__ == "__main__":
    main()
