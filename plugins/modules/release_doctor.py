#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_doctor
short_description: Say what is not as it should be on a host, and mend what a program may mend
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description:
  - Looks for what killed or failed deployments, people and full disks leave behind, explains each finding and says
    what to do about it.
  - With O(repair) it removes what no deployment needs, writes down what a killed one could not, and starts a PM2 that
    does not run. It never changes what is served, and never removes a release.
  - A deployment clears up by itself; nothing here has to be run before one.
options:
  port:
    description: TCP port on which the application serves.
    type: int
    required: true
  health_path:
    description: Path of the health check.
    type: str
    default: /health
  sums:
    description:
      - SHA-256 of the files that describe the application to PM2, by path, as the setup of hosts would write them now.
        A host on which they differ was set up by another version of this collection, or for another inventory.
    type: dict
    default: {}
  repair:
    description: Whether to mend what can be mended. While a deployment is at work it is refused, in check mode
      too.
    type: bool
    default: false
extends_documentation_fragment:
  - roastify.ops.attributes
  - roastify.ops.attributes.diff
  - roastify.ops.application
"""

EXAMPLES = r"""
- name: See what is wrong
  roastify.ops.release_doctor:
    name: shop
    root: /srv/shop
    user: shop
    configuration: /etc/shop
    port: 5000
  register: shop

- name: Mend what can be mended
  roastify.ops.release_doctor:
    name: shop
    root: /srv/shop
    user: shop
    configuration: /etc/shop
    port: 5000
    repair: true
"""

RETURN = r"""
live:
  description: Whether a release is live.
  returned: success
  type: bool
release:
  description: Id of the live release; null if none is live, or no complete one.
  returned: success
  type: str
healthy:
  description: Whether it answers well, after the repair if there was one.
  returned: success
  type: bool
findings:
  description: What is not as it should be, the most urgent first.
  returned: success
  type: list
  elements: dict
  contains:
    what:
      description: One sentence.
      type: str
    remedy:
      description: What to do about it.
      type: str
    repairable:
      description: Whether O(repair) mends it.
      type: bool
    evidence:
      description: Lines that show it, without secrets.
      type: list
      elements: str
lines:
  description: The findings for people.
  returned: success
  type: list
  elements: str
repaired:
  description: What was mended; in check mode what would be.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.roastify.ops.plugins.module_utils import doctor
from ansible_collections.roastify.ops.plugins.module_utils.application_arguments import (
    application_arguments,
    host_of,
    pm2_of,
)
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.files import exclusively


def main():
    module = AnsibleModule(
        argument_spec=dict(
            application_arguments(),
            port=dict(type="int", required=True),
            health_path=dict(type="str", default="/health"),
            sums=dict(type="dict", default={}),
            repair=dict(type="bool", default=False),
        ),
        supports_check_mode=True,
    )
    options = module.params
    host = host_of(options)
    repaired = []
    try:
        host.require()
        with exclusively(host.releases):
            pm2 = pm2_of(options)
            findings = doctor.examine(host, pm2, options["port"], options["health_path"], options["sums"])
            if options["repair"]:
                # Should one fail, what was mended before it is told.
                repaired.extend(doctor.mend(host, findings, module.check_mode))
            live, healthy, release = doctor.serves(host, options["port"], options["health_path"])
    except (OperationError, OSError) as error:
        module.fail_json(msg=f"Examining {options['root']} failed: {error}", repaired=repaired)
    module.exit_json(
        changed=bool(repaired),
        live=live,
        release=release,
        healthy=healthy,
        findings=[finding.as_dict() for finding in findings],
        repaired=repaired,
        lines=doctor.lines(findings, repaired, module.check_mode),
        diff=dict(before="".join(f"{what}\n" for what in repaired), after=""),
    )


if __name__ == "__main__":
    main()
