# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils.payload import encode
from ..module_utils.plan import PlanError, collect_secrets
from ..module_utils.plan.variables import plain_variables
from ..plugin_utils.heartbeat import heartbeat
from ..plugin_utils.templates import Renderer, TemplateError


class ActionModule(ActionBase):
    """Renders what each release is made of and sends it, with the secrets, in one module execution for all apps.

    To go back takes nothing from here: an earlier release has all it was made of.
    """

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        plan = self._task.args["plan"]
        payload = {"apps": {}, "secrets": []}
        if not plan["rollback"]:
            try:
                payload = self._rendered(plan, task_vars)
            except PlanError as error:
                raise AnsibleActionFail("\n".join(error.errors)) from None
            except TemplateError as error:
                raise AnsibleActionFail(str(error)) from None
        with heartbeat(self._display, f"{task_vars['inventory_hostname']}: still releasing"):
            return self._execute_module(
                module_name="flaskfleet.deploy.app_activate",
                module_args={**self._task.args, "payload": encode(payload)},
                task_vars=task_vars,
            )

    def _rendered(self, plan, task_vars):
        variables = plain_variables(self._templar, self._loader, task_vars)
        secrets = collect_secrets(variables)
        renderer = Renderer(self, task_vars, variables.get("flask_app_template_paths", ()))
        apps = {}
        for app in plan["apps"]:
            name = str(app["name"])
            files = {
                str(file): renderer.render(template, {"app": app, "plan": plan, "process": file.partition(".")[0]})
                for file, template in app["release_files"].items()
            }
            apps[name] = {"files": files, "environment": {**app["env"], **secrets[name]["secrets"]}}
        return {"apps": apps, "secrets": [value for app in secrets.values() for value in app["secrets"].values()]}
