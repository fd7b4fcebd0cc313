# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machines of a benchmark or a torture campaign: made, deployed to, looked at, removed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent
NGINX_ERRORS = "/var/log/nginx/error.log"
ENVIRONMENT = {
    **os.environ,
    "ANSIBLE_FORCE_COLOR": "false",
    "ANSIBLE_CONFIG": str(PROJECT / "tests" / "ansible.cfg"),
    "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / ".cache" / "collections"),
    "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
}


class CommandFailed(Exception):
    """A command ended with another status than 0; the text has the last lines it wrote."""


async def output_of(*command: str | Path) -> str:
    """Run a command and return what it wrote to standard output, without blocking the load.

    :raises CommandFailed: its status was not 0
    """
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=ENVIRONMENT
    )
    output, errors = (part.decode(errors="replace") for part in await process.communicate())
    if process.returncode:
        lines = (output + errors).strip().splitlines()[-40:]
        raise CommandFailed("\n".join([f"{' '.join(map(str, command[:4]))} … ended with {process.returncode}", *lines]))
    return output


@dataclass
class PlaybookRun:
    """What a run of a playbook took and said.

    :ivar started: time.perf_counter() at its start
    :ivar seconds: how long it took, with the start of Ansible
    :ivar tasks: {name of the task: {host: result}}
    """

    started: float
    seconds: float
    tasks: dict[str, dict[str, dict]]

    def result(self, task: str) -> dict[str, dict]:
        """{host: result} of a task, whichever role it belongs to."""
        return next(results for name, results in self.tasks.items() if name.rpartition(" : ")[2] == task)


def tasks_of(output: str) -> dict[str, dict[str, dict]]:
    """{name of the task: {host: result}} of what a run of a playbook wrote."""
    plays = json.loads(output[output.index("{") :])["plays"]
    return {task["task"]["name"]: task["hosts"] for play in plays for task in play["tasks"]}


@dataclass
class Machine:
    """One test host.

    :ivar name: its name in the inventory
    :ivar address: its fixed address
    :ivar container: the name of its container
    """

    name: str
    address: str
    container: str

    @property
    def gateway(self) -> str:
        """The first address of its network: this machine itself, which serves the repositories."""
        return self.address.rpartition(".")[0] + ".1"

    async def run(self, command: str) -> str:
        """What a shell command on the machine writes to standard output."""
        return await output_of("podman", "exec", self.container, "sh", "-c", command)

    async def nginx(self) -> dict[str, object]:
        """Process ids of nginx's master and workers, and how often the journal says that it was reloaded.

        A reload replaces all workers, so the same workers mean that there was none.
        """
        main = (await self.run("systemctl show --property MainPID --value nginx")).strip()
        workers = (await self.run(f"cat /proc/{main}/task/{main}/children")).split()
        reloads = await self.run("journalctl --quiet --output=cat --unit=nginx | grep -c '^Reloaded' || true")
        return {"master": int(main), "workers": sorted(map(int, workers)), "reloads": int(reloads)}

    async def nginx_errors(self, since: int = 0) -> list[str]:
        """Lines of nginx's error log, without the first ``since``."""
        lines = (await self.run(f"cat {NGINX_ERRORS} 2>/dev/null || true")).splitlines()
        return lines[since:]

    async def journal(self, app: str) -> list[str]:
        """The last lines that an app's units wrote."""
        return (await self.run(f"journalctl --quiet --no-pager --lines=40 --unit='flask-{app}*'")).splitlines()

    async def versions(self, app: str, packages: tuple[str, ...]) -> list[str]:
        """Lines ``name==version`` of an app's live build, of the packages asked for."""
        lock = await self.run(f"cat /opt/flask_apps/{app}/current/build/.venv/requirements.lock")
        return [line for line in map(str.strip, lock.splitlines()) if line.split("==")[0].lower() in packages]

    async def description(self) -> dict[str, str]:
        """What the machine is and has."""
        system = await self.run(". /etc/os-release; echo $PRETTY_NAME")
        nginx = await self.run("nginx -v 2>&1")
        systemd = await self.run("systemctl --version")
        return {"system": system.strip(), "nginx": nginx.strip(), "systemd": systemd.split("\n")[0]}


async def kinds_of_hosts() -> list[str]:
    """Of what each test host is made, such as ``ubuntu: stand-in (Debian 13 packages)``."""
    return (await output_of(PROJECT / "molecule" / "hosts" / "build", "--kind")).splitlines()


async def serve(*arguments: str | Path) -> None:
    """Serve repositories, or stop. The server would keep a pipe open, so it gets none."""
    process = await asyncio.create_subprocess_exec(
        PROJECT / "tests" / "apps" / "serve",
        *map(str, arguments),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    if await process.wait():
        raise CommandFailed("tests/apps/serve failed")


@dataclass
class Lab:
    """The machines of one inventory, and the repositories that are served to them.

    :ivar inventory: the folder that declares them; its hosts are in the group test_hosts
    :ivar served: the folder of the repositories
    """

    inventory: Path
    served: Path

    def command(self, playbook: str | Path, limit: str = "", tags: str = "", **variables: object) -> list[str]:
        """The command line that runs a playbook, or parts of it, on the machines, or on some of them."""
        command = [PROGRAMS / "ansible-playbook", "--inventory", self.inventory, playbook]
        command += ["--extra-vars", json.dumps(variables), *(["--limit", limit] if limit else [])]
        command += ["--tags", tags] if tags else []
        return list(map(str, command))

    async def playbook(self, playbook: str | Path, limit: str = "", tags: str = "", **variables: object) -> PlaybookRun:
        """Run a playbook.

        :raises CommandFailed: the run failed
        """
        started = time.perf_counter()
        output = await output_of(*self.command(playbook, limit, tags, **variables))
        return PlaybookRun(started, time.perf_counter() - started, tasks_of(output))

    async def create(self) -> list[Machine]:
        """Make the machines, and serve the repository of the app moody to them."""
        await output_of(*self.command(PROJECT / "molecule" / "hosts" / "create.yml"))
        self.served.mkdir(parents=True, exist_ok=True)
        listing = await output_of(PROGRAMS / "ansible-inventory", "--inventory", self.inventory, "--list")
        found = json.loads(listing)
        hosts = {name: found["_meta"]["hostvars"][name] for name in found["test_hosts"]["hosts"]}
        await output_of(PROJECT / "tests" / "apps" / "make-repository", "moody", self.served / "moody.git")
        await serve(next(iter(hosts.values()))["test_network_gateway"], self.served)
        return [
            Machine(name, each["test_host_address"], f"{each['test_network_name']}-{name}")
            for name, each in hosts.items()
        ]

    @contextlib.asynccontextmanager
    async def copies(self, machine: Machine, count: int, subnet: str) -> AsyncIterator[tuple[Lab, list[Machine]]]:
        """So many copies of a machine as it is now, in the group appservers of a lab of their own.

        :param subnet: the first three numbers of their addresses
        """
        network, image = f"{machine.container}-copies", f"localhost/{machine.container}-copy"
        await output_of("podman", "commit", "--quiet", machine.container, image)
        hosts = {
            f"host{number:02}": {
                "ansible_host": f"{network}-{number:02}",
                "test_host_address": f"{subnet}.{10 + number}",
            }
            for number in range(1, count + 1)
        }
        common = {"ansible_connection": "containers.podman.podman", "test_host_image": image}
        common |= {"test_network_name": network, "test_network_subnet": f"{subnet}.0/24"}
        common |= {"test_network_gateway": f"{subnet}.1"}
        groups = {"test_hosts": {"hosts": hosts, "vars": common}, "appservers": {"hosts": dict.fromkeys(hosts)}}
        inventory = self.served / "copies.json"
        inventory.write_text(json.dumps({"all": {"children": groups}}))
        lab = Lab(inventory, self.served)
        try:
            await output_of(*lab.command(PROJECT / "molecule" / "hosts" / "create.yml"))
            yield lab, [Machine(name, each["test_host_address"], each["ansible_host"]) for name, each in hosts.items()]
        finally:
            await output_of(*lab.command(PROJECT / "molecule" / "hosts" / "destroy.yml"))
            await output_of("podman", "rmi", "--force", image)

    async def destroy(self) -> None:
        """Remove all that create() made."""
        if self.served.is_dir():
            await serve("stop", self.served)
        await output_of(*self.command(PROJECT / "molecule" / "hosts" / "destroy.yml"))
