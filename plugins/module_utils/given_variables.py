# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Variables that are given on the command line: Ansible heeds none that is misspelt, and says nothing of it."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

#: What the playbooks themselves read.
OF_PLAYBOOKS = frozenset(
    [
        "app_cloudwatch",
        "db_migrate_on_failure",
        "deploy_bake",
        "deploy_batches",
        "deploy_by",
        "deploy_drain",
        "deploy_minimum_healthy",
        "deploy_on_failure",
        "doctor_format",
        "doctor_repair",
        "history_entries",
        "history_format",
        "migrate_baseline",
        "migrate_format",
        "migrate_redo",
        "migrate_repair",
        "migrate_rollback_steps",
        "migrate_rollback_to",
        "migrate_source",
        "migrate_target",
        "own_variables",
        "release",
        "release_artifact",
        "release_kept",
        "restore_backup",
        "restore_confirm",
        "rollback_accept_schema",
        "rollback_bake",
        "rollback_batches",
        "rollback_drain",
        "rollback_migrations",
        "status_format",
        "verify",
    ]
)
#: What inventories say once for several roles (inventories/mapping.yml and main.yml).
OF_INVENTORIES = frozenset(
    [
        "app_assets",
        "app_env_schema",
        "app_environment",
        "app_environment_variables",
        "app_group",
        "app_health_path",
        "app_instances",
        "app_jwt_secret",
        "app_migrations",
        "app_name",
        "app_port",
        "app_root",
        "app_script",
        "app_source",
        "app_state_directory",
        "app_url",
        "app_user",
        "database_ca_file",
        "database_controller_ca_file",
        "database_host",
        "database_name",
        "database_password",
        "database_port",
        "database_user",
    ]
)
#: Roles say their options at this depth and nothing else; tests compare it with what the YAML means.
_OPTION = re.compile(r"^      (\w+):$", re.MULTILINE)
#: Ansible's own, and by custom the secrets that inventories take from the vault (vault_database_password).
_OF_OTHERS = ("ansible_", "vault_")
#: One wrong letter is found in every name, more only in long ones: database_url is not database_user.
_ALIKE = 0.9
_ALIKE_AT_LEAST = 0.83


def problems(
    given: Mapping[str, Any],
    refused: Mapping[str, str],
    options: Callable[[], Collection[str]],
    inventory: Callable[[], Collection[str]],
) -> list[str]:
    """What of the given variables would not be heeded although somebody means something by it.

    Args:
        given: names and values. ``own_variables`` among them names variables that are somebody's own, as a list or with
            commas or spaces between them: these are never told.
        refused: names that say nothing to the playbook, each with what to do instead; with an empty text it is heeded.
        options: gives the options of the roles; asked only if a name is not known without them.
        inventory: gives the names that the inventory sets; asked only if a name looks misspelt.

    Returns:
        A sentence for each, in the order of the given ones. Names that resemble no known one are somebody's own.
    """
    own = given.get("own_variables") or ()
    names = re.split(r"[\s,]+", own) if isinstance(own, str) else [str(name) for name in own]
    unknown = {name for name in given if _is_to_be_known(name)}.difference(names)
    suspects = _meant(unknown, options) if unknown else {}
    ours = inventory() if suspects else ()
    found = []
    for name, value in given.items():
        if name in names:
            continue
        # A pipeline hands on what nobody filled in.
        if refused.get(name) and value not in ("", None):
            found.append(f"{name}: {refused[name]}")
        elif name in suspects and name not in ours:
            found.append(f"{name} is not known; did you mean {suspects[name]}?")
    return found


def _is_to_be_known(name: str) -> bool:
    return not (name in OF_PLAYBOOKS or name in OF_INVENTORIES or name.startswith(_OF_OTHERS))


def _meant(unknown: Collection[str], options: Callable[[], Collection[str]]) -> dict[str, str]:
    """Of names that may be misspelt what may be meant, the nearest first."""
    known = OF_PLAYBOOKS.union(OF_INVENTORIES, options())
    # Sorted, so that equals always come in the same order.
    candidates = sorted(known)
    found = {}
    for name in sorted(set(unknown) - known):
        folded = name.lower().replace("-", "_")
        # A little less than all letters but one: of a third and the like nobody knows how it is rounded.
        but_one = 1 - 1.01 / max(1, len(folded))
        alike = difflib.get_close_matches(folded, candidates, 1, min(_ALIKE, max(_ALIKE_AT_LEAST, but_one)))
        if alike:
            # A role's name was put before what is none of its options: app_release_kept.
            behind = [candidate for candidate in candidates if folded.endswith(f"_{candidate}")]
            found[name] = " or ".join(dict.fromkeys([*behind, *alike]))
    return found


def message(found: Collection[str]) -> str:
    """What is said of problems, with the way out."""
    lines = ["Nothing was changed: not all of what -e gives would be heeded.", *(f"- {problem}" for problem in found)]
    lines.append("Correct it. A variable that is really your own is let through with -e own_variables=NAME,NAME.")
    return "\n".join(lines)


def role_options(directory: str) -> set[str]:
    """The options of all roles.

    They are looked for in the text: to read it as YAML takes twenty times as long.

    Args:
        directory: which has the roles of a collection.

    Raises:
        OSError: it cannot be read.
    """
    found: set[str] = set()
    for role in os.listdir(directory):
        path = os.path.join(directory, role, "meta", "argument_specs.yml")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as stream:
                found.update(_OPTION.findall(stream.read()))
    return found
