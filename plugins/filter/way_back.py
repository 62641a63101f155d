# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: way_back
short_description: In which order a fleet goes back that failed in the middle of a deployment
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description: The batches of the way forward, the last one first, without those in which nothing had begun.
positional: plan, begun
options:
  _input:
    description: Names of all hosts.
    type: list
    elements: str
    required: true
  plan:
    description: Lists of hosts that were to be switched together, in their order.
    type: list
    elements: list
    required: true
  begun:
    description: Names of the hosts whose switch has begun.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: See who goes back, and when
  ansible.builtin.debug:
    msg: "{{ ['app1', 'app2', 'app3'] | roastify.ops.way_back([['app1'], ['app2', 'app3']], ['app1']) }}"
"""

RETURN = r"""
_value:
  description: The batches. Hosts that the plan does not know are one of their own, and the first.
  type: list
  elements: list
"""

from ansible_collections.roastify.ops.plugins.module_utils.way_back import way_back


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"way_back": way_back}
