#!/usr/bin/python

# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: env_validate
short_description: Validate an application's environment against a schema
version_added: 0.1.0
author:
  - The roastify.ops maintainers (@roastify)
description:
  - Checks the variables of a C(.env) file, of a text or of a mapping against a schema and reports all
    problems at once, each with its line, the variable, the rule, what was found and how to put it right.
  - A file is read with the grammar of the npm package dotenv 16, which is the application's own.
  - No value of a secret is ever shown, only its length and the kinds of characters it has. Other values are
    shown only if they cannot be a secret that got into the wrong line.
  - Changes nothing.
options:
  path:
    description:
      - The C(.env) file, on the host that the task runs on.
      - Exactly one of O(path), O(content) and O(variables) is needed.
    type: path
  content:
    description:
      - The text of a C(.env) file.
    type: str
  variables:
    description:
      - Names and values as an inventory holds them. Booleans become V(true) and V(false), lists and mappings
        JSON, and a null stands for a variable that is not set.
      - A mapping or its JSON text. Ansible hides every single value of a mapping wherever it appears in the
        output, even V(true) or V(1); of a JSON text (C(| to_json)) it hides the whole only, which reads better
        and is just as safe, since this module never returns a value.
    type: jsonarg
  schema:
    description:
      - The schema. See the notes for its format.
      - Exactly one of O(schema) and O(schema_file) is needed.
    type: dict
  schema_file:
    description:
      - The schema as a file on the host that the task runs on, in JSON, or in YAML where PyYAML is installed.
      - For a file on the controller use O(schema) with the lookup P(ansible.builtin.file#lookup).
    type: path
  environment:
    description:
      - Name of the environment whose stricter rules hold. Without it only the rules of every environment do.
    type: str
  unknown:
    description:
      - What variables count as that the schema does not know. Taken from the schema by default.
    type: str
    choices: [ignore, warning, error]
  fail:
    description:
      - Whether the task fails if there are errors. With V(false) the result tells.
    type: bool
    default: true
notes:
  - The format of a schema is described in docs/environment.md of the collection, and for editors by
    docs/env.schema.json. It has the keys C(variables), C(environments), C(environment_variable), C(readers),
    C(groups), C(comparisons), C(unknown), C(ignore), C(templates), C(description) and C(version) (1).
  - C(variables) maps each name to its rules. C(type) is one of string, integer, number, port, boolean, url, host,
    email, duration, enum, regex, aws_region, arn, s3_bucket, log_group, path, json and list.
  - Rules for every type are C(required), C(required_if) (another variable and the values, or C(*) for any, that
    make this one required), C(forbidden), C(secret), C(values), C(pattern) with C(pattern_hint), C(min_length),
    C(max_length), C(allow_empty), C(allow_placeholder), C(placeholders), C(min_entropy) (bits, for secrets),
    C(multiline), C(deprecated) (the name of the replacement), C(default), C(example), C(description), C(section) and
    C(remedy) (how to put it right, in place of the general advice).
  - Rules for some types are C(min) and C(max) (numbers, ports and durations), C(schemes) and C(credentials) (url),
    C(forbid_local) (url and host), C(separator), C(items), C(min_items) and C(max_items) (list).
  - C(environments) of a variable holds rules that replace its own in one environment. The C(environments) of the
    schema are names with C({}) or with C({like} of another one). C(environment_variable) names the variable that
    tells the application which of them it is in; a file for another environment is an error.
  - C(readers) says who reads the file (dotenv, node, systemd, docker). Lines that they would read differently are
    reported.
  - C(groups) are lists of variables with a C(rule) of all_or_none, exactly_one, at_least_one or at_most_one.
    C(comparisons) compare two variables (C(left), C(operator), C(right)).
  - An empty value counts as not set, unless C(allow_empty) is true.
  - A value that is a placeholder is an error, and so is a secret that is easily guessed, that another variable has
    too, or that the schema has as an example.
  - The same engine is a command line, C(python -m ansible_collections.roastify.ops.plugins.module_utils.env_check),
    and a hook for pre-commit.
attributes:
  check_mode:
    description: Runs the same in check mode, since it changes nothing.
    support: full
  diff_mode:
    description: Has nothing to show.
    support: none
seealso:
  - module: roastify.ops.env_file
"""

EXAMPLES = r"""
- name: Check the installed environment
  roastify.ops.env_validate:
    path: /srv/roastify/shared/.env
    schema: "{{ lookup('ansible.builtin.file', 'env.schema.yml') | from_yaml }}"
    environment: production

- name: Check what the inventory says, and go on
  roastify.ops.env_validate:
    variables: "{{ app_environment_variables | to_json }}"
    schema: "{{ lookup('ansible.builtin.file', 'env.schema.yml') | from_yaml }}"
    environment: staging
    fail: false
  register: checked

- name: Check a file on the controller
  roastify.ops.env_validate:
    path: backend/.env
    schema_file: env.schema.yml
  delegate_to: localhost
"""

RETURN = r"""
valid:
  description: Whether there are no errors.
  returned: always, unless the schema or the source cannot be read
  type: bool
  sample: false
problems:
  description: All errors and warnings in the order of the file.
  returned: always, unless the schema or the source cannot be read
  type: list
  elements: dict
  contains:
    severity:
      description: V(error) or V(warning).
      type: str
      sample: error
    code:
      description: The rule that is broken; these names are stable.
      type: str
      sample: too_short
    variable:
      description: Name of the variable, empty if it is about a line without one.
      type: str
      sample: JWT_SECRET
    line:
      description: Line of the file or text, null if there is none.
      type: int
      sample: 7
    found:
      description:
        - What was there instead, as far as it may be shown (a near miss of a known word, a short number, else length
          and kinds of characters). Empty where the message says it all.
      type: str
      sample: "14 characters: lower-case letters"
    message:
      description: What is wrong.
      type: str
      sample: "JWT_SECRET is shorter than 64 characters in production (found 14 characters: lower-case letters)."
    remedy:
      description: What to do about it.
      type: str
      sample: Use 64 characters or more.
variables:
  description: Names of the variables that are set, sorted.
  returned: always, unless the schema or the source cannot be read
  type: list
  elements: str
  sample: [APP_URL, NODE_ENV]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.roastify.ops.plugins.module_utils import dotenv, env_input
from ansible_collections.roastify.ops.plugins.module_utils.env_schema import Schema, SchemaError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path"},
            "content": {"type": "str", "no_log": True},
            "variables": {"type": "jsonarg", "no_log": True},
            "schema": {"type": "dict"},
            "schema_file": {"type": "path"},
            "environment": {"type": "str"},
            "unknown": {"type": "str", "choices": ["ignore", "warning", "error"]},
            "fail": {"type": "bool", "default": True},
        },
        mutually_exclusive=[("path", "content", "variables"), ("schema", "schema_file")],
        required_one_of=[("path", "content", "variables"), ("schema", "schema_file")],
        supports_check_mode=True,
    )
    options = module.params
    environment, unknown = options["environment"] or "", options["unknown"]
    try:
        data = options["schema"]
        if data is None:
            data = env_input.read_schema(Path(options["schema_file"]))
        schema = Schema.load(data)
        if options["variables"] is not None:
            source = "variables"
            variables = env_input.read_variables(options["variables"])
            report = schema.validate_variables(variables, environment, unknown)
        else:
            source = options["path"] or "content"
            text = options["content"]
            if text is None:
                text = dotenv.decode(env_input.read_file(Path(options["path"])))
            report = schema.validate_text(text, environment, unknown)
    except SchemaError as error:
        module.fail_json(msg=str(error), schema_problems=error.problems)
    except env_input.InputError as error:
        module.fail_json(msg=str(error))
    for warning in report.warning_texts(source):
        module.warn(warning)
    result = {
        "changed": False,
        "valid": not report.errors,
        "problems": [problem.as_dict() for problem in report.problems],
        "variables": report.variables,
    }
    if report.errors and options["fail"]:
        module.fail_json(msg=report.message(source), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
