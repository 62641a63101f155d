#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sql_lint
short_description: Find unsafe statements in SQL migrations before they run
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description:
  - Lints the migrations of a directory or of a release artifact with squawk, and tells which lock each of their
    statements takes in PostgreSQL and whom it blocks. It needs no database and changes nothing.
  - A migration whose first line is C(-- migrate:no-transaction) is linted as one that runs outside a transaction.
  - Comments in the files work as squawk documents them, for example C(-- squawk-ignore ban-drop-column) above a
    statement.
  - Squawk is looked for beside the Python that runs this module, then on E(PATH). No configuration file of squawk
    is read.
  - The locks follow from the text alone. What a function or a C(DO) block does is V(unknown).
requirements:
  - squawk-cli, of the version that C(requirements/controller.txt) pins
attributes:
  check_mode:
    description: Reads only.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
options:
  path:
    description: Directory of the migrations, or a release artifact (C(.tar.gz)) that holds one.
    type: path
    required: true
  directory_in_archive:
    description: Directory of the migrations within the artifact.
    type: str
    default: migrations
  applied:
    description:
      - What is applied already, as RV(roastify.ops.pg_migrate_info#module:applied) tells it. These files are not
        linted, but compared. Only C(version) is needed of each; V(7) and V(007) are the same.
    type: list
    elements: dict
    default: []
  allow_out_of_order:
    description: Whether a pending migration that is older than the newest applied one is no problem.
    type: bool
    default: false
  pg_version:
    description: Version of the server, for example V(15) or V(15.4). Default is what squawk assumes.
    type: str
    default: ""
  excluded_rules:
    description:
      - Rules that are not applied.
      - The default leaves out those about taste, and those that ask for timeouts, which M(roastify.ops.pg_migrate)
        sets by itself.
    type: list
    elements: str
    default:
      - ban-char-field
      - prefer-bigint-over-int
      - prefer-bigint-over-smallint
      - prefer-identity
      - prefer-robust-stmts
      - prefer-text-field
      - prefer-timestamp-tz
      - require-enum-value-ordering
      - require-lock-timeout
      - require-statement-timeout
  included_rules:
    description: Rules that squawk applies only if they are named, for example V(ban-add-column).
    type: list
    elements: str
    default: []
  waivers:
    description:
      - Findings that are accepted, as a mapping of a file's name to a list of rules; V(["*"]) for all.
      - They stay in RV(findings), marked as waived, and do not count as unsafe.
    type: dict
    default: {}
  include_down:
    description: Whether to lint the down scripts, too.
    type: bool
    default: false
  fail_on_findings:
    description: Whether to fail if there is a finding that is not waived.
    type: bool
    default: false
  timeout:
    description: Seconds that squawk may take.
    type: float
    default: 60
seealso:
  - module: roastify.ops.pg_migrate
  - name: Rules of squawk
    description: Every rule with its reason and the safe way.
    link: https://squawkhq.com/docs/rules
"""

EXAMPLES = r"""
- name: Look for unsafe statements in the pending migrations
  roastify.ops.sql_lint:
    path: /home/dev/shop/migrations
    applied: [{version: "001"}, {version: "002"}]
    pg_version: "15"
    waivers:
      004_drop_old_names.up.sql: [ban-drop-column]
  register: lint
  delegate_to: localhost

- name: Show them
  ansible.builtin.debug:
    msg: "{{ lint.lines }}"

- name: Refuse an artifact with unsafe migrations
  roastify.ops.sql_lint:
    path: /home/dev/artifacts/shop-1.4.0-0123456789ab.tar.gz
    fail_on_findings: true
  delegate_to: localhost
"""

RETURN = r"""
files:
  description: Names of the files that were linted, in the order in which they would run.
  returned: success
  type: list
  elements: str
findings:
  description: What squawk found, in the order of files and lines.
  returned: success
  type: list
  elements: dict
  contains:
    file:
      description: Name of the file.
      type: str
      returned: always
    line:
      description: Line, counted from 1.
      type: int
      returned: always
    column:
      description: Column, counted from 1.
      type: int
      returned: always
    rule:
      description: Name of the rule; V(syntax-error) if the file could not be read.
      type: str
      returned: always
    message:
      description: What is wrong.
      type: str
      returned: always
    help:
      description: What to do instead; may be empty.
      type: str
      returned: always
    waived:
      description: Whether O(waivers) accepts it.
      type: bool
      returned: always
locks:
  description:
    - For each file, its statements that lock a relation which the file did not create itself.
    - Changes of rows that follow each other and lock the same are given once, with their C(count).
  returned: success
  type: dict
  sample:
    004_totals.up.sql:
      - line: 2
        statement: ALTER TABLE orders ADD COLUMN total numeric
        mode: ACCESS EXCLUSIVE
        relations: [orders]
        blocks: reads and writes
        scans: ""
        count: 1
        text: "ACCESS EXCLUSIVE on orders: blocks reads and writes"
lines:
  description: Findings, and statements that may block somebody, as a table for people; empty if there are none.
  returned: success
  type: list
  elements: str
problems:
  description: Where files and what is applied contradict each other, which would stop a run.
  returned: success
  type: list
  elements: str
unsafe:
  description: How many findings are not waived.
  returned: success
  type: int
remarks:
  description: What was not linted.
  returned: success
  type: list
  elements: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.roastify.ops.plugins.module_utils import squawk
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.migration_plan import contradictions
from ansible_collections.roastify.ops.plugins.module_utils.migration_records import AppliedMigration


def main():
    module = AnsibleModule(
        argument_spec=dict(
            path=dict(type="path", required=True),
            directory_in_archive=dict(type="str", default="migrations"),
            applied=dict(type="list", elements="dict", default=[]),
            allow_out_of_order=dict(type="bool", default=False),
            pg_version=dict(type="str", default=""),
            excluded_rules=dict(type="list", elements="str", default=list(squawk.EXCLUDED_RULES)),
            included_rules=dict(type="list", elements="str", default=[]),
            waivers=dict(type="dict", default={}),
            include_down=dict(type="bool", default=False),
            fail_on_findings=dict(type="bool", default=False),
            timeout=dict(type="float", default=60),
        ),
        supports_check_mode=True,
    )
    names = ("excluded_rules", "included_rules", "pg_version", "include_down", "timeout")
    waivers = module.params["waivers"] or {}
    odd = [
        file
        for file, rules in waivers.items()
        if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules)
    ]
    if odd:
        module.fail_json(msg=f"waivers needs a list of rules, or ['*'], for each of: {', '.join(odd)}")
    options = squawk.LintOptions(waivers=waivers, **{name: module.params[name] for name in names})
    try:
        migrations = squawk.read_migrations(Path(module.params["path"]), module.params["directory_in_archive"])
        applied = module.params["applied"]
        report = squawk.lint(migrations, [str(row.get("version")) for row in applied], options)
        rows = [AppliedMigration.of(number, row) for number, row in enumerate(applied, 1)]
        problems, _remarks = contradictions(migrations, rows, module.params["allow_out_of_order"])
    except OperationError as error:
        module.fail_json(msg=str(error))
    result = {**report.as_dict(), "problems": problems}
    if report.unsafe and module.params["fail_on_findings"]:
        module.fail_json(
            msg="\n".join(
                [
                    f"The migrations hold {len(report.unsafe)} unsafe statements; nothing was run.",
                    "What to do: Correct them, or accept them with waivers.",
                    *report.lines(),
                ]
            ),
            **result,
        )
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
