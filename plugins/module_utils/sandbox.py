# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a command on the host as an unprivileged user that sees and writes next to nothing: a transient systemd unit."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile

from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import numbered, run_unit

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
    "TemporaryFileSystem=/dev/shm:mode=1777",  # which PrivateDevices= and PrivateTmp= leave to all
    "InaccessiblePaths=-/run/dbus",
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
    command,
    unit,
    user,
    writable=(),
    readable=(),
    hidden=(),
    environment=None,
    credentials=None,
    directory="/",
    limit=LIMIT,
    network=True,
    merged=False,
):
    """Run ``command`` (a list) as ``user`` and return its stdout.

    :param unit: beginning of the transient unit's name
    :param writable: paths it may write to; everything else is read-only
    :param readable: paths below a hidden one that it may see after all
    :param hidden: directories that appear empty
    :param environment: dict; it travels in a file, since everybody can read a command line and a unit's properties
    :param credentials: {name: text} of files in the folder $CREDENTIALS_DIRECTORY, which only it can read; they lie in
        memory and go with it
    :param limit: seconds until it is ended
    :param network: whether it reaches one
    :param merged: whether stderr is part of what it returns, as it comes
    :raises CommandFailed: it failed, or took longer than ``limit``
    """
    properties = [*PROPERTIES, f"User={user}", f"WorkingDirectory={directory}"]
    properties += [f"TemporaryFileSystem={path}:ro" for path in hidden]
    properties += [f"BindReadOnlyPaths={path}" for path in readable]
    properties += [f"BindPaths={path}" for path in writable]
    properties += [] if network else ["PrivateNetwork=yes"]
    with contextlib.ExitStack() as files:
        variables = render_environment({"HOME": "/tmp", **(environment or {})})
        properties.append(f"EnvironmentFile={files.enter_context(nameless_file(variables))}")
        for name, text in (credentials or {}).items():
            properties.append(f"LoadCredential={name}:{files.enter_context(nameless_file(text))}")
        return run_unit(numbered(unit), properties, command, limit, merged)


@contextlib.contextmanager
def nameless_file(text):
    """The path of a file without a name, which goes with this process, however that ends. Only root may look into its
    descriptors.
    """
    with tempfile.TemporaryFile("w", dir="/run", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        yield f"/proc/{os.getpid()}/fd/{stream.fileno()}"


def stop(unit):
    """End what was run under a unit name: it outlives a run that is killed."""
    subprocess.run(["systemctl", "stop", f"{unit}-*.service"], capture_output=True, check=False)
