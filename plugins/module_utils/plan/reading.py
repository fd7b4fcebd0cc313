# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the roles' variables to the declared apps: every value judged, layers merged, all errors at once."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..remote import ssh_server
from .certificates import bundle
from .checks import (
    check_accounts,
    check_app,
    check_backing_services,
    check_certificates,
    check_databases,
    check_duplicates,
    check_edge,
    check_hooks,
    check_leader,
    check_notifications,
    check_rollback,
    check_roots,
    check_selection,
    check_sockets,
    check_static,
    check_writable,
)
from .schema import Judge, Option, role_options, role_variables

_LAYERS = ("flask_apps", "flask_app_defaults", "flask_app_overrides")
# What a site leads to: one of these.
_TARGETS = ("upstream", "root", "redirect")


class PlanError(Exception):
    """The variables cannot be made true. errors: one sentence each, free of secrets."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


class Declared(NamedTuple):
    """What the variables declare.

    apps: every app of the list with all its keys, in the list's order, entries of `env` and `secrets` as strings.
    sites: those of `nginx_sites` likewise. only: names of the apps that the run is restricted to, all of them when it
    is not. settings: the roles' other variables. warnings: sentences.
    """

    apps: list[dict[str, Any]]
    sites: list[dict[str, Any]]
    only: list[str]
    settings: dict[str, Any]
    warnings: list[str]


class _App(NamedTuple):
    """An app or a site. place: where it is in its list, for messages. values: those that passed, with defaults."""

    place: str
    values: dict[str, Any]


def read(variables: dict[str, Any], rollback: bool = False, inventory: Any = None) -> Declared:
    """Judge the roles' variables and merge their layers. A variable that is not given has its default.

    rollback: whether `flask_app_rollback_to` is of any use. inventory: see inventory.Inventory, if it is known. Raises
    PlanError with all errors.
    """
    judge = Judge()
    known = role_variables()
    hosts = inventory.hosts if inventory else None
    settings = {
        name: judge.value("", name, option, variables[name]) if name in variables else option.default
        for name, option in known.items()
        if name not in (*_LAYERS, "nginx_sites")
    }
    apps = _Layers(judge, known["flask_apps"].options, variables).apps
    sites = _sites(judge, known["nginx_sites"].options, _given(judge, variables, "nginx_sites", list))
    check_roots(judge, settings)
    check_sockets(judge, settings, apps)
    check_writable(judge, settings, apps)
    check_duplicates(judge, [*apps, *sites])
    warnings = check_certificates(judge, [*apps, *sites])
    names = [app.values["name"] for app in apps if "name" in app.values]
    check_selection(judge, settings["flask_app_only"], names)
    check_rollback(judge, settings, apps, rollback)
    check_accounts(judge, settings, apps)
    check_hooks(judge, settings)
    check_notifications(judge, variables.get("flask_app_notify"))
    check_leader(judge, settings["flask_app_release_leader"], hosts)
    check_databases(judge, apps, inventory)
    check_backing_services(judge, settings, apps)
    warnings += check_edge(judge, settings["load_balancer_tls"])
    if judge.errors:
        raise PlanError(judge.errors)
    settings = {name: known[name].filled(value) for name, value in settings.items()}
    only = settings["flask_app_only"] or names
    warnings += _shared_accounts(apps)
    return Declared([app.values for app in apps], [site.values for site in sites], only, settings, warnings)


def collect_secrets(variables: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Collect what a plan leaves out, for the action plugins that carry it to a host.

    Returns {app: {"repository": URL with its credentials, "access": what ssh takes to reach it, "secrets": {name:
    value}}} of the apps that the run is restricted to. Raises PlanError.
    """
    declared = read(variables)
    return {
        app["name"]: {"repository": app["repository"], "access": _access(app), "secrets": app["secrets"]}
        for app in declared.apps
        if app["name"] in declared.only
    }


def collect_notifications(variables: dict[str, Any]) -> list[dict[str, Any]]:
    """Collect who is told what became of a run: `flask_app_notify`, with all its keys and secrets. Raises PlanError.

    Nothing else is judged: that something else is wrong may be just what there is to tell.
    """
    judge = Judge()
    option = role_options("flask_app")["flask_app_notify"]
    entries = judge.value("", option.key, option, variables.get(option.key, option.default))
    check_notifications(judge, variables.get(option.key))
    if judge.errors:
        raise PlanError(judge.errors)
    return entries


def _access(app):
    """{"key", "known_hosts"} as texts; empty where neither is declared, or of any use."""
    access = {key: app[f"repository_{key}"] for key in ("key", "known_hosts")}
    return access if ssh_server(app["repository"]) and any(access.values()) else {}


def balancer_variables(variables: dict[str, Any]) -> dict[str, Any]:
    """Those of the variables that a balancer has for itself. What it may have of apps, such as overrides of the command
    line, is for the hosts behind it."""
    return {name: value for name, value in variables.items() if name.startswith("load_balancer_")}


def collect_certificates(variables: dict[str, Any]) -> dict[str, str]:
    """Collect the certificates that are provided, which a plan leaves out because of their private keys.

    Returns {name of the app or site: key and chain as the text of one PEM file}, that of the host as a balancer by the
    name `load_balancer`, which none of them can have. Raises PlanError.
    """
    declared = read(variables)
    tls = {each["name"]: each["tls"] for each in (*declared.apps, *declared.sites)}
    tls["load_balancer"] = declared.settings["load_balancer_tls"]
    return {
        name: bundle(each["certificate"], each["certificate_key"])
        for name, each in tls.items()
        if each["mode"] == "provided"
    }


def account(app: dict[str, Any]) -> str:
    """Name the account that an app runs as."""
    return app["user"] or f"flask-{app['name']}"


def _given(judge, variables, name, python_type):
    """A list or dictionary of what people declare, empty when it is none."""
    option = role_variables()[name]
    value = variables.get(name, option.default)
    if isinstance(value, python_type):
        return value
    judge.refuse("", name, f"must be {option.rule.expected}", option.example)
    return python_type()


def _place(judge, options, place, entry):
    """Name an entry of a list in messages: by its name where that is one. Refuses what is no dictionary at all."""
    variable = place.partition("[")[0]
    if not isinstance(entry, dict):
        judge.refuse(place, "", "must be a dictionary", role_variables()[variable].rule.example)
        return place
    name = entry.get("name")
    return f"{place} ({name})" if isinstance(name, str) and options["name"].rule.check(name) else place


def _sites(judge, options, entries):
    """Judge `nginx_sites`: no other layer adds to them."""
    sites = []
    for index, entry in enumerate(entries):
        place = _place(judge, options, f"nginx_sites[{index}]", entry)
        entry = entry if isinstance(entry, dict) else {}
        good = judge.options(place, options, entry)
        values = {}
        for key, option in options.items():
            if entry and option.required and key not in entry:
                judge.refuse(place, key, "is missing", option.example)
            elif key in good or key not in entry:
                values[key] = option.filled(good.get(key, option.default))
        check_static(judge, place, values)
        targets = [f"`{key}`" for key in _TARGETS if entry.get(key)]
        if entry and len(targets) != 1:
            problem = "must have exactly one of " + ", ".join(f"`{key}`" for key in _TARGETS)
            judge.refuse(place, "", problem + (f", not {' and '.join(targets)}" if targets else ""))
        sites.append(_App(place, values))
    return sites


class _Layers:
    """Merges every app of the list with `flask_app_defaults` under and `flask_app_overrides` over it."""

    def __init__(self, judge: Judge, options: dict[str, Option], variables: dict[str, Any]) -> None:
        self._judge = judge
        self._options = options
        entries = _given(judge, variables, "flask_apps", list)
        self._defaults = self._layer("flask_app_defaults", _given(judge, variables, "flask_app_defaults", dict))
        names = [entry["name"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("name"), str)]
        self._overrides = {}
        for name, layer in _given(judge, variables, "flask_app_overrides", dict).items():
            if name in names:
                self._overrides[name] = self._layer(f"flask_app_overrides ({self._shown(name)})", layer)
            else:
                judge.unknown("flask_app_overrides", "", name, names)
        self.apps = [self._app(f"flask_apps[{index}]", entry) for index, entry in enumerate(entries)]

    def _shown(self, name):
        return name if self._options["name"].rule.check(name) else "..."

    def _layer(self, place, layer):
        """Judge a layer under or over apps. Returns (keys given, values that passed)."""
        if not isinstance(layer, dict):
            self._judge.refuse(place, "", "must be a dictionary of keys of an app", "{version: v2}")
            return set(), {}
        if "name" in layer:
            self._judge.refuse(place, "name", "belongs into `flask_apps` alone")
        values = {key: value for key, value in layer.items() if key != "name"}
        return set(values), self._judge.options(place, self._options, values)

    def _app(self, place, entry):
        place = _place(self._judge, self._options, place, entry)
        if not isinstance(entry, dict):
            return _App(place, {})
        name = entry.get("name")
        own = set(entry), self._judge.options(place, self._options, entry)
        layers = [self._defaults, own]
        if isinstance(name, str) and name in self._overrides:
            layers.append(self._overrides[name])
        given = set().union(*(keys for keys, _values in layers))
        values = {}
        for _keys, layer in layers:
            for key, value in layer.items():
                values[key] = {**values.get(key, {}), **value} if self._options[key].type == "dict" else value
        for key, option in self._options.items():
            if option.required and key not in given:
                self._judge.refuse(place, key, "is missing", option.example)
            elif key in values or key not in given:
                values[key] = option.filled(values.get(key, option.default))
        check_app(self._judge, place, values, [values for _keys, values in layers])
        return _App(place, values)


def _shared_accounts(apps):
    users: dict[str, list[str]] = {}
    for app in apps:
        users.setdefault(account(app.values), []).append(app.values["name"])
    return [
        f"{', '.join(names)} run as the same account {user} and can read each other's secrets"
        for user, names in users.items()
        if len(names) > 1
    ]
