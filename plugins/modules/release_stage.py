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
  - Sends an artifact to the host, or has the host fetch it, checks it against its SHA-256, looks at every member,
    unpacks it under a name that nothing follows, links the shared files and gives it its own name in one step.
  - What the host holds already in other releases is not sent again, but copied from there and hashed. A transfer is
    tried three times, and goes on where an earlier one was cut off.
  - Sending needs a connection whose commands take input (pipelining); over others the file is copied as a whole.
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
      - Where the artifact lies on the host, or will lie. It is removed once the release is complete, and so are those
        that killed and failed deployments have left in the same directory, named C(<sha256>.tar.gz).
    type: path
    required: true
  source:
    description:
      - The artifact on the controller, to be sent if the host needs it. Without it and O(url), the artifact or its
        content has to be on the host.
    type: path
  url:
    description:
      - Address that the host fetches the artifact from if it needs it. Whoever has a signed address may read the
        artifact, so that it is told without its query.
    type: str
  transfer_delay:
    description: Seconds before the second try of a transfer; twice as many before the third.
    type: float
    default: 2
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
  files_sha256:
    description: SHA-256 of the artifact's list of files, as its manifest gives it (C(filesSha256)).
    type: str
  difference_sha256:
    description:
      - Set by the action plugin. O(artifact) is not the artifact but what the host lacks of it, with this SHA-256.
    type: str
  artifact_follows:
    description:
      - Set by the action plugin. If O(artifact) is needed and is not there, say so by RV(artifact_needed) instead of
        failing, because it can be sent then, and this module be called again.
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
    artifact: /var/lib/shop/artifacts/{{ manifest.sha256 }}.tar.gz
    source: dist/shop-1.4.0.tar.gz
    sha256: "{{ manifest.sha256 }}"
    files_sha256: "{{ manifest.filesSha256 }}"
    group: shop
"""

RETURN = r"""
release:
  description: Manifest of the release; in check mode null if it would be made, and null if the artifact is needed.
  returned: success
  type: dict
sent:
  description: Bytes that were sent from the controller; 0 if the host had everything or fetched it.
  returned: if O(source) is given
  type: int
"""

import os
import re
import shutil
import time
from http.client import HTTPException
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.roastify.ops.plugins.module_utils import deploy_locks, releases, transfers
from ansible_collections.roastify.ops.plugins.module_utils.artifact import ArtifactError, file_sha256
from ansible_collections.roastify.ops.plugins.module_utils.env_file import EnvFileError
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.files import exclusively, remove_temporary

_TRIES = 3


def artifacts_beside(artifact):
    """What deployments have sent to the directory of the artifact, whole or not."""
    return [path for path in artifact.parent.glob("*.tar.gz") if re.fullmatch(r"[0-9a-f]{64}\.tar\.gz", path.name)]


def remove_artifacts(artifact):
    """Take the artifact away, and those that killed and failed deployments have left beside it, whole or not.

    Nobody else needs them: the lock of the deployment is ours.
    """
    for path in [artifact, *artifacts_beside(artifact)]:
        path.unlink(missing_ok=True)
    for path in (artifact, artifact.with_name("*.tar.gz")):
        remove_temporary(path)


def stage(host, options, dry_run):
    """Stage the release, if the lock of the deployment is ours, and clear away after it; only one at a time does."""
    difference = None
    if options["difference_sha256"]:
        difference = releases.Difference(options["difference_sha256"], options["files_sha256"])
    artifact = Path(options["artifact"])
    # A module whose controller was killed works on: whoever took over its lock waits here until it is done.
    with exclusively(host.releases):
        if not dry_run:
            deploy_locks.hold(host, options["deployment"])
        outcome = releases.stage(
            host,
            options["release"],
            artifact,
            options["sha256"],
            options["links"],
            options["group"],
            dry_run=dry_run,
            assets=options["assets"],
            difference=difference,
        )
        if not dry_run:
            # It may have been lost meanwhile, and what lies there be what another deployment is about to use.
            deploy_locks.hold(host, options["deployment"])
            remove_artifacts(artifact)
        return outcome


def fetch(host, options):
    """Fetch the artifact from the address.

    Raises:
        OperationError: it did not arrive, or something else did, or another deployment has the lock now.
    """
    artifact = Path(options["artifact"])
    where = options["url"].partition("?")[0]
    for number in range(_TRIES):
        if number:
            time.sleep(options["transfer_delay"] * 2 ** (number - 1))
        # If our controller was killed, another deployment may fetch the same by now.
        deploy_locks.hold(host, options["deployment"])
        # Of this name alone, and such a one as remove_temporary knows: we may be killed, too, or be the killed one.
        temporary = artifact.with_name(f".{artifact.name}.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with (
                open(descriptor, "wb") as stream,
                # As it is: some servers call an artifact a tar file that is encoded for the way.
                open_url(options["url"], timeout=60, decompress=False) as response,
            ):
                shutil.copyfileobj(response, stream, 1 << 20)
            found = file_sha256(str(temporary))
            if found == options["sha256"]:
                deploy_locks.hold(host, options["deployment"])
                os.rename(temporary, artifact)
                return
            problem = f"what lies there has SHA-256 {found}, not {options['sha256']}"
        except (OSError, EOFError, HTTPException, ArtifactError) as error:  # urllib's own are OSErrors
            problem = str(error).replace(options["url"], where)
        finally:
            temporary.unlink(missing_ok=True)
    raise OperationError(
        f"the artifact could not be fetched from {where}, {_TRIES} times: {problem}",
        "see that this host reaches that address, or deploy without app_release_bucket; nothing was changed here",
    )


def main():
    module = AnsibleModule(
        argument_spec=dict(
            root=dict(type="path", required=True),
            release=dict(type="str", required=True),
            artifact=dict(type="path", required=True),
            source=dict(type="path"),
            url=dict(type="str", no_log=True),
            transfer_delay=dict(type="float", default=2),
            sha256=dict(type="str", required=True),
            files_sha256=dict(type="str"),
            difference_sha256=dict(type="str"),
            links=dict(type="dict", default={".env": ".env"}),
            assets=dict(type="list", elements="str", default=[]),
            artifact_follows=dict(type="bool", default=False),
            group=dict(type="str"),
            deployment=dict(type="str"),
        ),
        required_by={"difference_sha256": ["files_sha256"]},
        supports_check_mode=True,
    )
    options = module.params
    artifact = Path(options["artifact"])
    host = releases.Host(options["root"])
    try:
        host.require()
        try:
            release, changed = stage(host, options, module.check_mode)
        except releases.ArtifactNeeded:
            if not options["url"]:
                raise
            fetch(host, options)
            release, changed = stage(host, options, module.check_mode)
    except releases.ArtifactNeeded as needed:
        if not options["artifact_follows"]:
            module.fail_json(msg=f"Staging release {options['release']} failed: {needed}")
        module.exit_json(
            changed=False,
            artifact_needed=str(needed),
            held=transfers.Held(releases.held(host)).encode(),
            received={path.name: path.stat().st_size for path in artifacts_beside(artifact)},
        )
    except (OperationError, EnvFileError, OSError) as error:
        module.fail_json(msg=f"Staging release {options['release']} failed: {error}")
    added = f"release {options['release']}\n" if changed else ""
    module.exit_json(
        changed=changed,
        release=dict(release.manifest) if release else None,
        diff=dict(before="", after=added, before_header=str(host.releases), after_header=str(host.releases)),
    )


if __name__ == "__main__":
    main()
