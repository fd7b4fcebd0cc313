#!/usr/bin/python3
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host does with the releases of its apps: probe, switch, watch, drain, start at boot.

One file with two uses, so that there is one implementation of each step: modules import it, and the role installs it
as the host's own command ``flask-app``, which systemd runs when no Ansible is near (a release is watched and old
connections are drained after the run has gone; the live release is started at boot), and people to run commands of an
app. Standard library only.

Layout of an app's directory, see docs/architecture.md:

    repo.git/                                 the mirror of its repository
    builds/<build>/, builds/<build>.json      the second is written last and marks a complete build
    builds/<build>.seal                       what its files were like then
    current -> releases/<release>
    previous -> releases/<release>            what had the traffic before: pages already sent name its static files
    releases/<release>/        build -> ../../builds/<build>, web.sock -> the socket, the server's settings,
                               environment, service.conf (what systemd is told of this release alone),
                               <process>.service (the unit of a process beside the web process), release.json
    marks/<release>.json       {"state": "settling" | "settled" | "failed", "previous", "replaced", "since", "proven",
                               "release_commands", "backup"}, of one that failed also {"at", "step", "reason",
                               "command", "status", "journal", "returned_to"}

In a mark, ``previous`` is what had the traffic before and gets it back when the release fails; ``replaced`` is what the
release was deployed over, where a rollback leads; ``since`` is when it got the traffic; ``proven`` is true from the
first time on that it settled; ``release_commands`` is how many of its release commands were done; ``backup`` is the
dump that was made before them.
"""

from __future__ import annotations

import argparse
import calendar
import collections
import contextlib
import errno
import fcntl
import glob
import http.client
import json
import math
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

PROGRAM = "/usr/local/sbin/flask-app"
ROOT = "/opt/flask_apps"  # where the apps are; on a host, the role writes its own
BUILDS = "_builds"  # the name of the lock of all builds on this host; no app can be called so
CACHE_ROOT = "/var/cache/flask_apps"  # of downloaded packages, a folder an app
UNITS = "/etc/systemd/system"
STAMPS = "/var/lib/systemd/timers"  # when persistent timers last elapsed
DRAIN_LIMIT = 60  # seconds; the unit's TimeoutStopSec must be longer
WATCH_INTERVAL = 0.5  # seconds
STOP_LIMIT = 10  # seconds that a command has to end when it took too long
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


class CommandFailed(Exception):
    """A command did not succeed; the text completes "it ...".

    :ivar status: its exit status; None when it was ended
    :ivar output: the last lines of its output (stdout and stderr)
    """

    def __init__(self, status, output, problem=""):
        super().__init__(problem or f"exited with status {status}")
        self.status = status
        self.output = output


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
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    fsync_directory(os.path.dirname(path))


def read_json(path):
    """The parsed file; None when it does not exist, or is damaged and so marks nothing."""
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def read_text(path):
    """The text of a file to the letter; None when there is no such file."""
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def time_after(earlier):
    """Seconds since 1970, later than all of ``earlier``: the order of things survives a clock that jumps back."""
    return max([time.time(), *(each + 0.001 for each in earlier)])


def moment():
    """[boot, seconds]: of two moments of one boot the later one has more seconds, whatever the clock was set to."""
    return [(read_text("/proc/sys/kernel/random/boot_id") or "").strip(), time.monotonic()]


def lock_path(root, name=""):
    return os.path.join(root, f".{name}.lock" if name else ".lock")


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
    descriptor = os.open(lock_path(root, name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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


def systemctl(*arguments, check=False, limit=120):
    return subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=check, timeout=limit)


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


# --- commands --------------------------------------------------------------------------------------------------------

SUCCEEDED = "command-has-succeeded"
SHOWN_LINES = 25
# Directives of a service that tell how it is started, watched and ended, and not what its processes may do.
OWN_TO_SERVICES = re.compile(
    r"(Exec|Restart|Runtime|Timeout|Watchdog|Kill|FinalKill|SendSIG|Success|FileDescriptor|Standard|Syslog)\w*"
    r"|Type|NotifyAccess|PIDFile|BusName|Sockets|WorkingDirectory|RemainAfterExit|GuessMainPID"
)


def unit_command(unit, properties, command):
    """The words of the command that runs ``command`` (a list) in a transient unit and waits for it."""
    words = ["systemd-run", "--quiet", "--wait", "--collect", "--service-type=exec"]
    words += ["--description=A command of a Flask app"]  # not the command itself, which would get into the journal
    words += [f"--unit={unit}"]
    words += [f"--property={each}" for each in properties]
    # systemd would put values of the environment into the command line, where everybody can read them
    return [*words, "--", *(word.replace("$", "$$") for word in command)]


def numbered(unit):
    """A name for a unit that no other has."""
    return f"{unit}-{time.monotonic_ns()}"


def run_unit(unit, properties, command, limit, merged=False):
    """Run a command in a transient unit and return its stdout.

    :param unit: the unit's name
    :param limit: seconds until it is ended
    :param merged: whether stderr is part of what it returns, as it comes
    :raises CommandFailed: it failed, or took longer than ``limit``
    """
    # A command that systemd was told to stop, as at a shutdown, counts as a success. Only this word tells of one.
    wrapped = ["/bin/sh", "-c", f'"$@" && echo {SUCCEEDED}', "sh", *command]
    words = unit_command(unit, [*properties, f"RuntimeMaxSec={limit}"], wrapped)
    words.insert(1, "--pipe")
    stderr = subprocess.STDOUT if merged else subprocess.PIPE
    started = time.monotonic()
    result = subprocess.run(
        words, stdout=subprocess.PIPE, stderr=stderr, text=True, errors="replace", check=False, stdin=subprocess.DEVNULL
    )
    if result.returncode == 0 and result.stdout.endswith(f"{SUCCEEDED}\n"):
        return result.stdout[: -len(f"{SUCCEEDED}\n")]
    output = (result.stdout + (result.stderr or "")).splitlines()
    problem = ""
    if result.returncode == 0:
        problem = "was stopped before it was done"
    elif time.monotonic() - started >= limit:
        problem = f"was ended after {limit} s"
    raise CommandFailed(None if problem else result.returncode, output[-SHOWN_LINES:], problem)


def service_properties(text, instance):
    """What the unit of a service, as ``systemctl cat`` shows it, says of its processes, for a transient unit.

    :param instance: what ``%i`` stands for; a transient unit knows no specifiers
    """
    section = ""
    properties = []
    for line in text.replace("\\\n", " ").splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line
        elif section == "[Service]" and line and line[0] not in "#;":
            name, _equals, value = line.partition("=")
            if not OWN_TO_SERVICES.fullmatch(name):
                properties.append(f"{name}={value}".replace("%i", instance).replace("%%", "%"))
    return properties


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


# A unit of a release. process: "web", what else it runs, or a schedule with ".job" behind it, which runs until it is
# done. state: systemd's ActiveState.
Unit = collections.namedtuple("Unit", "name app process release state")
JOB = ".job"


def units_of_releases(app="*"):
    """List the units of releases that are loaded and not stopped, of one app or all."""
    patterns = (f"flask-{app}@*", f"flask-{app}.*@*")
    found = []
    for unit in json.loads(systemctl("list-units", "--all", "--output=json", *patterns).stdout):
        prefix, _at, instance = unit["unit"].partition("@")
        name, _dot, process = prefix[len("flask-") :].partition(".")
        release = instance.rpartition(".")[0].partition(":")[0]
        if unit["active"] != "inactive":
            found.append(Unit(unit["unit"], name, process or "web", release, unit["active"]))
    return found


def running(app="*"):
    """{app: {release: {process: whether all it has left to do is stop}}} of what is loaded and not stopped."""
    found = {}
    for unit in units_of_releases(app):
        processes = found.setdefault(unit.app, {}).setdefault(unit.release, {})
        ending = unit.state == "deactivating" or unit.process.endswith(JOB)
        processes[unit.process] = processes.get(unit.process, False) or ending
    return found


def running_web(app="*"):
    """{app: {release: whether all it has left to do is stop}} of web processes."""
    return {
        name: {release: processes["web"] for release, processes in releases.items() if "web" in processes}
        for name, releases in running(app).items()
    }


# --- an app and its releases -----------------------------------------------------------------------------------------


class App:
    """The directory of one app on this host."""

    def __init__(self, root, name):
        self.root = root
        self.name = name
        self.directory = os.path.join(root, name)
        self.current = os.path.join(self.directory, "current")
        self.previous = os.path.join(self.directory, "previous")
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
        self.note(name, state=state, at=time.time(), **more)

    def note(self, name, **more):
        """Add to a release's mark."""
        mark = {**self.mark(name), **more}
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
        """Beginning of the names of the units that the commands of a release in the making run in."""
        return f"flask-{self.name}.command"

    def once_unit(self, name):
        """A name for the unit of a command that people run in a release. No run ends it, or removes that release."""
        return f"flask-{self.name}.once-command{JOB}@{name}:{time.monotonic_ns()}.service"

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

    def processes(self, name):
        """{process: its settings} of what a release runs beside its web process."""
        return (self.release(name) or {}).get("processes", {})

    def jobs(self, name):
        """{schedule: its command and timeout} of what a release is to run at given times."""
        return (self.release(name) or {}).get("jobs", {})

    def patience(self):
        """Seconds that the processes of releases may take to end."""
        releases = self.records().values()
        return max((own["stop_timeout"] for each in releases for own in each.get("processes", {}).values()), default=0)

    def process_units(self, name, process):
        """Names of the units of a process, one an instance."""
        count = self.processes(name)[process]["instances"]
        return [f"flask-{self.name}.{process}@{name}:{number}.service" for number in range(1, count + 1)]

    def _unit_files(self, name):
        """{path: text} of the files that tell systemd what this release alone has. What an older version of this
        collection released has none.
        """
        directory = os.path.join(self.releases_directory, name)
        files = {os.path.join(self.drop_in(name), "release.conf"): read_text(os.path.join(directory, "service.conf"))}
        for process in self.processes(name):
            text = read_text(os.path.join(directory, f"{process}.service"))
            # %i is the release in it, to which systemd would add the number
            text = text and re.sub("%(.)", lambda found: name if found[1] == "i" else found[0], text)
            files.update((os.path.join(UNITS, unit), text) for unit in self.process_units(name, process))
        return {path: text for path, text in files.items() if text is not None}

    def unit_files_differ(self, name):
        """Whether systemd is told something else of a release than the release says."""
        return any(read_text(path) != text for path, text in self._unit_files(name).items())

    def install_unit_files(self, name):
        """Tell systemd what this release's units have of their own.

        It reads that when it loads a unit for the first time, without a reload (tried on systemd 252 and 257).
        """
        for path, text in self._unit_files(name).items():
            if read_text(path) != text:
                os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
                write_file(path, text)

    def _remove_unit_files(self, release):
        """:param release: name of a release, or a pattern"""
        for path in glob.glob(os.path.join(UNITS, f"flask-{self.name}@{release}.service.d")):
            shutil.rmtree(path, ignore_errors=True)
        for path in glob.glob(os.path.join(UNITS, f"flask-{self.name}.*@{release}:*.service*")):
            os.unlink(path)

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

    def command_properties(self, name):
        """What a command needs to be to a release as its web process is: account, sandbox, limits and environment.

        Read from systemd's own view of the unit, so that there is one place that says it.
        """
        self.install_unit_files(name)
        directory = os.path.join(self.releases_directory, name, "build", self.release(name).get("path", "."))
        text = systemctl("cat", "--", self.unit(name), check=True).stdout
        return [*service_properties(text, name), f"WorkingDirectory={directory}", f"TimeoutStopSec={STOP_LIMIT}"]

    def run(self, name, command, limit, unit=""):
        """Run a shell command as a process of a release and return its output. Raises CommandFailed.

        :param unit: its unit's name, one of ``command_unit`` when empty
        """
        return run_unit(
            unit or numbered(self.command_unit), self.command_properties(name), ["/bin/sh", "-c", command], limit, True
        )

    def start(self, name):
        self.install_unit_files(name)
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
        with contextlib.suppress(FileNotFoundError):
            if not self.has_socket_unit(name):
                os.unlink(self.socket_path(name))  # of its own, which nobody removes for a server that is killed

    def check(self, name, others=()):
        """Raise Unhealthy when the web process of a release has ended, or was started anew by systemd.

        :param others: units of which the same is asked
        """
        states = unit_states([self.unit(name), *others])
        for unit in (self.unit(name), *others):
            state = states.get(unit, {})
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
            # looked at before the question: who was held up beyond it himself, by a sleeping machine, asks once more
            late = time.monotonic() > deadline - 0.1
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
            if late:
                problem = answer or problem
                message = f"{problem}, for {health['timeout']} s"
                raise Unhealthy(message, getattr(problem, "status", None), getattr(problem, "command", ""))
            time.sleep(0.05)

    def switch(self, name):
        """Give a release the traffic: the one commit point of a deployment.

        nginx follows the link at each connect, so this rename moves code, configuration, static files and traffic. The
        link ``previous`` goes first: killed in between, both name the release that has the traffic, which loses no
        file that one of its own pages names.
        """
        live = self.live()
        if live not in (None, name):
            self._point(self.previous, live)
        self._point(self.current, name)

    def _point(self, link, name):
        """Have a link name a release; it names the old one or the new one at any moment."""
        temporary = f"{link}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        os.symlink(os.path.join("releases", name), temporary)
        fsync_directory(self.directory)
        os.replace(temporary, link)
        fsync_directory(self.directory)

    def start_settling(self, name):
        """Have the host watch the live release by itself, whatever becomes of the run that asked for it."""
        systemctl("stop", "--", self.settle_unit(name))  # of an earlier time that this release had the traffic
        command = ["systemd-run", "--quiet", "--collect", "--unit", self.settle_unit(name)]
        command += ["--property=Restart=on-failure", "--property=RestartSec=1"]
        command += ["--property=StartLimitIntervalSec=0"]  # a full disk may last longer than a few starts
        command += [PROGRAM, "--root", self.root, "settle", self.name, name]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def is_settling(self, name):
        """Whether the watch over a release runs."""
        unit = self.settle_unit(name)
        return unit_states([unit], ("ActiveState",)).get(unit, {}).get("ActiveState") in ("active", "activating")

    def remove(self, runtime_root):
        """Stop and remove everything of the app but its data, its account and its unit files (those are file_set's).

        May be called again after it was interrupted. The caller holds the app's lock, whose file goes, too.
        """
        systemctl("disable", "--quiet", "--", self.target)
        units = (f"flask-{self.name}@*", f"flask-{self.name}.*")  # no name of an app has a dot
        systemctl("stop", "--", *units, limit=120 + self.patience())
        systemctl("reset-failed", "--", *units)
        self._remove_unit_files("?*")
        remove_stamps(f"flask-{self.name}.*.timer")
        shutil.rmtree(os.path.join(CACHE_ROOT, self.name), ignore_errors=True)
        if os.path.isdir(self.directory):
            shutil.rmtree(self.directory)
        os.unlink(lock_path(self.root, self.name))
        # last: it is what tells the next run that an app is to go
        shutil.rmtree(os.path.join(runtime_root, self.name), ignore_errors=True)

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
        before = {name for name in (mark.get("previous"), mark.get("replaced")) if name and self.release(name)}
        return {live, *before, *running(self.name).get(self.name, ())}

    def prune(self, keep, never):
        """Remove releases, the builds that only they used, and half releases.

        The ``keep`` newest that proved good stay, so do those in ``never``, and as many of the others: they say what
        went wrong.
        """
        for path in self.scraps():
            os.unlink(path)
        names = self.releases()
        for name in self.halves() - {*never}:
            self.clear(name)
        good = [name for name in names if self.proven(name)]
        others = [name for name in names if name not in good]
        for name in names:
            if name not in {*good[-keep:], *others[-keep:], *never}:
                self.remove_release(name)

    def halves(self):
        """Names of releases that were not written, or removed, to the end."""
        there = os.scandir(self.releases_directory) if os.path.isdir(self.releases_directory) else ()
        return {entry.name for entry in there if entry.is_dir(follow_symlinks=False)} - {*self.records()}

    def scraps(self):
        """Paths of what :func:`write_file` and :meth:`_point` were about to put in place when they were killed."""
        directory = glob.escape(self.directory)
        folders = (directory, f"{directory}/marks", f"{directory}/releases/*")
        return [path for folder in folders for path in glob.glob(f"{folder}/*.new")]

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
        self._remove_unit_files(glob.escape(name))
        with contextlib.suppress(OSError):  # half a release may have no link to its socket yet
            if not self.has_socket_unit(name):
                shutil.rmtree(os.path.dirname(self.socket_path(name)))
        shutil.rmtree(os.path.join(self.releases_directory, name), ignore_errors=True)


def remove_stamps(timer):
    """Remove what systemd keeps of a timer that is gone: of a new one of that name it would tell nothing.

    :param timer: the name of a unit, or a pattern
    """
    for path in glob.glob(os.path.join(STAMPS, f"stamp-{timer}")):
        os.unlink(path)


def apps_on_host(root):
    """Names of the apps that have a directory on this host, in alphabetical order."""
    names = os.listdir(root) if os.path.isdir(root) else []
    return sorted(name for name in names if os.path.isdir(os.path.join(root, name, "releases")))


def traces_on_host(root, runtime_root):
    """Names of the apps of which this host has anything below these two directories, in alphabetical order: also of
    those whose removal was interrupted.
    """
    parts = ("releases", "builds", "marks", "repo.git")
    names = os.listdir(root) if os.path.isdir(root) else []
    found = {name for name in names if any(os.path.isdir(os.path.join(root, name, part)) for part in parts)}
    return sorted(found | set(os.listdir(runtime_root) if os.path.isdir(runtime_root) else ()))


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


def seal_path(build):
    """Where it is written what a build's files were like when it was done."""
    return f"{build}.seal"


def remove_build(path):
    """Remove a build, or a file in the place of one; its stamp goes first, so that half of one never passes for a whole
    one.
    """
    for file in (stamp_path(path), seal_path(path), path):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            os.unlink(file)
    shutil.rmtree(path, ignore_errors=True)


# --- what systemd calls ----------------------------------------------------------------------------------------------


def start_processes(units):
    """Start units of processes, of any apps."""
    if units:
        systemctl("reset-failed", "--", *sorted(units))  # their counts of restarts, too
        systemctl("start", "--no-block", "--", *sorted(units))


class Succession:
    """The processes of a release follow those of others: these are told to end, and each process of the release is
    started once they have.

    :ivar name: the release, which has the traffic
    :ivar waiting: {process: its settings} of those that were not started yet
    :ivar units: the units of those that were
    :ivar done: whether all of its processes were started, and those of others have ended
    """

    def __init__(self, app, name):
        self.app = app
        self.name = name
        self.units = []
        self.waiting = app.processes(name)
        # systemd is not asked about apps that have no such processes
        self.done = not any(release.get("processes") for release in app.records().values())

    def advance(self):
        """Do what can be done now; returns whether anything was started. The caller holds the app's lock."""
        units = units_of_releases(self.app.name)
        here = [unit for unit in units if unit.process != "web" and not unit.process.endswith(JOB)]
        others = [unit for unit in here if unit.release != self.name]
        failed = [unit.name for unit in others if unit.state == "failed"]
        unwanted = [unit.name for unit in others if unit.state not in ("failed", "deactivating")]
        ending = {unit.process for unit in others if unit.state != "failed"}
        # the release may have had the traffic before, and lost it a moment ago
        ending |= {unit.process for unit in here if unit not in others and unit.state == "deactivating"}
        if unwanted:
            systemctl("stop", "--no-block", "--", *unwanted)
        if failed:
            systemctl("reset-failed", "--", *failed)
        ready = [process for process, own in self.waiting.items() if own["overlap"] or process not in ending]
        units = [unit for process in ready for unit in self.app.process_units(self.name, process)]
        start_processes(set(units).difference(unit.name for unit in here if unit.state != "failed"))
        self.units += units
        self.waiting = {process: own for process, own in self.waiting.items() if process not in ready}
        self.done = not self.waiting and not ending
        return bool(units)


def settle(app, name):
    """Watch the new live release; give the traffic back when it fails; else retire what had it before.

    Runs as a transient unit, without the lock while it watches. Whoever switched meanwhile has won: nothing is done
    unless this release is still the live one.
    """
    release = app.release(name)
    if release is None:  # its record is damaged, and so nobody can say what it should do
        return
    problem = watch(app, name, release["health"])
    previous = None
    with lock(app.root, wait=math.inf, name=app.name):
        if app.live() == name:
            previous = give_verdict(app, name, problem)
    if previous:
        app.stop(name, wait=False)
    finish_succession(app)
    if previous:
        app.stop(name)


def give_verdict(app, name, problem):
    """Write down what became of the live release; returns the one that the traffic went back to, or None."""
    if problem is None:
        app.set_mark(name, "settled", proven=True)
        app.retire()
        return None
    lines = journal(problem.command if problem.command.endswith(".service") else app.unit(name))
    previous = app.mark(name).get("previous")
    if previous and app.release(previous) is None:
        previous = None  # it was removed: better a sick release than none
    if previous:
        app.start(previous)  # it still runs; after a reboot in between it may not
        app.switch(previous)
        start_live(app)  # goes on watching it, should it lack its own verdict
    details = {"command": problem.command, "status": problem.status, "journal": lines}
    app.set_mark(name, "failed", reason=str(problem), returned_to=previous, **details)
    return previous


def finish_succession(app):
    """Have the processes of what has the traffic run, and no others, for as long as that takes."""
    succession = None
    while True:
        with lock(app.root, wait=math.inf, name=app.name):
            live = app.live()
            if live is None or app.mark(live).get("state") == "settling":  # which is the matter of its watch
                return
            if succession is None or succession.name != live:
                succession = Succession(app, live)
            if not succession.done:
                succession.advance()
        if succession.done:
            return
        time.sleep(WATCH_INTERVAL)


def watch(app, name, health):
    """Start the processes of the new live release in time, and watch it for its settle time from then on.

    Returns what showed, an Unhealthy; None when nothing did, or when the release lost the traffic.
    """
    succession = Succession(app, name)
    deadline = time.monotonic() + health["settle"]
    path = app.socket_path(name)
    unanswered = 0
    while app.live() == name:
        if not succession.done:
            with contextlib.suppress(LockTimeout), lock(app.root, wait=0, name=app.name):
                if app.live() == name and succession.advance():
                    deadline = time.monotonic() + health["settle"]
        try:
            probe(path, health)
            unanswered = 0
        except Unhealthy as problem:
            unanswered += 1
            if unanswered == 2:  # one refused request under load is not a dead release
                return problem
        try:
            # after the probe, which may have waited for the process to be started again
            app.check(name, succession.units)
        except Unhealthy as problem:
            return problem
        if not unanswered and not succession.waiting and time.monotonic() >= deadline:
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


# --- metrics ---------------------------------------------------------------------------------------------------------

CERTIFICATES = "/etc/nginx/certificates"  # where nginx has those of the apps
OPENSSL_DATE = "%b %d %H:%M:%S %Y %Z"
LAST_RUN = ".last-run.json"  # in the root of the apps: what a run notes when it has released
METRICS = {
    "release_info": "The live release of an app",
    "healthy": "Whether the live release answers its health path as it must",
    "live_since_seconds": "When the live release got the traffic",
    "settling": "Whether the live release has no verdict yet",
    "restarts": "How often systemd has started the web process again since it was last started on purpose",
    "process_running": "Whether a process beside the web process runs",
    "failed_releases": "Releases on the host that failed and were not removed yet",
    "last_failure_seconds": "When the last of them failed",
    "certificate_expiry_seconds": "When the certificate that nginx has for an app ends",
    "last_run_seconds": "When the last run released, or found nothing to release",
    "last_run_failed_apps": "Apps of which that run could not release what was wanted",
}


def expiry(app, directory=CERTIFICATES):
    """When the certificate that nginx has for an app ends, in seconds since 1970; None when it has none."""
    path = os.path.join(directory, f"{app}.pem")
    if not os.path.exists(path):
        return None
    command = ["openssl", "x509", "-noout", "-enddate", "-in", path]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout
    try:
        return calendar.timegm(time.strptime(shown.strip().partition("=")[2], OPENSSL_DATE))
    except ValueError:
        return None


def note_run(root, failed):
    """Note that a run has come to its end, and how many apps have failed in it."""
    # no lock is held any more: of two runs that end at the same moment, either note is right
    with contextlib.suppress(FileExistsError, FileNotFoundError):
        write_file(os.path.join(root, LAST_RUN), json.dumps({"at": time.time(), "failed": failed}) + "\n")


def measure(app):
    """Yield (metric, labels beside the app's name, value) of an app."""
    live = app.live()
    failures = [app.mark(name).get("at", 0) for name in app.records() if app.failed(name)]
    yield "failed_releases", {}, len(failures)
    if failures:
        yield "last_failure_seconds", {}, max(failures)
    certificate = expiry(app.name)
    if certificate is not None:
        yield "certificate_expiry_seconds", {}, certificate
    release = app.release(live) if live else None
    if release is None:
        yield "healthy", {}, 0
        return
    yield "release_info", {"release": live, "commit": release.get("commit") or ""}, 1
    mark = app.mark(live)
    yield "settling", {}, int(mark.get("state") == "settling")
    if "since" in mark:
        yield "live_since_seconds", {}, mark["since"]
    processes = {unit: process for process in app.processes(live) for unit in app.process_units(live, process)}
    states = unit_states([app.unit(live), *processes], ("ActiveState", "NRestarts"))
    yield "restarts", {}, int(states.get(app.unit(live), {}).get("NRestarts") or 0)
    for unit, process in processes.items():
        number = unit.rpartition(":")[2].partition(".")[0]
        running_now = states.get(unit, {}).get("ActiveState") == "active"
        yield "process_running", {"process": process, "instance": number}, int(running_now)
    try:
        probe(app.socket_path(live), release["health"])
        yield "healthy", {}, 1
    except Unhealthy:
        yield "healthy", {}, 0


def exposition(root):
    """What the apps do, in Prometheus's text format."""
    samples = {}
    for name in apps_on_host(root):
        for metric, labels, value in measure(App(root, name)):
            samples.setdefault(metric, []).append(({"app": name, **labels}, value))
    last = read_json(os.path.join(root, LAST_RUN)) or {}
    if last:
        samples.update(last_run_seconds=[({}, last["at"])], last_run_failed_apps=[({}, last["failed"])])
    lines = []
    for metric, text in METRICS.items():
        if metric in samples:
            prefix = "flaskfleet_" if metric.startswith("last_run") else "flaskfleet_app_"
            lines += [f"# HELP {prefix}{metric} {text}.", f"# TYPE {prefix}{metric} gauge"]
            for labels, value in samples[metric]:
                shown = ",".join(f"{label}={json.dumps(str(text))}" for label, text in labels.items())
                lines.append(f"{prefix}{metric}{{{shown}}} {value}" if shown else f"{prefix}{metric} {value}")
    return "".join(f"{line}\n" for line in lines)


# --- the command -----------------------------------------------------------------------------------------------------

SYSTEMD_VERBS = {"live": 1, "settle": 2, "drain": 2, "schedule": 2}  # how many words each takes


def become_command(app, words):
    """Become a command that is a process of the live release, with this terminal, input and output.

    Does not return. The exit status is the command's.
    """
    name = app.live()
    if name is None:
        here = ", ".join(apps_on_host(app.root)) or "none"
        sys.exit(f"flask-app: there is no app {app.name!r} with a live release; apps in {app.root}: {here}")
    # by a shell, since systemd-run looks for a program in the PATH of its own
    shell = ["/bin/sh", "-c", 'exec "$@"', "sh", *words]
    command = unit_command(app.once_unit(name), app.command_properties(name), shell)
    command[1:1] = ["--pty", "--pipe"]  # a terminal only where there is one
    # From systemd 257 on it would show the command line in the title, and colour the background.
    plain = {"SYSTEMD_ADJUST_TERMINAL_TITLE": "0", "SYSTEMD_TINT_BACKGROUND": "0"}
    os.execvpe(command[0], command, {**os.environ, **plain})


def become_job(app, schedule):
    """Become the command of a schedule, as a process of the live release that outlives its traffic. Does not return,
    unless the release has no such command, as after a rollback.
    """
    name = app.live()
    own = app.jobs(name).get(schedule) if name else None
    if own is None:
        print(f"nothing to run: {name or 'no live release'} has no schedule {schedule!r}")
        return
    unit = f"flask-{app.name}.{schedule}"
    # whoever stops the schedule's service stops the job
    properties = [*app.command_properties(name), f"RuntimeMaxSec={own['timeout']}", f"PartOf={unit}.service"]
    command = unit_command(f"{unit}{JOB}@{name}.service", properties, ["/bin/sh", "-c", own["command"]])
    os.execvp(command[0], [command[0], "--pipe", *command[1:]])


def judge_calendars(events):
    """Have systemd judge calendar events, each behind ": " and what it belongs to. Exits with what is wrong."""
    problems = []
    for each in events:
        event = each.rpartition(": ")[2]
        command = ["systemd-analyze", "calendar", "--", event]
        if subprocess.run(command, capture_output=True, check=False, timeout=60).returncode:
            problems.append(f"{each!r} is no calendar event that systemd knows here")
    if problems:
        sys.exit("\n".join(problems))


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="flask-app",
        usage="flask-app [--root ROOT] APP COMMAND [ARGUMENT...]",
        description="Run a command in the live release of an app on this host: as its user, in its sandbox and"
        " environment, such as `flask-app hello flask shell`.",
        epilog="systemd calls `live APP`, `settle APP RELEASE`, `drain APP RELEASE`, `schedule APP SCHEDULE` and"
        " `metrics FILE`, and Ansible `calendar EVENT...`. For an app of such a name, write"
        " `flask-app run APP COMMAND`.",
    )
    parser.add_argument("--root", default=ROOT, help="where the apps are (default: %(default)s)")
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    words = options.words
    if words[:1] == ["calendar"]:
        judge_calendars(words[1:])
        return 0
    if words[:1] == ["metrics"] and len(words) == 2 and words[1].startswith("/"):
        os.makedirs(os.path.dirname(words[1]), exist_ok=True)
        write_file(words[1], exposition(options.root))
        return 0
    verb = words.pop(0) if words[:1] and words[0] in ("run", *SYSTEMD_VERBS) else "run"
    if len(words) < 2 if verb == "run" else len(words) != SYSTEMD_VERBS[verb]:
        parser.error("it takes an app and a command")
    if os.geteuid() != 0:
        parser.error("it must be run as root")
    app = App(options.root, words[0])
    if verb == "run":
        become_command(app, words[1:])
    elif verb == "live":
        start_live(app)
        finish_succession(app)
    elif verb == "schedule":
        become_job(app, words[1])
    elif verb == "settle":
        settle(app, words[1])
    # systemd calls this also after the main process has died. Then only the restart that comes next can answer those
    # who wait. A release that failed is not waited for either: it may never answer.
    elif "MAINPID" in os.environ and not app.failed(words[1]):
        drain(app.socket_path(words[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
