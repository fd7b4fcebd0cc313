# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The app busy and what it writes down of what its processes do."""

from __future__ import annotations

import json

import pytest
from waiting import wait_for

PARTS = ("--tags", "build,release")  # its site stays the same
DATA = "/var/lib/flask_apps/busy"


class Busy:
    """The app busy on a test host.

    :ivar since: what was noted before is not told
    """

    unchanged = False  # whether it is as the scenario's converge has it

    def __init__(self, machine):
        self.machine = machine
        self.since = 0.0

    @staticmethod
    def variables(**changes):
        Busy.unchanged = not changes  # each host's tests have a process of their own
        return {"flask_apps": "{{ test_busy_apps }}", "flask_app_overrides": {"busy": changes}}

    def deploy(self, **changes):
        """Deploy it with some keys changed; returns the output."""
        return self.machine.deploy(*PARTS, **self.variables(**changes))

    def attempt(self, **changes):
        return self.machine.attempt(*PARTS, **self.variables(**changes))

    @property
    def live(self):
        return self.machine.live("busy")["release"]

    def unit(self, process="worker", number=1, release=""):
        return f"flask-busy.{process}@{release or self.live}:{number}.service"

    def running(self):
        """Names of all its units that run, still or already, or have ended as they may."""
        states = "--state=active,activating,deactivating"
        command = f"systemctl list-units --no-legend --plain {states} 'flask-busy@*' 'flask-busy.*'"
        return {line.split()[0] for line in self.machine.output(command).splitlines()}

    def notes(self, what=""):
        """What was noted, in order: list of dict."""
        text = self.machine.output(f"cat {DATA}/notes 2>/dev/null || true")
        notes = [json.loads(line) for line in text.splitlines()]
        return [each for each in notes if each["at"] >= self.since and what in ("", each["what"])]

    def forget(self):
        """Tell nothing any more of what was noted until now."""
        self.since = float(self.machine.output("date +%s.%N"))

    def wait_for(self, condition, seconds=30):
        """As conftest's, with what the app is doing when it takes too long."""
        return wait_for(condition, seconds, lambda: (self.notes(), self.running()))

    def settle(self):
        """Wait until nothing of an earlier release is left, nor the watch that saw to it."""
        live = self.live

        def left():
            return [unit for unit in self.running() if ("@" in unit and live not in unit) or ".settle-" in unit]

        self.wait_for(lambda: not left(), 100)

    def give(self, job):
        """Give the workers a job, and wait until one has begun it."""
        self.machine.output(f"touch {DATA}/jobs/{job}")
        self.wait_for(lambda: [each for each in self.notes("begun") if each["job"] == job])


@pytest.fixture
def busy(machine):
    """The app as the scenario's converge has it, whatever a test before did."""
    busy = Busy(machine)
    if not Busy.unchanged:
        busy.deploy()
    busy.settle()
    busy.wait_for(lambda: len([each for each in busy.notes("started") if each["release"] == busy.live]) >= 2)
    busy.forget()
    return busy


def pytest_terminal_summary(terminalreporter):
    """Tell the counts that tests have recorded."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "told":
                terminalreporter.write_line(value)
