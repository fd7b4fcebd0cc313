# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an app that somebody has taken over can do to its host and its neighbours, wherever its code runs: nothing.

The same program is run outside any sandbox as root, which shows that each attempt is one that can succeed. The table of
all that is kept as a report.
"""

from __future__ import annotations

import contextlib
import json

import pytest
from conftest import NETWORK as TEST_NETWORK
from conftest import PROJECT

DATA = "/var/lib/flask_apps/burglar"
# Where code of an app runs, and where to read what came of its attempts there.
PLACES = {
    "web": "burglar.test",
    "worker": f"{DATA}/process.json",
    "command": f"{DATA}/command.json",
    "build command": "/opt/flask_apps/burglar/current/build/build.json",
    "sealed web": "sealed.test",
    "sealed granian": "granian.test",
}
NETWORK = "reach another machine"
# An app may open connections unless it is sealed; nothing else. A build writes what becomes the app's code, and a
# compiler may do what a server has no need of.
BUILDING = {
    "write into its own code",
    "write beside its own code",
    "make memory that is written and run",
    "change its own priority",
}
MAY = {"web": {NETWORK}, "worker": {NETWORK}, "command": {NETWORK}, "build command": BUILDING}
# What the containers of the tests refuse to root as well, so that the sandbox is not what is seen here.
REFUSED_BY_CONTAINERS = {
    "change kernel tunables",
    "have addresses no longer chosen at random",
    "read the kernel's log",
    "run with the priority of real time",
}


def outcome(machine, place):
    """{attempt: "done", or why not} of a place."""
    where = PLACES[place]
    if where.startswith("/"):
        return json.loads(machine.output(f"cat {where}"))
    status, body = machine.get(where, "/attempts")
    assert status == 200, body
    return json.loads(body)


@pytest.fixture(scope="module")
def outside(machine):
    """The same without a sandbox, as root, in a copy of the app's folder."""
    folder = "/tmp/outside"
    machine.output(f"mkdir -p {folder} && cp /opt/flask_apps/burglar/current/build/attempts.py {folder}")
    return json.loads(machine.output(f"GATEWAY={TEST_NETWORK['test_network_gateway']} python3 {folder}/attempts.py"))


def test_every_attempt_can_succeed(outside):
    failed = {words: why for words, why in outside.items() if why != "done"}
    assert set(failed) <= REFUSED_BY_CONTAINERS, failed


@pytest.mark.parametrize("place", PLACES)
def test_nothing_succeeds(machine, outside, place):
    inside = outcome(machine, place)
    assert set(inside) == set(outside)
    assert {words for words, why in inside.items() if why == "done"} == MAY.get(place, set())


def test_table_of_attempts(machine, outside):
    """Kept for people to read."""
    columns = {"root outside": outside, **{place: outcome(machine, place) for place in PLACES}}
    rows = [["attempt", *columns], ["---"] * (len(columns) + 1)]
    rows += [[words, *(columns[place][words] for place in columns)] for words in outside]
    text = "\n".join("| " + " | ".join(cell.replace("|", "") for cell in row) + " |" for row in rows)
    report = PROJECT / ".cache" / "reports" / f"attempts-{machine.name}.md"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(f"# What a taken over app came to on {machine.name}\n\n{text}\n", encoding="utf-8")


@pytest.mark.parametrize("app, most", {"victim": 1.2, "sealed": 0.3, "granian": 0.3}.items())
def test_exposure(machine, app, most):
    """As systemd judges it: 10 is worst."""
    verdict = machine.output(f"systemd-analyze security --no-pager {machine.unit(app)}").splitlines()[-1]
    assert float(verdict.split(":")[1].split()[0]) <= most, verdict


def test_sealed_apps_are_deployed_without_a_failed_request(machine):
    """Their sockets are reached from outside their network, and seen to be drained."""
    apps = ("sealed", "granian")
    before = {app: machine.live(app)["release"] for app in apps}
    overrides = {app: {"env": {"GATEWAY": before[app]}} for app in apps}
    with contextlib.ExitStack() as stack:
        reports = [stack.enter_context(machine.under_load(app, rate=20)) for app in apps]
        machine.deploy("--tags", "build,release", flask_apps="{{ test_burgled_apps }}", flask_app_overrides=overrides)
    for app, report in zip(apps, reports, strict=True):
        assert machine.live(app)["release"] != before[app]
        assert report["requests"] > 100 and report["failed"] == 0, report
        # whoever had the traffic has ended, which takes seeing that nobody is connected any more
        old = f"flask-{app}@{before[app]}"
        machine.output(f"timeout 60 sh -c 'while systemctl is-active --quiet {old}; do sleep 0.2; done'")


def test_what_an_app_is_let_do(machine):
    """Each part of its sandbox that is opened is open, and no other."""
    machine.output("install -d -m 0777 /srv/exports")
    sandbox = {"writable": ["/srv/exports"], "relax": ["executable_memory", "namespaces", "scheduling"]}
    command = "python attempts.py > ~/opened.json; touch /srv/exports/written"
    overrides = {"burglar": {"sandbox": sandbox, "processes": {}, "before_switch": command}}
    machine.deploy("--tags", "build,release", flask_apps="{{ test_burgled_apps }}", flask_app_overrides=overrides)
    opened = json.loads(machine.output(f"cat {DATA}/opened.json"))
    expected = {"make memory that is written and run", "make a user namespace", "change its own priority", NETWORK}
    assert {words for words, why in opened.items() if why == "done"} == expected
    assert machine.host.file("/srv/exports/written").exists
