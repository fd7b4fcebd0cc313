# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is sent piece by piece, and what becomes a WebSocket: through a site that says so, and through another."""

from __future__ import annotations

import base64
import contextlib
import socket
import time
from pathlib import Path

import pytest

PORT = 8099
SITES = [
    {"name": "streams", "websockets": True, "buffering": False, "request_buffering": False},
    {"name": "plain"},
]


@pytest.fixture(scope="module")
def streams(machine):
    """Two sites of one server: everything through the first comes as it is sent."""
    text = base64.b64encode(Path(__file__).with_name("upstream.py").read_bytes()).decode()
    machine.output(f"echo {text} | base64 -d > /tmp/upstream.py")
    machine.output(f"systemd-run --quiet --unit=upstream python3 /tmp/upstream.py {PORT}")
    sites = [{"domain": f"{site['name']}.test", "upstream": [f"127.0.0.1:{PORT}"], **site} for site in SITES]
    machine.deploy("--tags", "sites", flask_apps="{{ test_tls_apps }}", nginx_sites=sites)
    yield
    machine.output("systemctl stop upstream")
    absent = [{**site, "state": "absent"} for site in sites]
    machine.deploy("--tags", "sites", flask_apps="{{ test_tls_apps }}", nginx_sites=absent)


@pytest.fixture
def connect(machine, streams):
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_connection((machine.address, 80), timeout=10))


def head(path, domain, *lines, method="GET"):
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {domain}", *lines, "", ""]).encode()


def arrivals(connection, *texts):
    """When each of the texts has come, in seconds of the monotonic clock."""
    received, found = b"", {}
    while len(found) < len(texts):
        part = connection.recv(4096)
        assert part, received
        received += part
        for text in texts:
            if text in received:
                found.setdefault(text, time.monotonic())
    return [found[text] for text in texts]


def shake_hands(connection, domain):
    """The status of the answer to an opening handshake, RFC 6455's own example."""
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    connection.sendall(head("/echo", domain, "Connection: Upgrade", "Upgrade: WebSocket", key))
    answer = connection.recv(4096)
    assert b" 101 " not in answer.splitlines()[0] or b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer
    return int(answer.split()[1])


def test_a_websocket(connect):
    """Its frames go through as they are, in both directions."""
    connection = connect()
    assert shake_hands(connection, "streams.test") == 101
    frame = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"  # RFC 6455, 5.7: a masked "Hello"
    for _again in range(2):
        connection.sendall(frame)
        assert connection.recv(4096) == frame


def test_no_websocket_where_none_is_asked_for(connect):
    assert shake_hands(connect(), "plain.test") == 426


@pytest.mark.parametrize("domain, streamed", [("streams.test", True), ("plain.test", False)])
def test_events(connect, domain, streamed):
    connection = connect()
    connection.sendall(head("/events", domain))
    first, second = arrivals(connection, b"data: 1", b"data: 2")
    assert (second - first > 0.3) is streamed


@pytest.mark.parametrize("domain, streamed", [("streams.test", True), ("plain.test", False)])
def test_uploads(connect, domain, streamed):
    """Sent on as it comes, the server waits for it; else nginx does, and a slow client holds up no worker."""
    connection = connect()
    connection.sendall(head("/upload", domain, "Content-Length: 2", "Connection: close", method="POST") + b"a")
    time.sleep(2)
    connection.sendall(b"b")
    waited = float(connection.makefile("rb").read().split()[-1])
    assert (waited > 0.5) is streamed, waited
