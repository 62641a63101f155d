# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: balancer_target
short_description: How a load balancer sees a host
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description: Finds the host in what the load balancer answered, and puts it into words.
positional: place, target, host
options:
  target:
    description: Name of the host there, that of a server, or instance and port.
    type: str
    required: true
  host:
    description: Name of the host for people.
    type: str
    required: true
extends_documentation_fragment:
  - roastify.ops.balancer_answer
"""

EXAMPLES = r"""
- name: See whether it gets requests
  ansible.builtin.debug:
    msg: "{{ (answer | roastify.ops.balancer_target(place, 'i-0123456789abcdef0:5000', 'app1')).state }}"
  vars:
    place: {provider: aws, name: shop, region: eu-west-1}
"""

RETURN = r"""
_value:
  description:
    - C(state) is V(in), V(joining), V(unhealthy), V(leaving), V(out), V(unused) or V(unknown).
    - C(reason) is why, in the load balancer's own words.
    - C(remarks) are sentences for people, none if all is well.
  type: dict
"""

from ansible_collections.roastify.ops.plugins.module_utils import load_balancer


def balancer_target(answer, place, target, host):
    """The filter."""
    found = load_balancer.target(answer, place, target)
    told = load_balancer.remark(host, found)
    return {"state": found.state, "reason": found.reason, "remarks": [told] if told else []}


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"balancer_target": balancer_target}
