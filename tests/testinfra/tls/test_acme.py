# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates of an authority (Pebble): first orders, changed names, renewals by the timer, refused orders."""

from __future__ import annotations

import pytest
from conftest import ACME_AUTHORITY
from cryptography import x509


@pytest.fixture
def domain(machine):
    return f"issued.{machine.name}.test"


def certificate(client, name):
    return x509.load_der_x509_certificate(client.handshake(name)[0])


def names(certificate):
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return found.get_values_for_type(x509.DNSName)


def site(name, domain, **changes):
    return {"name": name, "domain": domain, "root": "/srv/docs", "tls": {"mode": "acme"}, **changes}


def test_one_run_has_issued_it(client, machine, domain):
    for name in (domain, f"www.{domain}"):
        answer = client.get(f"https://{name}/nowhere", trust=ACME_AUTHORITY)
        assert (answer.status, answer.problem) == (404, ""), name
        assert client.get(f"http://{name}/a?b")["location"] == f"https://{name}/a?b"
    assert names(certificate(client, domain)) == [domain, f"www.{domain}"]
    timer = "certbot.timer" if machine.debian else "certbot-renew.timer"
    assert machine.output(f"systemctl is-active {timer}; systemctl is-enabled {timer}") == "active\nenabled"
    assert client.get(f"http://{domain}/.well-known/acme-challenge/nothing").status == 404


def test_a_renewal_by_the_timer_reaches_visitors(client, machine, deploy, domain):
    before, process = certificate(client, domain), machine.output("systemctl show --value --property=MainPID nginx")
    workers = machine.output(f"pgrep -P {process}").split()
    configuration = "/etc/letsencrypt/renewal/flaskfleet-issued.conf"
    machine.output(
        f"cp {configuration} /tmp/renewal.conf && sed -i '1i renew_before_expiry = 9000 days' {configuration}"
    )
    try:
        machine.output(f"systemctl start certbot{'' if machine.debian else '-renew'}.service")
    finally:
        machine.output(f"sed -i /renew_before_expiry/d {configuration}")
    # nobody waits for the reload after a renewal; a worker process that ends may drop who has just connected to it
    machine.output(f"timeout 20 sh -c 'while [ -d /proc/{workers[0]} ]; do sleep 0.1; done'")
    after = certificate(client, domain)
    assert after.serial_number != before.serial_number and names(after) == names(before)
    assert machine.output("systemctl show --value --property=MainPID nginx") == process
    assert client.get(f"https://{domain}/nowhere", trust=ACME_AUTHORITY).problem == ""
    assert "changed=0 " in deploy("--tags", "sites")


def test_what_is_refused_stays_as_it_was_and_stops_nothing(client, machine, deploy, domain):
    """A new site and one whose new name nobody finds are refused; another new site is not, nor are the apps."""
    before = certificate(client, domain)
    fresh, refused = f"fresh.{machine.name}.test", f"refused.{machine.name}.test"
    sites = [
        site("issued", domain, aliases=[f"www.{domain}", f"nowhere.{domain}"]),
        site("refused", refused),
        site("fresh", fresh),
    ]
    changes = {"flask_apps": "{{ test_tls_apps }}", "nginx_sites": sites}

    prediction = machine.attempt("--check", "--diff", "--tags", "sites", **changes)
    assert prediction.returncode == 0, prediction.stdout
    assert "order a certificate for fresh: there is none yet" in prediction.stdout
    assert machine.host.run("ls /etc/letsencrypt/live/flaskfleet-fresh").rc != 0
    assert client.get(f"http://{fresh}/").status == 0

    result = machine.attempt(**changes)
    text = " ".join(result.stdout.split())
    assert result.returncode != 0
    for name, unknown in (("issued", f"nowhere.{domain}"), ("refused", refused)):
        assert f"{name}: certbot certonly failed:" in text and f"Domain: {unknown} Type:" in text, text
    assert "fresh: " not in text.partition("Fail for certificates")[2]
    assert "shop: " in text.partition("Show the releases")[2], "the apps went on"

    assert client.get(f"https://{fresh}/nowhere", trust=ACME_AUTHORITY).problem == ""
    assert client.get(f"http://{fresh}/")["location"] == f"https://{fresh}/"
    assert client.get(f"http://{refused}/nowhere").status == 404
    assert certificate(client, domain) == before
    assert client.get(f"http://www.{domain}/")["location"] == f"https://www.{domain}/"

    absent = [site(name, f"{name}.{machine.name}.test", state="absent") for name in ("fresh", "refused")]
    deploy("--tags", "sites", nginx_sites=[site("issued", domain), *absent])
    assert names(certificate(client, domain)) == [domain]
    assert machine.output("ls /etc/letsencrypt/live | grep flaskfleet") == "flaskfleet-issued"
    assert "fresh" not in machine.output("find /etc/letsencrypt /etc/nginx")

    deploy("--tags", "sites")
    assert names(certificate(client, domain)) == [domain, f"www.{domain}"]


def test_a_site_that_is_left_alone_goes_on_being_renewed(machine, deploy):
    deploy("--tags", "sites", nginx_sites=[])
    assert machine.host.file("/etc/letsencrypt/renewal-hooks/deploy/flaskfleet").exists
    deploy("--tags", "sites")
