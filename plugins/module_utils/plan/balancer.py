# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a balancer has in front of the hosts that run the apps: a backend for each domain, with those that have it."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from typing import Any

from ..haproxy import CONFIGURATION, server_name
from .reading import PlanError, read

OWN = "/etc/haproxy/flaskfleet"
# The subject of its certificate: no app or site can be called so.
SUBJECT = "load_balancer"
# Seconds by which a host may answer later than nginx would give up on its app.
_GRACE = 5
# What a site without a health path may answer. It may well want a password.
_ANSWERS = ["2xx", "3xx", "4xx"]


def plan_balancer(settings: dict[str, Any], inventory: Any) -> dict[str, Any]:
    """Plan the balancer that the inventory's own host is.

    settings: the roles' variables, judged. inventory: see inventory.Inventory.

    Returns {backends, ports, tls, timeouts, check, files}: `files` as `file_set` takes them. Raises PlanError
    with all errors.
    """
    group = settings["load_balancer_group"]
    errors = []
    if inventory.in_group(group):
        errors.append(
            f"{inventory.host} is in the group {group}: its nginx and HAProxy would both want the ports of the sites"
        )
    if not balancer_address(settings["load_balancer_address"], inventory.connection_of(inventory.host)):
        errors.append(
            "`load_balancer_address` is missing, the address at which the hosts behind the balancer see it; for "
            "example `load_balancer_address: 10.0.0.2`"
        )
    backends: dict[str, dict] = {}
    for host, variables in inventory.variables_of(group).items():
        try:
            declared = read(variables)
        except PlanError as error:
            errors += [f"{host}: {each}" for each in error.errors]
            continue
        address = declared.settings["load_balancer_server_address"] or inventory.connection_of(host)
        if re.fullmatch(r"[A-Za-z0-9_.:-]+", address) is None:
            errors.append(f"{host} has no address; give it a `load_balancer_server_address`")
            continue
        for site in [*declared.apps, *declared.sites]:
            if site["state"] == "present":
                _add(backends, errors, site, host, address, settings)
    errors += _taken_twice(backends.values())
    if errors:
        raise PlanError(errors)
    domains = [name for backend in backends.values() for name in backend["domains"]]
    tls = settings["load_balancer_tls"]["mode"] if domains else "none"
    return {
        "backends": list(backends.values()),
        "ports": [80] if tls == "none" else [80, 443],
        "tls": {key: settings["load_balancer_tls"][key] for key in ("redirect", "hsts_max_age")} | {"mode": tls},
        "timeouts": settings["load_balancer_timeouts"],
        "check": settings["load_balancer_check"],
        "files": _files(backends.values(), domains, tls, settings),
    }


def balancer_address(stated: str, connection: str) -> str:
    """The IP address that the hosts behind a balancer see it by, empty when it is not known.

    connection: where Ansible connects to, which may be a name.
    """
    for address in (stated, connection):
        try:
            return str(ipaddress.ip_address(address))
        except ValueError:
            continue
    return ""


def _add(backends, errors, site, host, address, settings):
    """Add a host to the backend of an app's or a site's domain, which is made with the first one."""
    https = site["tls"]["mode"] != "none"
    place = f"[{address}]" if ":" in address else address
    server = {
        "name": server_name(host),
        "address": f"{place}:{443 if https else 80}",
        "https": https,
        "cookie": hashlib.sha256(host.encode()).hexdigest()[:8],
    }
    is_app = "health_path" in site
    backend = backends.setdefault(
        site["domain"],
        {
            "name": site["domain"],
            "subject": site["name"],
            "domains": [],
            "health": {
                "path": site["health_path"] if is_app else "/",
                "statuses": _statuses(site["health_status"] if is_app else _ANSWERS),
            },
            "timeout": settings["load_balancer_timeouts"]["server"],
            "servers": [],
        },
    )
    if backend["subject"] != site["name"]:
        errors.append(
            f"{host}: {site['domain']!r} is the domain of {site['name']}, and of {backend['subject']} elsewhere"
        )
    if any(each["name"] == server["name"] for each in backend["servers"]):
        errors.append(f"{host}: another host is called {server['name']} as well, as HAProxy may spell it")
    read_timeout = (site["site"] if is_app else site)["read_timeout"]
    backend["timeout"] = max(backend["timeout"], read_timeout + _GRACE)
    backend["domains"] += [name for name in (site["domain"], *site["aliases"]) if name not in backend["domains"]]
    backend["servers"].append(server)


def _statuses(declared):
    """Statuses as HAProxy's `http-check expect status` takes them."""
    ranges = [f"{each[0]}00-{each[0]}99" if str(each).endswith("xx") else str(each) for each in map(str, declared)]
    return ",".join(ranges)


def _taken_twice(backends):
    holders: dict[str, str] = {}
    for backend in backends:
        for name in backend["domains"]:
            holder = holders.setdefault(name, backend["subject"])
            if holder != backend["subject"]:
                yield f"{name!r} is a name of {backend['subject']} and of {holder}; a host name leads to one place"


def _files(backends, domains, tls, settings):
    lines = [f"{name} {backend['name']}\n" for backend in backends for name in backend["domains"]]
    files = [
        {"template": "haproxy.cfg.j2", "dest": CONFIGURATION, "takeover": True},
        {"content": "".join(["# Host names and their backends\n", *lines]), "dest": f"{OWN}/domains.map"},
        {"template": "haproxy.conf.j2", "dest": "/etc/systemd/system/haproxy.service.d/flaskfleet.conf"},
    ]
    if settings["load_balancer_stats_password"]:
        stats = {"template": "stats.cfg.j2", "dest": f"{OWN}/stats.cfg", "mode": "0600", "sensitive": True}
        files.append(stats)
    if tls != "none":
        certificate = {"mode": tls, "names": domains} if tls == "self_signed" else {"mode": tls}
        files.append(
            {
                "certificate": certificate,
                "dest": f"{OWN}/edge.pem",
                "mode": "0600",
                "sensitive": True,
                "subject": SUBJECT,
            }
        )
    return files
