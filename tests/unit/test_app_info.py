# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What app_info tells of an app, with a real server on its socket."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.flaskfleet.deploy.plugins.modules import app_info

NOTHING = dict.fromkeys(("release", "commit", "subject", "state", "since", "url", "server", "status"))
USAGE = {"memory": 0, "workers": 0, "restarts": 0, "processes": [], "schedules": []}
USAGE.update(certificate=None, drift=[], backups=[])


@pytest.fixture
def live(app, monkeypatch, serve, systemd):
    """The app with a live release, served with a status."""

    def make(status):
        app.add("one", live=True, state="settling", since=5.0)
        app.install_unit_files("one")
        path = Path(app.releases_directory, "one", "release.json")
        told = {
            "release": "one",
            "commit": "c" * 40,
            "subject": "A subject",
            "url": "http://hello.test/",
            "server": "gunicorn",
        }
        path.write_text(json.dumps({**app.release("one"), **told}))
        server = serve(status) if status else None
        monkeypatch.setattr(type(app), "socket_path", lambda self, name: server.path if server else "/nowhere")
        shown = {key: told[key] for key in ("release", "commit", "subject")}
        releases = [{**shown, "created": 0, "live": True, "state": "settling", "reason": None}]
        return {**told, **USAGE, "app": "hello", "state": "settling", "since": 5.0, "releases": releases}

    return make


@pytest.mark.parametrize(
    "status, state",
    [
        (200, {"status": 200, "healthy": True, "problem": None}),
        (500, {"status": 500, "healthy": False, "problem": "GET /health answered 500, expected 2xx, 3xx"}),
        (None, {"status": None, "healthy": False, "problem": "no answer to GET /health: FileNotFoundError"}),
    ],
)
def test_describe(app, live, status, state):
    told = live(status)
    assert app_info.describe(app) == {**told, **state}


def test_an_app_without_a_release(app):
    problem = "no release has had the traffic yet"
    expected = {"app": "hello", **NOTHING, **USAGE, "healthy": False, "problem": problem, "releases": []}
    assert app_info.describe(app) == expected


def test_what_is_not_as_it_was_left(app, live, monkeypatch, tmp_path):
    live(200)
    path = Path(app.releases_directory, "one", "release.json")
    path.write_text(json.dumps({**app.release("one"), "backup": {"directory": str(tmp_path)}}))
    (tmp_path / "1.dump").write_text("x")
    Path(app.drop_in("one"), "release.conf").write_text("other")
    monkeypatch.setattr(app_info, "expiry", lambda name: 7)
    found = app_info.describe(app, [{"what": "/etc/a is gone", "since": None}])
    assert [each["what"] for each in found["drift"]] == [
        "/etc/a is gone",
        "systemd is told other settings than the release has",
    ]
    assert [each["backup"] for each in found["backups"]] == ["1.dump"] and found["certificate"] == 7


def test_what_the_processes_use(app, live, systemd):
    live(200)
    systemd.units["flask-hello@one.service"] = {"MainPID": str(os.getpid()), "NRestarts": "2"}
    with subprocess.Popen(["sleep", "10"]) as worker:
        found = app_info.describe(app)
        worker.kill()
    assert found["memory"] > 2**20
    assert (found["workers"], found["restarts"]) == (1, 2)


def test_processes(app, live, systemd):
    live(200)
    path = Path(app.releases_directory, "one", "release.json")
    path.write_text(
        json.dumps({**app.release("one"), "processes": {"worker": {"instances": 2}, "beat": {"instances": 1}}})
    )
    units = ["flask-hello.worker@one:1.service", "flask-hello.worker@one:2.service", "flask-hello.beat@one:1.service"]
    systemd.running(units[0])
    systemd.units[units[0]]["MainPID"] = str(os.getpid())
    systemd.units[units[1]] = {"ActiveState": "activating", "SubState": "auto-restart", "NRestarts": "3"}
    found = app_info.describe(app)["processes"]
    assert found[0].pop("memory") > 2**20 and all(each.pop("memory") == 0 for each in found[1:])
    assert found == [
        {"process": "worker", "unit": units[0], "state": "running", "healthy": True, "restarts": 0},
        {"process": "worker", "unit": units[1], "state": "auto-restart", "healthy": False, "restarts": 3},
        {"process": "beat", "unit": units[2], "state": "dead", "healthy": False, "restarts": 0},
    ]


@pytest.mark.parametrize(
    "unit, timer, expected",
    [
        ({}, {"next": 9e6, "last": None}, {"next": 9.0, "healthy": True}),
        ({}, {"next": 9e6, "last": 5e6}, {"next": 9.0, "last": 5.0, "healthy": True}),  # before the host was booted
        (
            {app_info.STARTED: "6000000"},
            {"next": 9e6, "last": 5e6},
            {"next": 9.0, "last": 1006.0, "result": "success", "status": 0, "healthy": True},
        ),
        (
            {app_info.STARTED: "6000000", "Result": "exit-code", "ExecMainStatus": "3"},
            {"next": 9e6, "last": 5e6},
            {"next": 9.0, "last": 1006.0, "result": "exit-code", "status": 3},
        ),
        (
            {app_info.STARTED: "6000000", "ActiveState": "activating", "ExecMainStatus": "0"},
            {"next": 0, "last": 5e6},
            {"last": 1006.0, "running": True, "healthy": True},
        ),
        ({}, None, {}),
    ],
)
def test_schedules(app, live, systemd, monkeypatch, unit, timer, expected):
    clock = SimpleNamespace(time=lambda: 1100.0, monotonic=lambda: 100.0)
    monkeypatch.setattr(app_info, "time", clock)
    live(200)
    path = Path(app.releases_directory, "one", "release.json")
    path.write_text(json.dumps({**app.release("one"), "jobs": {"tidy": {"command": "flask tidy", "timeout": 60}}}))
    name = "flask-hello.tidy.service"
    systemd.units[name] = {"ExecMainStatus": "0", **unit}
    systemd.timers = [{"unit": "flask-hello.tidy.timer", **timer}] if timer else []
    nothing = dict.fromkeys(("next", "last", "result", "status"))
    state = {"schedule": "tidy", "unit": name, **nothing, "running": False, "healthy": False}
    assert app_info.describe(app)["schedules"] == [{**state, **expected}]


def test_the_other_releases(app):
    app.add("good", created=1)
    app.add("bad", created=2, state="failed", reason="sick")
    app.add("unused", created=3, state=None)
    app.add("live", created=4, state="settled", reason="of an earlier time", live=True)
    found = app_info.describe_releases(app)
    assert [(each["release"], each["live"], each["state"], each["reason"]) for each in found] == [
        ("live", True, "settled", None),
        ("unused", False, None, None),
        ("bad", False, "failed", "sick"),
        ("good", False, "settled", None),
    ]


@pytest.mark.parametrize(
    "names, expected",
    [([], ["hello", "zoo"]), (["zoo"], ["zoo"]), (["zoo", "hello", "x"], ["hello", "zoo"]), (["x"], [])],
)
def test_the_apps_of_a_host(app, capsys, names, expected):
    for name in ("zoo/releases", ".tools/uv", "zoo.txt/other"):
        Path(app.root, name).mkdir(parents=True)
    with patch_module_args({"root": app.root, "names": names}), pytest.raises(SystemExit):
        app_info.main()
    result = json.loads(capsys.readouterr().out)
    assert [entry["app"] for entry in result["apps"]] == expected
    assert result["changed"] is False


def test_a_host_without_apps(tmp_path, capsys):
    with patch_module_args({"root": str(tmp_path / "nowhere")}), pytest.raises(SystemExit):
        app_info.main()
    assert json.loads(capsys.readouterr().out)["apps"] == []


def test_the_last_pull_is_told(tmp_path):
    state = app_info.pull.State(str(tmp_path))
    assert app_info.describe_pull(state) is None
    held = {"commit": "b" * 40, "subject": "Two", "reason": "not signed", "output": []}
    result = {"state": "ok", "commit": "a" * 40, "subject": "One", "changed": 0, "seconds": 4.2, "held": held}
    state.write_result(result)
    text = "pulled aaaaaaaa (One), nothing changed, 4.2 s; bbbbbbbb (Two) was held back: not signed"
    assert app_info.describe_pull(state) == {**result, "text": text}
