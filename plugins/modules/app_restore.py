#!/usr/bin/python
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: app_restore
short_description: Give a Flask app's database back what a dump has
version_added: 0.1.0
author:
  - flaskfleet.deploy contributors (@flaskfleet)
description:
  - Stops the app, empties its database, fills it from a dump that was made before the commands of a release, and starts
    the app again. What was written since the dump is lost.
  - The app's own account does it, in the live release's sandbox.
options:
  app:
    description: Name of the app.
    type: str
    required: true
  backup:
    description: Name of the dump, the newest one when empty. V(none) tells which there are and changes nothing.
    type: str
    default: ""
  timeout:
    description: Seconds that each of the steps may take.
    type: int
    default: 3600
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
    support: none
notes:
  - Runs as root and needs systemd on the host.
seealso:
  - module: flaskfleet.deploy.app_command
"""

EXAMPLES = r"""
- name: Take the data back to before the last release
  flaskfleet.deploy.app_restore:
    app: hello
"""

RETURN = r"""
backup:
  description: The dump that was taken, or in check mode would be.
  returned: when one was asked for
  type: str
backups:
  description: Names of the dumps that there are, oldest first.
  returned: always
  type: list
  elements: str
release:
  description: The live release.
  returned: always
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskfleet.deploy.plugins.module_utils.backups import Backups
from ansible_collections.flaskfleet.deploy.plugins.module_utils.payload import scrub
from ansible_collections.flaskfleet.deploy.plugins.module_utils.recipes import secrets_of
from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import (
    App,
    CommandFailed,
    LockTimeout,
    lock,
    systemctl,
)
from ansible_collections.flaskfleet.deploy.plugins.module_utils.reports import unexpected


def restore(module, app, backups, name):
    """Raises CommandFailed, LockTimeout, OSError."""
    with lock(app.root, module.params["lock_timeout"]):
        try:
            with lock(app.root, name=app.name):
                limit = 120 + app.patience()
                systemctl("stop", "--", app.target, f"flask-{app.name}@*", f"flask-{app.name}.*", limit=limit)
                backups.load(app.live(), name, module.params["timeout"])
        finally:
            systemctl("start", "--", app.target)  # which takes the app's lock


def main():
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "backup": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 3600},
            "root": {"type": "path", "default": "/opt/flask_apps"},
            "lock_timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    app, wanted = App(module.params["root"], module.params["app"]), module.params["backup"]
    live = app.live()
    if live is None:
        module.fail_json(msg=f"{app.name}: there is no live release; deploy one first, it knows the database")
    settings = app.release(live).get("backup")
    if not settings:
        module.fail_json(msg=f"{app.name}: the live release has no `database` with `backups`")
    backups = Backups(app, settings)
    names = backups.names()
    result = {"backups": names, "release": live}
    if wanted == "none":
        module.exit_json(changed=False, **result)
    name = wanted or (names or [""])[-1]
    if name not in names:
        there = ", ".join(names) or "none"
        module.fail_json(msg=f"{app.name}: there is no dump {name}; in {backups.directory}: {there}", **result)
    if not module.check_mode:
        try:
            restore(module, app, backups, name)
        except LockTimeout as error:
            module.fail_json(msg=str(error), **result)
        except CommandFailed as error:
            output = scrub("\n".join(error.output), secrets_of(app, live))
            module.fail_json(msg=f"{app.name}: {name} was not restored: it {error}\n{output}", **result)
        except Exception as error:  # a traceback would print values
            module.fail_json(msg=f"app_restore failed: {unexpected(error)}", **result)
    module.exit_json(changed=True, backup=name, **result)


if __name__ == "__main__":
    main()
