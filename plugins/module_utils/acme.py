# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates that an authority issues by ACME (RFC 8555): their orders by certbot."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import time
import urllib.error

from ansible.module_utils.urls import open_url

from .lineages import CHALLENGES, ROOT, Lineage, look, run_command

ORDER_TIMEOUT = 300  # seconds
BUSY_TIMEOUT = 120  # seconds that another certbot may take, such as the timer's
DIRECTORY_TIMEOUT = 20  # seconds
OUTPUT_LIMIT = 2000  # characters of what certbot says of a failure, the last ones
_BUSY = "Another instance of Certbot is already running"
# Lines of certbot that say nothing of what went wrong.
_CHATTER = re.compile(
    r"(Saving debug log|Ask for help|Renewing an existing|Requesting a certificate|Account registered)"
)


class AcmeError(Exception):
    """What was asked of certbot or systemd has failed; the text says why."""


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
        done = run_command(["systemctl", *verb, timer])
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
            done = run_command([program, "--non-interactive", *arguments], ORDER_TIMEOUT, **environment)
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
