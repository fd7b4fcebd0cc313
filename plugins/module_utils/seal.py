# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The seal of a build: a list of all that is in it, made when it was done. It tells what somebody did to it since.

Content is compared by size and time of change, which is what a look at a few thousand files may cost at each run.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat

from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import read_json, seal_path, write_file

DIRECTORY, FILE, LINK = "d", "f", "l"


def survey(build):
    """{path in the build: [kind, mode, …]}, of a file with size and nanoseconds of its last change, of a link with its
    target; and {path: (owner, group)}.

    Plain and without helpers, since it looks at thousands of files.
    """
    status = os.lstat(build)
    entries = {".": [DIRECTORY, stat.S_IMODE(status.st_mode)]}
    owners = {".": (status.st_uid, status.st_gid)}
    folders = [build]
    start = len(build) + 1
    while folders:
        with os.scandir(folders.pop()) as found:
            for entry in found:
                status = entry.stat(follow_symlinks=False)
                name = entry.path[start:]
                kind, mode = stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode)
                owners[name] = (status.st_uid, status.st_gid)
                if kind == stat.S_IFDIR:
                    entries[name] = [DIRECTORY, mode]
                    folders.append(entry.path)
                elif kind == stat.S_IFLNK:
                    entries[name] = [LINK, 0, os.readlink(entry.path)]
                else:
                    entries[name] = [FILE, mode, status.st_size, status.st_mtime_ns]
    return entries, owners


def close(build):
    """Seal a build that is done."""
    write_file(seal_path(build), json.dumps(survey(build)[0]) + "\n", mode=0o600)


class Condition:
    """What became of a build since it was sealed. One without a seal counts as whole.

    :param group: number of the group that everything in it belongs to, beside root; None for any
    :ivar name: the build's
    :ivar damage: a file or folder that was changed, added or removed; None when there is none
    :ivar astray: {path in the build: mode} of what has another owner or mode
    """

    def __init__(self, build, group):
        self.build = build
        self.name = os.path.basename(build)
        self.group = group
        sealed = read_json(seal_path(build))
        entries, owners = survey(build) if sealed is not None else ({}, {})
        differing = [
            name for name in {*(sealed or {}), *entries} if content(sealed.get(name)) != content(entries.get(name))
        ]
        self.damage = min(differing, default=None)
        self.astray = {}
        if self.damage is None:
            for name, entry in entries.items():
                owner, its_group = owners[name]
                if entry != sealed[name] or owner != 0 or group not in (None, its_group):
                    self.astray[name] = sealed[name][1]

    def mend(self):
        """Give owners and modes back."""
        for name, mode in self.astray.items():
            path = os.path.join(self.build, name)
            with contextlib.suppress(FileNotFoundError):
                os.chown(path, 0, -1 if self.group is None else self.group, follow_symlinks=False)
                if not os.path.islink(path):
                    os.chmod(path, mode)


def content(entry):
    """An entry of a survey without its mode; None for what is not there."""
    return entry and [entry[0], *entry[2:]]
