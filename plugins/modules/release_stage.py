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
  - A release that is complete already is compared, file by file, with what was built, and left alone if it is that;
    if not, it is made anew, unless it is live. Nothing live is touched.
  - Where the host has a release of the same artifact, its files are hashed and shared by hard links, so that the
    artifact need not be there.
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
    description:
      - The transferred artifact on the host. It is removed once the release is complete, and so are those that killed
        and failed deployments have left in the same directory, named C(<sha256>.tar.gz).
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
  assets:
    description:
      - Directories in the release whose files have names that bear a hash of their content. They are served from
        C(shared/assets/), where those of all kept releases are, so that open pages and hosts that serve another
        release find them, too. A release that lacks one of them is staged all the same.
    type: list
    elements: str
    default: []
  artifact_follows:
    description:
      - If O(artifact) is needed and is not there, say so by RV(artifact_needed) instead of failing, because it can be
        transferred then, and this module be called again.
    type: bool
    default: false
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
  description: Manifest of the release; in check mode null if it would be made, and null if the artifact is needed.
  returned: success
  type: dict
artifact_needed:
  description: >-
    Why nothing was staged: the artifact is not on the host, and no undamaged release has its content. Empty if the
    release is complete.
  returned: success
  type: str
"""

import re
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.roastify.ops.plugins.module_utils import deploy_locks, releases
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.files import exclusively


def remove_artifacts(artifact):
    """Take the artifact away, and those that killed and failed deployments have left beside it.

    Nobody else is at them: the lock of the deployment is ours.
    """
    artifact.unlink(missing_ok=True)
    for path in artifact.parent.glob("*.tar.gz"):
        if re.fullmatch(r"[0-9a-f]{64}\.tar\.gz", path.name):
            path.unlink(missing_ok=True)


def main():
    module = AnsibleModule(
        argument_spec=dict(
            root=dict(type="path", required=True),
            release=dict(type="str", required=True),
            artifact=dict(type="path", required=True),
            sha256=dict(type="str", required=True),
            links=dict(type="dict", default={".env": ".env"}),
            assets=dict(type="list", elements="str", default=[]),
            artifact_follows=dict(type="bool", default=False),
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
                assets=options["assets"],
            )
    except releases.ArtifactNeeded as needed:
        if not options["artifact_follows"]:
            module.fail_json(msg=f"Staging release {options['release']} failed: {needed}")
        module.exit_json(changed=False, release=None, artifact_needed=str(needed))
    except (OperationError, OSError) as error:
        module.fail_json(msg=f"Staging release {options['release']} failed: {error}")
    if not module.check_mode:
        remove_artifacts(Path(options["artifact"]))
    added = f"release {options['release']}\n" if changed else ""
    module.exit_json(
        changed=changed,
        release=dict(release.manifest) if release else None,
        artifact_needed="",
        diff=dict(before="", after=added, before_header=str(host.releases), after_header=str(host.releases)),
    )


if __name__ == "__main__":
    main()
