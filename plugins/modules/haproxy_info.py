#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: haproxy_info
short_description: See how the servers of a backend of HAProxy stand
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description:
  - Asks HAProxy by the socket of its runtime API, and changes nothing.
options:
  socket:
    description: The socket.
    type: path
    default: /run/haproxy/admin.sock
  backend:
    description: Name of the backend.
    type: str
    required: true
attributes:
  diff_mode:
    support: none
    description: Nothing is changed.
extends_documentation_fragment:
  - roastify.ops.attributes
"""

EXAMPLES = r"""
- name: See who gets requests
  roastify.ops.haproxy_info:
    backend: shop
"""

RETURN = r"""
servers:
  description: The servers; none if there is no such backend.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the server.
      type: str
    address:
      description: Its address and port.
      type: str
    status:
      description: For instance V(UP), V(DOWN 1/2) (coming up) or V(MAINT) (taken out).
      type: str
    check:
      description: How the last health check ended, for instance V(L7OK).
      type: str
    answer:
      description: What it said.
      type: str
    rise:
      description: Good checks in a row that are wanted of a server that was down; null without checks.
      type: int
    fall:
      description: Bad checks in a row that take a server out; null without checks.
      type: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.roastify.ops.plugins.module_utils import haproxy
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError


def main():
    module = AnsibleModule(
        argument_spec=dict(
            socket=dict(type="path", default="/run/haproxy/admin.sock"),
            backend=dict(type="str", required=True),
        ),
        supports_check_mode=True,
    )
    try:
        servers = haproxy.servers(module.params["socket"], module.params["backend"])
    except OperationError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, servers=servers)


if __name__ == "__main__":
    main()
