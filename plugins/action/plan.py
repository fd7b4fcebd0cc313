# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible.plugins.action import ActionBase

from ..plugin_utils.planning import PlanFailure, plan_for_host


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
                "rollback": {"type": "bool", "default": False},
            }
        )
        try:
            plan = plan_for_host(self, task_vars, **arguments)
        except PlanFailure as failure:
            return {**result, "failed": True, "msg": str(failure)}
        return {**result, "changed": False, **plan}
