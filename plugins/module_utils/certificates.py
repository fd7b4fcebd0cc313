# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates that a host signs itself: one file with the private key and the certificate."""

from __future__ import annotations

import datetime
import re
import subprocess

VALID_DAYS = 365
RENEWED_DAYS = 30  # so long before it expires
_HEADER = re.compile(r"# Self-signed for (.+), until (\d{4}-\d\d-\d\d)\n")
# Explicit, so that nothing depends on the host's own openssl.cnf. Of OpenSSL 1.1.1 and newer.
_CONFIGURATION = """[req]
distinguished_name = subject
x509_extensions = extensions
prompt = no
[subject]
CN = {name}
[extensions]
subjectAltName = {names}
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
"""


class CertificateError(Exception):
    """openssl has made none; the text says why."""


def usable(path, content, names):
    """``content`` (bytes, of the file ``path``) as text when it is a sound certificate for just these names, made here,
    that lasts for a while; else empty.

    What it says of itself is in a comment before the key, so that looking at many starts no process.
    """
    text = content.decode(errors="replace")
    header = _HEADER.match(text)
    if not header or header[1] != _listed(names):
        return ""
    if datetime.date.fromisoformat(header[2]) < _today() + datetime.timedelta(days=RENEWED_DAYS):
        return ""
    return text if is_sound(path) else ""


def is_sound(chain, key=None):
    """Whether a server can use a certificate with its key; both are paths, the key's the same when not given."""
    import ssl  # here, since it takes as long as all the rest where nobody has HTTPS

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key)
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        return False
    return True


def self_signed(names):
    """The text of a new private key and certificate for ``names`` (list of str).

    :raises CertificateError:
    """
    configuration = _CONFIGURATION.format(name=names[0][:64], names=",".join(f"DNS:{name}" for name in names))
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-batch"]
    command += ["-sha256", "-days", str(VALID_DAYS), "-config", "/dev/stdin", "-keyout", "-"]
    try:
        made = subprocess.run(  # pylint: disable=ansible-bad-function  # no AnsibleModule here
            command, input=configuration, capture_output=True, text=True, timeout=60, check=True
        )
    except subprocess.CalledProcessError as error:
        raise CertificateError(f"openssl could not make a certificate: {error.stderr.strip()[-500:]}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CertificateError(f"openssl could not make a certificate: {type(error).__name__}") from None
    end = _today() + datetime.timedelta(days=VALID_DAYS)
    return f"# Self-signed for {_listed(names)}, until {end}\n{made.stdout}"


def _listed(names):
    return ", ".join(names)


def _today():
    return datetime.datetime.now(datetime.timezone.utc).date()
