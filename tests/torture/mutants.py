# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mutants: the collection without one of its precautions. A campaign that does not notice is worth nothing."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from kills import Kills
from races import Races
from report import Part
from victims import PROJECT, State, Victim

TREES = PROJECT / ".cache" / "torture-mutants"
PARTS = ("plugins", "roles", "playbooks", "meta", "galaxy.yml")  # of the collection


async def power_cut_after_the_switch(victim: Victim, seed: str, part: Part) -> None:
    """The power goes when the new release has the traffic, and the run notes that it is about to end."""
    rounds = Kills(victim, seed, part, ["deploy"])
    await rounds.prepare()
    steps = [each for each in rounds.places["deploy"] if each.program == "app_activate"]
    place = next(each for each in steps if each.what == "write /opt/flask_apps/.last-run.json.new")
    await rounds.round((place, "power"))


async def two_runs(victim: Victim, seed: str, part: Part) -> None:
    """A run while another one is halted in the middle."""
    rounds = Races(victim, seed, part)
    await rounds.prepare()
    await rounds.runs()


async def late_watch(victim: Victim, seed: str, part: Part) -> None:
    """A watch gives the traffic back after a new deployment took it."""
    rounds = Races(victim, seed, part)
    await rounds.prepare()
    await rounds.settle(at_lock=True)


@dataclass(frozen=True)
class Mutant:
    """One precaution less.

    :ivar file: in which it is, below plugins/module_utils
    :ivar text: what is replaced there, once
    :ivar sign: a part of what must be found
    :ivar noticed_by: what must find it
    """

    name: str
    file: str
    text: str
    replacement: str
    sign: str
    noticed_by: Callable[[Victim, str, Part], Awaitable[None]]


MUTANTS = (
    Mutant(
        "without fsync",
        "release_host.py",
        "            os.fsync(stream.fileno())\n",
        "",
        "right after: ",
        power_cut_after_the_switch,
    ),
    Mutant(
        "without the lock of all runs",
        "release_host.py",
        "fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        "the second run released while the first one did",
        two_runs,
    ),
    Mutant(
        "without the comparison before the rename",
        "release_host.py",
        "        if app.live() == name:\n            previous = give_verdict",
        "        if True:\n            previous = give_verdict",
        "right after: ",
        late_watch,
    ),
)


def grow(mutant: Mutant) -> Path:
    """Write the collection as the mutant has it; returns its collections path.

    :raises ValueError: the text to replace is not there just once
    """
    path = TREES / mutant.name.replace(" ", "-")
    tree = path / "ansible_collections" / "flaskfleet" / "deploy"
    shutil.rmtree(path, ignore_errors=True)
    tree.mkdir(parents=True)
    for name in PARTS:
        source = PROJECT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tree / name)
    file = tree / "plugins" / "module_utils" / mutant.file
    text = file.read_text()
    if text.count(mutant.text) != 1:
        raise ValueError(f"{mutant.name}: {mutant.file} has its text {text.count(mutant.text)} times")
    file.write_text(text.replace(mutant.text, mutant.replacement))
    return path


async def hunt(victim: Victim, seed: str, part: Part) -> None:
    """Every mutant in turn on one host: what should notice it must, and must find nothing without it."""
    whole = victim.environment["ANSIBLE_COLLECTIONS_PATH"]
    for mutant in MUTANTS:
        await victim.settled(State())
        found = Part(f"{mutant.name}, control")
        await mutant.noticed_by(victim, seed, found)
        false = [problem for each in found.failures for problem in each["problems"]]
        await victim.settled(State())
        victim.environment["ANSIBLE_COLLECTIONS_PATH"] = str(grow(mutant))
        found = Part(mutant.name)
        try:
            await mutant.noticed_by(victim, seed, found)
        finally:
            victim.environment["ANSIBLE_COLLECTIONS_PATH"] = whole
            await victim.wiped()
        problems = [problem for each in found.failures for problem in each["problems"]]
        noticed = [problem for problem in problems if mutant.sign in problem]
        wrong = [f"without it: {problem}" for problem in false] + ["was not noticed"] * (not noticed)
        part.add(victim.name, f"mutant {mutant.name}", wrong, struck="mutant")
        for problem in problems:
            part.note(f"{victim.name}, {mutant.name}: {problem[:300]}")
