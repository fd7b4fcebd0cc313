#!/usr/bin/python
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: acme_certificates
short_description: Have an authority issue the certificates of sites by ACME
version_added: 0.1.0
author:
  - flaskfleet.deploy contributors (@flaskfleet)
description:
  - Orders those certificates that are due by certbot, all in one module execution. One is due when there is none,
    when its names, its authority or the type of its key have changed, or when certbot's timer has not renewed it in
    time.
  - An order that fails leaves what was there as it was and does not stop the others, nor does it fail the module. It is
    told in RV(errors), with certbot's own words.
  - Removes the certificates of sites that are to go, and starts the timer that renews the rest.
  - Certbot's certificates of other names than C(flaskfleet-<name>) are never touched.
  - The challenges are of type C(http-01). nginx has to serve C(/var/www/flaskfleet-acme) already.
options:
  certificates:
    description: Certificates of the sites.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the site.
        type: str
        required: true
      domains:
        description: Its host names, all in one certificate.
        type: list
        elements: str
        required: true
      file:
        description: File with the certificate that nginx reads. While there is none, the site has no HTTPS.
        type: path
        required: true
  removed:
    description: Names of sites whose certificates are to go.
    type: list
    elements: str
    default: []
  declared:
    description: Names of all declared sites.
    type: list
    elements: str
    default: []
  purge_undeclared:
    description: Whether the certificates of sites that are not among O(declared) are to go.
    type: bool
    default: false
  directory:
    description: URL of the authority's directory.
    type: str
    default: ''
  key_type:
    description: Type of the private keys.
    type: str
    choices: [ecdsa, rsa]
    default: ecdsa
  timer:
    description: Unit of systemd that renews the certificates. None is started when empty.
    type: str
    default: ''
  email:
    description: Mail address of the account that is made at the authority. It may be empty.
    type: str
    default: ''
  ca_file:
    description: Absolute path on the host of the authorities that certbot trusts. When empty, those of the host.
    type: str
    default: ''
extends_documentation_fragment:
  - flaskfleet.deploy.modules
attributes:
  check_mode:
    support: full
    details: Predicts what would be ordered and removed; asks no authority.
  diff_mode:
    support: full
  idempotent:
    support: full
notes:
  - To order is to agree to the authority's terms of service.
"""

EXAMPLES = r"""
- name: Have the certificate of docs issued
  flaskfleet.deploy.acme_certificates:
    directory: https://acme-staging-v02.api.letsencrypt.org/directory
    email: admin@example.org
    timer: certbot.timer
    certificates:
      - name: docs
        domains: [docs.example.org, www.docs.example.org]
        file: /etc/nginx/certificates/docs.pem
  register: orders
  failed_when: orders.errors | length > 0
"""

RETURN = r"""
due:
  description: Why each certificate was due, by name of its site.
  returned: success
  type: dict
  sample: {docs: there is none yet}
ordered:
  description: Names of the sites whose certificates were issued.
  returned: success
  type: list
  elements: str
stale:
  description: Names of the sites whose certificates had to go.
  returned: success
  type: list
  elements: str
renewing:
  description: Whether the timer had been running.
  returned: success
  type: bool
there:
  description: Names of the sites that can be served by HTTPS now.
  returned: success
  type: list
  elements: str
errors:
  description: A text for each site, or unit of systemd, that has failed, with what certbot or systemd said.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskfleet.deploy.plugins.module_utils.acme import carry_out
from ansible_collections.flaskfleet.deploy.plugins.module_utils.lineages import OPTIONS
from ansible_collections.flaskfleet.deploy.plugins.module_utils.reports import unexpected


def main():
    texts = {name: {"type": "str", "default": ""} for name in ("email", "ca_file")}
    module = AnsibleModule(argument_spec={**OPTIONS, **texts}, supports_check_mode=True)
    try:
        result = carry_out(module.params, module.check_mode)
    except OSError as error:
        module.fail_json(msg=f"acme_certificates failed: {unexpected(error)}")
    if module._diff:
        lines = [f"order a certificate for {name}: {why}\n" for name, why in result["due"].items()]
        lines += [f"remove the certificate of {name}\n" for name in result["stale"]]
        result["diff"] = {"prepared": "".join(lines)}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
