# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the app sees of a request, which nobody outside can forge; what attackers try; limits, logs and errors."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

LOG_FLUSH = 1.5  # seconds; nginx writes what it logs once in a second
FORGED = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Host": "evil.test",
    "X-Forwarded-Port": "666",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Server": "evil.test",
    "X-Real-IP": "203.0.113.9",
    "X-Request-ID": "forged",
    "Forwarded": "for=203.0.113.9;proto=http;host=evil.test",
    "Proxy": "http://evil.test",
    "X_Forwarded_Proto": "http",
    "Script-Name": "/x",
    "Script_Name": "/evil",
}


@pytest.fixture(scope="module")
def gateway(inventory):
    """The address that the tests ask from."""
    return inventory["ubuntu"]["test_network_gateway"]


def options(headers):
    return [word for name, value in headers.items() for word in ("--header", f"{name}: {value}")]


def test_nobody_can_forge_what_the_app_sees(client, gateway):
    answer = client.get("https://shop.test/seen", *options(FORGED))
    seen = answer.json
    assert (seen["url"], seen["client"], seen["secure"]) == ("https://shop.test/seen", gateway, True)
    got = {name.lower(): value for name, value in seen["headers"]}
    assert got["x-request-id"] == answer["x-request-id"] and len(got["x-request-id"]) == 32
    assert got["host"] == got["x-forwarded-host"] == "shop.test"
    assert not {"forwarded", "proxy", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-server"} & set(got)
    assert "evil" not in answer.body and "203.0.113.9" not in answer.body


def test_the_host_is_that_of_the_site(client):
    """An absolute URI wins over the header (RFC 9112, 3.2.2), and so must it for the app."""
    request = b"GET http://balanced.test/seen HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n"
    answer = client.raw(request)
    assert b" 200 " in answer.splitlines()[0] and b"evil.test" not in answer


CLOSE = b"Connection: close\r\n"
HOST = b"Host: balanced.test\r\n"
CHUNK = b"Transfer-Encoding: chunked\r\n"
PROBES = {
    "length and chunks": b"POST /seen HTTP/1.1\r\n" + HOST + CLOSE + CHUNK + b"Content-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST /seen HTTP/1.1\r\n" + HOST + CLOSE + b"Content-Length: 0\r\nContent-Length: 9\r\n\r\n",
    "lengths in one": b"POST /seen HTTP/1.1\r\n" + HOST + CLOSE + b"Content-Length: 0, 9\r\n\r\n",
    "negative length": b"POST /seen HTTP/1.1\r\n" + HOST + CLOSE + b"Content-Length: -1\r\n\r\n",
    "unknown coding": b"POST /seen HTTP/1.1\r\n" + HOST + CLOSE + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding twice": b"POST /seen HTTP/1.1\r\n" + HOST + CLOSE + CHUNK + CHUNK + b"\r\n0\r\n\r\n",
    "space before the colon": b"POST /seen HTTP/1.1\r\n" + HOST + CLOSE + b"Content-Length : 9\r\n\r\n",
    "two hosts": b"GET /seen HTTP/1.1\r\n" + HOST + b"Host: evil.test\r\n" + CLOSE + b"\r\n",
    "no host": b"GET /seen HTTP/1.1\r\n" + CLOSE + b"\r\n",
    "host with a path": b"GET /seen HTTP/1.1\r\nHost: balanced.test/evil\r\n" + CLOSE + b"\r\n",
    "NUL in a header": b"GET /seen HTTP/1.1\r\n" + HOST + CLOSE + b"X-A: a\0b\r\n\r\n",
    "chunk that is too long": b"POST /seen HTTP/1.1\r\n" + HOST + CLOSE + CHUNK + b"\r\nfffffffffffffffff\r\n\r\n",
    "unknown method": b"TRACE /seen HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n",
}


def statuses(answer):
    return [line.split()[1].decode() for line in answer.splitlines() if line.startswith(b"HTTP/")]


@pytest.mark.parametrize("probe", PROBES)
def test_smuggling_is_refused(client, probe):
    """Refused, or closed without a word; never taken for two requests."""
    answer = client.raw(PROBES[probe])
    found = statuses(answer)
    assert set(found) <= {"400", "405", "501"} and len(found) <= 1, answer


def test_table_of_probes(client, machine):
    """Kept for people to read."""
    rows = [f"| {probe} | {' '.join(statuses(client.raw(sent))) or 'closed'} |" for probe, sent in PROBES.items()]
    lines = [f"# What nginx on {machine.name} answers to requests that could be taken for two", ""]
    lines += ["| probe | answer |", "|---|---|", *rows, ""]
    report = Path(__file__).parents[3] / ".cache" / "reports" / f"probes-{machine.name}.md"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.parametrize("path", ["/%0d%0aX-Injected:%20yes", "/%0aX-Injected:%20yes", "/a?b=%0d%0aX-Injected:yes"])
@pytest.mark.parametrize("domain", ["shop.test", "moved.test"])
def test_no_header_is_injected(client, path, domain):
    answer = client.get(f"http://{domain}{path}")
    assert answer["x-injected"] is None
    assert answer.status in (301, 400)


def test_only_websockets_upgrade(client):
    request = b"GET /seen HTTP/1.1\r\n" + HOST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    answer = client.raw(request + b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n")
    assert b" 200 " in answer.splitlines()[0] and b'"Upgrade"' not in answer


def test_headers_of_answers(client):
    for path in ("health", "static/style.css", "nowhere"):
        answer = client.get(f"https://shop.test/{path}")
        assert answer["x-content-type-options"] == "nosniff" and answer["x-frame-options"] == "SAMEORIGIN"
        assert answer["referrer-policy"] == "strict-origin-when-cross-origin"
        assert answer["server"] == "nginx"
    assert client.get("https://shop.test/framed")["x-frame-options"] == "DENY"
    assert client.get("http://shop.test/")["server"] == "nginx"


@pytest.fixture(scope="module")
def settings(tmp_path_factory, gateway):
    """Settings of the site strict, a second way to the app shop, and its page for errors."""
    page = tmp_path_factory.mktemp("pages") / "down.html.j2"
    page.write_text("<h1>{{ site.domain }} is away</h1>\n")
    return {
        "name": "strict",
        "domain": "strict.test",
        "upstream": ["unix:/opt/flask_apps/shop/current/web.sock"],
        "max_body_size": "1k",
        "read_timeout": 1,
        "access_log": "json",
        "error_page": str(page),
        "trusted_proxies": [gateway],
        "headers": {"X-Frame-Options": "", "Content-Security-Policy": "default-src 'self'"},
    }


@pytest.fixture
def strict(settings, deploy, machine):
    if machine.host.run("ls /etc/nginx/pages/strict.html").rc != 0:
        deploy("--tags", "sites", nginx_sites=[settings])


def test_bodies_that_are_too_large(strict, client):
    assert client.get("http://strict.test/seen", "--data", "a" * 1024).status == 200
    assert client.get("http://strict.test/seen", "--data", "a" * 1025).status == 413


def test_a_slow_answer(strict, client):
    answer = client.get("http://strict.test/slow?seconds=3")
    assert (answer.status, answer.body.strip()) == (504, "<h1>strict.test is away</h1>")


def test_behind_a_balancer(strict, client, gateway):
    headers = {"X-Forwarded-For": f"203.0.113.9, 198.51.100.7, {gateway}", "X-Forwarded-Proto": "https"}
    seen = client.get("http://strict.test/seen", *options(headers)).json
    assert (seen["client"], seen["url"]) == ("198.51.100.7", "https://strict.test/seen")


def test_headers_of_ones_own(strict, client):
    answer = client.get("http://strict.test/health")
    assert answer["x-frame-options"] is None and answer["content-security-policy"] == "default-src 'self'"


def test_logs(strict, machine, client, gateway):
    answer = client.get("http://strict.test/seen?a=%22", "--user-agent", 'quote " and \\ and é')
    client.get("https://shop.test/health")
    time.sleep(LOG_FLUSH)
    entry = json.loads(machine.output("tail -1 /var/log/nginx/strict.test.access.log"))
    assert (entry["uri"], entry["status"], entry["client"]) == ("/seen?a=%22", 200, gateway)
    assert entry["agent"] == 'quote " and \\ and é' and entry["request_id"] == answer["x-request-id"]
    assert 0 <= float(entry["upstream_time"]) <= float(entry["request_time"]) + 0.01
    assert '"GET /health HTTP/2.0" 200' in machine.output("tail -1 /var/log/nginx/shop.test.access.log")


def test_logs_are_rotated(strict, machine, client):
    machine.output("logrotate --force /etc/logrotate.d/nginx")
    assert machine.host.file("/var/log/nginx/strict.test.access.log.1").exists
    client.get("http://strict.test/health")
    time.sleep(LOG_FLUSH)
    assert "/health" in machine.output("cat /var/log/nginx/strict.test.access.log")


def test_a_maintenance_and_who_may_see_it(settings, deploy, client):
    open_one = {**settings, "name": "closed", "domain": "closed.test", "allow": ["192.0.2.0/24"], "trusted_proxies": []}
    deploy("--tags", "sites", nginx_sites=[{**settings, "maintenance": True, "retry_after": 7}, open_one])
    answer = client.get("http://strict.test/health")
    assert (answer.status, answer["retry-after"]) == (503, "7") and "strict.test is away" in answer.body
    assert client.get("http://closed.test/health", "--header", "X-Forwarded-For: 192.0.2.1").status == 403
    deploy("--tags", "sites", nginx_sites=[settings])
    assert client.get("http://strict.test/health").status == 200


def test_an_app_that_is_down(strict, machine, client):
    unit = machine.unit("shop")
    machine.output(f"systemctl stop {unit.replace('.service', '.socket')} {unit}")
    try:
        answer = client.get("http://strict.test/health")
        assert (answer.status, answer.body.strip()) == (502, "<h1>strict.test is away</h1>")
    finally:
        machine.output(f"systemctl start {unit.replace('.service', '.socket')} {unit}")
