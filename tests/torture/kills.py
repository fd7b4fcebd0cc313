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
from victims import HUNG, WATCHED, Run, State, Victim

# What a run does when it is struck, and how often
ACTIONS = {"deploy": 5, "rebuild": 2, "site": 1, "units": 1, "remove": 1, "add": 1, "rollback": 2}
ACTIONS |= {"sick": 1, "unfit": 1, "boot": 1}
# Of moody: a release that falls ill while it settles, and one that never answers as it must
MOODS = {
    "sick": {"env": {"GREETING": "sick", "MOODY": "sick=1"}, "settle": 4},
    "unfit": {"env": {"GREETING": "unfit", "MOODY": "error"}, "health_timeout": 2},
}
# A step that runs a program is struck at its beginning, or so many seconds later, as that may go on
DELAYS = (0, 0, 0.05, 0.3, 1)
LATE = 3  # seconds after the end of a run in which what the host does by itself may still come to the place
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

    @property
    def of_guest(self) -> bool:
        """Whether it is a step for the app that is not always there."""
        return "guest" in self.what


class Kills:
    """The rounds of one host.

    :ivar actions: of ACTIONS, what is struck
    :ivar state: what is declared and deployed
    :ivar previous: what a rollback leads to
    :ivar tried: how often each place was chosen
    :ivar struck: the places that were reached and struck, how often
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
        self.tried: collections.Counter[Place] = collections.Counter()
        self.struck: collections.Counter[Place] = collections.Counter()

    async def prepare(self) -> None:
        """Deploy, and record the steps of each action."""
        await self.victim.arm()
        await self._must_succeed("site", self.state)
        await self._must_succeed("site", self._next("rebuild"), flask_app_rebuild=True)
        for action in (each for each in ACTIONS if each in self.actions):
            after = self._next(action)
            await self.victim.arm(record=True)
            if action == "boot":
                await self.victim.reboot()
            elif action in MOODS:
                await (await self._start(action, after)).end()
            else:
                await self._must_succeed(self._playbook(action), after, **self._variables(action, after))
            await self._clear("while recording")
            self._learn(action, await self.victim.steps())
        await self.victim.arm()
        await self._must_succeed("site", self.state)

    def _learn(self, action: str, steps: list[dict]) -> None:
        found: collections.Counter[tuple[str, str]] = collections.Counter()
        for each in steps:
            if each["program"] == "flask-app live" and action != "boot":
                continue
            key = (each["program"], each["what"])
            found[key] = max(found[key], each["time"])
        self.places[action] = [Place(action, *key, times) for key, times in found.items()]

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
        elif action == "units":
            self.state = before.changed(tasks_max=220 - before.tasks_max)
            self.previous = before
        elif action in ("remove", "add"):
            self.state = before.changed(guest=action == "add")
        self.previous = self.previous.changed(alias=self.state.alias, guest=self.state.guest)
        return self.state

    @staticmethod
    def _playbook(action: str) -> str:
        return "rollback" if action == "rollback" else "site"

    def _variables(self, action: str, state: State) -> dict[str, object]:
        if action in MOODS:
            apps = state.variables(self.victim.gateway)["flask_apps"]
            return {"flask_apps": [{**apps[0], **MOODS[action]}, *apps[1:]], "flask_app_only": ["moody"]}
        of_rollback = {"flask_app_rollback_to": dict.fromkeys(WATCHED, "")}  # the guest may be new
        return {"rebuild": {"flask_app_rebuild": True}, "rollback": of_rollback}.get(action, {})

    async def _start(self, action: str, state: State) -> Run:
        return await self.victim.start(self._playbook(action), state, **self._variables(action, state))

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
        places = [place for place in self.places[action] if self.state.guest or action == "add" or not place.of_guest]
        least = min(self.tried[place] for place in places)
        place = self.random.choice([place for place in places if self.tried[place] == least])
        blow = self.random.choices(list(BLOWS), list(BLOWS.values()))[0]
        if action == "boot":
            blow = "module"
        return place, blow

    async def round(self, chosen: tuple[Place, str] | None = None) -> None:
        """One action, struck once; then the next run, which must put everything right.

        :param chosen: where, when it takes the step for the last time, and with what; drawn when not given
        """
        place, blow = chosen or self.choose()
        self.tried[place] += 1
        before, previous = self.state, self.previous
        after = self._next(place.action)
        allowed = (before, previous) if place.action == "rollback" else (before, after)
        allowed += (before.changed(greeting="sick"),) * (place.action == "sick")
        time = place.times if chosen else self.random.randint(1, place.times)
        delay = 0 if chosen or not place.what.startswith("run ") else self.random.choice(DELAYS)
        label = f"round {self.number}: {place.action}, {blow} at {place.program}, {place.what}, time {time}"
        label += f", {delay} s later" if delay else ""
        problems = []
        async with self.victim.watched() as watches:
            struck, hung = await self._strike(place, time, delay, blow, after)
            self.struck[place] += struck
            problems += ["the struck run hung"] * hung
            if struck:
                problems += await self._serving(place, blow, allowed)
            # what the next run finds, it must load and make by itself
            outcome = await self.victim.run("site", after)
            if outcome.status:
                problems.append(f"the next run failed: {outcome.messages[-1500:]}")
            problems += [problem for app in WATCHED if (problem := await self.victim.serves(app, after))]
            if after.guest and (problem := await self.victim.serves("guest", after)):
                problems.append(problem)
            if not after.guest and (answer := await self.victim.ask("guest"))[0] == 200:
                problems.append(f"the app that is gone answers {answer}")
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

    async def _strike(self, place: Place, time: int, delay: float, blow: str, after: State) -> tuple[bool, bool]:
        """Run the action and strike; returns whether the place was reached, and whether the run hung."""
        victim = self.victim
        self_inflicted = "power" if blow == "power" else "kill" if blow == "module" else "halt"
        await victim.arm(program=place.program, what=place.what, time=time, delay=delay, blow=self_inflicted)
        if place.action == "boot":
            await victim.reboot()
            return await victim.sprung(LATE) is not None, False
        run = await self._start(place.action, after)
        note = await victim.halted(run)
        if note is None and place.program.startswith("flask-app"):
            note = await victim.sprung(LATE)
        await victim.machine.run(f"rm -f {FOLDER}/trap.json")
        note = note or await victim.sprung()
        if note and blow in ("power", "reboot"):
            await victim.reboot()
            run.kill()
        elif note and blow != "module":
            if blow == "playbook":
                run.kill()
            elif blow == "nginx":
                await victim.machine.run("systemctl kill --signal=KILL --kill-whom=main nginx || true")
            else:
                await victim.kill_server(self.random.choice(WATCHED), blow)
            await victim.resume(note)
        ending = await run.end()
        if blow == "module" and place.program.startswith("app_") and note and ending.status == 0:
            self.part.note(f"{self.victim.name}: a run whose {place.program} was killed ended with status 0")
        return bool(note), ending.status == HUNG

    async def _serving(self, place: Place, blow: str, allowed: tuple[State, ...]) -> list[str]:
        """What is wrong right after the blow. A killed nginx is away until the next run."""
        if blow == "nginx" or place.action == "boot":
            return []
        found = [await self.victim.serves(app, *allowed) for app in WATCHED]
        return [f"right after: {problem}" for problem in found if problem]

    async def _loaded(self, state: State) -> list[str]:
        """What was written and is not loaded: by nginx, which the second names of the apps lead to, or by systemd."""
        answers = [await self.victim.ask(app, host=f"www.{app}.test") for app in WATCHED]
        found = [f"www.* answered {answer}" for answer in answers if (answer[0] == 200) is not state.alias]
        unit = "flask-moody@$(basename $(readlink /opt/flask_apps/moody/current)).service"
        limit = (await self.victim.machine.run(f"systemctl show --property TasksMax --value {unit}")).strip()
        return found + [f"systemd has a TasksMax of {limit}"] * (limit != str(state.tasks_max))

    async def _clear(self, when: str) -> None:
        left = await self.victim.leftovers()
        if left:
            raise RuntimeError(f"{self.victim.name}: left behind {when}: {left}")
