# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible.plugins.action import ActionBase

from ..plugin_utils.heartbeat import heartbeat


class ActionModule(ActionBase):
    """Has the host run the command, and shows meanwhile that it does."""

    _supports_async = True

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        with heartbeat(self._display, f"{task_vars['inventory_hostname']}: still running the command"):
            return self._execute_module(
                module_name="flaskfleet.deploy.app_command",
                module_args=self._task.args,
                task_vars=task_vars,
                wrap_async=self._task.async_val,
            )
