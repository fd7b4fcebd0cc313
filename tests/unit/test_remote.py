# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A password of a repository's URL, with the real git and a server that asks for it."""

from __future__ import annotations

import base64
import http.server
import os
import subprocess
import threading
from pathlib import Path

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils.remote import (
    git_configuration,
    ssh_command,
    ssh_server,
    submodule_url,
)
from ansible_collections.flaskfleet.deploy.plugins.plugin_utils import pins

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"/hello.git/info/refs": f"{COMMIT}\trefs/heads/master\n", "/hello.git/HEAD": "ref: refs/heads/master\n"}


@pytest.mark.parametrize(
    "url, expected, credentials",
    [
        ("https://git.test/hello.git", "https://git.test/hello.git", None),
        ("https://me:pw@git.test/hello.git", "https://git.test/hello.git", "me:pw"),
        ("https://token@git.test:8443/hello.git", "https://git.test:8443/hello.git", "token:"),
        ("http://me:p%40%3Aw@[::1]:80/a/b.git", "http://[::1]:80/a/b.git", "me:p@:w"),
        ("ssh://git@git.test/hello.git", "ssh://git@git.test/hello.git", None),
        ("git@git.test:hello.git", "git@git.test:hello.git", None),
        ("/srv/hello@home.git", "/srv/hello@home.git", None),
    ],
)
def test_git_configuration(url, expected, credentials):
    headers = git_configuration(url)
    assert headers.pop("remote.flaskfleet.url") == expected
    if credentials is None:
        assert headers == {}
    else:
        ((key, value),) = headers.items()
        assert expected.startswith(key.removeprefix("http.").removesuffix(".extraHeader"))
        assert base64.b64decode(value.removeprefix("Authorization: Basic ")).decode() == credentials


@pytest.mark.parametrize(
    "url, server",
    [
        ("ssh://git@git.test/hello.git", ("git.test", None)),
        ("ssh://git.test:2222/hello.git", ("git.test", 2222)),
        ("git@Git.test:group/hello.git", ("git.test", None)),
        ("git.test:hello.git", ("git.test", None)),
        ("https://me@git.test/hello.git", None),
        ("/srv/a:b.git", None),
        ("file:///srv/a.git", None),
    ],
)
def test_ssh_server(url, server):
    assert ssh_server(url) == server


def test_ssh_command():
    assert ssh_command() == "ssh -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=15"
    words = ssh_command("/k", "/h").split()
    assert {"StrictHostKeyChecking=yes", "UserKnownHostsFile=/h", "GlobalKnownHostsFile=/dev/null"} <= set(words)
    assert words[words.index("-i") + 1] == "/k" and "IdentitiesOnly=yes" in words and "accept-new" not in words


@pytest.mark.parametrize(
    "parent, url, expected",
    [
        ("https://git.test/group/app.git", "../lib.git", "https://git.test/group/lib.git"),
        ("https://git.test/group/app.git/", "../../other/lib", "https://git.test/other/lib"),
        ("https://git.test/group/app.git", "./lib.git", "https://git.test/group/app.git/lib.git"),
        ("https://git.test/group/app.git", "../../../lib.git", None),
        ("git@git.test:group/app.git", "../lib.git", "git@git.test:group/lib.git"),
        ("git@git.test:app.git", "../lib.git", "git@git.test:lib.git"),
        ("git@git.test:app.git", "../../lib.git", None),
        ("/srv/app.git", "../lib.git", "/srv/lib.git"),
        ("file:///srv/app.git", "../lib.git", "file:///srv/lib.git"),
        ("https://git.test/app.git", "ssh://git@git.test/lib.git", "ssh://git@git.test/lib.git"),
        ("https://git.test/app.git", "git@git.test:lib.git", "git@git.test:lib.git"),
        ("https://git.test/app.git", "/srv/lib.git", None),
        ("https://git.test/app.git", "file:///srv/lib.git", None),
        ("file:///srv/app.git", "/srv/lib.git", "/srv/lib.git"),
        ("https://git.test/app.git", "ext::touch pwned", None),
        ("https://git.test/app.git", "ssh://-oProxyCommand=x/lib.git", None),
        ("https://git.test/app.git", "-x:lib.git", None),
        ("https://git.test/app.git", "host:-x", None),
        ("https://git.test/app.git", "lib", None),
        ("https://git.test/app.git", "", None),
    ],
)
def test_submodule_url(parent, url, expected):
    if expected is None:
        with pytest.raises(ValueError):
            submodule_url(parent, url)
    else:
        assert submodule_url(parent, url) == expected


class Handler(http.server.BaseHTTPRequestHandler):
    """A repository with one branch, as git's "dumb" protocol wants it, behind a password."""

    def do_GET(self):
        expected = "Basic " + base64.b64encode(b"me:the-password").decode()
        text = FILES.get(self.path.partition("?")[0])
        status = 401 if self.headers["Authorization"] != expected else 200 if text else 404
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode() if status == 200 else b"")

    def log_message(self, *arguments):
        """Nothing."""


@pytest.fixture
def port():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield server.server_port
        server.shutdown()


def test_no_command_line_of_git_has_the_password(port, tmp_path, monkeypatch):
    own = Path(subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip())
    for program in own.iterdir():
        (tmp_path / program.name).symlink_to(program)
    helper, record = tmp_path / "git-remote-http", tmp_path / "record"
    helper.unlink()
    helper.write_text(f'#!/bin/sh\necho "$@" > {record}\nexec {own}/git-remote-http "$@"\n')
    helper.chmod(0o755)
    monkeypatch.setenv("GIT_EXEC_PATH", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    assert pins.resolve(f"http://me:the-password@127.0.0.1:{port}/hello.git", "master") == COMMIT
    assert record.read_text() == f"flaskfleet http://127.0.0.1:{port}/hello.git\n"
