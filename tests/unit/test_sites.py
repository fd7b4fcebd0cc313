# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`nginx_sites` and the settings of the apps' sites: what is refused, planned, and written for nginx."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils.plan import (
    Inventory,
    PlanError,
    collect_certificates,
    make_plan,
    plain_variables,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from test_role_templates import DEBIAN, HELLO, renderer

DOCS = {"name": "docs", "domain": "docs.test", "root": "/srv/docs"}
RED_HAT = {
    "os_family": "RedHat",
    "proxy_user": "nginx",
    "sites_available": "/etc/nginx/conf.d",
    "sites_enabled": "/etc/nginx/conf.d",
}


def plan_of(*sites, apps=(), platform=None, **variables):
    return make_plan({"nginx_sites": list(sites), "flask_apps": list(apps), **variables}, platform or DEBIAN, "web1")


def rendered(plan):
    """The file of the only site of a plan."""
    [site] = plan["sites"]
    template = next(file["template"] for file in plan["site_files"] if file.get("subject") and "template" in file)
    return renderer(role="nginx_site").render(template, {"site": site})


def written(changes=()):
    """The file of the site docs."""
    return rendered(plan_of({**DOCS, **dict(changes)}))


def written_of_app(**changes):
    """The file of the app hello."""
    return rendered(plan_of(apps=[{**HELLO, **changes}]))


def words(text):
    """Its lines without comments and indentation."""
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def leads_to(**target):
    return {"root": "", **target}


# --- what is refused -------------------------------------------------------------------------------------------------

TARGETS = "must have exactly one of `upstream`, `root`, `redirect`"
WRONG = {
    "no target": ([{**DOCS, "root": ""}], f"nginx_sites[0] (docs): {TARGETS}"),
    "two targets": (
        [{**DOCS, "redirect": "https://a.test"}],
        f"nginx_sites[0] (docs): {TARGETS}, not `root` and `redirect`",
    ),
    "no name": (
        [{"domain": "docs.test", "root": "/srv"}],
        "nginx_sites[0]: `name` is missing; for example `name: docs`",
    ),
    "misspelt key": ([{**DOCS, "rooot": "x"}], "nginx_sites[0] (docs): `rooot` is not known; did you mean `root`?"),
    "name of an app": (
        [{**DOCS, "name": "hello"}],
        "nginx_sites[0] (hello): `name` is that of flask_apps[0] (hello) as well; each needs its own",
    ),
    "domain of an app": (
        [{**DOCS, "aliases": ["hello.test"]}],
        "nginx_sites[0] (docs): `aliases[0]` 'hello.test' is taken by flask_apps[0] (hello): `domain`; "
        "a host name leads to one place",
    ),
    "site as text": (
        ["docs"],
        "nginx_sites[0] must be a dictionary; for example `{name: docs, domain: docs.example.org, root: /srv/docs}`",
    ),
    "control character": (
        [{**DOCS, "extra": "a\r\nb"}],
        "nginx_sites[0] (docs): `extra` must be text without control characters; "
        'for example `extra: "allow 192.0.2.0/24; deny all;"`',
    ),
}


@pytest.mark.parametrize("sites, expected", WRONG.values(), ids=WRONG)
def test_error(sites, expected):
    with pytest.raises(PlanError) as raised:
        plan_of(*sites, apps=[HELLO])
    assert [error.replace(f"(docs) {TARGETS}", f"(docs): {TARGETS}") for error in raised.value.errors] == [expected]


@pytest.mark.parametrize(
    "server",
    [
        "127.0.0.1:8000",
        "[::1]:8000",
        "app1.internal:8000 weight=2 max_fails=3 fail_timeout=10s",
        "unix:/run/app/web.sock backup",
        "app1",
    ],
)
def test_server(server):
    assert plan_of({**DOCS, **leads_to(upstream=[server])})["sites"][0]["servers"] == [server]


@pytest.mark.parametrize(
    "server", ["a:80; return 200", "unix:run/a", "unix:/a/../b", "a:80  down", "a:80 slow", "$a", ""]
)
def test_server_that_is_refused(server):
    with pytest.raises(PlanError, match=r"`upstream\[0\]` must be"):
        plan_of({**DOCS, **leads_to(upstream=[server])})


@pytest.mark.parametrize(
    "url", ["https://a.test/$uri", "https://a.test/ b", "https://me:x@a.test/", "//a.test", "https://a.test/;x"]
)
def test_redirection_that_is_refused(url):
    with pytest.raises(PlanError, match="`redirect` must be"):
        plan_of({**DOCS, **leads_to(redirect=url)})


# --- what is planned -------------------------------------------------------------------------------------------------


def test_a_site_of_its_own():
    plan = plan_of({**DOCS, "aliases": ["www.docs.test"]}, apps=[HELLO])
    assert [site["name"] for site in plan["sites"]] == ["hello", "docs"]
    hello, docs = plan["sites"]
    assert set(docs) - set(hello) == {"redirect_status"} and set(hello) <= set(docs)
    assert (docs["app"], docs["root"], docs["servers"]) == ("", "/srv/docs", [])
    assert docs["server_names"] == ["docs.test", "www.docs.test"]
    assert plan["declared"] == ["hello"] and plan["declared_sites"] == ["hello", "docs"]
    written_for_docs = [
        (file["dest"], file.get("template")) for file in plan["site_files"] if file["subject"] == "docs"
    ]
    assert written_for_docs == [
        ("/etc/nginx/sites-available/docs.test.conf", "site.conf.j2"),
        ("/etc/nginx/sites-enabled/docs.test.conf", None),
    ]


def test_sites_need_no_app():
    plan = plan_of(DOCS, platform=RED_HAT)
    assert [file["dest"] for file in plan["site_files"]] == [
        "/etc/nginx/conf.d/docs.test.conf",
        "/etc/nginx/conf.d/_default.conf",
    ]


def test_an_absent_site_has_no_files_and_keeps_its_name():
    plan = plan_of({**DOCS, "state": "absent"})
    assert plan["sites"] == [] and plan["declared_sites"] == ["docs"]
    assert not any(file.get("subject") for file in plan["site_files"])


def test_a_restricted_run_leaves_other_apps_and_no_site_out():
    plan = plan_of(DOCS, apps=[HELLO, {**HELLO, "name": "other", "domain": "other.test"}], flask_app_only=["other"])
    assert [site["name"] for site in plan["sites"]] == ["other", "docs"]
    assert plan["unselected"] == ["hello"]


def test_settings_of_an_apps_site_make_no_new_release():
    before, after = (plan_of(apps=[{**HELLO, "site": site}])["apps"][0] for site in ({}, {"extra": "deny all;"}))
    assert before["configuration_hash"] == after["configuration_hash"] and before["build_hash"] == after["build_hash"]


def test_settings_of_sites_have_layers():
    plan = plan_of(
        apps=[{**HELLO, "site": {"extra": "own;"}}, {**HELLO, "name": "other", "domain": "other.test"}],
        flask_app_defaults={"site": {"extra": "default;"}},
    )
    assert [site["extra"] for site in plan["sites"]] == ["own;", "default;"]


class Plain:
    """Stands for Ansible's templar and loader: nothing to evaluate, and playbooks lie in a folder."""

    def __init__(self, folder):
        self.folder = folder

    def template(self, value):
        return value

    def get_basedir(self):
        return str(self.folder)

    def get_text_file_contents(self, path):
        return Path(path).read_text()


def test_paths_on_the_controller_start_at_the_playbook(tmp_path):
    (tmp_path / "mine.j2").write_text("mine\n")
    site = {"template": "mine.j2"}
    given = {
        "nginx_sites": [{**DOCS, **site}, "not a site"],
        "flask_apps": [{**HELLO, "site": site}, {**HELLO, "name": "other", "domain": "other.test"}],
        "flask_app_overrides": {"other": {"site": site}},
        "flask_app_defaults": {"site": None},
    }
    plain = Plain(tmp_path)
    variables = plain_variables(plain, plain, given)
    assert variables["flask_app_defaults"] == {"site": None} and variables["nginx_sites"][1] == "not a site"
    del variables["flask_app_defaults"], variables["nginx_sites"][1]
    files = make_plan(variables, RED_HAT, "web1")["site_files"]
    assert [file["template"] for file in files if file["subject"]] == [str(tmp_path / "mine.j2")] * 3


# --- HTTPS -----------------------------------------------------------------------------------------------------------


def test_https_of_an_app_and_a_site():
    plan = plan_of({**DOCS, "tls": {"mode": "self_signed"}}, apps=[{**HELLO, "tls": {"mode": "self_signed"}}])
    app = plan["apps"][0]
    assert (app["url"], app["health"]["scheme"]) == ("https://hello.test/", "https")
    assert [site["url"] for site in plan["sites"]] == ["https://hello.test/", "https://docs.test/"]
    certificates = [file for file in plan["site_files"] if "certificate" in file]
    assert [(file["dest"], file["subject"]) for file in certificates] == [
        ("/etc/nginx/certificates/hello.pem", "hello"),
        ("/etc/nginx/certificates/docs.pem", "docs"),
    ]
    assert all((file["mode"], file["sensitive"]) == ("0600", True) for file in certificates)
    assert certificates[0]["certificate"] == {"mode": "self_signed", "names": ["hello.test", "web1.hello.test"]}


def test_https_makes_no_new_release():
    before, after = (plan_of(apps=[{**HELLO, "tls": {"mode": mode}}])["apps"][0] for mode in ("none", "self_signed"))
    assert before["configuration_hash"] == after["configuration_hash"]


@pytest.mark.parametrize("tls, only", [(True, []), (False, []), (True, ["other"])])
def test_names_without_a_site_get_no_handshake(tls, only):
    """As soon as any site has HTTPS, also one that this run leaves out."""
    apps = [{**HELLO, "tls": {"mode": "self_signed"}} if tls else HELLO, {**HELLO, "name": "other", "domain": "o.test"}]
    plan = plan_of(apps=apps, flask_app_only=only)
    [file] = [file for file in plan["site_files"] if file.get("template") == "default.conf.j2"]
    text = words(renderer(role="nginx_site").render(file["template"], file["vars"]))
    assert ("ssl_reject_handshake on;" in text) is ("listen 443 default_server ssl;" in text) is tls
    assert text.count("return 444;") == 1


@pytest.mark.parametrize(
    "version, expected",
    [
        ("1.25.1", ["listen 443 ssl;", "listen [::]:443 ssl;", "http2 on;"]),
        ("1.25.0", ["listen 443 ssl http2;", "listen [::]:443 ssl http2;"]),
        ("1.9.5", ["listen 443 ssl http2;", "listen [::]:443 ssl http2;"]),
    ],
)
def test_http2_as_this_nginx_spells_it(version, expected):
    site = plan_of({**DOCS, "tls": {"mode": "self_signed"}})["sites"][0]
    text = words(renderer(role="nginx_site", __nginx_site_version=version).render("site.conf.j2", {"site": site}))
    assert [line for line in text if "443" in line or "http2" in line] == expected


def servers(text):
    """The server blocks of a file, as lines."""
    return [words(block) for block in text.split("server {")[1:]]


def test_https_of_a_site():
    plain, secure = servers(written({"tls": {"mode": "self_signed", "hsts_max_age": 300}}))
    assert plain == [
        "listen 80;",
        "listen [::]:80;",
        "server_name docs.test;",
        "server_tokens off;",
        "location / {",
        "return 301 https://$host$request_uri;",
        "}",
        "}",
    ]
    for line in (
        "server_name docs.test;",
        "ssl_certificate /etc/nginx/certificates/docs.pem;",
        "ssl_certificate_key /etc/nginx/certificates/docs.pem;",
        "ssl_protocols TLSv1.2 TLSv1.3;",
        "ssl_session_tickets off;",
        "add_header Strict-Transport-Security $site_docs_strict_transport_security always;",
    ):
        assert secure.count(line) == 1, line
    assert "listen 80;" not in secure


def test_https_without_a_redirection():
    [both] = servers(written({"tls": {"mode": "self_signed", "redirect": False}}))
    assert {"listen 80;", "listen 443 ssl;"} <= set(both)
    assert not any("Strict-Transport-Security" in line or "return 301" in line for line in both)


# --- certificates that are provided ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority():
    return Authority()


class Authority:
    """Makes certificates for docs.test and keys, as PEM text."""

    def __init__(self):
        self.key, self.other = (ec.generate_private_key(ec.SECP256R1()) for _number in range(2))

    def certificate(self, key=None, names=("docs.test",), days=90):
        now = datetime.datetime.now(datetime.timezone.utc)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
        builder = builder.public_key((key or self.key).public_key())
        builder = builder.not_valid_before(now - datetime.timedelta(days=30))
        builder = builder.not_valid_after(now + datetime.timedelta(days=days))
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), False)
        return builder.sign(self.other, hashes.SHA256()).public_bytes(Encoding.PEM).decode()

    def text(self, key=None, passphrase=None):
        encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        return (key or self.key).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()

    def tls(self, **changes):
        return {"mode": "provided", "certificate": self.certificate(), "certificate_key": self.text(), **changes}


def test_a_provided_certificate(authority):
    tls = authority.tls()
    variables = {"nginx_sites": [{**DOCS, "tls": tls}], "flask_apps": [{**HELLO, "tls": {"mode": "self_signed"}}]}
    plan = make_plan(variables, DEBIAN, "web1")
    assert "BEGIN" not in json.dumps(plan) and plan["warnings"] == []
    assert collect_certificates(variables) == {"docs": tls["certificate_key"] + tls["certificate"]}


def test_only_pem_gets_into_the_file(authority):
    noisy = {key: f"Bag Attributes\n{text}\ntrailing" for key, text in authority.tls().items()}
    tls = {**noisy, "mode": "provided"}
    text = collect_certificates({"nginx_sites": [{**DOCS, "tls": tls}]})["docs"]
    assert text == authority.text() + tls["certificate"].partition("\n")[2].removesuffix("\ntrailing")


def refused_certificates(authority):
    other = authority.certificate(authority.other)
    no_key = "has no private key that can be read, as PEM"
    return {
        "another's key": (
            {"certificate_key": authority.text(authority.other)},
            "certificate_key` does not belong to the certificate",
        ),
        "key with a passphrase": (
            {"certificate_key": authority.text(passphrase=b"x")},
            "certificate_key` must not be encrypted with a passphrase: nginx could not read it",
        ),
        "certificate for a key": ({"certificate_key": authority.certificate()}, f"certificate_key` {no_key}"),
        "broken key": ({"certificate_key": "-----BEGIN PRIVATE KEY-----\ncanary"}, f"certificate_key` {no_key}"),
        "key for a certificate": (
            {"certificate": authority.text()},
            "certificate` has no certificate that can be read, as PEM",
        ),
        "issuer first": (
            {"certificate": other + authority.certificate()},
            "certificate` must begin with the certificate that the key belongs to; its issuers follow",
        ),
        "no key": (
            {"certificate_key": ""},
            "certificate_key` is missing; for example `tls: {certificate_key: files/hello.key}`",
        ),
        "no file": (
            {"certificate_key": "canary.key"},
            "certificate_key` must be PEM text, or the path of a file on the controller; "
            "for example `tls: {certificate_key: files/hello.key}`",
        ),
    }


@pytest.mark.parametrize("case", refused_certificates(Authority()))
def test_a_certificate_that_nginx_could_not_use(authority, case):
    changes, expected = refused_certificates(authority)[case]
    with pytest.raises(PlanError) as raised:
        plan_of({**DOCS, "tls": authority.tls(**changes)})
    assert raised.value.errors == [f"nginx_sites[0] (docs): `tls.{expected}"]
    with pytest.raises(PlanError) as raised:
        plan_of(apps=[{**HELLO, "tls": authority.tls(**changes)}])
    assert raised.value.errors == [f"flask_apps[0] (hello): `tls.{expected}"]


@pytest.mark.parametrize(
    "changes, aliases, doubt",
    [
        ({"days": 40}, [], ""),
        ({"days": -1}, [], "has expired on "),
        ({"days": 3}, [], "expires on "),
        ({}, ["www.docs.test", "a.b.docs.test"], "is not for www.docs.test, a.b.docs.test"),
        ({"names": ["docs.test", "*.docs.test"]}, ["www.docs.test"], ""),
        ({"names": ["*.docs.test"]}, ["a.b.docs.test"], "is not for docs.test, a.b.docs.test"),
        ({"names": []}, [], "is not for docs.test"),
    ],
)
def test_a_certificate_that_visitors_would_not_trust(authority, changes, aliases, doubt):
    tls = authority.tls(certificate=authority.certificate(**changes))
    warnings = plan_of({**DOCS, "aliases": aliases, "tls": tls})["warnings"]
    assert [warning.startswith(f"nginx_sites[0] (docs): the certificate {doubt}") for warning in warnings] == (
        [True] if doubt else []
    )


def test_a_certificate_that_nothing_uses(authority):
    assert plan_of({**DOCS, "tls": authority.tls(mode="none")})["warnings"] == [
        "nginx_sites[0] (docs): `tls.certificate` is of no use without `mode: provided`",
        "nginx_sites[0] (docs): `tls.certificate_key` is of no use without `mode: provided`",
    ]
    assert plan_of({**DOCS, "state": "absent", "tls": authority.tls(certificate_key="")})["warnings"] == []


def test_certificates_from_files(authority, tmp_path):
    tls = authority.tls()
    for key in ("certificate", "certificate_key"):
        (tmp_path / key).write_text(tls[key])
    paths = {"mode": "provided", "certificate": "certificate", "certificate_key": str(tmp_path / "certificate_key")}
    given = {"flask_app_defaults": {"tls": paths}, "flask_apps": [HELLO], "nginx_sites": [{**DOCS, "tls": paths}]}
    variables = plain_variables(Plain(tmp_path), Plain(tmp_path), given)
    assert set(collect_certificates(variables).values()) == {tls["certificate_key"] + tls["certificate"]}


# --- what is written -------------------------------------------------------------------------------------------------


def test_several_servers():
    servers = ["unix:/run/a.sock", "10.0.0.1:80 backup"]
    site = words(written({**leads_to(upstream=servers), "balancing": "least_conn"}))
    start = site.index("upstream site_docs {")
    assert site[start : start + 4] == [
        "upstream site_docs {",
        "least_conn;",
        "server unix:/run/a.sock;",
        "server 10.0.0.1:80 backup;",
    ]
    assert "proxy_pass http://site_docs;" in site


def test_a_folder():
    site = words(written())
    assert "root /srv/docs;" in site and "disable_symlinks on from=$document_root;" in site
    assert not any(line.startswith(("upstream", "proxy_")) for line in site)


@pytest.mark.parametrize(
    "redirect, expected",
    [
        ({"redirect": "https://a.test"}, "return 301 https://a.test$request_uri;"),
        ({"redirect": "https://a.test/new", "redirect_status": 308}, "return 308 https://a.test/new;"),
        ({"redirect": "https://a.test/"}, "return 301 https://a.test/;"),
    ],
)
def test_a_redirection(redirect, expected):
    assert words(written(leads_to(**redirect))).count(expected) == 1


# --- static files ----------------------------------------------------------------------------------------------------


def locations(text):
    """{location: its own lines} of a file."""
    found, path = {}, []
    for line in words(text):
        if line.startswith("location "):
            path.append(line.removeprefix("location ").removesuffix(" {"))
            found[path[-1]] = []
        elif line == "}" and path:
            path.pop()
        elif path:
            found[path[-1]].append(line)
    return found


def test_static_files_of_an_app():
    found = locations(written_of_app(path="src", static=[{"url": "/a.b/", "path": "./web/static", "expires": "max"}]))
    file = r'~ "^/a\.b/(?<static_1>(?:[^./][^/]*/)*[^./][^/]*)$"'
    assert list(found) == ["^~ /a.b/", file, "@static_1_1", "/", "@upstream"]
    for place, release, following in ((file, "current", "@static_1_1"), ("@static_1_1", "previous", "@upstream")):
        assert found[place][0] == f"root /opt/flask_apps/hello/{release}/build/src/web/static;"
        assert found[place][-1] == f"try_files /$static_1 {following};"
        assert {"expires max;", "disable_symlinks on from=$document_root;"} <= set(found[place])
    assert found["^~ /a.b/"] == ["return 404;"]
    assert found["@upstream"] == found["/"]


def test_static_files_of_several_folders():
    static = [{"url": "/static", "path": "static"}, {"url": "/media", "path": "media"}]
    found = locations(written_of_app(static=static))
    assert {"@static_1_1", "@static_2_1"} <= set(found) and list(found).count("@upstream") == 1


def test_static_files_of_a_site():
    static = [{"url": "/files", "path": "/srv/files"}]
    proxied = locations(written({**leads_to(upstream=["a:80"]), "static": static}))
    assert [lines[-1] for place, lines in proxied.items() if "static_1" in place] == ["try_files /$static_1 @upstream;"]
    plain = locations(written({"static": static}))
    assert [lines[-1] for place, lines in plain.items() if "static_1" in place] == ["try_files /$static_1 =404;"]
    assert "@upstream" not in plain


@pytest.mark.parametrize(
    "path, file",
    [
        ("a.css", "a.css"),
        ("a/b.min.css", "a/b.min.css"),
        ("a b/ä.css", "a b/ä.css"),
        ("", None),
        (".a", None),
        ("a/.b/c", None),
        ("a/", None),
        ("a//b", None),
        ("../a", None),
        ("a/..", None),
    ],
)
def test_which_paths_are_files(path, file):
    places = locations(written_of_app(static=[{"url": "/static", "path": "static"}]))
    [pattern] = [place for place in places if place.startswith("~ ")]
    found = re.fullmatch(pattern.removeprefix('~ "').removesuffix('"').replace("?<", "?P<"), f"/static/{path}")
    assert (found and found["static_1"]) == file


@pytest.mark.parametrize("modules, expected", [(["http_gzip_static_module"], True), ([], False)])
def test_precompressed_files_where_nginx_can_serve_them(modules, expected):
    plan = plan_of(apps=[{**HELLO, "static": [{"url": "/static", "path": "static"}]}])
    render = renderer(role="nginx_site", __nginx_site_nginx={"modules": modules}).render
    assert words(render("site.conf.j2", {"site": plan["sites"][0]})).count("gzip_static on;") == (2 if expected else 0)


# --- what people set of a site ---------------------------------------------------------------------------------------


def app_site(**settings):
    return words(written_of_app(site=settings))


def proxied(lines):
    """{header: value} that the app gets."""
    found = [line.split(None, 2)[1:] for line in lines if line.startswith("proxy_set_header ")]
    return {name: value.rstrip(";") for name, value in found}


def test_what_a_client_sends_of_the_proxys_headers_never_reaches_the_app():
    headers = proxied(app_site())
    assert headers["X-Forwarded-For"] == headers["X-Real-IP"] == "$remote_addr"
    assert (headers["X-Forwarded-Proto"], headers["X-Forwarded-Host"], headers["Host"]) == ("$scheme", "$host", "$host")
    assert headers["X-Request-ID"] == "$request_id" and headers["Connection"] == '""'
    for name in ("Forwarded", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Server", "Proxy"):
        assert headers[name] == '""'


def test_balancers_in_front():
    lines = app_site(trusted_proxies=["10.0.0.0/8", "192.0.2.1"])
    assert proxied(lines)["X-Forwarded-Proto"] == "$flask_hello_scheme"
    for line in ("10.0.0.0/8 yes;", "set_real_ip_from 10.0.0.0/8;", "set_real_ip_from 192.0.2.1;"):
        assert lines.count(line) == 1, line
    assert {"real_ip_header X-Forwarded-For;", "real_ip_recursive on;", "default $scheme;"} <= set(lines)
    assert not any("real_ip" in line for line in app_site())


def test_limits_of_proxying():
    lines = app_site(max_body_size="20m", connect_timeout=1, read_timeout=2, send_timeout=3)
    assert {
        "client_max_body_size 20m;",
        "proxy_connect_timeout 1s;",
        "proxy_read_timeout 2s;",
        "proxy_send_timeout 3s;",
    } <= set(lines)
    assert not any("buffering" in line for line in lines)
    assert {"proxy_buffering off;", "proxy_request_buffering off;"} <= set(
        app_site(buffering=False, request_buffering=False)
    )


def test_websockets_and_no_other_upgrade():
    """HTTP/2 in clear text would take requests past nginx."""
    lines = app_site(websockets=True)
    assert proxied(lines)["Upgrade"] == "$flask_hello_upgrade"
    assert "map $http_upgrade $flask_hello_upgrade { ~*^websocket$ websocket; }" in lines
    assert "Upgrade" not in proxied(app_site())


def test_a_maintenance():
    text = written_of_app(site={"maintenance": True, "retry_after": 60}, static=[{"url": "/static", "path": "a"}])
    assert locations(text) == {"/": ["return 503;"]} and "add_header Retry-After 60 always;" in words(text)


def test_balancers_find_a_machine_in_maintenance_well():
    app = {**HELLO, "health_path": "/health?full", "site": {"maintenance": True}}
    inventory = Inventory("web1", ["web1"], str, balancers_of=lambda group: {"lb1": ("192.0.2.9", "lb1")})
    text = rendered(make_plan({"flask_apps": [app]}, DEBIAN, "web1", inventory=inventory))
    found = locations(text)
    answer = ["error_page 403 = @maintenance;", "recursive_error_pages on;"]
    assert found["= /health"][:5] == [*answer, "allow 127.0.0.1;", "allow 192.0.2.9;", "deny all;"]
    assert "proxy_pass http://flask_hello;" in found["= /health"]
    assert found["@maintenance"] == found["/"] == ["return 503;"]
    odd = make_plan({"flask_apps": [{**app, "health_path": "/a;b"}]}, DEBIAN, "web1", inventory=inventory)
    assert locations(rendered(odd)) == {"/": ["return 503;"]}


def test_a_page_for_when_the_app_is_down(tmp_path):
    page = tmp_path / "down.html"
    page.write_text("down\n")
    plan = plan_of(apps=[{**HELLO, "site": {"error_page": str(page)}}])
    assert {"template": str(page), "dest": "/etc/nginx/pages/hello.html", "subject": "hello"} in plan["site_files"]
    lines = words(
        rendered(
            {
                **plan,
                "site_files": [file for file in plan["site_files"] if file["dest"] != "/etc/nginx/pages/hello.html"],
            }
        )
    )
    assert "error_page 502 503 504 @unavailable;" in lines and "try_files /hello.html =503;" in lines


def test_who_may_see_it():
    lines = app_site(allow=["192.0.2.0/24", "2001:db8::/32"])
    start = lines.index("allow 192.0.2.0/24;")
    assert lines[start : start + 3] == ["allow 192.0.2.0/24;", "allow 2001:db8::/32;", "deny all;"]


def test_headers():
    headers = {"x-frame-options": "DENY", "Referrer-Policy": "", "Content-Security-Policy": "default-src 'self'"}
    site = plan_of(apps=[{**HELLO, "site": {"headers": headers}}])["sites"][0]
    assert site["headers"] == {
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Content-Security-Policy": "default-src 'self'",
    }
    lines = app_site(headers=headers)
    assert "add_header X-Frame-Options $flask_hello_x_frame_options always;" in lines
    assert 'map $upstream_http_x_frame_options $flask_hello_x_frame_options { "" "DENY"; }' in lines


@pytest.mark.parametrize(
    "headers, problem",
    [
        ({"a b": "x"}, "`site.headers` must have names of headers, of letters, digits and hyphens"),
        ({"X-A": 'a"; return 200; "'}, "`site.headers.X-A` must be printable ASCII text"),
        ({"X-A": "$host"}, "`site.headers.X-A` must be printable ASCII text"),
        ({"X-A": "a\nb"}, "`site.headers.X-A` must be printable ASCII text"),
        ({"X-A": 1}, "`site.headers.X-A` must be printable ASCII text"),
    ],
)
def test_headers_that_are_refused(headers, problem):
    with pytest.raises(PlanError, match=re.escape(problem)):
        plan_of(apps=[{**HELLO, "site": {"headers": headers}}])


def test_logs():
    assert "access_log /var/log/nginx/hello.test.access.log flask_hello buffer=32k flush=1s;" in app_site()
    assert "access_log off;" in app_site(access_log="off")
    for kind in ("combined", "json"):
        text = "".join(app_site(access_log=kind)).partition("log_format flask_hello")[2].partition(";")[0]
        for variable in ("$remote_addr", "$status", "$request_time", "$upstream_response_time", "$request_id"):
            assert variable in text, kind
    # as nginx fills it in: what is no number is in quotes
    text = text.replace(" escape=json", "").replace("'", "")
    text = re.sub(r"\$(status|body_bytes_sent|request_time)\b", "1", text)
    assert set(json.loads(text)) >= {"time", "client", "uri", "status", "request_time", "upstream_time", "request_id"}


def test_names_with_hyphens():
    text = rendered(plan_of({**DOCS, "name": "my-docs"}))
    assert "$site_my_docs_x_frame_options" in text and "log_format site_my-docs " in text


# --- what users add --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", [False, True])
def test_lines_of_a_users_own(app):
    extra = "location /x {\n    return 204;\n}\n"
    text = written_of_app(site={"extra": extra}) if app else written({"extra": extra})
    assert "\n\n    location /x {\n        return 204;\n    }\n}\n" in text


def test_a_template_of_a_users_own(tmp_path):
    path = tmp_path / "mine.conf.j2"
    path.write_text('{% extends "base/site.conf.j2" %}{% block extra %}\n# mine, {{ site.domain }}\n{% endblock %}\n')
    assert "# mine, hello.test" in written_of_app(site={"template": str(path)})
    assert "# mine, docs.test" in written({"template": str(path)})
