#!/usr/bin/python
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_passwords
short_description: Keep the passwords of databases on their host
version_added: 0.1.0
author:
  - flaskfleet.deploy contributors (@flaskfleet)
description:
  - Reads passwords that are kept on a host, one in a file that only root can read, and makes those that are missing.
  - Its result has them. So the task needs C(no_log), and what uses the result must not show it either.
options:
  names:
    description: What the passwords are of, lower-case letters, digits, hyphens and underscores.
    type: list
    elements: str
    default: []
  create:
    description: Whether missing ones are made.
    type: bool
    default: false
  removed:
    description: Passwords that are to be forgotten.
    type: list
    elements: str
    default: []
  directory:
    description: Where they are kept.
    type: path
    default: /var/lib/flaskfleet/passwords
extends_documentation_fragment:
  - flaskfleet.deploy.modules
attributes:
  check_mode:
    support: full
    details: A password that is yet to be made is not in the result.
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Know the passwords of databases
  flaskfleet.deploy.service_passwords:
    names: [postgresql-hello]
    create: true
  no_log: true
  register: __passwords
"""

RETURN = r"""
passwords:
  description: Those that are there, by name.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskfleet.deploy.plugins.module_utils.passwords import Passwords


def main():
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "default": []},
            "create": {"type": "bool", "default": False},
            "removed": {"type": "list", "elements": "str", "default": []},
            "directory": {"type": "path", "default": "/var/lib/flaskfleet/passwords", "no_log": False},
        },
        supports_check_mode=True,
    )
    kept = Passwords(module.params["directory"])
    try:
        missing = kept.missing(module.params["names"]) if module.params["create"] else []
        removed = kept.present(module.params["removed"])
        if not module.check_mode:
            kept.make(missing)
            kept.remove(removed)
        found = kept.read(module.params["names"])
    except OSError as error:
        module.fail_json(msg=f"{module.params['directory']}: {error.strerror}")
    module.exit_json(changed=bool(missing or removed), passwords=found)


if __name__ == "__main__":
    main()
