#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_candidate
short_description: Try a staged release out before it may have traffic
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description:
  - Starts the release beside everything that serves, on a port of its own and with its real environment, and
    asks its health path until it was healthy so many times in a row, with the right version, each answer
    within two seconds, and then stays healthy for O(candidate_uptime) seconds more.
  - A release that fails is told with its reason (the end of its process, nothing on the port, the wrong answer, a late
    one, the wrong version), with its last answers and with the end of its log, secrets masked.
  - The candidate is ended again in any case. Nothing that serves is touched.
  - A release that is live already is not tried out again.
options:
  root:
    description: Directory that holds C(releases/), C(shared/) and the link C(current).
    type: path
    required: true
  release:
    description: Release id.
    type: str
    required: true
  deployment:
    description: Id of the deployment that holds the lock; the lock is checked and renewed.
    type: str
attributes:
  diff_mode:
    support: none
    description: Nothing is changed.
extends_documentation_fragment:
  - roastify.ops.attributes
  - roastify.ops.application
  - roastify.ops.service
"""

EXAMPLES = r"""
- name: Try the release out
  roastify.ops.release_candidate:
    name: shop
    root: /srv/shop
    user: shop
    configuration: /etc/shop
    release: 20260102T030405Z-1.4.0-abc1234
    port: 5000
    candidate_port: 5001
"""

RETURN = r"""
answers:
  description: The newest health answers; empty if the release is live already.
  returned: success
  type: list
  elements: str
"""

import functools

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.roastify.ops.plugins.module_utils import deploy_locks, switching
from ansible_collections.roastify.ops.plugins.module_utils.application_arguments import (
    application_arguments,
    host_of,
    pm2_of,
    service_arguments,
    service_of,
)
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError


def main():
    module = AnsibleModule(
        argument_spec=dict(
            application_arguments(),
            **service_arguments(),
            release=dict(type="str", required=True),
            deployment=dict(type="str"),
        ),
        supports_check_mode=True,
    )
    options = module.params
    host = host_of(options)
    try:
        live = host.live()
        if module.check_mode or (live is not None and live.id == options["release"]):
            module.exit_json(changed=False, answers=[])
        confirm = functools.partial(deploy_locks.hold, host, options["deployment"])
        # First: whoever has the lock now may have removed the release.
        confirm()
        release = host.find(options["release"])
        gate = switching.try_out(host, pm2_of(options), release, service_of(options), confirm)
        host.states.tried_out(release.id, options["deployment"])
    except (OperationError, OSError) as error:
        module.fail_json(msg=f"Candidate gate: {error}")
    module.exit_json(changed=False, answers=gate.evidence())


if __name__ == "__main__":
    main()
