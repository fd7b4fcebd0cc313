# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Sees what is missing, and has ansible.builtin.package install that."""

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        found = self._execute_module(
            module_name="flaskfleet.deploy.packages", module_args=self._task.args, task_vars=task_vars
        )
        if found.get("failed") or not found["missing"]:
            return found
        if self._task.check_mode:
            return {**found, "changed": True}
        result = {}
        for names in (found["missing_sources"], found["missing"]):
            if names and not result.get("failed"):
                result = self._install(names, task_vars)
        return {**result, "missing": found["missing"]}

    def _install(self, names, task_vars):
        task = self._task.copy()
        task.args = {"name": names, "state": "present", "update_cache": True}
        package = self._shared_loader_obj.action_loader.get(
            "ansible.builtin.package",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        return package.run(task_vars=task_vars)
