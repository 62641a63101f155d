#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_migrate
short_description: Apply, roll back and account for SQL migrations of a PostgreSQL database
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description:
  - Brings the schema of a database to the newest version of a directory of SQL files, or to a given one,
    and back.
  - Each migration runs in a transaction of its own, and the row that records it is part of that
    transaction. A migration that fails is rolled back, is not recorded, and ends the run; the ones before
    it stay.
  - Migrations that are to run are read to their end before the first one starts. C(BEGIN), C(COMMIT) and
    C(ROLLBACK), commands of psql, C(COPY FROM STDIN), unclosed quotes and statements that cannot run in a
    transaction are refused with file and line.
  - One run at a time writes to a database; others wait for O(lock_wait) seconds and then find nothing left
    to do.
  - An applied migration whose file was changed or is gone, and a pending one older than the newest applied
    one, stop the run; the statements that were changed are named. Applied versions newer than all files are
    left alone with a warning, because an older release may run on a newer schema.
  - The tracking table has the columns C(id), C(version), C(name) and C(applied_at) (UTC). A table that is
    there already is used as it is; the columns C(checksum), C(down_checksum), C(statement_checksums),
    C(duration_ms), C(applied_by), C(deployment_id) and C(tool_version) are added to it when the first
    migration is recorded.
notes:
  - A file whose head, above the first statement, holds the line C(-- migrate:no-transaction) runs statement
    by statement outside a transaction, for C(CREATE INDEX CONCURRENTLY), C(VACUUM) and the like. How far it
    has come is noted in the table C(<table>_unfinished); after an interruption the next run goes on there,
    and an index that an interrupted build left INVALID is dropped and built again.
  - A pooler between (PgBouncer) has to pool sessions. One that pools transactions is refused, because locks
    and settings would end up in sessions of others.
  - Role, C(search_path), settings and temporary tables that a migration leaves in the session are reset
    before the next one.
  - A migration may change the timeouts for itself with C(SET LOCAL).
options:
  state:
    description:
      - V(applied) applies what is pending, up to O(target).
      - V(rolled_back) runs the way back of the migrations applied last, either O(steps) of them or all that
        are newer than O(target).
      - V(redone) rolls them back and applies the same ones again, as their files are now. It does so at
        every call.
      - V(baselined) records the migrations up to O(target) as applied without running them, for a database
        that holds what they make already. A database without any table is refused.
      - V(repaired) settles what contradicts the files, for each of O(versions). The checksums of a changed
        file are recorded anew, a row whose file is gone is deleted, and a migration that was interrupted
        outside a transaction starts from its first statement the next time. The schema is not touched.
    type: str
    choices: [applied, rolled_back, redone, baselined, repaired]
    default: applied
  target:
    description:
      - A version. With O(state=applied) the default is V(latest), which O(state=baselined) takes as well.
      - With O(state=rolled_back) and O(state=redone) this version stays applied and everything newer is
        rolled back; V(0) rolls back everything.
    type: str
  steps:
    description: With O(state=rolled_back) and O(state=redone), how many migrations to roll back, in the
      reverse order of their application.
    type: int
  versions:
    description: With O(state=repaired), the versions to repair. There is no word for all of them.
    type: list
    elements: str
    default: []
  confirm_data_loss:
    description:
      - Rollbacks whose files drop a table, a column or a schema, or delete rows, are refused without this;
        C(DO) blocks are looked into, functions are not.
    type: bool
    default: false
  allow_out_of_order:
    description: Apply pending migrations that are older than the newest applied one, instead of stopping.
    type: bool
    default: false
  unwrap:
    description:
      - Take off a C(BEGIN) that is the first statement of a file together with a C(COMMIT) that is the last,
        instead of refusing the file. Other commands that end a transaction are always refused.
    type: bool
    default: false
  lock_wait:
    description: Seconds to wait for another run to end. Its connection is named if it does not.
    type: float
    default: 60.0
  lock_timeout:
    description:
      - Seconds that a statement may wait for a lock on a table. A longer wait behind a long transaction
        would block everybody who comes behind it.
      - A file of nothing but C(CONCURRENTLY) and C(VACUUM) statements, which block nobody, waits up to
        O(statement_timeout).
    type: float
    default: 5.0
  lock_retries:
    description: How often a migration that did not get its locks is rolled back and tried again, with
      growing pauses.
    type: int
    default: 5
  statement_timeout:
    description: Seconds that one statement may take; V(0) for no limit.
    type: float
    default: 900.0
  applied_by:
    description: Who applies the migrations, for the tracking table.
    type: str
  deployment_id:
    description: Deployment that the migrations belong to, for the tracking table and C(pg_stat_activity).
    type: str
attributes:
  check_mode:
    description: Makes the whole plan, with all its refusals, and writes nothing, not even the tracking table.
    support: full
  diff_mode:
    description: Shows the SQL that is to run, passwords hidden.
    support: full
extends_documentation_fragment:
  - roastify.ops.attributes
  - roastify.ops.postgresql
  - roastify.ops.postgresql.migrations
seealso:
  - module: roastify.ops.pg_migrate_info
  - module: roastify.ops.pg_backup
"""

EXAMPLES = r"""
- name: Apply all pending migrations of a release, with the database that the application uses
  roastify.ops.pg_migrate:
    directory: /srv/shop/current/migrations
    env_file: /srv/shop/shared/.env

- name: Go back to version 041
  roastify.ops.pg_migrate:
    directory: /srv/shop/current/migrations
    env_file: /srv/shop/shared/.env
    state: rolled_back
    target: "041"
    confirm_data_loss: true

- name: Start with a database that was made by hand up to version 012
  roastify.ops.pg_migrate:
    directory: /srv/shop/current/migrations
    env_file: /srv/shop/shared/.env
    state: baselined
    target: "012"

- name: Accept that a linter has added comments to two applied migrations
  roastify.ops.pg_migrate:
    directory: /srv/shop/current/migrations
    env_file: /srv/shop/shared/.env
    state: repaired
    versions: ["003", "007"]

- name: Migrate a database on Amazon RDS, with the server's name and certificate verified
  roastify.ops.pg_migrate:
    directory: /srv/shop/current/migrations
    host: shop.abcdefghijkl.eu-central-1.rds.amazonaws.com
    database: shop
    user: shop_owner
    password: "{{ vault_shop_owner_password }}"
    ssl_mode: verify-full
    ssl_root_cert: /etc/ssl/certs/rds-global-bundle.pem
"""

RETURN = r"""
applied:
  description: Migrations that were applied, also when a later one failed.
  returned: always
  type: list
  elements: dict
  contains: &migration
    version:
      description: Version as the file's name writes it.
      type: str
      returned: always
    name:
      description: Name of the migration.
      type: str
      returned: always
    file:
      description: Name of the file that was run.
      type: str
      returned: always
    duration_ms:
      description: How long it took.
      type: int
      returned: always
    notices:
      description: What the server had to say, such as C(relation "x" already exists, skipping).
      type: list
      elements: str
      returned: always
  sample: [{"version": "001", "name": "orders", "file": "001_orders.up.sql", "duration_ms": 12, "notices": []}]
rolled_back:
  description: Migrations that were rolled back, also when a later one failed.
  returned: always
  type: list
  elements: dict
  contains: *migration
corrected:
  description: Changes of the tracking table that ran no script.
  returned: always
  type: list
  elements: dict
  contains:
    action:
      description: V(baseline), V(accept) (of a changed file), V(forget) (of a row without file) or V(restart).
      type: str
      returned: always
    version:
      description: Version as the tracking table writes it.
      type: str
      returned: always
    name:
      description: Name of the migration.
      type: str
      returned: always
plan:
  description:
    - What was to run, in this order. In check mode, C(locks) has the statements that lock a relation which the file
      does not make itself, as far as that can be told from their text.
  returned: always
  type: list
  elements: dict
  sample:
    - version: "001"
      name: orders
      file: 001_orders.up.sql
      direction: up
      transaction: true
      locks:
        - line: 3
          statement: ALTER TABLE orders ADD COLUMN total numeric
          mode: ACCESS EXCLUSIVE
          relations: [orders]
          blocks: reads and writes
          scans: ""
          count: 1
          text: "ACCESS EXCLUSIVE on orders: blocks reads and writes"
lines:
  description: What was to be done, and in check mode whom it may block, for people.
  returned: always
  type: list
  elements: str
pending:
  description: Files that are not applied after the run; in check mode, that would not be.
  returned: success
  type: list
  elements: str
  sample: ["042_orders.up.sql"]
schema_version:
  description: Newest applied version after the run, null if there is none; in check mode, what it would be.
  returned: success
  type: str
  sample: "041"
schema_version_before:
  description: Newest applied version before the run.
  returned: success
  type: str
  sample: "040"
failure:
  description:
    - The migration that failed, with C(version), C(file), C(path), C(line), C(statement), C(sqlstate),
      C(message), C(detail), C(hint) and C(context).
  returned: when a migration failed
  type: dict
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.roastify.ops.plugins.module_utils import (
    migration_plan,
    migration_report,
    postgresql_arguments,
)
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.migration_failures import MigrationError
from ansible_collections.roastify.ops.plugins.module_utils.migration_files import read_directory
from ansible_collections.roastify.ops.plugins.module_utils.migration_records import schema_version
from ansible_collections.roastify.ops.plugins.module_utils.migration_runner import Runner
from ansible_collections.roastify.ops.plugins.module_utils.migration_session import RunOptions

RUN_OPTIONS = (
    "table",
    "lock_wait",
    "lock_timeout",
    "lock_retries",
    "statement_timeout",
    "applied_by",
    "deployment_id",
)
CHANGES = ("applied", "rolled_back", "corrected")


def make_plan(options, files, state):
    """What has to be done in this state of the database."""
    applied, unfinished, target = state.applied, state.unfinished, options["target"]
    if options["state"] == "applied":
        return migration_plan.plan_up(
            files,
            applied,
            target or migration_plan.LATEST,
            options["allow_out_of_order"],
            unfinished,
            options["unwrap"],
        )
    if options["state"] == "baselined":
        return migration_plan.plan_baseline(files, applied, target, unfinished)
    if options["state"] == "repaired":
        return migration_plan.plan_repair(files, applied, options["versions"], unfinished)
    back = migration_plan.plan_down if options["state"] == "rolled_back" else migration_plan.plan_redo
    return back(files, applied, options["steps"], target, options["confirm_data_loss"], unfinished, options["unwrap"])


def option_problems(options):
    """What does not go together, and is not for Ansible to find."""
    problems = []
    goes_back = options["state"] in ("rolled_back", "redone")
    if options["steps"] is not None and not goes_back:
        problems.append("steps is for state=rolled_back and state=redone; the other states go to a target")
    if options["steps"] is not None and options["steps"] < 0:
        problems.append("steps cannot be negative: give the number of migrations to roll back")
    if options["versions"] and options["state"] != "repaired":
        problems.append("versions is for state=repaired")
    if options["target"] and options["state"] == "repaired":
        problems.append("state=repaired takes versions, one by one, and no target")
    return problems


def main():
    module = AnsibleModule(
        argument_spec=dict(
            state=dict(
                type="str", choices=["applied", "rolled_back", "redone", "baselined", "repaired"], default="applied"
            ),
            target=dict(type="str"),
            steps=dict(type="int"),
            versions=dict(type="list", elements="str", default=[]),
            confirm_data_loss=dict(type="bool", default=False),
            allow_out_of_order=dict(type="bool", default=False),
            unwrap=dict(type="bool", default=False),
            lock_wait=dict(type="float", default=60.0),
            lock_timeout=dict(type="float", default=5.0),
            lock_retries=dict(type="int", default=5),
            statement_timeout=dict(type="float", default=900.0),
            applied_by=dict(type="str"),
            deployment_id=dict(type="str"),
            **postgresql_arguments.postgresql_arguments(),
            **postgresql_arguments.migration_arguments(),
        ),
        mutually_exclusive=[("target", "steps")],
        required_if=[
            ("state", "rolled_back", ("target", "steps"), True),
            ("state", "redone", ("target", "steps"), True),
            ("state", "baselined", ("target",)),
            ("state", "repaired", ("versions",)),
        ],
        supports_check_mode=True,
    )
    options = module.params
    problems = option_problems(options)
    if problems:
        module.fail_json(msg="; ".join(problems) + ". Nothing was changed.")

    runner = None
    plan = migration_plan.Plan()
    try:
        files = read_directory(Path(options["directory"]))
        label = f" {options['deployment_id']}" if options["deployment_id"] else ""
        connection = postgresql_arguments.connection_options(options, f"pg_migrate{label}", module.no_log_values.add)
        runner = Runner(connection, RunOptions(**{name: options[name] for name in RUN_OPTIONS}))
        with runner:
            before = runner.state()
            plan = make_plan(options, files, before)
            if module.check_mode:
                runner.check(plan)
            else:
                plan = runner.run(lambda state: make_plan(options, files, state), before)
    except OperationError as error:
        result = results(runner)
        for warning in runner.warnings if runner else ():
            module.warn(warning)
        if isinstance(error, MigrationError):
            result["failure"] = error.details
        module.fail_json(
            msg=str(error),
            changed=any(result[name] for name in CHANGES),
            **migration_report.planned(plan, module.check_mode),
            **result,
        )

    for warning in (*plan.warnings, *runner.warnings):
        module.warn(warning)
    after = migration_plan.after(plan, before.applied) if module.check_mode else runner.state_after.applied
    result = results(runner)
    if module._diff and not plan.is_empty:
        result["diff"] = {"prepared": migration_report.diff_text(plan)}
    module.exit_json(
        changed=not plan.is_empty,
        pending=[migration.up.file for migration in migration_plan.pending(files, after)],
        schema_version=schema_version(after),
        schema_version_before=before.schema_version,
        **migration_report.planned(plan, module.check_mode),
        **result,
    )


def results(runner):
    """What was done so far."""
    done = runner.done if runner else []
    return {
        "applied": [it.as_result() for it in done if it.step.direction == "up"],
        "rolled_back": [it.as_result() for it in done if it.step.direction == "down"],
        "corrected": [migration_report.correction_result(it) for it in (runner.corrected if runner else [])],
    }


if __name__ == "__main__":
    main()
