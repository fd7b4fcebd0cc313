# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The apps of scenario backing_services, and how tests ask them and their databases."""

from __future__ import annotations

import json
import subprocess

import pytest

PARTS = ("--tags", "build,release")  # sites and databases stay the same


class Board:
    """One of the apps on a test host.

    :ivar unit: of its database's server
    """

    def __init__(self, machine, name, engine):
        self.machine = machine
        self.name = name
        self.engine = engine
        self.unit = f"{engine}.service"
        self.database = name.replace("-", "_")

    def variables(self, **changes):
        return {
            "flask_apps": "{{ test_board_apps }}",
            "flask_app_defaults": "{{ test_board_defaults }}",
            "flask_app_release_leader": "{{ inventory_hostname }}",
            "flask_app_only": [self.name],
            "flask_app_overrides": {self.name: changes},
        }

    def deploy(self, *arguments, **changes):
        return self.machine.deploy(*(arguments or PARTS), **self.variables(**changes))

    def fail(self, **changes):
        """Deploy it in vain; returns what was said, in one line."""
        result = self.machine.attempt(*PARTS, **self.variables(**changes))
        assert result.returncode != 0, result.stdout
        return " ".join(result.stdout.split())

    @property
    def live(self):
        return self.machine.live(self.name)["release"]

    def get(self, path="/"):
        return self.machine.get(f"{self.name}.test", path)

    def post(self, path, **fields):
        """Send a form; returns (status, body)."""
        url = f"http://{self.name}.test{path}"
        command = ["curl", "--silent", "--max-time", "20", "--resolve", f"{self.name}.test:80:{self.machine.address}"]
        command += [part for key, value in fields.items() for part in ("--data-urlencode", f"{key}={value}")]
        if not fields:
            command += ["--request", "POST"]
        command += ["--write-out", "\n%{http_code}", url]
        body, _newline, status = subprocess.run(command, capture_output=True, text=True, check=False).stdout.rpartition(
            "\n"
        )
        return int(status), body

    def posts(self):
        status, body = self.get("/posts")
        assert status == 200, body
        return json.loads(body)

    def environment(self):
        """The environment file of the live release, as root sees it."""
        return self.machine.output(f"cat /opt/flask_apps/{self.name}/current/environment")

    def sql(self, statement, account="", database="", server=None):
        """What a server answers to a statement, as its administrator or as a system account. testinfra's result.

        :param server: the Machine with the database, when it is another one
        """
        database = self.database if database == "" else database
        if self.engine == "postgresql":
            user = account or "postgres"
            command = f'runuser -u {user} -- psql -d {database} -Atc "{statement}"'
        else:
            user = account or "root"
            command = f'runuser -u {user} -- mariadb {database} -BNe "{statement}"'
        return (server or self.machine).host.run(f"cd / && {command}")


@pytest.fixture(params=["board", "mariadb-board"])
def board(request, machine):
    """Each app whose database is on its own host."""
    return Board(machine, request.param, "mariadb" if "mariadb" in request.param else "postgresql")


@pytest.fixture
def spare(machine):
    """The app whose database may be stopped while the other host is tested: that one uses the other kind here."""
    return Board(machine, *(("board", "postgresql") if machine.name == "ubuntu" else ("mariadb-board", "mariadb")))


@pytest.fixture
def queued(machine):
    """The app with a worker."""
    return Board(machine, "board", "postgresql")


@pytest.fixture
def peer(machine):
    """The app whose database is on the other host."""
    return Board(machine, "peer", "postgresql" if machine.name == "ubuntu" else "mariadb")
