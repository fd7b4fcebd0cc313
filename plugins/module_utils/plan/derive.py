# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the declared apps to the plan: every path, unit name, socket and hash, so that no role computes one itself."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from pathlib import Path
from typing import Any

from ..configuration import BUILD_KEYS, RELEASE_KEYS
from .reading import account, read
from .rules import without_credentials
from .schema import ROLES

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
_UNIT_TEMPLATES = ("web.service.j2", "web.socket.j2")


def make_plan(
    variables: dict[str, Any], platform: dict[str, Any], hostname: str, rollback: bool = False
) -> dict[str, Any]:
    """Make the plan for a host.

    variables: the roles' variables as plain data; those left out have their default. platform: what differs between
    distributions, as the module's option of that name. hostname: the inventory's name of the host. rollback: whether
    the plan is for going back, the only use of `flask_app_rollback_to`.

    Returns plain data without any secret, in the shape that the module's RETURN documents. Raises PlanError with all
    errors.
    """
    declared = read(variables, rollback)
    settings = declared.settings
    templates = {
        kind: _digest([*files.values(), *_UNIT_TEMPLATES], settings["flask_app_template_paths"])
        for kind, files in _RELEASE_FILES.items()
    }
    taken = {name for app in declared.apps for name in (app["domain"], *app["aliases"])}
    label = host_label(hostname) if settings["nginx_site_host_names"] else ""
    selected = [app for app in declared.apps if app["name"] in declared.only]
    apps = [_app(app, settings, platform, label, taken, templates) for app in selected if app["state"] == "present"]
    return {
        "apps": apps,
        "absent": [app["name"] for app in selected if app["state"] == "absent"],
        "sites": [_site(app) for app in apps],
        "unit_files": _unit_files(apps),
        "site_files": _site_files(apps, settings, platform),
        "packages": sorted(
            {*platform.get("packages", ()), *(package for app in apps for package in app["system_packages"])}
        ),
        "declared": [app["name"] for app in declared.apps],
        "rollback": rollback,
        "rollback_to": _rollback_targets(apps, settings["flask_app_rollback_to"]) if rollback else {},
        "hooks": settings["flask_app_hooks"],
        "unselected": [app["name"] for app in declared.apps if app["name"] not in declared.only],
        "proxy_user": settings["flask_app_proxy_user"] or platform.get("proxy_user", ""),
        "settings": {name: settings[f"flask_app_{name}"] for name in _SETTINGS},
        "warnings": declared.warnings,
    }


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
    planned = {
        **app,
        "repository": without_credentials(app["repository"]),
        "path": posixpath.normpath(app["path"]),
        "user": account(app),
        "own_user": not app["user"],
        "server_names": [app["domain"], *app["aliases"], *on_this_host],
        "url": f"http://{app['domain']}/",
        "entrypoint": f"{module}:{function or 'app'}",
        "python": {"declared": app["python"], "executable": _executable(app["python"], platform)},
        "requirements": posixpath.normpath(app["requirements"]) if app["requirements"] else "",
        "system_packages": _system_packages(app["system_packages"], platform.get("os_family", "")),
        "secret_names": sorted(app["secrets"]),
        "shared_paths": [posixpath.normpath(path) for path in app["shared_paths"]],
        "health": {
            "host": app["domain"],
            "scheme": "http",
            "path": app["health_path"],
            "timeout": app["health_timeout"],
            "statuses": [_status(status) for status in app["health_status"]],
            "settle": app["settle"],
        },
        "limits": {limit: "" if value is None else str(value) for limit, value in app["limits"].items()},
        "paths": {
            "root": root,
            "repo": f"{root}/repo.git",
            "builds": f"{root}/builds",
            "releases": f"{root}/releases",
            "current": f"{root}/current",
            "data": f"{settings['flask_app_data_root']}/{name}",
            "runtime": f"{settings['flask_app_runtime_root']}/{name}",
        },
        "units": {
            "service": f"{unit}@.service",
            "socket": f"{unit}@.socket",
            "live": f"{unit}.live.service",
            "target": f"{unit}.target",
            "prefix": unit,
        },
        "upstream_socket": f"{root}/current/web.sock",
        "socket": f"{settings['flask_app_runtime_root']}/{name}/{_SOCKETS[app['server']['kind']]}",
        "release_files": _RELEASE_FILES[app["server"]["kind"]],
        "templates": templates[app["server"]["kind"]],
    }
    for key in ("state", "secrets", "health_path", "health_timeout", "health_status", "settle"):
        del planned[key]
    planned["build_hash"] = _short_hash(
        [planned[key] for key in BUILD_KEYS], app["python"], app["server"]["kind"], settings["flask_app_installer"]
    )
    health = planned["health"]
    planned["configuration_hash"] = _short_hash(
        [planned[key] for key in RELEASE_KEYS], health["path"], health["statuses"]
    )
    return planned


def _rollback_targets(apps, given):
    """{app: release or commit, empty for the previous good release}; of all apps unless some are named."""
    return {app["name"]: given.get(app["name"], "") for app in apps if not given or app["name"] in given}


def _site(app):
    return {
        "app": app["name"],
        **{key: app[key] for key in ("domain", "server_names", "url")},
        "upstream": f"flask_{app['name']}",
        "socket": app["upstream_socket"],
    }


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
    return files


def _site_files(apps, settings, platform):
    """The sites of nginx, as `file_set` takes them: with Debian's layout each is linked from sites-enabled."""
    if "sites_available" not in platform:
        return []
    available, enabled = platform["sites_available"], platform["sites_enabled"]
    wanted = [("site.conf.j2", app["domain"], app["name"]) for app in apps]
    if settings["nginx_site_default_server"]:
        wanted.append(("default.conf.j2", "_default", ""))
    files = []
    for template, name, subject in wanted:
        files.append({"template": template, "dest": f"{available}/{name}.conf", "subject": subject})
        if available != enabled:
            link = posixpath.relpath(f"{available}/{name}.conf", enabled)
            files.append({"link": link, "dest": f"{enabled}/{name}.conf", "subject": subject})
    if platform.get("default_site") and settings["nginx_site_default_server"]:
        files.append({"state": "absent", "dest": platform["default_site"], "takeover": True})
    return files


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
