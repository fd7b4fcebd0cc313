# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a value may look like: patterns, names that are taken, and what asks whether a value fits them."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

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

# Databases that the servers have for themselves.
_SERVERS_OWN = frozenset("postgres template0 template1 mysql information_schema performance_schema sys test".split())

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
    "`build-`, `command-`, `once-` or `settle-` in front"
)

_PLANES = range(0, 0x110000, 0x10000)
_BROKEN = "\ud800-\udfff\ufdd0-\ufdef" + "".join(chr(plane + last) for plane in _PLANES for last in (0xFFFE, 0xFFFF))
_UNENCODABLE = re.compile(f"[\0{_BROKEN}]")
_CONTROL = re.compile(f"[\0-\x1f\x7f-\x9f\u2028\u2029{_BROKEN}]")

NAME = re.compile(r"[a-z][a-z0-9-]{0,24}")
ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)*(?![0-9]+\Z){_LABEL}")  # all digits last would be an address
_SEGMENT = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9_.][A-Za-z0-9._+@-]*"
RELATIVE = re.compile(rf"(?:\./)?{_SEGMENT}(?:/{_SEGMENT})*/?")
ABSOLUTE = re.compile(rf"(?:/{_SEGMENT})+")
_DOTTED = r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*"
ENTRYPOINT = re.compile(rf"""{_DOTTED}(?::{_DOTTED}(?:\([A-Za-z0-9_ ,=.'"-]*\))?)?""")
HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
_USER = r"[A-Za-z0-9_][A-Za-z0-9._-]*@"
PATH = r"[A-Za-z0-9._~%+,=()!*/-]+"
# No `ext::` and other transports that run commands, no host that begins with a hyphen, no character that git's
# configuration would read otherwise, and no place for a credential to hide in: an @ of a path must be percent-encoded.
_REPOSITORY = re.compile(
    rf"(?:https?|git)://{HOST}/{PATH}"
    rf"|ssh://(?:{_USER})?{HOST}/{PATH}"
    rf"|(?:{_USER})?[A-Za-z0-9][A-Za-z0-9._-]*:(?!-|//){PATH}"
    rf"|(?:file://)?/{PATH}"
)
# As in nginx's `server` of an `upstream`: an address, and parameters of known names.
SERVER = re.compile(
    rf"(?:unix:(?:/{_SEGMENT})+|{HOST})"
    r"(?: (?:(?:weight|max_conns|max_fails)=[0-9]{1,6}|fail_timeout=[0-9]{1,6}s?|backup|down))*"
)
_USERINFO = re.compile(r"(?P<scheme>[a-z]+)://(?P<userinfo>[^/]*)@")
INDEX_URL = re.compile(rf"https?://{HOST}(?:/(?:{PATH})?)?")
# ssh-keygen(1), ALLOWED SIGNERS: principals, options, type of the key, the key, a comment
SIGNER = re.compile(
    r"[^\s#\"]\S* (?:[a-z-]+(?:=\"[^\"]*\")?(?:,[a-z-]+(?:=\"[^\"]*\")?)* )?"
    r"(?:ssh-|ecdsa-|sk-)[a-z0-9@.-]+ [A-Za-z0-9+/]+=*(?: .*)?"
)

# Printable, and neither a quote nor what nginx would take for a variable.
HEADER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,60}")
HEADER_VALUE = re.compile(r"[ !#%-\[\]-~]{0,4000}")


def matches(pattern):
    return lambda value: re.fullmatch(pattern, value) is not None


def within(low, high):
    return lambda value: low <= value <= high


def is_domain(value):
    return len(value) <= 253 and _DOMAIN.fullmatch(value) is not None


def is_version(value):
    # git-check-ref-format(1), without its rules on full names. A leading hyphen would be an option of git.
    return (
        re.fullmatch(r"[^-\s~^:?*\[\\][^\s~^:?*\[\\]{0,249}", value) is not None
        and ".." not in value
        and "@{" not in value
        and not value.endswith(("/", ".", ".lock"))
    )


def is_database_name(value):
    return re.fullmatch(r"[a-z][a-z0-9_]{0,30}", value) is not None and value not in _SERVERS_OWN


def is_user(value):
    return (
        ACCOUNT.fullmatch(value) is not None
        and value not in SYSTEM_ACCOUNTS
        and not value.startswith(("systemd-", "flaskfleet-"))
    )


def is_repository(value):
    return _REPOSITORY.fullmatch(without_credentials(value)) is not None


def is_redirect(value):
    return re.fullmatch(rf"https?://{HOST}(?:/[!#%&'()*+,./0-9:=?@A-Za-z_~-]*)?", value) is not None


def is_file(value):
    return len(value) < 4096 and Path(value).is_file()


def is_network(value):
    try:
        ipaddress.ip_network(value)
    except ValueError:
        return False
    return True


def is_address(value):
    return is_network(value) and "/" not in value


def is_ipv4_network(value):
    return is_network(value) and ":" not in value


def is_pem(value):
    # what is still a path was no file, or nobody has looked
    return "-----BEGIN " in value or is_file(value)


def is_private_key(value):
    # what is still a path was no file, or nobody has looked
    return " PRIVATE KEY-----" in value or is_file(value)


def is_python(value):
    return re.fullmatch(r"(?:python)?3(?:\.[0-9]{1,2})?", value) is not None or ABSOLUTE.fullmatch(value) is not None


def is_requirement(value):
    return re.match(r"[A-Za-z0-9]", value) is not None and not re.search(r"://[^/\s]*@", value)


def _is_package_list(value):
    return isinstance(value, list) and all(
        isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+_:=~-]*", name) for name in value
    )


def is_system_packages(value):
    lists = value if isinstance(value, dict) else dict.fromkeys(OS_FAMILIES, value)
    return all(family in OS_FAMILIES and _is_package_list(names) for family, names in lists.items())


def is_shared(value):
    # the last two are a build's own
    return re.fullmatch(RELATIVE, value) is not None and not {".git", ".venv", ".shared_paths"} & {*value.split("/")}


def is_workers(value):
    return value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1024)


def is_rollback(value):
    return all(isinstance(each, str) and re.fullmatch(r"(?:[0-9a-f.-]{4,40})?", each) for each in value.values())


def is_done(value):
    return all(isinstance(each, str) and re.fullmatch(r"[0-9a-f-]{8,40}", each) for each in value.values())


def is_writable(value):
    return re.fullmatch(ABSOLUTE, value) is not None and not f"{value}/".startswith(
        tuple(f"{path}/" for path in NEVER_WRITABLE)
    )


def is_health_status(value):
    if isinstance(value, int):
        return 100 <= value <= 599
    return isinstance(value, str) and re.fullmatch(r"[1-5](?:[0-9][0-9]|xx)", value) is not None


def has_control_characters(text: str, lines: bool = False) -> bool:
    """Say whether a text could end or garble a line of a unit, of nginx's configuration or of a log.

    lines: whether line breaks and tabs are fine.
    """
    return _CONTROL.search(re.sub("[\n\t]", "", text) if lines else text) is not None


def is_process_name(name: str) -> bool:
    """Say whether a process or schedule can be called so, which is a part of its unit's name."""
    taken = name in ("web", "live") or name.startswith(("build-", "command-", "once-", "settle-"))
    return NAME.fullmatch(name) is not None and not taken


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
