# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make releases from builds and give them the traffic: write, start beside the live one, probe, switch, settle.

Until the switch nothing that serves is touched, so whatever fails before it leaves the old release serving. Going back
is the same with what an earlier release was made of.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import math
import os
import pwd
import re
import subprocess
import time

from ansible_collections.flaskfleet.deploy.plugins.module_utils.backups import Backups
from ansible_collections.flaskfleet.deploy.plugins.module_utils.configuration import changed_settings
from ansible_collections.flaskfleet.deploy.plugins.module_utils.memory import NotEnough, used
from ansible_collections.flaskfleet.deploy.plugins.module_utils.payload import scrub
from ansible_collections.flaskfleet.deploy.plugins.module_utils.recipes import secrets_in, secrets_of
from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import (
    SHOWN_LINES,
    CommandFailed,
    LockTimeout,
    Unhealthy,
    fsync_directory,
    journal,
    lock,
    read_text,
    running_web,
    systemctl,
    time_after,
    unit_states,
    unused_name,
    write_file,
)
from ansible_collections.flaskfleet.deploy.plugins.module_utils.sandbox import (
    parse_environment,
    stop,
)
from ansible_collections.flaskfleet.deploy.plugins.module_utils.step_error import ActivationError
from ansible_collections.flaskfleet.deploy.plugins.module_utils.upkeep import PRIVATE

MARKER_TIMEOUT = 30  # seconds for the command that tells whether the leader has run the release commands
VERDICT_GRACE = 30  # seconds beyond the settle time after which the watch itself is taken for dead
# The first version of gunicorn that loses no request when it replaces a worker that keeps connections alive.
LOSSLESS_GUNICORN = 27


class Activation:
    """What one run does with one app.

    :param host: the App
    :param recipe: what the wanted release is made of, see recipe_of_plan
    :param commands: {"release_commands": list, "before_switch": command, "after_switch": command}, each may be missing
        or empty
    :param limit: seconds that each of these commands may take
    :param leader: the host that runs the release commands when it is not this one
    :param ending: names of releases that are about to stop, which can't be started again until they have
    :param back: the earlier release that this goes back to, whose recipe it is; empty for a deployment
    :param hold: not None on a host that is not to release before the leader has run the release commands:
        {"done": the release or commit that they were run for, "marker": a command that succeeds when they were}
    :param began: the ``moment`` at which its run looked at the app first; None when that is not known
    :ivar live: the release that had the traffic when this began
    :ivar release: the wanted one; None when only the host can tell the commit, and has not yet
    :ivar seconds: from the first step to the switch; None without one
    :ivar error: the ActivationError that it ended with
    :ivar touched: whether anything on the host may have changed
    :ivar backup: the dump of its database that was made
    :ivar pending: the release commands that the wanted release has not been through
    :ivar held: the wanted release when it waits for the leader; the live one is then what this wants
    """

    def __init__(self, host, recipe, commands=None, limit=600, leader="", ending=(), back="", hold=None, began=None):
        self.host = host
        self.recipe = recipe
        self.files = recipe["files"]
        self.commands = commands or {}
        self.limit = limit
        self.leader = leader
        self.back = back
        self.began = began
        self.live = host.live()
        self.release = self._choose(ending)
        self.seconds = None
        self.error = None
        self.touched = False
        self.backup = ""
        self.pending = self._pending()
        self.held = ""
        if self.pending and leader and hold is not None and self.release and not self._told(**hold):
            self.held, self.release, self.pending = self.release, self.live, []

    def _choose(self, ending):
        """The release this run wants live: one that is there already and just the same, else a new name."""
        stem = self.recipe["stem"]
        if stem is None:
            return None
        records = self.host.records()
        for name, release in reversed(list(records.items())):
            usable = not self.host.failed(name) and (name == self.live or name not in ending)
            if usable and release["stem"] == stem and self._same(name, release):
                return name
        # what a killed run left of a release does not count: write() replaces it; but never what has the traffic
        return unused_name(stem, {*records, self.live})

    def _same(self, name, release):
        if release["build"] != self.recipe["build"]:
            return False
        directory = os.path.join(self.host.releases_directory, name)
        if not all(os.path.lexists(os.path.join(directory, link)) for link in ("build", "web.sock")):
            return False  # somebody removed them
        return all(read_text(os.path.join(directory, file)) == text for file, text in self.files.items())

    def _pending(self):
        """Release commands to be run: none for what is the same as a good release that had the traffic."""
        for name, release in self.host.records().items():
            served = "since" in self.host.mark(name) and not self.host.failed(name)
            if served and release["stem"] == self.recipe["stem"] and self._same(name, release):
                return []
        done = self.host.mark(self.release).get("release_commands", 0)
        return list(self.commands.get("release_commands", ()))[done:]

    def _told(self, done, marker):
        """Whether this host knows that the leader has run the release commands."""
        if done and (done == self.recipe["stem"] or self.recipe["commit"].startswith(done)):
            return True
        if not marker:
            return False
        names = {"APP": self.host.name, "RELEASE": self.recipe["stem"], "COMMIT": self.recipe["commit"]}
        command = ["/bin/sh", "-c", marker]
        nothing = subprocess.DEVNULL
        try:
            asked = subprocess.run(
                command,
                env={**os.environ, **names},
                stdin=nothing,
                stdout=nothing,
                stderr=nothing,
                timeout=MARKER_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return asked.returncode == 0

    @property
    def needed(self):
        return not self.held and (self.release is None or self.release != self.live)

    def changes(self):
        """Names of the settings that differ from the live release's, each with what happened to it. No values."""
        before = self.host.release(self.live) if self.live else None
        if before is None:
            return []
        now, old = self.recipe["settings"], before.get("settings", {})
        environment = parse_environment(self.files["environment"])
        directory = os.path.join(self.host.releases_directory, self.live)
        old_environment = parse_environment(read_text(os.path.join(directory, "environment")) or "")
        return changed_settings({**old, **secrets_in(old_environment, old)}, {**now, **secrets_in(environment, now)})

    # --- steps ---

    def write(self):
        """The release's directory; release.json comes last and makes it one."""
        if self.host.release(self.release) is not None:
            return
        recipe = self.recipe
        if not os.path.isdir(os.path.join(self.host.builds_directory, recipe["build"])):
            raise ActivationError("write", f"the build {recipe['build']} was removed meanwhile, run it again")
        directory = os.path.join(self.host.releases_directory, self.release)
        self.host.clear(self.release)  # what a killed run left of it, or of an earlier one of that name
        os.mkdir(directory)
        os.chmod(directory, 0o711)
        os.symlink(os.path.join("..", "..", "builds", recipe["build"]), os.path.join(directory, "build"))
        os.symlink(recipe["socket"].format(release=self.release), os.path.join(directory, "web.sock"))
        contents = {key: value for key, value in recipe.items() if key != "files"}
        contents["release"] = self.release
        if "created" not in contents:  # a twin is as old as what it is a twin of
            contents["created"] = time_after(each["created"] for each in self.host.records().values())
        for name, text in {**self.files, "release.json": json.dumps(contents, indent=2) + "\n"}.items():
            write_file(os.path.join(directory, name), text, mode=0o600 if name in PRIVATE else 0o644)
        fsync_directory(self.host.releases_directory)

    def start(self):
        """Start beside the live release and wait until the health path answers as it must."""
        try:
            pwd.getpwnam(self.recipe["proxy_user"])
        except KeyError as error:
            proxy = self.recipe["proxy_user"]
            message = f"there is no account {proxy!r} to give the socket to: install the proxy (nginx) first"
            raise ActivationError("start", message) from error
        unit = self.host.unit(self.release)
        started = time.time()
        systemctl("reset-failed", "--", unit)  # its count of restarts too: one of long ago tells nothing of now
        self.host.start(self.release)
        try:
            self.host.wait_until_healthy(self.release, self.recipe["health"])
        except Unhealthy as problem:
            lines = journal(unit, since=started)
            raise ActivationError("probe", str(problem), lines, problem.command, problem.status) from problem

    def run_command(self, step, command):
        """Run a command of the app as a process of the wanted release."""
        stop(self.host.command_unit)  # what a killed run left running
        try:
            self.host.run(self.release, command, self.limit)
        except CommandFailed as error:
            raise ActivationError(step, f"`{command}` {error}", error.output, command, error.status) from error

    def run_release_commands(self, guard):
        """Run what the release has not been through, and write down how far it is: a killed run is taken up there.

        Without the app's lock, so that the watch over the live release can give the traffic back meanwhile.
        """
        with self._app_locked():
            self.touched = True
            self.write()
        done = len(self.commands["release_commands"]) - len(self.pending)
        try:
            if self.recipe.get("backup") and not done:
                self._back_up()
            with guard.claim(self._memory_of_live()):
                if self.backup:
                    self._note(commands_begun=self.live)
                for number, command in enumerate(self.pending, done + 1):
                    self.run_command("release command", command)
                    self._note(release_commands=number)
        except NotEnough:
            raise
        except BaseException as error:
            with lock(self.host.root, name=self.host.name):
                self._give_up(error)
            raise

    def _back_up(self):
        """Dump the database before anything changes it, unless a run that was killed may have changed it already."""
        backups = Backups(self.host, self.recipe["backup"])
        mark = self.host.mark(self.release)
        newest = backups.names()[-1:]
        if mark.get("commands_begun", False) == self.live and newest == [os.path.basename(mark["backup"])]:
            self.backup = mark["backup"]
            return
        try:
            self.backup = backups.make(self.release, self.limit)
        except CommandFailed as error:
            command = self.recipe["backup"]["dump"][0]
            raise ActivationError("backup", f"`{command}` {error}", error.output, command, error.status) from error
        self._note(backup=self.backup, commands_begun=False)  # next, beside which release they were begun

    def _note(self, **more):
        """Add to the release's mark. The watch over the live release, which tidies up, has the same lock."""
        with lock(self.host.root, name=self.host.name):
            self.host.note(self.release, **more)

    def crossed(self):
        """[(release, dump of before it)] of those after the one that this goes back to whose commands were run."""
        records = self.host.records()
        since = records.get(self.back, {}).get("created", math.inf)
        marks = {name: self.host.mark(name) for name, each in records.items() if each["created"] > since}
        return [(name, mark.get("backup", "")) for name, mark in marks.items() if mark.get("release_commands")]

    @contextlib.contextmanager
    def _app_locked(self):
        """The app's lock, and its live release still the one that this was planned from."""
        with lock(self.host.root, name=self.host.name):
            if self.host.live() not in (self.live, self.release):
                raise ActivationError("start", f"traffic went back to {self.host.live()} meanwhile, run it again")
            yield

    def activate(self, guard):
        """From nothing to the traffic. The caller holds the lock of all runs, and awaits the verdict of the watch.

        :param guard: the memory.Guard of this run
        """
        started = time.monotonic()
        try:
            self._refuse_to_overtake()
            self._refuse_lossy_server()
            if self.pending and not self.leader:
                self.run_release_commands(guard)
            with self._app_locked():
                self._activate(guard, started)
            # without the lock, so that the watch can give the traffic back meanwhile
            if self.commands.get("after_switch"):
                self.run_command("after_switch", self.commands["after_switch"])
        except ActivationError as error:
            self.error = error
        except NotEnough as error:
            self.error = ActivationError("start", str(error))
        except Exception as error:  # whatever it is, it must not keep the other apps from their releases
            self.error = ActivationError("write", f"{type(error).__name__}: {error}")

    def _refuse_to_overtake(self):
        """Of two runs, what the later one wants stays, whoever comes first."""
        theirs = self.host.mark(self.live).get("began") if self.live else None
        if self.began and theirs and theirs[0] == self.began[0] and theirs[1] > self.began[1]:
            raise ActivationError("start", f"a run that began later has released {self.live} meanwhile")

    def _refuse_lossy_server(self):
        """An app can bring a gunicorn that loses requests when it replaces a worker: then it must not replace any."""
        if self.recipe["server"] != "gunicorn" or not self.recipe["max_requests"]:
            return
        build = os.path.join(self.host.builds_directory, self.recipe["build"])
        found = re.search(r"^gunicorn==(\d+)", read_text(os.path.join(build, ".venv", "requirements.lock")) or "", re.M)
        if found and int(found[1]) < LOSSLESS_GUNICORN:
            message = (
                f"server.max_requests must be 0: this app brings gunicorn {found[1]}, which loses requests when it"
            )
            raise ActivationError("write", f"{message} replaces a worker; {LOSSLESS_GUNICORN} does not")

    def _activate(self, guard, started):
        if self.host.live() == self.release:  # the watch was faster: it gave the traffic back to what is wanted
            self.seconds = 0.0
            return
        here = running_web(self.host.name).get(self.host.name, {})
        if here.get(self.release):  # it began to stop since this was planned
            self.release = self._choose({name for name, ending in here.items() if ending})
        # It still runs since it had the traffic: it may have requests to answer, and be what a watch would go back to.
        served = self.release in here and "since" in self.host.mark(self.release)
        replaced = self.host.mark(self.back).get("replaced") if self.back else self.live
        marked = {"previous": self.live, "replaced": replaced, "since": time.time(), "began": self.began}
        try:
            with guard.claim(0 if self.release in here else self._memory_of_live()):
                self.touched = True
                self.write()
                self.start()
            if self.commands.get("before_switch"):
                self.run_command("before_switch", self.commands["before_switch"])
            self.host.set_mark(self.release, "settling", **marked)
            self.host.switch(self.release)
        except NotEnough:
            raise
        except BaseException as error:
            if self.host.live() != self.release and not served:
                self._give_up(error)
            raise
        self.host.start_settling(self.release)
        self.seconds = time.monotonic() - started

    def _give_up(self, error):
        """Mark the release as failed for this reason, and end what runs of it."""
        if self.host.release(self.release) is not None:
            told = {key: getattr(error, key, None) for key in ("step", "command", "status")}
            secrets = secrets_of(self.host, self.release)
            lines = [scrub(line, secrets) for line in getattr(error, "output", [])]
            told.update(reason=scrub(str(error), secrets) or type(error).__name__, journal=lines)
            self.host.set_mark(self.release, "failed", **told)
        self.host.discard(self.release)
        self.host.prune(self.recipe["keep_releases"], self.host.protected())

    def _memory_of_live(self):
        """Bytes that the live release uses: what a second one is expected to need."""
        if self.live is None:
            return 0
        unit = self.host.unit(self.live)
        return used(unit_states([unit], ("MainPID",)).get(unit, {}).get("MainPID", "0"))

    def await_verdict(self):
        """Wait for what the host's own watch says. Needs no lock: the watch takes it to act."""
        try:
            self._await_verdict()
        except ActivationError as error:
            self.error = error
            self.seconds = None
        except LockTimeout as error:
            self.error = ActivationError("settle", str(error))

    def _await_verdict(self):
        # the watch lets the processes of the release before end their jobs
        deadline = time.monotonic() + self.recipe["health"]["settle"] + self.host.patience() + VERDICT_GRACE
        while time.monotonic() < deadline:
            lost = self.host.live() != self.release
            # the watch gives the traffic back first and writes down why then, under the lock
            with lock(self.host.root, wait=VERDICT_GRACE, name=self.host.name) if lost else contextlib.nullcontext():
                mark = self.host.mark(self.release)
            if mark.get("state") == "settled":
                return
            if mark.get("state") == "failed":
                back = mark.get("returned_to")
                message = f"{mark['reason']}; traffic went back to {back}" if back else mark["reason"]
                command, status = mark.get("command", ""), mark.get("status")
                raise ActivationError("settle", message, mark.get("journal", ()), command, status)
            if lost:
                raise ActivationError("settle", f"another run switched to {self.host.live()} meanwhile")
            time.sleep(0.1)
        watch = self.host.settle_unit(self.release)
        raise ActivationError("settle", f"{watch} gave no verdict", journal(watch, SHOWN_LINES), watch)


def activate_all(activations, jobs, guard):
    """Activate side by side, ``jobs`` at a time."""
    with concurrent.futures.ThreadPoolExecutor(max(jobs, 1)) as pool:
        list(pool.map(lambda each: each.activate(guard), activations))


def ending_releases():
    """{app: names of its releases that are about to stop} of this host."""
    return {app: {name for name, ending in found.items() if ending} for app, found in running_web().items()}
