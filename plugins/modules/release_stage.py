#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_stage
short_description: Put a release on a host, beside the one that serves
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description:
  - Checks a transferred artifact against its SHA-256, looks at every member, unpacks it under a name that
    nothing follows, links the shared files and gives it its own name in one step.
  - A release that is complete already is left alone. Nothing live is touched.
options:
  root:
    description: Directory that holds C(releases/) and C(shared/).
    type: path
    required: true
  release:
    description: Release id, the name of its directory.
    type: str
    required: true
  artifact:
    description: The transferred artifact on the host; it is removed once the release is complete.
    type: path
    required: true
  sha256:
    description: SHA-256 of the artifact, as its manifest gives it.
    type: str
    required: true
  links:
    description: Links to make in the release, path in the release to path in C(shared/).
    type: dict
    default: {.env: .env}
  group:
    description: Group that may enter the release; everybody may if it is left out.
    type: str
  deployment:
    description: Id of the deployment that holds the lock; the lock is checked and renewed.
    type: str
extends_documentation_fragment:
  - roastify.ops.attributes
  - roastify.ops.attributes.diff
"""

EXAMPLES = r"""
- name: Stage the release
  roastify.ops.release_stage:
    root: /srv/shop
    release: 20260102T030405Z-1.4.0-abc1234
    artifact: /var/lib/shop/artifacts/shop.tar.gz
    sha256: "{{ manifest.sha256 }}"
    group: shop
"""

RETURN = r"""
release:
  description: Manifest of the release; in check mode null if it would be made.
  returned: success
  type: dict
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.roastify.ops.plugins.module_utils import deploy_locks, releases
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.files import exclusively


def main():
    module = AnsibleModule(
        argument_spec=dict(
            root=dict(type="path", required=True),
            release=dict(type="str", required=True),
            artifact=dict(type="path", required=True),
            sha256=dict(type="str", required=True),
            links=dict(type="dict", default={".env": ".env"}),
            group=dict(type="str"),
            deployment=dict(type="str"),
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
                deploy_locks.hold(host, options["deployment"])
            release, changed = releases.stage(
                host,
                options["release"],
                Path(options["artifact"]),
                options["sha256"],
                options["links"],
                options["group"],
                dry_run=module.check_mode,
            )
    except (OperationError, OSError) as error:
        module.fail_json(msg=f"Staging release {options['release']} failed: {error}")
    if not module.check_mode:
        Path(options["artifact"]).unlink(missing_ok=True)
    added = f"release {options['release']}\n" if changed else ""
    module.exit_json(
        changed=changed,
        release=dict(release.manifest) if release else None,
        diff=dict(before="", after=added, before_header=str(host.releases), after_header=str(host.releases)),
    )


if __name__ == "__main__":
    main()
