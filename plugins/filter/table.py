# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: table
short_description: Rows as a table in plain text
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description: Takes a list of dictionaries and gives the lines of a table.
positional: keys
options:
  _input:
    description: The rows.
    type: list
    elements: dict
    required: true
  keys:
    description: Keys to show, in order; they are the headings, too.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show what is where
  ansible.builtin.debug:
    msg: "{{ [{'host': 'app1', 'version': '1.4.0'}] | roastify.ops.table(['host', 'version']) }}"
"""

RETURN = r"""
_value:
  description: The lines of the table.
  type: list
  elements: str
"""

from ansible_collections.roastify.ops.plugins.module_utils.tables import table


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"table": table}
