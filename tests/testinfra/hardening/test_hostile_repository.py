# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A repository full of traps: links out of its tree, an environment of its own, code that every Python there runs."""

from __future__ import annotations

import pytest
from conftest import head

OUTSIDE = "/etc/shadow /etc/passwd /etc /var/lib/flask_apps/victim /var/lib/flask_apps/victim/diary"


def outside(machine):
    """Owner, mode and times of change of what the links lead to."""
    return machine.output(f"stat --format '%n %U %G %a %Z' {OUTSIDE}")


@pytest.fixture(scope="module")
def before(machine):
    """What was outside before it was deployed."""
    found = outside(machine)
    overrides = {"burglar": {"version": "hostile", "static": [{"url": "/static", "path": "static"}]}}
    machine.deploy(flask_apps="{{ test_burgled_apps }}", flask_app_overrides=overrides)
    return found


def test_it_is_deployed_and_nothing_else_touched(machine, before):
    assert machine.live("burglar")["commit"] == head("burglar", "hostile")
    assert outside(machine) == before


def test_its_environment_is_the_collections_own(machine, before):
    python = "/opt/flask_apps/burglar/current/build/.venv/bin/python"
    assert machine.output(f"{python} -S -c 'import sys; print(sys.version_info[0])'") == "3"
    assert not machine.host.file("/tmp/ran-as").exists


def test_root_runs_none_of_its_code(machine, before):
    """Every Python that is started in its folder would leave a file; those in a sandbox leave it where nobody looks."""
    assert machine.output("find /tmp -maxdepth 1 -name 'customized-*'") == ""
    command = "cd /opt/flask_apps/burglar/current/build && PYTHONPATH=. python3 -c pass; ls /tmp/customized-root-*"
    assert machine.output(command)
    machine.output("rm /tmp/customized-root-*")


def test_links_out_of_it_are_not_served(machine, before):
    """Not even to a file that nginx may read, and the app may not."""
    user = "www-data" if machine.debian else "nginx"
    machine.output(f"echo private > /srv/nginx-alone && chown {user} /srv/nginx-alone && chmod 400 /srv/nginx-alone")
    assert machine.output(f"runuser -u {user} -- cat /opt/flask_apps/burglar/current/build/static/alone") == "private"
    assert machine.get("burglar.test", "/static/own.css") == (200, "body {}\n")
    status, body = machine.get("burglar.test", "/static/alone")
    assert status != 200 and "private" not in body
