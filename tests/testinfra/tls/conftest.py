# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client that sees all of an answer, and one that sends bytes as they are."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

CACHE = Path(__file__).parents[3] / ".cache"
AUTHORITY = CACHE / "certificates" / "ca.pem"
ACME_AUTHORITY = CACHE / "acme" / "root.pem"


class Answer:
    """:ivar status: 0 when there was no answer
    :ivar headers: {lower-case name: [values]}
    :ivar problem: what curl says, empty when all went well
    """

    def __init__(self, text, report):
        head, _blank, self.body = text.partition("\n\n")
        lines = [line.partition(":") for line in head.splitlines()[1:]]
        self.headers = {}
        for name, _colon, value in lines:
            self.headers.setdefault(name.lower(), []).append(value.strip())
        self.status, self.version, self.problem = (
            report["response_code"],
            report["http_version"],
            report["errormsg"] or "",
        )

    def __getitem__(self, name):
        """The value of a header; None when it is missing, the test fails when there are two."""
        values = self.headers.get(name, [None])
        assert len(values) == 1, f"{name}: {values}"
        return values[0]

    @property
    def json(self):
        return json.loads(self.body)


class Client:
    """Asks one test host."""

    def __init__(self, address):
        self.address = address

    def get(self, url, *options, trust=AUTHORITY):
        """Ask with curl. trust: the file with the authorities that it trusts; None for whatever comes."""
        host = url.split("/")[2]
        command = ["curl", "--silent", "--include", "--path-as-is", "--max-time", "20", "--noproxy", "*"]
        for port in (80, 443):
            command += ["--resolve", f"{host}:{port}:{self.address}"]
        command += ["--cacert", str(trust)] if trust else ["--insecure"]
        done = subprocess.run([*command, "--write-out", "\n%{json}", *options, url], capture_output=True, check=False)
        text, _newline, report = done.stdout.decode(errors="replace").replace("\r\n", "\n").rpartition("\n")
        return Answer(text, json.loads(report))

    def raw(self, data, port=80, name=None):
        """Send bytes and return all that comes back until nginx closes the connection."""
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection((self.address, port), timeout=10))
            if port == 443:
                context = ssl.create_default_context(cafile=AUTHORITY)
                connection = stack.enter_context(context.wrap_socket(connection, server_hostname=name))
            connection.sendall(data)
            received = b""
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                while part := connection.recv(65536):
                    received += part
        return received

    def handshake(self, name, **limits):
        """(certificate in DER, protocol, cipher) of a handshake; raises ssl.SSLError when it is refused."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers(limits.pop("ciphers", "ALL:@SECLEVEL=0"))
        for attribute, value in limits.items():
            setattr(context, attribute, value)
        with (
            socket.create_connection((self.address, 443), timeout=10) as connection,
            context.wrap_socket(connection, server_hostname=name) as secure,
        ):
            return secure.getpeercert(binary_form=True), secure.version(), secure.cipher()[0]


@pytest.fixture
def client(machine):
    return Client(machine.address)


TLS = {"flask_apps": "{{ test_tls_apps }}", "nginx_sites": "{{ test_tls_sites }}"}


@pytest.fixture
def deploy(machine):
    """Run the site playbook with the scenario's lists and other variables; returns its output."""
    return lambda *arguments, **variables: machine.deploy(*arguments, **{**TLS, **variables})
