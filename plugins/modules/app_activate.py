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
  - For each app whose build or configuration differs from its live release, writes a release, runs its release commands
    on the host that leads, starts it beside the live one, asks its health path on its own socket, and only then moves
    the traffic, by one rename.
  - The host itself then watches the new release for its settle time. It gives the traffic back when the release dies,
    and otherwise stops the release that had the traffic before, once nobody is connected to it any more.
  - Whatever fails before the switch leaves the old release serving. One broken app does not stop the others.
  - With a plan for going back, does the same with earlier releases, which are there already.
  - What has become of live releases that stay (stopped or masked units, lost sockets, settings that systemd was told
    otherwise, owners and modes) is put right without a new release.
author:
  - flaskfleet.deploy contributors (@flaskfleet)
extends_documentation_fragment:
  - flaskfleet.deploy.modules
  - flaskfleet.deploy.modules.lock
attributes:
  check_mode:
    support: full
    details: Says which release each app would get. For a commit that only the host can resolve it is unknown.
  diff_mode:
    support: full
    details: The subjects of the commits between two releases, and the names of the settings that differ, never a value.
  idempotent:
    support: full
options:
  plan:
    description: What M(flaskfleet.deploy.plan) returned.
    type: dict
    required: true
  builds:
    description: What M(flaskfleet.deploy.app_build) returned in RV(flaskfleet.deploy.app_build#module:apps). Of no use
      for going back.
    type: dict
    default: {}
  payload:
    description: Set by the action plugin; the releases' files and environments, secrets included, encoded.
    type: str
    default: ""
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
  description: One entry for each app with a build, by name; when going back, for each app that goes back.
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
      description: Whether the app got another release, or something of its live one was mended.
      type: bool
    mended:
      description: What of the live release was not as it was left, such as a stopped or masked unit.
      type: list
      elements: str
    mended_since:
      description:
        - Since when that was so, in seconds since 1970, of those entries of RV(apps.mended) where the host can tell.
      type: dict
    live_since:
      description: When the release that was live before got the traffic, in seconds since 1970; null when none was.
      type: float
    seconds:
      description: From the first step to the switch; 0 where nothing was released.
      type: float
    release_commands:
      description: The release commands that were run, or would be in check mode.
      type: list
      elements: str
    backup:
      description: The dump of its database that was made before the release commands; empty where there was none.
      type: str
    release_leader:
      description: The host that runs the app's release commands, which this one left out; empty where there were none.
      type: str
    held:
      description: The release that waits until the leader has run its release commands; empty where none does.
      type: str
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
    - Apps whose new release did not get or keep the traffic, each with C(app), C(step), C(message), the C(command) that
      failed (also a request or a unit) with its C(status), the last lines of its output or journal as C(output), and
      all of this as C(text).
  returned: always
  type: list
  elements: dict
"""

import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskfleet.deploy.plugins.module_utils import activation, memory, recipes, upkeep
from ansible_collections.flaskfleet.deploy.plugins.module_utils.mirror import Mirror, build_unit, hidden_folders
from ansible_collections.flaskfleet.deploy.plugins.module_utils.payload import decode, scrub
from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import (
    App,
    LockTimeout,
    lock,
    moment,
    note_run,
)
from ansible_collections.flaskfleet.deploy.plugins.module_utils.reports import (
    changes,
    failure,
    release_line,
    sharing_hint,
    unexpected,
)
from ansible_collections.flaskfleet.deploy.plugins.module_utils.sandbox import parse_environment


class Run:
    """What one execution does, and what it tells of it."""

    def __init__(self, module):
        self.module = module
        self.plan = module.params["plan"]
        self.settings = self.plan["settings"]
        payload = decode(module.params["payload"])
        self.payload = payload["apps"]
        self.secrets = list(payload["secrets"])
        self.result = {"changed": False, "apps": {}, "summary": [], "errors": []}
        self.began = moment()
        self.since = {}  # when the releases that are live before anything is done got the traffic

    def activations(self):
        """One Activation for each app, as things stand on the host. Apps that can't go back are reported at once."""
        ending = activation.ending_releases()
        found = []
        for app in self.plan["apps"]:
            host = App(self.settings["root"], app["name"])
            self.since[app["name"]] = host.mark(host.live()).get("since") if host.live() else None
            commands = {step: app[step] for step in ("before_switch", "after_switch")}
            options = {"commands": commands, "limit": app["command_timeout"], "ending": ending.get(app["name"], ())}
            options["began"] = self.began
            if self.plan["rollback"]:
                if app["name"] not in self.plan["rollback_to"]:
                    continue
                try:
                    target = recipes.rollback_target(host, self.plan["rollback_to"][app["name"]])
                except activation.ActivationError as error:
                    self.fail(app["name"], error)
                    continue
                recipe = recipes.recipe_of_release(host, target)
                environment = parse_environment(recipe["files"]["environment"])
                self.secrets += recipes.secrets_in(environment, recipe["settings"]).values()
                found.append(activation.Activation(host, recipe, back=target, **options))
            elif app["name"] in self.module.params["builds"]:
                build = self.module.params["builds"][app["name"]]
                recipe = recipes.recipe_of_plan(app, self.plan["proxy_user"], build, **self.payload[app["name"]])
                commands["release_commands"] = app["release_commands"]
                options.update(leader=app["release_leader"], hold=app["release_hold"])
                options["began"] = build.get("began", self.began)
                found.append(activation.Activation(host, recipe, **options))
        return found

    def hosts(self):
        """The App of each app of the plan."""
        return [App(self.settings["root"], app["name"]) for app in self.plan["apps"]]

    def predict(self):
        activations = self.activations()
        self.show_changes(activations)
        found = upkeep.Upkeep(activations, upkeep.unwatched(self.hosts()))
        for each in activations:
            self.report(each, found)
        self.result["changed"] = self.result["changed"] or bool(upkeep.TargetsAndTimers(activations))

    def perform(self):
        with lock(self.settings["root"], self.module.params["lock_timeout"]):
            activations = self.activations()
            self.show_changes(activations)
            needed = [each for each in activations if each.needed]
            guard = memory.Guard(self.settings["memory_reserve"] * memory.MIB)
            activation.activate_all(needed, self.settings["activation_jobs"], guard)
            waiting = [each for each in needed if each.seconds is not None]
            switched = {each.host.name for each in waiting}
            # also where no release could be made: what has the traffic must not wait for one that can
            hosts = [host for host in self.hosts() if host.name not in switched]
            unwatched = upkeep.unwatched(hosts)
            found = upkeep.Upkeep(activations, unwatched)
            found.mend()
            for host in hosts:
                if host.name in unwatched:
                    self.watch(host)
            waiting += [each for each in activations if each.host.name in unwatched and not each.needed]
            standing = upkeep.TargetsAndTimers([each for each in activations if each.host.live()])
            standing.mend()
        for each in waiting:
            each.await_verdict()
        for each in activations:
            if each.error is not None:
                self.fail(each.host.name, each.error, each.recipe.get("path", "."))
            if each.error is None or each.seconds is not None:
                self.report(each, found)
        self.result["changed"] = self.result["changed"] or bool(standing) or any(each.touched for each in needed)
        note_run(self.settings["root"], len(self.result["errors"]))

    def watch(self, host):
        """Have a live release watched whose watch has died."""
        self.result["changed"] = True
        try:
            host.start_settling(host.live())
        except (OSError, subprocess.SubprocessError) as error:
            self.fail(host.name, activation.ActivationError("settle", f"its watch could not be started: {error}"))

    def report(self, each, found):
        name = each.host.name
        mended = found.findings.get(name, ())
        changed = each.needed or bool(mended)
        pending = each.pending if each.needed else []
        entry = {"from": each.live, "to": each.release, "changed": changed, "mended": list(mended)}
        entry.update(mended_since=found.since.get(name, {}), live_since=self.since.get(name))
        entry.update(seconds=round(each.seconds or 0.0, 2), url=each.recipe["url"])
        entry["release_commands"] = [] if each.leader else pending
        entry["release_leader"] = each.leader if pending or each.held else ""
        entry["held"] = each.held
        entry["backup"] = each.backup
        self.warn_of_migrations(each)
        self.result["changed"] = self.result["changed"] or changed
        self.result["apps"][name] = entry
        self.result["summary"].append(release_line(name, entry))

    def warn_of_migrations(self, each):
        crossed = each.crossed() if each.back and each.needed else []
        if crossed:
            name, backup = each.host.name, crossed[0][1]
            how = f"; the data of before is in {backup}, which flaskfleet.deploy.restore takes back" if backup else ""
            ran = " and ".join(release for release, _backup in crossed)
            self.module.warn(f"{name}: release commands of {ran} stay done, which {each.release} must bear with{how}")

    def fail(self, name, error, path="."):
        output = [scrub(line, self.secrets) for line in error.output]
        hint = sharing_hint(output, f"{self.settings['root']}/{name}", path)
        message = scrub(str(error), self.secrets) + hint
        command = scrub(error.command, self.secrets)
        self.result["errors"].append(failure(name, error.step, message, output, command, error.status))

    def show_changes(self, activations):
        """What a person wants to see of each change, with --diff."""
        if not self.module._diff:
            return
        hidden = hidden_folders(self.settings)
        planned = {app["name"]: app for app in self.plan["apps"]}
        self.result["diff"] = []
        for each in activations:
            if not each.needed:
                continue
            before = (each.host.release(each.live) or {}).get("commit") if each.live else None
            span = (each.recipe["commit"], before) if each.back else (before, each.recipe["commit"])
            app = planned[each.host.name]
            commits = Mirror(app, build_unit(app), hidden).commits(*span) if before and span[0] != span[1] else []
            text = changes(each.host.name, each.live, each.release, commits, each.changes(), each.back)
            self.result["diff"].append({"prepared": text})


def main():
    module = AnsibleModule(
        argument_spec={
            "plan": {"type": "dict", "required": True},
            "builds": {"type": "dict", "default": {}},
            "payload": {"type": "str", "default": "", "no_log": True},
            "lock_timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    try:
        run = Run(module)
        (run.predict if module.check_mode else run.perform)()
    except LockTimeout as error:
        module.fail_json(msg=str(error))
    except Exception as error:  # a traceback would print values
        module.fail_json(msg=f"app_activate failed: {unexpected(error)}")
    module.exit_json(**run.result)


if __name__ == "__main__":
    main()
