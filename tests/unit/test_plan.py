# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan makes of variables that are right."""

from __future__ import annotations

import json

import pytest
from ansible_collections.flaskfleet.deploy.plugins.module_utils.plan import (
    PlanError,
    collect_secrets,
    host_label,
    make_plan,
    misspelt_variables,
    plain_variables,
)

SIGNER = "alice@example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKg"
HELLO = {"name": "hello", "domain": "hello.test", "repository": "https://git.test/hello.git"}
OTHER = {"name": "other", "domain": "other.test", "repository": "https://git.test/other.git"}
DEBIAN = {"os_family": "Debian", "proxy_user": "www-data", "python": "python3"}
RED_HAT = {"os_family": "RedHat", "proxy_user": "nginx", "python": "python3", "newer_python": "python3.12"}


def plan_of(*apps, platform=None, **variables):
    return make_plan({"flask_apps": list(apps), **variables}, platform or DEBIAN, "web1")


def app_of(changes, **variables):
    return plan_of({**HELLO, **changes}, **variables)["apps"][0]


def test_three_keys_are_enough():
    app = app_of({})
    plain = {
        "name": "hello",
        "domain": "hello.test",
        "url": "http://hello.test/",
        "version": "HEAD",
        "update": True,
        "path": ".",
        "keep_releases": 3,
    }
    assert {key: app[key] for key in plain} == plain
    assert (app["user"], app["own_user"]) == ("flask-hello", True)
    assert app["entrypoint"] == "app:app"
    assert app["server"] == {
        "kind": "gunicorn",
        "workers": "auto",
        "threads": 4,
        "worker_class": "gthread",
        "timeout": 30,
        "max_requests": 0,
        "log_format": "text",
        "preload": False,
    }
    assert app["health"] == {
        "path": "/",
        "timeout": 30,
        "statuses": ["2xx", "3xx"],
        "settle": 5,
        "host": "hello.test",
        "scheme": "http",
    }
    assert app["limits"] == {"memory_max": "", "cpu_quota": "", "tasks_max": ""}
    assert app["paths"] == {
        "root": "/opt/flask_apps/hello",
        "repo": "/opt/flask_apps/hello/repo.git",
        "builds": "/opt/flask_apps/hello/builds",
        "releases": "/opt/flask_apps/hello/releases",
        "current": "/opt/flask_apps/hello/current",
        "previous": "/opt/flask_apps/hello/previous",
        "data": "/var/lib/flask_apps/hello",
        "runtime": "/run/flask_apps/hello",
    }
    assert app["units"] == {
        "service": "flask-hello@.service",
        "socket": "flask-hello@.socket",
        "live": "flask-hello.live.service",
        "target": "flask-hello.target",
        "timers": [],
        "prefix": "flask-hello",
    }
    assert app["upstream_socket"] == "/opt/flask_apps/hello/current/web.sock"


def test_no_app_at_all():
    plan = make_plan({}, {}, "web1")
    assert plan["apps"] == plan["sites"] == plan["unit_files"] == plan["declared"] == []
    assert plan["settings"] == {
        "installer": "uv",
        "index_url": "",
        "ca_file": "",
        "build_jobs": 0,
        "activation_jobs": 4,
        "memory_reserve": 64,
        "root": "/opt/flask_apps",
        "data_root": "/var/lib/flask_apps",
        "runtime_root": "/run/flask_apps",
        "rebuild": False,
        "purge_undeclared": False,
    }


def test_a_plan_is_plain_data():
    plan = plan_of({**HELLO, "env": {"A": 1}, "secrets": {"B": 2}, "limits": {"tasks_max": 5}})
    assert json.loads(json.dumps(plan)) == plan


def test_site():
    site = plan_of({**HELLO, "aliases": ["www.hello.test"]})["sites"][0]
    assert site == {
        "name": "hello",
        "app": "hello",
        "domain": "hello.test",
        "server_names": ["hello.test", "www.hello.test", "web1.hello.test"],
        "url": "http://hello.test/",
        "upstream": "flask_hello",
        "servers": ["unix:/opt/flask_apps/hello/current/web.sock"],
        "static": [],
        "balancing": "round_robin",
        "root": "",
        "redirect": "",
        "checked_path": "/",
        "balancers": [],
        "tls": {"mode": "none", "redirect": True, "hsts_max_age": 0},
        "certificate": "",
        "certificate_key": "",
        "challenges": "",
        "extra": "",
        "template": "",
        "max_body_size": "1m",
        "connect_timeout": 5,
        "read_timeout": 60,
        "send_timeout": 60,
        "buffering": True,
        "request_buffering": True,
        "websockets": False,
        "maintenance": False,
        "retry_after": 300,
        "error_page": "",
        "allow": [],
        "trusted_proxies": [],
        "headers": {
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "SAMEORIGIN",
            "Referrer-Policy": "strict-origin-when-cross-origin",
        },
        "access_log": "combined",
    }


def test_site_without_the_name_of_the_host():
    assert app_of({}, nginx_site_host_names=False)["server_names"] == ["hello.test"]


def test_a_declared_name_goes_before_the_name_of_a_host():
    plan = plan_of(HELLO, {**OTHER, "aliases": ["web1.hello.test"]})
    assert [app["server_names"] for app in plan["apps"]] == [
        ["hello.test"],
        ["other.test", "web1.hello.test", "web1.other.test"],
    ]


def test_no_name_of_the_host_that_would_be_too_long():
    domain = ".".join(["a" * 49] * 5)
    assert app_of({"domain": domain})["server_names"] == [domain]


@pytest.mark.parametrize(
    "hostname, label",
    [
        ("web1", "web1"),
        ("Web_1", "web-1"),
        ("web1.example.org", "web1-example-org"),
        ("10.0.0.1", "10-0-0-1"),
        ("-web-", "web"),
        ("a" * 62 + ".b", "a" * 62),
        ("ä_", ""),
    ],
)
def test_host_label(hostname, label):
    assert host_label(hostname) == label


def test_an_absent_app_has_no_files_and_keeps_its_name():
    plan = plan_of({**HELLO, "state": "absent"}, OTHER)
    assert [app["name"] for app in plan["apps"]] == [site["app"] for site in plan["sites"]] == ["other"]
    assert {file["subject"] for file in plan["unit_files"]} == {"other"}
    assert (plan["absent"], plan["declared"]) == (["hello"], ["hello", "other"])


def test_shared_account_and_packages():
    plan = plan_of(
        {**HELLO, "system_packages": ["zlib1g", "git"]},
        {**OTHER, "user": "shared", "system_packages": {"Debian": ["libpq5", "git"], "RedHat": ["libpq"]}},
        {**OTHER, "name": "third", "domain": "third.test", "user": "shared", "system_packages": {"RedHat": ["libpq"]}},
    )
    assert plan["packages"] == ["git", "libpq5", "zlib1g"]
    assert plan["warnings"] == ["other, third run as the same account shared and can read each other's secrets"]


@pytest.mark.parametrize(
    "platform, declared, executable",
    [
        (DEBIAN, "", "/usr/bin/python3"),
        (RED_HAT, "", "/usr/bin/python3.12"),
        (RED_HAT, "python3", "/usr/bin/python3"),
        (DEBIAN, "3.12", "/usr/bin/python3.12"),
        (DEBIAN, "python3.12", "/usr/bin/python3.12"),
        (DEBIAN, "/opt/python/bin/python3", "/opt/python/bin/python3"),
    ],
)
def test_python(platform, declared, executable):
    app = app_of({"python": declared}, platform=platform)
    assert app["python"] == {"declared": declared, "executable": executable}


@pytest.mark.parametrize(
    "declared, entrypoint",
    [
        ("app", "app:app"),
        ("hello.web", "hello.web:app"),
        ("app:create_app()", "app:create_app()"),
        ('hello.web:create_app("production", debug=False)', 'hello.web:create_app("production", debug=False)'),
    ],
)
def test_entrypoint(declared, entrypoint):
    assert app_of({"entrypoint": declared})["entrypoint"] == entrypoint


@pytest.mark.parametrize(
    "repository, shown",
    [
        ("https://git.test/hello.git", "https://git.test/hello.git"),
        ("https://me:pass@git.test:8443/hello.git", "https://git.test:8443/hello.git"),
        ("https://token@git.test/hello.git", "https://git.test/hello.git"),
        ("https://me:p@ss@git.test/hello.git", "https://git.test/hello.git"),
        ("http://[2001:db8::1]/hello.git", "http://[2001:db8::1]/hello.git"),
        ("ssh://git@git.test:22/hello.git", "ssh://git@git.test:22/hello.git"),
        ("ssh://git:pass@git.test/hello.git", "ssh://git@git.test/hello.git"),
        ("git@git.test:team/hello.git", "git@git.test:team/hello.git"),
        ("git.test:/srv/hello.git", "git.test:/srv/hello.git"),
        ("git://git.test/hello.git", "git://git.test/hello.git"),
        ("file:///srv/git/hello.git", "file:///srv/git/hello.git"),
        ("/srv/git/hello.git", "/srv/git/hello.git"),
    ],
)
def test_repository(repository, shown):
    variables = {"flask_apps": [{**HELLO, "repository": repository}]}
    assert make_plan(variables, DEBIAN, "web1")["apps"][0]["repository"] == shown
    assert collect_secrets(variables)["hello"]["repository"] == repository


@pytest.mark.parametrize(
    "key, value, planned",
    [
        ("path", "./src/web/", "src/web"),
        ("path", ".github", ".github"),
        ("requirements", "requirements/production.txt", "requirements/production.txt"),
        ("version", "feature/a#1", "feature/a#1"),
        ("version", "1.10", "1.10"),
        ("keep_releases", "5", 5),
        ("update", "no", False),
        ("env", {"A": 1, "B": "yes", "C": 'a\nb\t"$`\\ä'}, {"A": "1", "B": "yes", "C": 'a\nb\t"$`\\ä'}),
        ("domain", "localhost", "localhost"),
        ("domain", "xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("user", "flask-" + "a" * 25, "flask-" + "a" * 25),
    ],
)
def test_value(key, value, planned):
    assert app_of({key: value})[key] == planned


@pytest.mark.parametrize("name", ["network", "user", "reboot", "mail", "sockets", "a", "a" * 25])
def test_name(name):
    app = app_of({"name": name})
    assert len(app["user"]) <= 31
    assert app["units"]["target"] == f"flask-{name}.target"


def test_health_status_and_limits():
    app = app_of({"health_status": [204, "301", "2xx"], "limits": {"memory_max": "512M", "tasks_max": 64}})
    assert app["health"]["statuses"] == [204, 301, "2xx"]
    assert app["limits"] == {"memory_max": "512M", "cpu_quota": "", "tasks_max": "64"}


def test_default_values_of_unsupported_keys_are_fine():
    app = app_of(
        {
            "state": "present",
            "shared_paths": [],
            "processes": {},
            "schedules": {},
            "server": {"kind": "gunicorn"},
            "static": [],
            "tls": {"mode": "none"},
            "sandbox": {},
            "database": {},
            "cache": {},
        }
    )
    assert app == app_of({})


def test_interpreters():
    versions = {"a": "3.12", "b": "python3.9", "c": "3", "d": "/opt/python/bin/python3.8", "e": "", "f": "3.12"}
    apps = [{**HELLO, "name": name, "domain": f"{name}.test", "python": python} for name, python in versions.items()]
    plan = make_plan({"flask_apps": apps}, DEBIAN, "web1")
    assert plan["interpreters"] == [{"version": "3.12", "apps": ["a", "f"]}, {"version": "3.9", "apps": ["b"]}]


def test_shared_paths():
    app = app_of({"shared_paths": ["./uploads/", "var/instance"]})
    assert app["shared_paths"] == ["uploads", "var/instance"]
    elsewhere = make_plan(
        {"flask_apps": [{**HELLO, "shared_paths": ["uploads", "var/instance"]}], "flask_app_data_root": "/srv/data"},
        {},
        "web1",
    )["apps"][0]
    hashes = {app["build_hash"], elsewhere["build_hash"], app_of({})["build_hash"]}
    assert len(hashes) == 3, "a build has links to where the data are"


def test_processes():
    mail = {"command": "mailer", "instances": 2, "limits": {"tasks_max": 5}, "restart": "no", "overlap": True}
    app = app_of({"processes": {"worker": "rq worker", "mail": mail}})
    rest = {"stop_signal": "TERM", "stop_timeout": 60}
    unlimited = {"memory_max": "", "cpu_quota": "", "tasks_max": ""}
    worker = {"command": "rq worker", "instances": 1, "limits": unlimited, "restart": "always", "overlap": False}
    assert app["processes"] == {
        "worker": {**worker, **rest},
        "mail": {**mail, **rest, "limits": {**unlimited, "tasks_max": "5"}},
    }
    assert set(app["release_files"]) == {"gunicorn.conf.py", "service.conf", "worker.service", "mail.service"}
    assert set(app_of({})["release_files"]) == {"gunicorn.conf.py", "service.conf"}


TIDY = {"command": "flask tidy", "on_calendar": "Mon *-*-* 04:00 Europe/Berlin"}


def test_schedules():
    plan = plan_of({**HELLO, "schedules": {"tidy": TIDY}}, OTHER)
    app, other = plan["apps"]
    assert app["schedules"] == {"tidy": {**TIDY, "random_delay": 0, "persistent": False, "timeout": 3600}}
    assert app["jobs"] == {"tidy": {"command": "flask tidy", "timeout": 3600}} and other["jobs"] == {}
    assert app["units"]["timers"] == ["flask-hello.tidy.timer"]
    files = {file["dest"]: file for file in plan["unit_files"] if "vars" in file}
    assert {dest: (file["template"], file["vars"], file["subject"]) for dest, file in files.items()} == {
        f"/etc/systemd/system/flask-hello.tidy.{kind}": (f"schedule.{kind}.j2", {"schedule": "tidy"}, "hello")
        for kind in ("timer", "service")
    }
    assert plan["calendars"] == ["hello: schedules.tidy.on_calendar: Mon *-*-* 04:00 Europe/Berlin"]


@pytest.mark.parametrize(
    "changes, part",
    [
        ({"command": "flask clean"}, True),
        ({"timeout": 60}, True),
        ({"on_calendar": "daily", "random_delay": 60, "persistent": True}, False),
    ],
)
def test_what_a_schedule_runs_is_part_of_the_release_but_not_when(changes, part):
    before, after = (app_of({"schedules": {"tidy": each}}) for each in (TIDY, {**TIDY, **changes}))
    assert (before["configuration_hash"] != after["configuration_hash"]) is part


@pytest.mark.parametrize(
    "changes", [{"command": "rq"}, {"instances": 2}, {"limits": {"tasks_max": 5}}, {"overlap": True}]
)
def test_a_process_is_part_of_the_release(changes):
    worker = {"command": "rq worker"}
    hashes = {
        app_of({"processes": each})["configuration_hash"]
        for each in ({"worker": worker}, {"worker": {**worker, **changes}}, {})
    }
    assert len(hashes) == 3


def test_layers():
    plan = plan_of(
        {**HELLO, "env": {"B": "app", "C": "app"}, "extra_packages": ["app"]},
        OTHER,
        flask_app_defaults={
            "env": {"A": "default", "B": "default"},
            "server": {"threads": 2},
            "extra_packages": ["default"],
            "keep_releases": 5,
        },
        flask_app_overrides={"hello": {"env": {"C": "override"}, "server": {"timeout": 60}, "version": "v2"}},
    )
    hello, other = plan["apps"]
    assert hello["env"] == {"A": "default", "B": "app", "C": "override"}
    assert (hello["server"]["threads"], hello["server"]["timeout"], hello["version"]) == (2, 60, "v2")
    assert (hello["extra_packages"], other["extra_packages"]) == (["app"], ["default"])
    assert (other["env"], other["version"], other["keep_releases"]) == ({"A": "default", "B": "default"}, "HEAD", 5)


def test_the_defaults_may_hold_a_required_key():
    app = {key: HELLO[key] for key in ("name", "domain")}
    assert plan_of(app, flask_app_defaults={"repository": "/srv/hello"})["apps"][0]["repository"] == "/srv/hello"


@pytest.mark.parametrize("only", [["other"], "other", "other, other"])
def test_only_some_apps(only):
    variables = {"flask_apps": [{**HELLO, "system_packages": ["git"]}, OTHER], "flask_app_only": only}
    plan = make_plan(variables, DEBIAN, "web1")
    assert [app["name"] for app in plan["apps"]] == [site["app"] for site in plan["sites"]] == ["other"]
    assert {file["subject"] for file in plan["unit_files"]} == {"other"}
    assert plan["unselected"] == ["hello"]
    assert plan["packages"] == []
    assert plan["declared"] == ["hello", "other"]
    assert list(collect_secrets(variables)) == ["other"]


def test_secrets_stay_out_of_the_plan():
    variables = {
        "flask_apps": [{**HELLO, "repository": "https://me:canary-1@git.test/x", "secrets": {"B": "canary-2", "A": 3}}],
        "flask_app_defaults": {"secrets": {"C": "canary-4"}},
        "flask_app_overrides": {"hello": {"secrets": {"B": "canary-5"}}},
    }
    plan = make_plan(variables, DEBIAN, "web1")
    assert "canary" not in json.dumps(plan)
    assert plan["apps"][0]["secret_names"] == ["A", "B", "C"]
    assert collect_secrets(variables) == {
        "hello": {
            "repository": "https://me:canary-1@git.test/x",
            "access": {},
            "secrets": {"A": "3", "B": "canary-5", "C": "canary-4"},
        }
    }


@pytest.mark.parametrize(
    "changes, build, configuration",
    [
        ({}, False, False),
        ({"secrets": {"A": "other"}}, False, False),
        ({"aliases": ["www.test"]}, False, False),
        ({"version": "v2"}, False, False),
        ({"system_packages": ["git"]}, False, False),
        ({"health_timeout": 60, "settle": 1, "keep_releases": 9, "update": False}, False, False),
        ({"env": {"X": "x"}}, False, True),
        ({"secrets": {"A": "one", "B": "two"}}, False, True),
        ({"domain": "b.test"}, False, True),
        ({"user": "hello"}, False, True),
        ({"entrypoint": "web"}, False, True),
        ({"server": {"workers": 2}}, False, True),
        ({"limits": {"memory_max": "512M"}}, False, True),
        ({"health_path": "/health"}, False, True),
        ({"path": "src"}, True, True),
        ({"python": "3.12"}, True, True),
        ({"requirements": "a.txt"}, True, True),
        ({"extra_packages": ["pymysql"]}, True, True),
        ({"require_hashes": True}, True, True),
        ({"allowed_signers": [SIGNER]}, True, True),
        ({"index_url": "https://own.test/simple"}, True, True),
        ({"build_commands": ["make"]}, True, True),
        ({"release_commands": ["flask db upgrade"]}, False, True),
        ({"command_timeout": 60}, False, False),
    ],
    ids=str,
)
def test_hashes(changes, build, configuration):
    before, after = app_of({"secrets": {"A": "one"}}), app_of({"secrets": {"A": "one"}, **changes})
    assert (before["build_hash"] != after["build_hash"]) is build
    assert (before["configuration_hash"] != after["configuration_hash"]) is configuration


def test_a_build_is_named_by_what_its_commands_are_told():
    one, other = (app_of({"build_commands": ["make"], "entrypoint": entrypoint}) for entrypoint in ("one", "other"))
    assert one["build_hash"] != other["build_hash"]


def test_hashes_are_the_same_on_all_hosts():
    ubuntu = make_plan({"flask_apps": [HELLO]}, DEBIAN, "ubuntu")["apps"][0]
    almalinux = make_plan({"flask_apps": [HELLO]}, RED_HAT, "almalinux")["apps"][0]
    assert ubuntu["build_hash"] == almalinux["build_hash"]
    assert ubuntu["configuration_hash"] == almalinux["configuration_hash"]


@pytest.mark.parametrize(
    "name, processes, counts",
    [
        ("gunicorn.conf.py.j2", {}, True),
        ("web.service.j2", {}, True),
        ("web.socket.j2", {}, True),
        ("base/sandbox.conf.j2", {}, True),
        ("process.service.j2", {}, False),
        ("process.service.j2", {"worker": "rq"}, True),
        ("other.j2", {}, False),
    ],
)
def test_what_a_release_runs_with_is_part_of_it(tmp_path, name, processes, counts):
    before = app_of({"processes": processes})["configuration_hash"]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("a user's own")
    after = app_of({"processes": processes}, flask_app_template_paths=[str(tmp_path)])["configuration_hash"]
    assert (after != before) is counts


def test_the_longest_socket_path_fits():
    runtime_root = "/run/" + "b" * 45
    app = app_of({"name": "a" * 25}, flask_app_runtime_root=runtime_root)
    assert len(f"{app['paths']['runtime']}/{'c' * 8}-{'d' * 8}.999/web.sock") == 107


def test_variables_are_made_plain():
    class Templar:
        def template(self, value):
            return value

    class Loader:
        def get_basedir(self):
            return "/play"

    class Tagged(str):
        pass

    given = {"flask_apps": [{Tagged("name"): Tagged("hello")}], "flask_app_template_paths": ["a", "/b"], "other": 1}
    variables = plain_variables(Templar(), Loader(), given)
    assert variables == {"flask_apps": [{"name": "hello"}], "flask_app_template_paths": ["/play/a", "/b"]}
    [(key, value)] = variables["flask_apps"][0].items()
    assert type(key) is type(value) is str


def test_misspelt_variables():
    task_vars = {"flask_app_overides": {}, "flask_app_only": [], "flask_app_mine": 1, "flask_apps": []}
    assert misspelt_variables(task_vars) == [
        "no role has a variable flask_app_overides; did you mean flask_app_overrides?"
    ]


def test_settings_of_gunicorn_under_granian_are_no_mistake():
    """Every app has a longer timeout, and one runs under another server, which has none."""
    layers = {"flask_app_defaults": {"server": {"timeout": 60, "threads": 8}}}
    server = app_of({"server": {"kind": "granian"}}, **layers)["server"]
    assert (server["kind"], server["threads"]) == ("granian", 8)
    with pytest.raises(PlanError, match="is a setting of gunicorn"):
        app_of({"server": {"kind": "granian"}}, flask_app_overrides={"hello": {"server": {"timeout": 60}}})
