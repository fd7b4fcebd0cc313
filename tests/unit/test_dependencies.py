# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dependencies, up to the sandbox: what is run in it is recorded, and the script of an installation is run for real."""

from __future__ import annotations

import concurrent.futures
import functools
import os
import shlex
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils import dependencies
from ansible_collections.flaskfleet.deploy.plugins.module_utils.dependencies import (
    Dependencies,
    find_requirements,
    pip_configuration,
    pip_script,
    plain_text,
    shell_quote,
    uv_script,
    wanted_packages,
)
from ansible_collections.flaskfleet.deploy.plugins.module_utils.plan import make_plan
from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import CommandFailed
from ansible_collections.flaskfleet.deploy.plugins.module_utils.step_error import BuildError

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
    app = {"extra_packages": ["pymysql", "redis>=5"], "server": {"kind": "gunicorn"}, "require_hashes": False}
    assert wanted_packages(app) == ["pymysql", "redis>=5", "gunicorn"]
    assert wanted_packages({**app, "require_hashes": True}) == []


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

    def run(installer, requirements, packages, **options):
        uv, python, environment = (str(folder / name) for name in ("uv", "python", "env"))
        script = pip_script if installer == "pip" else functools.partial(uv_script, uv)
        script = script(python, environment, requirements, packages, **options)
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
        (".", ["--editable", "."]),
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


def test_installation_of_a_set(stubs):
    folder, run = stubs
    called = run("uv", "requirements.txt", ["gunicorn"], wheels_alone=True)
    assert called[0] == ["venv", "--quiet", "--clear", "--relocatable", "--python", f"{folder}/python", f"{folder}/env"]
    into = ["--python", f"{folder}/env/bin/python"]
    sources = ["--requirement", "requirements.txt", "gunicorn"]
    assert called[1] == ["pip", "install", "--quiet", *into, "--only-binary", ":all:", *sources]


def test_installation_of_a_lock_with_uv(stubs):
    folder, run = stubs
    called = run("uv", "uv.lock", ["gunicorn"])
    assert called[1] == ["sync", "--quiet", "--locked", "--no-dev", "--python", f"{folder}/python"]
    assert called[2] == ["pip", "install", "--quiet", "--python", f"{folder}/env/bin/python", "gunicorn"]


@pytest.mark.parametrize(
    "requirements, sources",
    [
        (None, []),
        ("requirements.txt", ["--requirement", "requirements.txt"]),
        ("pyproject.toml", ["."]),
        (".", ["--editable", "."]),
    ],
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
    monkeypatch.setattr(dependencies, "PIP_FILES", paths)
    assert pip_configuration() == expected


@pytest.mark.parametrize("text", ["index-url = https://me:canary@a.test\n", "[global]\ncanary\n", "\xff"])
def test_a_pip_configuration_that_cannot_be_read(tmp_path, monkeypatch, text):
    (tmp_path / "pip.conf").write_text(text, encoding="latin-1")
    monkeypatch.setattr(dependencies, "PIP_FILES", [tmp_path / "pip.conf"])
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
    monkeypatch.setattr(dependencies, "PIP_FILES", [tmp_path / "pip.conf"])
    variables = Dependencies(make_plan(settings, {}, "web1")["settings"], [])._environment(
        {"index_url": "", "ca_file": ""}, "/cache", "/venv"
    )
    sources = ("UV_DEFAULT_INDEX", "PIP_INDEX_URL", "UV_INDEX", "SSL_CERT_FILE", "PIP_CERT")
    assert {name: variables[name] for name in sources if name in variables} == expected
    # a link to another build's files, an interpreter from elsewhere or a user's settings would make builds differ
    fixed = {"UV_LINK_MODE": "copy", "UV_PYTHON_DOWNLOADS": "never", "UV_NO_CONFIG": "1", "UV_CACHE_DIR": "/cache"}
    assert {name: variables[name] for name in fixed} == fixed


def test_quoting_survives_the_shell():
    assert shlex.split(shell_quote(NASTY)) == NASTY


# --- what can be a set -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, text, plain",
    [
        ("requirements.txt", "Flask\nredis>=5,<6 ; python_version < '3.13'\nx[extra]==1\n", True),
        (
            "requirements.txt",
            "# -r other.txt, see https://a.test\nFlask==3.1.3 \\\n    --hash=sha256:aa --hash=sha256:bb\n",
            True,
        ),
        ("requirements.txt", "-r other.txt\n", False),
        ("requirements.txt", "Flask\n  --index-url https://a.test\n", False),
        ("requirements.txt", "-e .\n", False),
        ("requirements.txt", "./wheels/x.whl\n", False),
        ("requirements.txt", "/srv/x\n", False),
        ("requirements.txt", "x @ https://a.test/x.whl\n", False),
        ("requirements.txt", "https://a.test/x.whl\n", False),
        ("requirements.txt", "git+https://a.test/x.git\n", False),
        ("requirements.txt", "x --config-settings=a=b\n", False),
        ("pyproject.toml", '[project]\nauthors = [{email = "me@a.test"}]\ndependencies = ["Flask"]\n', True),
        ("pyproject.toml", '[project]\ndynamic = ["dependencies"]\n', False),
        ("pyproject.toml", '[project]\ndependencies = ["x @ file:///srv/x"]\n', False),
        ("pyproject.toml", '[project]\ndependencies = ["Flask"]\n[build-system]\n', False),
        ("uv.lock", "version = 1\n", False),
    ],
)
def test_what_can_be_a_set(tmp_path, name, text, plain):
    (tmp_path / name).write_text(text)
    assert plain_text(str(tmp_path), name, ["gunicorn"]) == (f"{text}gunicorn\n" if plain else None)
    assert plain_text(str(tmp_path), name, ["./local.whl"]) is None


def test_without_requirements_the_packages_beside_are_a_set(tmp_path):
    assert plain_text(str(tmp_path), None, ["redis>=5", "gunicorn"]) == "redis>=5\ngunicorn\n"


@pytest.mark.parametrize("target", ["../outside", "/etc/hostname"])
def test_what_is_outside_of_the_build_is_not_read(tmp_path, target):
    (tmp_path / "build").mkdir()
    (tmp_path / "outside").write_text("Flask\n")
    (tmp_path / "build" / "requirements.txt").symlink_to(target)
    assert plain_text(str(tmp_path / "build"), "requirements.txt", []) is None


# --- installing ------------------------------------------------------------------------------------------------------


class Sandbox:
    """Stands for sandbox.run: an installer that writes what it would install.

    :ivar commands: [(the words of a command, its keywords)]
    :ivar frozen: what gets installed
    :ivar failing: the users whose commands fail
    """

    def __init__(self):
        self.commands = []
        self.frozen = "flask==3.1.3\n"
        self.failing = ()

    def run(self, command, **options):
        self.commands.append((command, options))
        if options["user"] in self.failing:
            raise CommandFailed(1, ["the last line"])
        if "compileall" not in command[-1]:
            environment = Path(options["environment"]["UV_PROJECT_ENVIRONMENT"])
            (environment / "bin").mkdir(parents=True)
            (environment / "requirements.lock").write_text(self.frozen)

    def count(self, word):
        return sum(word in command[-1] for command, _options in self.commands)


@pytest.fixture
def sandbox(monkeypatch, tmp_path):
    sandbox = Sandbox()
    account = SimpleNamespace(pw_uid=4711, pw_gid=4711)
    monkeypatch.setattr(dependencies, "run", sandbox.run)
    monkeypatch.setattr(dependencies, "CACHE_ROOT", str(tmp_path / "cache"))
    monkeypatch.setattr(dependencies.pwd, "getpwnam", lambda name: account)
    monkeypatch.setattr(os, "chown", lambda *arguments: None)
    run = subprocess.run

    def as_we_are(command, check):
        return run(command, check=check) if command[0] != "chown" else None

    monkeypatch.setattr(dependencies.subprocess, "run", as_we_are)
    return sandbox


@pytest.fixture
def installer(sandbox, tmp_path):
    """Makes one Dependencies, as a run does."""

    def make(**settings):
        found = Dependencies(
            {"root": str(tmp_path), "installer": "uv", "index_url": "", "ca_file": "", **settings}, ["/opt"]
        )
        Path(found.uv).parent.mkdir(parents=True, exist_ok=True)
        Path(found.uv).touch()
        found.prepare()
        return found

    return make


@pytest.fixture
def build(tmp_path):
    """A function that makes a build; returns (app, its directory)."""
    python = tmp_path / "python"
    python.write_text("")
    python.chmod(0o755)

    def make(name="hello", text="Flask\n", **keys):
        directory = tmp_path / "builds" / name
        directory.mkdir(parents=True)
        (directory / "requirements.txt").write_text(text)
        app = {"name": name, "path": ".", "requirements": "", "extra_packages": [], "server": {"kind": "gunicorn"}}
        app.update(require_hashes=False, index_url="", ca_file="")
        return {**app, "user": f"flask-{name}", "python": {"executable": str(python)}, **keys}, str(directory)

    return make


def install(installer, app, directory):
    installer.install(app, directory, "unit", installer.shared(app, directory, "unit"))


def test_an_environment_is_the_copy_of_a_set(installer, build, sandbox, tmp_path):
    dependencies_of_run = installer()
    app, directory = build()
    install(dependencies_of_run, app, directory)
    assert Path(directory, ".venv", "requirements.lock").read_text() == "flask==3.1.3\n"
    (script, options), (_compile, later) = sandbox.commands
    assert "--only-binary" in script[-1] and "compileall" in _compile[-1] and later["network"] is False
    assert {each["user"] for _command, each in sandbox.commands} == {"flaskfleet-fetch"}, "and not the app's account"
    temporary = str(tmp_path / "cache" / ".sets" / "new-hello")
    assert options["writable"] == [temporary, str(tmp_path / "cache" / ".wheels")] and later["writable"] == [temporary]
    assert options["readable"] == [str(tmp_path / ".tools"), directory]
    assert options["hidden"] == ["/opt", str(tmp_path / "cache")]
    [made] = os.listdir(tmp_path / "cache" / ".sets")
    assert not made.startswith("new-")


def test_equal_requirements_are_a_set_once_a_run(installer, build, sandbox):
    work = [build(name) for name in ("one", "two", "three")] + [build("four", "Django\n")]
    dependencies_of_run = installer()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda each: install(dependencies_of_run, *each), work))
    assert sandbox.count("--only-binary") == 2
    assert all(Path(directory, ".venv", "bin").is_dir() for _app, directory in work)


def test_a_set_with_the_same_in_it_stays_from_run_to_run(installer, build, sandbox, tmp_path):
    install(installer(), *build("one"))
    install(installer(), *build("two"))
    assert (sandbox.count("--only-binary"), sandbox.count("compileall")) == (2, 1)
    sandbox.frozen = "flask==3.1.4\n"
    install(installer(), *build("three"))
    assert sandbox.count("compileall") == 2 and len(os.listdir(tmp_path / "cache" / ".sets")) == 2


@pytest.mark.parametrize("other", [{"extra_packages": ["redis"]}, {"server": {"kind": "granian"}}])
def test_other_packages_are_another_set(installer, build, sandbox, other):
    dependencies_of_run = installer()
    install(dependencies_of_run, *build("one"))
    install(dependencies_of_run, *build("two", **other))
    assert sandbox.count("--only-binary") == 2


@pytest.mark.parametrize(
    "text, failing, settings",
    [
        pytest.param("-r other.txt\n", (), {}, id="more than names"),
        pytest.param("Flask\n", ("flaskfleet-fetch",), {}, id="no wheels"),
        pytest.param("Flask\n", (), {"installer": "pip"}, id="pip"),
    ],
)
def test_what_takes_more_is_installed_in_the_build(installer, build, sandbox, tmp_path, text, failing, settings):
    sandbox.failing = failing
    app, directory = build(text=text)
    install(installer(**settings), app, directory)
    options = sandbox.commands[-1][1]
    assert options["user"] == "flask-hello" and "--only-binary" not in sandbox.commands[-1][0][-1]
    assert options["writable"] == [directory, str(tmp_path / "cache" / "hello")]
    assert options["readable"] == ([] if settings else [str(tmp_path / ".tools")])
    assert options["hidden"] == ["/opt", str(tmp_path / "cache")]


@pytest.mark.parametrize(
    "text, expected", [("[build-system]\n", "'--editable' '.'"), ("dynamic = []\n", "'pyproject.toml'")]
)
def test_an_app_that_is_a_package_is_installed_from_where_it_lies(installer, build, sandbox, text, expected):
    app, directory = build()
    Path(directory, "requirements.txt").unlink()
    Path(directory, "pyproject.toml").write_text(f"[project]\n{text}")
    install(installer(), app, directory)
    command, options = sandbox.commands[-1]
    assert expected in command[-1] and options["user"] == "flask-hello"


def test_a_failure_is_told_in_the_installers_words(installer, build, sandbox, tmp_path):
    sandbox.failing = ("flaskfleet-fetch", "flask-hello")
    with pytest.raises(BuildError, match="^uv failed$") as caught:
        install(installer(), *build())
    assert (caught.value.step, caught.value.output) == ("install dependencies", ["the last line"])
    assert os.listdir(tmp_path / "cache" / ".sets") == []


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"requirements": "pins.txt"}, "requirements: there is no file 'pins.txt'"),
        ({"python": {"executable": "/usr/bin/python9"}}, "python: there is no /usr/bin/python9 on this host"),
    ],
)
def test_what_cannot_be_installed(installer, build, keys, message):
    with pytest.raises(BuildError) as caught:
        install(installer(), *build(**keys))
    assert (caught.value.step, str(caught.value)) == ("install dependencies", message)


def test_sets_of_killed_runs_and_old_ones_go(installer, tmp_path):
    sets = tmp_path / "cache" / ".sets"
    for name in ("new-hello", "old", "young"):
        (sets / name).mkdir(parents=True)
    month = time.time() - 31 * 86400
    os.utime(sets / "old", (month, month))
    installer()
    assert os.listdir(sets) == ["young"]


def test_a_lock_whose_packages_come_from_another_index(stubs):
    folder, run = stubs
    called = run("uv", "uv.lock", ["gunicorn"], other_index=True)
    exported = f"{folder}/env/uv.txt"
    assert called[1][0] == "export" and called[1][-2:] == ["--output-file", exported] and "--frozen" in called[1]
    assert called[2][-3:] == ["--requirement", exported, "gunicorn"]


# --- hashes ---


def test_hashes_are_required_of_all_that_is_installed(stubs):
    _folder, run = stubs
    required = ["--require-hashes", "--only-binary", ":all:", "--requirement", "requirements.txt"]
    assert run("uv", "requirements.txt", [], hashes=True)[1][-5:] == required


def test_hashes_are_required_of_a_set_and_by_pip(stubs):
    _folder, run = stubs
    required = ["--require-hashes", "--only-binary", ":all:", "--requirement", "requirements.txt"]
    assert run("uv", "requirements.txt", [], hashes=True, wheels_alone=True)[1][-5:] == required
    assert required == run("pip", "requirements.txt", [], hashes=True)[-2][-5:]


def test_nothing_is_installed_beside_a_lock_with_hashes(stubs):
    _folder, run = stubs
    assert [called[0] for called in run("uv", "uv.lock", [], hashes=True)] == ["venv", "sync", "pip"]


def test_a_set_without_hashes_is_none_for_who_requires_them(installer, build, sandbox, tmp_path):
    dependencies_of_run = installer()
    dependencies_of_run.shared(*build("one"), "unit")
    dependencies_of_run.shared(*build("two", require_hashes=True), "unit")
    dependencies_of_run.shared(*build("three", "Flask --hash=sha256:00\n", require_hashes=True), "unit")
    assert sandbox.count("--require-hashes") == 2 and len(os.listdir(tmp_path / "cache" / ".sets")) == 3


@pytest.mark.parametrize("requirements", [None, "pyproject.toml"])
def test_hashes_that_no_file_can_have(installer, build, requirements):
    app, directory = build(require_hashes=True)
    Path(directory, "requirements.txt").unlink()
    if requirements:
        Path(directory, requirements).write_text("")
    with pytest.raises(BuildError, match="require_hashes: hashes come from uv.lock or a requirements file, and"):
        install(installer(), app, directory)


def test_a_server_that_has_no_hash(installer, build):
    app, directory = build(require_hashes=True)
    with pytest.raises(BuildError, match="require_hashes: gunicorn must be among the app's own dependencies"):
        install(installer(), app, directory)


def test_an_index_of_its_own(installer, build, sandbox, monkeypatch):
    monkeypatch.setattr(dependencies, "pip_configuration", lambda: {"extra-index-url": "https://more.test"})
    dependencies_of_run = installer(index_url="https://role.test", ca_file="/role.pem")
    install(dependencies_of_run, *build("one"))
    install(dependencies_of_run, *build("two", index_url="https://own.test", ca_file="/own.pem"))
    one, two = (options["environment"] for command, options in sandbox.commands if "--only-binary" in command[-1])
    names = ("UV_DEFAULT_INDEX", "SSL_CERT_FILE", "UV_INDEX")
    assert [one.get(name) for name in names] == ["https://role.test", "/role.pem", "https://more.test"]
    assert [two.get(name) for name in names] == ["https://own.test", "/own.pem", None]
