# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Protocols, ciphers, chains, names, redirections: what a scanner of HTTPS would look at."""

from __future__ import annotations

import datetime
import ssl
import warnings

import pytest
from cryptography import x509

OLD = [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1]


def test_http_redirects_to_https(client):
    answer = client.get("http://shop.test/a/b?c=d%20e")
    assert (answer.status, answer["location"]) == (301, "https://shop.test/a/b?c=d%20e")
    assert client.get("http://www.shop.test/")["location"] == "https://www.shop.test/"
    assert client.get("http://balanced.test/health").status == 200


def test_the_chain_is_trusted(client, machine):
    for name in ("shop.test", "www.shop.test", f"{machine.name}.shop.test"):
        answer = client.get(f"https://{name}/health")
        assert (answer.status, answer.version, answer.problem) == (200, "2", ""), name
    assert client.get("https://shop.test/health", "--http1.1").status == 200


def test_hsts_is_sent_when_asked(client):
    assert client.get("https://shop.test/health")["strict-transport-security"] == "max-age=86400"
    assert client.get("https://signed.test/", trust=None)["strict-transport-security"] is None
    assert client.get("http://shop.test/")["strict-transport-security"] is None


@pytest.mark.parametrize("version", OLD)
@pytest.mark.parametrize("name", ["shop.test", "signed.test"])
def test_old_protocols_are_refused(client, version, name):
    with warnings.catch_warnings(), pytest.raises(ssl.SSLError):
        warnings.simplefilter("ignore", DeprecationWarning)
        client.handshake(name, minimum_version=version, maximum_version=version)


@pytest.mark.parametrize("version, name", [("TLSv1.2", "TLSv1_2"), ("TLSv1.3", "TLSv1_3")])
def test_current_protocols(client, version, name):
    limit = ssl.TLSVersion[name]
    assert client.handshake("shop.test", minimum_version=limit, maximum_version=limit)[1] == version


@pytest.mark.parametrize("ciphers", ["kRSA", "aNULL", "CBC", "RC4:3DES", "SHA1"])
def test_weak_ciphers_are_refused(client, ciphers):
    with pytest.raises(ssl.SSLError):
        client.handshake("shop.test", ciphers=f"{ciphers}:@SECLEVEL=0", maximum_version=ssl.TLSVersion.TLSv1_2)


@pytest.mark.parametrize("name", ["elsewhere.test", "test", None])
def test_names_without_a_site_get_no_certificate(client, name):
    with pytest.raises(ssl.SSLError, match="(?i)unrecognized.name|handshake failure"):
        client.handshake(name)


def test_a_self_signed_certificate(client):
    der, _version, _cipher = client.handshake("signed.test")
    certificate = x509.load_der_x509_certificate(der)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["signed.test"]
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.timezone.utc)
    assert left > datetime.timedelta(days=30)


def test_only_root_reads_keys(machine):
    assert machine.output("stat -c '%a %U %G' /etc/nginx/certificates/*").splitlines() == ["600 root root"] * 4
    assert machine.host.run("nginx -t").rc == 0


def test_a_self_signed_certificate_follows_the_names(client, deploy):
    before = client.handshake("signed.test")[0]
    deploy("--tags", "sites")
    assert client.handshake("signed.test")[0] == before
    site = {"name": "signed", "domain": "signed.test", "root": "/srv/docs", "tls": {"mode": "self_signed"}}
    deploy("--tags", "sites", nginx_sites=[{**site, "aliases": ["new.signed.test"]}])
    after = x509.load_der_x509_certificate(client.handshake("new.signed.test")[0])
    names = after.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["signed.test", "new.signed.test"]
    deploy("--tags", "sites")


def test_a_key_of_another_certificate_is_refused_before_anything_changes(client, machine):
    before = machine.output("ls -l --full-time /etc/nginx/*/")
    tls = {
        "mode": "provided",
        "certificate": "{{ test_certificates }}/shop.pem",
        "certificate_key": "{{ test_certificates }}/ca.key",
    }
    result = machine.attempt(
        flask_apps="{{ test_tls_apps }}", flask_app_overrides={"shop": {"tls": tls}}, nginx_sites=[]
    )
    assert result.returncode != 0
    assert "`tls.certificate_key` does not belong to the certificate" in result.stdout
    assert machine.output("ls -l --full-time /etc/nginx/*/") == before


def test_no_key_is_shown(machine, deploy):
    machine.output("rm /etc/nginx/certificates/shop.pem")
    output = deploy("--tags", "sites", "--diff", "-vvv")
    assert "/etc/nginx/certificates/shop.pem" in output and "PRIVATE KEY" not in output
    key = (machine.output("cat /etc/nginx/certificates/shop.pem")).splitlines()[1]
    assert key not in output and key not in machine.output("journalctl --no-pager --since=-10min")
