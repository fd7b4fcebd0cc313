# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What argument specifications cannot express about values: patterns, bounds, names that are taken."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any, Callable, NamedTuple

from .calendar import is_calendar

OS_FAMILIES = ("Debian", "RedHat")

# Accounts of the supported distributions' base systems, and of services that may share a host with the apps. A list,
# because the controller sees no user ids.
SYSTEM_ACCOUNTS = frozenset(
    "_apt _chrony adm apache avahi backup bin caddy chrony cockpit-ws daemon dbus dnsmasq ftp games geoclue git gnats "
    "halt haproxy httpd irc landscape libstoragemgmt list lp lxd mail man memcache memcached messagebus mongodb mysql "
    "news nginx nobody ntp operator pcap polkitd pollinate postfix postgres proxy rabbitmq redis root rpc rpcuser "
    "rtkit setroubleshoot shutdown sshd sssd sync sys syslog tcpdump tomcat tss unbound usbmux uucp uuidd valkey "
    "varnish www-data".split()
)

ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# Set by the unit, by systemd for it (systemd.exec(5)) or in place of the server's settings: an entry of the app's
# environment would silently win over them.
RESERVED_ENVIRONMENT = frozenset(
    "CACHE_DIRECTORY CREDENTIALS_DIRECTORY GUNICORN_CMD_ARGS HOME INVOCATION_ID JOURNAL_STREAM LISTEN_FDNAMES "
    "LISTEN_FDS LISTEN_PID LOGNAME LOGS_DIRECTORY MAINPID NOTIFY_SOCKET PATH RUNTIME_DIRECTORY SHELL STATE_DIRECTORY "
    "SYSTEMD_EXEC_PID USER VIRTUAL_ENV WATCHDOG_PID WATCHDOG_USEC".split()
)

# MAX_ARG_STRLEN of Linux: what "NAME=value" and its closing NUL may take in execve(2).
ENVIRONMENT_ENTRY_BYTES = 128 * 1024

# What may be shown of a key: anything else may be a value that ended up on the wrong side of the colon.
PLAIN_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")

# What the sandbox hides from apps or protects for all of them, whatever they ask for.
NEVER_WRITABLE = ("/dev", "/home", "/proc", "/root", "/run/user", "/sys")

PROCESS_NAME_WORDS = (
    "a lower-case letter and up to 24 lower-case letters, digits or hyphens, neither `web` nor `live`, and without "
    "`command-`, `once-` or `settle-` in front"
)

_PLANES = range(0, 0x110000, 0x10000)
_BROKEN = "\ud800-\udfff\ufdd0-\ufdef" + "".join(chr(plane + last) for plane in _PLANES for last in (0xFFFE, 0xFFFF))
_UNENCODABLE = re.compile(f"[\0{_BROKEN}]")
_CONTROL = re.compile(f"[\0-\x1f\x7f-\x9f\u2028\u2029{_BROKEN}]")

_NAME = re.compile(r"[a-z][a-z0-9-]{0,24}")
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)*(?![0-9]+\Z){_LABEL}")  # all digits last would be an address
_SEGMENT = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9_.][A-Za-z0-9._+@-]*"
_RELATIVE = re.compile(rf"(?:\./)?{_SEGMENT}(?:/{_SEGMENT})*/?")
_ABSOLUTE = re.compile(rf"(?:/{_SEGMENT})+")
_DOTTED = r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*"
_ENTRYPOINT = re.compile(rf"""{_DOTTED}(?::{_DOTTED}(?:\([A-Za-z0-9_ ,=.'"-]*\))?)?""")
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
_USER = r"[A-Za-z0-9_][A-Za-z0-9._-]*@"
_PATH = r"[A-Za-z0-9._~%+,=()!*/-]+"
# No `ext::` and other transports that run commands, no host that begins with a hyphen, no character that git's
# configuration would read otherwise, and no place for a credential to hide in: an @ of a path must be percent-encoded.
_REPOSITORY = re.compile(
    rf"(?:https?|git)://{_HOST}/{_PATH}"
    rf"|ssh://(?:{_USER})?{_HOST}/{_PATH}"
    rf"|(?:{_USER})?[A-Za-z0-9][A-Za-z0-9._-]*:(?!-|//){_PATH}"
    rf"|(?:file://)?/{_PATH}"
)
# As in nginx's `server` of an `upstream`: an address, and parameters of known names.
_SERVER = re.compile(
    rf"(?:unix:(?:/{_SEGMENT})+|{_HOST})"
    r"(?: (?:(?:weight|max_conns|max_fails)=[0-9]{1,6}|fail_timeout=[0-9]{1,6}s?|backup|down))*"
)
_USERINFO = re.compile(r"(?P<scheme>[a-z]+)://(?P<userinfo>[^/]*)@")
_INDEX_URL = re.compile(rf"https?://{_HOST}(?:/(?:{_PATH})?)?")
# ssh-keygen(1), ALLOWED SIGNERS: principals, options, type of the key, the key, a comment
_SIGNER = re.compile(
    r"[^\s#\"]\S* (?:[a-z-]+(?:=\"[^\"]*\")?(?:,[a-z-]+(?:=\"[^\"]*\")?)* )?"
    r"(?:ssh-|ecdsa-|sk-)[a-z0-9@.-]+ [A-Za-z0-9+/]+=*(?: .*)?"
)


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


def _matches(pattern):
    return lambda value: re.fullmatch(pattern, value) is not None


def _within(low, high):
    return lambda value: low <= value <= high


def _number(low, high, example):
    words = f"a number from {low} to {high}" if high < 10**6 else f"a number from {low} on"
    return Rule(words, example, _within(low, high), shown=True)


def _is_domain(value):
    return len(value) <= 253 and _DOMAIN.fullmatch(value) is not None


def _is_version(value):
    # git-check-ref-format(1), without its rules on full names. A leading hyphen would be an option of git.
    return (
        re.fullmatch(r"[^-\s~^:?*\[\\][^\s~^:?*\[\\]{0,249}", value) is not None
        and ".." not in value
        and "@{" not in value
        and not value.endswith(("/", ".", ".lock"))
    )


def _is_user(value):
    return (
        _ACCOUNT.fullmatch(value) is not None
        and value not in SYSTEM_ACCOUNTS
        and not value.startswith(("systemd-", "flaskfleet-"))
    )


def _is_repository(value):
    return _REPOSITORY.fullmatch(without_credentials(value)) is not None


def _is_redirect(value):
    return re.fullmatch(rf"https?://{_HOST}(?:/[!#%&'()*+,./0-9:=?@A-Za-z_~-]*)?", value) is not None


def _is_file(value):
    return len(value) < 4096 and Path(value).is_file()


def _is_network(value):
    try:
        ipaddress.ip_network(value)
    except ValueError:
        return False
    return True


def _is_address(value):
    return _is_network(value) and "/" not in value


def _is_ipv4_network(value):
    return _is_network(value) and ":" not in value


def _is_pem(value):
    # what is still a path was no file, or nobody has looked
    return "-----BEGIN " in value or _is_file(value)


def _is_private_key(value):
    # what is still a path was no file, or nobody has looked
    return " PRIVATE KEY-----" in value or _is_file(value)


def _is_python(value):
    return re.fullmatch(r"(?:python)?3(?:\.[0-9]{1,2})?", value) is not None or _ABSOLUTE.fullmatch(value) is not None


def _is_requirement(value):
    return re.match(r"[A-Za-z0-9]", value) is not None and not re.search(r"://[^/\s]*@", value)


def _is_package_list(value):
    return isinstance(value, list) and all(
        isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+_:=~-]*", name) for name in value
    )


def _is_system_packages(value):
    lists = value if isinstance(value, dict) else dict.fromkeys(OS_FAMILIES, value)
    return all(family in OS_FAMILIES and _is_package_list(names) for family, names in lists.items())


def _is_shared(value):
    # the last two are a build's own
    return re.fullmatch(_RELATIVE, value) is not None and not {".git", ".venv", ".shared_paths"} & {*value.split("/")}


def _is_workers(value):
    return value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1024)


def _is_rollback(value):
    return all(isinstance(each, str) and re.fullmatch(r"(?:[0-9a-f.-]{4,40})?", each) for each in value.values())


def _is_done(value):
    return all(isinstance(each, str) and re.fullmatch(r"[0-9a-f-]{8,40}", each) for each in value.values())


def _is_writable(value):
    return re.fullmatch(_ABSOLUTE, value) is not None and not f"{value}/".startswith(
        tuple(f"{path}/" for path in NEVER_WRITABLE)
    )


def _is_health_status(value):
    if isinstance(value, int):
        return 100 <= value <= 599
    return isinstance(value, str) and re.fullmatch(r"[1-5](?:[0-9][0-9]|xx)", value) is not None


_HOST_NAME = Rule(
    "a host name of lower-case labels (letters, digits, hyphens) joined by dots",
    "hello.example.org",
    _is_domain,
    shown=True,
)
_FOLDER = Rule("a relative path without `..`, of letters, digits and ._+@-", "uploads", _matches(_RELATIVE), shown=True)
_DIRECTORY = Rule(
    "an absolute path without `..`, of letters, digits and ._+@-", "/srv/example", _matches(_ABSOLUTE), shown=True
)
_INDEX = Rule(
    "an http or https URL without credentials, which the host's pip configuration can hold",
    "https://packages.example.org/simple",
    _matches(_INDEX_URL),
)
_COMMAND = Rule("a command on one line", "flask db upgrade", lambda value: not value.isspace() and value != "")
_SECONDS = Rule("a number of seconds from 1 to 3600", "30", _within(1, 3600), shown=True)
_VARIABLE = Rule("the name of an environment variable", "DATABASE_URL", _matches(ENVIRONMENT_NAME), shown=True)

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
# Databases that the servers have for themselves.
_SERVERS_OWN = frozenset("postgres template0 template1 mysql information_schema performance_schema sys test".split())

_ADDRESS = Rule("an address of the host", "10.0.0.5", _is_address, shown=True)
_GROUP = Rule("the name of a group of the inventory", "appservers", _matches(r"[A-Za-z_]\w*"), shown=True)
_NETWORK = Rule("an address or a network", "192.0.2.0/24", _is_network, shown=True)

# By key of a site; dotted for what is in its dictionaries. Those of `SHARED_SITE_RULES` are an app's as well, in its
# dictionary `site`.
SHARED_SITE_RULES = {
    "extra": Rule("text", '"allow 192.0.2.0/24; deny all;"', lines=True),
    "template": Rule("the path of a file on the controller", "templates/mine.conf.j2", _is_file, shown=True),
    "max_body_size": Rule(
        "a size of nginx: a number and k, m or g", "20m", _matches(r"[0-9]{1,9}[kKmMgG]?"), shown=True
    ),
    "connect_timeout": _SECONDS._replace(example="5"),
    "read_timeout": _number(1, 10**6 - 1, "60"),
    "send_timeout": _number(1, 10**6 - 1, "60"),
    "retry_after": _number(1, 10**9, "300"),
    "error_page": Rule("the path of a file on the controller", "templates/down.html.j2", _is_file, shown=True),
    "allow": _NETWORK,
    "trusted_proxies": _NETWORK,
    "headers": Rule("a dictionary", '{X-Frame-Options: DENY, Referrer-Policy: ""}'),
}
_PEM = Rule("PEM text, or the path of a file on the controller", "files/hello.pem", _is_pem, lines=True)
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
        _matches(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+/?"),
        shown=True,
    ),
    "static.path": _FOLDER._replace(example="app/static"),
    "static.expires": Rule(
        "a time of nginx, `max`, `off` or `epoch`",
        "1h",
        _matches(r"[0-9]{1,9}(?:ms|[smhdwMy])?|max|off|epoch"),
        shown=True,
    ),
}
LIMITS_RULES = {
    "limits.memory_max": Rule(
        "a size with its unit K, M, G or T, or a percentage",
        "512M",
        _matches(r"[1-9][0-9]{0,9}[KMGT]|[1-9][0-9]?%|100%"),
        shown=True,
    ),
    "limits.cpu_quota": Rule("a percentage of one processor", "150%", _matches(r"[1-9][0-9]{0,5}%"), shown=True),
    "limits.tasks_max": _number(1, 10**7, "64"),
}
SITE_RULES = {
    **SHARED_SITE_RULES,
    **STATIC_RULES,
    "static": Rule("a dictionary", "{url: /static, path: /srv/docs/static}"),
    "static.path": _DIRECTORY._replace(example="/srv/docs/static"),
    **TLS_RULES,
    "name": Rule(
        "a lower-case letter and up to 24 lower-case letters, digits or hyphens", "docs", _matches(_NAME), shown=True
    ),
    "domain": _HOST_NAME._replace(example="docs.example.org"),
    "aliases": _HOST_NAME._replace(example="www.example.org"),
    "upstream": Rule(
        "host:port or unix:/path, which parameters of nginx's `server` may follow",
        '"127.0.0.1:8080 weight=2"',
        _matches(_SERVER),
        shown=True,
    ),
    "root": _DIRECTORY._replace(example="/srv/docs"),
    "redirect": Rule(
        "an http or https URL without credentials, special characters percent-encoded",
        "https://www.example.org",
        _is_redirect,
    ),
}

# By key of an app; dotted for what is in its dictionaries.
APP_RULES = {
    "name": Rule(
        "a lower-case letter and up to 24 lower-case letters, digits or hyphens", "hello", _matches(_NAME), shown=True
    ),
    "domain": _HOST_NAME,
    "aliases": _HOST_NAME._replace(example="www.example.org"),
    "repository": Rule(
        "an https, http, ssh, git or file URL, host:path or an absolute path, without a query, with "
        "special characters percent-encoded",
        "https://git.example.org/hello.git",
        _is_repository,
    ),
    "repository_key": Rule(
        "the text of a private key, or the path of a file on the controller",
        "files/deploy_key",
        _is_private_key,
        lines=True,
    ),
    "repository_known_hosts": Rule(
        "lines of a known_hosts file, or the path of such a file on the controller", "files/known_hosts", lines=True
    ),
    "allowed_signers": Rule(
        "a line of an allowed_signers file: who, and a public SSH key",
        "alice@example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO",
        _matches(_SIGNER),
    ),
    "version": Rule("a branch, tag or commit", '"1.10"', _is_version, shown=True),
    "path": _FOLDER._replace(example="src/web"),
    "user": Rule(
        "an account of its own: a lower-case letter and up to 30 lower-case letters, digits, hyphens or "
        "underscores, not root nor an account of the system",
        "flask-hello",
        _is_user,
        shown=True,
    ),
    "entrypoint": Rule("module:callable", "hello.web:app", _matches(_ENTRYPOINT), shown=True),
    "python": Rule(
        "a version of Python 3, the name of its executable or an absolute path", '"3.12"', _is_python, shown=True
    ),
    "requirements": _FOLDER._replace(example="requirements/production.txt"),
    "extra_packages": Rule(
        "a requirement specifier that begins with a letter or digit and carries no credentials",
        "pymysql",
        _is_requirement,
    ),
    "index_url": _INDEX,
    "ca_file": _DIRECTORY._replace(example="/etc/ssl/certs/example.pem"),
    "system_packages": Rule(
        "a list of package names, or a dictionary of such lists by OS family (Debian, RedHat)",
        "{Debian: [libpq5], RedHat: [libpq]}",
        _is_system_packages,
    ),
    "build_commands": _COMMAND._replace(example="flask translate compile"),
    "release_commands": _COMMAND,
    "command_timeout": Rule("a number of seconds from 1 to 86400", "600", _within(1, 86400), shown=True),
    "env": Rule("a dictionary", '{GREETING: "hello"}'),
    "secrets": Rule("a dictionary", '{SECRET_KEY: "{{ vault_secret_key }}"}'),
    "shared_paths": Rule(
        f"{_FOLDER.expected}, none of its parts `.git`, `.venv` or `.shared_paths`", "uploads", _is_shared, shown=True
    ),
    "processes": Rule("a dictionary", "{worker: rq worker tasks}"),
    "processes.command": _COMMAND._replace(example="rq worker tasks"),
    "processes.instances": _number(1, 64, "2"),
    "processes.limits": Rule("a dictionary", "{memory_max: 512M}"),
    **{f"processes.{key}": rule for key, rule in LIMITS_RULES.items()},
    "processes.stop_timeout": Rule("a number of seconds from 1 to 86400", "600", _within(1, 86400), shown=True),
    "schedules": Rule("a dictionary", "{cleanup: {command: flask cleanup, on_calendar: daily}}"),
    "schedules.command": _COMMAND._replace(example="flask cleanup"),
    "schedules.on_calendar": Rule("a calendar event of systemd (systemd.time(7))", "daily", is_calendar, shown=True),
    "schedules.random_delay": _number(0, 10**6 - 1, "300"),
    "schedules.timeout": Rule("a number of seconds from 1 to 604800", "3600", _within(1, 604800), shown=True),
    "server": Rule("a dictionary", "{workers: 4}"),
    "server.workers": Rule("`auto` or a number from 1 to 1024", "4", _is_workers, shown=True),
    "server.threads": _number(1, 1024, "4"),
    "server.timeout": _SECONDS,
    "server.max_requests": _number(0, 10**9, "1000"),
    "health_path": Rule("a path that begins with / and has no spaces", "/health", _matches(r"/[!-~]*")),
    "health_timeout": _SECONDS,
    "health_status": Rule(
        "a status code such as 204, or a class of them from 1xx to 5xx", "2xx", _is_health_status, shown=True
    ),
    "settle": Rule("a number of seconds from 0 to 3600", "5", _within(0, 3600), shown=True),
    **STATIC_RULES,
    **TLS_RULES,
    "site": Rule("a dictionary", '{extra: "allow 192.0.2.0/24; deny all;"}'),
    **{f"site.{key}": rule for key, rule in SHARED_SITE_RULES.items()},
    "limits": Rule("a dictionary", "{memory_max: 512M}"),
    **LIMITS_RULES,
    "sandbox": Rule("a dictionary", "{network: false}"),
    "sandbox.writable": Rule(
        f"an absolute path without `..`, of letters, digits and ._+@-, and not below {', '.join(NEVER_WRITABLE)}",
        "/srv/exports",
        _is_writable,
        shown=True,
    ),
    "database": Rule("a dictionary", "{engine: postgresql}"),
    "database.name": Rule(
        "a lower-case letter and up to 30 lower-case letters, digits or underscores, and none of the server's own",
        "hello",
        lambda value: re.fullmatch(r"[a-z][a-z0-9_]{0,30}", value) is not None and value not in _SERVERS_OWN,
        shown=True,
    ),
    "database.host": Rule(
        "the inventory's name of a host, or an address",
        "db1",
        _matches(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,252}"),
        shown=True,
    ),
    "database.port": _number(1, 65535, "5432"),
    "database.user": Rule(
        "a name of letters, digits, hyphens and underscores",
        "hello",
        _matches(r"[A-Za-z_][A-Za-z0-9_-]{0,31}"),
        shown=True,
    ),
    "database.password_secret": Rule(
        "the name of an entry of `secrets`", "DATABASE_PASSWORD", _matches(ENVIRONMENT_NAME)
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

_MAIL = Rule("a mail address", "admin@example.org", _matches(r"[!-?A-~]+@[A-Za-z0-9.-]+"))

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
        _is_rollback,
    ),
    "flask_app_hooks": Rule("a dictionary", "{after_activation: announce.yml}"),
    "flask_app_notify": Rule("a dictionary", "{kind: mail, to: [admin@example.org]}"),
    "flask_app_notify.url": Rule(
        "an http or https URL",
        "https://hooks.example.org/deployments",
        _matches(rf"https?://(?:[!-.0-~]*@)?{_HOST}(?:[/?][!-~]*)?"),
    ),
    "flask_app_notify.token": Rule("printable text without spaces", '"{{vault_token}}"', _matches("[!-~]+")),
    "flask_app_notify.to": _MAIL,
    "flask_app_notify.from": _MAIL,
    "flask_app_notify.file": Rule("the path of a file of tasks", "announce.yml"),
    "flask_app_notify.timeout": _number(1, 60, "5"),
    "flask_app_metrics_file": Rule(
        "an absolute path that ends in .prom",
        "/var/lib/prometheus/node-exporter/flask_apps.prom",
        lambda value: bool(_ABSOLUTE.fullmatch(value)) and value.endswith(".prom"),
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
    "flask_app_proxy_user": Rule("the name of an account", "www-data", _matches(_ACCOUNT), shown=True),
    "flask_app_template_paths": Rule("a directory", "templates", shown=True),
    "flask_app_release_commands_done": Rule(
        "a dictionary of names of apps to a release without its suffix, or to the first 8 digits of a commit or more; "
        "quote them",
        '{hello: "1f3a9c02"}',
        _is_done,
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
        _matches(rf"https://{_HOST}/(?:{_PATH})?"),
        shown=True,
    ),
    "nginx_site_acme_ca_file": _DIRECTORY._replace(example="/etc/ssl/certs/example.pem"),
    "nginx_site_template_paths": Rule("a directory", "templates", shown=True),
    "backing_service_address": _ADDRESS,
    "backing_service_networks": Rule("an IPv4 address or network", "10.0.0.0/24", _is_ipv4_network, shown=True),
    "backing_service_group": _GROUP,
    "backing_service_purge": Rule("the name of an app", "old", _matches(_NAME), shown=True),
    "nginx_site_balancer_group": _GROUP._replace(example="load_balancers"),
    "load_balancer_group": _GROUP,
    "load_balancer_address": _ADDRESS,
    "load_balancer_server_address": Rule(
        "an address or a host name", "10.0.0.11", _matches(r"(?:[A-Za-z0-9_.:-]{1,253})?"), shown=True
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
        _matches(r"[!-~]{8,200}"),
    ),
    "load_balancer_stats_address": Rule("an IP address", "127.0.0.1", _is_address, shown=True),
    "load_balancer_stats_port": _number(1, 65535, "9000"),
    "load_balancer_template_paths": Rule("a directory", "templates", shown=True),
}  # fmt: skip


def has_control_characters(text: str, lines: bool = False) -> bool:
    """Say whether a text could end or garble a line of a unit, of nginx's configuration or of a log.

    lines: whether line breaks and tabs are fine.
    """
    return _CONTROL.search(re.sub("[\n\t]", "", text) if lines else text) is not None


# Printable, and neither a quote nor what nginx would take for a variable.
HEADER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,60}")
HEADER_VALUE = re.compile(r"[ !#%-\[\]-~]{0,4000}")


def is_process_name(name: str) -> bool:
    """Say whether a process or schedule can be called so, which is a part of its unit's name."""
    taken = name in ("web", "live") or name.startswith(("command-", "once-", "settle-"))
    return _NAME.fullmatch(name) is not None and not taken


def environment_problem(name: str, value: object) -> str:
    """Say why systemd's EnvironmentFile= or execve(2) cannot carry an entry, without telling its value.

    Returns what completes "`env.NAME` ...", an empty string when nothing is wrong.
    """
    quoted = f'quote it, as in `{name}: "..."`'
    if name in RESERVED_ENVIRONMENT:
        return "is set by the app's unit or by `server`; leave it out"
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return f"must be a string or a whole number: {quoted}"
    if isinstance(value, int):
        return "" if abs(value) < 2**63 else f"is too large for a number: {quoted}"
    # A single such character makes systemd drop the whole file, and log the value.
    if _UNENCODABLE.search(value):
        return "must not have NUL, surrogates or Unicode noncharacters; encode binary data, as Base64 for example"
    if len(f"{name}={value}".encode()) >= ENVIRONMENT_ENTRY_BYTES:
        return "is larger than 128 KiB, more than a process can be given; put it into a file"
    return ""


def without_credentials(repository: str) -> str:
    """Take the credentials out of a repository's URL, all before its @; the name of an ssh account is none."""
    match = _USERINFO.match(repository)
    if match is None:
        return repository
    name = match["userinfo"].partition(":")[0] if match["scheme"] == "ssh" else ""
    return f"{match['scheme']}://{name}{'@' if name else ''}{repository[match.end() :]}"
