# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the database remembers about its migrations."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AppliedMigration:
    """A row of the tracking table. What another tool or a person wrote lacks all from checksum on.

    Attributes:
        row_id: its id, which rises in the order of application.
        version: as it was written when it was applied.
        name: as it was written when it was applied.
        applied_at: time of application (UTC), as text.
        checksum: of the script that was run.
        duration_ms: how long it took; None also for a baseline, which ran nothing.
        applied_by: who applied it.
        deployment_id: the deployment that applied it.
        down_checksum: of the script that would have taken it back; None also if there was none.
        statement_checksums: one short checksum per statement of the script, with commas between them.
    """

    row_id: int
    version: str
    name: str
    applied_at: str | None = None
    checksum: str | None = None
    duration_ms: int | None = None
    applied_by: str | None = None
    deployment_id: str | None = None
    down_checksum: str | None = None
    statement_checksums: str | None = None

    @classmethod
    def of(cls, row_id: int, values: Mapping[str, Any]) -> AppliedMigration:
        """The row that a module's result describes; what else is in it does not count."""
        names = {field.name for field in dataclasses.fields(cls)} - {"row_id"}
        known = {name: value for name, value in values.items() if name in names}
        return cls(row_id, **{"name": "", **known, "version": str(known["version"])})

    @property
    def number(self) -> int:
        """The version as a number, which is what counts."""
        return int(self.version)


@dataclass(frozen=True)
class Unfinished:
    """A migration outside a transaction that was started and did not come to its end.

    Attributes:
        version: of the migration.
        direction: up or down.
        statements_done: how many of its statements are known to be done.
        done_checksum: checksum of those statements.
        started_at: when it was started (UTC), as text.
        error: what stopped it, or None if its runner was killed.
    """

    version: str
    direction: str
    statements_done: int
    done_checksum: str
    started_at: str
    error: str | None = None

    @property
    def number(self) -> int:
        """The version as a number."""
        return int(self.version)


@dataclass(frozen=True)
class State:
    """What the database says about its migrations."""

    applied: tuple[AppliedMigration, ...]
    unfinished: tuple[Unfinished, ...]

    @property
    def schema_version(self) -> str | None:
        """The newest applied version."""
        return schema_version(self.applied)


def schema_version(applied: Iterable[AppliedMigration]) -> str | None:
    """The newest version that is applied, or None on an empty schema."""
    newest = max(applied, key=lambda row: row.number, default=None)
    return newest.version if newest else None
