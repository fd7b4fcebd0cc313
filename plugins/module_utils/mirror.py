# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The copy of an app's repository that a host keeps. Nothing of the repository is run."""

from __future__ import annotations

import glob
import os
import pwd
import shutil

from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import CommandFailed, write_file
from ansible_collections.flaskfleet.deploy.plugins.module_utils.remote import REMOTE, git_configuration
from ansible_collections.flaskfleet.deploy.plugins.module_utils.sandbox import run
from ansible_collections.flaskfleet.deploy.plugins.module_utils.step_error import BuildError, of_command

FETCH_USER = "flaskfleet-fetch"
FETCH, CHECK_OUT = "fetch the code", "check the code out"  # the steps
SHOWN_COMMITS = 30
ANSWER_LIMIT = 30  # seconds for a repository to answer at all; git's own protocol knows no time limit
# git talks to nobody, runs nothing of the repository, and uses no transport that runs a command
SETTINGS = {"core.hooksPath": "/dev/null", "protocol.ext.allow": "never", "gc.auto": "0"}
ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=15",
    "GIT_HTTP_LOW_SPEED_LIMIT": "1000",  # bytes a second, for
    "GIT_HTTP_LOW_SPEED_TIME": "60",  # seconds
    "GIT_INDEX_FILE": "/tmp/index",  # the one file that a checkout needs beside the mirror
    "LC_ALL": "C.UTF-8",
}
# Each unit of systemd costs as much as all of this, so it is one script. A commit never changes: what the mirror has is
# not asked for again. Branches win over tags, and both over the first digits of a commit.
NO_DEFAULT_BRANCH, NO_SUCH_VERSION, NOT_CHECKED_OUT, NO_ANSWER = 11, 12, 13, 124  # the last one is timeout's
SCRIPT = f"""
remote=$1 commit=$2 version=$3 directory=$4
known() {{ [ -n "$commit" ] && git cat-file -e "$commit^{{commit}}" 2> /dev/null; }}
if ! known; then
    [ -e "$GIT_DIR/HEAD" ] || git init --quiet --bare || exit
    head=$(timeout {ANSWER_LIMIT} git ls-remote --quiet "$remote" HEAD) || exit
    git fetch --quiet --prune --force "$remote" '+refs/heads/*:refs/heads/*' '+refs/tags/*:refs/tags/*' || exit
    if [ -n "$commit" ]; then
        known || git fetch --quiet "$remote" "$commit" || exit  # no branch or tag reaches it any more
    elif [ "$version" = HEAD ]; then
        [ -n "$head" ] || exit {NO_DEFAULT_BRANCH}
        commit=${{head%%[[:space:]]*}}
    else
        for name in "refs/heads/$version" "refs/tags/$version" "$version"; do
            commit=$(git rev-parse --verify --quiet "$name^{{commit}}") && break
        done || exit {NO_SUCH_VERSION}
    fi
fi
git log -1 --format='%H %s' "$commit" || exit
[ -z "$directory" ] || git --work-tree="$directory" checkout --quiet --force "$commit" -- . || exit {NOT_CHECKED_OUT}
"""


class Mirror:
    """The mirror of one app.

    :param unit: beginning of the names of the units that git runs in
    :param hidden: directories that git is not to see, but for the app's own
    """

    def __init__(self, app, unit, hidden):
        self.app = app
        self.path = app["paths"]["repo"]
        self.unit = unit
        self.hidden = hidden

    def fetch(self, url, commit, directory=""):
        """Have a commit in the mirror.

        :param commit: its full name; None when only the repository can tell
        :param directory: an empty one that the commit is checked out into; empty for none
        :return: full name of the commit, first line of its message
        :raises BuildError: with git's own words
        """
        fetcher = pwd.getpwnam(FETCH_USER)
        self._prepare(url, fetcher)
        if directory:
            os.mkdir(directory, 0o750)
            os.chown(directory, fetcher.pw_uid, fetcher.pw_gid)
        command = ["/bin/sh", "-uc", SCRIPT, "sh", REMOTE, commit or "", self.app["version"], directory]
        try:
            told = self._run(command, [self.path, *([directory] if directory else [])], directory or "/")
        except CommandFailed as error:
            raise self._error(error, commit) from error
        name, _space, subject = told.strip().partition(" ")
        return name, subject

    def _prepare(self, url, fetcher):
        if not os.path.isdir(self.path):
            os.mkdir(self.path, 0o700)
            os.chown(self.path, fetcher.pw_uid, fetcher.pw_gid)
        for path in glob.glob(os.path.join(glob.escape(self.path), "**", "*.lock"), recursive=True):
            os.unlink(path)  # of a git that was killed: nobody else works here
        # the password of the URL travels in a file, not on a command line
        lines = []
        for key, value in git_configuration(url).items():
            section, _dot, rest = key.partition(".")
            subsection, _dot, name = rest.rpartition(".")
            quoted = value.replace("\\", "\\\\").replace('"', '\\"')
            lines.append(f'[{section} "{subsection}"]\n\t{name} = "{quoted}"\n')
        write_file(self.remote, "".join(lines), mode=0o640)
        os.chown(self.remote, 0, fetcher.pw_gid)

    @property
    def remote(self):
        """The file that tells git the repository's URL."""
        return os.path.join(self.app["paths"]["root"], "repository.conf")

    def _error(self, error, commit):
        version = self.app["version"]
        told = {
            NO_DEFAULT_BRANCH: "the repository has no default branch: name a version, if it has any",
            NO_SUCH_VERSION: f"there is no branch, tag or commit {version!r} in the repository",
        }
        if error.status in told:
            return BuildError(FETCH, told[error.status])
        if error.status == NOT_CHECKED_OUT:
            return BuildError(CHECK_OUT, f"git could not check out {commit[:8]}", error.output)
        message = f"git could not fetch {self.app['repository']}"
        if error.status == NO_ANSWER:
            return BuildError(FETCH, f"{message}: it did not answer within {ANSWER_LIMIT} s", error.output)
        return of_command(FETCH, message, error)

    def is_whole(self, contents):
        """Whether it has all that it should have. ``contents``: look into the files of commits, too; takes long."""
        if not os.path.isdir(self.path):
            return True
        try:
            quick = [] if contents else ["--connectivity-only"]
            self._run(["git", "fsck", "--no-dangling", "--no-progress", *quick], [self.path])
        except CommandFailed:
            return False
        return True

    def remove(self):
        """Have the next fetch make it anew: it is only a copy."""
        shutil.rmtree(self.path)

    def commits(self, old, new):
        """Lines of the commits that ``new`` has and ``old`` has not, newest first; None where the mirror lacks one."""
        if not new or not os.path.isdir(self.path):
            return None
        command = ["git", "log", f"--max-count={SHOWN_COMMITS + 1}", "--format=%h %s", f"{old}..{new}"]
        try:
            lines = self._run(command, [self.path]).splitlines()
        except CommandFailed:
            return None
        return lines[:SHOWN_COMMITS] + ["… and more"] * (len(lines) > SHOWN_COMMITS)

    def _run(self, command, writable, directory="/"):
        settings = {**SETTINGS, "include.path": self.remote}
        environment = {**ENVIRONMENT, "GIT_DIR": self.path, "GIT_CONFIG_COUNT": str(len(settings))}
        for number, (key, value) in enumerate(settings.items()):
            environment.update({f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value})
        return run(
            command,
            unit=self.unit,
            user=FETCH_USER,
            hidden=self.hidden,
            readable=[self.app["paths"]["root"]],
            writable=writable,
            environment=environment,
            directory=directory,
        )
