# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates that an authority issues by ACME (RFC 8555): which are due on a host, and their orders by certbot.

certbot calls what belongs to one certificate a lineage. Those of the sites carry a prefix; no other one is touched.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import ssl
import subprocess
import time
import urllib.error

from ansible.module_utils.urls import open_url

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

ORDER_TIMEOUT = 300  # seconds
BUSY_TIMEOUT = 120  # seconds that another certbot may take, such as the timer's
DIRECTORY_TIMEOUT = 20  # seconds
OUTPUT_LIMIT = 2000  # characters of what certbot says of a failure, the last ones
_BUSY = "Another instance of Certbot is already running"
# Lines of certbot that say nothing of what went wrong.
_CHATTER = re.compile(
    r"(Saving debug log|Ask for help|Renewing an existing|Requesting a certificate|Account registered)"
)
_SETTING = re.compile(r"^(\w+) = (.*)$", re.MULTILINE)


class AcmeError(Exception):
    """What was asked of certbot or systemd has failed; the text says why."""


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
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key)
        text = ""
        for path in (key, chain):
            with open(path, encoding="ascii") as stream:
                text += stream.read()
        return text
    except (OSError, ValueError):  # ssl.SSLError is an OSError, UnicodeError a ValueError
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


def carry_out(options, check_mode, root=ROOT):
    """Order what is due, remove what is to go, have the rest renewed.

    :param options: dict with the keys of OPTIONS and email, ca_file
    :returns: ``look`` as it was before, but for ``there``; and ``changed``, ``ordered``: names of sites, ``errors``:
        one text for each failure
    """
    found = look(options, root)
    if check_mode:
        there = [each["name"] for each in options["certificates"]]
        return {**found, "there": there, "changed": found["todo"], "ordered": list(found["due"]), "errors": []}
    errors = _order_all(found["due"], options, root)
    tasks = {name: functools.partial(_remove, Lineage(name, root)) for name in found["stale"]}
    if not found["renewing"]:
        tasks[options["timer"]] = functools.partial(_start, options["timer"])
    for name, task in tasks.items():
        _try(task, name, errors)
    return {
        **found,
        "there": look({**options, "timer": ""}, root)["there"],
        "changed": not errors.keys() >= {*found["due"], *tasks},
        "ordered": [name for name in found["due"] if name not in errors],
        "errors": [f"{name}: {text}" for name, text in errors.items()],
    }


def _try(task, name, errors):
    """Call it, and note in ``errors`` under ``name`` why it failed."""
    try:
        task()
    except (AcmeError, OSError, subprocess.TimeoutExpired) as error:
        errors[name] = str(error)


def _order_all(due, options, root):
    """{name: what was said} of the orders that failed."""
    if not due:
        return {}
    # Of an authority that can't be reached, certbot would say so once per certificate, after a time-out each.
    problem = _unreachable(options["directory"])
    if problem:
        return dict.fromkeys(due, f"no certificate was issued: {problem}")
    errors = {}
    for each in options["certificates"]:
        if each["name"] in due:
            lineage = Lineage(each["name"], root)
            _try(functools.partial(_order, lineage, each["domains"], options), each["name"], errors)
    return errors


def _order(lineage, domains, options):
    if not lineage.is_whole():
        _remove(lineage)  # half a lineage: certbot would refuse the name
    account = ["--email", options["email"]] if options["email"] else ["--register-unsafely-without-email"]
    names = [word for domain in domains for word in ("--domain", domain)]
    _certbot(
        [
            *("certonly", "--cert-name", lineage.name, *names, "--agree-tos", *account),
            *("--server", options["directory"], "--key-type", options["key_type"]),
            *("--webroot", "--webroot-path", CHALLENGES),
            # It is due, whatever certbot thinks. The run tells nginx, after all of them.
            *("--force-renewal", "--renew-with-new-domains", "--no-directory-hooks"),
        ],
        options["ca_file"],
    )


def _remove(lineage):
    """Remove a lineage or what is left of it."""
    if os.path.exists(lineage.configuration):
        _certbot(["delete", "--cert-name", lineage.name])
    for folder in (lineage.live, lineage.archive):
        shutil.rmtree(folder, ignore_errors=True)


def _start(timer):
    for verb in (["unmask"], ["enable", "--now"]):
        done = _run(["systemctl", *verb, timer])
        if done.returncode:
            raise AcmeError(f"systemctl {verb[0]} failed:\n{done.stderr.strip()[-OUTPUT_LIMIT:]}")


def _certbot(arguments, ca_file=""):
    """:raises AcmeError: with what certbot says"""
    # The distribution's, as its timer calls it, and not one of another source that has folders of its own.
    program = shutil.which("certbot", path="/usr/bin:/usr/sbin:/bin:/sbin")
    if not program:
        raise AcmeError("certbot is not installed")
    environment = {"REQUESTS_CA_BUNDLE": ca_file} if ca_file else {}
    deadline = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            done = _run([program, "--non-interactive", *arguments], ORDER_TIMEOUT, **environment)
        except subprocess.TimeoutExpired:
            raise AcmeError(f"certbot took longer than {ORDER_TIMEOUT} s") from None
        if not done.returncode:
            return
        if _BUSY not in done.stdout + done.stderr or time.monotonic() > deadline:
            raise AcmeError(f"certbot {arguments[0]} failed:\n{essence(done.stdout + done.stderr)}")
        time.sleep(2)


def essence(output):
    """What certbot says, without what it says always."""
    lines = [line.rstrip() for line in output.splitlines() if not _CHATTER.match(line)]
    text = re.sub(r"\n{2,}", "\n", "\n".join(lines)).strip()
    return text[-OUTPUT_LIMIT:] or "certbot failed and said nothing"


def _unreachable(directory):
    """Why an authority's directory can't be read, empty when it can. Whether it is to be trusted, certbot sees."""
    try:
        open_url(directory, timeout=DIRECTORY_TIMEOUT, validate_certs=False).read()
    except urllib.error.HTTPError as error:
        return f"{directory} answers with status {error.code}"
    except (OSError, ValueError) as error:
        return f"{directory} can't be reached: {getattr(error, 'reason', error)}"
    return ""


def _sites_with_lineages(root):
    try:
        entries = sorted(os.listdir(os.path.join(root, "renewal")))
    except OSError:
        return []
    return [entry[len(PREFIX) : -len(".conf")] for entry in entries if re.fullmatch(rf"{PREFIX}.+\.conf", entry)]


def _runs(timer):
    """Whether a unit of systemd runs, and will after a reboot."""
    try:
        shown = _run(["systemctl", "show", "--property=ActiveState,UnitFileState", timer]).stdout
    except OSError:
        return False
    return {"ActiveState=active", "UnitFileState=enabled"} <= set(shown.splitlines())


def _read(path):
    """(names, begin, end) of the first certificate in a file; the times in seconds since the epoch.

    Python can't, and the interpreter that Ansible has chosen may have no library for it.
    """
    done = _run(["openssl", "x509", "-noout", "-dates", "-ext", "subjectAltName", "-in", path])
    names = re.findall(r"DNS:([^,\s]+)", done.stdout)
    dates = dict(re.findall(r"^(not\w+)=(.+)$", done.stdout, re.MULTILINE))
    return set(names), *(ssl.cert_time_to_seconds(dates[key]) for key in ("notBefore", "notAfter"))


def _run(command, timeout=60, **environment):
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
