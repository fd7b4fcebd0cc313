# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible.plugins.action import ActionBase

from ..module_utils.plan import PlanError, collect_notifications, plain_variables
from ..plugin_utils.word import deliver_all, message, reached

_KNOWN = frozenset(("__nginx_site_plan", "__flask_app_plan"))  # what a host has as soon as it has begun


class ActionModule(ActionBase):
    """Says once what became of the run, to whoever wants to hear it. On the controller alone.

    Addresses and secrets are read here from the variables, so no task has them in its arguments or its result.
    """

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(
            argument_spec={"rollback": {"type": "bool", "default": False}}
        )
        result.update(changed=False, message={}, undelivered=[], tasks=[])
        given = {name: task_vars[name] for name in ("flask_app_notify",) if name in task_vars}
        try:
            entries = collect_notifications(plain_variables(self._templar, self._loader, given))
        except PlanError:
            return {**result, "skipped": True, "skip_reason": "flask_app_notify is wrong, as the plan has told"}
        variables, hosts = task_vars["hostvars"], task_vars["ansible_play_hosts_all"]
        active = [
            host for host in hosts if host in task_vars["ansible_play_batch"] or _KNOWN.intersection(variables[host])
        ]
        turns = reached(hosts, self._task.get_play().serial, active)
        told = message(variables, turns, arguments["rollback"])
        result["message"] = told
        if told["event"] in ("nothing", "success") and turns != hosts:
            return {**result, "skipped": True, "skip_reason": "hosts are still to come"}
        wanted = [(number, entry) for number, entry in enumerate(entries) if set(entry["events"]) & set(told["events"])]
        result["tasks"] = [
            {"file": entry["file"], "required": entry["required"]}
            for _number, entry in wanted
            if entry["kind"] == "tasks"
        ]
        if self._task.check_mode:
            return result
        sent = [(number, entry) for number, entry in wanted if entry["kind"] != "tasks"]
        outcomes = deliver_all([entry for _number, entry in sent], told)
        missed = [(number, entry, outcome) for (number, entry), outcome in zip(sent, outcomes) if outcome]
        result["undelivered"] = [
            f"flask_app_notify[{number}] ({entry['kind']}) was not told: {outcome}" for number, entry, outcome in missed
        ]
        result["changed"] = len(sent) > len(missed)
        if any(entry["required"] for _number, entry, _outcome in missed):
            return {**result, "failed": True, "msg": "\n".join(result["undelivered"])}
        for text in result["undelivered"]:
            self._display.warning(text)
        return result
