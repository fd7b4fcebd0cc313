#!/usr/bin/python
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: package_info
short_description: Say which OS packages a host lacks
version_added: 0.1.0
description:
  - Returns those of the named packages that are not installed, from the package data base alone.
  - So a role can leave the package manager alone when nothing is missing, which is slow to find that out, and have it
    refresh its lists when something is. Fresh machines and images come without lists, or with old ones.
  - What is no plain package name (a group, a capability, a name with a version) counts as missing. The package manager
    then decides.
author:
  - flaskfleet.deploy contributors (@flaskfleet)
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  names:
    description: Names of packages.
    type: list
    elements: str
    required: true
seealso:
  - module: ansible.builtin.package
  - module: ansible.builtin.package_facts
"""

EXAMPLES = r"""
- name: See which packages are missing
  flaskfleet.deploy.package_info:
    names: [nginx, git]
  register: packages

- name: Install them
  ansible.builtin.package:
    name: "{{ packages.missing }}"
    update_cache: true
  when: packages.missing | length > 0
"""

RETURN = r"""
missing:
  description: The packages that are not installed, in the order in which they were named.
  returned: always
  type: list
  elements: str
  sample: [nginx]
"""

import os
import re

from ansible.module_utils.basic import AnsibleModule

DPKG_STATUS = "/var/lib/dpkg/status"


def installed_by_dpkg(names):
    """Those of ``names`` that dpkg's own data base has as installed."""
    with open(DPKG_STATUS, encoding="utf-8", errors="replace") as stream:
        # the fields Essential and Protected may stand between these two
        found = re.findall(r"^Package: (\S+)\n(?:\S.*\n)*?Status: \S+ \S+ installed$", stream.read(), re.MULTILINE)
    return set(names).intersection(found)


def installed_by_rpm(module, names):
    """Those of ``names`` that rpm has; for each name it doesn't have it prints a sentence instead."""
    command = [module.get_bin_path("rpm", required=True), "--query", "--queryformat", "%{NAME}\\n", "--", *names]
    return set(names).intersection(module.run_command(command)[1].splitlines())


def main():
    module = AnsibleModule(
        argument_spec={"names": {"type": "list", "elements": "str", "required": True}}, supports_check_mode=True
    )
    names = module.params["names"]
    installed = installed_by_dpkg(names) if os.path.exists(DPKG_STATUS) else installed_by_rpm(module, names)
    module.exit_json(changed=False, missing=[name for name in names if name not in installed])


if __name__ == "__main__":
    main()
