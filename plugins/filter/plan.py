# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: plan
short_description: What a deployment is going to do on every host
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description: Gives one row for each host, for P(roastify.ops.table#filter).
positional: manifest, release, batches
options:
  _input:
    description: Hosts, each as M(roastify.ops.release_info) gives it.
    type: dict
    required: true
  manifest:
    description: Manifest of the artifact.
    type: dict
    required: true
  release:
    description: Id of the release.
    type: str
    required: true
  batches:
    description: Lists of hosts that are switched together.
    type: list
    elements: list
    required: true
"""

EXAMPLES = r"""
- name: Show the plan
  ansible.builtin.debug:
    msg: "{{ hosts | roastify.ops.plan(manifest, release, [['app1'], ['app2', 'app3']]) }}"
"""

RETURN = r"""
_value:
  description: The rows.
  type: list
  elements: dict
"""

from ansible_collections.roastify.ops.plugins.module_utils.preflight import plan


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"plan": plan}
