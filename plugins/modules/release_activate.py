#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_activate
short_description: Switch a host to a staged release without losing a request
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description:
  - Starts the workers of the release on the live port beside those that serve, sees every one of them answer
    well, renames the link C(current) and only then drains the old workers.
  - Up to the renaming of the link every failure leaves the host as it was, the old release serving.
  - A release that is live and healthy is left alone. What a killed run left over is cleared away.
  - The same call rolls back; name an older release.
options:
  root:
    description: Directory that holds C(releases/), C(shared/) and the link C(current).
    type: path
    required: true
  release:
    description: Release id.
    type: str
    required: true
  heal:
    description:
      - Start new workers if the release is live but does not answer well.
      - Otherwise a release that is live and has workers is left to itself; only what a killed run left over goes.
    type: bool
    default: true
  action:
    description: What the journal calls this.
    type: str
    choices: [deploy, rollback]
    default: deploy
  deployment:
    description: Id of the deployment that holds the lock; the lock is checked and renewed, and the journal names it.
    type: str
  deployed_by:
    description: Who runs the deployment, for the journal.
    type: str
  record:
    description: >-
      Whether the journal gets a record that this was started; the end is recorded by
      M(roastify.ops.release_finish).
    type: bool
    default: true
  confirm_within:
    description:
      - Seconds within which M(roastify.ops.release_finish) has to confirm the switch of a deployment. Otherwise the
        host returns to the release before by itself, also after a reboot, so that neither a dead controller nor a
        lost connection leaves it on an unconfirmed release.
      - V(0) sets no timer. There is none for a rollback and on the first deployment.
    type: int
    default: 0
extends_documentation_fragment:
  - roastify.ops.attributes
  - roastify.ops.attributes.diff
  - roastify.ops.application
  - roastify.ops.service
"""

EXAMPLES = r"""
- name: Switch to the release
  roastify.ops.release_activate:
    name: shop
    root: /srv/shop
    user: shop
    configuration: /etc/shop
    release: 20260102T030405Z-1.4.0-abc1234
    port: 5000
    candidate_port: 5001
    deployed_by: "{{ lookup('ansible.builtin.env', 'USER') }}"
"""

RETURN = r"""
release:
  description: Manifest of the release that is live now.
  returned: success
  type: dict
previous:
  description: Manifest of the release that was live before; null on the first deployment.
  returned: success
  type: dict
answers:
  description: The health answers on the live port that opened the gate.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.roastify.ops.plugins.module_utils import deadman, deploy_locks, deployments, switching
from ansible_collections.roastify.ops.plugins.module_utils.application_arguments import (
    application_arguments,
    host_of,
    pm2_of,
    service_arguments,
    service_of,
)
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.files import exclusively


def main():
    module = AnsibleModule(
        argument_spec=dict(
            application_arguments(),
            **service_arguments(),
            release=dict(type="str", required=True),
            heal=dict(type="bool", default=True),
            action=dict(type="str", choices=["deploy", "rollback"], default="deploy"),
            deployment=dict(type="str"),
            deployed_by=dict(type="str"),
            record=dict(type="bool", default=True),
            confirm_within=dict(type="int", default=0),
        ),
        supports_check_mode=True,
    )
    options = module.params
    host = host_of(options)

    def announce(previous):
        if not options["record"]:
            return
        deployments.append_record(
            host.journal,
            deployments.Record(
                deploymentId=options["deployment"] or "",
                action=options["action"],
                status=deployments.STARTED,
                release=release.id,
                version=release.version,
                commit=release.commit,
                deployedAt=deployments.now(),
                deployedBy=options["deployed_by"],
                previousVersion=previous.version if previous else None,
                previousRelease=previous.id if previous else None,
            ),
        )

    def hold_lock():
        if not module.check_mode:
            deploy_locks.hold(host, options["deployment"], None if options["record"] else options["release"])

    def set_timer(previous):
        unconfirmed = options["action"] == deployments.DEPLOY and options["record"] and options["deployment"]
        if unconfirmed and options["confirm_within"] and previous is not None and previous.id != release.id:
            seconds = options["confirm_within"]
            deadman.arm(host, pm2, service_of(options), release, previous, options["deployment"], seconds)

    def prepare(previous):
        # That of a killed deployment is not replaced before this one can do better: what is live is unconfirmed.
        if deadman.read_order(host) is None:
            set_timer(previous)

    def confirm(previous):
        hold_lock()
        order = deadman.read_order(host)
        if order is None or order.deployment != options["deployment"]:
            set_timer(previous)

    try:
        host.require()
        release = host.release(options["release"])
        if release is None and module.check_mode:
            # Staging was only pretended, too: the release would be there by now.
            live = host.live()
            module.exit_json(changed=True, release=None, previous=dict(live.manifest) if live else None, answers=[])
        if release is None:
            hold_lock()  # whoever has the lock now may have removed the release
            release = host.find(options["release"])
        pm2 = pm2_of(options)
        switch = switching.Switch(
            host,
            pm2,
            release,
            service_of(options),
            announce=announce,
            prepare=prepare,
            confirm=confirm,
            deployment=options["deployment"],
            # What is not recorded is the return of a fleet that failed.
            back=options["action"] == "rollback" or not options["record"],
        )
        # A module whose controller was killed works on: whoever took over its lock waits here until it is done.
        with exclusively(host.releases):
            hold_lock()
            outcome = switch.run(heal=options["heal"], dry_run=module.check_mode)
    except (OperationError, OSError) as error:
        module.fail_json(msg=f"Switching to {options['release']} failed: {error}")
    before = f"{outcome.previous.id}\n" if outcome.previous else ""
    module.exit_json(
        changed=outcome.changed,
        release=dict(release.manifest),
        previous=dict(outcome.previous.manifest) if outcome.previous else None,
        answers=outcome.evidence,
        diff=dict(before=before, after=f"{release.id}\n", before_header=str(host.link), after_header=str(host.link)),
    )


if __name__ == "__main__":
    main()
