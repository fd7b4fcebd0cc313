#!/usr/bin/python
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: file_set
short_description: Make a set of files true on a host, all or nothing
version_added: 0.1.0
author:
  - flaskfleet.deploy contributors (@flaskfleet)
description:
  - Renders any number of templates on the controller and puts them, with plain files and symbolic links, on the host
    in one module execution.
  - Remembers in a manifest which files it wrote, prunes those that are no longer listed, and never touches a file
    that is neither in the manifest nor explicitly taken over.
  - Runs O(test_command) after writing. When the test, or anything before it, fails, every file is put back as it was.
  - Each file is replaced by a rename, so that at any moment, even when the run is killed, it is either the old or the
    new one. A symbolic link in a file's place is replaced, not followed.
  - Runs O(apply_commands) after a successful test. A marker on the host makes a later run catch up on them when a
    run was interrupted in between.
options:
  owner:
    description:
      - Whose files these are. The manifest is C(<owner>.json) in O(state_dir).
      - Begins with a letter and consists of lower-case letters, digits, C(-) and C(_).
    type: str
    required: true
  files:
    description:
      - All files of this owner.
      - Exactly one of O(files[].template), O(files[].content), O(files[].link), O(files[].certificate) and
        O(files[].state) belongs to each.
      - Missing directories are made, with mode C(0755) and owned by root.
    type: list
    elements: dict
    required: true
    suboptions:
      dest:
        description: Absolute path of the file.
        type: str
        required: true
      template:
        description:
          - Name of a template, looked up in O(template_paths) first, then in the C(templates) folder of the calling
            role, or of the playbook for a task outside of roles. Or its absolute path on the controller.
          - Includes and C(extends) are looked up the same way, so that a user's template can extend the role's.
          - Rendered as by M(ansible.builtin.template), undefined variables are errors.
        type: str
      content:
        description: The text of the file, taken as it is.
        type: str
      link:
        description: Target of a symbolic link.
        type: str
      certificate:
        description:
          - A private key and its certificate in one file. C(mode) V(self_signed) has one made on the host for the host
            names C(names), which stays until 30 days before it expires or until the names change. C(mode) V(provided)
            takes the one that C(flask_apps) or C(nginx_sites) give for O(files[].subject), as the role
            P(flaskfleet.deploy.nginx_site#role) describes. C(mode) V(acme) takes the one that certbot has in the folder
            C(lineage); as long as there is none, what is there stays, or no file is made.
        type: dict
      state:
        description: V(absent) removes the file.
        type: str
        choices: [absent]
      mode:
        description: Permission bits as a quoted octal number. Not for links.
        type: str
        default: "0644"
      user:
        description: Owning user. It has to exist, but not yet in check mode. Not for links.
        type: str
        default: root
      group:
        description: Owning group. It has to exist, but not yet in check mode. Not for links.
        type: str
        default: root
      vars:
        description:
          - Variables that only this template sees, before all others.
          - Jinja expressions found inside their values are not evaluated.
        type: dict
        default: {}
      sensitive:
        description: Never show the content, in no diff and no message, and note no digest of it in the manifest.
        type: bool
        default: false
      subject:
        description: What the file is a part of, such as an application or a site. One of O(subjects), or empty.
        type: str
        default: ""
      takeover:
        description: Replace or remove a file that exists and is not in the manifest.
        type: bool
        default: false
  template_paths:
    description: Folders in which templates are looked up first. Relative ones start at the playbook's folder.
    type: list
    elements: str
    default: []
  items:
    description:
      - What the subjects are. A template sees, under the name O(items_var), the one whose key O(items_key) is the
        subject of its file.
    type: list
    elements: dict
    default: []
  items_key:
    description: Key of O(items) that holds the subject.
    type: str
    default: name
  items_var:
    description: Name of the variable.
    type: str
    default: item
  state_dir:
    description:
      - Directory of the manifest, the lock and the pending marker on the host. Made with mode C(0700) when missing.
      - Only root may be able to write it.
    type: path
    default: /var/lib/flaskfleet
  subjects:
    description:
      - All declared subjects. Of these, and of files without a subject, everything that is not in O(files) is pruned.
      - Files of other subjects stay and are reported as RV(undeclared).
    type: list
    elements: str
    default: []
  skipped_subjects:
    description: Subjects that this run leaves alone, their files are neither pruned nor reported.
    type: list
    elements: str
    default: []
  purge_undeclared:
    description: Prune the files of subjects that are not declared any more, too.
    type: bool
    default: false
  test_command:
    description:
      - Command and arguments to run after writing. When it fails, everything is put back and the task fails.
      - Also run when the pending marker of an earlier run is found.
    type: list
    elements: str
    default: []
  apply_commands:
    description:
      - Commands, each a list of the command and its arguments, to run in this order after a change and a successful
        test.
      - A pending marker is set before the first change and removed when all have succeeded. A run that finds it runs
        them again, even when nothing changed.
      - When omitted, the marker stays, RV(pending) is true, and the caller removes RV(pending_marker) when the
        change has been applied. An empty list says that nothing has to be applied.
    type: list
    elements: list
  directories:
    description:
      - What the O(apply_commands) make. When one of these is missing, or has another mode or owner, the commands are
        run as after a change.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: path
        required: true
      mode:
        description: Permission bits as a quoted octal number.
        type: str
        required: true
      user:
        description: Owning user. One that does not exist counts as a wrong one.
        type: str
        required: true
      group:
        description: Owning group; any, when empty.
        type: str
        default: ""
  payload:
    description: The rendered files, which the action plugin sends in place of O(files). Not for users.
    type: str
extends_documentation_fragment:
  - flaskfleet.deploy.modules
attributes:
  check_mode:
    support: full
    details: Writes nothing and runs no command.
  diff_mode:
    support: full
    details: A diff for each file. A sensitive one says "changed" only.
  idempotent:
    support: full
    details: Unless a pending marker is left to the caller.
notes:
  - A command's output is shown when it fails. Words from sensitive files are masked in it as far as they can be
    recognized.
  - Two runs of one owner wait for each other up to a minute.
"""

EXAMPLES = r"""
- name: Write the sites
  flaskfleet.deploy.file_set:
    owner: sites
    template_paths: "{{ playbook_dir }}/templates"
    subjects: [hello.example.org]
    files:
      - template: site.conf.j2
        dest: /etc/nginx/sites-available/hello.example.org.conf
        subject: hello.example.org
        vars:
          domain: hello.example.org
      - link: ../sites-available/hello.example.org.conf
        dest: /etc/nginx/sites-enabled/hello.example.org.conf
        subject: hello.example.org
      - dest: /etc/nginx/sites-enabled/default
        state: absent
        takeover: true
    test_command: [nginx, -t]
  register: sites
  notify: Reload nginx

- name: Write units
  flaskfleet.deploy.file_set:
    owner: units
    files:
      - template: hello.service.j2
        dest: /etc/systemd/system/hello.service
      - content: "TOKEN={{ hello_token }}"
        dest: /etc/hello.env
        mode: "0600"
        sensitive: true
    apply_commands:
      - [systemctl, daemon-reload]
"""

RETURN = r"""
changed_files:
  description: Files of O(files) that were written or removed, sorted.
  returned: success
  type: list
  elements: str
  sample: [/etc/nginx/sites-available/hello.example.org.conf]
pruned:
  description: Files that were removed because they are no longer listed, sorted.
  returned: success
  type: list
  elements: str
differences:
  description:
    - What is different about each path that changes, or was, sorted by path. RV(differences[].what) tells what somebody
      changed on the host apart from what the list says now and did not when a run wrote it.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: The path.
      type: str
    subject:
      description: Whom it belongs to, empty when to nobody.
      type: str
    what:
      description: What is different, to be read behind the path.
      type: str
      sample: was changed on the host
    since:
      description: When that was done on the host, in seconds since 1970; null where the host can't tell.
      type: float
mended:
  description: Paths of O(directories) that were missing or had another mode or owner.
  returned: success
  type: list
  elements: str
undeclared:
  description: Subjects that are not declared any more and still have files, sorted.
  returned: success
  type: list
  elements: str
managed:
  description: Paths in the manifest afterwards, sorted.
  returned: success
  type: list
  elements: str
pending:
  description: Whether the change still has to be applied by the caller.
  returned: success
  type: bool
pending_marker:
  description: File that the caller removes when the change has been applied.
  returned: success
  type: str
  sample: /var/lib/flaskfleet/sites.pending
diff:
  description: A dictionary of before, after, before_header and after_header for each changed file.
  returned: success, in diff mode
  type: list
  elements: dict
cmd:
  description: The command that failed. RV(msg) ends with its output.
  returned: failure of a command
  type: list
  elements: str
rc:
  description: Exit code of the failed command.
  returned: failure of a command
  type: int
msg:
  description: What is wrong, with all affected files.
  returned: failure
  type: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flaskfleet.deploy.plugins.module_utils.file_set.running import run
from ansible_collections.flaskfleet.deploy.plugins.module_utils.file_set.wanted import OPTIONS, FileSetError, unpack


def main():
    module = AnsibleModule(
        argument_spec=dict(OPTIONS, payload=dict(type="str", no_log=True)),
        supports_check_mode=True,
    )

    def label(temporary, path):
        module.set_context_if_different(temporary, module.selinux_default_context(path), False)

    try:
        result = run(module.params, unpack(module.params["payload"]), module.check_mode, module._diff, label)
    except FileSetError as error:
        result = dict(error.details, failed=True, msg=str(error))
    except Exception as error:
        result = dict(failed=True, msg=f"unexpected {type(error).__name__} {_place(error)}")
    # Outside of the except blocks: there, fail_json would add the exception, which may carry content.
    if result.pop("failed", False):
        module.fail_json(**result)
    module.exit_json(**result)


def _place(error):
    """Where an exception was raised: `in <file>, line <number>`."""
    traceback = error.__traceback__
    while traceback.tb_next:
        traceback = traceback.tb_next
    return f"in {os.path.basename(traceback.tb_frame.f_code.co_filename)}, line {traceback.tb_lineno}"


if __name__ == "__main__":
    main()
