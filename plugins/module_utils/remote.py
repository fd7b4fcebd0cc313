# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A repository as git's configuration names it, with the URL's password where no command line shows it."""

from __future__ import annotations

import base64
import re
from urllib.parse import unquote, urlsplit

# What a repository's server may be spoken to by. As in plan/values.py, no transport that runs a command.
_URL = re.compile(r"(?P<scheme>https?|git|ssh|file)://[^-\s]\S*|/\S*|(?:[\w.-]+@)?[A-Za-z0-9][\w.-]*:(?!-|//)\S+")
_SERVER = re.compile(r"([a-z]+://[^/]*/|/|[^/:]+:|)(.*)", re.DOTALL)
_RELATIVE = re.compile(r"\.\.?/")
# Not origin: the controller's working directory may be a checkout, whose own remote of that name git would ask.
REMOTE = "flaskfleet"


def git_configuration(url):
    """{key: value} that makes ``url`` git's remote ``REMOTE``.

    git gives a remote's URL to its helper git-remote-https as an argument, which everybody on the machine can read. So
    the user and password of an http URL go into a header instead, which is sent to that host alone.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or "@" not in parts.netloc:
        return {f"remote.{REMOTE}.url": url}
    credentials, _at, host = parts.netloc.rpartition("@")
    user, _colon, password = credentials.partition(":")
    token = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
    return {
        f"remote.{REMOTE}.url": parts._replace(netloc=host).geturl(),
        f"http.{parts.scheme}://{host}/.extraHeader": f"Authorization: Basic {token}",
    }


def git_environment(settings):
    """The variables that give git these settings ({key: value}): unlike arguments, nobody else can read them."""
    variables = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (key, value) in enumerate(settings.items()):
        variables.update({f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value})
    return variables


def ssh_server(url):
    """(host, port) of a repository that is reached by ssh; None of any other. The port is None when it is not
    in the URL.
    """
    if "://" in url:
        parts = urlsplit(url)
        return (parts.hostname or "", parts.port) if parts.scheme == "ssh" else None
    found = re.match(r"(?:[^/@:]+@)?([^/@:]+):", url)
    return (found[1].lower(), None) if found else None


def ssh_command(key="", known_hosts=""):
    """What git calls for ssh, as a command of a shell.

    :param key: the file of the private key to use, and no other; as a word of a shell
    :param known_hosts: the file with the only keys of hosts that are trusted, likewise
    """
    words = "ssh -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=15"
    if key:
        words += f" -F /dev/null -i {key} -o IdentitiesOnly=yes -o IdentityAgent=none"
    if known_hosts:
        words += f" -o UserKnownHostsFile={known_hosts} -o GlobalKnownHostsFile=/dev/null"
        words += " -o StrictHostKeyChecking=yes -o UpdateHostKeys=no"
    return words


def submodule_url(parent, url):
    """Where a submodule is.

    :param parent: the URL of the repository that has it
    :param url: what its .gitmodules says, which may be relative to that
    :raises ValueError: its text says why it must not be fetched
    """
    if _RELATIVE.match(url):
        start, base = _SERVER.fullmatch(parent.rstrip("/")).groups()
        parts = base.split("/")
        while found := _RELATIVE.match(url):
            url = url[found.end() :]
            if found[0] == "../":
                if not parts:
                    raise ValueError("its URL leads out of the server")
                parts.pop()
        url = start + "/".join([*parts, url])
    if not _URL.fullmatch(url):
        raise ValueError("its URL is none that is fetched from")
    if is_local(url) and not is_local(parent):
        raise ValueError("it lies in a folder of the host")
    return url


def is_local(url):
    """Whether a repository is a folder of the machine that fetches it."""
    return url.startswith(("/", "file:"))
