# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet that there is not, as app_info would tell of it: the same one each time."""

from __future__ import annotations

import random

NOW = 1795845600  # 2026-11-28 06:00 UTC
DAY = 86400
_NAMES = "shop blog wiki api intranet billing search newsletter docs forum status calendar".split()
_SUBJECTS = (
    "Show prices with tax",
    "Answer searches from an index",
    "Update Flask to 3.1",
    "Fix the export of invoices",
    "Sign in with a passkey",
    "Cache the front page",
)
_REASON = """flask-{app}@{release}.service is failed (exit-code)
  File "app.py", line 12, in <module>
    from billing import rates
ModuleNotFoundError: No module named 'billing'"""


def fleet(hosts, apps, seed=1):
    """The entries of ``hosts`` x ``apps``; the last host but one was not reached when there are more than three."""
    chance = random.Random(seed)
    entries = []
    for number in range(1, hosts + 1):
        host = f"web{number}.example.org"
        if hosts > 3 and number == hosts - 1:
            problem = "Failed to connect to the host via ssh: connection timed out"
            entries.append({"host": host, "app": None, "healthy": False, "problem": problem})
            continue
        entries += [_app(name, host, chance) for name in _names(apps)]
    return entries


def _names(count):
    return [_NAMES[number] if number < len(_NAMES) else f"app{number}" for number in range(count)]


def _app(name, host, chance):
    commit = f"{random.Random(name).getrandbits(160):040x}"
    subject = _SUBJECTS[len(name) % len(_SUBJECTS)]
    release = f"{commit[:8]}-5f3a9c11"
    entry = {
        "host": host,
        "app": name,
        "release": release,
        "commit": commit,
        "subject": subject,
        "url": f"https://{name}.example.org/",
        "state": "settled",
        "since": NOW - chance.randrange(3600, 40 * DAY),
        "status": 200,
        "healthy": True,
        "problem": None,
        "certificate": NOW + chance.randrange(21, 89) * DAY,
        "processes": [],
        "schedules": [],
        "releases": [{"release": release, "commit": commit, "subject": subject, "state": "settled", "reason": None}],
        "drift": [],
        "backups": [],
    }
    if name in ("shop", "billing"):
        entry["backups"] = [
            {"backup": f"202611{28 - day}T040000Z-before-{release}.dump", "made": NOW - day * DAY, "size": 3 << 20}
            for day in range(5)
        ]
    trouble = chance.random()
    if trouble < 0.03:
        entry.update(healthy=False, status=500, problem="GET /health answered 500, expected 2xx, 3xx")
    elif trouble < 0.06:
        unit = f"flask-{name}.worker@{release}:1.service"
        entry["processes"] = [{"process": "worker", "unit": unit, "state": "auto-restart", "healthy": False}]
    elif trouble < 0.1:
        bad = f"{chance.getrandbits(32):08x}-5f3a9c11"
        reason = _REASON.format(app=name, release=bad)
        failed = {"release": bad, "subject": "Count what is in stock", "state": "failed", "reason": reason}
        entry["releases"].insert(0, failed)
    elif trouble < 0.14:
        path = f"/etc/systemd/system/flask-{name}@.service"
        entry["drift"] = [{"what": f"{path} was changed", "since": NOW - chance.randrange(3600, DAY)}]
    elif trouble < 0.16:
        entry["certificate"] = NOW + chance.randrange(1, 15) * DAY
    return entry
