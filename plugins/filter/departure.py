# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: departure
short_description: Whether somebody is left to serve while a batch is out of the load balancer
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description: Looks, in what the load balancer answered, for a target outside the batch that gets requests.
positional: place, batch, names
options:
  batch:
    description: Hosts that are to leave it.
    type: list
    elements: str
    required: true
  names:
    description: Of each host of the fleet the name that it has there, that of a server, or instance and port.
    type: dict
    required: true
extends_documentation_fragment:
  - roastify.ops.balancer_answer
"""

EXAMPLES = r"""
- name: See whether app1 may leave
  ansible.builtin.debug:
    msg: "{{ (answer | roastify.ops.departure(place, ['app1'], names)).verdict }}"
  vars:
    place: {provider: haproxy, name: shop, interval: 2}
    names: {app1: app1, app2: app2}
"""

RETURN = r"""
_value:
  description:
    - C(verdict) is V(leave) where somebody is left, V(stay) where nobody serves at all or a zone that is kept apart
      may have nobody else, and V(stop) where nobody would serve any more, the load balancer does not answer or the
      name of a host in the batch is not known.
    - C(told) says why not, for people; empty where they may leave.
  type: dict
"""

from ansible_collections.roastify.ops.plugins.module_utils import load_balancer


def departure(answer, place, batch, names):
    """The filter."""
    found = load_balancer.departure(answer, place, batch, names)
    return {"verdict": found.verdict, "told": found.told}


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"departure": departure}
