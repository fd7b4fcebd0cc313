# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What values can be right by themselves and wrong together: of an app, of several, of an app and the inventory."""

from __future__ import annotations

import datetime
import posixpath
from pathlib import Path

from ..remote import ssh_server
from .certificates import doubts, problem
from .repositories import key_problem, known_hosts_problem
from .rules import ACME_NAMES, SCHEMES
from .schema import role_options, role_variables
from .services import PORTS

# The longest release name: short commit, hash of the configuration, and a suffix such as `.123`.
RELEASE_NAME_LENGTH = 8 + 1 + 8 + 4
# sun_path of unix(7) has 108 bytes, the closing NUL included.
SOCKET_PATH_BYTES = 107
_ROOTS = ("flask_app_root", "flask_app_data_root", "flask_app_runtime_root")


def check_roots(judge, settings):
    roots = [settings[name] for name in _ROOTS]
    if not all(isinstance(root, str) for root in roots):
        return
    for index, (name, root) in enumerate(zip(_ROOTS, roots)):
        others = roots[:index] + roots[index + 1 :]
        if any(f"{root}/".startswith(f"{other}/") for other in others):
            judge.refuse(
                "",
                name,
                "must not be, or lie in, another directory of the role",
                f"{name}: {role_variables()[name].default}",
            )


def check_sockets(judge, settings, apps):
    for app in apps:
        directory = f"{settings['flask_app_runtime_root']}/{app.values.get('name', '')}/"
        length = len(directory.encode(errors="replace")) + RELEASE_NAME_LENGTH + len("/web.sock")
        if length > SOCKET_PATH_BYTES:
            judge.refuse(
                app.place,
                "name",
                f"makes a socket's path up to {length} bytes long, and {SOCKET_PATH_BYTES} "
                "is the limit; shorten it or `flask_app_runtime_root`",
            )


def check_writable(judge, settings, apps):
    """Refuse to open directories of the roles, where the other apps are as well, to an app."""
    roots = [settings[name] for name in _ROOTS if isinstance(settings[name], str)]
    for app in apps:
        for index, path in enumerate(app.values.get("sandbox", {}).get("writable", ())):
            if any(f"{path}/".startswith(f"{root}/") or f"{root}/".startswith(f"{path}/") for root in roots):
                problem = f"must be outside of {', '.join(roots)}; an app's own data is writable without it"
                judge.refuse(app.place, f"sandbox.writable[{index}]", problem)


def check_duplicates(judge, apps):
    names: dict[str, str] = {}
    domains: dict[str, str] = {}
    for app in apps:
        if "name" in app.values:
            holder = names.setdefault(app.values["name"], app.place)
            if holder != app.place:
                judge.refuse(app.place, "name", f"is that of {holder} as well; each needs its own")
        own = {"domain": app.values["domain"]} if "domain" in app.values else {}
        own.update((f"aliases[{index}]", alias) for index, alias in enumerate(app.values.get("aliases", ())))
        for key, domain in own.items():
            here = f"{app.place}: `{key}`"
            holder = domains.setdefault(domain, here)
            if holder != here:
                judge.refuse(app.place, key, f"{domain!r} is taken by {holder}; a host name leads to one place")


def check_app(judge, place, values, layers):
    """Check what takes more than one key of an app, or more than one layer. layers: what each declares, from below."""
    _check_keys(judge, place, values)
    _check_services(judge, place, values)
    _check_access(judge, place, values, set().union(*layers[1:]))
    check_static(judge, place, values)
    _check_shared(judge, place, values)
    _check_granian(judge, place, values, layers)


def _of_app(key):
    return role_variables()["flask_apps"].options[key]


def _check_keys(judge, place, values):
    for name in sorted(values.get("env", {}).keys() & values.get("secrets", {}).keys()):
        judge.refuse(place, f"env.{name}", "is among the secrets as well; keep one of them")
    for name in sorted(values.get("processes", {}).keys() & values.get("schedules", {}).keys()):
        judge.refuse(place, f"processes.{name}", "is the name of a schedule as well; every unit needs its own")
    if values.get("require_hashes") and values.get("extra_packages"):
        problem = "must be empty with `require_hashes`: the app's own files have the hashes"
        judge.refuse(place, "extra_packages", problem)
    if values.get("health_status") == []:
        judge.refuse(place, "health_status", "must not be empty: nothing would be healthy", "health_status: [2xx, 3xx]")


def _check_access(judge, place, values, stated):
    """Check what reaches a private repository: it is for ssh, and whoever has a key knows whom to show it to.

    stated: keys that the app itself has. One that lies under all apps is of no use to some, which is no mistake.
    """
    key, known_hosts = values.get("repository_key", ""), values.get("repository_known_hosts", "")
    repository = values.get("repository", "")
    if not ssh_server(repository):
        problem = "is for a repository that is reached by ssh; with https, a token goes into `repository`"
        example = 'repository: "https://git:{{ vault_token }}@git.example.org/hello.git"'
        for name in ("repository_key", "repository_known_hosts"):
            if values.get(name) and name in stated:
                judge.refuse(place, name, problem, example)
        return
    if key and (problem := key_problem(key)):
        judge.refuse(place, "repository_key", problem)
    if key and not known_hosts:
        problem = "is missing: `repository_key` is shown to no server whose own key is not known"
        judge.refuse(place, "repository_known_hosts", problem, _of_app("repository_known_hosts").example)
    if known_hosts and (problem := known_hosts_problem(known_hosts, repository)):
        judge.refuse(place, "repository_known_hosts", problem)


def _check_services(judge, place, values):
    variables = {}
    for key in ("database", "cache"):
        service = values.get(key)
        if not service:
            continue
        if not service["engine"]:
            judge.refuse(place, f"{key}.engine", "is missing", _of_app(key).options["engine"].example)
        variable = service["variable"]
        for other in ("env", "secrets"):
            if variable in values.get(other, {}):
                judge.refuse(place, f"{other}.{variable}", f"is what `{key}` sets; leave one of them out")
        if variable in variables:
            judge.refuse(place, f"{key}.variable", f"is that of `{variables[variable]}` as well")
        variables[variable] = key
    database = values.get("database")
    if not database:
        return
    stated = [f"`{key}`" for key in ("port", "user", "password_secret") if database[key]]
    if stated and not database["host"]:
        problem = f"is missing, where {' and '.join(stated)} belong; on its own host an app's account logs in as itself"
        judge.refuse(place, "database.host", problem, "database: {host: db1}")
    secret = database["password_secret"]
    if secret and secret not in values.get("secrets", {}):
        judge.refuse(place, f"secrets.{secret}", "is missing, which `database.password_secret` names")
    engine, scheme = database["engine"], database["scheme"]
    if engine and scheme and scheme not in SCHEMES[engine]:
        judge.refuse(place, "database.scheme", f"must be one of {', '.join(SCHEMES[engine])}, not {scheme!r}")


def _check_granian(judge, place, values, layers):
    """Refuse settings of gunicorn that are stated with granian or over it. One that lies under it is no mistake."""
    server, entrypoint = values.get("server", {}), values.get("entrypoint", "")
    if server.get("kind") != "granian":
        return
    stated = {}
    for layer in layers:
        own = layer.get("server", {})
        stated = {**({} if own.get("kind") == "granian" else stated), **own}
    options = _of_app("server").options
    for key in ("worker_class", "timeout", "max_requests", "preload", "log_format"):
        if stated.get(key, options[key].default) != options[key].default:
            problem = "is a setting of gunicorn; granian has none like it, leave it out"
            judge.refuse(place, f"server.{key}", problem)
    if "(" in entrypoint and not entrypoint.endswith("()"):
        problem = "must call its factory without arguments: granian can't pass any"
        judge.refuse(place, "entrypoint", problem, "entrypoint: shop:create_app()")


def check_static(judge, place, values):
    seen = set()
    for index, entry in enumerate(values.get("static", ())):
        url = entry["url"].rstrip("/")
        if url in seen:
            judge.refuse(place, f"static[{index}].url", f"{url!r} is that of another entry as well")
        seen.add(url)


def _check_shared(judge, place, values):
    folders = [posixpath.normpath(path) for path in values.get("shared_paths", ())]
    for index, folder in enumerate(folders):
        around = next((each for each in folders[:index] if _lies_in(folder, each) or _lies_in(each, folder)), None)
        if around is not None:
            judge.refuse(place, f"shared_paths[{index}]", f"{folder!r} is {around!r} as well, or one lies in the other")
    for index, entry in enumerate(values.get("static", ())):
        path = posixpath.normpath(entry["path"])
        if any(_lies_in(path, folder) for folder in folders):
            problem = f"{path!r} lies in one of `shared_paths`, which the app alone may read; have the app serve it"
            judge.refuse(place, f"static[{index}].path", problem)


def _lies_in(path, folder):
    """Whether a path, in its shortest form, is a folder or lies in it."""
    return f"{path}/".startswith(f"{folder}/")


def check_certificates(judge, sites):
    """Refuse certificates that nginx could not use. Returns warnings of those that visitors would not trust."""
    warnings = []
    now = datetime.datetime.now(datetime.timezone.utc)
    options = role_variables()["nginx_sites"].options["tls"].options
    for place, values in sites:
        tls = values.get("tls")
        if tls is None or values.get("state") == "absent":
            continue
        names = [values.get("domain", ""), *values.get("aliases", ())]
        if tls["mode"] == "acme" and len(names) > ACME_NAMES:
            many = f"makes {len(names)} names with `domain`; authorities put up to {ACME_NAMES} into a certificate"
            judge.refuse(place, "aliases", many)
        given = [key for key in ("certificate", "certificate_key") if tls[key]]
        if tls["mode"] != "provided":
            warnings += [f"{place}: `tls.{key}` is of no use without `mode: provided`" for key in given]
            continue
        for key in (key for key in ("certificate", "certificate_key") if key not in given):
            judge.refuse(place, f"tls.{key}", "is missing", options[key].example)
        if len(given) == 2:
            key, what = problem(tls["certificate"], tls["certificate_key"])
            if what:
                judge.refuse(place, f"tls.{key}", what)
            else:
                warnings += [f"{place}: the certificate {doubt}" for doubt in doubts(tls["certificate"], names, now)]
    return warnings


def check_edge(judge, tls):
    """Refuse a balancer's certificate that HAProxy could not use. Returns warnings."""
    name = "load_balancer_tls"
    if not isinstance(tls, dict):
        return []
    given = {key: tls[key] for key in ("certificate", "certificate_key") if tls.get(key)}
    if tls.get("mode") != "provided":
        return [f"`{name}.{key}` is of no use without `mode: provided`" for key in given]
    for key in ("certificate", "certificate_key"):
        if key not in given:
            judge.refuse("", f"{name}.{key}", "is missing", role_variables()[name].options[key].example)
    if len(given) == 2 and all(isinstance(text, str) for text in given.values()):
        key, what = problem(given["certificate"], given["certificate_key"])
        if what:
            judge.refuse("", f"{name}.{key}", what)
    return []


def check_selection(judge, only, names):
    if isinstance(only, list):
        for name in only:
            if isinstance(name, str) and name not in names:
                judge.unknown("flask_app_only", "", name, names)


def check_rollback(judge, settings, apps, rollback):
    name = "flask_app_rollback_to"
    states = {app.values["name"]: app.values.get("state") for app in apps if "name" in app.values}
    names = list(states)
    targets = settings[name]
    if targets and not rollback:
        judge.refuse("", name, "is for the playbook flaskfleet.deploy.rollback alone; leave it out")
    for app in targets if isinstance(targets, dict) else ():
        if app not in names:
            judge.unknown(name, "", app, names)
        elif isinstance(settings["flask_app_only"], list) and app not in (settings["flask_app_only"] or names):
            judge.refuse(name, app, "is not among the apps that `flask_app_only` restricts the run to")
        elif states[app] == "absent":
            judge.refuse(name, app, "is absent in the list, so it has no release to go back to")


# Which key each kind of word can't do without
_NEEDED_FOR_WORD = {"webhook": "url", "mail": "to", "tasks": "file"}


def check_notifications(judge, entries):
    """entries: as they were given"""
    options = role_options("flask_app")["flask_app_notify"].options
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        needed = _NEEDED_FOR_WORD.get(entry.get("kind")) if isinstance(entry, dict) else None
        if needed and not entry.get(needed):
            judge.refuse("", f"flask_app_notify[{index}].{needed}", "is missing", options[needed].example)
        elif needed == "file" and isinstance(entry["file"], str) and not Path(entry["file"]).is_file():
            judge.refuse(
                "", f"flask_app_notify[{index}].file", "must be the path of a file of tasks, relative to the playbook's"
            )


def check_hooks(judge, settings):
    hooks = settings["flask_app_hooks"]
    for name, path in hooks.items() if isinstance(hooks, dict) else ():
        if isinstance(path, str) and path and not Path(path).is_file():
            judge.refuse(
                "", f"flask_app_hooks.{name}", "must be the path of a file of tasks, relative to the playbook's"
            )


def check_leader(judge, leader, hosts):
    if leader and hosts is not None and leader not in hosts:
        shown = f", not {leader!r}" if isinstance(leader, str) else ""
        judge.refuse("", "flask_app_release_leader", f"must be the name of a host of the inventory{shown}")


def check_databases(judge, apps, inventory):
    """Refuse what takes the inventory or several apps to know."""
    taken: dict[tuple, str] = {}
    for app in apps:
        database, name = app.values.get("database"), app.values.get("name", "")
        if not database or not database["engine"] or app.values.get("state") == "absent":
            continue
        host = database["host"]
        if host and inventory and host != inventory.host:
            known, secret = host in inventory.hosts, database["password_secret"]
            if known and not inventory.address_of(host):
                problem = f"{host!r} has no `backing_service_address`, at which other hosts would reach its databases"
                judge.refuse(app.place, "database.host", problem)
            if known and secret:
                problem = (
                    f"is for addresses elsewhere; {host!r} is a host of the inventory and keeps the password itself"
                )
                judge.refuse(app.place, "database.password_secret", problem)
            if known and database["port"] not in (None, PORTS[database["engine"]]):
                judge.refuse(
                    app.place, "database.port", f"is for addresses elsewhere; {host!r} is a host of the inventory"
                )
            if not known and not secret:
                problem = f"is missing: {host!r} is no host of the inventory, which would make a password"
                example = "database: {password_secret: DATABASE_PASSWORD}"
                judge.refuse(app.place, "database.password_secret", problem, example)
        own = database["name"] or name.replace("-", "_")
        holder = taken.setdefault((database["engine"], host, own), app.place)
        if holder != app.place:
            judge.refuse(app.place, "database.name", f"{own!r} is the database of {holder} as well; each needs its own")


def check_backing_services(judge, settings, apps):
    if settings["backing_service_address"] and not settings["backing_service_networks"]:
        problem = "is missing: with `backing_service_address` alone nobody could connect"
        judge.refuse("", "backing_service_networks", problem, role_variables()["backing_service_networks"].example)
    purged = settings["backing_service_purge"]
    present = {app.values["name"]: app.values.get("state") for app in apps if "name" in app.values}
    for name in purged if isinstance(purged, list) else ():
        if present.get(name) == "present":
            judge.refuse(
                "", "backing_service_purge", f"names {name}, which is present in the list; set its `state: absent`"
            )


def check_accounts(judge, settings, apps):
    for app in apps:
        if settings["flask_app_proxy_user"] and app.values.get("user") == settings["flask_app_proxy_user"]:
            judge.refuse(
                app.place,
                "user",
                "must not be the web server's account `flask_app_proxy_user`",
                f"user: flask-{app.values.get('name', 'hello')}",
            )
