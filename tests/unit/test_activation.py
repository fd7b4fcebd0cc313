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
from pathlib import Path

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils import activation, release_host
from ansible_collections.flaskfleet.deploy.plugins.module_utils.activation import Activation, ActivationError
from ansible_collections.flaskfleet.deploy.plugins.module_utils.plan import make_plan
from ansible_collections.flaskfleet.deploy.plugins.module_utils.sandbox import render_environment
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


@given(st.dictionaries(st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]*\Z"), st.text() | st.text("\"\\$`\n'= ab")))
def test_environment_carries_anything(variables):
    assert read_environment(render_environment(variables)) == variables


def test_environment_is_the_same_whatever_the_order():
    assert render_environment({"B": 2, "A": 1}) == render_environment({"A": "1", "B": "2"}) == 'A="1"\nB="2"\n'


# --- the release that is wanted --------------------------------------------------------------------------------------


@pytest.fixture
def spec(app, short_path):
    """What a run knows of the app hello, as the plan and a build make it."""
    roots = {"flask_app_root": app.root, "flask_app_runtime_root": str(short_path)}
    planned = make_plan({"flask_apps": [HELLO], **roots}, {}, "web1")["apps"][0]
    Path(app.builds_directory, "build").mkdir()
    files = {"gunicorn.conf.py": "workers = 2\n"}
    health = {**planned["health"], "timeout": 0.3}
    build = {"commit": COMMIT, "build": "build", "subject": "A subject", "files": files}
    return {**planned, **build, "health": health, "environment": {"GREETING": "hello"}}


@pytest.fixture
def activate(app, spec):
    """Make an Activation of the app with some of its spec changed."""
    return lambda **changes: Activation(app.root, getpass.getuser(), {**spec, **changes})


@pytest.fixture
def stem(spec):
    return f"01234567-{spec['configuration_hash']}"


def test_a_first_release_is_named_by_commit_and_configuration(activate, stem):
    wanted = activate()
    assert (wanted.release, wanted.live, wanted.needed) == (stem, None, True)


OTHER = {"environment": {"GREETING": "other"}}


@pytest.mark.parametrize(
    "there, failed, wanted, name",
    [
        pytest.param([{}], "", {}, "", id="the same"),
        pytest.param([{}], "", OTHER, ".2", id="a changed secret"),
        pytest.param([{}], "", {"build": "rebuilt"}, ".2", id="another build"),
        pytest.param([{}], "", {"files": {"gunicorn.conf.py": "workers = 3\n"}}, ".2", id="another file"),
        pytest.param([{}], "", {"files": {"gunicorn.conf.py": "workers = 2\n", "new": ""}}, ".2", id="one more file"),
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
    assert (wanted.stem, wanted.release, wanted.needed) == (None, None, True)


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_write(app, activate, stem, spec, umask):
    before = os.umask(umask)
    try:
        activate(environment={"TOKEN": "secret"}).write()
    finally:
        os.umask(before)
    directory = Path(app.releases_directory, stem)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir() if not path.is_symlink()}
    assert modes == {"environment": 0o600, "gunicorn.conf.py": 0o644, "release.json": 0o644}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o711
    assert os.readlink(directory / "build") == "../../builds/build"
    assert os.readlink(directory / "web.sock") == f"{spec['paths']['runtime']}/{stem}.sock" == app.socket_path(stem)
    assert (directory / "environment").read_text() == 'TOKEN="secret"\n'
    assert "secret" not in (directory / "release.json").read_text()
    release = app.release(stem)
    expected = {"app": "hello", "release": stem, "stem": stem, "build": "build", "commit": COMMIT, "keep_releases": 3}
    assert {key: release[key] for key in expected} == expected
    assert (release["health"]["host"], release["url"]) == ("hello.test", "http://hello.test/")


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


def test_write_without_its_build(app, activate):
    Path(app.builds_directory, "build").rmdir()
    with pytest.raises(ActivationError, match="^the build build was removed meanwhile, run it again$") as caught:
        activate().write()
    assert caught.value.step == "write"
    assert os.listdir(app.releases_directory) == []


# --- to the traffic --------------------------------------------------------------------------------------------------


@pytest.fixture
def host(app, spec, systemd, short_path, serve):
    """The app on a host whose services answer with ``host.status`` as soon as they are started."""
    (short_path / "hello").mkdir()

    def start(unit):
        if unit.endswith(".service"):
            name = unit.partition("@")[2].removesuffix(".service")
            app.server = serve(app.status, f"hello/{name}.sock")

    app.status = 200
    systemd.on_start = start
    return app


def test_activate(host, activate, systemd, stem):
    host.add("old", live=True)
    assert 0 < activate().activate() < 1
    assert host.live() == stem
    assert "Host: hello.test" in host.server.requests[0]
    mark = host.mark(stem)
    assert (mark["state"], mark["previous"]) == ("settling", "old") and mark["since"]
    assert systemd.commands == [
        f"start --no-block flask-hello@{stem}.socket flask-hello@{stem}.service",
        f"stop flask-hello.settle-{stem}.service",
        f"systemd-run flask-hello.settle-{stem}.service {release_host.PROGRAM} {host.root} settle hello {stem}",
    ]


def test_activate_an_older_release_again(host, activate, stem):
    activate().write()
    created = host.release(stem)["created"]
    host.add("newer", live=True)
    activate().activate()
    assert host.live() == stem and host.release(stem)["created"] == created
    assert host.mark(stem)["previous"] == "newer"


def test_a_sick_release_gets_no_traffic(host, activate, systemd, stem):
    host.add("old", live=True)
    host.status = 500
    systemd.journals[f"flask-hello@{stem}.service"] = "Traceback\nKeyError\n"
    with pytest.raises(ActivationError, match="^/ answered 500, expected 2xx, 3xx, for 0.3 s$") as caught:
        activate().activate()
    assert (caught.value.step, caught.value.journal) == ("probe", ["Traceback", "KeyError"])
    assert host.live() == "old"
    mark = host.mark(stem)
    assert (mark["state"], mark["journal"]) == ("failed", ["Traceback", "KeyError"])
    assert mark["reason"] == str(caught.value)
    units = f"flask-hello@{stem}.service flask-hello@{stem}.socket"
    assert systemd.commands[1:] == [
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
    with pytest.raises(ActivationError, match="answered 500"):
        activate().activate()
    assert systemd.state(f"flask-hello@{stem}.service")["ActiveState"] == "inactive"


def test_failures_do_not_pile_up(host, activate, stem):
    host.add("before", created=1)
    host.add("old", created=2, live=True, previous="before")
    for created in range(3, 7):
        host.add(f"sick{created}", created, state="failed")
    host.status = 500
    with pytest.raises(ActivationError):
        activate(keep_releases=1).activate()
    assert host.releases() == ["before", "old", stem]


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt()])
def test_what_fails_before_the_switch_is_stopped(host, activate, systemd, stem, monkeypatch, error):
    host.add("old", live=True)
    monkeypatch.setattr(release_host.App, "switch", lambda self, name: (_ for _ in ()).throw(error))
    with pytest.raises(type(error)):
        activate().activate()
    assert host.live() == "old"
    assert (host.mark(stem)["state"], host.mark(stem)["reason"]) == ("failed", str(error) or "KeyboardInterrupt")
    assert systemd.state(f"flask-hello@{stem}.service")["ActiveState"] == "inactive"


def test_a_start_without_the_proxy(host, spec, systemd):
    with pytest.raises(ActivationError, match="there is no account 'no-such-proxy'") as caught:
        Activation(host.root, "no-such-proxy", spec).activate()
    assert caught.value.step == "start"
    assert not any(command.startswith("start") for command in systemd.commands)


def test_activate_all_goes_on_after_a_failure(monkeypatch):
    class Fake:
        def __init__(self, name, outcome):
            self.spec = {"name": name}
            self.outcome = outcome

        def activate(self):
            if isinstance(self.outcome, Exception):
                raise self.outcome
            return self.outcome

    sick = ActivationError("probe", "sick")
    full, unexpected = OSError(28, "No space left"), RuntimeError("unexpected")
    fakes = [Fake("a", sick), Fake("b", full), Fake("c", unexpected), Fake("d", 0.5)]
    outcomes = activation.activate_all(fakes, 2)
    assert outcomes["a"] is sick and outcomes["d"] == 0.5
    assert (outcomes["b"].step, str(outcomes["b"])) == ("write", "OSError: [Errno 28] No space left")
    assert (outcomes["c"].step, str(outcomes["c"])) == ("write", "RuntimeError: unexpected")
    assert activation.activate_all([], 0) == {}


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
        ({"state": "settling"}, "flask-hello.settle-{}.service gave no verdict", []),
        ({"state": "settling", "live": "newer"}, "another run switched to newer meanwhile", []),
    ],
)
def test_await_verdict(app, live, clock, monkeypatch, mark, problem, journal):
    monkeypatch.setattr(activation, "time", clock)
    app.set_mark(live.release, "settling")

    def verdict():
        app.set_mark(live.release, **mark)
        if "live" in mark:
            app.switch(mark["live"])

    clock.after(3, verdict)
    if problem is None:
        live.await_verdict()
    else:
        with pytest.raises(ActivationError) as caught:
            live.await_verdict()
        assert str(caught.value) == problem.format(live.release)
        assert (caught.value.step, caught.value.journal) == ("settle", journal)
    assert round(clock.now - 1000) == (3 if "no verdict" not in (problem or "") else 5 + activation.VERDICT_GRACE)


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
    with watch, pytest.raises(ActivationError, match="^sick; traffic went back to old$"):
        live.await_verdict()


@pytest.mark.parametrize(
    "state, socket, started",
    [
        ("active", True, []),
        ("activating", True, []),
        ("inactive", True, ["start"]),
        ("failed", True, ["start"]),
        ("deactivating", True, ["start"]),
        ("active", False, ["stop", "reset-failed", "start"]),
        ("inactive", False, ["stop", "reset-failed", "start"]),
    ],
)
def test_ensure_running(live, systemd, short_path, state, socket, started):
    if socket:
        (short_path / "hello").mkdir()
        Path(live.host.socket_path(live.live)).touch()
    systemd.units[f"flask-hello@{live.live}.service"] = {"ActiveState": state}
    assert activation.ensure_running([live]) == (["hello"] if started else [])
    assert [command.split()[0] for command in systemd.commands] == started
    assert all("flask-hello@" + live.live in command for command in systemd.commands)


def test_ensure_running_leaves_alone_what_is_being_replaced(activate, systemd):
    assert activation.ensure_running([activate()]) == []
    assert systemd.commands == []


STRAY = "flask-hello@stray.service"


@pytest.mark.parametrize(
    "unit, state, mark, found",
    [
        pytest.param(STRAY, "active", "settled", True, id="a stray"),
        pytest.param(STRAY, "activating", "settled", True, id="one that still starts"),
        pytest.param(STRAY, "failed", "settled", True, id="one that has failed"),
        pytest.param("flask-hello@stray.socket", "active", "settled", True, id="its socket alone"),
        pytest.param(STRAY, "active", "failed", True, id="beside a release that had to keep the traffic"),
        pytest.param(STRAY, "active", "settling", False, id="what the watch may go back to"),
        pytest.param(STRAY, "deactivating", "settled", False, id="one that stops already"),
        pytest.param(STRAY, "inactive", "settled", False, id="one that was stopped"),
        pytest.param("flask-other@stray.service", "active", "settled", False, id="another app's"),
    ],
)
def test_stop_strays(app, live, systemd, unit, state, mark, found):
    app.set_mark(live.live, mark)
    systemd.running(f"flask-hello@{live.live}.service", f"flask-hello@{live.live}.socket")
    systemd.units[unit] = {"ActiveState": state}
    assert activation.stop_strays([live]) == (["hello"] if found else [])
    units = f"{STRAY} flask-hello@stray.socket"
    assert systemd.commands == ([f"stop --no-block {units}", f"reset-failed {units}"] if found else [])


def test_stop_strays_leaves_alone_what_is_being_replaced(app, live, activate, systemd):
    app.set_mark(live.live, "settled")
    systemd.running(STRAY)
    assert activation.stop_strays([activate(**OTHER)]) == []
    assert systemd.commands == []


def test_stop_strays_waits_for_whoever_changes_the_app(app, live, systemd, clock):
    app.set_mark(live.live, "settled")
    systemd.running(STRAY)
    with contextlib.ExitStack() as other:
        other.enter_context(release_host.lock(app.root, name=app.name))

        def let_go():
            assert systemd.commands == []
            other.close()

        clock.after(3, let_go)
        assert activation.stop_strays([live]) == ["hello"]
    assert clock.now >= 1003


@pytest.mark.parametrize(
    "mark, watch, expected",
    [("settling", "inactive", True), ("settling", "active", False), ("settled", "inactive", False)],
)
def test_unsettled(app, live, systemd, mark, watch, expected):
    app.set_mark(live.live, mark)
    systemd.units[f"flask-hello.settle-{live.live}.service"] = {"ActiveState": watch}
    assert activation.unsettled([live]) == ([live] if expected else [])


def test_targets_are_enabled_together_and_once(live, systemd, tmp_path, monkeypatch):
    monkeypatch.setattr(activation, "WANTS", str(tmp_path / "wants"))
    assert activation.not_enabled([live]) == ["flask-hello.target"]
    activation.enable(["flask-hello.target", "flask-other.target"])
    targets = "flask-hello.target flask-other.target"
    assert systemd.commands == [f"enable {targets}", f"start --no-block {targets}"]
    (tmp_path / "wants").mkdir()
    (tmp_path / "wants" / "flask-hello.target").symlink_to("/nowhere")
    assert activation.not_enabled([live]) == []
    activation.enable([])
    assert len(systemd.commands) == 2


def test_the_mark_can_be_read_by_people(app):
    app.set_mark("one", "settled")
    assert json.loads(Path(app.marks_directory, "one.json").read_text())["state"] == "settled"
