# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""At the end of each scenario: the secrets of its apps, which all have the word c4n4ry in them, lie nowhere on its
hosts but where they belong.
"""

from __future__ import annotations

import re

EVERYWHERE = "find / /run /tmp /var/tmp /dev/shm -xdev -type f -size -64M -print0 | xargs -0 grep -sl c4n4ry -- || true"
# Only root reads these; an app's own data are for it to fill, and only root and the app reach them.
OF_ROOT = re.compile(r"/opt/flask_apps/[^/]+/releases/[^/]+/environment|/etc/haproxy/flaskfleet/stats\.cfg")
OF_APP = re.compile(r"(/var/lib/flask_apps/[^/]+)/.+")


def test_no_secret_lies_about(machine):
    paths = machine.output(EVERYWHERE).splitlines()
    for path in paths:
        if OF_ROOT.fullmatch(path):
            assert machine.output(f"stat --format '%U %a' {path}") == "root 600", path
        else:
            own = OF_APP.fullmatch(path)
            assert own, path
            assert machine.output(f"stat --format %a {own[1]}") == "700", path


def test_no_secret_is_told(machine):
    """Not in the journal, in the words of a process, or in what systemd tells everybody of a unit."""
    for command in ("journalctl --no-pager --output=export", "ps -eo args=", "systemctl show --no-pager '*'"):
        assert machine.output(f"{command} | grep -a c4n4ry | grep -v grep || true") == "", command
