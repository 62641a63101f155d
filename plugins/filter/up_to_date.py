# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: up_to_date
short_description: Whether a deployment of a release would find nothing to do on any host
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description:
  - Whether every host serves the release, healthy and in the right version, nobody deploys, and no host holds anything
    that a deployment would clear up. The database is another question.
positional: release, version, keep
options:
  _input:
    description: Hosts, each as M(roastify.ops.release_info) gives it when it verifies and examines.
    type: list
    elements: dict
    required: true
  release:
    description: Id of the release, as P(roastify.ops.reusable_release#filter) gives it.
    type: str
    required: true
  version:
    description: Version that has to answer; none where any may.
    type: str
    required: true
  keep:
    description: Complete releases that a deployment would keep.
    type: int
    required: true
"""

EXAMPLES = r"""
- name: See whether there is anything to do
  ansible.builtin.debug:
    msg: "{{ groups.app | map('extract', hostvars, 'app_release_info') | roastify.ops.up_to_date('r1', '1.0.0', 5) }}"
"""

RETURN = r"""
_value:
  description: Whether there is nothing to do.
  type: bool
"""

from ansible_collections.roastify.ops.plugins.module_utils.release_reuse import is_up_to_date


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"up_to_date": is_up_to_date}
