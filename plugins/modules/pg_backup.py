#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup
short_description: Back up a PostgreSQL database to a file
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description:
  - Writes one more backup in the custom format of C(pg_dump), reads it back with C(pg_restore --list),
    gives it its name only then, and removes the oldest ones beyond O(keep).
  - The file is called C(<database>-<UTC time>[-<label>].dump) and readable by its owner alone.
    M(roastify.ops.pg_restore) brings it back.
  - Every call makes a backup. Without room for one as large as the last and a fifth more, nothing is written.
  - A directory that belongs to another user or that everybody may write to is refused, since a backup in it
    could be exchanged for another one, whose SQL a restore would run.
options:
  directory:
    description: Directory on the managed host for the backups, made with mode 0700 if it is missing.
    type: path
    required: true
  keep:
    description: How many backups of this database stay there, the new one included.
    type: int
    default: 5
  label:
    description: A word for the file's name, such as the id of a deployment; its first 40 characters are used.
    type: str
  timeout:
    description: Seconds that C(pg_dump) may take before it is ended; V(0) for no limit.
    type: int
    default: 3600
attributes:
  check_mode:
    description: Reports a change and writes nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
extends_documentation_fragment:
  - roastify.ops.attributes
  - roastify.ops.postgresql
requirements:
  - C(pg_dump) and C(pg_restore) of the server's major version or newer
seealso:
  - module: roastify.ops.pg_restore
  - module: roastify.ops.pg_migrate
"""

EXAMPLES = r"""
- name: Back up the application's database
  roastify.ops.pg_backup:
    directory: /var/lib/shop/backups
    env_file: /srv/shop/shared/.env
"""

RETURN = r"""
path:
  description: The new backup.
  returned: success, not in check mode
  type: str
  sample: /var/lib/shop/backups/shop-20260102T030405Z.dump
size:
  description: Its size in bytes.
  returned: success, not in check mode
  type: int
entries:
  description: How many tables, indexes, functions and so on it holds.
  returned: success, not in check mode
  type: int
removed:
  description: Older backups that were removed.
  returned: success, not in check mode
  type: list
  elements: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.roastify.ops.plugins.module_utils import postgresql_arguments, postgresql_backup
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError


def main():
    module = AnsibleModule(
        argument_spec=dict(
            directory=dict(type="path", required=True),
            keep=dict(type="int", default=5),
            label=dict(type="str"),
            timeout=dict(type="int", default=3600),
            **postgresql_arguments.postgresql_arguments(),
        ),
        supports_check_mode=True,
    )
    options = module.params
    if options["keep"] < 1:
        module.fail_json(msg="keep must be 1 or more: the new backup is one of them.")
    if options["timeout"] < 0:
        module.fail_json(msg="timeout cannot be negative: give seconds, or 0 for no limit.")
    try:
        connection = postgresql_arguments.connection_options(options, "pg_backup", module.no_log_values.add)
        if module.check_mode:
            module.exit_json(changed=True)
        backup = postgresql_backup.back_up(
            connection, Path(options["directory"]), options["keep"], options["label"], options["timeout"] or None
        )
    except OperationError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=True,
        path=str(backup.path),
        size=backup.size,
        entries=backup.entries,
        removed=[str(path) for path in backup.removed],
    )


if __name__ == "__main__":
    main()
