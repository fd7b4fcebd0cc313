# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host does with releases. Files, locks and sockets are real; systemd is not."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils import release_host
from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import LockTimeout, Unhealthy
from conftest import HEALTH, PROCESS

# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o644])
@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_write_file(tmp_path, mode, umask):
    path = tmp_path / "file"
    before = os.umask(umask)
    try:
        release_host.write_file(str(path), "first\n", mode)
        release_host.write_file(str(path), "zweite ä\n", mode)
    finally:
        os.umask(before)
    assert path.read_text(encoding="utf-8") == "zweite ä\n"
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert os.listdir(tmp_path) == ["file"]


def test_write_file_does_not_follow_what_was_left_behind(tmp_path):
    other = tmp_path / "other"
    other.write_text("other")
    (tmp_path / "file.new").symlink_to(other)
    release_host.write_file(str(tmp_path / "file"), "secret", 0o600)
    assert other.read_text() == "other"
    assert not (tmp_path / "file").is_symlink()


def test_write_file_keeps_the_old_content_when_it_is_interrupted(tmp_path, monkeypatch):
    path = tmp_path / "file"
    release_host.write_file(str(path), "old")
    monkeypatch.setattr(os, "fsync", lambda descriptor: (none for none in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        release_host.write_file(str(path), "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_read_json(tmp_path):
    (tmp_path / "file").write_text('{"a": 1}')
    assert release_host.read_json(str(tmp_path / "file")) == {"a": 1}
    assert release_host.read_json(str(tmp_path / "missing")) is None
    assert release_host.read_json(str(tmp_path / "file" / "missing")) is None


@pytest.mark.parametrize(
    "content", [b"", b'{"a": 1', b"\0" * 20, b"\xff"], ids=["empty", "cut off", "zeros", "no UTF-8"]
)
def test_read_json_that_is_damaged(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    assert release_host.read_json(str(tmp_path / "file")) is None


# --- the lock --------------------------------------------------------------------------------------------------------

HOLDER = """
import sys
sys.path.insert(0, sys.argv[1])
import release_host
with release_host.lock(sys.argv[2]):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of tmp_path until it reads a line."""
    command = [sys.executable, "-c", HOLDER, os.path.dirname(release_host.__file__), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_lock_times_out_while_another_process_holds_it(tmp_path, holder):
    started = time.monotonic()
    with (
        pytest.raises(LockTimeout, match="another run has been working on the apps of this host for 0 s"),
        release_host.lock(str(tmp_path), wait=0.15),
    ):
        raise AssertionError("two hold the lock")
    assert 0.15 < time.monotonic() - started < 2


@pytest.mark.parametrize("end", ["release", "kill"])
def test_lock_waits_until_the_other_process_lets_go(tmp_path, holder, end):
    def let_go():
        if end == "kill":
            holder.send_signal(signal.SIGKILL)
        else:
            holder.stdin.write("\n")
            holder.stdin.flush()

    timer = threading.Timer(0.2, let_go)
    started = time.monotonic()
    timer.start()
    with release_host.lock(str(tmp_path), wait=5):
        assert 0.2 <= time.monotonic() - started < 2
    with release_host.lock(str(tmp_path), wait=0):
        pass


def test_lock_is_not_inherited_by_commands(tmp_path):
    with release_host.lock(str(tmp_path)):
        child = subprocess.Popen(["sleep", "10"], close_fds=False)
    with release_host.lock(str(tmp_path), wait=0):
        child.kill()
    child.wait()


# --- health ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status, accepted, expected",
    [
        (200, ["2xx", "3xx"], True),
        (302, ["2xx", "3xx"], True),
        (500, ["2xx", "3xx"], False),
        (404, [404], True),
        (404, ["2xx", 404], True),
        (405, [404], False),
        (200, [204], False),
        (200, [], False),
    ],
)
def test_acceptable(status, accepted, expected):
    assert release_host.acceptable(status, accepted) is expected


def test_probe_asks_as_the_proxy_does(serve):
    server = serve(204)
    assert release_host.probe(server.path, HEALTH) == 204
    request, *headers = server.requests[0].split("\r\n")
    assert request == "GET /health HTTP/1.1"
    assert {"Host: hello.test", "X-Forwarded-Proto: http", "Connection: close"} <= set(headers)


@pytest.mark.parametrize(
    "answer, problem",
    [
        pytest.param(500, "GET /health answered 500, expected 2xx, 3xx", id="500"),
        pytest.param(404, "GET /health answered 404, expected 2xx, 3xx", id="404"),
        pytest.param(None, "no answer to GET /health within 0 s", id="no answer"),
        pytest.param(b"", "no answer to GET /health: RemoteDisconnected", id="closed"),
        pytest.param(b"garbage\r\n\r\n", "no answer to GET /health: BadStatusLine", id="garbage"),
        pytest.param(b"\xff" * 99, "no answer to GET /health: BadStatusLine", id="bytes"),
        pytest.param(b"HTTP/1.1 200 " + b"x" * 70000, "no answer to GET /health: LineTooLong", id="endless line"),
    ],
)
def test_probe_of_a_sick_server(serve, answer, problem):
    with pytest.raises(Unhealthy) as caught:
        release_host.probe(serve(answer).path, HEALTH, limit=0.2)
    assert str(caught.value) == problem


def test_probe_follows_no_redirect(serve):
    server = serve(b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.test/\r\n\r\n")
    assert release_host.probe(server.path, HEALTH) == 302
    assert len(server.requests) == 1


def test_probe_of_a_socket_where_nobody_accepts(short_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short_path / "web.sock"))
        listener.listen()
        with pytest.raises(Unhealthy, match="^no answer to GET /health within 0 s$"):
            release_host.probe(str(short_path / "web.sock"), HEALTH, limit=0.1)


@pytest.mark.parametrize("kind, problem", [("missing", "FileNotFoundError"), ("stale", "ConnectionRefusedError")])
def test_probe_of_a_socket_where_nobody_listens(short_path, kind, problem):
    path = str(short_path / "web.sock")
    if kind == "stale":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
    with pytest.raises(Unhealthy, match=f"^no answer to GET /health: {problem}$"):
        release_host.probe(path, HEALTH)


# --- connections -----------------------------------------------------------------------------------------------------


@pytest.fixture
def listener(short_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short_path / "web.sock"))
        listener.listen()
        with open("/proc/1/net/unix", encoding="utf-8") as stream:
            if listener.getsockname() not in stream.read():
                pytest.skip("PID 1 is in another network namespace")
        yield listener


def connect(listener):
    client = socket.socket(socket.AF_UNIX)
    client.connect(listener.getsockname())
    return client


def test_connections_counts_neither_the_listener_nor_other_sockets(listener, serve):
    path = listener.getsockname()
    other = serve(None, "web.sock2")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(other.path)
        assert release_host.connections(path) == 0


def test_connections_counts_those_not_yet_accepted_too(listener):
    path = listener.getsockname()
    with contextlib.ExitStack() as stack:
        stack.enter_context(connect(listener))
        stack.enter_context(connect(listener))
        assert release_host.connections(path) == 2
        with listener.accept()[0], listener.accept()[0]:
            assert release_host.connections(path) == 2
        assert release_host.connections(path) == 0


def test_drain_waits_for_the_last_connection(listener):
    with connect(listener), listener.accept()[0] as connection:
        started = time.monotonic()
        threading.Timer(0.25, connection.close).start()
        release_host.drain(listener.getsockname(), limit=5)
        assert 0.25 <= time.monotonic() - started < 2


def test_drain_gives_up(listener):
    with connect(listener):
        started = time.monotonic()
        release_host.drain(listener.getsockname(), limit=0.2)
        assert 0.2 <= time.monotonic() - started < 2


# --- releases --------------------------------------------------------------------------------------------------------


def test_live(app):
    assert app.live() is None
    app.add("one", live=True)
    assert app.live() == "one"


def test_releases_are_the_complete_ones_in_the_order_of_their_making(app):
    assert app.releases() == []
    app.add("b", created=2.5)
    app.add("c", created=1)
    app.add("a", created=11)
    Path(app.releases_directory, "half").mkdir()
    Path(app.releases_directory, "notes.txt").write_text("a person's")
    app.add("damaged")
    Path(app.releases_directory, "damaged", "release.json").write_text("")
    assert app.releases() == ["c", "b", "a"]


def test_no_releases_of_an_app_that_is_not_there(tmp_path):
    assert release_host.App(str(tmp_path), "hello").releases() == []


def test_marks(app, clock):
    assert app.mark("one") == {} and not app.failed("one")
    app.set_mark("one", "settling", previous="zero")
    clock.sleep(5)
    app.set_mark("one", "failed", reason="it died")
    assert app.mark("one") == {"state": "failed", "at": 1005.0, "previous": "zero", "reason": "it died"}
    assert app.failed("one")


def test_switch(app):
    app.add("one", live=True)
    app.add("two")
    app.switch("two")
    assert os.readlink(app.current) == "releases/two"
    assert not os.path.lexists(f"{app.current}.new")


def test_switch_keeps_a_link_to_what_had_the_traffic_before(app):
    app.add("one")
    app.switch("one")
    assert not os.path.lexists(app.previous)
    app.add("two")
    app.switch("two")
    assert os.readlink(app.previous) == "releases/one"
    app.switch("two")
    assert os.readlink(app.previous) == "releases/one"
    app.switch("one")  # back, by a watch or a rollback: pages of the other one are still out there
    assert (os.readlink(app.current), os.readlink(app.previous)) == ("releases/one", "releases/two")


def test_switch_that_is_killed_between_its_links_loses_no_file_of_the_live_release(app, monkeypatch):
    app.add("one", live=True)
    app.add("two")
    replace = os.replace

    def killed(old, new):
        if new == app.current:
            raise KeyboardInterrupt
        replace(old, new)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        app.switch("two")
    assert (os.readlink(app.current), os.readlink(app.previous)) == ("releases/one", "releases/one")
    monkeypatch.setattr(os, "replace", replace)
    app.switch("two")
    assert (os.readlink(app.current), os.readlink(app.previous)) == ("releases/two", "releases/one")


@pytest.mark.parametrize("kind", ["link", "file"])
def test_switch_with_what_a_killed_run_left(app, kind):
    app.add("one", live=True)
    app.add("two")
    if kind == "link":
        os.symlink("releases/nowhere", f"{app.current}.new")
    else:
        Path(f"{app.current}.new").write_text("")
    app.switch("two")
    assert app.live() == "two"


def test_switch_that_is_interrupted_changes_nothing(app, monkeypatch):
    app.add("one", live=True)
    monkeypatch.setattr(os, "replace", lambda old, new: (none for none in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        app.switch("two")
    assert app.live() == "one"


def test_switch_leaves_no_moment_without_a_live_release(app):
    app.add("one", live=True)
    app.add("two")
    done = threading.Event()
    seen = set()

    def watch():
        while not done.is_set():
            seen.add(app.live())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for turn in range(20000):
        app.switch("two")
        app.switch("one")
        if turn >= 200 and len(seen) > 1:  # on a busy machine the other thread may get its turn late
            break
    done.set()
    watcher.join()
    assert seen == {"one", "two"}


@pytest.mark.parametrize(
    "releases, keep, never, kept",
    [
        pytest.param("a b c d e", 3, "", "c d e", id="the newest good ones stay"),
        pytest.param("a b", 3, "", "a b", id="fewer than are kept"),
        pytest.param("a b c d e", 2, "a", "a d e", id="the live, the previous or a running one stays"),
        pytest.param("a b-failed c d", 2, "", "b-failed c d", id="a failed one stays as evidence"),
        pytest.param("a-failed b-failed c d-failed e f", 2, "", "b-failed d-failed e f", id="so many of them"),
        pytest.param("a-failed b-failed c", 1, "a-failed", "a-failed b-failed c", id="a failed one may be live"),
        pytest.param(
            "a b c-failed d-failed", 2, "", "a b c-failed d-failed", id="failed ones do not push out good ones"
        ),
        pytest.param("a-failed b-failed", 1, "", "b-failed", id="none has proved good"),
        pytest.param("a b-settling c- d-settling", 2, "", "a c- d-settling", id="without a verdict none is good"),
    ],
)
def test_prune(app, releases, keep, never, kept):
    for created, name in enumerate(releases.split()):
        app.add(name, created, state=name.partition("-")[2] if "-" in name else "settled")
    app.prune(keep, set(never.split()))
    assert app.releases() == kept.split()
    assert sorted(os.listdir(app.releases_directory)) == kept.split()
    marked = [name for name in kept.split() if not name.endswith("-")]
    assert sorted(os.listdir(app.marks_directory)) == [f"{name}.json" for name in marked]


def test_prune_removes_the_builds_that_nobody_uses_any_more(app):
    for created, (name, build) in enumerate([("a", "old"), ("b", "shared"), ("c", "shared"), ("d", "new")]):
        app.add(name, created, build)
    app.prune(2, set())
    assert app.releases() == ["c", "d"]
    assert sorted(os.listdir(app.builds_directory)) == ["new", "new.json", "shared", "shared.json"]


def test_prune_removes_half_releases(app):
    app.add("whole")
    half = Path(app.releases_directory, "half")
    half.mkdir()
    (half / "environment").write_text('TOKEN="secret"')
    (half / "build").symlink_to("../../builds/build")
    app.prune(3, set())
    assert os.listdir(app.releases_directory) == ["whole"]
    assert sorted(os.listdir(app.builds_directory)) == ["build", "build.json"]


def test_prune_leaves_what_it_must_not_touch(app):
    """Among it a live release whose release.json is damaged, and what a person put there."""
    app.add("live")
    Path(app.releases_directory, "live", "release.json").write_text("")
    Path(app.releases_directory, "notes.txt").write_text("a person's")
    app.prune(3, {"live"})
    assert sorted(os.listdir(app.releases_directory)) == ["live", "notes.txt"]


def test_a_removal_that_is_killed_leaves_nothing_that_looks_like_a_release(app, monkeypatch):
    app.add("one")
    monkeypatch.setattr(
        release_host.shutil, "rmtree", lambda path, **options: (none for none in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        app.remove_release("one")
    assert os.listdir(app.releases_directory) == ["one"] and app.releases() == []


def test_remove_build_takes_its_stamp_first(app, monkeypatch):
    app.add("one", build="b")
    build = os.path.join(app.builds_directory, "b")
    monkeypatch.setattr(release_host.shutil, "rmtree", lambda path, **options: None)
    release_host.remove_build(build)
    assert os.listdir(app.builds_directory) == ["b"]
    release_host.remove_build(os.path.join(app.builds_directory, "never there"))


# --- units -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state, problem",
    [
        ({"ActiveState": "active"}, None),
        ({"ActiveState": "activating"}, None),
        ({"ActiveState": "reloading"}, None),
        ({"ActiveState": "inactive", "Job": "123"}, None),
        ({"ActiveState": "inactive", "Job": "0"}, "flask-hello@one.service is inactive (success)"),
        ({"ActiveState": "failed", "Result": "exit-code"}, "flask-hello@one.service is failed (exit-code)"),
        ({"ActiveState": "deactivating"}, "flask-hello@one.service is deactivating (success)"),
        ({"ActiveState": "active", "NRestarts": "1"}, "flask-hello@one.service exited and was started again"),
        (
            {"ActiveState": "activating", "SubState": "auto-restart"},
            "flask-hello@one.service exited and is started again",
        ),
    ],
)
def test_check(app, systemd, state, problem):
    systemd.units["flask-hello@one.service"] = state
    if problem is None:
        return app.check("one")
    with pytest.raises(Unhealthy) as caught:
        app.check("one")
    assert str(caught.value) == problem


def test_no_units_ask_for_no_states(systemd, monkeypatch):
    monkeypatch.setattr(systemd, "run", None)
    assert release_host.unit_states([]) == {}


def test_running(systemd):
    systemd.running("flask-hello@a1-b2.2.service", "flask-hello@c3-d4.socket", "flask-hello2@e5-f6.service")
    systemd.units["flask-hello@g7-h8.service"] = {"ActiveState": "inactive"}
    systemd.units["flask-hello@i9-j0.service"] = {"ActiveState": "deactivating"}
    systemd.running("flask-hello@i9-j0.socket")
    systemd.units["flask-hello@k1-l2.service"] = {"ActiveState": "failed"}
    systemd.running("flask-hello.worker@a1-b2.2:1.service", "flask-hello.worker@m3-n4.2:12.service")
    systemd.running("flask-hello.live.service", "flask-hello.settle-a1.service", "flask-hello-x.worker@o5-p6:1.service")
    systemd.units["flask-hello.worker@a1-b2.2:2.service"] = {"ActiveState": "deactivating"}
    systemd.running("flask-hello.tidy.job@q7-r8.service", "flask-hello.tidy.timer")
    hello = {"a1-b2.2": False, "c3-d4": False, "i9-j0": True, "k1-l2": False}
    assert release_host.running_web("hello") == {"hello": hello}
    assert release_host.running_web() == {"hello": hello, "hello2": {"e5-f6": False}, "hello-x": {}}
    found = release_host.running("hello")["hello"]
    assert found["a1-b2.2"] == {"web": False, "worker": True} and found["m3-n4.2"] == {"worker": False}
    assert found["q7-r8"] == {"tidy.job": True}, "it ends by itself"


def test_start_waits_for_nothing(app, systemd):
    app.add("one")
    app.start("one")
    assert systemd.commands == ["start --no-block flask-hello@one.socket flask-hello@one.service"]
    assert Path(app.drop_in("one"), "release.conf").read_text() == "# of one\n"


def test_start_of_a_server_that_makes_its_own_socket(app, systemd, short_path):
    app.add("one")
    link = Path(app.releases_directory, "one", "web.sock")
    link.unlink()
    link.symlink_to(short_path / "hello" / "one" / "web.sock")
    user = getpass.getuser()
    told = {**app.release("one"), "user": user, "proxy_user": user}
    Path(app.releases_directory, "one", "release.json").write_text(json.dumps(told))
    for _again in range(2):
        app.start("one")
    assert systemd.commands == ["start --no-block flask-hello@one.service"] * 2
    assert stat.S_IMODE((short_path / "hello" / "one").stat().st_mode) == 0o710
    app.remove_release("one")
    assert os.listdir(short_path / "hello") == []
    assert os.listdir(release_host.UNITS) == []


@pytest.mark.parametrize("wait", [True, False])
def test_stop(app, systemd, wait):
    app.stop("one", wait)
    assert systemd.commands[0] == "stop {}flask-hello@one.service flask-hello@one.socket".format(
        "" if wait else "--no-block "
    )


def test_discard_kills_what_does_not_end(app, systemd):
    systemd.running("flask-hello@one.service", "flask-hello@one.socket")
    systemd.stuck.add("flask-hello@one.service")
    app.discard("one")
    assert release_host.running() == {}


def test_discard_leaves_no_socket_of_a_server_that_makes_its_own(app, systemd, short_path):
    app.add("one")
    own = short_path / "hello" / "one" / "web.sock"
    own.parent.mkdir(parents=True)
    own.touch()
    link = Path(app.releases_directory, "one", "web.sock")
    link.unlink()
    link.symlink_to(own)
    app.discard("one")
    assert not own.exists()


def test_the_watch_is_started_anew_and_again_when_it_dies(app, systemd):
    systemd.running("flask-hello.settle-one.service")
    app.start_settling("one")
    settle = SETTLE.format(program=release_host.PROGRAM, root=app.root)
    assert systemd.commands == ["stop flask-hello.settle-one.service", settle]
    assert "--property=Restart=on-failure" in systemd.calls[-1]


def scripted(monkeypatch, *answers):
    """Have each probe end as the next of ``answers`` says, the last one again and again: None, or a problem."""
    left = list(answers)

    def probe(path, health, limit=None):
        problem = left.pop(0) if len(left) > 1 else left[0]
        if problem:
            raise Unhealthy(problem, 503, "GET /health")
        return 200

    monkeypatch.setattr(release_host, "probe", probe)


def test_wait_until_healthy_probes_until_it_answers(app, systemd, clock, monkeypatch):
    app.add("one")
    systemd.running("flask-hello@one.service")
    scripted(monkeypatch, "no answer", "answered 503", None)
    app.wait_until_healthy("one", HEALTH)
    assert clock.now < 1001  # the first ones come quickly


def test_wait_until_healthy_gives_up_in_time(app, systemd, clock, monkeypatch):
    app.add("one")
    systemd.running("flask-hello@one.service")
    scripted(monkeypatch, "answered 503")
    with pytest.raises(Unhealthy, match=r"^answered 503, for 30 s$"):
        app.wait_until_healthy("one", HEALTH)
    assert 1029 < clock.now <= 1030


def test_wait_until_healthy_asks_once_more_when_it_was_held_up_itself(app, systemd, clock, monkeypatch):
    app.add("one")
    systemd.running("flask-hello@one.service")
    answers = [None, "no answer"]

    def probe(path, health, limit):
        clock.now += 60  # the machine slept
        if problem := answers.pop():
            raise Unhealthy(problem)

    monkeypatch.setattr(release_host, "probe", probe)
    app.wait_until_healthy("one", HEALTH)
    assert not answers


def test_wait_until_healthy_gives_up_at_once_when_the_process_has_ended(app, systemd, clock, monkeypatch):
    app.add("one")
    systemd.units["flask-hello@one.service"] = {"ActiveState": "failed", "Result": "exit-code"}
    scripted(monkeypatch, "no answer")
    with pytest.raises(Unhealthy, match=r"is failed \(exit-code\)$"):
        app.wait_until_healthy("one", HEALTH)
    assert clock.now == 1000


def test_wait_until_healthy_takes_no_broken_probe_for_an_answer(app, systemd, clock, monkeypatch):
    app.add("one")
    systemd.running("flask-hello@one.service")
    monkeypatch.setattr(release_host, "probe", lambda path, health, limit: 1 / 0)
    with pytest.raises(Unhealthy, match="division by zero"):
        app.wait_until_healthy("one", HEALTH)


def test_wait_until_healthy_looks_at_the_process_while_a_probe_waits(app, systemd, serve, monkeypatch):
    """systemd holds the socket open, so a probe of a dead process gets no answer at all."""
    app.add("one")
    systemd.units["flask-hello@one.service"] = {"ActiveState": "activating", "SubState": "auto-restart"}
    server = serve(None)
    monkeypatch.setattr(app, "socket_path", lambda name: server.path)
    started = time.monotonic()
    with pytest.raises(Unhealthy, match="exited and is started again"):
        app.wait_until_healthy("one", HEALTH)
    assert time.monotonic() - started < 2


# --- processes -------------------------------------------------------------------------------------------------------

WORKER = "flask-hello.worker@{}:{}.service"


def test_systemd_is_told_of_each_instance_of_a_process(app, systemd):
    app.add("one", processes={"worker": {"instances": 2}, "beat": {}})
    app.add("two", processes={"worker": {}})
    assert app.unit_files_differ("one")
    app.start("one")
    app.start("two")
    assert not app.unit_files_differ("one")
    units = Path(release_host.UNITS)
    names = [WORKER.format("one", 1), WORKER.format("one", 2), "flask-hello.beat@one:1.service"]
    assert {path.name for path in units.glob("*one*.service")} == set(names)
    assert (units / names[1]).read_text() == "# worker of one, 100%%i\n"
    assert systemd.commands == [
        f"start --no-block flask-hello@{name}.socket flask-hello@{name}.service" for name in ("one", "two")
    ]
    (units / f"{names[0]}.new").touch()  # of a killed run
    app.remove_release("one")
    assert sorted(os.listdir(units)) == [WORKER.format("two", 1), "flask-hello@two.service.d"]


def test_processes_wait_for_those_of_the_release_before(app, systemd):
    app.add("old", processes={"worker": {"instances": 2}})
    app.add("new", processes={"worker": {"instances": 2}, "beat": {}})
    old = [WORKER.format("old", number) for number in (1, 2)]
    systemd.running(*old)
    systemd.stuck = set(old)
    succession = release_host.Succession(app, "new")
    assert succession.advance() and not succession.done
    beat = "flask-hello.beat@new:1.service"
    assert systemd.commands == [f"stop --no-block {' '.join(old)}", f"reset-failed {beat}", f"start --no-block {beat}"]
    systemd.commands.clear()
    systemd.units[old[0]] = {"ActiveState": "inactive"}
    assert not succession.advance() and systemd.commands == [] and list(succession.waiting) == ["worker"]
    systemd.units[old[1]] = {"ActiveState": "failed", "Result": "timeout"}  # it had to be killed
    assert succession.advance() and succession.done and not succession.waiting
    new = " ".join(WORKER.format("new", number) for number in (1, 2))
    assert systemd.commands == [f"reset-failed {old[1]}", f"reset-failed {new}", f"start --no-block {new}"]
    assert succession.units == [beat, *new.split()]


def test_processes_that_may_overlap_do_not_wait(app, systemd):
    app.add("old", processes={"worker": {}})
    app.add("new", processes={"worker": {"overlap": True}})
    systemd.running(WORKER.format("old", 1))
    systemd.stuck.add(WORKER.format("old", 1))
    succession = release_host.Succession(app, "new")
    assert succession.advance() and not succession.waiting
    assert not succession.done, "until the old one has gone, too"
    systemd.units[WORKER.format("old", 1)] = {"ActiveState": "inactive"}
    assert not succession.advance() and succession.done


def test_a_process_that_is_no_longer_declared_goes(app, systemd):
    app.add("old", processes={"worker": {}})
    app.add("new")
    systemd.running(WORKER.format("old", 1), "flask-hello@old.service")
    succession = release_host.Succession(app, "new")
    assert not succession.advance() and not succession.done
    assert systemd.commands == [f"stop --no-block {WORKER.format('old', 1)}"]
    assert not succession.advance() and succession.done


def test_a_release_that_lost_and_got_the_traffic_waits_for_its_own_processes(app, systemd):
    app.add("old", processes={"worker": {}})
    systemd.units[WORKER.format("old", 1)] = {"ActiveState": "deactivating"}
    succession = release_host.Succession(app, "old")
    assert not succession.advance() and not succession.done and systemd.commands == []
    systemd.units[WORKER.format("old", 1)] = {"ActiveState": "inactive"}
    assert succession.advance() and succession.done


def test_a_succession_that_is_taken_up_starts_nothing_twice(app, systemd):
    app.add("one", processes={"worker": {}})
    systemd.running(WORKER.format("one", 1))
    succession = release_host.Succession(app, "one")
    assert succession.advance() and succession.done
    assert systemd.commands == [] and succession.units == [WORKER.format("one", 1)], "they are watched all the same"


def test_systemd_is_not_asked_about_processes_that_no_release_has(app):
    app.add("old")
    app.add("new")
    assert release_host.Succession(app, "new").done


# --- watch and settle ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answers, problem, seconds",
    [
        pytest.param([None], None, 5, id="healthy"),
        pytest.param(["busy", None, "busy", None], None, 5, id="one refused request now and then"),
        pytest.param([None, "busy", "sick"], "sick", 1, id="two in a row"),
        pytest.param([*[None] * 9, "busy", "sick"], "sick", 5, id="the second at the end of the settle time"),
        pytest.param([*[None] * 10, "busy", "sick"], "sick", 5.5, id="the second after the settle time"),
        pytest.param([*[None] * 10, "busy", None], None, 5.5, id="an answer after the settle time"),
    ],
)
def test_watch(app, systemd, clock, monkeypatch, answers, problem, seconds):
    app.add("one", live=True)
    systemd.running("flask-hello@one.service")
    scripted(monkeypatch, *answers)
    found = release_host.watch(app, "one", {**HEALTH, "settle": 5})
    assert (found and str(found)) == problem
    assert clock.now == 1000 + seconds


@pytest.mark.parametrize("change", [{"ActiveState": "failed"}, {"NRestarts": "1"}])
def test_watch_sees_the_process_end(app, systemd, clock, monkeypatch, change):
    app.add("one", live=True)
    systemd.running("flask-hello@one.service")
    scripted(monkeypatch, None)
    clock.after(2, lambda: systemd.units["flask-hello@one.service"].update(change))
    found = release_host.watch(app, "one", {**HEALTH, "settle": 5})
    assert found.command == "flask-hello@one.service"
    assert clock.now == 1002


def test_watch_looks_at_the_process_after_the_last_probe(app, systemd, clock, monkeypatch):
    """A probe may wait for a process that died until systemd has started it again, and be answered then."""
    app.add("one", live=True)
    systemd.running("flask-hello@one.service")
    restarted = {"NRestarts": "1"}
    monkeypatch.setattr(
        release_host, "probe", lambda path, health: systemd.units["flask-hello@one.service"].update(restarted)
    )
    problem = release_host.watch(app, "one", {**HEALTH, "settle": 0})
    assert str(problem) == "flask-hello@one.service exited and was started again"


def test_watch_ends_when_another_release_gets_the_traffic(app, systemd, clock, monkeypatch):
    app.add("one", live=True)
    app.add("two")
    systemd.running("flask-hello@one.service")
    scripted(monkeypatch, None)
    clock.after(1, lambda: app.switch("two"))
    assert release_host.watch(app, "one", {**HEALTH, "settle": 60}) is None
    assert clock.now == 1001


@pytest.fixture
def two(app, systemd, clock, monkeypatch):
    """An app whose release "new" has just got the traffic of "old"; both run."""
    app.add("old", created=1)
    app.add("new", created=2, state="settling", previous="old", live=True)
    for name in ("old", "new"):
        systemd.running(f"flask-hello@{name}.service", f"flask-hello@{name}.socket")
    scripted(monkeypatch, None)
    return app


def test_settle_a_healthy_release(two, systemd):
    release_host.settle(two, "new")
    assert two.live() == "new" and two.mark("new")["state"] == "settled"
    assert systemd.commands[0] == "stop --no-block flask-hello@old.service flask-hello@old.socket"
    assert two.releases() == ["old", "new"]


def test_settle_prunes(two, systemd):
    two.add("older", created=-1)
    two.add("oldest", created=-2)
    two.add("draining", created=-3)
    systemd.units["flask-hello@draining.service"] = {"ActiveState": "deactivating"}
    Path(two.releases_directory, "new", "release.json").write_text(
        json.dumps({**two.release("new"), "keep_releases": 1})
    )
    release_host.settle(two, "new")
    assert two.releases() == ["draining", "old", "new"]


def test_settle_clears_what_failed(two, systemd):
    systemd.units["flask-hello@old.service"] = {"ActiveState": "failed"}
    release_host.settle(two, "new")
    assert release_host.running_web() == {"hello": {"new": False}}


def test_settle_gives_the_traffic_back(two, systemd, monkeypatch):
    scripted(monkeypatch, None, "sick")
    systemd.journals["flask-hello@new.service"] = "Traceback\nKeyError: 'x'\n"
    release_host.settle(two, "new")
    assert two.live() == "old"
    mark = two.mark("new")
    assert (mark["state"], mark["reason"], mark["returned_to"]) == ("failed", "sick", "old")
    assert (mark["command"], mark["status"]) == ("GET /health", 503)
    assert mark["journal"] == ["Traceback", "KeyError: 'x'"]
    assert systemd.state("flask-hello@new.service")["ActiveState"] == "inactive"
    assert systemd.state("flask-hello@old.service")["ActiveState"] == "active"
    assert two.releases() == ["old", "new"]


def test_settle_starts_what_it_gives_the_traffic_back_to(two, systemd, monkeypatch):
    systemd.units.pop("flask-hello@old.service")
    scripted(monkeypatch, "sick")
    release_host.settle(two, "new")
    started = systemd.commands.index("start --no-block flask-hello@old.socket flask-hello@old.service")
    assert started < systemd.commands.index("stop flask-hello@new.service flask-hello@new.socket")


@pytest.mark.parametrize("state", ["settling", "settled"])
def test_settle_goes_on_watching_what_lacks_its_own_verdict(two, systemd, monkeypatch, state):
    two.set_mark("old", state)
    scripted(monkeypatch, "sick")
    release_host.settle(two, "new")
    assert two.is_settling("old") is (state == "settling")
    assert two.mark("old")["state"] == state


@pytest.mark.parametrize("answer", [None, "sick"])
def test_settle_does_nothing_once_another_release_has_the_traffic(two, systemd, clock, monkeypatch, answer):
    two.add("newer", created=3)
    scripted(monkeypatch, None, answer)
    clock.after(0.5, lambda: two.switch("newer"))
    release_host.settle(two, "new")
    assert two.live() == "newer"
    assert two.mark("new")["state"] == "settling"
    assert systemd.commands == []


def test_settle_compares_once_it_has_the_lock(two, systemd, clock, monkeypatch):
    two.add("newer", created=3)
    scripted(monkeypatch, "sick")
    with contextlib.ExitStack() as run:
        run.enter_context(release_host.lock(two.root, name=two.name))

        def switch():
            two.switch("newer")
            run.close()

        clock.after(10, switch)
        release_host.settle(two, "new")
    assert two.live() == "newer" and systemd.commands == []


def test_settle_outlasts_a_long_run(two, clock):
    with contextlib.ExitStack() as run:
        run.enter_context(release_host.lock(two.root, name=two.name))
        clock.after(600, run.close)
        release_host.settle(two, "new")
    assert two.mark("new")["state"] == "settled"


def test_settle_does_not_wait_for_a_run_that_is_busy_with_other_apps(two, systemd, clock, monkeypatch):
    scripted(monkeypatch, "sick")
    with release_host.lock(two.root):
        release_host.settle(two, "new")
    assert two.live() == "old"


def test_a_first_release_that_fails_keeps_the_traffic(app, systemd, clock, monkeypatch):
    app.add("first", state="settling", previous=None, live=True)
    systemd.running("flask-hello@first.service")
    scripted(monkeypatch, "sick")
    release_host.settle(app, "first")
    assert app.live() == "first"
    mark = app.mark("first")
    assert (mark["state"], mark["reason"], mark["returned_to"]) == ("failed", "sick", None)
    assert systemd.commands == []


def test_a_sick_release_keeps_the_traffic_when_the_one_before_is_gone(two, systemd, monkeypatch):
    scripted(monkeypatch, "sick")
    two.remove_release("old")
    release_host.settle(two, "new")
    assert two.live() == "new"
    assert (two.mark("new")["state"], two.mark("new")["returned_to"]) == ("failed", None)
    assert systemd.state("flask-hello@new.service")["ActiveState"] == "active"


@pytest.fixture
def workers(two, systemd):
    """The app of ``two``; both releases have a process, which runs in the old one and not in the new one yet."""
    for name in ("old", "new"):
        path = Path(two.releases_directory, name, "release.json")
        path.write_text(json.dumps({**two.release(name), "processes": {"worker": PROCESS}}))
    systemd.running(WORKER.format("old", 1))
    return two


def started(systemd, unit):
    return f"start --no-block {unit}" in systemd.commands


def test_settle_exchanges_the_processes(workers, systemd, clock):
    release_host.settle(workers, "new")
    assert workers.mark("new")["state"] == "settled"
    assert systemd.state(WORKER.format("new", 1))["ActiveState"] == "active"
    assert systemd.state(WORKER.format("old", 1))["ActiveState"] == "inactive"
    stop, start = f"stop --no-block {WORKER.format('old', 1)}", f"start --no-block {WORKER.format('new', 1)}"
    assert systemd.commands.index(stop) < systemd.commands.index(start)


def test_settle_begins_anew_when_the_processes_were_started(workers, systemd, clock):
    """The process before has a job of 20 seconds to finish. The new one may die in the fifth second after that."""
    old, new = WORKER.format("old", 1), WORKER.format("new", 1)
    systemd.stuck.add(old)
    clock.after(20, lambda: systemd.units.update({old: {"ActiveState": "inactive"}}))
    clock.after(19, lambda: systemd.commands.append("19 s"))
    clock.after(24, lambda: systemd.units[new].update(NRestarts="1"))
    systemd.journals[new] = "KeyError: 'queue'\n"
    release_host.settle(workers, "new")
    assert systemd.commands.index("19 s") < systemd.commands.index(f"start --no-block {new}")
    mark = workers.mark("new")
    assert (mark["state"], mark["reason"]) == ("failed", f"{new} exited and was started again")
    assert (mark["command"], mark["journal"], mark["returned_to"]) == (new, ["KeyError: 'queue'"], "old")
    assert workers.live() == "old"
    assert systemd.state(new)["ActiveState"] == "inactive" and systemd.state(old)["ActiveState"] == "active"


@pytest.mark.parametrize("problem, then", [(None, "settled"), ("sick", "failed")])
def test_settle_ends_well_only_with_the_processes(workers, systemd, clock, monkeypatch, problem, then):
    """No verdict while one waits; a sick health path does not wait for it, but the processes that come back do."""
    old = WORKER.format("old", 1)
    systemd.stuck.add(old)
    seen = []
    clock.after(19, lambda: seen.append((workers.live(), workers.mark("new")["state"])))
    clock.after(20, lambda: systemd.units.update({old: {"ActiveState": "inactive"}}))
    scripted(monkeypatch, problem)
    release_host.settle(workers, "new")
    assert seen == [("new", "settling") if problem is None else ("old", "failed")]
    assert workers.mark("new")["state"] == then
    assert started(systemd, WORKER.format("new", 1)) is (problem is None)
    assert started(systemd, old) is (problem is not None)


def test_settle_leaves_processes_alone_once_another_release_has_the_traffic(workers, systemd, clock, monkeypatch):
    workers.add("newer", created=3, state="settling")
    with release_host.lock(workers.root, name=workers.name):  # of the run that switches
        clock.after(0.5, lambda: workers.switch("newer"))
        assert release_host.watch(workers, "new", {**HEALTH, "settle": 5}) is None
    release_host.finish_succession(workers)
    assert systemd.commands == [], "that release has a watch of its own"


def test_processes_are_exchanged_only_for_what_is_live_once_the_lock_is_held(workers, systemd, monkeypatch):
    workers.add("newer", created=3)

    @contextlib.contextmanager
    def lock(*_arguments, **_options):
        workers.switch("newer")  # by the run that held it
        yield

    monkeypatch.setattr(release_host, "lock", lock)
    assert release_host.watch(workers, "new", {**HEALTH, "settle": 5}) is None
    assert systemd.commands == []


def test_settle_taken_up_after_the_traffic_went_back(workers, systemd, clock):
    """The watch was killed when it had given the traffic back, and systemd starts it again."""
    workers.switch("old")
    systemd.units.pop(WORKER.format("old", 1))
    systemd.running(WORKER.format("new", 1))
    release_host.settle(workers, "new")
    assert systemd.state(WORKER.format("new", 1))["ActiveState"] == "inactive"
    assert systemd.state(WORKER.format("old", 1))["ActiveState"] == "active"


# --- the command -----------------------------------------------------------------------------------------------------

SOCKET = "start flask-hello@one.socket"  # waited for
START = "start --no-block flask-hello@one.socket flask-hello@one.service"
STOP = "stop flask-hello.settle-one.service"
SETTLE = "systemd-run flask-hello.settle-one.service {program} {root} settle hello one"


@pytest.mark.parametrize(
    "live, state, watched, expected",
    [
        (False, "settled", False, []),
        (True, "settled", False, [SOCKET, START]),
        (True, "failed", False, [SOCKET, START]),
        (True, "settling", True, [SOCKET, START]),
        (True, "settling", False, [SOCKET, START, STOP, SETTLE]),
    ],
)
def test_live_starts_what_has_the_traffic(app, systemd, live, state, watched, expected):
    app.add("one", state=state, live=live)
    if watched:
        systemd.running("flask-hello.settle-one.service")
    assert release_host.main(["--root", app.root, "live", "hello"]) == 0
    places = {"program": release_host.PROGRAM, "root": app.root}
    assert systemd.commands == [command.format(**places) for command in expected]


@pytest.mark.parametrize("state", ["settled", "failed", "settling"])
def test_live_starts_processes(app, systemd, state):
    app.add("one", live=True, state=state, processes={"worker": {}})
    assert release_host.main(["--root", app.root, "live", "hello"]) == 0
    assert started(systemd, WORKER.format("one", 1)) is (state != "settling"), "that is the watch's to do"


def scheduled(app, name, command="flask tidy $HOME"):
    path = Path(app.releases_directory, name, "release.json")
    path.write_text(json.dumps({**app.release(name), "jobs": {"tidy": {"command": command, "timeout": 60}}}))


def test_a_schedule_runs_what_the_live_release_says(app, systemd, become):
    app.add("one", live=True)
    app.add("two")
    scheduled(app, "one")
    systemd.unit_texts["flask-hello@one.service"] = "[Service]\nUser=flask-hello\n"
    words, _environment = become("--root", app.root, "schedule", "hello", "tidy")
    assert words[0] == "systemd-run" and words[-3:] == ["/bin/sh", "-c", "flask tidy $$HOME"]
    own = {"--unit=flask-hello.tidy.job@one.service", "--property=PartOf=flask-hello.tidy.service", "--pipe", "--wait"}
    assert {*own, "--property=RuntimeMaxSec=60", "--property=User=flask-hello"} <= set(words)


@pytest.mark.parametrize("live", [True, False])
def test_a_schedule_that_the_live_release_does_not_have(app, capsys, live):
    app.add("one", live=live)
    assert release_host.main(["--root", app.root, "schedule", "hello", "tidy"]) == 0
    assert f"nothing to run: {'one' if live else 'no live release'} has no schedule 'tidy'" in capsys.readouterr().out


def test_a_job_that_runs_keeps_its_release_and_is_left_alone(two, systemd, clock):
    two.add("oldest", created=-1)
    scheduled(two, "oldest")
    job = "flask-hello.tidy.job@oldest.service"
    systemd.running(job)
    path = Path(two.releases_directory, "new", "release.json")
    path.write_text(json.dumps({**two.release("new"), "keep_releases": 1, "processes": {"worker": PROCESS}}))
    release_host.settle(two, "new")
    assert two.releases() == ["oldest", "old", "new"]
    assert systemd.state(job)["ActiveState"] == "active"


def test_systemd_judges_calendar_events(monkeypatch):
    def run(command, **_options):
        return subprocess.CompletedProcess(command, 0 if command[-1] == "daily" else 1)

    monkeypatch.setattr(release_host, "subprocess", type("subprocess", (), {"run": staticmethod(run)}))
    assert release_host.main(["calendar", "hello: schedules.tidy.on_calendar: daily"]) == 0
    bad = [f"hello: schedules.{name}.on_calendar: daily Mars/Phobos" for name in ("tidy", "more")]
    with pytest.raises(SystemExit) as caught:
        release_host.main(["calendar", bad[0], "hello: schedules.ok.on_calendar: daily", bad[1]])
    assert caught.value.code == "\n".join(f"{each!r} is no calendar event that systemd knows here" for each in bad)


def test_what_a_unit_says_of_its_processes():
    text = """# /etc/systemd/system/flask-hello@.service
[Unit]
Description=release %i
[Service]
Type=notify
User=flask-hello
WorkingDirectory=/releases/%i
EnvironmentFile=/releases/%i/environment
Environment=A=100%%
ExecStart=/bin/server
ExecStop=+/bin/drain
RestartSec=1
KillMode=mixed
TimeoutStopSec=90
CapabilityBoundingSet=
; a comment
SystemCallFilter=@system-service \\
    @chown
SystemCallFilter=~@privileged

# /etc/systemd/system/flask-hello@one.service.d/release.conf
[Service]
Type=exec
ExecStart=
MemoryMax=512M
[Install]
WantedBy=multi-user.target
"""
    assert release_host.service_properties(text, "one") == [
        "User=flask-hello",
        "EnvironmentFile=/releases/one/environment",
        "Environment=A=100%",
        "CapabilityBoundingSet=",
        "SystemCallFilter=@system-service      @chown",
        "SystemCallFilter=~@privileged",
        "MemoryMax=512M",
    ]


def test_a_command_is_run_as_a_process_of_its_release(app, systemd):
    app.add("one", path="src")
    systemd.unit_texts["flask-hello@one.service"] = "[Service]\nUser=flask-hello\n"
    app.run("one", "echo $GREETING", 60)
    words = systemd.calls[-1]
    folder = f"{app.releases_directory}/one/build/src"
    properties = ["User=flask-hello", f"WorkingDirectory={folder}", "TimeoutStopSec=10", "RuntimeMaxSec=60"]
    assert [word for word in words if word.startswith("--property")] == [f"--property={each}" for each in properties]
    assert words[-3:] == ["/bin/sh", "-c", "echo $$GREETING"] and "--unit=flask-hello.command-" in " ".join(words)
    assert Path(app.drop_in("one"), "release.conf").exists(), "systemd is told what the release has of its own first"


def test_settle_as_a_command(two):
    assert release_host.main(["--root", two.root, "settle", "hello", "new"]) == 0
    assert two.mark("new")["state"] == "settled"


@pytest.mark.parametrize(
    "environment, state, drained",
    [
        ({"MAINPID": "123"}, "settled", ["/run/flask_apps/hello/one.sock"]),
        ({"MAINPID": "123"}, "failed", []),
        ({}, "settled", []),
    ],
)
def test_drain_waits_only_for_who_will_get_an_answer(app, monkeypatch, environment, state, drained):
    app.add("one", state=state)
    done = []
    monkeypatch.setattr(release_host, "drain", done.append)
    monkeypatch.setattr(os, "environ", environment)
    assert release_host.main(["--root", app.root, "drain", "hello", "one"]) == 0
    assert done == drained


@pytest.fixture
def become(monkeypatch):
    """What the program becomes instead of becoming it: the words of the command and the environment."""

    class Became(Exception):
        """Nothing comes behind execvpe."""

    became = []

    def execvpe(program, words, environment):
        became.append((words, environment))
        raise Became

    monkeypatch.setattr(os, "execvpe", execvpe)
    monkeypatch.setattr(os, "execvp", lambda program, words: execvpe(program, words, None))

    def run(*arguments):
        with pytest.raises(Became):
            release_host.main(list(arguments))
        return became[-1]

    return run


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["hello", "flask", "shell"], ["flask", "shell"]),
        (["run", "hello", "flask", "shell"], ["flask", "shell"]),
        (["hello", "live"], ["live"]),
        (["hello", "flask", "--root", "x", "--", "-c", "$A"], ["flask", "--root", "x", "--", "-c", "$$A"]),
    ],
)
def test_a_command_of_a_person(app, systemd, become, arguments, expected):
    app.add("one", live=True, path="src")
    systemd.unit_texts["flask-hello@one.service"] = "[Service]\nUser=flask-hello\n"
    words, environment = become("--root", app.root, *arguments)
    assert words[-len(expected) - 4 :] == ["/bin/sh", "-c", 'exec "$$@"', "sh", *expected]
    assert {"--pty", "--pipe", "--wait", "--property=User=flask-hello"} <= set(words)
    assert f"--property=WorkingDirectory={app.releases_directory}/one/build/src" in words
    assert any(word.startswith("--unit=flask-hello.once-") for word in words), "a run ends its own commands only"
    assert environment["SYSTEMD_ADJUST_TERMINAL_TITLE"] == "0" and environment["PATH"] == os.environ["PATH"]


def test_an_app_called_like_a_word_of_systemd(app, systemd, become):
    live = type(app)(app.root, "live")
    for directory in (live.releases_directory, live.builds_directory, live.marks_directory):
        os.makedirs(directory)
    live.add("one", live=True)
    systemd.unit_texts["flask-live@one.service"] = "[Service]\nUser=flask-live\n"
    words, _environment = become("--root", app.root, "run", "live", "id")
    assert "--property=User=flask-live" in words


@pytest.mark.parametrize(
    "arguments, uid, problem",
    [
        ([], 0, "it takes an app and a command"),
        (["hello"], 0, "it takes an app and a command"),
        (["live"], 0, "it takes an app and a command"),
        (["live", "hello", "flask"], 0, "it takes an app and a command"),
        (["settle", "hello"], 0, "it takes an app and a command"),
        (["hello", "id"], 1000, "it must be run as root"),
        (["hello", "id"], 0, "there is no app 'hello' with a live release; apps in {root}: hello"),
        (["hullo", "id"], 0, "there is no app 'hullo' with a live release; apps in {root}: hello"),
    ],
)
def test_what_is_no_command(app, monkeypatch, capsys, arguments, uid, problem):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    with pytest.raises(SystemExit) as caught:
        release_host.main(["--root", app.root, *arguments])
    assert caught.value.code != 0
    assert problem.format(root=app.root) in capsys.readouterr().err + str(caught.value.code)


def test_the_file_runs_on_its_own(app):
    """As on a host: without the collection and without any package."""
    command = [sys.executable, "-I", "-S", release_host.__file__, "--root", app.root, "live", "hello"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
