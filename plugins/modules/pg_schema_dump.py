#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_schema_dump
short_description: Write the schema of a PostgreSQL database to a file
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description:
  - Writes the schema as SQL, with the applied migrations as rows of the tracking table at its end, so that C(psql)
    makes a database of it in which M(roastify.ops.pg_migrate) finds nothing pending.
  - The text stays the same as long as the schema, the migrations and the major version of C(pg_dump) do. It says
    neither when it was made nor who applied what.
  - The file is replaced as a whole, and only if it differs.
options:
  path:
    description: The file, on the managed host. Its directory has to exist.
    type: path
    required: true
  mode:
    description: Permission bits of a file that is written, as an octal number in quotes.
    type: str
    default: "0644"
  owners:
    description: Whether the text says who owns what.
    type: bool
    default: false
  privileges:
    description: Whether the text says who may do what.
    type: bool
    default: false
  table:
    description: The tracking table of the migrations, or C(schema.table).
    type: str
    default: migrations
attributes:
  check_mode:
    description: Reads the schema, says whether the file would change, and writes nothing.
    support: full
  diff_mode:
    description: Shows what changes in the file.
    support: full
extends_documentation_fragment:
  - roastify.ops.attributes
  - roastify.ops.postgresql
requirements:
  - C(pg_dump) of the server's major version or newer
seealso:
  - module: roastify.ops.pg_migrate
"""

EXAMPLES = r"""
- name: Write the schema down
  roastify.ops.pg_schema_dump:
    path: /srv/shop/shared/schema.sql
    env_file: /srv/shop/shared/.env
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.roastify.ops.plugins.module_utils import files, postgresql_arguments, postgresql_schema
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError


def main():
    module = AnsibleModule(
        argument_spec=dict(
            path=dict(type="path", required=True),
            mode=dict(type="str", default="0644"),
            owners=dict(type="bool", default=False),
            privileges=dict(type="bool", default=False),
            table=dict(type="str", default="migrations"),
            **postgresql_arguments.postgresql_arguments(),
        ),
        supports_check_mode=True,
    )
    options = module.params
    try:
        mode = int(options["mode"], 8)
    except ValueError:
        module.fail_json(msg=f"mode is no octal number: {options['mode']}")
    try:
        connection = postgresql_arguments.connection_options(options, "pg_schema_dump", module.no_log_values.add)
        text = postgresql_schema.dump_schema(connection, options["table"], options["owners"], options["privileges"])
    except OperationError as error:
        module.fail_json(msg=str(error))

    path = Path(options["path"])
    try:
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        changed = not path.exists() or before != text
        if changed and not module.check_mode:
            files.write_atomically(path, text, mode)
    except (OSError, UnicodeDecodeError) as error:
        module.fail_json(msg=f"The schema cannot be written to {path}: {error}")
    module.exit_json(
        changed=changed,
        path=str(path),
        diff={"before": before, "after": text, "before_header": str(path), "after_header": str(path)},
    )


if __name__ == "__main__":
    main()
