#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: health_gate
short_description: Wait until an application is healthy, in the right version, so many times in a row
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description:
  - Asks a health path until it was healthy O(healthy_threshold) times in a row, each answer within two seconds.
  - Healthy means HTTP 200, and where the answer is JSON with a C(status), one of C(healthy), C(degraded), C(ok), C(up),
    C(pass), C(warn), C(success), C(200) and C(true), in whatever capitals.
  - It changes nothing.
options:
  url:
    description: Where to ask, for instance C(http://127.0.0.1:5000/health), by HTTP or HTTPS.
    type: str
    required: true
  host_header:
    description: Value of the Host header, where it differs from the address.
    type: str
  version:
    description: Version that must answer; any does if it is left out.
    type: str
  healthy_threshold:
    description: Healthy answers in a row that open the gate.
    type: int
    default: 3
  interval:
    description: Seconds between two health requests.
    type: float
    default: 0.1
  patience:
    description: Seconds until the gate gives up.
    type: float
    default: 60.0
  uptime:
    description: Seconds for which it has to stay healthy after the gate opened; one bad answer shuts it again.
    type: float
    default: 0.0
attributes:
  diff_mode:
    support: none
    description: Nothing is changed.
extends_documentation_fragment:
  - roastify.ops.attributes
"""

EXAMPLES = r"""
- name: Wait until version 1.4.0 serves
  roastify.ops.health_gate:
    url: http://127.0.0.1:5000/health
    version: 1.4.0
"""

RETURN = r"""
answers:
  description: The newest answers, one line for each run of equal ones.
  returned: always
  type: list
  elements: str
asked:
  description: How many requests were sent.
  returned: always
  type: int
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.roastify.ops.plugins.module_utils import health
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError

ARGUMENTS: dict[str, Any] = {
    "argument_spec": {
        "url": {"type": "str", "required": True},
        "host_header": {"type": "str"},
        "version": {"type": "str"},
        "healthy_threshold": {"type": "int", "default": 3},
        "interval": {"type": "float", "default": 0.1},
        "patience": {"type": "float", "default": 60.0},
        "uptime": {"type": "float", "default": 0.0},
    },
}


def wait(options: dict[str, Any]) -> dict[str, Any]:
    """Wait at the gate; the result of the module."""
    try:
        place = health.place(options["url"])
    except OperationError as error:
        return {"failed": True, "msg": str(error)}
    gate = health.Gate(options["healthy_threshold"], options["interval"], options["patience"], options["version"])

    def ask() -> health.Answer:
        return health.probe(place.host, place.port, place.path, host_header=options["host_header"], tls=place.tls)

    reason = gate.wait(ask)
    if reason is None and options["uptime"]:
        reason = gate.stay_open(ask, options["uptime"], gone=lambda: None)
    result: dict[str, Any] = {"changed": False, "answers": gate.evidence(), "asked": gate.asked}
    if reason:
        remedy = (
            "read the application's log on that host (shared/logs); playbooks/doctor.yml sums up what is wrong there"
            if place.host in ("127.0.0.1", "::1", "localhost")
            else "if the hosts are well (playbooks/status.yml), look at what is before them: load balancer, TLS, DNS"
        )
        msg = f"Health gate at {options['url']} stays shut: {reason}\nWhat to do: {remedy}"
        result.update(failed=True, msg=msg)
    return result


def main() -> None:
    module = AnsibleModule(supports_check_mode=True, **ARGUMENTS)
    result = wait(module.params)
    (module.fail_json if result.get("failed") else module.exit_json)(**result)


if __name__ == "__main__":
    main()
