# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults: something that a deployment needs is broken. A clear error, the old release untouched, nothing left behind;
and right after the fault is gone, all is well. Some faults a run must overcome by itself.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from machines import CommandFailed, output_of
from report import Part
from victims import LAB, WATCHED, State, Victim, lost

SMALL = "1G"  # of the file systems that are filled up
FULL = "No space left on device|ENOSPC|no space|Disk quota|os error 28"


@dataclass(frozen=True)
class Fault:
    """One thing that is broken.

    :ivar message: what the run must say, a regular expression; empty when it must overcome the fault
    :ivar broken: a shell command on the host, before the run
    :ivar mended: one that takes it back
    :ivar variables: of the run
    :ivar app: keys of the app moody in the run
    :ivar prepare: makes what the run needs, and tells further keys of moody
    :ivar commit: tells whether the host has the commit that it should, where what it answers does not tell
    """

    name: str
    message: str
    broken: str = "true"
    mended: str = "true"
    variables: dict[str, object] = field(default_factory=dict)
    app: dict[str, object] = field(default_factory=dict)
    prepare: Callable[[Faults], Awaitable[dict[str, object]]] | None = None
    commit: Callable[[Faults], Awaitable[bool]] | None = None


async def silent_repository(faults: Faults) -> dict[str, object]:
    """A server that takes connections and never says anything."""

    async def swallow(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    server = await asyncio.start_server(swallow, faults.victim.gateway, 0)
    faults.servers.append(server)
    return {"repository": f"git://{faults.victim.gateway}:{server.sockets[0].getsockname()[1]}/moody.git"}


async def own_repository(faults: Faults) -> dict[str, object]:
    """A copy of the repository that only this host deploys from."""
    path = LAB.served / f"{faults.victim.name}.git"
    shutil.rmtree(path, ignore_errors=True)
    await output_of("git", "clone", "--quiet", "--bare", LAB.served / "moody.git", path)
    return {"repository": f"git://{faults.victim.gateway}/{path.name}"}


async def rewritten_history(faults: Faults) -> dict[str, object]:
    """Another history under the same branch; the deployed commit is gone from the repository."""
    keys = await own_repository(faults)
    git = ["git", f"--git-dir={LAB.served / f'{faults.victim.name}.git'}"]
    branch = faults.state.branch
    who = ["-c", "user.name=tests", "-c", "user.email=tests@localhost"]
    commit = await output_of(*git, *who, "commit-tree", f"{branch}^{{tree}}", "-m", "Another history")
    for reference in (await output_of(*git, "for-each-ref", "--format=%(refname)")).split():
        await output_of(*git, "update-ref", reference, commit.strip())
    await output_of(*git, "gc", "--quiet", "--prune=now")
    return keys


async def has_rewritten_history(faults: Faults) -> bool:
    wanted = await output_of("git", f"--git-dir={LAB.served / f'{faults.victim.name}.git'}", "rev-parse", "HEAD")
    release = json.loads(await faults.victim.machine.run("cat /opt/flask_apps/moody/current/release.json"))
    return release["commit"] == wanted.strip()


async def moved_tag(faults: Faults) -> dict[str, object]:
    """A tag that was deployed and then moved."""
    keys = await own_repository(faults)
    git = ["git", f"--git-dir={LAB.served / f'{faults.victim.name}.git'}"]
    other = "version2" if faults.state.branch == "master" else "master"
    await output_of(*git, "tag", "v1", other)
    keys["version"] = "v1"
    await faults.run(faults.state.changed(branch=other), keys)
    await output_of(*git, "tag", "--force", "v1", faults.state.branch)
    return keys


REBUILD = {"flask_app_rebuild": True}
OBJECTS = "find /opt/flask_apps/moody/repo.git/objects -type f"
RELOAD = "systemctl daemon-reload"
FOREIGN = "/etc/systemd/system/flask-moody@.service.d"

FAULTS = (
    Fault(
        "git unreachable",
        "moody: fetch the code: .*could not fetch",
        app={"repository": "git://127.0.0.1:9/moody.git"},
        variables=REBUILD,
    ),
    Fault("git that never answers", "moody: fetch the code", prepare=silent_repository, variables=REBUILD),
    Fault("a version that does not exist", "no branch, tag or commit 'nosuch'", app={"version": "nosuch"}),
    Fault("a path that does not exist", "no folder 'nosuch'", app={"path": "nosuch"}),
    Fault("a rewritten history", "", prepare=rewritten_history, commit=has_rewritten_history),
    Fault("a moved tag", "", prepare=moved_tag),
    Fault("a mirror without objects", "", f"{OBJECTS} -delete", variables=REBUILD),
    Fault(
        "a damaged object in the mirror",
        "",
        f"{OBJECTS} | while read f; do chmod u+w $f; echo broken > $f; done",
        variables=REBUILD,
    ),
    Fault("a mirror without HEAD", "", "rm /opt/flask_apps/moody/repo.git/HEAD", variables=REBUILD),
    Fault(
        "locks of a killed git in the mirror",
        "",
        "cd /opt/flask_apps/moody/repo.git; touch packed-refs.lock HEAD.lock",
        variables=REBUILD,
    ),
    Fault("somebody else's mirror", "", "chown -R root /opt/flask_apps/moody/repo.git", variables=REBUILD),
    Fault(
        "an index that is unreachable",
        "moody: install dependencies",
        app={"extra_packages": ["flaskfleet-no-such==1"]},
        variables={"flask_app_index_url": "http://127.0.0.1:9/simple"},
    ),
    Fault("a wheel with another hash", "moody: install dependencies: [^\\0]*[Hh]ash", app={"version": "badhash"}),
    Fault(
        "a failing build command",
        "moody: build command: [^\\0]*exited with status 3",
        app={"build_commands": ["exit 3"]},
    ),
    Fault(
        "a hanging build command",
        "moody: build command: [^\\0]*ended after 2 s",
        app={"build_commands": ["sleep 60"], "command_timeout": 2},
    ),
    Fault(
        "a failing release command",
        "moody: release command: [^\\0]*exited with status 3",
        app={"release_commands": ["exit 3"]},
    ),
    Fault(
        "a hanging release command",
        "moody: release command: [^\\0]*ended after 2 s",
        app={"release_commands": ["sleep 60"], "command_timeout": 2},
    ),
    Fault(
        "uv killed",
        "moody: install dependencies",
        "systemd-run --quiet --collect sh -c 'until pkill -KILL -x uv; do sleep 0.02; done'",
        variables={**REBUILD, "flask_app_only": ["moody"]},
    ),
    Fault("no memory for a second release", "MiB are available", variables={"flask_app_memory_reserve": 900_000}),
    Fault("an app that does not start", "moody: probe: [^\\0]*RuntimeError", app={"env": {"MOODY": "import"}}),
    Fault(
        "a unit that systemd refuses",
        "moody: (start|probe): ",
        f"mkdir -p {FOREIGN}; printf '[Service]\\nExecStart=/bin/second\\n' > {FOREIGN}/foreign.conf; {RELOAD}",
        f"rm -r {FOREIGN}; {RELOAD}",
    ),
    Fault(
        "somebody else's broken site",
        "foreign.conf",
        "echo 'nonsense;' > /etc/nginx/conf.d/foreign.conf",
        "rm /etc/nginx/conf.d/foreign.conf",
        app={"aliases": ["other.moody.test"]},
    ),
    Fault("a clock that is 400 days behind", "", "clock -34560000"),
    Fault("a clock that is 400 days ahead", "", "clock 34560000"),
    Fault("a damaged build", "", "cd /opt/flask_apps/moody/current/build/.venv; rm -r lib/python*/site-packages/flask"),
    Fault(
        "a read-only root",
        "Read-only file system",
        "mount -o remount,ro /opt/flask_apps",
        "mount -o remount,rw /opt/flask_apps",
    ),
    Fault("a full root", FULL, "fill /opt/flask_apps", "free /opt/flask_apps"),
    Fault("a root without inodes", FULL, "inodes /opt/flask_apps", "more_inodes /opt/flask_apps", variables=REBUILD),
    Fault("a full /etc/systemd/system", FULL, "fill /etc/systemd/system", "free /etc/systemd/system"),
    Fault("a full folder of sites", FULL, "fill $sites", "free $sites", app={"aliases": ["other.moody.test"]}),
    Fault("a full /run", f"{FULL}|systemd", "fill /run", "free /run", variables=REBUILD),
)

# What the commands above use
FUNCTIONS = """
sites=/etc/nginx/sites-available; [ -d $sites ] || sites=/etc/nginx/conf.d
fill() {
    findmnt --type tmpfs $1 > /dev/null || exit
    for n in 64k 512; do dd if=/dev/zero of=$1/.torture-$n bs=$n 2> /dev/null || true; done
}
free() { rm -f $1/.torture-*; }
inodes() { mount -o remount,nr_inodes=$(($(df --output=iused $1 | tail -n 1))) $1; }
more_inodes() { mount -o remount,nr_inodes=100k $1; }
"""


class Faults:
    """The rounds of one host.

    :ivar state: what is declared and deployed
    :ivar servers: of repositories, ended after the round
    """

    def __init__(self, victim: Victim, seed: str, part: Part) -> None:
        self.victim = victim
        self.random = random.Random(f"{seed} faults {victim.name}")
        self.part = part
        self.state = State()
        self.number = 0
        self.servers: list[asyncio.Server] = []
        self.steps: list[dict] = []

    async def prepare(self) -> None:
        """Put what is to be filled up onto small file systems, and deploy."""
        await self.victim.arm()
        await self.victim.run("site", self.state)  # so that all of the folders are there
        command = "systemctl stop 'flask-*.target'; sleep 1; for d in /opt/flask_apps /etc/systemd/system $sites; do "
        command += (
            f"mountpoint -q $d && continue; mkdir -p $d; cp -a $d /tmp/kept; mount -t tmpfs -o size={SMALL} tmpfs $d; "
        )
        command += "cp -a /tmp/kept/. $d; rm -r /tmp/kept; done; systemctl daemon-reload"
        await self.shell(command)
        await self.victim.settled(self.state)

    async def full_at_a_step(self) -> None:
        """The disk runs full in the middle of a run, and has room again afterwards."""
        victim, before = self.victim, self.state
        if not self.steps:
            await victim.arm(record=True)
            await victim.run("site", self._next(), **REBUILD)
            await victim.leftovers()
            found = {(each["program"], each["what"]): {**each, "time": 1} for each in await victim.steps()}
            self.steps = [
                found[key] for key in sorted(found) if key[0] in ("app_build", "app_activate", "flask-app settle")
            ]
            before = self.state
            self.random.shuffle(self.steps)
        place = self.steps.pop()  # when all were taken, they are found anew
        after = self._next()
        problems = []
        async with victim.watched() as watches:
            await victim.arm(**place, blow="halt")
            run = await victim.start("site", after, **REBUILD)
            note = await victim.halted(run)
            if note:
                await self.shell("fill /opt/flask_apps")
                await victim.resume(note)
            outcome = await run.end()
            if outcome.status and not re.search(FULL, outcome.messages):
                problems.append(f"said: {outcome.messages[-1500:]}")
            problems += [found for app in WATCHED if (found := await victim.serves(app, before, after))]
            await self.shell("free /opt/flask_apps")
            problems += [f"left behind: {line}" for line in await self.halves()]
            problems += await victim.finish(after)
        problems += lost(watches)
        label = f"a full root at {place['program']}, {place['what']}"
        self.part.add(victim.name, label, problems, struck="full disk" if note else "", watches=watches)

    async def halves(self) -> list[str]:
        """What is left right after, but for what the next run finds and clears: what was half written."""
        return [line for line in await self.victim.leftovers(5) if "half" in line]

    def _next(self) -> State:
        self.number += 1
        self.state = self.state.changed(greeting=f"f{self.number}")
        return self.state

    async def shell(self, command: str) -> None:
        """Run a command of FAULTS on the host."""
        clock = re.fullmatch(r"clock (-?\d+)", command)
        if clock:
            await self.victim.arm(clock=int(clock[1]))
        else:
            await self.victim.machine.run(FUNCTIONS + command)

    async def run(self, state: State, app: dict[str, object], **variables: object):
        """Run the site with a state and other keys of moody."""
        apps = state.variables(self.victim.gateway)["flask_apps"]
        moody = {**apps[0], **app, "env": {**apps[0]["env"], **app.get("env", {})}}
        return await self.victim.run("site", state, flask_apps=[moody, *apps[1:]], **variables)

    async def round(self, fault: Fault) -> None:
        """Break, run, look, mend, run, look."""
        victim, before = self.victim, self.state
        after = before.changed(greeting=f"f{self.number + 1}")
        problems = []
        async with victim.watched() as watches:
            keys = {**fault.app, **(await fault.prepare(self) if fault.prepare else {})}
            try:
                await self.shell(fault.broken)
            except CommandFailed as error:
                problems.append(f"could not be broken: {error}")
            outcome = await self.run(after, keys, **fault.variables)
            said = outcome.messages
            if fault.message and (not outcome.status or not re.search(fault.message, said)):
                problems.append(f"ended with {outcome.status} and said: {said[-1500:]}")
            if not fault.message and outcome.status:
                problems.append(f"was not overcome: {said[-1500:]}")
            # what failed has the old release, what was overcome the new one; other apps may be done or not
            moody = before if fault.message else after
            problems += [found] if (found := await victim.serves("moody", moody)) else []
            problems += [found] if (found := await victim.serves("fast", before, after)) else []
            if fault.commit and not await fault.commit(self):
                problems.append("it has another commit than the repository")
            await self.shell(fault.mended)
            await victim.arm()
            problems += [f"left behind: {line}" for line in await victim.leftovers()]
            problems += await victim.finish(self._next())
        problems += lost(watches)
        for server in self.servers:
            server.close()
        self.servers.clear()
        self.part.add(victim.name, fault.name, problems, struck="fault", watches=watches)
        if fault.message:
            self.part.quote(victim.name, fault.name, said)
