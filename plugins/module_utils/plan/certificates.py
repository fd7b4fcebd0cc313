# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates that people provide: what is wrong with them, and the file that nginx reads. No message shows a key."""

from __future__ import annotations

import datetime
import functools
import re

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_SOON = datetime.timedelta(days=14)


def bundle(certificate: str, key: str) -> str:
    """Put a certificate's chain and its private key into one file, so that no reload ever meets only one of them."""
    blocks = [match[0] for text in (key, certificate) for match in _BLOCK.finditer(text)]
    return "".join(f"{block}\n" for block in blocks)


@functools.lru_cache
def problem(certificate: str, key: str) -> tuple[str, str]:
    """Say what keeps nginx from using a certificate with a key: (`certificate` or `certificate_key`, what completes
    "`tls.certificate` ..."). Both are empty when nothing does.
    """
    chain = _chain(certificate)
    if not chain:
        return "certificate", "has no certificate that can be read, as PEM"
    try:
        own = _public(_private_key(key))
    except TypeError:
        return "certificate_key", "must not be encrypted with a passphrase: nginx could not read it"
    except Exception:  # pylint: disable=broad-exception-caught  # whatever it is, its text may show what it failed on
        return "certificate_key", "has no private key that can be read, as PEM"
    positions = [index for index, each in enumerate(chain) if _public(each) == own]
    if not positions:
        return "certificate_key", "does not belong to the certificate"
    if positions[0]:
        return "certificate", "must begin with the certificate that the key belongs to; its issuers follow"
    return "", ""


def doubts(certificate: str, names: list[str], now: datetime.datetime) -> list[str]:
    """Say what visitors will complain about. Each completes "the certificate of ..."."""
    leaf = _chain(certificate)[0]
    found = []
    ends = _end(leaf)
    if ends < now:
        found.append(f"has expired on {ends:%Y-%m-%d}")
    elif ends < now + _SOON:
        found.append(f"expires on {ends:%Y-%m-%d}")
    covered = _names(leaf)
    missing = [name for name in names if not {name, f"*.{name.partition('.')[2]}"} & covered]
    if missing:
        found.append(f"is not for {', '.join(missing)}")
    return found


def _chain(text):
    from cryptography import x509  # ansible-core brings it to the controller

    try:
        return x509.load_pem_x509_certificates(text.encode())
    except Exception:  # pylint: disable=broad-exception-caught
        return []


def _private_key(text):
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return load_pem_private_key(text.encode(), None)


def _public(owner):
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return owner.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _end(certificate):
    if hasattr(certificate, "not_valid_after_utc"):
        return certificate.not_valid_after_utc
    return certificate.not_valid_after.replace(tzinfo=datetime.timezone.utc)  # before cryptography 42


def _names(certificate):
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {name.lower() for name in names.get_values_for_type(x509.DNSName)}
