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
  - Code is fetched by an account of its own, dependencies are installed by the app's account in a sandbox; nothing
    that runs already is touched, and a failed build leaves nothing behind. One failed build does not stop the others.
author:
  - flaskfleet.deploy contributors (@flaskfleet)
attributes:
  check_mode:
    support: full
    description: Resolves the versions and says which builds would be made.
  diff_mode:
    support: none
    description: What a build changes for people is shown by M(flaskfleet.deploy.app_activate).
  idempotent:
    support: full
    description: A build that exists is never made again.
options:
  plan:
    description: What M(flaskfleet.deploy.plan) returned.
    type: dict
    required: true
  payload:
    description: Set by the action plugin; the repositories' URLs and commits, encoded.
    type: str
    default: ""
  lock_timeout:
    description: Seconds to wait for another run that works on the same host.
    type: int
    default: 600
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
  description: One entry for each app of the plan that has a build now, by name.
  returned: always
  type: dict
  sample:
    hello:
      commit: 1d7b60d2c1f0a3be5d4c7c0b1f9d3e8a6b5c4d3e
      build: 1d7b60d2-5f3a9c11
      subject: Say hello
      built: true
errors:
  description:
    - Builds that failed, each with C(app), C(step), C(message), the last lines of C(output), and all of it as C(text).
  returned: always
  type: list
  elements: dict
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskfleet.deploy.plugins.module_utils.builds import Builder, BuildError, build_stem
from ansible_collections.flaskfleet.deploy.plugins.module_utils.payload import decode
from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import (
    BUILDS,
    App,
    LockTimeout,
    lock,
    unused_name,
)
from ansible_collections.flaskfleet.deploy.plugins.module_utils.reports import failure


def wanted_commit(app, pinned):
    """The commit to deploy; the live one for an app that is to stay on it; None when only the host can tell."""
    here = App(os.path.dirname(app["paths"]["root"]), app["name"])
    if not app["update"] and here.live():
        return here.release(here.live())["commit"]
    return pinned


def run(module):
    plan = module.params["plan"]
    sources = decode(module.params["payload"])
    builder = Builder(plan["settings"])
    result = {"changed": False, "apps": {}, "errors": []}
    work = []
    for app in plan["apps"]:
        source = sources[app["name"]]
        commit = wanted_commit(app, source["commit"])
        build = builder.find(app, commit)
        if build:
            subject = builder.stamps(app)[build]["subject"]
            result["apps"][app["name"]] = {"commit": commit, "build": build, "subject": subject, "built": False}
        elif module.check_mode:
            result["changed"] = True
            build = commit and unused_name(build_stem(app, commit), builder.stamps(app))
            result["apps"][app["name"]] = {"commit": commit, "build": build, "subject": None, "built": True}
        else:
            work.append((app, source["url"], commit))
    if not work:
        return result
    os.makedirs(builder.root, mode=0o755, exist_ok=True)
    with lock(builder.root, module.params["lock_timeout"], BUILDS):  # not the one of releases: a rollback can't wait
        builder.prepare()
        outcomes = builder.build_all(work, plan["settings"]["build_jobs"])
        for app, _url, _commit in work:
            outcome = outcomes[app["name"]]
            if isinstance(outcome, BuildError):
                result["errors"].append(failure(app["name"], outcome.step, str(outcome), outcome.output))
            else:
                result["changed"] = result["changed"] or outcome["built"]
                result["apps"][app["name"]] = outcome
                builder.remove_orphans(app, outcome["build"])
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
    module.exit_json(**result)


if __name__ == "__main__":
    main()
