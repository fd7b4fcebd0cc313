# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils.payload import encode
from ..module_utils.plan import PlanError, collect_secrets
from ..module_utils.plan.services import PASSWORD, fill_in
from ..module_utils.plan.variables import plain_variables
from ..module_utils.reports import failure
from ..plugin_utils.heartbeat import heartbeat
from ..plugin_utils.templates import Renderer, TemplateError


class PasswordMissing(Exception):
    """The host of an app's database keeps no password for it; the text says what to do."""


class ActionModule(ActionBase):
    """Renders what each release is made of and sends it, with the secrets, in one module execution for all apps.

    To go back takes nothing from here: an earlier release has all it was made of.
    """

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        plan = self._task.args["plan"]
        payload, stopped = {"apps": {}, "secrets": []}, {}
        if not plan["rollback"]:
            try:
                payload, stopped = self._rendered(plan, task_vars)
            except PlanError as error:
                raise AnsibleActionFail("\n".join(error.errors)) from None
            except TemplateError as error:
                raise AnsibleActionFail(str(error)) from None
        builds = {app: build for app, build in self._task.args.get("builds", {}).items() if app not in stopped}
        with heartbeat(self._display, f"{task_vars['inventory_hostname']}: still releasing"):
            result = self._execute_module(
                module_name="flaskfleet.deploy.app_activate",
                module_args={**self._task.args, "builds": builds, "payload": encode(payload)},
                task_vars=task_vars,
            )
        failures = [failure(app, "database", why, []) for app, why in stopped.items()]
        result["errors"] = failures + result.get("errors", [])
        return result

    def _rendered(self, plan, task_vars):
        """(the payload; {app that can have no release: why}: the others go on)."""
        variables = plain_variables(self._templar, self._loader, task_vars)
        secrets = collect_secrets(variables)
        renderer = Renderer(self, task_vars, variables.get("flask_app_template_paths", ()))
        # registered by a task with no_log: in no argument, and so in no output
        registered = task_vars.get("__flask_app_passwords", {}).get("results", ())
        kept = {each["item"]["host"]: each["passwords"] for each in registered if "passwords" in each}
        apps, hidden, stopped = {}, [], {}
        for app in plan["apps"]:
            name = str(app["name"])
            try:
                urls, passwords = self._urls(app, secrets[name]["secrets"], kept)
            except PasswordMissing as error:
                stopped[name] = str(error)
                continue
            files = {
                str(file): renderer.render(template, {"app": app, "plan": plan, "process": file.partition(".")[0]})
                for file, template in app["release_files"].items()
            }
            hidden += passwords
            apps[name] = {"files": files, "environment": {**app["env"], **urls, **secrets[name]["secrets"]}}
        hidden += [value for app in secrets.values() for value in app["secrets"].values()]
        return {"apps": apps, "secrets": hidden}, stopped

    def _urls(self, app, secrets, kept):
        """({variable: URL of a backing service, password included}, the passwords in them).

        :raises PasswordMissing:
        """
        urls, passwords = {}, []
        for variable, service in app["services"]["urls"].items():
            password = secrets[service["secret"]] if service["secret"] else ""
            if service["kept_on"]:
                password = kept.get(service["kept_on"], {}).get(service["password"], "")
                if not password and not self._task.check_mode:
                    raise PasswordMissing(
                        f"{service['kept_on']} keeps no password for it; have the playbook "
                        "flaskfleet.deploy.databases, or site, run on that host first"
                    )
            urls[variable] = fill_in(service["url"], password)
            # also as it stands in the URL
            passwords += [password, fill_in(PASSWORD, password), urls[variable]] if password else []
        return urls, passwords
