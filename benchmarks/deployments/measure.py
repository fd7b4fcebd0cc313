#!/usr/bin/env python3
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deployments under load: which requests fail, what the others take longer, what a rollback and a reload of nginx cost.

Makes machines of its own and removes them. Writes .cache/reports/deployments.md and .json. Exits with 1 when a promise
was not kept; README.md in this folder says what is measured, and how.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import datetime
import json
import os
import platform
import re
import shlex
import statistics
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from report import markdown

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
sys.path[:0] = [str(PROJECT / "tests" / folder) for folder in ("lab", "load")]
import load  # noqa: E402
import machines  # noqa: E402
from machines import CommandFailed, Lab, Machine, PlaybookRun  # noqa: E402

REPORTS = PROJECT / ".cache" / "reports"
LAB = Lab(HERE / "inventory", PROJECT / ".cache" / "benchmarks")
RATE = 400  # requests a second aimed at: clients that wait for an answer lose some
LEAST_RATE = 300  # requests a second that must be reached, else the load shows nothing
CLIENTS = 16
STREAMS = 2  # in flight at any time, of 10 s each
STREAM_SECONDS = 10
SEEN_LIMIT = 15  # seconds after a run within which the new release must answer a new request
SLOW = 2.0  # times the quiet p99 …
NOTICEABLE = 50  # … and ms: the p99 during a deployment that counts as a broken promise
# What is deployed, over and over: the rollbacks undo each of the other changes in turn
CHANGES = (
    *("code", "configuration", "secret", "rollback"),
    *("configuration", "secret", "code", "rollback"),
    *("secret", "code", "configuration", "rollback"),
)


@dataclass(frozen=True)
class Kind:
    """A kind of server, with the app that runs on it.

    :ivar branches: of the app moody, between which a change of code alternates
    :ivar server: the app's key ``server``
    """

    name: str
    title: str
    branches: tuple[str, str]
    server: dict[str, str] = field(default_factory=dict)

    @property
    def domain(self) -> str:
        return f"{self.name}.test"


KINDS = (
    Kind("newest", "gunicorn, the newest", ("master", "version2")),
    Kind("pinned", "an app that pins gunicorn 21", ("pinned", "version2")),
    Kind("granian", "granian", ("master", "version2"), {"kind": "granian"}),
)


@dataclass(frozen=True)
class State:
    """What of an app is deployed."""

    branch: str
    greeting: str = "hello"
    token: str = "token"

    def changed(self, kind: Kind, change: str, number: int) -> State:
        """The state after a change of ``code``, ``configuration`` or ``secret``; a number makes its value a new one."""
        if change == "code":
            first, second = kind.branches
            return dataclasses.replace(self, branch=second if self.branch == first else first)
        if change == "configuration":
            return dataclasses.replace(self, greeting=f"greeting{number}")
        return dataclasses.replace(self, token=f"token{number}")

    def body(self, size: int) -> str:
        """What ``/`` answers to a request with ``size`` bytes."""
        source = (PROJECT / "tests" / "apps" / "moody" / self.branch / "version.py").read_text()
        version = re.search(r'^VERSION = "(.*)"', source, re.M)[1]
        return f"{version} {self.greeting} {size}"


# --- deployments -----------------------------------------------------------------------------------------------------


async def deploy(kind: Kind, state: State, limit: str = "", rebuild: bool = False, aliases: tuple[str, ...] = ()):
    """Run the site playbook with one app as ``state`` says; returns the PlaybookRun.

    rebuild: build anew, as for a commit that was never built. The app has two commits only, more are not needed so.
    """
    app = {"name": kind.name, "domain": kind.domain, "aliases": list(aliases), "version": state.branch}
    app |= {"env": {"GREETING": state.greeting}, "secrets": {"TOKEN": state.token}, "server": kind.server}
    return await LAB.playbook("flaskfleet.deploy.site", limit, flask_apps=[app], flask_app_rebuild=rebuild)


async def roll_back(kind: Kind) -> PlaybookRun:
    """Run the rollback playbook. It needs the app's entry in the list, and nothing that differs between releases."""
    app = {"name": kind.name, "domain": kind.domain}
    return await LAB.playbook("flaskfleet.deploy.rollback", flask_apps=[app])


def activations(run: PlaybookRun, kind: Kind) -> dict[str, dict]:
    """{host: what the run did to the app}: from, to, changed, seconds."""
    results = run.result("Switch traffic to the releases")
    return {host: result["apps"][kind.name] for host, result in results.items()}


async def ask(machine: Machine, kind: Kind, path: str) -> str:
    """The answer to one request on a connection of its own."""
    client = load.Client(machine.address, 80, kind.domain, path, keep=False)
    _status, body = await asyncio.wait_for(client.request("GET"), load.TIMEOUT)
    return body.decode()


async def until_seen(machine: Machine, kind: Kind, state: State, report: load.Report | None = None, before: int = 0):
    """Wait until a state answers: to questions of our own and, when there is a load, to at least one of its requests.

    before: how many of the load's requests had been answered so before the state was deployed
    returns: whether it did within SEEN_LIMIT seconds
    """
    deadline = time.perf_counter() + SEEN_LIMIT
    while time.perf_counter() < deadline:
        answers = [await ask(machine, kind, path) for path in ("/", f"/secret?value={state.token}")]
        loaded = report is None or answered(report, state) > before
        if answers[0] == state.body(0) and json.loads(answers[1])["same"] and loaded:
            return True
        await asyncio.sleep(0.2)
    return False


def answered(report: load.Report, state: State) -> int:
    """How many requests of a load were answered by a release of this code and configuration."""
    return sum(report.bodies.get(state.body(size), 0) for size in (0, 512))


# --- load ------------------------------------------------------------------------------------------------------------


class Load:
    """The load of tests/load/load.py on one machine, from ``async with`` to its end.

    :ivar report: filled while it runs
    :ivar seconds: how long requests were sent, known at the end
    """

    def __init__(self, machine: Machine, kind: Kind, streams: int = 0) -> None:
        self.report = load.Report()
        self.seconds = 0.0
        self._stop = asyncio.Event()
        self._arguments = {"address": machine.address, "host": kind.domain, "rate": RATE, "clients": CLIENTS}
        self._arguments |= {"stop": self._stop, "streams": streams, "report": self.report}

    async def __aenter__(self) -> Load:
        self._started = time.perf_counter()
        self._task = asyncio.create_task(load.run(**self._arguments))
        return self

    def stop(self) -> None:
        """Send no more. Streams in flight still come to their end."""
        if not self._stop.is_set():
            self.seconds = time.perf_counter() - self._started
            self._stop.set()

    async def __aexit__(self, *_problem: object) -> None:
        self.stop()
        await self._task

    def counts(self) -> dict[str, object]:
        """What became of requests and streams, apart."""
        failures = self.report.failures
        broken = {problem: count for problem, count in failures.items() if problem.startswith("stream")}
        failed = {problem: count for problem, count in failures.items() if problem not in broken}
        summary = self.report.summary()
        return {
            "seconds": round(self.seconds, 1),
            "requests": len(self.report.seconds) + sum(failed.values()),
            "rate": round(len(self.report.seconds) / self.seconds),
            "failed": sum(failed.values()),
            "failures": failed,
            "streams_whole": self.report.streams,
            "streams_broken": sum(broken.values()),
            "stream_failures": broken,
            "p50_ms": summary["p50_ms"],
            "p99_ms": summary["p99_ms"],
            "bodies": self.report.bodies,
        }


async def busy(seconds: float = 2.0) -> float:
    """How many per cent of its processors the machine was busy for so long; see proc(5) for the columns."""

    def times() -> tuple[int, int]:
        with open("/proc/stat", encoding="ascii") as stream:
            ticks = [int(number) for number in stream.readline().split()[1:9]]
        return sum(ticks), ticks[3] + ticks[4]  # all; idle and waiting for input

    total, idle = times()
    await asyncio.sleep(seconds)
    total_after, idle_after = times()
    return round(100 - 100 * (idle_after - idle) / max(1, total_after - total))


# --- what is measured ------------------------------------------------------------------------------------------------


async def measure_deployments(hosts: list[Machine], kind: Kind, state: State, number: int) -> tuple[dict, State]:
    """``number`` deployments in a row on all machines at once, all under load. Returns the state at the end, too."""
    nginx = {host.name: {"before": await host.nginx()} for host in hosts}
    errors = {host.name: len(await host.nginx_errors()) for host in hosts}
    others = await busy()
    loads = {host.name: Load(host, kind, STREAMS) for host in hosts}
    steps: list[dict] = []
    states = [state]
    async with contextlib.AsyncExitStack() as running:
        for each in loads.values():
            await running.enter_async_context(each)
        await asyncio.sleep(STREAM_SECONDS / 2 + 1)  # then all streams are in flight
        earlier = state
        for index in range(number):
            change = CHANGES[index % len(CHANGES)]
            wanted = earlier if change == "rollback" else state.changed(kind, change, index + 1)
            before = {name: answered(each.report, wanted) for name, each in loads.items()}
            if change == "rollback":
                run = await roll_back(kind)
            else:
                run = await deploy(kind, wanted, rebuild=change == "code")
            earlier, state = state, wanted
            states.append(state)
            seen = [until_seen(host, kind, state, loads[host.name].report, before[host.name]) for host in hosts]
            seen = dict(zip(loads, await asyncio.gather(*seen), strict=True))
            step = {"number": index + 1, "change": change, "started": run.started, "wall": round(run.seconds, 2)}
            steps.append(step | {"seen": seen, "hosts": activations(run, kind)})
        await asyncio.sleep(6)  # nginx gives its connections to the last but one release up after 5 s
        for each in loads.values():
            each.stop()
    found = {"others": others, "nginx": nginx, "steps": steps, "load": {}, "failures": {}, "nginx_errors": {}}
    expected = {state.body(size) for state in states for size in (0, 512)}
    for host in hosts:
        nginx[host.name]["after"] = await host.nginx()
        counts = loads[host.name].counts()
        counts["missing"] = sorted(expected - set(counts["bodies"]))
        counts["unexpected"] = sorted(set(counts["bodies"]) - expected)
        found["load"][host.name] = counts
        found["failures"][host.name] = attributed(loads[host.name].report, steps)
        found["nginx_errors"][host.name] = await host.nginx_errors(errors[host.name])
    return found, state


def attributed(report: load.Report, steps: list[dict]) -> list[dict]:
    """When requests failed: the deployment that began last before, and how many seconds after it began."""
    found = []
    for moment in report.failed_at:
        before = [step for step in steps if step["started"] <= moment]
        step = before[-1] if before else {"number": 0, "change": "none", "started": moment}
        after = round(moment - step["started"], 2)
        found.append({"deployment": step["number"], "change": step["change"], "after": after})
    return found


async def measure_latency(host: Machine, kind: Kind, state: State, pairs: int) -> tuple[dict, State]:
    """Pairs of a load during one deployment, which builds, and the same load as long without. One machine alone."""
    found: dict = {"pairs": [], "failed": 0}
    for _pair in range(pairs):
        state = state.changed(kind, "code", 0)
        async with Load(host, kind) as loaded:
            await asyncio.sleep(1)
            run = await deploy(kind, state, limit=host.name, rebuild=True)
            await asyncio.sleep(1)
        await asyncio.sleep(3)  # the old release has drained and stopped
        others = await busy(1)
        async with Load(host, kind) as quiet:
            await asyncio.sleep(loaded.seconds)
        during, without = loaded.counts(), quiet.counts()
        found["failed"] += during["failed"] + without["failed"]
        pair = {"seconds": during["seconds"], "wall": round(run.seconds, 2), "others": others}
        for name, counts in (("during", during), ("without", without)):
            pair[name] = {key: counts[key] for key in ("requests", "rate", "failures", "p50_ms", "p99_ms")}
        found["pairs"].append(pair)
    for name in ("during", "without"):
        found[name] = statistics.median(pair[name]["p99_ms"] for pair in found["pairs"])
    found["others"] = statistics.median(pair["others"] for pair in found["pairs"])
    found["ratio"] = round(found["during"] / found["without"], 2)
    return found, state


class AttentiveClient(load.Client):
    """A client that looks whether its idle connection was closed before it sends on it, as HTTP libraries do."""

    async def request(self, method: str) -> tuple[int, bytes]:
        if self.streams and self.streams[0].at_eof():
            self.close()
        return await super().request(method)


async def measure_reload(host: Machine, kind: Kind, state: State) -> dict:
    """One reload of nginx, as by a run whose sites changed, under the usual load: what fails, by kind of client."""
    before = await host.nginx()
    stop = asyncio.Event()
    reports = {"new": load.Report(), "kept": load.Report(), "attentive": load.Report(), "streams": load.Report()}
    work = []
    for name, make, keep in (
        ("new", load.Client, False),
        ("kept", load.Client, True),
        ("attentive", AttentiveClient, True),
    ):
        clients = [make(host.address, 80, kind.domain, "/", keep) for _number in range(CLIENTS // 2)]
        work += [load.run_client(client, CLIENTS / RATE, stop, reports[name]) for client in clients]
    stream = load.Client(host.address, 80, kind.domain, f"/stream?seconds={STREAM_SECONDS}", keep=False)
    work.append(load.run_stream(stream, 0, stop, reports["streams"]))
    task = asyncio.gather(*work)
    await asyncio.sleep(1)
    try:
        await deploy(kind, state, limit=host.name, aliases=(f"www.{kind.domain}",))
        await asyncio.sleep(2)
    finally:
        stop.set()
        await task
    after = await host.nginx()
    found = {"reloads": after["reloads"] - before["reloads"], "workers_replaced": before["workers"] != after["workers"]}
    for name, report in reports.items():
        requests = len(report.seconds) + report.streams + sum(report.failures.values())
        found[name] = {"requests": requests, "failures": report.failures}
    return found


async def measure(hosts: list[Machine], kind: Kind, options: argparse.Namespace, found: dict) -> None:
    """All of one kind of server; ``found`` is filled on the way, so that a failure leaves what was seen until then."""
    state = State(kind.branches[0])
    run = await deploy(kind, state)
    found["first"] = round(run.seconds, 1)
    found["versions"] = {}

    async def note_versions() -> None:
        for host in hosts:
            seen = found["versions"].setdefault(host.name, [])
            packages = await host.versions(kind.name, ("gunicorn", "granian", "flask"))
            seen += [package for package in packages if package not in seen]

    for host in hosts:
        if not await until_seen(host, kind, state):
            raise CommandFailed(f"{host.name}: the first release does not answer as it must")
    await note_versions()
    say(f"{kind.title}: {options.deployments} deployments in a row under load")
    found["deployments"], state = await measure_deployments(hosts, kind, state, options.deployments)
    await note_versions()
    found["latency"], found["reload"] = {}, {}
    for host in hosts:
        at = state
        if options.pairs:
            say(f"{kind.title}, {host.name}: {options.pairs} pairs of a load with and without a deployment")
            found["latency"][host.name], at = await measure_latency(host, kind, state, options.pairs)
        say(f"{kind.title}, {host.name}: a reload of nginx")
        await settled_sites(host, kind, at)
        found["reload"][host.name] = await measure_reload(host, kind, at)
    await note_versions()


async def settled_sites(host: Machine, kind: Kind, state: State) -> None:
    """Let a run that changes nothing precede the one that changes sites alone."""
    run = await deploy(kind, state, limit=host.name)
    for name, entry in activations(run, kind).items():
        if entry["changed"]:
            raise CommandFailed(f"{name}: a run without a change made a release: {entry}")


# --- judgement -------------------------------------------------------------------------------------------------------


def problems_of(kind: Kind, found: dict) -> list[str]:
    """Promises that were not kept, and measurements that show nothing, a line each."""
    problems = [f"did not get to its end: {found['error']}"] if "error" in found else []
    deployments = found.get("deployments", {"load": {}, "steps": [], "nginx": {}})
    for host, counts in deployments["load"].items():
        if counts["failed"] or counts["streams_broken"]:
            what = {**counts["failures"], **counts["stream_failures"]}
            problems.append(f"{host}: requests failed: {what}, at {deployments['failures'][host]}")
        for name in ("missing", "unexpected"):
            if counts[name]:
                problems.append(f"{host}: {name} answers: {', '.join(counts[name])}")
        if counts["rate"] < LEAST_RATE:
            problems.append(f"{host}: the load reached {counts['rate']} requests/s only, so this shows too little")
    for step in deployments["steps"]:
        for host, entry in step["hosts"].items():
            if not entry["changed"] or entry["from"] == entry["to"] or not step["seen"][host]:
                problems.append(f"{host}: deployment {step['number']} ({step['change']}) was not seen: {entry}")
    for host, nginx in deployments["nginx"].items():
        if "after" in nginx and nginx["after"] != nginx["before"]:
            problems.append(f"{host}: nginx was reloaded or restarted by releases: {nginx}")
    for host, latency in found.get("latency", {}).items():
        if latency["failed"]:
            problems.append(f"{host}: {latency['failed']} requests failed while latency was measured")
        if latency["ratio"] > SLOW and latency["during"] > NOTICEABLE:
            problems.append(f"{host}: p99 {latency['during']} ms during a deployment, {latency['without']} ms without")
    for host, reload in found.get("reload", {}).items():
        if reload["reloads"] != 1:
            problems.append(f"{host}: {reload['reloads']} reloads of nginx instead of one")
        for name in ("new", "streams"):
            if reload[name]["failures"]:
                problems.append(f"{host}: a reload of nginx failed {name}: {reload[name]['failures']}")
    return [f"{kind.title}: {problem}" for problem in problems]


# --- the whole -------------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    print(f"{datetime.datetime.now():%H:%M:%S}  {text}", flush=True)


async def campaign(options: argparse.Namespace) -> dict:
    """Measure all kinds of servers; returns the report."""
    started = time.perf_counter()
    report: dict = {
        "command": shlex.join(["benchmarks/run", "deployments", *sys.argv[1:]]),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "kind_of_hosts": await machines.kinds_of_hosts(),
        "machine": {
            "cores": os.cpu_count(),
            "load_before": round(os.getloadavg()[0], 2),
            "python": platform.python_version(),
            "ansible": (await machines.output_of(machines.PROGRAMS / "ansible", "--version")).split("\n")[0],
        },
        "settings": {"rate": RATE, "clients": CLIENTS, "streams": STREAMS, "settle": 1},
        "hosts": {},
        "kinds": {},
        "problems": [],
    }
    say("Test hosts: " + "; ".join(report["kind_of_hosts"]))
    try:
        await LAB.destroy()
        hosts = await LAB.create()
        for kind in KINDS:
            if kind.name not in options.kinds:
                continue
            found: dict = {"title": kind.title}
            report["kinds"][kind.name] = found
            say(f"{kind.title}: first deployment")
            try:
                await measure(hosts, kind, options, found)
            except Exception as error:  # the other kinds are measured all the same
                found["error"] = str(error) or traceback.format_exc()
            problems = problems_of(kind, found)
            if problems:
                found["journal"] = {host.name: await host.journal(kind.name) for host in hosts}
            for problem in problems:
                say(f"PROBLEM {problem}")
            report["problems"] += problems
            report["hosts"] = {host.name: await host.description() for host in hosts}
            report["minutes"] = round((time.perf_counter() - started) / 60, 1)
            write(report)  # each time, so that a run which is stopped leaves what it has seen
    finally:
        if not options.keep:
            await LAB.destroy()
    return report


def write(report: dict) -> str:
    """Write the report in both forms; returns the one for people."""
    text = markdown(report)
    REPORTS.mkdir(parents=True, exist_ok=True)
    (REPORTS / "deployments.json").write_text(json.dumps(report, indent=2) + "\n")
    (REPORTS / "deployments.md").write_text(text)
    return text


def main() -> int:
    names = [kind.name for kind in KINDS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deployments", type=int, default=20, help="in a row, of each kind (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=5, help="of loads, for the p99 (default: %(default)s)")
    parser.add_argument("--kinds", nargs="+", choices=names, default=names, metavar="KIND", help=", ".join(names))
    parser.add_argument("--keep", action="store_true", help="leave the machines as they are at the end")
    options = parser.parse_args()
    report = asyncio.run(campaign(options))
    print(f"\n{write(report)}\nReports: .cache/reports/deployments.md, .cache/reports/deployments.json")
    return 1 if report["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
