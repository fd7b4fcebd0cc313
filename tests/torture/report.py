# Copyright: (c) 2026, flaskfleet.deploy contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a campaign did and found, as Markdown and JSON, written anew after each round: a campaign may be interrupted."""

from __future__ import annotations

import collections
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Part:
    """One part of a campaign: its rounds on all hosts.

    :ivar rounds: [{host, label, struck, problems, hit, requests, failed, away, slowest, at}]; ``away``, ``slowest`` and
        ``at`` in seconds
    :ivar commit: of the collection
    """

    name: str
    commit: str = ""
    rounds: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    quotes: list[dict] = field(default_factory=list)
    started: float = field(default_factory=time.time)

    def add(self, host: str, label: str, problems: list[str], struck: str = "", watches=(), hit: bool = False) -> None:
        """Record a round and say it. ``hit``: requests may fail in it, since what serves was struck."""
        entry = {"host": host, "label": label, "struck": struck, "problems": problems, "hit": hit}
        entry["requests"] = sum(watch.requests for watch in watches)
        entry["failed"] = sum(watch.failed for watch in watches)
        entry["slowest"] = round(max((max(watch.report.seconds, default=0.0) for watch in watches), default=0.0), 2)
        entry["away"] = round(max((watch.away for watch in watches), default=0.0), 2)
        entry["at"] = round(time.time() - self.started, 1)
        self.rounds.append(entry)
        word = "FAILED" if problems else "ok" if struck else "ok (not reached)"
        print(f"{self.name} {len(self.rounds)} {host} {label}: {word}", flush=True)
        for problem in problems:
            print(f"    {problem}", flush=True)

    def quote(self, host: str, label: str, text: str) -> None:
        """Keep what a run said, for people to judge."""
        self.quotes.append({"host": host, "label": label, "text": text})

    def note(self, text: str) -> None:
        """Something to look at that is no failure."""
        self.notes.append(text)
        print(f"    note: {text}", flush=True)

    @property
    def failures(self) -> list[dict]:
        return [each for each in self.rounds if each["problems"]]

    def table(self) -> list[str]:
        """Lines of Markdown: one row a host."""
        titles = (
            "host",
            "rounds",
            "struck",
            "requests",
            "failed, server not hit",
            "failed, server hit",
            "longest away",
            "slowest answer, server not hit",
        )
        lines = [f"| {' | '.join(titles)} | rounds with findings |", "|---" * (len(titles) + 1) + "|"]
        for host in sorted({each["host"] for each in self.rounds}):
            rounds = [each for each in self.rounds if each["host"] == host]
            calm, hit = ([each for each in rounds if each["hit"] is wanted] for wanted in (False, True))
            cells = [
                host,
                len(rounds),
                sum(bool(each["struck"]) for each in rounds),
                sum(each["requests"] for each in rounds),
            ]
            cells += [sum(each["failed"] for each in group) for group in (calm, hit)]
            cells += [
                f"{max((each['away'] for each in hit), default=0)} s",
                f"{max((each['slowest'] for each in calm), default=0)} s",
                sum(bool(each["problems"]) for each in rounds),
            ]
            lines.append(f"| {' | '.join(map(str, cells))} |")
        return lines


class Report:
    """The whole campaign.

    :param commit: of the collection
    :ivar seconds: that it took so far, in earlier sittings
    """

    def __init__(self, folder: Path, heading: dict[str, object], commit: str) -> None:
        self.folder = folder
        self.heading = heading
        self.commit = commit
        self.parts: list[Part] = []
        self.seconds = 0
        self.started = time.time()

    @staticmethod
    def seed_of(folder: Path) -> str:
        """The seed of the report that is there."""
        return json.loads((folder / "torture.json").read_text())["seed"]

    def take_up(self, without: Sequence[str]) -> None:
        """Go on with the report that is there, of the same campaign, but for these parts.

        :raises ValueError: it is of another one
        """
        found = json.loads((self.folder / "torture.json").read_text())
        if any(found[key] != value for key, value in self.heading.items()):
            raise ValueError(f"the report in {self.folder} is of another campaign: {found['seed']}, {found['hosts']}")
        self.seconds = found["seconds"]
        self.parts = [Part(**each) for each in found["parts"] if each["name"] not in without]

    def part(self, name: str) -> Part:
        """Begin a part."""
        self.parts.append(Part(name, self.commit))
        return self.parts[-1]

    @property
    def failed(self) -> bool:
        return any(part.failures for part in self.parts)

    def write(self) -> None:
        """Write torture.md and torture.json."""
        self.folder.mkdir(parents=True, exist_ok=True)
        data = {**self.heading, "seconds": self.seconds + round(time.time() - self.started)}
        kept = ("name", "commit", "rounds", "notes", "quotes")
        data["parts"] = [{key: getattr(part, key) for key in kept} for part in self.parts]
        (self.folder / "torture.json").write_text(json.dumps(data, indent=1) + "\n")
        (self.folder / "torture.md").write_text("\n".join(self._markdown(data["seconds"])) + "\n")

    def _markdown(self, seconds: int) -> list[str]:
        lines = ["# Torture", "", *(f"- {key}: {value}" for key, value in self.heading.items())]
        lines.append(f"- took {seconds} s")
        for part in self.parts:
            lines += ["", f"## {part.name}, of {part.commit}", "", *part.table()]
            blows = collections.Counter(each["struck"] for each in part.rounds if each["struck"])
            lines += (
                ["", "struck: " + ", ".join(f"{count} {blow}" for blow, count in sorted(blows.items()))]
                if blows
                else []
            )
            for each in part.failures:
                lines += [
                    "",
                    f"- **{each['host']}, {each['label']}**",
                    *(f"  - {problem}" for problem in each["problems"]),
                ]
            lines += [f"- {note}" for note in part.notes]
        return lines
