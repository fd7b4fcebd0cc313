# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """What the documentation of several modules says alike."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode and tell what it would change without changing it.
  diff_mode:
    description: Tells in detail what it changes, or in check mode would, when run in diff mode.
  idempotent:
    description: When run twice in a row outside check mode with the same arguments, the second run indicates no change.
"""

    ROOT = r"""
options:
  root:
    description: Where the apps are.
    type: path
    default: /opt/flask_apps
"""

    LOCK = r"""
options:
  lock_timeout:
    description: Seconds to wait for another run that works on the same host.
    type: int
    default: 600
"""
