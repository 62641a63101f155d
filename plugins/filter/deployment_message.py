# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: deployment_message
short_description: What is told of a deployment that began or ended
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description: Puts an event into words, for Amazon SNS, for Slack and what is compatible with it, and for machines.
options:
  _input:
    description:
      - The event. C(event) is V(started), V(succeeded), V(failed) or V(rolled_back), C(name) that of the application.
      - >-
        All else may be left out: C(environment), C(action) (V(deploy) or V(rollback)), C(version), C(commit),
        C(previous_version), C(deployed_by), C(deployment), C(hosts), C(seconds), C(failures) (the message of each host
        that failed), C(lost), C(unreturned) and C(switched) (hosts that do not answer, that could not be returned, that
        serve the new release nevertheless), C(command) (what to type next).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Tell the team
  roastify.ops.webhook_send:
    urls: ["{{ vault_deploy_webhook }}"]
    payload: "{{ (about | roastify.ops.deployment_message).payload }}"
  delegate_to: localhost
  run_once: true
  vars:
    about: {event: succeeded, name: shop, version: 1.4.0}
"""

RETURN = r"""
_value:
  description:
    - C(subject) and C(text) for people, C(json) for programs that Amazon SNS tells.
    - >-
      C(payload) for webhooks: C(text), and beside it status, action, application, environment, version, commit,
      previousVersion, deployedAt, deployedBy, deploymentId, hosts, durationSeconds and reason, where they are known.
  type: dict
"""

from ansible_collections.roastify.ops.plugins.module_utils.notification import message


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"deployment_message": message}
