# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backing services: what apps ask for, where it is, the URL that leads there, and what a host has to have for it."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any
from urllib.parse import quote, urlencode

from .rules import SCHEMES

# Stands for a password in a URL of the plan; nothing else that is in one has braces.
PASSWORD = "{password}"
BACKUPS = "/var/backups/flask_apps"
PORTS = {"postgresql": 5432, "mariadb": 3306}
# Where a cache's socket is, in a directory that only its app's account may enter.
CACHE_RUNTIME = "/run/flaskfleet-cache"
CACHE_DATA = "/var/lib/flaskfleet-cache"


def database_of(app: dict[str, Any], host: str, account: str) -> dict[str, Any]:
    """Complete an app's `database`; empty when it wants none.

    host: the inventory's name of the host that the app runs on. account: what the app runs as.
    """
    declared = app["database"]
    if not declared:
        return {}
    engine = declared["engine"]
    here = declared["host"] in ("", host)
    return {
        **declared,
        "name": declared["name"] or app["name"].replace("-", "_"),
        "user": declared["user"] or account,
        "host": "" if here else declared["host"],
        "port": declared["port"] or PORTS[engine],
        "scheme": declared["scheme"] or SCHEMES[engine][0],
    }


def password_name(database: dict[str, Any]) -> str:
    """Name a database's password among those that the database's host keeps."""
    return f"{database['engine']}-{database['name']}"


def services_of(app: dict[str, Any], platform: dict[str, Any], addresses: dict[str, str]) -> dict[str, Any]:
    """Tell an app's services as its releases need them.

    app: with its database completed. platform: what differs between distributions. addresses: those at which other
    hosts of the inventory reach the databases that they have, by the host's name; other hosts are addresses themselves.

    Returns `urls`, by variable: the `url`, with PASSWORD where a password belongs, and where that comes from, the
    `secret` of that name or the `password` of that name on the host `kept_on`; `units`, of this host, that they need;
    and how a `backup` of the database is made and taken back, empty where none is wanted.
    """
    urls, units = {}, []
    database = app["database"]
    backup: dict[str, Any] = {}
    if database:
        if database["backups"]:
            backup = _backup(app["name"], database, platform, addresses.get(database["host"], database["host"]))
        here = not database["host"]
        kept_on = database["host"] if database["host"] in addresses else ""
        urls[database["variable"]] = {
            "url": _database_url(database, platform, addresses.get(database["host"], database["host"])),
            "secret": database["password_secret"],
            "kept_on": kept_on,
            "password": password_name(database) if kept_on else "",
        }
        units += [f"{database['engine']}.service"] if here else []
    if app["cache"]:
        url = f"unix://{CACHE_RUNTIME}/{app['name']}/cache.sock?db=0"
        urls[app["cache"]["variable"]] = {"url": url, "secret": "", "kept_on": "", "password": ""}
        units.append(cache_unit(app["name"]))
    return {"urls": urls, "units": units, "backup": backup}


def cache_unit(name: str) -> str:
    """Name the unit of an app's cache. No unit of an app begins so."""
    return f"flaskfleet-cache-{name}.service"


def fill_in(url: str, password: str) -> str:
    """Put a password into a URL of the plan."""
    return url.replace(PASSWORD, quote(password, safe=""))


def _database_url(database, platform, address):
    """The URL as SQLAlchemy reads it (Engine Configuration, Database URLs): RFC 1738 with a query."""
    scheme, name, options = database["scheme"], database["name"], {}
    sockets = platform.get("sockets", {})
    if database["host"]:
        bracketed = f"[{address}]" if ":" in address else address
        authority = f"{database['user']}:{PASSWORD}@{bracketed}:{database['port']}"
    elif database["engine"] == "mariadb":
        authority = f"{database['user']}@localhost"
        options["unix_socket"] = sockets.get("mariadb", "")
    else:
        folder = sockets.get("postgresql", "")
        authority = f"{database['user']}@"
        own = (f"{folder}/.s.PGSQL.{database['port']}", "unix_sock") if scheme.endswith("+pg8000") else (folder, "host")
        options[own[1]] = own[0]
    if database["engine"] == "mariadb":
        options["charset"] = "utf8mb4"
    query = f"?{urlencode(options, safe='/')}" if options else ""
    return f"{scheme}://{authority}/{name}{query}"


def _backup(name, database, platform, address):
    """The commands that dump a database, empty it and fill it again, without its password."""
    here, own = not database["host"], database["name"]
    socket = platform.get("sockets", {}).get(database["engine"], "")
    account = [f"--user={database['user']}"] if database["engine"] == "mariadb" else [f"--username={database['user']}"]
    reached = [f"--host={address}", f"--port={database['port']}"]
    common = {key: database[key] for key in ("engine", "variable")}
    common.update(keep=database["backups"], directory=f"{BACKUPS}/{name}")
    if database["engine"] == "mariadb":
        client = [*account, *([f"--socket={socket}"] if here else reached)]
        # one moment of all tables; the rest of what belongs to the database
        dump = ["--single-transaction", "--no-tablespaces", "--routines", "--events", "--triggers"]
        anew = f"DROP DATABASE `{own}`; CREATE DATABASE `{own}` CHARACTER SET utf8mb4"
        return {
            **common,
            "dump": ["mariadb-dump", *client, *dump, own],
            "empty": [["mariadb", *client, f"--execute={anew}"]],
            "load": ["mariadb", *client, own],
        }
    client = [*account, "--no-password", *([f"--host={socket}"] if here else reached)]
    return {
        **common,
        "dump": ["pg_dump", *client, "--format=custom", "--no-owner", "--no-acl", own],
        "empty": [["psql", *client, "--quiet", "--command=DROP OWNED BY CURRENT_USER CASCADE", own]],
        "load": ["pg_restore", *client, "--no-owner", "--no-acl", "--exit-on-error", f"--dbname={own}"],
    }


def plan_services(
    own: list[dict[str, Any]],
    others: list[dict[str, Any]],
    absent: list[dict[str, Any]],
    settings: dict[str, Any],
    platform: dict[str, Any],
) -> dict[str, Any]:
    """Tell what a host has to have for apps, its own and those of other hosts. Returns what the plan has as `services`.

    own: the apps that run on this host, as planned. others: apps elsewhere whose database is here, with that completed.
    absent: apps that are to go, here or elsewhere, likewise. settings: of the role backing_service.
    """
    databases: dict[str, dict] = {engine: {} for engine in PORTS}
    for app in own:
        if app["database"] and not app["database"]["host"]:
            _add(databases, app, [])
    for app in others:
        _add(databases, app, settings["backing_service_networks"])
    found = {engine: list(each.values()) for engine, each in databases.items()}
    purged = [app for app in absent if app["name"] in settings["backing_service_purge"]]
    caches = [_cache(app, platform) for app in own if app["cache"]]
    packages = [name for engine in found if found[engine] for name in platform["service_packages"][engine]]
    remote = [(engine, each) for engine in found for each in found[engine] if each["networks"]]
    gone = [app for app in absent if app["cache"]]
    return {
        "databases": found,
        "purged_databases": {
            engine: [_entry(app) for app in purged if app["database"] and app["database"]["engine"] == engine]
            for engine in found
        },
        "caches": caches,
        "cache_files": [file for cache in caches for file in _cache_files(cache)],
        "stopped_caches": [cache_unit(app["name"]) for app in gone],
        "purged_caches": [f"{CACHE_DATA}/{app['name']}" for app in purged if app["cache"]],
        "purged_passwords": [password_name(app["database"]) for app in purged if app["database"]],
        "passwords": sorted(password_name({"engine": engine, **each}) for engine, each in remote),
        "packages": sorted({*packages, *(cache["package"] for cache in caches)}),
        "listen": {engine: settings["backing_service_address"] for engine, _each in remote},
        # lines of pg_hba.conf(5)
        "rules": [
            {
                "contype": "host",
                "databases": each["name"],
                "users": each["user"],
                "address": network,
                "method": "scram-sha-256",
            }
            for each in found["postgresql"]
            for network in each["networks"]
        ],
    }


def _entry(app):
    return {"app": app["name"], "name": app["database"]["name"], "user": app["database"]["user"]}


def _add(databases, app, networks):
    """Add a database. Apps of one name on several hosts have it in common."""
    entry = databases[app["database"]["engine"]].setdefault(
        (app["database"]["name"], app["database"]["user"]), _entry(app)
    )
    entry["local"] = entry.get("local", False) or not networks
    entry["networks"] = sorted({*entry.get("networks", ()), *(str(ip_network(each)) for each in networks)})
    # as MariaDB writes them: an underscore alone would stand for any character, and a network has a mask
    entry["privileges"] = entry["name"].replace("_", r"\_") + ".*:ALL"
    entry["hosts"] = [str(ip_network(each).with_netmask).removesuffix("/255.255.255.255") for each in entry["networks"]]


def _cache(app, platform):
    folder = f"flaskfleet-cache/{app['name']}"
    return {
        "app": app["name"],
        "unit": cache_unit(app["name"]),
        "folder": folder,
        **platform["caches"][app["cache"]["engine"]],
    }


def _cache_files(cache):
    """What a cache is, as `file_set` takes it: its unit, and the app's account, since the app comes later."""
    name, subject = cache["unit"].rpartition(".")[0], {"subject": cache["app"], "vars": {"cache": cache}}
    return [
        {"template": "cache.service.j2", "dest": f"/etc/systemd/system/{cache['unit']}", **subject},
        {"template": "cache.sysusers.conf.j2", "dest": f"/etc/sysusers.d/{name}.conf", **subject},
    ]
