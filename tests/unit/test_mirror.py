# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mirrors, up to the sandbox: git is real, and works on a repository that is served as a folder."""

from __future__ import annotations

import os
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
    :ivar credentials: the folder of what only the command may read
    """

    def __init__(self, credentials):
        self.commands = []
        self.credentials = credentials

    def run(self, command, **options):
        self.commands.append((command, options))
        environment = {**os.environ, **options["environment"], "GIT_INDEX_FILE": f"{options['writable'][0]}/index"}
        Path(environment["GIT_INDEX_FILE"]).unlink(missing_ok=True)  # each command has a folder for temporary files
        environment["CREDENTIALS_DIRECTORY"] = str(self.credentials)
        for name, text in options["credentials"].items() if options["credentials"] else ():
            (self.credentials / name).write_text(text)
        result = subprocess.run(
            command, capture_output=True, text=True, cwd=options["directory"], env=environment, check=False
        )
        if result.returncode:
            raise CommandFailed(result.returncode, (result.stdout + result.stderr).splitlines())
        return result.stdout


@pytest.fixture
def sandbox(monkeypatch, tmp_path):
    (tmp_path / "credentials").mkdir()
    sandbox = Sandbox(tmp_path / "credentials")
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

    def make(version="master", signers=()):
        paths = {"root": str(root), "repo": str(root / "repo.git")}
        app = {"name": "hello", "version": version, "repository": "https://git.test/hello.git", "paths": paths}
        app["allowed_signers"] = list(signers)
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
    left = ("packed-refs.lock", "refs/heads/master.lock", "objects/pack/tmp_pack_Xq2", "objects/0a/tmp_obj_Xq2")
    for name in left:
        Path(mirror.path, name).parent.mkdir(exist_ok=True)
        Path(mirror.path, name).write_text("")
    repository.commit("Once more", "more")
    assert mirror.fetch(str(repository.path), None)[1] == "Once more"
    assert not [name for name in left if Path(mirror.path, name).exists()]


@pytest.mark.parametrize("missing", ["^{tree}", ":page"])
def test_a_fetch_that_was_ended_is_made_up_for(mirror_of, repository, tmp_path, missing):
    """It wrote the commit, and not all that this is made of; nothing leads there yet."""
    mirror = mirror_of()
    mirror.fetch(str(repository.path), repository.first)
    third = repository.commit("Once more", "more")
    mirror.fetch(str(repository.path), third)
    name = repository.git("rev-parse", f"{third}{missing}")
    Path(mirror.path, "objects", name[:2], name[2:]).unlink()
    for ref in ("master", "other"):
        subprocess.run(["git", "update-ref", "-d", f"refs/heads/{ref}"], cwd=mirror.path, check=True)
    assert mirror.fetch(str(repository.path), third, str(tmp_path / "build"))[0] == third
    assert (tmp_path / "build" / "page").read_text() == "more"


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
    assert options["hidden"] == ["/opt/flask_apps"] and "readable" not in options
    assert options["writable"] == [str(tmp_path / "hello" / "repo.git"), str(tmp_path / "build")]


def told_to_git(options):
    """The configuration that a command was given."""
    environment = options["environment"]
    numbers = range(int(environment["GIT_CONFIG_COUNT"]))
    return {environment[f"GIT_CONFIG_KEY_{each}"]: environment[f"GIT_CONFIG_VALUE_{each}"] for each in numbers}


def test_the_password_of_a_url_is_in_no_command_line_and_no_file(mirror_of, sandbox, monkeypatch, tmp_path):
    monkeypatch.setattr(mirrors, "SCRIPT", "exit 0")
    mirror_of().fetch(URL, None)
    [(command, options)] = sandbox.commands
    assert git_configuration(URL).items() <= told_to_git(options).items()
    assert "the-password" not in repr(command)
    assert [path.name for path in (tmp_path / "hello").rglob("*")] == ["repo.git"]


# --- by ssh ----------------------------------------------------------------------------------------------------------

ACCESS = {"key": "the key", "known_hosts": "the hosts\n\n"}


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    """An ssh that reaches this machine, whatever the host; returns what it was called with, and the files of that."""
    record = tmp_path / "ssh"
    record.touch()
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(
        f"""#!/bin/bash
echo "$*" >> {record}
for word; do [[ $word != */credentials/* ]] || cat "${{word#*=}}" >> {record}; done
exec sh -c "${{@: -1}}"
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return record


def test_a_key_is_for_git_alone(mirror_of, repository, sandbox, ssh, tmp_path):
    mirror = mirror_of()
    found = mirror.fetch(f"ssh://git@git.test{repository.path}", repository.first, str(tmp_path / "build"), ACCESS)
    assert found == (repository.first, "Say hello")
    called = ssh.read_text().splitlines()
    assert f"-i {tmp_path}/credentials/key -o IdentitiesOnly=yes" in called[0]
    assert f"UserKnownHostsFile={tmp_path}/credentials/known_hosts" in called[0]
    assert called[1:3] == ["the key", "the hosts"], "each ends its line"
    [(command, options)] = sandbox.commands
    assert options["credentials"] == {"key": "the key\n", "known_hosts": "the hosts\n"}
    assert "the key" not in repr(command) + repr(options["environment"])
    assert mirror.commits(repository.first, repository.second) and not sandbox.commands[-1][1]["credentials"]


def test_known_hosts_alone_leave_the_rest_to_ssh(mirror_of, repository, ssh):
    mirror_of().fetch(f"git.test:{repository.path}", None, access={"key": "", "known_hosts": "hosts"})
    assert "known_hosts" in ssh.read_text() and "-i" not in ssh.read_text().split()


@pytest.mark.parametrize(
    "said, hint",
    [
        ("Host key verification failed.", "; `repository_known_hosts` must have the key of that host"),
        ("git@git.test: Permission denied (publickey).", "; `repository_key` must be a key that may read it"),
        ("something else", ""),
    ],
)
def test_what_to_do_about_ssh(mirror_of, ssh, said, hint):
    (ssh.parent / "bin" / "ssh").write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 255\n")
    with pytest.raises(BuildError) as caught:
        mirror_of().fetch("git.test:hello.git", None)
    assert str(caught.value) == f"git could not fetch https://git.test/hello.git{hint}"
    assert said in caught.value.output


# --- submodules ------------------------------------------------------------------------------------------------------


def add_submodule(repository, other, url, path="lib"):
    repository.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other.path), path)
    repository.git("config", "--file", ".gitmodules", f"submodule.{path}.url", url)
    repository.git("add", ".gitmodules")
    return repository.commit("With a submodule", "hello")


@pytest.fixture
def library(tmp_path):
    """A repository that is a submodule of others; it has one itself, in a folder with a space."""
    inner = Repository(tmp_path / "inner")
    library = Repository(tmp_path / "library")
    add_submodule(library, inner, "../inner", "a folder/inner")
    return library


def test_submodules_are_fetched_with_the_commit(mirror_of, repository, library, tmp_path):
    commit = add_submodule(repository, library, "../library")
    mirror = mirror_of()
    mirror.fetch(str(repository.path), commit, str(tmp_path / "build"))
    assert (tmp_path / "build/lib/page").read_text() == "hello"
    assert (tmp_path / "build/lib/a folder/inner/page").read_text() == "goodbye"
    library.commit("Later", "later")
    for folder in ("repository", "library", "inner"):
        (tmp_path / folder).rename(tmp_path / f"gone-{folder}")
    mirror.fetch(str(repository.path), commit, str(tmp_path / "again"))
    assert (tmp_path / "again/lib/a folder/inner/page").read_text() == "goodbye"
    assert not list((tmp_path / "again").rglob(".git")), "no folder of git is in a build"
    assert mirror.is_whole(contents=True)


def test_a_submodule_s_commit_that_no_branch_reaches(mirror_of, repository, library, tmp_path):
    library.git("config", "uploadpack.allowAnySHA1InWant", "true")
    commit = add_submodule(repository, library, "../library")
    library.git("reset", "--quiet", "--hard", library.first)
    mirror_of().fetch(f"file://{repository.path}", commit, str(tmp_path / "build"))
    assert (tmp_path / "build/lib/a folder/inner/page").exists()


@pytest.mark.parametrize("how", ["update", "url"])
def test_a_submodule_that_is_to_be_left_alone(mirror_of, repository, library, tmp_path, how):
    add_submodule(repository, library, "../library")
    change = ["submodule.lib.update", "none"] if how == "update" else ["--unset", "submodule.lib.url"]
    repository.git("config", "--file", ".gitmodules", *change)
    repository.git("add", ".gitmodules")
    commit = repository.commit("Without it", "hello")
    mirror_of().fetch(str(repository.path), commit, str(tmp_path / "build"))
    assert os.listdir(tmp_path / "build/lib") == []


@pytest.mark.parametrize(
    "url, message",
    [
        ("ext::touch pwned", "its URL is none that is fetched from"),
        ("../../../../../../../../../../../../x", "its URL leads out of the server"),
        ("-u", "its URL is none that is fetched from"),
    ],
)
def test_a_submodule_that_must_not_be_fetched(mirror_of, repository, library, tmp_path, url, message):
    commit = add_submodule(repository, library, url)
    with pytest.raises(BuildError) as caught:
        mirror_of().fetch(str(repository.path), commit, str(tmp_path / "build"))
    assert str(caught.value) == f"the submodule 'lib' can't be fetched: {message}"
    assert caught.value.step == "fetch the code"


def test_folders_of_the_host_are_no_submodules_of_others(mirror_of, repository, library, ssh, tmp_path):
    commit = add_submodule(repository, library, str(library.path))
    with pytest.raises(BuildError, match="^the submodule 'lib' can't be fetched: it lies in a folder of the host$"):
        mirror_of().fetch(f"git.test:{repository.path}", commit, str(tmp_path / "build"))


@pytest.mark.parametrize("host, given", [("git.test", True), ("other.test", False)])
def test_a_key_is_for_the_app_s_own_server(mirror_of, repository, library, sandbox, ssh, tmp_path, host, given):
    commit = add_submodule(repository, library, f"ssh://{host}{library.path}")
    mirror_of().fetch(f"git.test:{repository.path}", commit, str(tmp_path / "build"), ACCESS)
    assert [bool(options["credentials"]) for _command, options in sandbox.commands] == [True, given, given]
    assert (tmp_path / "build/lib/a folder/inner/page").exists()


def test_a_password_is_for_the_app_s_own_server(mirror_of, repository, library, sandbox, monkeypatch, tmp_path):
    commit = add_submodule(repository, library, "https://git.test/lib.git")
    mirror = mirror_of()
    mirror.fetch(str(repository.path), commit)
    monkeypatch.setattr(mirrors, "SUBMODULE_SCRIPT", "exit 0")
    mirror.fetch(URL, commit, str(tmp_path / "build"))
    told = told_to_git(sandbox.commands[-1][1])
    assert told["remote.flaskfleet.url"] == "https://git.test/lib.git"
    assert [key for key in told if key.startswith("http.")] == ["http.https://git.test/.extraHeader"]


def test_a_submodule_that_cannot_be_fetched(mirror_of, repository, library, tmp_path):
    commit = add_submodule(repository, library, "../nowhere")
    with pytest.raises(BuildError) as caught:
        mirror_of().fetch(str(repository.path), commit, str(tmp_path / "build"))
    assert str(caught.value) == "git could not fetch the submodule 'lib'" and caught.value.output


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


# --- signatures ---


@pytest.fixture
def key(tmp_path):
    """A function that makes a key; returns (path of the private one, line of an allowed_signers file)."""

    def make(name):
        path = tmp_path / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path], check=True)
        return str(path), f"{name}@example.org {path.with_suffix('.pub').read_text().strip()}"

    return make


def signed(repository, key, *words):
    repository.git("-c", "gpg.format=ssh", "-c", f"user.signingKey={key}", *words)
    return repository.git("rev-parse", "HEAD")


@pytest.mark.parametrize("what", ["commit", "tag"])
def test_a_commit_or_a_tag_of_it_is_signed(mirror_of, repository, key, what):
    alice, line = key("alice")
    if what == "tag":
        commit = signed(repository, alice, "tag", "-s", "-m", "v1", "v1")
    else:
        commit = signed(repository, alice, "commit", "-S", "--allow-empty", "-m", "signed")
    mirror = mirror_of(signers=["bob@example.org ssh-ed25519 AAAA", line])
    mirror.fetch(str(repository.path), commit)
    mirror.verify(str(repository.path), commit)


def test_a_tag_that_came_later(mirror_of, repository, key):
    alice, line = key("alice")
    mirror = mirror_of(signers=[line])
    mirror.fetch(str(repository.path), repository.second)
    signed(repository, alice, "tag", "-s", "-m", "v1", "v1")
    mirror.verify(str(repository.path), repository.second)


@pytest.mark.parametrize(
    "what", ["nothing", "lightweight tag", "another's commit", "another's tag", "tag of its parent"]
)
def test_a_commit_that_no_signer_signed(mirror_of, repository, key, what):
    alice, line = key("alice")
    mallory, _line = key("mallory")
    commit = repository.second
    if what == "lightweight tag":
        repository.git("tag", "v1")
    elif what == "another's commit":
        commit = signed(repository, mallory, "commit", "-S", "--allow-empty", "-m", "signed")
    elif what == "another's tag":
        signed(repository, mallory, "tag", "-s", "-m", "v1", "v1")
    elif what == "tag of its parent":
        signed(repository, alice, "tag", "-s", "-m", "v1", "v1")
        commit = repository.commit("More", "more")
    mirror = mirror_of(signers=[line])
    mirror.fetch(str(repository.path), commit)
    with pytest.raises(BuildError) as caught:
        mirror.verify(str(repository.path), commit)
    assert caught.value.step == "verify the signature"
    assert str(caught.value) == f"neither {commit[:8]} nor a tag of it has a signature of one of `allowed_signers`"
