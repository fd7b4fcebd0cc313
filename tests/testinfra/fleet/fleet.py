# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three machines behind two balancers, as one thing to deploy to and to ask."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from conftest import ENVIRONMENT, INVENTORY
from waiting import wait_for

WEB = ("web1", "web2", "web3")
STATS = "admin:c4n4ry-of-stats"


class Fleet:
    """The fleet as tests see it. machine: its first balancer."""

    def __init__(self, machine, inventory):
        self.machine = machine
        self.addresses = {name: variables["test_host_address"] for name, variables in inventory.items()}

    def command(self, playbook, *arguments, **variables):
        """The command line that runs a playbook on the whole fleet."""
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "--inventory", str(INVENTORY)]
        return [*command, f"flaskfleet.deploy.{playbook}", *arguments, "--extra-vars", json.dumps(variables)]

    def attempt(self, playbook, *arguments, **variables):
        """Run a playbook on the whole fleet, whatever comes of it; returns the subprocess.CompletedProcess."""
        command = self.command(playbook, *arguments, **variables)
        return subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)

    @contextlib.contextmanager
    def killed(self, playbook, **variables):
        """Have a playbook run meanwhile, and kill it with all that it has started on this machine."""
        process = subprocess.Popen(
            self.command(playbook, **variables),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
            start_new_session=True,
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def run(self, playbook, *arguments, **variables):
        """Run a playbook that must succeed; returns its output."""
        result = self.attempt(playbook, *arguments, **variables)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "DEPRECATION WARNING" not in result.stderr, result.stderr
        return result.stdout

    def server(self, host, state):
        """Set a host's state at the first balancer; returns what the module returns."""
        command = [str(Path(sys.executable).parent / "ansible"), "--inventory", str(INVENTORY), "lb1", "--become"]
        command += ["-m", "flaskfleet.deploy.balancer_server", "-a", json.dumps({"hosts": [host], "state": state})]
        result = subprocess.run(command, capture_output=True, text=True, check=False, env={**ENVIRONMENT, **ONE_LINE})
        assert result.returncode == 0, result.stdout + result.stderr
        return json.loads(result.stdout.partition("=> ")[2])

    def on(self, name, command):
        """The output of a command on one of the machines."""
        command = ["podman", "exec", f"flaskfleet-fleet-{name}", "sh", "-c", command]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def commits(self, app="moody"):
        """{machine: commit of the live release}."""
        return {
            name: json.loads(self.on(name, f"cat /opt/flask_apps/{app}/current/release.json"))["commit"] for name in WEB
        }

    def states(self, domain="moody.test", balancer="lb1"):
        """{machine: what the balancer's page of statistics says of it}."""
        page = self.on(balancer, f"curl --silent --user {STATS} 'http://127.0.0.1:9000/;csv'")
        rows = csv.DictReader(page.lstrip("# ").splitlines())
        return {row["svname"]: row["status"] for row in rows if row["pxname"] == domain and row["svname"] in WEB}

    def wait_for(self, expected, seconds=60):
        """Wait until the balancer says something of machines, such as web1="UP"."""

        def reached():
            return all(self.states().get(name, "").startswith(state) for name, state in expected.items())

        wait_for(reached, seconds, lambda: (expected, self.states()))

    def curl(self, *arguments):
        """(status, body) of a request from outside."""
        command = ["curl", "--silent", "--max-time", "10", "--write-out", "\n%{http_code}", *arguments]
        output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        body, _newline, status = output.rpartition("\n")
        return int(status), body

    def ask(self, path="/", *arguments, host="moody.test", scheme="http", at="lb1"):
        port = 443 if scheme == "https" else 80
        resolve = ["--resolve", f"{host}:{port}:{self.addresses[at]}"]
        return self.curl("--insecure", *resolve, *arguments, f"{scheme}://{host}{path}")


ONE_LINE = {"ANSIBLE_LOAD_CALLBACK_PLUGINS": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}


def changes(output):
    """{machine: number of changes} of a run."""
    return {name: int(count) for name, count in re.findall(r"^(\w+) +: .*changed=(\d+)", output, re.MULTILINE)}
