# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What shows that a long step is alive."""

from __future__ import annotations

import re
import time

import pytest
from ansible_collections.flaskfleet.deploy.plugins.plugin_utils.heartbeat import heartbeat


class Display:
    def __init__(self):
        self.lines = []

    def display(self, line):
        self.lines.append(line)


def test_a_long_step_shows_that_it_is_alive():
    display = Display()
    with heartbeat(display, "web1: still building", interval=0.05):
        time.sleep(0.3)
    assert len(display.lines) >= 2
    assert re.fullmatch(r"web1: still building \(\d+ s\)", display.lines[0])


def test_it_ends_with_the_step():
    display = Display()
    with pytest.raises(OSError), heartbeat(display, "", interval=0.05):
        raise OSError
    time.sleep(0.15)
    assert display.lines == []
