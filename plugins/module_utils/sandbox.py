# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a command on the host as an unprivileged user that sees and writes next to nothing: a transient systemd unit."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time

PROPERTIES = (
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "UMask=0022",
    "KeyringMode=private",
    "RemoveIPC=no",  # the account may have live processes; their IPC is not ours to remove
    "ProtectSystem=strict",
    "ProtectHome=tmpfs",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "PrivateMounts=yes",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectControlGroups=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "ProtectProc=invisible",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    "LockPersonality=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallErrorNumber=EPERM",
)


LIMIT = 1800  # seconds a command may take
DONE = "command-has-succeeded"


class CommandFailed(Exception):
    """A command in the sandbox exited with something other than 0.

    :ivar status: its exit status
    :ivar output: the last lines of its output (stdout and stderr together)
    """

    def __init__(self, status, output):
        super().__init__(f"exit status {status}")
        self.status = status
        self.output = output


def render_environment(variables):
    """Text of a systemd EnvironmentFile= that gives exactly these values, newlines included (systemd.exec(5)).

    Inside double quotes systemd treats ``\\``, ``"``, ``$`` and the backtick as special; a backslash makes them plain.
    """
    lines = []
    for name in sorted(variables):
        value = str(variables[name])
        for character in '\\"$`':
            value = value.replace(character, f"\\{character}")
        lines.append(f'{name}="{value}"\n')
    return "".join(lines)


def parse_environment(text):
    """{name: value} of what ``render_environment`` wrote."""
    return {
        match[1]: re.sub(r"\\(.)", r"\1", match[2], flags=re.DOTALL)
        for match in re.finditer(r'^(\w+)="((?:[^"\\]|\\.)*)"\n', text, re.DOTALL | re.MULTILINE)
    }


def run(
    command, unit, user, writable=(), readable=(), hidden=(), environment=None, directory="/", limit=LIMIT, lines=25
):
    """Run ``command`` (a list) as ``user`` and return its stdout.

    :param unit: beginning of the transient unit's name
    :param writable: paths it may write to; everything else is read-only
    :param readable: paths below a hidden one that it may see after all
    :param hidden: directories that appear empty
    :param environment: dict; it travels in a file, since everybody can read a command line and a unit's properties
    :param limit: seconds until it is ended
    :raises CommandFailed: it failed, or took longer than ``limit``
    """
    properties = [*PROPERTIES, f"User={user}", f"WorkingDirectory={directory}", f"RuntimeMaxSec={limit}"]
    properties += [f"TemporaryFileSystem={path}:ro" for path in hidden]
    properties += [f"BindReadOnlyPaths={path}" for path in readable]
    properties += [f"BindPaths={path}" for path in writable]
    full = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--service-type=exec"]
    full += ["--description=A command of a Flask app"]  # not the command itself, which would get into the journal
    full += [f"--unit={unit}-{time.monotonic_ns()}"]
    full += [f"--property={each}" for each in properties]
    with tempfile.NamedTemporaryFile("w", dir="/run", prefix="flask-app-", encoding="utf-8") as stream:  # mode 0600
        stream.write(render_environment({"HOME": "/tmp", **(environment or {})}))
        stream.flush()
        # A command that systemd was told to stop, as at a shutdown, counts as a success. Only this word tells of one.
        wrapped = ["/bin/sh", "-c", f'"$@" && echo {DONE}', "sh", *command]
        # systemd would put values of the environment into the command line, where everybody can read them
        wrapped = [word.replace("$", "$$") for word in wrapped]
        full += [f"--property=EnvironmentFile={stream.name}", "--", *wrapped]
        started = time.monotonic()
        result = subprocess.run(full, capture_output=True, text=True, errors="replace", check=False)
    if result.returncode == 0 and result.stdout.endswith(f"{DONE}\n"):
        return result.stdout[: -len(f"{DONE}\n")]
    output = (result.stdout + result.stderr).splitlines()
    if result.returncode == 0:
        output.append("stopped before it was done")
    elif time.monotonic() - started >= limit:
        output.append(f"ended after {limit} s")
    raise CommandFailed(result.returncode, output[-lines:])


def stop(unit):
    """End what was run under a unit name: it outlives a run that is killed."""
    subprocess.run(["systemctl", "stop", f"{unit}-*.service"], capture_output=True, check=False)
