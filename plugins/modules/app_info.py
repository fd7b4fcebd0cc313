#!/usr/bin/python
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: app_info
short_description: Say what the Flask apps on a host are doing
version_added: 0.1.0
description:
  - Returns for each app of the host its live release, whether that is healthy now and what it uses, its processes
    beside the web process, and the app's other releases with what became of them.
  - Reads what stands on the host, so it needs no list of apps.
author:
  - flaskfleet.deploy contributors (@flaskfleet)
extends_documentation_fragment:
  - flaskfleet.deploy.modules
  - flaskfleet.deploy.modules.root
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  names:
    description: Only these apps. All when not given.
    type: list
    elements: str
    default: []
notes:
  - Runs as root, since only nginx and root may connect to an app's socket.
"""

EXAMPLES = r"""
- name: Look at the apps of the host
  flaskfleet.deploy.app_info:
  register: apps
"""

RETURN = r"""
apps:
  description: One entry for each app, in alphabetical order.
  returned: always
  type: list
  elements: dict
  contains:
    app:
      description: Name of the app.
      type: str
    release:
      description: The live release; null when none ever had the traffic.
      type: str
    commit:
      description: Its commit.
      type: str
    subject:
      description: First line of the commit's message.
      type: str
    state:
      description: What is known of the release, V(settling), V(settled) or V(failed).
      type: str
    since:
      description: When it got the traffic, in seconds since 1970.
      type: float
    url:
      description: Where the app answers.
      type: str
    status:
      description: HTTP status of the health path, asked on the app's own socket; null when there was no answer.
      type: int
    healthy:
      description: Whether that status is one the app is to answer with.
      type: bool
    problem:
      description: What was seen when it is not healthy; null otherwise.
      type: str
    server:
      description: The server it runs under, V(gunicorn) or V(granian).
      type: str
    memory:
      description: Bytes that its processes use, memory they share counted once; 0 when it does not run.
      type: int
    workers:
      description: Number of its worker processes.
      type: int
    restarts:
      description: How often systemd has started it again since it was last started on purpose.
      type: int
    processes:
      description: What it runs beside the web process, one entry for each instance.
      type: list
      elements: dict
      contains:
        process:
          description: Its name.
          type: str
        unit:
          description: The unit that it runs in.
          type: str
        state:
          description: What systemd says of the unit, such as V(running), V(exited), V(auto-restart) or V(dead).
          type: str
        healthy:
          description: Whether it runs, or has ended as it may.
          type: bool
        memory:
          description: Bytes that it uses.
          type: int
        restarts:
          description: As of the web process.
          type: int
    certificate:
      description: When the certificate that nginx serves it with ends, in seconds since 1970; null when it has none.
      type: float
    drift:
      description:
        - What of its files is not as the last run left it. Only what can be told without the list, which
          C(flaskfleet.deploy.drift) compares.
      type: list
      elements: dict
      contains:
        what:
          description: A sentence.
          type: str
        since:
          description: When it was changed, in seconds since 1970; null when that is not known.
          type: float
    backups:
      description: The dumps of its database, newest first.
      type: list
      elements: dict
      contains:
        backup:
          description: Name of the file.
          type: str
        made:
          description: When it was made, in seconds since 1970.
          type: float
        size:
          description: Bytes.
          type: int
    schedules:
      description: The commands that the live release runs at given times.
      type: list
      elements: dict
      contains:
        schedule:
          description: Its name.
          type: str
        unit:
          description: The service that runs it. What it wrote is in the journal under this name without C(.service).
          type: str
        next:
          description: When it runs next, in seconds since 1970; null when it does not.
          type: float
        last:
          description: When it was last begun; null when that is not known, as after a reboot of a host whose schedule
            is not persistent.
          type: float
        running:
          description: Whether it runs now.
          type: bool
        result:
          description: What systemd says of how it ended last, V(success) or for example V(exit-code); null before that.
          type: str
        status:
          description: Its last exit status; null before it has one.
          type: int
        healthy:
          description: Whether it has not failed, and will be run again or runs.
          type: bool
    releases:
      description: The app's releases on the host, newest first, the live one included.
      type: list
      elements: dict
      contains:
        release:
          description: Its name.
          type: str
        commit:
          description: Its commit.
          type: str
        subject:
          description: First line of the commit's message.
          type: str
        created:
          description: When it was made, in seconds since 1970.
          type: float
        live:
          description: Whether it has the traffic.
          type: bool
        state:
          description:
            - V(settled), which a rollback can lead to, V(failed), V(settling), or null for one that never had the
              traffic.
          type: str
        reason:
          description: Why it failed; null otherwise.
          type: str
"""

import concurrent.futures
import json
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskfleet.deploy.plugins.module_utils import memory, standing
from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import (
    App,
    Unhealthy,
    apps_on_host,
    exit_status,
    expiry,
    probe,
    systemctl,
    unit_states,
)

STARTED = "ExecMainStartTimestampMonotonic"  # in microseconds; 0 when it has not been since the host was booted
PROPERTIES = ("MainPID", "NRestarts", "ActiveState", "SubState", "Result", "ExecMainStatus", STARTED)
TOLD = ("release", "commit", "subject", "url", "server")  # of release.json


def describe(app, drift=()):
    """:param drift: of the app's files, as ``standing.drifted_files`` has it"""
    state = dict.fromkeys((*TOLD, "state", "since", "status", "problem"))
    state.update(app=app.name, healthy=False, memory=0, workers=0, restarts=0, processes=[], schedules=[])
    state.update(certificate=expiry(app.name), drift=list(drift), backups=[])
    state["releases"] = describe_releases(app)
    name = app.live()
    release = app.release(name) if name else None
    if release is None:
        return {**state, "problem": "no release has had the traffic yet"}
    mark = app.mark(name)
    state.update({key: release.get(key) for key in TOLD}, state=mark.get("state"), since=mark.get("since"))
    state["backups"] = standing.dumps(release)
    if app.unit_files_differ(name):
        state["drift"].append({"what": "systemd is told other settings than the release has", "since": None})
    processes = {unit: process for process in app.processes(name) for unit in app.process_units(name, process)}
    services = {schedule: f"flask-{app.name}.{schedule}.service" for schedule in app.jobs(name)}
    units = unit_states([app.unit(name), *processes, *services.values()], PROPERTIES)
    state.update(usage(units.get(app.unit(name), {})))
    state["workers"] = len(memory.children(units.get(app.unit(name), {}).get("MainPID", "0")))
    state["processes"] = [describe_process(process, unit, units.get(unit, {})) for unit, process in processes.items()]
    timers = elapsing([f"flask-{app.name}.{schedule}.timer" for schedule in services])
    state["schedules"] = [
        describe_schedule(schedule, unit, units.get(unit, {}), timers.get(f"flask-{app.name}.{schedule}.timer", {}))
        for schedule, unit in services.items()
    ]
    try:
        return {**state, "status": probe(app.socket_path(name), release["health"]), "healthy": True}
    except Unhealthy as problem:
        return {**state, "status": problem.status, "problem": str(problem)}


def usage(unit):
    """What a unit's properties tell of what its main process uses."""
    return {"memory": memory.used(unit.get("MainPID", "0")), "restarts": int(unit.get("NRestarts") or 0)}


def describe_process(process, unit, found):
    state = found.get("SubState", "dead")
    healthy = found.get("ActiveState") == "active"
    return {"process": process, "unit": unit, "state": state, "healthy": healthy, **usage(found)}


def elapsing(timers):
    """{timer: when it elapses ``next``, and did ``last``, in microseconds} of those that run."""
    if not timers:
        return {}
    found = json.loads(systemctl("list-timers", "--all", "--output=json", "--", *timers).stdout or "[]")
    return {timer["unit"]: timer for timer in found}


def describe_schedule(schedule, unit, found, timer):
    upcoming, last = (timer[key] / 1e6 if timer.get(key) else None for key in ("next", "last"))
    started = int(found.get(STARTED) or 0) / 1e6
    if started:  # whether the timer or a person has started it
        last = time.time() - time.monotonic() + started
    state = {"schedule": schedule, "unit": unit, "next": upcoming, "last": last}
    running = found.get("ActiveState") in ("activating", "active")
    result = found.get("Result") if started and not running else None
    status = exit_status(found) if result else None
    healthy = result in (None, "success") and bool(upcoming or running)
    return {**state, "running": running, "result": result, "status": status, "healthy": healthy}


def describe_releases(app):
    found = []
    for name, release in reversed(list(app.records().items())):
        mark = app.mark(name)
        told = {key: release.get(key) for key in ("commit", "subject", "created")}
        reason = mark.get("reason") if mark.get("state") == "failed" else None
        found.append(
            {"release": name, **told, "live": name == app.live(), "state": mark.get("state"), "reason": reason}
        )
    return found


def main():
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": "/opt/flask_apps"},
            "names": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    root = module.params["root"]
    names = apps_on_host(root)
    if module.params["names"]:
        names = [name for name in names if name in module.params["names"]]
    drifted = standing.drifted_files() if names else {}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        apps = list(pool.map(lambda name: describe(App(root, name), drifted.get(name, ())), names))
    module.exit_json(changed=False, apps=apps)


if __name__ == "__main__":
    main()
