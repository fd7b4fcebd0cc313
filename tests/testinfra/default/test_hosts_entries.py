# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook hosts_entries writes names that resolve, into a file of this machine and into a test host's own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, INVENTORY, PROJECT


def write(*options, **variables):
    """Run the playbook; returns (number of changes, output)."""
    playbook = [str(Path(sys.executable).parent / "ansible-playbook"), "--inventory", str(INVENTORY), *options]
    command = [*playbook, "--diff", "flaskfleet.deploy.hosts_entries", "--extra-vars", json.dumps(variables)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert result.returncode == 0, result.stdout + result.stderr
    return sum(int(count) for count in re.findall(r"changed=(\d+)", result.stdout)), result.stdout


@pytest.fixture(scope="module")
def hosts_file(tmp_path_factory):
    """A hosts file of this machine with the names of the apps on all test hosts."""
    path = tmp_path_factory.mktemp("hosts") / "hosts"
    path.write_text("192.0.2.99 elsewhere.test\n")
    before = path.read_text()
    assert write("--check", hosts_entries_path=str(path))[0] == 1
    assert path.read_text() == before
    assert write(hosts_entries_path=str(path))[0] == 1
    return path


@pytest.fixture
def through(hosts_file, tmp_path):
    """Run a command of this machine to which the file stands in for /etc/hosts; returns its output."""
    subprocess.run([PROJECT / "scripts" / "os-packages", "libnss-wrapper"], check=True)
    # nss_wrapper does not know comments, as hosts(5) has them
    plain = tmp_path / "hosts"
    plain.write_text(re.sub(r"#.*\n", "\n", hosts_file.read_text()).replace("\n\n", "\n"))
    environment = {**os.environ, "LD_PRELOAD": "libnss_wrapper.so", "NSS_WRAPPER_HOSTS": str(plain)}

    def run(*command):
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    return run


def addresses(output):
    return {line.split()[0] for line in output.splitlines()}


def test_names_resolve(machine, inventory, through):
    everywhere = {variables["test_host_address"] for variables in inventory.values()}
    for name in ("hello.test", "hello2.test", "www.hello2.test"):
        assert addresses(through("getent", "ahosts", name)) == everywhere
        assert addresses(through("getent", "hosts", name)) <= everywhere
    assert addresses(through("getent", "ahosts", f"{machine.name}.hello.test")) == {machine.address}
    assert addresses(through("getent", "ahosts", "elsewhere.test")) == {"192.0.2.99"}


def test_a_host_name_shows_the_app_on_that_very_host(machine, through):
    page = through("curl", "--silent", "--max-time", "20", f"http://{machine.name}.hello2.test/")
    assert f"Hello from {machine.name}" in page and "App version: 2" in page


def test_a_second_run_changes_nothing(hosts_file):
    before = hosts_file.read_text()
    assert write(hosts_entries_path=str(hosts_file))[0] == 0
    assert hosts_file.read_text() == before


def test_a_run_may_start_behind_the_plan(hosts_file):
    before = hosts_file.read_text()
    options = {"hosts_entries_path": str(hosts_file)}
    assert write("--start-at-task", "Gather the host's address", **options)[0] == 0
    assert write("--start-at-task", "List the host's entries", "--check", hosts_entries_address="192.0.2.1", **options)[
        0
    ]
    for task, earlier in (
        ("List the host's entries", "Gather the host's address"),
        ("Write the entries", "List the host's entries"),
    ):
        with pytest.raises(AssertionError) as failure:
            write("--start-at-task", task, **options)
        assert f'tart at the task "{earlier}" or an earlier one' in re.sub(r"(\\n|\s)+", " ", str(failure.value))
    assert hosts_file.read_text() == before


def test_a_run_for_one_host_leaves_the_others_alone(machine, hosts_file):
    before = hosts_file.read_text()
    changes, output = write(
        "--limit", machine.name, hosts_entries_path=str(hosts_file), hosts_entries_address="192.0.2.1"
    )
    assert changes == 1
    assert f"\n+192.0.2.1 hello.test {machine.name}.hello.test # hello on {machine.name}\n" in output
    assert hosts_file.read_text() == before.replace(f"{machine.address} ", "192.0.2.1 ")
    only_hello = {"hosts_entries_path": str(hosts_file), "flask_app_only": ["hello"]}
    assert write("--limit", machine.name, **only_hello)[0] == 1
    assert hosts_file.read_text() == before


def test_a_test_hosts_own_file(machine, inventory):
    """It is a mount in a container, so it can be written into but not replaced."""
    before = machine.output("cat /etc/hosts")
    assert write(hosts_entries_target=machine.name)[0] == 1
    for name in inventory:
        assert f"Hello from {name}" in machine.output(f"curl --silent --max-time 20 http://{name}.hello.test/")
    assert write(hosts_entries_target=machine.name)[0] == 0
    assert write(hosts_entries_target=machine.name, flask_apps=[])[0] == 1
    assert machine.output("cat /etc/hosts") == before
