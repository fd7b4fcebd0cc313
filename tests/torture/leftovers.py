#!/usr/bin/python3
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On a test host: print, as a JSON list, whatever a killed run left behind that no later one has cleared away.

Standard library only; it is sent through standard input and looks without touching anything.
"""

import contextlib
import glob
import json
import os
import re
import subprocess

ROOT = "/opt/flask_apps"
RUN = "/run/flask_apps"
UNITS = "/etc/systemd/system"


def names(folder):
    return set(os.listdir(folder)) if os.path.isdir(folder) else set()


def units(*patterns):
    """Of these patterns, the loaded units with their states."""
    command = ["systemctl", "list-units", "--all", "--no-legend", "--plain", *patterns]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.split()[0]: line.split()[2] for line in lines if line.strip()}


def app_of(unit):
    """The app that a unit belongs to."""
    return unit[len("flask-") :].split("@")[0].split(".")[0]


def release_of(unit):
    """The release that a unit belongs to, such as flask-moody@1-2.service or flask-moody.worker@1-2:1.service."""
    return unit.split("@")[1].rsplit(".", 1)[0].split(":")[0]


def of_app(app):
    folder = os.path.join(ROOT, app)
    current = os.path.join(folder, "current")
    releases, builds = names(os.path.join(folder, "releases")), names(os.path.join(folder, "builds"))
    live = os.path.basename(os.readlink(current)) if os.path.islink(current) else None
    if live not in releases:
        yield f"{app}: current names {live}, which is no release"
    for name in releases:
        if not os.path.exists(os.path.join(folder, "releases", name, "release.json")):
            yield f"{app}: half release {name}"
    for name in names(os.path.join(folder, "marks")):
        if name[: -len(".json")] not in releases:
            yield f"{app}: mark {name} of no release"
    for name in builds:
        build = name[: -len(".json")] if name.endswith((".json", ".seal")) else name
        if not {build, f"{build}.json"} <= builds:
            yield f"{app}: half build {name}"
    for path in glob.glob(f"{UNITS}/flask-{app}@*.service.d"):
        if os.path.basename(path)[len(f"flask-{app}@") : -len(".service.d")] not in releases:
            yield f"{app}: settings of no release, {os.path.basename(path)}"
    for path in glob.glob(f"{UNITS}/flask-{app}.*@?*.service"):
        if release_of(path) not in releases:
            yield f"{app}: a process of no release, {os.path.basename(path)}"
    for unit, state in units(f"flask-{app}@*", f"flask-{app}.*@*").items():
        if release_of(unit) != live:
            yield f"{app}: {unit} is {state}, live is {live}"
    for path in glob.glob(os.path.join(RUN, app, "*")):
        name = os.path.basename(path)
        # granian's socket lies in a folder of its release
        if name != f"{live}.sock" and (name not in releases or (name != live and os.listdir(path))):
            yield f"{app}: socket {name}, live is {live}"
    if live in releases:
        with open(os.path.join(folder, "marks", f"{live}.json")) as stream:
            if json.load(stream)["state"] == "settling":
                yield f"{app}: {live} is still settling"


def of_host(apps):
    for folder in names(RUN) - set(apps):
        yield f"{RUN}/{folder} of no app"
    for name in names(ROOT) - set(apps) - {".tools", ".lock", "._builds.lock", ".last-run.json"}:
        if name not in {f".{app}.lock" for app in apps} and not name.startswith(".torture"):
            yield f"{ROOT}/{name} of no app"
    for path in glob.glob(f"{UNITS}/flask-*"):
        if app_of(os.path.basename(path)) not in apps:
            yield f"{path} of no app"
    yield from glob.glob("/run/flask-app-*")
    transient = units("flask-*.settle-*", "flask-*.command*", "flask-*.build*")
    yield from (f"{unit} is {state}" for unit, state in transient.items())
    for unit in units("flask-*"):
        if app_of(unit) not in apps:
            yield f"{unit} of no app is loaded"
    for pattern in ("/etc/sysusers.d/flask-*.conf", "/etc/tmpfiles.d/flask-*.conf", "/etc/nginx/*/*.test.conf"):
        for path in glob.glob(pattern):
            if re.sub(r"^flask-|(\.test)?\.conf$", "", os.path.basename(path)) not in apps:
                yield f"{path} of no app"
    for path in [*glob.glob(f"{ROOT}/.*lock"), *glob.glob("/var/lib/flaskfleet/*.lock")]:
        if subprocess.run(["flock", "--nonblock", path, "true"]).returncode:
            yield f"{path} is held"
    for path in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError):
            with open(path) as stream:
                name, state = re.search(r"\((.*)\) (\S)", stream.read()).groups()
            if state == "T":
                yield f"the process {name} is stopped"
    yield from glob.glob("/var/cache/flask_apps/.sets/new-*")
    for left in ("**/*.lock", "objects/pack/tmp_*", "objects/??/tmp_obj_*"):
        yield from glob.glob(f"{ROOT}/*/repo.git/{left}", recursive=True)
    command = ["systemctl", "show", "--property=Id,NeedDaemonReload", "flask-*", "nginx.service"]
    for block in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n\n"):
        if "NeedDaemonReload=yes" in block:
            yield f"not loaded: {block.split()[0]}"
    failed = subprocess.run(["systemctl", "--failed", "--no-legend", "--plain"], capture_output=True, text=True)
    yield from (f"failed: {line.split()[0]}" for line in failed.stdout.splitlines() if "flask" in line)
    # each file system by itself: some have one of their own here
    folders = [ROOT, "/etc", *glob.glob("/etc/nginx/*/"), UNITS, RUN, "/var/lib/flask_apps", "/var/lib/flaskfleet"]
    command = ["find", *folders, "/usr/local/sbin", "-xdev", "-path", "*/.venv", "-prune", "-o"]
    command += ["(", "-name", "*.new", "-o", "-name", ".flaskfleet-*", ")", "-print"]
    yield from sorted(set(subprocess.run(command, capture_output=True, text=True).stdout.splitlines()))
    state = "/var/lib/flaskfleet"
    for path in glob.glob(f"{state}/**/*.pending", recursive=True):
        yield path


if __name__ == "__main__":
    apps = [name for name in names(ROOT) if os.path.isdir(os.path.join(ROOT, name, "releases"))]
    found = [line for app in apps for line in of_app(app)]
    print(json.dumps(found + list(of_host(apps))))
