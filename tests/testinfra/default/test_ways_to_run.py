# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""As people run it: over SSH as a user with sudo, parts of it by tag or from a task on, the roles elsewhere."""

from __future__ import annotations

import re
import shutil
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


def run(machine, *options, playbook="flaskfleet.deploy.site", **environment):
    """Run a playbook on this host alone; returns (exit status, output)."""
    command = [str(playbook) if part == "flaskfleet.deploy.site" else part for part in machine.deploy_command()]
    result = subprocess.run(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**ENVIRONMENT, **environment},
    )
    return result.returncode, result.stdout


@pytest.mark.parametrize("pipelining", [True, False])
def test_over_ssh_with_sudo(machine, over_ssh, pipelining):
    assert changed(machine.deploy(**over_ssh, ansible_pipelining=pipelining)) == 0
    machine.deploy(**over_ssh, ansible_pipelining=pipelining, flask_app_overrides={"hello": {"version": "version2"}})
    assert "App version: 2" in machine.get("hello.test")[1]
    assert "c4n4ry" not in machine.output("journalctl --no-pager --output=cat")
    machine.deploy()


def test_a_run_warns_of_nothing(machine):
    status, output = run(machine, ANSIBLE_DEPRECATION_WARNINGS="true")
    assert status == 0, output
    assert "WARNING" not in output


@pytest.mark.parametrize("tag", ["packages", "build", "release", "sites"])
def test_each_part_runs_alone(machine, tag):
    status, output = run(machine, "--tags", tag)
    assert status == 0, output
    assert changed(output) == 0


def test_a_run_may_start_at_any_task_behind_the_plan(machine):
    """Every second task on each host; of nginx_site's only that role runs on: flask_app makes its own plan.

    Behind the look at nginx no site can be written, behind the builds nothing released, which the failure says.
    """
    lines = run(machine, "--list-tasks")[1].splitlines()
    tasks = [
        found.groups() for line in lines if (found := re.search(r"deploy\.(nginx_site|flask_app) : (.*?)\t", line))
    ]
    nginx, apps = tasks.index(("nginx_site", "Plan the sites")), tasks.index(("flask_app", "Plan the apps"))
    behind = [task for task in tasks[nginx + 1 : apps] if task[0] == "nginx_site"] + tasks[apps + 1 :]
    built = behind.index(("flask_app", "Build the apps"))
    assert behind[0] == ("nginx_site", "Install nginx") and behind[-1] == ("flask_app", "Fail when an app has failed")
    nginx_site = [task for role, task in behind if role == "nginx_site"]
    unseen = nginx_site[
        nginx_site.index("Look at the nginx that is there") + 1 : nginx_site.index("Write the sites") + 1
    ]
    assert unseen[0] == "Fail when another process has a port of the sites"
    for role, task in behind[machine.debian :: 2]:
        rest = ["--tags", "packages,sites"] if role == "nginx_site" else []
        status, output = run(machine, "--start-at-task", f"flaskfleet.deploy.{role} : {task}", *rest)
        assert "\nTASK [flaskfleet.deploy." in output, output
        lacks = "Build the apps" if (role, task) in behind[built + 1 :] else ""
        lacks = "Look at the nginx that is there" if role == "nginx_site" and task in unseen else lacks
        if lacks:
            assert status != 0, output
            assert f'Start at the task "{lacks}" or an earlier one.' in " ".join(output.split())
        else:
            assert status == 0, f"{task}: {output}"
            assert changed(output) == 0


PLAY_WITHOUT_FACTS = """
- hosts: appservers
  become: true
  gather_facts: false
  roles: [flaskfleet.deploy.nginx_site, flaskfleet.deploy.flask_app]
"""


@pytest.mark.parametrize("task", ["Write the sites", "Build the apps"])
def test_a_start_behind_the_facts_names_the_task_to_start_at(machine, tmp_path, task):
    (tmp_path / "play.yml").write_text(PLAY_WITHOUT_FACTS)
    status, output = run(machine, "--start-at-task", task, playbook=tmp_path / "play.yml")
    assert status != 0
    assert 'start at the task "Gather the facts that the plan needs" or an earlier one' in " ".join(output.split())


def test_facts_from_a_cache(machine, tmp_path):
    """They are not gathered again while they suffice, and completed where another play cached too few."""
    folder = tmp_path / "cache"
    cache = {
        "ANSIBLE_GATHERING": "smart",
        "ANSIBLE_CACHE_PLUGIN": "jsonfile",
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(folder),
    }

    def gathered():
        """(by the play, by the roles)"""
        status, output = run(machine, "--tags", "packages", **cache)
        assert (status, changed(output)) == (0, 0), output
        return [
            bool(re.search(rf"TASK \[{task}\] \*+\nok", output))
            for task in ("Gathering Facts", r"\S+ : Gather the facts that the plan needs")
        ]

    assert gathered() == [True, False]
    assert gathered() == [False, False]
    shutil.rmtree(folder)
    (tmp_path / "other.yml").write_text("- {hosts: appservers, gather_subset: ['!all', '!min', date_time]}")
    assert run(machine, playbook=tmp_path / "other.yml", **cache)[0] == 0
    assert gathered() == [False, True]
    assert gathered() == [False, False]


def test_roles_in_a_playbook_of_ones_own(machine, tmp_path):
    """Without facts, host by host, with the list in the roles' variables alone."""
    (tmp_path / "play.yml").write_text(PLAYBOOK)
    status, output = run(machine, playbook=tmp_path / "play.yml")
    assert status == 0, output
    assert changed(output) == 0
    assert "hello2: is not in the list any more and was left alone" in output
