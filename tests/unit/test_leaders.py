# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which host runs an app's release commands, in Ansible's own plays over an inventory of several."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.flaskfleet.deploy.plugins.module_utils import plan
from ansible_collections.flaskfleet.deploy.plugins.module_utils.plan import Inventory, PlanError, make_plan

COLLECTIONS = Path(plan.__file__).parents[6]
SHOP, BLOG, NEWS = (
    {"name": name, "domain": f"{name}.test", "repository": "/srv/app", "release_commands": ["flask db upgrade"]}
    for name in ("shop", "blog", "news")
)
PLAIN = {"name": "plain", "domain": "plain.test", "repository": "/srv/app"}
INVENTORY = {
    "all": {
        "vars": {"ansible_connection": "local"},
        "children": {
            "balancers": {"hosts": {"lb1": {}}},
            "web": {
                "vars": {"flask_apps": [SHOP, PLAIN]},
                "hosts": {
                    "web1": {"flask_apps": [{**SHOP, "state": "absent"}, PLAIN]},
                    "web2": {},
                    "web3": {"flask_apps": [SHOP, BLOG]},
                },
            },
            "broken": {"hosts": {"aaa": {"flask_apps": "{{ nowhere }}"}}},
        },
    }
}
LEADERS = "plan.apps | items2dict(key_name='name', value_name='release_leader') | to_json"
REPORT = f"LEADERS {{{{ inventory_hostname }}}} {{{{ {LEADERS} }}}}"


def leaders(folder, hosts, *arguments, inventory=None, **variables):
    """{host: {app: leader, empty for the host itself}} as the plans of a play say."""
    tasks = [
        {"flaskfleet.deploy.plan": {}, "register": "plan"},
        {"ansible.builtin.debug": {"msg": REPORT}},
    ]
    play = {"hosts": hosts, "gather_facts": False, "tasks": tasks, "vars": variables, "serial": 1}
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory or INVENTORY))
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    command = [sys.executable, "-m", "ansible", "playbook", "-i", "hosts.yml", "play.yml", *arguments]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_NOCOLOR": "1"}
    finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    output = " ".join(finished.stdout.replace('\\"', '"').split())
    found = {}
    for text in output.split("LEADERS ")[1:]:
        host, _space, rest = text.partition(" ")
        found[host] = json.JSONDecoder().raw_decode(rest)[0]
    return found


def test_the_first_host_that_declares_an_app_leads(tmp_path):
    assert leaders(tmp_path, "all:!broken") == {
        "lb1": {},
        "web1": {"plain": ""},
        "web2": {"shop": "", "plain": ""},
        "web3": {"shop": "web2", "blog": ""},
    }


def test_a_host_whose_override_has_the_app_absent_does_not_lead(tmp_path):
    inventory = copy.deepcopy(INVENTORY)
    overridden = {"flask_app_overrides": {"shop": {"state": "absent"}}}
    inventory["all"]["children"]["web"]["hosts"]["web2"] = overridden
    assert leaders(tmp_path, "web", inventory=inventory)["web3"] == {"shop": "", "blog": ""}


def test_a_limit_does_not_change_who_leads(tmp_path):
    assert leaders(tmp_path, "{{ 'web' }}", "--limit", "web3") == {"web3": {"shop": "web2", "blog": ""}}


def test_a_list_that_cannot_be_evaluated_declares_nothing(tmp_path):
    assert leaders(tmp_path, "all", "--limit", "web3") == {"web3": {"shop": "web2", "blog": ""}}


@pytest.mark.parametrize("way", ["play", "command line"])
def test_hosts_that_the_play_is_not_for_do_not_lead(tmp_path, way):
    apps = {"flask_apps": [NEWS]}
    if way == "play":
        found = leaders(tmp_path, ["web2", "balancers", "web3"], "--limit", "web3:lb1", **apps)
    else:
        found = leaders(tmp_path, ["web2", "web3"], "--limit", "web3", "--extra-vars", json.dumps(apps))
        found["lb1"] = {"news": "web2"}
    assert found == {"lb1": {"news": "web2"}, "web3": {"news": "web2"}}


def leader(stated, host="web2", **more):
    inventory = Inventory(host, ["web1", "web2"], lambda app: "web1")
    variables = {"flask_apps": [{**SHOP, **more}], "flask_app_release_leader": stated}
    return make_plan(variables, {}, "other", inventory=inventory)["apps"][0]["release_leader"]


def test_a_stated_leader():
    assert (leader(""), leader("", host="web1")) == ("web1", "")
    assert (leader("web2"), leader("web2", host="web1")) == ("", "web2")
    assert leader("web1", release_commands=[]) == ""


def test_a_stated_leader_must_be_there():
    with pytest.raises(PlanError) as caught:
        leader("web3")
    assert caught.value.errors == ["`flask_app_release_leader` must be the name of a host of the inventory, not 'web3'"]
