# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mirrors, up to the sandbox: git is real, and works on a repository that is served as a folder."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils import mirror as mirrors
from ansible_collections.flaskfleet.deploy.plugins.module_utils.mirror import Mirror
from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import CommandFailed
from ansible_collections.flaskfleet.deploy.plugins.module_utils.remote import git_configuration
from ansible_collections.flaskfleet.deploy.plugins.module_utils.step_error import BuildError

URL = "https://me:the-password@git.test/hello.git"


class Repository:
    """What is fetched from: a commit on master and one on the branch other."""

    def __init__(self, path):
        self.path = path
        self.git("init", "--quiet", "--initial-branch=master", path)
        self.first = self.commit("Say hello", "hello")
        self.git("branch", "other")
        self.second = self.commit("Say goodbye\n\nAt length", "goodbye")

    def git(self, *words):
        who = ["-c", "user.name=tests", "-c", "user.email=tests@localhost"]
        command = ["git", "-C", self.path.parent if words[0] == "init" else self.path, *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, message, text):
        (self.path / "page").write_text(text)
        self.git("add", "page")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")


class Sandbox:
    """Stands for sandbox.run: runs the command as it is.

    :ivar commands: [(the words of a command, its keywords)]
    """

    def __init__(self):
        self.commands = []

    def run(self, command, **options):
        self.commands.append((command, options))
        environment = {**os.environ, **options["environment"], "GIT_INDEX_FILE": f"{options['writable'][0]}/index"}
        result = subprocess.run(
            command, capture_output=True, text=True, cwd=options["directory"], env=environment, check=False
        )
        if result.returncode:
            raise CommandFailed(result.returncode, (result.stdout + result.stderr).splitlines())
        return result.stdout


@pytest.fixture
def sandbox(monkeypatch):
    sandbox = Sandbox()
    account = type("account", (), {"pw_uid": os.getuid(), "pw_gid": os.getgid()})
    monkeypatch.setattr(mirrors, "run", sandbox.run)
    monkeypatch.setattr(mirrors.pwd, "getpwnam", lambda name: account)
    monkeypatch.setattr(os, "chown", lambda *arguments: None)
    return sandbox


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path / "repository")


@pytest.fixture
def mirror_of(tmp_path, sandbox):
    """A function that makes the mirror of a version."""
    root = tmp_path / "hello"
    root.mkdir()

    def make(version="master"):
        paths = {"root": str(root), "repo": str(root / "repo.git")}
        app = {"name": "hello", "version": version, "repository": "https://git.test/hello.git", "paths": paths}
        return Mirror(app, "flask-hello.build", ["/opt/flask_apps"])

    return make


def test_a_commit_is_fetched_and_checked_out(mirror_of, repository, tmp_path):
    directory = tmp_path / "build"
    found = mirror_of().fetch(str(repository.path), repository.first, str(directory))
    assert found == (repository.first, "Say hello")
    assert os.listdir(directory) == ["page"] and (directory / "page").read_text() == "hello"


@pytest.mark.parametrize(
    "version, expected",
    [
        ("HEAD", "second"),
        ("master", "second"),
        ("other", "first"),
        ("v1", "first"),
        ("both", "second"),
        ("{}", "first"),
    ],
)
def test_what_only_the_repository_can_tell(mirror_of, repository, version, expected):
    repository.git("tag", "-a", "v1", "-m", "a tag", repository.first)
    repository.git("tag", "both", repository.first)
    repository.git("branch", "both", repository.second)
    found = mirror_of(version.format(repository.first[:8])).fetch(str(repository.path), None)
    assert found[0] == getattr(repository, expected)


@pytest.mark.parametrize(
    "version, message",
    [
        ("nosuch", "there is no branch, tag or commit 'nosuch' in the repository"),
        ("--help", "there is no branch, tag or commit '--help' in the repository"),
        ("HEAD", "the repository has no default branch: name a version, if it has any"),
    ],
)
def test_a_version_that_is_not_there(mirror_of, repository, version, message):
    repository.git("symbolic-ref", "HEAD", "refs/heads/nowhere")
    with pytest.raises(BuildError) as caught:
        mirror_of(version).fetch(str(repository.path), None)
    assert (caught.value.step, str(caught.value)) == ("fetch the code", message)


def test_a_commit_that_is_there_is_not_asked_for_again(mirror_of, repository):
    mirror_of().fetch(str(repository.path), repository.second)
    url = str(repository.path.rename(repository.path.parent / "moved").parent / "repository")
    assert mirror_of().fetch(url, repository.first) == (repository.first, "Say hello")
    with pytest.raises(BuildError, match="^git could not fetch https://git.test/hello.git$") as caught:
        mirror_of().fetch(url, None)
    assert caught.value.step == "fetch the code" and any("repository" in line for line in caught.value.output)


def test_a_commit_that_no_branch_reaches_is_fetched_by_name(mirror_of, repository):
    repository.git("config", "uploadpack.allowAnySHA1InWant", "true")
    repository.git("reset", "--quiet", "--hard", repository.first)
    assert mirror_of().fetch(f"file://{repository.path}", repository.second)[1] == "Say goodbye"


def test_a_history_that_was_rewritten(mirror_of, repository):
    mirror_of().fetch(str(repository.path), None)
    repository.git("reset", "--quiet", "--hard", repository.first)
    third = repository.commit("Say something else", "else")
    assert mirror_of().fetch(str(repository.path), None) == (third, "Say something else")


def test_a_repository_that_never_answers(mirror_of, repository, monkeypatch):
    monkeypatch.setattr(mirrors, "SCRIPT", f"exit {mirrors.NO_ANSWER}")
    with pytest.raises(
        BuildError, match="^git could not fetch https://git.test/hello.git: it did not answer within 30 s$"
    ):
        mirror_of().fetch(str(repository.path), None)


def test_what_took_too_long_is_said(mirror_of, monkeypatch):
    def run(command, **options):
        raise CommandFailed(None, [], "was ended after 1800 s")

    monkeypatch.setattr(mirrors, "run", run)
    with pytest.raises(BuildError, match="^git could not fetch https://git.test/hello.git: it was ended after 1800 s$"):
        mirror_of().fetch(URL, None)


def test_a_damaged_object_is_seen(mirror_of, repository, tmp_path):
    mirror = mirror_of()
    mirror.fetch(str(repository.path), repository.first)
    assert mirror.is_whole(contents=True)
    blob = repository.git("rev-parse", f"{repository.first}:page")
    path = Path(mirror.path, "objects", blob[:2], blob[2:])
    path.chmod(0o644)
    path.write_text("broken")
    with pytest.raises(BuildError) as caught:
        mirror.fetch(str(repository.path), repository.first, str(tmp_path / "build"))
    message = f"git could not check out {repository.first[:8]}"
    assert (caught.value.step, str(caught.value)) == ("check the code out", message)
    assert not mirror.is_whole(contents=True)
    mirror.remove()
    assert mirror.is_whole(contents=True)
    (tmp_path / "build").rmdir()
    assert mirror.fetch(str(repository.path), repository.first, str(tmp_path / "build"))[1] == "Say hello"


def test_a_missing_commit_is_seen_soon(mirror_of, repository):
    mirror = mirror_of()
    mirror.fetch(str(repository.path), repository.first)
    assert mirror.is_whole(contents=False)
    Path(mirror.path, "objects", repository.first[:2], repository.first[2:]).unlink()
    assert not mirror.is_whole(contents=False)


def test_locks_of_a_killed_git_are_removed(mirror_of, repository):
    mirror = mirror_of()
    mirror.fetch(str(repository.path), None)
    for name in ("packed-refs.lock", "refs/heads/master.lock"):
        Path(mirror.path, name).write_text("")
    repository.commit("Once more", "more")
    assert mirror.fetch(str(repository.path), None)[1] == "Once more"


def test_nothing_of_the_repository_is_run(mirror_of, repository, tmp_path):
    """Neither a hook nor a transport that is a command."""
    mirror = mirror_of()
    mirror.fetch(str(repository.path), None)
    hook = Path(mirror.path, "hooks", "post-checkout")
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/pwned\n")
    hook.chmod(0o755)
    mirror.fetch(str(repository.path), repository.first, str(tmp_path / "build"))
    with pytest.raises(BuildError):
        mirror.fetch(f"ext::touch {tmp_path}/pwned", None)
    assert not (tmp_path / "pwned").exists()


def test_what_git_sees_and_who_it_is(mirror_of, repository, sandbox, tmp_path):
    mirror_of().fetch(str(repository.path), repository.first, str(tmp_path / "build"))
    [(_command, options)] = sandbox.commands
    assert (options["user"], options["unit"]) == ("flaskfleet-fetch", "flask-hello.build")
    assert options["hidden"] == ["/opt/flask_apps"] and options["readable"] == [str(tmp_path / "hello")]
    assert options["writable"] == [str(tmp_path / "hello" / "repo.git"), str(tmp_path / "build")]


def test_the_password_of_a_url_is_on_no_command_line(mirror_of, sandbox, monkeypatch):
    monkeypatch.setattr(mirrors, "SCRIPT", "exit 0")
    mirror = mirror_of()
    mirror.fetch(URL, None)
    assert "the-password" not in repr(sandbox.commands)
    assert stat.S_IMODE(os.stat(mirror.remote).st_mode) == 0o640
    told = {}
    for key in ("remote.flaskfleet.url", "http.https://git.test/.extraHeader"):
        command = ["git", "config", "--file", mirror.remote, key]
        told[key] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.rstrip("\n")
    assert told == git_configuration(URL)


def test_commits_between_two(mirror_of, repository, monkeypatch):
    mirror = mirror_of()
    assert mirror.commits(repository.first, repository.second) is None, "there is no mirror yet"
    mirror.fetch(str(repository.path), None)
    assert mirror.commits(repository.first, repository.second) == [f"{repository.second[:7]} Say goodbye"]
    assert mirror.commits(repository.second, repository.first) == []
    assert mirror.commits(repository.first, None) is None
    assert mirror.commits("a" * 40, repository.first) is None, "the mirror does not have it"
    monkeypatch.setattr(mirrors, "SHOWN_COMMITS", 1)
    repository.commit("Once more", "more")
    newest = mirror.fetch(str(repository.path), None)[0]
    assert mirror.commits(repository.first, newest) == [f"{newest[:7]} Once more", "… and more"]
