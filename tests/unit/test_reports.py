# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people are told about an app that writes into its own code."""

from __future__ import annotations

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils.reports import build_hint, sharing_hint

APP = "/opt/flask_apps/hello"
BUILD = f"{APP}/releases/0123abcd-89ef/build"
FILE = (
    "; the app may not write {} into its own code: have it write below HOME, or into a folder that `shared_paths` names"
)
GENERAL = "; an app may write below HOME and into the folders that `shared_paths` names, and nowhere else"


def folder(name):
    return f"; the app may not write into its own code: `shared_paths: [{name}]` gives it that folder"


@pytest.mark.parametrize(
    "path, lines, hint",
    [
        (".", [], ""),
        (".", ["Permission denied"], ""),
        (".", ["PermissionError: [Errno 13] Permission denied: '/etc/shadow'"], ""),
        (".", ["OSError: [Errno 30] Read-only file system: 'logs'"], folder("logs")),
        (".", ["OSError: [Errno 30] Read-only file system: 'logs/a.log'", "end"], folder("logs")),
        (".", [f"OSError: [Errno 30] Read-only file system: '{BUILD}/var/uploads/a.png'"], folder("var/uploads")),
        ("src/web", [f"OSError: [Errno 30] Read-only file system: '{BUILD}/src/web/instance'"], folder("instance")),
        ("src/web", [f"OSError: [Errno 30] Read-only file system: '{APP}/current/build/src/web/logs'"], folder("logs")),
        (
            ".",
            [f"PermissionError: [Errno 13] Permission denied: '{APP}/builds/0123-45.2/cache/x.bin'"],
            folder("cache"),
        ),
        (".", ["OSError: [Errno 30] Read-only file system: './app.db'"], FILE.format("'app.db'")),
        (".", ["OSError: [Errno 30] Read-only file system: '/var/log/x.log'"], GENERAL),
        (".", ["sh: 1: cannot create x: Read-only file system"], GENERAL),
        (".", ["sqlite3.OperationalError: attempt to write a readonly database"], GENERAL),
    ],
)
def test_sharing_hint(path, lines, hint):
    assert sharing_hint(lines, APP, path) == hint


@pytest.mark.parametrize(
    "lines, told",
    [
        ([], False),
        (["error: no such option"], False),
        (["OSError: [Errno 30] Read-only file system: '/srv/out'", "make: *** Error 1"], True),
        (["PermissionError: [Errno 13] Permission denied: '/root/x'"], True),
        (["mkdir: cannot create directory 'x': Read-only file system"], True),
    ],
)
def test_build_hint(lines, told):
    assert bool(build_hint(lines)) is told
