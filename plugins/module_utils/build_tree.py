# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tree of a build: what a commit may not have in it, its shared folders, and who may read and write what.

Whatever fails here is a BuildError, and names the path.
"""

from __future__ import annotations

import os
import stat

from ansible_collections.flaskfleet.deploy.plugins.module_utils.mirror import CHECK_OUT
from ansible_collections.flaskfleet.deploy.plugins.module_utils.step_error import BuildError

# https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
POINTER, LONGEST_POINTER = b"version https://git-lfs.github.com/spec/v1\n", 1024
# The folder of a build with what the commit has in the places of shared folders. While the build's commands run it is
# what these folders lead to, since the app's data are nothing that a build may depend on.
SEEDS = ".shared_paths"


def give(directory, uid, gid):
    """Hand a whole tree over, and let only the owner write to it. Links themselves, never what they point to."""
    for parent, directories, files in os.walk(directory):
        for path in (parent, *(os.path.join(parent, name) for name in (*directories, *files))):
            os.lchown(path, uid, gid)
            status = os.lstat(path)
            if status.st_mode & 0o022 and not stat.S_ISLNK(status.st_mode):
                os.chmod(path, stat.S_IMODE(status.st_mode) & ~0o022)


def check_path(app, commit, directory):
    """
    :raises BuildError: the app's folder in the repository is not there, or outside
    """
    source = os.path.join(directory, app["path"])
    top = os.path.realpath(directory)
    inside = os.path.commonpath([os.path.realpath(source), top]) == top
    if not os.path.isdir(source) or not inside:
        raise BuildError(CHECK_OUT, f"path: the repository has no folder {app['path']!r} at {commit[:8]}")


def refuse_pointers(directory):
    """
    :raises BuildError: a file of the checkout is what Git LFS keeps in the place of a large one
    """
    for parent, _directories, files in os.walk(directory):
        for name in files:
            path = os.path.join(parent, name)
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode) or not len(POINTER) < status.st_size < LONGEST_POINTER:
                continue
            with open(path, "rb") as stream:
                if stream.read(len(POINTER)) == POINTER:
                    what = "is a pointer to a file in Git LFS, which is not supported; have the file itself in git"
                    raise BuildError(CHECK_OUT, f"{os.path.relpath(path, directory)!r} {what}")


def shared_folder(app):
    """The folder of the app's data with its shared folders."""
    return os.path.join(app["paths"]["data"], "shared")


def link_shared(app, directory):
    """Put links in the places of shared folders, and what the commit has there aside, to fill them from.

    Nothing of the app has run yet, so links are only where the commit has them.

    :raises BuildError: the commit has something else there
    """
    if not app["shared_paths"]:
        return
    seeds = os.path.join(directory, SEEDS)
    if os.path.lexists(seeds):
        raise BuildError(CHECK_OUT, f"shared_paths: the repository has a {SEEDS!r}, which is the builds' own")
    source = os.path.realpath(os.path.join(directory, app["path"]))
    for path in app["shared_paths"]:
        parts = path.split("/")
        for way in (os.path.join(source, *parts[:count]) for count in range(1, len(parts) + 1)):
            if os.path.islink(way) or (os.path.lexists(way) and not os.path.isdir(way)):
                what = "a link" if os.path.islink(way) else "a file"
                problem = f"{path!r} must be a folder, and {os.path.relpath(way, source)!r} is {what} in the repository"
                raise BuildError(CHECK_OUT, f"shared_paths: {problem}")
        place, seed = os.path.join(source, path), os.path.join(seeds, path)
        os.makedirs(os.path.dirname(seed), exist_ok=True)
        if os.path.isdir(place):
            os.rename(place, seed)
        else:
            os.mkdir(seed)
            os.makedirs(os.path.dirname(place), exist_ok=True)
        os.symlink(os.path.join(shared_folder(app), path), place)


def let_group_read(folder):
    """Let the app, in whose group a build is, read all of a folder that its commands may have written to."""
    for parent, directories, files in os.walk(folder):
        for path in (parent, *(os.path.join(parent, name) for name in (*directories, *files))):
            if not os.path.islink(path):
                _change_mode(path, add=0o050 if os.path.isdir(path) else 0o040)


def static_folders(app):
    """The folders of an app that nginx serves itself, relative to the build."""
    return [os.path.normpath(os.path.join(app["path"], entry["path"])) for entry in app["static"]]


def publish(directory, folders):
    """Let everybody read these folders of a build, and pass the ones above them; nothing else of it.

    Modes do it, and not a group: nginx is in no app's, and no app in nginx's.

    :raises BuildError: there is no such folder, or a link is in its place
    """
    if not folders:
        return
    tops = [one for one in folders if not any(one.startswith(f"{other}/") for other in folders)]
    ways = set()
    for top in tops:
        parts = top.split("/")
        ways.update(os.path.join(directory, *parts[:count]) for count in range(1, len(parts) + 1))
        for path in (os.path.join(directory, *parts[:count]) for count in range(1, len(parts) + 1)):
            if os.path.islink(path) or not os.path.isdir(path):
                raise BuildError("open static folders", f"static: the build has no folder {top!r}, or it is a link")
    ends = {os.path.join(directory, top) for top in tops}
    # first what is closed, then what is opened, the way in last
    for way in {directory, *ways} - ends:
        for entry in os.scandir(way):
            if entry.path not in ways and not entry.is_symlink():
                _change_mode(entry.path, remove=0o007)
    for end in ends:
        for parent, directories, files in os.walk(end):
            for path in (os.path.join(parent, name) for name in (*directories, *files)):
                if not os.path.islink(path):
                    _change_mode(path, add=0o005 if os.path.isdir(path) else 0o004)
    for way in sorted({directory, *ways}, reverse=True):
        _change_mode(way, add=0o001)


def _change_mode(path, add=0, remove=0):
    before = stat.S_IMODE(os.lstat(path).st_mode)
    if before != before & ~remove | add:
        os.chmod(path, before & ~remove | add)
