# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions and the commits they mean, with a git repository on this machine."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.flaskfleet.deploy.plugins.plugin_utils import pins

GIT = shutil.which("git")
IDENTITY = {f"GIT_{role}_{part}": "tests@localhost" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}


class Repository:
    """A bare repository with one empty commit a call of ``commit``."""

    def __init__(self, path):
        self.url = str(path)
        self.git("init", "--quiet", "--bare", "--initial-branch=master", self.url)

    def git(self, *words):
        command = [GIT, f"--git-dir={self.url}", *words]
        environment = {**os.environ, **IDENTITY, "GIT_CONFIG_GLOBAL": "/dev/null"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    def commit(self, message):
        """Returns the new commit; nothing names it yet."""
        tree = self.git("hash-object", "-w", "-t", "tree", "/dev/null")
        return self.git("commit-tree", "-m", message, tree)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    repository = Repository(tmp_path_factory.mktemp("pins") / "hello.git")
    repository.commits = {}
    for name in ("master", "feature/x", "both", "master-of-none"):
        repository.commits[f"refs/heads/{name}"] = repository.commit(f"branch {name}")
    for name in ("v1", "both"):
        repository.commits[f"refs/tags/{name}"] = repository.commit(f"tag {name}")
    for name, commit in repository.commits.items():
        repository.git("update-ref", name, commit)
    annotated = repository.commits["refs/tags/v2"] = repository.commit("tag v2")
    repository.git("tag", "--annotate", "--message=two", "v2", annotated)
    return repository


@pytest.fixture(autouse=True)
def run_of_ansible(tmp_path, monkeypatch):
    """Its directory for temporary files, and no configuration of git but its defaults."""
    monkeypatch.setattr(pins.C, "DEFAULT_LOCAL_TMP", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Have a git in PATH that writes its arguments down; returns the lines."""
    record = tmp_path / "record"
    record.touch()
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\necho "$@" >> {record}\nexec {GIT} "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    return lambda: record.read_text().splitlines()


@pytest.mark.parametrize(
    "version, meant",
    [
        pytest.param("master", "refs/heads/master", id="branch"),
        pytest.param("feature/x", "refs/heads/feature/x", id="branch with a slash"),
        pytest.param("v1", "refs/tags/v1", id="tag"),
        pytest.param("v2", "refs/tags/v2", id="annotated tag"),
        pytest.param("both", "refs/heads/both", id="a branch goes before a tag"),
        pytest.param("HEAD", "refs/heads/master", id="the default branch"),
        pytest.param("nowhere", None, id="unknown"),
        pytest.param("x", None, id="the end of a name"),
        pytest.param("refs/heads/master", None, id="a full name"),
    ],
)
def test_resolve(repository, version, meant):
    assert pins.resolve(repository.url, version) == repository.commits.get(meant)


def test_another_checkout_as_working_directory_does_not_matter(repository, tmp_path, monkeypatch):
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", "/nowhere"], check=True)
    monkeypatch.chdir(tmp_path)
    assert pins.resolve(repository.url, "master") == repository.commits["refs/heads/master"]


def test_a_commit_is_not_asked_for(recorded):
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert pins.resolve("https://git.test/nowhere.git", commit) == commit
    assert recorded() == []


def test_a_short_commit_is_for_the_host_to_find(repository):
    assert pins.resolve(repository.url, repository.commits["refs/heads/master"][:8]) is None


@pytest.mark.parametrize("url", ["/nowhere/hello.git", "http://127.0.0.1:9/hello.git", "ext::touch pwned"])
def test_a_repository_that_cannot_be_reached(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pins.resolve(url, "master") is None
    assert not (tmp_path / "pwned").exists()


def test_a_repository_that_never_answers(repository, tmp_path, monkeypatch):
    (tmp_path / "git").write_text("#!/bin/sh\nexec sleep 10\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(pins, "TIMEOUT", 0.1)
    started = time.monotonic()
    assert pins.resolve(repository.url, "master") is None
    assert time.monotonic() - started < 5


def test_no_git_at_all(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert pins.resolve(repository.url, "master") is None


def test_pin_all(repository, recorded):
    wanted = [(repository.url, "master"), (repository.url, "nowhere"), (repository.url, "master")]
    expected = {wanted[0]: repository.commits["refs/heads/master"], wanted[1]: None}
    assert pins.pin_all(wanted) == expected
    assert len(recorded()) == 2
    # also what is not known stays so in this run, that all hosts treat it alike
    assert pins.pin_all(wanted) == expected
    assert len(recorded()) == 2


def test_a_branch_that_moves_moves_nothing_in_a_run(tmp_path):
    repository = Repository(tmp_path / "moving.git")
    first, second = repository.commit("first"), repository.commit("second")
    repository.git("update-ref", "refs/heads/master", first)
    wanted = (repository.url, "master")
    assert pins.pin_all([wanted]) == {wanted: first}
    repository.git("update-ref", "refs/heads/master", second)
    assert pins.pin_all([wanted, (repository.url, "HEAD")]) == {wanted: first, (repository.url, "HEAD"): second}


def test_several_processes_ask_once(repository, recorded):
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(3), context.Queue()

    def host():
        barrier.wait()
        answers.put(pins.pin_all([(repository.url, "master")]))

    hosts = [context.Process(target=host) for _number in range(3)]
    for each in hosts:
        each.start()
    commit = repository.commits["refs/heads/master"]
    assert [answers.get(timeout=10) for _host in hosts] == [{(repository.url, "master"): commit}] * 3
    for each in hosts:
        each.join()
    assert len(recorded()) == 1


def test_the_password_of_a_url_is_neither_in_arguments_nor_in_the_file(recorded, tmp_path):
    url = "http://me:the-password@127.0.0.1:9/hello.git"
    assert pins.pin_all([(url, "master")]) == {(url, "master"): None}
    assert len(recorded()) == 1
    assert "the-password" not in recorded()[0]
    kept = tmp_path / "flaskfleet-pins.json"
    assert list(json.loads(kept.read_text()).values()) == [None]
    assert "the-password" not in kept.read_text()


def test_git_never_asks_for_a_password(tmp_path, monkeypatch):
    fake = tmp_path / "git"
    fake.write_text(f"#!/bin/sh\nenv > {tmp_path}/environment\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    pins.resolve("https://git.test/hello.git", "master")
    environment = Path(tmp_path, "environment").read_text().splitlines()
    assert {"GIT_TERMINAL_PROMPT=0", "GIT_SSH_COMMAND=ssh -o BatchMode=yes"} <= set(environment)


def test_ssh_gets_a_key_that_lies_in_no_folder(repository, tmp_path, monkeypatch):
    ssh = tmp_path / "ssh"
    ssh.write_text(
        f"""#!/bin/bash
printf '%s\\n' "$@" > {tmp_path}/arguments
while [ "$1" != -i ]; do shift; done
cat "$2" > {tmp_path}/key
stat --dereference --format=%a "$2" >> {tmp_path}/key
exec sh -c "${{@: -1}}"
"""
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("GIT_SSH_COMMAND", "false")
    wanted = (f"git.test:{repository.url}", "master")
    before = set(os.listdir(tmp_path))
    access = {"key": "c4n4ry", "known_hosts": "a host"}
    assert pins.pin_all([wanted], {wanted: access}) == {wanted: repository.commits["refs/heads/master"]}
    assert (tmp_path / "key").read_text() == "c4n4ry\n600\n"
    arguments = (tmp_path / "arguments").read_text()
    assert "StrictHostKeyChecking=yes" in arguments and "c4n4ry" not in arguments
    assert set(os.listdir(tmp_path)) - before == {"arguments", "key", "flaskfleet-pins.json"}
    assert "c4n4ry" not in (tmp_path / "flaskfleet-pins.json").read_text()


def test_the_pins_file_is_as_private_as_its_directory(repository, tmp_path):
    pins.pin_all([(repository.url, "master")])
    assert stat.S_IMODE((tmp_path / "flaskfleet-pins.json").stat().st_mode) & 0o022 == 0
