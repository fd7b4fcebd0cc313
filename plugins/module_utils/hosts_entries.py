# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of a hosts file (hosts(5)) for apps, each marked with the app and the host that it belongs to.

On the controller only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, NamedTuple

from .plan import host_label
from .plan.schema import Judge, role_options

MAX_NAME = 253  # characters of a host name (RFC 1035, without the final dot)

_LINE = re.compile(r"\S+ (?P<names>.+) # (?P<app>\S+) on (?P<host>\S+)")
_HOST = re.compile(r"[^\s#]+")


class EntriesError(Exception):
    """The input cannot be made entries. Its text has one line for each problem."""


class _App(NamedTuple):
    name: str
    domain: str
    aliases: list[str]


def hosts_entries(apps: Any, hosts: Any, host_names: bool = True, balancers: Any = None) -> list[dict[str, Any]]:
    """List the names of apps with the addresses of the hosts that serve them.

    apps: dictionaries as in `flask_apps` or in the plan; only name, domain, aliases and state are looked at. hosts:
    {inventory name: IP address}, or a list of {name, address}. host_names: whether to list `<host>.<domain>` as well.
    balancers: in the shape of hosts, those that stand in front of them and have the domains then.

    Returns [{address, names, app, host}], balancers first, then host by host in the order given. No name has the same
    address twice. Raises EntriesError with all problems.
    """
    judge = Judge()
    served = _read_apps(judge, apps)
    addresses = _read_hosts(judge, hosts)
    in_front = _read_hosts(judge, balancers or {})
    _raise(judge)
    taken = {name for app in served for name in (app.domain, *app.aliases)}
    seen = set()
    entries = [
        {"address": address, "names": list(dict.fromkeys([app.domain, *app.aliases])), "app": app.name, "host": host}
        for host, address in in_front.items()
        for app in served
    ]
    for host, address in addresses.items():
        label = host_label(host) if host_names else ""
        for app in served:
            names = [] if in_front else [app.domain, *app.aliases]
            host_name = f"{label}.{app.domain}"
            if label and host_name not in taken and len(host_name) <= MAX_NAME:
                names.append(host_name)
            names = [name for name in dict.fromkeys(names) if (address, name) not in seen]
            seen.update((address, name) for name in names)
            if names:
                entries.append({"address": address, "names": names, "app": app.name, "host": host})
    return entries


def app_domains(apps: Any, aliases: bool = False) -> list[str]:
    """List the domains of apps in their order, each once. aliases: whether further names follow each domain.

    apps: as for `hosts_entries`. Raises EntriesError with all problems.
    """
    judge = Judge()
    served = _read_apps(judge, apps)
    _raise(judge)
    return list(dict.fromkeys(name for app in served for name in (app.domain, *(app.aliases if aliases else ()))))


def hosts_block(text: str, entries: list, hosts: list, kept_apps: list = (), marker: str = "flaskfleet.deploy") -> str:
    """Bring the block of a hosts file up to date for some hosts.

    text: the file. entries: as `hosts_entries` returns them. hosts: inventory names; a line that belongs to one of them
    goes unless it is among the entries or belongs to one of the kept_apps. All other lines of the block stay, but for
    those that an entry replaces, and so does the order, whichever hosts come first. marker: what follows BEGIN and END
    in the lines around the block.

    Returns the lines between the two markers, an empty string when none are left.
    """
    fresh = {(entry["app"], entry["host"]): _line(entry["names"], entry) for entry in entries}
    current = {entry["host"]: entry for entry in entries}
    block = []
    for line in _inner_lines(text, marker):
        found = _LINE.fullmatch(line)
        owner = found and (found["app"], found["host"])
        if owner in fresh:
            line = fresh.pop(owner)
        elif found and found["host"] in hosts:
            if found["app"] not in kept_apps:
                continue
            elif found["host"] in current:
                line = _line(found["names"].split(), {**current[found["host"]], "app": found["app"]})
        block.append(line)
    return "\n".join([*block, *fresh.values()])


def _line(names, entry):
    return f"{entry['address']} {' '.join(names)} # {entry['app']} on {entry['host']}"


def _inner_lines(text, marker):
    """Find the block as ansible.builtin.blockinfile does: between the last of each marker."""
    lines = text.splitlines()
    ends = [f"# BEGIN {marker}", f"# END {marker}"]
    if not all(end in lines for end in ends):
        return []
    begin, end = (len(lines) - 1 - lines[::-1].index(marker_line) for marker_line in ends)
    return lines[begin + 1 : end]


def _read_apps(judge, apps):
    """Read the apps that are present, by the same rules as the plan. Nothing else of an app is touched."""
    if not _is_list(apps):
        judge.refuse("", "apps", "must be a list of dictionaries", "[{name: hello, domain: hello.example.org}]")
        return []
    options = role_options("flask_app")["flask_apps"].options
    served = []
    for index, app in enumerate(apps):
        place = f"apps[{index}]"
        if not isinstance(app, Mapping):
            judge.refuse(place, "", "must be a dictionary", "{name: hello, domain: hello.example.org}")
            continue
        for key in ("name", "domain"):
            if key not in app:
                judge.refuse(place, key, "is missing", options[key].example)
        values = {
            key: judge.value(place, key, options[key], _plain(app[key]))
            for key in ("name", "domain", "aliases")
            if key in app
        }
        if app.get("state", "present") != "absent" and not judge.errors:
            served.append(_App(values["name"], values["domain"], values.get("aliases", [])))
    return served


def _read_hosts(judge, hosts):
    """Read {inventory name: address}, the addresses in their shortest form."""
    example = "{web1: 192.0.2.11}"
    if isinstance(hosts, Mapping):
        pairs = list(hosts.items())
    elif _is_list(hosts) and all(isinstance(host, Mapping) and {"name", "address"} <= set(host) for host in hosts):
        pairs = [(host["name"], host["address"]) for host in hosts]
    else:
        judge.refuse("", "hosts", "must be a dictionary, or a list of {name, address}", example)
        return {}
    addresses = {}
    for index, (name, address) in enumerate(pairs):
        if not isinstance(name, str) or not _HOST.fullmatch(name):
            judge.refuse(f"hosts[{index}]", "name", "must be an inventory name without spaces and `#`", "web1")
            continue
        try:
            # a number would be read as an address as well
            addresses[str(name)] = str(ip_address(str(address) if isinstance(address, str) else ""))
        except ValueError:
            judge.refuse(f"hosts[{index}] ({name})", "address", "must be an IP address", "192.0.2.11")
    return addresses


def _is_list(value):
    return isinstance(value, (list, tuple))


def _plain(value):
    """Take Ansible's tags off a string or a list of them; anything else as it is, to be refused."""
    if _is_list(value):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, str) else value


def _raise(judge):
    if judge.errors:
        raise EntriesError("\n".join(judge.errors))
