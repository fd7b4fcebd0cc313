# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Entries of apps and hosts, and the block of a hosts file that they are kept in."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.errors import AnsibleTemplatePluginError
from ansible.template import trust_as_template
from ansible_collections.flaskfleet.deploy.plugins.filter.app_domains import app_domains
from ansible_collections.flaskfleet.deploy.plugins.filter.hosts_entries import hosts_entries
from ansible_collections.flaskfleet.deploy.plugins.module_utils import plan
from ansible_collections.flaskfleet.deploy.plugins.module_utils.hosts_entries import hosts_block
from hypothesis import given
from hypothesis import strategies as st

COLLECTIONS = Path(plan.__file__).parents[6]
HELLO = {"name": "hello", "domain": "hello.test"}
OTHER = {"name": "other", "domain": "other.test", "aliases": ["www.other.test", "old.test"]}
WEB1, WEB2 = {"web1": "192.0.2.1"}, {"web2": "192.0.2.2"}


def names(apps, hosts, **options):
    """{address: names} of the entries."""
    found = {}
    for entry in hosts_entries(apps, hosts, **options):
        found.setdefault(entry["address"], []).extend(entry["names"])
    return found


def test_every_name_leads_to_every_host_but_a_host_name_to_its_own():
    assert hosts_entries([HELLO, OTHER], {**WEB2, **WEB1}) == [
        {"address": "192.0.2.2", "names": ["hello.test", "web2.hello.test"], "app": "hello", "host": "web2"},
        {
            "address": "192.0.2.2",
            "names": ["other.test", "www.other.test", "old.test", "web2.other.test"],
            "app": "other",
            "host": "web2",
        },
        {"address": "192.0.2.1", "names": ["hello.test", "web1.hello.test"], "app": "hello", "host": "web1"},
        {
            "address": "192.0.2.1",
            "names": ["other.test", "www.other.test", "old.test", "web1.other.test"],
            "app": "other",
            "host": "web1",
        },
    ]


def test_hosts_as_a_list():
    hosts = [{"name": "web2", "address": "2001:DB8::2"}, {"name": "web1", "address": "192.0.2.1"}]
    assert list(names([HELLO], hosts)) == ["2001:db8::2", "192.0.2.1"]


@pytest.mark.parametrize("hostname", ["web1", "Web_1.example.org", "192.0.2.1", "___", "x" * 300, "taken"])
@pytest.mark.parametrize("host_names", [True, False])
@pytest.mark.parametrize("domain", ["hello.test", "d" * 60 + 3 * ("." + "d" * 61)])
def test_names_are_those_that_nginx_answers_to(hostname, host_names, domain):
    apps = [
        {"name": "hello", "domain": domain, "repository": "/srv/hello"},
        {"name": "taken", "domain": "taken.hello.test", "repository": "/srv/taken"},
    ]
    planned = plan.make_plan({"flask_apps": apps, "nginx_site_host_names": host_names}, {}, hostname)
    expected = [site["server_names"] for site in planned["sites"]]
    for given_apps in (apps, planned["apps"]):
        entries = hosts_entries(given_apps, {hostname: "192.0.2.1"}, host_names=host_names)
        assert [entry["names"] for entry in entries] == expected


def test_balancers_have_the_domains_and_hosts_their_own_names():
    found = names([HELLO, OTHER], {**WEB1, **WEB2}, balancers={"lb1": "192.0.2.10", "lb2": "192.0.2.20"})
    domains = ["hello.test", "other.test", "www.other.test", "old.test"]
    assert found == {
        "192.0.2.10": domains,
        "192.0.2.20": domains,
        "192.0.2.1": ["web1.hello.test", "web1.other.test"],
        "192.0.2.2": ["web2.hello.test", "web2.other.test"],
    }
    assert "192.0.2.1" not in names([HELLO], WEB1, balancers={"lb1": "192.0.2.10"}, host_names=False)


def test_absent_apps_have_no_names():
    assert names([{**OTHER, "state": "absent"}, HELLO], WEB1) == {"192.0.2.1": ["hello.test", "web1.hello.test"]}
    assert app_domains([{**OTHER, "state": "absent"}, HELLO]) == ["hello.test"]


def test_no_name_has_an_address_twice():
    apps = [HELLO, {**OTHER, "aliases": ["hello.test", "www.test", "www.test"]}]
    assert names(apps, {**WEB1, "web1b": "192.0.2.1"}) == {
        "192.0.2.1": [
            *["hello.test", "web1.hello.test", "other.test", "www.test", "web1.other.test"],
            *["web1b.hello.test", "web1b.other.test"],
        ]
    }


def test_domains():
    assert app_domains([OTHER, HELLO]) == ["other.test", "hello.test"]
    assert app_domains([OTHER, HELLO], aliases=True) == ["other.test", "www.other.test", "old.test", "hello.test"]
    assert app_domains([]) == []


def test_tags_do_not_come_through():
    tagged = {key: trust_as_template(value) for key, value in HELLO.items()}
    assert tagged["domain"].__class__ is not str
    aliases = [trust_as_template("www.test")]
    [entry] = hosts_entries([{**tagged, "aliases": aliases}], {trust_as_template("web1"): trust_as_template("::1")})
    assert {type(value) for value in (*entry["names"], entry["address"], entry["app"], entry["host"])} == {str}


@pytest.mark.parametrize(
    "apps, hosts, errors",
    [
        ("hello", WEB1, ["`apps` must be a list of dictionaries"]),
        ({"name": "hello"}, WEB1, ["`apps` must be a list of dictionaries"]),
        (["hello", None], WEB1, ["apps[0] must be a dictionary", "apps[1] must be a dictionary"]),
        ([{}], WEB1, ["apps[0]: `name` is missing", "apps[0]: `domain` is missing"]),
        ([{**HELLO, "domain": "a.test\n192.0.2.9 b.test"}], WEB1, ["apps[0]: `domain` must be one line of text"]),
        ([HELLO, {**OTHER, "domain": "a b"}], WEB1, ["apps[1]: `domain` must be a host name"]),
        ([{**HELLO, "aliases": "www.test"}], WEB1, ["apps[0]: `aliases` must be a list"]),
        ([{**HELLO, "aliases": [1.5]}], WEB1, ["apps[0]: `aliases[0]` must be a string"]),
        ([{**HELLO, "name": "a # b"}], WEB1, ["apps[0]: `name` must be a lower-case letter and"]),
        ([HELLO], "192.0.2.1", ["`hosts` must be a dictionary, or a list of {name, address}"]),
        ([HELLO], [{"name": "web1"}], ["`hosts` must be a dictionary, or a list of {name, address}"]),
        ([HELLO], {"web1": "web1.example.org", "web2": None}, ["hosts[0] (web1): `address`", "hosts[1] (web2): `addr"]),
        ([HELLO], {"web1": 3221225985}, ["hosts[0] (web1): `address` must be an IP address"]),
        (
            [HELLO],
            {"web 1": "192.0.2.1", "web#": "192.0.2.1"},
            ["hosts[0]: `name` must be", "hosts[1]: `name` must be"],
        ),
    ],
)
def test_errors_come_all_at_once(apps, hosts, errors):
    with pytest.raises(AnsibleTemplatePluginError) as raised:
        hosts_entries(apps, hosts)
    lines = str(raised.value).splitlines()
    assert len(lines) == len(errors)
    assert all(line.startswith(error) for line, error in zip(lines, errors))


def file_with(*lines, marker="flaskfleet.deploy"):
    return "\n".join(["127.0.0.1 localhost", f"# BEGIN {marker}", *lines, f"# END {marker}", "::1 localhost", ""])


HELLO_1 = "192.0.2.1 hello.test web1.hello.test # hello on web1"
HELLO_2 = "192.0.2.2 hello.test web2.hello.test # hello on web2"
OTHER_1 = "192.0.2.1 other.test www.other.test old.test web1.other.test # other on web1"


@pytest.mark.parametrize(
    "text, apps, hosts, kept_apps, lines",
    [
        pytest.param("", [HELLO], WEB1, [], [HELLO_1], id="no file yet"),
        pytest.param("192.0.2.9 hello.test # hello on web1\n", [HELLO], WEB1, [], [HELLO_1], id="no block yet"),
        pytest.param("# BEGIN flaskfleet.deploy\nx\n", [HELLO], WEB1, [], [HELLO_1], id="no end"),
        pytest.param(file_with(HELLO_1, marker="a"), [], WEB1, [], [], id="another block"),
        pytest.param(file_with(HELLO_1, HELLO_2), [HELLO], WEB1, [], [HELLO_1, HELLO_2], id="nothing to do"),
        pytest.param(file_with(HELLO_2), [HELLO], WEB1, [], [HELLO_2, HELLO_1], id="a further host"),
        pytest.param(file_with(HELLO_1, HELLO_2), [OTHER], WEB1, [], [HELLO_2, OTHER_1], id="another app"),
        pytest.param(file_with(HELLO_1, HELLO_2), [], WEB1, [], [HELLO_2], id="no app left"),
        pytest.param(file_with(HELLO_1), [], WEB1, [], [], id="no line left"),
        pytest.param(
            file_with("192.0.2.9 hello.test # hello on web1", HELLO_2),
            [HELLO],
            WEB1,
            [],
            [HELLO_1, HELLO_2],
            id="another address",
        ),
        pytest.param(
            file_with("192.0.2.9 old.test other.test # other on web1", "192.0.2.9 gone.test # gone on web1"),
            [HELLO],
            WEB1,
            ["other"],
            ["192.0.2.1 old.test other.test # other on web1", HELLO_1],
            id="a kept app follows its host",
        ),
        pytest.param(file_with(OTHER_1), [], WEB1, ["other"], [OTHER_1], id="a kept app alone"),
        pytest.param(
            file_with("# by hand", HELLO_1, HELLO_1, "192.0.2.7 x.test"),
            [HELLO],
            WEB1,
            [],
            ["# by hand", HELLO_1, "192.0.2.7 x.test"],
            id="lines of nobody stay, doubles go",
        ),
    ],
)
def test_block(text, apps, hosts, kept_apps, lines):
    assert hosts_block(text, hosts_entries(apps, hosts), list(hosts), kept_apps).splitlines() == lines


def test_a_host_that_is_not_judged_keeps_its_lines_but_for_those_that_are_new():
    entries = hosts_entries([HELLO], {"lb1": "192.0.2.9"})
    text = file_with("192.0.2.8 hello.test # hello on lb1", "192.0.2.8 other.test # other on lb1")
    [line] = hosts_block("", entries, []).splitlines()
    assert hosts_block(text, entries, ["web1"]).splitlines() == [line, "192.0.2.8 other.test # other on lb1"]
    assert hosts_block(text, entries, ["lb1"]).splitlines() == [line]


def test_block_of_that_name():
    text = file_with(HELLO_1, marker="stage") + file_with(HELLO_2)
    assert hosts_block(text, [], [], marker="stage") == HELLO_1


subsets = st.lists(
    st.sampled_from([HELLO, OTHER, {"name": "x", "domain": "x.test"}]), unique_by=lambda app: app["name"]
)


@given(st.lists(st.tuples(subsets, st.sampled_from(["web1", "web2", "web11"])), max_size=6))
def test_runs_for_different_hosts_leave_each_other_alone(runs):
    text, latest = "", {}
    for apps, host in runs:
        entries = latest[host] = hosts_entries(apps, {host: "192.0.2.1"})
        text = file_with(*hosts_block(text, entries, [host]).splitlines())
        assert file_with(*hosts_block(text, entries, [host]).splitlines()) == text
    expected = [entry for entries in latest.values() for entry in entries]
    assert sorted(hosts_block(text, [], []).splitlines()) == sorted(hosts_block("", expected, []).splitlines())


def test_in_a_playbook(tmp_path):
    """Values are evaluated when they are needed: a secret never is."""
    variables = {
        "zone": "test",
        "flask_apps": [
            {"name": "hello", "domain": "hello.{{ zone }}", "secrets": {"A": "{{ undefined_canary }}"}},
            "{{ {'name': 'other', 'domain': 'other.' ~ zone, 'aliases': [zone]} }}",
        ],
        "addresses": {"web1": "{{ '192.0.2.1' }}"},
        "entries": "{{ flask_apps | flaskfleet.deploy.hosts_entries(addresses) }}",
    }
    messages = [
        "{{ flask_apps | flaskfleet.deploy.app_domains(true) }}",
        "{{ '' | flaskfleet.deploy.hosts_block(entries, ['web1']) | split('\n') }}",
    ]
    tasks = [{"ansible.builtin.debug": {"msg": message}} for message in messages]
    play = {"hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": tasks}
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_NOCOLOR": "1",
    }
    command = [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-c", "local", "play.yml"]
    finished = subprocess.run(command, cwd=tmp_path, env=environment, text=True, check=False, capture_output=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert [json.loads(text) for text in re.findall(r'"msg": (\[[^]]*\])', finished.stdout)] == [
        ["hello.test", "other.test", "test"],
        [HELLO_1, "192.0.2.1 other.test test web1.other.test # other on web1"],
    ]
