# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollouts over the fleet: nobody notices a good one, and a bad one stops."""

from __future__ import annotations

import re

import pytest
from conftest import head
from fleet import WEB, Fleet

USUAL = [1, "25%", "100%"]  # waves, of one machine each here
WEB2_FAILS = "{{ 'nowhere:app' if inventory_hostname == 'web2' else 'app:app' }}"


@pytest.fixture(scope="module")
def fleet(machine, inventory):
    return Fleet(machine, inventory)


def notes(fleet):
    """{machine: how often its release commands ran}."""
    return {
        name: len(fleet.on(name, "cat /var/lib/flask_apps/moody/notes 2> /dev/null || true").splitlines())
        for name in WEB
    }


def test_a_rollout_loses_no_request(fleet):
    """Of an app's release, and of what nginx has to be reloaded for."""
    before = notes(fleet)
    with fleet.machine.under_load("hello", rate=100) as report:
        output = fleet.run(
            "deploy",
            flask_app_rollout_waves=USUAL,
            flask_app_overrides={
                "hello": {"version": "version2", "site": {"max_body_size": "2m"}},
                "moody": {"version": "version2"},
            },
        )
    print("a rollout under load:", report)
    assert report["requests"] > 500 and report["failed"] == 0, report
    assert fleet.commits() == dict.fromkeys(WEB, head("moody", "version2"))
    after = notes(fleet)
    assert {name: after[name] - before[name] for name in WEB} == {"web1": 1, "web2": 0, "web3": 0}
    drained = re.findall(r"from: ready\n\s+server: (web\d)\n\s+to: drain", output)
    assert fleet.states() == dict.fromkeys(WEB, "UP"), drained


def test_a_maintenance_is_shown_through_the_balancers(fleet, tmp_path):
    """By the machines, whose checks go on to find them well; a rollout brings it and takes it away."""
    page = tmp_path / "down.html"
    page.write_text("back soon\n")
    hello = {"version": "version2", "site": {"max_body_size": "2m", "maintenance": True, "error_page": str(page)}}
    others = {"moody": {"version": "version2"}}
    fleet.run("deploy", flask_app_overrides={**others, "hello": hello})
    assert fleet.states("hello.test") == dict.fromkeys(WEB, "UP")
    for path in ("/", "/health"):
        assert fleet.ask(path, host="hello.test") == (503, "back soon\n")
    forged = fleet.ask("/health", "--header", "X-Forwarded-For: 127.0.0.1", host="hello.test")
    assert forged == (503, "back soon\n")
    hello["site"] = {"max_body_size": "2m"}
    fleet.run("deploy", flask_app_overrides={**others, "hello": hello})
    assert fleet.ask("/", host="hello.test")[0] == 200


def test_a_bad_release_ends_at_the_first_machine(fleet):
    """Also of a rollout that leaves sites and packages alone."""
    old = fleet.commits()
    result = fleet.attempt(
        "deploy",
        *("--tags", "build,release"),
        flask_app_overrides={
            "hello": {"version": "version2", "site": {"max_body_size": "2m"}},
            "moody": {"version": "master", "entrypoint": "nowhere:app"},
        },
    )
    assert result.returncode != 0 and "The rollout was stopped here: Fail when an app has failed" in result.stdout
    assert fleet.commits() == old
    assert "nowhere" not in fleet.on("web2", "ls /opt/flask_apps/moody/releases")
    failed = re.findall(r"^(web\d) .*failed=1", result.stdout, re.MULTILINE)
    assert failed == ["web1"]
    # a release of an app takes no machine out of the traffic
    assert "to: drain" not in result.stdout and fleet.states() == dict.fromkeys(WEB, "UP")


def test_machines_that_were_done_keep_their_releases_or_go_back(fleet):
    old = fleet.commits()
    wanted = {
        "hello": {"version": "version2", "site": {"max_body_size": "2m"}},
        "moody": {"version": "master", "entrypoint": WEB2_FAILS},
    }
    variables = {"flask_app_overrides": wanted, "flask_app_rollout_waves": USUAL}
    result = fleet.attempt("deploy", flask_app_rollout_on_failure="rollback", **variables)
    assert result.returncode != 0, result.stdout
    assert fleet.commits() == old
    result = fleet.attempt("deploy", **variables)
    assert result.returncode != 0
    new = head("moody", "master")
    assert fleet.commits() == {**old, "web1": new}
    # it goes on where it was stopped
    output = fleet.run("deploy", flask_app_overrides={**wanted, "moody": {"version": "master"}})
    assert fleet.commits() == dict.fromkeys(WEB, new)
    assert fleet.states() == dict.fromkeys(WEB, "UP"), output


def test_a_rollout_that_was_killed_is_made_up_for(fleet):
    """The machine that it had taken out of the traffic gets it back by the next one."""
    wanted = {"hello": {"version": "version2", "site": {"max_body_size": "4m"}}}
    with fleet.killed("deploy", flask_app_overrides=wanted):
        fleet.wait_for({"web1": "DRAIN"}, seconds=120)
    assert fleet.states() == {"web1": "DRAIN", "web2": "UP", "web3": "UP"}
    fleet.run("deploy", flask_app_overrides=wanted)
    assert fleet.states() == dict.fromkeys(WEB, "UP")
    for name in WEB:
        assert "client_max_body_size 4m" in fleet.on(name, "cat /etc/nginx/*/hello.test.conf")
