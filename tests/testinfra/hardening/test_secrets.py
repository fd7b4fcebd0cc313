# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a secret can be seen while it is rotated, and after: in one file of root's, and in the processes of its app."""

from __future__ import annotations

import subprocess
import sys
import uuid
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import ENVIRONMENT

# Every process's words, the settings of every unit, and what lies about, over and over; the secret comes on stdin, so
# that no word of this has it.
SAMPLER = r"""
read -r secret
while [ ! -e /run/sampled ]; do
    ps -eo args= > /run/sample-processes
    systemctl show --no-pager 'flask-*' > /run/sample-units
    grep -sl "$secret" /tmp/* /var/tmp/* /run/*.* /dev/shm/* | sort > /run/sample-files
    for kind in processes units files; do
        if grep -s "$secret" /run/sample-$kind; then echo "in $kind"; fi
    done
    [ ! -s /run/sample-files ] || cat /run/sample-files
    echo sampled
done
"""
EVERYWHERE = (
    "find / /run /tmp /var/tmp /dev/shm -xdev -type f -size -64M -not -path '/run/sample-*' -print0 "
    "| xargs -0 grep -sl -e '%s' -- || true"
)


@pytest.fixture
def secret():
    return f"c4n4ry-{uuid.uuid4().hex}"


@pytest.fixture
def vault(tmp_path, secret):
    """Arguments that give the secret to a playbook as the variable vault_token, encrypted."""
    password, variables = tmp_path / "password", tmp_path / "vault.yml"
    password.write_text("correct horse\n")
    variables.write_text(f"vault_token: {secret}\n")
    ansible_vault = str(Path(sys.executable).parent / "ansible-vault")
    subprocess.run(
        [ansible_vault, "encrypt", "--vault-password-file", password, variables], check=True, env=ENVIRONMENT
    )
    assert secret not in variables.read_text()
    return [f"--vault-password-file={password}", f"--extra-vars=@{variables}"]


def rotate(machine, token, *arguments, **changes):
    """Deploy the victim with another secret, given as a template; returns the subprocess.CompletedProcess."""
    overrides = {"victim": {"secrets": {"TOKEN": token}, **changes}}
    variables = {"flask_apps": "{{ test_burgled_apps }}", "flask_app_only": ["victim"]}
    return machine.attempt("--tags", "build,release", *arguments, **variables, flask_app_overrides=overrides)


@contextmanager
def sampled(machine, secret):
    """Look at processes, units and passing files meanwhile; yields a list, which gets the lines that were printed."""
    lines = []
    machine.output("rm -f /run/sampled")
    command = ["podman", "exec", "--interactive", machine.host.backend.name, "sh", "-c", SAMPLER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sampler:
        sampler.stdin.write(f"{secret}\n")
        sampler.stdin.flush()
        try:
            yield lines
        finally:
            machine.output("touch /run/sampled")
            lines += sampler.communicate(timeout=60)[0].splitlines()
    machine.output("rm -f /run/sampled /run/sample-*")


def holders(machine, secret):
    """Paths of the files that hold the secret."""
    return machine.output(EVERYWHERE % secret).split()


def test_a_secret_that_lies_about_is_seen(machine, secret):
    """So that the tests below can fail."""
    with sampled(machine, secret) as lines:
        machine.output(f"echo {secret} > /tmp/lies-about; sh -c 'sleep 3; : {secret}'")
    assert "in processes" in lines and "/tmp/lies-about" in lines
    assert holders(machine, secret) == ["/tmp/lies-about"]
    machine.output("rm /tmp/lies-about")


def test_a_rotated_secret_is_seen_nowhere(machine, secret, vault):
    before = machine.live("victim")["release"]
    predicted = rotate(machine, "{{ vault_token }}", "-vvvv", "--diff", "--check", *vault)
    assert predicted.returncode == 0, predicted.stdout
    assert secret not in predicted.stdout + predicted.stderr
    assert holders(machine, secret) == []
    with sampled(machine, secret) as lines:
        done = rotate(machine, "{{ vault_token }}", "-vvvv", "--diff", *vault)
    assert done.returncode == 0, done.stdout
    assert secret not in done.stdout + done.stderr
    assert "secrets.TOKEN changed" in done.stdout
    assert set(lines) == {"sampled"} and len(lines) > 3, lines
    release = machine.live("victim")["release"]
    assert release != before
    environment = f"/opt/flask_apps/victim/releases/{release}/environment"
    assert holders(machine, secret) == [environment]
    assert machine.output(f"stat --format '%U %a' {environment}") == "root 600"
    assert machine.host.run(f"journalctl --no-pager --output=export | grep -a -c {secret}").stdout.strip() == "0"


def test_a_release_that_fails_tells_no_secret(machine, secret, tmp_path):
    """Not even when the app itself prints it: what is shown of its output is masked."""
    (tmp_path / "token").write_text(secret)
    token = "{{ lookup('file', '%s') }}" % (tmp_path / "token")
    live = machine.live("victim")["release"]
    failed = rotate(machine, token, "-vvvv", "--diff", before_switch="echo the token is $TOKEN; exit 7")
    assert failed.returncode == 2, failed.stdout
    assert "exited with status 7" in failed.stdout
    assert secret not in failed.stdout + failed.stderr
    assert "the token is" in failed.stdout
    assert machine.live("victim")["release"] == live
