#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_finish
short_description: End a deployment on a host with a record of it
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description:
  - Writes how the deployment ended to the journal, removes releases that are not needed any more, and gives
    the lock back, in one step.
  - A deployment that had nothing to switch on this host leaves no record of success, unless it brought what a killed
    one of the same release had begun to its end.
options:
  root:
    description: Directory that holds C(releases/), the journal and the lock.
    type: path
    required: true
  deployment:
    description: Id of the deployment.
    type: str
    required: true
  action:
    description: What the journal calls it.
    type: str
    choices: [deploy, rollback]
    default: deploy
  status:
    description: How it ended.
    type: str
    choices: [succeeded, failed]
    required: true
  release:
    description: Release id that the deployment was about.
    type: str
    required: true
  version:
    description: Version of it, for a release that never came to be on this host.
    type: str
  reason:
    description: Why it failed.
    type: str
  deployed_by:
    description: Who ran it.
    type: str
  confirm:
    description:
      - Whether a release that is live stays so although the deployment failed elsewhere. Otherwise the timer that
        O(roastify.ops.release_activate#module:confirm_within) has set brings the host back.
    type: bool
    default: false
  tried:
    description:
      - Whether a release of a deployment that failed was tried on any host of the fleet. One that was not, but has
        served well before, may still be returned to.
    type: bool
    default: true
  keep:
    description: >-
      Complete releases to keep, the live one included. The release that a rollback returns to always stays.
    type: int
    default: 5
extends_documentation_fragment:
  - roastify.ops.attributes
  - roastify.ops.attributes.diff
"""

EXAMPLES = r"""
- name: End the deployment
  roastify.ops.release_finish:
    root: /srv/shop
    deployment: 20260102T030405Z-4711
    status: succeeded
    release: 20260102T030405Z-1.4.0-abc1234
"""

RETURN = r"""
record:
  description: What was written to the journal; null if nothing was.
  returned: success
  type: dict
live:
  description: Id and version of the release that is live in the end; null if there is none.
  returned: success
  type: dict
pruned:
  description: Ids of the releases that were removed.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.roastify.ops.plugins.module_utils import (
    deadman,
    deploy_locks,
    deployments,
    release_states,
    releases,
    reserve,
)
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.files import exclusively


def ending(host, options):
    """The record that ends this deployment, or None if there is none to write."""
    records = host.records()
    mine = [
        record
        for record in records
        if record.deploymentId == options["deployment"] and record.release == options["release"]
    ]
    ends = {record.status for record in mine} & {deployments.SUCCEEDED, deployments.FAILED}
    # Another host may fail after this one has recorded the success: the fleet goes back then, and the failure counts.
    if deployments.FAILED in ends or options["status"] in ends:
        return None
    started = mine[-1] if mine else None
    was_live = started is None or started.previousRelease == options["release"]
    if was_live and options["status"] == deployments.SUCCEEDED:
        # What a killed run began, and this one found done, or done but for clearing up, ends here.
        started = begun(records, options) or started
        if started is None:
            return None
    live = host.live()
    staged = host.release(options["release"])
    return deployments.Record(
        deploymentId=options["deployment"],
        action=options["action"],
        status=options["status"],
        release=options["release"],
        version=staged.version if staged else options["version"] or "",
        commit=staged.commit if staged else None,
        deployedAt=deployments.now(),
        deployedBy=options["deployed_by"],
        previousVersion=started.previousVersion if started else live.version if live else None,
        previousRelease=started.previousRelease if started else live.id if live else None,
        reason=options["reason"],
    )


def begun(records, options):
    """The start of what was killed behind its link, be it by several runs of the same release; None if nothing was."""
    earlier = [record for record in records if record.deploymentId != options["deployment"]]
    start = None
    while (run := deployments.cut_off(earlier)) is not None and run.release == options["release"]:
        start = run
        if run.previousRelease != run.release:
            break
        earlier = earlier[: len(earlier) - 1 - earlier[::-1].index(run)]
    return start


def left_behind(record):
    """The record that says of the release which was rolled back that it was."""
    return deployments.Record(
        deploymentId=record.deploymentId,
        action=deployments.ROLLBACK,
        status=deployments.ROLLED_BACK,
        release=record.previousRelease,
        version=record.previousVersion or "",
        deployedAt=record.deployedAt,
        deployedBy=record.deployedBy,
        reason=f"rolled back to {record.release}",
    )


def went_back(host, record):
    """Whether a rollback went to what served before the release that it left; forth again is no judgement of that."""
    return record.previousRelease is not None and host.states.leads_back(record.previousRelease, record.release)


def judge(host, record, tried):
    """Note that the release of a failed deployment is not to be returned to.

    A rollback that failed says nothing of its target: the reason may have been the database. Nor does a deployment of
    what has served before, if it failed before that was tried anywhere.
    """
    live = host.live()
    is_live = live is not None and live.id == record.release
    if not tried and host.states.of(record.release).served:
        return
    if record.action == deployments.DEPLOY and not is_live and host.release(record.release) is not None:
        host.states.record(record.release, release_states.FAILED, record.deploymentId, record.reason)


def confirm(host, options):
    """Stop the timer that would bring this host back, if this deployment may."""
    order = deadman.read_order(host)
    if order is None:
        return
    live = host.live()
    still_live = live is not None and live.id == order.release
    if options["status"] == deployments.SUCCEEDED or options["confirm"]:
        deadman.disarm(host)
    elif not still_live:
        deadman.give_up(host)


def see_that_it_is_live(host, options):
    """A host that was not confirmed in time has returned by itself: that is no success.

    Raises:
        OperationError: another release is live than the one that the deployment was about.
    """
    live = host.live()
    if options["status"] == deployments.SUCCEEDED and (live is None or live.id != options["release"]):
        why = next((record.reason for record in reversed(host.records()) if record.status == "failed"), None)
        raise OperationError(
            f"{live.id if live else 'nothing'} is live here, not {options['release']}: {why or 'nobody knows why'}",
            "run playbooks/status.yml, then deploy again; app_release_confirm_within says how long that may take",
        )


def finish(host, options, dry_run):
    """Write the ending down, prune after a success, give the lock back.

    Returns:
        What was written, what was pruned, and what could not be removed.
    """
    record = ending(host, options)
    holder = (deploy_locks.read_lock(host) or {}).get("deploymentId")
    if holder not in (None, options["deployment"]):
        # Another deployment is at work by now: its reserve, its environment and its states are not ours to touch.
        if record is not None and not dry_run:
            deployments.append_record(host.journal, record)
        return record, [], []
    if not dry_run:
        if options["status"] == deployments.FAILED:
            reserve.give(host.root)
        confirm(host, options)
    if record is not None and not dry_run:
        told = [record]
        # The journal comes last: what it has the end of, nobody brings to its end any more.
        if record.status == deployments.FAILED:
            judge(host, record, options["tried"])
        elif record.action == deployments.ROLLBACK and went_back(host, record):
            host.states.record(record.previousRelease, release_states.FAILED, record.deploymentId, "rolled back from")
            told.append(left_behind(record))
        deployments.append_record(host.journal, *told)
    doomed = releases.prunable(host, options["keep"]) if options["status"] == deployments.SUCCEEDED else []
    stays = []
    if not dry_run:
        stays = releases.prune(host, doomed)
        doomed = [release for release in doomed if host.release(release.id) is None]
        deploy_locks.release(host, options["deployment"])
    return record, doomed, stays


def main():
    module = AnsibleModule(
        argument_spec=dict(
            root=dict(type="path", required=True),
            deployment=dict(type="str", required=True),
            action=dict(type="str", choices=["deploy", "rollback"], default="deploy"),
            status=dict(type="str", choices=["succeeded", "failed"], required=True),
            release=dict(type="str", required=True),
            version=dict(type="str"),
            reason=dict(type="str"),
            deployed_by=dict(type="str"),
            confirm=dict(type="bool", default=False),
            tried=dict(type="bool", default=True),
            keep=dict(type="int", default=5),
        ),
        supports_check_mode=True,
    )
    options = module.params
    host = releases.Host(options["root"])
    try:
        host.require()
        # A module whose controller was killed works on: whoever took over its lock waits here until it is done.
        with exclusively(host.releases):
            if not module.check_mode:
                see_that_it_is_live(host, options)
                host.settle()
            record, doomed, stays = finish(host, options, module.check_mode)
            live = host.live()
    except (OperationError, OSError) as error:
        module.fail_json(msg=f"Ending deployment {options['deployment']} failed: {error}")
    if stays:
        module.warn(f"Not removed, until the next deployment tries again: {'; '.join(stays)}")
    removed = "".join(f"release {release.id}\n" for release in doomed)
    module.exit_json(
        changed=record is not None or bool(doomed),
        record=record.as_dict() if record else None,
        live=dict(id=live.id, version=live.version) if live else None,
        pruned=[release.id for release in doomed],
        diff=dict(before=removed, after="", before_header=str(host.releases), after_header=str(host.releases)),
    )


if __name__ == "__main__":
    main()
