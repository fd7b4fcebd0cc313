# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Notice, and mend, what became of live releases that a run does not replace: none of it takes a new release."""

from __future__ import annotations

import glob
import os
import pwd
import stat
import time

from ansible_collections.flaskfleet.deploy.plugins.module_utils import release_host
from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import (
    Succession,
    lock,
    remove_stamps,
    running,
    start_processes,
    systemctl,
    unit_states,
)

TIMERS = "flask-*.*.timer"
WANTS = "/etc/systemd/system/multi-user.target.wants"
CHANGED = "StateChangeTimestampMonotonic"  # in microseconds; 0 when the unit has not been anything else since the boot
PRIVATE = ("environment", "release.json")  # files of a release that only root may read


class Upkeep:
    """What is not as it was left, of the apps whose live release stays. To look changes nothing.

    :param activations: list of Activation, of all apps of the run
    :param unwatched: what the function of that name returned
    :ivar findings: {name of an app: list of what was found, for people}
    :ivar since: {name of an app: {finding: since when, in seconds since 1970}}, where the host can tell
    """

    def __init__(self, activations, unwatched=()):
        self.findings = {}
        self.since = {}
        self.kept = [each for each in activations if each.live and not each.needed]
        self.running = running() if self.kept else {}
        self.masked, self.unreachable, self.stopped, self.missing = self._units()
        self.unset = [
            each for each in self.kept if self._note(each, each.host.unit_files_differ(each.live), "settings")
        ]
        self.astray = [found for each in self.kept for found in self._owners(each)]
        self.straying = self._strays()
        for each in self.kept:
            self._note(each, each.host.name in unwatched, "nobody watched over it")

    def _note(self, each, found, text, since=None):
        if found:
            self.findings.setdefault(each.host.name, []).append(text)
            if since:
                self.since.setdefault(each.host.name, {})[text] = since
        return found

    def _units(self):
        """Masked units, the apps whose socket is gone, those whose web process does not run, and the units of other
        processes that do not.
        """
        units = {each.host.unit(each.live, kind): each for each in self.kept for kind in ("socket", "service")}
        others = {unit: each for each in self.kept for unit in self._process_units(each)}
        states = unit_states([*units, *others], ("ActiveState", "LoadState", CHANGED))
        masked, unreachable, stopped, missing = [], [], [], []
        for unit, each in {**units, **others}.items():
            state = states.get(unit, {})
            since = wall_time(state.get(CHANGED))
            if self._note(each, state.get("LoadState") == "masked", f"{unit} was masked"):
                masked.append(unit)
            runs = state.get("ActiveState") in ("active", "activating")
            if unit in others:
                if self._note(each, not runs, f"{unit} did not run", since):
                    missing.append(unit)
                continue
            if unit.endswith(".socket"):
                if unit in masked:  # systemd closed it for good at its next reload, and says that it runs all the same
                    unreachable.append(each)
                continue
            gone = each not in unreachable and not os.path.exists(each.host.socket_path(each.live))
            if self._note(each, gone, "its socket was gone"):
                unreachable.append(each)
            elif each not in unreachable and self._note(each, not runs, "it did not run", since):
                stopped.append(each)
        return masked, unreachable, stopped, missing

    def _process_units(self, each):
        """Units that are to run, but for those that wait until the ones of another release have ended."""
        if each.host.mark(each.live).get("state") == "settling":  # its watch starts them
            return
        releases = self.running.get(each.host.name, {}).items()
        for process in each.host.processes(each.live):
            others = {name for name, processes in releases if process in processes and name != each.live}
            ending = self.running.get(each.host.name, {}).get(each.live, {}).get(process)
            if not others and not ending:
                yield from each.host.process_units(each.live, process)

    def _owners(self, each):
        try:
            known = list(belongings(each.host, each.live))
        except KeyError:  # an account is missing; before a run gets here in earnest, it is there again
            return
        for path, mode, uid, gid in known:
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue  # somebody else's matter
            owners = (status.st_uid, status.st_gid if gid is None else gid) != (uid, status.st_gid)
            differs = owners or mode not in (None, stat.S_IMODE(status.st_mode))
            if self._note(each, differs, f"owner or mode of {path}", status.st_ctime):
                yield path, mode, uid, -1 if gid is None else gid

    def _strays(self):
        """Apps with something that a killed run left and no later one took up."""
        found = []
        for each in self.kept:
            releases = self.running.get(each.host.name, {}).items()
            others = {name for name, processes in releases if not all(processes.values())} - {each.live}
            settling = each.host.mark(each.live).get("state") == "settling"  # the watch may go back to one of them
            running_on = self._note(each, bool(others) and not settling, "releases without traffic were running")
            halves = each.host.halves() - {each.live}
            scraps = each.host.scraps() or (halves and halves - each.host.protected())
            if self._note(each, bool(scraps) and not settling, "half-written files") or running_on:
                found.append(each)
        return found

    def mend(self):
        """Put all of it right."""
        if self.masked:
            systemctl("unmask", "--", *self.masked)
            systemctl("unmask", "--runtime", "--", *self.masked)
        for each in self.unset:
            each.host.install_unit_files(each.live)
        if self.unset:
            systemctl("daemon-reload")
        for path, mode, uid, gid in self.astray:
            os.chown(path, uid, gid, follow_symlinks=False)
            if mode is not None:
                os.chmod(path, mode)
        for each in self.unreachable:
            each.host.stop(each.live)  # it may run, but nobody can reach it
        for each in [*self.unreachable, *self.stopped]:
            each.host.start(each.live)
        for each in self.straying:
            with lock(each.host.root, name=each.host.name):
                each.host.retire()
                succession = Succession(each.host, each.live)
                if not succession.done:
                    succession.advance()
        start_processes(self.missing)


def wall_time(monotonic):
    """Seconds since 1970 of what systemd tells in microseconds since the boot; None when it tells nothing."""
    seconds = int(monotonic or 0) / 1e6
    return time.time() - time.monotonic() + seconds if seconds else None


def belongings(host, live):
    """(path, mode, uid, gid) of what an app has beside its builds, as it was made; None for what may be anything."""
    yield host.current, None, 0, 0
    for name in host.records():
        directory = os.path.join(host.releases_directory, name)
        yield directory, 0o711, 0, 0
        for entry in os.scandir(directory):
            mode = 0o600 if entry.name in PRIVATE else 0o644
            yield entry.path, None if entry.is_symlink() else mode, 0, 0
    for entry in os.scandir(host.marks_directory):
        yield entry.path, 0o644, 0, 0
    release = host.release(live)
    socket, proxy = host.socket_path(live), pwd.getpwnam(release["proxy_user"])
    if host.has_socket_unit(live):
        yield socket, 0o600, proxy.pw_uid, None
    else:
        yield os.path.dirname(socket), 0o710, pwd.getpwnam(release["user"]).pw_uid, proxy.pw_gid


def unwatched(hosts):
    """Names of the apps whose live release has no verdict yet, and whose watch has died.

    :param hosts: list of App
    """
    candidates = {}
    for host in hosts:
        live = host.live()
        if live and host.mark(live).get("state") == "settling":
            candidates[host.settle_unit(live)] = host, live
    states = unit_states(list(candidates), ("ActiveState",))
    dead = [candidates[unit] for unit in candidates if states.get(unit, {}).get("ActiveState") != "active"]
    return {host.name for host, live in dead if host.mark(live).get("state") == "settling"}  # it may just have ended


class TargetsAndTimers:
    """The units of apps with a release that stay the same whatever the release: targets and timers.

    :ivar disabled: targets that would not be started at boot
    :ivar idle: targets and timers that do not run
    :ivar forgotten: timers that run, have no file any more and are none of what is wanted: in check mode the files of
        these are not there yet
    """

    def __init__(self, activations):
        targets = {each.host.target: each.host.name for each in activations if each.live or each.needed}
        states = unit_states([*targets, TIMERS], ("ActiveState",)) if targets else {}
        active = {unit for unit, state in states.items() if state.get("ActiveState") == "active"}
        timers = {os.path.basename(path) for path in glob.glob(os.path.join(release_host.UNITS, TIMERS))}
        mine = tuple(f"flask-{name}." for name in targets.values())
        self.disabled = [target for target in targets if not os.path.lexists(os.path.join(WANTS, target))]
        self.idle = [*(each for each in targets if each not in active), *sorted(self._of(mine, timers - active))]
        # what is planned, and where that failed, what goes on
        wanted = set()
        for each in activations:
            live = each.host.live()
            jobs = {*each.recipe.get("jobs", ()), *(each.host.jobs(live) if live else ())}
            wanted |= {f"flask-{each.host.name}.{name}.timer" for name in jobs}
        running = {unit for unit in active if unit.endswith(".timer")}
        self.forgotten = sorted(self._of(mine, running - timers - wanted))

    @staticmethod
    def _of(prefixes, units):
        return [unit for unit in units if unit.startswith(prefixes)]

    def __bool__(self):
        return bool(self.disabled or self.idle or self.forgotten)

    def mend(self):
        """Put it right with one call each for all apps: to enable a unit costs a quarter of a second."""
        if self.disabled:
            systemctl("enable", "--quiet", "--", *self.disabled, check=True)
        if self.idle:
            systemctl("start", "--no-block", "--", *self.idle, check=True)
        if self.forgotten:
            systemctl("stop", "--", *self.forgotten)
            for timer in self.forgotten:
                remove_stamps(timer)
