#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: deploy_lock
short_description: Let one deployment at a time work on a host
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description:
  - Takes the lock of an application's directory for a deployment, as a lease that every later step renews, or
    gives it back.
  - A lease that ran out is taken over. So is that of a deployment which was started on the same controller
    and whose process there is dead. Either is said so in RV(taken_over).
  - The lock is given back by the end of the same run, so that taking it is not reported as a change.
options:
  root:
    description: Directory that holds the lock.
    type: path
    required: true
  deployment:
    description: Id of the deployment.
    type: str
    required: true
  state:
    description: Take it or give it back.
    type: str
    choices: [held, released]
    default: held
  holder:
    description: Who deploys, for those who find the lock held.
    type: str
  lease:
    description: Seconds until the lock may be taken over if it isn't renewed.
    type: int
    default: 900
  expected_live:
    description:
      - Id of the release that was live when the deployment looked, empty if nothing was. Where another one is by now,
        the lock is refused, since another deployment has come in between; not so where it is taken over.
    type: str
  back:
    description: Whether it is for a way back. On a full disk that is tried, where a deployment is refused.
    type: bool
    default: false
  controller:
    description: Where the deployment runs. The action plugin of the same name fills it in.
    type: dict
  take_over:
    description: Id of a deployment that is known to be dead. The action plugin of the same name fills it in.
    type: str
attributes:
  check_mode:
    support: full
    description: Says whether the lock could be taken.
  diff_mode:
    support: none
    description: The lock does not outlast the run.
  action:
    support: full
    description: The controller looks whether the holder's process is alive.
extends_documentation_fragment:
  - roastify.ops.attributes
"""

EXAMPLES = r"""
- name: Take the lock
  roastify.ops.deploy_lock:
    root: /srv/shop
    deployment: 20260102T030405Z-4711
    holder: "{{ lookup('ansible.builtin.env', 'USER') }}"
"""

RETURN = r"""
taken_over:
  description: The lock that was taken over; null if there was none.
  returned: success
  type: dict
lock:
  description: The lock of the deployment that is at work.
  returned: failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.roastify.ops.plugins.module_utils import deploy_locks, deployments, releases
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError


def main():
    module = AnsibleModule(
        argument_spec=dict(
            root=dict(type="path", required=True),
            deployment=dict(type="str", required=True),
            state=dict(type="str", choices=["held", "released"], default="held"),
            holder=dict(type="str"),
            lease=dict(type="int", default=deploy_locks.LEASE),
            expected_live=dict(type="str"),
            back=dict(type="bool", default=False),
            controller=dict(type="dict"),
            take_over=dict(type="str"),
        ),
        supports_check_mode=True,
    )
    options = module.params
    host = releases.Host(options["root"])
    controller = options["controller"] or {}
    facts = {
        "holder": options["holder"] or "somebody",
        "origin": controller.get("name", "an unknown controller"),
        "since": deployments.now(),
        "controller": controller,
    }
    lost = None
    try:
        host.require()
        if options["state"] == "released":
            if not module.check_mode:
                deploy_locks.release(host, options["deployment"])
        elif module.check_mode:
            if deploy_locks.require_free(host, options["deployment"], options["take_over"]) is None:
                deploy_locks.require_unchanged(host, options["expected_live"])
        else:
            lost = deploy_locks.acquire(
                host,
                options["deployment"],
                facts,
                options["take_over"],
                options["lease"],
                options["expected_live"],
                options["back"],
            )
    except deploy_locks.LockHeld as error:
        module.fail_json(msg=str(error), lock=error.lock)
    except (OperationError, OSError) as error:
        module.fail_json(msg=f"The lock of {host.root} cannot be taken: {error}")
    module.exit_json(changed=False, taken_over=lost)


if __name__ == "__main__":
    main()
