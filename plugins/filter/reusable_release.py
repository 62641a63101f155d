# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: reusable_release
short_description: The release that a fleet has already of an artifact and an environment
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description:
  - A release is an artifact and an environment. Where hosts have one of both, deploying them again changes nothing;
    where the environment differs, or its links to what is shared do, they make a new release.
positional: sha256, links, assets
options:
  _input:
    description:
      - Variables of each host, with C(app_release_info) as M(roastify.ops.release_info) gives it and
        C(app_env_validation) as M(roastify.ops.env_file) does.
    type: list
    elements: dict
    required: true
  sha256:
    description: SHA-256 of the artifact.
    type: str
    required: true
  links:
    description: >-
      Links that it is to have, as M(roastify.ops.release_stage) takes them; the one to the environment may differ. By
      default any.
    type: dict
  assets:
    description: Directories of assets that it is to have, as M(roastify.ops.release_stage) takes them. By default any.
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: See whether the fleet has this release
  ansible.builtin.debug:
    msg: "{{ groups.app | map('extract', hostvars) | roastify.ops.reusable_release(manifest.sha256) or 'a new one' }}"
"""

RETURN = r"""
_value:
  description: Its id; null if a new release has to be made.
  type: str
"""

from ansible_collections.roastify.ops.plugins.module_utils.release_reuse import reusable_release


def reuse(hosts, sha256, links=None, assets=None):
    """The filter: picks what the decision needs out of the hosts' variables."""
    return reusable_release(
        [
            {
                "kept": host["app_release_info"]["kept"],
                "live": (host["app_release_info"]["live"] or {}).get("id"),
                "alike": host["app_env_validation"]["alike"],
            }
            for host in hosts
        ],
        sha256,
        links,
        assets,
    )


class FilterModule:
    """Filters of this file."""

    def filters(self):
        return {"reusable_release": reuse}
