# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in front of the machines: who gets requests, what apps learn of clients, who may look and steer."""

from __future__ import annotations

import re
import subprocess
import time

import pytest
from fleet import WEB, Fleet, changes

FORGED = [
    "--header", "X-Forwarded-For: 6.6.6.6", "--header", "X-Forwarded-Proto: https",
    "--header", "Forwarded: for=6.6.6.6",
    "--header", "X-Real-IP: 6.6.6.6", "--header", "X-Flaskfleet-Server: web2",
]  # fmt: skip
GATEWAY = "10.89.91.1"  # the machine that asks, as the network sees it


@pytest.fixture(scope="module")
def fleet(machine, inventory):
    return Fleet(machine, inventory)


@pytest.mark.parametrize("balancer", ["lb1", "lb2"])
def test_every_machine_gets_its_share(fleet, balancer):
    assert fleet.states(balancer=balancer) == dict.fromkeys(WEB, "UP")
    pages = sorted(fleet.ask(host="hello.test", at=balancer) for _number in range(6))
    assert all(status == 200 for status, _page in pages)
    assert [re.search(r"from (\w+)!", page)[1] for _status, page in pages] == sorted(2 * WEB)
    assert fleet.ask("/", host="www.hello.test", scheme="https", at=balancer)[0] == 200


def test_who_asks_for_another_name_gets_no_answer(fleet):
    assert fleet.ask(host="nowhere.test")[0] == 0
    assert fleet.ask(host="nowhere.test", scheme="https")[0] == 0


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nobody_can_forge_who_he_is(fleet, scheme):
    assert fleet.ask("/client", *FORGED, scheme=scheme) == (200, f"{GATEWAY} {scheme}")
    status, headers = fleet.ask("/", *FORGED, "--dump-header", "-", scheme=scheme)
    assert status == 200 and "x-flaskfleet" not in headers.lower()
    # nor by going past the balancer
    for name in WEB:
        assert fleet.ask("/client", *FORGED, at=name) == (200, f"{GATEWAY} http")


def test_statistics_are_for_who_knows_the_password_and_is_on_the_machine(fleet):
    assert fleet.curl(f"http://{fleet.addresses['lb1']}:9000/")[0] == 0
    page = "curl --silent --output /dev/null --write-out '%{http_code}' http://127.0.0.1:9000/"
    assert fleet.on("lb1", page) == "401"
    assert fleet.on("lb1", f"{page} --user admin:wrong") == "401"
    assert fleet.on("lb1", f"{page} --user admin:c4n4ry-of-stats") == "200"


@pytest.mark.parametrize(("balancer", "path"), [("lb1", "/run/haproxy/admin.sock"), ("lb2", "/var/lib/haproxy/stats")])
def test_root_alone_steers_it_and_reads_its_secrets(fleet, balancer, path):
    assert fleet.on(balancer, f"stat -c '%a %U' {path}") == "600 root\n"
    found = fleet.on(balancer, "grep -rl c4n4ry /etc/haproxy /etc/systemd /usr/local/lib || true").split()
    assert found == ["/etc/haproxy/flaskfleet/stats.cfg"]
    assert fleet.on(balancer, "stat -c '%a %U' /etc/haproxy/flaskfleet/*.cfg /etc/haproxy/flaskfleet/*.pem") == (
        "600 root\n600 root\n"
    )


def test_a_drained_machine_gets_no_requests_before_and_after_reloads(fleet):
    assert fleet.server("web2", "drain")["changed"] is True
    try:
        assert fleet.server("web2", "drain")["changed"] is False
        pages = {fleet.ask(host="hello.test")[1] for _number in range(6)}
        assert len(pages) == 2 and "web2" not in "".join(pages)
        for verb in ("reload", "restart"):
            fleet.on("lb1", f"systemctl {verb} haproxy")
            fleet.wait_for({"web1": "UP", "web2": "DRAIN", "web3": "UP"})
        # a rollout leaves alone what somebody else has drained
        output = fleet.run("deploy", "--limit", "web2,lb1")
        assert fleet.states()["web2"] == "DRAIN" and not any(changes(output).values()), output
    finally:
        assert fleet.server("web2", "ready")["changed"] is True
    fleet.wait_for({"web2": "UP"})


def test_a_reload_loses_no_connection(fleet):
    with fleet.machine.under_load("hello", rate=200) as report:
        for _number in range(5):
            fleet.on("lb1", "systemctl reload haproxy")
            time.sleep(0.5)  # as the load goes on
    assert report["requests"] > 500 and report["failed"] == 0, report


def test_what_haproxy_refuses_is_never_loaded(fleet, tmp_path):
    template = tmp_path / "haproxy.cfg.j2"
    template.write_text("nonsense\n")
    before = fleet.on("lb1", "cat /etc/haproxy/haproxy.cfg")
    result = fleet.attempt("load_balancer", "--limit", "lb1", load_balancer_template_paths=[str(tmp_path)])
    assert result.returncode != 0 and "nonsense" in result.stdout
    assert fleet.on("lb1", "cat /etc/haproxy/haproxy.cfg") == before
    assert fleet.ask()[0] == 200


def test_a_machine_that_dies_costs_what_it_was_answering(fleet, record_property):
    """Its clients' requests in flight may be lost, one of each at most; the others are taken over."""
    with fleet.machine.under_load("hello", rate=100) as report:
        subprocess.run(["podman", "kill", "flaskfleet-fleet-web3"], check=True, capture_output=True)
        fleet.wait_for({"web3": "DOWN"})
    record_property("dead_machine", {key: report[key] for key in ("requests", "failed", "failures", "seconds_away")})
    print("a machine dies:", report)
    assert report["requests"] > 300 and report["failed"] <= 16 and report["seconds_away"] < 15, report
    assert {fleet.ask(host="hello.test")[0] for _number in range(6)} == {200}


def test_a_machine_that_was_away_gets_the_fleet_s_release_before_it_gets_requests(fleet):
    """It is still gone, as the test before has left it."""
    try:
        result = fleet.attempt("deploy", flask_app_overrides={"moody": {"env": {"GREETING": "away"}}})
        assert re.findall(r"^(\w+) .*failed=1", result.stdout, re.MULTILINE) == ["web3"], result.stdout
        subprocess.run(["podman", "start", "flaskfleet-fleet-web3"], check=True, capture_output=True)
        deadline = time.monotonic() + 60
        while fleet.ask(at="web3")[0] != 200:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert "one" in fleet.ask(at="web3")[1]
        assert fleet.states()["web3"] == "MAINT"
        assert {fleet.ask()[1].split()[1] for _number in range(6)} == {"away"}
        fleet.run("deploy", flask_app_overrides={"moody": {"env": {"GREETING": "away"}}})
        fleet.wait_for({"web3": "UP"})
        assert "away" in fleet.ask(at="web3")[1]
        assert len({fleet.ask(host="hello.test")[1] for _number in range(6)}) == 3
    finally:
        subprocess.run(["podman", "start", "flaskfleet-fleet-web3"], check=True, capture_output=True)
