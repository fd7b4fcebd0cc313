# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases that are broken in every way there is: they never get the traffic, or lose it by themselves."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time

from conftest import ENVIRONMENT, MOODY

# What the app does, and what the run says of it. All of them are deployed over good releases in one run.
BROKEN = {
    "silent": r"probe: no answer to GET /health within \d s, for 6 s",
    "error": r"probe: GET /health answered 500, expected 2xx, 3xx, for 6 s",
    "import": r"probe: flask-import@{release}\.service",
    "hang": r"probe: no answer to GET /health within \d s, for 6 s",
}
# What the app does some seconds after its start, while the host still watches it.
FAILING = {"crash": "crash=5", "sick": "sick=5"}


def moody(app, mood):
    return {app: {"env": {"MOODY": mood}, "settle": 9}}


def live(machine, apps):
    return {app: machine.live(app)["release"] for app in apps}


def failed_of(machine, app, before):
    return machine.output(f"ls /opt/flask_apps/{app}/marks | grep -v {before}").strip().removesuffix(".json")


def test_the_old_release_serves_on(machine, listener):
    apps = [*BROKEN, "good"]
    before = live(machine, apps)
    overrides = {app: {"env": {"MOODY": app}, "health_timeout": 6} for app in BROKEN}
    overrides["good"] = {"version": "version2"}
    notify = [{"kind": "webhook", "url": listener.url}, {"kind": "webhook", "url": "http://127.0.0.1:1/c4n4ry"}]
    with contextlib.ExitStack() as loads:
        reports = {app: loads.enter_context(machine.under_load(app, rate=40)) for app in apps}
        variables = {**MOODY, "flask_app_overrides": overrides, "flask_app_notify": notify}
        result = machine.attempt(flask_app_only=apps, **variables)
    assert result.returncode != 0
    [said] = listener.heard
    assert said["events"] == ["failure"]
    told = {each["app"]: each["result"] for each in said["apps"]}
    assert told == {**dict.fromkeys(BROKEN, "failed"), "good": "released"}
    assert "flask_app_notify[1] (webhook) was not told: Connection refused" in result.stdout + result.stderr
    assert "c4n4ry" not in result.stdout + result.stderr
    for app, report in reports.items():
        assert report["failed"] == 0, (app, report)
    assert machine.get("good.test")[1].startswith("2 "), "a broken app doesn't stop the others"
    for app, said in BROKEN.items():
        assert machine.live(app)["release"] == before[app]
        failed = failed_of(machine, app, before[app])
        assert re.search(f"{app}: {said.format(release=failed)}", result.stdout), result.stdout
        assert '"failed"' in machine.output(f"cat /opt/flask_apps/{app}/marks/{failed}.json")
        left = machine.output(f"systemctl list-units --all --no-legend 'flask-{app}@*'")
        assert failed not in left and before[app] in left
        assert not machine.host.file(f"/run/flask_apps/{app}/{failed}.sock").exists
    assert "RuntimeError: moody, as asked" in result.stdout, "the journal of the release says why"
    # none of them is ever a way back, and there is no other
    target = {"error": failed_of(machine, "error", before["error"]), "hang": ""}
    back = machine.attempt(playbook="rollback", **MOODY, flask_app_rollback_to=target)
    assert back.returncode != 0 and live(machine, BROKEN) == {app: before[app] for app in BROKEN}
    assert f"error: choose: {target['error']} has not proven good" in back.stdout
    assert "hang: choose: there is no earlier good release to go back to" in back.stdout


def test_traffic_goes_back_by_itself(machine, listener):
    before = live(machine, FAILING)
    overrides = {app: changes for name, mood in FAILING.items() for app, changes in moody(name, mood).items()}
    with machine.under_load("crash", rate=50) as crash, machine.under_load("sick", rate=50) as sick:
        notify = [{"kind": "webhook", "url": listener.url}]
        variables = {**MOODY, "flask_app_overrides": overrides, "flask_app_notify": notify}
        result = machine.attempt(flask_app_only=list(FAILING), **variables)
    assert result.returncode != 0 and "c4n4ry" not in result.stdout + result.stderr
    assert live(machine, FAILING) == before
    [said] = listener.heard
    assert (said["event"], said["title"]) == ("return", "Traffic went back: crash, sick")
    assert [(each["app"], each["host"], each["result"]) for each in said["apps"]] == [
        (app, machine.name, "returned") for app in FAILING
    ]
    for app, problem in {"crash": "exited and (?:was|is) started again", "sick": "GET /health answered 500"}.items():
        assert re.search(f"{app}: settle: .*{problem}.*; traffic went back to {before[app]}", result.stdout)
    # a release whose health path is sick still answers everything else
    assert sick["failed"] == 0, sick
    # of one that dies, what was in flight fails: a request of each client at most
    assert crash["failed"] <= 16, crash


def test_traffic_goes_back_though_the_run_was_killed(machine):
    before = live(machine, ["crash"])
    overrides = {"crash": {**moody("crash", "crash=5")["crash"], "version": "version2"}}
    command = machine.deploy_command(**MOODY, flask_app_only=["crash"], flask_app_overrides=overrides)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=ENVIRONMENT, start_new_session=True) as run:
        deadline = time.monotonic() + 60
        while live(machine, ["crash"]) == before:
            assert time.monotonic() < deadline
        subprocess.run(["pkill", "-KILL", "-s", str(run.pid)], check=False)
        machine.output("pkill -KILL -x -f /usr/bin/python3 || true")  # the module, which Ansible pipes to it
    deadline = time.monotonic() + 30
    while live(machine, ["crash"]) != before:
        assert time.monotonic() < deadline, "the host gives the traffic back without any run"
        time.sleep(0.2)
    assert machine.get("crash.test")[0] == 200
    machine.deploy(**MOODY, flask_app_only=["crash"])
    assert live(machine, ["crash"]) == before
