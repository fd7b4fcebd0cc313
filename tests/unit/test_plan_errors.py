# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every way in which the variables can be wrong, and what is said about it."""

from __future__ import annotations

import datetime
import re

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils.plan import PlanError, collect_secrets, make_plan

HELLO = {"name": "hello", "domain": "hello.test", "repository": "https://git.test/hello.git"}
OTHER = {"name": "other", "domain": "other.test", "repository": "https://git.test/other.git"}
PLATFORM = {"os_family": "Debian", "proxy_user": "www-data", "python": "python3"}
CANARY = "canary-0d1f"

NAME = "a lower-case letter and up to 24 lower-case letters, digits or hyphens"
HOST = "a host name of lower-case labels (letters, digits, hyphens) joined by dots"
FOLDER = "a relative path without `..`, of letters, digits and ._+@-"
SHARED = f"{FOLDER}, none of its parts `.git`, `.venv` or `.shared_paths`"
DIRECTORY = "an absolute path without `..`, of letters, digits and ._+@-"
USER = (
    "an account of its own: a lower-case letter and up to 30 lower-case letters, digits, hyphens or underscores, "
    "not root nor an account of the system"
)
REQUIREMENT = (
    "`extra_packages[0]` must be a requirement specifier that begins with a letter or digit and carries no "
    "credentials; for example `extra_packages: [pymysql]`"
)
PACKAGES = (
    "`system_packages` must be a list of package names, or a dictionary of such lists by OS family (Debian, "
    "RedHat); for example `system_packages: {Debian: [libpq5], RedHat: [libpq]}`"
)
CARRIED = "must not have NUL, surrogates or Unicode noncharacters; encode binary data, as Base64 for example"
REPOSITORY = (
    "`repository` must be an https, http, ssh, git or file URL, host:path or an absolute path, without a "
    "query, with special characters percent-encoded; "
    "for example `repository: https://git.example.org/hello.git`"
)
QUOTE = "(quote it, or YAML changes it)"
ENVIRONMENT_NAMES = "must have names of letters, digits and underscores that do not begin with a digit"
SECRETS_EXAMPLE = 'for example `secrets: {SECRET_KEY: "{{ vault_secret_key }}"}`'
ONE_LINE = "must be one line of text without control characters"

# What is wrong with the one app `hello`: changes to it, error without its place.
OF_AN_APP = {
    # Missing and unknown keys
    "no domain": ({"domain": ...}, "`domain` is missing; for example `domain: hello.example.org`"),
    "no repository": (
        {"repository": ...},
        "`repository` is missing; for example `repository: https://git.example.org/hello.git`",
    ),
    "misspelt key": ({"domian": "x"}, "`domian` is not known; did you mean `domain`?"),
    "misspelt secrets": ({"secretes": {"A": CANARY}}, "`secretes` is not known; did you mean `secrets`?"),
    "hyphenated key": ({"health-path": "/"}, "`health-path` is not known; did you mean `health_path`?"),
    "misspelt inner key": ({"server": {"worker": 2}}, "`server.worker` is not known; did you mean `server.workers`?"),
    "far-off inner key": (
        {"limits": {"zzz": 2}},
        "`limits.zzz` is not known; known are memory_max, cpu_quota, tasks_max",
    ),
    "key that is a value": ({f"SECRET={CANARY}": 1}, "has a key that is not a plain word"),
    "key that is a number": ({"limits": {1: 2}}, "`limits` has a key that is not a plain word"),
    # Types
    "text for a list": (
        {"aliases": "www.test"},
        "`aliases` must be a list, not 'www.test'; for example `aliases: [www.example.org]`",
    ),
    "list for text": ({"version": ["v1"]}, '`version` must be a string; for example `version: "1.10"`'),
    "list for a dictionary": ({"env": ["A=b"]}, '`env` must be a dictionary; for example `env: {GREETING: "hello"}`'),
    "secrets as a list": ({"secrets": [f"A={CANARY}"]}, f"`secrets` must be a dictionary; {SECRETS_EXAMPLE}"),
    "secrets as text": ({"secrets": CANARY}, f"`secrets` must be a dictionary; {SECRETS_EXAMPLE}"),
    "empty secrets": (
        {"secrets": None},
        f"`secrets` must be a dictionary (it is empty: leave the key out for its default); {SECRETS_EXAMPLE}",
    ),
    "words for a number": (
        {"keep_releases": "three"},
        "`keep_releases` must be a whole number, not 'three'; for example `keep_releases: 3`",
    ),
    "fraction for a number": ({"settle": 1.5}, "`settle` must be a whole number, not 1.5; for example `settle: 5`"),
    "boolean for a number": ({"settle": True}, "`settle` must be a whole number, not True; for example `settle: 5`"),
    "words for a boolean": (
        {"update": "maybe"},
        "`update` must be true or false, not 'maybe'; for example `update: true`",
    ),
    "number in a list of text": (
        {"aliases": [1]},
        f"`aliases[0]` must be a string {QUOTE}, not 1; for example `aliases: [www.example.org]`",
    ),
    "dictionary in a list of text": (
        {"extra_packages": [{"a": CANARY}]},
        "`extra_packages[0]` must be a string; for example `extra_packages: [pymysql]`",
    ),
    "wrong choice": (
        {"state": "gone"},
        "`state` must be one of present, absent, not 'gone'; for example `state: present`",
    ),
    # YAML's traps
    "version 1.10": ({"version": 1.10}, f'`version` must be a string {QUOTE}, not 1.1; for example `version: "1.10"`'),
    "version 2": ({"version": 2}, f'`version` must be a string {QUOTE}, not 2; for example `version: "1.10"`'),
    "version of a date": (
        {"version": datetime.date(2026, 1, 2)},
        f'`version` must be a string {QUOTE}; for example `version: "1.10"`',
    ),
    "python 3.10": ({"python": 3.10}, f'`python` must be a string {QUOTE}, not 3.1; for example `python: "3.12"`'),
    "name no": ({"name": False}, f"`name` must be a string {QUOTE}, not False; for example `name: hello`"),
    "empty version": (
        {"version": None},
        '`version` must be a string (it is empty: leave the key out for its default); for example `version: "1.10"`',
    ),
    # Names
    "upper-case name": ({"name": "Hello"}, f"`name` must be {NAME}, not 'Hello'; for example `name: hello`"),
    "name with a dot": ({"name": "a.b"}, f"`name` must be {NAME}, not 'a.b'; for example `name: hello`"),
    "name of 26 characters": (
        {"name": "a" * 26},
        f"`name` must be {NAME}, not '{'a' * 26}'; for example `name: hello`",
    ),
    "name with a newline": ({"name": "hello\n"}, f"`name` {ONE_LINE}; for example `name: hello`"),
    "name with a slash": ({"name": "../etc"}, f"`name` must be {NAME}, not '../etc'; for example `name: hello`"),
    "upper-case domain": (
        {"domain": "Hello.test"},
        f"`domain` must be {HOST}, not 'Hello.test'; for example `domain: hello.example.org`",
    ),
    "domain with a semicolon": (
        {"domain": "a.test;"},
        f"`domain` must be {HOST}, not 'a.test;'; for example `domain: hello.example.org`",
    ),
    "URL as domain": (
        {"domain": "http://a.test"},
        f"`domain` must be {HOST}, not 'http://a.test'; for example `domain: hello.example.org`",
    ),
    "address as domain": (
        {"domain": "10.0.0.1"},
        f"`domain` must be {HOST}, not '10.0.0.1'; for example `domain: hello.example.org`",
    ),
    "domain of 254 characters": (
        {"domain": "a." * 126 + "aa"},
        f"`domain` must be {HOST}; for example `domain: hello.example.org`",
    ),
    "label of 64 characters": (
        {"domain": "a" * 64 + ".test"},
        f"`domain` must be {HOST}; for example `domain: hello.example.org`",
    ),
    "wrong alias": (
        {"aliases": ["www.hello.test", "*.hello.test"]},
        f"`aliases[1]` must be {HOST}, not '*.hello.test'; for example `aliases: [www.example.org]`",
    ),
    "alias that is the domain": (
        {"aliases": ["hello.test"]},
        "`aliases[0]` 'hello.test' is taken by flask_apps[0] (hello): `domain`; a host name leads to one place",
    ),
    # Repository and version
    "transport that runs commands": ({"repository": f"ext::sh -c {CANARY}"}, REPOSITORY),
    "repository that is an option": ({"repository": f"--upload-pack={CANARY}"}, REPOSITORY),
    "host that is an option": ({"repository": f"ssh://-oProxyCommand={CANARY}/x"}, REPOSITORY),
    "scp-like host that is an option": ({"repository": f"-oProxyCommand={CANARY}:x"}, REPOSITORY),
    "relative repository": ({"repository": "../hello"}, REPOSITORY),
    "password without scheme": ({"repository": f"me:{CANARY}@git.test/hello.git"}, REPOSITORY),
    "password with a slash": ({"repository": f"https://me:1/{CANARY}@git.test/hello.git"}, REPOSITORY),
    "token in the query": ({"repository": f"https://git.test/hello.git?token={CANARY}"}, REPOSITORY),
    "upper-case scheme": ({"repository": f"HTTPS://me:{CANARY}@git.test/hello.git"}, REPOSITORY),
    "repository with a space": ({"repository": "/srv/git/my hello"}, REPOSITORY),
    "repository with a comment sign": ({"repository": "/srv/git/a;b"}, REPOSITORY),
    "repository with a newline": (
        {"repository": "/srv/git/hello\n"},
        f"`repository` {ONE_LINE}; for example `repository: https://git.example.org/hello.git`",
    ),
    "version that is an option": (
        {"version": "--exec=x"},
        "`version` must be a branch, tag or commit, not '--exec=x'; for example `version: \"1.10\"`",
    ),
    "version with dots": (
        {"version": "a..b"},
        "`version` must be a branch, tag or commit, not 'a..b'; for example `version: \"1.10\"`",
    ),
    "version of git's log": (
        {"version": "main@{1}"},
        "`version` must be a branch, tag or commit, not 'main@{1}'; for example `version: \"1.10\"`",
    ),
    "version of a lock": (
        {"version": "v1.lock"},
        "`version` must be a branch, tag or commit, not 'v1.lock'; for example `version: \"1.10\"`",
    ),
    "empty text as version": (
        {"version": ""},
        "`version` must be a branch, tag or commit, not ''; for example `version: \"1.10\"`",
    ),
    # Paths
    "path upwards": ({"path": "a/../../b"}, f"`path` must be {FOLDER}, not 'a/../../b'; for example `path: src/web`"),
    "absolute path": ({"path": "/etc"}, f"`path` must be {FOLDER}, not '/etc'; for example `path: src/web`"),
    "path with a specifier": ({"path": "a%n"}, f"`path` must be {FOLDER}, not 'a%n'; for example `path: src/web`"),
    "requirements upwards": (
        {"requirements": "../requirements.txt"},
        f"`requirements` must be {FOLDER}, not '../requirements.txt'; "
        "for example `requirements: requirements/production.txt`",
    ),
    "absolute shared path": (
        {"shared_paths": ["/var"]},
        f"`shared_paths[0]` must be {SHARED}, not '/var'; for example `shared_paths: [uploads]`",
    ),
    "shared path of git": (
        {"shared_paths": ["a/.git"]},
        f"`shared_paths[0]` must be {SHARED}, not 'a/.git'; for example `shared_paths: [uploads]`",
    ),
    "shared path of an environment": (
        {"shared_paths": [".venv/lib"]},
        f"`shared_paths[0]` must be {SHARED}, not '.venv/lib'; for example `shared_paths: [uploads]`",
    ),
    "all of the app as a shared path": (
        {"shared_paths": ["./"]},
        f"`shared_paths[0]` must be {SHARED}, not './'; for example `shared_paths: [uploads]`",
    ),
    "shared path twice": (
        {"shared_paths": ["uploads", "./uploads/"]},
        "`shared_paths[1]` 'uploads' is 'uploads' as well, or one lies in the other",
    ),
    "shared path in another": (
        {"shared_paths": ["var/log", "uploads", "var"]},
        "`shared_paths[2]` 'var' is 'var/log' as well, or one lies in the other",
    ),
    "static files in a shared path": (
        {"shared_paths": ["uploads"], "static": [{"url": "/u", "path": "uploads/public/"}]},
        "`static[0].path` 'uploads/public' lies in one of `shared_paths`, which the app alone may read; have the app "
        "serve it",
    ),
    "health path without slash": (
        {"health_path": f"health?key={CANARY}"},
        "`health_path` must be a path that begins with / and has no spaces; for example `health_path: /health`",
    ),
    "health path with a line": (
        {"health_path": "/a\r\nX: y"},
        f"`health_path` {ONE_LINE}; for example `health_path: /health`",
    ),
    # Accounts
    "root": ({"user": "root"}, f"`user` must be {USER}, not 'root'; for example `user: flask-hello`"),
    "account of the distribution": (
        {"user": "www-data"},
        f"`user` must be {USER}, not 'www-data'; for example `user: flask-hello`",
    ),
    "account of systemd": (
        {"user": "systemd-network"},
        f"`user` must be {USER}, not 'systemd-network'; for example `user: flask-hello`",
    ),
    "account that fetches": (
        {"user": "flaskfleet-fetch"},
        f"`user` must be {USER}, not 'flaskfleet-fetch'; for example `user: flask-hello`",
    ),
    "account of 32 characters": (
        {"user": "a" * 32},
        f"`user` must be {USER}, not '{'a' * 32}'; for example `user: flask-hello`",
    ),
    # How it is built and run
    "entrypoint as a file": (
        {"entrypoint": "app.py:"},
        "`entrypoint` must be module:callable, not 'app.py:'; for example `entrypoint: hello.web:app`",
    ),
    "entrypoint as an option": (
        {"entrypoint": "--reload"},
        "`entrypoint` must be module:callable, not '--reload'; for example `entrypoint: hello.web:app`",
    ),
    "python 2": (
        {"python": "2.7"},
        "`python` must be a version of Python 3, the name of its executable or an absolute path, not '2.7'; "
        'for example `python: "3.12"`',
    ),
    "requirement that is an option": ({"extra_packages": [f"--index-url=https://{CANARY}"]}, REQUIREMENT),
    "requirement with credentials": ({"extra_packages": [f"x @ https://me:{CANARY}@pkg.test/x.whl"]}, REQUIREMENT),
    "packages of an unknown family": ({"system_packages": {"Ubuntu": ["libpq5"]}}, PACKAGES),
    "package that is an option": ({"system_packages": ["--force"]}, PACKAGES),
    "command of two lines": (
        {"release_commands": ["a\nb"]},
        f"`release_commands[0]` {ONE_LINE}; for example `release_commands: [flask db upgrade]`",
    ),
    "empty command": (
        {"build_commands": [" "]},
        "`build_commands[0]` must be a command on one line; for example `build_commands: [flask translate compile]`",
    ),
    "no workers": (
        {"server": {"workers": 0}},
        "`server.workers` must be `auto` or a number from 1 to 1024, not 0; for example `server: {workers: 4}`",
    ),
    "workers as a boolean": (
        {"server": {"workers": True}},
        "`server.workers` must be `auto` or a number from 1 to 1024, not True; for example `server: {workers: 4}`",
    ),
    "unknown kind of worker": (
        {"server": {"worker_class": "uvicorn"}},
        "`server.worker_class` must be one of gthread, sync, gevent, not 'uvicorn'; "
        "for example `server: {worker_class: gthread}`",
    ),
    "endless timeout": (
        {"health_timeout": 0},
        "`health_timeout` must be a number of seconds from 1 to 3600, not 0; for example `health_timeout: 30`",
    ),
    "unknown status": (
        {"health_status": ["ok"]},
        "`health_status[0]` must be a status code such as 204, or a class of them from 1xx to 5xx, not 'ok'; "
        "for example `health_status: [2xx]`",
    ),
    "no status": (
        {"health_status": []},
        "`health_status` must not be empty: nothing would be healthy; for example `health_status: [2xx, 3xx]`",
    ),
    "memory without unit": (
        {"limits": {"memory_max": "512"}},
        "`limits.memory_max` must be a size with its unit K, M, G or T, or a percentage, not '512'; "
        "for example `limits: {memory_max: 512M}`",
    ),
    "processor as a number": (
        {"limits": {"cpu_quota": 50}},
        f"`limits.cpu_quota` must be a string {QUOTE}, not 50; for example `limits: {{cpu_quota: 150%}}`",
    ),
    "no releases": (
        {"keep_releases": 0},
        "`keep_releases` must be a number from 1 to 100, not 0; for example `keep_releases: 3`",
    ),
    # Environment
    "boolean in env": ({"env": {"A": True}}, '`env.A` must be a string or a whole number: quote it, as in `A: "..."`'),
    "fraction in env": ({"env": {"A": 1.5}}, '`env.A` must be a string or a whole number: quote it, as in `A: "..."`'),
    "null in env": ({"env": {"A": None}}, '`env.A` must be a string or a whole number: quote it, as in `A: "..."`'),
    "date in secrets": (
        {"secrets": {"A": datetime.date(2026, 1, 2)}},
        '`secrets.A` must be a string or a whole number: quote it, as in `A: "..."`',
    ),
    "list in secrets": (
        {"secrets": {"A": [CANARY]}},
        '`secrets.A` must be a string or a whole number: quote it, as in `A: "..."`',
    ),
    "huge number in env": ({"env": {"A": 10**5000}}, '`env.A` is too large for a number: quote it, as in `A: "..."`'),
    "NUL in secrets": ({"secrets": {"A": f"{CANARY}\0"}}, f"`secrets.A` {CARRIED}"),
    "surrogate in secrets": ({"secrets": {"A": f"{CANARY}\ud800"}}, f"`secrets.A` {CARRIED}"),
    "noncharacter in env": ({"env": {"A": "\U0010ffff"}}, f"`env.A` {CARRIED}"),
    "128 KiB in secrets": (
        {"secrets": {"A": "ä" * (64 * 1024 - 1)}},
        "`secrets.A` is larger than 128 KiB, more than a process can be given; put it into a file",
    ),
    "name in env with a hyphen": (
        {"env": {"A": "x", f"a-{CANARY}": "y"}},
        f'`env` {ENVIRONMENT_NAMES}, which number 2 is not; for example `env: {{GREETING: "hello"}}`',
    ),
    "name in secrets that is a value": (
        {"secrets": {f"A={CANARY}": "y"}},
        f"`secrets` {ENVIRONMENT_NAMES}, which number 1 is not; {SECRETS_EXAMPLE}",
    ),
    "name in env that YAML changed": (
        {"env": {True: "y"}},
        f'`env` {ENVIRONMENT_NAMES}, which number 1 is not; for example `env: {{GREETING: "hello"}}`',
    ),
    "reserved name": (
        {"env": {"LISTEN_FDS": "3"}},
        "`env.LISTEN_FDS` is set by the app's unit or by `server`; leave it out",
    ),
    "name in both": (
        {"env": {"A": "x"}, "secrets": {"A": CANARY}},
        "`env.A` is among the secrets as well; keep one of them",
    ),
    "packages beside hashes": (
        {"require_hashes": True, "extra_packages": [CANARY]},
        "`extra_packages` must be empty with `require_hashes`: the app's own files have the hashes",
    ),
    "signer without a key": (
        {"allowed_signers": ["alice@example.org"]},
        "`allowed_signers[0]` must be a line of an allowed_signers file: who, and a public SSH key; for example "
        "`allowed_signers: [alice@example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO]`",
    ),
    "schedule that systemd could not read": (
        {"schedules": {"tidy": {"command": "flask tidy", "on_calendar": "*-*-* 25:00"}}},
        "`schedules.tidy.on_calendar` must be a calendar event of systemd (systemd.time(7)), not '*-*-* 25:00'; "
        "for example `schedules: {nightly: {on_calendar: daily}}`",
    ),
    "schedule without a time": (
        {"schedules": {"tidy": "flask tidy"}},
        "`schedules.tidy.on_calendar` is missing; for example `schedules: {nightly: {on_calendar: daily}}`",
    ),
    "gunicorn's settings with granian": (
        {"server": {"kind": "granian", "max_requests": 5}},
        "`server.max_requests` is a setting of gunicorn; granian has none like it, leave it out",
    ),
    "preloading with granian": (
        {"server": {"kind": "granian", "preload": True}},
        "`server.preload` is a setting of gunicorn; granian has none like it, leave it out",
    ),
    "arguments of a factory with granian": (
        {"server": {"kind": "granian"}, "entrypoint": "shop:create_app('test')"},
        "`entrypoint` must call its factory without arguments: granian can't pass any; "
        "for example `entrypoint: shop:create_app()`",
    ),
    "static files twice under one URL": (
        {"static": [{"url": "/static", "path": "a"}, {"url": "/static/", "path": "b"}]},
        "`static[1].url` '/static' is that of another entry as well",
    ),
    "writable home": (
        {"sandbox": {"writable": ["/home/hello"]}},
        "`sandbox.writable[0]` must be an absolute path without `..`, of letters, digits and ._+@-, and not below "
        "/dev, /home, /proc, /root, /run/user, /sys, not '/home/hello'; "
        "for example `sandbox: {writable: [/srv/exports]}`",
    ),
    "writable data of all apps": (
        {"sandbox": {"writable": ["/srv/exports", "/var/lib"]}},
        "`sandbox.writable[1]` must be outside of /opt/flask_apps, /var/lib/flask_apps, /run/flask_apps; an app's own "
        "data is writable without it",
    ),
    "writable code": (
        {"sandbox": {"writable": ["/opt/flask_apps/other"]}},
        "`sandbox.writable[0]` must be outside of /opt/flask_apps, /var/lib/flask_apps, /run/flask_apps; an app's own "
        "data is writable without it",
    ),
    "database without engine": (
        {"database": {"name": "hello"}},
        "`database.engine` is missing; for example `database: {engine: postgresql}`",
    ),
    "database that is the server's own": (
        {"database": {"engine": "mariadb", "name": "mysql"}},
        "`database.name` must be a lower-case letter and up to 30 lower-case letters, digits or underscores, and "
        "none of the server's own, not 'mysql'; for example `database: {name: hello}`",
    ),
    "driver of another engine": (
        {"database": {"engine": "mariadb", "scheme": "postgresql"}},
        "`database.scheme` must be one of mysql+pymysql, mysql+mysqldb, mysql+asyncmy, mysql+aiomysql, mysql, "
        "mariadb+pymysql, mariadb+mysqldb, mariadb+asyncmy, mariadb+aiomysql, not 'postgresql'",
    ),
    "variable of the database in env": (
        {"database": {"engine": "mariadb"}, "env": {"DATABASE_URL": CANARY}},
        "`env.DATABASE_URL` is what `database` sets; leave one of them out",
    ),
    "variable of the cache among the secrets": (
        {"cache": {"engine": "redis"}, "secrets": {"REDIS_URL": CANARY}},
        "`secrets.REDIS_URL` is what `cache` sets; leave one of them out",
    ),
    "one variable for both": (
        {"cache": {"engine": "redis"}, "database": {"engine": "mariadb", "variable": "REDIS_URL"}},
        "`cache.variable` is that of `database` as well",
    ),
    "account of a database on the app's own host": (
        {"database": {"engine": "mariadb", "user": "other"}},
        "`database.host` is missing, where `user` belong; on its own host an app's account logs in as itself; "
        "for example `database: {host: db1}`",
    ),
    "password of a database that is no secret": (
        {"database": {"engine": "mariadb", "host": "db.test", "password_secret": "PASSWORD"}},
        "`secrets.PASSWORD` is missing, which `database.password_secret` names",
    ),
    "process without command": (
        {"processes": {"worker": {"instances": 2}}},
        "`processes.worker.command` is missing; for example `processes: {nightly: {command: rq worker tasks}}`",
    ),
    "process as a list": (
        {"processes": {"worker": ["rq"]}},
        "`processes.worker` must be a dictionary; for example `processes: {worker: rq worker tasks}`",
    ),
    "process called web": (
        {"processes": {"web": "rq"}},
        "`processes` must have names that are a lower-case letter and up to 24 lower-case letters, digits or hyphens, "
        "neither `web` nor `live`, and without `build-`, `command-`, `once-` or `settle-` in front, which number 1 "
        "is not; for example `processes: {worker: rq worker tasks}`",
    ),
    "process whose units a run would take for its own": (
        {"processes": {"command-line": "rq"}},
        "`processes` must have names that are a lower-case letter and up to 24 lower-case letters, digits or hyphens, "
        "neither `web` nor `live`, and without `build-`, `command-`, `once-` or `settle-` in front, which number 1 "
        "is not; for example `processes: {worker: rq worker tasks}`",
    ),
    "restart that YAML takes for false": (
        {"processes": {"worker": {"command": "rq", "restart": False}}},
        f"`processes.worker.restart` must be a string {QUOTE}, not False; "
        "for example `processes: {nightly: {restart: always}}`",
    ),
    "limit of a process": (
        {"processes": {"worker": {"command": "rq", "limits": {"memory_max": "512"}}}},
        "`processes.worker.limits.memory_max` must be a size with its unit K, M, G or T, or a percentage, not '512'; "
        "for example `processes: {nightly: {limits: {memory_max: 512M}}}`",
    ),
    "folder without URL": (
        {"static": [{"path": "static"}]},
        "`static[0].url` is missing; for example `static: [{url: /static}]`",
    ),
    "unknown relaxation": (
        {"sandbox": {"relax": ["everything"]}},
        "`sandbox.relax[0]` must be one of executable_memory, namespaces, devices, scheduling, not 'everything'; "
        "for example `sandbox: {relax: [executable_memory]}`",
    ),
}

# What is wrong around apps: variables, errors.
OF_ALL = {
    "apps as a dictionary": (
        {"flask_apps": {"hello": HELLO}},
        [
            "`flask_apps` must be a list of dictionaries; "
            "for example `flask_apps: [{name: hello, domain: hello.example.org, "
            "repository: https://git.example.org/hello.git}]`"
        ],
    ),
    "app as text": (
        {"flask_apps": ["hello"]},
        [
            "flask_apps[0] must be a dictionary; for example `{name: hello, domain: hello.example.org, "
            "repository: https://git.example.org/hello.git}`"
        ],
    ),
    "no name": (
        {"flask_apps": [{key: HELLO[key] for key in ("domain", "repository")}]},
        ["flask_apps[0]: `name` is missing; for example `name: hello`"],
    ),
    "two of a name": (
        {"flask_apps": [HELLO, {**HELLO, "domain": "b.test"}]},
        ["flask_apps[1] (hello): `name` is that of flask_apps[0] (hello) as well; each needs its own"],
    ),
    "two of a domain": (
        {"flask_apps": [HELLO, {**OTHER, "domain": "hello.test"}]},
        [
            "flask_apps[1] (other): `domain` 'hello.test' is taken by flask_apps[0] (hello): `domain`; "
            "a host name leads to one place"
        ],
    ),
    "alias that is another's domain": (
        {"flask_apps": [HELLO, {**OTHER, "aliases": ["a.test", "hello.test"]}]},
        [
            "flask_apps[1] (other): `aliases[1]` 'hello.test' is taken by flask_apps[0] (hello): `domain`; "
            "a host name leads to one place"
        ],
    ),
    "all errors at once": (
        {
            "flask_apps": [{**HELLO, "path": "..", "keep_releases": 0}, {**OTHER, "env": {"A": True}}],
            "flask_app_installer": "pipx",
        },
        [
            "`flask_app_installer` must be one of uv, pip, not 'pipx'; for example `flask_app_installer: uv`",
            f"flask_apps[0] (hello): `path` must be {FOLDER}, not '..'; for example `path: src/web`",
            "flask_apps[0] (hello): `keep_releases` must be a number from 1 to 100, not 0; "
            "for example `keep_releases: 3`",
            'flask_apps[1] (other): `env.A` must be a string or a whole number: quote it, as in `A: "..."`',
        ],
    ),
    "error in the defaults": (
        {"flask_apps": [HELLO, OTHER], "flask_app_defaults": {"env": {"A": None}}},
        ['flask_app_defaults: `env.A` must be a string or a whole number: quote it, as in `A: "..."`'],
    ),
    "name in the defaults": (
        {"flask_apps": [HELLO], "flask_app_defaults": {"name": "x"}},
        ["flask_app_defaults: `name` belongs into `flask_apps` alone"],
    ),
    "defaults as a list": (
        {"flask_apps": [HELLO], "flask_app_defaults": [CANARY]},
        [
            "`flask_app_defaults` must be a dictionary of keys of an app; "
            "for example `flask_app_defaults: {keep_releases: 5}`"
        ],
    ),
    "error in an override": (
        {"flask_apps": [HELLO], "flask_app_overrides": {"hello": {"versoin": "v2"}}},
        ["flask_app_overrides (hello): `versoin` is not known; did you mean `version`?"],
    ),
    "override of an unknown app": (
        {"flask_apps": [HELLO], "flask_app_overrides": {"helo": {"version": "v2"}}},
        ["flask_app_overrides: `helo` is not known; did you mean `hello`?"],
    ),
    "override as text": (
        {"flask_apps": [HELLO], "flask_app_overrides": {"hello": CANARY}},
        ["flask_app_overrides (hello) must be a dictionary of keys of an app; for example `{version: v2}`"],
    ),
    "overrides as a list": (
        {"flask_apps": [HELLO], "flask_app_overrides": [CANARY]},
        [
            "`flask_app_overrides` must be a dictionary by name of app; "
            "for example `flask_app_overrides: {hello: {version: v2}}`"
        ],
    ),
    "secret of one layer in the env of another": (
        {"flask_apps": [{**HELLO, "env": {"A": "x"}}], "flask_app_overrides": {"hello": {"secrets": {"A": CANARY}}}},
        ["flask_apps[0] (hello): `env.A` is among the secrets as well; keep one of them"],
    ),
    "only an unknown app": (
        {"flask_apps": [HELLO, OTHER], "flask_app_only": ["hello", "othr"]},
        ["flask_app_only: `othr` is not known; did you mean `other`?"],
    ),
    "only a number": (
        {"flask_apps": [HELLO], "flask_app_only": [1]},
        [f"`flask_app_only[0]` must be a string {QUOTE}, not 1; for example `flask_app_only: [hello]`"],
    ),
    "relative root": (
        {"flask_app_root": "apps"},
        [f"`flask_app_root` must be {DIRECTORY}, not 'apps'; for example `flask_app_root: /opt/flask_apps`"],
    ),
    "the root directory": (
        {"flask_app_root": "/"},
        [f"`flask_app_root` must be {DIRECTORY}, not '/'; for example `flask_app_root: /opt/flask_apps`"],
    ),
    "data among the code": (
        {"flask_app_data_root": "/opt/flask_apps/data"},
        [
            "`flask_app_data_root` must not be, or lie in, another directory of the role; "
            "for example `flask_app_data_root: /var/lib/flask_apps`"
        ],
    ),
    "socket path too long": (
        {"flask_apps": [{**HELLO, "name": "a" * 25}], "flask_app_runtime_root": "/run/" + "b" * 50},
        [
            f"flask_apps[0] ({'a' * 25}): `name` makes a socket's path up to 112 bytes long, and 107 is the limit; "
            "shorten it or `flask_app_runtime_root`"
        ],
    ),
    "index with credentials": (
        {"flask_app_index_url": f"https://me:{CANARY}@pkg.test/simple"},
        [
            "`flask_app_index_url` must be an http or https URL without credentials, which the host's pip "
            "configuration can hold; for example `flask_app_index_url: https://packages.example.org/simple`"
        ],
    ),
    "app as the web server": (
        {"flask_apps": [{**HELLO, "user": "web"}], "flask_app_proxy_user": "web"},
        [
            "flask_apps[0] (hello): `user` must not be the web server's account `flask_app_proxy_user`; "
            "for example `user: flask-hello`"
        ],
    ),
    "rollback": (
        {"flask_app_rollback_to": {"hello": "1f3a9c02"}, "flask_apps": [HELLO]},
        ["`flask_app_rollback_to` is for the playbook flaskfleet.deploy.rollback alone; leave it out"],
    ),
    "hook without its file": (
        {"flask_app_hooks": {"after_build": "/nowhere/tasks.yml", "after_all": "/nowhere/tasks.yml"}},
        [
            "`flask_app_hooks.after_all` is not known; did you mean `flask_app_hooks.after_build`?",
            "`flask_app_hooks.after_build` must be the path of a file of tasks, relative to the playbook's",
        ],
    ),
    "word without what it takes": (
        {
            "flask_app_notify": [
                {"kind": "webhook", "events": ["sucess"], "token": CANARY, "timeout": 90},
                {"kind": "webhook", "url": f"hooks.test/{CANARY}"},
                {"kind": "mail"},
                {"kind": "tasks", "file": "/nowhere/tasks.yml"},
                {"kind": "pigeon"},
                {"url": f"https://hooks.test/{CANARY}", "hmac": CANARY},
            ]
        },
        [
            "`flask_app_notify[0].events[0]` must be one of success, failure, return, certificate, not 'sucess'; "
            "for example `flask_app_notify: [{events: [success]}]`",
            "`flask_app_notify[0].timeout` must be a number from 1 to 60, not 90; "
            "for example `flask_app_notify: [{timeout: 5}]`",
            "`flask_app_notify[1].url` must be an http or https URL; "
            "for example `flask_app_notify: [{url: https://hooks.example.org/deployments}]`",
            "`flask_app_notify[4].kind` must be one of webhook, mail, tasks, not 'pigeon'; "
            "for example `flask_app_notify: [{kind: webhook}]`",
            "`flask_app_notify[5].kind` is missing; for example `flask_app_notify: [{kind: webhook}]`",
            "`flask_app_notify[5].hmac` is not known; known are kind, events, url, format, token, secret, to, "
            "from, file, timeout, required",
            "`flask_app_notify[0].url` is missing; "
            "for example `flask_app_notify: [{url: https://hooks.example.org/deployments}]`",
            "`flask_app_notify[2].to` is missing; for example `flask_app_notify: [{to: [admin@example.org]}]`",
            "`flask_app_notify[3].file` must be the path of a file of tasks, relative to the playbook's",
        ],
    ),
    "switch of the other role": (
        {"nginx_site_host_names": "perhaps"},
        ["`nginx_site_host_names` must be true or false, not 'perhaps'; for example `nginx_site_host_names: true`"],
    ),
}


def errors_of(variables):
    """Both entrances must refuse alike."""
    with pytest.raises(PlanError) as raised:
        make_plan(variables, PLATFORM, "web1")
    with pytest.raises(PlanError) as of_secrets:
        collect_secrets(variables)
    assert raised.value.errors == of_secrets.value.errors
    assert CANARY not in str(raised.value)
    return raised.value.errors


@pytest.mark.parametrize("changes, expected", OF_AN_APP.values(), ids=OF_AN_APP)
def test_error_of_an_app(changes, expected):
    app = {key: value for key, value in {**HELLO, **changes}.items() if value is not ...}
    [error] = errors_of({"flask_apps": [app]})
    place = re.match(r"flask_apps\[0\](?: \(hello\))?:? ", error)
    assert error[place.end() :] == expected


@pytest.mark.parametrize("variables, expected", OF_ALL.values(), ids=OF_ALL)
def test_error_of_all(variables, expected):
    assert errors_of(variables) == expected


ROLLBACKS = {
    "unknown app": (
        {"flask_app_rollback_to": {"helo": "1f3a9c02"}},
        "flask_app_rollback_to: `helo` is not known; did you mean `hello`?",
    ),
    "app that is not selected": (
        {"flask_app_rollback_to": {"hello": ""}, "flask_app_only": ["other"]},
        "flask_app_rollback_to: `hello` is not among the apps that `flask_app_only` restricts the run to",
    ),
    "absent app": (
        {"flask_app_rollback_to": {"hello": ""}, "flask_app_overrides": {"hello": {"state": "absent"}}},
        "flask_app_rollback_to: `hello` is absent in the list, so it has no release to go back to",
    ),
    "commit that YAML took for a number": (
        {"flask_app_rollback_to": {"hello": 12345678}},
        "`flask_app_rollback_to` must be a dictionary of names of apps to a release, to the first 4 digits of a commit "
        "or more, or to '' for the previous release; quote them; "
        'for example `flask_app_rollback_to: {hello: "1f3a9c02"}`',
    ),
}


@pytest.mark.parametrize("variables, expected", ROLLBACKS.values(), ids=ROLLBACKS)
def test_error_of_a_rollback(variables, expected):
    apps = [HELLO, {**HELLO, "name": "other", "domain": "other.test"}]
    with pytest.raises(PlanError) as raised:
        make_plan({"flask_apps": apps, **variables}, PLATFORM, "web1", rollback=True)
    assert raised.value.errors == [expected]


def test_a_process_and_a_schedule_of_one_name():
    app = {
        **HELLO,
        "processes": {"tidy": "a"},
        "schedules": {"tidy": {"command": "b", "on_calendar": "daily"}},
    }
    assert errors_of({"flask_apps": [app]}) == [
        "flask_apps[0] (hello): `processes.tidy` is the name of a schedule as well; every unit needs its own",
    ]
