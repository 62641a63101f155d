# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: preflight
short_description: What stands in the way of a release on a host
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description: Looks at space, inodes and the version of Node.js.
positional: manifest
options:
  _input:
    description: The host, as M(roastify.ops.release_info) gives it.
    type: dict
    required: true
  manifest:
    description: Manifest of the artifact.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: See that the release fits
  ansible.builtin.assert:
    that: app_release_info | roastify.ops.preflight(manifest) | length == 0
"""

RETURN = r"""
_value:
  description: Sentences, each with what to do; none if the release fits.
  type: list
  elements: str
"""

from ansible_collections.roastify.ops.plugins.module_utils.preflight import problems


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"preflight": problems}
