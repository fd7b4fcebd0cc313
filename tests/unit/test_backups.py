# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps of databases: made whole or not at all, kept in number, and no password on a command line."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils import backups
from ansible_collections.flaskfleet.deploy.plugins.module_utils.plan.services import services_of
from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import SUCCEEDED, CommandFailed

PASSWORD = "c4n4ry@1"


class Host:
    """Stands for the App."""

    command_unit = "flask-hello.command"

    def __init__(self, folder, url):
        self.releases_directory = str(folder / "releases")
        (folder / "releases" / "new").mkdir(parents=True)
        (folder / "releases" / "new" / "environment").write_text(f'DATABASE_URL="{url}"\n')

    def command_properties(self, release):
        return [f"User=flask-hello-{release}"]


@pytest.fixture
def ran(monkeypatch, tmp_path):
    """What was run instead of running it: {words, password, stdin}, and how it ends."""

    class Ran(list):
        status, said = 0, f"{SUCCEEDED}\n"

    ran = Ran()
    ran.stopped = []

    def run(words, stdin, stdout, **_options):
        files = [word.partition("=EnvironmentFile=")[2] for word in words if "=EnvironmentFile=" in word]
        password = "".join(Path(path).read_text() + oct(stat.S_IMODE(os.stat(path).st_mode)) for path in files)
        ran.append({"words": words, "password": password, "stdin": hasattr(stdin, "read") and stdin.read()})
        if hasattr(stdout, "write"):
            stdout.write(b"the data")
        return subprocess.CompletedProcess(words, ran.status, stderr=ran.said.encode())

    monkeypatch.setattr(backups.subprocess, "run", run)
    monkeypatch.setattr(backups, "stop", ran.stopped.append)
    return ran


def of(tmp_path, url="postgresql://me@/hello", keep=2):
    settings = {
        "directory": str(tmp_path / "backups"),
        "keep": keep,
        "engine": "postgresql",
        "variable": "DATABASE_URL",
    }
    settings.update(dump=["pg_dump", "hello"], empty=[["psql", "hello"]], load=["pg_restore", "hello"])
    return backups.Backups(Host(tmp_path, url), settings)


def test_a_dump_is_root_s_alone(tmp_path, ran):
    path = Path(of(tmp_path).make("new", 60))
    assert path.read_text() == "the data" and re.fullmatch(r"[0-9]{8}T[0-9]{6}Z-before-new\.dump", path.name)
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)] == [0o600, 0o700]
    [run] = ran
    assert run["words"][0] == "systemd-run" and run["words"][-2:] == ["pg_dump", "hello"]
    assert {"--pipe", "--property=User=flask-hello-new", "--property=RuntimeMaxSec=60"} <= set(run["words"])
    assert run["password"] == ""


def test_the_password_is_on_no_command_line(tmp_path, ran):
    of(tmp_path, f"postgresql://me:{PASSWORD.replace('@', '%40')}@db:5432/hello").make("new", 60)
    [run] = ran
    assert run["password"] == f'PGPASSWORD="{PASSWORD}"\n0o600'
    assert "c4n4ry" not in " ".join(run["words"])
    assert not list(tmp_path.glob("*.env")), "it is gone again"


def test_what_failed_leaves_no_dump(tmp_path, ran):
    made = of(tmp_path)
    made.make("new", 60)
    before = made.names()
    ran.status, ran.said = 1, "no such database"
    with pytest.raises(CommandFailed, match="exited with status 1") as raised:
        made.make("other", 60)
    assert raised.value.output == ["no such database"] and made.names() == before
    ran.status, ran.said = 0, ""  # systemd counts a command that it was told to stop as a success
    with pytest.raises(CommandFailed, match="was ended"):
        made.make("other", 60)
    assert os.listdir(made.directory) == before


def test_only_so_many_are_kept(tmp_path, ran):
    made = of(tmp_path)
    os.makedirs(made.directory)
    for day in (1, 2, 3):
        Path(made.directory, f"2026010{day}T000000Z-before-old.dump").touch()
    Path(made.directory, "mine.sql").touch()
    newest = os.path.basename(made.make("new", 60))
    assert made.names() == ["20260103T000000Z-before-old.dump", newest]
    assert Path(made.directory, "mine.sql").exists(), "files of others stay"


@pytest.mark.parametrize("keep", [1, 2])
def test_a_clock_that_jumps_back_costs_no_dump(tmp_path, ran, keep):
    """The newest is the one that was made last, whatever its name would be."""
    made = of(tmp_path, keep=keep)
    os.makedirs(made.directory)
    for name in ("29990101T000000Z-before-old.dump", "mine.dump"):
        Path(made.directory, name).touch()
    path = made.make("new", 60)
    assert os.path.basename(path) == "29990101T000001Z-before-new.dump" and os.path.exists(path)


def test_what_a_killed_run_left_is_ended_and_removed(tmp_path, ran):
    made = of(tmp_path)
    os.makedirs(made.directory)
    Path(made.directory, "20260101T000000Z-before-old.dump.half").touch()
    made.make("new", 60)
    assert ran.stopped == ["flask-hello.command"] and len(os.listdir(made.directory)) == 1


def test_the_database_is_emptied_before_it_is_filled(tmp_path, ran):
    made = of(tmp_path)
    name = os.path.basename(made.make("new", 60))
    made.load("new", name, 60)
    assert [run["words"][-2] for run in ran[1:]] == ["psql", "pg_restore"]
    assert ran[-1]["stdin"] == b"the data"
    with pytest.raises(FileNotFoundError):
        made.load("new", "none.dump", 60)
    assert len(ran) == 3, "nothing is emptied for a dump that is not there"


@pytest.mark.parametrize("host, reached", [("", "/run/x"), ("db1", "10.0.0.5")])
@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
def test_commands(engine, host, reached):
    database = {"engine": engine, "name": "hello", "user": "me", "host": host, "port": 1, "backups": 3}
    database.update(variable="DATABASE_URL", scheme="mysql", password_secret="")
    app = {"name": "hello", "database": database, "cache": {}}
    sockets = {"sockets": {"mariadb": "/run/x", "postgresql": "/run/x"}}
    found = services_of(app, sockets, {"db1": "10.0.0.5"})["backup"]
    assert (found["keep"], found["directory"]) == (3, "/var/backups/flask_apps/hello")
    for command in (found["dump"], *found["empty"], found["load"]):
        assert any(word.endswith(f"={reached}") for word in command) and any(word.endswith("=me") for word in command)
    assert services_of({**app, "database": {**database, "backups": 0}}, sockets, {})["backup"] == {}
