# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a further run does, and what it costs. Each test leaves the host as it found it."""

from __future__ import annotations

import re

from conftest import REPOSITORY

COUNTER = "/usr/local/bin/counting-python"


def test_a_second_release_fails_no_request(machine):
    before = machine.live("hello")
    with machine.under_load("hello", rate=150) as report:
        machine.deploy(flask_app_overrides={"hello": {"version": "version2"}})
    assert report["failed"] == 0, report
    assert len(report["bodies"]) == 2, "the load saw the old and the new release"
    assert machine.live("hello")["commit"] != before["commit"]
    with machine.under_load("hello", rate=150) as report:
        machine.deploy()
    assert report["failed"] == 0, report
    assert machine.live("hello")["release"] == before["release"]


def test_a_broken_release_changes_nothing(machine):
    """The new release has no such module: the run says so, and the old release has not been touched."""
    before = machine.live("hello")["release"]
    result = machine.attempt(flask_app_overrides={"hello": {"entrypoint": "nowhere:app", "health_timeout": 10}})
    assert result.returncode != 0
    assert "hello: probe:" in result.stdout and "No module named 'nowhere'" in result.stdout
    assert machine.live("hello")["release"] == before
    assert machine.get("hello.test")[0] == 200
    assert (
        machine.output("systemctl list-units --all --no-legend 'flask-hello@*' | grep -vc " + before + " || true")
        == "0"
    )


def test_a_site_that_nginx_refuses_is_put_back(machine, tmp_path):
    """A user's own template breaks the configuration: the earlier files are back, and nginx serves on."""
    (tmp_path / "site.conf.j2").write_text(
        '{% extends "base/site.conf.j2" %}{% block extra %}no_such_directive;{% endblock %}'
    )
    folder = "sites-available" if machine.debian else "conf.d"
    before = machine.output(f"md5sum /etc/nginx/{folder}/*")
    result = machine.attempt(nginx_site_template_paths=[str(tmp_path)])
    assert result.returncode != 0
    assert 'unknown directive "no_such_directive"' in result.stdout
    assert machine.output(f"md5sum /etc/nginx/{folder}/*") == before
    assert machine.get("hello.test")[0] == 200


def test_pip_can_build_as_well(machine):
    apps = [
        {"name": "pip", "domain": "pip.test", "repository": REPOSITORY, "version": "master", "health_path": "/health"}
    ]
    machine.deploy(flask_apps=apps, flask_app_installer="pip")
    assert machine.get("pip.test")[0] == 200
    assert (
        "flask=="
        in machine.output(
            f"cat /opt/flask_apps/pip/builds/{machine.live('pip')['build']}/.venv/requirements.lock"
        ).lower()
    )


def test_cost_does_not_depend_on_the_number_of_apps(machine):
    """As many tasks and as many module executions for ten apps as for one, when nothing has changed."""
    script = '#!/bin/sh\\necho >> /run/executions\\nexec /usr/bin/python3 "$@"\\n'
    machine.output(f"printf '{script}' > {COUNTER} && chmod 755 {COUNTER}")
    ten = [
        {"name": f"cost{number}", "domain": f"cost{number}.test", "repository": REPOSITORY, "version": "master"}
        for number in range(10)
    ]
    machine.deploy(flask_apps=ten)

    def cost(apps):
        machine.host.run("rm -f /run/executions")
        output = machine.deploy(flask_apps=apps, ansible_python_interpreter=COUNTER)
        recap = re.search(r"ok=(\d+) +changed=(\d+) .* skipped=(\d+)", output)
        return {
            "tasks": int(recap[1]) + int(recap[3]),
            "changed": int(recap[2]),
            "executions": int(machine.output("wc -l < /run/executions")),
        }

    one, all_ten = cost(ten[:1]), cost(ten)
    assert one == all_ten
    assert one["changed"] == 0
    # facts; nginx: packages, look, sites, service; apps: packages, units, builds, releases
    assert one["executions"] <= 9
