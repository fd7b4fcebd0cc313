# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: plan
short_description: Look up what the module plan returns
version_added: 0.1.0
author:
  - flaskfleet.deploy contributors (@flaskfleet)
description:
  - Judges and completes the list C(flask_apps) of the host that a task runs for, as M(flaskfleet.deploy.plan) does.
  - A variable made with it is evaluated anew at each use, and plans each time. Register the module's result instead,
    and take this where no task has run before, as with C(--start-at-task).
options:
  platform:
    description:
      - What differs between distributions, in the shape of that module's option.
    type: dict
    default: {}
seealso:
  - module: flaskfleet.deploy.plan
"""

EXAMPLES = r"""
- name: Show where the apps are
  ansible.builtin.debug:
    msg: "{{ lookup('flaskfleet.deploy.plan').apps | map(attribute='url') }}"
"""

RETURN = r"""
_raw:
  description:
    - One dictionary with what M(flaskfleet.deploy.plan) returns.
  type: list
  elements: dict
"""

from ansible.errors import AnsibleTemplatePluginError
from ansible.plugins.lookup import LookupBase

from ..plugin_utils.planning import PlanFailure, plan_for_host


class LookupModule(LookupBase):
    """The plan as a lookup."""

    def run(self, terms, variables=None, **kwargs):
        """See RETURN. Raises AnsibleTemplatePluginError with all errors of the list, and no secret."""
        self.set_options(var_options=variables, direct=kwargs)
        try:
            return [plan_for_host(self, variables, self.get_option("platform"))]
        except PlanFailure as failure:
            raise AnsibleTemplatePluginError(str(failure)) from None
