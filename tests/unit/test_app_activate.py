# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module around the activations."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.flaskfleet.deploy.plugins.module_utils.payload import encode
from ansible_collections.flaskfleet.deploy.plugins.module_utils.plan import Inventory, make_plan
from ansible_collections.flaskfleet.deploy.plugins.modules import app_activate


def test_an_unexpected_exception_tells_no_value(monkeypatch, capsys):
    def run(module):
        raise RuntimeError("canary")

    monkeypatch.setattr(app_activate, "Run", run)
    with patch_module_args({"plan": {}, "builds": {}, "payload": ""}), pytest.raises(SystemExit):
        app_activate.main()
    output = capsys.readouterr()
    assert json.loads(output.out)["msg"] == "app_activate failed: RuntimeError"
    assert "canary" not in output.out + output.err


# --- a run -----------------------------------------------------------------------------------------------------------

APPS = [
    {"name": "hello", "domain": "hello.test", "repository": "https://git.test/hello.git"},
    {"name": "other", "domain": "other.test", "repository": "https://git.test/other.git"},
]


@pytest.fixture
def execute(app, systemd, monkeypatch, capsys):
    """Run the module over the apps hello and other; returns its result."""
    monkeypatch.setattr(app_activate.upkeep, "WANTS", "/nowhere")
    mirror = SimpleNamespace(commits=lambda old, new: [f"{old[:1]}..{new[:1]}"])
    monkeypatch.setattr(app_activate, "Mirror", lambda app, unit, hidden: mirror)

    def run(check=False, diff=False, rollback=None, builds=None, leader="web1", **more):
        variables = {"flask_apps": APPS, "flask_app_root": app.root, **more}
        if rollback is not None:
            variables["flask_app_rollback_to"] = rollback
        inventory = Inventory("web1", ["web1", "web2"], lambda app: leader)
        plan = make_plan(variables, {"proxy_user": "root"}, "web1", rollback is not None, inventory)
        files = {"files": {"gunicorn.conf.py": "", "service.conf": "# of one\n"}, "environment": {"TOKEN": "c4n4ry"}}
        payload = encode({"apps": {each["name"]: files for each in APPS}, "secrets": ["c4n4ry"]})
        arguments = {"plan": plan, "builds": builds or {}, "payload": payload}
        arguments |= {"_ansible_check_mode": check, "_ansible_diff": diff}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            app_activate.main()
        return json.loads(capsys.readouterr().out)

    return run


def recorded(app, name, **more):
    """A release with all that a real one has."""
    app.add(name, **more)
    path = Path(app.releases_directory, name, "release.json")
    release = app.release(name)
    recipe = {"commit": name * 40, "subject": "A subject", "url": "http://hello.test/", "settings": {"env.A": name}}
    recipe |= {"user": "root", "proxy_user": "root", "path": ".", "data": "/nowhere", "server": "gunicorn"}
    recipe |= {"socket": "/run/{release}.sock", "max_requests": 0}
    path.write_text(json.dumps({**release, **recipe}))
    Path(app.releases_directory, name, "environment").write_text(f'TOKEN="c4n4ry{name}"\n')


def test_a_check_tells_which_release_commands_would_be_run(app, execute, monkeypatch):
    monkeypatch.setitem(APPS[0], "release_commands", ["flask db upgrade"])
    builds = {"hello": {"commit": "c" * 40, "build": "cccc", "subject": None}}
    entry = execute(check=True, builds=builds)["apps"]["hello"]
    assert (entry["release_commands"], entry["release_leader"]) == (["flask db upgrade"], "")
    entry = execute(check=True, builds=builds, leader="web2")["apps"]["hello"]
    assert (entry["release_commands"], entry["release_leader"]) == ([], "web2")
    app.add(entry["to"], live=True, build="cccc")
    Path(app.releases_directory, entry["to"], "environment").write_text('TOKEN="c4n4ry"\n')
    Path(app.releases_directory, entry["to"], "gunicorn.conf.py").write_text("")
    Path(app.releases_directory, entry["to"], "service.conf").write_text("# of one\n")
    path = Path(app.releases_directory, entry["to"], "release.json")
    path.write_text(json.dumps({**app.release(entry["to"]), "stem": entry["to"]}))
    entry = execute(check=True, builds=builds)["apps"]["hello"]
    assert (entry["from"] == entry["to"], entry["release_commands"]) == (True, [])


def test_what_waits_for_the_leader_is_told_and_changes_nothing(app, execute, systemd, monkeypatch):
    monkeypatch.setitem(APPS[0], "release_commands", ["flask db upgrade"])
    builds = {"hello": {"commit": "c" * 40, "build": "cccc", "subject": None}}
    result = execute(builds=builds, leader="web2", flask_app_release_commands_hold=True)
    entry = result["apps"]["hello"]
    assert (entry["to"], entry["held"][:9], entry["release_leader"]) == (None, "cccccccc-", "web2")
    assert (result["changed"], result["errors"], systemd.commands) == (False, [], [])
    assert "is held back until" in result["summary"][0] and "web2 has run its release commands" in result["summary"][0]
    done = {"flask_app_release_commands_done": {"hello": "cccccccc"}}
    result = execute(builds=builds, leader="web2", check=True, flask_app_release_commands_hold=True, **done)
    assert (result["apps"]["hello"]["to"], result["changed"]) == (entry["held"], True)


def test_a_check_of_a_rollback_tells_what_it_would_do_and_touches_nothing(app, execute, systemd):
    recorded(app, "a", created=1)
    recorded(app, "b", created=2, live=True, replaced="a")
    result = execute(check=True, diff=True, rollback={"hello": ""})
    entry = {"from": "b", "to": "a", "changed": True, "mended": [], "url": "", "seconds": 0.0}
    entry |= {"release_commands": [], "release_leader": "", "held": "", "backup": ""}
    entry |= {"mended_since": {}, "live_since": None}
    assert result["apps"]["hello"] | {"url": ""} == entry
    assert result["diff"] == [{"prepared": "hello: b -> a\n  - a..b\n  ~ env.A changed\n  ~ secrets.TOKEN changed\n"}]
    assert result["changed"] is True and result["errors"] == []
    assert app.live() == "b" and systemd.commands == []
    assert "c4n4ry" not in json.dumps(result)


def test_apps_that_cannot_go_back_are_told_beside_those_that_can(app, execute):
    recorded(app, "a", created=1)
    recorded(app, "b", created=2, live=True, replaced="a")
    result = execute(check=True, rollback={})
    assert list(result["apps"]) == ["hello"]
    assert [error["app"] for error in result["errors"]] == ["other"]
    assert "no release has had the traffic yet" in result["errors"][0]["text"]


def test_a_check_names_the_release_each_app_would_get(app, execute):
    recorded(app, "a", live=True)
    builds = {"hello": {"commit": "c" * 40, "build": "cccc", "subject": None}}
    result = execute(check=True, diff=True, builds=builds)
    assert result["apps"]["hello"]["to"].startswith("cccccccc-")
    assert "  + a..c\n" in result["diff"][0]["prepared"]
    builds["hello"]["commit"] = None
    assert execute(check=True, builds=builds)["summary"] == ["hello: a -> unknown until deployed, http://hello.test/"]


def test_a_rollback_warns_of_what_release_commands_have_changed(app, execute, monkeypatch):
    recorded(app, "aaaa", created=1, release_commands=1)
    recorded(app, "bbbb", created=2, release_commands=1, backup="/backups/b.dump")
    recorded(app, "cccc", created=3, live=True, replaced="aaaa", release_commands=2, backup="/backups/c.dump")

    said = []
    # what becomes of a warning differs with what else of Ansible is in the process
    monkeypatch.setattr(app_activate.AnsibleModule, "warn", lambda _self, text: said.append(text))

    def warnings(release=""):
        said.clear()
        execute(check=True, rollback={"hello": release})
        return " ".join(said)

    warning = (
        "hello: release commands of {} stay done, which {} must bear with; the data of before is in /backups/{}.dump, "
        "which flaskfleet.deploy.restore takes back"
    )
    assert warning.format("bbbb and cccc", "aaaa", "b") in warnings()
    assert warning.format("cccc", "bbbb", "c") in warnings("bbbb")
    app.note("cccc", release_commands=0)
    app.note("bbbb", release_commands=0)
    assert warnings() == warnings("bbbb") == ""


# --- a watch that died -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("builds", [{}, {"hello": {"commit": "c" * 40, "build": "gone", "subject": "A subject"}}])
def test_the_watch_of_what_has_the_traffic_is_started_also_when_no_new_release_can_be_made(
    app, execute, systemd, monkeypatch, builds
):
    """Its build has failed, or it fails itself: what a killed run left must not wait for one that succeeds."""
    monkeypatch.setattr(app_activate, "note_run", lambda root, failed: None)
    recorded(app, "one")
    recorded(app, "two", live=True)
    app.set_mark("two", "settling", previous="one")
    systemd.units["flask-hello.settle-two.service"] = {"ActiveState": "inactive"}
    result = execute(builds=builds)
    assert "systemd-run" in " ".join(systemd.commands) and "settle hello two" in " ".join(systemd.commands)
    assert len(result["errors"]) == len(builds) and result["changed"]
    assert any(command.startswith("enable flask-hello.target") for command in systemd.commands) is bool(builds)


def test_a_watch_that_cannot_be_started_is_told_and_stops_no_other_app(app, execute, systemd, monkeypatch):
    monkeypatch.setattr(app_activate, "note_run", lambda root, failed: None)
    recorded(app, "two", live=True)
    app.set_mark("two", "settling")
    systemd.units["flask-hello.settle-two.service"] = {"ActiveState": "inactive"}
    systemd.failing.add("systemd-run")
    [error] = execute()["errors"]
    assert error["step"] == "settle" and "its watch could not be started" in error["message"]
