# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics of a host, and that alert rules and dashboard ask for metrics and labels that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from ansible_collections.flaskfleet.deploy.plugins.module_utils import release_host
from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import METRICS, exposition, note_run

EXAMPLES = Path(__file__).parents[2] / "examples" / "monitoring"


@pytest.fixture
def samples(app, monkeypatch, serve, systemd):
    """{line without its value: value} of what the app hello gives, its live release answering with a status."""

    def samples(status, **mark):
        server = serve(status)
        monkeypatch.setattr(release_host.App, "socket_path", lambda self, name: server.path)
        app.add("one", live=True, since=5.0, processes={"worker": {"instances": 2}}, **mark)
        path = Path(app.releases_directory, "one", "release.json")
        path.write_text(json.dumps({**app.release("one"), "commit": "c" * 40}))
        systemd.running("flask-hello.worker@one:1.service")
        systemd.units["flask-hello@one.service"] = {"NRestarts": "2"}
        return dict(line.rsplit(" ", 1) for line in exposition(app.root).splitlines() if not line.startswith("#"))

    return samples


def test_metrics(app, samples, monkeypatch):
    app.add("bad", state="failed")
    monkeypatch.setattr(release_host, "expiry", lambda name: 7)
    note_run(app.root, 3)
    found = samples(200)
    assert float(found.pop("flaskfleet_last_run_seconds")) > 1e9
    assert float(found.pop('flaskfleet_app_last_failure_seconds{app="hello"}')) > 1e9
    assert found == {
        f'flaskfleet_app_release_info{{app="hello",release="one",commit="{"c" * 40}"}}': "1",
        'flaskfleet_app_healthy{app="hello"}': "1",
        'flaskfleet_app_live_since_seconds{app="hello"}': "5.0",
        'flaskfleet_app_settling{app="hello"}': "0",
        'flaskfleet_app_restarts{app="hello"}': "2",
        'flaskfleet_app_process_running{app="hello",process="worker",instance="1"}': "1",
        'flaskfleet_app_process_running{app="hello",process="worker",instance="2"}': "0",
        'flaskfleet_app_failed_releases{app="hello"}': "1",
        'flaskfleet_app_certificate_expiry_seconds{app="hello"}': "7",
        "flaskfleet_last_run_failed_apps": "3",
    }


def test_metrics_of_an_app_that_is_sick(samples):
    found = samples(500, state="settling")
    assert found['flaskfleet_app_healthy{app="hello"}'] == "0"
    assert found['flaskfleet_app_settling{app="hello"}'] == "1"


def test_metrics_without_a_release(app):
    text = exposition(app.root)
    assert 'flaskfleet_app_healthy{app="hello"} 0\n' in text and "release_info" not in text
    assert exposition(f"{app.root}/nowhere") == ""


def test_metrics_are_written_whole(app, tmp_path, monkeypatch):
    monkeypatch.setattr(release_host.os, "geteuid", lambda: 0)
    path = tmp_path / "new" / "flask_apps.prom"
    assert release_host.main(["--root", app.root, "metrics", str(path)]) == 0
    assert path.read_text() == exposition(app.root) and path.stat().st_mode & 0o777 == 0o644


def expressions():
    rules = yaml.safe_load((EXAMPLES / "alerts.yml").read_text())["groups"][0]["rules"]
    dashboard = json.loads((EXAMPLES / "dashboard.json").read_text())
    yield from (rule["expr"] for rule in rules)
    yield from (target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    yield from (each["expr"] for each in dashboard["annotations"]["list"])
    yield from (each["query"] for each in dashboard["templating"]["list"] if each["type"] == "query")


def test_rules_and_dashboard_ask_for_what_there_is():
    known = {f"flaskfleet_{name if name.startswith('last_run') else f'app_{name}'}" for name in METRICS}
    asked = {name for expression in expressions() for name in re.findall(r"flaskfleet_\w+", expression)}
    assert asked and asked <= known
    assert known - asked <= {"flaskfleet_app_settling", "flaskfleet_app_failed_releases"}


def test_panels_of_the_dashboard_do_not_overlap():
    panels = [panel["gridPos"] for panel in json.loads((EXAMPLES / "dashboard.json").read_text())["panels"]]
    taken = [(x, y) for p in panels for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(taken) == len(set(taken)) and max(x for x, _y in taken) < 24
