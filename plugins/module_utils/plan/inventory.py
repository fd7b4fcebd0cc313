# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan takes from the inventory: who leads, where other hosts have services, and for whom this one has some."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from .balancer import balancer_address
from .reading import PlanError, account, read
from .services import database_of, plan_services


class Inventory(NamedTuple):
    """What a plan asks of the inventory. host: its name of the host that is planned for. hosts: the names of all.
    leader_of: tells the first host of the play that declares an app, given by name. address_of: tells the address at
    which other hosts reach the services of a host, empty when there is none. in_group: tells whether the host is in a
    group. variables_of: tells the roles' variables, as plain data, of the other hosts of a group, by their name.
    connection_of: tells where Ansible connects to. balancers_of: tells the hosts of a group of balancers, each with
    what it states as its own address and where Ansible connects to.
    """

    host: str
    hosts: list[str]
    leader_of: Callable[[str], str]
    address_of: Callable[[str], str] = lambda host: ""
    in_group: Callable[[str], bool] = lambda group: True
    variables_of: Callable[[str], dict[str, dict[str, Any]]] = lambda group: {}
    connection_of: Callable[[str], str] = lambda host: host
    balancers_of: Callable[[str], dict[str, tuple[str, str]]] = lambda group: {}


def balancers_of(settings, inventory):
    """The inventory's balancers and their addresses, empty where it is not known."""
    found = inventory.balancers_of(settings["nginx_site_balancer_group"]) if inventory else {}
    return {host: balancer_address(*places) for host, places in found.items()}


def addresses_of(apps, inventory):
    """Where the apps' databases on other hosts of the inventory are reached, by host."""
    named = {app["database"]["host"] for app in apps if app["database"] and app["state"] == "present"}
    return {host: inventory.address_of(host) for host in sorted(named & set(inventory.hosts) - {inventory.host})}


def passwords_of(apps):
    """Which hosts keep which passwords of the apps' databases."""
    kept: dict[str, list] = {}
    for app in apps:
        for each in app["services"]["urls"].values():
            if each["kept_on"]:
                kept.setdefault(each["kept_on"], []).append(each["password"])
    return [{"host": host, "names": names} for host, names in kept.items()]


def services_of_host(apps, declared, settings, platform, inventory):
    """What the host has to have for apps, its own and those of others; empty for roles that do not ask."""
    if "service_packages" not in platform:
        return {}
    group = settings["backing_service_group"]
    own = apps if inventory is None or inventory.in_group(group) else []
    absent = [app for app in declared.apps if app["state"] == "absent"] if own is apps else []
    absent = [{**app, "database": database_of(app, "", account(app))} for app in absent]
    absent = [app for app in absent if app["database"].get("host", "") in ("", inventory.host if inventory else "")]
    others = []
    if inventory is not None and settings["backing_service_address"]:
        for host, variables in inventory.variables_of(group).items():
            try:
                apps_there = read(variables).apps
            except PlanError:
                continue  # what is wrong there, its own run says
            for app in apps_there:
                database = database_of(app, host, account(app))
                if database and database["host"] == inventory.host:
                    (others if app["state"] == "present" else absent).append({**app, "database": database})
    return plan_services(own, others, absent, settings, platform)


def leader_of(app, settings, inventory):
    """The host that runs the app's release commands when it is another one, else empty."""
    if not app["release_commands"] or (app["database"] and not app["database"]["host"]):
        return ""  # what they change is this host's own
    leader = settings["flask_app_release_leader"] or inventory.leader_of(app["name"])
    return "" if leader == inventory.host else leader


def hold_of(app, settings):
    """What tells a host that is not to release before the leader; None where it need not wait."""
    if not app["release_leader"] or not settings["flask_app_release_commands_hold"]:
        return None
    done = settings["flask_app_release_commands_done"].get(app["name"], "")
    return {"done": done, "marker": settings["flask_app_release_commands_marker"]}
