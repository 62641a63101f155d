# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: lost_hosts
short_description: What to do about hosts that did not answer in this run
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description: >-
  Ansible goes on without a host that did not answer, in the next plays and playbooks of the run, too. Says which ones
  are missing, and how to go on without them on purpose.
positional: answering, limit
options:
  _input:
    description: Hosts that the run is for.
    type: list
    elements: str
    required: true
  answering:
    description: Of these, the hosts that answer still.
    type: list
    elements: str
    required: true
  limit:
    description: Option C(--limit) of the run, or what it is like without one.
    type: str
    default: localhost,app
"""

EXAMPLES = r"""
- name: See that all hosts answer
  ansible.builtin.assert:
    that: ansible_play_hosts_all | roastify.ops.lost_hosts(ansible_play_hosts) | length == 0
"""

RETURN = r"""
_value:
  description: One sentence with what to do; none if all of them answer.
  type: list
  elements: str
"""

from ansible_collections.roastify.ops.plugins.module_utils.preflight import lost_hosts


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"lost_hosts": lost_hosts}
