# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan for the host that a plugin works for, or a failure that lists all errors and tells no secret."""

from __future__ import annotations

import traceback

from ansible.plugins.loader import lookup_loader

from ..module_utils.plan import Inventory, PlanError, make_plan, misspelt_variables, plain_variables, role_variables


class PlanFailure(Exception):
    """There is no plan; the text says why."""


def plan_for_host(plugin, task_vars, platform, rollback=False):
    """Plan what the variables of a host declare.

    :param plugin: the action or lookup plugin
    :param platform: as the module's option of that name
    :param rollback: whether the plan is for going back
    :returns: what `make_plan` returns, with a warning for each variable that nothing reads
    :raises PlanFailure:
    """
    platform = {"os_family": task_vars.get("ansible_facts", {}).get("os_family", ""), **platform}
    name = task_vars["inventory_hostname"]
    try:
        variables = plain_variables(plugin._templar, plugin._loader, task_vars)
        hosts = [*task_vars["groups"]["all"], name]  # an implicit localhost is in no group
        inventory = Inventory(
            name,
            hosts,
            leader_of=lambda app: _leader_of(app, plugin, task_vars),
            address_of=lambda host: str(task_vars["hostvars"][host].get("backing_service_address", "")),
            in_group=lambda group: name in task_vars["groups"].get(group, ()),
            variables_of=lambda group: _variables_of(group, plugin, task_vars),
            connection_of=lambda host: _connection_of(task_vars["hostvars"][host], host),
            balancers_of=lambda group: _balancers_of(group, task_vars),
        )
        plan = make_plan(variables, platform, name, rollback, inventory)
        return {**plan, "warnings": plan["warnings"] + misspelt_variables(task_vars)}
    except PlanError as error:
        count = len(error.errors)
        heading = f"{count} error{'s' if count > 1 else ''} in the variables of {name}:"
        text = "\n- ".join([heading, *error.errors])
    except Exception as error:  # pylint: disable=broad-exception-caught
        # Neither its message nor a traceback, which may show a secret.
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = f"unexpected {type(error).__name__} in {place.name} ({place.filename}, line {place.lineno})"
    raise PlanFailure(text)  # outside the handlers, so that no traceback shows what failed


def _leader_of(app, plugin, task_vars):
    """The first host of the play, in the inventory's order and whatever --limit says, that declares an app."""
    hostvars = task_vars["hostvars"]
    own = task_vars["inventory_hostname"]
    everywhere = not _declares(hostvars[own], app)  # the list is the play's own variable, or a role's parameter
    declaring = (host for host in _hosts_of_play(plugin, task_vars) if everywhere or _declares(hostvars[host], app))
    return str(next(declaring, own))


def _variables_of(group, plugin, task_vars):
    """{host: the roles' variables, as plain data} of the other hosts of a group."""
    found = {}
    for host in task_vars["groups"].get(group, ()):
        if host != task_vars["inventory_hostname"]:
            own = task_vars["hostvars"][host]
            found[host] = plain_variables(
                plugin._templar, plugin._loader, {name: own[name] for name in role_variables() if name in own}
            )
    return found


def _connection_of(variables, host):
    return str(variables.get("ansible_host", host))


def _balancers_of(group, task_vars):
    """{host: (what it states as its address, where Ansible connects to)} of a group."""
    found = {}
    for host in task_vars["groups"].get(group, ()):
        variables = task_vars["hostvars"][host]
        found[host] = (str(variables.get("load_balancer_address", "")), _connection_of(variables, host))
    return found


def _hosts_of_play(plugin, task_vars):
    task = getattr(plugin, "_task", None)
    if task is None:  # a lookup knows no more than the hosts that are left by --limit
        return task_vars["ansible_play_hosts_all"]
    pattern = plugin._templar.template(task.get_play().hosts)
    hostnames = lookup_loader.get("ansible.builtin.inventory_hostnames", loader=plugin._loader)
    return hostnames.run([pattern] if isinstance(pattern, str) else pattern, variables=task_vars)


def _declares(variables, app):
    try:
        defaults = variables.get("flask_app_defaults", {})
        override = variables.get("flask_app_overrides", {}).get(app, {})
        return any(
            {"state": "present", **defaults, **entry, **override}["state"] != "absent"
            for entry in variables.get("flask_apps", ())
            if entry["name"] == app
        )
    except Exception:  # pylint: disable=broad-exception-caught
        return False  # that host's own plan will tell what is wrong with its list
