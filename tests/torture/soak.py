# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Soak: many deployments under load, and many apps for long; nothing grows that should not."""

from __future__ import annotations

import json
import time

from report import Part
from victims import WATCHED, WITHOUT_COMMANDS, State, Victim, Watch, lost

LOOK_EVERY = 10  # deployments of one app
MOST_RELEASES = 8  # on the host of one app: those that are kept, the one before, those that still end
CROWD = 20  # apps
CROWD_ASK_INTERVAL = 0.5  # seconds between two requests to one of so many
MEASURE = r"""
import glob, json, os, subprocess
def rss(pid): return int(open(f"/proc/{pid}/status").read().split("VmRSS:")[1].split()[0])
def out(*command): return subprocess.run(command, capture_output=True, text=True).stdout
nginx = [int(pid) for pid in out("pgrep", "nginx").split()]
found = {
    "descriptors of nginx": max(len(os.listdir(f"/proc/{pid}/fd")) for pid in nginx),
    "descriptors of systemd": len(os.listdir("/proc/1/fd")),
    "KiB of systemd": rss(1),
    "KiB of nginx": sum(rss(pid) for pid in nginx),
    "MiB of disk": int(out("du", "-sm", "/opt/flask_apps").split()[0]),
    "units": len(out("systemctl", "list-units", "--all", "--no-legend", "flask-*").splitlines()),
    "folders of units": len(glob.glob("/etc/systemd/system/flask-*")),
    "sockets": len(glob.glob("/run/flask_apps/*/*")),
    "releases": len(glob.glob("/opt/flask_apps/*/releases/*")),
    "builds": len(glob.glob("/opt/flask_apps/*/builds/*.json")),
    "marks": len(glob.glob("/opt/flask_apps/*/marks/*")),
    "processes": sum(name.isdigit() for name in os.listdir("/proc")),
    "KiB of journal": int(out("du", "-sk", "/run/log/journal", "/var/log/journal").split()[0]),
}
print(json.dumps(found))
"""
# What may grow a little: memory of daemons, as allocators go, by this factor over the second half. Of connections, as
# many are open as are asked for at that moment.
GROWING = {"KiB of systemd": 1.2, "KiB of nginx": 1.2, "processes": 1.2, "MiB of disk": 1.1}
GROWING |= {"descriptors of nginx": 1.5, "descriptors of systemd": 1.2}
JOURNAL = "KiB of journal"  # has a bound of its own, journald.conf's SystemMaxUse
KIB_A_DEPLOYMENT = 200  # of the journal, at most


class Soak:
    """The rounds of one host."""

    def __init__(self, victim: Victim, part: Part) -> None:
        self.victim = victim
        self.part = part
        self.state = State()
        self.looks: list[dict[str, int]] = []

    async def deployments(self, count: int) -> None:
        """Deploy so often; code and settings change in turn."""
        victim = self.victim
        await victim.settled(self.state)
        problems = []
        async with victim.watched() as watches:
            for number in range(1, count + 1):
                branch = ("master", "version2")[number % 2]
                self.state = self.state.changed(greeting=f"s{number % 7}", token=f"t{number}", branch=branch)
                outcome = await victim.run("site", self.state, flask_app_overrides={"moody": WITHOUT_COMMANDS})
                if outcome.status:
                    problems.append(f"deployment {number}: {outcome.messages[-500:]}")
                problems += [f"deployment {number}: {line}" for line in await self.pruned()]
                if number % LOOK_EVERY == 0:
                    left = await victim.leftovers()
                    problems += [f"deployment {number}: left behind: {line}" for line in left]
                    await self.look(f"{number} of {count}")
            problems += [found for app in WATCHED if (found := await victim.serves(app, self.state))]
        self.end(f"{count} deployments", problems, watches, count)

    async def crowd(self, minutes: float) -> None:
        """Many apps for so long, of which one after the other is deployed anew."""
        victim = self.victim
        states = {f"app{number}": self.state for number in range(CROWD)}
        problems = []
        outcome = await victim.run_apps(states)
        if outcome.status:
            raise RuntimeError(outcome.messages)
        deadline = time.perf_counter() + 60 * minutes
        count = 0
        async with victim.watched(tuple(states), CROWD_ASK_INTERVAL) as watches:
            while time.perf_counter() < deadline:
                app = f"app{count % CROWD}"
                count += 1
                states[app] = states[app].changed(greeting=f"s{count}")
                outcome = await victim.run_apps(states)
                if outcome.status:
                    problems.append(f"deployment {count}: {outcome.messages[-500:]}")
                problems += [f"deployment {count}: left behind: {line}" for line in await victim.leftovers()]
                await self.look(f"{count}, {(deadline - time.perf_counter()) / 60:.0f} minutes to go")
            problems += [found for app, state in states.items() if (found := await victim.serves(app, state))]
        self.end(f"{CROWD} apps for {minutes} minutes, {count} deployments", problems, watches, count)
        outcome = await victim.run_apps(states, state="absent")
        left = await victim.leftovers()
        problems = [f"the removal failed: {outcome.messages}"] * bool(outcome.status) + left
        self.part.add(victim.name, f"removal of {CROWD} apps", problems, struck="removal")

    async def pruned(self) -> list[str]:
        """What pruning took that it must keep: the release before, which a rollback would lead to, and its build."""
        command = "cd /opt/flask_apps; for a in moody fast; do for l in current previous; do"
        command += " [ ! -L $a/$l ] || [ -e $a/$l/build/app.py ] || echo $a/$l; done; ls $a/releases | wc -l; done"
        found = (await self.victim.machine.run(command)).split()
        return [f"{each} leads nowhere" for each in found if not each.isdigit()] + [
            f"{each} releases are kept" for each in found if each.isdigit() and not 1 <= int(each) <= MOST_RELEASES
        ]

    def end(self, label: str, problems: list[str], watches: list[Watch], deployments: int) -> None:
        """Judge what was seen."""
        problems += lost(watches) + self.growth()
        lines = (self.looks[-1][JOURNAL] - self.looks[0][JOURNAL]) / max(deployments - LOOK_EVERY, 1)
        problems += [f"a deployment writes {lines:.0f} KiB into the journal"] if lines > KIB_A_DEPLOYMENT else []
        self.part.add(self.victim.name, label, problems, struck="soak", watches=watches)
        self.part.note(f"{self.victim.name}, {label}: first look {self.looks[0]}, last look {self.looks[-1]}")
        self.looks = []

    async def look(self, progress: str) -> None:
        """Measure the host, and say it."""
        self.looks.append(json.loads(await self.victim.machine.run(f"python3 -c '{MEASURE}'")))
        print(f"soak {self.victim.name} {progress}: {self.looks[-1]}", flush=True)

    def growth(self) -> list[str]:
        """What grew from the middle of the looks to the last one."""
        middle, last = self.looks[len(self.looks) // 2], self.looks[-1]
        limits = {name: count * GROWING.get(name, 1) for name, count in middle.items() if name != JOURNAL}
        return [
            f"{name} grew from {middle[name]} to {last[name]}" for name, limit in limits.items() if last[name] > limit
        ]
