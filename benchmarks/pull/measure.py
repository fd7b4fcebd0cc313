#!/usr/bin/env python3
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What pulls cost that change nothing: of one host of each kind, and of many hosts in the same moment.

Makes machines of its own and removes them. Writes benchmarks/results/pull.json and .md. The many are containers of this
machine, so all of them share its processors, which hosts don't.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import statistics
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
sys.path[:0] = [str(PROJECT / "tests" / name) for name in ("lab", "pull")]

import fleet  # noqa: E402
from machines import Lab, Machine, kinds_of_hosts, output_of  # noqa: E402

LAB = Lab(HERE / "inventory", PROJECT / ".cache" / "pulls")
RESULTS = PROJECT / "benchmarks" / "results"
RESULT = "/var/lib/flaskfleet/pull/result.json"
SERVICE = "flaskfleet-pull.service"


def available() -> float:
    """Memory that this machine has left, in MiB."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))) / 1024


async def alone(machine: Machine, times: int) -> list[dict]:
    """Pulls of one host, one after the other."""
    script = (HERE / "idle.py").read_text()
    process = await asyncio.create_subprocess_exec(
        *("podman", "exec", "--interactive", machine.container, "python3", "-", str(times)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _none = await process.communicate(script.encode())
    pulls = [json.loads(line) for line in output.splitlines()]
    if len(pulls) != times or any(each["state"] != "ok" or each["changed"] for each in pulls):
        raise RuntimeError(f"{machine.name}: {pulls}")
    return pulls


async def pull(machine: Machine) -> dict:
    """One pull of a host: seconds from here, and what the host says of it."""
    started = time.perf_counter()
    await machine.run(f"systemctl start {SERVICE}")
    seconds = time.perf_counter() - started
    told = json.loads(await machine.run(f"cat {RESULT}"))
    if told["state"] != "ok" or told["changed"]:
        raise RuntimeError(f"{machine.name}: {told}")
    return {"seconds": round(seconds, 1), "cpu_seconds": told["cpu_seconds"]}


async def together(machines: list[Machine]) -> dict:
    """Pulls of many hosts that begin in the same moment."""
    before = least = available()
    started = time.perf_counter()
    pulls = asyncio.gather(*map(pull, machines))
    while not pulls.done():
        least = min(least, available())
        await asyncio.sleep(0.2)
    each = await pulls
    seconds = time.perf_counter() - started
    return {
        "hosts": len(machines),
        "seconds": round(seconds, 1),
        "cpu_seconds_of_one": round(statistics.median(one["cpu_seconds"] for one in each), 1),
        "memory_mib": round(before - least),
    }


def table(found: dict) -> str:
    """The report."""
    lines = [f"# Pulls that change nothing\n\n{found['date']}, {found['cores']} processors; {found['hosts']}.\n"]
    lines += ["| one host | seconds | processor seconds | memory (PSS) |", "|---|---|---|---|"]
    for name, pulls in found["alone"].items():
        columns = [f"{min(each[key] for each in pulls)} to {max(each[key] for each in pulls)}" for key in KEYS]
        lines.append(f"| {name} | {' | '.join(columns)} MiB |")
    lines += [
        "",
        "| hosts at once | seconds until all have | processor seconds of one | memory of all |",
        "|---|---|---|---|",
    ]
    for each in found["together"]:
        lines.append("| {hosts} | {seconds} | {cpu_seconds_of_one} | {memory_mib} MiB |".format(**each))
    return "\n".join(lines) + "\n"


KEYS = ("seconds", "cpu_seconds", "memory_mib")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 5, 10, 20], help="how many pull at once")
    parser.add_argument("--repeats", type=int, default=5, help="pulls of one host alone")
    options = parser.parse_args()
    await LAB.destroy()
    machines = await LAB.create()
    found = {"date": datetime.date.today().isoformat(), "cores": os.cpu_count(), "alone": {}, "together": []}
    try:
        gateway = machines[0].gateway
        await output_of(PROJECT / "tests" / "apps" / "make-repository", "hello", LAB.served / "hello.git")
        fleet.REPOSITORIES = LAB.served
        fleet.main(gateway, *(each.name for each in machines))
        found["hosts"] = ", ".join(await kinds_of_hosts())
        await LAB.playbook(PROJECT / "molecule" / "pull" / "converge.yml", test_keys=str(fleet.KEYS))
        for each in machines:
            await each.run(f"systemctl start {SERVICE}")  # the first one deploys
            found["alone"][each.name] = await alone(each, options.repeats)
            print(f"pull: {each.name}: {found['alone'][each.name]}", flush=True)
        async with LAB.copies(machines[0], max(options.hosts), "10.89.88") as (_lab, copies):
            for each in copies:
                await each.run(f"systemctl start {SERVICE}")  # the first one of a copy may find another address
            for count in options.hosts:
                found["together"].append(await together(copies[:count]))
                print(f"pull: {found['together'][-1]}", flush=True)
    finally:
        await LAB.destroy()
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "pull.json").write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "pull.md").write_text(table(found))
    print(table(found))


if __name__ == "__main__":
    asyncio.run(main())
