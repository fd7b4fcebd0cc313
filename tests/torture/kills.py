# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills: strike a run at any of its steps; the apps serve the old or the new release, and the next run finishes."""

from __future__ import annotations

import collections
import random
from collections.abc import Sequence
from dataclasses import dataclass

from report import Part
from trap import FOLDER
from victims import WATCHED, State, Victim

# What a run does when it is struck, and how often
ACTIONS = {"deploy": 5, "rebuild": 2, "site": 1, "remove": 1, "add": 1, "rollback": 2, "boot": 1}
# What it is struck with, and how often. "module" kills the process that is about to take the step.
BLOWS = {"module": 10, "playbook": 3, "power": 3, "reboot": 1, "master": 1, "worker": 1, "nginx": 1}
# Blows that hit what serves: some requests then can't be answered
HITTING = ("power", "reboot", "master", "nginx", "worker")


@dataclass(frozen=True)
class Place:
    """A step that a program takes during an action.

    :ivar times: how often one process takes it
    """

    action: str
    program: str
    what: str
    times: int


class Kills:
    """The rounds of one host.

    :ivar actions: of ACTIONS, what is struck
    :ivar state: what is declared and deployed
    :ivar previous: what a rollback leads to
    """

    def __init__(self, victim: Victim, seed: str, part: Part, actions: Sequence[str] = tuple(ACTIONS)) -> None:
        self.victim = victim
        self.actions = actions
        self.random = random.Random(f"{seed} {victim.name}")
        self.part = part
        self.state = State()
        self.previous = State()
        self.number = 0
        self.places: dict[str, list[Place]] = {}
        self.struck: collections.Counter[Place] = collections.Counter()

    async def prepare(self) -> None:
        """Deploy, and record the steps of each action."""
        await self.victim.arm()
        await self._must_succeed("site", self.state)
        await self._must_succeed("site", self._next("rebuild"), flask_app_rebuild=True)
        for action in (each for each in ACTIONS if each in self.actions and each != "boot"):
            after = self._next(action)
            await self.victim.arm(record=True)
            await self._must_succeed("rollback" if action == "rollback" else "site", after, **self._variables(action))
            await self._clear("while recording")
            self._learn(action, await self.victim.steps())
        await self.victim.arm()
        await self._must_succeed("site", self.state)

    def _learn(self, action: str, steps: list[dict]) -> None:
        found: collections.Counter[tuple[str, ...]] = collections.Counter()
        for each in steps:
            kind = "boot" if each["program"] == "flask-app live" else action
            key = (kind, each["program"], each["what"])
            found[key] = max(found[key], each["time"])
        for (kind, program, what), times in found.items():
            self.places.setdefault(kind, []).append(Place(kind, program, what, times))

    def _next(self, action: str) -> State:
        """What an action declares. It becomes the state of this host, since the next run makes it true."""
        self.number += 1
        before = self.state
        if action in ("deploy", "rebuild"):
            changes = {
                "greeting": {"greeting": f"g{self.number}"},
                "token": {"token": f"t{self.number}"},
                "branch": {"branch": "version2" if before.branch == "master" else "master"},
            }
            chosen = self.random.choice(sorted(changes)) if action == "deploy" else "greeting"
            self.state = before.changed(**changes[chosen])
            self.previous = before
        elif action == "site":
            self.state = before.changed(alias=not before.alias)
        elif action in ("remove", "add"):
            self.state = before.changed(guest=action == "add")
        self.previous = self.previous.changed(alias=self.state.alias, guest=self.state.guest)
        return self.state

    @staticmethod
    def _variables(action: str) -> dict[str, object]:
        of_rollback = {"flask_app_rollback_to": dict.fromkeys(WATCHED, "")}  # the guest may be new
        return {"rebuild": {"flask_app_rebuild": True}, "rollback": of_rollback}.get(action, {})

    async def _must_succeed(self, playbook: str, state: State, **variables: object) -> None:
        outcome = await self.victim.run(playbook, state, **variables)
        if outcome.status:
            raise RuntimeError(f"{self.victim.name}: a run that nobody disturbed failed: {outcome.messages}")

    # --- rounds ---

    def choose(self) -> tuple[Place, str]:
        """Where to strike, and with what: the places that were struck least come first."""
        actions = [each for each in self.actions if self.places.get(each)]
        actions = [each for each in actions if each not in (("add",) if self.state.guest else ("remove",))]
        action = self.random.choices(actions, [ACTIONS[each] for each in actions])[0]
        least = min(self.struck[place] for place in self.places[action])
        place = self.random.choice([place for place in self.places[action] if self.struck[place] == least])
        blow = self.random.choices(list(BLOWS), list(BLOWS.values()))[0]
        if action == "boot":
            blow = "module"
        return place, blow

    async def round(self, chosen: tuple[Place, str] | None = None) -> None:
        """One action, struck once; then the next run, which must put everything right."""
        place, blow = chosen or self.choose()
        self.struck[place] += 1
        before, previous = self.state, self.previous
        after = before if place.action == "boot" else self._next(place.action)
        allowed = (before, previous) if place.action == "rollback" else (before, after)
        time = self.random.randint(1, place.times)
        label = f"round {self.number}: {place.action}, {blow} at {place.program}, {place.what}, time {time}"
        problems = []
        async with self.victim.watched() as watches:
            struck = await self._strike(place, time, blow, after)
            if struck:
                problems += await self._serving(place, blow, allowed)
            outcome = await self.victim.run("site", after)
            if outcome.status:
                problems.append(f"the next run failed: {outcome.messages[-1500:]}")
            problems += [problem for app in WATCHED if (problem := await self.victim.serves(app, after))]
            if after.guest and (problem := await self.victim.serves("guest", after)):
                problems.append(problem)
            problems += await self._loaded(after)
            problems += [f"left behind: {line}" for line in await self.victim.leftovers()]
        hit = place.action == "boot" or (struck and blow in HITTING)  # a boot goes on without having been struck
        for watch in watches:
            if watch.failed and not hit:
                problems.append(f"{watch.failed} requests of {watch.app} failed: {watch.report.failures}")
            strange = set(watch.report.bodies).difference(*(state.bodies for state in (*allowed, after)))
            if strange:
                problems.append(f"{watch.app} answered {sorted(strange)}")
        if self.random.random() < 0.2:
            again = await self.victim.run("site", after)
            if again.status or again.changed:
                problems.append(f"one more run: status {again.status}, changed {again.changed}")
        self.part.add(self.victim.name, label, problems, struck=blow if struck else "", watches=watches, hit=hit)

    async def _strike(self, place: Place, time: int, blow: str, after: State) -> bool:
        """Run the action and strike; returns whether the place was reached."""
        victim = self.victim
        self_inflicted = "power" if blow == "power" else "kill" if blow == "module" else "halt"
        await victim.arm(program=place.program, what=place.what, time=time, blow=self_inflicted)
        if place.action == "boot":
            await victim.reboot()
            return (await victim.note()).exists()
        playbook = "rollback" if place.action == "rollback" else "site"
        run = await victim.start(playbook, after, **self._variables(place.action))
        note = await victim.halted(run)
        if note and blow in ("power", "reboot"):
            await victim.reboot()
            run.kill()
        elif note and blow == "playbook":
            run.kill()
            await victim.resume(note)
        elif note and blow in ("master", "worker"):
            await victim.kill_server(self.random.choice(WATCHED), blow)
            await victim.resume(note)
        elif note and blow == "nginx":
            await victim.machine.run("systemctl kill --signal=KILL --kill-whom=main nginx || true")
            await victim.resume(note)
        ending = await run.end()
        if note is None:  # the settle unit may be struck after the run has ended
            note = (await victim.note()).exists()
        if blow == "module" and place.program.startswith("app_") and note and ending.status == 0:
            self.part.note(f"{self.victim.name}: a run whose {place.program} was killed ended with status 0")
        await victim.machine.run(f"rm -f {FOLDER}/trap.json")
        return bool(note)

    async def _serving(self, place: Place, blow: str, allowed: tuple[State, ...]) -> list[str]:
        """What is wrong right after the blow. A killed nginx is away until the next run."""
        if blow == "nginx" or place.action == "boot":
            return []
        found = [await self.victim.serves(app, *allowed) for app in WATCHED]
        return [f"right after: {problem}" for problem in found if problem]

    async def _loaded(self, state: State) -> list[str]:
        """Whether nginx has loaded the sites: the second names of the apps lead where they should."""
        answers = [await self.victim.ask(app, host=f"www.{app}.test") for app in WATCHED]
        return [f"www.* answered {answer}" for answer in answers if (answer[0] == 200) is not state.alias]

    async def _clear(self, when: str) -> None:
        left = await self.victim.leftovers()
        if left:
            raise RuntimeError(f"{self.victim.name}: left behind {when}: {left}")
