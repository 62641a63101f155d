# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that say how the application serves and when it is healthy."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of service_arguments()."""

    DOCUMENTATION = r"""
options:
  port:
    description: TCP port on which the application serves.
    type: int
    required: true
  candidate_port:
    description: Free TCP port of the loopback address on which a release is tried out.
    type: int
    required: true
  health_path:
    description: Path of the health check, which is asked over plain HTTP on 127.0.0.1.
    type: str
    default: /health
  healthy_threshold:
    description: Healthy answers in a row that open the gate.
    type: int
    default: 3
  interval:
    description: Seconds between two health requests.
    type: float
    default: 0.1
  patience:
    description: Seconds that a release may take to become healthy.
    type: float
    default: 60.0
  verify_version:
    description:
      - Whether the health answer must name the version of the release.
      - Switch it off for applications whose health answer has no C(version).
    type: bool
    default: true
  candidate_uptime:
    description:
      - Seconds that a candidate has to stay healthy once it is; it is asked at every O(interval), and one bad answer
        or the end of its process refuses the release.
      - Every deployment takes so much longer, once for all hosts. A release that dies after 20 seconds takes 25 to be
        caught here.
    type: float
    default: 3.0
"""
