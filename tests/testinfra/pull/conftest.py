# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The repository that a host pulls, and its agent."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "pull"))
from fleet import Fleet  # noqa: E402

SERVICE = "flaskfleet-pull.service"


class Agent:
    """The agent of a host."""

    def __init__(self, machine):
        self.machine = machine

    def pull(self):
        """Have the host pull, as its timer would; returns (whether all was well, the result)."""
        status = self.machine.host.run(f"systemctl start {SERVICE}").rc
        return status == 0, self.result()

    def begin(self):
        self.machine.output(f"systemctl start --no-block {SERVICE}")

    def result(self):
        return json.loads(self.machine.output("cat /var/lib/flaskfleet/pull/result.json"))

    def journal(self):
        return self.machine.output(f"journalctl --no-pager --output cat --lines 200 --unit {SERVICE}")


@pytest.fixture(scope="module")
def fleet(machine, inventory):
    return Fleet(machine.name, inventory[machine.name]["test_network_gateway"])


@pytest.fixture(scope="module")
def agent(machine):
    return Agent(machine)


@pytest.fixture
def in_force(machine, agent, fleet):
    """A commit with the app hello that the host has deployed; what a test did is undone after it."""
    result = agent.result()
    if fleet.variables() != fleet.hello() or result["state"] != "ok":
        fleet.commit("What tests begin with", **fleet.hello())
        well, result = agent.pull()
        assert well, (result, agent.journal())
    yield result["commit"]
    held = agent.result()["held"]
    if held and held["commit"]:
        fleet.back_to(result["commit"])
