# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The status of all apps as one HTML page that needs nothing else: no other file, no server, no network.

What hosts tell (subjects of commits, lines of journals) was written by anybody. It is escaped in one place, ``_text``,
and the page's own policy lets no script and no style run but the two whose digests it names.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
import time
from pathlib import Path

FILES = Path(__file__).parents[2] / "playbooks" / "files"
COLUMNS = (
    "App",
    "Host",
    "Health",
    "Release",
    "Commit",
    "Since",
    "Certificate",
    "Failed releases",
    "Drift",
    "Backups",
)
CERTIFICATE_DAYS = 20  # fewer deserve a look: renewals begin with 30 days left
# Health from worst to best, as it is sorted; the words are those of the filter, too.
HEALTH = ("unreachable", "failed", "degraded", "settling", "ok")
_CLASSES = {"unreachable": "bad", "failed": "bad", "degraded": "warn", "settling": "warn", "ok": "ok"}
_FILTERS = {
    "": "all",
    "attention": "needs attention",
    "unreachable": "unreachable",
    "failed": "failed",
    "degraded": "degraded",
    "settling": "settling",
    "rejected": "with failed releases",
    "drift": "with drift",
    "expiring": f"certificate for less than {CERTIFICATE_DAYS} days",
}
# Controls, and what turns the direction of the text around it.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def status_entries(variables, hosts):
    """One entry for each app of each host, as app_info tells it, with the last pull of the host; a host that was not
    reached has one without an app.

    :param variables: {host: its variables}, with the registered result of app_info as ``__flask_app_info``
    :param hosts: the hosts to tell of
    """
    entries = []
    for host in hosts:
        found = variables[host].get("__flask_app_info") or {}
        problem = found.get("msg", "no answer")
        apps = found.get("apps", [{"app": None, "healthy": False, "problem": problem}])
        entries += [{"host": str(host), "pull": found.get("pull"), **app} for app in apps]
    return entries


def status_page(entries, title="Flask apps", now=None):
    """The page.

    :param entries: list of what app_info tells of an app, each with its ``host``; of a host that was not reached an
        entry with ``app`` None and the ``problem``
    :param now: seconds since 1970
    :returns: its HTML
    """
    now = time.time() if now is None else now
    entries = sorted(entries, key=lambda each: (each["app"] or "", each["host"]))
    labels = "\n".join(
        f'  td:nth-child({number})::before {{ content: "{name}"; }}' for number, name in enumerate(COLUMNS[1:], 2)
    )
    style = FILES.joinpath("status.css").read_text(encoding="utf-8").replace("LABELS", labels)
    script = FILES.joinpath("status.js").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )
    options = "".join(f'<option value="{value}">{name}</option>' for value, name in _FILTERS.items())
    heads = "".join(f'<th scope="col" role="columnheader">{name}</th>' for name in COLUMNS)
    rows = "\n".join(_row(each, now) for each in entries)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta name="referrer" content="no-referrer">
<title>{_text(title)}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{_text(title)}</h1>
<p>{_summary(entries)} <span class="muted">As of {_time(now)}, all times in UTC.</span></p>
<form id="filter" role="search" hidden>
<label>Search <input name="words" type="search" autocomplete="off" spellcheck="false"></label>
<label>Show <select name="state">{options}</select></label>
<label class="narrow">Sort by <select name="order"></select></label>
<span id="count" class="muted" role="status"></span>
</form>
<table role="table">
<caption>Apps by host</caption>
<thead role="rowgroup"><tr role="row">{heads}</tr></thead>
<tbody role="rowgroup">
{rows}
</tbody>
</table>
</main>
<script>{script}</script>
</body>
</html>
"""


def health(entry):
    """What an entry comes to, one of HEALTH."""
    if not entry["app"]:
        return "unreachable"
    if not entry["healthy"]:
        return "failed"
    if not all(each["healthy"] for each in (*entry.get("processes", ()), *entry.get("schedules", ()))):
        return "degraded"
    return "settling" if entry.get("state") == "settling" else "ok"


def states(entry, now):
    """The values of the page's filter that an entry is found by."""
    found = [health(entry)]
    left = days_left(entry, now)
    found += ["rejected"] if _rejected(entry) else []
    found += ["drift"] if entry.get("drift") else []
    found += ["expiring"] if left is not None and left < CERTIFICATE_DAYS else []
    attention = {"unreachable", "failed", "degraded", "drift", "expiring"}
    return [*found, "attention"] if attention.intersection(found) else found


def days_left(entry, now):
    """Whole days until the certificate of an entry ends, negative when it has; None when there is none."""
    return None if entry.get("certificate") is None else int((entry["certificate"] - now) // 86400)


def _rejected(entry):
    return [each for each in entry.get("releases", ()) if each.get("state") == "failed"]


def _row(entry, now):
    left = days_left(entry, now)
    cells = [
        _cell(_text(entry["host"]).replace(".", ".<wbr>")),
        _cell(_health(entry), HEALTH.index(health(entry))),
        _cell(f"<code>{_text(entry['release'])}</code>" if entry.get("release") else ""),
        _cell(_commit(entry)),
        _cell(_time(entry.get("since")), entry.get("since") or ""),
        _cell(_certificate(left), "" if left is None else left),
        _list("failed", _rejected(entry), _rejection),
        _list("difference", entry.get("drift", ()), _difference),
        _list("dump", entry.get("backups", ()), _backup),
    ]
    # a host that was not reached has no app to head its row
    head = _app(entry) if entry["app"] else _text("–")
    found = " ".join(states(entry, now))
    return f'<tr role="row" data-states="{found}"><th scope="row" role="rowheader">{head}</th>{"".join(cells)}</tr>'


def _app(entry):
    url = entry.get("url") or ""
    if not re.match(r"https?://", url):
        return _text(entry["app"])
    return f'<a href="{_text(url)}" rel="noreferrer">{_text(entry["app"])}</a>'


def _health(entry):
    state = health(entry)
    lines = [entry["problem"]] if entry.get("problem") else []
    lines += [
        f"process {each['process']}: {each['state']}" for each in entry.get("processes", ()) if not each["healthy"]
    ]
    lines += [
        f"schedule {each['schedule']}: {each['result'] or 'not planned'}"
        for each in entry.get("schedules", ())
        if not each["healthy"]
    ]
    shown = "".join(f"<div>{_text(line)}</div>" for line in lines)
    return f'<span class="{_CLASSES[state]}">{state}</span>{shown}'


def _commit(entry):
    if not entry.get("commit"):
        return ""
    return f"<span><code>{_text(entry['commit'][:8])}</code> {_text(entry.get('subject') or '')}</span>"


def _certificate(left):
    if left is None:
        return ""
    kind = "bad" if left < 7 else "warn" if left < CERTIFICATE_DAYS else "ok"
    return f'<span class="{kind}">{f"{left} days" if left >= 0 else "expired"}</span>'


def _list(noun, found, describe):
    """A cell with what was found, folded; its key is how many they are."""
    if not found:
        return _cell("", 0)
    plural = noun if noun == "failed" or len(found) == 1 else f"{noun}s"
    items = "".join(f"<li>{describe(each)}</li>" for each in found)
    return _cell(f"<details><summary>{len(found)} {plural}</summary><ul>{items}</ul></details>", len(found))


def _rejection(release):
    reason = f"<pre>{_text(release['reason'])}</pre>" if release.get("reason") else ""
    return f"<code>{_text(release['release'])}</code> {_text(release.get('subject') or '')}{reason}"


def _difference(difference):
    since = f", {_time(difference['since'])}" if difference.get("since") else ""
    return f"{_text(difference['what'])}{since}"


def _backup(backup):
    return f"{_time(backup['made'])}, {backup['size'] / 1048576:.1f} MiB: {_text(backup['backup'])}"


def _cell(content, key=None):
    """A cell; ``key`` is the number that it is sorted by when that is not its text, empty when it is not known."""
    attributes = ' role="cell"' + ("" if key is None else f' data-key="{key}"')
    return f"<td{attributes}>{content}</td>" if content else f'<td class="none"{attributes}></td>'


def _summary(entries):
    apps = [entry for entry in entries if entry["app"]]
    hosts = {entry["host"] for entry in entries}
    counts = {state: sum(health(entry) == state for entry in entries) for state in HEALTH}
    shown = ", ".join(
        f'<span class="{_CLASSES[state]}">{count} {state}</span>' for state, count in counts.items() if count
    )
    names = len({entry["app"] for entry in apps})
    return f"{names} app{'s' * (names != 1)} on {len(hosts)} host{'s' * (len(hosts) != 1)}" + (
        f": {shown}." if shown else "."
    )


def _time(seconds):
    if not seconds:
        return ""
    parts = time.gmtime(seconds)
    return (
        f'<time datetime="{time.strftime("%Y-%m-%dT%H:%M:%SZ", parts)}">{time.strftime("%Y-%m-%d %H:%M", parts)}</time>'
    )


def _text(value):
    """A value as text of the page or of an attribute, whoever wrote it."""
    return html.escape(printable(str(value)), quote=True)


def printable(text):
    """The text, with a sign in place of each character that does something else than to be seen."""
    return _HIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)


def _hash(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
