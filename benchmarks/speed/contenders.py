# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who deploys in the speed benchmark: this collection, and what it is compared with, each on a host of its own."""

from __future__ import annotations

import copy
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
sys.path[:0] = [str(PROJECT / "tests" / "lab")]

from machines import Lab, Machine, output_of  # noqa: E402

TOOLS = PROJECT / ".cache" / "benchmarks-tools"  # a virtual environment, made by the script "run"
App = dict[str, object]


@dataclass(frozen=True)
class Run:
    """What a deployment took.

    :ivar started: time.perf_counter() at its start
    :ivar tasks: how many tasks ran on the host; 0 where there is no such thing
    """

    started: float
    seconds: float
    tasks: int = 0


class Collection:
    """The site playbook of this collection."""

    name = "collection"
    tags = ""

    def __init__(self, lab: Lab, machine: Machine, **connection: object) -> None:
        self.lab = lab
        self.machine = machine
        self.connection = connection

    def with_tags(self, tags: str) -> Collection:
        """The same with --tags."""
        found = copy.copy(self)
        found.name, found.tags = f"{self.name}, --tags {tags}", tags
        return found

    async def deploy(self, apps: list[App]) -> Run:
        """Make a list of apps true."""
        return await self._playbook("flaskfleet.deploy.site", flask_apps=apps)

    async def _playbook(self, playbook: str | Path, **variables: object) -> Run:
        found = await self.lab.playbook(playbook, self.machine.name, self.tags, **variables, **self.connection)
        results = [hosts.get(self.machine.name, {}) for hosts in found.tasks.values()]
        ran = sum(not result.get("skipped", False) for result in results if result)
        return Run(found.started, found.seconds, ran)


class Plain(Collection):
    """A plain playbook: plain/site.yml."""

    name = "plain playbook"

    async def deploy(self, apps: list[App]) -> Run:
        return await self._playbook(HERE / "plain" / "site.yml", apps=apps)


class Empty(Collection):
    """A play that gathers facts and does nothing else: what no playbook can go below."""

    name = "empty play"

    async def deploy(self, apps: list[App]) -> Run:
        return await self._playbook(HERE / "plain" / "empty.yml")


class Pyinfra:
    """The steps of the plain playbook as a deploy of pyinfra."""

    name = "pyinfra"

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    async def deploy(self, apps: list[App]) -> Run:
        started = time.perf_counter()
        command = [TOOLS / "bin" / "pyinfra", "-y", f"@podman/{self.machine.container}", HERE / "pyinfra_deploy.py"]
        await output_of(*command, "--data", f"apps={json.dumps(apps)}")
        return Run(started, time.perf_counter() - started)


async def over_ssh(lab: Lab, machine: Machine) -> Collection:
    """The collection by SSH instead of Podman's connection; sets the host up for it."""
    key = lab.served / "ssh-key"
    if not key.exists():
        await output_of("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    variables = {"public_key": Path(f"{key}.pub").read_text().strip()}
    await lab.playbook(HERE / "ssh.yml", machine.name, **variables)
    options = "-o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o ControlMaster=auto -o ControlPersist=60s"
    connection = {"ansible_connection": "ssh", "ansible_host": machine.address, "ansible_user": "root"}
    connection |= {"ansible_ssh_private_key_file": str(key), "ansible_ssh_common_args": options}
    found = Collection(lab, machine, **connection)
    found.name = "collection by SSH"
    return found
