# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: peers
short_description: Batches that would leave nobody to serve
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description: Looks whether healthy hosts are left in the load balancer while those of a batch are out of it.
positional: hosts
options:
  _input:
    description: Lists of hosts that are switched together.
    type: list
    elements: list
    required: true
  hosts:
    description: Hosts, each as M(roastify.ops.release_info) gives it.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: See that somebody serves all the time
  ansible.builtin.assert:
    that: "[['app1'], ['app2', 'app3']] | roastify.ops.peers(hosts) | length == 0"
"""

RETURN = r"""
_value:
  description: Sentences, each with what to do; none if somebody serves all the time.
  type: list
  elements: str
"""

from ansible_collections.roastify.ops.plugins.module_utils.preflight import peers


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"peers": peers}
