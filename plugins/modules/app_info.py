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
  - Returns for each app of the host its live release, whether that is healthy now and what it uses, and the app's other
    releases with what became of them.
  - Reads what stands on the host, so it needs no list of apps.
author:
  - flaskfleet.deploy contributors (@flaskfleet)
attributes:
  check_mode:
    description: Can run in check_mode and tell what it would change without changing it.
    support: full
  diff_mode:
    description: Returns what changed in diff mode.
    support: none
  idempotent:
    description: When run twice in a row outside check mode with the same arguments, the second run indicates no change.
    support: full
options:
  root:
    description: Where the apps are.
    type: path
    default: /opt/flask_apps
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

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskfleet.deploy.plugins.module_utils import memory
from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import (
    App,
    Unhealthy,
    apps_on_host,
    probe,
    unit_states,
)

TOLD = ("release", "commit", "subject", "url", "server")  # of release.json


def describe(app):
    state = dict.fromkeys((*TOLD, "state", "since", "status", "problem"))
    state.update(app=app.name, healthy=False, memory=0, workers=0, restarts=0, releases=describe_releases(app))
    name = app.live()
    release = app.release(name) if name else None
    if release is None:
        return {**state, "problem": "no release has had the traffic yet"}
    mark = app.mark(name)
    state.update({key: release.get(key) for key in TOLD}, state=mark.get("state"), since=mark.get("since"))
    unit = unit_states([app.unit(name)], ("MainPID", "NRestarts")).get(app.unit(name), {})
    pid = unit.get("MainPID", "0")
    state.update(memory=memory.used(pid), restarts=int(unit.get("NRestarts") or 0))
    state["workers"] = len(memory.children(pid))
    try:
        return {**state, "status": probe(app.socket_path(name), release["health"]), "healthy": True}
    except Unhealthy as problem:
        return {**state, "status": problem.status, "problem": str(problem)}


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
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        apps = list(pool.map(lambda name: describe(App(root, name)), names))
    module.exit_json(changed=False, apps=apps)


if __name__ == "__main__":
    main()
