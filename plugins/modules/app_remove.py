#!/usr/bin/python
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: app_remove
short_description: Stop Flask apps and remove them from a host, but never their data
version_added: 0.1.0
description:
  - Stops and disables everything that an app runs, after those who are connected have got their answers, and removes
    its releases, builds and mirror.
  - The app's data directory and its account stay, since the data belongs to it. Its unit files are removed by whoever
    wrote them.
author:
  - flaskfleet.deploy contributors (@flaskfleet)
extends_documentation_fragment:
  - flaskfleet.deploy.modules
  - flaskfleet.deploy.modules.root
  - flaskfleet.deploy.modules.lock
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  runtime_root:
    description: Where their sockets are.
    type: path
    default: /run/flask_apps
  names:
    description: Apps to remove.
    type: list
    elements: str
    required: true
  declared:
    description: Apps that belong on the host. With O(purge_undeclared), every other one is removed too.
    type: list
    elements: str
    default: []
  purge_undeclared:
    description: Whether to remove the apps that are neither in O(names) nor in O(declared).
    type: bool
    default: false
notes:
  - Runs as root and needs systemd on the host.
"""

EXAMPLES = r"""
- name: Remove an app
  flaskfleet.deploy.app_remove:
    names: [hello]
"""

RETURN = r"""
removed:
  description: The apps that were removed, or in check mode would be.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import (
    BUILDS,
    App,
    LockTimeout,
    lock,
    traces_on_host,
)
from ansible_collections.flaskfleet.deploy.plugins.module_utils.reports import unexpected


def main():
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": "/opt/flask_apps"},
            "runtime_root": {"type": "path", "default": "/run/flask_apps"},
            "names": {"type": "list", "elements": "str", "required": True},
            "declared": {"type": "list", "elements": "str", "default": []},
            "purge_undeclared": {"type": "bool", "default": False},
            "lock_timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    root, runtime_root = module.params["root"], module.params["runtime_root"]
    names, declared = module.params["names"], module.params["declared"]
    removed = [
        name
        for name in traces_on_host(root, runtime_root)
        if name in names or (module.params["purge_undeclared"] and name not in declared)
    ]
    if removed and not module.check_mode:
        try:
            timeout = module.params["lock_timeout"]
            with lock(root, timeout, BUILDS), lock(root, timeout):
                for name in removed:
                    with lock(root, name=name):
                        App(root, name).remove(runtime_root)
        except LockTimeout as error:
            module.fail_json(msg=str(error))
        except OSError as error:
            module.fail_json(msg=f"app_remove failed: {unexpected(error)}")
    module.exit_json(changed=bool(removed), removed=removed)


if __name__ == "__main__":
    main()
