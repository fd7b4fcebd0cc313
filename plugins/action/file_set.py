# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils.file_set.reading import encodable, parse_files
from ..module_utils.file_set.wanted import OPTIONS, FileSetError, pack
from ..module_utils.plan import PlanError, balancer_variables, collect_certificates, plain_variables
from ..plugin_utils.templates import Renderer, TemplateError

# The files are judged by parse_files: the usual validation would put their values into its messages.
ARGUMENT_SPEC = dict(OPTIONS, files={"type": "list", "elements": "raw", "required": True})


class ActionModule(ActionBase):
    """Renders all templates, and sends everything in one module execution."""

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        options = self.validate_argument_spec(ARGUMENT_SPEC)[1]
        try:
            wanted = parse_files(options["files"], options["subjects"])
            payload = pack(self._provided(self._rendered(wanted, options, task_vars), task_vars))
        except (FileSetError, PlanError) as error:
            raise AnsibleActionFail(str(error)) from None
        return self._execute_module(
            module_name="flaskfleet.deploy.file_set",
            module_args={**self._task.args, "files": [], "items": [], "payload": payload},
            task_vars=task_vars,
        )

    def _provided(self, wanted, task_vars):
        """The list ``wanted`` with the certificates that people provide. Their keys are in no task's arguments.

        :raises PlanError: the variables that declare them are wrong
        """
        subjects = {item.subject for item in wanted if item.certificate.get("mode") == "provided"}
        if not subjects:
            return wanted
        variables = plain_variables(self._templar, self._loader, task_vars)
        provided = collect_certificates(balancer_variables(variables) if subjects == {"load_balancer"} else variables)
        return [
            replace(item, content=provided[item.subject], certificate={})
            if item.certificate.get("mode") == "provided"
            else item
            for item in wanted
        ]

    def _rendered(self, wanted, options, task_vars):
        """The list ``wanted`` with every template rendered into its content.

        :raises FileSetError: the problems of all templates
        """
        renderer = Renderer(self, task_vars, options["template_paths"])
        items = {item.get(options["items_key"]): {options["items_var"]: item} for item in options["items"]}
        problems = []
        result = []
        for item in wanted:
            if item.template:
                variables = {**items.get(item.subject, {}), **item.variables}
                try:
                    content = renderer.render(item.template, variables, item.sensitive)
                except TemplateError as error:
                    problems.append(f"{item.dest}: {error}")
                    continue
                if not encodable(content):
                    problems.append(f"{item.dest}: template {item.template}: the result cannot be encoded in UTF-8")
                item = replace(item, content=content, template="", variables={})
            result.append(item)
        if problems:
            raise FileSetError(*problems)
        return result
