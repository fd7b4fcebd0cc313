# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds, up to what works in the sandbox: mirror, dependencies and build commands are recorded."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils import build_tree, builds
from ansible_collections.flaskfleet.deploy.plugins.module_utils.builds import Builder
from ansible_collections.flaskfleet.deploy.plugins.module_utils.plan import make_plan
from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import CommandFailed
from ansible_collections.flaskfleet.deploy.plugins.module_utils.step_error import BuildError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HELLO = {"name": "hello", "domain": "hello.test", "repository": "https://git.test/hello.git"}
URL = "https://me:the-password@git.test/hello.git"


# --- on the host -----------------------------------------------------------------------------------------------------


class Sandbox:
    """Stands for what works in the sandbox: the mirror, which knows COMMIT, the dependencies, and build commands.

    :ivar steps: what was done: (name of the step, its arguments)
    :ivar commands: [(the words of a build command, its keywords)]
    :ivar checkout: called with the directory of the build
    :ivar failing: {name of a step: BuildError}, or {a word of a command: None}
    :ivar whole: whether the mirror has all that it should have
    """

    def __init__(self):
        self.steps = []
        self.commands = []
        self.checkout = lambda directory: (directory / "app.py").write_text("app = None\n")
        self.failing = {}
        self.whole = True

    def step(self, name, *arguments):
        self.steps.append((name, *arguments))
        if name in self.failing:
            raise self.failing[name]

    def mirror(self, app, unit, hidden):
        return SimpleNamespace(fetch=self.fetch, is_whole=self.is_whole, remove=self.remove)

    def fetch(self, url, commit, directory="", access=None):
        self.step("fetch", url, commit, directory, *([access] if access else []))
        if directory:
            os.mkdir(directory, 0o750)
            self.checkout(Path(directory))
        return COMMIT, "A subject"

    def is_whole(self, contents):
        self.steps.append(("is_whole", contents))
        return self.whole

    def remove(self):
        self.steps.append(("remove",))
        self.failing = {}

    def dependencies(self, settings, hidden):
        return SimpleNamespace(
            shared=lambda app, directory, unit: self.step("shared", directory) or "/made",
            install=lambda app, directory, unit, made: self.step("install", directory, made),
        )

    def run(self, command, **options):
        self.commands.append((command, options))
        if any(failing in word for failing in self.failing for word in command):
            raise CommandFailed(1, ["the last line"])
        return ""

    @property
    def names(self):
        return [step[0] for step in self.steps]


@pytest.fixture
def sandbox(monkeypatch):
    sandbox = Sandbox()
    account = SimpleNamespace(pw_uid=4711, pw_gid=4711, pw_gecos="Runs Flask apps")
    monkeypatch.setattr(builds, "run", sandbox.run)
    monkeypatch.setattr(builds, "stop", lambda unit: sandbox.step("stop", unit))
    monkeypatch.setattr(builds, "Mirror", sandbox.mirror)
    monkeypatch.setattr(builds, "Dependencies", sandbox.dependencies)
    monkeypatch.setattr(builds.pwd, "getpwnam", lambda name: account)
    for function in ("chown", "lchown"):
        monkeypatch.setattr(os, function, lambda *arguments, **_options: None)
    return sandbox


@pytest.fixture
def plan(app):
    return make_plan({"flask_apps": [HELLO], "flask_app_root": app.root}, {}, "web1")


@pytest.fixture
def builder(plan, sandbox):
    return Builder(plan["settings"])


@pytest.fixture
def planned(plan):
    """The app of the plan."""
    return plan["apps"][0]


def test_build(app, builder, planned, sandbox):
    name = f"01234567-{planned['build_hash']}"
    outcome = builder.build(planned, URL, COMMIT)
    assert outcome == {"commit": COMMIT, "build": name, "subject": "A subject", "built": True}
    assert sorted(os.listdir(app.builds_directory)) == [name, f"{name}.json", f"{name}.seal"]
    stamp = json.loads(Path(app.builds_directory, f"{name}.json").read_text())
    assert (stamp["app"], stamp["commit"], stamp["subject"]) == ("hello", COMMIT, "A subject")


@pytest.mark.parametrize("step, contents", [("fetch the code", False), ("check the code out", True)])
def test_a_broken_mirror_is_made_anew(builder, planned, sandbox, step, contents):
    sandbox.failing = {"fetch": BuildError(step, "no")}
    sandbox.whole = False
    assert builder.build(planned, URL, COMMIT)["built"] is True
    assert sandbox.names == ["stop", "fetch", "is_whole", "remove", "fetch", "shared", "install"]
    assert sandbox.steps[2] == ("is_whole", contents)


@pytest.mark.parametrize("step, looks", [("fetch the code", True), ("install dependencies", False)])
def test_a_whole_mirror_is_kept(builder, planned, sandbox, step, looks):
    sandbox.failing = {"fetch": BuildError(step, "no")}
    with pytest.raises(BuildError, match="^no$"):
        builder.build(planned, URL, COMMIT)
    assert sandbox.names == ["stop", "fetch"] + ["is_whole"] * looks


def test_a_build_is_made_once(builder, planned, sandbox):
    first = builder.build(planned, URL, COMMIT)
    assert sandbox.names == ["stop", "fetch", "shared", "install"]
    sandbox.steps.clear()
    assert builder.build(planned, URL, COMMIT) == {**first, "built": False}
    assert sandbox.names == ["stop"]


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
    Path(app.builds_directory, name).rename(Path(app.directory, "elsewhere"))
    assert builder.stamps(planned) == {}
    assert builder.build(planned, URL, COMMIT)["built"] is True
    assert sorted(os.listdir(app.builds_directory)) == [name, f"{name}.json", f"{name}.seal"]


def test_a_damaged_build_is_passed_over_and_made_anew(app, builder, planned, sandbox):
    name = builder.build(planned, URL, COMMIT)["build"]
    Path(app.builds_directory, name, "somebody.py").write_text("")
    assert builder.find(planned, COMMIT) is None
    assert {each: found.damage for each, found in builder.damaged.items()} == {"hello": "somebody.py"}
    assert builder.build(planned, URL, COMMIT) == {
        "commit": COMMIT,
        "build": f"{name}.2",
        "subject": "A subject",
        "built": True,
    }
    assert builder.find(planned, COMMIT).name == f"{name}.2"
    Path(app.builds_directory, f"{name}.2", "somebody.py").write_text("")
    Path(app.builds_directory, name, "somebody.py").unlink()
    os.utime(Path(app.builds_directory, name))
    assert builder.find(planned, COMMIT).name == name


def test_a_build_with_a_damaged_stamp_is_made_anew(app, builder, planned, sandbox):
    name = builder.build(planned, URL, COMMIT)["build"]
    Path(app.builds_directory, f"{name}.json").write_text("")
    assert builder.find(planned, COMMIT) is None
    assert builder.build(planned, URL, COMMIT)["built"] is True


def test_what_a_killed_run_still_builds_is_ended_first(builder, planned, sandbox):
    builder.build(planned, URL, COMMIT)
    assert sandbox.steps[0] == ("stop", "flask-hello.build")


def test_the_order_of_things(app, builder, planned, sandbox, monkeypatch):
    """The code is the fetcher's until it is known what to install, then the app's, then root's."""
    monkeypatch.setattr(build_tree, "give", lambda directory, uid, gid: sandbox.step("give", uid, gid))
    build = os.path.join(app.builds_directory, f"01234567-{planned['build_hash']}")
    builder.build({**planned, "build_commands": ["make"]}, URL, COMMIT)
    assert sandbox.steps[1:] == [
        ("fetch", URL, COMMIT, build),
        ("shared", build),
        ("give", 4711, 4711),
        ("install", build, "/made"),
        ("give", 4711, 4711),
        ("give", 0, 4711),
    ]


def test_build_commands(app, builder, planned, sandbox):
    commands = ["flask translate compile", "make 'it'"]
    given = {"build_commands": commands, "path": "src", "entrypoint": "shop:app", "command_timeout": 42}
    sandbox.checkout = lambda directory: (directory / "src").mkdir()
    builder.build({**planned, **given, "env": {"A": "setting"}}, URL, COMMIT)
    assert [command for command, _options in sandbox.commands[-2:]] == [["/bin/sh", "-c", each] for each in commands]
    options = sandbox.commands[-1][1]
    build = os.path.join(app.builds_directory, f"01234567-{planned['build_hash']}")
    assert (options["user"], options["directory"], options["limit"]) == ("flask-hello", f"{build}/src", 42)
    assert options["writable"] == [build] and "readable" not in options and options["network"] is False
    assert set(options["hidden"]) == {app.root, "/var/lib/flask_apps", "/run/flask_apps", "/var/cache/flask_apps"}
    path = f"{build}/.venv/bin:/usr/local/bin:/usr/bin:/bin"
    assert options["environment"] == {"PATH": path, "FLASK_APP": "shop:app", "FLASK_DEBUG": "0"}


def test_a_build_command_that_fails(app, builder, planned, sandbox):
    sandbox.failing = {"flask translate": None}
    commands = ["flask translate compile", "make"]
    with pytest.raises(BuildError) as caught:
        builder.build({**planned, "build_commands": commands}, URL, COMMIT)
    error = caught.value
    assert (error.step, error.command, error.status) == ("build command", commands[0], 1)
    assert (str(error), error.output) == ("`flask translate compile` exited with status 1", ["the last line"])
    assert os.listdir(app.builds_directory) == [] and "make" not in repr(sandbox.commands)


@pytest.mark.parametrize("failing", ["fetch", "shared", "install"])
def test_a_build_that_fails_leaves_nothing(app, builder, planned, sandbox, failing):
    sandbox.failing = {failing: BuildError("a step", "a message", ["the last line"])}
    with pytest.raises(BuildError) as caught:
        builder.build(planned, URL, COMMIT)
    assert caught.value is sandbox.failing[failing]
    assert os.listdir(app.builds_directory) == []


def test_a_path_that_is_not_there(app, builder, planned):
    with pytest.raises(BuildError, match="^path: the repository has no folder 'src' at 01234567$") as caught:
        builder.build({**planned, "path": "src"}, URL, COMMIT)
    assert caught.value.step == "check the code out" and os.listdir(app.builds_directory) == []


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


def test_a_commit_that_only_the_host_can_tell(builder, planned, sandbox):
    first = builder.build(planned, URL, None)
    assert (first["commit"], first["built"], sandbox.names.count("fetch")) == (COMMIT, True, 2)
    assert builder.build(planned, URL, None) == {**first, "built": False}


@pytest.mark.parametrize("commit", [COMMIT, None])
def test_what_a_build_that_is_there_lacks_is_put_right(app, builder, planned, sandbox, monkeypatch, commit):
    """Also when only the host can tell that it is there."""
    name = builder.build(planned, URL, COMMIT)["build"]
    builder.mended.clear()
    path = Path(app.builds_directory, name, "app.py")
    mode = path.stat().st_mode
    path.chmod(0o666)
    monkeypatch.setattr(builder, "publish", lambda *_arguments: True)
    assert builder.build(planned, URL, commit)["build"] == name
    assert builder.mended == ["hello"] and builder.changed
    assert path.stat().st_mode == mode


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


def test_halves(app, builder, planned):
    app.add("release", build="whole")
    for name in ("whole.seal", "stamp.json", "seal.seal", "whole.seal.new"):
        Path(app.builds_directory, name).write_text("{}")
    Path(app.builds_directory, "half.2").mkdir()
    assert builder.halves(planned) == ["half.2", "seal", "stamp", "whole.seal.new"]
    builder.remove_orphans(planned, "whole")
    assert builder.halves(planned) == []
    assert sorted(os.listdir(app.builds_directory)) == ["whole", "whole.json", "whole.seal"]


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
    build_tree.give(str(tree), os.geteuid(), os.getegid())
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
    build_tree.give(str(tree), 12345, 12345)
    assert (tree.stat().st_uid, (tree / "link").lstat().st_uid, outside.stat().st_uid) == (12345, 12345, 0)


# --- static files ----------------------------------------------------------------------------------------------------


@pytest.fixture
def build(tmp_path):
    """A build as `give` leaves it: root's, with the app's group."""
    top = tmp_path / "build"
    for path in (
        "app/static/css/a.css",
        "app/static/.hidden",
        "app/views.py",
        "other/static/b.css",
        ".venv/bin/python",
    ):
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text("")
        (top / path).chmod(0o640 if path.endswith("a.css") else 0o644)
    (top / "app/static/link").symlink_to("../views.py")
    (top / "settings.py").write_text("")
    top.chmod(0o750)
    return top


def open_to_others(top):
    """What somebody else can read below a folder, as they would find it: they pass where they may."""
    found, ways = set(), [top]
    while ways:
        way = ways.pop()
        for path in way.iterdir() if way.stat().st_mode & 0o001 else ():
            if path.is_dir() and not path.is_symlink():
                ways.append(path)
            elif not path.is_symlink() and path.stat().st_mode & 0o004:
                found.add(str(path.relative_to(top)))
    return found


@pytest.mark.parametrize(
    "folders, readable",
    [
        ([], set()),
        (["app/static"], {"app/static/css/a.css", "app/static/.hidden"}),
        (["app/static/css", "app/static"], {"app/static/css/a.css", "app/static/.hidden"}),
        (["other/static", "app/static/css"], {"app/static/css/a.css", "other/static/b.css"}),
    ],
)
def test_publish_opens_nothing_else(build, folders, readable):
    assert open_to_others(build) == set()
    build_tree.publish(str(build), folders)
    assert open_to_others(build) == readable
    assert not build.stat().st_mode & 0o006, "names in a build are nobody's business"
    assert (build / "app/views.py").stat().st_mode & 0o040, "the app reads it as before"
    build_tree.publish(str(build), ["app/static", *folders])
    assert open_to_others(build) >= readable


@pytest.mark.parametrize("folder", ["nowhere", "app/views.py", "linked/static", "app/linked"])
def test_publish_refuses_what_is_no_folder_of_the_build(build, folder):
    (build / "linked").symlink_to("app")
    (build / "app/linked").symlink_to("/etc")
    with pytest.raises(BuildError, match=f"static: the build has no folder '{folder}', or it is a link"):
        build_tree.publish(str(build), ["app/static", folder])
    assert open_to_others(build) == set()


def test_publish_never_reaches_what_a_link_points_to(build, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("")
    outside.chmod(0o600)
    (build / "app/static/out").symlink_to(outside)
    (build / "app/out").symlink_to(outside)
    build_tree.publish(str(build), ["app/static"])
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600


def static(planned, *paths):
    return {**planned, "static": [{"url": f"/{path}", "path": path, "expires": "1h"} for path in paths]}


def test_static_folders_of_a_build_are_opened(builder, planned, sandbox):
    def checkout(directory):
        (directory / "static").mkdir()
        (directory / "static" / "a.css").write_text("")

    sandbox.checkout = checkout
    built = builder.build(static(planned, "static"), "/srv/hello", COMMIT)
    assert open_to_others(Path(planned["paths"]["builds"], built["build"])) == {"static/a.css"}
    assert not builder.publish(static(planned, "static"), built["build"])


def test_a_build_without_the_static_folder_is_none(builder, planned, sandbox):
    with pytest.raises(BuildError, match="static: the build has no folder 'static'"):
        builder.build(static(planned, "static"), "/srv/hello", COMMIT)
    assert builder.stamps(planned) == {}


def test_static_folders_that_are_declared_later(builder, planned, sandbox):
    def checkout(directory):
        for name in ("one", "two"):
            (directory / name).mkdir()
            (directory / name / "a.css").write_text("")

    sandbox.checkout = checkout
    name = builder.build(planned, "/srv/hello", COMMIT)["build"]
    path = Path(planned["paths"]["builds"], name)
    one, two = static(planned, "one"), static(planned, "two")
    assert builder.publish(one, name, check_mode=True) and open_to_others(path) == set()
    assert builder.publish(one, name) and open_to_others(path) == {"one/a.css"}
    assert not builder.publish(one, name) and not builder.publish(planned, name)
    assert builder.publish(two, name) and open_to_others(path) == {"one/a.css", "two/a.css"}
    assert not builder.publish(one, name, check_mode=True)


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
        with pytest.raises(BuildError, match=re.escape(refusal)):
            builds.account(app)
    else:
        assert builds.account(app) is accounts["flask-hello"]


@pytest.mark.parametrize("size, refused", [(130, True), (1024, False)])
def test_a_pointer_of_git_lfs_is_refused(app, builder, planned, sandbox, size, refused):
    def checkout(directory):
        (directory / "static").mkdir()
        pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
        (directory / "static" / "logo.png").write_bytes(pointer.ljust(size, b"0"))
        (directory / "link").symlink_to("static/logo.png")

    sandbox.checkout = checkout
    if not refused:
        assert builder.build(planned, URL, COMMIT)["built"] is True
        return
    with pytest.raises(BuildError) as caught:
        builder.build(planned, URL, COMMIT)
    what = "is a pointer to a file in Git LFS, which is not supported; have the file itself in git"
    assert (caught.value.step, str(caught.value)) == ("check the code out", f"'static/logo.png' {what}")
    assert os.listdir(app.builds_directory) == []


def test_what_reaches_the_repository_is_passed_on(builder, planned, sandbox):
    access = {"key": "a key", "known_hosts": "hosts"}
    assert builder.build_all([(planned, URL, None, access)])["hello"]["built"] is True
    assert [step[-1] for step in sandbox.steps if step[0] == "fetch"] == [access] * 2


# --- shared folders --------------------------------------------------------------------------------------------------


def shared(planned, tmp_path, *paths, **more):
    """The app with shared folders, and with data in a folder of the test."""
    return {
        **planned,
        "shared_paths": list(paths),
        "paths": {**planned["paths"], "data": str(tmp_path / "data")},
        **more,
    }


@pytest.fixture
def filling(sandbox, monkeypatch):
    """Have what fills shared folders happen; build commands are recorded as ever."""

    def run(command, **options):
        if builds.FILL not in command:
            return sandbox.run(command, **options)
        sandbox.steps.append(("fill", *command[4:]))
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise CommandFailed(result.returncode, (result.stdout + result.stderr).splitlines())
        return result.stdout

    monkeypatch.setattr(builds, "run", run)


def uploads(directory):
    (directory / "src" / "uploads").mkdir(parents=True)
    (directory / "src" / "uploads" / "first.txt").write_text("of the commit")


def test_shared_folders_are_links_and_first_filled_from_the_commit(builder, planned, sandbox, filling, tmp_path):
    sandbox.checkout = uploads
    wanted = shared(planned, tmp_path, "uploads", "var/log", path="src")
    build = Path(planned["paths"]["builds"], builder.build(wanted, URL, COMMIT)["build"])
    data = tmp_path / "data" / "shared"
    for path in ("uploads", "var/log"):
        assert (build / "src" / path).readlink() == data / path
        assert stat.S_IMODE((data / path).stat().st_mode) == 0o700
    assert (build / "src/uploads/first.txt").read_text() == "of the commit"
    assert sandbox.names.index("fetch") < sandbox.names.index("install") < sandbox.names.index("fill")
    assert builder.find(wanted, COMMIT).name == build.name, "what the app writes there is no damage"
    assert not builder.share(wanted, build.name) and sandbox.names.count("fill") == 1


def test_later_builds_leave_shared_folders_as_they_are(builder, planned, sandbox, filling, tmp_path):
    sandbox.checkout = uploads
    wanted = shared(planned, tmp_path, "uploads", path="src")
    name = builder.build(wanted, URL, COMMIT)["build"]
    first = tmp_path / "data/shared/uploads/first.txt"
    first.write_text("of the app")
    builder.settings["rebuild"] = True
    assert builder.build(wanted, URL, COMMIT)["build"] != name
    assert first.read_text() == "of the app"
    first.unlink()
    assert not builder.share(wanted, name), "an empty folder is one"
    first.parent.rmdir()
    assert builder.share(wanted, name, check_mode=True) and not first.exists()
    assert builder.share(wanted, name) and first.read_text() == "of the commit"


def test_half_a_copy_of_a_killed_run_is_made_anew(builder, planned, sandbox, filling, tmp_path):
    sandbox.checkout = uploads
    half = tmp_path / "data/shared/uploads.new/half.txt"
    half.parent.mkdir(parents=True)
    half.write_text("")
    builder.build(shared(planned, tmp_path, "uploads", path="src"), URL, COMMIT)
    assert os.listdir(tmp_path / "data/shared") == ["uploads"]
    assert os.listdir(tmp_path / "data/shared/uploads") == ["first.txt"]


def test_a_file_in_the_place_of_a_shared_folder_on_the_host(app, builder, planned, filling, tmp_path):
    place = tmp_path / "data/shared/uploads"
    place.parent.mkdir(parents=True)
    place.write_text("")
    with pytest.raises(BuildError, match=f"^shared_paths: {place} is no folder; move it away$") as caught:
        builder.build(shared(planned, tmp_path, "uploads"), URL, COMMIT)
    assert caught.value.step == "share folders" and os.listdir(app.builds_directory) == []


def test_build_commands_see_the_commit_in_shared_folders(builder, planned, sandbox, tmp_path):
    wanted = shared(planned, tmp_path, "uploads", build_commands=["make"])
    build = Path(planned["paths"]["builds"], builder.build(wanted, URL, COMMIT)["build"])
    options = next(options for command, options in sandbox.commands if command[-1] == "make")
    assert options["writable"] == [str(build), f"{build}/.shared_paths:{tmp_path}/data/shared"]
    fill = sandbox.commands[-1][1]
    assert (fill["user"], fill["network"], fill["writable"]) == ("flask-hello", False, [str(tmp_path / "data")])


def test_what_build_commands_write_into_shared_folders_can_be_read(tmp_path):
    (tmp_path / "uploads").mkdir(0o700)
    (tmp_path / "uploads" / "made").write_text("")
    (tmp_path / "uploads" / "made").chmod(0o600)
    (tmp_path / "link").symlink_to("uploads/made")
    build_tree.let_group_read(str(tmp_path))
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "uploads", tmp_path / "uploads" / "made")]
    assert modes == [0o750, 0o640]


@pytest.mark.parametrize(
    "made, message",
    [
        ("uploads", "'uploads/public' must be a folder, and 'uploads' is a file in the repository"),
        ("uploads/public", "'uploads/public' must be a folder, and 'uploads/public' is a file in the repository"),
        ("-> uploads", "'uploads/public' must be a folder, and 'uploads' is a link in the repository"),
        (".shared_paths", "the repository has a '.shared_paths', which is the builds' own"),
    ],
)
def test_what_is_no_folder_cannot_be_shared(app, builder, planned, sandbox, filling, tmp_path, made, message):
    def checkout(directory):
        name = made.removeprefix("-> ")
        (directory / name).parent.mkdir(exist_ok=True)
        if made.startswith("->"):
            (directory / name).symlink_to("/etc")
        else:
            (directory / name).write_text("")

    sandbox.checkout = checkout
    with pytest.raises(BuildError) as caught:
        builder.build(shared(planned, tmp_path, "uploads/public"), URL, COMMIT)
    assert (caught.value.step, str(caught.value)) == ("check the code out", f"shared_paths: {message}")
    assert os.listdir(app.builds_directory) == [] and not Path("/etc/public").exists()
