# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Word of what became of a run: what is said, in which shape, and how it gets out.

What is said is made of names of hosts, apps and releases, of addresses, and of the reasons that the modules give, which
they have freed of secrets. Output of apps and lines of journals, which may hold anything, are left out.
"""

from __future__ import annotations

import email.message
import email.policy
import hashlib
import hmac
import json
import shutil
import subprocess
import threading
import time
import urllib.error

from ansible.module_utils.urls import open_url
from ansible.utils.helpers import pct_to_int

EVENTS = ("failure", "return", "certificate", "success")  # the first one that happened heads the message
LINES = 30  # of a message for people
LINE_LENGTH = 300
SENDMAIL_PATH = "/usr/sbin:/usr/lib:/sbin"
_HEADINGS = {
    "failure": "Deployment failed",
    "return": "Traffic went back",
    "certificate": "Certificates were not issued",
    "success": "Deployed",
    "nothing": "Nothing to tell",
}


def message(variables, hosts, rollback=False, now=None):
    """What there is to say of a run.

    :param variables: {host: its variables}, with what the roles' tasks have registered
    :param hosts: names of the hosts whose turn has come
    :returns: dict of plain data: event, events, title, text, rollback, at, hosts, apps, certificates
    """
    apps, troubled, certificates = [], [], []
    for host in hosts:
        registered = variables[host]
        apps += _apps(host, registered)
        certificates += [
            {"host": str(host), "reason": _line(error)}
            for error in (registered.get("__nginx_site_orders") or {}).get("errors", ())
        ]
        reason = "" if registered.get("__flask_app_word_done") else _reason(registered)
        if reason:
            troubled.append({"host": str(host), "reason": reason})
    failed = [each for each in apps if each["result"] == "failed"]
    returned = [each for each in apps if each["result"] == "returned"]
    released = [each for each in apps if each["result"] == "released"]
    happened = {
        "failure": failed or troubled,
        "return": returned,
        "certificate": certificates,
        "success": released and not (failed or troubled or returned),
    }
    events = [event for event in EVENTS if happened[event]]
    found = {"event": events[0] if events else "nothing", "events": events, "rollback": rollback}
    found.update(apps=apps, hosts=troubled, certificates=certificates)
    found["at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    told = [f"{each['app']} on {each['host']}: {_what(each)}" for each in (*failed, *returned, *released)]
    told = [f"{each['host']}: {each['reason']}" for each in troubled] + told
    told += [f"{each['host']}: {each['reason']}" for each in certificates]
    concerned = failed or returned or released
    names = list(dict.fromkeys(each["app"] for each in concerned)) or [each["host"] for each in troubled]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    heading = "Rolled back" if rollback and found["event"] == "success" else _HEADINGS[found["event"]]
    found["title"] = heading + (f": {', '.join(names[:5])}{more}" if names and found["event"] != "certificate" else "")
    kept = told[:LINES] + ([f"and {len(told) - LINES} more"] if len(told) > LINES else [])
    found["text"] = "\n".join(kept)
    return found


def _apps(host, registered):
    """What became of the apps of a host; those that stayed as they were are left out."""
    releases = (registered.get("__flask_app_releases") or {}).get("apps", {})
    # of a rollout that was stopped, and undone
    returned = (registered.get("__flask_rollout_returned") or {}).get("apps", {})
    found = []
    for app, entry in {**releases, **returned}.items():
        if entry["from"] != entry["to"]:
            told = {key: entry[key] for key in ("from", "to", "seconds", "url")}
            found.append({"host": str(host), "app": str(app), "result": "released", **told, "reason": ""})
    for register in ("__flask_app_builds", "__flask_app_releases"):
        for error in (registered.get(register) or {}).get("errors", ()):
            back = error["step"] == "settle"
            told = {"from": None, "to": None, "seconds": 0, "url": ""}
            # a release that fails behind its switch may be among those that have the traffic
            found = [each for each in found if each["app"] != error["app"]]
            reason = _line(f"{error['step']}: {error['message']}")
            result = "returned" if back else "failed"
            found.append({"host": str(host), "app": str(error["app"]), "result": result, **told, "reason": reason})
    return found


def _reason(registered):
    """Why a host did not come to the end of its tasks, when its apps do not tell; empty when they do."""
    if any((registered.get(name) or {}).get("errors") for name in ("__flask_app_builds", "__flask_app_releases")):
        return ""
    if not any(registered.get(name) for name in ("__nginx_site_plan", "__flask_app_plan")):
        return "could not be reached, or failed at its start"
    # in their order; only modules of this collection, whose messages have no secrets
    for part in ("nginx_site", "backing_service", "flask_app"):
        for name in ("plan", "packages", "nginx", "files", "orders", "units", "builds", "releases"):
            result = registered.get(f"__{part}_{name}") or {}
            if result.get("failed"):
                return _line(result.get("msg") or "failed")
    return "a task failed, the run's output tells why"


def _what(entry):
    if entry["result"] != "released":
        return entry["reason"]
    took = f" in {entry['seconds']} s" if entry["seconds"] else ""
    return f"{entry['from'] or 'nothing'} -> {entry['to']}{took}, {entry['url']}"


def _line(text):
    """The first line of a text, not too long."""
    first = (str(text).strip().splitlines() or [""])[0]
    return first if len(first) <= LINE_LENGTH else f"{first[:LINE_LENGTH]}…"


def reached(hosts, serial, active):
    """The hosts whose turn has come: in play order, up to the end of the wave that an active one is in.

    Ansible takes hosts that have failed out of every list of the current wave.

    :param hosts: all hosts of the play
    :param serial: of the play: numbers and percentages, empty for one wave
    :param active: names of hosts that are known to have been at work
    """
    sizes = [pct_to_int(size, len(hosts)) for size in serial] or [len(hosts)]
    end = 0
    while end < len(hosts) and (end == 0 or set(active) & set(hosts[end:])):
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        end += size if size > 0 else len(hosts)
    return hosts[:end]


# --- shapes ----------------------------------------------------------------------------------------------------------


def request(entry, told):
    """The body (bytes) and headers of the request that a webhook gets.

    :param entry: of ``flask_app_notify``
    :param told: what ``message`` returned
    """
    headers = {"Content-Type": "application/json"}
    block = f"```\n{told['text'].replace('```', chr(39) * 3)}\n```" if told["text"] else ""
    if entry["format"] == "ntfy":
        headers = {
            "Content-Type": "text/plain; charset=utf-8",
            "Title": told["title"].encode("ascii", "replace").decode(),
            "Priority": "default" if told["event"] == "success" else "high",
            "Tags": "white_check_mark" if told["event"] == "success" else "warning",
        }
        body = told["text"] or told["title"]
    elif entry["format"] == "slack":
        # https://api.slack.com/reference/surfaces/formatting#escaping
        text = f"*{told['title']}*\n{block}"
        body = json.dumps({"text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")})
    elif entry["format"] == "mattermost":
        body = json.dumps({"text": f"**{told['title']}**\n{block}"})
    else:
        body = json.dumps(told)
    body = body.encode()
    if entry["token"]:
        headers["Authorization"] = f"Bearer {entry['token']}"
    if entry["secret"]:
        digest = hmac.new(entry["secret"].encode(), body, hashlib.sha256).hexdigest()
        headers["X-Flaskfleet-Signature-256"] = f"sha256={digest}"
    return body, headers


def mail(entry, told):
    """The mail (bytes) that says it."""
    letter = email.message.EmailMessage(policy=email.policy.SMTP.clone(linesep="\n"))
    letter["Subject"] = told["title"]
    letter["To"] = ", ".join(entry["to"])
    if entry["from"]:
        letter["From"] = entry["from"]
    letter["Auto-Submitted"] = "auto-generated"
    letter.set_content(f"{told['text']}\n")
    return letter.as_bytes()


# --- deliveries ------------------------------------------------------------------------------------------------------


class NotDelivered(Exception):
    """A delivery failed; the text says how, and neither where to nor with what."""


def deliver_all(entries, told):
    """Deliver to all at once; nobody waits longer than the longest ``timeout`` of theirs.

    :param entries: list of those of ``flask_app_notify`` that want to hear it, webhooks and mails
    :returns: for each why it was not delivered, empty when it was
    """
    outcomes = ["" for _entry in entries]

    def deliver(number, entry):
        try:
            (_post if entry["kind"] == "webhook" else _send)(entry, told)
        except NotDelivered as problem:
            outcomes[number] = str(problem)
        except Exception as problem:  # pylint: disable=broad-exception-caught  # its text may have the URL in it
            outcomes[number] = type(problem).__name__

    threads = [
        threading.Thread(target=deliver, args=each, daemon=True)  # one that hangs must not keep the run from ending
        for each in enumerate(entries)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + max((entry["timeout"] for entry in entries), default=0)
    for number, thread in enumerate(threads):
        thread.join(max(deadline - time.monotonic(), 0))
        if thread.is_alive():
            outcomes[number] = "no answer in time"
    return outcomes


def _post(entry, told):
    body, headers = request(entry, told)
    try:
        # no redirection: the next one would get what is for this one
        with open_url(
            entry["url"],
            method="POST",
            data=body,
            headers=headers,
            timeout=entry["timeout"],
            follow_redirects="none",
            http_agent="flaskfleet.deploy",
        ) as answer:
            status = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
    except urllib.error.URLError as error:
        reason = error.reason
        # the text of a system's error, such as "Connection refused", has no names in it
        text = getattr(reason, "strerror", None) or type(reason).__name__
        raise NotDelivered("no answer in time" if isinstance(reason, TimeoutError) else text) from None
    if not 200 <= status < 300:
        raise NotDelivered(f"HTTP status {status}")


def _send(entry, told):
    program = shutil.which("sendmail", path=SENDMAIL_PATH) or shutil.which("sendmail")
    if not program:
        raise NotDelivered("this machine has no sendmail")
    try:
        # addresses are read from the mail, so they are in no list of processes
        subprocess.run(
            [program, "-t", "-i"], input=mail(entry, told), capture_output=True, check=True, timeout=entry["timeout"]
        )
    except subprocess.CalledProcessError as error:
        raise NotDelivered(f"sendmail exited with status {error.returncode}") from None
    except subprocess.TimeoutExpired:
        raise NotDelivered("sendmail did not end in time") from None
