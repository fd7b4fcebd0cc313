# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backing services in the plan: where they are, the URLs that lead there, what a host has to have for them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from ansible_collections.flaskfleet.deploy.plugins.module_utils.plan import Inventory, PlanError, make_plan
from ansible_collections.flaskfleet.deploy.plugins.module_utils.plan.services import fill_in

ROLES = Path(__file__).parents[2] / "roles"
PLATFORMS = yaml.safe_load((ROLES / "backing_service" / "vars" / "main.yml").read_text())["__backing_service_platforms"]
HELLO = {"name": "hello", "domain": "hello.test", "repository": "https://git.test/hello.git"}
SHOP = {"name": "my-shop", "domain": "shop.test", "repository": "https://git.test/shop.git"}


def inventory(host="web1", apps=(), groups=("appservers",), **addresses):
    return Inventory(
        host,
        ["web1", "web2", "db1"],
        leader_of=lambda app: host,
        address_of=lambda other: addresses.get(other, ""),
        in_group=lambda group: group in groups,
        variables_of=lambda group: {"web1": {"flask_apps": list(apps)}} if group == "appservers" else {},
    )


def plan_of(*apps, family="Debian", own=None, **variables):
    return make_plan({"flask_apps": list(apps), **variables}, PLATFORMS[family], "web1", inventory=own or inventory())


def urls_of(*services, family="Debian", own=None, **more):
    plan = plan_of({**HELLO, **dict(services), **more}, family=family, own=own)
    return {name: each["url"] for name, each in plan["apps"][0]["services"]["urls"].items()}


@pytest.mark.parametrize(
    "family, database, url",
    [
        ("Debian", {"engine": "postgresql"}, "postgresql+psycopg2://flask-hello@/hello?host=/run/postgresql"),
        (
            "Debian",
            {"engine": "postgresql", "scheme": "postgresql+pg8000"},
            "postgresql+pg8000://flask-hello@/hello?unix_sock=/run/postgresql/.s.PGSQL.5432",
        ),
        (
            "Debian",
            {"engine": "mariadb", "name": "main"},
            "mysql+pymysql://flask-hello@localhost/main?unix_socket=/run/mysqld/mysqld.sock&charset=utf8mb4",
        ),
        (
            "RedHat",
            {"engine": "mariadb", "scheme": "mysql+mysqldb"},
            "mysql+mysqldb://flask-hello@localhost/hello?unix_socket=/var/lib/mysql/mysql.sock&charset=utf8mb4",
        ),
    ],
)
def test_url_on_the_same_host(family, database, url):
    assert urls_of(("database", database), family=family) == {"DATABASE_URL": url}


def test_a_host_named_by_itself_is_the_same_host():
    database = {"engine": "postgresql", "host": "web1"}
    assert urls_of(("database", database)) == urls_of(("database", {"engine": "postgresql"}))


def test_url_on_another_host():
    own = inventory(db1="10.0.0.5")
    plan = plan_of({**HELLO, "database": {"engine": "postgresql", "host": "db1", "variable": "DB"}}, own=own)
    service = plan["apps"][0]["services"]["urls"]["DB"]
    assert service == {
        "url": "postgresql+psycopg2://flask-hello:{password}@10.0.0.5:5432/hello",
        "secret": "",
        "kept_on": "db1",
        "password": "postgresql-hello",
    }
    assert plan["passwords"] == [{"host": "db1", "names": ["postgresql-hello"]}]
    assert plan["services"]["databases"] == {"postgresql": [], "mariadb": []}
    parts = urlsplit(fill_in(service["url"], "a/b@c:%"))
    assert (parts.password, parts.hostname) == ("a%2Fb%40c%3A%25", "10.0.0.5")


def test_url_elsewhere():
    database = {"engine": "mariadb", "host": "db.example.org", "port": 3307, "user": "me", "password_secret": "DB"}
    plan = plan_of({**HELLO, "database": database, "secrets": {"DB": "c4n4ry"}})
    service = plan["apps"][0]["services"]["urls"]["DATABASE_URL"]
    assert service["url"] == "mysql+pymysql://me:{password}@db.example.org:3307/hello?charset=utf8mb4"
    assert (service["secret"], service["kept_on"], plan["passwords"]) == ("DB", "", [])
    assert "c4n4ry" not in str(plan)
    assert (
        "[fd00::1]:5432"
        in urls_of(
            ("database", {"engine": "postgresql", "host": "fd00::1", "password_secret": "DB"}), secrets={"DB": "a"}
        )["DATABASE_URL"]
    )


def test_the_release_has_one_name_on_all_hosts():
    database = {"engine": "mariadb", "host": "web1"}
    names = set()
    for family in PLATFORMS:
        for host in ("web1", "web2"):
            plan = plan_of({**HELLO, "database": database}, family=family, own=inventory(host, web1="10.0.0.1"))
            names.add(plan["apps"][0]["configuration_hash"])
    assert len(names) == 1
    assert names != {plan_of({**HELLO, "database": {"engine": "postgresql"}})["apps"][0]["configuration_hash"]}


def test_what_a_host_has_for_its_own_apps():
    shop = {**SHOP, "database": {"engine": "mariadb"}, "cache": {"engine": "valkey"}}
    services = plan_of({**HELLO, "database": {"engine": "postgresql"}}, shop, family="RedHat")["services"]
    [database] = services["databases"]["mariadb"]
    assert database == {
        "app": "my-shop",
        "name": "my_shop",
        "user": "flask-my-shop",
        "local": True,
        "networks": [],
        "hosts": [],
        "privileges": r"my\_shop.*:ALL",  # else a database my-shop or my1shop would be its own, too
    }
    assert [each["name"] for each in services["databases"]["postgresql"]] == ["hello"]
    assert services["packages"] == [
        "acl", "mariadb-server", "postgresql-server", "python3-PyMySQL", "python3-psycopg2", "redis",
    ]  # fmt: skip
    assert [cache["unit"] for cache in services["caches"]] == ["flaskfleet-cache-my-shop.service"]
    assert services["passwords"] == [] and services["listen"] == {} and services["rules"] == []


def test_a_wrong_list_of_another_host_is_that_hosts_matter():
    own = inventory("db1", [{**HELLO, "database": {"engine": "sqlite", "host": "db1"}}], groups=(), db1="10.0.0.5")
    listening = {"backing_service_address": "10.0.0.5", "backing_service_networks": ["10.0.0.0/24"]}
    services = plan_of(own=own, **listening)["services"]
    assert services["databases"] == {"postgresql": [], "mariadb": []}


def test_what_a_host_has_for_apps_of_others():
    """It is no appserver, so that what its own list wants is not its matter."""
    database = {"engine": "postgresql", "host": "db1"}
    apps = [{**HELLO, "database": database}, {**SHOP, "database": {"engine": "mariadb", "host": "db1"}}]
    own = inventory("db1", apps, groups=(), db1="10.0.0.5")
    local = {**HELLO, "name": "local", "domain": "local.test", "database": {"engine": "postgresql"}}
    networks = ["10.0.0.0/24", "10.1.0.7"]
    listening = {"backing_service_address": "10.0.0.5", "backing_service_networks": networks}
    services = plan_of(local, own=own, **listening)["services"]
    [entry] = services["databases"]["postgresql"]
    assert (entry["name"], entry["local"], entry["networks"]) == ("hello", False, ["10.0.0.0/24", "10.1.0.7/32"])
    assert services["databases"]["mariadb"][0]["hosts"] == ["10.0.0.0/255.255.255.0", "10.1.0.7"]
    assert services["passwords"] == ["mariadb-my_shop", "postgresql-hello"]
    assert services["listen"] == {"postgresql": "10.0.0.5", "mariadb": "10.0.0.5"}
    assert services["rules"][0] == {
        "contype": "host", "databases": "hello", "users": "flask-hello", "address": "10.0.0.0/24",
        "method": "scram-sha-256",
    }  # fmt: skip
    assert plan_of(own=own)["services"]["passwords"] == [], "it is asked nothing without an address"


def test_what_is_removed_of_absent_apps():
    gone = {**SHOP, "state": "absent", "database": {"engine": "mariadb"}, "cache": {"engine": "redis"}}
    services = plan_of(HELLO, gone)["services"]
    assert services["stopped_caches"] == ["flaskfleet-cache-my-shop.service"]
    assert services["purged_databases"] == {"postgresql": [], "mariadb": []} and services["purged_caches"] == []
    services = plan_of(HELLO, gone, backing_service_purge=["my-shop"])["services"]
    assert services["purged_databases"]["mariadb"] == [{"app": "my-shop", "name": "my_shop", "user": "flask-my-shop"}]
    assert services["purged_caches"] == ["/var/lib/flaskfleet-cache/my-shop"]
    assert services["purged_passwords"] == ["mariadb-my_shop"]


def test_a_host_with_a_database_of_its_own_leads_itself():
    own = inventory(web2="10.0.0.2")._replace(leader_of=lambda app: "web2")
    for database, leader in (
        ({}, "web2"),
        ({"engine": "mariadb"}, ""),
        ({"engine": "mariadb", "host": "web2"}, "web2"),
    ):
        app = {**HELLO, "database": database, "release_commands": ["flask db upgrade"]}
        assert plan_of(app, own=own)["apps"][0]["release_leader"] == leader


ERRORS = {
    "host without address": (
        {"database": {"engine": "mariadb", "host": "db1"}},
        {},
        "flask_apps[0] (hello): `database.host` 'db1' has no `backing_service_address`, at which other "
        "hosts would reach its databases",
    ),
    "address elsewhere without password": (
        {"database": {"engine": "mariadb", "host": "db.test"}},
        {},
        "flask_apps[0] (hello): `database.password_secret` is missing: 'db.test' is no host of the inventory, "
        "which would make a password; for example `database: {password_secret: DATABASE_PASSWORD}`",
    ),
    "password for a host of the inventory": (
        {"database": {"engine": "mariadb", "host": "web2", "password_secret": "A"}, "secrets": {"A": "b"}},
        {},
        "flask_apps[0] (hello): `database.password_secret` is for addresses elsewhere; 'web2' is a host of the "
        "inventory and keeps the password itself",
    ),
    "port of a host of the inventory": (
        {"database": {"engine": "mariadb", "host": "web2", "port": 1}},
        {},
        "flask_apps[0] (hello): `database.port` is for addresses elsewhere; 'web2' is a host of the inventory",
    ),
    "one database for two apps": (
        {"database": {"engine": "mariadb"}},
        {"other": {"database": {"engine": "mariadb", "name": "hello"}}},
        "flask_apps[1] (my-shop): `database.name` 'hello' is the database of flask_apps[0] (hello) as well; "
        "each needs its own",
    ),
    "address without networks": (
        {},
        {"backing_service_address": "10.0.0.5"},
        "`backing_service_networks` is missing: with `backing_service_address` alone nobody could connect; "
        "for example `backing_service_networks: [10.0.0.0/24]`",
    ),
    "purge of a present app": (
        {},
        {"backing_service_purge": ["hello"]},
        "`backing_service_purge` names hello, which is present in the list; set its `state: absent`",
    ),
}


@pytest.mark.parametrize("changes, variables, expected", ERRORS.values(), ids=ERRORS)
def test_errors(changes, variables, expected):
    variables = dict(variables)
    apps = [{**HELLO, **changes}, {**SHOP, **variables.pop("other", {})}]
    with pytest.raises(PlanError) as raised:
        plan_of(*apps, own=inventory(web2="10.0.0.2"), **variables)
    assert raised.value.errors == [expected]


def test_the_role_flask_app_knows_the_same_sockets():
    own = yaml.safe_load((ROLES / "flask_app" / "vars" / "main.yml").read_text())["__flask_app_platforms"]
    assert {family: each["sockets"] for family, each in own.items()} == {
        family: each["sockets"] for family, each in PLATFORMS.items()
    }
