# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Back to an earlier release: no build, in seconds, with its configuration; and forward again."""

from __future__ import annotations

import re

from conftest import MOODY

GOOD = {**MOODY, "flask_app_only": ["good"]}
CHANGED = {"good": {"version": "version2", "limits": {"tasks_max": 60}, "env": {"GREETING": "limited"}}}


def deployed(machine):
    """The live release's name and what shows of its configuration."""
    return (
        machine.live("good")["release"],
        machine.property(machine.unit("good"), "TasksMax"),
        machine.get("good.test")[1],
    )


def test_there_and_back_and_there(machine):
    machine.deploy(**GOOD)
    first = deployed(machine)
    machine.deploy(**GOOD, flask_app_overrides=CHANGED)
    second = deployed(machine)
    assert second[1:] == ("60", "2 limited 0") and first[1] != "60"
    builds = machine.output("ls /opt/flask_apps/good/builds")

    predicted = machine.deploy("--check", playbook="rollback", **GOOD)
    assert f"good: {second[0]} -> {first[0]}" in predicted and deployed(machine) == second
    with machine.under_load("good") as report:
        output = machine.deploy(playbook="rollback", **GOOD)
    assert report["failed"] == 0, report
    assert re.search(rf"good: {second[0]} -> {first[0].split('.')[0]}\S* in [0-9.]+ s", output)
    back = deployed(machine)
    assert back[0].split(".")[0] == first[0].split(".")[0]
    assert back[1:] == first[1:]
    assert machine.output("ls /opt/flask_apps/good/builds") == builds

    # the same commit can be deployed later, and named by its first digits as the place to go back to
    machine.deploy(**GOOD, flask_app_overrides=CHANGED)
    assert deployed(machine)[1:] == second[1:]
    machine.deploy(playbook="rollback", **GOOD, flask_app_rollback_to={"good": first[0][:6]})
    assert deployed(machine)[1:] == first[1:]
    assert "changed=0" in machine.deploy(**GOOD)


def test_what_is_there_to_go_back_to(machine):
    result = machine.attempt(playbook="rollback", **GOOD, flask_app_rollback_to={"good": "0000000"})
    assert result.returncode != 0
    assert "good: choose: 0000000 is not here any more; good releases to go back to: " in result.stdout
    refused = machine.attempt(**GOOD, flask_app_rollback_to={"good": ""})
    assert "is for the playbook flaskfleet.deploy.rollback alone" in refused.stdout
