# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two at once: one waits, or says that another works here; what serves is never a mixture.

The first is halted at a step, the second is started, and after a while the first goes on.
"""

from __future__ import annotations

import asyncio
import random

from report import Part
from victims import WATCHED, Outcome, Run, State, Victim, Watch, lost

HEAD_START = 15.0  # seconds: longer than a run takes that nobody holds up
VERDICT = 5.0  # seconds: longer than a watch takes to give the traffic back
EXCUSES = ("another run", "meanwhile", "run it again", "traffic went back")
SICK = {"env": {"GREETING": "sick", "MOODY": "sick=2"}, "settle": 4}


class Races:
    """The rounds of one host.

    :ivar state: what is deployed
    :ivar older: what was before
    """

    def __init__(self, victim: Victim, seed: str, part: Part) -> None:
        self.victim = victim
        self.random = random.Random(f"{seed} races {victim.name}")
        self.part = part
        self.state = self.older = State()
        self.number = 0
        self.steps: dict[str, list[dict]] = {}

    async def prepare(self) -> None:
        """Deploy, and record the steps of a deployment, and of one of each app whose watch gives the traffic back."""
        await self.victim.settled(self.state)
        await self.victim.arm(record=True)
        await self._record("deploy", await self.victim.start("site", self._next()))
        for app in WATCHED:
            await self._record(app, await self._start_sick(app))
        await self.victim.settled(self._next())

    async def _record(self, name: str, run: Run) -> None:
        await run.end()
        await self.victim.leftovers()
        self.steps[name] = await self.victim.steps()
        await self.victim.arm(record=True)

    def _next(self) -> State:
        """Code, settings and secret differ from each state to the next, so that a mixture of two shows."""
        self.number += 1
        branch = "version2" if self.state.branch == "master" else "master"
        self.older = self.state
        self.state = self.state.changed(greeting=f"r{self.number}", token=f"r{self.number}", branch=branch)
        return self.state

    async def _start_sick(self, app: str) -> Run:
        """Start a deployment of an app whose release falls ill while it settles."""
        apps = self.state.variables(self.victim.gateway)["flask_apps"]
        apps = [{**each, **SICK} if each["name"] == app else each for each in apps]
        return await self.victim.start("site", self.state, flask_apps=apps, flask_app_only=[app])

    async def runs(self) -> None:
        """Two deployments; the first is halted while it holds the lock of all runs."""
        await self._two_runs("site", "site")

    async def rollback(self) -> None:
        """A deployment and a rollback."""
        await self._two_runs(*self.random.sample(("site", "rollback"), 2))

    async def _start(self, playbook: str, state: State) -> Run:
        back = {"flask_app_rollback_to": dict.fromkeys(WATCHED, "")} if playbook == "rollback" else {}
        return await self.victim.start(playbook, state, **back)

    async def _two_runs(self, first_playbook: str, second_playbook: str) -> None:
        victim, before, older = self.victim, self.state, self.older
        places = [each for each in self.steps["deploy"] if each["program"] == "app_activate"]
        place = self.random.choice(places[len(places) // 10 :])  # behind the first ones it holds the lock
        problems = []
        async with victim.watched() as watches:
            first_state = self._next() if first_playbook == "site" else before
            await victim.arm(**place, blow="halt")
            first = await self._start(first_playbook, first_state)
            note = await victim.halted(first)
            if not note:  # the second one must not be halted there
                await victim.arm()
            second_state = self._next() if second_playbook == "site" else first_state
            second = await self._start(second_playbook, second_state)
            second_end = asyncio.ensure_future(second.end())
            if note:
                done, _pending = await asyncio.wait([second_end], timeout=HEAD_START)
                if done and "Switch traffic to the releases" in done.pop().result().changed:
                    problems.append("the second run released while the first one did")
                await victim.resume(note)
            outcomes = [await first.end(), await second_end]
            problems += self._judge(outcomes)
            allowed = (older, before, first_state, second_state)
            problems += [found for app in WATCHED if (found := await victim.serves(app, *allowed))]
            problems += await victim.finish(second_state)
        problems += self._strange(watches, allowed)
        names = {"site": "deployment", "rollback": "rollback"}
        label = f"a {names[first_playbook]} at {place['what']}, and a {names[second_playbook]}"
        self.part.add(victim.name, label, problems, struck="race" if note else "", watches=watches)

    async def settle(self, at_lock: bool = False) -> None:
        """A watch that is about to give the traffic back, and a deployment.

        at_lock: halt it right before it takes the lock, not anywhere behind that
        """
        victim, before = self.victim, self.state
        # fast has no workers, for whose sake a watch takes the lock before
        app = "fast" if at_lock else self.random.choice(WATCHED)
        steps = [each for each in self.steps[app] if each["program"] == "flask-app settle"]
        # the lock under which it gives the traffic back is the last one that it takes before
        back = next(n for n, each in enumerate(steps) if each["what"] == f"rename to /opt/flask_apps/{app}/current")
        earliest = max(n for n, each in enumerate(steps[:back]) if each["what"] == f"lock /opt/flask_apps/.{app}.lock")
        place = steps[earliest] if at_lock else self.random.choice(steps[earliest:])
        problems = []
        async with victim.watched() as watches:
            await victim.arm(**place, blow="halt")
            first = await self._start_sick(app)
            note = await victim.halted(first)
            if not note:
                await victim.arm()
            after = self._next()
            second = asyncio.ensure_future(victim.run("site", after))
            if note:
                await asyncio.wait([second], timeout=HEAD_START)
                await victim.resume(note)
            outcomes = [await first.end(), await second]
            problems += self._judge(outcomes[1:])
            if at_lock:  # both runs have ended before the watch went on
                await asyncio.sleep(VERDICT)
                found = await victim.serves(app, after)
                problems += [f"right after: {found}"] if found else []
            if outcomes[1].status == 0:
                problems += [found for app in WATCHED if (found := await victim.serves(app, after))]
            problems += await victim.finish(after)
        problems += self._strange(watches, (before, after, State(before.branch, "sick")))
        label = f"a watch over {app} at {place['what']}, and a deployment"
        self.part.add(victim.name, label, problems, struck="race" if note else "", watches=watches)

    def _judge(self, outcomes: list[Outcome]) -> list[str]:
        """A run may fail, but must say that another one worked here."""
        bad = [each for each in outcomes if each.status and not any(word in each.messages for word in EXCUSES)]
        return [f"a run failed: {each.messages[-1000:]}" for each in bad]

    @staticmethod
    def _strange(watches: list[Watch], allowed: tuple[State, ...]) -> list[str]:
        """Requests that failed, or were answered by what nobody deployed."""
        known = set().union(*(state.bodies for state in allowed))
        found = [(each.app, set(each.report.bodies) - known) for each in watches]
        return lost(watches) + [f"{app} answered {bodies}" for app, bodies in found if bodies]
