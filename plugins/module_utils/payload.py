# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How secrets travel to a host: one top-level option with ``no_log: true`` that holds base64 of JSON.

``no_log`` on options inside a list of dicts still leaks multi-line values to the target's journal, and makes Ansible
mask parts of other values that happen to contain a short secret. One opaque string does neither.
"""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import unquote

_URL_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#:@]*:([^/?#@]+)@")


def encode(value):
    """A plain JSON value as text for a ``payload`` option."""
    return base64.b64encode(json.dumps(value).encode()).decode()


def decode(text):
    """The value that ``encode`` was given."""
    return json.loads(base64.b64decode(text))


def scrub(text, secrets):
    """``text`` with every secret value in it replaced; the longest first, so that none is left in part.

    Of a secret of several lines each line is one too, since output and journal come in lines.
    """
    values = {str(each) for each in secrets}
    # of a URL, such as a database's, the password by itself
    found = [match[1] for value in values for match in [_URL_PASSWORD.match(value)] if match]
    values |= {*found, *map(unquote, found)}
    parts = {line for value in values for line in (value, *value.splitlines()) if line.strip()}
    for part in sorted(parts, key=len, reverse=True):
        text = text.replace(part, "********")
    return text
