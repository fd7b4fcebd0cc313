# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show a person that a long module execution is alive: Ansible itself is silent until it ends."""

from __future__ import annotations

import contextlib
import threading
import time

INTERVAL = 10  # seconds


@contextlib.contextmanager
def heartbeat(display, text, interval=INTERVAL):
    """Show ``text`` and how long it takes already, every ``interval`` seconds until the block ends."""
    ended = threading.Event()
    started = time.monotonic()

    def beat():
        while not ended.wait(interval):
            display.display(f"{text} ({time.monotonic() - started:.0f} s)")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
