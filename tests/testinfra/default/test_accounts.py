# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Accounts that apps share, that are there already, or that are somebody else's, and units that are somebody else's."""

from __future__ import annotations

from conftest import REPOSITORY


def app(name, **keys):
    return {"name": name, "domain": f"{name}.test", "repository": REPOSITORY, "version": "master", "settle": 0, **keys}


def runs_as(machine, name):
    pid = machine.property(machine.unit(name), "MainPID")
    return machine.output(f"ps -o user:32= -p {pid}").strip()


def told(result):
    """All that Ansible printed, as one line: it breaks long ones, and doubles quotes."""
    return " ".join((result.stdout + result.stderr).replace("''", "'").split())


def test_apps_may_share_an_account_or_use_one_that_is_there(machine):
    machine.output("id somebody > /dev/null 2>&1 || useradd --comment 'A person' --shell /bin/bash somebody")
    person = machine.output("getent passwd somebody")
    first, second, third = app("first", user="shared"), app("second", user="shared"), app("third", user="somebody")
    try:
        result = machine.attempt(flask_apps=[first, second, third])
        assert result.returncode == 0, result.stdout + result.stderr
        words = "first, second run as the same account shared and can read each other's secrets"
        assert words in told(result)
        assert [runs_as(machine, name) for name in ("first", "second", "third")] == ["shared", "shared", "somebody"]
        assert machine.output("getent passwd somebody") == person
        assert machine.host.run("getent passwd flask-first flask-second flask-third").stdout == ""

        release = machine.live("second")["release"]
        started = machine.property(machine.unit("second"), "ActiveEnterTimestampMonotonic")
        machine.deploy(flask_apps=[{**first, "state": "absent"}, second, third])
        assert machine.get("first.test")[0] == 0
        assert machine.get("second.test")[0] == 200
        assert machine.live("second")["release"] == release
        assert machine.property(machine.unit("second"), "ActiveEnterTimestampMonotonic") == started
        assert machine.host.user("shared").exists
        assert machine.host.file("/var/lib/flask_apps/first").user == "shared"
    finally:
        machine.deploy(flask_apps=[{**each, "state": "absent"} for each in (first, second, third)])


def test_somebody_elses_account_is_refused(machine):
    """Nobody said that the app shall run as it: the name is a coincidence. The other app is deployed all the same."""
    machine.output("id flask-taken > /dev/null 2>&1 || useradd --comment 'A person' flask-taken")
    apps = [app("taken"), app("other")]
    try:
        result = machine.attempt(flask_apps=apps)
        assert result.returncode != 0
        words = "taken: check the account: the account 'flask-taken' exists and was not made by this collection"
        assert words in told(result)
        assert not machine.host.file("/opt/flask_apps/taken/current").exists
        assert machine.get("other.test")[0] == 200
    finally:
        machine.deploy(flask_apps=[{**each, "state": "absent"} for each in apps])
        machine.output("userdel flask-taken")


def test_somebody_elses_unit_is_refused(machine):
    path = "/etc/systemd/system/flask-claimed.target"
    machine.output(f"echo '[Unit]' > {path}")
    try:
        result = machine.attempt(flask_apps=[app("claimed")])
        assert result.returncode != 0
        assert f"{path}: exists and is not managed by this collection" in told(result)
        assert machine.output(f"cat {path}") == "[Unit]"
        assert not machine.host.file("/opt/flask_apps/claimed").exists
        assert machine.host.run("ls -d /etc/systemd/system/flask-claimed@*").rc != 0
    finally:
        machine.output(f"rm {path}")
        machine.deploy(flask_apps=[app("claimed", state="absent")])
