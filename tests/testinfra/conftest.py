# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the checks of all scenarios share. They run on each test host; a failing one shows the services' journal."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from xdist.scheduler import LoadScopeScheduling

PROJECT = Path(__file__).parents[2]
# TEST_INVENTORY: another folder like molecule/inventory, with a network and hosts of its own
INVENTORY = Path(os.environ.get("TEST_INVENTORY", PROJECT / "molecule" / "inventory"))
NETWORK = yaml.safe_load((INVENTORY / "hosts.yml").read_text())["all"]["vars"]
REPOSITORY = f"git://{NETWORK['test_network_gateway']}/hello.git"
LOAD = PROJECT / "tests" / "load" / "load.py"
# The variables of the apps of scenario releases, which the inventory has.
MOODY = {"flask_apps": "{{ test_moody_apps }}", "flask_app_defaults": "{{ test_moody_defaults }}"}


def head(app, branch):
    """The commit of a branch of a test app, as the server of the test repositories says."""
    repository = f"git://{NETWORK['test_network_gateway']}/{app}.git"
    answer = subprocess.run(["git", "ls-remote", repository, branch], capture_output=True, text=True, check=True)
    return answer.stdout.split()[0]


class Machine:
    """A test host as the checks see it: ``run`` on it, ask its nginx, deploy to it alone.

    :ivar name: its name in the inventory
    :ivar address: its fixed address on the test network
    :ivar debian: whether it has Debian's layout
    """

    def __init__(self, host, name, address):
        self.host = host
        self.name = name
        self.address = address
        self.debian = host.file("/etc/debian_version").exists

    def output(self, command):
        return self.host.check_output(command)

    def get(self, domain, path="/"):
        """(HTTP status, body) of a page, asked from outside; status 0 when the connection was closed unanswered."""
        url = f"http://{domain}{path}"
        command = ["curl", "--silent", "--max-time", "20", "--resolve", f"{domain}:80:{self.address}"]
        result = subprocess.run(
            [*command, "--write-out", "\n%{http_code}", url], capture_output=True, text=True, check=False
        )
        body, _newline, status = result.stdout.rpartition("\n")
        return int(status), body

    def live(self, app):
        """release.json of an app's live release."""
        return json.loads(self.output(f"cat /opt/flask_apps/{app}/current/release.json"))

    def unit(self, app, kind="service"):
        return f"flask-{app}@{self.live(app)['release']}.{kind}"

    def property(self, unit, name):
        return self.output(f"systemctl show --property {name} --value {unit}")

    def deploy_command(self, *arguments, playbook="site", **variables):
        """The command line that runs a playbook on this host alone, with arguments and extra variables."""
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "--inventory", str(INVENTORY)]
        command += ["--limit", self.name, f"flaskfleet.deploy.{playbook}", *arguments]
        return [*command, "--extra-vars", json.dumps(variables)]

    def attempt(self, *arguments, **variables):
        """Run a playbook, whatever comes of it; returns the subprocess.CompletedProcess."""
        command = self.deploy_command(*arguments, **variables)
        return subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)

    def begin(self, *arguments, **variables):
        """Start a playbook; returns the subprocess.Popen, with its output as text."""
        command = self.deploy_command(*arguments, **variables)
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)

    def deploy(self, *arguments, **variables):
        """Run a playbook, the site when not said; returns its output. The test fails if it fails or is deprecated."""
        result = self.attempt(*arguments, **variables)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "DEPRECATION WARNING" not in result.stderr, result.stderr
        return result.stdout

    @contextlib.contextmanager
    def under_load(self, app, rate=100, streams=0):
        """Ask the page of an app ``<app>.test`` meanwhile; yields the load's report, which is filled at the end."""
        command = [sys.executable, str(LOAD), self.address, f"{app}.test", "--rate", str(rate)]
        # a kept connection of nginx stays with the release that it was opened to for up to 2 s
        command += ["--streams", str(streams), "--until-eof", "--seconds", "3"]
        report = {}
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load:
            try:
                yield report
            finally:
                report.update(json.loads(load.communicate()[0]))


class Listener:
    """Hears the word of runs, on this machine.

    :ivar url: for ``flask_app_notify``
    :ivar heard: what was said, in its order
    """

    def __init__(self):
        heard = self.heard = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_arguments):
                """Keep quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/c4n4ry"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def end(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def listener():
    listener = Listener()
    yield listener
    listener.end()


ENVIRONMENT = {
    **os.environ,
    "ANSIBLE_FORCE_COLOR": "false",
    "ANSIBLE_CONFIG": str(PROJECT / "tests" / "ansible.cfg"),
    "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / ".cache" / "collections"),
}


@pytest.fixture(scope="session")
def inventory():
    """{host name: variables} of the test hosts."""
    command = [str(Path(sys.executable).parent / "ansible-inventory"), "--inventory", str(INVENTORY), "--list"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    return json.loads(result.stdout)["_meta"]["hostvars"]


@pytest.fixture(scope="module")
def machine(host, inventory):
    # testinfra talks to the container directly: each command through Ansible would take a second
    name = host.backend.name.rpartition("-")[2]
    return Machine(host, name, inventory[name]["test_host_address"])


class HostScheduling(LoadScopeScheduling):
    """The tests of a host run one after the other in one process, beside those of the other hosts."""

    def _split_scope(self, nodeid):
        host = re.search(r"podman://[a-z]+-[a-z]+-([a-z]+)", nodeid)
        return host[1] if host else "all"


def pytest_xdist_make_scheduler(config, log):
    return HostScheduling(config, log)


def pytest_collection_modifyitems(items):
    """What is checked at the end of each scenario comes last."""
    items.sort(key=lambda item: "afterwards" in item.path.parts)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Put what our services and nginx have logged on the host behind the message of a check that failed there."""
    report = yield
    if report.failed and "host" in item.funcargs:
        for title, command in LOGS.items():
            report.sections.append((f"{title} of {item.funcargs['host'].backend.name}", _shown(item, command)))
    return report


LOGS = {
    "journal": "journalctl --no-pager --lines=60 --unit='flask-*' --unit='flaskfleet-*' --unit=nginx",
    "nginx's errors": "tail -n 20 /var/log/nginx/*error.log",
    "nginx's last requests": "tail -n 5 /var/log/nginx/*access.log",
}


def _shown(item, command):
    """What a command writes on the host, or why it could not be run there: nothing hides the failure of the check."""
    try:
        return item.funcargs["host"].run(command).stdout
    except Exception as error:  # pylint: disable=broad-exception-caught
        return f"not to be had: {error}"
