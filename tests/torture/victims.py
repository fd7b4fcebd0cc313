# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of a campaign: what is declared for them, what they are struck with, and how they are looked at."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(PROJECT / "tests" / folder) for folder in ("lab", "load")]
import load  # noqa: E402
import machines  # noqa: E402
from machines import Lab, Machine, output_of, tasks_of  # noqa: E402
from trap import FOLDER  # noqa: E402

LAB = Lab(HERE / "inventory", PROJECT / ".cache" / "torture")
WATCHED = ("moody", "fast")  # the apps that must never go away: one on gunicorn, one on granian
RUN_LIMIT = 300  # seconds a run of a playbook may take
HUNG = -1000  # what stands for the exit status of one that took longer
CLEAR_LIMIT = 90  # seconds until nothing of an earlier release may be left: longer than a drain
PATIENCE = 8  # seconds until a state that is deployed must be all that answers
ASK_INTERVAL = 0.05  # seconds between two questions of a watcher


# Keys of an app that is deployed so often that its commands would take most of the time
WITHOUT_COMMANDS = {"build_commands": [], "release_commands": []}


@dataclass(frozen=True)
class State:
    """What is declared of the apps of one host.

    :ivar alias: whether the watched apps have a second name, which only their sites know
    :ivar guest: whether a third app is there
    :ivar tasks_max: the most processes and threads of moody, which only its units know
    """

    branch: str = "master"
    greeting: str = "g0"
    token: str = "t0"
    alias: bool = False
    guest: bool = True
    tasks_max: int = 100

    def variables(self, gateway: str) -> dict[str, object]:
        """The role's variables."""
        common = {"repository": f"git://{gateway}/moody.git", "version": self.branch, "health_path": "/health"}
        common |= {"env": {"GREETING": self.greeting}, "secrets": {"TOKEN": self.token}}
        kinds = {"moody": "gunicorn", "fast": "granian", "guest": "gunicorn"}
        apps = [{"name": name, "domain": f"{name}.test", "server": {"kind": kind}} for name, kind in kinds.items()]
        for app in apps:
            app |= common
            if self.alias and app["name"] in WATCHED:
                app["aliases"] = [f"www.{app['domain']}"]
        apps[0]["processes"] = {"worker": "exec sleep infinity"}
        apps[0]["schedules"] = {"yearly": {"command": "true", "on_calendar": "yearly"}}
        apps[0]["shared_paths"] = ["uploads"]
        apps[0]["limits"] = {"tasks_max": self.tasks_max}
        apps[0] |= {"build_commands": ["flask build"], "release_commands": ["flask note", "true"]}
        apps[-1]["state"] = "present" if self.guest else "absent"
        return {"flask_apps": apps, "flask_app_defaults": {"settle": 1, "health_timeout": 20}}

    @property
    def release(self) -> str:
        """What the app says of itself."""
        source = (PROJECT / "tests" / "apps" / "moody" / self.branch / "version.py").read_text()
        version = re.search(r'^VERSION = "(.*)"', source, re.M)
        return f"{version[1]} {self.greeting}"

    @property
    def bodies(self) -> set[str]:
        """What ``/`` answers to the requests of a load."""
        return {f"{self.release} {size}" for size in (0, 512)}

    def changed(self, **keys: object) -> State:
        """The state with other values."""
        return dataclasses.replace(self, **keys)


@dataclass
class Outcome:
    """How a run of a playbook ended.

    :ivar status: the exit status of ansible-playbook; negative when a signal ended it
    :ivar tasks: {name of the task: {host: result}}; empty when it was killed
    """

    status: int
    text: str
    errors: str = ""

    @property
    def tasks(self) -> dict[str, dict[str, dict]]:
        """:raises RuntimeError: the run succeeded, and what it said can't be read"""
        try:
            return tasks_of(self.text)
        except (ValueError, KeyError) as error:
            if self.status == 0:
                raise RuntimeError(f"no report of a run: {self.text[-500:]}") from error
        return {}

    @property
    def changed(self) -> list[str]:
        """Names of the tasks that reported a change, without their roles."""
        found = self.tasks.items()
        return [
            name.rpartition(" : ")[2] for name, hosts in found if any(each.get("changed") for each in hosts.values())
        ]

    @property
    def messages(self) -> str:
        """What failed tasks said."""
        results = [result for hosts in self.tasks.values() for result in hosts.values()]
        failed = [result for result in results if result.get("failed") or result.get("unreachable")]
        return "\n".join(str(result.get("msg", "")) for result in failed) or self.text[-2000:] + self.errors[-2000:]


@dataclass
class Watch:
    """What became of the requests that watched one app: load.Report, and for how long it was away."""

    app: str
    report: load.Report = field(default_factory=load.Report)

    @property
    def requests(self) -> int:
        return len(self.report.seconds) + self.failed

    @property
    def failed(self) -> int:
        return sum(self.report.failures.values())

    @property
    def away(self) -> float:
        """Seconds between the first and the last request that failed."""
        times = self.report.failed_at
        return times[-1] - times[0] if times else 0.0


def kind_of_server(number: int) -> str:
    """Of many apps, what the one with this number is served by."""
    return "granian" if number % 3 == 2 else "gunicorn"


def lost(watches: list[Watch]) -> list[str]:
    """Requests that failed."""
    return [f"{each.failed} requests of {each.app} failed: {each.report.failures}" for each in watches if each.failed]


class Run:
    """A run of a playbook that has been started. What it writes is read all the time, or it would get stuck."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output = asyncio.ensure_future(process.communicate())

    async def end(self) -> Outcome:
        """Wait for its end; one that hangs is killed, and counts as failed."""
        try:
            output, errors = await asyncio.wait_for(self.output, RUN_LIMIT)
        except asyncio.TimeoutError:
            self.kill()
            return Outcome(HUNG, f"the run hung for {RUN_LIMIT} s")
        return Outcome(self.process.returncode, output.decode(errors="replace"), errors.decode(errors="replace"))

    def kill(self) -> None:
        """SIGKILL it, with all its processes on this machine."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


class Victim:
    """One host of the campaign."""

    def __init__(self, machine: Machine, gateway: str) -> None:
        self.machine = machine
        self.name = machine.name
        self.gateway = gateway
        self.environment = dict(machines.ENVIRONMENT)

    # --- runs ---

    async def start(self, playbook: str, state: State, check: bool = False, **variables: object) -> Run:
        """Start a run; its processes are a group of their own. ``variables`` go over those of the state."""
        merged = {**state.variables(self.gateway), "flask_app_release_leader": self.name, **variables}
        command = LAB.command(f"flaskfleet.deploy.{playbook}", self.name, **merged) + ["--check"] * check
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment,
            start_new_session=True,
        )
        return Run(process)

    async def run(self, playbook: str, state: State, check: bool = False, **variables: object) -> Outcome:
        """A whole run."""
        return await (await self.start(playbook, state, check, **variables)).end()

    async def run_apps(self, states: dict[str, State], **keys: object) -> Outcome:
        """A whole run for other apps than a state has: {name: state}."""
        apps = []
        for number, (name, state) in enumerate(states.items()):
            server = {"kind": kind_of_server(number)}
            model = state.variables(self.gateway)["flask_apps"][0]
            own = {"name": name, "domain": f"{name}.test", "server": server, **WITHOUT_COMMANDS}
            apps.append({**model, **own, **keys})
        return await self.run("site", State(), flask_apps=apps)

    async def settled(self, state: State) -> None:
        """Deploy a state and see that a second run has nothing to do.

        :raises RuntimeError: it has, or failed
        """
        await self.arm()
        await self.run("site", state)
        outcome = await self.run("site", state)
        left = await self.leftovers()
        if outcome.status or outcome.changed or left:
            raise RuntimeError(f"{self.name}: undisturbed: {outcome.messages[-1500:]} {outcome.changed} {left}")

    async def wiped(self) -> None:
        """Remove all that there is of the apps: what a mutant has left is nothing that a run must be able to mend."""
        await self.arm()
        command = "systemctl stop 'flask-*'; systemctl reset-failed 'flask-*'; rm -rf /opt/flask_apps /run/flask_apps"
        await self.machine.run(f"{command} /etc/systemd/system/flask-*@*; systemctl daemon-reload")

    async def finish(self, state: State) -> list[str]:
        """What is wrong after one more run, which nobody disturbs."""
        await self.arm()
        outcome = await self.run("site", state)
        problems = [f"the next run failed: {outcome.messages[-1500:]}"] if outcome.status else []
        problems += [f"afterwards: {found}" for app in WATCHED if (found := await self.serves(app, state))]
        return problems + [f"left behind in the end: {line}" for line in await self.leftovers()]

    # --- traps ---

    async def install_trap(self) -> None:
        """Have every Python of the host import trap.py."""
        folder = (await self.machine.run("python3 -c 'import site; print(site.getsitepackages()[0])'")).strip()
        await self.machine.run(f"mkdir -p {folder} {FOLDER}")
        await self.write(f"{folder}/flaskfleet_trap.py", (HERE / "trap.py").read_text())
        await self.write(f"{folder}/flaskfleet-trap.pth", "import flaskfleet_trap\n")

    async def write(self, path: str, text: str) -> None:
        """Write a file on the host."""
        command = ["podman", "exec", "-i", self.machine.container, "sh", "-c", f"cat > {path}"]
        process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
        await process.communicate(text.encode())

    async def arm(self, **settings: object) -> None:
        """Set the trap; without settings, take it away."""
        await self.machine.run(f"rm -f {FOLDER}/*")
        if settings:
            await self.write(f"{FOLDER}/trap.json", json.dumps(settings))

    async def steps(self) -> list[dict]:
        """What a trap that records has written: program, what, time."""
        lines = (await self.machine.run(f"cat {FOLDER}/steps.jsonl 2>/dev/null || true")).splitlines()
        return [json.loads(line) for line in lines]

    async def root(self) -> Path:
        """The host's file system as this machine sees it: to look into it costs next to nothing."""
        pid = await output_of("podman", "inspect", "--format", "{{.State.Pid}}", self.machine.container)
        return Path("/proc", pid.strip(), "root")

    async def note(self) -> Path:
        """Where a trap that has sprung writes of it."""
        return await self.root() / FOLDER.lstrip("/") / "halted"

    async def halted(self, run: Run) -> dict | None:
        """Wait until the trap has sprung; None when the run has ended without."""
        note = await self.note()
        while not note.exists() and not run.output.done():
            await asyncio.sleep(0.02)
        return await self.sprung()

    async def sprung(self, patience: float = 0) -> dict | None:
        """What a trap that has sprung wrote; None when none has, after waiting so many seconds."""
        note, deadline = await self.note(), time.perf_counter() + patience
        while not note.exists():
            if time.perf_counter() > deadline:
                return None
            await asyncio.sleep(0.05)
        return json.loads(note.read_text())

    async def resume(self, note: dict) -> None:
        """Let a halted process go on."""
        await self.machine.run(f"kill -CONT {note['pid']} || true")

    # --- blows ---

    async def reboot(self) -> float:
        """Take the host's power away and give it back; returns the seconds until systemd says that it has booted."""
        started = time.perf_counter()
        await output_of("podman", "kill", "--signal", "KILL", self.machine.container)
        await output_of("podman", "wait", self.machine.container)
        await output_of("podman", "start", self.machine.container)
        await self.machine.run("until [ -S /run/systemd/private ]; do sleep 0.1; done")
        await self.machine.run("timeout 120 systemctl is-system-running --wait || true")
        return time.perf_counter() - started

    async def kill_server(self, app: str, whom: str) -> None:
        """Kill the ``master`` of an app's live release, or a ``worker``."""
        unit = f"flask-{app}@$(basename $(readlink /opt/flask_apps/{app}/current)).service"
        main = f"main=$(systemctl show --property MainPID --value {unit}); [ $main -gt 1 ] || exit 0; "
        worker = "set -- $(cat /proc/$main/task/$main/children); "
        await self.machine.run(main + ("kill -KILL $main" if whom == "master" else worker + "kill -KILL ${1:-$main}"))

    # --- looks ---

    async def live(self) -> list[str]:
        """The live releases."""
        return (await self.machine.run("cd /opt/flask_apps && readlink */current")).split()

    @contextlib.asynccontextmanager
    async def watched(
        self, apps: tuple[str, ...] = WATCHED, interval: float = ASK_INTERVAL
    ) -> AsyncIterator[list[Watch]]:
        """Ask apps meanwhile, each request on a connection of its own."""
        stop = asyncio.Event()
        watches = [Watch(app) for app in apps]
        clients = [load.Client(self.machine.address, 80, f"{app}.test", "/", keep=False) for app in apps]
        work = [
            asyncio.ensure_future(load.run_client(client, interval, stop, watch.report))
            for client, watch in zip(clients, watches, strict=True)
        ]
        try:
            yield watches
        finally:
            stop.set()
            await asyncio.gather(*work)

    async def ask(self, app: str, path: str = "/", host: str = "") -> tuple[int, str]:
        """(status, body) of a page; status 0 when there was no answer."""
        client = load.Client(self.machine.address, 80, host or f"{app}.test", path, keep=False)
        try:
            status, body = await asyncio.wait_for(client.request("GET"), load.TIMEOUT)
        except (OSError, EOFError, asyncio.TimeoutError, ValueError, KeyError) as error:
            return 0, type(error).__name__
        return status, body.decode(errors="replace")

    async def serves(self, app: str, *states: State, patience: float = PATIENCE) -> str | None:
        """What is wrong with an app that should serve one of these states, whole; None when nothing is.

        It may take ``patience`` seconds until it does: a busy connection of nginx stays with a release for a while
        after the switch, and a killed process takes a second to be started again.
        """
        deadline = time.perf_counter() + patience
        for attempt in itertools.count():
            problem = ""
            for state in states:
                status, answer = await self.ask(app, f"/secret?value={state.token}")
                said = {}
                with contextlib.suppress(ValueError):  # half a page is no answer
                    said = json.loads(answer) if status == 200 else {}
                if said.get("release") == state.release and said.get("same"):
                    return None
                if said.get("release") == state.release:
                    problem = f"{app} has the code and settings of {state} and another secret"
            expected = " or ".join(sorted({each.release for each in states}))
            if attempt > 2 and time.perf_counter() > deadline:  # the first question may have waited for a start
                return problem or f"{app} answers {status} {answer[:80]!r}, expected {expected}"
            await asyncio.sleep(0.3)

    async def leftovers(self, limit: float = CLEAR_LIMIT) -> list[str]:
        """What is left of what is over, after waiting for it to go."""
        deadline = time.perf_counter() + limit
        while True:
            command = ["podman", "exec", "-i", self.machine.container, "python3", "-"]
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
            output, errors = await process.communicate((HERE / "leftovers.py").read_bytes())
            found = json.loads(output) if process.returncode == 0 else [errors.decode()[-300:]]
            if not found or time.perf_counter() > deadline:
                return found
            await asyncio.sleep(1)
