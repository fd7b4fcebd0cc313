#!/usr/bin/python3
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host does with the releases of its apps: probe, switch, watch, drain, start at boot.

One file with two uses, so that there is one implementation of each step: modules import it, and the role installs it
as the host's own command ``flask-app``, which systemd runs when no Ansible is near (a release is watched and old
connections are drained after the run has gone; the live release is started at boot). Standard library only.

Layout of an app's directory, see docs/architecture.md:

    builds/<build>/, builds/<build>.json      the second is written last and marks a complete build
    current -> releases/<release>
    releases/<release>/        build -> ../../builds/<build>, web.sock -> the socket, the server's settings,
                               environment, service.conf (what systemd is told of this release alone), release.json
    marks/<release>.json       {"state": "settling" | "settled" | "failed", "previous", "replaced", "reason", "at"}

In a mark, ``previous`` is what had the traffic before and gets it back when the release fails; ``replaced`` is what the
release was deployed over, where a rollback leads; ``proven`` is true from the first time on that it settled.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import glob
import http.client
import json
import math
import os
import pwd
import shutil
import socket
import subprocess
import sys
import threading
import time

PROGRAM = "/usr/local/sbin/flask-app"
BUILDS = "_builds"  # the name of the lock of all builds on this host; no app can be called so
CACHE_ROOT = "/var/cache/flask_apps"  # of downloaded packages, a folder an app
UNITS = "/etc/systemd/system"
DRAIN_LIMIT = 60  # seconds; the unit's TimeoutStopSec must be longer
WATCH_INTERVAL = 0.5  # seconds
PROBE_LIMIT = 5  # seconds one probe may take once a release has traffic


class Unhealthy(Exception):
    """A release does not do what it must; the text says what was seen.

    :ivar status: the HTTP status it answered with, or the exit status of its process; None when there is none
    :ivar command: what was looked at: a request, or a unit
    """

    def __init__(self, message, status=None, command=""):
        super().__init__(message)
        self.status = status
        self.command = command


class LockTimeout(Exception):
    """Somebody else works on this host's apps."""


# --- files -----------------------------------------------------------------------------------------------------------


def fsync_directory(path):
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path, text, mode=0o644):
    """Write a file so that a reader, or a crash, sees the old content or the new one."""
    temporary = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        os.fchmod(stream.fileno(), mode)
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    fsync_directory(os.path.dirname(path))


def read_json(path):
    """The parsed file; None when it does not exist, or is damaged and so marks nothing."""
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


@contextlib.contextmanager
def lock(root, wait=60.0, name=""):
    """Hold the lock of all runs on this host, or with ``name`` the one of an app. It is the kernel's, so it ends with
    the process that holds it.

    A run holds the first for as long as it releases, the one called ``BUILDS`` for as long as it builds, and an app's
    while it changes that app. The watch over a new release needs only the latter: it can give the traffic back while a
    run is busy with other apps.

    :raises LockTimeout: another process held it for ``wait`` seconds.
    """
    deadline = time.monotonic() + wait
    descriptor = os.open(
        os.path.join(root, f".{name}.lock" if name else ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                if time.monotonic() > deadline:
                    raise LockTimeout(
                        f"another run has been working on the apps of this host for {wait:.0f} s"
                    ) from error
                time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


# --- systemd ---------------------------------------------------------------------------------------------------------


def systemctl(*arguments, check=False):
    return subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=check, timeout=120)


def unit_states(units, properties=("ActiveState", "SubState", "Result", "NRestarts", "Job", "ExecMainStatus")):
    """{unit: {property: text}} with one call for all units."""
    if not units:
        return {}
    output = systemctl("show", "--property", ",".join(("Id", *properties)), "--", *units).stdout
    states = {}
    for block in output.split("\n\n"):
        state = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if state:
            states[state.pop("Id")] = state
    return states


def exit_status(state):
    """How a unit's main process ended, from its properties; None when systemd does not tell."""
    status = state.get("ExecMainStatus", "")
    return int(status) if status.isdigit() else None


def journal(unit, lines=80, since=0.0):
    """The last lines that a unit wrote or that systemd wrote about it, without those that only underline code.

    :param since: not those from before that second since 1970

    So many because gunicorn ends with long tracebacks of its own, behind the one that matters.
    """
    command = ["journalctl", "--quiet", "--no-pager", "--output=cat", f"--lines={lines}"]
    command += [f"--since=@{int(since)}", f"--unit={unit}"]
    output = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout
    return [line for line in output.splitlines() if line.strip(" ~^")]


# --- health ----------------------------------------------------------------------------------------------------------


class UnixHTTPConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def acceptable(status, accepted):
    """Whether an HTTP status is one of ``accepted``: whole numbers such as 204, or classes such as "2xx"."""
    return any(each in (status, f"{status // 100}xx") for each in accepted)


def probe(path, health, limit=PROBE_LIMIT):
    """Ask a socket for the health path as nginx would. Returns the status; raises Unhealthy with what was seen."""
    connection = UnixHTTPConnection(path, limit)
    request = f"GET {health['path']}"
    try:
        headers = {"Host": health["host"], "User-Agent": "flask-app probe", "X-Forwarded-Proto": health["scheme"]}
        connection.request("GET", health["path"], headers={**headers, "Connection": "close"})
        status = connection.getresponse().status
    except socket.timeout as error:
        raise Unhealthy(f"no answer to {request} within {limit:.0f} s", command=request) from error
    except (OSError, http.client.HTTPException) as error:
        raise Unhealthy(f"no answer to {request}: {error.__class__.__name__}", command=request) from error
    finally:
        connection.close()
    if not acceptable(status, health["statuses"]):
        expected = ", ".join(str(each) for each in health["statuses"])
        raise Unhealthy(f"{request} answered {status}, expected {expected}", status, request)
    return status


def connections(path):
    """How many connections of a listening unix socket are open.

    Read in PID 1's network namespace: a unit with PrivateNetwork= sees its own one under /proc/self. The listener
    itself carries the flag __SO_ACCEPTCON (0x10000), its connections carry its path and not that flag (proc(5)).
    """
    count = 0
    with open("/proc/1/net/unix", encoding="utf-8", errors="replace") as stream:
        for line in stream:
            fields = line.split()
            if len(fields) == 8 and fields[7] == path and not int(fields[3], 16) & 0x10000:
                count += 1
    return count


def drain(path, limit=DRAIN_LIMIT):
    """Wait until nobody is connected to a socket any more, ``limit`` seconds at most."""
    deadline = time.monotonic() + limit
    while connections(path) and time.monotonic() < deadline:
        time.sleep(0.1)


def running(app="*"):
    """{app: {release: whether all it has left to do is stop}} of what is loaded and not stopped, of one app or all."""
    units = json.loads(systemctl("list-units", "--all", "--output=json", f"flask-{app}@*").stdout)
    found = {}
    for unit in units:
        if unit["active"] != "inactive":
            prefix, instance = unit["unit"].split("@", 1)
            releases, name = found.setdefault(prefix[len("flask-") :], {}), instance.rsplit(".", 1)[0]
            releases[name] = releases.get(name, False) or unit["active"] == "deactivating"
    return found


# --- an app and its releases -----------------------------------------------------------------------------------------


class App:
    """The directory of one app on this host."""

    def __init__(self, root, name):
        self.root = root
        self.name = name
        self.directory = os.path.join(root, name)
        self.current = os.path.join(self.directory, "current")
        self.releases_directory = os.path.join(self.directory, "releases")
        self.builds_directory = os.path.join(self.directory, "builds")
        self.marks_directory = os.path.join(self.directory, "marks")

    def live(self):
        """Name of the release that has the traffic; None before the first one."""
        try:
            return os.path.basename(os.readlink(self.current))
        except FileNotFoundError:
            return None

    def records(self):
        """{name: release.json} of the complete releases, oldest first."""
        found = {}
        with contextlib.suppress(FileNotFoundError):
            found = {name: self.release(name) for name in os.listdir(self.releases_directory)}
        complete = [name for name, release in found.items() if release is not None]
        return {name: found[name] for name in sorted(complete, key=lambda name: (found[name]["created"], name))}

    def releases(self):
        """Names of the complete releases, oldest first."""
        return list(self.records())

    def release(self, name):
        """release.json of a release; None when there is none. It is written last, so it marks a complete release."""
        return read_json(os.path.join(self.releases_directory, name, "release.json"))

    def mark(self, name):
        return read_json(os.path.join(self.marks_directory, f"{name}.json")) or {}

    def set_mark(self, name, state, **more):
        mark = {**self.mark(name), "state": state, "at": time.time(), **more}
        write_file(os.path.join(self.marks_directory, f"{name}.json"), json.dumps(mark, indent=2) + "\n")

    def failed(self, name):
        return self.mark(name).get("state") == "failed"

    def proven(self, name):
        """Whether a release kept the traffic for its settle time once, and has not failed since."""
        mark = self.mark(name)
        return mark.get("state") == "settled" or (mark.get("state") == "settling" and mark.get("proven", False))

    def socket_path(self, name):
        return os.readlink(os.path.join(self.releases_directory, name, "web.sock"))

    @property
    def target(self):
        return f"flask-{self.name}.target"

    @property
    def command_unit(self):
        """Beginning of the names of the units that the app's commands around a switch run in."""
        return f"flask-{self.name}.command"

    def unit(self, name, kind="service"):
        return f"flask-{self.name}@{name}.{kind}"

    def settle_unit(self, name):
        return f"flask-{self.name}.settle-{name}.service"

    def drop_in(self, name):
        """The folder of what differs between a release's unit and the app's other ones, for systemd."""
        return os.path.join(UNITS, f"{self.unit(name)}.d")

    def has_socket_unit(self, name):
        """Whether systemd makes the release's socket; granian can't be given one and makes its own, in a directory."""
        return os.path.basename(self.socket_path(name)) == f"{name}.sock"

    def _install_drop_in(self, name):
        """Tell systemd what this release's unit has of its own.

        It reads that when it loads the unit for the first time, without a reload (tried on systemd 252 and 257). What
        an older version of this collection released has nothing of its own.
        """
        path = os.path.join(self.drop_in(name), "release.conf")
        source = os.path.join(self.releases_directory, name, "service.conf")
        if os.path.exists(path) or not os.path.exists(source):
            return
        with open(source, encoding="utf-8") as stream:
            text = stream.read()
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        write_file(path, text)

    def _make_socket_directory(self, name):
        """Where a server that makes its own socket may do so, and only the proxy may pass."""
        release = self.release(name)
        path = os.path.dirname(self.socket_path(name))
        parent = os.path.dirname(path)
        for directory in (os.path.dirname(parent), parent):  # as systemd makes them for a socket, whatever the umask is
            if not os.path.isdir(directory):
                os.mkdir(directory)
                os.chmod(directory, 0o755)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        os.chown(path, pwd.getpwnam(release["user"]).pw_uid, pwd.getpwnam(release["proxy_user"]).pw_gid)
        os.chmod(path, 0o710)

    def start(self, name):
        self._install_drop_in(name)
        sockets = []
        if self.has_socket_unit(name):
            sockets = [self.unit(name, "socket")]
        else:
            self._make_socket_directory(name)
        systemctl("start", "--no-block", "--", *sockets, self.unit(name))

    def stop(self, name, wait=True):
        units = [self.unit(name), self.unit(name, "socket")]
        systemctl("stop", *([] if wait else ["--no-block"]), "--", *units)
        systemctl("reset-failed", "--", *units)  # stopping leaves a failed unit as it is

    def discard(self, name):
        """End a release that has not had the traffic since it was started: nobody waits for its answers, and it may be
        beyond ending well.
        """
        self.stop(name, wait=False)
        systemctl("kill", "--signal=KILL", "--", self.unit(name))
        self.stop(name)

    def check(self, name):
        """Raise Unhealthy when the process of a release has ended, or was started anew by systemd."""
        unit = self.unit(name)
        state = unit_states([unit]).get(unit, {})
        waiting = state.get("Job", "0") not in ("", "0")  # its start is queued behind another unit's
        if state.get("ActiveState") not in ("active", "activating", "reloading") and not waiting:
            message = f"{unit} is {state.get('ActiveState', 'unknown')} ({state.get('Result', 'unknown')})"
            raise Unhealthy(message, exit_status(state), unit)
        if state.get("SubState") == "auto-restart":
            raise Unhealthy(f"{unit} exited and is started again", exit_status(state), unit)
        if state.get("NRestarts", "0") != "0":  # how it ended is not known any more
            raise Unhealthy(f"{unit} exited and was started again", None, unit)

    def wait_until_healthy(self, name, health):
        """Probe a started release until it answers as it must, or can't any more. Raises Unhealthy."""
        path = self.socket_path(name)
        deadline = time.monotonic() + health["timeout"]
        problems = []
        answer = None  # the last one that was not as it must be: it says more than the silence after it

        def ask():
            try:
                probe(path, health, max(deadline - time.monotonic(), 0.1))
            except Exception as problem:  # whatever it is, it is no answer
                problems.append(problem)

        while True:
            problems.clear()
            # A probe may wait for long, since systemd holds the socket open even when the process is gone. So the
            # process is looked at meanwhile.
            question = threading.Thread(target=ask, daemon=True)
            question.start()
            question.join(0.2)
            while question.is_alive():
                self.check(name)
                question.join(0.2)
            if not problems:
                return
            self.check(name)
            problem = problems[0]
            answer = problem if getattr(problem, "status", None) else answer
            if time.monotonic() > deadline - 0.1:
                problem = answer or problem
                message = f"{problem}, for {health['timeout']} s"
                raise Unhealthy(message, getattr(problem, "status", None), getattr(problem, "command", ""))
            time.sleep(0.05)

    def switch(self, name):
        """Give a release the traffic: the one commit point of a deployment.

        nginx follows the link at each connect, so this rename moves code, configuration, static files and traffic.
        """
        temporary = f"{self.current}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        os.symlink(os.path.join("releases", name), temporary)
        fsync_directory(self.directory)
        os.replace(temporary, self.current)
        fsync_directory(self.directory)

    def start_settling(self, name):
        """Have the host watch the live release by itself, whatever becomes of the run that asked for it."""
        systemctl("stop", "--", self.settle_unit(name))  # of an earlier time that this release had the traffic
        command = ["systemd-run", "--quiet", "--collect", "--unit", self.settle_unit(name)]
        command += ["--property=Restart=on-failure", "--property=RestartSec=1"]
        command += [PROGRAM, "--root", self.root, "settle", self.name, name]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def is_settling(self, name):
        """Whether the watch over a release runs."""
        unit = self.settle_unit(name)
        return unit_states([unit], ("ActiveState",)).get(unit, {}).get("ActiveState") in ("active", "activating")

    def remove(self):
        """Stop and remove everything of the app but its data, its account and its unit files (those are file_set's).

        May be called again after it was interrupted.
        """
        units = [self.target, f"flask-{self.name}.live.service"]
        systemctl("disable", "--quiet", "--", units[0])
        transient = (f"flask-{self.name}.settle-*", f"{self.command_unit}-*")
        systemctl("stop", "--", *units, f"flask-{self.name}@*", *transient)
        systemctl("reset-failed", "--", f"flask-{self.name}@*")
        for name in os.listdir(self.releases_directory):
            with contextlib.suppress(OSError):  # half a release may have no link to its socket
                parent = os.path.dirname(self.socket_path(name))
                if not self.has_socket_unit(name):
                    parent = os.path.dirname(parent)
                self.clear(name)
                os.rmdir(parent)
        for path in glob.glob(os.path.join(UNITS, f"flask-{self.name}@*.service.d")):
            shutil.rmtree(path)
        shutil.rmtree(os.path.join(CACHE_ROOT, self.name), ignore_errors=True)
        shutil.rmtree(self.directory)

    def retire(self):
        """Stop what has no traffic (each drains first, by its ExecStop=), and remove releases beyond the kept ones."""
        live = self.live()
        protected = self.protected()
        for name in set(running(self.name).get(self.name, ())) - {live}:
            self.stop(name, wait=False)
        self.prune(self.release(live)["keep_releases"], protected)

    def protected(self):
        """Names of the releases that stay, however many: the live one, those before it, all that still run."""
        live = self.live()
        mark = self.mark(live)
        return {live, mark.get("previous"), mark.get("replaced"), *running(self.name).get(self.name, ())}

    def prune(self, keep, never):
        """Remove releases, the builds that only they used, and half releases.

        The ``keep`` newest that proved good stay, so do those in ``never``, and as many of the others: they say what
        went wrong.
        """
        names = self.releases()
        for name in set(os.listdir(self.releases_directory)) - {*names, *never}:
            self.clear(name)
        good = [name for name in names if self.proven(name)]
        others = [name for name in names if name not in good]
        for name in names:
            if name not in {*good[-keep:], *others[-keep:], *never}:
                self.remove_release(name)

    def remove_release(self, name):
        directory = os.path.join(self.releases_directory, name)
        build = os.path.basename(os.readlink(os.path.join(directory, "build")))
        # first what makes it a release, so that a kill in between leaves nothing that looks like one
        os.unlink(os.path.join(directory, "release.json"))
        self.clear(name)
        if build not in {self.release(other)["build"] for other in self.releases()}:
            remove_build(os.path.join(self.builds_directory, build))

    def clear(self, name):
        """Remove all that there is under the name of a release."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.marks_directory, f"{name}.json"))
        shutil.rmtree(self.drop_in(name), ignore_errors=True)
        with contextlib.suppress(OSError):  # half a release may have no link to its socket yet
            if not self.has_socket_unit(name):
                shutil.rmtree(os.path.dirname(self.socket_path(name)))
        shutil.rmtree(os.path.join(self.releases_directory, name), ignore_errors=True)


def apps_on_host(root):
    """Names of the apps that have a directory on this host, in alphabetical order."""
    names = os.listdir(root) if os.path.isdir(root) else []
    return sorted(name for name in names if os.path.isdir(os.path.join(root, name, "releases")))


def unused_name(stem, taken):
    """``stem``, or with .2, .3 … behind it the first name that is not in ``taken``."""
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}.{number}"
    return name


def stamp_path(build):
    """Where the stamp of a build is. Written last, it marks a whole build; no file of the app can pass for it."""
    return f"{build}.json"


def remove_build(path):
    """Remove a build; its stamp goes first, so that half of one never passes for a whole one."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(stamp_path(path))
    shutil.rmtree(path, ignore_errors=True)


# --- what systemd calls ----------------------------------------------------------------------------------------------


def settle(app, name):
    """Watch the new live release; give the traffic back when it fails; else retire what had it before.

    Runs as a transient unit, without the lock while it watches. Whoever switched meanwhile has won: nothing is done
    unless this release is still the live one.
    """
    release = app.release(name)
    previous = app.mark(name).get("previous")
    problem = watch(app, name, release["health"])
    with lock(app.root, wait=math.inf, name=app.name):
        if app.live() != name:
            return
        if problem is None:
            app.set_mark(name, "settled", proven=True)
            app.retire()
            return
        lines = journal(app.unit(name))
        if previous and app.release(previous) is None:
            previous = None  # it was removed: better a sick release than none
        if previous:
            app.start(previous)  # it still runs; after a reboot in between it may not
            app.switch(previous)
            start_live(app)  # goes on watching it, should it lack its own verdict
        details = {"command": problem.command, "status": problem.status, "journal": lines}
        app.set_mark(name, "failed", reason=str(problem), returned_to=previous, **details)
    if previous:
        app.stop(name)


def watch(app, name, health):
    """What showed within the settle time, an Unhealthy; None when nothing did, or when the release lost the traffic."""
    deadline = time.monotonic() + health["settle"]
    path = app.socket_path(name)
    unanswered = 0
    while app.live() == name:
        try:
            probe(path, health)
            unanswered = 0
        except Unhealthy as problem:
            unanswered += 1
            if unanswered == 2:  # one refused request under load is not a dead release
                return problem
        try:
            app.check(name)  # after the probe, which may have waited for the process to be started again
        except Unhealthy as problem:
            return problem
        if not unanswered and time.monotonic() >= deadline:
            return None
        time.sleep(WATCH_INTERVAL)
    return None


def start_live(app):
    """Start what ``current`` names, at boot; go on watching a release whose watch a reboot has ended."""
    name = app.live()
    if name is None:
        return
    if app.has_socket_unit(name):
        systemctl("start", "--", app.unit(name, "socket"))  # waited for, so that nginx never misses it
    app.start(name)
    if app.mark(name).get("state") == "settling" and not app.is_settling(name):
        app.start_settling(name)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="flask-app", description="Releases of the Flask apps on this host.")
    parser.add_argument("--root", default="/opt/flask_apps", help="where the apps are (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    for command, description in (
        ("live", "start the live release of an app"),
        ("settle", "watch a new live release"),
        ("drain", "wait until nobody is connected to a release"),
    ):
        subparser = commands.add_parser(command, help=description)
        subparser.add_argument("app")
        if command != "live":
            subparser.add_argument("release")
    options = parser.parse_args(arguments)
    if options.command == "drain":
        app = App(options.root, options.app)
        # systemd calls this also after the main process has died. Then only the restart that comes next can answer
        # those who wait. A release that failed is not waited for either: it may never answer.
        if "MAINPID" in os.environ and not app.failed(options.release):
            drain(app.socket_path(options.release))
    elif options.command == "live":
        start_live(App(options.root, options.app))
    else:
        settle(App(options.root, options.app), options.release)
    return 0


if __name__ == "__main__":
    sys.exit(main())
