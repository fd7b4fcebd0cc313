# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's nginx is and serves, who else listens where it is to, whether it took a reload. Reads only."""

from __future__ import annotations

import glob
import os
import re
import time

_FILE = re.compile(r"# configuration file (/\S+):$")
_SERVER_NAME = re.compile(r"(?:^|[{;}])\s*server_name\s+([^;{}]+);", re.MULTILINE)
_LISTENING = "0A"  # TCP_LISTEN of the kernel
# How a worker process calls itself. One that is told to end calls itself otherwise before it closes its listening
# sockets (ngx_worker_process_cycle of nginx's src/os/unix/ngx_process_cycle.c).
_WORKER = "nginx: worker process"


def parse_build(text):
    """(version, names of the modules it was built with) of what ``nginx -V`` prints."""
    version = re.search(r"nginx/([0-9.]+)", text)
    return version[1] if version else "", sorted(set(re.findall(r"--with-(\w+_module)\b", text)))


def parse_server_names(text):
    """{server name: [files]} of what ``nginx -T`` prints."""
    found = {}
    path, lines = "", []
    for line in [*text.splitlines(), "# configuration file /end:"]:
        match = _FILE.match(line)
        if match:
            for names in _SERVER_NAME.findall("\n".join(lines)):
                for name in names.split():
                    files = found.setdefault(name, [])
                    if path not in files:
                        files.append(path)
            path, lines = match[1], []
        else:
            lines.append(line.partition("#")[0])
    return found


def listeners(ports, proc="/proc"):
    """{port: name of the process} of those TCP ports on which another process than nginx listens."""
    inodes = {}
    for table in ("net/tcp", "net/tcp6"):
        try:
            with open(os.path.join(proc, table), encoding="ascii") as stream:
                rows = [line.split() for line in stream.readlines()[1:]]
        except FileNotFoundError:  # no IPv6
            continue
        for row in rows:
            port = int(row[1].rpartition(":")[2], 16)
            if row[3] == _LISTENING and port in ports:
                inodes[f"socket:[{row[9]}]"] = port
    found = {}
    for descriptor in glob.glob(os.path.join(proc, "[0-9]*", "fd", "*")) if inodes else ():
        try:
            port = inodes.get(os.readlink(descriptor))
            if port is not None:
                process = os.path.dirname(os.path.dirname(descriptor))
                with open(os.path.join(process, "comm"), encoding="utf-8", errors="replace") as stream:
                    found.setdefault(port, set()).add(stream.read().strip())
        except OSError:  # it has ended meanwhile
            continue
    return {port: sorted(names)[0] for port, names in sorted(found.items()) if "nginx" not in names}


def workers(master, proc="/proc"):
    """Numbers of the worker processes of a master process that take connections."""
    found = set()
    for folder in glob.glob(os.path.join(proc, "[0-9]*")):
        try:
            with open(os.path.join(folder, "stat"), encoding="utf-8", errors="replace") as stream:
                parent = int(stream.read().rpartition(")")[2].split()[1])
            if parent == master:
                with open(os.path.join(folder, "cmdline"), encoding="utf-8", errors="replace") as stream:
                    if stream.read().strip(" \0") == _WORKER:
                        found.add(int(os.path.basename(folder)))
        except OSError:  # it has ended meanwhile
            continue
    return found


def wait_for_reload(master, old, timeout, proc="/proc"):
    """Wait until new worker processes take connections and none of the old ones does; whether that came to pass.

    :param old: what ``workers`` said before the reload
    :param timeout: in seconds
    """
    deadline = time.monotonic() + timeout
    while True:
        now = workers(master, proc)
        if now and not now & old:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
