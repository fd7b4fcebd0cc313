# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database on another host: its password stays there and with the app, and what becomes of it."""

from __future__ import annotations

import re
import subprocess

import pytest
from waiting import wait_for

MENDED = "/run/mended"  # the tests of the other host are done with this one


@pytest.fixture
def server(machine, inventory):
    """Runs a command on the host that has the database."""
    other = "almalinux" if machine.name == "ubuntu" else "ubuntu"

    def run(command):
        container = inventory[other]["ansible_host"]
        result = subprocess.run(
            ["podman", "exec", container, "sh", "-c", command], capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


@pytest.fixture
def password(peer, server):
    """The password, from where it is kept."""
    path = f"/var/lib/flaskfleet/passwords/{peer.engine}-peer"
    assert server(f"stat -c '%U %a' {path} /var/lib/flaskfleet/passwords").split("\n")[:2] == ["root 600", "root 700"]
    return server(f"cat {path}").strip()


def alter(peer, server, password):
    """Rotate the password by hand."""
    if peer.engine == "postgresql":
        statement = f"ALTER ROLE \\\"flask-peer\\\" PASSWORD '{password}'"
        server(f'cd / && runuser -u postgres -- psql -c "{statement}"')
        server('cd / && runuser -u postgres -- psql -Atc "SELECT pg_terminate_backend(pid) FROM pg_stat_activity'
               " WHERE usename = 'flask-peer'\"")  # fmt: skip
    else:
        account = f"'flask-peer'@'10.89.{network(peer)}.0/255.255.255.0'"
        server(f"mariadb -e \"SET PASSWORD FOR {account} = PASSWORD('{password}')\"")
        server("mariadb -e 'KILL USER \"flask-peer\"'")


def network(peer):
    return peer.machine.address.split(".")[2]


def test_the_password_is_nowhere_else(peer, server, password):
    assert peer.post("/posts", body="from afar")[0] == 200 and "from afar" in peer.posts()
    assert f":{password}@" in peer.environment()
    output = peer.machine.deploy("-vvv", "--diff", **peer.variables(env={"SHOWN": "1"}))
    assert password not in output
    units = "systemctl show 'flask-peer*'; systemctl cat 'flask-peer*'; journalctl --no-pager --output=cat"
    assert password not in peer.machine.output(units)
    assert password not in server("journalctl --no-pager --output=cat")
    release = f"/opt/flask_apps/peer/releases/{peer.live}"
    readable = peer.machine.output(f"find {release}/ -type f -perm /077 | xargs cat")
    assert password not in readable and re.search(
        r"^600 root$", peer.machine.output(f"stat -c '%a %U' {release}/environment")
    )
    peer.deploy()


def test_the_app_does_not_show_it_when_it_fails(peer, password):
    said = peer.fail(env={"TRY": "fail"}, release_commands=["echo $DATABASE_URL; false"])
    assert password not in said and "********" in said


def test_who_may_log_in_is_loaded_after_a_run_that_was_killed(peer, server):
    """Such a run has written it, and not told the server."""
    if peer.engine != "postgresql":
        pytest.skip("what is written for MariaDB is a file_set, whose own tests have that")

    def ask(statement):
        return server(f'cd / && runuser -u postgres -- psql -Atc "{statement}"').strip()

    server(f"touch {ask('SHOW hba_file')}")
    peer.machine.deploy("--limit", "almalinux", playbook="databases", **peer.variables())
    late = "(pg_stat_file(current_setting('hba_file'))).modification > pg_conf_load_time()"
    assert ask(f"SELECT {late}") == "f"


def test_a_password_that_somebody_rotated(peer, server, password):
    alter(peer, server, "another")
    assert peer.get("/health")[0] == 503
    said = peer.fail(env={"TRY": "rotated"})
    assert "OperationalError" in said and password not in said
    # the run on the database's host puts it right
    other = "almalinux" if peer.machine.name == "ubuntu" else "ubuntu"
    try:
        peer.machine.deploy("--limit", other, playbook="databases", **peer.variables())
    finally:
        server(f"touch {MENDED}")
    assert peer.get("/health")[0] == 200


def test_a_password_that_is_gone_stops_that_app_alone(peer, spare, server):
    path = f"/var/lib/flaskfleet/passwords/{peer.engine}-peer"
    before = peer.live, spare.live
    changes = {each: {"env": {"TRY": "gone"}} for each in (peer.name, spare.name)}
    variables = {**peer.variables(), "flask_app_only": list(changes), "flask_app_overrides": changes}
    server(f"mv {path} {path}.aside")
    try:
        result = peer.machine.attempt("--tags", "build,release", **variables)
    finally:
        server(f"mv {path}.aside {path}")
    assert result.returncode != 0 and "keeps no password for it" in " ".join(result.stdout.split())
    assert peer.live == before[0] and spare.live != before[1] and peer.get("/health")[0] == 200


def test_the_end(peer):
    """An app that goes leaves its database, in which it finds everything when it comes back."""
    wait_for(lambda: peer.machine.host.file(MENDED).exists, 300)  # the other host's tests want it here as well
    posts = peer.posts()
    peer.machine.deploy(**peer.variables(state="absent"))
    peer.machine.deploy(**peer.variables())
    assert posts and peer.posts() == posts
