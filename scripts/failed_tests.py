# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""failed_tests.py REPORT...: a line for each test that JUnit reports call failed, with the end of its message."""

from __future__ import annotations

import sys
import xml.etree.ElementTree

for path in sys.argv[1:]:
    for case in xml.etree.ElementTree.parse(path).iter("testcase"):
        for problem in [*case.iterfind("failure"), *case.iterfind("error")]:
            message = " ".join((problem.get("message") or "").split())
            print(f"{case.get('classname')}::{case.get('name')}: {message}"[:300])
