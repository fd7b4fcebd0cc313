# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The templates of the roles, rendered as on a run but without a host, and what they say."""

from __future__ import annotations

import datetime
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.flaskfleet.deploy.plugins.module_utils import pull, release_host
from ansible_collections.flaskfleet.deploy.plugins.module_utils.plan import Inventory, make_plan
from ansible_collections.flaskfleet.deploy.plugins.plugin_utils.templates import Renderer, TemplateError

ROLES = Path(__file__).parents[2] / "roles"
ROLE_VARIABLES = yaml.safe_load((ROLES / "flask_app" / "vars" / "main.yml").read_text())
HELLO = {"name": "hello", "domain": "hello.test", "repository": "https://git.test/hello.git"}
DEBIAN = {
    "os_family": "Debian",
    "proxy_user": "www-data",
    "sites_available": "/etc/nginx/sites-available",
    "sites_enabled": "/etc/nginx/sites-enabled",
    "renewal_timer": "certbot.timer",
}


TIDY = {"tidy": {"command": "flask tidy", "on_calendar": "Mon *-*-* 04:00"}}


def renderer(*template_paths, role="flask_app", **variables):
    if role == "nginx_site":
        ciphers = yaml.safe_load((ROLES / role / "vars" / "main.yml").read_text())["__nginx_site_ciphers"]
        variables = {"__nginx_site_version": "1.26.3", "__nginx_site_ciphers": ciphers, **variables}
        variables.setdefault("__nginx_site_nginx", {"modules": []})
    loader = DataLoader()
    action = SimpleNamespace(_loader=loader, _templar=Templar(loader=loader, variables=variables))
    return Renderer(action, variables, template_paths, [str(ROLES / role / "templates")])


def plan_of(changes=(), **variables):
    return make_plan({"flask_apps": [{**HELLO, **dict(changes)}], **variables}, DEBIAN, "web1")


def rendered(changes=(), **variables):
    """{path: text} of all that the roles write for the app hello."""
    plan = plan_of(changes, **variables)
    flask_app = renderer(plan=plan, **ROLE_VARIABLES)
    nginx_site = renderer(role="nginx_site")
    app, site = plan["apps"][0], plan["sites"][0]
    files = {
        each["dest"]: flask_app.render(each["template"], {"app": app, **each.get("vars", {})})
        for each in plan["unit_files"]
    }
    sites = [each for each in plan["site_files"] if "template" in each]
    files.update({each["dest"]: nginx_site.render(each["template"], {"site": site, **each["vars"]}) for each in sites})
    for name in ("host.sysusers.conf.j2", "host.tmpfiles.conf.j2"):
        files[name] = flask_app.render(name, {})
    for name, template in app["release_files"].items():
        files[name] = flask_app.render(template, {"app": app, "process": name.partition(".")[0]})
    return files


@pytest.fixture(scope="module")
def files():
    return rendered()


def directives(unit):
    """{section: {directive: [values]}} of a unit; an empty value is kept."""
    sections = {}
    for line in unit.splitlines():
        if line.startswith("["):
            current = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            name, _equals, value = line.partition("=")
            current.setdefault(name, []).append(value)
    return sections


def lines(text):
    """The lines that are neither empty nor a comment."""
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_every_template_is_rendered_here(files):
    templates = {path.name for path in ROLES.glob("*/templates/*.j2")}
    files = [*plan_of({"schedules": TIDY})["unit_files"], *plan_of()["site_files"]]
    files += plan_of({"tls": {"mode": "acme"}}, nginx_site_acme_ca_file="/etc/ca.pem")["renewal_files"]
    files += make_plan({}, {"selinux_module": "/flaskfleet.cil"}, "web1")["selinux_files"]
    files += service_plan()["services"]["cache_files"]
    stats = {"load_balancer_stats_password": "12345678", "load_balancer_address": "10.0.0.2"}
    alone = Inventory("lb1", ["lb1"], str, in_group=lambda group: False)
    files += make_plan(stats, {"admin_socket": "/s"}, "lb1", inventory=alone)["balancer"]["files"]
    files += ROLE_VARIABLES["__flask_app_metrics_files"]
    known = {each["template"] for each in files if "template" in each}
    for kind in ("gunicorn", "granian"):
        everything = {"server": {"kind": kind}, "processes": {"worker": "rq"}}
        known |= set(plan_of(everything)["apps"][0]["release_files"].values())
    others = {"host.sysusers.conf.j2", "host.tmpfiles.conf.j2", "mariadb.cnf.j2", "pull.service.j2", "pull.timer.j2"}
    assert templates - known == others


def test_every_file_tells_who_wrote_it_and_ends_its_last_line(files):
    for name, text in files.items():
        assert text.startswith("# Ansible managed\n"), name
        assert text.endswith("\n") and not text.endswith("\n\n"), name
        assert "{{" not in text and "{%" not in text and "None" not in text.replace("accesslog = None", ""), name


def test_nothing_between_releases_differs(files):
    """What a release runs with must lie in the release, so the units name no commit, environment or setting of it."""
    changes = {"version": "v2", "env": {"A": "1"}, "server": {"workers": 9}, "entrypoint": "other:app"}
    other = rendered({**changes, "limits": {"memory_max": "1G"}, "processes": {"worker": "rq worker"}})
    assert set(other) - set(files) == {"worker.service"}
    for name, text in files.items():
        assert (text == other[name]) is (name not in ("gunicorn.conf.py", "service.conf")), name
    granian = rendered({"server": {"kind": "granian"}})
    assert all(granian[name] == text for name, text in files.items() if name.startswith("/etc/"))


# --- backing services ------------------------------------------------------------------------------------------------


def service_plan(family="Debian", **changes):
    own = yaml.safe_load((ROLES / "backing_service" / "vars" / "main.yml").read_text())
    app = {**HELLO, "cache": {"engine": "redis"}, **changes}
    return make_plan({"flask_apps": [app]}, own["__backing_service_platforms"][family], "web1")


def test_a_cache_is_its_app_s_alone(files):
    plan = service_plan()
    render = renderer(role="backing_service", plan=plan).render
    made = {
        each["dest"]: render(each["template"], {"app": plan["apps"][0], **each["vars"]})
        for each in plan["services"]["cache_files"]
    }
    unit = directives(made["/etc/systemd/system/flaskfleet-cache-hello.service"])
    command = shlex.split(unit["Service"]["ExecStart"][0])
    assert command[0] == "/usr/bin/redis-server" and command[command.index("--port") + 1] == "0"
    socket = plan["apps"][0]["services"]["urls"]["REDIS_URL"]["url"].removeprefix("unix://").partition("?")[0]
    assert command[command.index("--unixsocket") + 1] == socket == "/run/flaskfleet-cache/hello/cache.sock"
    expected = {"User": "flask-hello", "RuntimeDirectory": "flaskfleet-cache/hello", "RuntimeDirectoryMode": "0700"}
    assert {name: unit["Service"][name] for name in expected} == {name: [value] for name, value in expected.items()}
    account = made["/etc/sysusers.d/flaskfleet-cache-hello.conf"]
    assert lines(account) == lines(files["/etc/sysusers.d/flask-hello.conf"]), "else systemd-sysusers would complain"


def test_a_database_is_up_before_its_app():
    unit = directives(rendered({"database": {"engine": "mariadb"}})["/etc/systemd/system/flask-hello.live.service"])[
        "Unit"
    ]
    assert unit["After"] == ["network.target mariadb.service"] and unit["Wants"] == ["mariadb.service"]


@pytest.mark.parametrize("listen, address", [({}, "127.0.0.1"), ({"mariadb": "10.0.0.5"}, "10.0.0.5")])
def test_where_mariadb_listens(listen, address):
    wanted = {"listen": listen}
    text = renderer(role="backing_service", __backing_service_wanted=wanted).render("mariadb.cnf.j2", {})
    assert lines(text) == ["[mariadbd]", f"bind-address = {address}", "character-set-server = utf8mb4"]


# --- units -----------------------------------------------------------------------------------------------------------

# The sandbox: each directive with its value.
SANDBOX = """
NoNewPrivileges=yes CapabilityBoundingSet= AmbientCapabilities= UMask=0077 KeyringMode=private RemoveIPC=yes
ProtectSystem=strict ProtectHome=yes DevicePolicy=closed PrivateTmp=yes PrivateDevices=yes PrivateUsers=yes
PrivateMounts=yes PrivateIPC=yes ProtectKernelTunables=yes ProtectKernelModules=yes ProtectKernelLogs=yes
ProtectControlGroups=yes ProtectClock=yes ProtectHostname=yes ProtectProc=invisible ProcSubset=pid
RestrictNamespaces=yes RestrictRealtime=yes RestrictSUIDSGID=yes LockPersonality=yes MemoryDenyWriteExecute=yes
SystemCallArchitectures=native SystemCallErrorNumber=EPERM
""".split()


# What every release is told of its own; the sandbox and what is usual are left out of what a test compares.
OWN = ("User", "Type", "WorkingDirectory", "ExecStart", "BindPaths")


@pytest.fixture(scope="module")
def service(files):
    """The unit of a release's web process, with what is of this release alone."""
    return directives(files["/etc/systemd/system/flask-hello@.service"] + files["service.conf"])


def of_release(changes=()):
    """What systemd is told of one release alone."""
    return directives(rendered(changes)["service.conf"])


def sandbox(**changes):
    return of_release({"sandbox": changes})["Service"]


@pytest.mark.parametrize("directive", SANDBOX)
def test_sandbox(service, directive):
    name, _equals, value = directive.partition("=")
    assert service["Service"][name] == [value]


def test_sandbox_of_several_words(service):
    assert service["Service"]["SystemCallFilter"] == ["@system-service", "~@privileged @resources"]
    assert service["Service"]["RestrictAddressFamilies"] == ["AF_UNIX AF_INET AF_INET6"]


def test_a_sealed_app_reaches_nobody():
    sealed = sandbox(network=False)
    expected = {"PrivateNetwork": ["yes"], "IPAddressDeny": ["any"], "RestrictAddressFamilies": ["AF_UNIX"]}
    assert {name: sealed[name] for name in expected} == expected
    assert not set(expected) - {"RestrictAddressFamilies"} & set(sandbox())


@pytest.mark.parametrize(
    "relaxation, lifted",
    {
        "executable_memory": {"MemoryDenyWriteExecute"},
        "devices": {"PrivateDevices", "DevicePolicy"},
        "namespaces": {"RestrictNamespaces"},
        "scheduling": {"RestrictRealtime"},
    }.items(),
)
def test_what_is_relaxed(relaxation, lifted):
    strict, relaxed = sandbox(), sandbox(relax=[relaxation])
    assert set(strict) - set(relaxed) == lifted
    calls = strict.pop("SystemCallFilter"), relaxed.pop("SystemCallFilter")
    assert {name: values for name, values in strict.items() if name not in lifted} == relaxed
    assert (calls[0] != calls[1]) is (relaxation in ("namespaces", "scheduling"))
    assert calls[1][:2] == ["@system-service", "~@privileged" + " @resources" * (relaxation != "scheduling")]
    assert calls[1][2:] == ["@mount chroot pivot_root"] * (relaxation == "namespaces")


def test_what_is_writable():
    assert "ReadWritePaths" not in sandbox()
    assert sandbox(writable=["/srv/a", "/var/b"])["ReadWritePaths"] == ["/srv/a", "/var/b"]


def test_processes_have_the_sandbox_of_their_app():
    worker = rendered({"sandbox": {"network": False}, "processes": {"worker": "rq"}})["worker.service"]
    assert directives(worker)["Service"]["PrivateNetwork"] == ["yes"]


def test_the_service_sees_its_own_app_alone(service):
    seen = {name: service["Service"][name] for name in ("TemporaryFileSystem", "BindReadOnlyPaths", "BindPaths")}
    assert seen == {
        "TemporaryFileSystem": [
            "/opt/flask_apps:ro /var/lib/flask_apps:ro /run/flask_apps:ro",
            "/dev/shm:mode=1777",
        ],
        "BindReadOnlyPaths": ["/opt/flask_apps/hello"],
        "BindPaths": ["/var/lib/flask_apps/hello"],
    }
    assert service["Service"]["InaccessiblePaths"] == ["-/run/dbus"]


def test_the_service_runs_what_the_release_is_made_of(service):
    release = "/opt/flask_apps/hello/releases/%i"
    expected = {
        "User": ["flask-hello", "flask-hello"],
        "Type": ["notify"],
        "WorkingDirectory": [f"{release}/build"],
        "EnvironmentFile": [f"{release}/environment"],
        "ExecStart": [f"{release}/build/.venv/bin/gunicorn --config {release}/gunicorn.conf.py"],
        "KillMode": ["mixed"],
        "Restart": ["always"],
    }
    assert {name: service["Service"][name] for name in expected} == expected
    assert service["Unit"]["PartOf"] == ["flask-hello.target"]
    own = of_release()
    assert {name: own["Service"][name] for name in OWN if name in own["Service"]} == {
        "User": ["flask-hello"],
        "BindPaths": ["/var/lib/flask_apps/hello"],
    }
    assert own["Service"]["Environment"][0] == '"FLASK_APP=app:app"'
    assert own["Unit"] == {name: ["flask-hello@%i.socket"] for name in ("Requires", "After")}


def test_defaults_of_production(service):
    """What the app's env says goes before them: an EnvironmentFile= wins over Environment= (systemd.exec(5))."""
    path = "/opt/flask_apps/hello/releases/%i/build/.venv/bin:/usr/local/bin:/usr/bin:/bin"
    expected = ['"FLASK_APP=app:app"', "HOME=/var/lib/flask_apps/hello", f"PATH={path}", "FLASK_DEBUG=0"]
    assert service["Service"]["Environment"] == expected
    factory = of_release({"entrypoint": """shop:create_app("a b", debug='no')"""})["Service"]["Environment"]
    assert [shlex.split(each) for each in factory][:1] == [["""FLASK_APP=shop:create_app("a b", debug='no')"""]]


def test_granian_makes_its_own_socket():
    own = of_release({"server": {"kind": "granian"}, "path": "src/web"})
    release = "/opt/flask_apps/hello/releases/%i"
    assert "Unit" not in own
    assert {name: own["Service"][name] for name in OWN} == {
        "User": ["flask-hello"],
        "WorkingDirectory": [f"{release}/build/src/web"],
        "Type": ["exec"],
        "ExecStart": ["", f"{release}/build/.venv/bin/python {release}/granian.conf.py"],
        "BindPaths": ["-/run/flask_apps/hello/%i", "/var/lib/flask_apps/hello"],
    }


def test_the_service_drains_before_it_is_ended(service):
    """Outside its sandbox (+), with more time than draining may take."""
    command = service["Service"]["ExecStop"]
    assert len(command) == 1 and command[0].startswith("+/usr/local/sbin/flask-app ") and " drain " in command[0]
    assert command[0].endswith("%i")
    assert int(service["Service"]["TimeoutStopSec"][0]) > 60


def test_nothing_is_enabled_but_the_target(files):
    enabled = [name for name, text in files.items() if name.startswith("/etc/systemd") and "[Install]" in text]
    assert enabled == ["/etc/systemd/system/flask-hello.target"]
    target = directives(files[enabled[0]])
    assert target["Unit"]["Wants"] == ["flask-hello.live.service"]
    assert target["Install"]["WantedBy"] == ["multi-user.target"]


def test_socket(files):
    socket = directives(files["/etc/systemd/system/flask-hello@.socket"])
    expected = {
        "ListenStream": ["/run/flask_apps/hello/%i.sock"],
        "SocketUser": ["www-data"],
        "SocketMode": ["0600"],
        "Backlog": ["2048"],
        "RemoveOnStop": ["yes"],
    }
    assert {name: socket["Socket"][name] for name in expected} == expected
    assert socket["Unit"]["PartOf"] == ["flask-hello.target"]


def test_live_service(files):
    live = directives(files["/etc/systemd/system/flask-hello.live.service"])
    assert live["Service"]["ExecStart"] == ["/usr/local/sbin/flask-app --root /opt/flask_apps live hello"]
    assert live["Service"]["Type"] == ["oneshot"]
    assert live["Unit"]["Before"] == ["nginx.service"]


@pytest.mark.parametrize(
    "limits, expected",
    [
        ({}, {}),
        ({"memory_max": "512M"}, {"MemoryMax": ["512M"]}),
        ({"cpu_quota": "150%", "tasks_max": 64}, {"CPUQuota": ["150%"], "TasksMax": ["64"]}),
    ],
)
def test_limits(limits, expected):
    service = of_release({"limits": limits})["Service"]
    assert {name: service[name] for name in ("MemoryMax", "CPUQuota", "TasksMax") if name in service} == expected


def process(changes=(), command="rq worker", **own):
    """The unit of a process."""
    processes = {"worker": {"command": command, **own}}
    return directives(rendered({**dict(changes), "processes": processes})["worker.service"])


def test_a_process_runs_as_the_web_process_does(service):
    """In the same sandbox and environment, which commands of the release take over as well."""
    own = process()["Service"]
    started = release_host.OWN_TO_SERVICES
    ours = {name: values for name, values in own.items() if not started.fullmatch(name)}
    theirs = {name: values for name, values in service["Service"].items() if not started.fullmatch(name)}
    assert ours == {**theirs, "User": ["flask-hello"]}
    assert own["WorkingDirectory"] == ["/opt/flask_apps/hello/releases/%i/build/."]
    other = process({"user": "someone", "path": "src", "limits": {"memory_max": "1G"}})["Service"]
    assert (other["User"], other["WorkingDirectory"][0][-9:]) == (["someone"], "build/src")
    assert "MemoryMax" not in other, "that is the web process's"


def test_how_a_process_starts_and_ends():
    own = process()
    assert own["Unit"]["PartOf"] == ["flask-hello.target"] and "Install" not in own
    usual = {"Type": ["exec"], "Restart": ["always"], "KillMode": ["mixed"], "KillSignal": ["SIGTERM"]}
    usual |= {"TimeoutStopSec": ["60"], "ExecStart": [':/bin/bash -c "rq worker"']}
    assert (
        usual.items() <= {name: own["Service"][name] for name in usual}.items()
        and "RemainAfterExit" not in own["Service"]
    )
    settings = {"restart": "on-failure", "stop_signal": "INT", "stop_timeout": 600}
    own = process(**settings, limits={"memory_max": "1G", "cpu_quota": "50%", "tasks_max": 9})["Service"]
    expected = {
        "Restart": ["on-failure"],
        "KillSignal": ["SIGINT"],
        "TimeoutStopSec": ["600"],
        "RemainAfterExit": ["yes"],
    }
    expected |= {"MemoryMax": ["1G"], "CPUQuota": ["50%"], "TasksMax": ["9"]}
    assert {name: own[name] for name in expected} == expected


@pytest.mark.parametrize("command", ["a 'b c' \"d\"", "a \\n \\\\ $HOME `x` 100% %i", "a && exec b; c", "écho 😀"])
def test_the_command_of_a_process_reaches_the_shell(command):
    """systemd takes \\ before \" and \\ out of what is quoted, and %% for one; the colon lets it leave $ alone."""
    [line] = process(command=command)["Service"]["ExecStart"]
    start = ':/bin/bash -c "'
    assert line.startswith(start) and line.endswith('"')
    assert re.sub(r'\\(["\\])', r"\1", line[len(start) : -1]).replace("%%", "%") == command
    assert not re.search("%(?!%)", line.replace("%%", ""))


def test_schedules():
    own = {"tidy": {**TIDY["tidy"], "random_delay": 60, "persistent": True}, "more": TIDY["tidy"]}
    files = rendered({"schedules": own})
    timer = directives(files["/etc/systemd/system/flask-hello.tidy.timer"])
    expected = {"OnCalendar": ["Mon *-*-* 04:00"], "RandomizedDelaySec": ["60"], "AccuracySec": ["1s"]}
    assert timer["Timer"] == {**expected, "Persistent": ["yes"]} and "Install" not in timer
    assert "Persistent" not in directives(files["/etc/systemd/system/flask-hello.more.timer"])["Timer"]
    service = directives(files["/etc/systemd/system/flask-hello.tidy.service"])
    command = "/usr/local/sbin/flask-app --root /opt/flask_apps schedule hello tidy"
    assert (service["Service"]["ExecStart"], service["Service"]["Type"]) == ([command], ["oneshot"])
    assert timer["Unit"]["PartOf"] == service["Unit"]["PartOf"] == ["flask-hello.target"]
    target = directives(files["/etc/systemd/system/flask-hello.target"])
    assert target["Unit"]["Wants"] == ["flask-hello.live.service flask-hello.tidy.timer flask-hello.more.timer"]


def test_own_places_and_account():
    roots = {"flask_app_root": "/srv/a", "flask_app_data_root": "/srv/d", "flask_app_runtime_root": "/run/r"}
    files = rendered({"user": "someone"}, **roots, flask_app_proxy_user="proxy")
    assert not [name for name, text in files.items() if "/opt/flask_apps" in text or "/lib/flask_apps" in text]
    assert not [name for name, text in files.items() if "/run/flask_apps" in text or "flask-hello -" in text]
    assert "SocketUser=proxy\n" in files["/etc/systemd/system/flask-hello@.socket"]
    assert "User=someone\n" in files["/etc/systemd/system/flask-hello@.service"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
@pytest.mark.parametrize("kind", ["gunicorn", "granian"])
def test_systemd_finds_nothing_wrong(tmp_path, kind):
    """All units of an app at once, in a tree of their own that has the programs they call."""
    limits = {"memory_max": "50%", "cpu_quota": "150%", "tasks_max": 64}
    worker = {"command": "rq 'a \"b\"' $X 100% \\d é", "restart": "no", "stop_signal": "QUIT", "limits": limits}
    files = rendered({"limits": limits, "server": {"kind": kind}, "processes": {"worker": worker}, "schedules": TIDY})
    units = {path: text for path, text in files.items() if path.startswith("/etc/systemd/system/")}
    units["/etc/systemd/system/flask-hello@one.service.d/release.conf"] = files["service.conf"]
    # not one:1, since `verify` takes a colon for its own
    units["/etc/systemd/system/flask-hello.worker@one.service"] = files["worker.service"]
    release = "opt/flask_apps/hello/releases/one/build"
    for program in (
        "bin/bash",
        "usr/local/sbin/flask-app",
        "bin/kill",
        "bin/false",
        f"{release}/.venv/bin/gunicorn",
        f"{release}/.venv/bin/python",
    ):
        (tmp_path / program).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    for path, text in units.items():
        (tmp_path / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path[1:]).write_text(text)
    names = [
        "flask-hello.worker@one.service",
        "flask-hello@one.service",
        "flask-hello@one.socket",
        "flask-hello.live.service",
        "flask-hello.target",
        "flask-hello.tidy.timer",
    ]
    command = ["systemd-analyze", "--man=no", "--recursive-errors=no", f"--root={tmp_path}", "verify", *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_metrics(tmp_path):
    made = renderer(
        **ROLE_VARIABLES, plan=plan_of(flask_app_root="/srv/apps"), flask_app_metrics_file="/var/lib/x/apps.prom"
    )
    for each in ROLE_VARIABLES["__flask_app_metrics_files"][:2]:
        name = each["template"].removeprefix("metrics.").removesuffix(".j2")
        (tmp_path / f"flaskfleet-metrics.{name}").write_text(made.render(each["template"], {}))
    service = directives((tmp_path / "flaskfleet-metrics.service").read_text())["Service"]
    assert service["ExecStart"] == [f"{release_host.PROGRAM} --root /srv/apps metrics /var/lib/x/apps.prom"]
    assert directives((tmp_path / "flaskfleet-metrics.timer").read_text())["Install"] == {"WantedBy": ["timers.target"]}


def test_what_two_roles_have_is_the_same():
    """No role needs another one to be there, so they can't share it."""
    names = ("flask_app", "nginx_site", "load_balancer", "backing_service")
    found = {name: yaml.safe_load((ROLES / name / "vars" / "main.yml").read_text()) for name in names}
    assert found["load_balancer"]["__load_balancer_ciphers"] == found["nginx_site"]["__nginx_site_ciphers"]
    for family in ("Debian", "RedHat"):
        own, others = (
            found[name][f"__{name}_platforms"][family]["sockets"] for name in ("flask_app", "backing_service")
        )
        assert own == others


@pytest.mark.parametrize("root", ["/opt/flask_apps", "/srv/apps"])
def test_the_hosts_own_command_knows_where_the_apps_are(root):
    source = (ROLES.parent / "plugins" / "module_utils" / "release_host.py").read_text()
    [command] = [file for file in ROLE_VARIABLES["__flask_app_host_files"] if "content" in file]
    assert (
        command["dest"] == "{{ __flask_app_command }}" and ROLE_VARIABLES["__flask_app_command"] == release_host.PROGRAM
    )
    variables = {"__flask_app_program": source, "flask_app_root": root}
    program = Templar(loader=DataLoader(), variables=variables).template(trust_as_template(command["content"]))
    assert program == source.replace("/opt/flask_apps", root)


# --- accounts and directories ----------------------------------------------------------------------------------------


def test_accounts(files):
    assert lines(files["/etc/sysusers.d/flask-hello.conf"]) == [
        'u flask-hello /var/lib/flask_apps/hello "Runs Flask apps" /var/lib/flask_apps -'
    ]
    assert lines(files["host.sysusers.conf.j2"]) == [
        'u flaskfleet-fetch - "Fetches the code of Flask apps" /opt/flask_apps -'
    ]


def test_directories(files):
    assert lines(files["/etc/tmpfiles.d/flask-hello.conf"]) == [
        "d /opt/flask_apps/hello 0711 root root -",
        "d /opt/flask_apps/hello/builds 0711 root root -",
        "d /opt/flask_apps/hello/releases 0711 root root -",
        "d /opt/flask_apps/hello/marks 0700 root root -",
        "d /var/lib/flask_apps/hello 0700 flask-hello flask-hello -",
        "d /var/cache/flask_apps/hello 0700 flask-hello flask-hello -",
        "d /run/flask_apps/hello 0755 root root -",
    ]
    assert lines(files["host.tmpfiles.conf.j2"]) == [
        "d /opt/flask_apps 0755 root root -",
        "d /var/lib/flask_apps 0755 root root -",
        "d /var/cache/flask_apps 0755 root root -",
        "d /run/flask_apps 0755 root root -",
    ]


# --- gunicorn --------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _gunicorn_s_logger(monkeypatch):
    """What its settings import; scenario default has the real one."""
    monkeypatch.setitem(sys.modules, "gunicorn", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "gunicorn.glogging", SimpleNamespace(Logger=type("Logger", (), {})))


def gunicorn(changes=()):
    """The settings as gunicorn gets them from its file in a release."""
    release = "/opt/flask_apps/hello/releases/one"
    settings = {"__file__": f"{release}/gunicorn.conf.py"}
    text = rendered(changes)["gunicorn.conf.py"]
    exec(compile(text, "gunicorn.conf.py", "exec"), settings)
    assert settings["chdir"].startswith(f"{release}/build/")
    return settings


def test_gunicorn_writes_json():
    """Lines that nobody can forge whatever a request says."""
    settings = gunicorn({"server": {"log_format": "json"}})
    assert settings["errorlog"] == settings["accesslog"] == "-"
    formatter, request_time = settings["JSONFormatter"](), datetime.timedelta(seconds=0.0125)
    environ = {"HTTP_X_REQUEST_ID": "5f3a", "RAW_URI": '/a"\n\\{"level":"critical"}', "REQUEST_METHOD": "GET"}
    environ.update(HTTP_X_FORWARDED_FOR="192.0.2.1", HTTP_HOST="hello.test")
    records = []
    logger = settings["logger_class"].__new__(settings["logger_class"])
    logger.access_log = SimpleNamespace(info=lambda text, extra: records.append(log_record(text, extra=extra)))
    logger.access(SimpleNamespace(status="404 Not Found", sent=7), None, environ, request_time)
    line = formatter.format(records[0])
    assert "\n" not in line
    told = json.loads(line)
    assert re.fullmatch(r"2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told.pop("time"))
    expected = {"request_id": "5f3a", "client": "192.0.2.1", "host": "hello.test", "method": "GET", "status": 404}
    expected.update(uri=environ["RAW_URI"], bytes=7, request_time=0.0125, level="info", pid=os.getpid())
    assert told == expected


def test_messages_of_gunicorn_as_json():
    formatter = gunicorn({"server": {"log_format": "json"}})["JSONFormatter"]()
    error = ValueError("bad\nthing")
    line = formatter.format(log_record("Exception in %s", "worker", exc_info=(type(error), error, None)))
    told = json.loads(line)
    assert "\n" not in line and told["message"] == "Exception in worker" and told["level"] == "error"
    assert told["traceback"].endswith("ValueError: bad\nthing\n")


def log_record(text, *arguments, exc_info=None, extra=None):
    level = logging.ERROR if exc_info else logging.INFO
    return logging.getLogger("gunicorn").makeRecord("gunicorn", level, "", 0, text, arguments, exc_info, extra=extra)


def test_gunicorn():
    settings = gunicorn()
    expected = {
        "wsgi_app": "app:app",
        "proc_name": "hello",
        "bind": "unix:/opt/flask_apps/hello/releases/one/web.sock",
        "workers": len(os.sched_getaffinity(0)) + 1,
        "threads": 4,
        "worker_class": "gthread",
        "timeout": 30,
        "max_requests": 0,
        "max_requests_jitter": 0,
        "preload_app": False,
        "keepalive": 75,
        "errorlog": "-",
        "accesslog": None,
        "control_socket_disable": True,
    }
    assert {name: settings[name] for name in expected} == expected


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"server": {"workers": 999}}, {"workers": 999}),
        ({"server": {"threads": 1, "worker_class": "sync"}}, {"threads": 1, "worker_class": "sync"}),
        ({"server": {"max_requests": 1000}}, {"max_requests": 1000, "max_requests_jitter": 100}),
        ({"server": {"timeout": 90}}, {"timeout": 90}),
        ({"server": {"preload": True}}, {"preload_app": True}),
        ({"entrypoint": "wsgi"}, {"wsgi_app": "wsgi:app"}),
        ({"entrypoint": """shop:create_app("it's", 'b')"""}, {"wsgi_app": """shop:create_app("it's", 'b')"""}),
        ({"path": "src/web"}, {"chdir": "/opt/flask_apps/hello/releases/one/build/src/web"}),
    ],
)
def test_gunicorn_of_an_app(changes, expected):
    settings = gunicorn(changes)
    assert {name: settings[name] for name in expected} == expected


# --- granian ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, {"target": "app:app", "factory": False, "workers": len(os.sched_getaffinity(0)), "blocking_threads": 4}),
        ({"server": {"workers": 3, "threads": 9}}, {"workers": 3, "blocking_threads": 9}),
        ({"entrypoint": "shop.web:create_app()"}, {"target": "shop.web:create_app", "factory": True}),
        ({"path": "src/web"}, {"working_dir": Path("/opt/flask_apps/hello/releases/one/build/src/web")}),
        ({}, {"uds": Path("/run/flask_apps/hello/one/web.sock"), "uds_permissions": 0o666, "websockets": False}),
    ],
)
def test_granian(monkeypatch, changes, expected):
    """What granian is started with, from its file in a release."""
    started = {}

    class Granian:
        def __init__(self, target, **options):
            started.update(options, target=target)

        def serve(self):
            started["serving"] = True

    constants = SimpleNamespace(HTTPModes=mock.Mock(), Interfaces=mock.Mock())
    monkeypatch.setitem(sys.modules, "granian", SimpleNamespace(Granian=Granian, constants=constants))
    monkeypatch.setitem(sys.modules, "granian.constants", constants)
    server = {"kind": "granian", **changes.get("server", {})}
    text = rendered({**changes, "server": server})["granian.conf.py"]
    settings = {"__file__": "/opt/flask_apps/hello/releases/one/granian.conf.py", "__name__": "__main__"}
    exec(compile(text, "granian.conf.py", "exec"), settings)
    assert {name: started[name] for name in expected} == expected
    assert started["serving"]


# --- sites -----------------------------------------------------------------------------------------------------------


def seconds(site, name):
    (line,) = (each.split() for each in lines(site) if each.split()[0] == name)
    return int(line[1].rstrip("s;"))


def test_site(files):
    site = files["/etc/nginx/sites-available/hello.test.conf"]
    words = [" ".join(line.split()) for line in lines(site)]
    for expected in (
        "upstream flask_hello {",
        "server unix:/opt/flask_apps/hello/current/web.sock;",
        "server_name hello.test web1.hello.test;",
        "proxy_pass http://flask_hello;",
        "proxy_http_version 1.1;",
        'proxy_set_header Connection "";',
        "proxy_set_header Host $host;",
        "proxy_set_header X-Forwarded-For $remote_addr;",
        "proxy_set_header X-Forwarded-Proto $scheme;",
    ):
        assert words.count(expected) == 1, expected
    assert site.count("{") == site.count("}")


def test_only_the_proxy_closes_upstream_connections(files):
    site = files["/etc/nginx/sites-available/hello.test.conf"]
    assert max(seconds(site, "keepalive_timeout"), seconds(site, "keepalive_time")) < gunicorn()["keepalive"]


def test_unknown_names_are_refused(files):
    default = files["/etc/nginx/sites-available/_default.conf"]
    assert "listen 80 default_server;" in default and "return 444;" in default
    assert "default_server" not in files["/etc/nginx/sites-available/hello.test.conf"]


def test_aliases_of_a_site():
    site = rendered({"aliases": ["www.hello.test"]})["/etc/nginx/sites-available/hello.test.conf"]
    assert "    server_name hello.test www.hello.test web1.hello.test;\n" in site


@pytest.mark.parametrize("block", ["http", "upstream", "listen", "settings", "locations", "proxy", "extra"])
def test_a_template_of_a_user_replaces_one_block(tmp_path, files, block):
    text = '{% extends "base/site.conf.j2" %}\n{% block BLOCK %}\n# mine, {{ site.domain }}\n{% endblock %}\n'
    text = text.replace("BLOCK", block)
    (tmp_path / "site.conf.j2").write_text(text)
    site = plan_of()["sites"][0]
    mine = renderer(str(tmp_path), role="nginx_site").render("site.conf.j2", {"site": site})
    original = files["/etc/nginx/sites-available/hello.test.conf"]
    added = set(mine.splitlines()) - set(original.splitlines())
    assert added == {"# mine, hello.test"}
    assert mine.startswith("# Ansible managed\n") and mine.count("{") == mine.count("}")
    if block != "extra":
        assert len(mine) < len(original)
    if block in ("locations", "proxy"):
        assert "upstream flask_hello {" in mine and "server_name" in mine


def test_a_template_of_a_user_adds_to_a_block(tmp_path, files):
    block = "{% block proxy %}\n{{ super() }}        proxy_read_timeout 5s;\n{% endblock %}\n"
    (tmp_path / "site.conf.j2").write_text('{% extends "base/site.conf.j2" %}\n' + block)
    mine = renderer(str(tmp_path), role="nginx_site").render("site.conf.j2", {"site": plan_of()["sites"][0]})
    original = files["/etc/nginx/sites-available/hello.test.conf"]
    assert mine.replace("        proxy_read_timeout 5s;\n", "") == original


# --- the renderer ----------------------------------------------------------------------------------------------------


def test_a_users_template_goes_before_the_roles(tmp_path):
    (tmp_path / "app.target.j2").write_text("mine: {{ app.name }}\n")
    render = renderer(str(tmp_path), plan=plan_of()).render
    assert render("app.target.j2", {"app": {"name": "hello"}}) == "mine: hello\n"
    assert "[Socket]" in render("web.socket.j2", {"app": plan_of()["apps"][0]})


@pytest.mark.parametrize(
    "text, problem",
    [
        ("one\n{{ nope }}\n", "template x.j2: line 2: 'nope' is undefined"),
        ("one\n\n{% if %}\n", "template x.j2: line 3"),
        ("{{ value | mandatory | int / 0 }}\n", "template x.j2: "),
    ],
)
def test_template_errors(tmp_path, text, problem):
    (tmp_path / "x.j2").write_text(text)
    for sensitive in (False, True):
        with pytest.raises(TemplateError) as caught:
            renderer(str(tmp_path)).render("x.j2", {"value": "canary"}, sensitive)
        assert str(caught.value).startswith(problem)
        assert not (sensitive and "canary" in str(caught.value))


def test_a_template_that_is_not_there(tmp_path):
    with pytest.raises(TemplateError, match=f"^template x.j2: not found in {tmp_path}, .*flask_app/templates$"):
        renderer(str(tmp_path)).render("x.j2", {})


def test_values_are_not_templates(tmp_path):
    (tmp_path / "x.j2").write_text("{{ value }}\n")
    assert renderer(str(tmp_path)).render("x.j2", {"value": "{{ 7 * 7 }}"}) == "{{ 7 * 7 }}\n"


def pull_agent(name, **changes):
    folder = ROLES / "pull_agent"
    defaults, variables = (yaml.safe_load((folder / part / "main.yml").read_text()) for part in ("defaults", "vars"))
    variables["ansible_managed"] = "Ansible managed"
    return renderer(role="pull_agent", **{**defaults, **variables, **changes}).render(name, {})


def test_a_pull_that_hangs_is_ended_with_all_that_it_has_started():
    service = directives(pull_agent("pull.service.j2", pull_agent_timeout=300))["Service"]
    assert (service["Type"], service["KillMode"], service["TimeoutStartSec"]) == (
        ["oneshot"],
        ["control-group"],
        ["300"],
    )
    assert service["ExecStopPost"] == ["-/usr/local/sbin/flaskfleet-pull note-end"]
    assert service["LoadCredentialEncrypted"] == [
        "vault_password:flaskfleet-pull.vault_password",
        "repository_key:flaskfleet-pull.repository_key",
    ]


def test_pulling_hosts_are_spread():
    timer = directives(pull_agent("pull.timer.j2"))["Timer"]
    assert (timer["OnCalendar"], timer["RandomizedDelaySec"]) == (["*:0/15"], ["15min"])
    assert timer["FixedRandomDelay"] == ["yes"]


SIGNER = "alice@example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== alice"


@pytest.mark.parametrize(
    "changes, wrong",
    [
        ({}, []),
        ({"pull_agent_repository": "git@git.test:team/fleet.git"}, []),
        ({"pull_agent_repository": "ssh://git@git.test/fleet.git"}, []),
        ({"pull_agent_version": "0" * 40, "pull_agent_allowed_signers": []}, []),
        ({"pull_agent_allowed_signers": [f'alice@a.test namespaces="git" {SIGNER.partition(" ")[2]}']}, []),
        ({"pull_agent_repository": ""}, ["pull_agent_repository"]),
        ({"pull_agent_repository": "--upload-pack=x"}, ["pull_agent_repository"]),
        ({"pull_agent_repository": "https://me:c4n4ry@git.test/"}, ["pull_agent_repository"]),
        ({"pull_agent_version": "-x"}, ["pull_agent_version"]),
        ({"pull_agent_version": "v1", "pull_agent_allowed_signers": []}, ["pull_agent_allowed_signers"]),
        ({"pull_agent_allowed_signers": ["ssh-ed25519 AAAA"]}, ["pull_agent_allowed_signers"]),
        ({"pull_agent_timeout": 59, "pull_agent_host": "a\nb"}, ["pull_agent_timeout", "pull_agent_on_calendar"]),
    ],
)
def test_what_is_wrong_with_the_variables_of_an_agent(changes, wrong):
    folder = ROLES / "pull_agent"
    defaults, variables = (yaml.safe_load((folder / part / "main.yml").read_text()) for part in ("defaults", "vars"))
    good = {"pull_agent_repository": "https://git.test/fleet.git", "pull_agent_allowed_signers": [SIGNER]}
    templar = Templar(loader=DataLoader(), variables=trusted({**defaults, **variables, **good, **changes}))
    problems = templar.template(trust_as_template("{{ __pull_agent_problems }}"))
    assert [re.match("`([a-z_]+)`", problem)[1] for problem in problems] == wrong
    assert "c4n4ry" not in str(problems)


def test_role_and_agent_call_the_environment_alike(tmp_path):
    folder = ROLES / "pull_agent"
    variables = yaml.safe_load((folder / "vars" / "main.yml").read_text())
    facts = {"os_family": "Debian", "python": {"executable": "/usr/bin/python3", "version": {"minor": 13}}}
    pins = (
        folder / "files" / "requirements.txt"
    ).read_text()  # a lookup plugin takes more of Ansible than there is here
    variables.update(ansible_facts=facts, __pull_agent_pins=pins)
    templar = Templar(loader=DataLoader(), variables=trusted(variables))
    expected = templar.template(trust_as_template("{{ __pull_agent_environment }}"))
    settings = {"environments": "/opt/flaskfleet", "python": "/usr/bin/python3", "pip_options": []}
    settings["requirements"] = str(folder / "files" / "requirements.txt")
    assert pull.Environment(settings).directory == expected


def trusted(value):
    """A file's content as Ansible loads it, with templates that are evaluated."""
    if isinstance(value, dict):
        return {key: trusted(each) for key, each in value.items()}
    if isinstance(value, list):
        return [trusted(each) for each in value]
    return trust_as_template(value) if isinstance(value, str) else value
