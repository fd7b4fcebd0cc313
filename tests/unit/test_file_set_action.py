# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""file_set as a playbook on localhost uses it: rendering, transport, secrecy."""

from __future__ import annotations

import base64
import grp
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

COLLECTION = Path(__file__).parents[2]
SECRET = "hunter2-hunter2-hunter2"


class Controller:
    """A playbook directory with one role whose only task is file_set, and a "host" in the same place."""

    def __init__(self, root):
        self.root = root
        self.out = root / "out"
        tree = root / "tree" / "ansible_collections" / "flaskfleet"
        tree.mkdir(parents=True)
        (tree / "deploy").symlink_to(COLLECTION)

    def template(self, name, text, folder="roles/r/templates"):
        path = self.root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, files, *arguments, variables=None, environment=None, **options):
        """Run ansible-playbook; returns the completed process."""
        owner = {"user": pwd.getpwuid(os.geteuid()).pw_name, "group": grp.getgrgid(os.getegid()).gr_name}
        defaults = {"owner": "t", "state_dir": str(self.out / "state"), "apply_commands": [], "subjects": ["a", "b"]}
        files = [{**owner, **item, "dest": str(self.out / item["dest"])} for item in files]
        task = {"flaskfleet.deploy.file_set": {**defaults, **options, "files": files}}
        (self.root / "roles/r/tasks").mkdir(parents=True, exist_ok=True)
        (self.root / "roles/r/tasks/main.yml").write_text(json.dumps([task]))
        play = {"hosts": "localhost", "gather_facts": False, "vars": variables or {}, "roles": ["r"]}
        (self.root / "play.yml").write_text(json.dumps([play]))
        return subprocess.run(
            [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-c", "local", "play.yml", *arguments],
            cwd=self.root,
            env={
                **{key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")},
                "ANSIBLE_COLLECTIONS_PATH": str(self.root / "tree"),
                "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
                "ANSIBLE_LOCAL_TEMP": str(self.root / "tmp"),
                "ANSIBLE_REMOTE_TEMP": str(self.root / "tmp"),
                **(environment or {}),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def read(self, name):
        return (self.out / name).read_text()


@pytest.fixture
def controller(tmp_path):
    return Controller(tmp_path)


def encodings(secret):
    """A text and its three alignments in base64, without the characters that depend on the neighbours."""
    yield secret
    for shift in range(3):
        yield base64.b64encode(b"x" * shift + secret.encode()).decode()[4:-4]


def test_templates_render_as_the_template_module_does(controller):
    controller.template(
        "base/site.j2", "# {{ ansible_managed }}\n{% block names %}\nname {{ domain }};\n{% endblock %}\n"
    )
    controller.template("site.j2", '{% extends "base/site.j2" %}\n')
    controller.template(
        "role.j2", "{% if true %}\n{{ domain | default('unset') }} {{ site.port }}\n{% endif %}\nend\n\n"
    )
    controller.template("number.j2", "{{ 5 }}\n")
    controller.template(
        "site.j2", '{% extends "base/site.j2" %}\n{% block names %}\nmine;\n{% endblock %}\n', folder="mine"
    )
    settings = "#jinja2: variable_start_string:'[%', variable_end_string:'%]'\n"
    controller.template("settings.j2", f"{settings}{{{{ [% domain %] }}}}\n", folder="mine")
    files = [
        {"template": "site.j2", "dest": "site", "vars": {"domain": "a.org"}},
        {"template": "role.j2", "dest": "role", "subject": "b"},
        {"template": "number.j2", "dest": "number"},
        {"template": "base/site.j2", "dest": "literal", "vars": {"domain": "{{ '{{' }} 7 * 7 }} {{ variable }}"}},
        {"content": "{{ '{{' }} 7 * 7 }}", "dest": "content"},
    ]
    options = {
        "items": [{"app": "a", "port": 1}, {"app": "b", "port": 2}],
        "items_key": "app",
        "items_var": "site",
        "variables": {"variable": "{{ inner }}", "inner": "reached"},
    }
    with_settings = [*files, {"template": "settings.j2", "dest": "settings", "vars": {"domain": "a.org"}}]
    done = controller.run(with_settings, "-vvv", template_paths=["mine"], **options)
    assert "changed=1" in done.stdout, done.stdout + done.stderr
    assert "DEPRECATION" not in done.stdout + done.stderr and "WARNING" not in done.stdout + done.stderr
    assert done.stdout.count("Using module file") == 1
    assert controller.read("site") == "# Ansible managed\nmine;\n"
    assert controller.read("role") == "unset 2\nend\n\n"
    assert controller.read("settings") == "{{ a.org }}\n"
    assert controller.read("number") == "5\n"
    assert controller.read("literal") == "# Ansible managed\nname {{ 7 * 7 }} reached;\n"
    assert controller.read("content") == "{{ 7 * 7 }}"
    controller.run(files, **options)
    assert controller.read("site") == "# Ansible managed\nname a.org;\n"
    assert "changed=0" in controller.run(files, **options).stdout


def test_template_errors_are_told_together_before_the_host_is_reached(controller):
    controller.template("undefined.j2", "one\n{{ nope }}\n")
    controller.template("syntax.j2", "one\n\n{% if %}\n")
    controller.template("value.j2", "{{ secret | mandatory(secret) }}{{ nope | mandatory(secret) }}\n")
    controller.template("key.j2", "{{ {}[secret] }}\n")
    controller.template("surrogate.j2", '{{ "\\ud800" }} {{ secret }}\n')
    names = ["undefined.j2", "syntax.j2", "value.j2", "key.j2", "surrogate.j2", "missing.j2"]
    files = [{"template": name, "dest": name, "sensitive": True, "vars": {"secret": SECRET}} for name in names]
    environment = {"ANSIBLE_PYTHON_INTERPRETER": "/nonexistent", "ANSIBLE_DISPLAY_TRACEBACK": "always"}
    done = controller.run(files, "-vvvv", environment=environment)
    output = done.stdout + done.stderr
    out = controller.out
    assert "6 problems" in output
    assert f"{out}/undefined.j2: template undefined.j2: line 2: 'nope' is undefined" in output
    assert f"{out}/syntax.j2: template syntax.j2: line 3" in output
    for name in names[2:]:
        assert f"{out}/{name}: template {name}: " in output
    assert "nonexistent" not in output.replace("PLAYBOOK", "")
    assert not [form for form in encodings(SECRET) if form in output.replace(str(files), "")]
    assert not out.exists()


def test_wrong_arguments_are_told_without_values(controller):
    done = controller.run([{"dest": "x", "content": SECRET, "mode": SECRET, "link": SECRET}], "-vvvv")
    output = done.stdout + done.stderr
    assert "exactly one of template, content, link, certificate, state is required" in output
    assert SECRET not in output


@pytest.mark.parametrize("pipelining", ["true", "false"])
def test_many_large_files_and_no_secret_in_the_output(controller, pipelining):
    controller.template("large.j2", "{{ secret }}\n" + "x" * 4096 + "\n")
    files = [{"template": "large.j2", "dest": f"d{n % 10}/{n}", "sensitive": True, "mode": "0600"} for n in range(150)]
    command = [sys.executable, "-c", f"print(open({str(controller.out / 'd0/0')!r}).read(30)); raise SystemExit(1)"]
    # Python imports this first, in the module too: what it would send to the journal goes to a file
    record = controller.root / "journal"
    (controller.root / "sitecustomize.py").write_text(
        "import sys, syslog\nsys.modules['systemd'] = None\n"
        f"syslog.syslog = lambda *arguments: open({str(record)!r}, 'a').write(str(arguments))\n"
    )
    environment = {
        "ANSIBLE_PIPELINING": pipelining,
        "ANSIBLE_DISPLAY_TRACEBACK": "always",
        "ANSIBLE_INJECT_INVOCATION": "true",
        "PYTHONPATH": str(controller.root),
    }
    arguments = {"variables": {"secret": SECRET}, "environment": environment}
    failed = controller.run(files, "-vvvv", "--diff", test_command=command, **arguments)
    assert "every file is as it was before" in failed.stdout + failed.stderr
    assert not (controller.out / "d0").exists()
    done = controller.run(files, "-vvvv", "--diff", **arguments)
    assert "changed=1" in done.stdout
    assert controller.read("d3/3") == f"{SECRET}\n{'x' * 4096}\n"
    journal = record.read_text()
    assert "owner=t" in journal and "payload=NOT_LOGGING" in journal
    assert '"invocation"' in done.stdout
    for form in encodings(SECRET):
        for output in (failed.stdout, failed.stderr, done.stdout, done.stderr, journal):
            assert form not in output


def test_an_unexpected_exception_is_scrubbed(controller):
    sabotage = "import os\ndef symlink(target, path):\n    raise RuntimeError(target)\nos.symlink = symlink\n"
    (controller.root / "sitecustomize.py").write_text(sabotage)
    environment = {"PYTHONPATH": str(controller.root), "ANSIBLE_DISPLAY_TRACEBACK": "always"}
    done = controller.run([{"link": SECRET, "dest": "x"}], "-vvvv", environment=environment)
    output = done.stdout + done.stderr
    assert "unexpected RuntimeError in sitecustomize.py, line 3" in output
    assert SECRET not in output


def test_check_mode_and_diff(controller):
    files = [{"content": "new\n", "dest": "x"}, {"content": SECRET, "dest": "s", "sensitive": True}]
    done = controller.run(files, "--check", "--diff")
    assert "changed=1" in done.stdout and "+new" in done.stdout and "+changed" in done.stdout
    assert SECRET not in done.stdout
    assert not controller.out.exists()
