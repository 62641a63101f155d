#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_info
short_description: What is deployed on a host, and what stands in the way of a deployment
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description:
  - Reads which release is live, which ones are kept, what the journal says, how the application answers and
    how much room is left. It changes nothing.
  - What would make a deployment fail comes back in RV(problems), all of it at once, each with its remedy.
options:
  candidate_port:
    description: TCP port on which a new release would be tried out; that it is in use is a problem.
    type: int
  health_path:
    description: Path of the health check.
    type: str
    default: /health
  port:
    description: TCP port on which the application serves.
    type: int
    required: true
  release:
    description: A release that a rollback is to return to, by id or version; it is looked up and must be complete.
    type: str
  processes:
    description: Whether PM2 is asked for its processes.
    type: bool
    default: false
  examine:
    description: >-
      Whether the host is examined as M(roastify.ops.release_doctor) does it, but beside a deployment that may be at
      work.
    type: bool
    default: false
  verify:
    description:
      - Whether the live release, the one a rollback would return to and O(release) are compared, file by file, with
        what was built. This reads them whole, at about half a gigabyte a second.
    type: bool
    default: false
  journal_entries:
    description: How many of the newest journal records come back.
    type: int
    default: 10
attributes:
  diff_mode:
    support: none
    description: Nothing is changed.
extends_documentation_fragment:
  - roastify.ops.attributes
  - roastify.ops.application
"""

EXAMPLES = r"""
- name: See what is live
  roastify.ops.release_info:
    name: shop
    root: /srv/shop
    user: shop
    configuration: /etc/shop
    port: 5000
  register: shop
"""

RETURN = r"""
live:
  description: Manifest of the live release; null before the first deployment.
  returned: always
  type: dict
previous:
  description:
    - Manifest of the release that a rollback would return to; null if there is none. C(schemaObstacle) says why it does
      not work with the schema that the live release brought, or is null.
    - With O(verify), a damaged one is passed over.
  returned: always
  type: dict
target:
  description: Manifest of O(release), as RV(previous); null if it was not given or not found.
  returned: always
  type: dict
kept:
  description:
    - Complete releases, by id, each with its recorded C(state), which is V(verified), V(ready), V(live), V(previous)
      or V(failed).
    - With O(verify), C(intact) says of those that were compared whether they are what was built; it is null for others.
  returned: always
  type: list
  elements: dict
damage:
  description: With O(verify), by the id of each release that is not what was built, in what it differs.
  returned: always
  type: dict
findings:
  description: With O(examine), what is not as it should be, as M(roastify.ops.release_doctor) tells it; else null.
  returned: always
  type: list
  elements: dict
deployed:
  description: The record of the deployment or rollback that brought the live release; null if none says so.
  returned: always
  type: dict
unconfirmed:
  description: >-
    That the host returns to the release before by itself unless the deployment of the live one ends well, and when.
    Null if it is confirmed.
  returned: always
  type: str
journal:
  description: The newest records of the journal, oldest first.
  returned: always
  type: list
  elements: dict
lock:
  description: Who is deploying; null if nobody is.
  returned: always
  type: dict
lock_problem:
  description: >-
    Why a deployment would not get the lock, with its remedy; null if it would, be it from one that is known to be dead.
  returned: always
  type: str
health:
  description: Answer of the live port; null before the first deployment.
  returned: always
  type: dict
  contains:
    healthy:
      description: Whether it may have traffic.
      type: bool
    version:
      description: The version that answered.
      type: str
    answer:
      description: The answer in one line.
      type: str
processes:
  description: PM2's processes, with O(processes) or O(examine), or if the live release is not healthy.
  returned: always
  type: list
  elements: dict
restart_loop:
  description: >-
    Where the live release is not healthy because it ends as soon as PM2 starts it: how often that was, and the end of
    its log, without secrets.
  returned: always
  type: list
  elements: str
free_bytes:
  description: Free bytes of the file system that holds the releases.
  returned: always
  type: int
free_files:
  description: Free inodes of it; -1 where the file system does not count them.
  returned: always
  type: int
node_version:
  description: >-
    Version of the Node.js that runs the workers, which is the one that PM2's daemon was started with; where no daemon
    runs, of the one in C(PATH). Null if it is missing.
  returned: always
  type: str
clock:
  description: Seconds since 1970 by the host's clock.
  returned: always
  type: float
clock_skew:
  description: Seconds that it is away from the controller's clock, as far as the time for the answer leaves no doubt.
  returned: always
  type: float
problems:
  description: What stands in the way of a deployment, each as a sentence with its remedy.
  returned: always
  type: list
  elements: str
"""

import contextlib
import os
import subprocess
import time
from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.roastify.ops.plugins.module_utils import (
    deployments,
    doctor,
    releases,
    schema_compatibility,
    switching,
)
from ansible_collections.roastify.ops.plugins.module_utils.application_arguments import (
    application_arguments,
    host_of,
    pm2_of,
)
from ansible_collections.roastify.ops.plugins.module_utils.deploy_locks import read_lock
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError

LIVE_REMEDY = "deploy again: a release that is not what was built is not used again, a new one is made beside it"
OTHER_REMEDY = "nothing, unless you want to return to it: a rollback passes it over; deploy its version again then"
TARGET_REMEDY = "name another release, or deploy the version again: a new release is made beside the damaged one"


def node_version(pm2):
    """Version of the Node.js of this host, without its v; None if it is missing."""
    command = [pm2.node() if pm2 else "node", "--version"]
    try:
        # The user of the application says by pm2.pid which program that is: it is nothing for root to run.
        identity = pm2.identity() if pm2 else {}
        outcome = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True, timeout=10, **identity)
    except (KeyError, OSError, subprocess.SubprocessError):  # KeyError: there is no such user
        return None
    return outcome.stdout.strip().lstrip("v")


def is_about(record, live):
    """Whether a record says how the live release came to serve."""
    return record.release == live and record.status == deployments.SUCCEEDED


def main():
    module = AnsibleModule(
        argument_spec=dict(
            application_arguments(),
            port=dict(type="int", required=True),
            candidate_port=dict(type="int"),
            health_path=dict(type="str", default="/health"),
            release=dict(type="str"),
            processes=dict(type="bool", default=False),
            examine=dict(type="bool", default=False),
            verify=dict(type="bool", default=False),
            journal_entries=dict(type="int", default=10),
        ),
        supports_check_mode=True,
    )
    host = host_of(module.params)
    problems = []

    def attempt(action):
        """What an action gives, or None and a problem on the list."""
        try:
            return action()
        except OperationError as error:
            problems.append(str(error))
            return None

    attempt(host.require)
    if module.params["candidate_port"]:
        attempt(lambda: switching.require_free(module.params["candidate_port"], host.releases))
    pm2 = attempt(lambda: pm2_of(module.params))
    live = attempt(host.live)
    kept = host.kept()
    records = host.records()
    node = node_version(pm2)
    if node is None:
        problems.append("Node.js is not installed on this host\nWhat to do: run the setup playbook first")
    target = attempt(lambda: host.find(module.params["release"])) if module.params["release"] else None
    live_id = live.id if live else None
    examination = releases.Examination(host)
    previous = releases.previous(host, live, kept, examination if module.params["verify"] else None)
    if module.params["verify"]:
        for release in (live, target):
            if release is not None:
                examination.sound(release)
        for release in kept:
            lines = examination.damage.get(release.id)
            if lines and target and release.id == target.id:
                problems.append(releases.damaged(release, lines, TARGET_REMEDY))
            elif lines:
                is_live = live is not None and release.id == live.id
                module.warn(releases.damaged(release, lines, LIVE_REMEDY if is_live else OTHER_REMEDY))

    def described(release):
        """What a rollback has to know of its target."""
        if release is None:
            return None
        manifest = live.manifest if live else None
        return dict(release.manifest, schemaObstacle=schema_compatibility.obstacle(manifest, release.manifest))

    service = doctor.look(
        pm2,
        live,
        module.params["port"],
        module.params["health_path"],
        always=module.params["processes"] or module.params["examine"],
    )
    answer = service.answer
    if service.silence is not None:
        problems.append(str(service.silence))
    if service.is_ill:
        lines = [f"the live release {live.id} is not healthy: {answer.describe()}", *service.restart_loop]
        module.warn("\n".join(lines))
    for finding in doctor.unreadable(host):
        module.warn(f"{finding.what}\nWhat to do: {finding.remedy}")
    found = None
    if module.params["examine"] and pm2 is not None:
        # Another deployment may be at work and take away what is being looked at: then this host was not examined.
        with contextlib.suppress(OSError):
            found = attempt(lambda: doctor.findings(host, pm2, live, service))
    status = os.statvfs(host.releases if host.releases.is_dir() else "/")
    module.exit_json(
        changed=False,
        live=dict(live.manifest) if live else None,
        previous=described(previous),
        target=described(target),
        kept=[
            dict(
                release.manifest,
                state=host.states.of(release.id, live_id).state,
                intact=examination.of(release.id),
            )
            for release in kept
        ],
        damage={release: releases.shown(lines) for release, lines in examination.damage.items()},
        findings=None if found is None else [finding.as_dict() for finding in found],
        deployed=next((record.as_dict() for record in reversed(records) if is_about(record, live_id)), None),
        unconfirmed=doctor.unconfirmed(host, live),
        journal=[record.as_dict() for record in records[-module.params["journal_entries"] :]],
        lock=read_lock(host),
        health=dict(healthy=answer.problem() is None, version=answer.version, answer=answer.describe())
        if answer
        else None,
        processes=[asdict(worker) for worker in service.workers],
        restart_loop=list(service.restart_loop),
        free_bytes=status.f_bavail * status.f_frsize,
        free_files=status.f_favail if status.f_files else -1,
        node_version=node,
        clock=time.time(),
        problems=problems,
    )


if __name__ == "__main__":
    main()
