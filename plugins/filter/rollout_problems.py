# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: rollout_problems
short_description: What makes no sense of the settings of a deployment or rollback
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description: >-
  Looks at batches, at the seconds for which they are watched, and at what is to be done where a host fails, before a
  playbook changes anything.
options:
  _input:
    description: >-
      Values by the names of the playbooks' variables: C(deploy_batches), C(rollback_batches), C(deploy_bake),
      C(rollback_bake), C(deploy_minimum_healthy), C(deploy_on_failure), C(db_migrate_on_failure).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: See that the settings make sense
  ansible.builtin.assert:
    that: settings | roastify.ops.rollout_problems | length == 0
  vars:
    settings: {deploy_batches: [1, "25%"], deploy_on_failure: stop}
"""

RETURN = r"""
_value:
  description: Sentences, each with what to do; none if all of it makes sense.
  type: list
  elements: str
"""

from ansible_collections.roastify.ops.plugins.module_utils.batches import rollout_problems


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"rollout_problems": rollout_problems}
