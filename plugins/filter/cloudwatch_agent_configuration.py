# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: cloudwatch_agent_configuration
short_description: Build the configuration of the Amazon CloudWatch agent
version_added: 0.1.0
author:
  - The roastify.ops maintainers (!UNKNOWN)
description:
  - Makes the agent's configuration from the settings of the role P(roastify.ops.cloudwatch_agent#role).
  - Misspelt measurements, wrong retention times and bad names are errors, all of them in one message; the agent
    would accept some of them and send nothing.
options:
  _input:
    description:
      - The settings C(logs), C(measurements), C(disks), C(processes), C(namespace), C(dimensions), C(interval),
        C(user), C(region) and C(endpoint).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the configuration
  ansible.builtin.debug:
    msg: "{{ settings | roastify.ops.cloudwatch_agent_configuration | to_nice_json }}"
"""

RETURN = r"""
_value:
  description: The configuration, to be written as JSON.
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.roastify.ops.plugins.module_utils.cloudwatch_config import ConfigurationError, build


def cloudwatch_agent_configuration(settings: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return build(settings)
    except ConfigurationError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"cloudwatch_agent_configuration": cloudwatch_agent_configuration}
