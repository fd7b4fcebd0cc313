#!/usr/bin/python
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_info
short_description: Look at a host's nginx before its sites are written
version_added: 0.1.0
author:
  - flaskfleet.deploy contributors (@flaskfleet)
description:
  - Tells the version of nginx and what it was built with, and what stands in the way of its sites. Another process
    on one of their ports does, which nginx's own test does not see and its reload keeps quiet about. A server name that
    another file has as well does, since nginx takes the first that it reads.
  - Tells which certificates of an authority are there and which are due, which ports a firewall keeps closed, and
    whether SELinux is on.
options:
  ports:
    description: TCP ports that the sites need.
    type: list
    elements: int
    default: []
  server_names:
    description: Names of the sites.
    type: list
    elements: str
    default: []
  files:
    description: Files that are about to be written, and so no conflict.
    type: list
    elements: str
    default: []
  sites_enabled:
    description: Directory whose entries are listed.
    type: path
  acme:
    description: Certificates that an authority issues, as the options of M(flaskfleet.deploy.acme_certificates).
    type: dict
    default: {}
extends_documentation_fragment:
  - flaskfleet.deploy.modules
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: It changes nothing.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Look at nginx
  flaskfleet.deploy.nginx_info:
    ports: [80, 443]
    server_names: [hello.example.org]
  register: nginx

- name: Show its version
  ansible.builtin.debug:
    msg: "{{ nginx.version }}"
"""

RETURN = r"""
version:
  description: Version of nginx, empty when it is not installed.
  returned: always
  type: str
  sample: 1.26.3
modules:
  description: Names of the modules it was built with, sorted. Those that are always there are not among them.
  returned: always
  type: list
  elements: str
  sample: [http_gzip_static_module, http_ssl_module]
running:
  description: Whether its service runs and is enabled at boot.
  returned: always
  type: bool
taken:
  description: A sentence for each of O(ports) on which another process listens.
  returned: always
  type: list
  elements: str
  sample: ["haproxy listens on port 443, which the sites need: end it, or have it listen elsewhere"]
conflicts:
  description: A sentence for each of O(server_names) that another file has. None when nginx refuses its configuration.
  returned: always
  type: list
  elements: str
  sample: ["hello.example.org is a server name in /etc/nginx/sites-enabled/old, too: nginx takes the first it reads"]
enabled:
  description: Paths of the entries of O(sites_enabled), sorted.
  returned: always
  type: list
  elements: str
closed:
  description: Those of O(ports) that ufw or firewalld keeps closed, where one runs.
  returned: always
  type: list
  elements: int
selinux:
  description: Whether SELinux is on, be it enforcing or not.
  returned: always
  type: bool
acme:
  description:
    - Of the certificates of O(acme), names of the sites that can be served by HTTPS as C(there), and what
      M(flaskfleet.deploy.acme_certificates) would do as C(due), C(stale) and C(renewing). C(todo) says whether that is
      anything. C(kept) names sites that are not declared any more, whose certificates go on being renewed.
  returned: always
  type: dict
  sample: {there: [docs], due: {shop: there is none yet}, stale: [], kept: [], renewing: true, todo: true}
"""

import glob
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskfleet.deploy.plugins.module_utils import firewall, lineages
from ansible_collections.flaskfleet.deploy.plugins.module_utils.nginx import (
    listeners,
    parse_build,
    parse_server_names,
)

STATE = ["systemctl", "show", "--property", "ActiveState", "--property", "UnitFileState", "nginx"]
RUNNING = ["ActiveState=active", "UnitFileState=enabled"]


def main():
    lists = ("server_names", "files")
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "list", "elements": "int", "default": []},
            **{name: {"type": "list", "elements": "str", "default": []} for name in lists},
            "sites_enabled": {"type": "path"},
            "acme": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    nginx = module.get_bin_path("nginx")
    version, modules, found = "", [], {}
    if nginx:
        version, modules = parse_build(module.run_command([nginx, "-V"])[2])
        found = parse_server_names(module.run_command([nginx, "-T"])[1])
    others = {
        name: [path for path in found.get(name, ()) if path not in wanted["files"]] for name in wanted["server_names"]
    }
    directory = wanted["sites_enabled"] or ""
    module.exit_json(
        changed=False,
        version=version,
        modules=modules,
        running=bool(nginx) and module.run_command(STATE)[1].split() == RUNNING,
        taken=[
            f"{process} listens on port {port}, which the sites need: end it, or have it listen elsewhere"
            for port, process in listeners(wanted["ports"]).items()
        ],
        conflicts=[
            f"{name} is a server name in {', '.join(files)}, too: nginx takes the first it reads"
            for name, files in others.items()
            if files
        ],
        enabled=sorted(glob.glob(os.path.join(directory, "*"))) if directory else [],
        closed=firewall.look(wanted["ports"])[1],
        selinux=os.path.exists("/sys/fs/selinux/enforce"),
        acme=lineages.look({**lineages.NOTHING, **wanted["acme"]}),
    )


if __name__ == "__main__":
    main()
