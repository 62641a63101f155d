# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: history
short_description: The deployments of a fleet, out of the journals of its hosts
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description: Puts what the hosts recorded of the same deployment into one row.
positional: apart
options:
  _input:
    description: The journal of each host, as M(roastify.ops.release_info) gives it.
    type: dict
    required: true
  apart:
    description: >-
      For people, the id of a release in place of its version where another release has the same version, the
      beginning of a reason, and of many hosts some.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Show the last deployments
  ansible.builtin.debug:
    msg: "{{ {'app1': app_release_info.journal} | roastify.ops.history }}"
"""

RETURN = r"""
_value:
  description: One mapping a deployment, the newest last.
  type: list
  elements: dict
"""

from ansible_collections.roastify.ops.plugins.module_utils.history import history


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"history": history}
