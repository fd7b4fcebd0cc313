# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates that a host signs itself: what is in them, how long they stay, and that file_set keeps them."""

from __future__ import annotations

import datetime
import stat

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils import certificates
from ansible_collections.flaskfleet.deploy.plugins.module_utils.file_set.wanted import FileSetError
from ansible_collections.flaskfleet.deploy.plugins.module_utils.plan.certificates import problem
from cryptography import x509
from test_file_set import Host

NAMES = ["docs.test", "www.docs.test"]
ENTRY = {
    "dest": "docs.pem",
    "certificate": {"mode": "self_signed", "names": NAMES},
    "mode": "0600",
    "sensitive": True,
    "subject": "a",
}


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def later(monkeypatch, days):
    today = datetime.datetime.now(datetime.timezone.utc).date() + datetime.timedelta(days=days)
    monkeypatch.setattr(certificates, "_today", lambda: today)


def read(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_what_is_in_it(tmp_path):
    path = tmp_path / "a.pem"
    path.write_text(certificates.self_signed(NAMES))
    made = read(path)
    extensions = made.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == NAMES
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    lasts = made.not_valid_after_utc - datetime.datetime.now(datetime.timezone.utc)
    assert datetime.timedelta(days=364) < lasts <= datetime.timedelta(days=365)
    assert problem(path.read_text(), path.read_text()) == ("", "")


def test_a_long_name():
    assert "BEGIN CERTIFICATE" in certificates.self_signed([".".join(["a" * 60] * 4)])


def test_openssl_that_is_not_there(host, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FileSetError, match="docs.pem: openssl could not make a certificate: FileNotFound"):
        host.run(ENTRY)


def test_it_stays(host):
    first = host.run(ENTRY, diff=True)
    assert first["changed"] and "PRIVATE" not in str(first)
    path = host.files / "docs.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_text()
    assert not host.run(ENTRY)["changed"] and path.read_text() == before


@pytest.mark.parametrize("days, made_anew", [(0, False), (365 - 30, False), (365 - 29, True), (400, True)])
def test_it_is_made_anew_before_it_expires(host, monkeypatch, days, made_anew):
    host.run(ENTRY)
    before = host.read("docs.pem")
    later(monkeypatch, days)
    assert host.run(ENTRY)["changed"] is made_anew
    assert (host.read("docs.pem") != before) is made_anew


@pytest.mark.parametrize("names", [["docs.test"], [*NAMES, "new.test"], ["www.docs.test", "docs.test"]])
def test_it_is_made_anew_when_names_change(host, names):
    host.run(ENTRY)
    assert host.run({**ENTRY, "certificate": {"mode": "self_signed", "names": names}})["changed"]
    found = read(host.files / "docs.pem").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert found.get_values_for_type(x509.DNSName) == names


@pytest.mark.parametrize("damage", ["cut", "mixed", "foreign"])
def test_it_is_made_anew_when_it_is_damaged(host, damage):
    host.run(ENTRY)
    path = host.files / "docs.pem"
    text, other = path.read_text(), certificates.self_signed(NAMES)
    marker = "-----BEGIN CERTIFICATE"
    texts = {
        "cut": text[:-60],
        "mixed": text.partition(marker)[0] + marker + other.partition(marker)[2],
        "foreign": text.partition("\n")[2],
    }
    path.write_text(texts[damage])
    assert host.run(ENTRY)["changed"]
    assert problem(path.read_text(), path.read_text()) == ("", "")


def test_a_failing_test_brings_the_old_one_back(host):
    host.run(ENTRY)
    before = host.read("docs.pem")
    changed = {**ENTRY, "certificate": {"mode": "self_signed", "names": ["new.test"]}}
    with pytest.raises(FileSetError):
        host.run(changed, test_command=["false"])
    assert host.read("docs.pem") == before


def test_check_mode_makes_none(host, monkeypatch):
    monkeypatch.setattr(certificates.subprocess, "run", None)
    assert host.run(ENTRY, check=True)["changed"]
    assert host.contents() == {}


def test_check_mode_leaves_a_good_one(host):
    host.run(ENTRY)
    assert not host.run(ENTRY, check=True)["changed"]


@pytest.mark.parametrize("given", [{}, {"mode": "paper"}])
def test_an_unknown_mode(host, given):
    with pytest.raises(FileSetError, match="certificate.mode must be one of self_signed, provided, acme"):
        host.run({**ENTRY, "certificate": given})
