# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""As people run it: over SSH as a user with sudo, parts of it by tag, the roles in playbooks of their own."""

from __future__ import annotations

import re
import subprocess

import pytest
from conftest import ENVIRONMENT

PLAYBOOK = """
- hosts: appservers
  become: true
  gather_facts: false
  serial: 1
  tasks:
    - ansible.builtin.include_role:
        name: flaskfleet.deploy.nginx_site
      vars: &variables
        flask_apps:
          - name: hello
            domain: hello.test
            repository: "{{ test_repository }}"
            version: master
            health_path: /health
    - ansible.builtin.import_role:
        name: flaskfleet.deploy.flask_app
      vars: *variables
"""


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = tmp_path_factory.mktemp("ssh") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@pytest.fixture
def over_ssh(machine, key):
    """Variables with which Ansible reaches the host over SSH, as the unprivileged user `deploy` with sudo."""
    if machine.host.run("command -v sshd").rc != 0:
        install = "apt-get -qq update && apt-get -qq -y install" if machine.debian else "dnf -q -y install"
        machine.output(f"{install} openssh-server > /dev/null 2>&1")
    machine.output(
        "id deploy > /dev/null 2>&1 || useradd --create-home --shell /bin/bash deploy; install -d -m 700 -o deploy"
        f" ~deploy/.ssh; echo '{key.with_suffix('.pub').read_text().strip()}' > ~deploy/.ssh/authorized_keys;"
        " chown deploy: ~deploy/.ssh/authorized_keys; echo 'deploy ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/deploy;"
        f" systemctl start {'ssh' if machine.debian else 'sshd'}; rm -f /run/nologin"
    )
    return {
        "ansible_connection": "ssh",
        "ansible_host": machine.address,
        "ansible_user": "deploy",
        "ansible_ssh_private_key_file": str(key),
        "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
    }


def changed(output):
    return int(re.search(r"changed=(\d+)", output)[1])


@pytest.mark.parametrize("pipelining", [True, False])
def test_over_ssh_with_sudo(machine, over_ssh, pipelining):
    assert changed(machine.deploy(**over_ssh, ansible_pipelining=pipelining)) == 0
    machine.deploy(**over_ssh, ansible_pipelining=pipelining, flask_app_overrides={"hello": {"version": "version2"}})
    assert "App version: 2" in machine.get("hello.test")[1]
    assert "c4n4ry" not in machine.output("journalctl --no-pager --output=cat")
    machine.deploy()


@pytest.mark.parametrize("tag", ["packages", "build", "release", "sites"])
def test_each_part_runs_alone(machine, tag):
    result = subprocess.run(
        [*machine.deploy_command(), "--tags", tag], capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert changed(result.stdout) == 0


def test_roles_in_a_playbook_of_ones_own(machine, tmp_path):
    """Without facts, host by host, with the list in the roles' variables alone."""
    (tmp_path / "play.yml").write_text(PLAYBOOK)
    command = [
        str(tmp_path / "play.yml") if part == "flaskfleet.deploy.site" else part for part in machine.deploy_command()
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert changed(result.stdout) == 0
    assert "hello2: is not in the list any more and was left alone" in result.stdout
