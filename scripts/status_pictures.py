# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take the pictures of the status page that docs/images has, and measure the page with 100 hosts of 50 apps.

Run as ``python scripts/status_pictures.py docs/images``; it needs Chromium.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT / "tests" / "browser"), os.environ["ANSIBLE_COLLECTIONS_PATH"]]

from ansible_collections.flaskfleet.deploy.plugins.plugin_utils.status_page import status_page  # noqa: E402
from chromium import Chromium  # noqa: E402
from fleet import NOW, fleet  # noqa: E402

PICTURES = {"status-wide": (1280, 720, False), "status-dark": (834, 720, True), "status-phone": (390, 720, False)}
# What needs a look, unfolded, the worst first
SHOWN = """(() => {
    const form = document.getElementById('filter');
    form.elements.state.value = 'attention';
    form.elements.state.dispatchEvent(new Event('change'));
    document.querySelectorAll('thead button')[2].click();
    document.querySelectorAll('td:not(:last-child) details').forEach(each => { each.open = true });
})()"""
ACTIONS = {
    "filter by a word": "form.elements.words.value = 'billing'; form.elements.words.dispatchEvent(new Event('input'))",
    "show all again": "form.elements.words.value = ''; form.elements.words.dispatchEvent(new Event('input'))",
    "sort by time": "document.querySelectorAll('thead button')[5].click()",
}
MEASURE = """new Promise(done => {
    const form = document.getElementById('filter'), started = performance.now();
    %s;
    requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - started)));
})"""


def main(folder):
    with tempfile.TemporaryDirectory() as temporary, Chromium() as browser:
        page = Path(temporary, "status.html")
        page.write_text(status_page(fleet(8, 8), now=NOW), encoding="utf-8")
        for name, (width, height, dark) in PICTURES.items():
            browser.look(width, height, dark)
            browser.open(page)
            browser.evaluate(SHOWN)
            browser.picture(Path(folder, f"{name}.png"))
        started = time.monotonic()
        text = status_page(fleet(100, 50), now=NOW)
        print(f"100 hosts of 50 apps: made in {time.monotonic() - started:.1f} s, {len(text) / 1e6:.1f} MB")
        page.write_text(text, encoding="utf-8")
        for width, height, _dark in PICTURES.values():
            browser.look(width, height)
            print(f"{width} pixels wide: opened and drawn in {browser.open(page):.1f} s")
            for what, action in ACTIONS.items():
                print(f"    {what}: {browser.evaluate(MEASURE % action):.0f} ms")


if __name__ == "__main__":
    main(sys.argv[1])
