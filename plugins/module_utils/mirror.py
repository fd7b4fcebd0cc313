# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The copy of an app's repository that a host keeps. Nothing of the repository is run."""

from __future__ import annotations

import glob
import hashlib
import os
import pwd
import shutil

from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import CommandFailed
from ansible_collections.flaskfleet.deploy.plugins.module_utils.remote import (
    REMOTE,
    git_configuration,
    git_environment,
    ssh_command,
    ssh_server,
    submodule_url,
)
from ansible_collections.flaskfleet.deploy.plugins.module_utils.sandbox import run
from ansible_collections.flaskfleet.deploy.plugins.module_utils.step_error import BuildError, of_command

FETCH_USER = "flaskfleet-fetch"
FETCH, VERIFY, CHECK_OUT = "fetch the code", "verify the signature", "check the code out"  # the steps
SHOWN_COMMITS = 30
ANSWER_LIMIT = 30  # seconds for a repository to answer at all; git's own protocol knows no time limit
# git talks to nobody, runs nothing of the repository, and uses no transport that runs a command
SETTINGS = {"core.hooksPath": "/dev/null", "protocol.ext.allow": "never", "gc.auto": "0"}
ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_SSH_COMMAND": ssh_command(),
    "GIT_HTTP_LOW_SPEED_LIMIT": "1000",  # bytes a second, for
    "GIT_HTTP_LOW_SPEED_TIME": "60",  # seconds
    "GIT_INDEX_FILE": "/tmp/index",  # the one file that a checkout needs beside the mirror
    "LC_ALL": "C.UTF-8",
}
# Whether a commit is there with all that it is made of: a fetch that was ended may leave the commit alone.
WHOLE = 'git rev-list --quiet --objects --no-walk "$commit" 2> /dev/null'
# Each unit of systemd costs as much as all of this, so it is one script. A commit never changes: what the mirror has is
# not asked for again. Branches win over tags, and both over the first digits of a commit.
NO_DEFAULT_BRANCH, NO_SUCH_VERSION, NOT_CHECKED_OUT, NO_ANSWER = 11, 12, 13, 124  # the last one is timeout's
SCRIPT = f"""
remote=$1 commit=$2 version=$3 directory=$4
known() {{ [ -n "$commit" ] && {WHOLE}; }}
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
[ -n "$directory" ] || exit 0
"""
# The rest of it, and what tells of submodules.
CHECKOUT = f"""
git --work-tree="$directory" checkout --quiet --force "$commit" -- . || exit {NOT_CHECKED_OUT}
if git cat-file -e "$commit:.gitmodules" 2> /dev/null; then
    git ls-tree -r -z "$commit" | grep -z ^160000
    git config --blob "$commit:.gitmodules" -z --get-regexp '^submodule[.].*[.](path|url|update)$'
fi
exit 0
"""
# A submodule's commit goes into the mirror of the repository that has it, below refs of its own.
SUBMODULE_SCRIPT = f"""
remote=$1 commit=$2 directory=$4 refs=refs/submodules/$3
known() {{ {WHOLE}; }}
if ! known; then
    git fetch --quiet --prune --force "$remote" "+refs/heads/*:$refs/heads/*" "+refs/tags/*:$refs/tags/*" || exit
    known || git fetch --quiet "$remote" "$commit" || exit
fi
"""
# A tag counts when it is of this very commit; it may be younger than the copy of the commit. git runs ssh-keygen, which
# knows nobody but who is in the file.
NOT_SIGNED = 14
SIGNATURE_SCRIPT = f"""
remote=$1 commit=$2
verify() {{ git -c "gpg.ssh.allowedSignersFile=$CREDENTIALS_DIRECTORY/allowed_signers" "$@"; }}
signed() {{
    for tag in $(git for-each-ref --points-at="$commit" --format='%(objectname)' refs/tags); do
        [ "$(git cat-file -t "$tag")" != tag ] || ! verify verify-tag "$tag" || return 0
    done
    return 1
}}
verify verify-commit "$commit" || signed && exit
git fetch --quiet --force "$remote" '+refs/tags/*:refs/tags/*' || exit
signed || exit {NOT_SIGNED}
"""
# Of git's output, and what people can do about it.
HINTS = {
    "Host key verification failed": "`repository_known_hosts` must have the key of that host",
    "Permission denied (publickey": "`repository_key` must be a key that may read it",
    "could not read Username": "a private repository wants a token in `repository`, or `repository_key` with ssh",
    "cannot run ssh": "the host has no ssh; `system_packages` may install one",
}
SUBMODULES = 200  # as many as an app may have, those of submodules included


def build_unit(app):
    """Beginning of the names of the units that an app's build runs in."""
    return f"flask-{app['name']}.build"


def hidden_folders(settings):
    """The folders of all apps, of which a build sees no more than it needs. ``settings``: the plan's."""
    return [settings[name] for name in ("root", "data_root", "runtime_root")]


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

    def fetch(self, url, commit, directory="", access=None):
        """Have a commit in the mirror.

        :param commit: its full name; None when only the repository can tell
        :param directory: one that is made and that the commit is checked out into, with its submodules; empty for none
        :param access: {"key", "known_hosts"} to reach it by ssh, as texts; empty or missing where they are not needed
        :return: full name of the commit, first line of its message
        :raises BuildError: with git's own words
        """
        fetcher = pwd.getpwnam(FETCH_USER)
        self._prepare(fetcher)
        if directory:
            os.mkdir(directory, 0o750)
            os.chown(directory, fetcher.pw_uid, fetcher.pw_gid)
        words = [SCRIPT + CHECKOUT, "sh", REMOTE, commit or "", self.app["version"], directory]
        try:
            told = self._ask(url, words, directory, access)
        except CommandFailed as error:
            raise self._error(error, commit) from error
        line, _newline, rest = told.partition("\n")
        name, _space, subject = line.partition(" ")
        left = SUBMODULES
        pending = [(directory, url, rest)]
        while pending:
            folder, parent, rest = pending.pop()
            for submodule in submodules(rest):
                left -= 1
                if left < 0:
                    raise BuildError(FETCH, f"the repository has more than {SUBMODULES} submodules")
                pending.append(self._fetch_submodule(directory, folder, parent, submodule, url, access))
        return name, subject

    def _fetch_submodule(self, top, folder, parent, submodule, url, access):
        """Check a submodule out.

        :param top: the folder of the build
        :param folder: where the repository is that has it
        :param parent: the URL of that
        :param submodule: (path, URL, commit)
        :param url: of the app's repository, whose server alone gets the app's key
        :return: its folder, its URL, and what tells of its own submodules
        """
        path, given, commit = submodule
        place = os.path.join(folder, path)
        shown = os.path.relpath(place, top)
        try:
            source = submodule_url(parent, given)
        except ValueError as error:
            raise BuildError(FETCH, f"the submodule {shown!r} can't be fetched: {error}") from error
        key = hashlib.sha256(source.encode()).hexdigest()[:16]
        words = [SUBMODULE_SCRIPT + CHECKOUT, "sh", REMOTE, commit, key, place]
        try:
            told = self._ask(source, words, top, access if ssh_server(source) == ssh_server(url) else None, url)
        except CommandFailed as error:
            if error.status == NOT_CHECKED_OUT:
                message = f"git could not check out the submodule {shown!r} at {commit[:8]}"
                raise BuildError(CHECK_OUT, message, error.output) from error
            raise of_command(FETCH, f"git could not fetch the submodule {shown!r}{hint(error)}", error) from error
        return place, source, told

    def _ask(self, url, words, directory, access, other="", files=None):
        """Run a script that may fetch.

        :param words: the script, its name, its arguments
        :param directory: what it may write to beside the mirror; empty for nothing
        :param other: another URL whose password goes to its own server, too
        :param files: {name: text} of what else it finds in $CREDENTIALS_DIRECTORY
        """
        # URL and password travel in the environment, which no command line shows and no file keeps
        settings = {**git_configuration(other), **git_configuration(url)}
        given = {name: f"{text.strip()}\n" for name, text in (access or {}).items() if text.strip()}
        paths = {name: f'"$CREDENTIALS_DIRECTORY/{name}"' for name in given}
        more = {"GIT_SSH_COMMAND": ssh_command(**paths)}
        writable = [self.path, *([directory] if directory else [])]
        return self._run(
            ["/bin/sh", "-uc", *words], writable, directory or "/", settings, more, {**given, **(files or {})}
        )

    def _prepare(self, fetcher):
        if not os.path.isdir(self.path):
            os.mkdir(self.path, 0o700)
            os.chown(self.path, fetcher.pw_uid, fetcher.pw_gid)
        for left in ("**/*.lock", "objects/pack/tmp_*", "objects/??/tmp_obj_*"):
            for path in glob.glob(os.path.join(glob.escape(self.path), left), recursive=True):
                os.unlink(path)  # of a git that was killed: nobody else works here

    def verify(self, url, commit, access=None):
        """Check that one of the app's signers signed a commit that the mirror has, or a tag of it.

        :param access: as ``fetch`` takes it
        :raises BuildError: none did, with what git says of each signature
        """
        signers = "".join(f"{line}\n" for line in self.app["allowed_signers"])
        try:
            self._ask(url, [SIGNATURE_SCRIPT, "sh", REMOTE, commit], "", access, files={"allowed_signers": signers})
        except CommandFailed as error:
            if error.status != NOT_SIGNED:
                raise of_command(VERIFY, "git could not check the signature", error) from error
            message = f"neither {commit[:8]} nor a tag of it has a signature of one of `allowed_signers`"
            raise BuildError(VERIFY, message, error.output) from error

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
        return of_command(FETCH, message + hint(error), error)

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

    def _run(self, command, writable, directory="/", settings=None, variables=None, credentials=None):
        environment = {**ENVIRONMENT, **(variables or {}), **git_environment({**SETTINGS, **(settings or {})})}
        return run(
            command,
            unit=self.unit,
            user=FETCH_USER,
            hidden=self.hidden,
            writable=writable,
            environment={**environment, "GIT_DIR": self.path},
            credentials=credentials,
            directory=directory,
        )


def submodules(told):
    """(path, URL, commit) of the submodules of a commit, from what CHECKOUT tells. One that .gitmodules gives no
    URL, or says to leave alone, stays an empty folder.
    """
    commits, settings = {}, {}
    for entry in told.split("\0"):
        if entry.startswith("160000 "):
            start, _tab, path = entry.partition("\t")
            commits[path] = start.split()[2]
        elif "\n" in entry:
            name, _newline, value = entry.partition("\n")
            section, _dot, key = name.rpartition(".")
            settings.setdefault(section, {})[key] = value
    found = {
        own["path"]: own["url"]
        for own in settings.values()
        if {"path", "url"} <= {*own} and own.get("update") != "none"
    }
    return [(path, found[path], commit) for path, commit in commits.items() if path in found]


def hint(error):
    """What to do about the failure of a git, to end a message with."""
    text = "\n".join(error.output)
    return next((f"; {what}" for said, what in HINTS.items() if said in text), "")
