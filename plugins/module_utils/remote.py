# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A repository as git's configuration names it, with the URL's password where no command line shows it."""

from __future__ import annotations

import base64
from urllib.parse import unquote, urlsplit

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
