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
from ..plugin_utils.pins import pin_all


class ActionModule(ActionBase):
    """Resolves the versions once for the whole run, then has the host build, with the repositories' real URLs."""

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        apps = self._task.args["plan"]["apps"]
        try:
            secrets = collect_secrets(plain_variables(self._templar, self._loader, task_vars))
        except PlanError as error:
            raise AnsibleActionFail("\n".join(error.errors)) from None
        wanted = {str(app["name"]): (secrets[app["name"]]["repository"], str(app["version"])) for app in apps}
        access = {name: secrets[name]["access"] for name in wanted}
        pins = pin_all(list(wanted.values()), {pair: access[name] for name, pair in wanted.items() if access[name]})
        sources = {
            name: {"url": pair[0], "commit": pins[pair], "access": access[name]} for name, pair in wanted.items()
        }
        with heartbeat(self._display, f"{task_vars['inventory_hostname']}: still building"):
            return self._execute_module(
                module_name="flaskfleet.deploy.app_build",
                module_args={**self._task.args, "payload": encode(sources)},
                task_vars=task_vars,
            )
