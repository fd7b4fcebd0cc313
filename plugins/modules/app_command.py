#!/usr/bin/python
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: app_command
short_description: Run a command in the live release of a Flask app
version_added: 0.1.0
description:
  - Runs a shell command as the app's process runs, with its user, sandbox, limits, folder and environment, secrets
    included, and with the executables of its build first on C(PATH).
  - Where its output has a secret of the app in it, asterisks are returned instead.
  - On the host itself, C(flask-app APP COMMAND) does the same with your terminal, as in C(flask-app hello flask shell).
author:
  - flaskfleet.deploy contributors (@flaskfleet)
extends_documentation_fragment:
  - flaskfleet.deploy.modules
  - flaskfleet.deploy.modules.root
attributes:
  check_mode:
    support: full
    details: Nothing is run. Whether the command would change anything is not known, so that is what it says.
  diff_mode:
    support: none
  idempotent:
    support: none
    details: A command is taken to change something each time.
options:
  app:
    description: Name of the app.
    type: str
    required: true
  command:
    description:
      - The shell command. It is no secret, but can read secrets from its environment.
    type: str
    required: true
  timeout:
    description: Seconds that it may take. It is ended then and has failed.
    type: int
    default: 600
notes:
  - Runs as root and needs systemd on the host.
seealso:
  - module: flaskfleet.deploy.app_info
"""

EXAMPLES = r"""
- name: Make the first account
  flaskfleet.deploy.app_command:
    app: hello
    command: flask user create admin
  register: made

- name: Show what it said
  ansible.builtin.debug:
    msg: "{{ made.stdout_lines }}"
"""

RETURN = r"""
release:
  description: The release that it ran in.
  returned: always
  type: str
  sample: 1d7b60d2-5f3a9c11
stdout:
  description: What it wrote, on either output; of one that failed, the last lines.
  returned: when it was run
  type: str
rc:
  description: Its exit status; null when it was ended.
  returned: when it was run
  type: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskfleet.deploy.plugins.module_utils.payload import scrub
from ansible_collections.flaskfleet.deploy.plugins.module_utils.recipes import secrets_of
from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import App, CommandFailed, apps_on_host
from ansible_collections.flaskfleet.deploy.plugins.module_utils.reports import sharing_hint


def main():
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "command": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 600},
            "root": {"type": "path", "default": "/opt/flask_apps"},
        },
        supports_check_mode=True,
    )
    root, command = module.params["root"], module.params["command"]
    app = App(root, module.params["app"])
    name = app.live()
    if name is None:
        here = ", ".join(apps_on_host(root)) or "none"
        module.fail_json(msg=f"there is no app {app.name!r} with a live release; apps in {root}: {here}")
    if module.check_mode:
        module.exit_json(changed=True, release=name)
    result = {"changed": True, "release": name, "rc": 0}
    secrets = ()
    try:
        secrets = secrets_of(app, name)
        output = app.run(name, command, module.params["timeout"], app.once_unit(name))
    except CommandFailed as error:
        output = scrub("\n".join(error.output), secrets)
        result.update(rc=error.status, stdout=output)
        hint = sharing_hint(output.splitlines(), app.directory, app.release(name).get("path", "."))
        module.fail_json(msg=f"{app.name}: `{command}` {error}{hint}\n{output}", **result)
    except Exception as error:  # a traceback would print values
        module.fail_json(msg=f"app_command failed: {type(error).__name__}")
    module.exit_json(**result, stdout=scrub(output, secrets).rstrip("\n"))


if __name__ == "__main__":
    main()
