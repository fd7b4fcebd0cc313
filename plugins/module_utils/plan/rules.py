# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What argument specifications cannot express: by key, what a value must be, and an example of one."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from . import values
from .calendar import is_calendar


class Rule(NamedTuple):
    """What a value must be beyond its type.

    expected: completes "must be ...". example: YAML of a value that passes, of a list one element. check: takes a value
    of the right type, of a list each element, and says whether it passes. shown: whether a message may show a value
    that does not pass; only for keys that can hold no secret. lines: whether a text may have several lines.
    """

    expected: str
    example: str
    check: Callable[[Any], bool] = lambda value: True
    shown: bool = False
    lines: bool = False


def _number(low, high, example):
    words = f"a number from {low} to {high}" if high < 10**6 else f"a number from {low} on"
    return Rule(words, example, values.within(low, high), shown=True)


_HOST_NAME = Rule(
    "a host name of lower-case labels (letters, digits, hyphens) joined by dots",
    "hello.example.org",
    values.is_domain,
    shown=True,
)
_FOLDER = Rule(
    "a relative path without `..`, of letters, digits and ._+@-", "uploads", values.matches(values.RELATIVE), shown=True
)
_DIRECTORY = Rule(
    "an absolute path without `..`, of letters, digits and ._+@-",
    "/srv/example",
    values.matches(values.ABSOLUTE),
    shown=True,
)
_INDEX = Rule(
    "an http or https URL without credentials, which the host's pip configuration can hold",
    "https://packages.example.org/simple",
    values.matches(values.INDEX_URL),
)
_COMMAND = Rule("a command on one line", "flask db upgrade", lambda value: not value.isspace() and value != "")
_SECONDS = Rule("a number of seconds from 1 to 3600", "30", values.within(1, 3600), shown=True)
_VARIABLE = Rule(
    "the name of an environment variable", "DATABASE_URL", values.matches(values.ENVIRONMENT_NAME), shown=True
)

# What the URL of a database may begin with, as SQLAlchemy's drivers spell it; the first one is the default.
SCHEMES = {
    "postgresql": (
        "postgresql+psycopg2", "postgresql+psycopg", "postgresql+asyncpg", "postgresql+pg8000", "postgresql",
    ),
    "mariadb": (
        "mysql+pymysql", "mysql+mysqldb", "mysql+asyncmy", "mysql+aiomysql", "mysql", "mariadb+pymysql",
        "mariadb+mysqldb", "mariadb+asyncmy", "mariadb+aiomysql",
    ),
}  # fmt: skip

_ADDRESS = Rule("an address of the host", "10.0.0.5", values.is_address, shown=True)
_GROUP = Rule("the name of a group of the inventory", "appservers", values.matches(r"[A-Za-z_]\w*"), shown=True)
_NETWORK = Rule("an address or a network", "192.0.2.0/24", values.is_network, shown=True)

# By key of a site; dotted for what is in its dictionaries. Those of `SHARED_SITE_RULES` are an app's as well, in its
# dictionary `site`.
SHARED_SITE_RULES = {
    "extra": Rule("text", '"allow 192.0.2.0/24; deny all;"', lines=True),
    "template": Rule("the path of a file on the controller", "templates/mine.conf.j2", values.is_file, shown=True),
    "max_body_size": Rule(
        "a size of nginx: a number and k, m or g", "20m", values.matches(r"[0-9]{1,9}[kKmMgG]?"), shown=True
    ),
    "connect_timeout": _SECONDS._replace(example="5"),
    "read_timeout": _number(1, 10**6 - 1, "60"),
    "send_timeout": _number(1, 10**6 - 1, "60"),
    "retry_after": _number(1, 10**9, "300"),
    "error_page": Rule("the path of a file on the controller", "templates/down.html.j2", values.is_file, shown=True),
    "allow": _NETWORK,
    "trusted_proxies": _NETWORK,
    "headers": Rule("a dictionary", '{X-Frame-Options: DENY, Referrer-Policy: ""}'),
}
_PEM = Rule("PEM text, or the path of a file on the controller", "files/hello.pem", values.is_pem, lines=True)
# What authorities take, for one certificate.
ACME_NAMES = 100
TLS_RULES = {
    "tls": Rule("a dictionary", "{mode: self_signed}"),
    "tls.certificate": _PEM,
    "tls.certificate_key": _PEM._replace(example="files/hello.key"),
    "tls.hsts_max_age": _number(0, 10**9, "31536000"),
}
STATIC_RULES = {
    "static": Rule("a dictionary", "{url: /static, path: app/static}"),
    "static.url": Rule(
        "a path that begins with /, none of its parts with a dot",
        "/static",
        values.matches(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+/?"),
        shown=True,
    ),
    "static.path": _FOLDER._replace(example="app/static"),
    "static.expires": Rule(
        "a time of nginx, `max`, `off` or `epoch`",
        "1h",
        values.matches(r"[0-9]{1,9}(?:ms|[smhdwMy])?|max|off|epoch"),
        shown=True,
    ),
}
LIMITS_RULES = {
    "limits.memory_max": Rule(
        "a size with its unit K, M, G or T, or a percentage",
        "512M",
        values.matches(r"[1-9][0-9]{0,9}[KMGT]|[1-9][0-9]?%|100%"),
        shown=True,
    ),
    "limits.cpu_quota": Rule("a percentage of one processor", "150%", values.matches(r"[1-9][0-9]{0,5}%"), shown=True),
    "limits.tasks_max": _number(1, 10**7, "64"),
}
SITE_RULES = {
    **SHARED_SITE_RULES,
    **STATIC_RULES,
    "static": Rule("a dictionary", "{url: /static, path: /srv/docs/static}"),
    "static.path": _DIRECTORY._replace(example="/srv/docs/static"),
    **TLS_RULES,
    "name": Rule(
        "a lower-case letter and up to 24 lower-case letters, digits or hyphens",
        "docs",
        values.matches(values.NAME),
        shown=True,
    ),
    "domain": _HOST_NAME._replace(example="docs.example.org"),
    "aliases": _HOST_NAME._replace(example="www.example.org"),
    "upstream": Rule(
        "host:port or unix:/path, which parameters of nginx's `server` may follow",
        '"127.0.0.1:8080 weight=2"',
        values.matches(values.SERVER),
        shown=True,
    ),
    "root": _DIRECTORY._replace(example="/srv/docs"),
    "redirect": Rule(
        "an http or https URL without credentials, special characters percent-encoded",
        "https://www.example.org",
        values.is_redirect,
    ),
}

# By key of an app; dotted for what is in its dictionaries.
APP_RULES = {
    "name": Rule(
        "a lower-case letter and up to 24 lower-case letters, digits or hyphens",
        "hello",
        values.matches(values.NAME),
        shown=True,
    ),
    "domain": _HOST_NAME,
    "aliases": _HOST_NAME._replace(example="www.example.org"),
    "repository": Rule(
        "an https, http, ssh, git or file URL, host:path or an absolute path, without a query, with "
        "special characters percent-encoded",
        "https://git.example.org/hello.git",
        values.is_repository,
    ),
    "repository_key": Rule(
        "the text of a private key, or the path of a file on the controller",
        "files/deploy_key",
        values.is_private_key,
        lines=True,
    ),
    "repository_known_hosts": Rule(
        "lines of a known_hosts file, or the path of such a file on the controller", "files/known_hosts", lines=True
    ),
    "allowed_signers": Rule(
        "a line of an allowed_signers file: who, and a public SSH key",
        "alice@example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO",
        values.matches(values.SIGNER),
    ),
    "version": Rule("a branch, tag or commit", '"1.10"', values.is_version, shown=True),
    "path": _FOLDER._replace(example="src/web"),
    "user": Rule(
        "an account of its own: a lower-case letter and up to 30 lower-case letters, digits, hyphens or "
        "underscores, not root nor an account of the system",
        "flask-hello",
        values.is_user,
        shown=True,
    ),
    "entrypoint": Rule("module:callable", "hello.web:app", values.matches(values.ENTRYPOINT), shown=True),
    "python": Rule(
        "a version of Python 3, the name of its executable or an absolute path", '"3.12"', values.is_python, shown=True
    ),
    "requirements": _FOLDER._replace(example="requirements/production.txt"),
    "extra_packages": Rule(
        "a requirement specifier that begins with a letter or digit and carries no credentials",
        "pymysql",
        values.is_requirement,
    ),
    "index_url": _INDEX,
    "ca_file": _DIRECTORY._replace(example="/etc/ssl/certs/example.pem"),
    "system_packages": Rule(
        "a list of package names, or a dictionary of such lists by OS family (Debian, RedHat)",
        "{Debian: [libpq5], RedHat: [libpq]}",
        values.is_system_packages,
    ),
    "build_commands": _COMMAND._replace(example="flask translate compile"),
    "release_commands": _COMMAND,
    "command_timeout": Rule("a number of seconds from 1 to 86400", "600", values.within(1, 86400), shown=True),
    "env": Rule("a dictionary", '{GREETING: "hello"}'),
    "secrets": Rule("a dictionary", '{SECRET_KEY: "{{ vault_secret_key }}"}'),
    "shared_paths": Rule(
        f"{_FOLDER.expected}, none of its parts `.git`, `.venv` or `.shared_paths`",
        "uploads",
        values.is_shared,
        shown=True,
    ),
    "processes": Rule("a dictionary", "{worker: rq worker tasks}"),
    "processes.command": _COMMAND._replace(example="rq worker tasks"),
    "processes.instances": _number(1, 64, "2"),
    "processes.limits": Rule("a dictionary", "{memory_max: 512M}"),
    **{f"processes.{key}": rule for key, rule in LIMITS_RULES.items()},
    "processes.stop_timeout": Rule("a number of seconds from 1 to 86400", "600", values.within(1, 86400), shown=True),
    "schedules": Rule("a dictionary", "{cleanup: {command: flask cleanup, on_calendar: daily}}"),
    "schedules.command": _COMMAND._replace(example="flask cleanup"),
    "schedules.on_calendar": Rule("a calendar event of systemd (systemd.time(7))", "daily", is_calendar, shown=True),
    "schedules.random_delay": _number(0, 10**6 - 1, "300"),
    "schedules.timeout": Rule("a number of seconds from 1 to 604800", "3600", values.within(1, 604800), shown=True),
    "server": Rule("a dictionary", "{workers: 4}"),
    "server.workers": Rule("`auto` or a number from 1 to 1024", "4", values.is_workers, shown=True),
    "server.threads": _number(1, 1024, "4"),
    "server.timeout": _SECONDS,
    "server.max_requests": _number(0, 10**9, "1000"),
    "health_path": Rule("a path that begins with / and has no spaces", "/health", values.matches(r"/[!-~]*")),
    "health_timeout": _SECONDS,
    "health_status": Rule(
        "a status code such as 204, or a class of them from 1xx to 5xx", "2xx", values.is_health_status, shown=True
    ),
    "settle": Rule("a number of seconds from 0 to 3600", "5", values.within(0, 3600), shown=True),
    **STATIC_RULES,
    **TLS_RULES,
    "site": Rule("a dictionary", '{extra: "allow 192.0.2.0/24; deny all;"}'),
    **{f"site.{key}": rule for key, rule in SHARED_SITE_RULES.items()},
    "limits": Rule("a dictionary", "{memory_max: 512M}"),
    **LIMITS_RULES,
    "sandbox": Rule("a dictionary", "{network: false}"),
    "sandbox.writable": Rule(
        f"{_DIRECTORY.expected}, and not below {', '.join(values.NEVER_WRITABLE)}",
        "/srv/exports",
        values.is_writable,
        shown=True,
    ),
    "database": Rule("a dictionary", "{engine: postgresql}"),
    "database.name": Rule(
        "a lower-case letter and up to 30 lower-case letters, digits or underscores, and none of the server's own",
        "hello",
        values.is_database_name,
        shown=True,
    ),
    "database.host": Rule(
        "the inventory's name of a host, or an address",
        "db1",
        values.matches(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,252}"),
        shown=True,
    ),
    "database.port": _number(1, 65535, "5432"),
    "database.user": Rule(
        "a name of letters, digits, hyphens and underscores",
        "hello",
        values.matches(r"[A-Za-z_][A-Za-z0-9_-]{0,31}"),
        shown=True,
    ),
    "database.password_secret": Rule(
        "the name of an entry of `secrets`", "DATABASE_PASSWORD", values.matches(values.ENVIRONMENT_NAME)
    ),
    "database.scheme": Rule(
        "how the URL begins, one of " + ", ".join(scheme for schemes in SCHEMES.values() for scheme in schemes),
        "mysql+mysqldb",
        lambda value: any(value in schemes for schemes in SCHEMES.values()),
        shown=True,
    ),
    "database.variable": _VARIABLE,
    "database.backups": _number(0, 1000, "5"),
    "cache": Rule("a dictionary", "{engine: valkey}"),
    "cache.variable": _VARIABLE._replace(example="REDIS_URL"),
    "keep_releases": _number(1, 100, "3"),
    "before_switch": _COMMAND._replace(example="flask warm-up"),
    "after_switch": _COMMAND._replace(example="flask announce"),
}

_MAIL = Rule("a mail address", "admin@example.org", values.matches(r"[!-?A-~]+@[A-Za-z0-9.-]+"))

ROLE_RULES = {
    "flask_apps": Rule(
        "a list of dictionaries",
        "{name: hello, domain: hello.example.org, repository: https://git.example.org/hello.git}",
    ),
    "flask_app_defaults": Rule("a dictionary of keys of an app", "{keep_releases: 5}"),
    "flask_app_overrides": Rule("a dictionary by name of app", "{hello: {version: v2}}"),
    "flask_app_only": Rule("the name of an app", "hello", shown=True),
    "flask_app_rollback_to": Rule(
        "a dictionary of names of apps to a release, to the first 4 digits of a commit or more, or to '' for the "
        "previous release; quote them",
        '{hello: "1f3a9c02"}',
        values.is_rollback,
    ),
    "flask_app_hooks": Rule("a dictionary", "{after_activation: announce.yml}"),
    "flask_app_notify": Rule("a dictionary", "{kind: mail, to: [admin@example.org]}"),
    "flask_app_notify.url": Rule(
        "an http or https URL",
        "https://hooks.example.org/deployments",
        values.matches(rf"https?://(?:[!-.0-~]*@)?{values.HOST}(?:[/?][!-~]*)?"),
    ),
    "flask_app_notify.token": Rule("printable text without spaces", '"{{vault_token}}"', values.matches("[!-~]+")),
    "flask_app_notify.to": _MAIL,
    "flask_app_notify.from": _MAIL,
    "flask_app_notify.file": Rule("the path of a file of tasks", "announce.yml"),
    "flask_app_notify.timeout": _number(1, 60, "5"),
    "flask_app_metrics_file": Rule(
        "an absolute path that ends in .prom",
        "/var/lib/prometheus/node-exporter/flask_apps.prom",
        lambda value: bool(values.ABSOLUTE.fullmatch(value)) and value.endswith(".prom"),
        shown=True,
    ),
    "flask_app_activation_jobs": _number(1, 256, "4"),
    "flask_app_memory_reserve": _number(0, 10**6, "64"),
    "flask_app_root": _DIRECTORY._replace(example="/opt/flask_apps"),
    "flask_app_data_root": _DIRECTORY._replace(example="/var/lib/flask_apps"),
    "flask_app_runtime_root": _DIRECTORY._replace(example="/run/flask_apps"),
    "flask_app_index_url": _INDEX,
    "flask_app_ca_file": _DIRECTORY._replace(example="/etc/ssl/certs/example.pem"),
    "flask_app_build_jobs": _number(0, 256, "4"),
    "flask_app_proxy_user": Rule("the name of an account", "www-data", values.matches(values.ACCOUNT), shown=True),
    "flask_app_template_paths": Rule("a directory", "templates", shown=True),
    "flask_app_release_commands_done": Rule(
        "a dictionary of names of apps to a release without its suffix, or to the first 8 digits of a commit or more; "
        "quote them",
        '{hello: "1f3a9c02"}',
        values.is_done,
    ),
    "flask_app_release_commands_marker": _COMMAND._replace(
        example='curl --fail --silent --output /dev/null "https://releases.example.org/$APP/$RELEASE"'
    ),
    "flask_app_release_leader": Rule("the inventory's name of a host", "web1", shown=True),
    "nginx_sites": Rule("a list of dictionaries", "{name: docs, domain: docs.example.org, root: /srv/docs}"),
    "nginx_site_acme_email": _MAIL,
    "nginx_site_acme_directory": Rule(
        "an https URL without credentials",
        "https://acme-staging-v02.api.letsencrypt.org/directory",
        values.matches(rf"https://{values.HOST}/(?:{values.PATH})?"),
        shown=True,
    ),
    "nginx_site_acme_ca_file": _DIRECTORY._replace(example="/etc/ssl/certs/example.pem"),
    "nginx_site_template_paths": Rule("a directory", "templates", shown=True),
    "backing_service_address": _ADDRESS,
    "backing_service_networks": Rule("an IPv4 address or network", "10.0.0.0/24", values.is_ipv4_network, shown=True),
    "backing_service_group": _GROUP,
    "backing_service_purge": Rule("the name of an app", "old", values.matches(values.NAME), shown=True),
    "nginx_site_balancer_group": _GROUP._replace(example="load_balancers"),
    "load_balancer_group": _GROUP,
    "load_balancer_address": _ADDRESS,
    "load_balancer_server_address": Rule(
        "an address or a host name", "10.0.0.11", values.matches(r"(?:[A-Za-z0-9_.:-]{1,253})?"), shown=True
    ),
    "load_balancer_tls": Rule("a dictionary", "{mode: self_signed}"),
    "load_balancer_tls.certificate": _PEM._replace(example="files/edge.pem"),
    "load_balancer_tls.certificate_key": _PEM._replace(example="files/edge.key"),
    "load_balancer_tls.hsts_max_age": _number(0, 10**9, "31536000"),
    "load_balancer_timeouts": Rule("a dictionary", "{connect: 2}"),
    **{
        f"load_balancer_timeouts.{key}": _number(1, 10**6 - 1, example)
        for key, example in (
            ("connect", "2"), ("client", "60"), ("server", "65"), ("keep_alive", "60"), ("tunnel", "3600"),
            ("shutdown", "600"),
        )
    },
    "load_balancer_check": Rule("a dictionary", "{interval: 2}"),
    **{
        f"load_balancer_check.{key}": _number(1, 1000, example)
        for key, example in (("interval", "2"), ("timeout", "5"), ("fall", "3"), ("rise", "2"))
    },
    "load_balancer_stats_password": Rule(
        "8 printable ASCII characters or more, without spaces",
        "a-long-random-word",
        values.matches(r"[!-~]{8,200}"),
    ),
    "load_balancer_stats_address": Rule("an IP address", "127.0.0.1", values.is_address, shown=True),
    "load_balancer_stats_port": _number(1, 65535, "9000"),
    "load_balancer_template_paths": Rule("a directory", "templates", shown=True),
}  # fmt: skip
