# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one kind of failure that a module reports to its operator."""

from __future__ import annotations


class OperationError(Exception):
    """Something that cannot go on, told to a person.

    Args:
        cause: one sentence of what happened and where.
        remedy: one sentence of what to do next.
        evidence: lines that prove the cause (health answers, log lines), secrets already masked.
    """

    def __init__(self, cause: str, remedy: str, evidence: list[str] | None = None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy
        self.evidence = evidence or []

    def __str__(self) -> str:
        lines = [self.cause, f"What to do: {self.remedy}"]
        if self.evidence:
            lines += ["Evidence:", *(f"  {line}" for line in self.evidence)]
        return "\n".join(lines)
