# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What it takes to reach a private repository by ssh: its key and the keys of its server. No message shows a key."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import functools
import hashlib
import hmac

from ..remote import ssh_server


@functools.lru_cache
def key_problem(text: str) -> str:
    """Say why ssh could not use a private key, as what completes "`repository_key` ..."; empty when it could."""
    from cryptography.hazmat.primitives import serialization  # ansible-core brings it to the controller

    data = f"{text.strip()}\n".encode()
    own_format = "BEGIN OPENSSH PRIVATE KEY" in text
    load = serialization.load_ssh_private_key if own_format else serialization.load_pem_private_key
    try:
        load(data, None)
    except TypeError:
        return "must not be encrypted with a passphrase: nobody is there to type it"
    except Exception as error:  # pylint: disable=broad-exception-caught  # its text may show what it failed on
        if "password" in str(error).lower():  # as newer versions of cryptography raise it
            return "must not be encrypted with a passphrase: nobody is there to type it"
        return "has no private key that can be read, as `ssh-keygen -t ed25519` makes it"
    return ""


def known_hosts_problem(text: str, repository: str) -> str:
    """Say what keeps ssh from trusting the server of a repository, as what completes "`repository_known_hosts` ...";
    empty when nothing does.
    """
    host, port = ssh_server(repository)
    name = host if port in (None, 22) else f"[{host}]:{port}"
    named = False
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        marker = words.pop(0) if words[0].startswith("@") else ""
        if len(words) < 3 or marker not in ("", "@cert-authority", "@revoked") or not _is_key(words[1], words[2]):
            return "must have lines of a host, a type of key and a key, as `ssh-keyscan` prints them"
        named = named or (marker != "@revoked" and _names(words[0], name))
    return "" if named else f"has no key of {name}; `ssh-keyscan` prints those that a server shows: compare them"


def _is_key(kind, key):
    """Whether a key is of the kind that is named before it (RFC 4253, 6.6)."""
    try:
        data = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        return False
    length = int.from_bytes(data[:4], "big")
    return data[4 : 4 + length] == kind.encode()


def _names(patterns, name):
    """Whether the first field of a line of known_hosts is for a host (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    if patterns.startswith("|1|"):
        try:
            salt, digest = (base64.b64decode(part) for part in patterns.split("|")[2:4])
        except (binascii.Error, ValueError):
            return False
        return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)
    each = patterns.lower().split(",")
    refused = [pattern[1:] for pattern in each if pattern.startswith("!")]
    return any(_fits(name, pattern) for pattern in each) and not any(_fits(name, pattern) for pattern in refused)


def _fits(name, pattern):
    # a bracket is none of the pattern's wildcards, but of an address with its port
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))
