# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The balancer in front of the hosts: what is planned and written, and what its runtime socket is told."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import re
import shutil
import subprocess
import threading
from unittest import mock

import pytest
import yaml
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.flaskfleet.deploy.plugins.module_utils import haproxy
from ansible_collections.flaskfleet.deploy.plugins.module_utils.plan import (
    Inventory,
    PlanError,
    collect_certificates,
    make_plan,
)
from ansible_collections.flaskfleet.deploy.plugins.modules import balancer_reload, balancer_server
from test_role_templates import DEBIAN, HELLO, ROLES, renderer
from test_sites import DOCS

VARIABLES = yaml.safe_load((ROLES / "load_balancer" / "vars" / "main.yml").read_text())
DEFAULTS = yaml.safe_load((ROLES / "load_balancer" / "defaults" / "main.yml").read_text())
APP = {**HELLO, "aliases": ["www.hello.test"], "health_path": "/health"}


def inventory(hosts, host="lb1", in_group=False, connections=None):
    """An inventory of a balancer, or of one of the hosts, which are {name: variables}."""
    places = {"lb1": "10.0.0.2", **(connections or {})}
    return Inventory(
        host,
        ["lb1", *hosts],
        leader_of=lambda app: next(iter(hosts)),
        in_group=lambda group: in_group,
        variables_of=lambda group: hosts,
        connection_of=lambda name: places.get(name, name),
        balancers_of=lambda group: {"lb1": ("", places["lb1"])},
    )


def fleet(*names, **variables):
    return {name: {"flask_apps": [APP], **variables} for name in names}


def balancer(hosts, family="Debian", connections=None, in_group=False, **variables):
    platform = VARIABLES["__load_balancer_platforms"][family]
    return make_plan(variables, platform, "lb1", inventory=inventory(hosts, "lb1", in_group, connections))


def rendered(hosts, family="Debian", **variables):
    """{path: text} of what the role writes from templates or as it is."""
    plan = balancer(hosts, family, **variables)
    platform = VARIABLES["__load_balancer_platforms"][family]
    stats = ["/etc/haproxy/flaskfleet/stats.cfg"] if variables.get("load_balancer_stats_password") else []
    render = renderer(
        role="load_balancer",
        **{**DEFAULTS, **variables},
        **{name: VARIABLES[name] for name in ("__load_balancer_ciphers", "__load_balancer_program")},
        __load_balancer_plan=plan,
        __load_balancer_platform=platform,
        __load_balancer_configurations=platform["configurations"][:1] + stats + platform["configurations"][1:],
    ).render
    return {
        each["dest"]: render(each["template"], {}) if "template" in each else each["content"]
        for each in plan["balancer"]["files"]
        if "certificate" not in each
    }


def configuration(hosts, **variables):
    return rendered(hosts, **variables)["/etc/haproxy/haproxy.cfg"]


def servers(plan):
    return {
        backend["name"]: {each["name"]: each["address"] for each in backend["servers"]}
        for backend in plan["balancer"]["backends"]
    }


# --- the plan --------------------------------------------------------------------------------------------------------


def test_each_domain_has_the_hosts_that_declare_it():
    hosts = fleet("web1", "web2")
    hosts["web2"]["flask_apps"] = [APP, {**HELLO, "name": "shop", "domain": "shop.test"}]
    hosts["web3"] = {"flask_apps": [{**APP, "state": "absent"}], "nginx_sites": [DOCS]}
    plan = balancer(hosts)
    assert servers(plan) == {
        "hello.test": {"web1": "web1:80", "web2": "web2:80"},
        "shop.test": {"web2": "web2:80"},
        "docs.test": {"web3": "web3:80"},
    }
    names = [name for backend in plan["balancer"]["backends"] for name in backend["domains"]]
    assert names == ["hello.test", "www.hello.test", "shop.test", "docs.test"]


@pytest.mark.parametrize(
    ("stated", "connection", "address"),
    [
        ("", "10.0.0.11", "10.0.0.11:80"),
        ("192.0.2.1", "10.0.0.11", "192.0.2.1:80"),
        ("", "fd00::1", "[fd00::1]:80"),
        ("web.test", "x", "web.test:80"),
    ],
)
def test_a_host_is_reached_where_ansible_does_unless_it_says_so(stated, connection, address):
    hosts = fleet("web1", load_balancer_server_address=stated)
    assert servers(balancer(hosts, connections={"web1": connection}))["hello.test"] == {"web1": address}


def test_an_app_with_https_is_reached_by_it():
    hosts = {"web1": {"flask_apps": [{**APP, "tls": {"mode": "self_signed"}}]}}
    assert "server web1 web1:443 ssl verify none sni str(hello.test) check-sni hello.test" in configuration(hosts)


def test_a_site_that_may_take_long_to_answer_is_given_the_time():
    hosts = {"web1": {"flask_apps": [{**APP, "site": {"read_timeout": 600}}]}, **fleet("web2")}
    assert "    timeout server 605s" in configuration(hosts)
    assert "    timeout server 65s\n    # only" in configuration(fleet("web1"))


def test_a_site_without_a_health_path_may_want_a_password():
    assert "http-check expect status 200-299,300-399,400-499" in configuration({"web1": {"nginx_sites": [DOCS]}})


def refused(hosts, **variables):
    with pytest.raises(PlanError) as caught:
        balancer(hosts, **variables)
    return caught.value.errors


def test_what_is_wrong_with_a_host_is_said_of_it():
    hosts = {**fleet("web1"), "web2": {"flask_apps": [{**APP, "domain": "Hello"}]}}
    [error] = refused(hosts)
    assert error.startswith("web2: flask_apps[0] (hello): `domain` must be a host name")


def test_one_domain_is_one_app_s():
    hosts = {**fleet("web1"), "web2": {"flask_apps": [{**APP, "name": "other"}]}}
    assert "web2: 'hello.test' is the domain of other, and of hello elsewhere" in refused(hosts)
    hosts = {**fleet("web1"), "web2": {"flask_apps": [{**HELLO, "name": "other", "domain": "www.hello.test"}]}}
    assert refused(hosts) == ["'www.hello.test' is a name of other and of hello; a host name leads to one place"]


def test_a_balancer_needs_an_address_and_a_machine_of_its_own():
    [address] = refused(fleet("web1"), connections={"lb1": "balancer.test"})
    assert address.startswith("`load_balancer_address` is missing")
    assert balancer(fleet("web1"), connections={"lb1": "lb"}, load_balancer_address="10.0.0.9")["balancers"] == {}
    [own] = refused(fleet("web1"), in_group=True)
    assert own.startswith("lb1 is in the group appservers")


def test_what_is_said_of_apps_is_for_the_hosts_behind_it():
    """As the command line says it, to all hosts alike."""
    overrides = {"hello": {"domain": "other.test"}}
    hosts = fleet("web1", flask_app_overrides=overrides)
    plan = balancer(hosts, flask_app_overrides=overrides, flask_app_only=["hello"], flask_apps=[HELLO, HELLO])
    assert servers(plan) == {"other.test": {"web1": "web1:80"}}


CASES = {
    "password": ({"load_balancer_stats_password": "short"}, "`load_balancer_stats_password` must be 8 printable"),
    "certificate": ({"load_balancer_tls": {"mode": "provided"}}, "`load_balancer_tls.certificate` is missing"),
    "key": ({"load_balancer_tls": {"mods": "none"}}, "`load_balancer_tls.mods` is not known; did you mean"),
    "number": (
        {"load_balancer_check": {"fall": 0}},
        "`load_balancer_check.fall` must be a number from 1 to 1000, not 0",
    ),
    "choice": ({"load_balancer_balancing": "fair"}, "`load_balancer_balancing` must be one of round_robin"),
    "address": ({"load_balancer_address": "lb.test"}, "`load_balancer_address` must be an address of the host"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_made_true_is_refused(name):
    variables, expected = CASES[name]
    errors = refused(fleet("web1"), **variables)
    assert any(error.startswith(expected) for error in errors), errors
    assert "short" not in " ".join(errors)


def test_a_certificate_of_the_balancer_is_no_site_s(certificate):
    tls = {"mode": "provided", **certificate}
    plan = balancer(fleet("web1"), load_balancer_tls=tls)
    [file] = [each for each in plan["balancer"]["files"] if "certificate" in each]
    assert file["certificate"] == {"mode": "provided"} and file["sensitive"] and file["mode"] == "0600"
    assert list(collect_certificates({"load_balancer_tls": tls})) == [file["subject"]]
    assert plan["balancer"]["ports"] == [80, 443]


@pytest.fixture
def certificate():
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9"]
        + ["-subj", "/CN=hello.test", "-keyout", "/dev/stdout"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    key, _end, chain = made.partition("-----END PRIVATE KEY-----\n")
    return {"certificate": chain, "certificate_key": f"{key}-----END PRIVATE KEY-----\n"}


# --- whom nginx believes ---------------------------------------------------------------------------------------------


def test_sites_believe_the_inventory_s_balancers_alone():
    app = {**APP, "site": {"trusted_proxies": ["10.9.0.0/16"]}}
    plan = make_plan({"flask_apps": [app]}, DEBIAN, "web1", inventory=inventory(fleet("web1"), "web1"))
    assert plan["sites"][0]["trusted_proxies"] == ["10.9.0.0/16", "10.0.0.2"]
    assert plan["sites"][0]["allow"] == []
    assert plan["balancers"] == {"lb1": "10.0.0.2"}


def test_a_site_for_a_few_answers_the_balancer_s_checks():
    app = {**APP, "site": {"allow": ["192.0.2.0/24"]}}
    plan = make_plan({"flask_apps": [app]}, DEBIAN, "web1", inventory=inventory(fleet("web1"), "web1"))
    assert plan["sites"][0]["allow"] == ["192.0.2.0/24", "10.0.0.2"]


def test_a_balancer_without_an_address_is_told_of():
    there = inventory(fleet("web1"), "web1", connections={"lb1": "lb.test"})
    plan = make_plan({"flask_apps": [APP]}, DEBIAN, "web1", inventory=there)
    assert plan["sites"][0]["trusted_proxies"] == []
    assert [each for each in plan["warnings"] if each.startswith("lb1 is a balancer without a known IP address")]


# --- what is written -------------------------------------------------------------------------------------------------


def test_what_clients_say_of_themselves_goes_before_haproxy_says_it():
    lines = configuration(fleet("web1")).splitlines()
    for name in ("X-Forwarded-For", "X-Forwarded-Proto"):
        assert lines.index(f"    http-request del-header {name}") < min(
            number for number, line in enumerate(lines) if f"set-header {name}" in line
        )
    assert "    http-request set-header X-Forwarded-For %[src]" in lines


def test_https_at_the_edge():
    text = configuration(fleet("web1"), load_balancer_tls={"mode": "self_signed", "hsts_max_age": 60})
    assert "bind *:443 ssl crt /etc/haproxy/flaskfleet/edge.pem alpn h2,http/1.1 strict-sni" in text
    assert "redirect scheme https code 301 unless { ssl_fc }" in text and "max-age=60" in text
    assert "hdr X-Forwarded-Proto https" in text
    kept = configuration(fleet("web1"), load_balancer_tls={"mode": "self_signed", "redirect": False})
    assert "redirect scheme" not in kept
    assert "ssl" not in configuration(fleet("web1")).replace("ssl_fc", "")
    assert "bind *:443" not in configuration({}, load_balancer_tls={"mode": "self_signed"})


def test_sticky_browsers_keep_to_a_host():
    text = configuration(fleet("web1", "web2"), load_balancer_sticky=True)
    assert 'cookie flaskfleet insert indirect nocache httponly attr "SameSite=Lax"' in text
    cookies = re.findall(r"server web\d \S+ cookie (\S+)", text)
    assert len(set(cookies)) == 2 and not any("web" in cookie for cookie in cookies)


def test_the_password_of_the_statistics_is_in_a_file_of_root_s():
    secret = 'c4n4ry$"x#y'
    files = rendered(fleet("web1"), load_balancer_stats_password=secret)
    [found] = [path for path, text in files.items() if "c4n4ry" in text]
    assert found == "/etc/haproxy/flaskfleet/stats.cfg"
    assert 'insecure-password "c4n4ry\\$\\"x#y"' in files[found] and "bind 127.0.0.1:9000" in files[found]
    plan = balancer(fleet("web1"), load_balancer_stats_password=secret)
    [file] = [each for each in plan["balancer"]["files"] if each["dest"] == found]
    assert file["mode"] == "0600" and file["sensitive"] and "c4n4ry" not in str(plan)
    assert "stats" not in "".join(rendered(fleet("web1")).values()).replace("stats socket", "")


@pytest.mark.parametrize("family", ["Debian", "RedHat"])
def test_the_unit_starts_what_was_tested(family):
    files = rendered(fleet("web1"), family, load_balancer_stats_password="12345678")
    unit = files["/etc/systemd/system/haproxy.service.d/flaskfleet.conf"]
    started = "/etc/haproxy/haproxy.cfg -f /etc/haproxy/flaskfleet/stats.cfg"
    assert f'Environment="CONFIG={started}"\n' in unit
    further = " -f /etc/haproxy/conf.d" if family == "RedHat" else ""  # its unit has that by itself
    assert f"ExecReload=/usr/sbin/haproxy -Ws -c -q -f {started}{further}\n" in unit


@pytest.mark.skipif(not shutil.which("haproxy"), reason="there is no HAProxy here")
@pytest.mark.parametrize("tls", ["none", "self_signed"])
def test_haproxy_takes_it(tmp_path, certificate, tls):
    variables = {"load_balancer_tls": {"mode": tls}, "load_balancer_sticky": True}
    files = rendered(fleet("127.0.0.1"), load_balancer_stats_password='c4n4ry$"x#y', **variables)
    (tmp_path / "edge.pem").write_text(certificate["certificate_key"] + certificate["certificate"])
    command = ["haproxy", "-c"]
    for path, text in files.items():
        name = path.rsplit("/", 1)[1]
        text = text.replace("/etc/haproxy/flaskfleet", str(tmp_path))
        text = re.sub(r" *(?:user|group|chroot|server-state-file) \S+\n| user root group root", "", text)
        (tmp_path / name).write_text(text)
        command += ["-f", str(tmp_path / name)] if name.endswith(".cfg") else []
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


# --- the runtime socket ----------------------------------------------------------------------------------------------


HEADING = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight\n"


class Runtime(haproxy.Runtime):
    """HAProxy with servers {(backend, name): [admin bits, sessions, status of the check]}."""

    BITS = {"ready": 0, "drain": 8, "maint": 1}

    def __init__(self, *servers):
        super().__init__("/")
        self.all = {tuple(each.split("/")): [0, 0, "L7OK"] for each in servers}
        self.told = []

    def ask(self, command):
        if command == "show servers state":
            rows = [
                f"1 {backend} 1 {name} 10.0.0.1 {0 if bits & 1 or check != 'L7OK' else 2} {bits} 1\n"
                for (backend, name), (bits, _sessions, check) in self.all.items()
            ]
            return HEADING + "".join(rows)
        if command.startswith("show stat"):
            rows = [f"{backend},{name},{values[1]},{values[2]}\n" for (backend, name), values in self.all.items()]
            return "# pxname,svname,scur,check_status\n" + "".join(rows)
        found = re.fullmatch("set server (.+)/(.+) state (.+)", command)
        self.told.append(command.partition(" ")[2])
        self.all[found[1], found[2]][0] = self.BITS[found[3]]
        return "\n"

    def states(self):
        names = {bits: name for name, bits in self.BITS.items()}
        return {"/".join(place): names[values[0]] for place, values in self.all.items()}


@pytest.fixture
def change(tmp_path):
    """Makes a Change whose clock goes on as it pauses, and which lets a session end at each pause."""

    def make(runtime, *names, check_mode=False, timeout=10):
        now = [0.0]

        def pause(seconds):
            now[0] += seconds
            for values in runtime.all.values():
                values[1] = max(0, values[1] - 1)

        marks = str(tmp_path / "state" / "balancer.json")
        return haproxy.Change(runtime, names, check_mode, timeout, marks, lambda: now[0], pause)

    return make


def healthy(server):
    return ""


def test_a_drained_host_gets_no_requests_and_ends_those_it_has(change):
    runtime = Runtime("a.test/web1", "a.test/web2", "b.test/web1")
    runtime.all["a.test", "web1"][1] = 5
    made = change(runtime, "web1")
    made.set("drain")
    assert runtime.states() == {"a.test/web1": "drain", "a.test/web2": "ready", "b.test/web1": "drain"}
    assert made.sessions() == 0
    assert made.done[0] == {"backend": "a.test", "server": "web1", "from": "ready", "to": "drain"}
    again = change(runtime, "web1")
    again.set("drain")
    assert again.done == []


def test_sessions_that_do_not_end_are_told(change):
    runtime = Runtime("a.test/web1", "a.test/web2")
    runtime.all["a.test", "web1"][1] = 1000
    made = change(runtime, "web1", timeout=2)
    made.set("drain")
    assert 900 < made.sessions() < 1000


def test_check_mode_predicts_and_sets_nothing(change, tmp_path):
    runtime = Runtime("a.test/web1", "a.test/web2")
    runtime.all["a.test", "web1"][1] = 1000
    made = change(runtime, "web1", check_mode=True)
    made.take_out("drain")
    assert made.done and not runtime.told and not list(tmp_path.iterdir())


def test_a_rollout_leaves_a_backend_its_last_server(change):
    runtime = Runtime("a.test/web1", "a.test/web2", "b.test/web1")
    runtime.all["a.test", "web2"][2] = "L4CON"
    made = change(runtime, "web1")
    made.take_out("drain")
    assert made.kept == ["a.test/web1", "b.test/web1"] and not made.done
    runtime.all["a.test", "web2"][2] = "L7OK"
    made = change(runtime, "web1")
    made.take_out("drain")
    assert made.kept == ["b.test/web1"] and runtime.states()["a.test/web1"] == "drain"


def test_a_rollout_gives_back_what_it_took(change):
    runtime = Runtime("a.test/web1", "a.test/web2")
    change(runtime, "web1").take_out("drain")
    change(runtime, "web1").give_back(healthy)
    assert runtime.states()["a.test/web1"] == "ready"
    assert runtime.told == ["server a.test/web1 state drain", "server a.test/web1 state ready"]
    again = change(runtime, "web1", "web2")
    again.give_back(healthy)
    assert again.done == []


@pytest.mark.parametrize("state", ["drain", "maint"])
def test_a_rollout_leaves_alone_what_somebody_else_took(change, state):
    runtime = Runtime("a.test/web1", "a.test/web2")
    change(runtime, "web1").set(state)
    for step in (lambda made: made.take_out("drain"), lambda made: made.give_back(healthy)):
        made = change(runtime, "web1")
        step(made)
        assert made.done == [] and made.left == {"web1"} and runtime.states()["a.test/web1"] == state


def test_sticky_browsers_are_taken_elsewhere(change, tmp_path):
    runtime = Runtime("a.test/web1", "a.test/web2", "b.test/web1")
    runtime.all["a.test", "web1"][1] = 5
    made = change(runtime, "web1")
    made.sticky = True
    made.take_out("drain")
    assert runtime.states() == {"a.test/web1": "maint", "a.test/web2": "ready", "b.test/web1": "ready"}
    assert made.kept == ["b.test/web1"] and made.sessions() == 0
    change(runtime, "web1").give_back(healthy, ["drain"])
    assert runtime.states()["a.test/web1"] == "ready"
    for sticky in (True, False):
        path = tmp_path / "haproxy.cfg"
        path.write_text(configuration(fleet("web1"), load_balancer_sticky=sticky))
        assert haproxy.is_sticky(str(path)) is sticky


def test_who_drains_a_host_that_a_rollout_drained_has_the_last_word(change):
    runtime = Runtime("a.test/web1", "a.test/web2")
    change(runtime, "web1").take_out("drain")
    change(runtime, "web1").set("drain")
    change(runtime, "web1").give_back(healthy)
    assert runtime.states()["a.test/web1"] == "drain"


def test_a_host_that_was_away_is_checked_before_it_gets_requests(change):
    runtime = Runtime("a.test/web1", "a.test/web2")
    change(runtime, "web1").take_out("away")
    assert runtime.states()["a.test/web1"] == "maint"
    change(runtime, "web1").give_back(healthy, ["drain"])
    assert runtime.states()["a.test/web1"] == "maint"
    with pytest.raises(haproxy.BalancerError, match="a.test on web1: status 500"):
        change(runtime, "web1").give_back(lambda server: "status 500")
    assert runtime.states()["a.test/web1"] == "drain"
    change(runtime, "web1").give_back(healthy)
    assert runtime.states()["a.test/web1"] == "ready"


def test_a_host_whose_checks_fail_is_not_given_back(change):
    runtime = Runtime("a.test/web1", "b.test/web1", "a.test/web2", "b.test/web2")
    change(runtime, "web1").take_out("drain")
    runtime.all["b.test", "web1"][2] = "L7STS"
    with pytest.raises(haproxy.BalancerError, match="b.test on web1: its check says L7STS"):
        change(runtime, "web1").give_back(healthy)
    assert set(runtime.states().items()) >= {("a.test/web1", "drain"), ("b.test/web1", "drain")}


# --- what a reload keeps ---------------------------------------------------------------------------------------------


def kept(states, hosts, new="maint"):
    """({server: its administrative state} of the state file, hosts that are held back)."""
    text, held = haproxy.state_file(states, configuration(hosts), new)
    lines = haproxy.parse_states(text)
    assert all(len(line.split()) == 25 for line in text.splitlines()[2:])
    return {f"{each['be_name']}/{each['srv_name']}": each["srv_admin_state"] for each in lines}, held


def test_a_reload_keeps_who_gets_no_requests():
    runtime = Runtime("hello.test/web1", "hello.test/web2", "hello.test/web3", "gone.test/web1")
    runtime.all["hello.test", "web1"][0] = 8
    runtime.all["hello.test", "web2"][0] = 1
    states = runtime.ask("show servers state")
    assert kept(states, fleet("web1", "web2", "web3")) == ({"hello.test/web1": "8", "hello.test/web2": "1"}, [])


def test_a_host_that_is_new_waits_for_a_rollout():
    states = Runtime("hello.test/web1").ask("show servers state")
    assert kept(states, fleet("web1", "web2")) == ({"hello.test/web2": "1"}, ["web2"])
    assert kept(states, fleet("web1", "web2"), new="ready") == ({}, [])
    # the first start: nobody has been served yet
    assert kept(HEADING, fleet("web1", "web2")) == ({}, [])


def test_a_known_host_behind_a_new_domain_is_as_it_is_elsewhere():
    runtime = Runtime("old.test/web1", "old.test/web2")
    runtime.all["old.test", "web1"][0] = 8
    assert kept(runtime.ask("show servers state"), fleet("web1", "web2")) == ({"hello.test/web1": "8"}, [])


def test_a_reload_waits_for_the_new_process():
    answers = iter(["Pid: 1\n", "Pid: 1\n", "Pid: 2\n"])
    runtime = haproxy.Runtime("/nowhere")
    runtime.ask = lambda command: next(answers)
    told = []
    haproxy.reload(runtime, lambda: told.append(1), 5, pause=lambda seconds: None)
    assert told == [1]
    runtime.ask = lambda command: "Pid: 2\n"
    clock = iter(range(100))
    with pytest.raises(haproxy.BalancerError, match="goes on with its old configuration 5 s"):
        haproxy.reload(runtime, lambda: None, 5, lambda: next(clock), lambda seconds: None)


def test_names_are_spelled_as_haproxy_takes_them():
    assert haproxy.server_name("web_1.example.org") == "web_1.example.org"
    assert haproxy.server_name("web (1)") == "web--1-"


# --- the modules -----------------------------------------------------------------------------------------------------


@pytest.fixture
def execute(monkeypatch, capsys, tmp_path):
    """Run the module balancer_server on a runtime; returns (its result, how often the states were saved)."""
    marks = str(tmp_path / "balancer.json")
    saved = []

    def run(runtime, check=False, **arguments):
        saved.clear()
        monkeypatch.setattr(haproxy, "Runtime", lambda path: runtime)
        monkeypatch.setattr(haproxy, "Change", functools.partial(CHANGE, marks=marks, pause=lambda seconds: None))
        monkeypatch.setattr(haproxy, "locked", contextlib.nullcontext)
        monkeypatch.setattr(haproxy, "asking", lambda: healthy)
        monkeypatch.setattr(haproxy, "save", lambda runtime, new: saved.append(new))
        arguments = {"socket": "/", "hosts": ["web1"], "timeout": 0, **arguments}
        with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            balancer_server.main()
        return json.loads(capsys.readouterr().out), len(saved)

    return run


CHANGE = haproxy.Change


def test_the_module_says_what_it_has_done(execute):
    runtime = Runtime("a.test/web1", "a.test/web2", "b.test/web1")
    result, saved = execute(runtime, state="rollout", check=True)
    assert result["changed"] and not saved and not runtime.told
    result, saved = execute(runtime, state="rollout")
    assert result["done"] == [{"backend": "a.test", "server": "web1", "from": "ready", "to": "drain"}]
    assert result["kept"] == ["b.test/web1"] and saved == 1
    assert execute(runtime, state="rollout")[0]["changed"] is False
    assert execute(runtime, state="as_before")[0]["done"][0]["to"] == "ready"
    result, saved = execute(runtime, state="serving")
    assert (result["changed"], saved) == (False, 0)


def test_the_module_fails_for_a_machine_that_does_not_answer(execute):
    runtime = Runtime("a.test/web1", "a.test/web2")
    runtime.all["a.test", "web1"][2] = "L7STS"
    result, _saved = execute(runtime, state="serving")
    assert result["failed"] and "a.test on web1: its check says L7STS" in result["msg"]


def test_nothing_is_predicted_of_a_balancer_that_is_not_there(execute):
    runtime = Runtime("a.test/web1")
    runtime.path = "/nowhere"
    result, _saved = execute(runtime, check=True, state="drain")
    assert result["changed"] is False


@pytest.mark.parametrize("answer", ["Pid: 2", ""])
def test_the_module_reloads_and_waits(monkeypatch, capsys, answer):
    told = []
    monkeypatch.setattr(haproxy.Runtime, "ask", lambda self, command: answer if told else "Pid: 1")
    monkeypatch.setattr(AnsibleModule, "run_command", lambda self, command, **options: told.append(command))
    with patch_module_args({"timeout": 0 if not answer else 5, "socket": "/"}), pytest.raises(SystemExit):
        balancer_reload.main()
    result = json.loads(capsys.readouterr().out)
    assert told == [["systemctl", "reload-or-restart", "haproxy"]]
    assert result.get("failed", False) is not bool(answer)


def test_a_killed_run_leaves_no_half_file(tmp_path, monkeypatch):
    path = tmp_path / "state"
    haproxy.replace(str(path), "one")
    monkeypatch.setattr(haproxy.os, "rename", mock.Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        haproxy.replace(str(path), "two")
    assert path.read_text() == "one" and [each.name for each in tmp_path.iterdir()] == ["state"]
    assert path.stat().st_mode & 0o777 == 0o600


class Answering(http.server.BaseHTTPRequestHandler):
    """Answers for the server that is asked for, as HAProxy has it answer; `other` for another one."""

    def do_GET(self):
        name = self.headers[haproxy.PIN]
        self.send_response(500 if name == "sick" else 200)
        self.send_header(haproxy.PIN, "another" if name == "other" else name)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.mark.parametrize(
    ("name", "problem"),
    [("web1", ""), ("sick", "status 500"), ("other", "not answered by it"), ("web1", "ConnectionR")],
)
def test_a_server_is_asked_through_the_balancer(tmp_path, name, problem):
    path = tmp_path / "haproxy.cfg"
    path.write_text(configuration(fleet("web1", "sick", "other")))
    with http.server.HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.handle_request)
        port = server.server_address[1]
        if problem.startswith("Connection"):
            server.server_close()
        else:
            thread.start()
        found = haproxy.asking(str(path), port=port)(haproxy.Server("hello.test", name, "ready", True))
        if thread.ident:
            thread.join()
    assert problem in found and bool(problem) is bool(found)
    assert (
        haproxy.asking(str(path))(haproxy.Server("gone.test", "web1", "ready", True)) == "is not in the configuration"
    )


def arguments_of_file_set(tasks):
    tasks = yaml.safe_load((ROLES / "nginx_site" / "tasks" / f"{tasks}.yml").read_text())
    [arguments] = [task["flaskfleet.deploy.file_set"] for task in tasks if "flaskfleet.deploy.file_set" in task]
    return {name: value for name, value in arguments.items() if name != "test_command"}


def test_what_is_predicted_of_sites_is_what_is_written():
    assert arguments_of_file_set("predict") == arguments_of_file_set("write")
