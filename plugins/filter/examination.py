# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: examination
short_description: What was found on a host, together with what its load balancer says of it
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description: Adds to the findings on a host what only its load balancer knows.
positional: target, mended, check
options:
  _input:
    description: What M(roastify.ops.release_doctor) found.
    type: dict
    required: true
  target:
    description: How its load balancer sees it, as P(roastify.ops.balancer_target#filter) says; empty without one.
    type: dict
    required: true
  mended:
    description: Whether the host was put back into the load balancer; in check mode whether it would be.
    type: bool
    default: false
  check:
    description: Whether nothing was mended, but only looked what would be.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Show what was found
  ansible.builtin.debug:
    msg: "{{ (app_release_examination | roastify.ops.examination(alb_target_seen)).lines | join('\n') }}"
"""

RETURN = r"""
_value:
  description: >-
    C(findings), C(lines) for people, C(absent), whether the repair has to put the host back, and C(left), how many
    findings are not mended.
  type: dict
"""

from ansible_collections.roastify.ops.plugins.module_utils import doctor, load_balancer


def examination(examined, target, mended=False, check=False):
    """The filter."""
    repaired = [] if check else examined.get("repaired", [])
    left = [finding for finding in examined["findings"] if finding["what"] not in repaired]
    found = None
    # Where nothing is live there is nothing to put back.
    if target and examined["live"]:
        seen = load_balancer.Target(target["state"], target["reason"])
        found = load_balancer.finding(seen, examined["healthy"])
    if found is None:
        return {"findings": examined["findings"], "lines": examined["lines"], "absent": False, "left": len(left)}
    told = doctor.Finding(
        found["what"], found["remedy"], (lambda: None) if found["repairable"] else None, tuple(found["evidence"])
    )
    is_mended = mended and found["repairable"]
    lines = doctor.lines([told], [told.what] if is_mended else [], check)
    return {
        "findings": [*examined["findings"], told.as_dict()],
        "lines": [*(examined["lines"] if examined["findings"] else []), *lines],
        "absent": found["repairable"] and not mended,
        "left": len(left) + (check or not is_mended),
    }


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"examination": examination}
