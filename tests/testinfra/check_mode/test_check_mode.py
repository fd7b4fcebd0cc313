# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A check touches nothing and says, task by task, what the run then does. In this order, from bare machines on."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, INVENTORY, NETWORK, REPOSITORY

HELLO = {"name": "hello", "domain": "hello.test", "repository": REPOSITORY, "version": "master", "settle": 0}
SECOND = {"name": "second", "domain": "second.test", "repository": REPOSITORY, "version": "master", "settle": 0}
SECOND["cache"] = {"engine": "redis"}

QUIET_COMMANDS = (
    "flaskfleet.deploy.nginx_site : Test nginx configuration",
    "flaskfleet.deploy.backing_service : Stop the caches that packages have started by themselves",
    "flaskfleet.deploy.backing_service : Stop the caches of apps that are gone",
)

CHANGES = {
    "bare machines": [HELLO],
    "a new version": [{**HELLO, "version": "version2"}],
    "a new configuration": [{**HELLO, "version": "version2", "env": {"A": "1"}, "aliases": ["www.hello.test"]}],
    "a new app": [HELLO, SECOND],
    "nothing": [HELLO, SECOND],
    "a removed app": [HELLO, {**SECOND, "state": "absent"}],
}

# All that a run could leave: every file with its kind, mode, owner, size and link, the content of those that could
# matter, and the packages. Left out: what any look at a package manager touches (its cache, its data base's journal).
SNAPSHOT = r"""
skip='( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /var/log -o -path /var/cache
    -o -path /var/lib/systemd -o -path /var/lib/rpm ) -prune'
find / -xdev $skip -o -printf '%p %y %m %u %g %s %l\n'
find /etc /opt /root /usr/local /var -xdev $skip -o -type f -exec md5sum {} +
dpkg-query --list 2> /dev/null || rpm --query --all | sort
"""


def run(apps, *arguments):
    """Run the site playbook with these apps; returns {(host, task): ok | changed | skipping} and the output."""
    playbook = str(Path(sys.executable).parent / "ansible-playbook")
    command = [playbook, "--inventory", str(INVENTORY), "flaskfleet.deploy.site", *arguments]
    command += ["--extra-vars", json.dumps({"flask_apps": apps})]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert result.returncode == 0, result.stdout + result.stderr
    states, task = {}, None
    for line in result.stdout.splitlines():
        if heading := re.match(r"(?:TASK|RUNNING HANDLER) \[(.*)\]", line):
            task = heading[1]
        elif state := re.match(r"(ok|changed|skipping|fatal): \[(\w+)", line):
            states[state[2], task] = state[1]
    return states, result.stdout


def snapshot(hosts):
    """The lines of all hosts' snapshots, as a set of (host, line)."""
    lines = set()
    for host in hosts:
        command = ["podman", "exec", f"{NETWORK['test_network_name']}-{host}", "sh", "-c", SNAPSHOT]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        lines |= {(host, line) for line in output.splitlines()}
    return lines


@pytest.mark.parametrize("change", CHANGES)
def test_prediction(change, inventory):
    hosts = [name for name in inventory if name != "localhost"]
    before = snapshot(hosts)
    predicted, output = run(CHANGES[change], "--check", "--diff")
    assert sorted(snapshot(hosts) ^ before) == []
    done, _output = run(CHANGES[change])
    # commands are not run by a check, which so says nothing of those that never count as a change
    for task in itertools.product(hosts, QUIET_COMMANDS):
        predicted[task] = done[task] = "ok"
    assert sorted(predicted.items() ^ done.items()) == []
    assert ("changed" in done.values()) is (change != "nothing")
    assert change != "nothing" or "+++" not in output
