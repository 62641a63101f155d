# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the filters that read what a load balancer answered."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of what `load_balancer` is given."""

    DOCUMENTATION = r"""
options:
  _input:
    description: What M(community.aws.elb_target_group_info) or M(roastify.ops.haproxy_info) answered.
    type: dict
    required: true
  place:
    description: Which load balancer, C(provider), C(name), and C(region) or C(interval); of V(none) the provider alone.
    type: dict
    required: true
"""
