# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import traceback

from ansible.plugins.action import ActionBase

from ..module_utils.plan import PlanError, make_plan, misspelt_variables, plain_variables


class ActionModule(ActionBase):
    """Judge the list of apps and derive what the roles need from it, on the controller alone."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        """Return the plan, or a failure that lists all errors and tells no secret."""
        result = super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(
            argument_spec={
                "platform": {"type": "dict", "default": {}},
                "hostname": {"type": "str"},
                "rollback": {"type": "bool", "default": False},
            }
        )
        hostname = arguments["hostname"] or task_vars["inventory_hostname"]
        platform = {"os_family": task_vars.get("ansible_facts", {}).get("os_family", ""), **arguments["platform"]}
        try:
            variables = plain_variables(self._templar, self._loader, task_vars)
            plan = make_plan(variables, platform, hostname, arguments["rollback"])
        except PlanError as error:
            count = len(error.errors)
            heading = f"{count} error{'s' if count > 1 else ''} in the variables of {task_vars['inventory_hostname']}:"
            return {**result, "failed": True, "msg": "\n- ".join([heading, *error.errors])}
        except Exception as error:  # pylint: disable=broad-exception-caught
            # Neither its message nor a traceback, which may show a secret.
            place = traceback.extract_tb(error.__traceback__)[-1]
            msg = f"unexpected {type(error).__name__} in {place.name} ({place.filename}, line {place.lineno})"
            return {**result, "failed": True, "msg": msg}
        plan["warnings"] += misspelt_variables(task_vars)
        return {**result, "changed": False, **plan}
