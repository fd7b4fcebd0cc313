# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host without systemd and without waiting: what the tests of several modules need."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from types import MappingProxyType

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils import release_host


class Systemd:
    """Stands for systemctl, systemd-run and journalctl, as far as the releases of an app use them.

    :ivar units: {unit: {property: text}}; systemd tells the usual of those that are not in it
    :ivar commands: all that was called, in order, without options but ``--no-block``
    :ivar calls: the same as they were given, lists of words
    :ivar journals: {unit: text}
    :ivar timers: what ``systemctl list-timers`` tells
    :ivar failing: programs and verbs that fail
    :ivar unit_texts: {unit: what ``systemctl cat`` shows}
    :ivar stuck: services that end only when they are killed
    :ivar on_start: called with the name of each unit that is started
    """

    STOPPED = {"ActiveState": "inactive", "SubState": "dead", "Result": "success", "NRestarts": "0"}
    RUNNING = {"ActiveState": "active", "SubState": "running", "Result": "success", "NRestarts": "0"}

    def __init__(self):
        self.units = {}
        self.commands = []
        self.journals = {}
        self.timers = []
        self.calls = []
        self.failing = set()
        self.unit_texts = {}
        self.stuck = set()
        self.on_start = lambda unit: None

    def run(self, command, check=False, **_options):
        program, *arguments = command
        if program == "systemctl":
            program, *arguments = arguments
        words = [word for word in arguments if not word.startswith("--") or word == "--no-block"]
        if program not in ("show", "list-units", "list-timers", "journalctl", "cat"):
            self.commands.append(" ".join([program, *words]))
            self.calls.append(command)
        if program in self.failing:
            if check:
                raise subprocess.CalledProcessError(1, command)
            return subprocess.CompletedProcess(command, 1, "", "")
        answer = getattr(self, f"_{program.replace('-', '_')}")(arguments)
        return subprocess.CompletedProcess(command, 0, answer or "", "")

    def state(self, unit):
        return {**self.STOPPED, **self.units.get(unit, {})}

    def running(self, *units):
        """Have these units run."""
        self.units.update({unit: dict(self.RUNNING) for unit in units})

    def _show(self, arguments):
        wanted, units = arguments[arguments.index("--property") + 1].split(","), self._named(arguments)
        states = ({"Id": unit, **self.state(unit)} for unit in units)
        return "\n".join("".join(f"{key}={state[key]}\n" for key in wanted if key in state) for state in states)

    def _list_units(self, arguments):
        assert {"--all", "--output=json"} <= set(arguments)
        patterns = [each for each in arguments if not each.startswith("--")]
        names = [name for name in self.units if any(fnmatch.fnmatch(name, each) for each in patterns)]
        return json.dumps([{"unit": name, "active": self.state(name)["ActiveState"]} for name in names])

    def _named(self, arguments):
        """The units that the arguments mean, patterns those that are loaded."""
        for each in _after_options(arguments):
            yield from fnmatch.filter(self.units, each) if "*" in each else [each]

    def _start(self, arguments):
        for unit in _after_options(arguments):
            self.running(unit)
            self.on_start(unit)

    def _stop(self, arguments):
        for unit in self._named(arguments):
            if unit in self.stuck:
                self.units[unit] = {"ActiveState": "deactivating"}
                if "--no-block" not in arguments:
                    raise subprocess.TimeoutExpired("systemctl stop", 120)
            elif self.state(unit)["ActiveState"] != "failed":  # which stays so until it is reset
                self.units[unit] = dict(self.STOPPED)

    def _kill(self, arguments):
        assert "--signal=KILL" in arguments
        for unit in _after_options(arguments):
            self.stuck.discard(unit)
            state = self.state(unit)["ActiveState"]
            if state == "active":  # nobody told systemd that it shall end
                self.units[unit] = {"ActiveState": "activating", "SubState": "auto-restart"}
            elif state == "deactivating":
                self.units[unit] = {"ActiveState": "failed", "Result": "signal"}

    def _reset_failed(self, arguments):
        for unit in self._named(arguments):
            if self.state(unit)["ActiveState"] == "failed":
                self.units[unit] = dict(self.STOPPED)

    def _enable(self, arguments):
        """Nothing to keep."""

    _unmask = _disable = _daemon_reload = _enable

    def _cat(self, arguments):
        return self.unit_texts[arguments[-1]]

    def _list_timers(self, arguments):
        assert {"--all", "--output=json"} <= set(arguments)
        return json.dumps([timer for timer in self.timers if timer["unit"] in self._named(arguments)])

    def _systemd_run(self, arguments):
        if "--wait" in arguments:  # a command that succeeds
            return f"{release_host.SUCCEEDED}\n"
        self.running(arguments[arguments.index("--unit") + 1])
        return None

    def _journalctl(self, arguments):
        return self.journals.get(arguments[-1].partition("=")[2], "")


def _after_options(arguments):
    return arguments[arguments.index("--") + 1 :]


class Clock:
    """Stands for the module ``time``: sleeping takes no time, and things can happen meanwhile."""

    def __init__(self):
        self.now = 1000.0
        self._events = []

    def monotonic(self):
        return self.now

    time = monotonic

    def sleep(self, seconds):
        self.now += seconds
        for event in sorted(each for each in self._events if each[0] <= self.now):
            self._events.remove(event)
            event[1]()

    def after(self, seconds, call):
        """Have ``call`` called in the first sleep that lasts until then."""
        self._events.append((self.now + seconds, call))


class Server:
    """Listens on a unix socket and gives each connection one answer.

    :param answer: bytes; None to say nothing and keep the connection open
    :ivar requests: what was received
    """

    def __init__(self, path, answer):
        self.path = path
        self.answer = answer
        self.requests = []
        self._kept = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        with contextlib.suppress(OSError):  # the listener was shut down
            while True:
                connection = self._listener.accept()[0]
                self.requests.append(connection.recv(65536).decode())
                if self.answer is None:
                    self._kept.append(connection)
                    continue
                with connection:
                    connection.sendall(self.answer)

    def end(self):
        """Stop listening and close all connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for each in (self._listener, *self._kept):
            each.close()


@pytest.fixture
def short_path():
    """A directory whose path is short, since the path of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="unit-") as path:
        yield Path(path)


@pytest.fixture
def serve(short_path):
    """Start servers: ``serve(answer, name)``; an answer may be a status."""
    with contextlib.ExitStack() as stack:

        def start(answer=200, name="web.sock"):
            if isinstance(answer, int):
                answer = f"HTTP/1.1 {answer} Some Reason\r\nContent-Length: 0\r\n\r\n".encode()
            server = Server(str(short_path / name), answer)
            stack.callback(server.end)
            return server

        yield start


@pytest.fixture
def systemd(monkeypatch):
    systemd = Systemd()
    constants = {name: getattr(subprocess, name) for name in ("PIPE", "STDOUT", "DEVNULL")}
    replacement = type("subprocess", (), {"run": staticmethod(systemd.run), **constants})
    monkeypatch.setattr(release_host, "subprocess", replacement)
    return systemd


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(release_host, "time", clock)
    return clock


HEALTH = {"host": "hello.test", "scheme": "http", "path": "/health", "timeout": 30, "statuses": ["2xx", "3xx"]}


PROCESS = {"instances": 1, "overlap": False, "stop_timeout": 60}


class App(release_host.App):
    """The app hello, with a way to put releases there."""

    def add(
        self,
        name,
        created=0,
        build="build",
        state="settled",
        live=False,
        keep=3,
        path=".",
        processes=MappingProxyType({}),
        **more,
    ):
        """A complete release of a complete build.

        :param processes: {name: {setting: value}} of what it runs beside its web process
        :param more: added to its mark
        """
        directory = Path(self.releases_directory, name)
        directory.mkdir()
        built = Path(self.builds_directory, build)
        built.mkdir(exist_ok=True)
        Path(f"{built}.json").write_text(json.dumps({"created": created}))
        (directory / "build").symlink_to(f"../../builds/{build}")
        (directory / "web.sock").symlink_to(f"/run/flask_apps/hello/{name}.sock")
        (directory / "service.conf").write_text(f"# of {name}\n")
        health = {**HEALTH, "settle": 5}
        release = {
            "stem": name,
            "created": created,
            "build": build,
            "keep_releases": keep,
            "health": health,
            "path": path,
            "processes": {process: {**PROCESS, **own} for process, own in processes.items()},
        }
        for process in processes:
            (directory / f"{process}.service").write_text(f"# {process} of %i, 100%%i\n")
        release["socket"] = "/run/flask_apps/hello/{release}.sock"
        (directory / "release.json").write_text(json.dumps(release))
        if state:
            self.set_mark(name, state, **more)
        if live:
            os.symlink(f"releases/{name}", self.current)


@pytest.fixture
def app(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # what a power failure leaves is not tested
    monkeypatch.setattr(os, "sync", lambda: None)
    monkeypatch.setattr(release_host, "UNITS", str(tmp_path / "units"))
    app = App(str(tmp_path / "apps"), "hello")
    for directory in (app.releases_directory, app.builds_directory, app.marks_directory):
        os.makedirs(directory)
    return app
