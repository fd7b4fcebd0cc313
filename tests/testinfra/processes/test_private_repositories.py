# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A private repository that a real sshd serves, with a submodule beside it: by its key, to a known server,
without a trace.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

KEYS = Path(__file__).parents[3] / ".cache" / "keys"
PARTS = ("--tags", "build,release")


def annex(**changes):
    overrides = {"flask_app_overrides": {"annex": changes}}
    return {"flask_apps": "{{ test_layout_apps }}", "flask_app_only": ["annex"], **overrides}


@pytest.fixture
def strange_key(tmp_path):
    """A key that neither the server has nor lets in."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    return tmp_path / "key"


def failure(machine, **changes):
    """What is told of a deployment that must fail, and change nothing that serves."""
    before = machine.live("annex")["release"]
    result = machine.attempt(*PARTS, **annex(**changes))
    assert result.returncode != 0 and machine.live("annex")["release"] == before
    assert "PRIVATE KEY" not in result.stdout + result.stderr
    return " ".join(result.stdout.split())


def test_it_is_deployed_with_its_submodule(machine):
    assert json.loads(machine.get("annex.test", "/health")[1]) == {"greeting": "of the submodule"}
    lock = machine.output("cat /opt/flask_apps/annex/current/build/.venv/requirements.lock")
    assert "library @ file://" in lock, "its lock has the submodule as a dependency"


def test_the_key_leaves_no_trace(machine):
    secret = (KEYS / "deploy").read_text().splitlines()[2]
    output = machine.deploy("-vvv", *PARTS, **annex(), flask_app_rebuild=True)
    assert secret not in output and "PRIVATE KEY" not in output
    folders = "/etc /opt /root /run /srv /tmp /usr/local /var"
    assert (
        machine.host.run(f"grep --recursive --fixed-strings --files-with-matches -e '{secret}' {folders}").stdout == ""
    )
    assert machine.host.run(f"journalctl --no-pager | grep --fixed-strings -e '{secret}' -e 'PRIVATE KEY'").stdout == ""


def test_nothing_of_the_key_outlives_a_run_that_is_killed(machine):
    """While git fetches, its account alone reads the key; the next run ends what a killed one left."""
    commit = machine.live("annex")["commit"]
    authorized, mirror = "/srv/git/.ssh/authorized_keys", "/opt/flask_apps/annex/repo.git"
    machine.output("usermod --shell /bin/sh git")  # the account's own runs nothing but git
    machine.output(f"mv {mirror} {mirror}.away && sed -i.away 's/^/command=\"sleep 100\" /' {authorized}")
    try:
        with machine.begin(*PARTS, **annex(version=commit), flask_app_rebuild=True) as run:
            machine.output("timeout 60 sh -c 'until pgrep --euid flaskfleet-fetch --exact ssh; do sleep 0.1; done'")
            assert machine.host.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep '[P]RIVATE KEY'").stdout == ""
            pid = machine.output("pgrep --euid flaskfleet-fetch --exact ssh")
            # where the unit sees it; nobody else does
            found = machine.output(f"find /proc/{pid}/root/run/credentials -name key")
            assert machine.output(f"runuser --user flaskfleet-fetch -- cat {found}").startswith("-----BEGIN OPENSSH")
            assert machine.host.run(f"runuser --user flask-annex -- cat {found}").rc != 0
            assert machine.output(f"stat --file-system --format=%T {found}") in ("ramfs", "tmpfs")
            waiting = machine.output("pgrep --full --oldest 'systemd-run .*flask-annex.build'")
            machine.output(f"kill -KILL $(ps -o ppid= {waiting})")
            run.communicate()
            assert run.returncode != 0
    finally:
        machine.output(f"rm -rf {mirror} && mv {mirror}.away {mirror} && mv {authorized}.away {authorized}")
        machine.output("usermod --shell /usr/bin/git-shell git")
    machine.deploy(*PARTS, **annex(), flask_app_rebuild=True)
    assert "flask-annex" not in machine.output("ls /run/credentials; pgrep --list-full --euid flaskfleet-fetch || true")


def test_a_server_that_shows_another_key_gets_nothing(machine, strange_key):
    known = f"{machine.address} {' '.join((strange_key.parent / 'key.pub').read_text().split()[:2])}\n"
    said = failure(machine, repository_known_hosts=known)
    assert (
        "Host key verification failed" in said and "; `repository_known_hosts` must have the key of that host" in said
    )


def test_a_key_that_may_not_read_it(machine, strange_key):
    said = failure(machine, repository_key=str(strange_key))
    assert "Permission denied (publickey" in said and "; `repository_key` must be a key that may read it" in said


def test_a_file_in_git_lfs_is_no_release(machine):
    said = failure(machine, version="large")
    assert "annex: check the code out: 'web/logo.png' is a pointer to a file in Git LFS, which is not supported" in said


def test_nothing_changes_afterwards(machine):
    assert "changed=0" in machine.deploy(*PARTS, **annex())
