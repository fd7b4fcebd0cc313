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
    "version": "-v",
    "path": "/a",
    "user": "root",
    "entrypoint": "a b",
    "python": "2",
    "requirements": "../a",
    "extra_packages": "-r",
    "system_packages": ["-y"],
    "build_commands": "",
    "release_commands": " ",
    "shared_paths": "a/..",
    "processes.command": "",
    "processes.instances": 0,
    "schedules.command": " ",
    "schedules.on_calendar": "%n",
    "server.workers": "many",
    "server.threads": 0,
    "server.timeout": 0,
    "server.max_requests": -1,
    "health_path": "health",
    "health_timeout": 0,
    "health_status": "6xx",
    "settle": -1,
    "static.url": "/a b",
    "static.path": "/etc",
    "static.expires": "soon",
    "tls.certificate": "a.pem",
    "tls.certificate_key": "a.key",
    "tls.hsts_max_age": -1,
    "limits.memory_max": "512",
    "limits.cpu_quota": "50",
    "limits.tasks_max": 0,
    "database.name": "a-b",
    "database.variable": "1",
    "cache.variable": "a-b",
    "keep_releases": 0,
    "before_switch": " ",
    "after_switch": "  ",
}
REFUSED_FOR_A_ROLE = {
    "flask_app_rollback_to": {"hello": "-x"},
    "flask_app_activation_jobs": 0,
    "flask_app_memory_reserve": -1,
    "flask_app_root": "a",
    "flask_app_data_root": "/..",
    "flask_app_runtime_root": "/a b",
    "flask_app_index_url": "ftp://a/",
    "flask_app_ca_file": "a.pem",
    "flask_app_build_jobs": -1,
    "flask_app_proxy_user": "A",
}


def inner_options(options):
    for option in options.values():
        yield option
        yield from inner_options(option.options)


ROLE_OPTIONS = {**schema.role_options("nginx_site"), **schema.role_options("flask_app")}
APP_OPTIONS = {option.key: option for option in inner_options(ROLE_OPTIONS["flask_apps"].options)}


@pytest.mark.parametrize("role", ["flask_app", "nginx_site"])
def test_defaults_are_the_specified_ones(role):
    defaults = yaml.safe_load((schema.ROLES / role / "defaults" / "main.yml").read_text())
    assert defaults == {name: option.default for name, option in schema.role_options(role).items()}


def keys_with_a_check(table):
    return {key for key, rule in table.items() if rule.check is not rules.Rule._field_defaults["check"]}


def test_every_rule_is_tested():
    assert set(REFUSED_IN_AN_APP) == keys_with_a_check(rules.APP_RULES)
    assert set(REFUSED_FOR_A_ROLE) == keys_with_a_check(rules.ROLE_RULES)


@pytest.mark.parametrize("key, value", REFUSED_IN_AN_APP.items())
def test_rule_for_a_key(key, value):
    outer, _dot, inner = key.partition(".")
    value, shown = ({inner: value}, f".{inner}") if inner else (value, "")
    if outer in ("processes", "schedules"):
        value, shown = {"one": value}, f".one{shown}"
    elif APP_OPTIONS[outer].type == "list":
        value, shown = [value], f"[0]{shown}"
    errors = refused({"flask_apps": [{**HELLO, outer: value}]})
    assert any(f"`{outer}{shown}` must be {rules.APP_RULES[key].expected}" in error for error in errors)


@pytest.mark.parametrize("name, value", REFUSED_FOR_A_ROLE.items())
def test_rule_for_a_variable(name, value):
    errors = refused({name: value}, rollback=True)
    assert any(f"`{name}` must be {rules.ROLE_RULES[name].expected}" in error for error in errors)


def test_rules_belong_to_options():
    assert set(rules.ROLE_RULES) <= set(ROLE_OPTIONS)
    assert set(rules.APP_RULES) <= set(APP_OPTIONS)
    assert set(rules.UNSUPPORTED) <= {*ROLE_OPTIONS, *APP_OPTIONS}


@pytest.mark.parametrize("key", APP_OPTIONS)
def test_text_is_checked(key):
    """Whatever is text without a choice has a rule, so that nothing odd reaches a unit."""
    option = APP_OPTIONS[key]
    assert option.choices or option.rule or option.type in ("bool", "dict")


def refused(variables, rollback=False):
    try:
        make_plan(variables, {}, "web1", rollback)
    except PlanError as error:
        return [line for line in error.errors if "is not supported yet" not in line and "is missing" not in line]
    return []


@pytest.mark.parametrize("key", APP_OPTIONS)
def test_example_of_a_key_passes(key):
    assert refused({"flask_apps": [{**HELLO, **yaml.safe_load(APP_OPTIONS[key].example)}]}) == []


@pytest.mark.parametrize("name", ROLE_OPTIONS)
def test_example_of_a_variable_passes(name, tmp_path, monkeypatch):
    (tmp_path / "announce.yml").touch()  # the hook of the example
    monkeypatch.chdir(tmp_path)
    example = yaml.safe_load(ROLE_OPTIONS[name].example)
    assert refused({"flask_apps": [HELLO], **example}, name == "flask_app_rollback_to") == []
