# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The app in a real browser, and the page of the status, whose pictures are kept with the reports."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import AUTHORITY, CACHE

VISIT = Path(__file__).parents[2] / "browser" / "visit"
sys.path.append(str(VISIT.parent))
from chromium import Chromium  # noqa: E402


@pytest.mark.skipif(not shutil.which("chromium"), reason="this machine's distribution has no package chromium")
def test_a_browser_opens_the_app(machine):
    picture = CACHE / "reports" / f"shop-on-{machine.name}.png"
    picture.parent.mkdir(exist_ok=True)
    picture.unlink(missing_ok=True)

    def visit(*authority):
        command = [str(VISIT), "https://shop.test/", machine.address, str(picture), *authority]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert "Shop" not in visit() and not picture.exists(), "a certificate of nobody's"
    assert "<h1>Shop, version 1, over https</h1>" in visit(str(AUTHORITY))
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(not shutil.which("chromium"), reason="this machine's distribution has no package chromium")
def test_a_browser_shows_the_status_of_the_host(machine, tmp_path):
    page = tmp_path / "status.html"
    machine.deploy(playbook="status", flask_app_status_page=str(page), flask_app_only=["shop"])
    with Chromium() as browser:
        for width in (1280, 390):
            browser.look(width, 800, dark=width < 500)
            browser.open(page)
            browser.picture(CACHE / "reports" / f"status-of-{machine.name}-{width}.png")
        cells = browser.evaluate("[...document.querySelector('tbody tr').cells].map(each => each.textContent)")
        assert browser.problems == [] and set(browser.requests) == {page.as_uri()}
    release = machine.live("shop")
    assert cells[:4] == ["shop", machine.name, "ok", release["release"]]
    assert cells[4] == f"{release['commit'][:8]} {release['subject']}"
    days, word = cells[6].split()
    assert word == "days" and 0 < int(days) <= 90
