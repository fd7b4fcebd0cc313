# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs tell people, what people can add to them, and what runs refuse."""

from __future__ import annotations

import json

from conftest import MOODY, head

GOOD = {**MOODY, "flask_app_only": ["good"]}


def test_diff_shows_commits_and_names_of_settings(machine):
    machine.deploy(**GOOD)
    before = machine.live("good")["release"]
    second = head("moody", "version2")
    changes = {"version": "version2", "env": {"GREETING": "v4lue"}, "secrets": {"TOKEN": "0ther", "NEW": "0ther"}}
    for check in (["--check"], []):
        output = machine.deploy("--diff", *check, **GOOD, flask_app_overrides={"good": changes})
        assert f"good: {before} -> {second[:8]}-" in output
        assert f"+ {second[:7]} The app moody, branch version2" in output
        for line in ("env.GREETING added", "secrets.NEW added", "secrets.TOKEN changed"):
            assert f"  ~ {line}\n" in output
        assert not [value for value in ("v4lue", "0ther", "c4n4ry") if value in output]
        assert (machine.live("good")["release"] == before) is bool(check)
    output = machine.deploy("--diff", playbook="rollback", **GOOD)
    assert f"- {second[:7]} The app moody, branch version2" in output
    assert "  ~ secrets.NEW removed\n" in output


def test_nothing_new_is_no_release(machine):
    machine.deploy(**GOOD)
    before = machine.live("good")["release"]
    output = machine.deploy(**GOOD)
    assert "changed=0" in output and f"good: {before} unchanged, http://good.test/" in output


HOOKS = ("before_build", "after_build", "before_activation", "after_activation")


def test_your_own_tasks_and_commands(machine, tmp_path):
    """Task files around build and activation, commands of the app around the switch."""
    machine.deploy(**GOOD)
    machine.output("rm -f /var/lib/flask_apps/good/notes")
    notes = tmp_path / "notes"
    for hook in HOOKS:
        released = "{{ flask_app_releases.apps.good.to | default('-') }}"
        line = f"{hook} {{{{ flask_app_plan.apps[0].name }}}} {released}"
        lineinfile = {"path": str(notes), "create": True, "mode": "0644", "line": line}
        task = {"ansible.builtin.lineinfile": lineinfile, "delegate_to": "localhost", "become": False}
        (tmp_path / f"{hook}.yml").write_text(json.dumps([{"name": f"Note {hook}", **task}]))
    changes = {
        "env": {"GREETING": 'no"ted $(id)'},
        "before_switch": "flask note",
        "after_switch": 'text=${GREETING}; echo "$text" >> ~/notes',
    }
    hooks = {hook: str(tmp_path / f"{hook}.yml") for hook in HOOKS}
    machine.deploy(**GOOD, flask_app_overrides={"good": changes}, flask_app_hooks=hooks)
    live = machine.live("good")["release"]
    expected = [f"{hook} good {live if hook == 'after_activation' else '-'}" for hook in HOOKS]
    assert notes.read_text().splitlines() == expected
    assert machine.output("cat /var/lib/flask_apps/good/notes") == '1 no"ted $(id)\nno"ted $(id)'
    assert machine.output("stat -c %U /var/lib/flask_apps/good/notes").strip() == "flask-good"
    machine.output("rm /var/lib/flask_apps/good/notes")

    changes.update(env={"GREETING": "refused"}, before_switch="echo no cache; exit 3")
    result = machine.attempt(**GOOD, flask_app_overrides={"good": changes})
    assert result.returncode != 0
    assert "good: before_switch: `echo no cache; exit 3` exited with status 3" in result.stdout
    assert "no cache\n" in result.stdout
    assert machine.live("good")["release"] == live and machine.get("good.test")[1] == '1 no"ted $(id) 0'


def test_too_little_memory_is_said_before_anything_is_started(machine):
    machine.deploy(**GOOD)
    before = machine.live("good")["release"]
    overrides = {"good": {"env": {"GREETING": "large"}}}
    result = machine.attempt(**GOOD, flask_app_overrides=overrides, flask_app_memory_reserve=1000000)
    assert result.returncode != 0
    assert "good: start: a second release needs about " in result.stdout and "nothing was started" in result.stdout
    assert machine.live("good")["release"] == before
    machine.deploy(**GOOD, flask_app_overrides=overrides)
    assert machine.get("good.test")[1] == "1 large 0"


def test_a_server_that_loses_requests_is_refused(machine):
    overrides = {"pinned": {"server": {"max_requests": 1000}}}
    result = machine.attempt(**MOODY, flask_app_only=["pinned"], flask_app_overrides=overrides)
    assert "pinned: write: server.max_requests must be 0: this app brings gunicorn 21" in result.stdout


def test_status(machine, tmp_path):
    path = tmp_path / "status.json"
    variables = {"flask_app_status_format": "json", "flask_app_status_file": str(path)}
    machine.deploy(playbook="status", **variables)
    found = {entry["app"]: entry for entry in json.loads(path.read_text())}
    assert set(found) >= {"moody", "pinned", "granian", "good"}
    for app, entry in found.items():
        live = machine.live(app)
        assert (entry["host"], entry["release"], entry["subject"]) == (machine.name, live["release"], live["subject"])
        assert entry["healthy"] and entry["status"] == 200 and entry["since"] <= entry["releases"][0]["created"] + 3600
        assert 20 * 2**20 < entry["memory"] < 500 * 2**20 and entry["workers"] >= 2 and entry["restarts"] == 0
        assert [each["live"] for each in entry["releases"]].count(True) == 1
    assert found["granian"]["server"] == "granian"
    failed = [each for each in found["error"]["releases"] if each["state"] == "failed"]
    assert "GET /health answered 500" in failed[0]["reason"]
    table = machine.deploy(playbook="status", flask_app_only=["good", "error"])
    assert f"error on {machine.name}: failed release {failed[0]['release']}" in table
    assert f"good   {machine.name}" in table and "moody  " not in table
