# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the seal of a build notices and mends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils import seal
from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import remove_build

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="builds are root's")


@pytest.fixture
def build(tmp_path):
    build = tmp_path / "build"
    (build / ".venv" / "bin").mkdir(parents=True)
    (build / "app.py").write_text("app = 1\n")
    (build / ".venv" / "bin" / "gunicorn").write_text("#!\n")
    (build / ".venv" / "bin" / "gunicorn").chmod(0o755)
    (build / "link").symlink_to("app.py")
    seal.close(str(build))
    return build


def condition(build, group=0):
    return seal.Condition(str(build), group)


def test_a_whole_build(build):
    found = condition(build)
    assert (found.name, found.damage, found.astray) == ("build", None, {})
    assert condition(build, None).astray == {}


def edit(build):
    (build / "app.py").write_text("app = 2\n")


def retarget(build):
    (build / "link").unlink()
    (build / "link").symlink_to("/etc/passwd")


DAMAGES = {
    "edited": (edit, "app.py"),
    "truncated": (lambda build: os.truncate(build / "app.py", 0), "app.py"),
    "removed": (lambda build: (build / ".venv" / "bin" / "gunicorn").unlink(), ".venv/bin/gunicorn"),
    "added": (lambda build: (build / "new.pth").write_text(""), "new.pth"),
    "a link elsewhere": (retarget, "link"),
    "a folder in place of a file": (lambda build: ((build / "app.py").unlink(), (build / "app.py").mkdir()), "app.py"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage(build, name):
    damage, path = DAMAGES[name]
    damage(build)
    assert condition(build).damage == path


@pytest.mark.parametrize("path", [".", ".venv", "app.py", ".venv/bin/gunicorn"])
def test_modes_are_mended(build, path):
    before = (build / path).stat().st_mode
    (build / path).chmod(0o777 if path != ".venv/bin/gunicorn" else 0o644)
    found = condition(build)
    assert found.damage is None and list(found.astray) == [path]
    found.mend()
    assert (build / path).stat().st_mode == before and condition(build).astray == {}


@pytest.mark.parametrize("path", [".", "link", "app.py"])
def test_owners_are_mended(build, path):
    os.chown(build / path, 7, 7, follow_symlinks=False)
    found = condition(build)
    assert found.damage is None and list(found.astray) == [path]
    found.mend()
    assert condition(build).astray == {} and (build / path).lstat().st_uid == 0
    target = (build / "app.py").stat()
    assert (target.st_uid, target.st_gid) == (0, 0)


def test_the_group_is_the_account_s(build):
    found = condition(build, 9)
    assert set(found.astray) == {".", ".venv", ".venv/bin", ".venv/bin/gunicorn", "app.py", "link"}
    found.mend()
    assert condition(build, 9).astray == {} and (build / "link").lstat().st_gid == 9


def test_a_build_without_a_seal_counts_as_whole(build):
    Path(f"{build}.seal").unlink()
    edit(build)
    assert (condition(build).damage, condition(build).astray) == (None, {})


def test_the_seal_goes_with_the_build(build):
    remove_build(str(build))
    assert list(build.parent.iterdir()) == []
