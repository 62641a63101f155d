# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: time_budget
short_description: How long a switch of a fleet takes by the load balancer's own numbers, and what is too short for that
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description:
  - Adds up what every batch waits for, hosts that leave the load balancer and come back, and compares that with what is
    set.
options:
  plan:
    description: Batches of hosts that are switched one after the other.
    type: list
    elements: list
    required: true
  bake:
    description: Seconds that each batch is watched; the last number repeats.
    type: list
    elements: float
    required: true
  drain:
    description: Whether hosts leave the load balancer while they are switched.
    type: bool
    required: true
  limits:
    description: >-
      What is set, in seconds, C(timeout), C(confirm_within) and C(lease), where 0 means no limit for the latter two,
      and how many C(forks) Ansible has.
    type: dict
    required: true
extends_documentation_fragment:
  - roastify.ops.balancer_answer
"""

EXAMPLES = r"""
- name: See what a deployment may take
  ansible.builtin.debug:
    msg: "{{ (answer | roastify.ops.time_budget(place, [['app1'], ['app2']], [0], true, limits)).line }}"
  vars:
    place: {provider: aws, name: shop, region: eu-west-1}
    limits: {timeout: 180, confirm_within: 900, lease: 900, forks: 20}
"""

RETURN = r"""
_value:
  description: C(line) for people, and C(problems), sentences, each with what to do.
  type: dict
"""

from ansible_collections.roastify.ops.plugins.module_utils import load_balancer
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError


def time_budget(answer, place, plan, bake, drain, limits):
    """The filter: a load balancer that does not answer is a problem like others."""
    try:
        balancer = load_balancer.see(answer, place)
    except OperationError as error:
        return {"line": "", "problems": [f"{error.cause}. What to do: {error.remedy}"]}
    wanted = load_balancer.Limits(
        float(limits["timeout"]), float(limits["confirm_within"]), float(limits["lease"]), int(limits["forks"])
    )
    budget = load_balancer.budget(balancer, plan, [float(each) for each in bake], bool(drain), wanted)
    return {"line": budget.line, "problems": budget.problems}


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"time_budget": time_budget}
