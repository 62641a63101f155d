# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attributes that the modules of the release engine have in common."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of attributes."""

    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: Says what would be done, and does nothing.
    support: full
  platform:
    description: Operating systems of the managed host.
    platforms: linux
    support: full
"""
    DIFF = r"""
attributes:
  diff_mode:
    description: Shows what changes.
    support: full
"""
    NO_DIFF = r"""
attributes:
  diff_mode:
    description: There is nothing to show.
    support: none
"""
