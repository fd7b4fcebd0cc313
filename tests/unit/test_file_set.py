# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""file_set on real files in a temporary directory, failures and kills at every step included."""

from __future__ import annotations

import fcntl
import grp
import json
import os
import pwd
import re
import stat
import sys
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils.file_set import commands, running, writing
from ansible_collections.flaskfleet.deploy.plugins.module_utils.file_set.comparing import Found
from ansible_collections.flaskfleet.deploy.plugins.module_utils.file_set.reading import parse_files
from ansible_collections.flaskfleet.deploy.plugins.module_utils.file_set.wanted import FileSetError, pack, unpack

USER = pwd.getpwuid(os.geteuid()).pw_name
GROUP = grp.getgrgid(os.getegid()).gr_name
PYTHON = sys.executable


class Host:
    """A root directory, and runs of file_set on it."""

    def __init__(self, root):
        self.root = root
        self.state = root / "state"
        self.files = root / "files"

    def path(self, name):
        return str(self.files / name)

    def run(self, *files, check=False, diff=False, **options):
        """Run with files given as dicts whose dest is relative."""
        defaults = {
            "owner": "web",
            "state_dir": str(self.state),
            "subjects": ["a", "b"],
            "skipped_subjects": [],
            "purge_undeclared": False,
            "test_command": [],
            "apply_commands": [],
            "directories": [],
        }
        given = [{"user": USER, "group": GROUP, **item, "dest": self.path(item["dest"])} for item in files]
        wanted = parse_files(given, [*options.get("subjects", defaults["subjects"]), "gone"])
        # the way to the host
        wanted = unpack(pack(wanted))
        return running.run({**defaults, **options}, wanted, check, diff)

    def place(self, name, text="foreign\n", mode=0o644):
        path = self.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def read(self, name):
        return (self.files / name).read_text()

    def manifest(self):
        return json.loads((self.state / "web.json").read_text())

    def pending(self):
        return (self.state / "web.pending").exists()

    def snapshot(self):
        """Everything below the root that can be told: path -> kind, inode, mode, owner, times, content."""
        found = {}
        for directory, directories, names in os.walk(self.root):
            for name in [*directories, *names]:
                path = os.path.join(directory, name)
                status = os.lstat(path)
                content = times = None
                if stat.S_ISREG(status.st_mode):
                    with open(path, "rb") as stream:
                        content = stream.read()
                    times = status.st_ino, status.st_mtime_ns
                elif stat.S_ISLNK(status.st_mode):
                    content = os.readlink(path)
                found[path] = status.st_mode, status.st_uid, status.st_gid, times, content
        return found

    def contents(self):
        """Path below files -> text or target, no directories."""
        return {
            os.path.relpath(path, self.files): found[4]
            for path, found in self.snapshot().items()
            if path.startswith(f"{self.files}/") and found[4] is not None
        }

    def leftovers(self):
        return [str(path) for path in self.root.rglob(".*")]


@pytest.fixture(autouse=True)
def _no_waiting_for_disks(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def text(dest, content="new\n", **keys):
    return {"dest": dest, "content": content, **keys}


def link(dest, target, **keys):
    return {"dest": dest, "link": target, **keys}


def absent(dest, **keys):
    return {"dest": dest, "state": "absent", **keys}


# --- Writing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_files_links_and_missing_directories_are_made(host, umask):
    previous = os.umask(umask)
    try:
        result = host.run(text("deep/er/a", mode="0640"), link("l", "deep/er/a"))
    finally:
        os.umask(previous)
    assert result["changed"] and not result["pending"] and not host.pending()
    assert result["changed_files"] == result["managed"] == [host.path("deep/er/a"), host.path("l")]
    assert host.contents() == {"deep/er/a": b"new\n", "l": "deep/er/a"}
    assert stat.S_IMODE(os.stat(host.path("deep/er/a")).st_mode) == 0o640
    assert stat.S_IMODE(os.stat(host.path("deep")).st_mode) == 0o755
    assert stat.S_IMODE(os.stat(host.path("deep/er")).st_mode) == 0o755
    assert stat.S_IMODE(os.stat(host.state).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(host.state / "web.json").st_mode) == 0o600
    assert host.leftovers() == []


def test_second_run_touches_nothing(host):
    files = [text("a", mode="0640"), link("l", "a"), absent("gone")]
    host.run(*files)
    before = host.snapshot()
    result = host.run(*files, test_command=["false"])
    assert (result["changed"], result["changed_files"], result["pending"]) == (False, [], False)
    assert host.snapshot() == before


@pytest.mark.parametrize("mode", [0o600, 0o666, 0o4644])
def test_mode_is_put_right_though_the_content_is(host, mode):
    host.run(text("a"))
    os.chmod(host.path("a"), mode)
    assert host.run(text("a"))["changed_files"] == [host.path("a")]
    assert stat.S_IMODE(os.stat(host.path("a")).st_mode) == 0o644


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("ids", [(0, -1), (-1, 0)])
def test_owner_is_put_right_though_the_content_is(host, ids):
    file = text("a", user=pwd.getpwuid(1).pw_name, group=grp.getgrgid(1).gr_name)
    host.run(file)
    os.chown(host.path("a"), *ids)
    assert host.run(file)["changed_files"] == [host.path("a")]
    status = os.stat(host.path("a"))
    assert (status.st_uid, status.st_gid) == (1, 1)


def test_a_symlink_in_the_place_of_a_file_is_replaced_not_followed(host):
    victim = host.place("victim", "precious\n")
    os.symlink(victim, host.path("a"))
    host.run(text("a", takeover=True))
    assert not os.path.islink(host.path("a"))
    assert host.contents() == {"a": b"new\n", "victim": b"precious\n"}


def test_kinds_replace_each_other(host):
    host.run(text("a"), link("b", "x"))
    host.run(link("a", "x"), text("b"))
    assert host.contents() == {"a": "x", "b": b"new\n"}


def test_label_is_set_before_the_file_gets_its_name(host):
    seen = []

    def label(temporary, path):
        seen.append((os.path.exists(temporary), os.path.exists(path), path))

    wanted = parse_files([{"dest": host.path("a"), "content": "", "user": USER, "group": GROUP}], [])
    options = dict.fromkeys(["subjects", "skipped_subjects", "test_command", "apply_commands", "directories"], [])
    options.update(owner="web", state_dir=str(host.state), purge_undeclared=False)
    running.run(options, wanted, False, False, label)
    assert seen == [(True, False, host.path("a"))]


def test_what_is_on_disk_when(host, monkeypatch):
    """Marker and manifest before any file; each file before its name; the directory at last."""
    host.run(text("a", "old\n"))
    events = []

    def name(path):
        return re.sub(r"\.flaskfleet-web-\w+", "*", os.path.relpath(path, host.root))

    rename = os.rename
    monkeypatch.setattr(
        os, "fsync", lambda number: events.append(f"sync {name(os.readlink(f'/proc/self/fd/{number}'))}")
    )
    monkeypatch.setattr(os, "rename", lambda a, b: (events.append(f"{name(a)} -> {name(b)}"), rename(a, b)))
    host.run(text("a"))
    marker = ["sync state/*", "state/* -> state/web.pending", "sync state"]
    manifest = ["sync state/*", "state/* -> state/web.json", "sync state"]
    file = ["sync files/*", "files/* -> files/a", "sync files"]
    assert events == [*marker, *manifest, *file, *manifest, "sync state"]


# --- Whose files -------------------------------------------------------------------------------------------------


def test_foreign_files_are_refused_all_at_once_before_anything_is_written(host):
    host.place("foreign")
    os.symlink("new\n", host.path("foreign_link"))
    before = host.snapshot()
    with pytest.raises(FileSetError) as caught:
        host.run(text("first"), text("foreign"), text("foreign_link"), absent("foreign"))
    assert "listed twice" in str(caught.value)
    with pytest.raises(FileSetError) as caught:
        host.run(text("first"), text("foreign"), text("foreign_link"))
    for name in ("foreign", "foreign_link"):
        assert f"{host.path(name)}: exists and is not managed by this collection" in str(caught.value)
    with pytest.raises(FileSetError, match="exists and is not managed"):
        host.run(absent("foreign"))
    after = {path: found for path, found in host.snapshot().items() if not path.startswith(str(host.state))}
    assert after == before


def test_takeover_replaces_and_removes_foreign_files(host):
    host.place("a")
    host.place("b")
    result = host.run(text("a", takeover=True), absent("b", takeover=True))
    assert result["changed_files"] == [host.path("a"), host.path("b")]
    assert host.contents() == {"a": b"new\n"}


def test_identical_foreign_files_are_adopted(host):
    host.place("a", "new\n")
    os.symlink("x", host.path("l"))
    assert not host.run(text("a"), link("l", "x"), test_command=["false"])["changed"]
    assert sorted(host.run()["pruned"]) == [host.path("a"), host.path("l")]


def test_adopting_puts_the_mode_right(host):
    host.place("a", "new\n", mode=0o600)
    assert host.run(text("a"))["changed_files"] == [host.path("a")]


def test_absent_removes_what_is_ours(host):
    host.run(text("a"), text("b"))
    result = host.run(absent("a"), text("b"))
    assert (result["changed_files"], result["pruned"]) == ([host.path("a")], [])
    assert list(host.manifest()) == [host.path("b")]


@pytest.mark.parametrize(
    "subject, options, stays, undeclared",
    [
        ("", {}, False, []),
        ("a", {}, False, []),
        ("a", {"skipped_subjects": ["a"]}, True, []),
        ("gone", {}, True, ["gone"]),
        ("gone", {"skipped_subjects": ["gone"]}, True, []),
        ("gone", {"purge_undeclared": True}, False, []),
        ("gone", {"purge_undeclared": True, "skipped_subjects": ["gone"]}, True, []),
    ],
)
def test_what_is_pruned(host, subject, options, stays, undeclared):
    host.run(text("old", subject=subject), text("kept", subject="b"))
    predicted = host.run(text("kept", subject="b"), check=True, **options)
    result = host.run(text("kept", subject="b"), **options)
    assert predicted == result
    assert result["undeclared"] == undeclared
    assert result["pruned"] == ([] if stays else [host.path("old")])
    assert result["changed"] is not stays
    assert os.path.exists(host.path("old")) is stays
    assert (host.path("old") in host.manifest()) is stays


def test_pruning_what_somebody_has_removed_is_no_change(host):
    host.run(text("a"))
    os.unlink(host.path("a"))
    result = host.run()
    assert (result["changed"], result["managed"], host.manifest()) == (False, [], {})


def test_owners_do_not_touch_each_other(host):
    host.run(text("a"))
    assert host.run(text("b"), owner="other")["pruned"] == []
    assert host.contents() == {"a": b"new\n", "b": b"new\n"}


def test_manifest_holds_digests_but_none_of_secrets(host):
    host.run(text("a", subject="a"), text("s", sensitive=True), link("l", "new\n".strip()))
    entries = {os.path.basename(path): entry for path, entry in host.manifest().items()}
    digest = "7aa7a5359173d05b63cfd682e3c38487f3cb4f7f1d60659fe59fab1505977d4c"  # printf 'new\n' | sha256sum
    assert entries["a"] == {"subject": "a", "kind": "file", "digest": digest}
    assert entries["s"] == {"subject": "", "kind": "file", "digest": None}
    assert entries["l"]["kind"] == "link"


@pytest.mark.parametrize(
    "damaged",
    [b"", b"{", b"[]", b"\xff", b'{"x": {}}', b'{"/x": 1}', b'{"/x": {"subject": 1, "kind": "file", "digest": null}}'],
)
def test_a_damaged_manifest_is_named(host, damaged):
    host.run(text("a"))
    (host.state / "web.json").write_bytes(damaged)
    before = host.snapshot()
    for check in (True, False):
        with pytest.raises(FileSetError, match=r"web\.json: is damaged"):
            host.run(text("a", "other"), check=check)
    assert host.snapshot() == before


def test_a_state_directory_that_others_can_write_is_refused(host):
    host.state.mkdir()
    host.state.chmod(0o777)
    with pytest.raises(FileSetError, match="only root can write"):
        host.run(text("a"))


def test_state_directory_is_taken_as_it_is_meant(host):
    with pytest.raises(FileSetError, match="state_dir must be an absolute path"):
        host.run(text("a"), state_dir="state")
    host.run(text("a"), state_dir=f"{host.state}/")
    assert stat.S_IMODE(os.stat(host.state).st_mode) == 0o700


@pytest.mark.parametrize("owner", ["", "A", "../x", "a b", "1"])
def test_owner_must_be_a_name(host, owner):
    with pytest.raises(FileSetError, match="owner must match"):
        host.run(owner=owner)


# --- Obstacles ---------------------------------------------------------------------------------------------------


def test_obstacles_are_told_all_at_once(host):
    (host.files / "directory").mkdir(parents=True)
    os.mkfifo(host.path("pipe"))
    os.symlink("loop", host.path("loop"))
    os.symlink("nowhere", host.path("dangling"))
    host.place("file")
    before = host.snapshot()
    with pytest.raises(FileSetError) as caught:
        host.run(*[text(name, takeover=True) for name in ("directory", "pipe", "loop/a", "dangling/a/b", "file/a")])
    problems = str(caught.value)
    assert f"{host.path('directory')}: is a directory" in problems
    assert f"{host.path('pipe')}: is neither a file nor a link" in problems
    assert f"{host.path('loop/a')}: Too many levels of symbolic links" in problems
    assert f"{host.path('dangling/a/b')}: {host.path('dangling')} is not a directory" in problems
    assert f"{host.path('file/a')}: {host.path('file')} is not a directory" in problems
    assert {path: found for path, found in host.snapshot().items() if "/files/" in path} == {
        path: found for path, found in before.items() if "/files/" in path
    }


def test_a_directory_in_the_place_of_a_pruned_file_is_told(host):
    host.run(text("a"))
    os.unlink(host.path("a"))
    os.mkdir(host.path("a"))
    with pytest.raises(FileSetError, match="is a directory"):
        host.run()


def test_missing_users_and_groups_are_told_before_writing(host):
    files = [text("a", user="nobody-such"), text("b", group="none-such")]
    with pytest.raises(FileSetError) as caught:
        host.run(*files)
    assert "user nobody-such does not exist" in str(caught.value)
    assert "group none-such does not exist" in str(caught.value)
    assert host.contents() == {}
    assert host.run(*files, check=True)["changed_files"] == [host.path("a"), host.path("b")]


# --- Check mode and diff -----------------------------------------------------------------------------------------


def test_check_mode_predicts_and_writes_nothing(host):
    host.run(text("old"), text("same"), text("mode"), link("l", "x"), text("s", sensitive=True))
    os.chmod(host.path("mode"), 0o600)
    (host.state / "web.lock").unlink()
    files = [text("same"), text("mode"), link("l", "y"), text("s", "2", sensitive=True), text("made/n"), absent("none")]
    before = host.snapshot()
    predicted = host.run(*files, check=True, diff=True, apply_commands=None, test_command=["false"])
    assert host.snapshot() == before
    assert predicted == host.run(*files, diff=True, apply_commands=None)
    assert predicted["changed_files"] == [host.path(name) for name in ("l", "made/n", "mode", "s")]
    assert predicted["pruned"] == [host.path("old")]
    assert predicted["pending"]


def test_check_mode_makes_no_state_directory(host):
    assert host.run(text("a"), check=True)["changed"]
    assert host.snapshot() == {}


def test_check_mode_refuses_what_a_run_refuses(host):
    host.place("a")
    with pytest.raises(FileSetError, match="exists and is not managed"):
        host.run(text("a"), check=True)


def diff_of(host, *files):
    (diff,) = host.run(*files, diff=True)["diff"]
    assert diff["before_header"].startswith(str(host.files))
    return diff["before"], diff["after"]


def test_diff_shows_contents_links_modes_and_removals(host):
    host.run(text("a", "1\n"))
    assert diff_of(host, text("a", "2\n")) == ("1\n", "2\n")
    before, after = diff_of(host, text("a", "2\n", mode="0600"))
    assert (before.splitlines()[0], after.splitlines()[0]) == ("mode: 0644", "mode: 0600")
    assert diff_of(host, link("a", "x")) == ("2\n", "link to x\n")
    assert diff_of(host) == ("link to x\n", "")
    assert diff_of(host, text("a", "3\n")) == ("", "3\n")
    assert host.run(text("a", "4\n"))["changed"] and "diff" not in host.run(text("a", "5\n"))


def test_diff_never_shows_a_secret(host):
    changed = ("", "changed\n")
    assert diff_of(host, text("s", "hunter2", sensitive=True)) == changed
    assert diff_of(host, text("s", "hunter2", sensitive=True, mode="0600")) == changed
    assert diff_of(host, text("s", "not sensitive any more", mode="0600")) == changed
    host.run(text("s", "hunter2", sensitive=True))
    assert diff_of(host) == changed
    host.place("private", "hunter2", mode=0o600)
    assert diff_of(host, text("private", "public", takeover=True)) == changed


def test_diff_bounds_large_files(host):
    host.run(text("a", "x" * 200_000))
    assert diff_of(host, text("a", "y\n")) == ("(too large to be shown)\n", "y\n")


# --- Test command and putting back -------------------------------------------------------------------------------


def before_and_after(host):
    """Files of every kind, and a run that changes each in another way."""
    host.place("taken", mode=0o600)
    host.place("directory/hard", "hard\n")
    os.link(host.path("directory/hard"), host.path("harder"))
    os.symlink("directory", host.path("parent"))
    host.run(
        text("content", "old\n", mode="0640"),
        text("mode", "same\n"),
        link("link", "old"),
        text("kind", "old\n"),
        link("link_to_file", "kind"),
        text("pruned", "old\n"),
        text("removed", "old\n"),
        text("secret", "old", sensitive=True),
    )
    return [
        text("content"),
        text("mode", "same\n", mode="0600"),
        link("link", "new"),
        link("kind", "new"),
        text("link_to_file"),
        absent("removed"),
        text("secret", "new", sensitive=True),
        text("taken", takeover=True),
        text("harder", takeover=True),
        text("made/here/new"),
        text("parent/new"),
        link("new_link", "x"),
    ]


def without_lock(snapshot):
    return {path: found for path, found in snapshot.items() if not path.endswith(".lock")}


@pytest.mark.parametrize("marker", [False, True])
def test_a_failed_test_puts_everything_back(host, marker):
    files = before_and_after(host)
    if marker:
        (host.state / "web.pending").write_text("earlier")
    before = without_lock(host.snapshot())
    command = [PYTHON, "-c", f"import sys; print(open({host.path('content')!r}).read()); sys.exit(3)"]
    with pytest.raises(FileSetError) as caught:
        host.run(*files, test_command=command, apply_commands=[["touch", host.path("applied")]])
    assert "failed with 3; every file is as it was before.\nnew" in str(caught.value)
    assert caught.value.details == {"cmd": command, "rc": 3}
    after = without_lock(host.snapshot())
    for path in [str(host.state / "web.json"), str(host.state / "web.pending")]:  # rewritten
        assert after.pop(path, [None])[-1] == before.pop(path, [None])[-1]
    assert after == before


def test_the_test_sees_the_new_files(host):
    files = before_and_after(host)
    check = (
        "import os, sys; os.chdir(sys.argv[1]); assert open('content').read() == 'new\\n'; "
        "assert not os.path.lexists('pruned'); assert os.readlink('kind') == 'new'"
    )
    assert host.run(*files, test_command=[PYTHON, "-c", check, str(host.files)])["changed"]
    assert host.leftovers() == []


def test_output_is_bounded_and_its_end_is_kept(host):
    command = [PYTHON, "-c", "print('x' * 100000); print('the end'); raise SystemExit(1)"]
    with pytest.raises(FileSetError) as caught:
        host.run(text("a"), test_command=command)
    assert len(str(caught.value)) < 5000
    assert str(caught.value).endswith("the end")


@pytest.mark.parametrize(
    "command, message, code",
    [
        (["no-such-command"], "cannot be run", 127),
        ([PYTHON, "-c", "import time; time.sleep(60)"], "took longer than 0.2 s", 124),
    ],
)
def test_commands_that_cannot_run_or_hang_have_failed(host, monkeypatch, command, message, code):
    monkeypatch.setattr(commands, "COMMAND_TIMEOUT", 0.2)
    with pytest.raises(FileSetError, match=message) as caught:
        host.run(text("a"), test_command=command)
    assert caught.value.details["rc"] == code
    assert host.contents() == {}


def test_a_daemon_that_a_command_leaves_behind_holds_up_nothing(host):
    command = ["sh", "-c", "sleep 30 & echo $! > $0", str(host.root / "pid")]
    done = threading.Event()
    thread = threading.Thread(target=lambda: host.run(text("a"), apply_commands=[command]) and done.set())
    thread.start()
    thread.join(10)
    # the lock is free again, too
    assert done.is_set() and host.run(text("a"))
    os.kill(int((host.root / "pid").read_text()), 9)


def test_secrets_in_a_commands_output_are_masked(host):
    secret = text("s", 'TOKEN="hunter2 and hunter3"\nURL=db://u:passw0rd@h/\nSHORT=abc\n', sensitive=True)
    command = [PYTHON, "-c", "print('value hunter2 and hunter3, word hunter3, passw0rd; abc'); raise SystemExit(1)"]
    with pytest.raises(FileSetError) as caught:
        host.run(secret, text("open", "visible words\n"), test_command=command)
    assert str(caught.value).endswith("value ********, word ********, ********; abc")


# --- Applying ----------------------------------------------------------------------------------------------------


def say(host, word, code=0):
    return ["sh", "-c", f"echo {word} >> $0; exit {code}", str(host.root / "said")]


def said(host):
    return (host.root / "said").read_text().split() if (host.root / "said").exists() else []


def test_apply_commands_run_in_order_after_a_change_only(host):
    commands = {"test_command": say(host, "test"), "apply_commands": [say(host, "one"), say(host, "two")]}
    assert not host.run(text("a"), **commands)["pending"]
    assert said(host) == ["test", "one", "two"]
    host.run(text("a"), **commands)
    assert said(host) == ["test", "one", "two"]
    assert not host.pending()


def test_directories_that_are_not_as_said_are_applied(host):
    """What the apply commands make is compared at each run, whatever the files are."""
    path = Path(host.path("made"))
    make = ["sh", "-c", f"mkdir -p {path} && chmod 0711 {path} && echo made >> {host.path('log')}"]
    me = pwd.getpwuid(os.geteuid()).pw_name
    directory = {"path": str(path), "mode": "0711", "user": me, "group": ""}
    options = {"apply_commands": [make], "directories": [directory]}
    file = {"dest": host.path("a"), "content": "x"}

    def mended(check=False):
        result = host.run(file, check=check, **options)
        assert result["changed"] is bool(result["mended"] or result["changed_files"])
        return result["mended"]

    assert mended(check=True) == [str(path)] and not path.exists()
    assert mended() == [str(path)]
    assert mended() == []
    path.chmod(0o777)
    assert mended(check=True) == mended() == [str(path)] and path.stat().st_mode & 0o777 == 0o711
    path.rmdir()
    path.write_text("a file in its place")
    assert mended(check=True) == [str(path)]
    path.unlink()
    mended()
    for key in ("user", "group"):
        with_nobody = {**options, "directories": [{**directory, key: "no-such-account"}]}
        assert host.run(file, check=True, **with_nobody)["mended"] == [str(path)]
    assert Path(host.path("log")).read_text().count("made") == 3


def test_a_failed_apply_command_is_made_up_for(host):
    with pytest.raises(FileSetError, match="the next run applies them again") as caught:
        host.run(text("a"), apply_commands=[say(host, "one"), say(host, "two", 1), say(host, "three")])
    assert said(host) == ["one", "two"]
    assert host.contents() == {"a": b"new\n"} and host.pending()
    assert caught.value.details["changed"]
    commands = {"test_command": say(host, "test"), "apply_commands": [say(host, "again")]}
    predicted = host.run(text("a"), check=True, **commands)
    assert said(host) == ["one", "two"] and host.pending()
    result = host.run(text("a"), **commands)
    assert predicted == result
    assert (result["changed"], result["changed_files"], result["pending"]) == (True, [], False)
    assert said(host)[2:] == ["test", "again"]
    assert not host.pending()
    assert not host.run(text("a"), **commands)["changed"]


def test_files_of_an_interrupted_run_are_tested(host):
    host.run(text("a"), apply_commands=None)
    with pytest.raises(FileSetError, match="written by an earlier run"):
        host.run(text("a"), test_command=["false"])
    assert host.contents() == {"a": b"new\n"} and host.pending()


def test_without_apply_commands_the_caller_clears_the_marker(host):
    for expected in ([host.path("a")], []):
        result = host.run(text("a"), apply_commands=None)
        assert (result["changed"], result["pending"], result["changed_files"]) == (True, True, expected)
        assert os.path.exists(result["pending_marker"])
    os.unlink(result["pending_marker"])
    result = host.run(text("a"), apply_commands=None)
    assert (result["changed"], result["pending"]) == (False, False)


# --- Failures and kills at every step ----------------------------------------------------------------------------

STEPS = ("open", "mkdir", "chmod", "fchmod", "fchown", "fsync", "link", "symlink", "rename", "unlink", "rmdir")


class Steps:
    """Counts the calls that change something below a directory, and does something else at one of them."""

    def __init__(self, monkeypatch, at, action):
        self.count = 0
        for name in STEPS:
            monkeypatch.setattr(os, name, self.counted(name, getattr(os, name), at, action))

    def counted(self, name, function, at, action):
        def call(*args, **kwargs):
            if name != "open" or args[1] & os.O_CREAT:
                self.count += 1
                if self.count == at:
                    action(*args)
            return function(*args, **kwargs)

        return call


def fail(path=None, *_):
    raise OSError(28, "No space left on device", path if isinstance(path, str) else None)


def test_a_failure_at_any_step_puts_everything_back(tmp_path):
    """Up to the test, that is: afterwards the change stands."""
    at, failed = 0, 0
    while True:
        at += 1
        host = Host(tmp_path / str(at))
        files = before_and_after(host)
        before = host.contents(), host.manifest()
        tested = host.root / "tested"
        with pytest.MonkeyPatch.context() as patch:
            steps = Steps(patch, at, fail)
            try:
                host.run(*files, test_command=["touch", str(tested)])
            except FileSetError as error:
                failed += 1
                assert "No space left on device" in str(error)
                assert re.search(r"/(files|state)\b", str(error)), str(error)
            else:
                if steps.count < at:
                    break
        if not tested.exists():
            assert (host.contents(), host.manifest()) == before
            assert not host.pending()
        assert host.run(*files)["managed"] == sorted(host.manifest())
        assert host.leftovers() == []
    assert failed > 50


def test_a_kill_at_any_step_leaves_each_file_old_or_new(tmp_path):
    finished = Host(tmp_path / "finished")
    files = before_and_after(finished)
    finished.run(*files)
    new = finished.contents()
    for at in range(1, 1000):
        host = Host(tmp_path / str(at))
        files = before_and_after(host)
        old = host.contents()
        child = os.fork()
        if not child:
            Steps(pytest.MonkeyPatch(), at, lambda *_: os._exit(9))
            host.run(*files, apply_commands=[say(host, "first")])
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            break
        killed = {path: content for path, content in host.contents().items() if "/." not in f"/{path}"}
        for path in {*old, *new}:
            assert killed.get(path) in (old.get(path), new.get(path)), path
        # what is new is known as ours: no later run refuses it, and one that does not list it prunes it
        created = {os.path.realpath(host.path(path)) for path in killed if path not in old}
        assert created <= {os.path.realpath(path) for path in host.manifest()}
        first = said(host)
        result = host.run(*files, apply_commands=[say(host, "again")])
        assert host.contents() == new
        assert host.leftovers() == []
        assert not host.pending()
        assert first or result["changed"] and said(host)  # applied by either
    assert at > 60


def test_what_cannot_be_put_back_is_told_and_not_forgotten(host, monkeypatch):
    host.run(text("a", "old\n"))
    rename, unlink = os.rename, os.unlink

    def stuck(function):
        def call(source, *rest):
            if "restoring" in state and source.startswith(str(host.files)):
                raise OSError(5, "Input/output error", source)
            return function(source, *rest)

        return call

    state = set()
    monkeypatch.setattr(os, "rename", stuck(rename))
    monkeypatch.setattr(os, "unlink", stuck(unlink))
    monkeypatch.setattr(running, "execute", lambda *_: (state.add("restoring"), fail()))
    with pytest.raises(FileSetError) as caught:
        host.run(text("a"), text("b"), test_command=["false"])
    monkeypatch.undo()
    message = str(caught.value)
    backup = re.search(rf"{host.path('a')}: could not be put back .* lies in (\S+)", message)
    with open(backup[1]) as stream:
        assert stream.read() == "old\n"
    assert f"{host.path('b')}: could not be put back (Input/output error)" in message
    assert "No space left" in message
    assert sorted(host.manifest()) == [host.path("a"), host.path("b")]
    assert host.pending()


def test_leftovers_of_a_killed_run_are_removed_but_only_ours(host):
    host.run(text("a"))
    ours, theirs = ".flaskfleet-web-0123456789abcdef", [".flaskfleet-web-x-0123456789abcdef", ".flaskfleet-web-01"]
    for name in [ours, *theirs]:
        host.place(name)
    host.run(text("a"), check=True)
    assert (host.files / ours).exists()
    assert not host.run(text("a"))["changed"]
    assert sorted(host.contents()) == sorted(["a", *theirs])


def test_leftovers_are_removed_where_nothing_of_ours_is_any_more(host, monkeypatch):
    """A key that was the last file in its folder: the manifest does not lead there any more."""
    host.run(text("a"))
    monkeypatch.setattr(writing.Transaction, "drop_backups", lambda transaction: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        host.run(subjects=["x"])
    assert host.manifest() == {} and len(host.contents()) == 1
    monkeypatch.undo()
    host.run(subjects=["x"])
    assert list(host.contents()) == []


# --- Two at once -------------------------------------------------------------------------------------------------


def test_a_second_run_waits_for_the_lock(host):
    host.run(text("a"))
    with open(host.state / "web.lock", "rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        thread = threading.Thread(target=host.run, args=(text("a", "2\n"),))
        thread.start()
        thread.join(0.5)
        assert thread.is_alive() and host.read("a") == "new\n"
        assert host.run(text("a"), check=True)["changed"] is False  # reading waits for nobody
        fcntl.flock(stream, fcntl.LOCK_UN)
        thread.join(5)
    assert host.read("a") == "2\n"


def test_waiting_for_the_lock_ends(host, monkeypatch):
    monkeypatch.setattr(writing, "LOCK_TIMEOUT", 0.3)
    host.run(text("a"))
    start = time.monotonic()
    with open(host.state / "web.lock", "rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(FileSetError) as caught:
            host.run(text("a", "2\n"))
    assert 0.3 < time.monotonic() - start < 3
    assert str(caught.value) == f"another run has held {host.state / 'web.lock'} for 0.3 s"


# --- Arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "item, problem",
    [
        ("hunter2", "files[0]: must be a dictionary"),
        ({"content": "hunter2"}, "files[0]: dest is required"),
        ({"dest": 7, "content": "hunter2"}, "files[0]: dest must be a string"),
        ({"dest": "/a\nb", "content": "hunter2"}, "files[0]: dest must be an absolute, normalized path"),
        ({"dest": "a", "content": "hunter2"}, "a: dest must be an absolute, normalized path"),
        ({"dest": "/", "content": "hunter2"}, "/: dest must be an absolute, normalized path"),
        ({"dest": "//a", "content": "hunter2"}, "//a: dest must be an absolute, normalized path"),
        ({"dest": "/a/", "content": "hunter2"}, "/a/: dest must be an absolute, normalized path"),
        ({"dest": "/a/../b", "content": "hunter2"}, "/a/../b: dest must be an absolute, normalized path"),
        ({"dest": "/a"}, "/a: exactly one of template, content, link, certificate, state is required"),
        (
            {"dest": "/a", "content": "", "link": "hunter2"},
            "/a: exactly one of template, content, link, certificate, state is required",
        ),
        ({"dest": "/a", "content": "", "owner": "hunter2"}, "/a: unknown key owner"),
        ({"dest": "/a", "content": None}, "/a: content must be a string"),
        ({"dest": "/a", "content": "hunter2\ud800"}, "/a: content has characters that UTF-8 cannot encode"),
        ({"dest": "/a", "content": "", "mode": 420}, "/a: mode must be a string"),
        ({"dest": "/a", "content": "", "mode": "u=rw"}, '/a: mode must be a quoted octal number such as "0644"'),
        ({"dest": "/a", "content": "", "sensitive": "yes"}, "/a: sensitive must be true or false"),
        ({"dest": "/a", "content": "", "vars": ["hunter2"]}, "/a: vars must be a dictionary"),
        ({"dest": "/a", "content": "", "user": ""}, "/a: user must be printable text, and not empty"),
        ({"dest": "/a", "content": "", "group": "x\0"}, "/a: group must be printable text, and not empty"),
        ({"dest": "/a", "content": "", "subject": "undeclared"}, "/a: subject is not one of subjects"),
        ({"dest": "/a", "state": "present"}, "/a: state can only be absent"),
        ({"dest": "/a", "link": ""}, "/a: link must be printable text, and not empty"),
        (
            {"dest": "/a", "template": "b/../x"},
            '/a: template must be an absolute path, or a name relative to the template paths, without ".."',
        ),
    ],
)
def test_wrong_files_are_told_without_their_values(item, problem):
    with pytest.raises(FileSetError) as caught:
        parse_files([item], ["a"])
    assert str(caught.value) == problem


def test_all_problems_are_told_at_once():
    with pytest.raises(FileSetError) as caught:
        parse_files([{"dest": "/a", "state": "gone", "mode": "x"}, text("/b"), text("/b"), link("/b/c", "x")], [])
    assert str(caught.value).splitlines() == [
        "4 problems:",
        '- /a: mode must be a quoted octal number such as "0644"',
        "- /a: state can only be absent",
        "- /b: listed twice",
        "- /b/c: lies below /b, which is listed as a file or link",
    ]


def test_contents_do_not_show_in_the_repr():
    (wanted,) = parse_files([text("/a", "hunter2", vars={"x": "hunter2"})], [])
    assert "hunter2" not in repr(wanted)
    assert "hunter2" not in repr(Found("file", content=b"hunter2"))
