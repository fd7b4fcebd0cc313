# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The app in a real browser, whose picture of it is kept with the reports."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import AUTHORITY, CACHE

VISIT = Path(__file__).parents[2] / "browser" / "visit"


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
