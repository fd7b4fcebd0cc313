# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removal of apps, also of those whose removal was interrupted. Files are real; systemd is not."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.flaskfleet.deploy.plugins.module_utils import release_host
from ansible_collections.flaskfleet.deploy.plugins.modules import app_remove


@pytest.fixture
def remove(app, systemd, capsys, tmp_path, monkeypatch):
    """Run the module; returns (changed, removed)."""
    monkeypatch.setattr(release_host, "CACHE_ROOT", str(tmp_path / "cache"))
    for folder in (tmp_path / "run" / "hello", tmp_path / "cache" / "hello"):
        folder.mkdir(parents=True)

    def run(*names, check=False, **options):
        arguments = {"root": app.root, "runtime_root": str(tmp_path / "run"), "names": names, **options}
        with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            app_remove.main()
        result = json.loads(capsys.readouterr().out)
        return result["changed"], result["removed"]

    return run


def left(app, tmp_path):
    return {name for folder in (app.root, tmp_path / "run", tmp_path / "cache") for name in os.listdir(folder)}


def test_everything_of_the_app_goes(app, remove, tmp_path):
    app.add("one", live=True)
    assert remove("hello", check=True) == (True, ["hello"]) and os.path.isdir(app.directory)
    assert remove("hello") == (True, ["hello"])
    assert left(app, tmp_path) == {".lock", "._builds.lock"}
    assert remove("hello") == (False, [])


def test_processes_and_schedules_go_with_the_app(app, remove, systemd, monkeypatch, tmp_path):
    app.add("one", live=True, processes={"worker": {"stop_timeout": 600}})
    app.install_unit_files("one")
    units = ["flask-hello.worker@one:1.service", "flask-hello@one.service", "flask-hello.target"]
    units += ["flask-hello.tidy.timer", "flask-hello.tidy.job@one.service"]
    monkeypatch.setattr(release_host, "STAMPS", str(tmp_path))
    for name in ("hello", "hello2"):
        (tmp_path / f"stamp-flask-{name}.tidy.timer").touch()
    systemd.running(*units, "flask-hello2.worker@one:1.service")
    limits = []
    stop = release_host.systemctl
    monkeypatch.setattr(
        release_host, "systemctl", lambda *words, limit=120: (limits.append((words[0], limit)), stop(*words))[1]
    )
    assert remove("hello") == (True, ["hello"])
    assert {name for name in systemd.units if systemd.state(name)["ActiveState"] == "active"} == {
        "flask-hello2.worker@one:1.service"
    }
    assert os.listdir(release_host.UNITS) == [] and ("stop", 720) in limits
    assert not (tmp_path / "stamp-flask-hello.tidy.timer").exists()
    assert (tmp_path / "stamp-flask-hello2.tidy.timer").exists()


@pytest.mark.parametrize("parts", [["releases"], ["builds"], ["marks"], ["repo.git"], []])
def test_an_interrupted_removal_goes_on(app, remove, tmp_path, parts):
    shutil.rmtree(app.directory)
    for part in parts:
        os.makedirs(os.path.join(app.directory, part))
    assert remove("hello") == (True, ["hello"])
    assert remove("hello") == (False, [])


def test_nobody_else_s_folder_is_taken_for_an_app(app, remove, tmp_path):
    os.mkdir(os.path.join(app.root, "lost+found"))
    os.makedirs(os.path.join(app.root, ".tools", "uv"))
    assert remove(declared=["hello"], purge_undeclared=True) == (False, [])
    assert remove(purge_undeclared=True) == (True, ["hello"])
    assert {"lost+found", ".tools"} <= set(os.listdir(app.root))
