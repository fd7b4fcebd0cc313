#!/usr/bin/python
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall_ports
short_description: Open ports in the firewall that a host runs
version_added: 0.1.0
author:
  - flaskfleet.deploy contributors (@flaskfleet)
description:
  - Opens TCP ports for everybody in ufw, or in the default zone of firewalld, now and after a reboot. Where neither
    runs, there is nothing to do.
  - Ports that a rule of anybody opens already are left alone, and none is ever closed.
options:
  ports:
    description: TCP ports.
    type: list
    elements: int
    required: true
extends_documentation_fragment:
  - flaskfleet.deploy.modules
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Open the ports of the web
  flaskfleet.deploy.firewall_ports:
    ports: [80, 443]
"""

RETURN = r"""
firewall:
  description: The firewall that runs, V(ufw) or V(firewalld), empty when none does.
  returned: success
  type: str
opened:
  description: The ports that were opened, or in check mode would be.
  returned: success
  type: list
  elements: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskfleet.deploy.plugins.module_utils.firewall import FirewallError, look, open_ports


def main():
    module = AnsibleModule(
        argument_spec={"ports": {"type": "list", "elements": "int", "required": True}}, supports_check_mode=True
    )
    firewall, closed = look(module.params["ports"])
    if closed and not module.check_mode:
        try:
            open_ports(firewall, closed)
        except FirewallError as error:
            module.fail_json(msg=str(error))
    module.exit_json(changed=bool(closed), firewall=firewall, opened=closed)


if __name__ == "__main__":
    main()
