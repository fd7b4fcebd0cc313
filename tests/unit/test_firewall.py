# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which ports a firewall keeps closed, from files in the shape of ufw's and firewalld's, and how they are opened."""

from __future__ import annotations

import subprocess

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils import firewall


@pytest.fixture
def called(monkeypatch):
    """[commands]; firewalld is active."""
    called = []

    def run(command):
        called.append(" ".join(command))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(firewall, "_run", run)
    return called


@pytest.fixture
def place(tmp_path):
    def place(path, text):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        return str(tmp_path)

    return place


def test_no_firewall(tmp_path, called, place):
    assert firewall.look([80], str(tmp_path)) == ("", [])
    assert firewall.look([80], place("etc/ufw/ufw.conf", "# x\nENABLED=no\n")) == ("", [])
    assert called == []


ANYWHERE = "0.0.0.0/0 any 0.0.0.0/0"


@pytest.mark.parametrize(
    "rule, closed",
    [
        ("", [80, 443]),
        (f"allow tcp 80 {ANYWHERE} in", [443]),
        (f"allow any 443 {ANYWHERE} in", [80]),
        (f"limit tcp 80,443 {ANYWHERE} in comment=776562", []),
        (f"allow tcp 80,443 {ANYWHERE} Nginx%20Full - in", []),
        (f"allow tcp 70:500 {ANYWHERE} in", []),
        (f"allow tcp 22,8000:9000 {ANYWHERE} in", [80, 443]),
        (f"allow udp 443 {ANYWHERE} in", [80, 443]),
        (f"deny tcp 80 {ANYWHERE} in", [80, 443]),
        (f"allow tcp 80 {ANYWHERE} out", [80, 443]),
        (f"allow tcp 80 {ANYWHERE} in_eth0", [80, 443]),
        ("allow tcp 80 0.0.0.0/0 any 192.0.2.0/24 in", [80, 443]),
        ("allow tcp 80 192.0.2.1 any 0.0.0.0/0 in", [80, 443]),
        (f"allow tcp any {ANYWHERE} in", [80, 443]),
    ],
)
def test_ufw(place, rule, closed):
    place("etc/ufw/user.rules", f"*filter\n### RULES ###\n\n### tuple ### {rule}\n-A ufw-user-input -p tcp -j ACCEPT\n")
    assert firewall.look([80, 443], place("etc/ufw/ufw.conf", "ENABLED=yes\n")) == ("ufw", closed)


@pytest.mark.parametrize(
    "zone, closed",
    [
        ("<zone><short>P</short><service name='ssh'/></zone>", [80, 443]),
        ("<zone><service name='http'/><service name='https'/></zone>", []),
        ("<zone><port port='80' protocol='tcp'/><port port='443' protocol='udp'/></zone>", [443]),
        ("<zone><port port='80-500' protocol='tcp'/></zone>", []),
        ("<zone target='ACCEPT'/>", []),
        ("", [80, 443]),
    ],
)
@pytest.mark.parametrize("folder, name", [("etc", "public"), ("usr/lib", "public"), ("etc", "web")])
def test_firewalld(place, called, folder, name, zone, closed):
    place("usr/sbin/firewalld", "")
    if name != "public":
        place("etc/firewalld/firewalld.conf", f"# x\nDefaultZone={name}\n")
    assert firewall.look([80, 443], place(f"{folder}/firewalld/zones/{name}.xml", zone)) == ("firewalld", closed)


def test_how_ports_are_opened(called):
    firewall.open_ports("ufw", [80, 443])
    firewall.open_ports("firewalld", [443, 8080])
    assert called == [
        "ufw allow 80/tcp",
        "ufw allow 443/tcp",
        "firewall-cmd --add-service=https",
        "firewall-cmd --permanent --add-service=https",
        "firewall-cmd --add-port=8080/tcp",
        "firewall-cmd --permanent --add-port=8080/tcp",
    ]


def test_a_refusal_is_told(monkeypatch):
    answer = subprocess.CompletedProcess([], 1, "", "ERROR: problem running\n")
    monkeypatch.setattr(firewall, "_run", lambda command: answer)
    with pytest.raises(firewall.FirewallError, match="ufw allow 80/tcp failed: ERROR: problem running$"):
        firewall.open_ports("ufw", [80])


def test_a_tool_that_is_not_there(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(firewall.FirewallError, match="No such file or directory: 'ufw'"):
        firewall.open_ports("ufw", [80])
