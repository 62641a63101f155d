# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: understood
short_description: The hosts of a play, unless a variable of the command line would not be heeded
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description: >-
  Gives back what it gets, unless C(-e) gives a variable whose name is not known but resembles a known one, or one that
  says nothing to the playbook. As C(hosts) of a play it is asked before any host is, whatever C(--limit) and C(--tags)
  leave of the run.
options:
  _terms:
    description: Hosts.
    type: list
    elements: str
    required: true
  refused:
    description: Names that say nothing to the playbook, each with what to do instead; an empty text for one that does.
    type: dict
    default: {}
notes:
  - >-
    Names that C(group_vars) or C(host_vars) set are known, and so are those in the extra variable C(own_variables), a
    list with commas.
"""

EXAMPLES = r"""
- name: Look at what was typed
  hosts: "{{ query('roastify.ops.understood', 'localhost', refused={'release': 'say -e release_kept=VERSION'}) }}"
"""

RETURN = r"""
_raw:
  description: The hosts.
  type: list
  elements: str
"""

import os

from ansible.errors import AnsibleLookupError
from ansible.inventory.group import Group
from ansible.inventory.host import Host
from ansible.plugins.lookup import LookupBase
from ansible.utils.vars import load_extra_vars
from ansible.vars.plugins import get_vars_from_inventory_sources, get_vars_from_path
from ansible_collections.roastify.ops.plugins.module_utils import given_variables

ROLES = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "roles")


def of_inventory(loader, variables):
    """Names that the files of the inventory set. Ansible keeps what it has read: the run has to read it anyway."""
    groups = variables.get("groups") or {}
    entities = [Group(name) for name in groups]
    entities += [Host(name) for name in sorted({host for hosts in groups.values() for host in hosts})]
    sources = variables.get("ansible_inventory_sources") or []
    found = set(get_vars_from_inventory_sources(loader, sources, entities, "task"))
    if "playbook_dir" in variables:
        found |= set(get_vars_from_path(loader, variables["playbook_dir"], entities, "task"))
    return found


class LookupModule(LookupBase):
    """The lookup."""

    def run(self, terms, variables=None, **kwargs):
        given = load_extra_vars(self._loader)
        if given:
            self.set_options(var_options=variables, direct=kwargs)
            found = given_variables.problems(
                given,
                self.get_option("refused"),
                lambda: given_variables.role_options(ROLES),
                lambda: of_inventory(self._loader, variables or {}),
            )
            if found:
                raise AnsibleLookupError(given_variables.message(found))
        return terms
