# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host tells of its apps without the list."""

from __future__ import annotations

import hashlib
import json
import os
import time

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils import certificates, release_host, standing


@pytest.fixture
def noted(tmp_path):
    """Note a file of an app as file_set does, and return its path."""
    manifest = {}

    def noted(name, content, sensitive=False, kind="file"):
        digest = None if sensitive else hashlib.sha256(content.encode()).hexdigest()
        path = tmp_path / name
        manifest[str(path)] = {"subject": "hello", "kind": kind, "digest": digest}
        (tmp_path / "state").mkdir(exist_ok=True)
        (tmp_path / "state" / "flask_app.json").write_text(json.dumps(manifest))
        path.symlink_to(content) if kind == "link" else path.write_text(content)
        return path

    return noted


def found(tmp_path):
    return standing.drifted_files(str(tmp_path / "state"))


def test_files_as_they_were_left(noted, tmp_path):
    noted("unit", "[Unit]")
    noted("link", "/nowhere", kind="link")
    noted("secret", "x", sensitive=True).write_text("y")
    assert found(tmp_path) == {}


def test_files_that_are_not(noted, tmp_path):
    noted("a", "one").write_text("two")
    os.utime(tmp_path / "a", (5, 5))
    noted("b", "one").unlink()
    noted("c", "x", sensitive=True).unlink()
    noted("d", "/nowhere", kind="link").unlink()
    (tmp_path / "d").mkdir()
    assert found(tmp_path) == {
        "hello": [
            {"what": f"{tmp_path}/a was changed", "since": 5.0},
            {"what": f"{tmp_path}/b is gone", "since": None},
            {"what": f"{tmp_path}/c is gone", "since": None},
            {"what": f"{tmp_path}/d was changed", "since": (tmp_path / "d").stat().st_mtime},
        ]
    }


@pytest.mark.parametrize("damaged", ["", "[]", '{"/a": 1}', '{"/a": {}}'])
def test_a_damaged_manifest_is_the_next_run_s_matter(tmp_path, damaged):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "flask_app.json").write_text(damaged)
    assert found(tmp_path) == {}


def test_a_host_without_manifests(tmp_path):
    assert found(tmp_path) == {}


def test_expiry(tmp_path):
    (tmp_path / "hello.pem").write_text(certificates.self_signed(["hello.test"]))
    (tmp_path / "half.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    days = (release_host.expiry("hello", str(tmp_path)) - time.time()) / 86400
    assert certificates.VALID_DAYS - 1 < days <= certificates.VALID_DAYS
    assert release_host.expiry("half", str(tmp_path)) is None
    assert release_host.expiry("other", str(tmp_path)) is None


def test_dumps(tmp_path):
    for number, name in enumerate(("1.dump", "2.dump", "2.dump.half")):
        (tmp_path / name).write_text("x" * number)
        os.utime(tmp_path / name, (number, number))
    assert standing.dumps({"backup": {"directory": str(tmp_path)}}) == [
        {"backup": "2.dump", "made": 1.0, "size": 1},
        {"backup": "1.dump", "made": 0.0, "size": 0},
    ]
    for release in ({}, {"backup": None}, {"backup": {"directory": str(tmp_path / "nowhere")}}):
        assert standing.dumps(release) == []
