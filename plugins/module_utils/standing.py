# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host tells of its apps by itself, without the list: files that are not as they were left, certificates,
dumps.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os

from ansible_collections.flaskfleet.deploy.plugins.module_utils.file_set.comparing import digest_of, look
from ansible_collections.flaskfleet.deploy.plugins.module_utils.file_set.wanted import STATE_DIRECTORY


def drifted_files(state_directory=STATE_DIRECTORY):
    """Files that are not what the last run left, which noted their digests.

    A secret's digest is not noted, so of such a file only its loss is seen. Owners and modes are not noted either.

    :return: {subject: [{"what", "since"}]}: a sentence for people, and seconds since 1970, None when that is not known
    """
    found = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(state_directory), "*.json"))):
        with contextlib.suppress(OSError, ValueError, AttributeError, LookupError, TypeError):
            for dest, entry in _read(path).items():
                difference = compare(dest, entry)
                if difference:
                    found.setdefault(entry["subject"], []).append(difference)
    return found


def compare(path, entry):
    """How a path differs from its entry in a manifest, as in ``drifted_files``; None when it does not."""
    there = look(path)
    if there.kind == "absent":
        return {"what": f"{path} is gone", "since": None}
    if there.kind == entry["kind"] and entry["digest"] in (None, digest_of(there.content)):
        return None
    return {"what": f"{path} was changed", "since": os.lstat(path).st_mtime}


def _read(path):
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)


def dumps(release):
    """The dumps of a release's database, newest first: name, when it was made, bytes."""
    directory = (release.get("backup") or {}).get("directory")
    found = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(directory or os.devnull):
            if entry.name.endswith(".dump"):
                status = entry.stat()
                found.append({"backup": entry.name, "made": status.st_mtime, "size": status.st_size})
    return sorted(found, key=lambda each: each["backup"], reverse=True)
