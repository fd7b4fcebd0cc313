# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An app's static files: nginx serves them, and nothing else."""

from __future__ import annotations

import time

import pytest


def by_nginx(answer):
    return answer.status == 200 and answer["cache-control"] == "max-age=7200"


def test_nginx_serves_them(client):
    answer = client.get("https://shop.test/static/style.css")
    assert by_nginx(answer) and answer.body == "h1 { color: #004488; }\n"
    assert answer["content-type"] == "text/css" and answer["etag"]
    assert (
        client.get("https://shop.test/static/style.css", "--header", f"If-None-Match: {answer['etag']}").status == 304
    )


def test_a_precompressed_file_is_used(client, machine):
    answer = client.get("https://shop.test/static/style.css", "--header", "Accept-Encoding: gzip")
    size = machine.output("stat -L -c %s /opt/flask_apps/shop/current/build/static/style.css.gz")
    assert (answer["content-encoding"], answer["content-length"]) == ("gzip", size)
    assert "Accept-Encoding" in answer["vary"]


@pytest.mark.parametrize(
    "path",
    [
        ".hidden.css",
        ".private/a.css",
        "",
        "../app.py",
        "%2e%2e/app.py",
        "..%2fapp.py",
        "css/..%2f..%2fapp.py",
        "..%5capp.py",
        "style.css%00",
        "../../../../../../etc/passwd",
    ],
)
def test_nothing_else_is_served(client, path):
    answer = client.get(f"https://shop.test/static/{path}")
    assert answer.status in (400, 404)
    assert not any(word in answer.body for word in ("secret", "ProxyFix", "root:"))


@pytest.mark.parametrize("name", ["link.css", "own.css"])
def test_links_are_left_to_the_app(client, name):
    assert not by_nginx(client.get(f"https://shop.test/static/{name}"))


def test_the_rest_of_the_build_stays_closed(machine):
    build = machine.output("readlink -f /opt/flask_apps/shop/current/build")
    proxy = "www-data" if machine.debian else "nginx"

    def readable(path):
        return machine.host.run(f"setpriv --reuid {proxy} --regid {proxy} --clear-groups cat {build}/{path}").rc == 0

    assert readable("static/style.css")
    assert not any(readable(path) for path in ("app.py", "version.py", "requirements.txt", ".venv/pyvenv.cfg"))
    assert machine.host.run(f"setpriv --reuid {proxy} --regid {proxy} --clear-groups ls {build}").rc != 0


def wait_for_page(client, words):
    """An idle connection of nginx stays with the release that it was opened to for up to 3 s."""
    deadline = time.monotonic() + 6
    while words not in (body := client.get("https://shop.test/").body):
        assert time.monotonic() < deadline, body
        time.sleep(3.1)  # a request would keep that connection


def test_files_follow_the_switch(machine, client, deploy):
    """Without a reload; and a page of the release before still finds its files."""
    workers = machine.output("pgrep -P $(cat /run/nginx.pid)")
    old, new = "https://shop.test/static/one.css", "https://shop.test/static/two.css"
    assert by_nginx(client.get(old)) and client.get(new).status == 404
    deploy(test_shop_version="version2")
    assert by_nginx(client.get(old)) and by_nginx(client.get(new))
    wait_for_page(client, "version 2")
    deploy(playbook="rollback")
    wait_for_page(client, "version 1")
    assert by_nginx(client.get(old)) and by_nginx(client.get(new))
    assert machine.output("pgrep -P $(cat /run/nginx.pid)") == workers
    deploy()


def test_folders_that_are_declared_later(machine, client, deploy):
    static = [{"url": "/static", "path": "static"}, {"url": "/assets", "path": "static/.private", "expires": "2h"}]
    before = machine.live("shop")["release"]
    deploy(flask_app_overrides={"shop": {"static": static}})
    assert by_nginx(client.get("https://shop.test/assets/a.css")) and machine.live("shop")["release"] == before
    deploy()


def test_a_folder_that_is_not_there(machine, client):
    static = [{"url": "/static", "path": "statics"}]
    result = machine.attempt(flask_apps="{{ test_tls_apps }}", flask_app_overrides={"shop": {"static": static}})
    assert result.returncode != 0 and "static: the build has no folder 'statics'" in " ".join(result.stdout.split())
    assert client.get("https://shop.test/health").status == 200
    machine.deploy(flask_apps="{{ test_tls_apps }}", nginx_sites="{{ test_tls_sites }}")
