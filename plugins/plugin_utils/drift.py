# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run in check mode has found on each host, told as differences between the host and the list."""

from __future__ import annotations

import time

NOBODY = ""  # what belongs to the host and to no app

_FILES = ("__nginx_site_files", "__backing_service_mariadb_files", "__backing_service_files", "__flask_app_units")
_SERVERS = {"postgresql": "PostgreSQL", "mariadb": "MariaDB"}
_IN_SERVERS = {
    "databases": "the database {name} is missing",
    "accounts": "the account {user} is missing",
    "others": "the account {user} is missing, or has another password or other rights",
    "closed": "the database {name} is open to other accounts",
}


def drift(variables, hosts):
    """Collect what the roles registered in check mode.

    :param variables: {host: its variables}
    :param hosts: the names of those that the run was for
    :returns: list of {host, problem, differences, notes}: ``problem`` says why a host could not be compared (to its
        end), else it is empty; ``differences`` are dicts of app (empty when it is none's), what, and since, seconds
        since 1970 or None; ``notes`` are sentences on what differs from the list and stays so
    """
    return [{"host": str(host), **_of_host(Registered(variables[host]))} for host in hosts]


def lines(found):
    """The same for people, a line each."""
    told = []
    for host in found:
        if host["problem"]:
            told += [f"{host['host']}: could not be compared: {line}" for line in host["problem"].splitlines()[:1]]
            told += [f"    {line}" for line in host["problem"].splitlines()[1:]]
        elif not host["differences"]:
            told.append(f"{host['host']}: as the list says")
        for each in host["differences"]:
            since = f" (since {_time(each['since'])})" if each["since"] else ""
            told.append(f"{host['host']}: {each['app'] + ': ' if each['app'] else ''}{each['what']}{since}")
        told += [f"{host['host']}: note: {note}" for note in host["notes"]]
    return told


class Registered:
    """What tasks have registered for a host; a task that was skipped, failed or never came has told nothing."""

    def __init__(self, variables):
        self._variables = variables

    def __call__(self, name, key, default):
        result = self._variables.get(name)
        found = result.get(key) if isinstance(result, dict) else None
        return default if found is None else found

    def variable(self, name):
        return self._variables.get(name)


def _of_host(told):
    unreachable = told("__flask_app_drift_facts", "unreachable", False)
    problem = told("__flask_app_drift_facts", "msg", "no answer") if unreachable else ""
    if not unreachable and not told.variable("__flask_app_drift_compared"):
        problem = str(told.variable("__flask_app_drift_problem") or "the comparison ended before its end")
    found = [] if unreachable else [*_packages(told), *_files(told), *_nginx(told), *_services(told), *_apps(told)]
    found.sort(key=lambda each: each["app"])
    notes = [
        f"{name} is not in the list any more and stays"
        for register in ("__nginx_site_files", "__flask_app_units")
        for name in told(register, "undeclared", ())
    ]
    notes += told("__nginx_site_nginx", "conflicts", ())
    return {
        "problem": str(problem),
        "differences": found,
        "notes": list(dict.fromkeys(str(note) for note in notes)),
    }


def _difference(app, what, since=None):
    return {"app": str(app), "what": str(what), "since": since}


def _packages(told):
    missing = {}
    for register in ("__nginx_site_packages", "__backing_service_packages", "__flask_app_packages"):
        missing.update(dict.fromkeys(told(register, "missing", ())))
    for package in missing:
        yield _difference(NOBODY, f"the package {package} is not installed")


def _files(told):
    for register in _FILES:
        for each in told(register, "differences", ()):
            yield _difference(each["subject"], f"{each['path']} {each['what']}", each["since"])
        for path in told(register, "mended", ()):
            yield _difference(NOBODY, f"the directory {path} is missing, or has another owner or mode")
        if told(register, "changed", False) and not (told(register, "differences", ()) or told(register, "mended", ())):
            yield _difference(NOBODY, "files of an earlier run were not taken up yet")


def _nginx(told):
    if told("__nginx_site_service", "changed", False):
        yield _difference(NOBODY, "nginx does not run, or is not started at boot")
    for port in told("__nginx_site_firewall", "opened", ()):
        yield _difference(NOBODY, f"the firewall keeps port {port} closed")
    certificates = told("__nginx_site_nginx", "acme", {})
    for site, why in certificates.get("due", {}).items():
        yield _difference(site, f"its certificate is due: {why}")
    for site in certificates.get("stale", ()):
        yield _difference(site, "a certificate is renewed that nothing uses any more")
    if certificates.get("todo") and not certificates.get("due") and not certificates.get("stale"):
        yield _difference(NOBODY, "the timer that renews certificates does not run")


def _services(told):
    if told("__backing_service_listens", "changed", False) or told("__backing_service_hba", "changed", False):
        yield _difference(NOBODY, "PostgreSQL lets in others than the list says")
    for engine, server in _SERVERS.items():
        if told(f"__backing_service_{engine}_service", "changed", False):
            yield _difference(NOBODY, f"{server} does not run, or is not started at boot")
        for what, sentence in _IN_SERVERS.items():
            for item in _changed_items(told, f"__backing_service_{engine}_{what}"):
                entry = item[0] if isinstance(item, (list, tuple)) else item
                yield _difference(NOBODY, f"{server}: {sentence.format(**entry)}")
    for unit in _changed_items(told, "__backing_service_started"):
        yield _difference(NOBODY, f"{unit} does not run")


def _changed_items(told, register):
    """What a task in a loop would change."""
    return [each["item"] for each in told(register, "results", ()) if each.get("changed")]


def _apps(told):
    for app in told("__flask_app_removal", "removed", ()):
        yield _difference(app, "is there, the list says it is absent")
    for app in told("__flask_app_builds", "mended", ()):
        yield _difference(app, "files of its build have another owner or mode, or half a build is there")
    builds = told("__flask_app_builds", "apps", {})
    for app, entry in told("__flask_app_releases", "apps", {}).items():
        for each in entry["mended"]:
            yield _difference(app, f"its release {entry['from']}: {each}", entry["mended_since"].get(each))
        if entry["from"] != entry["to"] or not entry["from"]:
            yield _difference(app, _release(entry, builds.get(app, {})), None)
    for register in ("__flask_app_builds", "__flask_app_releases"):
        for error in told(register, "errors", ()):
            yield _difference(error["app"], f"{error['step']}: {error['message']}")


def _release(entry, build):
    wanted = f"{entry['to']} is wanted" if entry["to"] else "which release is wanted is known when it is deployed"
    if not entry["from"]:
        return f"has no release, {wanted}"
    live = f"runs {entry['from']}" + (f", live since {_time(entry['live_since'])}" if entry["live_since"] else "")
    commits = [str(name).partition("-")[0] for name in (entry["from"], entry["to"] or "")]
    if not entry["to"]:
        return f"{live}; {wanted}"
    if commits[0] != commits[1]:
        return f"{live}; {wanted}: another commit"
    return f"{live}; {wanted}: another {'build' if build.get('built') else 'configuration'}"


def _time(seconds):
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
