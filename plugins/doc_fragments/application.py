# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that name the application on a host."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of application_arguments()."""

    DOCUMENTATION = r"""
options:
  name:
    description: Name of the application; its PM2 applications are called C(<name>-<release id>).
    type: str
    required: true
  root:
    description: Directory that holds C(releases/), C(shared/) and the link C(current).
    type: path
    required: true
  user:
    description: The user that the application runs as.
    type: str
    required: true
  configuration:
    description: Directory of the PM2 configuration that role C(roastify.ops.pm2) wrote.
    type: path
    required: true
"""
