# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reboot with ten apps and one that cannot start: the others serve what was live as soon as nginx listens."""

from __future__ import annotations

import asyncio
import collections

from report import Part
from victims import State, Victim, kind_of_server

APPS = tuple(f"app{number}" for number in range(10))
INTERVAL = 0.1  # seconds between two requests of one client
GRANIAN_MAY_REFUSE = 60  # requests, while it starts: nobody holds them for it


class Reboot:
    """The round of one host."""

    def __init__(self, victim: Victim, part: Part) -> None:
        self.victim = victim
        self.part = part
        self.state = State()

    async def round(self) -> None:
        """Deploy, break one, reboot, ask everybody."""
        victim = self.victim
        states = {name: self.state for name in (*APPS, "broken")}
        for greeting in ("earlier", "g0"):  # each has a release of before
            states = {name: self.state.changed(greeting=greeting) for name in states}
            outcome = await victim.run_apps(states)
            if outcome.status:
                raise RuntimeError(outcome.messages)
        before = await victim.live()
        await victim.machine.run("rm /opt/flask_apps/broken/current/build/.venv/bin/gunicorn")
        stop = asyncio.Event()
        seen: dict[str, list] = {name: [] for name in APPS}
        asking = [asyncio.ensure_future(self.ask(name, seen[name], stop)) for name in APPS]
        seconds = await victim.reboot()
        await asyncio.sleep(5)
        stop.set()
        await asyncio.gather(*asking)
        problems = []
        if await victim.live() != before:
            problems.append(f"live were {before}, now {await victim.live()}")
        for number, name in enumerate(APPS):
            kind = kind_of_server(number)
            # from the first answer after the reboot on; before it, nobody listens
            refused = [n for n, each in enumerate(seen[name]) if each == (0, "ConnectionRefusedError")]
            answers = seen[name][max(refused, default=len(seen[name])) + 1 :]
            wrong = collections.Counter(each for each in answers if each != (200, f"{states[name].release} 0"))
            if not answers or (wrong and kind == "gunicorn") or sum(wrong.values()) > GRANIAN_MAY_REFUSE:
                problems.append(f"{name} ({kind}) answered {len(answers)} times, wrong: {dict(wrong)}")
            if kind == "granian" and wrong:
                self.part.note(
                    f"{victim.name}: {name} (granian) refused {sum(wrong.values())} requests while it started"
                )
        status, _body = await victim.ask("broken")
        if status not in (0, 502, 504):
            problems.append(f"the broken app answers {status}")
        label = f"reboot with {', '.join(APPS)} and a broken one, {seconds:.1f} s"
        self.part.add(victim.name, label, problems, struck="reboot")
        outcome = await victim.run_apps(states, state="absent")
        left = await victim.leftovers()
        problems = [f"the removal failed: {outcome.messages}"] * bool(outcome.status) + left
        self.part.add(victim.name, "removal of them all", problems, struck="removal")

    async def ask(self, app: str, seen: list, stop: asyncio.Event) -> None:
        """Ask an app all the time; ``seen`` gets (status, body) each time."""
        while not stop.is_set():
            try:
                seen.append(await asyncio.wait_for(self.victim.ask(app), 10))
            except asyncio.TimeoutError:
                seen.append((-1, "no answer within 10 s"))
            await asyncio.sleep(INTERVAL)
