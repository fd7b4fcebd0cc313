#!/usr/bin/python
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: balancer_reload
short_description: Reload HAProxy and wait until it serves its new configuration
version_added: 0.1.0
author:
  - flaskfleet.deploy contributors (@flaskfleet)
description:
  - Reloads the service C(haproxy), or starts it, and returns when its new process serves. The service's own reload
    returns at once, and says nothing when HAProxy goes on with its old configuration.
  - The new process takes over the listening sockets of the old one, which answers the requests that it has and ends.
  - When what systemd starts it with has changed, HAProxy is restarted, since a reload would keep that.
options:
  timeout:
    description: Seconds within which the new process has to serve.
    type: int
    default: 30
  socket:
    description: HAProxy's runtime socket; where the distributions have it when not given.
    type: path
  restart:
    description: Whether to restart it.
    type: bool
    default: false
extends_documentation_fragment:
  - flaskfleet.deploy.modules
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: none
    details: Each run reloads HAProxy.
"""

EXAMPLES = r"""
- name: Have HAProxy serve what was written
  flaskfleet.deploy.balancer_reload:
"""

RETURN = r"""
held:
  description: Hosts that get no requests until a rollout has gone well on them.
  returned: success
  type: list
  elements: str
"""


from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskfleet.deploy.plugins.module_utils import haproxy


def main():
    module = AnsibleModule(
        argument_spec={
            "timeout": {"type": "int", "default": 30},
            "socket": {"type": "path"},
            "restart": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    if module.check_mode:  # on a bare machine there is no HAProxy yet
        module.exit_json(changed=True, held=sorted(haproxy.read_marks()))
    verb = "restart" if module.params["restart"] else "reload-or-restart"
    try:
        haproxy.reload(
            haproxy.Runtime(module.params["socket"]),
            lambda: module.run_command(["systemctl", verb, "haproxy"], check_rc=True),
            module.params["timeout"],
        )
    except haproxy.BalancerError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, held=sorted(haproxy.read_marks()))


if __name__ == "__main__":
    main()
