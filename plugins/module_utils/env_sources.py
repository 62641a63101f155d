# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Brings together what several sources say of one environment: inventory, vault, Parameter Store, Secrets Manager."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils.env_report import ERROR, Problem


@dataclass(frozen=True)
class Source:
    """One place that variables come from.

    Attributes:
        name: what messages call it.
        variables: names and values; null stands for a variable that is not set.
        places: of single variables, where exactly they stand, for instance ``group_vars/all/environment.yml:12``.
    """

    name: str
    variables: Mapping[str, Any]
    places: Mapping[str, str]

    def place(self, variable: str) -> str:
        """Where a variable of this source stands, as exactly as it is known."""
        return self.places.get(variable, self.name)


@dataclass(frozen=True)
class Merged:
    """The variables of all sources.

    Attributes:
        variables: names and values.
        places: where each of them stands.
        problems: names that two sources set. Neither wins in silence: the one that was meant to be gone would.
    """

    variables: dict[str, Any]
    places: dict[str, str]
    problems: list[Problem]


def merge(sources: Sequence[Source]) -> Merged:
    """Bring sources together.

    Args:
        sources: in any order, since no variable may be set by two of them.
    """
    variables: dict[str, Any] = {}
    places: dict[str, str] = {}
    problems: list[Problem] = []
    for source in sources:
        for name, value in source.variables.items():
            if variables.get(name) is None:
                variables[name] = value
                places[name] = source.place(name)
            elif value is not None:
                problems.append(
                    Problem(
                        ERROR,
                        "several_sources",
                        name,
                        f"{name} is also set in {source.place(name)}.",
                        "Keep the one that is meant, and remove the other or set it to null.",
                    )
                )
    return Merged(variables, places, problems)
