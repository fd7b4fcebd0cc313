# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nginx serves what the list says and nothing else."""

from __future__ import annotations

import pytest


def test_nginx_is_installed_running_and_enabled(machine):
    assert machine.host.package("nginx").is_installed
    nginx = machine.host.service("nginx")
    assert nginx.is_running and nginx.is_enabled
    assert machine.host.run("nginx -t").rc == 0


@pytest.mark.parametrize(
    "domain, second",
    [("hello.test", False), ("hello2.test", True), ("www.hello2.test", True), ("{host}.hello2.test", True)],
)
def test_each_domain_shows_its_app(machine, domain, second):
    status, body = machine.get(domain.format(host=machine.name))
    assert status == 200
    assert f"Hello from {machine.name}" in body
    assert ("App version: 2" in body) is second


def test_health_path(machine):
    assert machine.get("hello.test", "/health")[0] == 200


def test_unknown_names_are_refused(machine):
    """The connection is closed without an answer, for a foreign name and for the bare address alike."""
    assert machine.get("elsewhere.test")[0] == 0
    assert machine.get(machine.address)[0] == 0


def test_layout(machine):
    if machine.debian:
        link = machine.host.file("/etc/nginx/sites-enabled/hello.test.conf")
        assert link.is_symlink and link.linked_to == "/etc/nginx/sites-available/hello.test.conf"
        assert not machine.host.file("/etc/nginx/sites-enabled/default").exists
    else:
        assert machine.host.file("/etc/nginx/conf.d/hello.test.conf").is_file
        assert not machine.host.file("/etc/nginx/sites-enabled").exists


def test_upstream_connections_outlive_nothing(machine):
    """What the zero-failure switch stands on: nginx closes first, and follows the link anew at each connect."""
    folder = "sites-available" if machine.debian else "conf.d"
    site = machine.host.file(f"/etc/nginx/{folder}/hello.test.conf").content_string
    for line in ("server unix:/opt/flask_apps/hello/current/web.sock;", "keepalive_timeout 1s;", "keepalive_time 1s;"):
        assert line in site
    assert "keepalive = 75" in machine.output("cat /opt/flask_apps/hello/current/gunicorn.conf.py")
