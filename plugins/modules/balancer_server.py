#!/usr/bin/python
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: balancer_server
short_description: Take hosts out of a balancer's traffic, and give them back
version_added: 0.1.0
author:
  - flaskfleet.deploy contributors (@flaskfleet)
description:
  - Sets the state of hosts in all backends of a balancer that the role P(flaskfleet.deploy.load_balancer#role) made,
    through HAProxy's runtime socket. Reloads and restarts keep it.
  - Runs on the balancer.
options:
  hosts:
    description: Inventory names of hosts. Those that no backend has are none of its concern.
    type: list
    elements: str
    required: true
  state:
    description:
      - V(drain) gives hosts no new requests and waits until those that they have are answered. They are still checked.
        Sticky browsers (C(load_balancer_sticky)) keep to them, though.
      - V(maint) does the same at once, for sticky browsers as well, without checks and without waiting.
      - V(ready) gives them requests as soon as they are healthy.
      - The others are for rollouts. What somebody else has taken out of the traffic they leave alone.
      - V(rollout) drains, except in a backend that has no other healthy host.
      - V(away) is V(maint) for hosts that were not reached and may have old releases.
      - V(serving) waits until hosts are healthy and answer through the balancer, then gives them the traffic that a
        rollout has taken away, also those that were V(away) and those that the balancer did not know before. It fails
        when they are not healthy.
      - V(as_before) does that with what V(rollout) has drained alone.
    type: str
    choices: [ready, drain, maint, rollout, away, serving, as_before]
    required: true
  timeout:
    description: Seconds to wait for the end of requests, which then are left to themselves, or for healthy hosts.
    type: int
    default: 60
  socket:
    description: HAProxy's runtime socket; where the distributions have it when not given.
    type: path
extends_documentation_fragment:
  - flaskfleet.deploy.modules
attributes:
  check_mode:
    support: full
    details: Where HAProxy does not run yet, nothing is predicted. Nobody is asked whether they are healthy.
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Take a host out of the traffic for a repair
  flaskfleet.deploy.balancer_server:
    hosts: [web2]
    state: drain
  delegate_to: lb1
  become: true
"""

RETURN = r"""
done:
  description: What was set, or in check mode would be, each with C(backend), C(server), C(from) and C(to).
  returned: success
  type: list
  elements: dict
  sample: [{"backend": "hello.example.org", "server": "web2", "from": "ready", "to": "drain"}]
left:
  description: Hosts that somebody else has taken out of the traffic, and that were left so.
  returned: success
  type: list
  elements: str
kept:
  description: Servers that go on serving, since their backend has no other, each C(backend/server).
  returned: success
  type: list
  elements: str
sessions:
  description: How many requests and connections the hosts still had in the end.
  returned: success
  type: int
"""

import contextlib
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskfleet.deploy.plugins.module_utils import haproxy


def main():
    module = AnsibleModule(
        argument_spec={
            "hosts": {"type": "list", "elements": "str", "required": True},
            "state": {
                "type": "str",
                "choices": ["ready", "drain", "maint", "rollout", "away", "serving", "as_before"],
                "required": True,
            },
            "timeout": {"type": "int", "default": 60},
            "socket": {"type": "path"},
        },
        supports_check_mode=True,
    )
    options = module.params
    runtime = haproxy.Runtime(options["socket"])
    if module.check_mode and not os.path.exists(runtime.path):
        module.exit_json(changed=False, done=[], left=[], kept=[], sessions=0)
    names = [haproxy.server_name(host) for host in options["hosts"]]
    # a run that only predicts leaves nothing behind, not even a lock
    with contextlib.nullcontext() if module.check_mode else haproxy.locked():
        change = haproxy.Change(runtime, names, module.check_mode, options["timeout"], sticky=haproxy.is_sticky())
        try:
            if options["state"] == "rollout":
                change.take_out("drain")
            elif options["state"] == "away":
                change.take_out("away")
            elif options["state"] in ("serving", "as_before"):
                change.give_back(haproxy.asking(), ["drain"] if options["state"] == "as_before" else None)
            else:
                change.set(options["state"])
            sessions = change.sessions()
        except haproxy.BalancerError as error:
            module.fail_json(msg=str(error), done=change.done)
        finally:
            if change.done and not module.check_mode:
                haproxy.save(runtime, new="ready")
    module.exit_json(
        changed=bool(change.done), done=change.done, left=sorted(change.left), kept=change.kept, sessions=sessions
    )


if __name__ == "__main__":
    main()
