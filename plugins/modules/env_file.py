#!/usr/bin/python

# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: env_file
short_description: Validate variables and install them as a .env file
version_added: 0.1.0
author:
  - The roastify.ops maintainers (@roastify)
description:
  - Validates variables against a schema, as M(roastify.ops.env_validate) does, and installs them as a C(.env) file
    only if there is no error.
  - Every value is quoted so that the npm package dotenv 16 reads back exactly what was given; a value for which
    there is no such form is an error.
  - The file is replaced in one step and is never readable by anybody but its owner, not even while it is written.
  - The diff shows which names are added, changed or removed, and no value.
options:
  path:
    description:
      - The file. A missing directory is made, owned like the file, with mode V(0750).
    type: path
    required: true
  previous:
    description:
      - The file that is in use now, for instance C(current/.env). While O(path) is missing, RV(added), RV(modified),
        RV(removed) and the diff tell what changes compared with it.
    type: path
  variables:
    description:
      - Names and values as an inventory holds them. Booleans become V(true) and V(false), lists and mappings
        JSON, and a null leaves the variable out.
      - A mapping or its JSON text. Ansible hides every single value of a mapping wherever it appears in the
        output, even V(true) or V(1); of a JSON text (C(| to_json)) it hides the whole only, which reads better
        and is just as safe, since this module never returns a value.
      - Exactly one of O(variables) and O(sources) is needed.
    type: jsonarg
  sources:
    description:
      - Several places that variables come from, a list of mappings or its JSON text, each with C(name) (what messages
        call it), C(variables) as in O(variables) and, where they are known, C(places) of single variables.
      - A variable that two of them set is an error. Neither could win in silence without being the wrong one some day.
    type: jsonarg
  schema:
    description:
      - The schema, in the format of M(roastify.ops.env_validate).
    type: dict
    required: true
  environment:
    description:
      - Name of the environment whose stricter rules hold.
    type: str
  unknown:
    description:
      - What variables count as that the schema does not know. Taken from the schema by default.
    type: str
    choices: [ignore, warning, error]
  source:
    description:
      - What messages call the place where the variables come from, so that a reader knows where to correct them.
    type: str
    default: variables
  port:
    description:
      - TCP port on which a deployment asks the application for its health. A variable C(PORT), or its default in the
        schema, that names another is an error, since the application would never be seen healthy. V(0) is for none.
    type: int
    default: 0
  header:
    description:
      - Comment at the top of the file.
    type: str
    default: Managed by Ansible. Changes made here are lost with the next deployment.
  owner:
    description:
      - User that owns the file, by name or number. Unchanged, or the user of the task, by default.
    type: str
  group:
    description:
      - Group that owns the file, by name or number. The primary group of O(owner) by default.
    type: str
  validate_only:
    description:
      - Validates, and says what would change in RV(added), RV(modified) and RV(removed), but changes nothing and
        reports no change.
    type: bool
    default: false
attributes:
  check_mode:
    description: Says what would change, after the same validation, and changes nothing.
    support: full
  diff_mode:
    description: Shows the names of the variables that change. Values are masked.
    support: full
seealso:
  - module: roastify.ops.env_validate
"""

EXAMPLES = r"""
- name: Install the environment of the application
  roastify.ops.env_file:
    path: /srv/roastify/shared/.env
    variables: "{{ app_environment_variables | to_json }}"
    schema: "{{ lookup('ansible.builtin.file', 'env.schema.yml') | from_yaml }}"
    environment: production
    owner: roastify

- name: Only check, before a deployment
  roastify.ops.env_file:
    path: /srv/roastify/shared/.env
    variables: "{{ app_environment_variables | to_json }}"
    schema: "{{ lookup('ansible.builtin.file', 'env.schema.yml') | from_yaml }}"
    environment: production
    source: inventories/production
    validate_only: true
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
  sample: /srv/roastify/shared/.env
added:
  description: Names of variables that the file did not have before.
  returned: success
  type: list
  elements: str
  sample: [SMTP_HOST]
modified:
  description: Names of variables whose value changed.
  returned: success
  type: list
  elements: str
  sample: [JWT_SECRET]
removed:
  description: Names of variables that the file no longer has.
  returned: success
  type: list
  elements: str
  sample: []
alike:
  description:
    - Names of the C(.env) files beside O(path) from which the application would read the same. Where each release has
      its environment there, these are the releases that need no new one.
  returned: success
  type: list
  elements: str
  sample: [20260102T030405Z-1.4.0-abc1234.env]
problems:
  description:
    - All errors and warnings, as M(roastify.ops.env_validate) returns them, each with the C(place) where its variable
      stands.
  returned: always, unless the schema cannot be read
  type: list
  elements: dict
  sample: []
"""

import grp
import pwd
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.roastify.ops.plugins.module_utils import dotenv, env_file, env_input
from ansible_collections.roastify.ops.plugins.module_utils.env_port import PORT, port_problems
from ansible_collections.roastify.ops.plugins.module_utils.env_schema import Schema, SchemaError
from ansible_collections.roastify.ops.plugins.module_utils.env_sources import Source, merge

MODE = 0o600


def owner_ids(owner: str | None, group: str | None) -> tuple[int | None, int | None]:
    """Numbers of the owner and the group; KeyError with the name that does not exist."""
    uid = gid = None
    if owner is not None:
        if owner.isdigit():
            uid = int(owner)
        else:
            try:
                entry = pwd.getpwnam(owner)
            except KeyError:
                raise KeyError(f"the user {owner}") from None
            uid, gid = entry.pw_uid, entry.pw_gid
    if group is not None:
        if group.isdigit():
            gid = int(group)
        else:
            try:
                gid = grp.getgrnam(group).gr_gid
            except KeyError:
                raise KeyError(f"the group {group}") from None
    return uid, gid


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "previous": {"type": "path"},
            "variables": {"type": "jsonarg", "no_log": True},
            "sources": {"type": "jsonarg", "no_log": True},
            "schema": {"type": "dict", "required": True},
            "environment": {"type": "str"},
            "unknown": {"type": "str", "choices": ["ignore", "warning", "error"]},
            "source": {"type": "str", "default": "variables"},
            "port": {"type": "int", "default": 0},
            "header": {
                "type": "str",
                "default": "Managed by Ansible. Changes made here are lost with the next deployment.",
            },
            "owner": {"type": "str"},
            "group": {"type": "str"},
            "validate_only": {"type": "bool", "default": False},
        },
        mutually_exclusive=[("variables", "sources")],
        required_one_of=[("variables", "sources")],
        supports_check_mode=True,
    )
    options = module.params
    path, validate_only = Path(options["path"]), options["validate_only"]
    try:
        schema = Schema.load(options["schema"])
        if options["sources"] is None:
            merged = merge([Source(options["source"], env_input.read_variables(options["variables"]), {})])
        else:
            merged = merge(env_input.read_sources(options["sources"]))
    except SchemaError as error:
        module.fail_json(msg=str(error), schema_problems=error.problems)
    except env_input.InputError as error:
        module.fail_json(msg=str(error))
    report = schema.validate_variables(merged.variables, options["environment"] or "", options["unknown"])
    report.problems += merged.problems
    # One problem of a variable is enough.
    if options["port"] and not any(problem.variable == PORT for problem in report.errors):
        rules = schema.variables.get(PORT, {})
        report.problems += port_problems(merged.variables, rules, options["environment"] or "", options["port"])
    # The heading of the message names the source: a place says more than that, or nothing.
    places = {name: place for name, place in merged.places.items() if place != options["source"]}
    problems = [dict(problem.as_dict(), place=merged.places.get(problem.variable)) for problem in report.problems]
    for warning in report.warning_texts(options["source"], places):
        module.warn(f"In {options['source']}: {warning}")
    if report.errors:
        module.fail_json(msg=report.message(options["source"], places), problems=problems)
    try:
        uid, gid = owner_ids(options["owner"], options["group"])
    except KeyError as error:
        if not module.check_mode and not validate_only:
            module.fail_json(msg=f"{error.args[0]} does not exist: set up the host first", problems=problems)
        uid = gid = None
    try:
        content = dotenv.render(merged.variables, options["header"])
        previous = Path(options["previous"]) if options["previous"] else None
        planned = env_file.plan(path, content, uid, gid, MODE, previous)
        alike = env_file.alike(path.parent, content)
        if planned.any or not planned.exists:
            changed = not validate_only
            if changed and not module.check_mode:
                env_file.install(path, content, uid, gid, MODE)
        else:
            changed = False
    except (dotenv.DotenvError, env_file.EnvFileError) as error:
        module.fail_json(msg=str(error), problems=problems)
    module.exit_json(
        changed=changed,
        path=str(path),
        added=planned.added,
        modified=planned.changed,
        removed=planned.removed,
        alike=alike,
        problems=problems,
        diff=env_file.masked_diff(path, planned, content),
    )


if __name__ == "__main__":
    main()
