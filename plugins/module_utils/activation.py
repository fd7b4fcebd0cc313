# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make releases from builds and give them the traffic: write, start beside the live one, probe, switch, settle.

Until the switch nothing that serves is touched, so whatever fails before it leaves the old release serving.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import pwd
import shutil
import time

from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import (
    App,
    Unhealthy,
    fsync_directory,
    journal,
    lock,
    running,
    systemctl,
    unit_states,
    unused_name,
    write_file,
)
from ansible_collections.flaskfleet.deploy.plugins.module_utils.sandbox import render_environment

WANTS = "/etc/systemd/system/multi-user.target.wants"
VERDICT_GRACE = 30  # seconds beyond the settle time after which the watch itself is taken for dead


class ActivationError(Exception):
    """A release did not get the traffic, or did not keep it.

    :ivar step: what was being done: ``start``, ``probe``, ``settle`` …
    :ivar journal: last lines that its service wrote
    """

    def __init__(self, step, message, lines=()):
        super().__init__(message)
        self.step = step
        self.journal = list(lines)


class Activation:
    """What one run does with one app.

    :param spec: the plan's app with ``commit``, ``subject``, ``build``, ``files`` {name: text} and ``environment``
        {name: value}, secrets included
    """

    def __init__(self, root, proxy_user, spec):
        self.host = App(root, spec["name"])
        self.proxy_user = proxy_user
        self.spec = spec
        self.live = self.host.live()
        self.stem = f"{spec['commit'][:8]}-{spec['configuration_hash']}" if spec["commit"] else None
        self.files = {**spec["files"], "environment": render_environment(spec["environment"])}
        self.release = self._choose()

    def _choose(self):
        """The release this run wants live: one that is there already and just the same, else a new name."""
        if self.stem is None:
            return None
        for name in reversed(self.host.releases()):
            if self.host.release(name)["stem"] == self.stem and not self.host.failed(name) and self._same(name):
                return name
        # what a killed run left of a release does not count: write() replaces it
        return unused_name(self.stem, self.host.releases())

    def _same(self, name):
        if self.host.release(name)["build"] != self.spec["build"]:
            return False
        directory = os.path.join(self.host.releases_directory, name)
        for file, text in self.files.items():
            try:
                with open(os.path.join(directory, file), encoding="utf-8", newline="") as stream:
                    if stream.read() != text:
                        return False
            except FileNotFoundError:
                return False
        return True

    @property
    def needed(self):
        return self.release is None or self.release != self.live

    # --- steps ---

    def write(self):
        """The release's directory; release.json comes last and makes it one."""
        if self.host.release(self.release) is not None:
            return
        spec = self.spec
        if not os.path.isdir(os.path.join(self.host.builds_directory, spec["build"])):
            raise ActivationError("write", f"the build {spec['build']} was removed meanwhile, run it again")
        directory = os.path.join(self.host.releases_directory, self.release)
        shutil.rmtree(directory, ignore_errors=True)  # what a killed run left of it
        os.mkdir(directory)
        os.chmod(directory, 0o711)
        os.symlink(os.path.join("..", "..", "builds", spec["build"]), os.path.join(directory, "build"))
        os.symlink(os.path.join(spec["paths"]["runtime"], f"{self.release}.sock"), os.path.join(directory, "web.sock"))
        for name, text in self.files.items():
            write_file(os.path.join(directory, name), text, mode=0o600 if name == "environment" else 0o644)
        contents = {
            "app": spec["name"],
            "release": self.release,
            "stem": self.stem,
            "build": spec["build"],
            "commit": spec["commit"],
            "subject": spec["subject"],
            "created": time.time(),
            "url": spec["url"],
            "health": spec["health"],
            "keep_releases": spec["keep_releases"],
        }
        write_file(os.path.join(directory, "release.json"), json.dumps(contents, indent=2) + "\n")
        fsync_directory(self.host.releases_directory)

    def start(self):
        """Start beside the live release and wait until the health path answers as it must."""
        try:
            pwd.getpwnam(self.proxy_user)
        except KeyError as error:
            message = f"there is no account {self.proxy_user!r} to give the socket to: install the proxy (nginx) first"
            raise ActivationError("start", message) from error
        unit = self.host.unit(self.release)
        self.host.start(self.release)
        try:
            self.host.wait_until_healthy(self.release, self.spec["health"])
        except Unhealthy as problem:
            raise ActivationError("probe", str(problem), journal(unit)) from problem

    def activate(self):
        """From nothing to the traffic. The caller holds the lock of all runs, and awaits the verdict of the watch.

        :return: how many seconds it took
        """
        with lock(self.host.root, name=self.host.name):
            if self.host.live() != self.live:
                raise ActivationError("start", f"traffic went back to {self.host.live()} meanwhile, run it again")
            return self._activate()

    def _activate(self):
        started = time.monotonic()
        self.write()
        try:
            self.start()
            self.host.set_mark(self.release, "settling", previous=self.live, since=time.time())
            self.host.switch(self.release)
        except BaseException as error:
            if self.host.live() != self.release:
                reason = str(error) or type(error).__name__
                self.host.set_mark(self.release, "failed", reason=reason, journal=getattr(error, "journal", []))
                self.host.discard(self.release)
                self.host.prune(self.spec["keep_releases"], self.host.protected())
            raise
        self.host.start_settling(self.release)
        return time.monotonic() - started

    def await_verdict(self):
        """Wait for what the host's own watch says. Needs no lock: the watch takes it to act."""
        deadline = time.monotonic() + self.spec["health"]["settle"] + VERDICT_GRACE
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
                raise ActivationError("settle", message, mark.get("journal", ()))
            if lost:
                raise ActivationError("settle", f"another run switched to {self.host.live()} meanwhile")
            time.sleep(0.1)
        raise ActivationError("settle", f"{self.host.settle_unit(self.release)} gave no verdict")


def ensure_running(activations):
    """Start the live releases that should run and don't. Returns the names of the apps that were started."""
    units = {each.host.unit(each.live): each for each in activations if each.live and not each.needed}
    states = unit_states(list(units), ("ActiveState",))
    stopped = []
    for unit, each in units.items():
        if not os.path.exists(each.host.socket_path(each.live)):
            each.host.stop(each.live)  # it may run, but nobody can reach it
        elif states.get(unit, {}).get("ActiveState") in ("active", "activating"):
            continue
        each.host.start(each.live)
        stopped.append(each.spec["name"])
    return stopped


def stop_strays(activations):
    """Stop releases that a killed run started and no later one took up. Returns the names of their apps."""
    started = running()
    found = []
    for each in activations:
        strays = {name for name, stopping in started.get(each.spec["name"], {}).items() if not stopping} - {each.live}
        if strays and each.live and not each.needed and each.host.mark(each.live).get("state") != "settling":
            with lock(each.host.root, name=each.host.name):
                each.host.retire()
            found.append(each.spec["name"])
    return found


def unsettled(activations):
    """Unchanged apps whose live release still lacks a verdict, and whose watch has died."""
    candidates = {}
    for each in activations:
        if not each.needed and each.host.mark(each.live).get("state") == "settling":
            candidates[each.host.settle_unit(each.live)] = each
    states = unit_states(list(candidates), ("ActiveState",))
    return [each for unit, each in candidates.items() if states.get(unit, {}).get("ActiveState") != "active"]


def not_enabled(activations):
    """Targets that would not start at boot."""
    targets = [each.spec["units"]["target"] for each in activations if each.live or each.needed]
    return [target for target in targets if not os.path.lexists(os.path.join(WANTS, target))]


def enable(targets):
    """Enable and start several targets with one call each: every such call costs a quarter of a second."""
    if targets:
        systemctl("enable", "--quiet", "--", *targets, check=True)
        systemctl("start", "--no-block", "--", *targets, check=True)


def activate_all(activations, jobs):
    """Activate side by side. Returns {app name: seconds, or the exception}."""

    def one(activation):
        try:
            return activation.activate()
        except ActivationError as error:
            return error
        except Exception as error:  # whatever it is, it must not keep the other apps from their releases
            return ActivationError("write", f"{type(error).__name__}: {error}")

    with concurrent.futures.ThreadPoolExecutor(max(jobs, 1)) as pool:
        return dict(zip([each.spec["name"] for each in activations], pool.map(one, activations)))
