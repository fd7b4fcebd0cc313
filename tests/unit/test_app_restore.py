# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module that takes a database back to a dump."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import CommandFailed
from ansible_collections.flaskfleet.deploy.plugins.modules import app_restore


@pytest.fixture
def execute(app, systemd, monkeypatch, capsys, tmp_path):
    """Run the module, with two dumps there; returns (its result, what was done in order)."""
    app.add("one", live=True)
    folder = Path(app.releases_directory, "one")
    (folder / "environment").write_text('DATABASE_URL="postgresql://me:c4n4ry@db/a"\n')
    backup = {"directory": str(tmp_path / "dumps")}
    (folder / "release.json").write_text(json.dumps({**app.release("one"), "backup": backup, "settings": {}}))
    (tmp_path / "dumps").mkdir()
    for name in ("1-before-one.dump", "2-before-two.dump"):
        (tmp_path / "dumps" / name).touch()

    def run(problem=None, check=False, **arguments):
        systemd.commands.clear()

        def load(self, release, name, limit):
            systemd.commands.append(f"load {name} as {release}")
            if problem:
                raise problem

        monkeypatch.setattr(app_restore.Backups, "load", load)
        arguments = {"root": app.root, "app": "hello", **arguments, "_ansible_check_mode": check}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            app_restore.main()
        return json.loads(capsys.readouterr().out), list(systemd.commands)

    return run


STOP = "stop flask-hello.target flask-hello@* flask-hello.*"
START = "start flask-hello.target"


def test_the_newest_dump_is_taken_while_the_app_is_stopped(execute):
    result, done = execute()
    assert done == [STOP, "load 2-before-two.dump as one", START]
    assert (result["changed"], result["backup"], result["release"]) == (True, "2-before-two.dump", "one")
    assert execute(backup="1-before-one.dump")[1][1] == "load 1-before-one.dump as one"


def test_the_app_is_started_again_when_it_fails(execute):
    result, done = execute(CommandFailed(1, ["no login with c4n4ry"]))
    assert done[-1] == START
    assert result["msg"] == (
        "hello: 2-before-two.dump was not restored: it exited with status 1\nno login with ********"
    )


def test_what_changes_nothing(execute):
    names = ["1-before-one.dump", "2-before-two.dump"]
    result, done = execute(backup="none")
    assert (result["changed"], result["backups"], done) == (False, names, [])
    result, done = execute(check=True)
    assert (result["changed"], result["backup"], done) == (True, names[-1], [])
    result, done = execute(backup="3.dump")
    assert result["failed"] and "there is no dump 3.dump; in /" in result["msg"] and names[0] in result["msg"]
    assert done == []


def test_an_app_that_makes_no_dumps(execute, app):
    path = Path(app.releases_directory, "one", "release.json")
    path.write_text(json.dumps({**app.release("one"), "backup": {}}))
    assert execute()[0]["msg"] == "hello: the live release has no `database` with `backups`"
    Path(app.current).unlink()
    assert "there is no live release" in execute()[0]["msg"]
