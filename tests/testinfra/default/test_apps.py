# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The apps run as promised: the right code, as their own users, sandboxed, behind sockets that only nginx can open."""

from __future__ import annotations

import pytest
from conftest import head

APPS = ("hello", "hello2")
BRANCHES = {"hello": "master", "hello2": "version2"}


@pytest.mark.parametrize("app", APPS)
def test_live_release_has_the_commit_of_its_branch(machine, app):
    release = machine.live(app)
    assert release["commit"] == head("hello", BRANCHES[app])
    assert release["release"].startswith(release["commit"][:8])


@pytest.mark.parametrize("app", APPS)
def test_process_runs_as_the_apps_own_user(machine, app):
    pid = machine.property(machine.unit(app), "MainPID")
    assert machine.output(f"ps -o user:32= -p {pid}").strip() == f"flask-{app}"


@pytest.mark.parametrize("app", APPS)
def test_starts_at_boot(machine, app):
    assert machine.host.service(f"flask-{app}.target").is_enabled
    assert machine.property(f"flask-{app}.target", "ActiveState") == "active"
    assert machine.property(f"flask-{app}.live.service", "Result") == "success"


@pytest.mark.parametrize("app", APPS)
def test_only_nginx_may_connect_to_the_socket(machine, app):
    socket = machine.host.file(f"/run/flask_apps/{app}/{machine.live(app)['release']}.sock")
    assert socket.is_socket
    assert (socket.user, socket.mode) == ("www-data" if machine.debian else "nginx", 0o600)
    assert f"flask-{app}" not in machine.output("id -nG www-data || id -nG nginx")


@pytest.mark.parametrize("app", APPS)
def test_code_is_read_only_to_the_app(machine, app):
    build = f"/opt/flask_apps/{app}/builds/{machine.live(app)['build']}"
    assert machine.output(f"find {build} -not -user root -o -not -type l -perm /022") == ""
    assert machine.host.run(f"runuser -u flask-{app} -- touch {build}/app.py").rc != 0


@pytest.mark.parametrize("app", APPS)
def test_apps_cannot_see_each_other(machine, app):
    other = {"hello": "hello2", "hello2": "hello"}[app]
    for path in (
        f"/opt/flask_apps/{other}/releases",
        f"/opt/flask_apps/{other}/repo.git",
        f"/var/lib/flask_apps/{other}",
    ):
        assert machine.host.run(f"runuser -u flask-{app} -- ls {path}").rc != 0


def test_environment_reaches_the_process_to_the_letter(machine):
    pid = machine.property(machine.unit("hello2"), "MainPID")
    environment = machine.output(f"tr '\\n\\0' '\\1\\n' < /proc/{pid}/environ").replace("\1", "\n") + "\n"
    assert "GREETING=hello 'to' \"everybody\", $HOME `id` \\ and\nback\n" in environment
    assert 'API_KEY=c4n4ry "$x" `y` \\z\nend\n' in environment


def test_secrets_are_roots_alone(machine):
    environment = machine.host.file(f"/opt/flask_apps/hello2/releases/{machine.live('hello2')['release']}/environment")
    assert (environment.user, environment.mode) == ("root", 0o600)
    assert machine.host.run("runuser -u flask-hello2 -- cat " + environment.path).rc != 0
    assert "c4n4ry" not in machine.output("journalctl --no-pager --output=cat")
    found = machine.output(
        "grep -rl c4n4ry /opt/flask_apps /etc /var/lib/flaskfleet /var/log 2>/dev/null || true"
    ).split()
    assert all(path.endswith("/environment") for path in found), found


@pytest.mark.parametrize("app", APPS)
def test_sandbox(machine, app):
    """1.2 is the promise for an app with access to the network."""
    verdict = machine.output(f"systemd-analyze security --no-pager {machine.unit(app)}").splitlines()[-1]
    assert float(verdict.split(":")[1].split()[0]) <= 1.2, verdict


def test_dependencies_are_locked(machine):
    lock = machine.output(f"cat /opt/flask_apps/hello/builds/{machine.live('hello')['build']}/.venv/requirements.lock")
    assert "flask==" in lock and "gunicorn==" in lock


def test_nothing_is_left_behind(machine):
    folders = "/opt/flask_apps /etc/nginx /etc/systemd/system /var/lib/flaskfleet"
    assert machine.output(f"find {folders} -name '*.new' -o -name '*.pending' -o -name '*.tmp'") == ""
    assert machine.output("systemctl list-units --failed --no-legend 'flask-*' 'nginx*'") == ""
