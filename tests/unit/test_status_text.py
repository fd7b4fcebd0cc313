# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The status for a terminal."""

from __future__ import annotations

import time

import pytest
from ansible_collections.flaskfleet.deploy.plugins.plugin_utils.status_text import status_lines

APP = {
    **{"app": "hello", "release": "1f3a9c02-5d0e1b77", "since": 1_795_845_600.0, "state": "settled", "healthy": True},
    **{"problem": None, "memory": 52_428_800, "workers": 3, "restarts": 0, "subject": "Say hello"},
    **{"url": "http://hello.test/", "processes": [], "schedules": [], "releases": []},
}
WORKER = {"process": "worker", "state": "running", "memory": 1_048_576, "restarts": 2, "healthy": True, "unit": "w"}
TIDY = {"schedule": "tidy", "next": None, "last": 1_795_845_600.0, "running": False, "result": "exit-code"}
TIDY |= {"status": 3, "healthy": False, "unit": "t"}


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def told(**keys):
    found = {"web1": {"__flask_app_info": {"apps": [{**APP, **keys}]}}}
    return status_lines(found, ["web1"])


def test_an_app_that_is_well():
    head, row = told()
    assert head.split() == "APP HOST RELEASE SINCE HEALTH MEMORY WORKERS RESTARTS COMMIT URL".split()
    assert row.split("  ")[0] == "hello" and "2026-11-28 06:00:00  ok      50 MiB  3" in row
    assert row.endswith("Say hello  http://hello.test/") and head.index("URL") == row.index("http:")


@pytest.mark.parametrize(
    "keys, word, line",
    [
        ({"state": "settling"}, "settling", None),
        ({"healthy": False, "problem": "no answer"}, "FAILED", "hello on web1: no answer"),
        (
            {"processes": [{**WORKER, "state": "dead", "healthy": False}]},
            "degraded",
            "hello on web1: process worker: dead, 1 MiB, 2 restarts (FAILED), w",
        ),
        (
            {"schedules": [TIDY]},
            "degraded",
            "hello on web1: schedule tidy: next never, last 2026-11-28 06:00:00, exit-code (status 3) (FAILED), t",
        ),
        (
            {"releases": [{"live": False, "state": "failed", "release": "b", "subject": "Bad", "reason": "no port"}]},
            "ok",
            "hello on web1: failed release b (Bad): no port",
        ),
    ],
)
def test_what_is_wrong_is_told(keys, word, line):
    _head, row, *lines = told(**keys)
    assert f" {word} " in row and lines == ([line] if line else [])


def test_nothing_of_a_commit_reaches_the_terminal():
    row = told(subject="\x1b[31mred\N{RIGHT-TO-LEFT OVERRIDE}")[1]
    assert "\N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER}" in row
    assert "…" in told(subject="long " * 20)[1]


def test_hosts_without_apps():
    pull = {"started": 1_795_845_600.0, "text": "pulled 1f3a9c02"}
    found = {
        "web1": {"__flask_app_info": {"msg": "no answer"}},
        "web2": {"__flask_app_info": {"apps": [], "pull": pull}},
    }
    lines = status_lines(found, ["web1", "web2"])
    assert "FAILED" in lines[1] and "no answer" in lines[1]
    assert lines[2:] == ["web2: 2026-11-28 06:00:00: pulled 1f3a9c02"]
