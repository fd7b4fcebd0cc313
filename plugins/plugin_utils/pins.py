# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which commit a version means: asked once per run, on the controller, and then the same for every host of the run.

Each host's tasks run in a process of their own, so what is found out is kept in a file in the directory that Ansible
makes for the run and removes after it (see "The run's pins" in docs/architecture.md).
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shlex
import subprocess
import tempfile

from ansible import constants as C

from ..module_utils.remote import REMOTE, git_configuration, git_environment, ssh_command

TIMEOUT = 20  # seconds for a repository to answer
COMMIT = re.compile(r"[0-9a-f]{40}")


def pin_all(wanted, access=None):
    """Resolve versions.

    :param wanted: list of (repository URL, version)
    :param access: {(URL, version): {"key", "known_hosts"}} of those that take them to be reached by ssh, as texts
    :return: {(URL, version): commit}; the commit is None where the controller can't tell (it does not reach the
        repository, or the version is a short commit): the host will
    """
    path = os.path.join(C.DEFAULT_LOCAL_TMP, "flaskfleet-pins.json")
    with open(path, "a+", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # hosts that come here at the same time wait for the first one's answers
        stream.seek(0)
        pins = json.loads(stream.read() or "{}")
        missing = {_key(*each): each for each in wanted if _key(*each) not in pins}
        if missing:
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                found = pool.map(lambda each: resolve(*each, (access or {}).get(each)), missing.values())
                pins.update(zip(missing, found))
            stream.truncate(0)
            stream.write(json.dumps(pins))
    return {each: pins[_key(*each)] for each in wanted}


def _key(url, version):
    # the URL may hold a password
    return hashlib.sha256(json.dumps([url, version]).encode()).hexdigest()


def resolve(url, version, access=None):
    """The full commit of a branch, tag or commit, the branch first as in ``git clone --branch``; None if unknown.

    :param access: {"key", "known_hosts"} for ssh
    """
    if COMMIT.fullmatch(version):
        return version
    names = (
        ["HEAD"]
        if version == "HEAD"
        else [f"refs/heads/{version}", f"refs/tags/{version}^{{}}", f"refs/tags/{version}"]
    )
    environment = {
        **os.environ,
        **git_environment(git_configuration(url)),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -o BatchMode=yes"),
    }
    given = {name: text for name, text in (access or {}).items() if text.strip()}
    try:
        command = ["git", "-c", "protocol.ext.allow=never", "ls-remote", REMOTE, *names]
        with contextlib.ExitStack() as files:
            if given:
                paths = {name: shlex.quote(files.enter_context(_private_file(text))) for name, text in given.items()}
                environment["GIT_SSH_COMMAND"] = ssh_command(**paths)
            answer = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=True
            )
    except (OSError, subprocess.SubprocessError):
        return None
    found = dict(reversed(line.split("\t")) for line in answer.stdout.splitlines() if "\t" in line)
    return next((found[name] for name in names if name in found), None)


@contextlib.contextmanager
def _private_file(text):
    """The path of a file that only this account can read. Linux has files without a name, which no kill leaves
    behind.
    """
    nameless = os.path.isdir("/proc/self/fd")
    make = tempfile.TemporaryFile if nameless else tempfile.NamedTemporaryFile
    with make("w", dir=C.DEFAULT_LOCAL_TMP, encoding="utf-8") as stream:
        stream.write(f"{text.strip()}\n")
        stream.flush()
        yield f"/proc/{os.getpid()}/fd/{stream.fileno()}" if nameless else stream.name
