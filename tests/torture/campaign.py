#!/usr/bin/env python3
# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Torture: interrupt, break and disturb deployments in every way; the apps must serve, and the next run finish.

Makes hosts of its own and removes them. Writes .cache/reports/torture.md and .json. Exits with 1 when it found
anything; README.md in this folder says what is done, and how to repeat a round.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import random
import sys
import traceback
from collections.abc import Awaitable, Sequence
from typing import TypeVar

import mutants as mutants_of
import victims
from drift import DRIFTS, Drifts
from faults import FAULTS, Faults
from kills import ACTIONS, Kills
from races import Races
from reboot import Reboot
from report import Part, Report
from soak import Soak
from victims import LAB, PROJECT, Victim

Choice = TypeVar("Choice")


async def kills(host: Victim, options: argparse.Namespace, report: Report, part: Part) -> None:
    rounds = Kills(host, options.seed, part, options.actions)
    await rounds.prepare()
    for _number in range(2 * options.kills):
        if sum(rounds.struck.values()) >= options.kills:
            break
        await guarded(host, part, rounds.round())
        report.write()
    places = [place for found in rounds.places.values() for place in found]
    reached = sum(bool(rounds.struck[place]) for place in places)
    part.note(f"{host.name}: {reached} of {len(places)} places were struck at least once")


async def drift(host: Victim, options: argparse.Namespace, report: Report, part: Part) -> None:
    rounds = Drifts(host, part)
    await rounds.prepare()
    for each in selection(DRIFTS, options.drifts, options, host):
        await guarded(host, part, rounds.round(each))
        report.write()
    await rounds.end()


async def faults(host: Victim, options: argparse.Namespace, report: Report, part: Part) -> None:
    rounds = Faults(host, options.seed, part)
    await rounds.prepare()
    for each in selection(FAULTS, options.faults, options, host):
        await guarded(host, part, rounds.round(each))
        report.write()
    for _number in range(options.full_disks):
        await guarded(host, part, rounds.full_at_a_step())
        report.write()


async def races(host: Victim, options: argparse.Namespace, report: Report, part: Part) -> None:
    rounds = Races(host, options.seed, part)
    await rounds.prepare()
    for number in range(options.races):
        await guarded(host, part, (rounds.runs, rounds.settle, rounds.rollback)[number % 3]())
        report.write()


async def reboot(host: Victim, options: argparse.Namespace, report: Report, part: Part) -> None:
    await Reboot(host, part).round()


async def soak(host: Victim, options: argparse.Namespace, report: Report, part: Part) -> None:
    rounds = Soak(host, part)
    await rounds.deployments(options.soak)
    report.write()
    await rounds.crowd(options.crowd)


async def mutants(host: Victim, options: argparse.Namespace, report: Report, part: Part) -> None:
    await mutants_of.hunt(host, options.seed, part)


REPORTS = PROJECT / ".cache" / "reports"
# In this order: the faults put the apps onto a small file system, which is gone after a reboot.
PARTS = {
    "kills": kills,
    "races": races,
    "mutants": mutants,
    "drift": drift,
    "reboot": reboot,
    "soak": soak,
    "faults": faults,
}

# Enough to see that the campaign works, and something different on each host.
QUICK = {"seed": "quick", "parts": ["kills", "drift"], "actions": ["deploy", "rollback"]}
QUICK |= {"kills": 4, "drifts": 5}


def selection(choices: Sequence[Choice], count: int | None, options: argparse.Namespace, host: Victim) -> list[Choice]:
    """As many of the choices as were asked for, all when that is None; other ones on each host."""
    chosen = list(choices)
    if count is not None:
        random.Random(f"{options.seed} {host.name}").shuffle(chosen)
    return chosen[:count]


async def guarded(host: Victim, part: Part, one: Awaitable[None]) -> None:
    """A round that ends with an exception is a finding, and no reason to leave the next ones out."""
    try:
        await one
    except Exception:
        part.add(host.name, "the round was not finished", [traceback.format_exc()])
        await host.reboot()  # what was halted is gone then
        await host.arm()


async def carry_out(name: str, hosts: list[Victim], options: argparse.Namespace, report: Report) -> None:
    """One part, on all hosts side by side."""
    part = report.part(name)

    async def on(host: Victim) -> None:
        try:
            await PARTS[name](host, options, report, part)
        except Exception:  # the other host goes on
            part.add(host.name, "the part was not finished", [traceback.format_exc()])

    await asyncio.gather(*map(on, hosts))
    report.write()


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", default=datetime.date.today().isoformat(), help="of all choices (default: the date)")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS), help="(default: all)")
    parser.add_argument("--hosts", nargs="*", help="names in the inventory (default: all)")
    parser.add_argument("--kills", type=int, default=160, help="on each host (default: %(default)s)")
    parser.add_argument("--drifts", type=int, help="how many kinds of drift on each host (default: all)")
    parser.add_argument("--faults", type=int, help="how many kinds of faults on each host (default: all)")
    parser.add_argument(
        "--actions", nargs="*", choices=ACTIONS, default=list(ACTIONS), help="to kill in (default: all)"
    )
    parser.add_argument("--races", type=int, default=24, help="of two at once on each host (default: %(default)s)")
    parser.add_argument("--full-disks", type=int, default=12, help="disks that run full (default: %(default)s)")
    parser.add_argument("--soak", type=int, default=500, help="deployments on each host (default: %(default)s)")
    parser.add_argument("--crowd", type=float, default=60, help="minutes with many apps (default: %(default)s)")
    parser.add_argument("--go-on", action="store_true", help="add these parts to the report that is there")
    parser.add_argument("--keep", action="store_true", help="use hosts that are there, and let them be")
    parser.add_argument("--quick", action="store_true", help="what make test runs, in a few minutes")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(QUICK)
    kinds = await victims.machines.kinds_of_hosts()
    if options.go_on:
        options.seed = Report.seed_of(REPORTS)
    commit = (await victims.machines.output_of("git", "-C", PROJECT, "describe", "--always", "--dirty")).strip()
    report = Report(REPORTS, {"seed": options.seed, "hosts": ", ".join(kinds)}, commit)
    if options.go_on:
        report.take_up(options.parts)
    print("\n".join(["torture:", f"  seed: {options.seed}", *(f"  {kind}" for kind in kinds)]), flush=True)
    if not options.keep:
        await LAB.destroy()
    found = await LAB.create()
    try:
        gateway = found[0].gateway
        hosts = [Victim(each, gateway) for each in found if not options.hosts or each.name in options.hosts]
        for host in hosts:
            if options.keep:
                await host.reboot()  # an earlier campaign may have left a halted run
            await host.install_trap()
        for name in options.parts:
            await carry_out(name, hosts, options, report)
    finally:
        if not options.keep:
            await LAB.destroy()
    print(f"torture: {'FAILED' if report.failed else 'passed'}, see {report.folder}/torture.md", flush=True)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
