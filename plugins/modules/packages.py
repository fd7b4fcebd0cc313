#!/usr/bin/python
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: packages
short_description: Install those OS packages that a host lacks
version_added: 0.1.0
description:
  - Looks into the package data base and calls M(ansible.builtin.package) only for the packages that are missing. The
    package manager itself is slow to find out that there is nothing to do.
  - When something is missing, the package lists are refreshed first. Fresh machines and images come without lists, or
    with old ones.
  - What is no plain package name (a group, a capability, a name with a version) counts as missing. The package manager
    then decides.
author:
  - flaskfleet.deploy contributors (@flaskfleet)
extends_documentation_fragment:
  - flaskfleet.deploy.modules
attributes:
  check_mode:
    support: full
    details: The package manager is not called. On bare machines it knows no packages, and some write even then.
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
  interpreters:
    description:
      - Versions of Python of which a host must have the executable, each with C(version) and the C(apps) that ask for
        it. The distribution's packages of those it does not have are installed like O(names).
      - When the distribution ships none of a version, the module fails and names those that the host can have. In check
        mode it goes by the package lists that are there.
    type: list
    elements: dict
    default: []
    suboptions:
      version:
        description: Such as C(3.12).
        type: str
        required: true
      apps:
        description: Names of apps.
        type: list
        elements: str
        required: true
  sources:
    description: Names of packages that bring the repositories of others, such as C(epel-release). When one of O(names)
      is missing, they are installed before.
    type: list
    elements: str
    default: []
seealso:
  - module: ansible.builtin.package
"""

EXAMPLES = r"""
- name: Install nginx and git
  flaskfleet.deploy.packages:
    names: [nginx, git]
"""

RETURN = r"""
missing:
  description: The packages that were not installed, in the order in which they were named, then those of interpreters.
  returned: always
  type: list
  elements: str
  sample: [nginx]
missing_sources:
  description: Those of O(sources) that were not installed.
  returned: always
  type: list
  elements: str
"""

import glob
import os
import re

from ansible.module_utils.basic import AnsibleModule

DPKG_STATUS = "/var/lib/dpkg/status"
EXECUTABLES = "/usr/bin/python3.*"


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


def shipped_pythons(module):
    """The versions of Python that the distribution's package lists have beside what is installed; None when there are
    no lists.
    """
    if os.path.exists(DPKG_STATUS):
        known = not module.check_mode and module.run_command(["apt-get", "--quiet", "update"])[0] == 0
        output = module.run_command(["apt-cache", "search", "--names-only", r"^python3\.[0-9]+$"])[1]
        found = re.findall(r"^python(3\.[0-9]+) - ", output, re.MULTILINE)
    else:
        cached = ["--cacheonly"] if module.check_mode else []
        # not python3.*, which dnf takes for the package python3 of any architecture
        command = ["dnf", "--quiet", *cached, "list", "--available", "python3*"]
        status, output, error = module.run_command(command, environ_update={"LC_ALL": "C.UTF-8"})
        # also when nothing matches
        known = not module.check_mode and (status == 0 or "No matching" in error)
        found = re.findall(r"^python(3\.[0-9]+)\.\w+\s", output, re.MULTILINE)
    return set(found) if found or known else None


def missing_interpreters(module):
    """The packages of the interpreters that the host does not have. Fails when it can't have one."""
    present = {path.rpartition("python")[2] for path in glob.glob(EXECUTABLES) if os.access(path, os.X_OK)}
    wanted = [each for each in module.params["interpreters"] if each["version"] not in present]
    shipped = shipped_pythons(module) if wanted else None
    if shipped is not None:
        possible = sorted(
            (each for each in present | shipped if re.fullmatch("3[.][0-9]+", each)), key=lambda each: int(each[2:])
        )
        problems = [
            f"{app}: `python` can't be {each['version']} on this host, whose distribution does not ship it;"
            f" it can be {', '.join(possible)}"
            for each in wanted
            if each["version"] not in shipped
            for app in each["apps"]
        ]
        if problems:
            module.fail_json(msg="\n".join(problems))
    # Debian's have what makes virtual environments in a package of its own
    parts = ("", "-venv") if os.path.exists(DPKG_STATUS) else ("",)
    return [f"python{each['version']}{part}" for each in wanted for part in parts]


def main():
    """Only the look: the action plugin of this name has the rest done."""
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True},
            "interpreters": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "version": {"type": "str", "required": True},
                    "apps": {"type": "list", "elements": "str", "required": True},
                },
            },
            "sources": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    names, sources = module.params["names"], module.params["sources"]
    both = [*names, *sources]
    installed = installed_by_dpkg(both) if os.path.exists(DPKG_STATUS) else installed_by_rpm(module, both)
    module.exit_json(
        changed=False,
        missing=[name for name in names if name not in installed] + missing_interpreters(module),
        missing_sources=[name for name in sources if name not in installed],
    )


if __name__ == "__main__":
    main()
