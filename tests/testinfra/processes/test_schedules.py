# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands at given times, in the live release; what is told of them and of processes; the end of it all."""

from __future__ import annotations

import json

TIDY = {"command": "flask tidy", "on_calendar": "*-*-* 04:00 UTC"}
TIMER, SERVICE = "flask-busy.tidy.timer", "flask-busy.tidy.service"


def scheduled(**changes):
    return {"schedules": {"tidy": {**TIDY, **changes}}}


def test_a_schedule_runs_as_the_web_process_does(busy):
    machine = busy.machine
    machine.output(f"systemctl start {SERVICE}")
    seen = json.loads(machine.get("busy.test", "/seen")[1])
    assert [each["what"] for each in busy.notes()] == ["tidying", "tidied"]
    assert all(seen.items() <= each.items() for each in busy.notes())
    assert machine.output("journalctl -t flask-busy.tidy --output=cat --lines=1").strip() == "tidied"
    upcoming = json.loads(machine.output(f"systemctl list-timers --all --output=json {TIMER}"))[0]["next"]
    assert upcoming // 10**6 % 86400 == 4 * 3600


def test_one_that_runs_is_left_alone_and_the_next_is_the_new_release_s(busy):
    machine = busy.machine
    busy.deploy(**scheduled(command="flask tidy --seconds 15"), keep_releases=1)
    before = busy.live
    machine.output(f"systemctl start --no-block {SERVICE}")
    busy.wait_for(lambda: busy.notes("tidying"))
    busy.deploy(**scheduled(on_calendar="*:*:0/2"), version="version2", keep_releases=1)
    assert busy.live != before
    done = busy.wait_for(lambda: [each for each in busy.notes("tidied") if each["release"] == busy.live])
    assert done[0]["version"] == "2" and busy.notes("tidied")[0]["release"] == before
    notes = [each["what"] for each in busy.notes() if each["what"].startswith("tid")]
    assert notes[: len(notes) // 2 * 2] == ["tidying", "tidied"] * (len(notes) // 2), "never twice at once"


def test_what_is_told(busy):
    machine = busy.machine
    busy.deploy(**scheduled(command="flask tidy --seconds 60", timeout=2))
    assert machine.host.run(f"systemctl start {SERVICE}").rc != 0, "it was ended"
    assert not machine.output("systemctl list-units --plain --no-legend 'flask-busy.tidy.job@*'")
    machine.output(f"systemctl stop {busy.unit(number=2)}")
    variables = {"playbook": "status", "flask_app_only": ["busy"]}
    text = " ".join(machine.deploy(**variables).split())
    assert "process worker: running, " in text and "process worker: dead" in text
    assert "process once: exited" in text
    assert "schedule tidy: next 20" in text and "exit-code (status 1) (FAILED)" in text


def test_what_systemd_does_not_know_changes_nothing(busy):
    machine = busy.machine
    before = machine.output("cat /etc/systemd/system/flask-busy* | sha256sum"), busy.live
    result = busy.attempt(**scheduled(on_calendar="daily Mars/Phobos"), version="version2")
    said = " ".join(result.stdout.split())
    assert result.returncode != 0
    assert "busy: schedules.tidy.on_calendar: daily Mars/Phobos' is no calendar event that systemd knows here" in said
    assert (machine.output("cat /etc/systemd/system/flask-busy* | sha256sum"), busy.live) == before
    assert "changed=0" in busy.deploy()


def test_the_end(busy):
    """Removal takes it all but the data; it is here since nothing may come after it."""
    machine = busy.machine
    machine.output(f"systemctl start --no-block {SERVICE}")
    machine.deploy(**busy.variables(state="absent"))
    assert machine.output("systemctl list-units --all --plain --no-legend 'flask-busy*'") == ""
    assert machine.host.run("ls -d /etc/systemd/system/flask-busy* /opt/flask_apps/busy").rc != 0
    assert machine.host.run("ls /var/lib/systemd/timers/stamp-flask-busy*").rc != 0
    assert machine.host.file("/var/lib/flask_apps/busy/notes").exists
