# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sites that lead to servers, folders or elsewhere, with lines and templates of one's own; what is wrong with one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

FOLDER = "mkdir -p /srv/docs/sub /srv/docs/.git /srv/files && echo page > /srv/docs/index.html"
FOLDER += (
    " && echo page > /srv/docs/sub/index.html && echo secret > /srv/docs/.git/config && echo file > /srv/files/a.txt"
)
FOLDER += " && ln -sf /etc/passwd /srv/docs/passwd && ln -sf /etc/passwd /srv/files/passwd"


@pytest.fixture(autouse=True)
def _folder(machine):
    machine.output(FOLDER)


@pytest.mark.parametrize(
    "path, status",
    [
        ("", 200),
        ("sub/", 200),
        ("nowhere", 404),
        (".git/config", 404),
        ("passwd", 404),
        ("files/a.txt", 200),
        ("files/passwd", 404),
        ("../etc/passwd", 400),
        ("%2e%2e/%2e%2e/etc/passwd", 400),
        ("files/..%2f..%2fetc/passwd", 400),
    ],
)
def test_a_folder(client, path, status):
    answer = client.get(f"https://signed.test/{path}", trust=None)
    assert answer.status == status
    assert "root:" not in answer.body and "secret" not in answer.body


def test_several_servers(client):
    answer = client.get("https://balanced.test/seen", trust=None)
    assert answer.status == 200 and answer.json["url"] == "https://balanced.test/seen"


def test_a_redirection(client):
    answer = client.get("http://moved.test/a?b=c")
    assert (answer.status, answer["location"]) == (301, "https://shop.test/a?b=c")


def test_lines_and_a_template_of_ones_own(client):
    assert client.get("http://mine.test/teapot").status == 418
    assert client.get("http://mine.test/mine").body == "mine by a template of its own"
    assert client.get("http://mine.test/").status == 200


def test_a_password(client, machine):
    """README's example."""
    machine.output('echo "ada:$(openssl passwd -apr1 lovelace)" > /etc/nginx/staff.htpasswd')
    assert client.get("http://staff.test/").status == 401
    assert client.get("http://staff.test/", "--user", "ada:lovelace").status == 200
    assert client.get("http://staff.test/", "--user", "ada:byron").status == 401


def test_a_limit_on_requests(client):
    """README's example."""
    with ThreadPoolExecutor(40) as pool:
        statuses = {answer.status for answer in pool.map(client.get, ["http://limited.test/"] * 40)}
    assert statuses == {200, 503}


def test_what_nginx_refuses_never_reaches_it(machine, client):
    before = machine.output("ls -l --full-time /etc/nginx/*/")
    sites = [{"name": "mine", "domain": "mine.test", "root": "/srv/docs", "extra": "retrun 200;"}]
    result = machine.attempt("--tags", "sites", nginx_sites=sites, flask_apps="{{ test_tls_apps }}")
    assert result.returncode != 0
    assert 'unknown directive "retrun" in /etc/nginx/' in result.stdout and "mine.test.conf:" in result.stdout
    assert machine.output("ls -l --full-time /etc/nginx/*/") == before
    assert client.get("http://mine.test/mine").status == 200


def test_a_site_of_somebody_else_is_told_and_left_alone(machine, deploy):
    folder = "/etc/nginx/sites-enabled" if machine.debian else "/etc/nginx/conf.d"
    machine.output(f"echo 'server {{ listen 80; server_name moved.test; }}' > {folder}/zz-legacy.conf")
    try:
        output = " ".join(deploy("--tags", "sites").split())
        assert f"moved.test is a server name in {folder}/zz-legacy.conf, too: nginx takes the first it reads" in output
        assert "zz-legacy.conf" in machine.output(f"ls {folder}")
    finally:
        machine.output(f"rm {folder}/zz-legacy.conf; systemctl reload nginx")


def test_a_port_of_somebody_else_is_told(machine):
    """nginx's own test does not see it, and a reload keeps the old configuration without a word."""
    machine.output("systemctl stop nginx; systemd-run --quiet --unit=other python3 -m http.server 443")
    try:
        machine.output("for i in $(seq 50); do ss -ltn 2>/dev/null | grep -q :443 && break; sleep 0.1; done")
        result = machine.attempt("--tags", "sites", flask_apps="{{ test_tls_apps }}")
        assert result.returncode != 0 and "python3 listens on port 443, which the sites need" in result.stdout
    finally:
        machine.output("systemctl stop other; systemctl start nginx")


def test_a_site_that_is_absent_goes_with_its_certificate(machine, deploy, client):
    extra = {"name": "extra", "domain": "extra.test", "root": "/srv/docs", "tls": {"mode": "self_signed"}}
    deploy("--tags", "sites", nginx_sites=[extra])
    assert client.get("https://extra.test/", trust=None).status == 200
    output = deploy("--tags", "sites", nginx_sites=[])
    assert "extra: is not in the list any more, its site was left alone" in " ".join(output.split())
    deploy("--tags", "sites", nginx_sites=[{**extra, "state": "absent"}])
    assert client.get("https://extra.test/", trust=None).status == 0
    assert machine.host.run("ls /etc/nginx/*/extra*").rc != 0
    deploy("--tags", "sites")
