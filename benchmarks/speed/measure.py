#!/usr/bin/env python3
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Speed: what runs, deployments and requests cost, beside a plain playbook and pyinfra in the same run.

Makes machines of its own and removes them. Writes benchmarks/results/speed.json, .md, .png and .svg (a quick run:
.cache/reports). docs/performance.md says how to read them.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import re
import shlex
import time
from dataclasses import dataclass, field

from contenders import HERE, PROJECT, TOOLS, App, Collection, Empty, Plain, Pyinfra, over_ssh
from machines import ENVIRONMENT, Lab, Machine, kinds_of_hosts, output_of  # contenders knows where it is

LAB = Lab(HERE / "inventory", PROJECT / ".cache" / "speed")
CONNECTIONS = 32  # of the load that asks for all there is
RATE = 400  # requests a second of the load that is equal for all
PATIENCE = 10  # seconds after the end of a run in which a deployment must be seen


@dataclass
class Samples:
    """All that was measured: one row for each thing, with every value.

    :ivar rows: [{what, size, who, unit, values}]
    """

    rows: list[dict] = field(default_factory=list)

    def add(self, what: str, size: int, who: str, value: float, unit: str = "s") -> None:
        """Add one value, and say it."""
        key = {"what": what, "size": size, "who": who, "unit": unit}
        row = next((row for row in self.rows if row.items() >= key.items()), None)
        if row is None:
            row = {**key, "values": []}
            self.rows.append(row)
        row["values"].append(round(value, 3))
        print(f"  {what}, {size}, {who}: {value:.2f} {unit}", flush=True)


class Benchmark:
    """One run of the benchmark."""

    def __init__(self, options: argparse.Namespace, hosts: dict[str, Machine], samples: Samples) -> None:
        self.options = options
        self.hosts = hosts
        self.samples = samples
        self.gateway = next(iter(hosts.values())).gateway
        self.collections = [Collection(LAB, hosts[name]) for name in ("ubuntu", "almalinux")]
        for each in self.collections:
            each.name = f"collection, {each.machine.name}"
        self.collection = self.collections[0]
        self.plain = Plain(LAB, hosts["plain"])
        self.pyinfra = Pyinfra(hosts["pyinfra"])
        self.empty = Empty(LAB, hosts["ubuntu"])
        self.everyone = [*self.collections, self.plain, self.pyinfra]

    def app(self, name: str, **keys: object) -> App:
        """An app of the list; its name is its domain, too."""
        repository = f"git://{self.gateway}/hello.git"
        model = {"name": name, "domain": f"{name}.test", "repository": repository, "version": "master"}
        return {**model, "health_path": "/health", "settle": 1, **keys}

    # --- what runs cost ---

    async def bare(self) -> None:
        """The first run ever: it installs the OS packages, too. Afterwards every host has the app warm."""
        for each in self.everyone:
            if each not in self.collections:
                await each.machine.run("apt-get -qq update")  # the image has no lists, but they pass for fresh ones
            run = await each.deploy([self.app("warm")])
            self.samples.add("bare machine", 1, each.name, run.seconds)

    async def runs(self) -> None:
        """For lists of growing length: the first deployment, a run with nothing to do, and one with a new commit."""
        ssh = await over_ssh(LAB, self.hosts["ubuntu"])
        await self.unchanged([self.app("warm")], ssh)
        await self.memory(1)
        apps: list[App] = []
        for size in self.options.apps:
            apps += [self.app(f"app{number}") for number in range(len(apps), size)]
            for each in self.contenders(size):
                run = await each.deploy(apps)
                self.samples.add("first deployment", size, each.name, run.seconds)
            await self.unchanged(apps, ssh)
            await self.new_commit(apps)
            await self.memory(size + 1)

    def contenders(self, size: int) -> list:
        """Who can be asked for so many apps in acceptable time."""
        return self.everyone if size <= self.options.compared else self.collections

    async def unchanged(self, apps: list[App], ssh: Collection) -> None:
        """Runs that find everything as it should be, one after the other, over and over."""
        others = [each for each in self.contenders(len(apps)) if each not in self.collections]
        for number in range(self.options.repeats):
            for each in (self.empty, *self.collections, ssh):
                run = await each.deploy(apps)
                self.samples.add("nothing changed", len(apps), each.name, run.seconds)
                if number == 0 and run.tasks:
                    self.samples.add("tasks when nothing changed", len(apps), each.name, run.tasks, "tasks")
            # a run of theirs over 50 apps takes minutes
            for each in others if number < self.options.repeats / (1 + len(apps) // 20) else ():
                run = await each.deploy(apps)
                self.samples.add("nothing changed", len(apps), each.name, run.seconds)

    async def new_commit(self, apps: list[App]) -> None:
        """One app of the list has a new commit: from the start of the run until it answers a request."""
        apps = [self.app(apps[0]["name"], version="moving"), *apps[1:]]
        quick = [each.with_tags("build,release") for each in self.collections]
        for each in [*self.contenders(len(apps)), *quick]:
            for number in range(1 + self.options.repeats):
                answer = await self.commit(f"{len(apps)} {each.name} {number}")
                seconds = await self.until_answered(each, apps, answer)
                if number:  # the first one brings the app to the branch
                    self.samples.add("new commit until it answers", len(apps), each.name, seconds)

    async def commit(self, text: str) -> str:
        """Make a commit on the branch "moving" whose page says this text."""
        git = [
            "git",
            f"--git-dir={LAB.served / 'hello.git'}",
            "-c",
            "user.name=tests",
            "-c",
            "user.email=tests@localhost",
        ]
        if "moving" not in await output_of(*git, "branch", "--list", "moving"):
            await output_of(*git, "branch", "moving", "master")
        page, listing = LAB.served / "page.py", LAB.served / "listing"
        page.write_text((await output_of(*git, "show", "master:app.py")).replace("Hello from", f"Hello {text} from"))
        blob = (await output_of(*git, "hash-object", "-w", page)).strip()
        files = (await output_of(*git, "ls-tree", "master")).splitlines()
        files = [f"100644 blob {blob}\tapp.py" if line.endswith("\tapp.py") else line for line in files]
        listing.write_text("".join(f"{line}\n" for line in files))
        tree = (await output_of("sh", "-c", f"{shlex.join(git)} mktree < {listing}")).strip()
        commit = (await output_of(*git, "commit-tree", tree, "-p", "moving", "-m", text)).strip()
        await output_of(*git, "update-ref", "refs/heads/moving", commit)
        return f"Hello {text} from"

    async def until_answered(self, contender, apps: list[App], answer: str) -> float:
        """Seconds from the start of a run until the first app gives an answer.

        A connection between nginx and an app stays with the release that it was opened to for up to 2 s.
        """
        run = asyncio.ensure_future(contender.deploy(apps))
        started = time.perf_counter()
        ended = None
        while True:
            command = ["curl", "--silent", "--max-time", "2", "--header", f"Host: {apps[0]['domain']}"]
            process = await asyncio.create_subprocess_exec(
                *command, f"http://{contender.machine.address}/", stdout=asyncio.subprocess.PIPE
            )
            output, _none = await process.communicate()
            if answer in output.decode(errors="replace"):
                seconds = time.perf_counter() - started
                await run
                return seconds
            ended = ended or (run.done() and time.perf_counter())
            if ended and time.perf_counter() - ended > PATIENCE:
                raise RuntimeError(f"{contender.name} has not deployed {answer!r}: {run.result()}")
            await asyncio.sleep(0.1)

    async def memory(self, apps: int) -> None:
        """Memory of all processes of the apps, each page shared out among those that map it (PSS), by app."""
        script = r"""
import glob
total = 0
for path in glob.glob("/proc/[0-9]*"):
    try:
        command = open(path + "/cmdline").read()
        if "/opt/flask_apps/" in command or "/srv/" in command:
            total += int(open(path + "/smaps_rollup").read().split("Pss:")[1].split()[0])
    except OSError:
        pass
print(total)
"""
        for each in self.contenders(apps - 1):
            kilobytes = int(await each.machine.run(f"python3 -c '{script}'"))
            self.samples.add("memory by app", apps, each.name, kilobytes / 1024 / apps, "MiB")

    # --- what requests cost ---

    async def serving(self) -> None:
        """Requests a second, and how long they take under an equal load: the servers in turn, over and over."""
        fast = self.app("fast", server={"kind": "granian"})
        await self.collection.deploy([self.app("warm"), fast])
        sites = [
            ("plain playbook", self.hosts["plain"], "warm.test"),
            ("gunicorn", self.hosts["ubuntu"], "warm.test"),
            ("granian", self.hosts["ubuntu"], "fast.test"),
        ]
        for number in range(1 + self.options.rounds):
            for who, machine, domain in sites:
                found = await self.wrk(machine, domain)
                if number:  # the first round warms up
                    self.samples.add("requests a second", CONNECTIONS, who, found, "1/s")
        for _number in range(self.options.rounds):
            for who, machine, domain in sites:
                self.samples.add("p99 at equal load", RATE, who, await self.hey(machine, domain), "ms")
        await self.collection.deploy([self.app("warm"), {**fast, "state": "absent"}])

    async def wrk(self, machine: Machine, domain: str) -> float:
        """Requests a second of as many as there can be.

        :raises RuntimeError: some failed
        """
        command = ["wrk", "--threads", "2", "--connections", str(CONNECTIONS), "--duration", f"{self.options.seconds}s"]
        output = await output_of(*command, "--header", f"Host: {domain}", f"http://{machine.address}/")
        if "Non-2xx" in output or "Socket errors" in output:
            raise RuntimeError(output)
        return float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])

    async def hey(self, machine: Machine, domain: str) -> float:
        """The p99 in milliseconds at RATE requests a second."""
        clients = 16
        command = ["hey", "-z", f"{self.options.seconds}s", "-c", str(clients), "-q", str(RATE // clients), "-o", "csv"]
        output = await output_of(*command, "-host", domain, f"http://{machine.address}/")
        seconds = sorted(float(line.split(",")[0]) for line in output.splitlines()[1:])
        return 1000 * seconds[int(len(seconds) * 0.99)]

    # --- how far one controller goes ---

    async def fleet(self) -> None:
        """A run with nothing to do, over more and more hosts. They are copies of the first one."""
        size = max(self.options.hosts)
        ENVIRONMENT["ANSIBLE_FORKS"] = str(size)
        async with LAB.copies(self.hosts["ubuntu"], size, "10.89.85") as (lab, machines):
            for count in self.options.hosts:
                limit = ",".join(each.name for each in machines[:count])
                for number in range(1 + self.options.repeats):
                    run = await lab.playbook("flaskfleet.deploy.site", limit, flask_apps=[self.app("warm")])
                    if number:  # the first one tells the copies their names
                        self.samples.add("nothing changed, one app", count, "hosts", run.seconds)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--parts", nargs="*", choices=("serving", "fleet", "runs"), default=["serving", "fleet", "runs"]
    )
    parser.add_argument("--apps", type=int, nargs="*", default=[10, 50, 100], help="lengths of the list beside 1")
    parser.add_argument("--compared", type=int, default=50, help="the longest list that the others deploy")
    parser.add_argument("--hosts", type=int, nargs="*", default=[1, 5, 10, 20])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=7, help="of requests")
    parser.add_argument("--seconds", type=int, default=10, help="of one load")
    parser.add_argument("--quick", action="store_true", help="ends in ten minutes, and shows less")
    parser.add_argument("--keep", action="store_true", help="use hosts that are there, and let them be")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(apps=[10], compared=1, hosts=[1, 5], repeats=2, rounds=3, seconds=3)
    samples = Samples()
    if not options.keep:
        await LAB.destroy()
    machines = {each.name: each for each in await LAB.create()}
    try:
        await output_of(PROJECT / "tests" / "apps" / "make-repository", "hello", LAB.served / "hello.git")
        benchmark = Benchmark(options, machines, samples)
        await benchmark.bare()
        for part in options.parts:
            print(f"speed: {part}", flush=True)
            await getattr(benchmark, part)()
    finally:
        if not options.keep:
            await LAB.destroy()
    found = {"date": datetime.date.today().isoformat(), "options": vars(options), "cores": os.cpu_count()}
    found |= {"test hosts": await kinds_of_hosts(), "rows": samples.rows}
    folder = PROJECT / (".cache/reports" if options.quick else "benchmarks/results")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "speed.json").write_text(json.dumps(found, indent=1) + "\n")
    print(await output_of(TOOLS / "bin" / "python", HERE / "report.py", folder / "speed.json"))


if __name__ == "__main__":
    asyncio.run(main())
