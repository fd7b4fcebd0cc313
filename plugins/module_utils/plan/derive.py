# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the declared apps to the plan: every path, unit name, socket and hash, so that no role computes one itself."""

from __future__ import annotations

import functools
import hashlib
import json
import posixpath
import re
from pathlib import Path
from typing import Any

from ..configuration import BUILD_KEYS, RELEASE_KEYS
from ..remote import ssh_server
from .balancer import plan_balancer
from .inventory import (
    Inventory,
    addresses_of,
    balancers_of,
    hold_of,
    leader_of,
    passwords_of,
    services_of_host,
)
from .reading import account, balancer_variables, read
from .schema import ROLES
from .services import database_of, services_of
from .sites import (
    authority_certificates,
    has_tls,
    renewal_files,
    scheme_of,
    selinux_files,
    site_files,
    site_of_app,
    site_of_list,
    tls_of,
    trust_balancers,
    url_of,
)
from .values import without_credentials

TEMPLATES = ROLES / "flask_app" / "templates"

_SETTINGS = (
    "installer",
    "index_url",
    "ca_file",
    "build_jobs",
    "activation_jobs",
    "memory_reserve",
    "root",
    "data_root",
    "runtime_root",
    "rebuild",
    "purge_undeclared",
)
# What a release has in its own folder, by kind of server: files and their templates. The server's settings, and what
# systemd is told of this release alone.
_RELEASE_FILES = {
    "gunicorn": {"gunicorn.conf.py": "gunicorn.conf.py.j2", "service.conf": "release.service.conf.j2"},
    "granian": {"granian.conf.py": "granian.conf.py.j2", "service.conf": "release.service.conf.j2"},
}
# A release's socket below the app's runtime directory. granian makes its own, in a directory that only it may write to.
_SOCKETS = {"gunicorn": "{release}.sock", "granian": "{release}/web.sock"}
CACHE_ROOT = "/var/cache/flask_apps"
_UNIT_TEMPLATES = ("web.service.j2", "web.socket.j2", "base/sandbox.conf.j2", "base/limits.conf.j2")


def make_plan(
    variables: dict[str, Any],
    platform: dict[str, Any],
    hostname: str,
    rollback: bool = False,
    inventory: Inventory | None = None,
) -> dict[str, Any]:
    """Make the plan for a host.

    variables: the roles' variables as plain data; those left out have their default. platform: what differs between
    distributions, as the module's option of that name. hostname: the inventory's name of the host. rollback: whether
    the plan is for going back, the only use of `flask_app_rollback_to`. inventory: without it the host leads.

    Returns plain data without any secret, in the shape that the module's RETURN documents. Raises PlanError with all
    errors.
    """
    if "admin_socket" in platform:
        variables = balancer_variables(variables)
    declared = read(variables, rollback, inventory)
    settings = declared.settings
    addresses = addresses_of(declared.apps, inventory) if inventory else {}
    templates = functools.cache(functools.partial(_digest, template_paths=settings["flask_app_template_paths"]))
    everything = [*declared.apps, *declared.sites]
    taken = {name for each in everything for name in (each["domain"], *each["aliases"])}
    label = host_label(hostname) if settings["nginx_site_host_names"] else ""
    selected = [app for app in declared.apps if app["name"] in declared.only]
    apps = [_app(app, settings, platform, label, taken, templates) for app in selected if app["state"] == "present"]
    for app in apps:
        app["database"] = database_of(app, inventory.host if inventory else hostname, app["user"])
        app["services"] = services_of(app, platform, addresses)
        app["release_leader"] = leader_of(app, settings, inventory) if inventory and not rollback else ""
        app["release_hold"] = hold_of(app, settings)
        app["directories"] = _directories_of_app(app)
    sites = [site_of_app(app) for app in apps]
    sites += [site_of_list(site) for site in declared.sites if site["state"] == "present"]
    balancers = balancers_of(settings, inventory)
    trust_balancers([address for address in balancers.values() if address], sites)
    return {
        "apps": apps,
        "absent": [app["name"] for app in selected if app["state"] == "absent"],
        "sites": sites,
        "ports": [80, 443] if any(has_tls(each) for each in everything) else [80],
        "unit_files": _unit_files(apps),
        "calendars": [
            f"{app['name']}: schedules.{name}.on_calendar: {schedule['on_calendar']}"
            for app in apps
            for name, schedule in app["schedules"].items()
        ],
        "directories": _directories_of_host(settings),
        "site_files": site_files(sites, everything, settings, platform),
        "acme": authority_certificates(sites, declared, settings, platform),
        "renewal_files": renewal_files(settings, platform),
        "selinux_files": selinux_files(declared, settings, platform),
        "interpreters": _interpreters(apps),
        "packages": sorted({*platform.get("packages", ()), *_packages_of_apps(apps, platform)}),
        "services": services_of_host(apps, declared, settings, platform, inventory),
        "balancer": plan_balancer(settings, inventory) if "admin_socket" in platform else {},
        "declared": [app["name"] for app in declared.apps],
        "declared_sites": [each["name"] for each in everything],
        "passwords": passwords_of(apps),
        "rollback": rollback,
        "rollback_to": _rollback_targets(apps, settings["flask_app_rollback_to"]) if rollback else {},
        "hooks": settings["flask_app_hooks"],
        "unselected": [app["name"] for app in declared.apps if app["name"] not in declared.only],
        "proxy_user": settings["flask_app_proxy_user"] or platform.get("proxy_user", ""),
        "settings": {name: settings[f"flask_app_{name}"] for name in _SETTINGS},
        "balancers": {host: address for host, address in balancers.items() if address},
        "warnings": declared.warnings
        + [
            f"{host} is a balancer without a known IP address, so sites see its address instead of their clients'; "
            "give it a `load_balancer_address`"
            for host, address in balancers.items()
            if not address
        ],
    }


def _interpreters(apps):
    """The versions of Python that apps ask for, with the apps that do, as `packages` takes them."""
    wanted = {}
    for app in apps:
        version = re.fullmatch(r"(?:python)?(3\.[0-9]+)", app["python"]["declared"])
        if version:
            wanted.setdefault(version[1], []).append(app["name"])
    return [{"version": version, "apps": names} for version, names in sorted(wanted.items())]


def _packages_of_apps(apps, platform):
    wanted = {package for app in apps for package in app["system_packages"]}
    by_ssh = any(ssh_server(app["repository"]) or app["allowed_signers"] for app in apps)
    return wanted.union(platform.get("ssh_packages", ()) if by_ssh else ())


def host_label(hostname: str) -> str:
    """Make a host's inventory name a label of a host name (RFC 1123): `Web_1.example.org` becomes `web-1-example-org`.

    Returns an empty string when nothing of it is left.
    """
    return re.sub(r"[^a-z0-9]+", "-", hostname.lower()).strip("-")[:63].strip("-")


def _app(app, settings, platform, label, taken, templates):
    name = app["name"]
    root = f"{settings['flask_app_root']}/{name}"
    unit = f"flask-{name}"
    module, _colon, function = app["entrypoint"].partition(":")
    host_name = f"{label}.{app['domain']}"
    on_this_host = [host_name] if label and host_name not in taken and len(host_name) <= 253 else []
    processes = {name: {**each, "limits": _limits(each["limits"])} for name, each in app["processes"].items()}
    release_files = dict(_RELEASE_FILES[app["server"]["kind"]])
    release_files.update((f"{process}.service", "process.service.j2") for process in processes)
    planned = {
        **app,
        "repository": without_credentials(app["repository"]),
        "path": posixpath.normpath(app["path"]),
        "user": account(app),
        "own_user": not app["user"],
        "server_names": [app["domain"], *app["aliases"], *on_this_host],
        "static": [{**entry, "path": posixpath.normpath(entry["path"])} for entry in app["static"]],
        "tls": tls_of(app),
        "url": url_of(app),
        "entrypoint": f"{module}:{function or 'app'}",
        "python": {"declared": app["python"], "executable": _executable(app["python"], platform)},
        "requirements": posixpath.normpath(app["requirements"]) if app["requirements"] else "",
        "system_packages": _system_packages(app["system_packages"], platform.get("os_family", "")),
        "secret_names": sorted(app["secrets"]),
        "shared_paths": [posixpath.normpath(path) for path in app["shared_paths"]],
        "health": {
            "host": app["domain"],
            "scheme": scheme_of(app),
            "path": app["health_path"],
            "timeout": app["health_timeout"],
            "statuses": [_status(status) for status in app["health_status"]],
            "settle": app["settle"],
        },
        "processes": processes,
        # what the live release is asked for when a timer has elapsed
        "jobs": {
            name: {key: schedule[key] for key in ("command", "timeout")} for name, schedule in app["schedules"].items()
        },
        "limits": _limits(app["limits"]),
        "paths": {
            "root": root,
            "repo": f"{root}/repo.git",
            "builds": f"{root}/builds",
            "releases": f"{root}/releases",
            "current": f"{root}/current",
            "previous": f"{root}/previous",
            "data": f"{settings['flask_app_data_root']}/{name}",
            "runtime": f"{settings['flask_app_runtime_root']}/{name}",
        },
        "units": {
            "service": f"{unit}@.service",
            "socket": f"{unit}@.socket",
            "live": f"{unit}.live.service",
            "target": f"{unit}.target",
            "timers": [f"{unit}.{schedule}.timer" for schedule in app["schedules"]],
            "prefix": unit,
        },
        "upstream_socket": f"{root}/current/web.sock",
        "socket": f"{settings['flask_app_runtime_root']}/{name}/{_SOCKETS[app['server']['kind']]}",
        "release_files": release_files,
        "templates": templates(frozenset([*release_files.values(), *_UNIT_TEMPLATES])),
    }
    for key in ("state", "secrets", "repository_key", "repository_known_hosts"):
        del planned[key]
    for key in ("health_path", "health_timeout", "health_status", "settle"):
        del planned[key]
    planned["build_hash"] = _short_hash(
        [planned[key] for key in BUILD_KEYS],
        planned["entrypoint"] if planned["build_commands"] else "",  # which these commands are told
        app["python"],
        app["server"]["kind"],
        settings["flask_app_installer"],
        *([planned["paths"]["data"]] if planned["shared_paths"] else []),  # where its links lead
    )
    health = planned["health"]
    planned["configuration_hash"] = _short_hash(
        [planned[key] for key in RELEASE_KEYS], health["path"], health["statuses"]
    )
    return planned


def _limits(declared):
    return {limit: "" if value is None else str(value) for limit, value in declared.items()}


def _rollback_targets(apps, given):
    """{app: release or commit, empty for the previous good release}; of all apps unless some are named."""
    return {app["name"]: given.get(app["name"], "") for app in apps if not given or app["name"] in given}


def _unit_files(apps):
    """What each app has in systemd's folders, as `file_set` takes it."""
    files = []
    for app in apps:
        units, prefix = app["units"], app["units"]["prefix"]
        wanted = {
            f"/etc/systemd/system/{units['service']}": "web.service.j2",
            f"/etc/systemd/system/{units['socket']}": "web.socket.j2",
            f"/etc/systemd/system/{units['live']}": "live.service.j2",
            f"/etc/systemd/system/{units['target']}": "app.target.j2",
            f"/etc/sysusers.d/{prefix}.conf": "app.sysusers.conf.j2",
            f"/etc/tmpfiles.d/{prefix}.conf": "app.tmpfiles.conf.j2",
        }
        files += [{"template": template, "dest": dest, "subject": app["name"]} for dest, template in wanted.items()]
        files += [
            {
                "template": f"schedule.{kind}.j2",
                "dest": f"/etc/systemd/system/{prefix}.{schedule}.{kind}",
                "subject": app["name"],
                "vars": {"schedule": schedule},
            }
            for schedule in app["schedules"]
            for kind in ("timer", "service")
        ]
    return files


def _directory(path, mode="0755", user="root", group="root"):
    """A directory that tmpfiles.d declares, as `file_set` takes it."""
    return {"path": path, "mode": mode, "user": user, "group": group}


def _directories_of_host(settings):
    return [
        _directory(path)
        for path in (
            settings["flask_app_root"],
            settings["flask_app_data_root"],
            CACHE_ROOT,
            settings["flask_app_runtime_root"],
        )
    ]


def _directories_of_app(app):
    """Others may pass through an app's directory, as nginx does to its socket, and see nothing on the way."""
    name, paths = app["name"], app["paths"]
    group = app["user"] if app["own_user"] else ""  # a stated account may have any
    return [
        *(_directory(paths[key], "0711") for key in ("root", "builds", "releases")),
        _directory(f"{paths['root']}/marks", "0700"),
        *(_directory(path, "0700", app["user"], group) for path in (paths["data"], f"{CACHE_ROOT}/{name}")),
        _directory(paths["runtime"]),
    ]


def _executable(declared, platform):
    executable = declared or platform.get("newer_python") or platform.get("python") or "python3"
    if executable[0].isdigit():
        executable = f"python{executable}"
    return posixpath.join("/usr/bin", executable)


def _status(declared):
    return declared if isinstance(declared, int) or declared.endswith("xx") else int(declared)


def _system_packages(declared, os_family):
    return list(declared.get(os_family, [])) if isinstance(declared, dict) else list(declared)


def _digest(names, template_paths):
    """Digest the templates that a release runs with: the role's, or the user's of the same name."""
    digest = hashlib.sha256()
    for name in sorted(names):
        candidates = [Path(folder, name) for folder in template_paths]
        source = next((path for path in candidates if path.is_file()), TEMPLATES / name)
        digest.update(hashlib.sha256(source.read_bytes()).digest())
    return digest.hexdigest()


def _short_hash(*declared):
    return hashlib.sha256(json.dumps(declared, sort_keys=True).encode()).hexdigest()[:8]
