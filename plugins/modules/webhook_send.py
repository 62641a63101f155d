#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: webhook_send
short_description: Send one message to several webhooks, in limited time
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description:
  - Posts a message as JSON to every webhook at the same time, several times if it is not taken.
  - An address is a credential and never shown; only its host is named.
  - A webhook that does not take the message is told in RV(undelivered) and is no failure.
options:
  urls:
    description: Addresses of the webhooks, by HTTP or HTTPS.
    type: list
    elements: str
    required: true
  payload:
    description: The message. Slack and what is compatible with it show its C(text).
    type: dict
    required: true
  tries:
    description: How often it is offered. After an answer like HTTP 404, which will not change, it is not tried again.
    type: int
    default: 3
  limit:
    description: Seconds for each answer.
    type: float
    default: 5.0
  pause:
    description: Seconds before the second try; twice as long before the third.
    type: float
    default: 1.0
attributes:
  platform:
    description: Operating systems of the host that sends.
    platforms: posix
    support: full
extends_documentation_fragment:
  - roastify.ops.attributes
  - roastify.ops.attributes.no_diff
"""

EXAMPLES = r"""
- name: Tell the team
  roastify.ops.webhook_send:
    urls: ["{{ vault_deploy_webhook }}"]
    payload:
      text: "*shop 1.4.0* serves in production"
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
delivered:
  description: Hosts that took the message; in check mode, those that would be offered it.
  returned: always
  type: list
  elements: str
undelivered:
  description: Of every other one its host and the reason.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.roastify.ops.plugins.module_utils import webhooks


def main():
    module = AnsibleModule(
        argument_spec=dict(
            urls=dict(type="list", elements="str", required=True, no_log=True),
            payload=dict(type="dict", required=True),
            tries=dict(type="int", default=webhooks.TRIES),
            limit=dict(type="float", default=webhooks.LIMIT),
            pause=dict(type="float", default=webhooks.PAUSE),
        ),
        supports_check_mode=True,
    )
    options = module.params
    if module.check_mode:
        delivered, undelivered = webhooks.examine(options["urls"])
    else:
        delivered, undelivered = webhooks.send(
            options["urls"], options["payload"], options["tries"], options["limit"], options["pause"]
        )
    module.exit_json(changed=bool(delivered), delivered=delivered, undelivered=undelivered)


if __name__ == "__main__":
    main()
