# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates of an authority: what is planned, which are due, how they are ordered, what a failed order leaves."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils import acme, certificates, lineages
from ansible_collections.flaskfleet.deploy.plugins.module_utils.plan import PlanError
from ansible_collections.flaskfleet.deploy.plugins.module_utils.plan.certificates import problem
from test_file_set import Host
from test_role_templates import DEBIAN, HELLO, renderer
from test_sites import DOCS, plan_of, servers, words

DIRECTORY = "https://ca.test/dir"
ACME = {"tls": {"mode": "acme"}}
DAY = 86400
LOCATION = "location ^~ /.well-known/acme-challenge/ {"


# --- the plan --------------------------------------------------------------------------------------------------------


def test_what_is_ordered_and_what_is_to_go():
    apps = [
        {**HELLO, **ACME, "aliases": ["www.hello.test"]},
        {**HELLO, **ACME, "name": "gone", "domain": "gone.test", "state": "absent"},
        {**HELLO, **ACME, "name": "left", "domain": "left.test"},
    ]
    sites = [{**DOCS, **ACME}, {**DOCS, "name": "plain", "domain": "plain.test"}]
    variables = {"nginx_site_acme_email": "me@hello.test", "flask_app_only": ["hello", "gone"]}
    assert plan_of(*sites, apps=apps, **variables)["acme"] == {
        "certificates": [
            {
                "name": "hello",
                "domains": ["hello.test", "www.hello.test"],  # never the one of this host
                "file": "/etc/nginx/certificates/hello.pem",
            },
            {"name": "docs", "domains": ["docs.test"], "file": "/etc/nginx/certificates/docs.pem"},
        ],
        "removed": ["gone", "plain"],
        "declared": ["hello", "gone", "left", "docs", "plain"],
        "purge_undeclared": False,
        "wanted": True,
        "timer": "certbot.timer",
        "directory": "https://acme-v02.api.letsencrypt.org/directory",
        "key_type": "ecdsa",
        "email": "me@hello.test",
        "ca_file": "",
    }


@pytest.mark.parametrize("mode, only, renewals", [("none", [], False), ("acme", [], True), ("acme", ["plain"], True)])
def test_renewals_are_for_such_sites(mode, only, renewals):
    """Also for those that this run leaves out."""
    apps = [{**HELLO, "tls": {"mode": mode}}, {**HELLO, "name": "plain", "domain": "plain.test"}]
    plan = plan_of(apps=apps, flask_app_only=only)
    assert plan["acme"]["timer"] == ("certbot.timer" if renewals else "")
    assert plan["acme"]["wanted"] is renewals
    assert bool(plan["acme"]["certificates"]) is (mode == "acme" and not only)


@pytest.mark.parametrize("ca_file", ["", "/etc/ca.pem"])
def test_renewals_trust_whom_orders_trust(ca_file):
    plan = plan_of({**DOCS, **ACME}, nginx_site_acme_ca_file=ca_file)
    files = [file for file in plan["renewal_files"] if file.get("template") == "renewal.conf.j2"]
    assert len(files) == bool(ca_file)
    for file in files:
        assert file["dest"] == "/etc/systemd/system/certbot.service.d/flaskfleet.conf"
        text = renderer(role="nginx_site").render(file["template"], file["vars"])
        assert words(text) == ["[Service]", "Environment=REQUESTS_CA_BUNDLE=/etc/ca.pem"]


def test_more_names_than_a_certificate_has():
    aliases = [f"a{number}.docs.test" for number in range(99)]
    assert len(plan_of({**DOCS, **ACME, "aliases": aliases})["acme"]["certificates"][0]["domains"]) == 100
    with pytest.raises(PlanError) as raised:
        plan_of({**DOCS, **ACME, "aliases": [*aliases, "one.more.test"]})
    assert raised.value.errors == [
        "nginx_sites[0] (docs): `aliases` makes 101 names with `domain`; authorities put up to 100 into a certificate"
    ]
    assert plan_of({**DOCS, "aliases": [*aliases, "one.more.test"]})


def test_no_wildcards():
    with pytest.raises(PlanError, match=r"`aliases\[0\]` must be a host name of lower-case labels"):
        plan_of({**DOCS, **ACME, "aliases": ["*.docs.test"]})


# --- the sites -------------------------------------------------------------------------------------------------------


def site_of(certificate=True, **changes):
    site = plan_of({**DOCS, **ACME, **changes})["sites"][0]
    return site if certificate else {**site, "certificate": "", "certificate_key": ""}


def written(site):
    return renderer(role="nginx_site").render("site.conf.j2", {"site": site})


def test_before_the_certificate_is_there():
    [only] = servers(written(site_of(certificate=False, allow=["192.0.2.1"], maintenance=True)))
    assert "listen 80;" in only and not any("443" in line or "ssl" in line for line in only)
    start = only.index(LOCATION)
    assert only[start : start + 6] == [
        LOCATION,
        "root /var/www/flaskfleet-acme;",
        "default_type text/plain;",
        "allow all;",
        "auth_basic off;",
        "}",
    ]


@pytest.mark.parametrize("redirect", [True, False])
def test_challenges_come_before_the_redirection(redirect):
    blocks = servers(written(site_of(tls={"mode": "acme", "redirect": redirect})))
    assert [("listen 80;" in block, LOCATION in block) for block in blocks] == (
        [(True, True), (False, False)] if redirect else [(True, True)]
    )
    # nothing at the level of the server may answer before a location does
    assert not re.search(r"(?m)^    return", written(site_of()))


def test_other_sites_have_no_challenges():
    assert LOCATION not in written(plan_of({**DOCS, "tls": {"mode": "self_signed"}})["sites"][0])


# --- on a host -------------------------------------------------------------------------------------------------------


class Certbot:
    """Stands for certbot and systemctl, and has real openssl called.

    :ivar calls: what was called, lists of words
    :ivar refuses: {host name: what is said}
    :ivar busy: so often another certbot runs
    :ivar timer: what systemd says of the timer
    """

    def __init__(self, root):
        self.root = root
        self.calls = []
        self.environments = []
        self.refuses = {}
        self.busy = 0
        self.timer = "ActiveState=active\nUnitFileState=enabled\n"

    def run(self, command, timeout=60, **environment):
        program, *arguments = command
        if program == "openssl":
            return subprocess.run(command, capture_output=True, text=True, check=False)
        answer, status = "", 0
        if program == "systemctl" and arguments[0] == "show":
            answer = self.timer
        else:
            self.calls.append(command)
            self.environments.append(environment)
            if program != "systemctl":
                status, answer = self.certbot(arguments)
        return subprocess.CompletedProcess(command, status, answer, "")

    def certbot(self, arguments):
        if self.busy:
            self.busy -= 1
            return 1, "Another instance of Certbot is already running.\n"
        name = arguments[arguments.index("--cert-name") + 1]
        if "delete" in arguments:
            (self.root / "renewal" / f"{name}.conf").unlink()
            return 0, ""
        names = [arguments[index + 1] for index, word in enumerate(arguments) if word == "--domain"]
        for refused in self.refuses.keys() & set(names):
            return 1, f"Saving debug log to /var/log\n\n\n{self.refuses[refused]}\nAsk for help at x\n"
        options = {key: arguments[arguments.index(f"--{key}") + 1] for key in ("server", "key-type")}
        self.issue(name, names, options["server"], options["key-type"])
        return 0, ""

    def issue(self, name, names, server=DIRECTORY, key_type="ecdsa"):
        live = self.root / "live" / name
        for folder in (live, self.root / "archive" / name, self.root / "renewal"):
            folder.mkdir(parents=True, exist_ok=True)
        _comment, key, chain = re.split("(?=-----BEGIN)", certificates.self_signed(names))
        (live / "privkey.pem").write_text(key)
        (live / "fullchain.pem").write_text(chain)
        text = f"version = 4.0.0\n[renewalparams]\nserver = {server}\nkey_type = {key_type}\n"
        (self.root / "renewal" / f"{name}.conf").write_text(text)


@pytest.fixture
def certbot(tmp_path, monkeypatch):
    certbot = Certbot(tmp_path / "letsencrypt")
    for module in (acme, lineages):
        monkeypatch.setattr(module, "run_command", certbot.run)
    monkeypatch.setattr(acme, "_unreachable", lambda directory: "")
    monkeypatch.setattr(acme.shutil, "which", lambda *_arguments, **_path: "/usr/bin/certbot")
    monkeypatch.setattr(acme.time, "sleep", lambda seconds: None)
    return certbot


def options(*wanted, **more):
    """wanted: (name, host names)"""
    listed = [{"name": name, "domains": domains, "file": f"/nowhere/{name}.pem"} for name, domains in wanted]
    return {**lineages.NOTHING, "directory": DIRECTORY, "email": "", "ca_file": "", "certificates": listed, **more}


def carry_out(certbot, *wanted, check_mode=False, **more):
    return acme.carry_out(options(*wanted, **more), check_mode, str(certbot.root))


DOCS_NAMES = ("docs", ["docs.test", "www.docs.test"])


def test_a_first_order(certbot):
    result = carry_out(certbot, DOCS_NAMES, email="me@docs.test", ca_file="/etc/ca.pem")
    assert result["due"] == {"docs": "there is none yet"} and result["changed"]
    assert (result["ordered"], result["there"], result["errors"]) == (["docs"], ["docs"], [])
    [call] = certbot.calls
    assert call == [
        *("/usr/bin/certbot", "--non-interactive", "certonly", "--cert-name", "flaskfleet-docs"),
        *("--domain", "docs.test", "--domain", "www.docs.test", "--agree-tos", "--email", "me@docs.test"),
        *("--server", DIRECTORY, "--key-type", "ecdsa", "--webroot", "--webroot-path", "/var/www/flaskfleet-acme"),
        *("--force-renewal", "--renew-with-new-domains", "--no-directory-hooks"),
    ]
    assert certbot.environments == [{"REQUESTS_CA_BUNDLE": "/etc/ca.pem"}]


def test_nothing_is_due(certbot):
    carry_out(certbot, DOCS_NAMES)
    certbot.calls.clear()
    result = carry_out(certbot, (DOCS_NAMES[0], DOCS_NAMES[1][::-1]))
    assert not certbot.calls and not result["changed"] and not result["todo"] and result["there"] == ["docs"]


def test_no_account_needs_a_mail_address(certbot):
    carry_out(certbot, DOCS_NAMES)
    assert "--register-unsafely-without-email" in certbot.calls[0] and certbot.environments == [{}]


@pytest.mark.parametrize(
    "names, changes, why",
    [
        (["docs.test"], {}, "the names of its site have changed"),
        (["docs.test", "www.docs.test", "new.test"], {}, "the names of its site have changed"),
        (DOCS_NAMES[1], {"key_type": "rsa"}, "its key is of another type"),
        (DOCS_NAMES[1], {"directory": "https://other.test/"}, "it is of another authority"),
    ],
)
def test_what_has_changed_is_ordered_anew(certbot, names, changes, why):
    carry_out(certbot, DOCS_NAMES)
    assert carry_out(certbot, ("docs", names), **changes)["due"] == {"docs": why}
    assert len(certbot.calls) == 2
    assert not carry_out(certbot, ("docs", names), **changes)["todo"]


@pytest.mark.parametrize("days, due", [(0, False), (365 * 3 / 4 - 2, False), (365 * 3 / 4 + 1, True), (400, True)])
def test_what_the_timer_has_missed_is_ordered(certbot, monkeypatch, days, due):
    carry_out(certbot, DOCS_NAMES)
    now = time.time() + days * DAY
    monkeypatch.setattr(acme.time, "time", lambda: now)
    assert lineages.look(options(DOCS_NAMES), str(certbot.root))["due"] == (
        {"docs": "it was not renewed in time"} if due else {}
    )


@pytest.mark.parametrize("lost", ["live/flaskfleet-docs/privkey.pem", "renewal/flaskfleet-docs.conf"])
def test_half_a_lineage_is_none(certbot, lost):
    carry_out(certbot, DOCS_NAMES)
    (certbot.root / lost).unlink()
    certbot.calls.clear()
    assert carry_out(certbot, DOCS_NAMES)["ordered"] == ["docs"]
    assert ["delete" in call for call in certbot.calls] == ([True, False] if "live" in lost else [False])
    assert not carry_out(certbot, DOCS_NAMES)["todo"]


def test_a_refused_order_stops_no_other(certbot):
    certbot.issue("flaskfleet-old", ["old.test"])
    before = (certbot.root / "live" / "flaskfleet-old" / "fullchain.pem").read_text()
    certbot.refuses = {"bad.test": "Detail: no such name\n"}
    wanted = [("new", ["bad.test"]), ("old", ["old.test", "bad.test"]), DOCS_NAMES]
    result = carry_out(certbot, *wanted)
    assert result["changed"] and result["ordered"] == ["docs"] and result["there"] == ["old", "docs"]
    assert result["errors"] == [f"{name}: certbot certonly failed:\nDetail: no such name" for name in ("new", "old")]
    assert (certbot.root / "live" / "flaskfleet-old" / "fullchain.pem").read_text() == before
    assert not carry_out(certbot, *wanted)["changed"]


def test_an_authority_that_is_not_there_is_asked_once(certbot, monkeypatch):
    monkeypatch.undo()
    for module in (acme, lineages):
        monkeypatch.setattr(module, "run_command", certbot.run)
    result = carry_out(certbot, DOCS_NAMES, ("b", ["b.test"]), directory="https://127.0.0.1:1/dir")
    reason = "no certificate was issued: https://127.0.0.1:1/dir can't be reached: [Errno 111] Connection refused"
    assert result["errors"] == [f"docs: {reason}", f"b: {reason}"]
    assert not certbot.calls and not result["changed"]


@pytest.mark.parametrize("busy", [1, 3])
def test_another_certbot_is_waited_for(certbot, busy):
    certbot.busy = busy
    assert carry_out(certbot, DOCS_NAMES)["ordered"] == ["docs"]


def test_but_not_for_ever(certbot, monkeypatch):
    certbot.busy = 10**6
    seconds = iter(range(0, 10**6, 50))
    monkeypatch.setattr(acme.time, "monotonic", lambda: next(seconds))
    assert "Another instance of Certbot" in carry_out(certbot, DOCS_NAMES)["errors"][0]


def test_without_certbot(certbot, monkeypatch):
    monkeypatch.setattr(acme.shutil, "which", lambda *_arguments, **_path: None)
    assert carry_out(certbot, DOCS_NAMES)["errors"] == ["docs: certbot is not installed"]


def test_which_lineages_go(certbot):
    for name in ("flaskfleet-gone", "flaskfleet-forgotten", "flaskfleet-left", "people.test"):
        certbot.issue(name, ["a.test"])
    more = {"removed": ["gone", "never-there"], "declared": ["gone", "left", "never-there"]}
    result = carry_out(certbot, **more)
    assert (result["stale"], result["kept"]) == (["gone"], ["forgotten"]) and result["changed"]
    assert not any("flaskfleet-gone" in str(path) for path in certbot.root.rglob("*"))
    assert carry_out(certbot, **more, purge_undeclared=True)["stale"] == ["forgotten"]
    assert carry_out(certbot, **more, purge_undeclared=True)["kept"] == []
    assert sorted(os.listdir(certbot.root / "live")) == ["flaskfleet-left", "people.test"]


def test_the_timer_is_started(certbot):
    certbot.timer = "ActiveState=active\nUnitFileState=disabled\n"
    result = carry_out(certbot, timer="certbot.timer")
    assert result["changed"] and not result["renewing"]
    assert certbot.calls == [
        ["systemctl", "unmask", "certbot.timer"],
        ["systemctl", "enable", "--now", "certbot.timer"],
    ]
    certbot.timer = "ActiveState=active\nUnitFileState=enabled\n"
    assert not carry_out(certbot, timer="certbot.timer")["changed"]


def test_check_mode_asks_nobody(certbot):
    certbot.timer = ""
    certbot.issue("flaskfleet-gone", ["a.test"])
    result = carry_out(certbot, DOCS_NAMES, check_mode=True, removed=["gone"], timer="certbot.timer")
    assert result["changed"] and not certbot.calls
    assert (result["ordered"], result["stale"], result["there"]) == (["docs"], ["gone"], ["docs"])


def test_where_nothing_is_wanted_nothing_is_called(monkeypatch):
    monkeypatch.setattr(lineages, "run_command", None)
    found = lineages.look(lineages.NOTHING, "/nowhere")
    assert found == {"there": [], "due": {}, "stale": [], "kept": [], "renewing": True, "todo": False}


# --- the file that nginx reads ---------------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def entry(certbot):
    lineage = str(certbot.root / "live" / "flaskfleet-docs")
    certificate = {"mode": "acme", "lineage": lineage}
    return {"dest": "docs.pem", "certificate": certificate, "mode": "0600", "sensitive": True, "subject": "a"}


def test_no_file_before_there_is_a_certificate(host, certbot):
    assert not host.run(entry(certbot))["changed"] and host.contents() == {}
    assert host.run(entry(certbot), check=True)["changed"] and host.contents() == {}


def test_the_file_follows_the_lineage(host, certbot):
    certbot.issue("flaskfleet-docs", ["docs.test"])
    assert host.run(entry(certbot))["changed"] and not host.run(entry(certbot))["changed"]
    text = host.read("docs.pem")
    assert problem(text, text) == ("", "")
    certbot.issue("flaskfleet-docs", ["docs.test"])
    assert host.run(entry(certbot))["changed"] and host.read("docs.pem") != text
    assert host.run()["pruned"] == [host.path("docs.pem")]


def test_what_was_there_stays_until_one_is_issued(host, certbot):
    own = {**entry(certbot), "certificate": {"mode": "self_signed", "names": ["docs.test"]}}
    host.run(own)
    before = host.read("docs.pem")
    assert not host.run(entry(certbot))["changed"] and host.read("docs.pem") == before
    certbot.issue("flaskfleet-docs", ["docs.test"])
    live = certbot.root / "live" / "flaskfleet-docs"
    key = (live / "privkey.pem").read_text()
    (live / "privkey.pem").write_text(certificates.self_signed(["x.test"]))  # certbot is just replacing it
    assert not host.run(entry(certbot))["changed"]
    (live / "privkey.pem").write_text(key)
    assert host.run(entry(certbot))["changed"] and host.read("docs.pem") != before


# --- renewals by the timer -------------------------------------------------------------------------------------------


@pytest.fixture
def renewed(tmp_path, certbot):
    """Run the hook as certbot does after a renewal; returns (exit status, what it called)."""
    (tmp_path / "state").mkdir()
    (tmp_path / "files").mkdir()
    [file] = [
        file
        for file in plan_of({**DOCS, **ACME}, platform=DEBIAN)["renewal_files"]
        if file.get("template") == "renewed.sh.j2"
    ]
    assert (file["mode"], file["vars"]["state"]) == ("0755", "/var/lib/flaskfleet/nginx_site")
    places = {"certificates": str(tmp_path / "files"), "state": str(tmp_path / "state" / "nginx_site")}
    script = tmp_path / "hook"
    script.write_text(renderer(role="nginx_site").render(file["template"], {**file["vars"], **places}))
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()

    def run(lineage="flaskfleet-docs", fails=""):
        for name in ("nginx", "systemctl"):
            (bin_folder / name).write_text(
                f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/called\n[ {name} != "{fails}" ]\n'
            )
            (bin_folder / name).chmod(0o755)
        environment = {"PATH": f"{bin_folder}:/usr/bin:/bin", "RENEWED_LINEAGE": str(certbot.root / "live" / lineage)}
        status = subprocess.run(["sh", str(script)], env=environment, check=False, capture_output=True).returncode
        called = tmp_path / "called"
        lines = called.read_text().splitlines() if called.exists() else []
        called.unlink(missing_ok=True)
        return status, lines

    return run


def test_a_renewal_reloads_nginx(host, certbot, renewed):
    certbot.issue("flaskfleet-docs", ["docs.test"])
    host.run(entry(certbot))
    before = host.read("docs.pem")
    certbot.issue("flaskfleet-docs", ["docs.test"])
    assert renewed() == (0, ["nginx -t", "systemctl reload nginx"])
    path = Path(host.path("docs.pem"))
    assert host.read("docs.pem") != before and path.stat().st_mode & 0o777 == 0o600
    assert not host.run(entry(certbot))["changed"], "a run has nothing to do about it"
    assert sorted(os.listdir(host.files)) == ["docs.pem"]


@pytest.mark.parametrize("fails", ["nginx", "systemctl"])
def test_a_run_makes_up_for_a_reload_that_failed(host, certbot, renewed, tmp_path, fails):
    certbot.issue("flaskfleet-docs", ["docs.test"])
    host.run(entry(certbot))
    assert renewed(fails=fails)[0] != 0
    assert (tmp_path / "state" / "nginx_site.pending").exists()


def test_a_renewal_of_others_is_none_of_ours(certbot, renewed, host):
    certbot.issue("docs.test", ["docs.test"])
    certbot.issue("flaskfleet-other", ["docs.test"])
    host.place("docs.test.pem")
    assert renewed("docs.test") == (0, []) and renewed("flaskfleet-other") == (0, [])
    assert host.read("docs.test.pem") == "foreign\n"
