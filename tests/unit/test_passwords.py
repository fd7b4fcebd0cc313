# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Passwords of databases: made once, kept for root alone."""

from __future__ import annotations

import os
import re
import stat

from ansible_collections.flaskfleet.deploy.plugins.module_utils.passwords import Passwords
from ansible_collections.flaskfleet.deploy.plugins.module_utils.payload import scrub


def test_passwords_are_made_once(tmp_path):
    kept = Passwords(str(tmp_path / "passwords"))
    assert kept.read(["a"]) == {} and kept.missing(["a", "b"]) == ["a", "b"]
    kept.make(["a", "b"])
    found = kept.read(["a", "b", "c"])
    assert set(found) == {"a", "b"} and found["a"] != found["b"]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", password) for password in found.values())
    assert kept.missing(["a", "c"]) == ["c"] and kept.read(["a"]) == {"a": found["a"]}
    assert stat.S_IMODE(os.stat(kept.directory).st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "passwords").iterdir()} == {0o600}
    kept.remove(kept.present(["a", "c"]))
    assert kept.present(["a", "b"]) == ["b"]


def test_the_password_of_a_url_is_scrubbed_by_itself_too():
    secrets = ["postgresql+psycopg2://me:p%40ss@db:5432/a"]
    text = "no login with p@ss (p%40ss) at postgresql+psycopg2://me:p%40ss@db:5432/a"
    assert scrub(text, secrets) == "no login with ******** (********) at ********"
    assert scrub("unix:///run/a and me", ["unix:///run/b", "http://me@host/"]) == "unix:///run/a and me"
