# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How tests wait for what happens by itself."""

from __future__ import annotations

import time


def wait_for(condition, seconds=30, told=lambda: None):
    """Wait until ``condition()`` is true, and return it; the test fails after so long, with what ``told()`` returns."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, told()
        time.sleep(0.2)
    return found
