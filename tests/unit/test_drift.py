# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run in check mode has found, as differences between a host and the list."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils.file_set.comparing import (
    Change,
    Found,
    difference,
    digest_of,
)
from ansible_collections.flaskfleet.deploy.plugins.module_utils.file_set.wanted import Wanted
from ansible_collections.flaskfleet.deploy.plugins.plugin_utils.drift import drift, lines

COMPARED = {"__flask_app_drift_compared": True}
SAME = {"from": "a-1", "to": "a-1", "mended": [], "mended_since": {}, "live_since": 60.0}


def told(**registered):
    [found] = drift({"web1": {**COMPARED, **registered}}, ["web1"])
    return found


def release(**changes):
    return {"__flask_app_releases": {"apps": {"hello": {**SAME, **changes}}, "errors": []}}


def test_a_host_as_the_list_says():
    found = told(**release(), __flask_app_units={"differences": [], "mended": [], "changed": False, "undeclared": []})
    assert found == {"host": "web1", "problem": "", "differences": [], "notes": []}
    assert lines([found]) == ["web1: as the list says"]


FILE = {"path": "/etc/a", "subject": "hello", "what": "was changed on the host", "since": 60.0}


@pytest.mark.parametrize(
    "registered, line",
    [
        ({"__flask_app_packages": {"missing": ["git"]}}, "the package git is not installed"),
        (
            {"__flask_app_units": {"differences": [FILE], "changed": True}},
            "hello: /etc/a was changed on the host (since 1970-01-01 00:01:00 UTC)",
        ),
        (
            {"__flask_app_units": {"mended": ["/opt/a"], "changed": True}},
            "the directory /opt/a is missing, or has another owner or mode",
        ),
        ({"__nginx_site_files": {"changed": True}}, "files of an earlier run were not taken up yet"),
        ({"__nginx_site_service": {"changed": True}}, "nginx does not run, or is not started at boot"),
        ({"__backing_service_mariadb_service": {"changed": True}}, "MariaDB does not run, or is not started at boot"),
        (
            {"__backing_service_postgresql_databases": {"results": [{"item": {"name": "a"}, "changed": True}]}},
            "PostgreSQL: the database a is missing",
        ),
        (
            {"__backing_service_mariadb_others": {"results": [{"item": [{"user": "flask-a"}, "%"], "changed": True}]}},
            "MariaDB: the account flask-a is missing, or has another password or other rights",
        ),
        (
            {"__backing_service_started": {"results": [{"item": "flaskfleet-cache-a.service", "changed": True}]}},
            "flaskfleet-cache-a.service does not run",
        ),
        ({"__nginx_site_firewall": {"opened": [80]}}, "the firewall keeps port 80 closed"),
        (
            {"__nginx_site_nginx": {"acme": {"due": {"docs": "there is none yet"}, "stale": [], "todo": True}}},
            "docs: its certificate is due: there is none yet",
        ),
        (
            {"__nginx_site_nginx": {"acme": {"due": {}, "stale": [], "todo": True}}},
            "the timer that renews certificates does not run",
        ),
        ({"__flask_app_removal": {"removed": ["old"]}}, "old: is there, the list says it is absent"),
        (
            release(mended=["it did not run"], mended_since={"it did not run": 60.0}),
            "hello: its release a-1: it did not run (since 1970-01-01 00:01:00 UTC)",
        ),
        (release(**{"from": None}), "hello: has no release, a-1 is wanted"),
        (
            release(to="b-1"),
            "hello: runs a-1, live since 1970-01-01 00:01:00 UTC; b-1 is wanted: another commit",
        ),
        (
            release(to="a-2", live_since=None),
            "hello: runs a-1; a-2 is wanted: another configuration",
        ),
        (
            {**release(to="a-1.2"), "__flask_app_builds": {"apps": {"hello": {"built": True}}}},
            "hello: runs a-1, live since 1970-01-01 00:01:00 UTC; a-1.2 is wanted: another build",
        ),
        (
            release(to=None, live_since=None),
            "hello: runs a-1; which release is wanted is known when it is deployed",
        ),
        (
            {"__flask_app_builds": {"errors": [{"app": "hello", "step": "choose", "message": "no such version"}]}},
            "hello: choose: no such version",
        ),
    ],
)
def test_differences(registered, line):
    assert lines([told(**registered)]) == [f"web1: {line}"]


def test_what_differs_and_stays():
    found = told(__flask_app_units={"undeclared": ["old"]}, __nginx_site_files={"undeclared": ["old"]})
    assert lines([found]) == ["web1: as the list says", "web1: note: old is not in the list any more and stays"]


def test_hosts_that_could_not_be_compared():
    found = drift(
        {
            "gone": {"__flask_app_drift_facts": {"unreachable": True, "msg": "timed out"}},
            "wrong": {"__flask_app_drift_problem": "Plan the apps: 2 errors\n- a", "__flask_app_drift_compared": False},
            "lost": {},
        },
        ["gone", "wrong", "lost"],
    )
    assert lines(found) == [
        "gone: could not be compared: timed out",
        "wrong: could not be compared: Plan the apps: 2 errors",
        "    - a",
        "lost: could not be compared: the comparison ended before its end",
    ]


def changed(tmp_path, before, wanted=b"wanted", digest="", kind="file"):
    """What ``difference`` says of a path with the content ``before`` (None for no file)."""
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
        os.utime(path, (7, 7))
    there = Found("absent") if before is None else Found("file", content=before)
    wish = Wanted(str(path), kind, wanted.decode(), subject="hello" if kind == "file" else "")
    entry = None if digest == "" else {"subject": "hello", "kind": "file", "digest": digest}
    found = difference(Change(wish, there, 0, 0, False), entry)
    assert (found["path"], found["subject"]) == (str(path), "hello" if entry or kind == "file" else "")
    return SimpleNamespace(**found)


def test_how_files_differ(tmp_path):
    assert changed(tmp_path, None).what == "is not there yet"
    assert changed(tmp_path, None, digest="x").what == "is gone"
    found = changed(tmp_path, b"edited", digest="x")
    assert (found.what, found.since) == ("was changed on the host", 7.0)
    found = changed(tmp_path, b"left", digest=digest_of(b"left"))
    assert (found.what, found.since) == ("is as the last run left it, the list says something else", None)
    found = changed(tmp_path, b"secret", digest=None)
    assert (found.what, found.since) == ("is different", 7.0), "nobody knows what the last run left"
    found = changed(tmp_path, b"wanted", digest=digest_of(b"wanted"))
    assert found.what == "has another owner or mode" and found.since > 1e9
    assert changed(tmp_path, b"old", digest="x", kind="absent").what == "is no longer in the list"
