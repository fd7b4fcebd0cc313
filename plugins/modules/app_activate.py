#!/usr/bin/python
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: app_activate
short_description: Release built Flask apps on a host and give them the traffic when they are healthy
version_added: 0.1.0
description:
  - For each app whose build or configuration differs from its live release, writes a release, starts it beside the live
    one, asks its health path on its own socket, and only then moves the traffic, by one rename.
  - The host itself then watches the new release for its settle time. It gives the traffic back when the release dies,
    and otherwise stops the release that had the traffic before, once nobody is connected to it any more.
  - Whatever fails before the switch leaves the old release serving. One broken app does not stop the others.
  - Live releases that should run and do not are started.
author:
  - flaskfleet.deploy contributors (@flaskfleet)
attributes:
  check_mode:
    support: full
    description: Says which release each app would get. For a commit that only the host can resolve it is unknown.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  plan:
    description: What M(flaskfleet.deploy.plan) returned.
    type: dict
    required: true
  builds:
    description: What M(flaskfleet.deploy.app_build) returned in RV(flaskfleet.deploy.app_build#module:apps).
    type: dict
    required: true
  payload:
    description: Set by the action plugin; the releases' files and environments, secrets included, encoded.
    type: str
    default: ""
  jobs:
    description: How many releases may be started at the same time. Each needs memory beside the one it replaces.
    type: int
    default: 4
  lock_timeout:
    description: Seconds to wait for another run that works on the same host.
    type: int
    default: 600
notes:
  - Runs as root and needs systemd on the host.
seealso:
  - module: flaskfleet.deploy.app_build
"""

EXAMPLES = r"""
- name: Give the traffic to the new releases
  flaskfleet.deploy.app_activate:
    plan: "{{ __flask_app_plan }}"
    builds: "{{ __flask_app_builds.apps }}"
  register: __flask_app_releases
"""

RETURN = r"""
apps:
  description: One entry for each app with a build, by name.
  returned: always
  type: dict
  contains:
    from:
      description: The release that was live before; null for the first one.
      type: str
    to:
      description: The release that is live now; null in check mode when the commit is not known.
      type: str
    changed:
      description: Whether the app got a new release, or its live one was started.
      type: bool
    seconds:
      description: From the first step to the switch; 0 where nothing was released.
      type: float
    url:
      description: Where the app answers.
      type: str
summary:
  description: One line for each of these apps, for people.
  returned: always
  type: list
  elements: str
  sample: ["hello: 1d7b60d2-5f3a9c11 -> 8c3f534e-5f3a9c11 in 0.41 s, http://hello.test/"]
errors:
  description:
    - Apps whose new release did not get or keep the traffic, each with C(app), C(step), C(message), the last lines of
      its journal as C(output), and all of this as C(text).
  returned: always
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskfleet.deploy.plugins.module_utils import activation
from ansible_collections.flaskfleet.deploy.plugins.module_utils.payload import decode, scrub
from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import LockTimeout, lock
from ansible_collections.flaskfleet.deploy.plugins.module_utils.reports import failure, release_line


def run(module):
    plan = module.params["plan"]
    payload = decode(module.params["payload"])
    secrets = payload["secrets"]
    specs = []
    for app in plan["apps"]:
        if app["name"] in module.params["builds"]:
            specs.append({**app, **module.params["builds"][app["name"]], **payload["apps"][app["name"]]})
    root, proxy_user = plan["settings"]["root"], plan["proxy_user"]
    result = {"changed": False, "apps": {}, "summary": [], "errors": []}

    def report(activations, seconds, started):
        for each in activations:
            name = each.spec["name"]
            changed = each.needed or name in started
            result["changed"] = result["changed"] or changed
            entry = {"from": each.live, "to": each.release, "changed": changed, "url": each.spec["url"]}
            entry["seconds"] = round(seconds.get(name, 0.0), 2)
            result["apps"][name] = entry
            result["summary"].append(release_line(name, entry, name in started))

    def fail(name, error):
        output = [scrub(line, secrets) for line in error.journal]
        result["errors"].append(failure(name, error.step, scrub(str(error), secrets), output))

    if module.check_mode:
        report([activation.Activation(root, proxy_user, spec) for spec in specs], {}, set())
        return result

    with lock(root, module.params["lock_timeout"]):
        activations = [activation.Activation(root, proxy_user, spec) for spec in specs]
        needed = [each for each in activations if each.needed]
        outcomes = activation.activate_all(needed, module.params["jobs"])
        failed = {name: error for name, error in outcomes.items() if isinstance(error, activation.ActivationError)}
        waiting = [each for each in needed if each.spec["name"] not in failed]
        started = activation.ensure_running(activations)
        tidied = activation.stop_strays(activations)
        for each in activation.unsettled(activations):
            each.host.start_settling(each.live)
            waiting.append(each)
        activation.enable(activation.not_enabled([each for each in activations if each.spec["name"] not in failed]))
    for each in waiting:
        try:
            each.await_verdict()
        except activation.ActivationError as error:
            failed[each.spec["name"]] = error
        except LockTimeout as error:
            failed[each.spec["name"]] = activation.ActivationError("settle", str(error))
    for name, error in failed.items():
        fail(name, error)
    seconds = {name: value for name, value in outcomes.items() if name not in failed}
    report([each for each in activations if each.spec["name"] not in failed], seconds, set(started))
    result["changed"] = result["changed"] or bool(failed or tidied)
    return result


def main():
    module = AnsibleModule(
        argument_spec={
            "plan": {"type": "dict", "required": True},
            "builds": {"type": "dict", "required": True},
            "payload": {"type": "str", "default": "", "no_log": True},
            "jobs": {"type": "int", "default": 4},
            "lock_timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except LockTimeout as error:
        module.fail_json(msg=str(error))
    except Exception as error:  # a traceback would print values
        module.fail_json(msg=f"app_activate failed: {type(error).__name__}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
