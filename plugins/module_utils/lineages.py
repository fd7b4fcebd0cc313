# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host has of certificates that an authority issues, and which are due. Reads only; acme has them ordered.

certbot calls what belongs to one certificate a lineage. Those of the sites carry a prefix; no other one is touched.
"""

from __future__ import annotations

import os
import re
import subprocess
import time

from .certificates import is_sound

PREFIX = "flaskfleet-"
ROOT = "/etc/letsencrypt"
# Where certbot puts the answers to challenges, and nginx finds them. SELinux lets both, below /var/www.
CHALLENGES = "/var/www/flaskfleet-acme"

# Argument specification of what is looked at.
OPTIONS = {
    "certificates": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "domains": {"type": "list", "elements": "str", "required": True},
            "file": {"type": "path", "required": True},
        },
    },
    "removed": {"type": "list", "elements": "str", "default": []},
    "declared": {"type": "list", "elements": "str", "default": []},
    "purge_undeclared": {"type": "bool", "default": False},
    "directory": {"type": "str", "default": ""},
    "key_type": {"type": "str", "choices": ["ecdsa", "rsa"], "default": "ecdsa"},
    "timer": {"type": "str", "default": ""},
}
NOTHING = {name: option["default"] for name, option in OPTIONS.items()}

_SETTING = re.compile(r"^(\w+) = (.*)$", re.MULTILINE)


class Lineage:
    """A certificate of certbot's, by the name of its site."""

    def __init__(self, site, root=ROOT):
        self.name = PREFIX + site
        self.configuration = os.path.join(root, "renewal", f"{self.name}.conf")
        self.live = os.path.join(root, "live", self.name)
        self.archive = os.path.join(root, "archive", self.name)

    def is_whole(self):
        """Whether certbot has a certificate by this name that it can renew and nginx can use."""
        return os.path.exists(self.configuration) and bool(issued(self.live))

    def settings(self):
        """{key: value} of what it was ordered with."""
        with open(self.configuration, encoding="utf-8", errors="replace") as stream:
            return dict(_SETTING.findall(stream.read()))

    def reason_to_order(self, domains, options, now):
        """Why it has to be ordered (anew), empty when it has not. ``now``: seconds since the epoch."""
        if not self.is_whole():
            return "there is none yet"
        settings = self.settings()
        if settings.get("server") != options["directory"]:
            return "it is of another authority"
        if settings.get("key_type", options["key_type"]) != options["key_type"]:
            return "its key is of another type"
        names, begins, ends = _read(os.path.join(self.live, "fullchain.pem"))
        if names != set(domains):
            return "the names of its site have changed"
        # certbot's timer renews when a third is left
        if now > ends - (ends - begins) / 4:
            return "it was not renewed in time"
        return ""


def issued(live):
    """Key and chain of a lineage, given by its folder, as the text of one file.

    Empty when there is none, or when certbot has replaced only half of it so far.
    """
    key, chain = (os.path.join(live, name) for name in ("privkey.pem", "fullchain.pem"))
    if not is_sound(chain, key):
        return ""
    try:
        text = ""
        for path in (key, chain):
            with open(path, encoding="ascii") as stream:
                text += stream.read()
        return text
    except (OSError, ValueError):  # UnicodeError is a ValueError
        return ""


def look(options, root=ROOT):
    """What a host has of the certificates, and what there is to do; reads only.

    :param options: dict with the keys of OPTIONS
    :returns: dict of ``there``: names of sites that can be served by HTTPS; ``due``: {name: why it is to be ordered};
        ``stale``: names of sites whose lineage is to go; ``kept``: names of sites that are not declared and keep
        theirs; ``renewing``: whether the timer runs; ``todo``: whether anything of it has to be changed
    """
    now = time.time()
    due, there = {}, []
    for each in options["certificates"]:
        lineage = Lineage(each["name"], root)
        if lineage.is_whole() or os.path.exists(each["file"]):
            there.append(each["name"])
        why = lineage.reason_to_order(each["domains"], options, now)
        if why:
            due[each["name"]] = why
    lineages = _sites_with_lineages(root)
    undeclared = [name for name in lineages if name not in options["declared"]]
    stale = [
        name for name in lineages if name in options["removed"] or (options["purge_undeclared"] and name in undeclared)
    ]
    renewing = not options["timer"] or _runs(options["timer"])
    return {
        "there": there,
        "due": due,
        "stale": stale,
        "kept": [name for name in undeclared if name not in stale],
        "renewing": renewing,
        "todo": bool(due or stale or not renewing),
    }


def _sites_with_lineages(root):
    try:
        entries = sorted(os.listdir(os.path.join(root, "renewal")))
    except OSError:
        return []
    return [entry[len(PREFIX) : -len(".conf")] for entry in entries if re.fullmatch(rf"{PREFIX}.+\.conf", entry)]


def _runs(timer):
    """Whether a unit of systemd runs, and will after a reboot."""
    try:
        shown = run_command(["systemctl", "show", "--property=ActiveState,UnitFileState", timer]).stdout
    except OSError:
        return False
    return {"ActiveState=active", "UnitFileState=enabled"} <= set(shown.splitlines())


def _read(path):
    """(names, begin, end) of the first certificate in a file; the times in seconds since the epoch.

    Python can't, and the interpreter that Ansible has chosen may have no library for it.
    """
    done = run_command(["openssl", "x509", "-noout", "-dates", "-ext", "subjectAltName", "-in", path])
    names = re.findall(r"DNS:([^,\s]+)", done.stdout)
    dates = dict(re.findall(r"^(not\w+)=(.+)$", done.stdout, re.MULTILINE))
    return set(names), *(_seconds(dates[key]) for key in ("notBefore", "notAfter"))


def _seconds(shown):
    import ssl  # as in `is_sound`, which comes before

    return ssl.cert_time_to_seconds(shown)  # whatever the locale calls the months


def run_command(command, timeout=60, **environment):
    return subprocess.run(  # pylint: disable=ansible-bad-function  # no AnsibleModule here, and a time limit
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8", **environment},
    )
