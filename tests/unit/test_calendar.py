# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calendar events are judged as systemd does, by examples and beside systemd itself where there is one."""

from __future__ import annotations

import random
import shutil
import subprocess

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils.plan.calendar import is_calendar

GOOD = (
    """
daily|DAILY|hourly|semi-annually|Mon|Mon *-*-* 04:00|Mon..Fri 10:00|mon-fri|Mon,Tue..Thu,|*:0/5|2026-12-24 18:00:00
*-*-1,15 06:30 Europe/Berlin|daily UTC|*-02~03|*-*~1..5/2|*:*:0/0.5|Sat,Sun *-1..3-* *:00,30|99-1-1|10-10|*:0..5/7
""".replace(" DAILY", "|DAILY")
    .strip()
    .replace("\n", "|")
    .split("|")
)
BAD = (
    """
|never|every day|25:00|*:60|*-13-01|*-*-32|*/2:00|*-*-* */4:00:00|5..1:00|*:0/0|*:0/60|Sun..Mon|Mon Tue|10|*|10:00 |
 10:00|Mon,,Tue|100-1-1|2200-1-1|*-*~29|*:*:5..5|*:*:60|1-1-1-1|@5|%n|10:00\x00|10:00\n|٣:00|ſun
""".strip("\n")
    .replace("|\n", "|")
    .split("|")
)


@pytest.mark.parametrize("event", GOOD)
def test_good(event):
    assert is_calendar(event)


@pytest.mark.parametrize("event", BAD)
def test_bad(event):
    assert not is_calendar(event)


def some(rng, highest, fractions=False):
    """A list of numbers, ranges and repetitions about the bounds of a part of a time."""

    def number():
        chosen = rng.choice([0, 1, 2, rng.randint(0, highest), highest - 1, highest, highest + 1])
        return f"{chosen}.{rng.randint(0, 99)}" if fractions and rng.random() < 0.3 else str(chosen)

    def part():
        stop = f"..{number()}" if rng.random() < 0.35 else ""
        return number() + stop + (f"/{number()}" if rng.random() < 0.35 else "")

    return "*" if rng.random() < 0.3 else ",".join(part() for _each in range(rng.choice([1, 1, 2])))


def some_event(rng):
    days = [rng.choice(["Mon", "tuesday", "THU", "Sun", "Fri..Sun", "Sat-Mon", "Mon..Wed"]) for _each in range(2)]
    # one day counted from the end: systemd's bounds get narrower with each further one, which is a mistake of its own
    day = rng.choice([f"-{some(rng, 31)}", f"~{some(rng, 28).partition(',')[0]}"])
    year = rng.choice(["", "*-", "2026-", "69..71-", "2198/1-", "1970-", "2300-"])
    second = f":{some(rng, 59, fractions=True)}" if rng.random() < 0.5 else ""
    parts = [",".join(days), f"{year}{some(rng, 12)}{day}", f"{some(rng, 23)}:{some(rng, 59)}{second}", "UTC"]
    event = " ".join(part for part, chance in zip(parts, (0.4, 0.6, 0.6, 0.1)) if rng.random() < chance)
    if event and rng.random() < 0.1:  # and one that was mistyped, without making up a time zone
        at = rng.randrange(len(event))
        event = event[:at] + rng.choice(["", " ", "-", ":", "~", "*", "/", ",", "."]) + event[at + 1 :]
    return event or "daily"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_as_systemd_does():
    rng = random.Random(8)
    for _each in range(400):
        event = some_event(rng)
        command = ["systemd-analyze", "calendar", "--", event]
        known = subprocess.run(command, capture_output=True, check=False).returncode == 0
        assert is_calendar(event) is known, event
