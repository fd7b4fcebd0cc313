# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calendar events of systemd (systemd.time(7)), judged without systemd, which the controller may not have."""

from __future__ import annotations

import re

_WORDS = frozenset(
    "minutely hourly daily weekly monthly quarterly semiannually semi-annually biannually bi-annually annually yearly "
    "anually".split()
)
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = r"(?:mon(?:day)?|tue(?:sday)?|wed(?:nesday)?|thu(?:rsday)?|fri(?:day)?|sat(?:urday)?|sun(?:day)?)"
_DAY_RANGE = rf"{_DAY}(?:(?:\.\.|-){_DAY})?"
# A time zone may follow anything; which ones there are is the host's to tell.
_ZONE = re.compile(rf"(?P<event>.*) (?!{_DAY}\b)[a-z][a-z0-9_+/-]*", re.IGNORECASE | re.ASCII)
_BOUNDS = {"year": (1970, 2199), "month": (1, 12), "day": (1, 31), "hour": (0, 23), "minute": (0, 59)}
_SECOND = 10**6  # in microseconds


def _chain(name, number="[0-9]{1,9}"):
    part = rf"{number}(?:\.\.{number})?(?:/{number})?"
    return rf"(?P<{name}>\*|{part}(?:,{part})*)"


_EVENT = re.compile(
    rf"(?:(?P<days>{_DAY_RANGE}(?:,{_DAY_RANGE})*),?(?: +|\Z))?"
    rf"(?:(?:{_chain('year')}-)?{_chain('month')}(?P<to_day>[-~]){_chain('day')}(?: +|\Z))?"
    rf"(?:{_chain('hour')}:{_chain('minute')}(?::{_chain('second', '[0-9]{1,9}(?:[.][0-9]{1,9})?')})?)?",
    re.IGNORECASE | re.ASCII,
)


def is_calendar(text: str) -> bool:
    """Say whether systemd can read a calendar event, should it know the time zone that it may name."""
    zone = _ZONE.fullmatch(text)
    event = zone["event"] if zone else text
    if event.lower() in _WORDS:
        return True
    found = _EVENT.fullmatch(event)
    if not event or not found or not _rise(found["days"] or ""):
        return False
    chains = {name: found[name] or "*" for name in (*_BOUNDS, "second")}
    return all(_fits(name, chain, found["to_day"] == "~") for name, chain in chains.items() if chain != "*")


def _rise(days):
    """Whether each range of days of the week goes forward."""
    ranges = ([_DAYS.index(day[:3]) for day in re.split(r"\.\.|-", each)] for each in days.lower().split(",") if each)
    return all(each == sorted(each) for each in ranges)


def _fits(name, chain, to_end):
    """Whether the numbers of a chain, such as `1,5..9/2`, are within bounds, and no range or repetition leads nowhere.

    As in systemd's calendarspec.c. to_end: whether days are counted from the end of the month, as in `02~03`.
    """
    low, high = _BOUNDS.get(name, (0, 60 * _SECOND - 1))
    to_end = to_end and name == "day"
    high -= 3 if to_end else 0  # no month is sure to have more days
    return all(_part_fits(name, part, low, high, to_end) for part in chain.split(","))


def _part_fits(name, part, low, high, to_end):
    span, _slash, given = part.partition("/")
    start, *ends = (_number(name, each) for each in span.split(".."))
    unit = _SECOND if name == "second" else 1
    step = _number(name if unit > 1 else "", given) if given else unit if ends else 0
    if given and not step:
        return False
    if ends:
        [end] = ends
        last = end - (end - start) % step if end > start else end
        alone = start <= last < start + step  # it never repeats
        if alone and name == "second" and not given:
            return False
        return low <= start <= high if alone else low <= start and last <= high and start + step <= last
    reached = start - step >= low if to_end else start + step <= high
    return low <= start <= high and step <= high - low and reached


def _number(name, text):
    if name == "second":
        whole, _dot, fraction = text.partition(".")
        return int(whole) * _SECOND + int(fraction.ljust(6, "0")[:6])
    number = int(text)
    if name == "year" and number < 100:
        return number + (2000 if number < 70 else 1900)
    return number
