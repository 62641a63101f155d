# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: places
short_description: File and line of each key of a mapping
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description:
  - Tells where the keys of a mapping were written, so that a problem can be reported with its file and line.
  - Keys that come from no file (from a template, or from the command line) are left out, and so are all of them on a
    version of Ansible that does not tell.
options:
  _input:
    description: A mapping from the inventory.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: See where a variable is set
  ansible.builtin.debug:
    msg: "{{ (app_environment_variables | roastify.ops.places).PG_HOST }}"
"""

RETURN = r"""
_value:
  description: Path and line of each key, for instance C(group_vars/all/environment.yml:12).
  type: dict
"""

import os

try:
    # Not a public interface: without it messages name the source, but no line.
    from ansible._internal._datatag._tags import Origin
except ImportError:
    Origin = None


def places(mapping):
    """The filter."""
    if Origin is None:
        return {}
    origins = {str(key): Origin.get_tag(key) for key in mapping}
    return {
        key: f"{_short(origin.path)}:{origin.line_num}"
        for key, origin in origins.items()
        if origin is not None and origin.path and origin.line_num
    }


def _short(path):
    """As people type it, if it lies below the directory that they are in."""
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"places": places}
