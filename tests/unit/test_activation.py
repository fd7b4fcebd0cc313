# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases from the first file to the traffic. Files and sockets are real; systemd is not."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import stat
import time
from pathlib import Path

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils import activation, memory, release_host
from ansible_collections.flaskfleet.deploy.plugins.module_utils.activation import Activation
from ansible_collections.flaskfleet.deploy.plugins.module_utils.memory import MIB, Guard
from ansible_collections.flaskfleet.deploy.plugins.module_utils.plan import make_plan
from ansible_collections.flaskfleet.deploy.plugins.module_utils.recipes import (
    recipe_of_plan,
    recipe_of_release,
    rollback_target,
)
from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import CommandFailed
from ansible_collections.flaskfleet.deploy.plugins.module_utils.sandbox import parse_environment, render_environment
from ansible_collections.flaskfleet.deploy.plugins.module_utils.step_error import ActivationError
from hypothesis import given
from hypothesis import strategies as st

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HELLO = {"name": "hello", "domain": "hello.test", "repository": "https://git.test/hello.git"}

# --- the environment file --------------------------------------------------------------------------------------------


def read_environment(text):
    """{name: value} as systemd reads a file of lines NAME="value", with the rules of systemd.exec(5).

    In double quotes, a backslash makes one of `"`, `\\`, backtick and `$` plain, swallows a newline, and stands for
    itself before anything else; a newline stands for itself; a bare double quote ends the value, which may go on
    behind it. Nothing is expanded.
    """
    variables = {}
    position = 0
    while position < len(text):
        name, _equals, rest = text[position:].partition("=")
        assert name and rest.startswith('"'), text[position:]
        position += len(name) + 2
        value = ""
        while text[position] != '"':
            if text[position] == "\\":
                position += 1
                if text[position] != "\n":
                    value += text[position] if text[position] in '"\\`$' else "\\" + text[position]
            else:
                value += text[position]
            position += 1
        assert text[position + 1] == "\n", text[position:]
        position += 2
        variables[name] = value
    return variables


NASTY = [
    "",
    " ",
    "plain",
    "  spaces around  ",
    "$HOME ${HOME} $$ $(id) `id`",
    '"quoted" \'single\' \\"escaped\\"',
    "ends with a backslash\\",
    "\\",
    "\\\\n is no newline, \\n neither",
    "two\nlines\n",
    "back\\\nslash before a newline",
    "\r\n\t\x01\x1b[31m\x7f",
    "# no comment ; no comment",
    "A=b\nB=c",
    '"\nINJECTED="yes',
    "%i %h %% and ünïcode 😀 \u2028",
    "-----BEGIN KEY-----\nMIIE+/=\n-----END KEY-----\n",
]


@pytest.mark.parametrize("value", NASTY)
def test_environment_carries(value):
    variables = {"B": "before", "VALUE": value, "Z": "behind"}
    assert read_environment(render_environment(variables)) == variables
    assert parse_environment(render_environment(variables)) == variables


@given(st.dictionaries(st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]*\Z"), st.text() | st.text("\"\\$`\n'= ab")))
def test_environment_carries_anything(variables):
    assert read_environment(render_environment(variables)) == variables
    assert parse_environment(render_environment(variables)) == variables


def test_environment_is_the_same_whatever_the_order():
    assert render_environment({"B": 2, "A": 1}) == render_environment({"A": "1", "B": "2"}) == 'A="1"\nB="2"\n'


# --- the release that is wanted --------------------------------------------------------------------------------------


FILES = {"gunicorn.conf.py": "workers = 2\n", "service.conf": "[Service]\n"}
BUILD = {"commit": COMMIT, "build": "build", "subject": "A subject"}
GUARD = Guard(0)
USER = getpass.getuser()


@pytest.fixture
def planned(app, short_path):
    """The app hello as the plan has it."""
    roots = {"flask_app_root": app.root, "flask_app_runtime_root": str(short_path)}
    planned = make_plan({"flask_apps": [HELLO], **roots}, {}, "web1")["apps"][0]
    Path(app.builds_directory, "build").mkdir()
    return {**planned, "health": {**planned["health"], "timeout": 0.3}}


@pytest.fixture
def activate(app, planned):
    """Make an Activation of the app with something changed in its plan, build, files or environment."""

    def make(files=None, environment=None, proxy_user=USER, options=None, **changes):
        build = {key: changes.pop(key, value) for key, value in BUILD.items()}
        environment = {"GREETING": "hello"} if environment is None else environment
        recipe = recipe_of_plan(
            {**planned, **changes}, proxy_user, build, FILES if files is None else files, environment
        )
        return Activation(app, recipe, **(options or {}))

    return make


@pytest.fixture
def stem(planned):
    return f"01234567-{planned['configuration_hash']}"


def outcome(activation, guard=GUARD):
    """Activate and return the error it ended with."""
    activation.activate(guard)
    return activation.error


def test_a_first_release_is_named_by_commit_and_configuration(activate, stem):
    wanted = activate()
    assert (wanted.release, wanted.live, wanted.needed) == (stem, None, True)


def test_a_live_release_whose_record_is_damaged_is_replaced(host, activate, stem):
    """By one of another name, beside it: it may serve as it is."""
    assert outcome(activate()) is None
    record = Path(host.releases_directory, stem, "release.json")
    record.write_text("")
    wanted = activate()
    assert (wanted.live, wanted.release, wanted.needed) == (stem, f"{stem}.2", True)
    assert outcome(wanted) is None and host.live() == f"{stem}.2"


OTHER = {"environment": {"GREETING": "other"}}


@pytest.mark.parametrize(
    "there, failed, wanted, name",
    [
        pytest.param([{}], "", {}, "", id="the same"),
        pytest.param([{}], "", OTHER, ".2", id="a changed secret"),
        pytest.param([{}], "", {"build": "rebuilt"}, ".2", id="another build"),
        pytest.param([{}], "", {"files": {**FILES, "gunicorn.conf.py": "workers = 3\n"}}, ".2", id="another file"),
        pytest.param([{}], "", {"files": {**FILES, "new": ""}}, ".2", id="one more file"),
        pytest.param([{}, OTHER], "", {}, "", id="a secret changed back"),
        pytest.param([{}, OTHER], "", OTHER, ".2", id="the same as the second"),
        pytest.param([{}], "1", {}, ".2", id="one that failed is not tried again"),
        pytest.param([{}, {}], "12", {}, ".3", id="nor are two"),
        pytest.param([{}, {}], "1", {}, ".2", id="a good one behind one that failed"),
        pytest.param([{"commit": "f" * 40}, {}], "", {"commit": "f" * 40}, None, id="an older commit again"),
    ],
)
def test_choose(app, activate, stem, there, failed, wanted, name):
    for position, changes in enumerate(there, 1):
        made = activate(**changes)
        made.write()
        app.switch(made.release)
        if str(position) in failed:
            app.set_mark(made.release, "failed")
    assert len(app.releases()) == len(there)
    expected = stem.replace("01234567", "f" * 8) if name is None else stem + name
    chosen = activate(**wanted)
    assert chosen.release == expected
    assert chosen.needed is (expected != made.release)


@pytest.mark.parametrize("value", NASTY)
def test_a_release_with_any_value_is_made_once(app, activate, value):
    made = activate(environment={"VALUE": value})
    made.write()
    app.switch(made.release)
    assert not activate(environment={"VALUE": value}).needed


def test_a_commit_that_only_the_host_can_tell(activate):
    wanted = activate(commit=None)
    assert (wanted.recipe["stem"], wanted.release, wanted.needed) == (None, None, True)


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_write(app, activate, stem, planned, umask):
    before = os.umask(umask)
    try:
        activate(environment={"TOKEN": "secret"}).write()
    finally:
        os.umask(before)
    directory = Path(app.releases_directory, stem)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir() if not path.is_symlink()}
    private = {"environment": 0o600, "release.json": 0o600}
    assert modes == {**private, "gunicorn.conf.py": 0o644, "service.conf": 0o644}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o711
    assert os.readlink(directory / "build") == "../../builds/build"
    assert os.readlink(directory / "web.sock") == f"{planned['paths']['runtime']}/{stem}.sock" == app.socket_path(stem)
    assert (directory / "environment").read_text() == 'TOKEN="secret"\n'
    assert "secret" not in (directory / "release.json").read_text()
    release = app.release(stem)
    expected = {"app": "hello", "release": stem, "stem": stem, "build": "build", "commit": COMMIT, "keep_releases": 3}
    assert {key: release[key] for key in expected} == expected
    assert (release["health"]["host"], release["url"]) == ("hello.test", "http://hello.test/")
    assert release["processes"] == release["jobs"] == {}


@pytest.mark.parametrize("file", ["gunicorn.conf.py", "environment", "release.json"])
def test_write_that_is_killed_leaves_no_release(app, activate, monkeypatch, file):
    def killed(path, text, mode=0o644):
        if path.endswith(file):
            raise KeyboardInterrupt
        release_host.write_file(path, text, mode)

    wanted = activate()
    monkeypatch.setattr(activation, "write_file", killed)
    with pytest.raises(KeyboardInterrupt):
        wanted.write()
    assert app.releases() == []
    monkeypatch.undo()
    again = activate()
    again.write()
    assert app.releases() == os.listdir(app.releases_directory) == [wanted.release]


def test_write_leaves_a_complete_release_alone(app, activate):
    activate().write()
    before = app.release(activate().release)
    activate().write()
    assert app.release(activate().release) == before


def test_releases_are_in_order_when_the_clock_jumps_back(app, activate):
    app.add("from the future", created=time.time() + 1e9)
    activate().write()
    assert app.releases() == ["from the future", activate().release]


def test_a_live_release_whose_links_are_gone_is_not_taken_for_the_wanted_one(app, activate):
    activate().write()
    app.switch(activate().release)
    assert not activate().needed
    Path(app.releases_directory, app.live(), "web.sock").unlink()
    assert activate().needed and activate().release != app.live()


def test_write_without_its_build(app, activate):
    Path(app.builds_directory, "build").rmdir()
    with pytest.raises(ActivationError, match="^the build build was removed meanwhile, run it again$") as caught:
        activate().write()
    assert caught.value.step == "write"
    assert os.listdir(app.releases_directory) == []


# --- to the traffic --------------------------------------------------------------------------------------------------


@pytest.fixture
def host(app, planned, systemd, short_path, serve):
    """The app on a host whose services answer with ``host.status`` as soon as they are started."""
    (short_path / "hello").mkdir()

    def start(unit):
        if unit.endswith(".service"):
            name = unit.partition("@")[2].removesuffix(".service")
            if not os.path.exists(app.socket_path(name)):  # it runs already
                app.server = serve(app.status, f"hello/{name}.sock")

    app.status = 200
    systemd.on_start = start
    return app


def test_activate(host, activate, systemd, stem):
    host.add("old", live=True)
    wanted = activate()
    assert outcome(wanted) is None
    assert 0 < wanted.seconds < 1
    assert host.live() == stem
    assert "Host: hello.test" in host.server.requests[0]
    mark = host.mark(stem)
    assert (mark["state"], mark["previous"], mark["replaced"]) == ("settling", "old", "old") and mark["since"]
    assert systemd.commands == [
        f"reset-failed flask-hello@{stem}.service",
        f"start --no-block flask-hello@{stem}.socket flask-hello@{stem}.service",
        f"stop flask-hello.settle-{stem}.service",
        f"systemd-run flask-hello.settle-{stem}.service {release_host.PROGRAM} {host.root} settle hello {stem}",
    ]


def test_activate_an_older_release_again(host, activate, stem):
    activate().write()
    created = host.release(stem)["created"]
    host.add("newer", live=True)
    assert outcome(activate()) is None
    assert host.live() == stem and host.release(stem)["created"] == created
    assert host.mark(stem)["previous"] == "newer"


def test_a_sick_release_gets_no_traffic(host, activate, systemd, stem):
    host.add("old", live=True)
    host.status = 500
    systemd.journals[f"flask-hello@{stem}.service"] = "Traceback\nKeyError\n"
    error = outcome(activate())
    assert str(error) == "GET / answered 500, expected 2xx, 3xx, for 0.3 s"
    assert (error.step, error.output) == ("probe", ["Traceback", "KeyError"])
    assert (error.command, error.status) == ("GET /", 500)
    assert host.live() == "old"
    mark = host.mark(stem)
    assert (mark["state"], mark["journal"]) == ("failed", ["Traceback", "KeyError"])
    assert mark["reason"] == str(error)
    units = f"flask-hello@{stem}.service flask-hello@{stem}.socket"
    assert systemd.commands[2:] == [
        f"stop --no-block {units}",
        f"reset-failed {units}",
        f"kill flask-hello@{stem}.service",
        f"stop {units}",
        f"reset-failed {units}",
    ]


def test_a_sick_release_that_does_not_end_is_killed(host, activate, systemd, stem):
    host.add("old", live=True)
    host.status = 500
    systemd.stuck.add(f"flask-hello@{stem}.service")
    assert "answered 500" in str(outcome(activate()))
    assert systemd.state(f"flask-hello@{stem}.service")["ActiveState"] == "inactive"


def test_failures_do_not_pile_up(host, activate, stem):
    host.add("before", created=1)
    host.add("old", created=2, live=True, previous="before")
    for created in range(3, 7):
        host.add(f"sick{created}", created, state="failed")
    host.status = 500
    assert outcome(activate(keep_releases=1))
    assert host.releases() == ["before", "old", stem]


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt()])
def test_what_fails_before_the_switch_is_stopped(host, activate, systemd, stem, monkeypatch, error):
    host.add("old", live=True)
    monkeypatch.setattr(release_host.App, "switch", lambda self, name: (none for none in ()).throw(error))
    with contextlib.suppress(KeyboardInterrupt):
        assert "disk" in str(outcome(activate()))
    assert host.live() == "old"
    assert (host.mark(stem)["state"], host.mark(stem)["reason"]) == ("failed", str(error) or "KeyboardInterrupt")
    assert systemd.state(f"flask-hello@{stem}.service")["ActiveState"] == "inactive"


def test_a_start_without_the_proxy(host, activate, systemd):
    error = outcome(activate(proxy_user="no-such-proxy"))
    assert error.step == "start" and "there is no account 'no-such-proxy'" in str(error)
    assert not any(command.startswith("start") for command in systemd.commands)


@pytest.mark.parametrize("error", [OSError(28, "No space left"), RuntimeError("unexpected")])
def test_an_unexpected_error_is_the_apps_own(host, activate, monkeypatch, error):
    monkeypatch.setattr(Activation, "write", lambda self: (none for none in ()).throw(error))
    found = outcome(activate())
    assert (found.step, str(found)) == ("write", f"{type(error).__name__}: {error}")


def test_activate_all_bounds_how_many_start_at_once():
    class Fake:
        now = most = 0

        def activate(self, guard):
            Fake.now += 1
            Fake.most = max(Fake.most, Fake.now)
            time.sleep(0.05)
            Fake.now -= 1

    activation.activate_all([Fake() for _each in range(5)], 2, GUARD)
    assert Fake.most == 2
    activation.activate_all([], 0, GUARD)


@pytest.mark.parametrize(
    "theirs, refused",
    [(["boot", 20.0], True), (["boot", 5.0], False), (["another boot", 20.0], False), (None, False)],
)
def test_of_two_runs_the_later_one_has_its_way(host, activate, stem, theirs, refused):
    """Whoever gets the lock first; a clock plays no part."""
    host.add("old", live=True)
    host.note("old", began=theirs)
    error = outcome(activate(options={"began": ["boot", 10.0]}))
    if refused:
        assert (error.step, str(error)) == ("start", "a run that began later has released old meanwhile")
        assert host.live() == "old" and host.mark(stem) == {}
    else:
        assert error is None and host.live() == stem and host.mark(stem)["began"] == ["boot", 10.0]


def test_too_little_memory_is_said_before_anything_is_started(host, activate, systemd, stem, monkeypatch):
    host.add("old", live=True)
    monkeypatch.setattr(activation, "used", lambda pid: 512 * MIB)
    monkeypatch.setattr(memory, "available", lambda: 500 * MIB)
    error = outcome(activate(), Guard(64 * MIB))
    assert error.step == "start"
    assert str(error) == (
        "a second release needs about 512 MiB beside the live one, 64 MiB are to stay free, and 500 MiB are available: "
        "nothing was started"
    )
    assert systemd.commands == [] and host.releases() == ["old"] and host.mark(stem) == {}


@pytest.mark.parametrize(
    "installed, max_requests, refused",
    [("21.2.0", 100, True), ("21.2.0", 0, False), ("27.0.1", 100, False), (None, 100, False)],
)
def test_a_server_that_loses_requests(host, activate, planned, installed, max_requests, refused):
    lock = Path(host.builds_directory, "build", ".venv", "requirements.lock")
    lock.parent.mkdir()
    lock.write_text(f"flask==3.1\ngunicorn=={installed}\n" if installed else "flask==3.1\n")
    error = outcome(activate(server={**planned["server"], "max_requests": max_requests}))
    assert (error is not None) is refused
    assert not refused or "server.max_requests must be 0: this app brings gunicorn 21" in str(error)


# --- commands around the switch --------------------------------------------------------------------------------------


@pytest.fixture
def commands(monkeypatch):
    """The commands that are run instead of running them; those in ``commands.failing`` fail.

    :ivar releases: whose processes they were
    :ivar limits: the seconds that they may take
    """

    class Commands(list):
        failing = ()

    ran = Commands()
    ran.releases, ran.limits = [], []

    def run(app, release, command, limit):
        ran.append(command)
        ran.releases.append(release)
        ran.limits.append(limit)
        if command in ran.failing:
            raise CommandFailed(3, ["no cache"])

    monkeypatch.setattr(release_host.App, "run", run)
    monkeypatch.setattr(activation, "stop", lambda unit: None)
    return ran


STEPS = {"before_switch": "flask warm-up", "after_switch": "flask announce"}


def test_commands_around_the_switch(host, activate, commands, stem):
    assert outcome(activate(options={"commands": STEPS, "limit": 42})) is None
    assert commands == ["flask warm-up", "flask announce"]
    assert set(commands.releases) == {stem} and set(commands.limits) == {42}


def test_a_command_that_fails_before_the_switch_keeps_the_traffic_where_it_is(host, activate, commands, stem):
    host.add("old", live=True)
    commands.failing = ["flask warm-up"]
    wanted = activate(options={"commands": STEPS})
    error = outcome(wanted)
    assert (error.step, error.command, error.status) == ("before_switch", "flask warm-up", 3)
    assert (str(error), error.output) == ("`flask warm-up` exited with status 3", ["no cache"])
    assert host.live() == "old" and host.failed(stem) and wanted.seconds is None
    assert len(commands) == 1


def test_a_command_that_fails_after_the_switch_is_told(host, activate, commands, stem):
    host.add("old", live=True)
    commands.failing = ["flask announce"]
    wanted = activate(options={"commands": STEPS})
    assert outcome(wanted).step == "after_switch"
    assert host.live() == stem and host.mark(stem)["state"] == "settling" and wanted.seconds is not None


def test_the_watch_need_not_wait_for_the_command_after_the_switch(host, activate, monkeypatch):
    def run(*arguments):
        with release_host.lock(host.root, wait=0, name=host.name):
            pass

    monkeypatch.setattr(host, "run", run)
    monkeypatch.setattr(activation, "stop", lambda unit: None)
    assert outcome(activate(options={"commands": {"after_switch": "flask announce"}})) is None


def test_a_command_that_a_killed_run_left_is_ended_first(host, activate, commands, monkeypatch):
    stopped = []
    monkeypatch.setattr(activation, "stop", stopped.append)
    assert outcome(activate(options={"commands": {"before_switch": "flask warm-up"}})) is None
    assert stopped == [host.command_unit] == ["flask-hello.command"]


# --- release commands ------------------------------------------------------------------------------------------------

MIGRATE = {"commands": {"release_commands": ["flask db upgrade", "flask seed"], "before_switch": "flask warm-up"}}


def test_release_commands_are_run_before_the_release_is_started(host, activate, commands, systemd, stem):
    started = []
    start = systemd.on_start
    systemd.on_start = lambda unit: (started.append(list(commands)), start(unit))
    assert outcome(activate(options=MIGRATE)) is None
    assert started[0] == ["flask db upgrade", "flask seed"]
    assert commands == ["flask db upgrade", "flask seed", "flask warm-up"]
    assert set(commands.releases) == {stem} and host.mark(stem)["release_commands"] == 2


def test_a_release_command_that_fails_keeps_the_traffic_where_it_is(host, activate, commands, systemd, stem):
    host.add("old", live=True)
    commands.failing = ["flask seed"]
    wanted = activate(options=MIGRATE)
    error = outcome(wanted)
    assert (error.step, error.command, error.status) == ("release command", "flask seed", 3)
    assert (str(error), error.output) == ("`flask seed` exited with status 3", ["no cache"])
    assert host.live() == "old" and wanted.seconds is None and wanted.touched
    told = {"state": "failed", "step": "release command", "command": "flask seed", "status": 3, "journal": ["no cache"]}
    assert told.items() <= host.mark(stem).items()
    assert not [command for command in systemd.commands if command.startswith("start")]


def test_what_a_failed_release_said_is_kept_without_its_secrets(host, activate, commands):
    commands.failing = ["flask seed"]
    wanted = activate(options=MIGRATE, environment={"TOKEN": "no cache"})
    assert outcome(wanted).output == ["no cache"]
    assert host.mark(wanted.release)["journal"] == ["********"]


def test_a_new_try_begins_with_the_first_release_command(host, activate, commands, stem):
    commands.failing = ["flask seed"]
    assert outcome(activate(options=MIGRATE)) is not None
    commands.failing = []
    commands.clear()
    assert outcome(activate(options=MIGRATE)) is None
    assert commands == ["flask db upgrade", "flask seed", "flask warm-up"] and host.live() == f"{stem}.2"


def test_a_new_try_of_what_lost_the_traffic_runs_all_release_commands(host, activate, commands, stem):
    assert outcome(activate(options=MIGRATE)) is None
    host.set_mark(stem, "failed", reason="it died")
    wanted = activate(options=MIGRATE)
    assert (wanted.release, wanted.pending) == (f"{stem}.2", ["flask db upgrade", "flask seed"])


def test_release_commands_that_a_killed_run_got_done_are_not_run_again(host, activate, commands, stem):
    activate().write()
    host.note(stem, release_commands=1)
    wanted = activate(options=MIGRATE)
    assert (wanted.release, wanted.pending) == (stem, ["flask seed"])
    assert outcome(wanted) is None
    assert commands == ["flask seed", "flask warm-up"] and host.mark(stem)["release_commands"] == 2


def test_release_commands_are_not_run_for_what_had_the_traffic_before(host, activate, commands, systemd, stem):
    assert outcome(activate(options=MIGRATE)) is None
    ended(host, stem, systemd)
    assert outcome(activate(environment={"GREETING": "other"}, options=MIGRATE)) is None
    commands.clear()
    assert outcome(activate(options=MIGRATE)) is None
    assert host.live() == stem and commands == ["flask warm-up"]


def test_release_commands_are_not_run_for_its_twin(host, activate, stem):
    assert outcome(activate()) is None
    host.switch("nothing")
    wanted = activate(options={**MIGRATE, "ending": {stem}})
    assert (wanted.release, wanted.pending) == (f"{stem}.2", [])


def test_release_commands_are_the_leaders_to_run(host, activate, commands, stem):
    wanted = activate(options={**MIGRATE, "leader": "web1"})
    assert outcome(wanted) is None
    assert commands == ["flask warm-up"] and "release_commands" not in host.mark(stem)


@pytest.mark.parametrize(
    "done, marker, held",
    [
        ("", "", True),
        ("01234567", "", False),
        ("{stem}", "", False),
        ("76543210", "exit 1", True),
        ("", 'test "$APP $RELEASE $COMMIT" = "hello {stem} {commit}"', False),
        ("", "sleep 5", True),
    ],
)
def test_a_release_is_held_back_until_the_leader_has_run_its_commands(
    host, activate, commands, stem, monkeypatch, done, marker, held
):
    monkeypatch.setattr(activation, "MARKER_TIMEOUT", 0.5)
    host.add("old", live=True)
    hold = {"done": done.format(stem=stem), "marker": marker.format(stem=stem, commit=BUILD["commit"])}
    wanted = activate(options={**MIGRATE, "leader": "web1", "hold": hold})
    assert (wanted.held, wanted.needed) == (stem if held else "", not held)
    if not held:
        assert outcome(wanted) is None
    assert host.live() == ("old" if held else stem)
    assert commands == ([] if held else ["flask warm-up"])


def test_nothing_is_held_back_that_has_no_release_commands(activate):
    nothing = {"done": "", "marker": ""}
    assert activate(options={"leader": "web1", "hold": nothing}).held == ""
    assert activate(options={**MIGRATE, "hold": nothing}).held == ""


def test_the_watch_need_not_wait_for_release_commands(host, activate, monkeypatch):
    """The live release may fail meanwhile; then the traffic goes back, and this run does not take it away."""
    host.add("before")
    host.add("old", live=True)

    def run(*arguments):
        with release_host.lock(host.root, wait=0, name=host.name):
            host.switch("before")

    monkeypatch.setattr(host, "run", run)
    monkeypatch.setattr(activation, "stop", lambda unit: None)
    wanted = activate(options={"commands": {"release_commands": ["flask db upgrade"]}})
    assert str(outcome(wanted)) == "traffic went back to before meanwhile, run it again"
    assert host.live() == "before" and not host.failed(wanted.release)
    assert activate(options=MIGRATE).pending == ["flask seed"]


# --- back ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "replaced, wanted, expected",
    [
        pytest.param("two", "", "two", id="what it was deployed over"),
        pytest.param("bad", "", "three", id="that failed, so the newest good one"),
        pytest.param("gone", "", "three", id="that is gone"),
        pytest.param(None, "", "three", id="unknown"),
        pytest.param("two", "one", "one", id="a release"),
        pytest.param("two", "2222", "two", id="a commit"),
        pytest.param("two", "ffff", "live", id="the commit that is live"),
        pytest.param("two", "live", "live", id="the release that is live"),
    ],
)
def test_rollback_target(app, replaced, wanted, expected):
    for created, (name, digit, state) in enumerate(
        [("one", "1", "settled"), ("two", "2", "settled"), ("three", "3", "settled"), ("bad", "b", "failed")]
    ):
        app.add(name, created, state=state)
        recorded(app, name, commit=digit * 40)
    app.add("live", 9, live=True, replaced=replaced)
    recorded(app, "live", commit="f" * 40)
    app.add("newer", 10)  # deployed and taken back: not earlier
    assert rollback_target(app, wanted) == expected


def recorded(app, name, **more):
    path = Path(app.releases_directory, name, "release.json")
    path.write_text(json.dumps({**app.release(name), **more}))


@pytest.mark.parametrize(
    "there, wanted, message",
    [
        ([], "", "no release has had the traffic yet, so there is nothing to go back from"),
        (["live"], "", "there is no earlier good release to go back to"),
        (["bad", "live"], "", "there is no earlier good release to go back to"),
        (["good", "bad", "live"], "bad", "bad has not proven good; good releases to go back to: good"),
        (["good", "live"], "1234", "1234 is not here any more; good releases to go back to: good"),
        (["live"], "1234", "1234 is not here any more; good releases to go back to: none"),
    ],
)
def test_nothing_to_go_back_to(app, there, wanted, message):
    for created, name in enumerate(there):
        app.add(name, created, state="failed" if name == "bad" else "settled", live=name == "live")
    with pytest.raises(ActivationError) as caught:
        rollback_target(app, wanted)
    assert (caught.value.step, str(caught.value)) == ("choose", message)


@pytest.fixture
def deployed(host, activate):
    """Two deployments, one after the other; returns the name of the first release."""
    first = activate(environment={"TOKEN": "first\n"})
    assert outcome(first) is None
    host.set_mark(first.release, "settled")
    assert outcome(activate()) is None
    return first.release


def back(host, **options):
    target = rollback_target(host)
    return Activation(host, recipe_of_release(host, target), back=target, **options)


def ended(host, name, systemd):
    os.unlink(host.socket_path(name))
    for kind in ("service", "socket"):
        systemd.units.pop(host.unit(name, kind))


def test_a_rollback_makes_no_release(host, deployed):
    before = {name: host.release(name) for name in host.releases()}
    wanted = back(host)
    assert wanted.needed and outcome(wanted) is None
    assert host.live() == deployed
    assert {name: host.release(name) for name in host.releases()} == before
    mark = host.mark(deployed)
    assert (mark["state"], mark["previous"], mark["replaced"]) == ("settling", f"{deployed}.2", None)


def test_a_rollback_to_what_still_drains_takes_a_twin(host, deployed):
    """A unit that is stopping can't be started before it has stopped, which may take as long as its last request."""
    wanted = back(host, ending={deployed})
    assert outcome(wanted) is None
    assert host.live() == f"{deployed}.3"
    same = ("stem", "build", "commit", "subject", "health", "settings")
    assert all(host.release(f"{deployed}.3")[key] == host.release(deployed)[key] for key in same)
    environment = Path(host.releases_directory, f"{deployed}.3", "environment")
    assert environment.read_text() == 'TOKEN="first\n"\n' and stat.S_IMODE(environment.stat().st_mode) == 0o600


def test_a_rollback_passes_the_same_gate(host, deployed, systemd):
    live = host.live()
    host.status = 500
    ended(host, deployed, systemd)
    error = outcome(back(host))
    assert error.step == "probe" and host.live() == live and host.failed(deployed)


def test_a_rollback_that_fails_leaves_alone_what_still_runs(host, deployed, systemd, commands):
    """The earlier release may still answer requests, and is what the watch over the live one would go back to."""
    commands.failing = ["refuse"]
    wanted = back(host, commands={"before_switch": "refuse"})
    assert outcome(wanted).step == "before_switch"
    assert systemd.state(f"flask-hello@{deployed}.service")["ActiveState"] == "active"
    assert not host.failed(deployed) and host.live() == f"{deployed}.2"


def test_a_release_that_begins_to_stop_meanwhile_gets_a_twin(host, deployed, systemd):
    wanted = back(host)
    for kind in ("service", "socket"):
        systemd.units[host.unit(deployed, kind)] = {"ActiveState": "deactivating"}
    assert outcome(wanted) is None
    assert host.live() == wanted.release == f"{deployed}.3"


def test_a_rollback_after_one_to_a_twin_goes_one_further_back(host, deployed, activate):
    """Not forth again to what was just taken back."""
    host.add("oldest", created=1)
    host.set_mark(deployed, "settled", replaced="oldest")
    bad = host.live()
    host.set_mark(bad, "settled")
    assert outcome(back(host, ending={deployed})) is None
    assert host.live() not in (bad, deployed)
    assert rollback_target(host) == "oldest"
    host.remove_release("oldest")
    with pytest.raises(ActivationError, match="no earlier good release"):
        rollback_target(host)


def test_a_rollback_that_the_watch_was_faster_with_is_done(host, deployed):
    wanted = back(host)
    host.set_mark(host.live(), "failed")
    host.switch(deployed)
    assert outcome(wanted) is None
    assert wanted.seconds == 0 and not wanted.touched


def test_a_rollback_to_what_runs_needs_no_memory(host, deployed, monkeypatch):
    monkeypatch.setattr(activation, "used", lambda pid: 512 * MIB)
    monkeypatch.setattr(memory, "available", lambda: 100 * MIB)
    assert outcome(back(host), Guard(64 * MIB)) is None
    assert outcome(activate_other(host), Guard(64 * MIB)).step == "start"


def activate_other(host):
    recipe = recipe_of_release(host, host.live())
    return Activation(host, {**recipe, "files": {**recipe["files"], "environment": 'A="other"\n'}})


def test_a_release_taken_up_again_keeps_its_proof(host, deployed):
    host.set_mark(deployed, "settled", proven=True)
    assert outcome(back(host)) is None
    assert host.mark(deployed)["state"] == "settling" and host.proven(deployed)


def test_what_an_older_version_made_is_no_place_to_go_back_to(app):
    app.add("old", created=1)
    app.add("live", created=2, live=True, replaced="old")
    path = Path(app.releases_directory, "old", "release.json")
    path.write_text(json.dumps({key: value for key, value in app.release("old").items() if key != "socket"}))
    with pytest.raises(ActivationError, match="no earlier good release"):
        rollback_target(app)


def test_what_an_older_version_made_can_be_started(app, systemd):
    app.add("old", live=True)
    Path(app.releases_directory, "old", "service.conf").unlink()
    release_host.start_live(app)
    assert "start --no-block flask-hello@old.socket flask-hello@old.service" in systemd.commands
    assert not os.path.exists(app.drop_in("old"))


# --- what differs ----------------------------------------------------------------------------------------------------


def test_changes_name_settings_and_secrets_and_tell_no_value(host, activate, planned):
    def wanted(env, secrets, threads):
        server = {**planned["server"], "threads": threads}
        return activate(env=env, environment={**env, **secrets}, server=server, secret_names=sorted(secrets))

    assert wanted({}, {}, 4).changes() == []  # the first release differs from nothing
    assert outcome(wanted({"GREETING": "a", "OLD": "x"}, {"TOKEN": "c4n4ry", "SAME": "c4n4ry"}, 4)) is None
    found = wanted({"GREETING": "b", "NEW": "x"}, {"TOKEN": "other", "SAME": "c4n4ry"}, 8).changes()
    assert found == [
        "env.GREETING changed",
        "env.NEW added",
        "env.OLD removed",
        "secrets.TOKEN changed",
        "server.threads changed",
    ]


# --- afterwards ------------------------------------------------------------------------------------------------------


@pytest.fixture
def live(app, activate):
    """A spec whose release is live already."""
    made = activate()
    made.write()
    app.switch(made.release)
    return activate()


@pytest.mark.parametrize(
    "mark, problem, journal",
    [
        ({"state": "settled"}, None, []),
        ({"state": "failed", "reason": "sick"}, "sick", []),
        (
            {"state": "failed", "reason": "sick", "journal": ["KeyError"], "returned_to": "old"},
            "sick; traffic went back to old",
            ["KeyError"],
        ),
        ({"state": "settling"}, "flask-hello.settle-{}.service gave no verdict", ["OSError: disk"]),
        ({"state": "settling", "live": "newer"}, "another run switched to newer meanwhile", []),
    ],
)
def test_await_verdict(app, live, clock, monkeypatch, mark, problem, journal):
    monkeypatch.setattr(activation, "time", clock)
    monkeypatch.setattr(activation, "journal", lambda unit, lines: ["OSError: disk"])
    app.set_mark(live.release, "settling")

    def verdict():
        app.set_mark(live.release, **mark)
        if "live" in mark:
            app.switch(mark["live"])

    clock.after(3, verdict)
    if problem is None:
        live.await_verdict()
        assert live.error is None
    else:
        live.await_verdict()
        assert str(live.error) == problem.format(live.release)
        assert (live.error.step, live.error.output) == ("settle", journal)
    assert round(clock.now - 1000) == (3 if "no verdict" not in (problem or "") else 5 + activation.VERDICT_GRACE)


def test_await_verdict_waits_for_the_last_jobs_of_processes(app, live, clock, monkeypatch):
    monkeypatch.setattr(activation, "time", clock)
    app.add("old", processes={"worker": {"stop_timeout": 600}})
    app.set_mark(live.release, "settling")
    clock.after(590, lambda: app.set_mark(live.release, "settled"))
    live.await_verdict()
    assert live.error is None


def test_await_verdict_waits_for_the_reason(app, live, clock, monkeypatch):
    """The watch gives the traffic back and writes down why afterwards, both under the lock."""
    monkeypatch.setattr(activation, "time", clock)
    app.set_mark(live.release, "settling")
    watch = contextlib.ExitStack()

    def give_back():
        watch.enter_context(release_host.lock(app.root, name=app.name))
        app.switch("old")

    def tell():
        app.set_mark(live.release, "failed", reason="sick", returned_to="old")
        watch.close()

    clock.after(1, give_back)
    clock.after(3, tell)
    with watch:
        live.await_verdict()
    assert str(live.error) == "sick; traffic went back to old"


def test_the_mark_can_be_read_by_people(app):
    app.set_mark("one", "settled")
    assert json.loads(Path(app.marks_directory, "one.json").read_text())["state"] == "settled"


# --- dumps of databases ---------------------------------------------------------------------------------------------


@pytest.fixture
def dumps(monkeypatch, commands):
    """Dumps instead of making them, in the order of all commands."""

    def make(backups, release, limit):
        commands.append(f"dump before {release}")
        if "dump" in commands.failing:
            raise CommandFailed(2, ["no room"])
        return f"/backups/{release}"

    monkeypatch.setattr(activation.Backups, "make", make)
    return {"directory": "/backups", "dump": ["pg_dump", "hello"]}


def test_a_database_is_dumped_before_its_release_commands(host, activate, commands, dumps, stem):
    wanted = activate(options={"commands": {"release_commands": ["flask db upgrade"]}}, services={"backup": dumps})
    assert outcome(wanted) is None and commands == [f"dump before {stem}", "flask db upgrade"]
    assert wanted.backup == host.mark(stem)["backup"] == f"/backups/{stem}"


@pytest.mark.parametrize(
    "begun, others, again",
    [("old", [], False), (False, [], True), ("another", [], True), ("old", ["20260102T000000Z-before-b.dump"], True)],
)
def test_a_dump_from_before_a_migration_that_was_killed_is_kept(
    host, activate, commands, dumps, stem, tmp_path, begun, others, again
):
    """One of now would have half of what the migration does. Unless other releases came in between."""
    host.add("old", live=True)
    dumps = {**dumps, "directory": str(tmp_path)}
    old = tmp_path / "20260101T000000Z-before-a.dump"
    for name in (old.name, *others):
        (tmp_path / name).touch()
    keys = {"options": {"commands": {"release_commands": ["flask db upgrade"]}}, "services": {"backup": dumps}}
    activate(**keys).write()
    host.note(stem, backup=str(old), commands_begun=begun)
    wanted = activate(**keys)
    assert outcome(wanted) is None
    assert (f"dump before {stem}" in commands) is again
    assert wanted.backup == host.mark(stem)["backup"] == (f"/backups/{stem}" if again else str(old))
    assert host.mark(stem)["commands_begun"] == "old"


def test_a_dump_that_fails_lets_nothing_change(host, activate, commands, dumps, stem):
    host.add("old", live=True)
    commands.failing = ["dump"]
    error = outcome(
        activate(options={"commands": {"release_commands": ["flask db upgrade"]}}, services={"backup": dumps})
    )
    assert (error.step, str(error), error.output) == ("backup", "`pg_dump` exited with status 2", ["no room"])
    assert "flask db upgrade" not in commands and host.live() == "old" and host.failed(stem)
