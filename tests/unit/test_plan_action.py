# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin, with Ansible's own templates, vault and output."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.flaskfleet.deploy.plugins.module_utils import plan

COLLECTIONS = Path(plan.__file__).parents[6]
SECRETS = ("canary-token", "canary-vault", "canary-plain", "canary-refused", "canary-lookup", "canary-undefined")
BASE = {"name": "hello", "domain": "{{ apps_domain }}", "repository": "https://me:{{ token }}@git.test/hello.git"}
PLAYS = {
    "right": {
        "apps_domain": "hello.test",
        "token": "canary-token",
        "base": BASE,
        "flask_apps": [
            "{{ base | combine({'secrets': {'VAULT': vaulted, 'PLAIN': 'canary-plain'}, 'settle': 1 + 1}) }}",
            {
                "name": "other",
                "domain": "other.test",
                "repository": "/srv/other",
                "env": {"LEFT_OUT": "{{ omit }}", "N": 1},
            },
        ],
        "flask_app_template_paths": ["templates"],
        "flask_app_overides": {},
    },
    "wrong": {
        "flask_apps": [
            {
                "name": "hello",
                "domian": "hello.test",
                "repository": "ext::sh -c canary-refused",
                "secrets": {"A": True, "B": "canary-refused\0", "C": ["canary-refused"]},
            }
        ],
    },
    "unexpected": {
        "platform": {"packages": 5},
        "flask_apps": [{"name": "hello", "domain": "hello.test", "repository": "/srv/hello"}],
    },
    "undefined": {
        "flask_apps": [
            {
                "name": "hello",
                "domain": "{{ nowhere.domain }}",
                "repository": "/srv/hello",
                "secrets": {
                    "A": "canary-undefined{{ vault_a }}",
                    "B": "{{ lookup('file', '/nowhere/canary-lookup') }}",
                    "C": "{{ canary",
                    "D": "{{ base.canary }}",
                },
            }
        ],
        "base": {},
    },
}
LOOKUP = "lookup('flaskfleet.deploy.plan', platform=platform)"


class _Dumper(yaml.SafeDumper):
    """Writes an encrypted value as `!vault`."""


class _Encrypted(str):
    """Ciphertext."""


_Dumper.add_representer(_Encrypted, lambda dumper, text: dumper.represent_scalar("!vault", text, style="|"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run all plays once, at the highest verbosity, with the module and with the lookup.

    Returns (output, what the module returned by name of the play and the lookup by that name with `_lookup` behind it).
    """
    folder = tmp_path_factory.mktemp("plan")
    vault = VaultLib([("default", VaultSecret(b"password"))])
    vaulted = _Encrypted(vault.encrypt("canary-vault").decode())
    tasks = []
    for name, variables in PLAYS.items():
        tasks += [
            {
                "flaskfleet.deploy.plan": {"platform": "{{ platform }}"},
                "vars": variables,
                "register": name,
                "ignore_errors": True,
            },
            {"ansible.builtin.debug": {"msg": f"RETURNED {name} {{{{ {name} | to_json | b64encode }}}} END"}},
            {
                "ansible.builtin.debug": {
                    "msg": f"RETURNED {name}_lookup {{{{ {LOOKUP} | to_json | b64encode }}}} END"
                },
                "vars": variables,
                "ignore_errors": True,
            },
        ]
    play_variables = {"vaulted": vaulted, "platform": {"proxy_user": "www-data"}}
    plays = [{"hosts": "web1", "gather_facts": False, "vars": play_variables, "tasks": tasks}]
    (folder / "play.yml").write_text(yaml.dump(plays, Dumper=_Dumper, sort_keys=False))
    (folder / "password").write_text("password")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_NOCOLOR": "1",
    }
    command = ["-i", "web1,", "-c", "local", "-vvvv", "--vault-password-file", "password", "play.yml"]
    finished = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", *command],
        cwd=folder,
        env=environment,
        text=True,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert finished.returncode == 0, finished.stdout
    returned = re.findall(r"RETURNED (\w+) (\S+) END", finished.stdout)
    return finished.stdout, {name: json.loads(base64.b64decode(text)) for name, text in returned}


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_in_the_output(run, secret):
    output, _results = run
    assert secret not in output


def test_plan(run):
    _output, results = run
    hello, other = results["right"]["apps"]
    assert results["right"]["changed"] is False
    assert (hello["domain"], hello["repository"]) == ("hello.test", "https://git.test/hello.git")
    assert (hello["secret_names"], hello["health"]["settle"]) == (["PLAIN", "VAULT"], 2)
    assert hello["server_names"] == ["hello.test", "web1.hello.test"]
    assert other["env"] == {"N": "1"}


def test_the_lookup_returns_the_same(run):
    output, results = run
    assert results["right_lookup"] == {key: results["right"][key] for key in results["right_lookup"]}
    assert results["right"].keys() - results["right_lookup"].keys() == {"changed", "failed"}
    assert "wrong_lookup" not in results and output.count("6 errors in the variables of web1:") > 2


def test_misspelt_variable_is_a_warning(run):
    output, _results = run
    assert "no role has a variable flask_app_overides; did you mean flask_app_overrides?" in output


def test_errors(run):
    _output, results = run
    heading, *errors = results["wrong"]["msg"].splitlines()
    assert heading == "6 errors in the variables of web1:"
    assert all(error.startswith("- flask_apps[0] (hello): `") for error in errors)


def test_unexpected_exception(run):
    _output, results = run
    assert re.fullmatch(r"unexpected TypeError in make_plan \(.*derive.py, line [0-9]+\)", results["unexpected"]["msg"])


def test_what_cannot_be_evaluated(run):
    _output, results = run
    assert results["undefined"]["msg"].splitlines() == [
        "5 errors in the variables of web1:",
        "- `flask_apps[0].domain` cannot be evaluated: `nowhere` is not defined",
        "- `flask_apps[0].secrets.A` cannot be evaluated: `vault_a` is not defined",
        "- `flask_apps[0].secrets.B` cannot be evaluated: AnsibleTemplatePluginRuntimeError",
        "- `flask_apps[0].secrets.C` cannot be evaluated: AnsibleTemplateSyntaxError",
        "- `flask_apps[0].secrets.D` cannot be evaluated: `canary` is not defined",
    ]
