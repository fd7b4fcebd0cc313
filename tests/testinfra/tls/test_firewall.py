# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports in a firewall that really blocks. The stand-in for AlmaLinux has none, so both are shown on the other host."""

from __future__ import annotations

import pytest

APT = "DEBIAN_FRONTEND=noninteractive apt-get -qq -y"


@pytest.fixture(params=["ufw", "firewalld"])
def _firewall(request, machine):
    if not machine.debian:
        pytest.skip("the stand-in has no firewall")
    # firewalld is started by its package
    start = "ufw --force enable" if request.param == "ufw" else "systemctl is-active firewalld"
    packages = f"{request.param} iptables"
    machine.output(f"(apt-get -qq update; {APT} --no-install-recommends install {packages}) > /dev/null 2>&1; {start}")
    yield
    machine.host.run("ufw --force disable")
    machine.output(f"{APT} purge {request.param} > /dev/null 2>&1")


@pytest.mark.usefixtures("_firewall")
def test_ports_are_opened(client, deploy):
    def status(url):
        return client.get(url, "--connect-timeout", "2", trust=None).status

    assert status("http://moved.test/") == 0
    prediction = deploy("--check", "--tags", "sites")
    assert "changed=1 " in prediction and status("http://moved.test/") == 0
    deploy("--tags", "sites")
    assert (status("http://moved.test/"), status("https://shop.test/health")) == (301, 200)
    assert "changed=0 " in deploy("--tags", "sites")
