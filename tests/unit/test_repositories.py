# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What reaches a private repository by ssh: which keys are taken, and that none is shown."""

from __future__ import annotations

import base64
import json
import subprocess
from types import SimpleNamespace

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.flaskfleet.deploy.plugins.module_utils.plan import (
    PlanError,
    collect_secrets,
    make_plan,
    plain_variables,
)

URL = "ssh://git@git.test:2222/hello.git"
KNOWN = "AAAAC3NzaC1lZDI1NTE5AAAAINr6XTqvsLwEFZvqZqGfS3Z0X3J3c0lW7y9wq7b0W5cT"
HOSTS = f"[git.test]:2222 ssh-ed25519 {KNOWN}\n"
DEBIAN = {"packages": ["git"], "ssh_packages": ["openssh-client"]}


def keygen(path, *arguments):
    command = ["ssh-keygen", "-q", "-N", "", "-f", str(path), *arguments]
    subprocess.run(command, check=True, capture_output=True)
    return path.read_text()


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    made = {
        "ed25519": keygen(folder / "one", "-t", "ed25519"),
        "rsa": keygen(folder / "two", "-t", "rsa", "-b", "2048", "-m", "PEM"),
        "locked": keygen(folder / "three", "-t", "ed25519", "-N", "secret"),
        "locked PEM": keygen(folder / "four", "-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "secret"),
        "public": (folder / "one.pub").read_text(),
        "broken": "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
    }
    made["ed25519 without its last line break"] = made["ed25519"].strip()
    return made


def app_of(**changes):
    return {"name": "hello", "domain": "hello.test", "repository": URL, "repository_known_hosts": HOSTS, **changes}


def errors_of(**changes):
    try:
        make_plan({"flask_apps": [app_of(**changes)]}, DEBIAN, "web1")
    except PlanError as error:
        return [each.removeprefix("flask_apps[0] (hello): ") for each in error.errors]
    return []


def test_signatures_take_what_ssh_brings():
    signer = "alice@example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO"
    app = app_of(repository="https://git.test/a.git", repository_known_hosts="", allowed_signers=[signer])
    assert make_plan({"flask_apps": [app]}, DEBIAN, "web1")["packages"] == ["git", "openssh-client"]


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ed25519 without its last line break"])
def test_a_key_that_can_be_used(keys, kind):
    variables = {"flask_apps": [app_of(repository_key=keys[kind])]}
    plan = make_plan(variables, DEBIAN, "web1")
    assert "PRIVATE KEY" not in json.dumps(plan) and KNOWN not in json.dumps(plan)
    assert collect_secrets(variables)["hello"]["access"] == {"key": keys[kind], "known_hosts": HOSTS}
    assert plan["packages"] == ["git", "openssh-client"]


@pytest.mark.parametrize(
    "kind, problem",
    [
        ("locked", "must not be encrypted with a passphrase: nobody is there to type it"),
        ("locked PEM", "must not be encrypted with a passphrase: nobody is there to type it"),
        ("broken", "has no private key that can be read, as `ssh-keygen -t ed25519` makes it"),
        (
            "public",
            "must be the text of a private key, or the path of a file on the controller; "
            "for example `repository_key: files/deploy_key`",
        ),
    ],
)
def test_a_key_that_cannot(keys, kind, problem):
    assert errors_of(repository_key=keys[kind]) == [f"`repository_key` {problem}"]


def test_a_key_is_shown_to_known_servers_only(keys):
    missing = "`repository_known_hosts` is missing: `repository_key` is shown to no server whose own key is not known"
    assert errors_of(repository_key=keys["ed25519"], repository_known_hosts="") == [
        f"{missing}; for example `repository_known_hosts: files/known_hosts`"
    ]
    assert errors_of() == [], "an agent may have the key"


@pytest.mark.parametrize("url", ["https://git.test/hello.git", "/srv/hello.git", "git://git.test/hello.git"])
def test_keys_are_for_ssh(keys, url):
    problem = "is for a repository that is reached by ssh; with https, a token goes into `repository`"
    example = 'for example `repository: "https://git:{{ vault_token }}@git.example.org/hello.git"`'
    expected = [f"`repository_{key}` {problem}; {example}" for key in ("key", "known_hosts")]
    assert errors_of(repository=url, repository_key=keys["ed25519"]) == expected
    app = {"name": "hello", "domain": "hello.test", "repository": url}
    defaults = {"repository_key": keys["ed25519"], "repository_known_hosts": HOSTS}
    variables = {"flask_apps": [app], "flask_app_defaults": defaults}
    assert collect_secrets(variables)["hello"]["access"] == {}, "a default is no mistake"


def hashed(name):
    """As `ssh-keygen -H` has a host."""
    import hashlib
    import hmac

    salt = b"01234567890123456789"
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


LINES = "must have lines of a host, a type of key and a key, as `ssh-keyscan` prints them"
NONE = "has no key of {}; `ssh-keyscan` prints those that a server shows: compare them"


@pytest.mark.parametrize(
    "hosts, url, problem",
    [
        ("# a comment\n\n" + HOSTS, URL, ""),
        (HOSTS, "ssh://git@git.test/hello.git", NONE.format("git.test")),
        (HOSTS, "ssh://git@git.test:2223/hello.git", NONE.format("[git.test]:2223")),
        (f"git.test,192.0.2.1 ssh-ed25519 {KNOWN} comment", "git@git.test:hello.git", ""),
        (f"Git.test ssh-ed25519 {KNOWN}", "ssh://git@Git.Test:22/hello.git", ""),
        (f"*.test ssh-ed25519 {KNOWN}", "git.test:hello.git", ""),
        (f"*.test,!git.test ssh-ed25519 {KNOWN}", "git.test:hello.git", NONE.format("git.test")),
        (f"{hashed('git.test')} ssh-ed25519 {KNOWN}", "git.test:hello.git", ""),
        (f"{hashed('other.test')} ssh-ed25519 {KNOWN}", "git.test:hello.git", NONE.format("git.test")),
        (f"|1|x|y ssh-ed25519 {KNOWN}", "git.test:hello.git", NONE.format("git.test")),
        (f"@cert-authority *.test ssh-ed25519 {KNOWN}", "git.test:hello.git", ""),
        (f"@revoked git.test ssh-ed25519 {KNOWN}", "git.test:hello.git", NONE.format("git.test")),
        (f"@other git.test ssh-ed25519 {KNOWN}", "git.test:hello.git", LINES),
        (f"git.test ssh-rsa {KNOWN}", "git.test:hello.git", LINES),
        ("git.test ssh-ed25519", "git.test:hello.git", LINES),
        ("git.test ssh-ed25519 c4n4ry!", "git.test:hello.git", LINES),
        ("/nowhere/known_hosts", "git.test:hello.git", LINES),
    ],
)
def test_known_hosts(hosts, url, problem):
    found = errors_of(repository=url, repository_known_hosts=hosts)
    assert found == ([f"`repository_known_hosts` {problem}"] if problem else [])


def test_files_of_the_controller_are_read(keys, tmp_path):
    (tmp_path / "key").write_text(keys["ed25519"])
    (tmp_path / "hosts").write_text(HOSTS)
    loader = DataLoader()
    loader.set_basedir(str(tmp_path))
    apps = [app_of(repository_key="key")]
    variables = {"flask_apps": apps, "flask_app_defaults": {"repository_known_hosts": "hosts"}}
    del apps[0]["repository_known_hosts"]
    read = collect_secrets(plain_variables(Templar(loader, variables=variables), loader, variables))
    assert read["hello"]["access"] == {"key": keys["ed25519"], "known_hosts": HOSTS}
    broken = plain_variables(
        SimpleNamespace(template=lambda value: value), loader, {"flask_apps": [app_of(repository_key="no")]}
    )
    assert broken["flask_apps"][0]["repository_key"] == "no"
