# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps of an app's database, and the way back from one.

The programs run as the app's own account, as commands of its release do: so it works wherever the database is, and
takes no more rights than the app has. Only root can read or change the files.
"""

from __future__ import annotations

import calendar
import contextlib
import glob
import os
import re
import subprocess
import time
from urllib.parse import unquote, urlsplit

from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import (
    SHOWN_LINES,
    SUCCEEDED,
    CommandFailed,
    fsync_directory,
    numbered,
    read_text,
    time_after,
    unit_command,
)
from ansible_collections.flaskfleet.deploy.plugins.module_utils.sandbox import (
    nameless_file,
    parse_environment,
    render_environment,
    stop,
)

STAMP = "%Y%m%dT%H%M%SZ"  # in UTC
_STAMP = re.compile(r"\d{8}T\d{6}Z")
PASSWORD_VARIABLES = {"postgresql": "PGPASSWORD", "mariadb": "MYSQL_PWD"}


class Backups:
    """The dumps of one app's database.

    :param host: the App
    :param settings: of the plan, its ``services.backup``: directory, keep, engine, variable, dump, empty, load
    """

    def __init__(self, host, settings):
        self.host = host
        self.settings = settings
        self.directory = settings["directory"]

    def names(self):
        """Names of the dumps that are there, oldest first."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(name for name in os.listdir(self.directory) if name.endswith(".dump"))
        return []

    def make(self, release, limit):
        """Dump the database as a process of a release, and return the file's path. Raises CommandFailed, OSError."""
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        os.chmod(self.directory, 0o700)
        stop(self.host.command_unit)  # what a killed run left running may write still
        for left in glob.glob(os.path.join(glob.escape(self.directory), "*.half")):
            os.unlink(left)
        path = os.path.join(self.directory, f"{self._stamp()}-before-{release}.dump")
        half = f"{path}.half"
        try:
            descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                self._run(release, self.settings["dump"], limit, stdout=stream)
                os.fsync(stream.fileno())
            os.replace(half, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(half)
            raise
        fsync_directory(self.directory)
        own = [name for name in self.names() if _STAMP.match(name)]
        for name in own[: -self.settings["keep"]]:
            os.unlink(os.path.join(self.directory, name))
        return path

    def _stamp(self):
        """The time as names begin with it, later than in all names: their order survives a clock that jumps back."""
        stamps = [found[0] for found in map(_STAMP.match, self.names()) if found]
        seconds = time_after(calendar.timegm(time.strptime(each, STAMP)) + 1 for each in stamps)
        return time.strftime(STAMP, time.gmtime(seconds))

    def load(self, release, name, limit):
        """Empty the database and fill it from a dump. Raises CommandFailed, OSError."""
        with open(os.path.join(self.directory, name), "rb") as stream:
            for command in self.settings["empty"]:
                self._run(release, command, limit)
            self._run(release, self.settings["load"], limit, stdin=stream)

    def _run(self, release, command, limit, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL):
        with self._password(release) as properties:
            properties += [*self.host.command_properties(release), f"RuntimeMaxSec={limit}"]
            # as in run_unit: only this word tells of success
            wrapped = ["/bin/sh", "-c", f'"$@" && echo {SUCCEEDED} >&2', "sh", *command]
            words = unit_command(numbered(self.host.command_unit), properties, wrapped)
            words.insert(1, "--pipe")
            done = subprocess.run(words, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, check=False)
        lines = done.stderr.decode(errors="replace").splitlines()
        if done.returncode or lines[-1:] != [SUCCEEDED]:
            raise CommandFailed(done.returncode or None, lines[-SHOWN_LINES:], "" if done.returncode else "was ended")

    @contextlib.contextmanager
    def _password(self, release):
        """Properties that give a process the password of its database, in a file: anybody may read command lines."""
        environment = read_text(os.path.join(self.host.releases_directory, release, "environment")) or ""
        url = parse_environment(environment).get(self.settings["variable"], "")
        password = urlsplit(url).password
        if not password:
            yield []
            return
        variables = {PASSWORD_VARIABLES[self.settings["engine"]]: unquote(password)}
        with nameless_file(render_environment(variables)) as path:
            yield [f"EnvironmentFile={path}"]
