# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Passwords that a host keeps, one in a file that only root can read."""

from __future__ import annotations

import os
import secrets

from ansible_collections.flaskfleet.deploy.plugins.module_utils.release_host import read_text, write_file


class Passwords:
    """The passwords below a directory, by their names."""

    def __init__(self, directory):
        self.directory = directory

    def _path(self, name):
        return os.path.join(self.directory, name)

    def present(self, names):
        """Those of ``names`` that are kept here."""
        return [name for name in names if os.path.isfile(self._path(name))]

    def missing(self, names):
        """Those of ``names`` that are not."""
        return [name for name in names if not os.path.isfile(self._path(name))]

    def make(self, names):
        """Make passwords, which need no quoting anywhere."""
        if names:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            os.chmod(self.directory, 0o700)
        for name in names:
            write_file(self._path(name), f"{secrets.token_urlsafe(32)}\n", mode=0o600)

    def read(self, names):
        """{name: password} of those that are kept here."""
        texts = {name: read_text(self._path(name)) for name in names}
        return {name: text.rstrip("\n") for name, text in texts.items() if text}

    def remove(self, names):
        """Forget passwords."""
        for name in names:
            os.unlink(self._path(name))
