#!/usr/bin/python
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: notify
short_description: Say what became of a run
version_added: 0.1.0
description:
  - Reads what the roles' tasks have registered on all hosts of the play, and says it once to each entry of the variable
    C(flask_app_notify) that wants to hear it. The playbooks C(flaskfleet.deploy.site), C(flaskfleet.deploy.deploy) and
    C(flaskfleet.deploy.rollback) end with it.
  - It runs on the controller, which therefore must reach the webhooks, or have an MTA for mails.
  - A delivery that fails is a warning, unless its entry is C(required). Neither shows an address or a secret.
author:
  - flaskfleet.deploy contributors (@flaskfleet)
extends_documentation_fragment:
  - flaskfleet.deploy.modules
attributes:
  check_mode:
    support: full
    details: Makes the message and sends none.
  diff_mode:
    support: none
  idempotent:
    support: none
    details: Each time that something happened, it is said.
options:
  rollback:
    description: Whether the play goes back to earlier releases.
    type: bool
    default: false
notes:
  - Use it with C(run_once), or each host of the play sends a message.
"""

EXAMPLES = r"""
- name: Say what became of the run
  flaskfleet.deploy.notify:
  run_once: true
"""

RETURN = r"""
message:
  description:
    - What is said, as a webhook of the format V(json) gets it.
    - C(event) is the gravest of C(events), V(failure), V(return), V(certificate) or V(success), or V(nothing). C(title)
      and C(text) are for people. C(apps) has C(app), C(host), C(result) (V(released), V(failed) or V(returned)),
      C(from), C(to), C(seconds), C(url) and C(reason). C(hosts) and C(certificates) have C(host) and C(reason).
  returned: always
  type: dict
undelivered:
  description: A sentence for each entry that was not told.
  returned: always
  type: list
  elements: str
tasks:
  description: Files of tasks that want to hear it, C(file) and C(required).
  returned: always
  type: list
  elements: dict
"""
