#!/usr/bin/python
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_reload
short_description: Reload nginx and wait until it serves its new configuration
version_added: 0.1.0
author:
  - flaskfleet.deploy contributors (@flaskfleet)
description:
  - Reloads the service C(nginx) and returns when its old worker processes take no more connections. The service's own
    reload returns at once, and says nothing when nginx goes on with its old configuration because it cannot have a
    port, a file or the memory that the new one asks for.
options:
  timeout:
    description: Seconds within which the new worker processes have to stand, before the reload counts as failed.
    type: int
    default: 30
extends_documentation_fragment:
  - flaskfleet.deploy.modules
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: none
    details: Each run reloads nginx.
"""

EXAMPLES = r"""
- name: Have nginx serve what was written
  flaskfleet.deploy.nginx_reload:
"""

RETURN = r"""
duration:
  description: Seconds from the reload until its new worker processes alone took connections.
  returned: when nginx was reloaded
  type: float
  sample: 0.15
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskfleet.deploy.plugins.module_utils.nginx import wait_for_reload, workers


def main():
    module = AnsibleModule(argument_spec={"timeout": {"type": "int", "default": 30}}, supports_check_mode=True)
    if module.check_mode:  # on a bare machine there is no nginx yet
        module.exit_json(changed=True)
    show = ["systemctl", "show", "--property", "MainPID", "--value", "nginx"]
    master = int(module.run_command(show, check_rc=True)[1])
    old = workers(master)
    started = time.monotonic()
    module.run_command(["systemctl", "reload", "nginx"], check_rc=True)
    if not wait_for_reload(master, old, module.params["timeout"]):
        module.fail_json(
            msg=f"nginx goes on with its old configuration, {module.params['timeout']} s after its reload: "
            "its error log, /var/log/nginx/error.log by default, says why"
        )
    module.exit_json(changed=True, duration=round(time.monotonic() - started, 2))


if __name__ == "__main__":
    main()
