# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: batches
short_description: Cut a fleet into the batches that are switched one after the other
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description: >-
  Takes a list of hosts and gives a list of lists, in the same order, unless nobody were left to serve while a batch is
  out of the load balancer, and would be if hosts on which nothing is live went first.
positional: sizes, infos
options:
  _input:
    description: Host names.
    type: list
    elements: str
    required: true
  sizes:
    description:
      - Size of each batch, as a number of hosts or as a percentage of the fleet, rounded up.
      - The last one repeats until no host is left. A single one needs no list.
    type: raw
    required: true
  infos:
    description: >-
      Hosts that leave a load balancer while they are switched, each as M(roastify.ops.release_info) gives it; none
      where they don't.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: One host first, then a quarter at a time
  ansible.builtin.debug:
    msg: "{{ groups.app | roastify.ops.batches([1, '25%']) }}"
"""

RETURN = r"""
_value:
  description: The batches.
  type: list
  elements: list
"""

from ansible.errors import AnsibleFilterError
from ansible_collections.roastify.ops.plugins.module_utils.preflight import batches_that_serve


def cut(hosts, sizes, infos=None):
    """The filter: errors of the caller's come back as such."""
    try:
        return batches_that_serve(list(hosts), sizes, infos or {})
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"batches": cut}
