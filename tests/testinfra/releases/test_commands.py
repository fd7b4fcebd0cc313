# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands of an app: in its build, once per release, and those that people run in the live one; what they see."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import time

import pytest
from conftest import ENVIRONMENT, MOODY

DATA = "/var/lib/flask_apps/commands"
RUN = time.time_ns()
TOKEN, NO_TOKEN = (hashlib.sha256(token).hexdigest() for token in (b"c4n4ry", b""))


def variables(machine, **changes):
    """This host leads, though each test deploys to one alone. No release is one of an earlier run of these tests."""
    app = {"command_timeout": 60, **changes, "env": {"RUN": str(RUN), **changes.get("env", {})}}
    leader = {"flask_app_release_leader": machine.name}
    return {**MOODY, **leader, "flask_app_only": ["commands"], "flask_app_overrides": {"commands": app}}


def notes(machine):
    return machine.output(f"cat {DATA}/notes").splitlines()


def seen_by_web(machine, app="commands"):
    return json.loads(machine.get(f"{app}.test", "/seen")[1])


@pytest.fixture
def live(machine):
    """The release that is live before; no file of another test is there."""
    machine.deploy(**variables(machine))
    machine.output(
        f"rm -f {DATA}/notes {DATA}/told {DATA}/begun; touch {DATA}/notes; chown flask-commands {DATA}/notes"
    )
    return machine.live("commands")["release"]


def test_build_commands(machine, live):
    """They see their build and nothing else, and what they make is part of it."""
    machine.deploy(**variables(machine, build_commands=["flask build"], env={"GREETING": "hi"}))
    built = json.loads(machine.get("commands.test", "/built")[1])
    build = machine.output("realpath /opt/flask_apps/commands/current/build").strip()
    expected = {"token": NO_TOKEN, "greeting": None, "debug": False, "interfaces": ["lo"], "apps": ["commands"]}
    assert {**built, **expected, "directory": build, "user": "flask-commands", "version": "1"} == built
    assert machine.output(f"stat -c '%U %a' {build}/built.json").strip() == "root 644"


@pytest.mark.parametrize(
    "command, problem",
    [("echo no tool; exit 3", "exited with status 3"), ("echo no tool; sleep 60", "was ended after 5 s")],
)
def test_a_build_command_that_fails(machine, live, command, problem):
    builds = machine.output("ls /opt/flask_apps/commands/builds")
    changes = {"build_commands": ["touch half", command], "version": "version2", "command_timeout": 5}
    with machine.under_load("commands", rate=40) as report:
        result = machine.attempt(**variables(machine, **changes))
    assert result.returncode != 0 and report["failed"] == 0
    assert f"commands: build command: `{command}` {problem}" in result.stdout and "    no tool\n" in result.stdout
    assert machine.live("commands")["release"] == live
    assert machine.output("ls /opt/flask_apps/commands/builds") == builds


def test_release_commands_run_as_the_app_does(machine, live):
    commands = ["flask tell > ~/told", "flask note"]
    changes = {"release_commands": commands, "env": {"GREETING": "hi $x %i"}, "limits": {"tasks_max": 77}}
    output = machine.deploy("--check", **variables(machine, **changes))
    assert "after `flask tell > ~/told` and `flask note`" in " ".join(output.split()) and notes(machine) == []
    machine.deploy(**variables(machine, **changes))
    told = json.loads(machine.output(f"cat {DATA}/told"))
    assert told == seen_by_web(machine)
    assert (told["token"], told["greeting"], told["debug"]) == (TOKEN, "hi $x %i", False)
    assert notes(machine) == ["1 hi $x %i"]


def test_what_env_says_goes_before_the_defaults_of_production(machine, live):
    """That debugging is off in spite of the repository's .flaskenv is seen in the other tests."""
    env = {"FLASK_DEBUG": "1", "FLASK_APP": "nothing:app"}
    machine.deploy(**variables(machine, env=env, release_commands=["flask --app app tell > ~/told"]))
    told = json.loads(machine.output(f"cat {DATA}/told"))
    assert told["debug"] and seen_by_web(machine)["debug"]
    assert "Could not import 'nothing'" in machine.host.run("flask-app commands flask tell").stderr


def test_release_commands_run_once_per_release(machine, live):
    greetings = ["one", "two"]
    one, two = (
        variables(machine, release_commands=["flask note"], env={"GREETING": greeting}) for greeting in greetings
    )
    machine.deploy(**one)
    assert "changed=0" in machine.deploy(**one)
    machine.deploy(**two)
    assert notes(machine) == ["1 one", "1 two"]
    machine.deploy(playbook="rollback", **one)
    assert machine.get("commands.test")[1] == "1 one 0"
    machine.deploy(**two)
    assert machine.get("commands.test")[1] == "1 two 0" and notes(machine) == ["1 one", "1 two"]


def test_release_commands_are_left_to_the_leader(machine, live, inventory):
    other = next(name for name in inventory if name not in (machine.name, "localhost"))
    changed = variables(machine, release_commands=["flask note"], env={"GREETING": "led"})
    output = machine.deploy(**{**changed, "flask_app_release_leader": other})
    assert f"(its release commands are {other}'s to run)" in " ".join(output.replace("''", "'").split())
    assert notes(machine) == []


@pytest.mark.parametrize(
    "command, problem",
    [("echo no table; exit 3", "exited with status 3"), ("echo no table; sleep 60", "was ended after 5 s")],
)
def test_a_release_command_that_fails(machine, live, command, problem):
    changes = {"release_commands": ["echo half", command], "version": "version2", "command_timeout": 5}
    with machine.under_load("commands", rate=40) as report:
        result = machine.attempt(**variables(machine, **changes))
    assert result.returncode != 0 and report["failed"] == 0
    assert f"commands: release command: `{command}` {problem}" in result.stdout and "    no table\n" in result.stdout
    assert machine.live("commands")["release"] == live
    failed = json.loads(machine.output("cat $(ls -t /opt/flask_apps/commands/marks/*.json | head -1)"))
    told = {"state": "failed", "step": "release command", "command": command, "journal": ["no table"]}
    assert told.items() <= failed.items() and failed["release_commands"] == 1
    assert not machine.output("systemctl list-units --no-legend 'flask-commands.command*'")


def test_a_killed_run_is_taken_up_where_it_was(machine, live):
    """Commands that were done are not repeated; the one that was not done is ended and run again."""
    slow = "test -e ~/begun || { touch ~/begun; sleep 600; }"
    changed = variables(machine, release_commands=["flask note", slow], env={"GREETING": "killed"}, command_timeout=900)
    command = machine.deploy_command(**changed)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as run:
        deadline = time.monotonic() + 60
        while not machine.host.file(f"{DATA}/begun").exists and time.monotonic() < deadline:
            time.sleep(0.2)
        # the module, and with it what waits for the command; the command itself goes on
        [wait] = machine.output("grep -lx systemd-run /proc/[0-9]*/comm | cut -d/ -f3").split()
        module = machine.output(f"cut -d' ' -f4 /proc/{wait}/stat").strip()
        assert int(module) > 1
        machine.output(f"kill -KILL {module} {wait}")
        run.communicate()
    assert run.returncode != 0 and machine.live("commands")["release"] == live
    assert machine.output("systemctl list-units --no-legend 'flask-commands.command*'")
    machine.deploy(**changed)
    assert machine.get("commands.test")[1] == "1 killed 0" and notes(machine) == ["1 killed"]
    assert not machine.output("systemctl list-units --no-legend 'flask-commands.command*'")


@pytest.mark.parametrize("app", ["commands", "granian"])
def test_a_command_of_a_person(machine, app):
    """As the app runs, with the terminal that there is, and the command's exit status."""
    machine.deploy(**{**variables(machine), "flask_app_only": [app], "flask_app_overrides": {}})
    assert json.loads(machine.output(f"flask-app {app} flask tell")) == seen_by_web(machine, app)
    inside = ["podman", "exec", "--interactive", machine.host.backend.name, "flask-app", app]
    options = {"capture_output": True, "text": True}
    piped = subprocess.run([*inside, "sh", "-c", "cat; exit 7"], input="$HOME", check=False, **options)
    assert (piped.stdout, piped.returncode) == ("$HOME", 7)
    inside.insert(2, "--tty")
    shown = subprocess.run([*inside, "flask", "tell"], input="", check=False, **options)
    told = json.loads(re.search(r"\{.*\}", shown.stdout)[0])
    assert told == {**seen_by_web(machine, app), "terminal": True}
    assert machine.host.run(f"flask-app {app} touch ../x").rc != 0, "it can't write where the app can't"


def test_a_command_from_the_controller(machine, live):
    command = "echo hello; printenv TOKEN >&2"
    asked = {"playbook": "command", "flask_app_command_app": "commands"}
    output = machine.deploy(**asked, flask_app_command=command)
    assert "- hello\n" in output and "********" in output and "c4n4ry" not in output
    assert "c4n4ry" not in machine.deploy("-vvv", **asked, flask_app_command=command)
    assert "changed=1" in machine.deploy("--check", **asked, flask_app_command="flask note") and notes(machine) == []
    failed = machine.attempt(**asked, flask_app_command="echo no user >&2; exit 3")
    assert failed.returncode != 0 and "commands: `echo no user >&2; exit 3` exited with status 3" in failed.stdout
    ended = machine.attempt(**asked, flask_app_command="sleep 60", flask_app_command_timeout=1)
    assert "commands: `sleep 60` was ended after 1 s" in ended.stdout
    nowhere = machine.attempt(playbook="command", flask_app_command_app="comands", flask_app_command="true")
    assert "comands has no live release on any of" in nowhere.stdout
    journal = machine.output("journalctl --output=cat --since=-10min | grep -c c4n4ry || true")
    assert int(journal) == 0
