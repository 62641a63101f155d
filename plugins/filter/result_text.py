# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: result_text
short_description: What the result of a task says to people
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description:
  - Takes the message out of the result, in the words of the callback P(roastify.ops.progress#callback). Of a module
    that was killed, and so has none, it says that.
  - Of a result that C(no_log) hides, nothing is told.
options:
  _input:
    description: Result of a task, such as C(ansible_failed_result).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Keep why it failed
  ansible.builtin.set_fact:
    reason: "{{ ansible_failed_result | roastify.ops.result_text }}"
"""

RETURN = r"""
_value:
  description: The message; empty if there is none.
  type: str
"""

from ansible_collections.roastify.ops.plugins.module_utils.progress import text_of


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"result_text": text_of}
