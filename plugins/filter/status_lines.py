# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ..plugin_utils.status_text import status_lines


class FilterModule:
    """One filter, named as the file."""

    def filters(self):
        return {"status_lines": status_lines}
