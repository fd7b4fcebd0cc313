# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""At the end of each scenario: the secrets of its apps, which all have the word c4n4ry in them, lie nowhere on its
hosts but where they belong.
"""

from __future__ import annotations

import re
import subprocess

import pytest

EVERYWHERE = "find / /run /tmp /var/tmp /dev/shm -xdev -type f -size -64M -print0 | xargs -0 grep -sl c4n4ry -- || true"
# Only root reads these; an app's own data are for it to fill, and only root and the app reach them.
OF_ROOT = re.compile(r"/opt/flask_apps/[^/]+/releases/[^/]+/environment|/etc/haproxy/flaskfleet/stats\.cfg")
OF_APP = re.compile(r"(/var/lib/flask_apps/[^/]+)/.+")


@pytest.fixture
def hosts(machine, inventory):
    """A function for each host that runs a command there and returns what it wrote: the one that these tests are of, or
    all where a scenario's tests are of a fleet.
    """
    found = [name for name in inventory if name != "localhost"] if machine.name == "lb1" else [machine.name]

    def runner(name):
        def run(command):
            words = ["podman", "exec", inventory[name]["ansible_host"], "sh", "-c", command]
            return subprocess.run(words, capture_output=True, text=True, check=True).stdout

        return run

    return {name: runner(name) for name in found}


def test_no_secret_lies_about(hosts):
    for name, run in hosts.items():
        for path in run(EVERYWHERE).splitlines():
            own = OF_APP.fullmatch(path)
            if own:
                assert run(f"stat --format %a {own[1]}") == "700\n", (name, path)
            else:
                assert OF_ROOT.fullmatch(path), (name, path)
                assert run(f"stat --format '%U %a' {path}") == "root 600\n", (name, path)


def test_no_secret_is_told(hosts):
    """Not in the journal, in the words of a process, or in what systemd tells everybody of a unit."""
    for name, run in hosts.items():
        for command in ("journalctl --no-pager --output=export", "ps -eo args=", "systemctl show --no-pager '*'"):
            assert run(f"{command} | grep -a c4n4ry | grep -v grep || true") == "", (name, command)
