#!/usr/bin/python
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: app_build
short_description: Build Flask apps on a host, several at a time
version_added: 0.1.0
description:
  - Makes the builds that a plan asks for and the host does not have yet. A build is one commit of an app plus its
    installed dependencies, immutable and named by what went in.
  - The versions are resolved on the controller, once for all hosts of a run, so that all get the same commit. Where the
    controller can't reach a repository, the host resolves it.
  - Code is fetched by an account of its own. The app's account installs the dependencies and runs the build commands,
    in a sandbox, the latter without network and secrets. Nothing that runs already is touched, and a failed build
    leaves nothing behind. One failed build does not stop the others.
author:
  - flaskfleet.deploy contributors (@flaskfleet)
extends_documentation_fragment:
  - flaskfleet.deploy.modules
  - flaskfleet.deploy.modules.lock
attributes:
  check_mode:
    support: full
    details: Resolves the versions and says which builds would be made.
  diff_mode:
    support: none
    details: What a build changes for people is shown by M(flaskfleet.deploy.app_activate).
  idempotent:
    support: full
    details: A build that exists is never made again.
options:
  plan:
    description: What M(flaskfleet.deploy.plan) returned.
    type: dict
    required: true
  payload:
    description: Set by the action plugin; the repositories' URLs, keys and commits, encoded.
    type: str
    default: ""
notes:
  - Runs as root and needs systemd on the host.
seealso:
  - module: flaskfleet.deploy.plan
  - module: flaskfleet.deploy.app_activate
"""

EXAMPLES = r"""
- name: Build what is not built yet
  flaskfleet.deploy.app_build:
    plan: "{{ __flask_app_plan }}"
  register: __flask_app_builds
"""

RETURN = r"""
apps:
  description:
    - One entry for each app of the plan that has a build now, by name.
    - With C(began), the host's boot and seconds of it at which this looked, M(flaskfleet.deploy.app_activate) tells
      which of two runs began later.
  returned: always
  type: dict
  sample:
    hello:
      commit: 1d7b60d2c1f0a3be5d4c7c0b1f9d3e8a6b5c4d3e
      build: 1d7b60d2-5f3a9c11
      subject: Say hello
      built: true
      began: [6f2c7a1e-0b5d-4f7a-9c55-1f0c8e1b7a11, 8211.4]
mended:
  description: Apps whose build had other owners or modes than it was made with, or half a build beside it.
  returned: always
  type: list
  elements: str
errors:
  description:
    - Builds that failed, each with C(app), C(step), C(message), the C(command) of the app that failed with its
      C(status), the last lines of C(output), and all of it as C(text).
  returned: always
  type: list
  elements: dict
"""

import contextlib
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskfleet.deploy.plugins.module_utils.builds import Builder, build_stem
from ansible_collections.flaskfleet.deploy.plugins.module_utils.payload import decode
from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import (
    BUILDS,
    App,
    LockTimeout,
    lock,
    moment,
    unused_name,
)
from ansible_collections.flaskfleet.deploy.plugins.module_utils.reports import failure, unexpected
from ansible_collections.flaskfleet.deploy.plugins.module_utils.step_error import BuildError


def wanted_commit(app, pinned):
    """The commit to deploy; the live one for an app that is to stay on it; None when only the host can tell."""
    here = App(os.path.dirname(app["paths"]["root"]), app["name"])
    if not app["update"] and here.live():
        return here.release(here.live())["commit"]
    return pinned


def tidy(module, builder, apps, result):
    """Remove what a killed run left of builds that this run does not need, unless another run is just building."""
    untidy = [app for app in apps if app["name"] in result["apps"] and builder.halves(app)]
    if not untidy:
        return
    try:
        with contextlib.nullcontext() if module.check_mode else lock(builder.root, 0, BUILDS):
            for app in untidy:
                result["mended"].append(app["name"])
                if not module.check_mode:
                    builder.remove_orphans(app, result["apps"][app["name"]]["build"])
    except LockTimeout:
        pass


def look_and_build(module):
    plan = module.params["plan"]
    sources = decode(module.params["payload"])
    builder = Builder(plan["settings"])
    result = {"changed": False, "apps": {}, "mended": builder.mended, "errors": []}
    work = []
    for app in plan["apps"]:
        source = sources[app["name"]]
        commit = wanted_commit(app, source["commit"])
        build = builder.find(app, commit)
        if build:
            try:
                result["apps"][app["name"]] = builder.keep(app, commit, build, module.check_mode)
            except BuildError as error:
                result["errors"].append(failure(app["name"], error.step, str(error), error.output))
        elif module.check_mode:
            result["changed"] = True
            build = commit and unused_name(build_stem(app, commit), builder.stamps(app))
            result["apps"][app["name"]] = {"commit": commit, "build": build, "subject": None, "built": True}
        else:
            work.append((app, source["url"], commit, source["access"]))
    for name, build in builder.damaged.items():
        module.warn(f"{name}: in the build {build.name}, {build.damage} is not as it was made: it is built anew")
    tidy(module, builder, plan["apps"], result)
    result["changed"] = result["changed"] or builder.changed or bool(builder.mended)
    if not work:
        return result
    os.makedirs(builder.root, mode=0o755, exist_ok=True)
    with lock(builder.root, module.params["lock_timeout"], BUILDS):  # not the one of releases: a rollback can't wait
        builder.dependencies.prepare()
        outcomes = builder.build_all(work, plan["settings"]["build_jobs"])
        for app, _url, _commit, _access in work:
            outcome = outcomes[app["name"]]
            if isinstance(outcome, BuildError):
                told = (str(outcome), outcome.output, outcome.command, outcome.status)
                result["errors"].append(failure(app["name"], outcome.step, *told))
            else:
                result["changed"] = result["changed"] or outcome["built"]
                result["apps"][app["name"]] = outcome
                builder.remove_orphans(app, outcome["build"])
    result["changed"] = result["changed"] or builder.changed or bool(builder.mended)
    return result


def run(module):
    began = moment()  # before versions are looked at on this host, and before any lock is waited for
    result = look_and_build(module)
    for entry in result["apps"].values():
        entry["began"] = began
    return result


def main():
    module = AnsibleModule(
        argument_spec={
            "plan": {"type": "dict", "required": True},
            "payload": {"type": "str", "default": "", "no_log": True},
            "lock_timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except BuildError as error:
        module.fail_json(msg=f"{error.step}: {error}", output=error.output)
    except LockTimeout as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"app_build failed: {unexpected(error)}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
