# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports of a firewall, ufw or firewalld. What is open is read from their files, since their own tools take long."""

from __future__ import annotations

import os
import re
import subprocess

_SERVICES = {80: "http", 443: "https"}
# action, protocol, ports, destination, source's port, source, two words on profiles if it is made of any, direction
_UFW_RULE = re.compile(
    r"^### tuple ### (?:allow|limit) (?:tcp|any) (\S+) 0\.0\.0\.0/0 any 0\.0\.0\.0/0 (?:\S+ \S+ )?in(?: |$)",
    re.MULTILINE,
)


class FirewallError(Exception):
    """A port could not be opened; the text has the firewall's own words."""


def look(ports, root="/"):
    """(name of the firewall that runs, empty when none does; those of ``ports`` that it keeps closed).

    :param ports: list of int, TCP
    """
    for name, is_on, is_open in (
        ("ufw", _ufw_is_on, _open_in_ufw),
        ("firewalld", _firewalld_is_on, _open_in_firewalld),
    ):
        if is_on(root):
            found = is_open(root)
            return name, [port for port in ports if not any(low <= port <= high for low, high in found)]
    return "", []


def open_ports(firewall, ports):
    """Open TCP ports for everybody, now and after a reboot.

    :raises FirewallError:
    """
    for port in ports:
        if firewall == "ufw":
            commands = [["ufw", "allow", f"{port}/tcp"]]
        else:
            service = _SERVICES.get(port)
            rule = f"--add-service={service}" if service else f"--add-port={port}/tcp"
            # what lasts comes last: it is what a run looks at
            commands = [["firewall-cmd", rule], ["firewall-cmd", "--permanent", rule]]
        for command in commands:
            done = _run(command)
            if done.returncode:
                raise FirewallError(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()[-1000:]}")


def _ufw_is_on(root):
    return re.search(r"^ENABLED=yes$", _text(root, "etc/ufw/ufw.conf"), re.MULTILINE) is not None


def _open_in_ufw(root):
    """Ranges of ports that a rule opens for everybody. The rules of an application's profile say its ports, too."""
    rules = _UFW_RULE.findall(_text(root, "etc/ufw/user.rules"))
    return [_range(part, ":") for ports in rules for part in ports.split(",")]


def _firewalld_is_on(root):
    if not os.path.exists(os.path.join(root, "usr/sbin/firewalld")):
        return False
    return _run(["systemctl", "is-active", "--quiet", "firewalld"]).returncode == 0


def _open_in_firewalld(root):
    """Ranges of ports that the default zone opens after a reboot."""
    match = re.search(r"^DefaultZone=(\S+)$", _text(root, "etc/firewalld/firewalld.conf"), re.MULTILINE)
    name = f"{match[1] if match else 'public'}.xml"
    text = _text(root, f"etc/firewalld/zones/{name}") or _text(root, f"usr/lib/firewalld/zones/{name}")
    import xml.etree.ElementTree  # here, since most hosts have no firewalld, and it takes longer than the rest

    try:
        zone = xml.etree.ElementTree.fromstring(text)
    except xml.etree.ElementTree.ParseError:
        return []
    if zone.get("target") == "ACCEPT":
        return [(0, 65535)]
    services = {each.get("name") for each in zone.findall("service")}
    found = [(port, port) for port, service in _SERVICES.items() if service in services]
    ports = zone.findall("port")
    return found + [_range(each.get("port", ""), "-") for each in ports if each.get("protocol") == "tcp"]


def _range(text, separator):
    """(lowest, highest) port; an impossible one of what is no port."""
    low, _separator, high = text.partition(separator)
    return (int(low), int(high or low)) if low.isdigit() and (high or low).isdigit() else (-1, -1)


def _text(root, path):
    try:
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def _run(command):
    try:
        return subprocess.run(  # pylint: disable=ansible-bad-function  # no AnsibleModule here, and a time limit
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))
