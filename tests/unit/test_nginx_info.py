# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read out of nginx's own answers, and out of the kernel's tables."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils import nginx

BUILD = """nginx version: nginx/1.26.3
built with OpenSSL 3.5.1 1 Jul 2025
configure arguments: --with-http_v2_module --with-http_gzip_static_module --with-stream=dynamic --with-http_v2_module
"""
DUMP = """nginx: the configuration file /etc/nginx/nginx.conf syntax is ok
# configuration file /etc/nginx/nginx.conf:
http { include sites/*; server { server_name _; } }
server_name b.test;
# configuration file /etc/nginx/sites/a:
server {
    server_name a.test
        www.a.test;  # server_name commented.test;
    # server_name old.test;
}
server { listen 443;
    server_name a.test; }
# configuration file /etc/nginx/sites/b:
    server_name   b.test;
"""


def test_build():
    assert nginx.parse_build(BUILD) == ("1.26.3", ["http_gzip_static_module", "http_v2_module"])
    assert nginx.parse_build("") == ("", [])


def test_server_names():
    assert nginx.parse_server_names(DUMP) == {
        "_": ["/etc/nginx/nginx.conf"],
        "b.test": ["/etc/nginx/nginx.conf", "/etc/nginx/sites/b"],
        "a.test": ["/etc/nginx/sites/a"],
        "www.a.test": ["/etc/nginx/sites/a"],
    }
    assert nginx.parse_server_names("") == {}


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6])
def port(request):
    with socket.socket(request.param) as listener:
        listener.bind(("127.0.0.1" if request.param == socket.AF_INET else "::1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_listeners(port):
    comm = Path("/proc/self/comm").read_text().strip()
    assert nginx.listeners([port]) == {port: comm}
    with socket.socket() as idle:
        idle.bind(("127.0.0.1", 0))
        assert nginx.listeners([idle.getsockname()[1]]) == {}


def processes(tmp_path, **sockets):
    """A /proc with the sockets' inodes in its processes, port 80 (0x50) at inode 7, and port 443 at 8."""
    (tmp_path / "net").mkdir()
    rows = "sl local rem st\n 0: 00000000:0050 0:0 0A 0 0 0 0 0 7\n 1: 00000000:01BB 0:0 0A 0 0 0 0 0 8\n"
    (tmp_path / "net" / "tcp").write_text(rows + " 2: 0100007F:0050 0:0 01 0 0 0 0 0 9\n")
    for number, (name, inodes) in enumerate(sockets.items(), 1):
        folder = tmp_path / str(number) / "fd"
        folder.mkdir(parents=True)
        (folder.parent / "comm").write_text(f"{name}\n")
        for inode in inodes:
            os.symlink(f"socket:[{inode}]", folder / str(inode))
    return str(tmp_path)


@pytest.mark.parametrize(
    "sockets, found",
    [
        ({"nginx": [7, 8]}, {}),
        ({"nginx": [7], "haproxy": [8, 9]}, {443: "haproxy"}),
        ({"systemd": [7], "nginx": [7]}, {}),
        ({"apache2": [7]}, {80: "apache2"}),
        ({}, {}),
    ],
)
def test_listeners_other_than_nginx(tmp_path, sockets, found):
    assert nginx.listeners([80, 443], processes(tmp_path, **sockets)) == found


def nginx_process(proc, number, title, parent=10):
    folder = proc / str(number)
    folder.mkdir(exist_ok=True)
    (folder / "stat").write_text(f"{number} (a) b) S {parent} 0 0")
    (folder / "cmdline").write_text(title)


WORKER, ENDING = "nginx: worker process\0\0", "nginx: worker process is shutting down\0"


def test_workers(tmp_path):
    nginx_process(tmp_path, 10, "nginx: master process /usr/sbin/nginx\0", parent=1)
    nginx_process(tmp_path, 11, WORKER)
    nginx_process(tmp_path, 12, "nginx: worker process" + " " * 40)
    nginx_process(tmp_path, 13, ENDING)
    nginx_process(tmp_path, 14, "nginx: cache manager process\0")
    nginx_process(tmp_path, 15, WORKER, parent=99)
    (tmp_path / "16").mkdir()
    assert nginx.workers(10, str(tmp_path)) == {11, 12}


@pytest.mark.parametrize(
    "now, taken",
    [
        ({11: WORKER}, False),  # nginx kept its configuration
        ({11: WORKER, 12: WORKER}, False),
        ({11: ENDING}, False),
        ({11: ENDING, 12: WORKER}, True),
        ({12: WORKER}, True),
        ({}, False),
    ],
)
def test_a_reload_is_taken_when_only_new_workers_take_connections(tmp_path, now, taken):
    for number, title in now.items():
        nginx_process(tmp_path, number, title)
    assert nginx.wait_for_reload(10, {11}, 0.05, str(tmp_path)) is taken
