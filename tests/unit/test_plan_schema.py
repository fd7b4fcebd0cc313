# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The argument specifications, the roles' defaults and the plan's rules say the same."""

from __future__ import annotations

import pytest
import yaml
from ansible_collections.flaskfleet.deploy.plugins.module_utils.plan import PlanError, make_plan, rules, schema

HELLO = {"name": "hello", "domain": "hello.test", "repository": "/srv/hello"}

# For each rule, a value of the right type that it refuses.
REFUSED_IN_AN_APP = {
    "name": "a.b",
    "domain": "a_b",
    "aliases": "a b",
    "repository": "ext::sh",
    "repository_key": "/nowhere/deploy_key",
    "version": "-v",
    "path": "/a",
    "user": "root",
    "entrypoint": "a b",
    "python": "2",
    "requirements": "../a",
    "extra_packages": "-r",
    "allowed_signers": "ssh-ed25519 AAAA",
    "index_url": "ftp://a/",
    "ca_file": "a.pem",
    "system_packages": ["-y"],
    "sandbox.writable": "/home/a",
    "build_commands": "",
    "release_commands": " ",
    "command_timeout": 0,
    "shared_paths": "a/..",
    "processes.command": "",
    "processes.instances": 0,
    "processes.limits.memory_max": "512",
    "processes.limits.cpu_quota": "50",
    "processes.limits.tasks_max": 0,
    "processes.stop_timeout": 0,
    "schedules.command": " ",
    "schedules.on_calendar": "%n",
    "schedules.random_delay": -1,
    "schedules.timeout": 0,
    "server.workers": "many",
    "server.threads": 0,
    "server.timeout": 0,
    "server.max_requests": -1,
    "health_path": "health",
    "health_timeout": 0,
    "health_status": "6xx",
    "settle": -1,
    "limits.memory_max": "512",
    "limits.cpu_quota": "50",
    "limits.tasks_max": 0,
    "database.name": "a-b",
    "database.host": "-a",
    "database.port": 0,
    "database.user": "a b",
    "database.password_secret": "a-b",
    "database.scheme": "mssql",
    "database.backups": -1,
    "database.variable": "1",
    "cache.variable": "a-b",
    "keep_releases": 0,
    "before_switch": " ",
    "after_switch": "  ",
}
# The settings that an app may have in its `site` as well come first.
REFUSED_IN_A_SITE = {
    "template": "/nowhere/mine.conf.j2",
    "max_body_size": "1 MB",
    "connect_timeout": 0,
    "read_timeout": 0,
    "send_timeout": 10**6,
    "retry_after": 0,
    "error_page": "/nowhere/down.html",
    "allow": "192.0.2.1/24",
    "trusted_proxies": "balancer",
    "name": "Docs",
    "domain": "a_b",
    "aliases": "a b",
    "upstream": "127.0.0.1:80;",
    "root": "srv",
    "redirect": "ftp://a.test",
    "static.url": "/a/../b",
    "static.path": "/etc/../a",
    "static.expires": "soon",
    "tls.certificate": "/nowhere/a.pem",
    "tls.certificate_key": "/nowhere/a.key",
    "tls.hsts_max_age": -1,
}
for key, value in REFUSED_IN_A_SITE.items():
    if key in rules.SHARED_SITE_RULES:
        REFUSED_IN_AN_APP[f"site.{key}"] = value
    elif key in {**rules.TLS_RULES, **rules.STATIC_RULES}:
        REFUSED_IN_AN_APP[key] = value
TIMEOUTS, CHECK = "load_balancer_timeouts", "load_balancer_check"
REFUSED_FOR_A_ROLE = {
    "flask_app_metrics_file": "/a/b.txt",
    "flask_app_notify.url": "ftp://hooks.test/",
    "flask_app_notify.token": "a b",
    "flask_app_notify.to": "nobody",
    "flask_app_notify.from": "nobody",
    "flask_app_notify.timeout": 0,
    "flask_app_rollback_to": {"hello": "-x"},
    "flask_app_release_commands_done": {"hello": "1f3a"},
    "flask_app_release_commands_marker": " ",
    "flask_app_activation_jobs": 0,
    "flask_app_memory_reserve": -1,
    "flask_app_root": "a",
    "flask_app_data_root": "/..",
    "flask_app_runtime_root": "/a b",
    "flask_app_index_url": "ftp://a/",
    "flask_app_ca_file": "a.pem",
    "flask_app_build_jobs": -1,
    "flask_app_proxy_user": "A",
    "nginx_site_acme_email": "admin",
    "nginx_site_acme_directory": "http://ca.test/",
    "nginx_site_acme_ca_file": "ca.pem",
    "backing_service_address": "10.0.0.0/24",
    "backing_service_networks": "fe80::/64",
    "backing_service_group": "a b",
    "backing_service_purge": "-a",
    "nginx_site_balancer_group": "a b",
    "load_balancer_group": "a-b",
    "load_balancer_address": "lb.test",
    "load_balancer_server_address": "a b",
    "load_balancer_tls.certificate": "none.pem",
    "load_balancer_tls.certificate_key": "none.key",
    "load_balancer_tls.hsts_max_age": -1,
    **{f"load_balancer_timeouts.{key}": 0 for key in schema.role_options("load_balancer")[TIMEOUTS].options},
    **{f"load_balancer_check.{key}": 1001 for key in schema.role_options("load_balancer")[CHECK].options},
    "load_balancer_stats_password": "short",
    "load_balancer_stats_address": "localhost",
    "load_balancer_stats_port": 70000,
}


def inner_options(options):
    for option in options.values():
        yield option
        yield from inner_options(option.options)


ROLE_OPTIONS = {
    **schema.role_options("load_balancer"),
    **schema.role_options("backing_service"),
    **schema.role_options("nginx_site"),
    **schema.role_options("flask_app"),
}
for of_dictionaries in ("flask_app_notify", *(name for name in ROLE_OPTIONS if name.startswith("load_balancer_"))):
    ROLE_OPTIONS.update((option.key, option) for option in inner_options(ROLE_OPTIONS[of_dictionaries].options))
APP_OPTIONS = {option.key: option for option in inner_options(ROLE_OPTIONS["flask_apps"].options)}
SITE_OPTIONS = {option.key: option for option in inner_options(ROLE_OPTIONS["nginx_sites"].options)}
DOCS = {"name": "docs", "domain": "docs.test"}


@pytest.fixture(autouse=True)
def _files_of_the_examples(tmp_path, monkeypatch):
    """Some values are paths on the controller."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "files").mkdir()
    for name in (
        "announce.yml",
        "templates/mine.conf.j2",
        "templates/down.html.j2",
        "files/hello.pem",
        "files/hello.key",
        "files/edge.pem",
        "files/edge.key",
    ):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("role", ["backing_service", "flask_app", "load_balancer", "nginx_site"])
def test_defaults_are_the_specified_ones(role):
    defaults = yaml.safe_load((schema.ROLES / role / "defaults" / "main.yml").read_text())
    assert defaults == {name: option.default for name, option in schema.role_options(role).items()}


def keys_with_a_check(table):
    return {key for key, rule in table.items() if rule.check is not rules.Rule._field_defaults["check"]}


def test_every_rule_is_tested():
    assert set(REFUSED_IN_AN_APP) == keys_with_a_check(rules.APP_RULES)
    assert set(REFUSED_IN_A_SITE) == keys_with_a_check(rules.SITE_RULES)
    assert set(REFUSED_FOR_A_ROLE) == keys_with_a_check(rules.ROLE_RULES)


def written(options, key, value):
    """(outer key, its value, what a message calls the key) of an entry with a value at a dotted key."""
    outer, _dot, inner = key.partition(".")
    deeper = options[key].type == "list" and inner
    value, shown = (
        ({inner: [value] if deeper else value}, f".{inner}{'[0]' if deeper else ''}") if inner else (value, "")
    )
    if outer in ("processes", "schedules"):
        deeper, _dot, innermost = inner.partition(".")
        value = {deeper: {innermost: value[inner]}} if innermost else value
        value, shown = {"one": value}, f".one{shown}"
    elif options[outer].type == "list":
        value, shown = [value], f"[0]{shown}"
    return outer, value, f"{outer}{shown}"


@pytest.mark.parametrize("key, value", REFUSED_IN_AN_APP.items())
def test_rule_for_a_key(key, value):
    outer, value, shown = written(APP_OPTIONS, key, value)
    errors = refused({"flask_apps": [{**HELLO, outer: value}]})
    assert any(f"`{shown}` must be {rules.APP_RULES[key].expected}" in error for error in errors)


@pytest.mark.parametrize("key, value", REFUSED_IN_A_SITE.items())
def test_rule_for_a_key_of_a_site(key, value):
    outer, value, shown = written(SITE_OPTIONS, key, value)
    errors = refused({"nginx_sites": [{**DOCS, outer: value}]})
    assert any(f"`{shown}` must be {rules.SITE_RULES[key].expected}" in error for error in errors)


@pytest.mark.parametrize("name, value", REFUSED_FOR_A_ROLE.items())
def test_rule_for_a_variable(name, value):
    outer, value, shown = written(ROLE_OPTIONS, name, value)
    if "." not in name:
        value, shown = REFUSED_FOR_A_ROLE[name], f"{name}[0]" if ROLE_OPTIONS[name].type == "list" else name
    errors = refused({outer: value}, rollback=True)
    assert any(f"`{shown}` must be {rules.ROLE_RULES[name].expected}" in error for error in errors)


def test_rules_belong_to_options():
    assert set(rules.ROLE_RULES) <= {option.key for option in inner_options(ROLE_OPTIONS)}
    assert set(rules.APP_RULES) <= set(APP_OPTIONS)
    assert set(rules.SITE_RULES) <= set(SITE_OPTIONS)


@pytest.mark.parametrize("option", [*APP_OPTIONS.values(), *SITE_OPTIONS.values()], ids=lambda option: option.key)
def test_text_is_checked(option):
    """Whatever is text without a choice has a rule, so that nothing odd reaches a unit or nginx's configuration."""
    assert option.choices or option.rule or option.type in ("bool", "dict")


def refused(variables, rollback=False):
    try:
        make_plan(variables, {}, "web1", rollback)
    except PlanError as error:
        return [line for line in error.errors if "is missing" not in line]
    return []


# These belong together, see test_repositories.py.
ACCESS = {"repository_key", "repository_known_hosts"}


@pytest.mark.parametrize("key", sorted(APP_OPTIONS.keys() - ACCESS))
def test_example_of_a_key_passes(key):
    assert refused({"flask_apps": [{**HELLO, **yaml.safe_load(APP_OPTIONS[key].example)}]}) == []


@pytest.mark.parametrize("key", SITE_OPTIONS)
def test_example_of_a_key_of_a_site_passes(key):
    example = yaml.safe_load(SITE_OPTIONS[key].example)
    target = {} if set(example) & {"upstream", "root", "redirect"} else {"root": "/srv/docs"}
    assert refused({"nginx_sites": [{**DOCS, **target, **example}]}) == []


def test_an_app_has_the_settings_of_a_site_but_its_own_ones():
    shared = set(ROLE_OPTIONS["flask_apps"].options["site"].options)
    assert {"extra", "template"} <= shared
    assert not shared & set(ROLE_OPTIONS["flask_apps"].options)
    assert shared | set(schema._SITE_ALONE) == set(ROLE_OPTIONS["nginx_sites"].options)


@pytest.mark.parametrize("name", ROLE_OPTIONS)
def test_example_of_a_variable_passes(name):
    example = yaml.safe_load(ROLE_OPTIONS[name].example)
    assert refused({"flask_apps": [HELLO], **example}, name == "flask_app_rollback_to") == []
