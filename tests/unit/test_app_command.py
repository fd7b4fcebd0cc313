# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module that runs a command in a live release."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import App, CommandFailed
from ansible_collections.flaskfleet.deploy.plugins.modules import app_command


@pytest.fixture
def execute(app, monkeypatch, capsys):
    """Run the module; commands write ``output``, or raise it. Returns (its result, what was run)."""
    app.add("one", live=True)
    folder = Path(app.releases_directory, "one")
    (folder / "environment").write_text('GREETING="hello"\nTOKEN="c4n4ry\nof two lines"\n')
    (folder / "release.json").write_text(json.dumps({**app.release("one"), "settings": {"env.GREETING": "hello"}}))

    def run(output="", check=False, **arguments):
        ran = []

        def command(self, *given):
            ran.append(given)
            if isinstance(output, Exception):
                raise output
            return output

        monkeypatch.setattr(App, "run", command)
        arguments = {"root": app.root, "app": "hello", "command": "flask tell", "timeout": 42, **arguments}
        with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            app_command.main()
        return json.loads(capsys.readouterr().out), ran

    return run


def test_a_command(execute):
    result, ran = execute("hello\nc4n4ry\n")
    [(release, command, limit, unit)] = ran
    assert (release, command, limit) == ("one", "flask tell", 42)
    # such as runs do not end, and whose release they do not remove
    assert re.fullmatch(r"flask-hello\.once-command\.job@one:\d+\.service", unit)
    assert (result["changed"], result["release"], result["rc"]) == (True, "one", 0)
    assert result["stdout"] == "hello\n********"


def test_a_command_that_fails(execute):
    result, _ran = execute(CommandFailed(3, ["hello", "of two lines"]))
    assert result["failed"] and result["rc"] == 3
    assert result["msg"] == "hello: `flask tell` exited with status 3\nhello\n********"
    failure = CommandFailed(1, ["OSError: [Errno 30] Read-only file system: 'logs'"])
    assert (
        "`flask tell` exited with status 1; the app may not write into its own code: `shared_paths: [logs]`"
        in (execute(failure)[0]["msg"])
    )
    assert execute(CommandFailed(None, [], "was ended after 42 s"))[0]["rc"] is None


def test_a_check_runs_nothing(execute):
    result, ran = execute(check=True)
    assert (result["changed"], result["release"], ran) == (True, "one", [])


def test_an_app_that_is_not_there(execute, app):
    result, ran = execute(app="hullo")
    assert result["msg"] == f"there is no app 'hullo' with a live release; apps in {app.root}: hello" and ran == []


def test_an_unexpected_exception_tells_no_value(execute):
    result, _ran = execute(RuntimeError("c4n4ry"))
    assert result["msg"] == "app_command failed: RuntimeError" and "c4n4ry" not in json.dumps(result)
