# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The roles' variables as an action plugin meets them, made plain data."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from .reading import PlanError
from .schema import role_variables
from .values import PLAIN_WORD

_PREFIXES = ("flask_app_", "nginx_site_", "backing_service_", "load_balancer_")
# What the role hands to the user's own tasks.
_HANDED_OUT = ("flask_app_plan", "flask_app_builds", "flask_app_releases")
# Keys of a site that are paths on the controller.
_FILES = ("template", "error_page")
# Keys of its `tls` that are text, or paths of files with it.
_TEXTS = ("certificate", "certificate_key")
# Keys of an app that are likewise.
_APP_TEXTS = ("repository_key", "repository_known_hosts")
_UNDEFINED = re.compile(r"(?:^|has no attribute )'([A-Za-z_][A-Za-z0-9_]{0,79})'(?: is undefined|\.?$)")


def plain_variables(templar: Any, loader: Any, task_vars: dict[str, Any]) -> dict[str, Any]:
    """Evaluate those of the roles' variables that are defined.

    templar, loader: of the action plugin. Returns what `make_plan` and `collect_secrets` take. It has secrets in it, so
    it must not get into a task's arguments or result. Raises PlanError that names what could not be evaluated, without
    any value: Ansible's own errors show the lines of the file around it.
    """
    errors: list[str] = []
    variables = {
        name: _evaluated(templar, name, task_vars[name], errors) for name in role_variables() if name in task_vars
    }
    if errors:
        raise PlanError(errors)

    def absolute(path):
        return str(Path(loader.get_basedir(), path)) if path and isinstance(path, str) else path

    for name in ("flask_app_template_paths", "nginx_site_template_paths", "load_balancer_template_paths"):
        if isinstance(variables.get(name), list):
            variables[name] = [absolute(path) for path in variables[name]]
    if isinstance(variables.get("flask_app_hooks"), dict):
        variables["flask_app_hooks"] = {key: absolute(path) for key, path in variables["flask_app_hooks"].items()}
    told = variables.get("flask_app_notify")
    for entry in told if isinstance(told, list) else ():
        if isinstance(entry, dict) and "file" in entry:
            entry["file"] = absolute(entry["file"])
    for site in _site_layers(variables, "site"):
        site.update({key: absolute(site[key]) for key in _FILES if key in site})
    for app in _app_layers(variables):
        app.update({key: _text(loader, app[key]) for key in _APP_TEXTS if key in app})
    edge = variables.get("load_balancer_tls")
    for tls in [*_site_layers(variables, "tls"), *([edge] if isinstance(edge, dict) else [])]:
        tls.update({key: _text(loader, tls[key]) for key in _TEXTS if key in tls})
    return variables


def _text(loader, value):
    """The text of a file on the controller, decrypted. What is text itself or can't be read is left to the judge."""
    if not isinstance(value, str) or not value or "-----BEGIN " in value or "\n" in value.strip():
        return value
    try:
        return str(loader.get_text_file_contents(str(Path(loader.get_basedir(), value))))
    except Exception:  # pylint: disable=broad-exception-caught  # not there, not to be read, not to be decrypted
        return value


def _site_layers(variables, key):
    """The dictionaries that hold settings of sites, wherever people may write them. Anything else is for the judge.

    key: of an app, `site` or `tls`.
    """
    sites = variables.get("nginx_sites")
    sites = [site for site in sites if isinstance(site, dict)] if isinstance(sites, list) else []
    found = [app.get(key) for app in _app_layers(variables)]
    found += sites if key == "site" else [site.get(key) for site in sites]
    return [settings for settings in found if isinstance(settings, dict)]


def _app_layers(variables):
    """The dictionaries that hold keys of apps, wherever people may write them. Anything else is for the judge."""
    apps = [variables.get("flask_app_defaults")]
    for name in ("flask_apps", "flask_app_overrides"):
        given = variables.get(name)
        apps += given.values() if isinstance(given, dict) else given if isinstance(given, list) else ()
    return [app for app in apps if isinstance(app, dict)]


def misspelt_variables(task_vars: dict[str, Any]) -> list[str]:
    """Name the variables that almost are one of the roles', which nothing would read. Returns sentences."""
    known = role_variables()
    warnings = []
    for name in task_vars:
        if name.startswith(_PREFIXES) and name not in known and name not in _HANDED_OUT:
            nearest = difflib.get_close_matches(name, known, 1, cutoff=0.9)
            warnings += [f"no role has a variable {name}; did you mean {meant}?" for meant in nearest]
    return warnings


def _evaluated(templar, place, value, errors):
    """Evaluate a value as a whole. When that fails, find all the parts of it that fail."""
    try:
        return _plain(templar.template(value))
    except Exception as error:  # pylint: disable=broad-exception-caught  # a lookup may raise anything
        problem = error
    before = len(errors)
    if isinstance(value, dict):
        for key, part in value.items():
            shown = key if isinstance(key, str) and PLAIN_WORD.fullmatch(key) else "..."
            _evaluated(templar, f"{place}.{shown}", part, errors)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            _evaluated(templar, f"{place}[{index}]", part, errors)
    if len(errors) == before:
        undefined = _UNDEFINED.search(str(problem))
        reason = f"`{undefined[1]}` is not defined" if undefined else type(problem).__name__
        errors.append(f"`{place}` cannot be evaluated: {reason}")
    return None


def _plain(value):
    """Take Ansible's tags off: plain dict, list, str, int and float; true, false and null; anything else as it is."""
    if isinstance(value, dict):
        return {_plain(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    for kind in (str, int, float):
        if isinstance(value, kind) and not isinstance(value, bool):
            return kind(value)
    return value
