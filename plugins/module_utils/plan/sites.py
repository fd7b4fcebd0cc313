# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sites in the plan: what nginx serves for apps and by itself, its files, and the certificates that they take."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import urlsplit

from .. import lineages
from ..file_set.wanted import STATE_DIRECTORY

CERTIFICATES = "/etc/nginx/certificates"
PAGES = "/etc/nginx/pages"
# What browsers are told unless an app or a site says something else.
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "strict-origin-when-cross-origin",
}
# Links to the releases in which nginx looks for static files.
_RELEASES = ("current", "previous")


def trust_balancers(balancers, sites):
    """Have sites take the client's address from balancers, and from nobody else whom they don't name."""
    for site in sites:
        site["trusted_proxies"] = list(dict.fromkeys([*site["trusted_proxies"], *balancers]))
        # What a balancer asks without naming a client is its own check.
        site["allow"] = list(dict.fromkeys([*site["allow"], *balancers])) if site["allow"] else []
        site["balancers"] = list(balancers)


def site_of_app(app):
    """The site of an app as the templates of sites see it."""
    return {
        **app["site"],
        "headers": _headers_of(app["site"], app["tls"]),
        **{key: app[key] for key in ("name", "domain", "server_names", "url", "tls")},
        **_certificate(app),
        "challenges": _challenges(app),
        "app": app["name"],
        "upstream": f"flask_{app['name']}",
        "servers": [f"unix:{app['upstream_socket']}"],
        "static": [
            _static(
                entry,
                *(posixpath.join(app["paths"][link], "build", app["path"], entry["path"]) for link in _RELEASES),
            )
            for entry in app["static"]
        ],
        "balancing": "round_robin",
        "root": "",
        "redirect": "",
        "checked_path": _plain_path(app["health"]["path"]),
    }


def _plain_path(path):
    """What balancers check as nginx names it in a `location`; empty when it has characters that are special there."""
    plain = path.partition("?")[0]
    return plain if re.fullmatch(r"[A-Za-z0-9._~/-]+", plain) else ""


def _headers_of(site, tls):
    """What browsers are told of a site, by the name of the header."""
    headers = dict(_HEADERS)
    if tls["mode"] != "none" and tls["hsts_max_age"]:
        headers["Strict-Transport-Security"] = f"max-age={tls['hsts_max_age']}"
    for name, value in site["headers"].items():
        same = next((known for known in headers if known.lower() == name.lower()), name)
        headers[same] = value
    return {name: value for name, value in headers.items() if value}


def _static(entry, *folders):
    """Static files as the templates of sites see them. folders: where a file is looked for, the first one wins."""
    paths = [posixpath.normpath(folder) for folder in folders]
    return {"url": entry["url"].rstrip("/"), "folders": paths, "expires": entry["expires"]}


def site_of_list(site):
    """A site of `nginx_sites` as the templates of sites see it, in the same shape."""
    planned = {
        **site,
        "headers": _headers_of(site, site["tls"]),
        "server_names": [site["domain"], *site["aliases"]],
        "url": url_of(site),
        "tls": tls_of(site),
        **_certificate(site),
        "challenges": _challenges(site),
        "app": "",
        "upstream": f"site_{site['name']}",
        "servers": site["upstream"],
        "static": [_static(entry, entry["path"]) for entry in site["static"]],
        "checked_path": "",
    }
    # A redirection without a path keeps the requested one, as it was sent.
    if planned["redirect"] and not urlsplit(planned["redirect"]).path:
        planned["redirect"] += "$request_uri"
    for key in ("aliases", "state"):
        del planned[key]
    return planned


def has_tls(site):
    return site["state"] == "present" and site["tls"]["mode"] != "none"


def _has_acme(site):
    return has_tls(site) and site["tls"]["mode"] == "acme"


def scheme_of(site):
    return "http" if site["tls"]["mode"] == "none" else "https"


def url_of(site):
    return f"{scheme_of(site)}://{site['domain']}/"


def tls_of(site):
    """What is no secret of it, and not what a plan should carry along."""
    return {key: value for key, value in site["tls"].items() if key not in ("certificate", "certificate_key")}


def _certificate(site):
    """Paths of the certificate with its issuers, and of its key. Both are one file: a reload never meets half of it."""
    path = "" if site["tls"]["mode"] == "none" else f"{CERTIFICATES}/{site['name']}.pem"
    return {"certificate": path, "certificate_key": path}


def _source(site):
    """Where its certificate comes from, as `file_set` takes it."""
    mode = site["tls"]["mode"]
    if mode == "acme":
        return {"mode": mode, "lineage": lineages.Lineage(site["name"]).live}
    return {"mode": mode, "names": site["server_names"]}


def _challenges(site):
    """The folder with the answers to an authority's challenges."""
    return lineages.CHALLENGES if site["tls"]["mode"] == "acme" else ""


def authority_certificates(sites, declared, settings, platform):
    """The certificates that an authority issues, as `acme_certificates` takes them.

    A certificate is for the declared names: no authority can reach the one of a host from outside, as a rule.
    """
    everything = [*declared.apps, *declared.sites]
    names = {each["name"]: [each["domain"], *each["aliases"]] for each in everything}
    unselected = {app["name"] for app in declared.apps} - set(declared.only)
    wanted = any(_has_acme(each) for each in everything)
    certificates = [
        {"name": site["name"], "domains": names[site["name"]], "file": site["certificate"]}
        for site in sites
        if site["tls"]["mode"] == "acme"
    ]
    return {
        "certificates": certificates,
        "removed": sorted(names.keys() - unselected - {each["name"] for each in certificates}),
        "declared": list(names),
        "purge_undeclared": settings["nginx_site_purge_undeclared"],
        "wanted": wanted,
        "timer": platform.get("renewal_timer", "") if wanted else "",
        **{key: settings[f"nginx_site_acme_{key}"] for key in ("directory", "key_type", "email", "ca_file")},
    }


def renewal_files(settings, platform):
    """What renewals by certbot's timer take, as `file_set` takes it."""
    if "sites_available" not in platform:
        return []
    files = [
        {"content": "Answers to the challenges of certificate authorities.\n", "dest": f"{lineages.CHALLENGES}/README"},
        {
            "template": "renewed.sh.j2",
            "dest": "/etc/letsencrypt/renewal-hooks/deploy/flaskfleet",
            "mode": "0755",
            "vars": {"prefix": lineages.PREFIX, "certificates": CERTIFICATES, "state": f"{STATE_DIRECTORY}/nginx_site"},
        },
    ]
    if settings["nginx_site_acme_ca_file"] and "renewal_timer" in platform:
        unit = platform["renewal_timer"].replace(".timer", ".service")
        variables = {"ca_file": settings["nginx_site_acme_ca_file"]}
        path = f"/etc/systemd/system/{unit}.d/flaskfleet.conf"
        files.append({"template": "renewal.conf.j2", "dest": path, "vars": variables})
    return files


def selinux_files(declared, settings, platform):
    """The module of the policy with what nginx needs beyond it, as `file_set` takes it."""
    if "selinux_module" not in platform:
        return []
    folder = settings["flask_app_runtime_root"]
    # Policies see one of these as the other, and differ in which.
    folders = sorted({folder, re.sub("^(/var)?/run/", "/run/", folder), re.sub("^(/var)?/run/", "/var/run/", folder)})
    servers = [server for site in declared.sites if site["state"] == "present" for server in site["upstream"]]
    variables = {"folders": folders, "network": any(not server.startswith("unix:") for server in servers)}
    return [{"template": "selinux.cil.j2", "dest": platform["selinux_module"], "vars": variables}]


def site_files(sites, everything, settings, platform):
    """The sites of nginx, as `file_set` takes them: with Debian's layout each is linked from sites-enabled.

    everything: all declared apps and sites, also those that are left out of this run.
    """
    if "sites_available" not in platform:
        return []
    available, enabled = platform["sites_available"], platform["sites_enabled"]
    wanted = [(site["template"] or "site.conf.j2", site["domain"], site["name"], {}) for site in sites]
    if settings["nginx_site_default_server"]:
        wanted.append(("default.conf.j2", "_default", "", {"tls": any(has_tls(each) for each in everything)}))
    files = [
        {
            "certificate": _source(site),
            "dest": site["certificate"],
            "mode": "0600",
            "sensitive": True,
            "subject": site["name"],
        }
        for site in sites
        if site["tls"]["mode"] != "none"
    ]
    files += [
        {"template": site["error_page"], "dest": f"{PAGES}/{site['name']}.html", "subject": site["name"]}
        for site in sites
        if site["error_page"]
    ]
    for template, name, subject, variables in wanted:
        files.append({"template": template, "dest": f"{available}/{name}.conf", "subject": subject, "vars": variables})
        if available != enabled:
            link = posixpath.relpath(f"{available}/{name}.conf", enabled)
            files.append({"link": link, "dest": f"{enabled}/{name}.conf", "subject": subject})
    if platform.get("default_site") and settings["nginx_site_default_server"]:
        files.append({"state": "absent", "dest": platform["default_site"], "takeover": True})
    return files
