# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds, up to the sandbox: what is run in it is recorded, and the script of an installation is run for real."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils import builds
from ansible_collections.flaskfleet.deploy.plugins.module_utils.builds import (
    Builder,
    BuildError,
    find_requirements,
    install_script,
    pip_configuration,
    wanted_packages,
)
from ansible_collections.flaskfleet.deploy.plugins.module_utils.plan import make_plan
from ansible_collections.flaskfleet.deploy.plugins.module_utils.remote import git_configuration
from ansible_collections.flaskfleet.deploy.plugins.module_utils.sandbox import CommandFailed

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HELLO = {"name": "hello", "domain": "hello.test", "repository": "https://git.test/hello.git"}
URL = "https://me:the-password@git.test/hello.git"


# --- what goes in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "files, declared, installer, expected",
    [
        ("uv.lock requirements.txt pyproject.toml", "", "uv", "uv.lock"),
        ("uv.lock requirements.txt pyproject.toml", "", "pip", "requirements.txt"),
        ("uv.lock pyproject.toml", "", "pip", "pyproject.toml"),
        ("requirements.txt pyproject.toml", "", "uv", "requirements.txt"),
        ("pyproject.toml setup.py", "", "uv", "pyproject.toml"),
        ("setup.py", "", "uv", None),
        ("uv.lock requirements.txt prod/pins.txt", "prod/pins.txt", "uv", "prod/pins.txt"),
    ],
)
def test_find_requirements(tmp_path, files, declared, installer, expected):
    for name in files.split():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert find_requirements({"requirements": declared}, str(tmp_path), installer) == expected


def test_requirements_that_are_not_there(tmp_path):
    (tmp_path / "requirements.txt").write_text("")
    with pytest.raises(BuildError, match="there is no file 'pins.txt'") as caught:
        find_requirements({"requirements": "pins.txt"}, str(tmp_path), "uv")
    assert caught.value.step == "install dependencies"


def test_wanted_packages():
    app = {"extra_packages": ["pymysql", "redis>=5"], "server": {"kind": "gunicorn"}}
    assert wanted_packages(app) == ["pymysql", "redis>=5", "gunicorn"]


NASTY = ["a b", "it's", 'qu"ote', "$(touch pwned)", "`touch pwned`", "a;touch pwned", "*", "redis>=5,<6", "x[extra]"]


@pytest.fixture
def stubs(tmp_path):
    """Programs that write down their arguments; returns (a folder with nasty name, a function that tells them)."""
    folder = tmp_path / "it's a $HOME `x`"
    (folder / "env" / "bin").mkdir(parents=True)
    stub = '#!/bin/sh\nfor each; do printf "%s\\0" "$each"; done >> "$RECORD"; printf "\\n" >> "$RECORD"; echo frozen\n'
    for name in ("uv", "python", "env/bin/python"):
        (folder / name).write_text(stub)
        (folder / name).chmod(0o755)
    record = tmp_path / "record"

    def run(installer, requirements, packages):
        uv, python, environment = (str(folder / name) for name in ("uv", "python", "env"))
        script = install_script(installer, uv, python, environment, requirements, packages)
        subprocess.run(["/bin/sh", "-euc", script], check=True, cwd=tmp_path, env={"RECORD": str(record)})
        assert (folder / "env" / "requirements.lock").read_text() == "frozen\n"
        assert not (tmp_path / "pwned").exists()
        return [line.split("\0")[:-1] for line in record.read_text().splitlines()]

    return folder, run


@pytest.mark.parametrize(
    "requirements, sources",
    [
        (None, []),
        ("requirements.txt", ["--requirement", "requirements.txt"]),
        ("pyproject.toml", ["--requirement", "pyproject.toml"]),
        ("it's a/file.txt", ["--requirement", "it's a/file.txt"]),
    ],
)
def test_installation_with_uv(stubs, requirements, sources):
    folder, run = stubs
    into = ["--python", f"{folder}/env/bin/python"]
    assert run("uv", requirements, NASTY) == [
        ["venv", "--quiet", "--clear", "--python", f"{folder}/python", f"{folder}/env"],
        ["pip", "install", "--quiet", *into, *sources, *NASTY],
        ["pip", "freeze", "--quiet", *into],
    ]


def test_installation_of_a_lock_with_uv(stubs):
    folder, run = stubs
    called = run("uv", "uv.lock", ["gunicorn"])
    assert called[1] == ["sync", "--quiet", "--locked", "--no-dev", "--python", f"{folder}/python"]
    assert called[2] == ["pip", "install", "--quiet", "--python", f"{folder}/env/bin/python", "gunicorn"]


@pytest.mark.parametrize(
    "requirements, sources",
    [(None, []), ("requirements.txt", ["--requirement", "requirements.txt"]), ("pyproject.toml", ["."])],
)
def test_installation_with_pip(stubs, requirements, sources):
    folder, run = stubs
    assert run("pip", requirements, NASTY) == [
        ["-m", "venv", f"{folder}/env"],
        ["-m", "pip", "--quiet", "install", *sources, *NASTY],
        ["-m", "pip", "--quiet", "freeze"],
    ]


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_an_installation_ends_with_the_first_failure(stubs, installer):
    folder, run = stubs
    for name in ("uv", "python"):
        (folder / name).write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(installer, None, ["gunicorn"])
    assert caught.value.returncode == 3


# --- the host's pip configuration ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "texts, expected",
    [
        pytest.param([], {}, id="none"),
        pytest.param(["[global]\nindex-url = https://a.test/simple\n"], {"index-url": "https://a.test/simple"}, id="1"),
        pytest.param(["[global]\nindex_url = https://a.test\n"], {"index-url": "https://a.test"}, id="underscores"),
        pytest.param(["[list]\nformat = json\n"], {}, id="of other commands"),
        pytest.param(["[global]\ncert = /a%20b\n"], {"cert": "/a%20b"}, id="a percent sign"),
        pytest.param(["[global]\nCert=/a\n[install]\ncert=/b\n"], {"cert": "/b"}, id="install goes before global"),
        pytest.param(["[global]\ncert=/a\ntimeout=5\n", "[global]\ncert=/b\n"], {"cert": "/b", "timeout": "5"}, id="2"),
        pytest.param(
            ["# mine\n[global]\nextra-index-url =\n    https://a.test\n    https://b.test\n"],
            {"extra-index-url": "\nhttps://a.test\nhttps://b.test"},
            id="several lines",
        ),
    ],
)
def test_pip_configuration(tmp_path, monkeypatch, texts, expected):
    paths = [tmp_path / str(number) for number in range(3)]
    for path, text in zip(paths, texts):
        path.write_text(text)
    monkeypatch.setattr(builds, "PIP_FILES", paths)
    assert pip_configuration() == expected


@pytest.mark.parametrize("text", ["index-url = https://me:canary@a.test\n", "[global]\ncanary\n", "\xff"])
def test_a_pip_configuration_that_cannot_be_read(tmp_path, monkeypatch, text):
    (tmp_path / "pip.conf").write_text(text, encoding="latin-1")
    monkeypatch.setattr(builds, "PIP_FILES", [tmp_path / "pip.conf"])
    with pytest.raises(BuildError, match="the pip configuration of this host cannot be read") as caught:
        pip_configuration()
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "settings, configured, expected",
    [
        ({}, "", {}),
        (
            {},
            "index-url=https://a.test\ncert=/a\nextra-index-url=\n https://b.test\n https://c.test\n",
            {
                "UV_DEFAULT_INDEX": "https://a.test",
                "PIP_INDEX_URL": "https://a.test",
                "UV_INDEX": " https://b.test https://c.test",
                "SSL_CERT_FILE": "/a",
                "PIP_CERT": "/a",
            },
        ),
        (
            {"flask_app_index_url": "https://role.test", "flask_app_ca_file": "/role.pem"},
            "index-url=https://a.test\ncert=/a\n",
            {
                "UV_DEFAULT_INDEX": "https://role.test",
                "PIP_INDEX_URL": "https://role.test",
                "SSL_CERT_FILE": "/role.pem",
                "PIP_CERT": "/role.pem",
            },
        ),
    ],
)
def test_where_packages_come_from(tmp_path, monkeypatch, settings, configured, expected):
    (tmp_path / "pip.conf").write_text(f"[global]\n{configured}")
    monkeypatch.setattr(builds, "PIP_FILES", [tmp_path / "pip.conf"])
    builder = Builder(make_plan(settings, {}, "web1")["settings"])
    variables = builder._installer_environment("/cache", "/venv")
    sources = ("UV_DEFAULT_INDEX", "PIP_INDEX_URL", "UV_INDEX", "SSL_CERT_FILE", "PIP_CERT")
    assert {name: variables[name] for name in sources if name in variables} == expected
    # a link to another build's files, an interpreter from elsewhere or a user's settings would make builds differ
    fixed = {"UV_LINK_MODE": "copy", "UV_PYTHON_DOWNLOADS": "never", "UV_NO_CONFIG": "1", "UV_CACHE_DIR": "/cache"}
    assert {name: variables[name] for name in fixed} == fixed


# --- on the host -----------------------------------------------------------------------------------------------------


class Sandbox:
    """Stands for sandbox.run. Answers git as a repository whose branch is at COMMIT would.

    :ivar commands: [(the words of a command, its keywords)]
    :ivar stopped: [(name of units, how many commands were run before)]
    :ivar answers: {word of a command: what it prints}
    :ivar checkout: called with the directory of the build
    :ivar failing: a word of the command that is to fail
    """

    def __init__(self):
        self.commands = []
        self.stopped = []
        self.answers = {"ls-remote": f"{COMMIT}\tHEAD\n", "rev-parse": f"{COMMIT}\n", "log": "A subject\n"}
        self.checkout = lambda directory: (directory / "app.py").write_text("app = None\n")
        self.failing = None

    def run(self, command, **options):
        self.commands.append((command, options))
        if self.failing and any(self.failing in word for word in command):
            raise CommandFailed(1, ["the last line"])
        if "checkout" in command:
            self.checkout(Path(options["directory"]))
        return next((answer for word, answer in self.answers.items() if word in command), "")

    def stop(self, unit):
        self.stopped.append((unit, len(self.commands)))


@pytest.fixture
def sandbox(monkeypatch):
    sandbox = Sandbox()
    account = type("account", (), {"pw_uid": 4711, "pw_gid": 4711, "pw_gecos": "Runs Flask apps"})
    monkeypatch.setattr(builds, "run", sandbox.run)
    monkeypatch.setattr(builds, "stop", sandbox.stop)
    monkeypatch.setattr(builds.pwd, "getpwnam", lambda name: account)
    for function in ("chown", "lchown"):
        monkeypatch.setattr(os, function, lambda *arguments: None)
    return sandbox


@pytest.fixture
def plan(app):
    return make_plan({"flask_apps": [HELLO], "flask_app_root": app.root}, {}, "web1")


@pytest.fixture
def builder(plan):
    return Builder(plan["settings"])


@pytest.fixture
def planned(plan, tmp_path):
    """The app of the plan, with an interpreter that is there."""
    python = tmp_path / "python"
    python.write_text("")
    python.chmod(0o755)
    return {**plan["apps"][0], "python": {"declared": "", "executable": str(python)}}


def test_build(app, builder, planned, sandbox):
    name = f"01234567-{planned['build_hash']}"
    outcome = builder.build(planned, URL, COMMIT)
    assert outcome == {"commit": COMMIT, "build": name, "subject": "A subject", "built": True}
    assert sorted(os.listdir(app.builds_directory)) == [name, f"{name}.json"]
    stamp = json.loads(Path(app.builds_directory, f"{name}.json").read_text())
    assert (stamp["app"], stamp["commit"], stamp["subject"]) == ("hello", COMMIT, "A subject")


def test_a_build_is_made_once(builder, planned, sandbox):
    first = builder.build(planned, URL, COMMIT)
    commands = len(sandbox.commands)
    assert builder.build(planned, URL, COMMIT) == {**first, "built": False}
    assert not any("checkout" in command for command, _options in sandbox.commands[commands:])


def test_a_stamp_does_not_outlive_its_files_in_a_power_cut(app, builder, planned, sandbox, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "sync", lambda: seen.extend(sorted(os.listdir(app.builds_directory))))
    name = builder.build(planned, URL, COMMIT)["build"]
    assert seen == [name]


def test_half_a_build_is_made_anew(app, builder, planned, sandbox):
    half = Path(app.builds_directory, f"01234567-{planned['build_hash']}")
    half.mkdir()
    (half / "half.py").write_text("")
    assert builder.build(planned, URL, COMMIT)["built"] is True
    assert not (half / "half.py").exists()


def test_a_stamp_without_its_build_is_none(app, builder, planned, sandbox):
    name = builder.build(planned, URL, COMMIT)["build"]
    shutil.rmtree(Path(app.builds_directory, name))
    assert builder.stamps(planned) == {}
    assert builder.build(planned, URL, COMMIT)["built"] is True
    assert sorted(os.listdir(app.builds_directory)) == [name, f"{name}.json"]


def test_a_build_with_a_damaged_stamp_is_made_anew(app, builder, planned, sandbox):
    name = builder.build(planned, URL, COMMIT)["build"]
    Path(app.builds_directory, f"{name}.json").write_text("")
    assert builder.find(planned, COMMIT) is None
    assert builder.build(planned, URL, COMMIT)["built"] is True


def test_what_a_killed_run_still_builds_is_ended_first(builder, planned, sandbox):
    builder.build(planned, URL, COMMIT)
    assert sandbox.stopped == [("flask-hello.build", 0)]
    assert {options["unit"] for _command, options in sandbox.commands} == {"flask-hello.build"}


def test_a_repository_must_answer_soon(builder, planned, sandbox):
    builder.build(planned, URL, COMMIT)
    remote = [(command, options) for command, options in sandbox.commands if {"ls-remote", "fetch"} & set(command)]
    assert "ls-remote" in remote[0][0] and remote[0][1]["limit"] == 30
    assert "fetch" in remote[1][0] and remote[1][1]["limit"] == 1800


def test_nothing_of_the_app_runs_as_root_or_as_the_one_who_fetches(builder, planned, sandbox):
    builder.build(planned, URL, COMMIT)
    users = {command[0]: options["user"] for command, options in sandbox.commands}
    assert users == {"git": builds.FETCH_USER, "/bin/sh": "flask-hello"}


def test_an_installation_sees_its_build_and_nothing_else(app, builder, planned, sandbox):
    builder.build(planned, URL, COMMIT)
    options = sandbox.commands[-1][1]
    build = os.path.join(app.builds_directory, f"01234567-{planned['build_hash']}")
    assert options["writable"] == [build, "/var/cache/flask_apps/hello"]
    assert options["readable"] == [f"{app.root}/.tools"]
    assert set(options["hidden"]) == {app.root, "/var/lib/flask_apps", "/run/flask_apps", "/var/cache/flask_apps"}


def test_the_password_of_a_url_is_on_no_command_line(app, builder, planned, sandbox):
    builder.build(planned, URL, COMMIT)
    assert "the-password" not in repr(sandbox.commands)
    remote = Path(app.directory, "repository.conf")
    assert stat.S_IMODE(remote.stat().st_mode) == 0o640
    told = {}
    for key in ("remote.flaskfleet.url", "http.https://git.test/.extraHeader"):
        command = ["git", "config", "--file", str(remote), key]
        told[key] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.rstrip("\n")
    assert told == git_configuration(URL)


@pytest.mark.parametrize(
    "failing, step, message",
    [
        ("ls-remote", "fetch the code", "git could not fetch https://git.test/hello.git"),
        ("fetch", "fetch the code", "git could not fetch https://git.test/hello.git"),
        ("checkout", "check the code out", "git could not check out 01234567"),
        ("/bin/sh", "install dependencies", "uv failed"),
    ],
)
def test_a_build_that_fails_leaves_nothing(app, builder, planned, sandbox, failing, step, message):
    sandbox.failing = failing
    with pytest.raises(BuildError) as caught:
        builder.build(planned, URL, COMMIT)
    assert (caught.value.step, str(caught.value), caught.value.output) == (step, message, ["the last line"])
    assert os.listdir(app.builds_directory) == []


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"path": "src"}, "path: the repository has no folder 'src' at 01234567"),
        ({"requirements": "pins.txt"}, "requirements: there is no file 'pins.txt'"),
        ({"python": {"executable": "/usr/bin/python9"}}, "python: there is no /usr/bin/python9 on this host"),
    ],
)
def test_a_build_that_cannot_be(app, builder, planned, sandbox, changes, message):
    with pytest.raises(BuildError) as caught:
        builder.build({**planned, **changes}, URL, COMMIT)
    assert str(caught.value) == message
    assert os.listdir(app.builds_directory) == []


@pytest.mark.parametrize(
    "target, inside",
    [("real", True), (".", True), ("..", False), ("/etc", False), ("../beside", False), ("../{}.2", False)],
)
def test_a_path_may_not_lead_out_of_the_repository(app, builder, planned, sandbox, target, inside):
    name = f"01234567-{planned['build_hash']}"
    for other in ("beside", f"{name}.2"):
        Path(app.builds_directory, other).mkdir()

    def checkout(directory):
        (directory / "real").mkdir()
        (directory / "source").symlink_to(target.format(name))

    sandbox.checkout = checkout
    if inside:
        assert builder.build({**planned, "path": "source"}, URL, COMMIT)["built"] is True
    else:
        with pytest.raises(BuildError, match="^path: the repository has no folder 'source' at 01234567$"):
            builder.build({**planned, "path": "source"}, URL, COMMIT)


def test_a_repository_without_a_default_branch(builder, planned, sandbox):
    sandbox.answers["ls-remote"] = ""
    with pytest.raises(BuildError, match="the repository has no default branch") as caught:
        builder.build({**planned, "version": "HEAD"}, URL, None)
    assert caught.value.step == "fetch the code"


@pytest.mark.parametrize("version", ["HEAD", "master"])
def test_a_commit_that_only_the_host_can_tell(builder, planned, sandbox, version):
    assert builder.build({**planned, "version": version}, URL, None)["commit"] == COMMIT


def test_a_version_that_is_not_there(builder, planned, sandbox):
    sandbox.failing = "rev-parse"
    with pytest.raises(BuildError, match="there is no branch, tag or commit 'nowhere' in the repository"):
        builder.build({**planned, "version": "nowhere"}, URL, None)


def test_a_commit_that_no_branch_reaches_is_fetched_by_name(builder, planned, sandbox):
    sandbox.failing = "cat-file"
    builder.build(planned, URL, COMMIT)
    assert any(command[-2:] == ["flaskfleet", COMMIT] for command, _options in sandbox.commands)


def test_build_all_goes_on_after_a_failure(builder, monkeypatch):
    def build(app, url, commit):
        if isinstance(url, Exception):
            raise url
        return url

    monkeypatch.setattr(builder, "build", build)
    failure = BuildError("fetch the code", "no answer")
    urls = {"a": failure, "b": KeyError("no account"), "c": FileNotFoundError(2, "No such file", "/x")}
    urls |= {"d": "built", "e": RuntimeError("unexpected")}
    outcomes = builder.build_all([({"name": name}, url, COMMIT) for name, url in urls.items()], jobs=2)
    assert outcomes["a"] is failure and outcomes["d"] == "built"
    assert [outcomes[name].step for name in "bce"] == ["prepare"] * 3
    assert str(outcomes["c"]) == "No such file: /x"
    assert str(outcomes["e"]) == "RuntimeError: unexpected"


def test_remove_orphans(app, builder, planned, monkeypatch):
    monkeypatch.setattr(builds.time, "time", lambda: 10_000)
    app.add("release", created=0, build="used")
    for name, created in {"wanted": 0, "old": 6399, "young": 6401, "half": None}.items():
        Path(app.builds_directory, name).mkdir()
        if created is not None:
            Path(app.builds_directory, f"{name}.json").write_text(json.dumps({"created": created}))
    builder.remove_orphans(planned, "wanted")
    left = {"used", "used.json", "wanted", "wanted.json", "young", "young.json"}
    assert set(os.listdir(app.builds_directory)) == left


def test_give(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("")
    outside.chmod(0o666)
    tree = tmp_path / "tree"
    (tree / "folder").mkdir(parents=True)
    (tree / "folder" / "script").write_text("")
    (tree / "link").symlink_to(outside)
    for path, mode in ((tree / "folder", 0o777), (tree / "folder" / "script", 0o775), (tree, 0o750)):
        path.chmod(mode)
    builds.give(str(tree), os.geteuid(), os.getegid())
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tree, tree / "folder", outside)}
    assert modes == {"tree": 0o750, "folder": 0o755, "outside": 0o666}
    assert stat.S_IMODE((tree / "folder" / "script").stat().st_mode) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_give_never_reaches_what_a_link_points_to(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(outside)
    builds.give(str(tree), 12345, 12345)
    assert (tree.stat().st_uid, (tree / "link").lstat().st_uid, outside.stat().st_uid) == (12345, 12345, 0)


def test_quoting_survives_the_shell():
    assert shlex.split(builds.shell_quote(NASTY)) == NASTY


def test_commits_between_two(app, builder, planned, sandbox):
    assert builder.commits(planned, "a" * 40, COMMIT) is None  # there is no mirror yet
    Path(app.directory, "repo.git").mkdir()
    sandbox.answers["log"] = "1f3a9c0 Say hello\n8c3f534 Say goodbye\n"
    assert builder.commits(planned, "a" * 40, COMMIT) == ["1f3a9c0 Say hello", "8c3f534 Say goodbye"]
    command, options = sandbox.commands[-1]
    assert command[-1] == f"{'a' * 40}..{COMMIT}" and options["user"] == "flaskfleet-fetch"
    sandbox.answers["log"] = "1f3a9c0 Again\n" * 31
    assert builder.commits(planned, "a" * 40, COMMIT) == ["1f3a9c0 Again"] * 30 + ["… and more"]
    sandbox.failing = "log"  # the mirror does not have one of them
    assert builder.commits(planned, "a" * 40, COMMIT) is None
    assert builder.commits(planned, "a" * 40, None) is None


@pytest.mark.parametrize(
    "own_user, comment, uid, refusal",
    [
        (True, "Runs Flask apps", 4711, ""),
        (False, "Somebody", 4711, ""),
        (True, "Somebody", 4711, "exists and was not made by this collection; state `user: flask-hello` to use it all"),
        (False, "root", 0, "user: 'flask-hello' is root here"),
        (True, None, None, "user: there is no account 'flask-hello' on this host"),
    ],
)
def test_accounts_that_are_not_the_apps(monkeypatch, own_user, comment, uid, refusal):
    accounts = {"flask-hello": type("account", (), {"pw_uid": uid, "pw_gecos": comment})} if comment else {}
    monkeypatch.setattr(builds.pwd, "getpwnam", accounts.__getitem__)
    app = {"name": "hello", "user": "flask-hello", "own_user": own_user}
    if refusal:
        with pytest.raises(builds.BuildError, match=re.escape(refusal)):
            builds.account(app)
    else:
        assert builds.account(app) is accounts["flask-hello"]
