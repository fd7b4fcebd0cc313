# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of live releases that stay, and how it is put right. Files are real; systemd is not."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils import release_host, upkeep
from ansible_collections.flaskfleet.deploy.plugins.module_utils.upkeep import Upkeep

UNIT = "flask-hello@one.service"
STRAY = "flask-hello@stray.service"


@pytest.fixture
def live(app, systemd, monkeypatch, short_path):
    """The app hello as it was left: its release one is live and runs, its socket is there."""
    app.add("one", live=True)
    (short_path / "one.sock").touch()
    monkeypatch.setattr(app, "socket_path", lambda name: str(short_path / f"{name}.sock"))
    release = Path(app.releases_directory, "one", "release.json")
    release.write_text(json.dumps({**json.loads(release.read_text()), "user": USER, "proxy_user": USER}))
    app.install_unit_files("one")
    monkeypatch.setattr(upkeep, "belongings", lambda host, live: [])
    systemd.running(UNIT, "flask-hello@one.socket", "flask-hello.target")
    systemd.commands.clear()
    return SimpleNamespace(host=app, live="one", needed=False, recipe={})


USER = getpass.getuser()


def commands(systemd):
    return [command.split()[0] for command in systemd.commands]


def test_what_is_as_it_was_left_costs_nothing(live, systemd):
    found = Upkeep([live])
    found.mend()
    assert found.findings == {} and systemd.commands == []


def test_what_is_being_replaced_is_left_alone(live, systemd):
    systemd.units[UNIT] = {"ActiveState": "failed"}
    assert Upkeep([SimpleNamespace(host=live.host, live="one", needed=True)]).findings == {}
    assert Upkeep([SimpleNamespace(host=live.host, live=None, needed=True)]).findings == {}


@pytest.mark.parametrize(
    "state, socket, words, expected",
    [
        ("active", True, [], []),
        ("activating", True, [], []),
        ("inactive", True, ["it did not run"], ["start"]),
        ("failed", True, ["it did not run"], ["start"]),
        ("deactivating", True, ["it did not run"], ["start"]),
        ("active", False, ["its socket was gone"], ["stop", "reset-failed", "start"]),
        ("inactive", False, ["its socket was gone"], ["stop", "reset-failed", "start"]),
    ],
)
def test_what_does_not_run_is_started(live, systemd, short_path, state, socket, words, expected):
    if not socket:
        (short_path / "one.sock").unlink()
    systemd.units[UNIT] = {"ActiveState": state}
    found = Upkeep([live])
    assert found.findings == ({"hello": words} if words else {}) and systemd.commands == []
    found.mend()
    assert commands(systemd) == expected


WORKERS = [f"flask-hello.worker@one:{number}.service" for number in (1, 2)]


@pytest.fixture
def working(live, systemd):
    """The same with a process that has two instances."""
    release = Path(live.host.releases_directory, "one", "release.json")
    processes = {"worker": {"instances": 2, "overlap": False, "stop_timeout": 60}}
    release.write_text(json.dumps({**json.loads(release.read_text()), "processes": processes}))
    systemd.running(*WORKERS)
    return live


@pytest.mark.parametrize(
    "state, words",
    [
        ("active", []),
        ("activating", []),
        ("inactive", [f"{WORKERS[1]} did not run"]),
        ("failed", [f"{WORKERS[1]} did not run"]),
        ("deactivating", []),
    ],
)
def test_a_process_that_does_not_run_is_started(working, systemd, state, words):
    systemd.units[WORKERS[1]] = {"ActiveState": state}
    found = Upkeep([working])
    assert found.findings == ({"hello": words} if words else {}) and systemd.commands == []
    found.mend()
    assert systemd.commands == ([f"reset-failed {WORKERS[1]}", f"start --no-block {WORKERS[1]}"] if words else [])


def test_processes_wait_for_their_watch_and_for_others(working, systemd):
    for unit in WORKERS:
        systemd.units.pop(unit)
    working.host.set_mark("one", "settling")
    assert Upkeep([working]).findings == {}
    working.host.set_mark("one", "settled")
    systemd.units["flask-hello.worker@stray:1.service"] = {"ActiveState": "deactivating"}
    assert Upkeep([working]).findings == {}


def test_processes_of_a_stray_are_stopped_before_others_are_started(working, systemd):
    systemd.units.pop(WORKERS[0])
    systemd.running("flask-hello.worker@stray:1.service")
    found = Upkeep([working])
    found.mend()
    assert found.findings == {"hello": ["releases without traffic were running"]}
    assert "stop --no-block flask-hello.worker@stray:1.service" in systemd.commands
    assert not any(command.startswith("start") for command in systemd.commands)
    assert Upkeep([working]).findings == {"hello": [f"{WORKERS[0]} did not run"]}


def test_a_masked_process(working, systemd):
    systemd.units[WORKERS[0]] = {**systemd.units[WORKERS[0]], "LoadState": "masked"}
    found = Upkeep([working])
    found.mend()
    assert found.findings == {"hello": [f"{WORKERS[0]} was masked"]}
    assert systemd.commands == [f"unmask {WORKERS[0]}"] * 2


@pytest.mark.parametrize("unit, then", [(UNIT, []), ("flask-hello@one.socket", ["stop", "reset-failed", "start"])])
def test_a_masked_unit(live, systemd, unit, then):
    systemd.units[unit] = {**systemd.units[unit], "LoadState": "masked"}
    found = Upkeep([live])
    found.mend()
    assert found.findings == {"hello": [f"{unit} was masked"]}
    assert systemd.commands[:2] == [f"unmask {unit}", f"unmask {unit}"]  # in /etc and in /run
    assert commands(systemd)[2:] == then


@pytest.mark.parametrize("text", [None, "[Service]\nMemoryMax=1\n"])
def test_settings_that_systemd_was_told_otherwise(live, systemd, text):
    path = Path(live.host.drop_in("one"), "release.conf")
    path.unlink()
    if text:
        path.write_text(text)
    found = Upkeep([live])
    found.mend()
    assert found.findings == {"hello": ["settings"]} and commands(systemd) == ["daemon-reload"]
    assert path.read_text() == Path(live.host.releases_directory, "one", "service.conf").read_text()
    assert Upkeep([live]).findings == {}


def test_owners_and_modes(live, monkeypatch, tmp_path):
    (tmp_path / "environment").write_text("")
    (tmp_path / "environment").chmod(0o644)
    (tmp_path / "link").symlink_to("/nowhere")
    given = []
    monkeypatch.setattr(os, "chown", lambda *arguments, **options: given.append((arguments, options)))
    mine, others = os.getuid(), os.getuid() + 1
    known = [
        (str(tmp_path / "environment"), 0o600, mine, None),
        (str(tmp_path / "link"), None, others, 7),
        (str(tmp_path / "missing"), 0o600, mine, None),
        (str(tmp_path), None, mine, None),
    ]
    monkeypatch.setattr(upkeep, "belongings", lambda host, live: known)
    found = Upkeep([live])
    assert found.findings == {"hello": [f"owner or mode of {tmp_path}/{name}" for name in ("environment", "link")]}
    found.mend()
    assert (tmp_path / "environment").stat().st_mode & 0o777 == 0o600
    assert given == [
        ((str(tmp_path / "environment"), mine, -1), {"follow_symlinks": False}),
        ((str(tmp_path / "link"), others, 7), {"follow_symlinks": False}),
    ]


def test_a_missing_account_is_not_judged_here(live, monkeypatch):
    def belongings(host, live):
        raise KeyError("getpwnam")

    monkeypatch.setattr(upkeep, "belongings", belongings)
    assert Upkeep([live]).findings == {}


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
def test_strays_are_stopped(live, systemd, unit, state, mark, found):
    live.host.set_mark("one", mark)
    systemd.units[unit] = {"ActiveState": state}
    work = Upkeep([live])
    assert work.findings == ({"hello": ["releases without traffic were running"]} if found else {})
    work.mend()
    units = f"{STRAY} flask-hello@stray.socket"
    assert systemd.commands == ([f"stop --no-block {units}", f"reset-failed {units}"] if found else [])


@pytest.mark.parametrize("mark, found", [("settled", True), ("settling", False)])
@pytest.mark.parametrize("name", ["current.new", "marks/one.json.new", "releases/one/release.json.new"])
def test_what_a_killed_process_was_writing_is_removed(live, systemd, name, mark, found):
    live.host.set_mark("one", mark)
    half = Path(live.host.directory, name)
    half.symlink_to("nowhere")
    work = Upkeep([live])
    assert work.findings == ({"hello": ["half-written files"]} if found else {})
    work.mend()
    assert half.is_symlink() is not found and systemd.commands == []


@pytest.mark.parametrize("mark, found", [("settled", True), ("settling", False)])
def test_half_a_release_is_removed(live, systemd, mark, found):
    """Of a run that was killed while it wrote or removed it."""
    live.host.set_mark("one", mark)
    half = Path(live.host.releases_directory, "half")
    half.mkdir()
    (half / "service.conf").write_text("")
    (half.parent / "mine").write_text("")
    work = Upkeep([live])
    assert work.findings == ({"hello": ["half-written files"]} if found else {})
    work.mend()
    assert half.exists() is not found and Upkeep([live]).findings == {}


def test_what_came_before_is_gone_for_good_when_its_record_is_damaged(live, systemd):
    """Or each run would find it again."""
    live.host.add("before")
    live.host.set_mark("one", "settled", previous="before", replaced="before")
    Path(live.host.releases_directory, "before", "release.json").write_text("")
    Upkeep([live]).mend()
    assert not Path(live.host.releases_directory, "before").exists() and Upkeep([live]).findings == {}


def test_a_stray_whose_worker_ends_already_is_one(live, systemd):
    systemd.running(STRAY)
    systemd.units["flask-hello.worker@stray:1.service"] = {"ActiveState": "deactivating"}
    assert Upkeep([live]).findings == {"hello": ["releases without traffic were running"]}


def test_strays_are_stopped_by_one_at_a_time(live, systemd, clock):
    systemd.running(STRAY)
    systemd.commands.clear()
    with contextlib.ExitStack() as other:
        other.enter_context(release_host.lock(live.host.root, name=live.host.name))

        def let_go():
            assert systemd.commands == []
            other.close()

        clock.after(3, let_go)
        Upkeep([live]).mend()
    assert clock.now >= 1003 and commands(systemd) == ["stop", "reset-failed"]


@pytest.mark.parametrize(
    "mark, watch, expected",
    [("settling", "inactive", True), ("settling", "active", False), ("settled", "inactive", False)],
)
def test_unwatched(live, systemd, mark, watch, expected):
    live.host.set_mark("one", mark)
    systemd.units["flask-hello.settle-one.service"] = {"ActiveState": watch}
    nobody = type(live.host)(live.host.root, "nobody")
    assert upkeep.unwatched([live.host, nobody]) == ({"hello"} if expected else set())
    findings = upkeep.Upkeep([live], upkeep.unwatched([live.host])).findings
    assert ("nobody watched over it" in findings.get("hello", ())) is expected


def test_targets_are_enabled_together_and_once(live, systemd, tmp_path, monkeypatch):
    monkeypatch.setattr(upkeep, "WANTS", str(tmp_path / "wants"))
    other = SimpleNamespace(host=type(live.host)(live.host.root, "other"), live=None, needed=True, recipe={})
    failed = SimpleNamespace(host=type(live.host)(live.host.root, "failed"), live=None, needed=False, recipe={})
    upkeep.TargetsAndTimers([live, other, failed]).mend()
    targets = "flask-hello.target flask-other.target"
    assert systemd.commands == [f"enable {targets}", "start --no-block flask-other.target"]
    (tmp_path / "wants").mkdir()
    (tmp_path / "wants" / "flask-hello.target").symlink_to("/nowhere")
    assert not upkeep.TargetsAndTimers([live])
    systemd.units["flask-hello.target"] = {"ActiveState": "inactive"}
    assert upkeep.TargetsAndTimers([live]).idle == ["flask-hello.target"]
    systemd.commands.clear()
    upkeep.TargetsAndTimers([]).mend()
    assert systemd.commands == []


def test_timers_are_started_and_stopped_as_there_are_files(live, systemd, tmp_path, monkeypatch):
    monkeypatch.setattr(upkeep, "WANTS", release_host.UNITS)
    monkeypatch.setattr(release_host, "STAMPS", str(tmp_path))
    units = Path(release_host.UNITS)
    for name in ("flask-hello.target", "flask-hello.runs.timer", "flask-hello.idle.timer", "flask-hello-2.idle.timer"):
        (units / name).touch()
    systemd.running("flask-hello.runs.timer", "flask-hello.gone.timer", "flask-hello-2.gone.timer")
    systemd.units["flask-hello.stopped.timer"] = {"ActiveState": "inactive"}
    for name in ("hello.runs", "hello.gone", "hello-2.gone"):
        (tmp_path / f"stamp-flask-{name}.timer").touch()
    found = upkeep.TargetsAndTimers([live])
    assert (found.idle, found.forgotten) == (["flask-hello.idle.timer"], ["flask-hello.gone.timer"])
    found.mend()
    assert systemd.commands == ["start --no-block flask-hello.idle.timer", "stop flask-hello.gone.timer"]
    assert sorted(path.name for path in tmp_path.glob("stamp-*")) == [
        "stamp-flask-hello-2.gone.timer",
        "stamp-flask-hello.runs.timer",
    ]
    assert not upkeep.TargetsAndTimers([live])


def test_a_wanted_timer_whose_file_is_gone_is_not_forgotten(live, systemd, monkeypatch):
    monkeypatch.setattr(upkeep, "WANTS", release_host.UNITS)
    systemd.running("flask-hello.target", "flask-hello.tidy.timer")
    assert upkeep.TargetsAndTimers([live]).forgotten == ["flask-hello.tidy.timer"]
    live.recipe = {**live.recipe, "jobs": {"tidy": {}}}
    assert upkeep.TargetsAndTimers([live]).forgotten == []


def test_the_job_of_a_schedule_is_no_stray(live, systemd):
    systemd.running("flask-hello.tidy.job@stray.service")
    assert Upkeep([live]).findings == {}
