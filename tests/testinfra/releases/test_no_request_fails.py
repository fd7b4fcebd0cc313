# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deployments of every kind under load, of apps under every server: no request fails, no stream is cut.

The full campaign, with figures, is benchmarks/deployments.
"""

from __future__ import annotations

import contextlib

from conftest import MOODY

APPS = ("moody", "pinned", "granian")
FIRST = {"moody": "1", "pinned": "21", "granian": "1"}
SECOND = {"moody": "2", "pinned": "22", "granian": "2"}
BRANCH = {"moody": "version2", "pinned": "pinned2", "granian": "version2"}


def overrides(**changes):
    return {app: {"version": BRANCH[app], **changes} for app in APPS}


def workers_of_nginx(machine):
    """Process ids of nginx; a reload starts other workers."""
    return machine.output("pgrep --parent $(cat /run/nginx.pid) | sort")


def test_servers_are_the_ones_meant(machine):
    """That gunicorn 21 and granian are under load, and not what happens to be newest."""
    for app, server in {"moody": "gunicorn==2[7-9]", "pinned": "gunicorn==21", "granian": "granian=="}.items():
        build = machine.live(app)["build"]
        assert (
            machine.output(f"grep -c '^{server}' /opt/flask_apps/{app}/builds/{build}/.venv/requirements.lock") == "1"
        )


def test_no_request_fails(machine):
    """A new version, a configuration, a secret, and two ways back, for three apps at once."""
    before = {app: machine.live(app) for app in APPS}
    nginx = workers_of_nginx(machine)
    seen = []
    with contextlib.ExitStack() as loads:
        reports = {app: loads.enter_context(machine.under_load(app, rate=100, streams=2)) for app in APPS}
        for changes in ({}, {"env": {"GREETING": "hi"}}, {"env": {"GREETING": "hi"}, "secrets": {"TOKEN": "0ther"}}):
            machine.deploy(**MOODY, flask_app_only=APPS, flask_app_overrides=overrides(**changes))
            seen.append({app: machine.live(app) for app in APPS})
        machine.deploy(playbook="rollback", **MOODY, flask_app_only=APPS)
        seen.append({app: machine.live(app) for app in APPS})
        targets = {app: release["release"] for app, release in before.items()}
        machine.deploy(playbook="rollback", **MOODY, flask_app_only=APPS, flask_app_rollback_to=targets)
    code, configuration, secret, back = seen
    for app, report in reports.items():
        assert report["failed"] == 0, (app, report)
        assert report["streams"] >= 3, (app, report)
        answers = {body.rsplit(" ", 1)[0] for body in report["bodies"]}
        assert answers == {f"{FIRST[app]} ", f"{SECOND[app]} ", f"{SECOND[app]} hi"}
        assert code[app]["commit"] != before[app]["commit"]
        assert code[app]["stem"] != configuration[app]["stem"]
        assert (
            secret[app]["stem"] == configuration[app]["stem"]
            and secret[app]["release"] != configuration[app]["release"]
        )
        assert back[app]["stem"] == configuration[app]["stem"]
        assert machine.live(app)["stem"] == before[app]["stem"]
    assert workers_of_nginx(machine) == nginx, "a release never reloads nginx"
