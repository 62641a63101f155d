# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: disagreement
short_description: Whether the hosts of a fleet would return to the same release
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description: Says which host would return to which release, if that is not the same for all, and which ones all keep.
positional: hosts
options:
  _input:
    description: Of each host the manifest of the release that it would return to, or null.
    type: dict
    required: true
  hosts:
    description: Of each host what M(roastify.ops.release_info) says of it.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: See that all hosts return to the same release
  ansible.builtin.assert:
    that: choices | roastify.ops.disagreement(hosts) | length == 0
"""

RETURN = r"""
_value:
  description: One sentence with what to do; none if they agree.
  type: list
  elements: str
"""

from ansible_collections.roastify.ops.plugins.module_utils.return_choice import disagreement


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"disagreement": disagreement}
